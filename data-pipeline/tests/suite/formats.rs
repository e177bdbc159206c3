//! The same rows in every container are the same documents, and damage costs the damaged records alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data_pipeline::config::{Encoding, FieldNames, Format, OnDamage, SourceConfig, Unit};
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
    for name in [
        "rows.jsonl.gz",
        "rows.jsonl.zst",
        "rows.csv",
        "rows.tsv",
        "crlf.csv",
        "rows.parquet",
        "rows.snappy.parquet",
        "rows.json",
        "rows.arrow",
    ] {
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

/// Every file of the folder: rows, documents and drops, or what the error says.
#[test]
fn every_file_gives_its_rows_or_its_error() {
    let Some(dir) = formats() else { return };
    type Expected = Result<(u64, usize, &'static [(&'static str, u64)]), &'static str>;
    const DAMAGED: &[(&str, u64)] = &[
        ("blank_line", 1),
        ("empty_text", 1),
        ("invalid_json", 1),
        ("invalid_utf8", 1),
        ("missing_text", 1),
        ("null_text", 1),
        ("text_not_string", 1),
    ];
    let whole: Expected = Ok((500, 500, &[]));
    let table: [(&str, Expected); 18] = [
        ("bom-utf8.jsonl", Ok((86, 86, &[]))),
        ("crlf.csv", whole),
        ("damaged.jsonl", Ok((20, 13, DAMAGED))),
        ("dolma.jsonl.gz", whole),
        ("empty.jsonl", Ok((0, 0, &[]))),
        ("rows.arrow", whole),
        ("rows.csv", whole),
        ("rows.json", whole),
        ("rows.jsonl", whole),
        ("rows.jsonl.gz", whole),
        ("rows.jsonl.zst", whole),
        ("rows.parquet", whole),
        ("rows.snappy.parquet", whole),
        ("rows.tsv", whole),
        ("rows.txt", Ok((506, 506, &[]))),
        ("truncated.jsonl.gz", Err("the gzip stream ends too early")),
        ("utf16le.txt", Ok((1, 1, &[]))),
        ("windows-1256.txt", Ok((1, 1, &[]))),
    ];
    let mut named: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    named.sort();
    assert_eq!(named, table.map(|(name, _)| name), "the table does not name every file");
    for (name, expected) in table {
        match (read(SourceConfig::at(dir.join(name).to_str().unwrap()), &ReadOptions::default()), expected) {
            (Ok((documents, summary)), Ok((rows, kept, drops))) => {
                assert_eq!((summary.rows, documents.len()), (rows, kept), "{name}");
                assert_eq!(dropped(&summary), drops, "{name}");
            }
            (Err(error), Err(what)) => assert!(error.to_string().contains(what), "{name}: {error}"),
            (found, _) => panic!("{name}: {:?}", found.map(|(_, summary)| summary)),
        }
    }
}

#[test]
fn other_encodings_are_found_out_and_reported() {
    let Some(dir) = formats() else { return };
    let (all, _) = read_file(&dir.join("rows.jsonl"));
    let texts: std::collections::HashSet<&str> = all.iter().map(|d| d.text.as_str()).collect();
    for (name, encoding, lines) in [("utf16le.txt", "utf-16le", 51), ("windows-1256.txt", "windows-1256", 42)] {
        let source = SourceConfig { unit: Some(Unit::Line), ..SourceConfig::at(dir.join(name).to_str().unwrap()) };
        let (documents, summary) = read(source.clone(), &ReadOptions::default()).unwrap();
        assert_eq!(summary.encodings.iter().collect::<Vec<_>>(), [(&encoding.to_owned(), &1)], "{name}");
        let known = documents.iter().filter(|d| texts.contains(d.text.as_str())).count();
        assert!(
            documents.len() <= lines && known * 10 >= documents.len() * 9,
            "{name}: {known} of {}",
            documents.len()
        );
        assert!(documents.iter().all(|d| !d.text.contains('\u{fffd}')), "{name}");
        // The wrong one that is asked for is taken, and the right one changes nothing.
        let asked = |encoding| read(SourceConfig { encoding, ..source.clone() }, &ReadOptions::default()).unwrap().0;
        let right = if name.starts_with("utf") { Encoding::Utf16Le } else { Encoding::Windows1256 };
        assert_eq!(asked(right), documents);
        assert_ne!(asked(Encoding::Windows1252), documents);
    }
}

#[test]
fn a_dolma_folder_is_read_without_its_attributes() {
    let Some(dir) = formats() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (part, bytes) in [
        ("documents", std::fs::read(dir.join("dolma.jsonl.gz")).unwrap()),
        ("attributes/lid", std::fs::read(dir.join("truncated.jsonl.gz")).unwrap()),
    ] {
        std::fs::create_dir_all(folder.path().join(part)).unwrap();
        std::fs::write(folder.path().join(part).join("0000.jsonl.gz"), bytes).unwrap();
    }
    let source = SourceConfig { format: Format::Dolma, ..SourceConfig::at(folder.path().to_str().unwrap()) };
    let (documents, summary) = read(source, &ReadOptions::default()).unwrap();
    assert_eq!((summary.files, summary.rows), (1, 500));
    assert_eq!(documents.len(), 500);
    assert!(documents.iter().all(|d| d.licence != "unknown"));
    assert!(documents.iter().any(|d| d.source == "doda-mit"));
}
