//! Owns reading a list of files as one sequence of chunks; never interprets a row.

use std::ops::Range;
use std::path::PathBuf;

use super::arrow::BatchReader;
use super::csv::RecordCutter;
use super::discover::{InputFile, Layout};
use super::dolma::{AttributeJoin, is_attribute};
use super::encoding::{self, Transcoder};
use super::error::SourceError;
use super::json_array::ElementCutter;
use super::json_rows::JsonRows;
use super::jsonl::LineCutter;
use super::parquet::TableReader;
use super::row::Chunk;
use super::stream::{ByteStream, StoredDigest, digest_file};
use super::text::UnitCutter;
use super::warc::RecordReader;
use super::window::Window;
use crate::config::{Encoding, Limits};

/// What comes next out of the files.
pub(crate) enum Item {
    /// Rows of file number `file`.
    Chunk { file: usize, chunk: Chunk },
    /// The file has been read to its end, or to its damage.
    End(FileEnd),
}

/// A file that has been read.
pub(crate) struct FileEnd {
    pub file: usize,
    pub stored: StoredDigest,
    /// The encoding it was decoded from, `None` for UTF-8 and for formats that have none.
    pub encoding: Option<Encoding>,
    /// The damage that ended it.
    pub damage: Option<SourceError>,
}

/// All files, one after another.
pub(crate) struct Feed<'a> {
    files: &'a [InputFile],
    limits: &'a Limits,
    at: usize,
    /// Where to stop.
    end: usize,
    open: Option<Reader>,
    /// Stored bytes of the files that are done.
    done_bytes: u64,
}

enum Reader {
    Lines(LineCutter),
    Records(Box<RecordCutter>),
    Units(UnitCutter),
    Table(Box<TableReader>),
    /// Rows with nested columns, as lines.
    Objects(Box<JsonRows>),
    Elements(ElementCutter),
    Batches(Box<BatchReader>),
    Archive(RecordReader),
    /// Documents with their attributes.
    Joined(Box<AttributeJoin>),
    /// A file that is read with another one; here it is only digested.
    Beside(Window),
}

impl<'a> Feed<'a> {
    /// The files of `range`.
    pub fn new(files: &'a [InputFile], limits: &'a Limits, range: Range<usize>) -> Feed<'a> {
        let done_bytes = files.iter().take(range.start).map(|file| file.bytes).sum();
        Feed { files, limits, at: range.start, end: range.end, open: None, done_bytes }
    }

    /// The next chunk or file end, `None` after the last file.
    ///
    /// # Errors
    /// Everything that makes a file unreadable but damage, which comes as [`FileEnd::damage`].
    pub fn next(&mut self) -> Result<Option<Item>, SourceError> {
        let Some(file) = self.files.get(self.at).filter(|_| self.at < self.end) else { return Ok(None) };
        let mut reader = match self.open.take() {
            Some(reader) => reader,
            None => match Reader::open(file, self.limits) {
                Ok(reader) => reader,
                Err(damage @ SourceError::Damaged { .. }) => {
                    let stored = digest_file(&file.path)?;
                    return Ok(Some(self.end(stored, None, Some(damage))));
                }
                Err(error) => return Err(error),
            },
        };
        if let Some(chunk) = reader.next_chunk() {
            self.open = Some(reader);
            return Ok(Some(Item::Chunk { file: self.at, chunk }));
        }
        let encoding = reader.window().and_then(Window::transcoder).map(Transcoder::encoding);
        let (stored, damage) = reader.finish()?;
        Ok(Some(self.end(stored, encoding, damage)))
    }

    /// Stored bytes read so far, those of the files before the range included.
    pub fn stored_bytes(&self) -> u64 {
        self.done_bytes + self.open.as_ref().map_or(0, Reader::stored_bytes)
    }

    fn end(&mut self, stored: StoredDigest, encoding: Option<Encoding>, damage: Option<SourceError>) -> Item {
        let file = self.at;
        self.at += 1;
        self.done_bytes += stored.bytes;
        Item::End(FileEnd { file, stored, encoding, damage })
    }
}

impl Reader {
    fn open(file: &InputFile, limits: &Limits) -> Result<Reader, SourceError> {
        let (path, wanted) = (&file.path, &file.spec.wanted);
        // Bounded by `MAX_RECORD_BYTES`, so it fits any address space this runs in.
        let max_record = usize::try_from(limits.max_record_bytes).unwrap_or(usize::MAX);
        let nested = file.whole || !file.spec.config.kind.is_text();
        match file.layout {
            Layout::Parquet if nested => return Ok(Reader::Objects(Box::new(JsonRows::open(path, limits)?))),
            Layout::Parquet => return Ok(Reader::Table(Box::new(TableReader::open(path, wanted, limits)?))),
            _ => {}
        }
        let mut window = Window::new(ByteStream::open(path, file.compression, limits)?);
        match file.layout {
            Layout::Arrow => {
                return Ok(Reader::Batches(Box::new(BatchReader::new(window, limits, wanted, file.whole)?)));
            }
            Layout::Attributes => return Ok(Reader::Beside(window)),
            Layout::Warc => {
                let spec = std::sync::Arc::clone(&file.spec);
                return Ok(Reader::Archive(RecordReader::new(window, max_record, spec, file.whole)));
            }
            _ => {}
        }
        window.fill_to(encoding::SNIFF_BYTES);
        let head = window.data().get(..encoding::SNIFF_BYTES).unwrap_or_else(|| window.data());
        let detected = encoding::detect(path, head, file.spec.config.encoding)?;
        window.consume(detected.mark);
        if let Some(transcoder) = Transcoder::new(detected.encoding) {
            window.transcode(transcoder);
        }
        Ok(match file.layout {
            Layout::Json => Reader::Elements(ElementCutter::new(window, max_record)),
            Layout::Delimited(delimiter) => {
                Reader::Records(Box::new(RecordCutter::new(window, delimiter, max_record, wanted, file.whole)?))
            }
            Layout::Text(unit) => Reader::Units(UnitCutter::new(window, unit, max_record)),
            _ if joins(file) => {
                let documents = LineCutter::new(window, max_record);
                let open = |path: &PathBuf| {
                    let stream = ByteStream::open(path, file.compression, limits)?;
                    Ok(LineCutter::new(Window::new(stream), max_record))
                };
                let attributes = file.attributes.iter().map(open).collect::<Result<_, SourceError>>()?;
                Reader::Joined(Box::new(AttributeJoin::new(documents, attributes)))
            }
            _ => Reader::Lines(LineCutter::new(window, max_record)),
        })
    }

    fn next_chunk(&mut self) -> Option<Chunk> {
        match self {
            Reader::Lines(reader) => reader.next_chunk(),
            Reader::Records(reader) => reader.next_chunk().map(Chunk::Rows),
            Reader::Units(reader) => reader.next_chunk().map(Chunk::Rows),
            Reader::Table(reader) => reader.next_chunk().map(Chunk::Rows),
            Reader::Objects(reader) => reader.next_chunk(),
            Reader::Elements(reader) => reader.next_chunk(),
            Reader::Batches(reader) => reader.next_chunk(),
            Reader::Archive(reader) => reader.next_chunk(),
            Reader::Joined(reader) => reader.next_chunk(),
            Reader::Beside(_) => None,
        }
    }

    /// What a format that is read from front to back is cut from.
    fn window(&self) -> Option<&Window> {
        Some(match self {
            Reader::Lines(reader) => reader.window(),
            Reader::Records(reader) => reader.window(),
            Reader::Units(reader) => reader.window(),
            Reader::Elements(reader) => reader.window(),
            Reader::Batches(reader) => reader.window(),
            Reader::Archive(reader) => reader.window(),
            Reader::Joined(reader) => reader.window(),
            Reader::Beside(window) => window,
            Reader::Table(_) | Reader::Objects(_) => return None,
        })
    }

    fn stored_bytes(&self) -> u64 {
        match self {
            Reader::Table(reader) => reader.stored_bytes(),
            Reader::Objects(reader) => reader.stored_bytes(),
            other => other.window().map_or(0, |window| window.stream().stored_bytes()),
        }
    }

    fn finish(self) -> Result<(StoredDigest, Option<SourceError>), SourceError> {
        let window = match self {
            Reader::Lines(reader) => reader.into_window(),
            Reader::Records(reader) => reader.into_window(),
            Reader::Units(reader) => reader.into_window(),
            Reader::Elements(reader) => reader.into_window(),
            Reader::Archive(reader) => reader.into_window(),
            Reader::Beside(window) => window,
            Reader::Joined(reader) => return reader.finish(),
            Reader::Batches(reader) => {
                let (window, failure) = reader.into_parts();
                if let Some(failure) = failure {
                    let path = window.stream().path().to_owned();
                    return unless_bomb(digest_file(&path)?, Some(failure));
                }
                window
            }
            Reader::Table(reader) => {
                let stored = digest_file(reader.path())?;
                return unless_bomb(stored, reader.into_failure());
            }
            Reader::Objects(reader) => {
                let stored = digest_file(reader.path())?;
                return unless_bomb(stored, reader.into_failure());
            }
        };
        match window.finish() {
            Ok(stored) => Ok((stored, None)),
            Err((damage, Some(stored))) => Ok((stored, Some(damage))),
            Err((error, None)) => Err(error),
        }
    }
}

/// Whether the rows of a file are wanted with their attributes.
fn joins(file: &InputFile) -> bool {
    !file.attributes.is_empty() && (file.whole || file.spec.wanted.iter().any(|wanted| is_attribute(&wanted.name)))
}

fn unless_bomb(
    stored: StoredDigest,
    failure: Option<SourceError>,
) -> Result<(StoredDigest, Option<SourceError>), SourceError> {
    match failure {
        Some(error @ SourceError::Bomb { .. }) => Err(error),
        damage => Ok((stored, damage)),
    }
}
