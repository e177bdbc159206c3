//! Owns Arrow IPC: reading the messages of a file or stream from front to back under limits and handing out their rows;
//! never seeks, and never believes a length before the bytes are there.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{MessageHeader, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};

use super::arrow_json::{TextColumn, object};
use super::error::SourceError;
use super::jsonl::CHUNK_BYTES;
use super::parquet::{EXPANSION_GRACE_BYTES, check_expansion};
use super::row::{Chunk, LineChunk, Place, Reason, Reject, RowChunk, Slot, Wanted, excerpt};
use super::window::Window;
use crate::config::Limits;

/// What an Arrow file begins and ends with; a stream has no such mark.
const MAGIC: &[u8] = b"ARROW1";
/// Largest space between the mark and the first message that is looked at.
const MAX_PADDING_BYTES: usize = 4096;
/// Largest message header and largest footer, in bytes.
const MAX_METADATA_BYTES: usize = 16 << 20;
/// Largest record batch or dictionary, stored and decompressed, in bytes; and all dictionaries together.
const MAX_BATCH_BYTES: u64 = 1 << 30;
/// Rows that a batch may have whatever its size; beyond them a row needs at least a bit.
const FREE_ROWS: u64 = 1 << 20;

/// Cuts an Arrow file or stream into rows.
pub(crate) struct BatchReader {
    window: Window,
    limits: Limits,
    /// Whether the messages lie in a file with a footer.
    is_file: bool,
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: HashMap<i64, ArrayRef>,
    dictionary_bytes: u64,
    /// Slot, path of the column and whether it must be there; `None` for rows as lines of JSON.
    columns: Option<Vec<(Slot, Vec<usize>)>>,
    batch: Option<RecordBatch>,
    /// Next row of the batch.
    next: usize,
    batches: usize,
    rows: u64,
    produced: u64,
    ended: bool,
    failure: Option<SourceError>,
}

/// A message and its body.
struct Frame {
    metadata: Vec<u8>,
    body: Buffer,
}

impl BatchReader {
    /// Reads the schema. Rows hold the `wanted` columns or, when `whole`, all as lines of JSON.
    ///
    /// # Errors
    /// [`SourceError::Damaged`] unless the file begins with a schema, [`SourceError::MissingColumn`] and
    /// [`SourceError::ColumnType`] when a column that the configuration names is absent or no string.
    pub fn new(
        mut window: Window,
        limits: &Limits,
        wanted: &[Wanted],
        whole: bool,
    ) -> Result<BatchReader, SourceError> {
        window.fill_to(MAX_PADDING_BYTES);
        let is_file = window.data().starts_with(MAGIC);
        if window.data().starts_with(b"FEA1") {
            return Err(damaged(&window, "it is Feather version 1, which is not read; write it as Arrow or Parquet"));
        }
        if is_file {
            window.consume(MAGIC.len() + 2);
            // Some writers align the first message to more than eight bytes. No message begins with zeros.
            while window.data().starts_with(&[0; 8]) {
                window.consume(8);
            }
        }
        let first = match next_frame(&mut window) {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err("it holds no schema".to_owned()),
            Err(what) => Err(what),
        };
        let schema = first.and_then(|frame| fenced(|| schema_of(&frame)));
        let (schema, version) = match schema {
            Ok(found) => found,
            Err(what) => {
                let error = damaged(&window, &what);
                return Err(window.finish().err().map_or(error, |(failure, _)| failure));
            }
        };
        let path = window.stream().path();
        let columns = Some(columns(path, &schema, wanted)?).filter(|_| !whole);
        Ok(BatchReader {
            window,
            limits: limits.clone(),
            is_file,
            schema: Arc::new(schema),
            version,
            dictionaries: HashMap::new(),
            dictionary_bytes: 0,
            columns,
            batch: None,
            next: 0,
            batches: 0,
            rows: 0,
            produced: 0,
            ended: false,
            failure: None,
        })
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The stream, and what ended the rows before its end.
    pub fn into_parts(self) -> (Window, Option<SourceError>) {
        (self.window, self.failure)
    }

    /// The next rows, or `None` at the end or at a failure.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        loop {
            if let Some(batch) = self.batch.take() {
                let (chunk, taken) = match &self.columns {
                    Some(columns) => self.rows_of(&batch, columns),
                    None => self.lines_of(&batch),
                };
                self.rows += taken as u64;
                self.next += taken;
                if self.next < batch.num_rows() && self.failure.is_none() {
                    self.batch = Some(batch);
                }
                if let Some(chunk) = chunk {
                    self.count(&chunk);
                    return Some(chunk);
                }
            }
            if self.ended || self.failure.is_some() {
                return None;
            }
            if let Err(what) = self.next_batch() {
                self.ended = true;
                // A stream that failed says so itself.
                if !self.window.cut() {
                    self.failure = Some(damaged(&self.window, &what));
                }
            }
        }
    }

    fn count(&mut self, chunk: &Chunk) {
        self.produced += match chunk {
            Chunk::Rows(rows) => rows.len_bytes() as u64,
            Chunk::Lines { bytes, .. } => bytes.len() as u64,
            Chunk::Pages(_) => 0,
        };
        let (path, stored) = (self.window.stream().path(), self.window.stream().stored_bytes());
        self.failure = check_expansion(path, self.produced, stored, &self.limits).err();
    }

    /// Reads messages up to the next record batch, or to the end.
    fn next_batch(&mut self) -> Result<(), String> {
        while !self.ended && self.batch.is_none() {
            let Some(frame) = next_frame(&mut self.window)? else {
                self.ended = true;
                return if self.is_file { self.check_footer() } else { Ok(()) };
            };
            fenced(|| self.take(&frame))?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> Result<(), ArrowError> {
        let message = root_as_message(&frame.metadata).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch().ok_or_else(|| invalid("a batch without a header"))?;
                check_batch(&batch, &frame.body, self.limits.max_expansion)?;
                let decoded = read_record_batch(
                    &frame.body,
                    batch,
                    Arc::clone(&self.schema),
                    &self.dictionaries,
                    None,
                    &self.version,
                )?;
                self.batches += 1;
                self.next = 0;
                self.batch = Some(decoded);
            }
            MessageHeader::DictionaryBatch => {
                let batch =
                    message.header_as_dictionary_batch().ok_or_else(|| invalid("a dictionary without a header"))?;
                let data = batch.data().ok_or_else(|| invalid("a dictionary without values"))?;
                self.dictionary_bytes += check_batch(&data, &frame.body, self.limits.max_expansion)?;
                if self.dictionary_bytes > MAX_BATCH_BYTES {
                    return Err(invalid("its dictionaries have more than 1 GiB"));
                }
                read_dictionary(&frame.body, batch, &self.schema, &mut self.dictionaries, &self.version)?;
            }
            other => return Err(invalid(&format!("a message of type {} among its rows", other.0))),
        }
        Ok(())
    }

    /// The footer counts the batches; a file that lost some of them is damaged.
    fn check_footer(&mut self) -> Result<(), String> {
        self.window.fill_to(MAX_METADATA_BYTES + 10);
        let data = self.window.data();
        let body = data.strip_suffix(MAGIC).filter(|body| body.len() >= 4 && data.len() < MAX_METADATA_BYTES + 10);
        let Some((footer, length)) = body.and_then(<[u8]>::split_last_chunk::<4>) else {
            return Err("the file does not end as an Arrow file does".to_owned());
        };
        let length = usize::try_from(i32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let footer = footer.len().checked_sub(length).and_then(|start| footer.get(start..));
        let footer = footer.and_then(|bytes| root_as_footer(bytes).ok()).ok_or("its footer is damaged")?;
        let said = footer.recordBatches().map_or(0, |blocks| blocks.len());
        if said != self.batches {
            return Err(format!("its footer names {said} record batches, {} were found", self.batches));
        }
        Ok(())
    }

    /// Rows from the next one on, and how many.
    fn rows_of(&self, batch: &RecordBatch, columns: &[(Slot, Vec<usize>)]) -> (Option<Chunk>, usize) {
        let open = |(slot, path): &(Slot, Vec<usize>)| TextColumn::at(batch, path).map(|column| (*slot, column));
        let columns: Vec<(Slot, TextColumn<'_>)> = columns.iter().filter_map(open).collect();
        let text = columns.iter().find(|(slot, _)| *slot == Slot::Text).map(|(_, column)| column);
        let mut chunk = RowChunk::default();
        let mut taken = 0;
        while self.next + taken < batch.num_rows() && chunk.len_bytes() < CHUNK_BYTES && taken < CHUNK_BYTES {
            let row = self.next + taken;
            taken += 1;
            let place = Place { row: self.rows + taken as u64, byte: None };
            let reject = |reason, text: &str| Reject { place, reason, excerpt: excerpt(text.as_bytes()) };
            let Some(words) = text.and_then(|column| column.get(row)) else {
                chunk.rejects.push(reject(Reason::NullText, ""));
                continue;
            };
            let bytes: usize = columns.iter().filter_map(|(_, column)| column.get(row)).map(|value| value.len()).sum();
            if bytes as u64 > self.limits.max_record_bytes {
                chunk.rejects.push(reject(Reason::RecordTooLarge, &words));
                continue;
            }
            chunk.open_row(place);
            for (slot, column) in &columns {
                if let Some(value) = column.get(row) {
                    chunk.value(*slot, value.as_bytes());
                }
            }
        }
        ((!chunk.is_empty()).then_some(Chunk::Rows(chunk)), taken)
    }

    fn lines_of(&self, batch: &RecordBatch) -> (Option<Chunk>, usize) {
        let mut chunk = LineChunk::default();
        let mut taken = 0;
        while self.next + taken < batch.num_rows() && chunk.len_bytes() < CHUNK_BYTES {
            let place = Place { row: self.rows + taken as u64 + 1, byte: None };
            chunk.push(place, &object(batch, self.next + taken));
            taken += 1;
        }
        (chunk.into_chunk(), taken)
    }
}

/// Refuses a batch whose buffers lie outside its body or expand too far, before anything is allocated for them; gives
/// the bytes that its buffers take.
fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8], expansion: u64) -> Result<u64, ArrowError> {
    let rows = u64::try_from(batch.length()).map_err(|_| invalid("a negative number of rows"))?;
    if rows > FREE_ROWS.max(body.len() as u64 * 8) && batch.compression().is_none() {
        return Err(invalid(&format!("{rows} rows in {} bytes", body.len())));
    }
    let mut total = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let start = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end));
        let bytes = bytes.ok_or_else(|| invalid("a buffer outside its message"))?;
        let size = match (batch.compression(), bytes.first_chunk::<8>()) {
            (Some(_), Some(prefix)) => match i64::from_le_bytes(*prefix) {
                -1 => length as u64,
                size => u64::try_from(size).map_err(|_| invalid("a negative size"))?,
            },
            (Some(_), None) if length > 0 => return Err(invalid("a compressed buffer without a size")),
            _ => length as u64,
        };
        total = total.saturating_add(size);
    }
    if total > MAX_BATCH_BYTES {
        return Err(invalid(&format!("a batch of {total} bytes; write batches of at most 1 GiB")));
    }
    if total > EXPANSION_GRACE_BYTES && total / (body.len() as u64).max(1) >= expansion {
        return Err(invalid(&format!("{} bytes that expand to {total}", body.len())));
    }
    if rows > FREE_ROWS.max(total * 8) {
        return Err(invalid(&format!("{rows} rows in {total} bytes")));
    }
    Ok(total)
}

fn invalid(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_owned())
}

/// The next message; `None` where the messages end.
fn next_frame(window: &mut Window) -> Result<Option<Frame>, String> {
    window.fill_to(8);
    let too_short = || "it ends inside a message".to_owned();
    let data = window.data();
    if data.is_empty() {
        return Ok(None);
    }
    let word = |at: usize| data.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>()).copied();
    let first = word(0).ok_or_else(too_short)?;
    // Before version 0.15 there was no mark before the length.
    let (header, length) = if first == [0xff; 4] { (8, word(4).ok_or_else(too_short)?) } else { (4, first) };
    let length = usize::try_from(i32::from_le_bytes(length)).map_err(|_| "a message of negative length".to_owned())?;
    if length == 0 {
        window.consume(header);
        return Ok(None);
    }
    if length > MAX_METADATA_BYTES {
        return Err(format!("a message header of {length} bytes"));
    }
    window.fill_to(header + length);
    let metadata = window.data().get(header..header + length).ok_or_else(too_short)?.to_vec();
    window.consume(header + length);
    let size = fenced(|| {
        let message = root_as_message(&metadata).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        u64::try_from(message.bodyLength()).map_err(|_| invalid("a body of negative length"))
    })?;
    if size > MAX_BATCH_BYTES {
        return Err(format!("a batch of {size} bytes; write batches of at most 1 GiB"));
    }
    let size = size as usize;
    window.fill_to(size);
    let body = Buffer::from(window.data().get(..size).ok_or_else(too_short)?);
    window.consume(size);
    Ok(Some(Frame { metadata, body }))
}

fn schema_of(frame: &Frame) -> Result<(Schema, MetadataVersion), ArrowError> {
    let message = root_as_message(&frame.metadata).map_err(|error| ArrowError::ParseError(error.to_string()))?;
    let version = message.version();
    if message.header_as_schema().is_none() {
        return Err(invalid("its first message is no schema"));
    }
    Ok((arrow_ipc::convert::try_schema_from_flatbuffer_bytes(&frame.metadata)?, version))
}

/// Runs the decoder so that a panic on a malformed file becomes an error like any other.
fn fenced<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("not whole Arrow data ({error:.300})")),
        Err(_) => Err("the Arrow decoder gave up on malformed data".to_owned()),
    }
}

fn damaged(window: &Window, what: &str) -> SourceError {
    let (path, byte) = (window.stream().path().to_owned(), window.stream().stored_bytes());
    SourceError::Damaged { path, byte, what: what.to_owned(), rows: 0 }
}

/// Where the wanted columns lie: indices from the outermost struct inwards.
fn columns(path: &std::path::Path, schema: &Schema, wanted: &[Wanted]) -> Result<Vec<(Slot, Vec<usize>)>, SourceError> {
    let mut found = Vec::new();
    for wanted in wanted {
        let Some((place, kind)) = find(schema, &wanted.name) else {
            if wanted.required {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(SourceError::missing_column(path, wanted, &names));
            }
            continue;
        };
        if TextColumn::can_read(&kind) || (kind.is_integer() && wanted.slot == Slot::Id) {
            found.push((wanted.slot, place));
        } else if wanted.required {
            let (path, column) = (path.to_owned(), wanted.name.clone());
            return Err(SourceError::ColumnType { path, column, found: format!("{kind:.80}") });
        }
    }
    Ok(found)
}

/// A column whose name is the whole of `name`, or else structs one inside the other, a dot for each.
fn find(schema: &Schema, name: &str) -> Option<(Vec<usize>, DataType)> {
    if let Some((at, field)) = schema.fields().find(name) {
        return Some((vec![at], field.data_type().clone()));
    }
    let (head, mut rest) = name.split_once('.')?;
    let (at, field) = schema.fields().find(head)?;
    let (mut place, mut kind) = (vec![at], field.data_type());
    loop {
        let DataType::Struct(fields) = kind else { return None };
        if let Some((at, field)) = fields.find(rest) {
            place.push(at);
            return Some((place, field.data_type().clone()));
        }
        let (head, tail) = rest.split_once('.')?;
        let (at, field) = fields.find(head)?;
        place.push(at);
        (kind, rest) = (field.data_type(), tail);
    }
}
