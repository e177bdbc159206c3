//! Owns running this program again as a child process: its environment, its logs, its time limit; never touches what
//! it does.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Setup;
use crate::launch::SUPERVISOR_VARIABLE;

/// Folder of the output of all children, inside the work folder.
pub(super) const LOGS: &str = "logs";
/// No child needs this long on a machine that is worth training on.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a running child is looked at; steps of the small model take longer.
const LOOK: Duration = Duration::from_millis(2);
/// Lines of standard error that explain a failure.
const TOLD_LINES: usize = 3;
/// A child is one process, whatever launcher this one was started by.
const ALONE: [(&str, &str); 5] = [
    ("JAZARI_RANK", "0"),
    ("JAZARI_WORLD_SIZE", "1"),
    ("JAZARI_LOCAL_RANK", "0"),
    ("JAZARI_LOCAL_WORLD_SIZE", "1"),
    ("JAZARI_BIND", ""),
];

/// A child that has ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its standard output.
    pub output: String,
    /// Its whole life.
    pub seconds: f64,
}

/// Runs `jazari arguments...` in the work folder and insists on exit code 0; `name` is that of its logs.
pub(super) fn run(setup: &Setup, name: &str, arguments: &[&str]) -> Result<Ran, String> {
    let ran = run_until(setup, name, arguments, &mut || false)?;
    ran.ok_or_else(|| "ended although nobody asked; this is a defect, please report it".to_owned())
}

/// The same, but kills the child as soon as `cut` says so, and gives `None` then.
pub(super) fn run_until(
    setup: &Setup,
    name: &str,
    arguments: &[&str],
    cut: &mut dyn FnMut() -> bool,
) -> Result<Option<Ran>, String> {
    let logs = setup.folder.join(LOGS);
    let (out, err) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
    let shown = format!("jazari {}", arguments.join(" "));
    let start = Instant::now();
    let mut child = start_child(setup, arguments, &out, &err)?;
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(format!("cannot wait for `{shown}`: {error}")),
        }
        if cut() {
            return Ok(None);
        }
        if setup.stop.is_set() {
            return Err("stopped".into());
        }
        if start.elapsed() > LIMIT {
            return Err(format!("`{shown}` took longer than {} s and was killed{}", LIMIT.as_secs(), told(&err)));
        }
        thread::sleep(LOOK);
    };
    if !status.success() {
        return Err(format!("`{shown}` {}{}", ending(status), told(&err)));
    }
    let output = fs::read(&out).map_err(|error| format!("cannot read {}: {error}", out.display()))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(Some(Ran { output, seconds: start.elapsed().as_secs_f64() }))
}

/// A child that does not outlive its handle.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        // Both are refused for a child that has ended and been waited for, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_child(setup: &Setup, arguments: &[&str], out: &Path, err: &Path) -> Result<Leash, String> {
    let log = |path: &Path| File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()));
    let child = Command::new(&setup.program)
        .args(arguments)
        .current_dir(&setup.folder)
        .envs(ALONE)
        .env(SUPERVISOR_VARIABLE, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log(out)?)
        .stderr(log(err)?)
        .spawn();
    child.map(Leash).map_err(|error| format!("cannot start {}: {error}", setup.program.display()))
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("left with code {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}

/// What a child said last.
fn told(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(TOLD_LINES)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(": {}", last.join(" | ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::signals::StopFlag;

    fn setup(folder: &Path) -> Setup {
        fs::create_dir_all(folder.join(LOGS)).unwrap();
        Setup { program: "/bin/sh".into(), processes: 2, folder: folder.to_owned(), stop: StopFlag::default() }
    }

    #[test]
    fn output_comes_back_and_failures_are_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path());
        let ran = run(&setup, "a", &["-c", "echo $JAZARI_RANK/$JAZARI_WORLD_SIZE; pwd; echo x >&2"]).unwrap();
        assert_eq!(ran.output, format!("0/1\n{}\n", dir.path().display()));
        let error = run(&setup, "b", &["-c", "for i in 1 2 3 4; do echo $i >&2; done; exit 7"]).unwrap_err();
        assert!(error.ends_with("left with code 7: 2 | 3 | 4"), "{error}");
        let error = run(&setup, "c", &["-c", "kill -9 $$"]).unwrap_err();
        assert!(error.ends_with("was killed by signal 9"), "{error}");
    }

    #[test]
    fn a_child_is_cut_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path());
        let mut looks = 0;
        let mut cut = || {
            looks += 1;
            looks == 3
        };
        assert!(run_until(&setup, "a", &["-c", "sleep 60"], &mut cut).unwrap().is_none());
        setup.stop.set();
        assert_eq!(run(&setup, "b", &["-c", "sleep 60"]).unwrap_err(), "stopped");
    }
}
