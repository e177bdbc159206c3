//! The same rows in every container are the same documents, and damage costs the damaged records alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data_pipeline::config::{FieldNames, Format, OnDamage, SourceConfig, Unit};
use data_pipeline::document::Document;
use data_pipeline::documents::{ReadOptions, ReadSummary, read_documents};
use data_pipeline::prepare::PrepareError;
use data_pipeline::source::SourceError;

fn formats() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/_formats");
    if !dir.exists() {
        eprintln!("SKIPPED: ../shared is absent");
        return None;
    }
    Some(dir)
}

fn read(source: SourceConfig, options: &ReadOptions) -> Result<(Vec<Document>, ReadSummary), PrepareError> {
    let mut documents = Vec::new();
    let summary = read_documents(&[source], options, &AtomicBool::new(false), &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    assert_eq!(summary.documents, documents.len() as u64);
    assert_eq!(summary.rows, summary.documents + summary.dropped.values().sum::<u64>());
    Ok((documents, summary))
}

fn read_file(path: &Path) -> (Vec<Document>, ReadSummary) {
    read(SourceConfig::at(path.to_str().unwrap()), &ReadOptions::default()).unwrap()
}

fn dropped(summary: &ReadSummary) -> Vec<(&str, u64)> {
    summary.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect()
}

#[test]
fn every_container_holds_the_same_documents() {
    let Some(dir) = formats() else { return };
    let (expected, summary) = read_file(&dir.join("rows.jsonl"));
    assert_eq!((summary.rows, expected.len()), (500, 500));
    assert!(expected.iter().any(|d| d.text.contains('\n') && d.text.contains('"') && d.lang == "ary_Latn"));
    for name in
        ["rows.jsonl.gz", "rows.jsonl.zst", "rows.csv", "rows.tsv", "crlf.csv", "rows.parquet", "rows.snappy.parquet"]
    {
        let (documents, _) = read_file(&dir.join(name));
        assert_eq!(documents.len(), expected.len(), "{name}");
        for (document, expected) in documents.iter().zip(&expected) {
            assert_eq!(document, expected, "{name}");
        }
    }
}

#[test]
fn a_byte_order_mark_costs_no_row() {
    let Some(dir) = formats() else { return };
    let (expected, _) = read_file(&dir.join("rows.jsonl"));
    let (documents, summary) = read_file(&dir.join("bom-utf8.jsonl"));
    assert_eq!(summary.rows, documents.len() as u64);
    assert!(!documents.is_empty());
    assert_eq!(documents, expected[..documents.len()]);
}

#[test]
fn text_files_are_cut_by_unit() {
    let Some(dir) = formats() else { return };
    let (expected, _) = read_file(&dir.join("rows.jsonl"));
    let path = dir.join("rows.txt");
    let with = |unit| SourceConfig { unit: Some(unit), ..SourceConfig::at(path.to_str().unwrap()) };
    let texts = |unit| -> Vec<String> {
        let (documents, _) = read(with(unit), &ReadOptions::default()).unwrap();
        documents.into_iter().map(|d| d.text).collect()
    };
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(texts(Unit::File), [whole.as_str()]);
    let lines: Vec<&str> = whole.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(texts(Unit::Line), lines);
    let paragraphs: Vec<&str> = whole.split("\n\n").map(|p| p.trim_matches('\n')).filter(|p| !p.is_empty()).collect();
    assert_eq!(texts(Unit::Paragraph), paragraphs);
    let joined: Vec<&str> = expected.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(joined.join("\n\n").trim_end(), whole.trim_end());
}

#[test]
fn nested_fields_are_reached_with_dots() {
    let Some(dir) = formats() else { return };
    let path = dir.join("dolma.jsonl.gz");
    let fields =
        FieldNames { licence: Some("metadata.licence".into()), id: Some("id".into()), ..FieldNames::default() };
    let source = SourceConfig { fields, lang: Some("ary_Latn".into()), ..SourceConfig::at(path.to_str().unwrap()) };
    let (documents, summary) = read(source, &ReadOptions::default()).unwrap();
    assert_eq!(summary.rows, 500);
    assert!(documents.iter().all(|d| d.licence != "unknown" && d.lang == "ary_Latn"));
}

#[test]
fn damaged_rows_are_counted_by_reason_and_the_good_ones_kept() {
    let Some(dir) = formats() else { return };
    let (documents, summary) = read_file(&dir.join("damaged.jsonl"));
    let expected = [
        ("blank_line", 1),
        ("empty_text", 1),
        ("invalid_json", 1),
        ("invalid_utf8", 1),
        ("missing_text", 1),
        ("null_text", 1),
        ("text_not_string", 1),
    ];
    assert_eq!(dropped(&summary), expected);
    assert_eq!(documents.len() as u64, summary.rows - 7);
    assert_eq!(documents.len(), 13);
}

#[test]
fn half_a_gzip_is_an_error_by_default_and_its_whole_rows_can_be_kept() {
    let Some(dir) = formats() else { return };
    let path = dir.join("truncated.jsonl.gz");
    let source = SourceConfig::at(path.to_str().unwrap());
    let error = read(source.clone(), &ReadOptions::default()).unwrap_err();
    let PrepareError::Source(SourceError::Damaged { byte, rows, .. }) = &error else { panic!("{error}") };
    assert_eq!(*byte, std::fs::metadata(&path).unwrap().len());
    let options = ReadOptions { on_damage: OnDamage::Quarantine, ..ReadOptions::default() };
    let (documents, summary) = read(source, &options).unwrap();
    assert_eq!((summary.rows, summary.damaged_files), (*rows, 1));
    assert_eq!(dropped(&summary), [("damaged_file", 1)]);
    let (expected, _) = read_file(&dir.join("rows.jsonl"));
    assert_eq!(documents, expected[..documents.len()]);
    assert!(documents.len() > 100);
}

#[test]
fn an_empty_file_has_no_rows() {
    let Some(dir) = formats() else { return };
    let (documents, summary) = read_file(&dir.join("empty.jsonl"));
    assert_eq!((documents.len(), summary.rows, summary.files), (0, 0, 1));
}

#[test]
fn other_encodings_are_refused_by_name() {
    let Some(dir) = formats() else { return };
    for (name, iconv) in [("utf16le.txt", "UTF-16"), ("windows-1256.txt", "WINDOWS-1256")] {
        let source = SourceConfig { format: Format::Text, ..SourceConfig::at(dir.join(name).to_str().unwrap()) };
        let error = read(source, &ReadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains(iconv), "{error}");
    }
}
