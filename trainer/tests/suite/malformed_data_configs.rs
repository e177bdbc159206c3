//! Malformed data configurations: `data prepare` refuses each with exit code 2 and the message in
//! `golden/malformed_data_configs.txt`, without writing anything.
//!
//! That file holds the cases too. A case is a title (`==`), what is changed in [`GOOD`] (a line `<` that goes, lines `>`
//! that come instead), or a whole file (`|`), arguments (`$`) or another path (`@`); then what the command prints.
//! `JAZARI_BLESS=1 cargo nextest run --workspace malformed_data` rewrites what is printed; read the difference before
//! keeping it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A configuration that is right, one key a line.
const GOOD: &str = "\
output_dir: out
sources:
  - path: rows.jsonl
    source: rows
    licence: CC0-1.0
allow_licences: [CC0-1.0]
normalize: moroccan-v1
dedup: exact
validation:
  fraction: 0.1
tokenizer:
  train:
    vocab_size: 400
seed: 1
";

/// One case as the file holds it.
#[derive(Debug, Default)]
struct Case {
    title: String,
    /// The lines between title and output, marks included.
    change: Vec<String>,
    output: String,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { title: title.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("the file begins with a title");
        if case.output.is_empty() && line.starts_with(['<', '>', '|', '$', '@']) {
            case.change.push(line.to_owned());
        } else {
            case.output.push_str(line);
            case.output.push('\n');
        }
    }
    cases.iter_mut().for_each(|case| case.output.truncate(case.output.trim_end().len()));
    cases
}

impl Case {
    /// What follows a mark, a line each.
    fn marked(&self, mark: char) -> Vec<&str> {
        let of_mark = |line: &String| line.starts_with(mark);
        self.change.iter().filter(|line| of_mark(line)).map(|line| line[1..].strip_prefix(' ').unwrap_or("")).collect()
    }

    /// The configuration.
    fn config(&self) -> String {
        if self.change.iter().any(|line| line.starts_with('|')) {
            return self.marked('|').iter().map(|line| format!("{line}\n")).collect();
        }
        let mut text = format!("\n{GOOD}");
        for line in self.marked('<') {
            let from = format!("\n{line}\n");
            assert_eq!(text.matches(&from).count(), 1, "{}: {line:?} is no line of GOOD", self.title);
            let to: String = self.marked('>').iter().map(|line| format!("{line}\n")).collect();
            text = text.replacen(&from, &format!("\n{to}"), 1);
        }
        text.trim_start_matches('\n').to_owned()
    }
}

/// What the configurations name.
fn write_inputs(dir: &Path) {
    for folder in ["nothing", "full", "bench", "corpus"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    let row = |i: usize| format!("{{\"text\": \"هاد النص رقم {i} ديال التجربة\", \"lang\": \"ary_Arab\"}}\n");
    let rows: String = (0..40).map(row).collect();
    let chat = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n";
    for (name, content) in [
        ("rows.jsonl", rows.as_str()),
        ("corpus/rows.jsonl", &rows),
        ("plain.jsonl", "{\"text\": \"un\"}\n"),
        ("chats.jsonl", chat),
        ("rows.csv", "texte,lang\nun,fra_Latn\n"),
        ("rows.dat", "x\n"),
        ("rows.zip", "x\n"),
        ("book.txt", "x\n"),
        ("full/precious.txt", "1\n"),
        ("bad-list.txt", "domain: a.ma\nnonsense\n"),
        ("bench/items.jsonl", "{\"question\": \"un deux trois quatre cinq six\"}\n"),
    ] {
        fs::write(dir.join(name), content).unwrap();
    }
    // A gzip member of one stored block that ends too early (RFC 1951, 3.2.4).
    let length = u16::try_from(rows.len()).unwrap();
    let mut cut = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    cut.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
    cut.extend_from_slice(&rows.as_bytes()[..rows.len() - 20]);
    fs::write(dir.join("cut.jsonl.gz"), cut).unwrap();
    assert!(Command::new("mkfifo").arg(dir.join("pipe.jsonl")).status().unwrap().success());
}

/// Names and sizes of everything below a folder.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
        found.push((path, if metadata.is_file() { metadata.len() } else { 0 }));
    }
    found.sort();
    found
}

fn prepare(dir: &Path, config: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_jazari"))
        .args(["data", "prepare", config])
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs a case in a folder of its own and returns what is printed.
fn check(case: &Case) -> String {
    let title = &case.title;
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    if title.contains("another data set") {
        let other = GOOD.replace("output_dir: out", "output_dir: other").replace("seed: 1", "seed: 2");
        fs::write(dir.path().join("other.yaml"), other).unwrap();
        assert_eq!(prepare(dir.path(), "other.yaml", &[]).0, Some(0));
    }
    fs::write(dir.path().join("data.yaml"), case.config()).unwrap();
    let before = listing(dir.path());
    let path = case.marked('@').first().copied().unwrap_or("data.yaml");
    let arguments: Vec<&str> = case.marked('$').iter().flat_map(|words| words.split(' ')).collect();
    let (code, out, error) = prepare(dir.path(), path, &arguments);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{title}\n{error}");
    assert_eq!(listing(dir.path()), before, "{title}: something was written");
    let message = error.split_once("error[").and_then(|(_, rest)| rest.split_once("]: ")).map(|(_, message)| message);
    let message = message.unwrap_or_else(|| panic!("{title}: no message\n{error}"));
    let named = ["data.yaml", "--set ", "rows.", "cut.", "absent."].iter().any(|name| message.starts_with(name));
    assert!(named && !message.contains("panicked"), "{title}: the message names no file\n{error}");
    error.replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn every_malformed_data_config_has_its_message() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/malformed_data_configs.txt");
    let text = fs::read_to_string(&golden).unwrap();
    let cases = cases(&text);
    assert!(cases.len() >= 140, "{}", cases.len());
    let halves: Vec<&[Case]> = cases.chunks(cases.len().div_ceil(4)).collect();
    let found: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> =
            halves.into_iter().map(|part| scope.spawn(|| part.iter().map(check).collect::<Vec<_>>())).collect();
        running.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let mut written = String::new();
    for (case, output) in cases.iter().zip(&found) {
        let change: String = case.change.iter().map(|line| format!("{line}\n")).collect();
        writeln!(written, "== {}\n{change}{output}\n", case.title).unwrap();
    }
    if std::env::var_os("JAZARI_BLESS").is_some() {
        fs::write(&golden, written.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    for (case, output) in cases.iter().zip(&found) {
        assert_eq!(output, &case.output, "{}: JAZARI_BLESS=1 rewrites the golden file", case.title);
    }
}

#[test]
fn the_good_data_config_is_good() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    fs::write(dir.path().join("data.yaml"), GOOD).unwrap();
    let (code, out, error) = prepare(dir.path(), "data.yaml", &[]);
    assert_eq!(code, Some(0), "{out}{error}");
    // And an output that was refused as an input once is found as an output.
    assert!(dir.path().join("out/manifest.json").exists());
}
