//! Owns the table beside a shard, one row a document: what it is, where it comes from, how large it is; never touches
//! tokens.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;

use super::file::DigestedFile;
use crate::dataset::DataError;
use crate::document::{Document, Notes};
use crate::manifest::{Counts, FileRecord};
use crate::source::CheckedFile;

const COLUMNS: &str = "
    REQUIRED BYTE_ARRAY id (STRING);
    REQUIRED BYTE_ARRAY language (STRING);
    REQUIRED BYTE_ARRAY script (STRING);
    REQUIRED BYTE_ARRAY source (STRING);
    REQUIRED BYTE_ARRAY licence (STRING);
    OPTIONAL BYTE_ARRAY url (STRING);
    REQUIRED INT64 bytes;
    REQUIRED INT64 tokens;
    OPTIONAL DOUBLE quality;";
/// Columns of documents with notes, after the others. `figures` and `history` are JSON objects.
const NOTES_COLUMNS: &str = "
    OPTIONAL BYTE_ARRAY given_language (STRING);
    OPTIONAL BYTE_ARRAY identified_language (STRING);
    OPTIONAL DOUBLE language_score;
    OPTIONAL BYTE_ARRAY mixed_languages (STRING);
    OPTIONAL BYTE_ARRAY figures (STRING);
    OPTIONAL BYTE_ARRAY history (STRING);";
/// Column of documents with dates, after those.
const DATE_COLUMN: &str = "
    OPTIONAL BYTE_ARRAY date (STRING);";

/// Columns of documents without notes.
const NUM_COLUMNS: usize = 9;
/// Columns of documents with notes and no dates.
const DATED_COLUMNS: usize = 15;
const LICENCE_COLUMN: usize = 4;
const BYTES_COLUMN: usize = 6;
const TOKENS_COLUMN: usize = 7;
/// Documents of a row group: the unit that a reader must decode to see one of them.
const GROUP_ROWS: usize = 1 << 16;
/// Written into the file instead of a version, so that equal documents give equal bytes for ever.
const CREATED_BY: &str = "jazari";

/// What is known of a document in a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentFacts {
    /// Its identifier.
    pub id: String,
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Licence.
    pub licence: String,
    /// Where it was published.
    pub url: Option<String>,
    /// UTF-8 bytes of its text.
    pub text_bytes: u64,
    /// Its tokens, BOS and EOS included.
    pub tokens: u64,
    /// Quality score, when a stage gave one.
    pub quality: Option<f64>,
    /// What the stages of the preparation found out, when it had any.
    pub notes: Option<Notes>,
}

/// Writes the table of a shard.
pub(crate) struct SidecarWriter {
    path: PathBuf,
    /// Created with its file, begun with the first document, which tells the columns.
    file: Option<DigestedFile>,
    table: Option<SerializedFileWriter<DigestedFile>>,
    columns: Columns,
    /// Which columns the table has beside those that all have; its first documents decide.
    layout: Layout,
}

#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    notes: bool,
    dates: bool,
}

#[derive(Default)]
struct Columns {
    ids: Vec<ByteArray>,
    languages: Vec<ByteArray>,
    scripts: Vec<ByteArray>,
    sources: Vec<ByteArray>,
    licences: Vec<ByteArray>,
    urls: Vec<ByteArray>,
    url_levels: Vec<i16>,
    bytes: Vec<i64>,
    tokens: Vec<i64>,
    qualities: Vec<f64>,
    quality_levels: Vec<i16>,
    notes: Option<Vec<Notes>>,
}

impl SidecarWriter {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let file = Some(DigestedFile::create(path)?);
        Ok(Self { path: path.to_owned(), file, table: None, columns: Columns::default(), layout: Layout::default() })
    }

    /// The table, begun when it is not.
    fn table(&mut self) -> Result<&mut SerializedFileWriter<DigestedFile>, ParquetError> {
        if let Some(file) = self.file.take() {
            let Layout { notes, dates } = self.layout;
            let columns =
                [COLUMNS, if notes { NOTES_COLUMNS } else { "" }, if dates { DATE_COLUMN } else { "" }].concat();
            let schema = Arc::new(parse_message_type(&format!("message document {{{columns}\n}}"))?);
            let properties = WriterProperties::builder()
                .set_created_by(CREATED_BY.to_owned())
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                .set_statistics_enabled(EnabledStatistics::Chunk)
                .build();
            self.table = Some(SerializedFileWriter::new(file, schema, Arc::new(properties))?);
        }
        self.table.as_mut().ok_or_else(|| ParquetError::General("the table was not begun".to_owned()))
    }

    /// Appends a document of `tokens` tokens.
    pub fn add(&mut self, document: &Document, tokens: u64) -> Result<(), DataError> {
        let Document { id, lang, source, licence, url, .. } = document;
        let text_bytes = document.text.len() as u64;
        self.push([id, lang, source, licence], url.as_deref(), ([text_bytes, tokens], None), document.notes.as_deref())
    }

    /// Appends a document of which only the facts are at hand.
    pub fn add_facts(&mut self, facts: &DocumentFacts) -> Result<(), DataError> {
        let DocumentFacts { id, lang, source, licence, url, text_bytes, tokens, quality, notes } = facts;
        let figures = ([*text_bytes, *tokens], *quality);
        self.push([id, lang, source, licence], url.as_deref(), figures, notes.as_ref())
    }

    fn push(
        &mut self,
        [id, lang, source, licence]: [&str; 4],
        url: Option<&str>,
        ([text_bytes, tokens], quality): ([u64; 2], Option<f64>),
        notes: Option<&Notes>,
    ) -> Result<(), DataError> {
        let text = |value: &str| ByteArray::from(value.as_bytes().to_vec());
        let (language, script) = lang.split_once('_').unwrap_or((lang, ""));
        let columns = &mut self.columns;
        columns.ids.push(text(id));
        columns.languages.push(text(language));
        columns.scripts.push(text(script));
        columns.sources.push(text(source));
        columns.licences.push(text(licence));
        columns.urls.extend(url.map(text));
        columns.url_levels.push(i16::from(url.is_some()));
        columns.bytes.push(text_bytes as i64);
        columns.tokens.push(tokens as i64);
        columns.qualities.extend(quality);
        columns.quality_levels.push(i16::from(quality.is_some()));
        if let Some(notes) = notes {
            let kept = columns.notes.get_or_insert_default();
            kept.resize(columns.ids.len() - 1, Notes::default());
            kept.push(notes.clone());
        }
        if columns.ids.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let mut columns = std::mem::take(&mut self.columns);
        if columns.ids.is_empty() {
            return Ok(());
        }
        if self.file.is_some() {
            let dates = columns.notes.iter().flatten().any(|notes| notes.date.is_some());
            self.layout = Layout { notes: columns.notes.is_some(), dates };
        }
        let layout = self.layout;
        // Documents of several files may lie in one table, some of them without notes.
        columns.notes = layout.notes.then(|| {
            let mut notes = columns.notes.take().unwrap_or_default();
            notes.resize(columns.ids.len(), Notes::default());
            notes
        });
        let written = self.table().and_then(|table| columns.write(table, layout));
        written.map_err(|error| failure(&self.path, "written", &error))
    }

    /// Makes the file durable.
    pub fn finish(mut self) -> Result<FileRecord, DataError> {
        self.flush()?;
        let path = self.path.clone();
        let failed = |error: ParquetError| failure(&path, "written", &error);
        self.table().map_err(failed)?;
        let missing = || ParquetError::General("the table was not begun".to_owned());
        let table = self.table.take().ok_or_else(missing).map_err(failed)?;
        table.into_inner().map_err(failed)?.finish()
    }
}

impl Columns {
    fn write(self, table: &mut SerializedFileWriter<DigestedFile>, layout: Layout) -> Result<(), ParquetError> {
        let mut group = table.next_row_group()?;
        for strings in [&self.ids, &self.languages, &self.scripts, &self.sources, &self.licences] {
            column::<ByteArrayType, _>(&mut group, strings, None)?;
        }
        column::<ByteArrayType, _>(&mut group, &self.urls, Some(&self.url_levels))?;
        column::<Int64Type, _>(&mut group, &self.bytes, None)?;
        column::<Int64Type, _>(&mut group, &self.tokens, None)?;
        column::<DoubleType, _>(&mut group, &self.qualities, Some(&self.quality_levels))?;
        if let Some(notes) = &self.notes {
            let text = |of: &dyn Fn(&Notes) -> Option<String>| -> Vec<Option<ByteArray>> {
                notes.iter().map(|notes| of(notes).map(|text| ByteArray::from(text.into_bytes()))).collect()
            };
            optional::<ByteArrayType>(&mut group, text(&|notes| notes.given.clone()))?;
            optional::<ByteArrayType>(&mut group, text(&|notes| notes.identified.clone()))?;
            optional::<DoubleType>(&mut group, notes.iter().map(|notes| notes.score.map(f64::from)).collect())?;
            optional::<ByteArrayType>(&mut group, text(&|n| Some(n.mixed.clone()).filter(|text| !text.is_empty())))?;
            optional::<ByteArrayType>(&mut group, text(&|notes| json_of(&notes.figures)))?;
            optional::<ByteArrayType>(&mut group, text(&|notes| json_of(&notes.history)))?;
            if layout.dates {
                optional::<ByteArrayType>(&mut group, text(&|notes| notes.date.clone()))?;
            }
        }
        group.close().map(|_| ())
    }
}

/// A map as a JSON object; none when it is empty.
fn json_of<T: serde::Serialize>(map: &BTreeMap<String, T>) -> Option<String> {
    if map.is_empty() { None } else { serde_json::to_string(map).ok() }
}

fn optional<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, DigestedFile>,
    values: Vec<Option<T::T>>,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column::<T, _>(group, &values, Some(&levels))
}

/// Writes the next column of a row group.
pub(crate) fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let missing = || ParquetError::General("the schema has fewer columns than the table".to_owned());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Reads the facts of documents `first..first + count`; fewer at the end of the shard.
///
/// # Errors
/// A table that cannot be read.
pub fn read_facts(path: &Path, first: u64, count: usize) -> Result<Vec<DocumentFacts>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    fenced(path, || {
        let table = CheckedFile::of_default_limits(file)?;
        let mut facts = Vec::new();
        let mut skip = first;
        for group in 0..table.num_row_groups() {
            let rows = u64::try_from(table.metadata().row_group(group).num_rows()).unwrap_or(0);
            if skip >= rows {
                skip -= rows;
                continue;
            }
            let group = table.get_row_group(group)?;
            for row in group.get_row_iter(None)?.skip(skip as usize).take(count - facts.len()) {
                facts.push(facts_of(&row?)?);
            }
            skip = 0;
            if facts.len() == count {
                break;
            }
        }
        Ok(facts)
    })
}

/// Documents, tokens and bytes by licence, from those columns alone.
///
/// # Errors
/// A table that cannot be read.
pub(crate) fn count_licences(path: &Path) -> Result<BTreeMap<String, Counts>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    let sums = fenced(path, || {
        let table = CheckedFile::of_default_limits(file)?;
        let mut sums: AHashMap<Vec<u8>, Counts> = AHashMap::new();
        for number in 0..table.num_row_groups() {
            let group = table.get_row_group(number)?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let (licences, bytes, tokens): (Vec<ByteArray>, Vec<i64>, Vec<i64>) = (
                values::<ByteArrayType>(&*group, LICENCE_COLUMN, rows)?,
                values::<Int64Type>(&*group, BYTES_COLUMN, rows)?,
                values::<Int64Type>(&*group, TOKENS_COLUMN, rows)?,
            );
            for (licence, (bytes, tokens)) in licences.iter().zip(bytes.into_iter().zip(tokens)) {
                let positive = |number| u64::try_from(number).unwrap_or(0);
                let counts = Counts { documents: 1, tokens: positive(tokens), text_bytes: positive(bytes) };
                match sums.get_mut(licence.data()) {
                    Some(sum) => sum.add(counts),
                    None => _ = sums.insert(licence.data().to_vec(), counts),
                }
            }
        }
        Ok(sums)
    })?;
    Ok(sums.into_iter().map(|(name, counts)| (String::from_utf8_lossy(&name).into_owned(), counts)).collect())
}

/// The values of a required column of a row group of at most [`GROUP_ROWS`] rows.
fn values<T: DataType>(group: &dyn RowGroupReader, column: usize, rows: usize) -> Result<Vec<T::T>, ParquetError> {
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(column)?);
    let mut values = Vec::new();
    while values.len() < rows {
        // What a damaged head claims is not believed at once.
        let wanted = (rows - values.len()).min(GROUP_ROWS);
        let (read, ..) = reader.read_records(wanted, None, None, &mut values)?;
        if read == 0 {
            break;
        }
    }
    Ok(values)
}

/// Reads the facts of documents by their ascending numbers; row groups without any are passed over.
///
/// # Errors
/// A table that cannot be read.
pub fn pick_facts(path: &Path, numbers: &[u64]) -> Result<Vec<DocumentFacts>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    fenced(path, || {
        let table = CheckedFile::of_default_limits(file)?;
        let mut wanted = numbers.iter().copied().peekable();
        let (mut facts, mut first) = (Vec::new(), 0);
        for group in 0..table.num_row_groups() {
            let end = first + u64::try_from(table.metadata().row_group(group).num_rows()).unwrap_or(0);
            if wanted.peek().is_some_and(|&number| number < end) {
                for (number, row) in (first..end).zip(table.get_row_group(group)?.get_row_iter(None)?) {
                    if wanted.next_if_eq(&number).is_some() {
                        facts.push(facts_of(&row?)?);
                    }
                    if wanted.peek().is_none_or(|&number| number >= end) {
                        break;
                    }
                }
            }
            first = end;
        }
        Ok(facts)
    })
}

/// Hands the facts of every document of a shard to `each`, in order, without holding more than one at a time.
///
/// # Errors
/// A table that cannot be read, or what `each` returns.
pub fn scan_facts(
    path: &Path,
    each: &mut dyn FnMut(u64, DocumentFacts) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    let mut failure = None;
    fenced(path, || {
        let table = CheckedFile::of_default_limits(file)?;
        let mut number = 0;
        for group in 0..table.num_row_groups() {
            for row in table.get_row_group(group)?.get_row_iter(None)? {
                if let Err(error) = each(number, facts_of(&row?)?) {
                    failure = Some(error);
                    return Ok(());
                }
                number += 1;
            }
        }
        Ok(())
    })?;
    failure.map_or(Ok(()), Err)
}

/// Number of documents in a table.
///
/// # Errors
/// A table that cannot be read.
pub fn count_documents(path: &Path) -> Result<u64, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    let rows = fenced(path, || Ok(CheckedFile::of_default_limits(file)?.metadata().file_metadata().num_rows()))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

fn facts_of(row: &parquet::record::Row) -> Result<DocumentFacts, ParquetError> {
    let text = |column: usize| row.get_string(column).cloned();
    let number = |column: usize| row.get_long(column).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(DocumentFacts {
        id: text(0)?,
        lang: format!("{}_{}", text(1)?, text(2)?),
        source: text(3)?,
        licence: text(4)?,
        url: text(5).ok(),
        text_bytes: number(6)?,
        tokens: number(7)?,
        quality: row.get_double(8).ok(),
        notes: (row.len() > NUM_COLUMNS).then(|| notes_of(row)),
    })
}

fn notes_of(row: &parquet::record::Row) -> Notes {
    let text = |column: usize| row.get_string(column).ok();
    Notes {
        given: text(9).cloned(),
        identified: text(10).cloned(),
        score: row.get_double(11).ok().map(|score| score as f32),
        mixed: text(12).cloned().unwrap_or_default(),
        figures: text(13).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        date: if row.len() > DATED_COLUMNS { text(DATED_COLUMNS).cloned() } else { None },
        history: text(14).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
    }
}

/// The library panics on some damaged files; here that is damage like any other.
fn fenced<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, DataError> {
    let reason = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the reader panicked".to_owned(),
    };
    Err(DataError::Content { path: path.to_owned(), reason: format!("is no readable table of documents ({reason})") })
}

fn failure(path: &Path, action: &'static str, error: &ParquetError) -> DataError {
    DataError::Io { path: path.to_owned(), action, source: std::io::Error::other(error.to_string()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn document(i: usize) -> Document {
        Document {
            id: format!("{i:032x}"),
            text: "x".repeat(i % 7 + 1),
            lang: "zgh_Tfng".into(),
            source: "s".into(),
            licence: "MIT".into(),
            url: i.is_multiple_of(2).then(|| format!("https://example.org/{i}")),
            notes: None,
        }
    }

    #[test]
    fn facts_come_back_across_row_groups() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let mut writer = SidecarWriter::create(&path).unwrap();
        let count = GROUP_ROWS + 3;
        (0..count).for_each(|i| writer.add(&document(i), i as u64 + 2).unwrap());
        let record = writer.finish().unwrap();
        assert_eq!(record.bytes, std::fs::metadata(&path).unwrap().len());
        assert_eq!(record.blake3, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().as_str());
        assert_eq!(count_documents(&path).unwrap(), count as u64);
        let facts = read_facts(&path, GROUP_ROWS as u64 - 1, 3).unwrap();
        let first = GROUP_ROWS - 1;
        assert_eq!(facts.len(), 3);
        for (i, facts) in (first..).zip(&facts) {
            let document = document(i);
            assert_eq!((&facts.id, &facts.lang, &facts.url), (&document.id, &document.lang, &document.url));
            assert_eq!(
                (facts.text_bytes, facts.tokens, facts.quality),
                (document.text.len() as u64, i as u64 + 2, None)
            );
        }
        let licences = count_licences(&path).unwrap();
        let tokens = (0..count as u64).map(|i| i + 2).sum::<u64>();
        let text_bytes = (0..count).map(|i| i as u64 % 7 + 1).sum();
        assert_eq!(
            licences,
            BTreeMap::from([("MIT".to_owned(), Counts { documents: count as u64, tokens, text_bytes })])
        );
        assert_eq!(read_facts(&path, count as u64 - 1, 9).unwrap().len(), 1);
        assert_eq!(read_facts(&path, count as u64, 9).unwrap(), []);
    }

    #[test]
    fn notes_come_back_and_leave_tables_without_them_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let mut writer = SidecarWriter::create(&path).unwrap();
        let notes = |i: usize| Notes {
            given: i.is_multiple_of(3).then(|| "ary_Arab".to_owned()),
            identified: Some("arb_Arab".into()),
            score: i.is_multiple_of(2).then_some(0.5),
            mixed: if i == 1 { "fra_Latn 0.3".into() } else { String::new() },
            figures: BTreeMap::from([("words".to_owned(), i as f32)]),
            date: i.is_multiple_of(2).then(|| "2026-01-01T00:00:00Z".to_owned()),
            history: if i == 2 { BTreeMap::from([("pii:phone".to_owned(), 2)]) } else { BTreeMap::new() },
        };
        for i in 0..4 {
            writer.add(&Document { notes: Some(Box::new(notes(i))), ..document(i) }, 1).unwrap();
        }
        writer.finish().unwrap();
        let read: Vec<_> = read_facts(&path, 0, 9).unwrap().into_iter().map(|facts| facts.notes.unwrap()).collect();
        assert_eq!(read, (0..4).map(notes).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_tables_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        std::fs::write(&path, b"PAR1 but not really PAR1").unwrap();
        assert!(count_licences(&path).is_err());
        let message = read_facts(&path, 0, 1).unwrap_err().to_string();
        assert!(message.contains("is no readable table of documents"), "{message}");
    }
}
