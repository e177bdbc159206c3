//! Owns the layout of Dolma corpora: finding the attributes of a file of documents, and joining them to its rows by `id`;
//! never interprets an attribute.
//!
//! `documents/a/x.jsonl.gz` has its attributes in `attributes/NAME/a/x.jsonl.gz`, a file for each tagger, with rows
//! `{"id": ..., "attributes": {...}}`, as a rule in the order of the documents.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::error::SourceError;
use super::jsonl::{LineCutter, lines};
use super::row::{Chunk, Place};
use super::stream::StoredDigest;
use super::window::Window;

/// Folder of documents, and beside it that of attributes.
const DOCUMENTS: &str = "documents";
const ATTRIBUTES: &str = "attributes";
/// Attributes that wait for their document, of one file, in bytes: so far may its order differ from that of the documents.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The files of attributes that belong to a file of documents.
pub(super) fn attribute_files(documents: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in documents.ancestors().skip(1).filter(|folder| folder.file_name().is_some_and(|n| n == DOCUMENTS)) {
        let (Some(root), Ok(below)) = (folder.parent(), documents.strip_prefix(folder)) else { continue };
        let Ok(taggers) = std::fs::read_dir(root.join(ATTRIBUTES)) else { continue };
        let files = taggers.flatten().map(|tagger| tagger.path().join(below)).filter(|path| path.is_file());
        found.extend(files);
        break;
    }
    found.sort();
    found
}

/// Whether a field's name is that of an attribute.
pub(super) fn is_attribute(name: &str) -> bool {
    name.strip_prefix(ATTRIBUTES).is_some_and(|rest| rest.starts_with('.'))
}

/// Documents as lines with their attributes in them, under the key `attributes`.
pub(crate) struct AttributeJoin {
    documents: LineCutter,
    sides: Vec<Side>,
}

/// One file of attributes.
struct Side {
    rows: LineCutter,
    /// Rows read and not looked at, the next one last.
    ready: Vec<(String, usize, Map<String, Json>)>,
    /// Rows whose document has not come yet, with their size.
    waiting: HashMap<String, (usize, Map<String, Json>)>,
    waiting_bytes: usize,
    /// There was no room for more.
    full: bool,
}

#[derive(Deserialize)]
struct Row {
    id: Json,
    #[serde(default)]
    attributes: Map<String, Json>,
}

#[derive(Deserialize)]
struct Named {
    id: Json,
}

impl AttributeJoin {
    pub fn new(documents: LineCutter, attributes: Vec<LineCutter>) -> AttributeJoin {
        let side = |rows| Side { rows, ready: Vec::new(), waiting: HashMap::new(), waiting_bytes: 0, full: false };
        AttributeJoin { documents, sides: attributes.into_iter().map(side).collect() }
    }

    pub fn window(&self) -> &Window {
        self.documents.window()
    }

    /// The next documents, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let Chunk::Lines { bytes, first, rejects } = self.documents.next_chunk()? else { return None };
        let mut joined = Vec::with_capacity(bytes.len() * 2);
        for (_, line) in lines(&bytes, first) {
            self.join(line, &mut joined);
            joined.push(b'\n');
        }
        // Lines are longer than in the file: their places are rows alone.
        Some(Chunk::Lines { bytes: joined, first: Place { byte: None, ..first }, rejects })
    }

    fn join(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut attributes = Map::new();
        if let Ok(Named { id }) = serde_json::from_slice(line) {
            let id = id.to_string();
            for side in &mut self.sides {
                attributes.extend(side.take(&id).unwrap_or_default());
            }
        }
        if attributes.is_empty() {
            return out.extend_from_slice(line);
        }
        let head = line.trim_ascii_end().strip_suffix(b"}").unwrap_or_default().trim_ascii_end();
        if memchr::memmem::find(line, b"\"attributes\"").is_some() {
            return join_own(line, attributes, out);
        }
        out.extend_from_slice(head);
        out.extend_from_slice(if head.ends_with(b"{") { b"\"attributes\":" } else { b",\"attributes\":" });
        out.extend_from_slice(Json::Object(attributes).to_string().as_bytes());
        out.push(b'}');
    }

    /// The stored documents' digest; the first failure of any file.
    pub fn finish(self) -> Result<(StoredDigest, Option<SourceError>), SourceError> {
        let mut damage = None;
        for side in self.sides {
            damage = damage.or(side.finish()?);
        }
        match self.documents.into_window().finish() {
            Ok(stored) => Ok((stored, damage)),
            Err((error, Some(stored))) => Ok((stored, Some(error))),
            Err((error, None)) => Err(error),
        }
    }
}

/// A row that has attributes of its own gets the others among them.
fn join_own(line: &[u8], attributes: Map<String, Json>, out: &mut Vec<u8>) {
    let Ok(mut row) = serde_json::from_slice::<Map<String, Json>>(line) else { return out.extend_from_slice(line) };
    match row.get_mut(ATTRIBUTES) {
        Some(Json::Object(own)) => own.extend(attributes),
        _ => _ = row.insert(ATTRIBUTES.to_owned(), Json::Object(attributes)),
    }
    out.extend_from_slice(Json::Object(row).to_string().as_bytes());
}

impl Side {
    /// The attributes of a document.
    fn take(&mut self, id: &str) -> Option<Map<String, Json>> {
        if let Some((size, found)) = self.waiting.remove(id) {
            self.waiting_bytes -= size;
            return Some(found);
        }
        while self.waiting_bytes < MAX_WAITING_BYTES {
            let (name, size, attributes) = self.next_row()?;
            if name == id {
                return Some(attributes);
            }
            self.waiting_bytes += size;
            if let Some((size, _)) = self.waiting.insert(name, (size, attributes)) {
                self.waiting_bytes -= size;
            }
        }
        self.full = true;
        None
    }

    fn next_row(&mut self) -> Option<(String, usize, Map<String, Json>)> {
        while self.ready.is_empty() {
            let Chunk::Lines { bytes, first, .. } = self.rows.next_chunk()? else { return None };
            let row = |(_, line): (Place, &[u8])| {
                let Row { id, attributes } = serde_json::from_slice(line).ok()?;
                Some((id.to_string(), line.len(), attributes))
            };
            self.ready = lines(&bytes, first).filter_map(row).collect();
            self.ready.reverse();
        }
        self.ready.pop()
    }

    fn finish(self) -> Result<Option<SourceError>, SourceError> {
        let window = self.rows.into_window();
        let (path, byte) = (window.stream().path().to_owned(), window.stream().stored_bytes());
        match window.finish() {
            Ok(_) if self.full && !self.waiting.is_empty() => {
                let what = "its rows are in another order than their documents".to_owned();
                Ok(Some(SourceError::Damaged { path, byte, what, rows: 0 }))
            }
            Ok(_) => Ok(None),
            Err((damage, Some(_))) => Ok(Some(damage)),
            Err((error, None)) => Err(error),
        }
    }
}
