//! Owns the proof that the benches still run: a few steps of everything they time, shapes and finite numbers; never looks
//! at a clock.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TINY: [&str; 20] = [
    "--layers",
    "2",
    "--d-model",
    "32",
    "--heads",
    "4",
    "--kv-heads",
    "2",
    "--ffn",
    "48",
    "--vocab",
    "64",
    "--batch",
    "2",
    "--seq",
    "16",
    "--steps",
    "3",
    "--device",
    "cpu",
];

/// Elements of the parameters of the tiny model: two tables, two blocks, the last norm.
const PARAMS: u64 = 2 * 64 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32) + 32;

/// The JSON lines that a bench prints.
fn lines(program: &str, options: &[&str]) -> Vec<Value> {
    let output = Command::new(program).args(options).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {options:?}: {}\n{out}{err}", output.status);
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn train(more: &[&str]) -> Value {
    let options = [TINY.as_slice(), more].concat();
    let mut lines = lines(env!("CARGO_BIN_EXE_bench-train"), &options);
    assert_eq!(lines.len(), 1, "{more:?}");
    lines.remove(0)
}

fn number(line: &Value, field: &str) -> f64 {
    let number = line[field].as_f64().unwrap_or_else(|| panic!("no number `{field}` in {line}"));
    assert!(number.is_finite() && number > 0.0, "{field} is {number} in {line}");
    number
}

#[test]
fn every_kind_of_training_runs_and_says_what_it_did() {
    let plain = train(&["--threads", "2"]);
    assert_eq!(plain["params"], PARAMS);
    for (field, value) in [("layers", 2), ("d_model", 32), ("vocab", 64), ("batch", 2), ("seq", 16), ("grad_accum", 1)]
    {
        assert_eq!(plain[field], value, "{field}");
    }
    for field in ["tokens_per_s", "ms_per_step", "peak_mem_gib", "achieved_tflops"] {
        number(&plain, field);
    }
    // Random tokens: the first loss is that of an even guess.
    assert!((number(&plain, "loss_first") - 64f64.ln()).abs() < 0.2, "{plain}");
    assert!(number(&plain, "loss_last") < 5.0, "{plain}");

    let tied = train(&["--tie"]);
    assert_eq!(tied["params"], PARAMS - 64 * 32);
    let accumulated = train(&["--grad-accum", "2"]);
    assert_eq!(accumulated["grad_accum"], 2);
    assert_eq!(train(&["--threads", "1"])["loss_last"], plain["loss_last"], "threads change nothing");
    for adapter in ["lora", "lora-bf16", "qlora"] {
        let adapted = train(&["--adapter", adapter, "--rank", "2"]);
        // Rank 2 on the seven matrices of each block.
        assert_eq!(adapted["params"], 2 * 2 * ((2 * 64 + 2 * 48) + 3 * 80), "{adapter}");
        number(&adapted, "loss_last");
        // In tenths of a MiB: none of it for so small a base in 4 bits.
        assert!(adapted["base_weights_mib"].as_f64().is_some_and(|mib| (0.0..1.0).contains(&mib)), "{adapted}");
    }
}

#[test]
fn collectives_run_in_both_orders() {
    let options = ["--world", "2", "--bytes", "4096,65536", "--reps", "3", "--warmup", "1"];
    let lines = lines(env!("CARGO_BIN_EXE_bench-collective"), &options);
    assert_eq!(lines.len(), 4, "two sizes in two orders: {lines:?}");
    for line in &lines {
        assert_eq!(line["world"], 2, "{line}");
        let mut numbers = line.as_object().unwrap().values().filter_map(Value::as_f64);
        assert!(numbers.all(f64::is_finite), "{line}");
    }
}

/// The scripts beside the benches at least parse; what they need of PyTorch and other peers is not there in a test.
#[test]
fn scripts_parse() {
    let Ok(python) = Command::new("python3").arg("--version").output() else {
        println!("SKIPPED: there is no python3 to parse the scripts");
        return;
    };
    assert!(python.status.success());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parsed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            let program = "import ast, sys; ast.parse(open(sys.argv[1], encoding='utf-8').read())";
            let output = Command::new("python3").args(["-c", program]).arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
            parsed += 1;
        }
    }
    assert!(parsed >= 5, "{parsed} scripts");
}
