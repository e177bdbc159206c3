//! Files whose page headers lie, made from a true one by changing numbers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;
use crate::source::page_header::delta_lengths;

/// A file of one column, and where its first page is.
fn file(texts: &[String], encoding: Option<Encoding>) -> (Vec<u8>, usize) {
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    file_of(&values, encoding)
}

fn file_of(values: &[ByteArray], encoding: Option<Encoding>) -> (Vec<u8>, usize) {
    let schema = Arc::new(parse_message_type("message m { REQUIRED BYTE_ARRAY text (UTF8); }").unwrap());
    let mut properties = WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None);
    if let Some(encoding) = encoding {
        properties = properties.set_dictionary_enabled(false).set_encoding(encoding);
    }
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    (bytes, 4)
}

fn read(bytes: &[u8]) -> Result<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    std::fs::write(&path, bytes).unwrap();
    let file = CheckedFile::of_default_limits(File::open(path).unwrap())?;
    let rows = file.get_row_iter(None)?;
    rows.map(|row| row.map(|row| row.to_string())).collect()
}

fn texts() -> Vec<String> {
    (0..300).map(|n| format!("text {} {}", n % 7, "x".repeat(n % 11))).collect()
}

fn zigzag(value: i64) -> Vec<u8> {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The file with another number at a field of its first page header; what follows keeps its place in the file, so that
/// only the number is wrong: the column begins later, in a header as long as the old one.
fn lie(bytes: &[u8], start: usize, uncompressed: i64) -> Vec<u8> {
    let header = parse_header(&bytes[start..]).unwrap().unwrap();
    // Field 1 (type) and field 2 (uncompressed size) are each a byte and a number.
    let kind = zigzag(0).len() + 1;
    let at = start + kind + 1;
    let old = zigzag(header.uncompressed.into()).len();
    let new = zigzag(uncompressed);
    // The first page of the column is moved to the end of the file's pages: simply replaced and the file cut short.
    let mut changed = bytes[..at].to_vec();
    changed.extend_from_slice(&new);
    let tail = &bytes[at + old..];
    // The bytes of the page pay for the longer number, so that the footer stays where it is.
    let surplus = new.len() - old;
    let page = header.length - (kind + 1 + old);
    changed.extend_from_slice(&tail[..page]);
    changed.extend_from_slice(&tail[page + surplus..]);
    changed
}

#[test]
fn true_files_read_as_before() {
    for encoding in
        [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)]
    {
        let (bytes, _) = file(&texts(), encoding);
        let rows = read(&bytes).unwrap();
        assert_eq!(rows.len(), 300, "{encoding:?}");
        assert!(rows[299].contains("text 5"), "{}", rows[299]);
    }
}

#[test]
fn a_page_that_says_it_expands_to_two_gigabytes_is_refused_before_it_is_read() {
    let (bytes, start) = file(&texts(), Some(Encoding::PLAIN));
    let lying = lie(&bytes, start, i64::from(i32::MAX));
    assert_eq!(lying.len(), bytes.len());
    let error = read(&lying).unwrap_err().to_string();
    assert!(error.contains("expands to 2147483647"), "{error}");
    assert!(read(&lie(&bytes, start, i64::from(i32::MIN))).unwrap_err().to_string().contains("negative size"));
}

#[test]
fn headers_that_do_not_end_or_lie_about_themselves() {
    assert_eq!(parse_header(&[]), Ok(None));
    assert_eq!(parse_header(&[0x15, 0x00, 0x15]), Ok(None));
    assert_eq!(parse_header(&[0]), Err("a page header without sizes"));
    assert_eq!(parse_header(&[0x18, 0x00]), Err("a page header of another type"));
    // A text of 2^60 bytes in an unknown field: more is wanted, nothing is allocated.
    let text = [&[0x98_u8][..], &[0xff; 8], &[0x0f]].concat();
    assert_eq!(parse_header(&text), Ok(None));
    let nested = vec![0x9c; 100];
    assert_eq!(parse_header(&nested), Err("a page header nested too deep"));
}

#[test]
fn texts_that_repeat_each_other_without_end_are_refused() {
    // One text of 60,000 letters and 2,000 texts that repeat it, as DELTA_BYTE_ARRAY writes them: 120 MB.
    let text = ByteArray::from("x".repeat(60_000).into_bytes());
    let (bytes, _) = file_of(&vec![text; 2_000], Some(Encoding::DELTA_BYTE_ARRAY));
    assert!(bytes.len() < 10_000, "{}", bytes.len());
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("whose texts have"), "{error}");
}

#[test]
fn more_lengths_than_values_are_refused() {
    let (block, minis, count, first) = (vec![0x80, 0x01], vec![4], vec![0xff; 4], vec![0x07, 0]);
    let bytes = [block, minis, count, first].concat();
    assert!(delta_lengths(&bytes, 1000).is_none());
    assert!(delta_lengths(&[], 1000).is_none());
    assert!(delta_lengths(&[0x80, 1, 0, 1, 0], 1000).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_lengths_the_library_writes_are_read_back(lengths in proptest::collection::vec(0_usize..3000, 1..400)) {
        let texts: Vec<String> = lengths.iter().map(|&length| "ab".repeat(length / 2)).collect();
        for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            let (bytes, _) = file(&texts, Some(encoding));
            prop_assert_eq!(read(&bytes).unwrap().len(), texts.len());
        }
    }

    #[test]
    fn any_bytes_end_in_a_header_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        _ = parse_header(&bytes);
        _ = delta_lengths(&bytes, 1 << 20);
    }
}
