//! Malformed configurations: each is refused with the message in `golden/malformed_configs.txt`, without a panic and
//! without writing anything. `JAZARI_BLESS=1 cargo nextest run -p trainer malformed` rewrites the golden file; read the
//! difference before keeping it.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use trainer::config::{ComponentFacts, ConfigError, DatasetFacts, RawConfig, load, resolve};

/// A configuration that is right, one key a line, so that a case is the replacement of a line.
const GOOD: &str = "\
config_version: 1
output_dir: runs/malformed
seed: 1
model:
  size: 3m
  rope_theta: 10000.0
datasets:
  - path: data/sample
mixture:
  temperature: 0.7
sequence_len: 128
global_batch_size: 32 seq
micro_batch_size: 8
max_steps: 100
learning_rate: 1e-3
betas: [0.9, 0.95]
lr_scheduler: cosine
warmup_steps: 10
precision: fp32
device: cpu
save_total_limit: 3
expect:
  val_bpb_below: {ary_Arab: 3.0}
";

/// What makes a case wrong.
enum Fault {
    /// A line of [`GOOD`] is replaced; an empty replacement removes it.
    Line(&'static str, &'static str),
    /// The whole file.
    File(Vec<u8>),
    /// The good file with these overrides.
    Set(&'static [&'static str]),
    /// Another path than the file's.
    Path(&'static str),
}

use Fault::{File, Line, Path as At, Set};

/// Name and fault of every case, in the order of the golden file.
fn cases() -> Vec<(&'static str, Fault)> {
    let mut cases = text_cases();
    cases.extend(key_cases());
    cases.extend(value_cases());
    cases.extend(combination_cases());
    cases.extend(adapter_cases());
    cases
}

/// Files that are no such YAML.
fn text_cases() -> Vec<(&'static str, Fault)> {
    let file = |text: &str| File(text.as_bytes().to_vec());
    vec![
        ("no such file", At("absent.yaml")),
        ("a directory", At(".")),
        ("an empty file", file("")),
        ("only comments", file("# to be written\n\n")),
        ("not UTF-8", File(b"config_version: 1\noutput_dir: caf\xe9\n".to_vec())),
        ("UTF-16", File("\u{feff}seed: 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect())),
        ("larger than 1 MiB", File(vec![b'#'; (1 << 20) + 1])),
        ("a list", file("- config_version: 1\n")),
        ("plain text", file("please train a model\n")),
        ("indented with a tab", Line("  size: 3m", "\tsize: 3m")),
        ("a quote that is not closed", Line("output_dir: runs/malformed", "output_dir: \"runs/malformed")),
        ("a bracket that is not closed", Line("betas: [0.9, 0.95]", "betas: [0.9, 0.95")),
        ("no space after the colon", Line("seed: 1", "seed:1")),
        ("a stray indentation", Line("seed: 1", "   seed: 1")),
        ("an anchor", Line("seed: 1", "seed: &s 1")),
        ("an alias", Line("seed: 1", "seed: *s")),
        ("a merge key", Line("seed: 1", "<<: {seed: 1}")),
        ("a tag", Line("seed: 1", "seed: !include other.yaml")),
        ("two documents", Line("seed: 1", "---")),
        ("nested too deep", file(&format!("seed: {}1{}\n", "[".repeat(40), "]".repeat(40)))),
        ("too many values", file(&format!("seed: [{}]\n", "1,".repeat(30_000)))),
        ("a key written twice", Line("precision: fp32", "seed: 2")),
    ]
}

/// Keys that nothing reads, or that are missing.
fn key_cases() -> Vec<(&'static str, Fault)> {
    vec![
        ("a typo", Line("learning_rate: 1e-3", "learnin_rate: 1e-3")),
        ("a typo in a block", Line("  rope_theta: 10000.0", "  rope_teta: 10000.0")),
        ("a key of no kind", Line("seed: 1", "tensor_parallel_size: 2")),
        ("a key in the wrong block", Line("seed: 1", "rope_theta: 10000.0")),
        ("a top key in a block", Line("  rope_theta: 10000.0", "  weight_decay: 0.1")),
        ("a key of the command line", Line("seed: 1", "resume_from_checkpoint: true")),
        ("a key of a data configuration", Line("seed: 1", "allow_licences: [MIT]")),
        ("a hostile key", Line("seed: 1", "\"\\e[2J\\u202e\": 1")),
        ("a missing key", Line("learning_rate: 1e-3", "")),
        ("a missing key of a list", Line("  - path: data/sample", "  - weight: 1.0")),
        ("no batch size", Line("global_batch_size: 32 seq", "")),
        ("a key set to nothing", Set(&["global_batch_size=~"])),
        ("an alias that contradicts", Line("seed: 1", "seq_len: 256")),
        ("an override of no key", Set(&["optimzer=adamw"])),
        ("an override without a value", Set(&["seed"])),
        ("an override into a number", Set(&["seed.deep=1"])),
    ]
}

/// Values of another kind or outside their range.
fn value_cases() -> Vec<(&'static str, Fault)> {
    vec![
        ("text for a number", Line("sequence_len: 128", "sequence_len: long")),
        ("a fraction for a count", Line("max_steps: 100", "max_steps: 10.5")),
        ("a negative count", Line("max_steps: 100", "max_steps: -5")),
        ("a value that is empty", Line("seed: 1", "seed:")),
        ("a number for text", Line("output_dir: runs/malformed", "output_dir: 2024")),
        ("a list for a block", Line("mixture:", "cluster: []\nmixture:")),
        ("one beta", Line("betas: [0.9, 0.95]", "betas: [0.9]")),
        ("a preset that does not exist", Line("  size: 3m", "  size: 7b")),
        ("a scheduler with a typo", Line("lr_scheduler: cosine", "lr_scheduler: cosin")),
        ("an engine that does not exist", Line("save_total_limit: 3", "cluster:\n  engine: gloo")),
        ("a batch without a unit", Line("global_batch_size: 32 seq", "global_batch_size: 32")),
        ("a batch with a strange unit", Line("global_batch_size: 32 seq", "global_batch_size: 32 rows")),
        ("a batch of no whole rows", Line("global_batch_size: 32 seq", "global_batch_size: 1000 tok")),
        ("a batch of nothing", Line("global_batch_size: 32 seq", "global_batch_size: 0 seq")),
        ("a device that does not exist", Line("device: cpu", "device: gpu0")),
        ("a learning rate of zero", Line("learning_rate: 1e-3", "learning_rate: 0")),
        ("a learning rate that is no number", Line("learning_rate: 1e-3", "learning_rate: .nan")),
        ("a learning rate without end", Line("learning_rate: 1e-3", "learning_rate: 1e999")),
        ("a beta of one", Line("betas: [0.9, 0.95]", "betas: [0.9, 1.0]")),
        ("a temperature below zero", Line("  temperature: 0.7", "  temperature: -1")),
        ("a single checkpoint", Line("save_total_limit: 3", "save_total_limit: 1")),
        ("an interval of zero", Line("save_total_limit: 3", "save_steps: 0")),
        ("a version of the future", Line("config_version: 1", "config_version: 2")),
        ("a row of one token", Line("sequence_len: 128", "sequence_len: 1")),
    ]
}

/// Values that do not go together, or not with the data set.
fn combination_cases() -> Vec<(&'static str, Fault)> {
    vec![
        ("two durations", Line("seed: 1", "num_epochs: 2")),
        ("no duration", Line("max_steps: 100", "")),
        ("two warm-ups", Line("seed: 1", "warmup_ratio: 0.1")),
        ("a warm-up beyond the run", Line("warmup_steps: 10", "warmup_steps: 1000")),
        ("a decay that has no effect", Line("seed: 1", "decay_ratio: 0.2")),
        ("a micro-batch that does not divide", Line("micro_batch_size: 8", "micro_batch_size: 5")),
        ("accumulation that contradicts", Line("seed: 1", "gradient_accumulation_steps: 2")),
        ("bf16 on the CPU", Line("precision: fp32", "precision: bf16-mixed")),
        ("rows without packing", Line("seed: 1", "sample_packing: false")),
        ("one data set twice", Line("  - path: data/sample", "  - path: data/sample\n  - path: data/sample")),
        (
            "a weight for one of two data sets",
            Line("  - path: data/sample", "  - path: data/sample\n  - path: data/other\n    weight: 0.2"),
        ),
        ("a warm-up that does not start", Line("warmup_steps: 10", "warmup_steps: 0\nwarmup_start_ratio: 0.1")),
        ("an impossible regression", Line("  val_bpb_below: {ary_Arab: 3.0}", "  max_regression: {ary_Arab: -0.1}")),
        (
            "a regression of an unknown language",
            Line("  val_bpb_below: {ary_Arab: 3.0}", "  max_regression: {ary_Arb: 0.1}"),
        ),
        ("a base model and a model", Line("seed: 1", "base_model: models/base")),
        (
            "heads that do not divide",
            Line("  rope_theta: 10000.0", "  num_key_value_heads: 3\n  num_attention_heads: 4"),
        ),
        ("an odd head", Line("  rope_theta: 10000.0", "  head_dim: 33")),
        ("a vocabulary below the tokenizer's", Line("  rope_theta: 10000.0", "  vocab_size: 100")),
        ("a language that the data lacks", Line("  temperature: 0.7", "  weights: {ary_Arb: 2.0}")),
        (
            "an expectation on no held-out text",
            Line("  val_bpb_below: {ary_Arab: 3.0}", "  val_bpb_below: {shi_Latn: 3.0}"),
        ),
        ("a coordinator without a port", Line("seed: 1", "outer: {coordinator: host, site: rabat, sync_every: 10}")),
        ("a site without a name", Line("seed: 1", "outer: {coordinator: \"h:1\", site: \"a b\", sync_every: 10}")),
        ("a site that never syncs", Line("seed: 1", "outer: {coordinator: \"h:1\", site: a, sync_every: 0}")),
        ("a round beyond the run", Line("seed: 1", "outer: {coordinator: \"h:1\", site: a, sync_every: 101}")),
        (
            "a compression that does not exist",
            Set(&["outer={coordinator: \"h:1\", site: a, sync_every: 9, compress: int4}"]),
        ),
        ("more passes than allowed", Line("max_steps: 100", "max_steps: 100000")),
    ]
}

/// The lines that say what a run starts from.
const START: &str = "model:\n  size: 3m\n  rope_theta: 10000.0";

fn adapter_cases() -> Vec<(&'static str, Fault)> {
    vec![
        ("an adapter's key without an adapter", Line("seed: 1", "lora_r: 8")),
        ("an adapter on fresh weights", Line("seed: 1", "adapter: lora")),
        ("an adapter that does not exist", Line("seed: 1", "adapter: ia3")),
        ("another tool's switch for 4 bits", Line("seed: 1", "load_in_4bit: true")),
        ("dropout", Line(START, "base_model: models/base\nadapter: lora\nlora_dropout: 0.05")),
        ("a rank of nothing", Line(START, "base_model: models/base\nadapter: lora\nlora_r: 0")),
        ("an alpha of nothing", Line(START, "base_model: models/base\nadapter: lora\nlora_alpha: 0")),
        ("layers that are a number", Line(START, "base_model: models/base\nadapter: lora\nlora_target_modules: 5")),
        (
            "all layers and some",
            Line(START, "base_model: models/base\nadapter: lora\nlora_target_linear: true\nlora_target: [q_proj]"),
        ),
        (
            "neither all layers nor some",
            Line(START, "base_model: models/base\nadapter: lora\nlora_target_linear: false"),
        ),
        ("no block", Line(START, "base_model: models/base\nadapter: lora\nlora_layers_to_transform: []")),
        ("4 bits in bf16", Line(START, "base_model: models/base\nadapter: qlora\nbase_dtype: bf16")),
        (
            "an adapter's own settings and others",
            Line(START, "base_model: models/base\nadapter: lora\nlora_model_dir: adapters/a\nuse_dora: true"),
        ),
        (
            "an adapter at several sites",
            Line(
                START,
                "base_model: models/base\nadapter: lora\nouter: {coordinator: \"h:1\", site: a, sync_every: 5}",
            ),
        ),
    ]
}

fn facts() -> DatasetFacts {
    let part =
        |lang: &str, rows: u64| ComponentFacts { lang: lang.into(), source: "s".into(), tokens: rows * 128, rows };
    DatasetFacts {
        id: "0123".into(),
        vocab_size: 1024,
        bos: Some(0),
        eos: Some(1),
        pad: Some(2),
        train: vec![part("ary_Arab", 900), part("zgh_Tfng", 100)],
        validation: vec![part("ary_Arab", 9)],
        bytes: 1 << 20,
        chat: None,
        parts: Vec::new(),
        best_fit: None,
    }
}

/// Runs one case in a directory of its own and returns its message, with the directory called `DIR`.
fn check(name: &str, fault: &Fault) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.yaml");
    let good = GOOD.replace("runs/", &format!("{}/runs/", dir.path().display()));
    let text = match fault {
        Line(from, to) => {
            let from = from.replace("runs/", &format!("{}/runs/", dir.path().display()));
            let to = to.replace("runs/", &format!("{}/runs/", dir.path().display()));
            let (from, all) = (format!("\n{from}\n"), format!("\n{good}"));
            assert_eq!(all.matches(&from).count(), 1, "{name}: {from:?} is no part of GOOD");
            let to = if to.is_empty() { "\n".to_owned() } else { format!("\n{to}\n") };
            all.replacen(&from, &to, 1).trim_start_matches('\n').as_bytes().to_vec()
        }
        File(bytes) => bytes.clone(),
        Set(_) | At(_) => good.into_bytes(),
    };
    std::fs::write(&file, &text).unwrap();
    let path = match fault {
        At(path) => dir.path().join(path),
        _ => file.clone(),
    };
    let set: Vec<String> = match fault {
        Set(set) => set.iter().map(|text| (*text).to_string()).collect(),
        _ => Vec::new(),
    };
    let read = || -> Result<(), ConfigError> {
        let (raw, _) = load::<RawConfig>(&path, &set)?;
        resolve(raw, &facts(), None).map(|_| ())
    };
    let outcome = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| panic!("{name}: panicked"));
    let error = outcome.err().unwrap_or_else(|| panic!("{name}: was accepted"));

    let names: Vec<PathBuf> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, std::slice::from_ref(&file), "{name}: something was written");
    assert_eq!(std::fs::read(&file).unwrap(), text, "{name}: the file was changed");
    assert!(!error.hint().is_empty(), "{name}: no hint: {error}");
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

#[test]
fn every_malformed_config_has_its_message() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut messages = String::new();
    for (name, fault) in &cases {
        writeln!(messages, "== {name}\n{}\n", check(name, fault)).unwrap();
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/malformed_configs.txt");
    if std::env::var_os("JAZARI_BLESS").is_some() {
        std::fs::write(&golden, &messages).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    for (found, wanted) in messages.split("== ").zip(expected.split("== ")) {
        assert_eq!(found, wanted, "JAZARI_BLESS=1 rewrites the golden file");
    }
    assert_eq!(messages, expected, "cases were added or removed: JAZARI_BLESS=1 rewrites the golden file");
}

#[test]
fn the_good_config_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.yaml");
    std::fs::write(&file, GOOD).unwrap();
    let (raw, notes) = load::<RawConfig>(&file, &[]).unwrap();
    assert!(notes.is_empty());
    assert_eq!(resolve(raw, &facts(), None).unwrap().max_steps, 100);
}
