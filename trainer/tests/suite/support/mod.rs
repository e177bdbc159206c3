//! What the integration tests share: the built binary, the sample data set, runs of the tiny config.

pub mod outer;
pub mod proxy;
pub mod running;
pub mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The real corpora and reference bundles, where they are at hand; says loudly when they are not.
pub fn shared(part: &str) -> Option<PathBuf> {
    let path = root().join("../shared").join(part);
    if !path.exists() {
        eprintln!("SKIPPED: ../shared/{part} is absent, so this test checked NOTHING");
        return None;
    }
    Some(path)
}

/// The binary, started in the repository's root.
pub fn jazari(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jazari"));
    command.args(arguments).current_dir(root());
    command
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    jazari(arguments).output().unwrap()
}

/// Runs the binary and insists on exit code 0.
pub fn run_ok(arguments: &[&str]) -> Output {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "jazari {}\n{}", arguments.join(" "), text(&output));
    output
}

/// Both streams of a process.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The data set of `configs/ci-tiny-data.yaml`, prepared once for all tests.
pub fn tiny_dataset() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ci-tiny");
    fs::create_dir_all(&base).unwrap();
    let lock = fs::File::create(base.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let data = base.join("data");
    let fresh = base.join("binary");
    // A newer binary may write another format: start over then.
    let stamp = fs::metadata(env!("CARGO_BIN_EXE_jazari")).unwrap().modified().unwrap();
    let stamp = format!("{:?}", stamp);
    if fs::read_to_string(&fresh).unwrap_or_default() != stamp {
        let _ = fs::remove_dir_all(&data);
        run_ok(&["data", "prepare", "configs/ci-tiny-data.yaml", "--set", &set("output_dir", &data)]);
        fs::write(&fresh, stamp).unwrap();
    }
    data
}

/// `key=value` for `--set`, quoted for YAML.
pub fn set(key: &str, value: &Path) -> String {
    format!("{key}=\"{}\"", value.display())
}

/// Arguments of a run of `configs/ci-tiny.yaml` into `output`.
pub fn tiny_arguments(output: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["train".to_owned(), "configs/ci-tiny.yaml".to_owned()];
    for value in [set("output_dir", output), format!("datasets=[{{path: \"{}\"}}]", tiny_dataset().display())] {
        arguments.extend(["--set".to_owned(), value]);
    }
    for value in more {
        arguments.extend(["--set".to_owned(), (*value).to_owned()]);
    }
    arguments
}

/// Trains the tiny config to its end.
pub fn train_tiny(output: &Path, more: &[&str]) -> Output {
    let arguments = tiny_arguments(output, more);
    run_ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `(step, bits of the loss)` of every logged step, in order.
pub fn losses(run: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut losses = Vec::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(loss) = record["loss"].as_f64() {
            losses.push((record["step"].as_u64().unwrap(), loss.to_bits()));
        }
    }
    losses
}

/// The digest of the newest checkpoint's state.
pub fn final_digest(run: &Path) -> String {
    let (_, newest) = trainer::checkpoint::store::list(&run.join("checkpoints")).unwrap().remove(0);
    trainer::checkpoint::Manifest::read(&newest).unwrap().state_digest
}

/// Arguments of `jazari launch` over `processes` for a run of the tiny config; `launch` are options of the launcher.
pub fn launch_arguments(processes: usize, launch: &[&str], output: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["launch".to_owned(), "--nproc".to_owned(), processes.to_string()];
    arguments.extend(launch.iter().map(|option| (*option).to_owned()));
    arguments.push("--".to_owned());
    arguments.extend(tiny_arguments(output, more));
    arguments
}

/// Trains the tiny config on several processes to its end.
pub fn launch_tiny(processes: usize, output: &Path, more: &[&str]) -> Output {
    let arguments = launch_arguments(processes, &[], output, more);
    run_ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Starts the tiny run and kills it once the checkpoint of `step` is there.
pub fn kill_after(output: &Path, step: u64, more: &[&str]) {
    kill_at_checkpoint(&tiny_arguments(output, more), output, step);
}

/// Starts the program and kills it once the run in `output` has the checkpoint of `step`.
pub fn kill_at_checkpoint(arguments: &[String], output: &Path, step: u64) {
    let mut child = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = output.join(format!("checkpoints/step-{step:08}"));
    for _ in 0..6000 {
        if checkpoint.exists() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(checkpoint.exists(), "the checkpoint of step {step} never came");
    child.kill().unwrap();
    child.wait().unwrap();
}
