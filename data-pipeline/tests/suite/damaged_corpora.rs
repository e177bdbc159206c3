//! Inputs and configurations that cannot be prepared: each is refused with a message that names the place and what to do,
//! none panics, none leaves a file behind.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data_pipeline::config::PrepareConfig;
use data_pipeline::prepare::{PrepareError, prepare};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder of inputs, and the configuration to prepare them with.
struct Case {
    dir: TempDir,
    config: Value,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "output_dir": dir.path().join("out"),
            "sources": [{"path": dir.path().join("in")}],
            "allow_licences": ["MIT"],
            "tokenizer": {"train": {"vocab_size": 300}},
        });
        std::fs::create_dir(dir.path().join("in")).unwrap();
        Case { dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("in").join(name)
    }

    fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Case {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn source(mut self, key: &str, value: Value) -> Case {
        self.config["sources"][0][key] = value;
        self
    }

    fn at(self, name: &str) -> Case {
        let path = json!(self.path(name));
        self.source("path", path)
    }

    fn set(mut self, key: &str, value: Value) -> Case {
        self.config[key] = value;
        self
    }

    fn run(&self) -> Result<(), PrepareError> {
        let config: PrepareConfig = serde_json::from_value(self.config.clone()).unwrap();
        prepare(&config, &|_| {}, &AtomicBool::new(false)).map(|_| ())
    }

    /// Runs and compares the message, in which `<DIR>` stands for the case's folder.
    fn check(self, expected: &str) {
        let before = tree(self.dir.path());
        let error = self.run().expect_err(expected);
        let message = error.to_string().replace(self.dir.path().to_str().unwrap(), "<DIR>");
        assert_eq!(message, expected);
        assert_eq!(tree(self.dir.path()), before, "files were left behind by: {message}");
    }
}

fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

fn rows(count: usize) -> String {
    (0..count)
        .map(|i| format!("{{\"text\":\"salam {i} labas\",\"lang\":\"ary_Latn\",\"licence\":\"MIT\"}}\n"))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parquet_file(message: &str, rows: i64) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(message).unwrap());
    let mut out = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut out, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        let text = |i: i64| ByteArray::from(format!("salam {i}").as_str());
        if message.contains("INT64") {
            column.typed::<Int64Type>().write_batch(&(0..rows).collect::<Vec<_>>(), None, None).unwrap();
        } else {
            column.typed::<ByteArrayType>().write_batch(&(0..rows).map(text).collect::<Vec<_>>(), None, None).unwrap();
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    out
}

#[test]
fn paths_that_lead_nowhere() {
    Case::new()
        .at("none.jsonl")
        .check("sources[0].path: <DIR>/in/none.jsonl: no such file or folder; check the path, which starts at the current directory");
    const GLOBS: &str = "`*`, `?`, `[a-z]` and `**/` are understood, and `[[]` stands for a bracket";
    Case::new()
        .at("[")
        .check(&format!("sources[0].path: `<DIR>/in/[` is not a valid glob (invalid range pattern); {GLOBS}"));
    Case::new()
        .file("a.jsonl", rows(3))
        .source("exclude", json!(["a["]))
        .check(&format!("sources[0].exclude: `a[` is not a valid glob (invalid range pattern); {GLOBS}"));
    Case::new().file("README.md", "# no").check(
        "sources[0].path: `<DIR>/in` holds no input file: the names of 1 files tell no format that is read, or another \
         than `format:` says (0 more were left out); name a file itself and write `format:` beside it",
    );
    Case::new()
        .file("a.jsonl", rows(3))
        .source("exclude", json!(["*.jsonl"]))
        .check("sources[0].path: all files of `<DIR>/in` (1) are left out by `exclude`; narrow its globs");
    let mut twice = Case::new().file("a.jsonl", rows(3));
    let again = json!({"path": twice.path("a.jsonl")});
    twice.config["sources"].as_array_mut().unwrap().push(again);
    twice.check(
        "sources[1].path: `<DIR>/in/a.jsonl` is named before already, and read as it says there; remove one of the two",
    );
}

#[test]
fn formats_that_are_not_read() {
    const ASK: &str = "cannot tell the format from the name; \
         write `format:` (`jsonl`, `json`, `csv`, `tsv`, `text`, `parquet`, `arrow` or `warc`)";
    Case::new().file("a.dat", "x").at("a.dat").check(&format!("sources[0].path: <DIR>/in/a.dat: {ASK}"));
    let hint = "unpack it first, or compress it as .gz or .zst";
    Case::new()
        .file("a.tar.gz", "x")
        .at("a.tar.gz")
        .check(&format!("sources[0].path: <DIR>/in/a.tar.gz: {ASK}; {hint}"));
    let hint = "markup is read from web archives only (`.warc`)";
    Case::new().file("a.html", "x").at("a.html").check(&format!("sources[0].path: <DIR>/in/a.html: {ASK}; {hint}"));
}

#[test]
fn text_files_need_labels() {
    Case::new().file("a.txt", "salam").check(
        "sources[0].path: <DIR>/in/a.txt: a text file cannot name its lang; write `lang: ary_Arab` beside `path`",
    );
    Case::new().file("a.txt", "salam").source("lang", json!("ary_Latn")).check(
        "sources[0].path: <DIR>/in/a.txt: a text file cannot name its licence; write `licence: CC0-1.0` beside `path`",
    );
}

#[test]
fn damaged_gzip() {
    let whole = gzip(rows(5_000).as_bytes());
    Case::new().file("a.jsonl.gz", &whole[..whole.len() / 2]).check(&format!(
        "<DIR>/in/a.jsonl.gz: damaged at or before byte {} of the file: the gzip stream ends too early \
         (whole rows before it: {}); fetch the file again, or write `on_damage: quarantine` to keep those rows",
        whole.len() / 2,
        whole_rows(&whole[..whole.len() / 2]),
    ));
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    Case::new().file("a.jsonl.gz", wrong_sum).check(&format!(
        "<DIR>/in/a.jsonl.gz: damaged at or before byte {} of the file: the gzip stream does not decode \
         (corrupt gzip stream does not have a matching checksum) (whole rows before it: 5000); \
         fetch the file again, or write `on_damage: quarantine` to keep those rows",
        whole.len(),
    ));
    Case::new().file("a.jsonl.gz", "not gzip at all").check(
        "<DIR>/in/a.jsonl.gz: damaged at or before byte 15 of the file: the gzip stream does not decode \
         (invalid gzip header) (whole rows before it: 0); \
         fetch the file again, or write `on_damage: quarantine` to keep those rows",
    );
}

/// Rows of half a gzip as another decoder sees them: whole lines, and one that is cut.
fn whole_rows(bytes: &[u8]) -> usize {
    let mut text = Vec::new();
    _ = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut text);
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).count()
}

#[test]
fn damaged_zstd() {
    let whole = zstd_frame(rows(5_000).as_bytes(), 20);
    Case::new().file("a.jsonl.zst", &whole[..9]).check(
        "<DIR>/in/a.jsonl.zst: damaged at or before byte 9 of the file: the zstd stream ends too early \
         (whole rows before it: 0); fetch the file again, or write `on_damage: quarantine` to keep those rows",
    );
    Case::new().file("a.jsonl.zst", "not zstd").check(
        "<DIR>/in/a.jsonl.zst: damaged at or before byte 8 of the file: the zstd stream does not decode \
         (Unknown frame descriptor) (whole rows before it: 0); \
         fetch the file again, or write `on_damage: quarantine` to keep those rows",
    );
}

#[test]
fn bombs() {
    let zeros = vec![b'0'; 80 << 20];
    let bomb = gzip(&zeros);
    let message = Case::new().file("a.txt.gz", &bomb).source("lang", json!("ary_Latn")).source("licence", json!("MIT"));
    let error = message.run().unwrap_err().to_string();
    assert!(error.contains("over 200 times; if the file is trusted, raise `limits.max_expansion`"), "{error}");
    assert_eq!(tree(message.dir.path()).len(), 2);
    Case::new().file("a.jsonl", rows(100)).set("limits", json!({"max_file_bytes": 1000})).check(
        "<DIR>/in/a.jsonl: expands to more than 1000 bytes; if the file is trusted, raise `limits.max_file_bytes`",
    );
    Case::new().file("a.jsonl.zst", zstd_frame(rows(9).as_bytes(), 28)).check(
        "<DIR>/in/a.jsonl.zst: its zstd window is larger than 2^27 bytes; decompress it first, or compress it without --long",
    );
}

#[test]
fn encodings_that_are_not_read() {
    let wide: Vec<u8> = rows(3).chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    let read = "convert it to UTF-8 with `iconv`, or write `encoding:` if it is one that is read \
                (utf-8, utf-16le, utf-16be, windows-1256, windows-1252, iso-8859-6)";
    Case::new()
        .file("a.jsonl", [b"\xff\xfe\0\0".as_slice(), &wide].concat())
        .check(&format!("<DIR>/in/a.jsonl: looks like UTF-32; {read}"));
    let noise: Vec<u8> = (0..4000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Case::new()
        .file("a.csv", noise)
        .check(&format!("<DIR>/in/a.csv: is neither UTF-8 nor text in a code page that is known; {read}"));
}

#[test]
fn columns_that_are_not_there() {
    Case::new()
        .file("a.csv", "content,lang\nsalam,ary_Latn\n")
        .check("<DIR>/in/a.csv: no column `text`; it has `content`, `lang`; write `fields: {text: COLUMN}`");
    let fields = json!({"text": "content", "licence": "rights"});
    Case::new()
        .file("a.tsv", "content\tlang\nsalam\tary_Latn\n")
        .source("fields", fields)
        .check("<DIR>/in/a.tsv: no column `rights`; it has `content`, `lang`; write `fields: {licence: COLUMN}`");
    Case::new()
        .file("a.parquet", parquet_file("message m { REQUIRED BYTE_ARRAY body (UTF8); }", 3))
        .check("<DIR>/in/a.parquet: no column `text`; it has `body`; write `fields: {text: COLUMN}`");
    Case::new()
        .file("a.parquet", parquet_file("message m { REQUIRED INT64 text; }", 3))
        .check("<DIR>/in/a.parquet: column `text` is INT64, not a string column; name another one in `fields`");
}

#[test]
fn damaged_parquet() {
    let whole = parquet_file("message m { REQUIRED BYTE_ARRAY text (UTF8); }", 1000);
    let half = &whole[..whole.len() / 2];
    let case = Case::new().file("a.parquet", half);
    let error = case.run().unwrap_err().to_string();
    assert!(error.contains(&format!("damaged at or before byte {} of the file", half.len())), "{error}");
    assert!(error.contains("not a whole Parquet file"), "{error}");
    assert_eq!(tree(case.dir.path()).len(), 2);
    let case = Case::new().file("a.parquet", "PAR1 nothing PAR1");
    assert!(case.run().unwrap_err().to_string().contains("not a whole Parquet file"));
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x55;
        // Whatever a flipped byte does, it is no panic and leaves nothing behind.
        let case = Case::new()
            .file("a.parquet", flipped)
            .source("lang", json!("ary_Latn"))
            .set("allow_licences", json!(["X"]));
        assert!(case.run().is_err());
        assert_eq!(tree(case.dir.path()).len(), 2);
    }
}

#[test]
fn licences() {
    let nc = "{\"text\":\"salam\",\"lang\":\"ary_Latn\",\"licence\":\"CC-BY-NC-4.0\",\"source\":\"doda\"}\n";
    Case::new().file("a.jsonl", rows(2) + nc).check(
        "<DIR>/in/a.jsonl: row 3 of source `doda` is under `CC-BY-NC-4.0`, which forbids commercial use; \
         leave the file out with `exclude:`, or write `non_commercial: true` and add the licence to `allow_licences`",
    );
    Case::new().file("a.jsonl", rows(2) + nc).set("allow_licences", json!([])).check(
        "allow_licences: is missing; the sources name `CC-BY-NC-4.0` 1, `MIT` 2 rows; \
         read these licences and write those you accept, such as `allow_licences: [CC-BY-NC-4.0]`",
    );
    Case::new().file("a.jsonl", rows(2)).set("allow_licences", json!(["CC0-1.0"])).check(
        "sources: no document is left of 2 rows: licence:MIT 2; add the licences that you accept to `allow_licences`",
    );
}

#[test]
fn nothing_to_keep() {
    Case::new()
        .file("a.jsonl", "")
        .check("sources: no document is left of 0 rows: the files hold no rows; check the paths of the sources");
    let damaged = "{\"text\":\"cut\n{\"txt\":\"a\"}\n\n{\"text\":null}\n{\"text\":12}\n{\"text\":\" \"}\n\
                   {\"text\":\"a\"}\n{\"text\":\"a\",\"lang\":\"darija\"}\n{\"text\":\"a\",\"lang\":7}\n";
    Case::new().file("a.jsonl", [damaged.as_bytes(), b"{\"text\":\"\xff\"}\n"].concat()).check(
        "sources: no document is left of 10 rows: bad_field 1, bad_language 1, blank_line 1, empty_text 1, invalid_json 1, \
         invalid_utf8 1, missing_language 1, missing_text 1, null_text 1, text_not_string 1; \
         check `format:`, `fields:`, `lang:` and `licence:` of the sources",
    );
    Case::new().file("a.csv", "text,lang\n\"a,ary_Latn\nb\n\"c\"d,ary_Latn\n").check(
        "sources: no document is left of 3 rows: bad_quoting 2, column_count 1; check `format:`, `fields:`, `lang:` and \
         `licence:` of the sources",
    );
    Case::new()
        .file("a.jsonl", rows(2))
        .set("limits", json!({"max_record_bytes": 20}))
        .check("sources: no document is left of 2 rows: record_too_large 2; raise `limits.max_record_bytes`");
}

#[test]
fn outputs_that_are_taken() {
    let case = Case::new().file("a.jsonl", rows(2));
    let input = json!(case.path(""));
    let own = |dir: &str| {
        format!(
            "output_dir: <DIR>/{dir} lies where sources[0] looks for files (`<DIR>/in`), so the next run would read its own \
             output; name a folder elsewhere, or write `exclude: [\"<DIR>/{dir}/**\"]` into that source"
        )
    };
    case.set("output_dir", input).check(&own("in"));
    let case = Case::new().file("a.jsonl", rows(2));
    let inside = json!(case.path("new/data"));
    case.set("output_dir", inside).check(&own("in/new/data"));
    let case = Case::new().file("a.jsonl", rows(2)).at("a.jsonl");
    let input = json!(case.path("a.jsonl"));
    case.set("output_dir", input)
        .check("output_dir: <DIR>/in/a.jsonl is a file; name a folder that does not exist yet");
    let case = Case::new().file("a.jsonl", rows(2)).at("a.jsonl");
    let input = json!(case.path(""));
    case.set("output_dir", input)
        .check("output_dir: <DIR>/in/ is not empty and holds no dataset; name a folder that does not exist yet");
    let case = Case::new().file("a.jsonl", rows(2)).at("a.jsonl");
    let below = json!(case.path("a.jsonl/out"));
    case.set("output_dir", below)
        .check("output_dir: <DIR>/in/a.jsonl/out cannot be created; name a folder where you may write");
}

#[test]
fn tokenizers_that_cannot_be_loaded() {
    let case = Case::new().file("a.jsonl", rows(2)).file("tokenizer.json", "{}");
    let path = json!(case.path("none.json"));
    case.set("tokenizer", json!({"path": path}))
        .check("tokenizer.path: <DIR>/in/none.json: cannot be read; check the path, permissions and free space");
    let case = Case::new().file("a.jsonl", rows(2)).file("tokenizer.json", "{}");
    let case = {
        let path = json!(case.path("tokenizer.json"));
        case.set("tokenizer", json!({"path": path}))
    };
    let error = case.run().unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: ") && error.contains("Hugging Face"), "{error}");
    assert_eq!(tree(case.dir.path()).len(), 3);
}

#[test]
fn configurations_that_contradict_themselves() {
    let case = Case::new()
        .source("lang", json!("darija"))
        .source("unit", json!("line"))
        .source("format", json!("csv"))
        .source("licence", json!(" "))
        .source("fields", json!({"text": "a..b"}))
        .set("validation", json!({"fraction": 0.9, "min_documents": 5, "max_documents": 2}))
        .set("limits", json!({"max_record_bytes": 0}))
        .set("shards", json!({"max_tokens": 0}))
        .set("tokenizer", json!({"train": {"vocab_size": 3}}));
    case.check(
        "sources[0].lang: `darija` is not a language label; write ISO 639-3 and ISO 15924 codes joined by `_`, \
         for example `ary_Arab` or `ary_Latn`\n\
         sources[0].licence: is empty; write an SPDX identifier such as `CC0-1.0`, or remove the key\n\
         sources[0].unit: only text files are cut into units; remove it, or write `format: text`\n\
         sources[0].fields.text: `a..b` is not a field name; write for example `metadata.text`\n\
         validation.fraction: 0.9 is not between 0 and 0.5; write a share such as 0.02\n\
         validation.max_documents: is 2, below validation.min_documents (5); lower that one as well\n\
         limits.max_record_bytes: 0 is not between 1 and 1073741824; the default is 16777216\n\
         tokenizer.train.vocab_size: 3 is not between 272 (bytes and special tokens) and 1048576; write 32768\n\
         shards.max_tokens: is 0; write a number of tokens, for example 134217728",
    );
    let case = Case::new().set("sources", json!([])).set("output_dir", json!(""));
    case.check(
        "output_dir: is empty; write the folder that shall hold the dataset\n\
         sources: is empty; write at least one `- path: FILE_FOLDER_OR_GLOB`",
    );
}

#[test]
fn unknown_keys_are_refused() {
    for (at, key) in [("", "dedupe"), ("sources", "licenze"), ("validation", "share"), ("tokenizer", "vocab")] {
        let mut config = Case::new().set("validation", json!({})).config;
        match at {
            "" => config[key] = json!(1),
            "sources" => config["sources"][0][key] = json!(1),
            at => config[at][key] = json!(1),
        }
        assert!(serde_json::from_value::<PrepareConfig>(config).is_err(), "{at}.{key}");
    }
}
