//! Owns the table beside a shard, one row a document: what it is, where it comes from, how large it is; never touches
//! tokens.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;

use super::file::DigestedFile;
use crate::dataset::DataError;
use crate::document::Document;
use crate::manifest::FileRecord;

const SCHEMA: &str = "message document {
    REQUIRED BYTE_ARRAY id (STRING);
    REQUIRED BYTE_ARRAY language (STRING);
    REQUIRED BYTE_ARRAY script (STRING);
    REQUIRED BYTE_ARRAY source (STRING);
    REQUIRED BYTE_ARRAY licence (STRING);
    OPTIONAL BYTE_ARRAY url (STRING);
    REQUIRED INT64 bytes;
    REQUIRED INT64 tokens;
    OPTIONAL DOUBLE quality;
}";

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
}

/// Writes the table of a shard.
pub(crate) struct SidecarWriter {
    path: PathBuf,
    table: SerializedFileWriter<DigestedFile>,
    columns: Columns,
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
}

impl SidecarWriter {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let failed = |error: ParquetError| failure(path, "written", &error);
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
        let level = ZstdLevel::try_new(3).map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        let table =
            SerializedFileWriter::new(DigestedFile::create(path)?, schema, Arc::new(properties)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), table, columns: Columns::default() })
    }

    /// Appends a document of `tokens` tokens.
    pub fn add(&mut self, document: &Document, tokens: u64) -> Result<(), DataError> {
        let Document { id, lang, source, licence, url, .. } = document;
        let text_bytes = document.text.len() as u64;
        self.push([id, lang, source, licence], url.as_deref(), [text_bytes, tokens], None)
    }

    /// Appends a document of which only the facts are at hand.
    pub fn add_facts(&mut self, facts: &DocumentFacts) -> Result<(), DataError> {
        let DocumentFacts { id, lang, source, licence, url, text_bytes, tokens, quality } = facts;
        self.push([id, lang, source, licence], url.as_deref(), [*text_bytes, *tokens], *quality)
    }

    fn push(
        &mut self,
        [id, lang, source, licence]: [&str; 4],
        url: Option<&str>,
        [text_bytes, tokens]: [u64; 2],
        quality: Option<f64>,
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
        if columns.ids.len() >= GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let columns = std::mem::take(&mut self.columns);
        if columns.ids.is_empty() {
            return Ok(());
        }
        columns.write(&mut self.table).map_err(|error| failure(&self.path, "written", &error))
    }

    /// Makes the file durable.
    pub fn finish(mut self) -> Result<FileRecord, DataError> {
        self.flush()?;
        self.table.into_inner().map_err(|error| failure(&self.path, "written", &error))?.finish()
    }
}

impl Columns {
    fn write(self, table: &mut SerializedFileWriter<DigestedFile>) -> Result<(), ParquetError> {
        let mut group = table.next_row_group()?;
        for strings in [&self.ids, &self.languages, &self.scripts, &self.sources, &self.licences] {
            column::<ByteArrayType>(&mut group, strings, None)?;
        }
        column::<ByteArrayType>(&mut group, &self.urls, Some(&self.url_levels))?;
        column::<Int64Type>(&mut group, &self.bytes, None)?;
        column::<Int64Type>(&mut group, &self.tokens, None)?;
        column::<DoubleType>(&mut group, &self.qualities, Some(&self.quality_levels))?;
        group.close().map(|_| ())
    }
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, DigestedFile>,
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
        let table = SerializedFileReader::new(file)?;
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

/// Reads the facts of documents by their ascending numbers; row groups without any are passed over.
///
/// # Errors
/// A table that cannot be read.
pub fn pick_facts(path: &Path, numbers: &[u64]) -> Result<Vec<DocumentFacts>, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "read"))?;
    fenced(path, || {
        let table = SerializedFileReader::new(file)?;
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
        let table = SerializedFileReader::new(file)?;
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
    let rows = fenced(path, || Ok(SerializedFileReader::new(file)?.metadata().file_metadata().num_rows()))?;
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
    })
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
        assert_eq!(read_facts(&path, count as u64 - 1, 9).unwrap().len(), 1);
        assert_eq!(read_facts(&path, count as u64, 9).unwrap(), []);
    }

    #[test]
    fn damaged_tables_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        std::fs::write(&path, b"PAR1 but not really PAR1").unwrap();
        let message = read_facts(&path, 0, 1).unwrap_err().to_string();
        assert!(message.contains("is no readable table of documents"), "{message}");
    }
}
