//! Prints how fast each format is read and written out as JSONL, in MB of text per CPU second of the whole process:
//! `cargo test --release -p data-pipeline --test suite -- --ignored --nocapture reading_speed`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::support;
use arrow_array::{RecordBatch, StringArray};
use arrow_ipc::writer::FileWriter;
use data_pipeline::config::SourceConfig;
use data_pipeline::filter::{AtomicFile, Inputs, Nothing, Options, Stage, Watch, run};
use data_pipeline::scrub::{Scrub, ScrubConfig};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

const FIELDS: [&str; 6] = ["text", "lang", "script", "source", "licence", "url"];
/// Rows of a Parquet row group and of an Arrow batch.
const BATCH: usize = 4096;

/// CPU time of this process, user and system, in seconds; the kernel counts hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<f64> = after_name.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields[11] + fields[12]) / 100.0
}

fn rows(corpora: &Path) -> Vec<Value> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(corpora).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let files = folders.iter().map(|folder| folder.join("data.jsonl")).filter(|file| file.exists());
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn value<'r>(row: &'r Value, field: &str) -> &'r str {
    row[field].as_str().unwrap_or_default()
}

fn csv(rows: &[Value]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let line = |row: &Value| FIELDS.map(|field| quoted(value(row, field))).join(",") + "\n";
    FIELDS.join(",") + "\n" + &rows.iter().map(line).collect::<String>()
}

fn parquet(rows: &[Value]) -> Vec<u8> {
    let columns: String = FIELDS.iter().map(|name| format!("REQUIRED BYTE_ARRAY {name} (UTF8); ")).collect();
    let schema = Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(properties)).unwrap();
    for batch in rows.chunks(BATCH) {
        let mut group = writer.next_row_group().unwrap();
        for field in FIELDS {
            let values: Vec<ByteArray> = batch.iter().map(|row| ByteArray::from(value(row, field))).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    out
}

fn arrow(rows: &[Value]) -> Vec<u8> {
    let batch = |rows: &[Value]| {
        let column = |field: &'static str| -> arrow_array::ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| value(row, field))))
        };
        RecordBatch::try_from_iter(FIELDS.map(|field| (field, column(field)))).unwrap()
    };
    let mut writer = FileWriter::try_new(Vec::new(), batch(&[]).schema_ref()).unwrap();
    rows.chunks(BATCH).for_each(|rows| writer.write(&batch(rows)).unwrap());
    writer.into_inner().unwrap()
}

/// Pages of twenty rows with a frame around them.
fn warc(rows: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, rows) in rows.chunks(20).enumerate() {
        let text: String =
            rows.iter().map(|row| format!("<p>{}</p>\n", value(row, "text").replace('<', "&lt;"))).collect();
        let links: String = (0..40).map(|i| format!("<li><a href=\"/{i}\">Rubrique {i}</a></li>")).collect();
        let page = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><head><title>t</title></head><body>\
             <nav><ul>{links}</ul></nav><article>{text}</article><footer>{links}</footer></body></html>"
        );
        let length = page.len();
        write!(
            out,
            "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.ma/{i}\r\nContent-Length: {length}\r\n\r\n{page}\r\n\r\n"
        )
        .unwrap();
    }
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
#[ignore = "prints a table; run it by name in a release build"]
fn every_format() {
    let Some(corpora) = support::shared("corpora") else { return };
    let rows = rows(&corpora);
    let text_bytes: usize = rows.iter().map(|row| value(row, "text").len()).sum();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let utf16: Vec<u8> = lines.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let pages = warc(&rows);
    let files = [
        ("a.jsonl", lines.clone().into_bytes()),
        ("a.jsonl.gz", gzip(lines.as_bytes())),
        ("a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap()),
        ("utf16.jsonl", utf16),
        ("a.json", serde_json::to_vec_pretty(&json!(rows)).unwrap()),
        ("a.csv", csv(&rows).into_bytes()),
        ("a.parquet", parquet(&rows)),
        ("a.arrow", arrow(&rows)),
        ("a.warc", pages.clone()),
        ("a.warc.gz", gzip(&pages)),
    ];
    println!("{} rows, {:.1} MB of text\n", rows.len(), text_bytes as f64 / 1e6);
    println!(
        "| file | MB stored | rows out | CPU s | MB stored per CPU s | MB of text per CPU s |\n|---|---|---|---|---|---|"
    );
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let inputs = Inputs::open(&[SourceConfig::at(path.to_str().unwrap())]).unwrap();
        let out_path = dir.path().join("out.jsonl");
        let best = (0..3).map(|_| {
            let mut out = BufWriter::new(std::fs::File::create(&out_path).unwrap());
            let start = cpu_seconds();
            let watch = Watch { observe: &|_| {}, stop: &AtomicBool::new(false) };
            let summary = run(&inputs, &Options::default(), &Nothing, (&mut out, &out_path), watch).unwrap();
            (cpu_seconds() - start, summary)
        });
        let (seconds, summary) = best.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let (stored, text) = (bytes.len() as f64 / 1e6, summary.text_bytes as f64 / 1e6);
        println!(
            "| {name} | {stored:.1} | {} | {seconds:.2} | {:.0} | {:.0} |",
            summary.kept,
            stored / seconds,
            text / seconds
        );
    }
}

/// One large file against the same rows in eight: how many cores work, for a stage that takes time and for one that takes
/// none but whose output is compressed. `JAZARI_LARGE_MB` sets the size.
#[test]
#[ignore = "prints a table; run it by name in a release build"]
fn one_large_file_and_eight() {
    let Some(corpora) = support::shared("corpora") else { return };
    let megabytes = std::env::var("JAZARI_LARGE_MB").map_or(200, |size| size.parse::<usize>().unwrap());
    let lines: Vec<String> = rows(&corpora).iter().map(|row| format!("{row}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("eight")).unwrap();
    let create = |name: String| BufWriter::new(std::fs::File::create(dir.path().join(name)).unwrap());
    let mut one = create("one.jsonl".to_owned());
    let mut eight: Vec<_> = (0..8).map(|part| create(format!("eight/{part}.jsonl"))).collect();
    let (mut written, wanted) = (0, megabytes * 1_000_000);
    for line in lines.iter().cycle() {
        one.write_all(line.as_bytes()).unwrap();
        eight[(written * 8 / wanted).min(7)].write_all(line.as_bytes()).unwrap();
        written += line.len();
        if written >= wanted {
            break;
        }
    }
    drop((one, eight));
    let config: ScrubConfig = serde_json::from_value(json!({"filters": {}, "pii": {}})).unwrap();
    let scrub = Scrub::new(&config).unwrap();
    let stages: [(&str, &dyn Stage, &str); 3] =
        [("scrub", &scrub, "out.jsonl"), ("none", &Nothing, "out.jsonl"), ("none, gzip", &Nothing, "out.jsonl.gz")];
    println!("| stage | files | MB | wall s | CPU s | cores |\n|---|---|---|---|---|---|");
    for (name, stage, out) in stages {
        for (files, path) in [("1", "one.jsonl"), ("8", "eight"), ("1", "one.jsonl"), ("8", "eight")] {
            let inputs = Inputs::open(&[SourceConfig::at(dir.path().join(path).to_str().unwrap())]).unwrap();
            let out_path = dir.path().join(out);
            let mut file = AtomicFile::create(&out_path).unwrap();
            let (start, wall) = (cpu_seconds(), std::time::Instant::now());
            let watch = Watch { observe: &|_| {}, stop: &AtomicBool::new(false) };
            run(&inputs, &Options::default(), stage, (&mut file, &out_path), watch).unwrap();
            let (cpu, wall) = (cpu_seconds() - start, wall.elapsed().as_secs_f64());
            println!("| {name} | {files} | {megabytes} | {wall:.1} | {cpu:.1} | {:.2} |", cpu / wall);
        }
    }
}
