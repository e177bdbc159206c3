//! Owns data sets in the forms of other tools: documents as text again, or tokens in another layout; never changes the
//! data set.
//!
//! What is written appears under its name only when it is whole.

mod documents;
mod layouts;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::dataset::{Component, DataError, Dataset};
use crate::manifest::Split;
use crate::shard::sidecar::DocumentFacts;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One JSON object a document, with its text and labels; `.gz` and `.zst` are compressed.
    Jsonl,
    /// The same as a Parquet table.
    Parquet,
    /// The same as a folder `documents/SOURCE/*.jsonl.gz` in the layout of dolma.
    Dolma,
    /// Plain text, an empty line between documents.
    Text,
    /// Token files and indices of Megatron-LM, one pair a split, language and source.
    Megatron,
    /// Token files and indices of datatrove, one set a split, language and source.
    Datatrove,
}

/// Which documents to convert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only this split.
    pub split: Option<Split>,
    /// Only this language and script.
    pub lang: Option<String>,
    /// Only this corpus.
    pub source: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converted {
    /// Documents.
    pub documents: u64,
    /// Tokens, special ones included.
    pub tokens: u64,
    /// Files.
    pub files: u64,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The data set cannot be read, or the disk refuses.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer cannot turn tokens into text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The output is there already.
    #[error("{}: is there already; remove it, or choose another `--out`", .path.display())]
    Taken {
        /// The output.
        path: PathBuf,
    },
    /// A choice that no document fits.
    #[error("{}: no document fits the choice; its streams are {}", .dir.display(), .streams.join(", "))]
    Nothing {
        /// The data set.
        dir: PathBuf,
        /// Its streams.
        streams: Vec<String>,
    },
}

/// How far a conversion has come: documents so far, and all of them.
pub type Observer<'a> = &'a dyn Fn(u64, u64);

/// A document as text.
pub(crate) struct TextRow {
    pub facts: DocumentFacts,
    pub split: Split,
    pub text: String,
}

/// Documents turned into text at a time.
const CHUNK_DOCUMENTS: usize = 4096;
/// Tokens turned into text at a time; bounds the memory of long documents.
const CHUNK_TOKENS: u64 = 4 << 20;

/// The data set being converted.
pub(crate) struct Job<'a> {
    dataset: &'a Dataset,
    components: Vec<&'a Component>,
    observe: Observer<'a>,
    stop: &'a AtomicBool,
    done: Converted,
    total: u64,
}

/// Writes the documents of `dataset` that `choice` names to `out`, a file or a folder as the form asks.
///
/// # Errors
/// See [`ConvertError`]; `out` does not exist then.
pub fn convert(
    dataset: &Dataset,
    target: Target,
    out: &Path,
    choice: &Choice,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Converted, ConvertError> {
    if out.exists() {
        return Err(ConvertError::Taken { path: out.to_owned() });
    }
    let mut job = Job::new(dataset, choice, observe, stop)?;
    let temporary = temporary(out);
    let written = job.write(target, out, &temporary).and_then(|()| {
        std::fs::rename(&temporary, out).map_err(DataError::io(out, "written"))?;
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(crate::shard::sync_folder(parent)?)
    });
    if written.is_err() {
        // Whatever it is, it is half of something.
        _ = std::fs::remove_file(&temporary);
        _ = std::fs::remove_dir_all(&temporary);
    }
    written?;
    Ok(job.done)
}

/// Writes the documents of `dataset` that `choice` names as lines of JSON, or as text, to `sink`.
///
/// # Errors
/// See [`ConvertError`]; what was written so far stays.
pub fn stream(
    dataset: &Dataset,
    target: Target,
    sink: &mut dyn std::io::Write,
    choice: &Choice,
    stop: &AtomicBool,
) -> Result<Converted, ConvertError> {
    let mut job = Job::new(dataset, choice, &|_, _| {}, stop)?;
    let failed = |source| DataError::Io { path: PathBuf::from("-"), action: "written", source };
    job.texts(&mut |rows| rows.iter().try_for_each(|row| documents::write(target, row, sink).map_err(failed)))?;
    job.done.files = 1;
    Ok(job.done)
}

fn temporary(out: &Path) -> PathBuf {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    out.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

impl<'a> Job<'a> {
    fn new(
        dataset: &'a Dataset,
        choice: &Choice,
        observe: Observer<'a>,
        stop: &'a AtomicBool,
    ) -> Result<Self, ConvertError> {
        let fits = |component: &&Component| {
            choice.split.is_none_or(|split| split == component.split())
                && choice.lang.as_ref().is_none_or(|lang| lang == component.lang())
                && choice.source.as_ref().is_none_or(|source| source == component.source())
        };
        let all = || dataset.train().iter().chain(dataset.validation());
        let components: Vec<&Component> = all().filter(fits).collect();
        if components.is_empty() {
            let mut streams: Vec<String> = all().map(Component::name).collect();
            streams.dedup();
            return Err(ConvertError::Nothing { dir: dataset.dir().to_owned(), streams });
        }
        let total = components.iter().map(|component| component.num_documents()).sum();
        Ok(Self { dataset, components, observe, stop, done: Converted::default(), total })
    }

    fn write(&mut self, target: Target, out: &Path, temporary: &Path) -> Result<(), ConvertError> {
        match target {
            Target::Jsonl | Target::Text => documents::file(self, target, out, temporary),
            Target::Parquet => table::file(self, temporary),
            Target::Dolma => documents::dolma(self, temporary),
            Target::Megatron | Target::Datatrove => layouts::folder(self, target, temporary),
        }
    }

    /// Hands all documents to `each` in the order of the data set, some at a time, turned into text on all threads.
    fn texts(&mut self, each: &mut dyn FnMut(&[TextRow]) -> Result<(), DataError>) -> Result<(), ConvertError> {
        for component in self.components.clone() {
            self.texts_of(component, each)?;
        }
        Ok(())
    }

    /// [`Job::texts`] of one component.
    fn texts_of(
        &mut self,
        component: &Component,
        each: &mut dyn FnMut(&[TextRow]) -> Result<(), DataError>,
    ) -> Result<(), ConvertError> {
        let tokenizer = Tokenizer::open(&self.dataset.tokenizer_file())?;
        // Of texts the tokens around a document are ours; of chats the marks between turns are the text.
        let skip_special = self.dataset.manifest().chat.is_none();
        let mut held: Vec<(DocumentFacts, Vec<u32>)> = Vec::new();
        let mut tokens = 0;
        let mut failure = None;
        let mut flush = |held: &mut Vec<(DocumentFacts, Vec<u32>)>, job: &mut Self| -> Result<(), ConvertError> {
            let rows = std::mem::take(held).into_par_iter().map(|(facts, ids)| {
                let text = tokenizer.decode(&ids, skip_special)?;
                Ok(TextRow { facts, split: component.split(), text })
            });
            let rows = rows.collect::<Result<Vec<TextRow>, TokenizerError>>()?;
            each(&rows)?;
            rows.iter().for_each(|row| job.count(row.facts.tokens));
            (job.observe)(job.done.documents, job.total);
            if job.stop.load(Ordering::Relaxed) { Err(DataError::Stopped.into()) } else { Ok(()) }
        };
        let scanned = component.scan(&mut |_, facts, reader, range| {
            let mut ids = vec![0; (range.end - range.start) as usize];
            reader.read(range.start, &mut ids);
            tokens += facts.tokens;
            held.push((facts, ids));
            if held.len() >= CHUNK_DOCUMENTS || tokens >= CHUNK_TOKENS {
                tokens = 0;
                if let Err(error) = flush(&mut held, self) {
                    failure = Some(error);
                    return Err(DataError::Stopped);
                }
            }
            Ok(())
        });
        if let Some(error) = failure {
            return Err(error);
        }
        scanned?;
        flush(&mut held, self)
    }

    fn count(&mut self, tokens: u64) {
        self.done.documents += 1;
        self.done.tokens += tokens;
    }
}

/// A name that is safe as that of a file: letters, digits, `.`, `_` and `-` stay.
pub(crate) fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let name: String = name.trim_start_matches('.').chars().map(safe).take(80).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_folder() {
        assert_eq!(file_name("../a b/ç"), "_a_b_ç");
        assert_eq!(file_name(".."), "_");
        assert_eq!(file_name("doda-mit"), "doda-mit");
    }
}
