//! Owns documents as one Parquet table, text included; never reads shards.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{ConvertError, Job, TextRow};
use crate::dataset::DataError;
use crate::shard::sidecar::column;

const SCHEMA: &str = "message document {
    REQUIRED BYTE_ARRAY id (STRING);
    REQUIRED BYTE_ARRAY text (STRING);
    REQUIRED BYTE_ARRAY lang (STRING);
    REQUIRED BYTE_ARRAY source (STRING);
    REQUIRED BYTE_ARRAY licence (STRING);
    OPTIONAL BYTE_ARRAY url (STRING);
    REQUIRED BYTE_ARRAY split (STRING);
    REQUIRED INT64 bytes;
    REQUIRED INT64 tokens;
}";

/// Writes all documents into one table; a row group is what was turned into text at a time.
pub(super) fn file(job: &mut Job<'_>, path: &Path) -> Result<(), ConvertError> {
    let failed = |error: ParquetError| DataError::Io {
        path: path.to_owned(),
        action: "written",
        source: std::io::Error::other(error.to_string()),
    };
    let schema = Arc::new(parse_message_type(SCHEMA).map_err(failed)?);
    let level = ZstdLevel::try_new(3).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_created_by("jazari".to_owned())
        .set_compression(Compression::ZSTD(level))
        .build();
    let file = File::create_new(path).map_err(DataError::io(path, "created"))?;
    let mut table = SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(failed)?;
    job.texts(&mut |rows| if rows.is_empty() { Ok(()) } else { group(&mut table, rows).map_err(failed) })?;
    let file = table.into_inner().map_err(failed)?;
    file.sync_all().map_err(DataError::io(path, "written"))?;
    job.done.files = 1;
    Ok(())
}

fn group(table: &mut SerializedFileWriter<File>, rows: &[TextRow]) -> Result<(), ParquetError> {
    let mut group = table.next_row_group()?;
    let text = |value: &str| ByteArray::from(value.as_bytes().to_vec());
    let strings: [fn(&TextRow) -> &str; 5] = [
        |row| &row.facts.id,
        |row| &row.text,
        |row| &row.facts.lang,
        |row| &row.facts.source,
        |row| &row.facts.licence,
    ];
    for of_row in strings {
        let values: Vec<ByteArray> = rows.iter().map(|row| text(of_row(row))).collect();
        column::<ByteArrayType, _>(&mut group, &values, None)?;
    }
    let urls: Vec<ByteArray> = rows.iter().filter_map(|row| row.facts.url.as_deref()).map(text).collect();
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.facts.url.is_some())).collect();
    column::<ByteArrayType, _>(&mut group, &urls, Some(&levels))?;
    let splits: Vec<ByteArray> = rows.iter().map(|row| text(row.split.name())).collect();
    column::<ByteArrayType, _>(&mut group, &splits, None)?;
    for of_row in [|row: &TextRow| row.facts.text_bytes as i64, |row: &TextRow| row.facts.tokens as i64] {
        let values: Vec<i64> = rows.iter().map(of_row).collect();
        column::<Int64Type, _>(&mut group, &values, None)?;
    }
    group.close().map(|_| ())
}
