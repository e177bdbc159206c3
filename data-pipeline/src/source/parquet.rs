//! Owns Parquet: reading the wanted string columns batch by batch; never reads other columns.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::FileReader;

use super::error::SourceError;
use super::jsonl::CHUNK_BYTES;
use super::parquet_pages::CheckedFile;
use super::row::{Place, Reason, Reject, RowChunk, Slot, Wanted, excerpt};
use crate::config::Limits;

/// The expansion limit is not applied to so many bytes of rows, or of a column of a row group: columns repeat themselves, and
/// pages bound the memory.
pub(super) const EXPANSION_GRACE_BYTES: u64 = 64 * 1024 * 1024;
/// Rows read from each column at a time.
const BATCH_ROWS: usize = 512;

/// Cuts a Parquet file into rows.
pub(crate) struct TableReader {
    path: PathBuf,
    file: CheckedFile,
    limits: Limits,
    stored_bytes: u64,
    /// The wanted columns, in the order of preference.
    columns: Vec<Column>,
    group: usize,
    open: Vec<OpenColumn>,
    batch: Batch,
    rows: u64,
    produced: u64,
    failure: Option<SourceError>,
}

/// A column of strings.
struct Column {
    slot: Slot,
    index: usize,
    /// Definition level of a value that is there; 0 when the column cannot be null.
    max_level: i16,
}

/// A column being read; all but strings are read for opt-outs only, and become their text.
enum OpenColumn {
    Strings(ColumnReaderImpl<ByteArrayType>),
    Bools(ColumnReaderImpl<parquet::data_type::BoolType>),
    Ints(ColumnReaderImpl<parquet::data_type::Int32Type>),
    Longs(ColumnReaderImpl<parquet::data_type::Int64Type>),
}

impl OpenColumn {
    /// The next rows: values that are there, and the definition level of each row.
    fn next(&mut self) -> Result<(usize, Vec<ByteArray>, Vec<i16>), ParquetError> {
        fn read<T: DataType>(
            reader: &mut ColumnReaderImpl<T>,
            text: impl Fn(T::T) -> ByteArray,
        ) -> Result<(usize, Vec<ByteArray>, Vec<i16>), ParquetError> {
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let (rows, _, _) = reader.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values)?;
            Ok((rows, values.into_iter().map(text).collect(), levels))
        }
        match self {
            Self::Strings(reader) => read(reader, |text| text),
            Self::Bools(reader) => read(reader, |set| ByteArray::from(if set { "true" } else { "false" })),
            Self::Ints(reader) => read(reader, |number| ByteArray::from(number.to_string().into_bytes())),
            Self::Longs(reader) => read(reader, |number| ByteArray::from(number.to_string().into_bytes())),
        }
    }
}

/// A batch of rows, column by column.
#[derive(Default)]
struct Batch {
    columns: Vec<Vec<Option<ByteArray>>>,
    rows: usize,
    next: usize,
}

impl TableReader {
    pub fn open(path: &Path, wanted: &[Wanted], limits: &Limits) -> Result<TableReader, SourceError> {
        let io_error = |source| SourceError::Io { path: path.to_owned(), action: "opened", source };
        let file = File::open(path).map_err(io_error)?;
        let stored_bytes = file.metadata().map_err(io_error)?.len();
        let file = fenced(|| CheckedFile::open(file, limits.max_expansion)).map_err(|what| SourceError::Damaged {
            path: path.to_owned(),
            byte: stored_bytes,
            what,
            rows: 0,
        })?;
        let columns = columns(path, &file, wanted)?;
        Ok(TableReader {
            path: path.to_owned(),
            file,
            limits: limits.clone(),
            stored_bytes,
            columns,
            group: 0,
            open: Vec::new(),
            batch: Batch::default(),
            rows: 0,
            produced: 0,
            failure: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stored bytes that the rows so far stand for, by their share of all rows.
    pub fn stored_bytes(&self) -> u64 {
        let all = u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0).max(1);
        (u128::from(self.stored_bytes) * u128::from(self.rows.min(all)) / u128::from(all)) as u64
    }

    /// What ended the rows before their time.
    pub fn into_failure(self) -> Option<SourceError> {
        self.failure
    }

    /// The next rows, or `None` at the end or at a failure.
    pub fn next_chunk(&mut self) -> Option<RowChunk> {
        let mut chunk = RowChunk::default();
        while self.failure.is_none() && chunk.len_bytes() < CHUNK_BYTES {
            if self.batch.next == self.batch.rows {
                match self.next_batch() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => self.failure = Some(error),
                }
                continue;
            }
            self.take_row(&mut chunk);
            if let Err(error) = check_expansion(&self.path, self.produced, self.stored_bytes, &self.limits) {
                self.failure = Some(error);
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    fn take_row(&mut self, chunk: &mut RowChunk) {
        let at = self.batch.next;
        self.batch.next += 1;
        self.rows += 1;
        let place = Place { row: self.rows, byte: None };
        let value = |column: usize| self.batch.columns.get(column).and_then(|c| c.get(at)).and_then(Option::as_ref);
        let text = self.columns.iter().position(|column| column.slot == Slot::Text).and_then(value);
        let Some(text) = text else {
            chunk.rejects.push(Reject { place, reason: Reason::NullText, excerpt: String::new() });
            return;
        };
        self.produced += text.len() as u64;
        let row_bytes: usize = (0..self.columns.len()).filter_map(value).map(ByteArray::len).sum();
        if row_bytes as u64 > self.limits.max_record_bytes {
            let excerpt = excerpt(text.data());
            chunk.rejects.push(Reject { place, reason: Reason::RecordTooLarge, excerpt });
            return;
        }
        chunk.open_row(place);
        for (i, column) in self.columns.iter().enumerate() {
            if let Some(bytes) = value(i) {
                chunk.value(column.slot, bytes.data());
            }
        }
    }

    /// Reads the next batch, from the next row group when this one has ended.
    fn next_batch(&mut self) -> Result<bool, SourceError> {
        loop {
            if self.open.is_empty() {
                if self.group >= self.file.num_row_groups() {
                    return Ok(false);
                }
                self.check_group()?;
                let (file, columns, group) = (&self.file, &self.columns, self.group);
                self.open = fenced(|| open_group(file, columns, group)).map_err(|what| self.damaged(what))?;
                self.group += 1;
            }
            let (open, columns) = (&mut self.open, &self.columns);
            self.batch = fenced(|| read_batch(open, columns)).map_err(|what| self.damaged(what))?;
            if self.batch.rows > 0 {
                return Ok(true);
            }
            self.open.clear();
        }
    }

    /// Refuses a row group whose columns expand too far before anything is allocated for them.
    fn check_group(&self) -> Result<(), SourceError> {
        let group = self.file.metadata().row_group(self.group);
        let check = |column: &Column| check_group(&self.path, group, self.group, column.index, &self.limits);
        self.columns.iter().try_for_each(check)
    }

    fn damaged(&self, what: String) -> SourceError {
        let group = self.group.min(self.file.num_row_groups().saturating_sub(1));
        let first_column = self.file.metadata().row_groups().get(group).and_then(|g| g.columns().first());
        let offset = first_column.and_then(|column| u64::try_from(column.data_page_offset()).ok());
        let byte = offset.unwrap_or(self.stored_bytes);
        SourceError::Damaged { path: self.path.clone(), byte, what, rows: 0 }
    }
}

/// Refuses a file whose rows are `produced` bytes and that is out of proportion to its size.
pub(super) fn check_expansion(path: &Path, produced: u64, stored: u64, limits: &Limits) -> Result<(), SourceError> {
    let bomb = |what, limit| Err(SourceError::Bomb { path: path.to_owned(), what, limit });
    if produced > limits.max_file_bytes {
        return bomb(format!("expands to more than {} bytes", limits.max_file_bytes), "max_file_bytes");
    }
    if produced > EXPANSION_GRACE_BYTES && produced / stored.max(1) >= limits.max_expansion {
        let times = limits.max_expansion;
        return bomb(format!("{stored} bytes hold over {times} times as much text"), "max_expansion");
    }
    Ok(())
}

/// Refuses a column of a row group that expands too far.
pub(super) fn check_group(
    path: &Path,
    group: &RowGroupMetaData,
    number: usize,
    column: usize,
    limits: &Limits,
) -> Result<(), SourceError> {
    let Some(chunk) = group.columns().get(column) else { return Ok(()) };
    let size = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    let (out, stored) = (size(chunk.uncompressed_size()), size(chunk.compressed_size()));
    if out <= limits.max_file_bytes && (out <= EXPANSION_GRACE_BYTES || out / stored.max(1) < limits.max_expansion) {
        return Ok(());
    }
    Err(SourceError::Bomb {
        path: path.to_owned(),
        what: format!("row group {number} declares {stored} bytes that expand to {out}"),
        limit: "max_expansion",
    })
}

/// Runs the decoder so that a panic on a malformed file becomes an error like any other.
fn fenced<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("not a whole Parquet file ({error})")),
        Err(_) => Err("the Parquet decoder gave up on malformed data".to_owned()),
    }
}

fn columns(path: &Path, file: &CheckedFile, wanted: &[Wanted]) -> Result<Vec<Column>, SourceError> {
    let schema = file.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let mut found = Vec::new();
    for wanted in wanted {
        let Some(at) = names.iter().position(|name| *name == wanted.name) else {
            if wanted.required {
                return Err(SourceError::missing_column(path, wanted, &names));
            }
            continue;
        };
        let Some(column) = schema.columns().get(at) else { continue };
        let is_marker = wanted.slot.marker().is_some();
        let fits = match column.physical_type() {
            PhysicalType::BYTE_ARRAY => true,
            PhysicalType::BOOLEAN | PhysicalType::INT32 | PhysicalType::INT64 => is_marker,
            _ => false,
        };
        if !fits || column.max_rep_level() > 0 {
            if !wanted.required {
                continue;
            }
            let repeated = if column.max_rep_level() > 0 { "a list of " } else { "" };
            return Err(SourceError::ColumnType {
                path: path.to_owned(),
                column: wanted.name.clone(),
                found: format!("{repeated}{}", column.physical_type()),
            });
        }
        found.push(Column { slot: wanted.slot, index: at, max_level: column.max_def_level() });
    }
    Ok(found)
}

fn open_group(file: &CheckedFile, columns: &[Column], group: usize) -> Result<Vec<OpenColumn>, ParquetError> {
    let group = file.get_row_group(group)?;
    columns
        .iter()
        .map(|column| match group.get_column_reader(column.index)? {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(OpenColumn::Strings(reader)),
            ColumnReader::BoolColumnReader(reader) => Ok(OpenColumn::Bools(reader)),
            ColumnReader::Int32ColumnReader(reader) => Ok(OpenColumn::Ints(reader)),
            ColumnReader::Int64ColumnReader(reader) => Ok(OpenColumn::Longs(reader)),
            _ => Err(ParquetError::General("a column changed its type between row groups".to_owned())),
        })
        .collect()
}

fn read_batch(open: &mut [OpenColumn], columns: &[Column]) -> Result<Batch, ParquetError> {
    let mut batch = Batch::default();
    for (i, (reader, column)) in open.iter_mut().zip(columns).enumerate() {
        let (rows, values, levels) = reader.next()?;
        if i > 0 && rows != batch.rows {
            return Err(ParquetError::General("columns of one row group differ in length".to_owned()));
        }
        batch.rows = rows;
        let mut values = values.into_iter();
        let there = |row: usize| column.max_level == 0 || levels.get(row) == Some(&column.max_level);
        batch.columns.push((0..rows).map(|row| if there(row) { values.next() } else { None }).collect());
    }
    Ok(batch)
}
