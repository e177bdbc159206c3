//! Tests of reading: places, suggestions, overrides, and no panic on any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::super::raw::RawConfig;
use super::*;

/// A small configuration that is right, one key a line.
const GOOD: &str = "\
config_version: 1
output_dir: runs/x
seed: 7
model:
  size: 3m
  rope_theta: 10000.0
datasets:
  - path: data/sample
mixture:
  temperature: 0.5
  weights: {ary_Arab: 2.0}
sequence_len: 128
global_batch_size: 16 seq
max_steps: 100
learning_rate: 1e-3
betas: [0.9, 0.95]
";

fn read_with(text: &str, overrides: &[&str]) -> Result<(RawConfig, Vec<Note>), ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_string()).collect();
    parse(Path::new("x.yaml"), text, &overrides)
}

#[track_caller]
fn check(text: &str, overrides: &[&str], expected: &str) {
    let error = read_with(text, overrides).unwrap_err().to_string();
    assert_eq!(error, expected);
}

#[test]
fn a_good_file_is_read() {
    let (raw, notes) = read_with(GOOD, &[]).unwrap();
    assert_eq!((raw.seed, raw.sequence_len, raw.learning_rate), (Some(7), 128, 1e-3));
    assert_eq!(raw.betas, Some([0.9, 0.95]));
    assert_eq!(raw.mixture.unwrap().weights.unwrap()["ary_Arab"], 2.0);
    assert!(notes.is_empty());
}

#[test]
fn a_typo_names_line_key_and_remedy() {
    check(
        &GOOD.replace("learning_rate", "learning_rte"),
        &[],
        "x.yaml:15:1: unknown key `learning_rte`\n\
         hint: did you mean `learning_rate`? Write for example `learning_rate: 0.0006`",
    );
    check(
        &GOOD.replace("rope_theta", "rope_teta"),
        &[],
        "x.yaml:6:3: unknown key `rope_teta` in `model`\n\
         hint: did you mean `rope_theta`? Write for example `rope_theta: 10000.0`",
    );
    check(
        &GOOD.replace("seed: 7", "hidden_size: 7"),
        &[],
        "x.yaml:3:1: unknown key `hidden_size`\nhint: `hidden_size` belongs under `model:`",
    );
}

#[test]
fn a_wrong_type_names_the_path_and_an_example() {
    check(
        &GOOD.replace("sequence_len: 128", "sequence_len: long"),
        &[],
        "x.yaml:12:15: `sequence_len` takes a whole number, 0 or more, found the text `long`\n\
         hint: write for example `sequence_len: 1024`",
    );
    check(
        &GOOD.replace("betas: [0.9, 0.95]", "betas: [0.9]"),
        &[],
        "x.yaml:16:8: `betas` takes a list of length 2, found a list of length 1\n\
         hint: write for example `betas: [0.9, 0.95]`",
    );
    check(
        &GOOD.replace("  - path: data/sample", "  - path: 2024"),
        &[],
        "x.yaml:8:11: `datasets[0].path` takes text (put it in quotes), found the number 2024\n\
         hint: write for example `path: data/moroccan`",
    );
    check(
        &GOOD.replace("size: 3m", "size: 4m"),
        &[],
        "x.yaml:5:9: `model.size` is one of `3m`, `10m`, `30m`, `110m`, `350m` or `1b`, found `4m`\n\
         hint: write one of `3m`, `10m`, `30m`, `110m`, `350m` or `1b`",
    );
    check(
        &GOOD.replace("global_batch_size: 16 seq", "global_batch_size: 16"),
        &[],
        "x.yaml:13:20: `global_batch_size`: 16 has no unit, \
         and tools disagree on whether a batch size counts sequences or tokens\n\
         hint: write `16 seq` for 16 sequences, or `16 tok` for 16 tokens",
    );
}

#[test]
fn overrides_replace_values_and_name_themselves() {
    let set =
        ["learning_rate=3e-4", "model.hidden_size=256", "datasets.0.path=data/other", "mixture.weights.\"*/a.b\"=0"];
    let (raw, notes) = read_with(GOOD, &set).unwrap();
    assert_eq!(raw.learning_rate, 3e-4);
    assert_eq!(raw.model.unwrap().hidden_size, Some(256));
    assert_eq!(raw.datasets[0].path, Path::new("data/other"));
    assert_eq!(raw.mixture.unwrap().weights.unwrap()["*/a.b"], 0.0);
    assert!(notes.is_empty());
    assert_eq!(raw.places.invalid("learning_rate", "is high", "").to_string(), "--set learning_rate=3e-4: is high");

    let (raw, notes) = read_with(GOOD, &["lr=1e-2", "expect.final_loss_below=2", "seq_len=64"]).unwrap();
    assert_eq!((raw.learning_rate, raw.sequence_len), (1e-2, 64));
    assert_eq!(notes.len(), 2);
    assert_eq!(notes[0].to_string(), "--set lr=1e-2: `lr` read as `learning_rate`");

    check(
        GOOD,
        &["optimzer=adamw"],
        "--set optimzer=adamw: unknown key `optimzer`\n\
         hint: did you mean `optimizer`? Write for example `optimizer: adamw`",
    );
    check(
        GOOD,
        &["datasets.3.path=x"],
        "--set datasets.3.path=x: `3` is not an item of a list of 1, counted from 0\n\
         hint: write `--set key=value`, for example `--set learning_rate=3e-4` or `--set model.size=10m`",
    );
    for (text, word) in [
        ("seed", "has no `=`"),
        ("=3", "not a key path"),
        ("a..b=3", "not a key path"),
        ("seed=", "has no value"),
        ("seed=[1", "not valid YAML"),
        ("seed.x=1", "not a block"),
        ("seed=1 # {", ""),
    ] {
        match read_with(GOOD, &[text]) {
            Err(error) => assert!(!word.is_empty() && error.to_string().contains(word), "{text}: {error}"),
            Ok(_) => assert!(word.is_empty(), "{text}"),
        }
    }
}

#[test]
fn aliases_are_noted_with_their_line() {
    let text = GOOD.replace("sequence_len: 128", "max_seq_length: 128");
    let (raw, notes) = read_with(&text, &[]).unwrap();
    assert_eq!(raw.sequence_len, 128);
    assert_eq!(notes[0].to_string(), "x.yaml:12:1: `max_seq_length` read as `sequence_len`");
}

#[test]
fn unreadable_files_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.yaml");
    let check = |bytes: &[u8], word: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = load::<RawConfig>(&file, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable(_)), "{error}");
        assert!(error.message().contains(word) && !error.hint().is_empty(), "{error}");
    };
    check(b"", "is empty");
    check(b"# nothing but a comment\n", "is empty");
    check(b"seed: \xff\xfe\n", "is not UTF-8 text (byte 6)");
    check(b"seed: 1\0\n", "NUL");
    check(" ".repeat(MAX_FILE_BYTES as usize + 1).as_bytes(), "larger than 1 MiB");
    let message = |path: &Path| load::<RawConfig>(path, &[]).unwrap_err().to_string();
    assert!(message(dir.path()).contains("is a directory"));
    assert!(message(&dir.path().join("absent.yaml")).contains("there is no such file"));
}

#[test]
fn the_largest_allowed_file_is_read() {
    let padding = MAX_FILE_BYTES as usize - GOOD.len() - 2;
    let text = format!("{GOOD}#{}\n", "x".repeat(padding));
    assert_eq!(text.len() as u64, MAX_FILE_BYTES);
    assert!(read_with(&text, &[]).is_ok());
}

#[test]
fn hostile_shapes_end_in_errors() {
    let many = format!("a: [{}]", "1,".repeat(40_000));
    let long_key = format!("{}: 1", "k".repeat(5000));
    let bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n";
    let nested = format!("a: {}{}", "[".repeat(500), "]".repeat(500));
    for text in
        [many.as_str(), &long_key, bomb, &nested, "? [a, b]\n: 1\n", "- 1\n- 2\n", "just text", "%YAML 9.9\n---\na: 1"]
    {
        let error = read_with(text, &[]).unwrap_err().to_string();
        assert!(error.contains("hint: ") && error.len() < 3000, "{error}");
    }
}

/// A file of good lines with some bytes changed, which reaches further into the reader than noise does.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (
        0..GOOD.len(),
        prop_oneof![
            Just("\t"),
            Just("'"),
            Just("["),
            Just("}"),
            Just(":"),
            Just("\n"),
            Just("&a "),
            Just("é"),
            Just("-"),
            Just("~"),
            Just("1e999")
        ],
    );
    proptest::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text = GOOD.to_string();
        for (at, insert) in edits {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            if insert == "-" && at < text.len() {
                text.remove(at);
            }
            text.insert_str(at, insert);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mutations_never_panic(text in mutated()) {
        if let Err(error) = read_with(&text, &[]) {
            prop_assert!(!error.hint().is_empty(), "{}", error);
            prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n'));
        }
    }

    #[test]
    fn noise_never_panics(text in any::<String>(), set in any::<String>()) {
        let _ = read_with(&text, &[]);
        let _ = read_with(GOOD, &[&set]);
    }

    #[test]
    fn yaml_shaped_noise_never_panics(text in "([a-c]{1,2}(: |:\n  |- |\\[|\\{|, |\\}|\\]|\"|'|\\|\n|>|&a|\\*a|!t | #|\n)){0,40}") {
        let _ = read_with(&text, &[]);
    }
}
