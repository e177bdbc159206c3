//! Owns web archives: cutting a stream into WARC records under limits and finding the next one after damage; never reads
//! what a record holds.

use std::sync::Arc;

use super::discover::SourceSpec;
use super::http::{MAX_HEADER_BYTES, fields};
use super::jsonl::CHUNK_BYTES;
use super::page::{PageChunk, Record, RecordKind};
use super::row::{Chunk, Place, Reason, Reject, excerpt};
use super::window::Window;

/// What a record begins with.
const VERSION: &[u8] = b"WARC/";

/// Cuts a WARC stream into records.
pub(crate) struct RecordReader {
    window: Window,
    max_record: usize,
    whole: bool,
    spec: Arc<SourceSpec>,
    rows: u64,
}

impl RecordReader {
    pub fn new(window: Window, max_record: usize, spec: Arc<SourceSpec>, whole: bool) -> RecordReader {
        RecordReader { window, max_record, whole, spec, rows: 0 }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next pages, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let mut chunk = PageChunk::new(Arc::clone(&self.spec), self.max_record, self.whole);
        let start = self.window.offset();
        while self.window.offset() - start < CHUNK_BYTES as u64 && self.next_record(&mut chunk) {}
        if chunk.is_empty() && !self.window.data().is_empty() {
            // Nothing but records that are no pages, and the file goes on.
            return self.next_chunk_after(chunk);
        }
        (!chunk.is_empty()).then_some(Chunk::Pages(chunk))
    }

    fn next_chunk_after(&mut self, mut chunk: PageChunk) -> Option<Chunk> {
        while chunk.is_empty() && self.next_record(&mut chunk) {}
        (!chunk.is_empty()).then_some(Chunk::Pages(chunk))
    }

    /// Takes, rejects or passes over a record; false at the end.
    fn next_record(&mut self, chunk: &mut PageChunk) -> bool {
        self.skip_line_ends();
        if self.window.data().is_empty() {
            return false;
        }
        let offset = self.window.offset();
        let Some((head, length)) = self.header() else {
            self.reject(offset, self.reason(Reason::BadWebRecord), chunk);
            self.resync();
            return true;
        };
        let (mut record, kept) = record(&head, Place { row: 0, byte: Some(offset) });
        self.window.consume(head.len());
        if !kept {
            self.skip(length);
            return true;
        }
        if length > self.max_record as u64 {
            self.reject(offset, Reason::RecordTooLarge, chunk);
            self.skip(length);
            return true;
        }
        let length = length as usize;
        self.window.fill_to(length);
        let Some(content) = self.window.data().get(..length) else {
            self.reject(offset, self.reason(Reason::BadWebRecord), chunk);
            self.window.consume(self.window.data().len());
            return true;
        };
        self.rows += 1;
        record.place.row = self.rows;
        chunk.push(record, content);
        self.window.consume(length);
        true
    }

    /// The record that the end of a damaged stream cuts is damaged itself.
    fn reason(&self, otherwise: Reason) -> Reason {
        if self.window.cut() { Reason::Damaged } else { otherwise }
    }

    fn skip_line_ends(&mut self) {
        loop {
            let blank = self.window.data().iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
            self.window.consume(blank);
            if !self.window.data().is_empty() || !self.window.fill() && self.window.data().is_empty() {
                return;
            }
        }
    }

    /// The header block that the bytes at hand begin with, its blank line included, and the length of the content.
    fn header(&mut self) -> Option<(Vec<u8>, u64)> {
        self.window.fill_to(VERSION.len());
        if !self.window.data().starts_with(VERSION) {
            return None;
        }
        let mut searched = 0;
        let end = loop {
            let data = self.window.data();
            if let Some(end) = blank_line(data, searched) {
                break end;
            }
            if data.len() > MAX_HEADER_BYTES {
                return None;
            }
            searched = data.len().saturating_sub(3);
            if !self.window.fill() {
                return None;
            }
        };
        let head = self.window.data().get(..end)?.to_vec();
        let length =
            fields(&head).find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok())?;
        Some((head, length))
    }

    fn reject(&mut self, offset: u64, reason: Reason, chunk: &mut PageChunk) {
        self.rows += 1;
        let place = Place { row: self.rows, byte: Some(offset) };
        chunk.rejects.push(Reject { place, reason, excerpt: excerpt(self.window.data()) });
    }

    /// Consumes so many bytes, holding no more than one read.
    fn skip(&mut self, mut length: u64) {
        while length > 0 {
            let at_hand = self.window.data().len();
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(at_hand);
            self.window.consume(step);
            length -= step as u64;
            if length > 0 && !self.window.fill() && self.window.data().is_empty() {
                return;
            }
        }
    }

    /// Goes to the next line that begins as a record does.
    fn resync(&mut self) {
        loop {
            let data = self.window.data();
            let found = memchr::memmem::find_iter(data, b"\nWARC/").next();
            if let Some(at) = found {
                self.window.consume(at + 1);
                return;
            }
            // The mark may straddle the bytes at hand and those to come.
            self.window.consume(data.len().saturating_sub(VERSION.len()));
            let held = self.window.data().len();
            if !self.window.fill() && self.window.data().len() == held {
                self.window.consume(held);
                return;
            }
        }
    }
}

/// End of the first blank line, searched from `from`.
fn blank_line(data: &[u8], from: usize) -> Option<usize> {
    let rest = data.get(from..)?;
    memchr::memchr_iter(b'\n', rest).find_map(|at| match rest.get(at + 1..) {
        Some([b'\r', b'\n', ..]) => Some(from + at + 3),
        Some([b'\n', ..]) => Some(from + at + 2),
        _ => None,
    })
}

/// What the header says of a record, and whether it can hold a page.
fn record(head: &[u8], place: Place) -> (Record, bool) {
    let mut record = Record { place, ..Record::default() };
    let mut kept = false;
    for (name, value) in fields(head) {
        match name.as_str() {
            "warc-type" => {
                let kind = match value.as_str() {
                    "response" => Some(RecordKind::Response),
                    "resource" | "conversion" => Some(RecordKind::Plain),
                    _ => None,
                };
                kept = kind.is_some();
                record.kind = kind.unwrap_or_default();
            }
            "warc-target-uri" => record.url = value.trim_matches(['<', '>']).to_owned(),
            "warc-date" => record.date = value,
            "warc-record-id" => record.id = value.trim_matches(['<', '>']).to_owned(),
            "content-type" => record.content_type = value,
            _ => {}
        }
    }
    // DNS answers and robots.txt files are no pages.
    kept &= !record.url.starts_with("dns:") && !record.url.ends_with("/robots.txt");
    (record, kept)
}
