//! A broken record costs itself and no other, whatever its format and wherever the reader's buffers end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data_pipeline::config::{Limits, SourceConfig, Unit};
use data_pipeline::document::Document;
use data_pipeline::documents::{ReadOptions, read_documents};
use data_pipeline::normalize::Normalize;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

/// Texts read from `bytes` in a file `name`, and dropped rows by reason.
fn read(name: &str, bytes: &[u8], max_record_bytes: u64, unit: Option<Unit>) -> (Vec<String>, Vec<(String, u64)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = SourceConfig { unit, lang: Some("ary_Latn".into()), ..at(&path) };
    let limits = Limits { max_record_bytes, ..Limits::default() };
    let options = ReadOptions { limits, normalize: Normalize::None, ..ReadOptions::default() };
    let mut texts = Vec::new();
    let summary = read_documents(&[source], &options, &AtomicBool::new(false), &mut |document: Document| {
        texts.push(document.text);
        Ok(())
    })
    .unwrap();
    assert_eq!(summary.rows, texts.len() as u64 + summary.dropped.values().sum::<u64>());
    (texts, summary.dropped.into_iter().collect())
}

fn at(path: &Path) -> SourceConfig {
    SourceConfig::at(path.to_str().unwrap())
}

fn drops(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

#[test]
fn a_quote_that_never_closes_costs_its_own_line() {
    let csv = "text,lang\na,ary_Latn\n\"oops,ary_Latn\nb,ary_Latn\n\"c\nd\",ary_Latn\ne,ary_Latn\n";
    let (texts, dropped) = read("a.csv", csv.as_bytes(), 1 << 20, None);
    assert_eq!(texts, ["a", "b", "c\nd", "e"]);
    assert_eq!(dropped, drops(&[("bad_quoting", 1)]));
    let many: String = (0..5000).map(|i| format!("row {i},ary_Latn\n")).collect();
    let csv = format!("text,lang\n\"oops,ary_Latn\n{many}");
    let (texts, dropped) = read("a.csv", csv.as_bytes(), 1000, None);
    assert_eq!(texts.len(), 5000);
    assert_eq!(dropped, drops(&[("record_too_large", 1)]));
}

#[test]
fn other_broken_csv_rows() {
    let csv = "text,lang\na\nb,ary_Latn,x\n\"c\" d,ary_Latn\ne,ary_Latn\r\n\r\n\n,ary_Latn\nf,";
    let (texts, dropped) = read("a.csv", csv.as_bytes(), 1 << 20, None);
    assert_eq!(texts, ["e", "f"]);
    assert_eq!(dropped, drops(&[("bad_quoting", 1), ("column_count", 2), ("empty_text", 1)]));
}

#[test]
fn long_lines_are_passed_over() {
    let line = |text: &str| format!("{{\"text\":\"{text}\"}}\n");
    let long = "x".repeat(3 << 20);
    let jsonl = [line("a"), line(&long), line("b"), line(&"y".repeat(2000)), line("c"), line(&long)].concat();
    let (texts, dropped) = read("a.jsonl", jsonl.as_bytes(), 1000, None);
    assert_eq!(texts, ["a", "b", "c"]);
    assert_eq!(dropped, drops(&[("record_too_large", 3)]));
    let (texts, _) = read("a.jsonl", jsonl.as_bytes(), 4 << 20, None);
    assert_eq!(texts.iter().map(String::len).collect::<Vec<_>>(), [1, 3 << 20, 1, 2000, 1, 3 << 20]);
}

#[test]
fn long_units_of_text_are_passed_over() {
    let long = "x ".repeat(1 << 20);
    let text = format!("a\nb\n\n{long}\n{long}\n \nc\n\n\n\nd");
    let (texts, dropped) = read("a.txt", text.as_bytes(), 1000, Some(Unit::Paragraph));
    assert_eq!(texts, ["a\nb", "c", "d"]);
    assert_eq!(dropped, drops(&[("record_too_large", 1)]));
    let (texts, dropped) = read("a.txt", text.as_bytes(), 1000, Some(Unit::Line));
    assert_eq!(texts, ["a", "b", "c", "d"]);
    assert_eq!(dropped, drops(&[("record_too_large", 2)]));
    let (texts, dropped) = read("a.txt", text.as_bytes(), 1000, Some(Unit::File));
    assert!(texts.is_empty());
    assert_eq!(dropped, drops(&[("record_too_large", 1)]));
}

#[test]
fn null_and_invalid_values_of_parquet() {
    let schema = "message m { OPTIONAL BYTE_ARRAY text (UTF8); OPTIONAL BYTE_ARRAY lang (UTF8); }";
    let mut file = Vec::new();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::default())).unwrap();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        let texts = [b"a".as_slice(), b"\xff\xfe", b"", &[b'z'; 2000], b"b"].map(|t| ByteArray::from(t.to_vec()));
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&[1, 0, 1, 1, 1, 1]), None).unwrap();
        column.close().unwrap();
        let langs = ["zgh_Tfng", "ary_Arab"].map(ByteArray::from);
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&langs, Some(&[0, 0, 1, 0, 0, 1]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    let (texts, dropped) = read("a.parquet", &file, 1000, None);
    assert_eq!(texts, ["a", "b", "a", "b"]);
    assert_eq!(dropped, drops(&[("empty_text", 2), ("invalid_utf8", 2), ("null_text", 2), ("record_too_large", 2)]));
}

/// A field as RFC 4180 writes it.
fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn quoted_fields_come_back_as_they_were(
        texts in prop::collection::vec("[a-z,\t\"\r\n é\u{627}-\u{64a}]{0,30}[a-z]", 0..40),
        tabs: bool,
        crlf: bool,
    ) {
        let (name, delimiter) = if tabs { ("a.tsv", "\t") } else { ("a.csv", ",") };
        let end = if crlf { "\r\n" } else { "\n" };
        let rows: String = texts.iter().map(|t| format!("x{delimiter}{}{end}", quoted(t))).collect();
        let (read_back, dropped) = read(name, format!("other{delimiter}text{end}{rows}").as_bytes(), 1 << 20, None);
        prop_assert_eq!(read_back, texts);
        prop_assert!(dropped.is_empty(), "{:?}", dropped);
    }

    #[test]
    fn jsonl_lines_are_judged_one_by_one(
        lines in prop::collection::vec(prop_oneof![
            4 => "[a-z \u{627}-\u{64a}]{1,60}".prop_map(|t| serde_json::json!({"n": 1, "text": t}).to_string()),
            1 => Just(String::new()),
            1 => Just("{\"text\": \"cut".to_owned()),
            1 => "[a-z]{90,200}".prop_map(|t| serde_json::json!({"text": t}).to_string()),
        ], 0..60),
        newline_at_end: bool,
    ) {
        const LIMIT: usize = 100;
        let mut expected = Vec::new();
        for line in &lines {
            let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
            if let Some(text) = value.as_ref().and_then(|v| v["text"].as_str())
                && line.len() <= LIMIT
                && !text.trim().is_empty()
            {
                expected.push(text.to_owned());
            }
        }
        let ends = if newline_at_end && !lines.is_empty() { "\n" } else { "" };
        let (texts, _) = read("a.jsonl", (lines.join("\n") + ends).as_bytes(), LIMIT as u64, None);
        prop_assert_eq!(texts, expected);
    }

    #[test]
    fn any_bytes_in_any_format_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000), format in 0..7_usize,
    ) {
        let names = ["a.jsonl", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.jsonl.gz", "a.csv.zst"];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(names[format]);
        std::fs::write(&path, bytes).unwrap();
        // An error or no documents: both will do.
        _ = read_documents(&[at(&path)], &ReadOptions::default(), &AtomicBool::new(false), &mut |_| Ok(()));
    }
}
