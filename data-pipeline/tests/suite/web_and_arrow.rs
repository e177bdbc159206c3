//! Web archives and Arrow files: the same rows from every layout, opt-outs and damage by their reasons, and files that lie
//! about themselves.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Fields};
use data_pipeline::config::{FieldNames, OnDamage, SourceConfig};
use data_pipeline::document::Document;
use data_pipeline::documents::{ReadOptions, ReadSummary, read_documents};
use data_pipeline::prepare::PrepareError;

fn read_as(
    name: &str,
    bytes: &[u8],
    fields: FieldNames,
    on_damage: OnDamage,
) -> Result<(Vec<Document>, ReadSummary), PrepareError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = SourceConfig { fields, ..SourceConfig::at(path.to_str().unwrap()) };
    let options = ReadOptions { on_damage, ..ReadOptions::default() };
    let mut documents = Vec::new();
    let summary = read_documents(&[source], &options, &AtomicBool::new(false), &mut |document| {
        documents.push(document);
        Ok(())
    })?;
    assert_eq!(summary.rows, documents.len() as u64 + summary.dropped.values().sum::<u64>());
    Ok((documents, summary))
}

fn read(name: &str, bytes: &[u8]) -> (Vec<String>, Vec<(String, u64)>) {
    let (documents, summary) = read_as(name, bytes, FieldNames::default(), OnDamage::Error).unwrap();
    (documents.into_iter().map(|d| d.text).collect(), summary.dropped.into_iter().collect())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const ARABIC: &str =
    "افتتحت المكتبة البلدية أبوابها صباح الاثنين بعد أشغال دامت سنتين، وحضر الافتتاح عدد كبير من سكان الحي.";
const FRENCH: &str =
    "Le maire a rappelé que l'ouverture avait été retardée par les pluies, et il a remercié les habitants.";

fn record(kind: &str, url: &str, mime: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-03-04T05:06:07Z\r\n\
         WARC-Record-ID: <urn:uuid:1>\r\nContent-Type: {mime}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    [head.as_bytes(), content, b"\r\n\r\n"].concat()
}

fn response(url: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
    record("response", url, "application/http; msgtype=response", &[head.as_bytes(), body].concat())
}

fn page(text: &str) -> String {
    format!(
        "<html><head><title>t</title></head><body><nav><a href=/>menu</a></nav><p>{text}</p><footer>x</footer></body></html>"
    )
}

fn archive() -> Vec<Vec<u8>> {
    let windows: Vec<u8> = encoding_rs_page("windows-1256", &page(ARABIC));
    let stated = page(FRENCH).replace("<head>", "<head><meta charset=iso-8859-1>");
    let noai = page(FRENCH).replace("<head>", "<head><meta name=robots content=noai>");
    vec![
        record("warcinfo", "", "application/warc-fields", b"software: x\r\n"),
        response("https://a.ma/1", "Content-Type: text/html; charset=windows-1256", &windows),
        record("request", "https://a.ma/1", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
        response("https://a.ma/2", "Content-Type: text/html", &encoding_rs_page("windows-1252", &stated)),
        response("https://a.ma/3", "Content-Type: text/html\r\nContent-Encoding: gzip", &gzip(page(ARABIC).as_bytes())),
        response("https://a.ma/4", "Content-Type: text/html\r\nX-Robots-Tag: noai, noimageai", page(FRENCH).as_bytes()),
        response("https://a.ma/5", "Content-Type: text/html\r\nTDM-Reservation: 1", page(FRENCH).as_bytes()),
        response("https://a.ma/6", "Content-Type: text/html", noai.as_bytes()),
        response("https://a.ma/7", "Content-Type: image/png", b"\x89PNG"),
        record(
            "response",
            "https://a.ma/8",
            "application/http",
            b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\nno",
        ),
        response("https://a.ma/9", "Content-Type: text/html", b"<nav><a href=/>menu</a></nav>"),
        response("https://a.ma/robots.txt", "Content-Type: text/plain", b"User-agent: *"),
        record("conversion", "https://a.ma/10", "text/plain", FRENCH.as_bytes()),
    ]
}

fn encoding_rs_page(label: &str, text: &str) -> Vec<u8> {
    let table = encoding_rs::Encoding::for_label(label.as_bytes()).unwrap();
    table.encode(text).0.into_owned()
}

#[test]
fn web_archives_give_main_texts_and_reasons() {
    let whole = archive().concat();
    let members: Vec<u8> = archive().iter().flat_map(|record| gzip(record)).collect();
    for (name, bytes) in [("a.warc", whole.clone()), ("a.warc.gz", members), ("b.warc.gz", gzip(&whole))] {
        let (documents, summary) = read_as(name, &bytes, FieldNames::default(), OnDamage::Error).unwrap();
        let found: Vec<(&str, &str)> = documents.iter().map(|d| (d.url.as_deref().unwrap(), d.text.as_str())).collect();
        let expected = [
            ("https://a.ma/1", ARABIC),
            ("https://a.ma/2", FRENCH),
            ("https://a.ma/3", ARABIC),
            ("https://a.ma/10", FRENCH),
        ];
        assert_eq!(found, expected, "{name}");
        let dropped: Vec<(&str, u64)> = summary.dropped.iter().map(|(reason, n)| (reason.as_str(), *n)).collect();
        let expected = [
            ("http_status", 1),
            ("no_main_text", 1),
            ("not_text", 1),
            ("opt_out:noai", 2),
            ("opt_out:tdm-reservation", 1),
        ];
        assert_eq!(dropped, expected, "{name}");
    }
    let fields = FieldNames { source: Some("host".into()), id: Some("id".into()), ..FieldNames::default() };
    let (documents, _) = read_as("a.warc", &whole, fields, OnDamage::Error).unwrap();
    assert!(documents.iter().all(|d| d.source == "a.ma"));
}

#[test]
fn broken_web_records_cost_themselves() {
    let mut records = archive();
    let length = records[1].len();
    records[1].truncate(length - 40);
    records.insert(3, b"garbage between records\r\nContent-Length: 9\r\n\r\n".to_vec());
    records[5] = b"WARC/1.0\r\nWARC-Type: response\r\n\r\n".to_vec();
    let (texts, dropped) = read("a.warc", &records.concat());
    // The page whose length is wrong takes the beginning of the next record in; those after it are whole.
    assert_eq!(texts.iter().filter(|text| *text == FRENCH).count(), 2, "{dropped:?}");
    assert_eq!(texts.len(), 3);
    let broken = dropped.iter().find(|(reason, _)| reason == "bad_web_record").unwrap().1;
    assert_eq!(broken, 2, "{dropped:?}");
    // A length beyond the end, and beyond any memory.
    for lie in ["99999", "18446744073709551615", "-5", "x"] {
        let record = format!("WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {lie}\r\n\r\nabc");
        let (texts, dropped) = read("a.warc", record.as_bytes());
        assert!(texts.is_empty() && dropped.len() == 1, "{lie}: {dropped:?}");
    }
    let cut = gzip(&archive().concat());
    let error = read_as("a.warc.gz", &cut[..cut.len() / 2], FieldNames::default(), OnDamage::Error).unwrap_err();
    assert!(error.to_string().contains("the gzip stream ends too early"), "{error}");
}

/// Makes a column of strings.
type TextColumn = fn(Vec<Option<&str>>) -> ArrayRef;

/// Ten rows in two batches: text, language inside a struct, a number, a dictionary.
fn batches(text: TextColumn) -> Vec<RecordBatch> {
    let batch = |from: i64| {
        let texts: Vec<String> = (from..from + 5).map(|i| format!("salam {i}, ⴰⵣⵓⵍ")).collect();
        let texts = text((0..5).map(|i| (i != 3).then_some(texts[i].as_str())).collect());
        let langs: ArrayRef = Arc::new(StringArray::from(vec!["ary_Latn"; 5]));
        let inner = Fields::from(vec![Field::new("lang", DataType::Utf8, true)]);
        let metadata: ArrayRef = Arc::new(StructArray::new(inner, vec![langs], None));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 5));
        let licences: DictionaryArray<Int32Type> =
            vec!["MIT", "CC0-1.0", "MIT", "MIT", "CC0-1.0"].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> =
            vec![("text", texts), ("metadata", metadata), ("id", numbers), ("licence", Arc::new(licences))];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    };
    vec![batch(0), batch(5)]
}

fn written(batches: &[RecordBatch], compression: Option<CompressionType>, stream: bool) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let schema = batches[0].schema();
    if stream {
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        return writer.into_inner().unwrap();
    }
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn arrow_rows_are_the_same_in_every_layout() {
    let fields = || FieldNames { lang: Some("metadata.lang".into()), id: Some("id".into()), ..FieldNames::default() };
    let texts: [TextColumn; 3] = [
        |texts| Arc::new(StringArray::from(texts)),
        |texts| Arc::new(LargeStringArray::from(texts)),
        |texts| Arc::new(StringViewArray::from(texts)),
    ];
    let mut seen = None;
    for text in texts {
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            for stream in [false, true] {
                let bytes = written(&batches(text), compression, stream);
                for (name, bytes) in [("a.arrow", bytes.clone()), ("a.arrows.gz", gzip(&bytes))] {
                    let (documents, summary) = read_as(name, &bytes, fields(), OnDamage::Error).unwrap();
                    assert_eq!((summary.rows, documents.len()), (10, 8));
                    assert_eq!(summary.dropped.iter().collect::<Vec<_>>(), [(&"null_text".to_owned(), &2)]);
                    assert!(documents.iter().all(|d| d.lang == "ary_Latn"));
                    assert_eq!(documents[1].licence, "CC0-1.0");
                    let documents: Vec<Document> = documents
                        .into_iter()
                        .map(|d| Document { source: String::new(), id: String::new(), ..d })
                        .collect();
                    assert_eq!(seen.get_or_insert_with(|| documents.clone()), &documents);
                }
            }
        }
    }
}

#[test]
fn damaged_arrow_is_an_error_and_never_fewer_rows_in_silence() {
    let bytes = written(&batches(|texts| Arc::new(StringArray::from(texts))), None, false);
    for length in (0..bytes.len()).step_by(7) {
        let error = read_as("a.arrow", &bytes[..length], FieldNames::default(), OnDamage::Error).unwrap_err();
        assert!(error.to_string().contains("damaged at or before byte"), "{length}: {error}");
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x55;
        if let Ok((_, summary)) = read_as("a.arrow", &flipped, FieldNames::default(), OnDamage::Error) {
            assert_eq!(summary.rows, 10, "byte {at}");
        }
    }
    for (bytes, what) in [
        (b"FEA1....".as_slice(), "Feather version 1"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f".as_slice(), "message header of 2147483647 bytes"),
        (b"\xff\xff\xff\xff\0\0\0\0".as_slice(), "holds no schema"),
        (b"".as_slice(), "holds no schema"),
    ] {
        let error = read_as("a.arrow", bytes, FieldNames::default(), OnDamage::Error).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn arrow_columns_that_are_not_there() {
    let bytes = written(&batches(|texts| Arc::new(StringArray::from(texts))), None, false);
    let message = |fields| read_as("a.arrow", &bytes, fields, OnDamage::Error).unwrap_err().to_string();
    let fields = FieldNames { text: Some("body".into()), ..FieldNames::default() };
    assert!(
        message(fields)
            .ends_with("no column `body`; it has `text`, `metadata`, `id`, `licence`; write `fields: {text: COLUMN}`")
    );
    let fields = FieldNames { text: Some("id".into()), ..FieldNames::default() };
    assert!(message(fields).contains("column `id` is Int64, not a string column"));
}

/// Largest resident memory of this process so far, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// 10 MiB of gzip that hold 10 GiB: members of zeros, one after another; as a file, and as the content of a web record.
#[test]
fn a_bomb_of_ten_gigabytes_takes_little_memory() {
    let member = gzip(&vec![b' '; 64 << 20]);
    let bomb = member.repeat(160);
    assert!(bomb.len() < 16 << 20);
    let error = read_as("a.jsonl.gz", &bomb, FieldNames::default(), OnDamage::Quarantine).unwrap_err();
    assert!(error.to_string().contains("over 200 times"), "{error}");
    let packed = zstd::encode_all(vec![b' '; 64 << 20].as_slice(), 3).unwrap().repeat(160);
    let error = read_as("a.jsonl.zst", &packed, FieldNames::default(), OnDamage::Quarantine).unwrap_err();
    assert!(error.to_string().contains("over 200 times"), "{error}");
    let nested = response("https://a.ma/", "Content-Type: text/html\r\nContent-Encoding: gzip", &bomb);
    assert_eq!(read("a.warc", &nested), (Vec::new(), vec![("record_too_large".to_owned(), 1)]));
    let error = read_as("b.warc.gz", &gzip(&nested), FieldNames::default(), OnDamage::Quarantine).unwrap_err();
    assert!(error.to_string().contains("over 200 times"), "{error}");
    // The peak is the process's: it says something where every test has one of its own.
    if std::env::var("NEXTEST_EXECUTION_MODE").is_ok_and(|mode| mode == "process-per-test") {
        assert!(peak_memory() < 256 << 20, "{} bytes", peak_memory());
    } else {
        eprintln!("SKIPPED: run by cargo-nextest, this test also bounds the memory of its process");
    }
}

#[test]
fn names_in_archives_are_never_paths() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.warc");
    let url = "file:///../../../../tmp/evil";
    std::fs::write(&path, response(url, "Content-Type: text/html", page(FRENCH).as_bytes())).unwrap();
    let source = SourceConfig::at(path.to_str().unwrap());
    read_documents(&[source], &ReadOptions::default(), &AtomicBool::new(false), &mut |document| {
        assert_eq!(document.url.as_deref(), Some(url));
        Ok(())
    })
    .unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [Path::new("a.warc").as_os_str()]);
}
