//! Promises of adapter runs: same bits after a kill and on any number of processes, an adapter that PEFT could load, a
//! merged model that answers as the adapted one, and refusals that say what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{final_digest, kill_at_checkpoint, losses, run, run_ok, text, tiny_dataset, train_tiny};
use rustix::fs::{FlockOperation, flock};

/// A small trained model as a Hugging Face directory, made once for all tests of this binary.
fn base() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter-base");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (hub, stamp) = (folder.join("hf"), folder.join("binary"));
    let now = format!("{:?}", fs::metadata(env!("CARGO_BIN_EXE_jazari")).unwrap().modified().unwrap());
    if fs::read_to_string(&stamp).unwrap_or_default() != now {
        let _ = fs::remove_dir_all(&hub);
        let _ = fs::remove_dir_all(folder.join("run"));
        train_tiny(&folder.join("run"), &[]);
        export(&folder.join("run"), &hub, &[]);
        fs::write(&stamp, now).unwrap();
    }
    hub
}

fn export(run: &Path, out: &Path, more: &[&str]) -> Output {
    let (run, out) = (run.to_str().unwrap(), out.to_str().unwrap());
    run_ok(&[&["export", run, "--out", out], more].concat())
}

/// A config of an adapter run on `base`, with lines of its own.
fn config(dir: &Path, base: &Path, lines: &str) -> PathBuf {
    let (path, data) = (dir.join("adapter.yaml"), tiny_dataset());
    let (base, data) = (base.display(), data.display());
    let text = format!(
        "config_version: 1\noutput_dir: unused\nseed: 7\nbase_model: {base}\n{lines}\ndatasets: [{{path: {data}}}]\n\
         sequence_len: 64\nglobal_batch_size: 8 seq\nmicro_batch_size: 1\nmax_steps: 18\nlearning_rate: 2e-3\n\
         device: cpu\nsave_steps: 3\nlogging_steps: 1\neval_steps: 18\nsave_total_limit: 8\n\
         eval: {{max_tokens_per_language: 256}}\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn arguments(config: &Path, output: &Path, more: &[&str]) -> Vec<String> {
    let mut all = vec!["train".to_owned(), config.display().to_string()];
    all.extend(["--set".to_owned(), format!("output_dir=\"{}\"", output.display())]);
    all.extend(more.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]));
    all
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn train(config: &Path, output: &Path, more: &[&str]) -> Output {
    run_ok(&borrowed(&arguments(config, output, more)))
}

fn kill_after(config: &Path, output: &Path, step: u64) {
    kill_at_checkpoint(&arguments(config, output, &[]), output, step);
}

const KINDS: [&str; 3] = [
    "adapter: lora\nlora_r: 4",
    "adapter: lora\nlora_r: 4\nuse_dora: true\nlora_target_modules: [q_proj, down_proj]\nlora_modules_to_save: [norm]",
    "adapter: qlora\nlora_r: 3\nuse_rslora: true\nlora_layers_to_transform: [1]",
];

#[test]
fn a_killed_adapter_run_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    for (number, kind) in KINDS.iter().enumerate() {
        let config = config(dir.path(), &base, kind);
        let [whole, cut, twice] = ["whole", "cut", "twice"].map(|name| dir.path().join(format!("{name}-{number}")));
        train(&config, &whole, &[]);
        kill_after(&config, &cut, 9);
        train(&config, &cut, &["threads=1"]);
        train(&config, &twice, &["gradient_checkpointing=block", "threads=3"]);
        let expected = losses(&whole);
        assert!(expected.len() == 18 && f64::from_bits(expected[17].1) < f64::from_bits(expected[0].1), "{kind}");
        for other in [&cut, &twice] {
            assert_eq!(losses(other), expected, "{kind}");
            assert_eq!(final_digest(other), final_digest(&whole), "{kind}");
        }
    }
}

#[test]
fn the_number_of_processes_is_invisible_to_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &base(), KINDS[1]);
    let one = dir.path().join("one");
    train(&config, &one, &[]);
    for (processes, more) in [("2", "cluster.zero=0"), ("2", "cluster.zero=1"), ("2", "cluster.zero=2")] {
        let several = dir.path().join(format!("{processes}-{more}"));
        let launch = ["launch", "--nproc", processes, "--"].map(str::to_owned);
        let all = [&launch[..], &arguments(&config, &several, &[more])].concat();
        run_ok(&borrowed(&all));
        assert_eq!(losses(&several), losses(&one), "{more}");
        assert_eq!(final_digest(&several), final_digest(&one), "{more}");
    }
}

fn generate(model: &Path, more: &[&str]) -> String {
    let fixed = ["generate", model.to_str().unwrap(), "--prompt", "السلام", "--max-tokens", "24", "--device", "cpu"];
    String::from_utf8(run_ok(&[&fixed, more].concat()).stdout).unwrap()
}

#[test]
fn adapter_and_merged_model_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let path = |name: &str| dir.path().join(name);
    for (kind, name) in [(KINDS[0], "lora"), (KINDS[1], "dora")] {
        let config = config(dir.path(), &base, kind);
        train(&config, &path(name), &["learning_rate=0.2"]);
        let merged = export(&path(name), &path(&format!("{name}-merged")), &["--merge"]);
        assert!(text(&merged).contains("merged the adapter into its base: logits differ by at most"));
        export(&path(name), &path(&format!("{name}-adapter")), &["--to", "adapter"]);
        let adapter = path(&format!("{name}-adapter"));
        let expected = generate(&path(&format!("{name}-merged")), &[]);
        assert_eq!(generate(&base, &["--adapter", adapter.to_str().unwrap()]), expected);
        assert_ne!(generate(&base, &[]), expected, "the adapter changes nothing");
    }
    let both = ["lora", "dora"].map(|name| format!("{name}={}", path(&format!("{name}-adapter")).display()));
    let said = generate(&base, &["--adapter", &both[0], "--adapter", &both[1]]);
    let alone = ["lora", "dora"].map(|name| generate(&path(&format!("{name}-merged")), &[]));
    assert_eq!(said, format!("[lora]\n{}[dora]\n{}", alone[0], alone[1]));
    let twice =
        run(&["generate", base.to_str().unwrap(), "--prompt", "x", "--adapter", &both[0], "--adapter", &both[0]]);
    assert_eq!(twice.status.code(), Some(2));
    assert!(text(&twice).contains("two adapters are called \"lora\""), "{}", text(&twice));
    resumed_from_a_written_adapter(dir.path(), &base, &path("dora-adapter"));
}

/// Training goes on from what was exported: its first loss is near the last of the run before.
fn resumed_from_a_written_adapter(dir: &Path, base: &Path, adapter: &Path) {
    let fresh = dir.join("fresh");
    let next = dir.join("next");
    train(&config(dir, base, KINDS[1]), &fresh, &["learning_rate=1e-4", "max_steps=3"]);
    let lines = format!("adapter: lora\nlora_model_dir: {}", adapter.display());
    let path = config(dir, base, &lines);
    train(&path, &next, &["learning_rate=1e-4", "max_steps=3"]);
    let first = |run: &Path| f64::from_bits(losses(run)[0].1);
    assert!(first(&next) < first(&fresh), "{} beside {}", first(&next), first(&fresh));
    let resolved = next.join("config.resolved.yaml");
    train(&resolved, &dir.join("again"), &[]);
    assert_eq!(final_digest(&dir.join("again")), final_digest(&next), "config.resolved.yaml means the same run");
}

#[test]
fn a_base_in_four_bits_is_merged_as_it_was_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), &base(), "adapter: qlora\nlora_r: 4");
    let (out, hub) = (dir.path().join("run"), dir.path().join("hf"));
    train(&config, &out, &[]);
    let said = text(&export(&out, &hub, &[]));
    assert!(said.contains("merging into the original base instead would answer differently"), "{said}");
    run_ok(&["verify", hub.to_str().unwrap()]);
    run_ok(&["verify", out.to_str().unwrap()]);
}

#[test]
fn another_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let other = dir.path().join("other");
    export(&base.with_file_name("run"), &other, &["--dtype", "bf16"]);
    let run_dir = dir.path().join("run");
    train(&config(dir.path(), &base, KINDS[0]), &run_dir, &[]);
    let changed = config(dir.path(), &other, KINDS[0]);
    let refused = run(&borrowed(&arguments(&changed, &run_dir, &[])));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("starts_from was"), "{}", text(&refused));
    let out = dir.path().join("hf");
    let exported =
        ["export", run_dir.to_str().unwrap(), "--out", out.to_str().unwrap(), "--base", other.to_str().unwrap()];
    let refused = run(&exported);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("not the model that the adapter was trained on"), "{}", text(&refused));
    assert!(!out.exists());
}

#[test]
fn settings_that_mean_nothing_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let base = base();
    let cases = [
        ("adapter: lora\nlora_target_modules: [q_proj, w_pack]", "no linear layer's name ends in `w_pack`"),
        ("adapter: lora\nlora_target_modules: [lm_head]", "trained whole: name them in `lora_modules_to_save`"),
        ("adapter: lora\nlora_layers_to_transform: [7]", "there is no block 7: the model's are 0 to 1"),
        ("adapter: lora\nlora_r: 500", "rank 500 of `model.layers.0.self_attn.q_proj` is impossible"),
        ("adapter: lora\nlora_rank_pattern: {o_projj: 4}", "`o_projj` means no layer that is corrected"),
        ("adapter: lora\nlora_modules_to_save: [lm_head]", "the model's head is its embedding; write `embed_tokens`"),
        ("adapter: lora\nlora_modules_to_save: [q_proj]", "is trained whole and corrected"),
        ("lora_r: 8", "`lora_r` has no effect without an adapter"),
        ("adapter: lora\nlora_dropout: 0.1", "`lora_dropout` above 0 is not part of this version"),
        ("adapter: lora\nlora_model_dir: nowhere", "there is no adapter_config.json here"),
    ];
    for (lines, expected) in cases {
        let (path, out) = (config(dir.path(), &base, lines), dir.path().join("never"));
        let refused = run(&borrowed(&arguments(&path, &out, &[])));
        assert_eq!(refused.status.code(), Some(2), "{lines}: {}", text(&refused));
        assert!(text(&refused).contains(expected), "{lines}: {}", text(&refused));
        assert!(!out.exists(), "{lines}: nothing may be written");
    }
}
