//! Owns the child's side of supervision: it never outlives its supervisor; never touches the supervisor itself.

use std::io;

use rustix::process::{Signal, getppid};

/// Variable with the process id of the supervisor.
pub const SUPERVISOR_VARIABLE: &str = "JAZARI_SUPERVISOR_PID";

/// Why a supervised process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TetherError {
    /// The supervisor was gone before this process could tie itself to it.
    #[error("the supervisor (pid {expected}) is gone: this process leaves; start the run again with `jazari launch`")]
    Orphaned {
        /// The supervisor.
        expected: String,
    },
    /// The operating system refused.
    #[error(
        "cannot ask to be ended with the supervisor: {0}; start the run with another launcher than `jazari launch`"
    )]
    System(#[from] io::Error),
}

/// Whether `jazari launch` started this process: then a second signal is the supervisor's business, which ends the
/// process with SIGKILL; a scheduler that signals every process of a job makes two out of one.
pub fn is_supervised(env: &dyn Fn(&str) -> Option<String>) -> bool {
    env(SUPERVISOR_VARIABLE).is_some_and(|pid| !pid.is_empty())
}

/// Asks the kernel to end this process when its supervisor ends, however that happens; nothing to do without one.
/// To be called first thing, by the process that the supervisor started.
///
/// # Errors
/// [`TetherError::Orphaned`] when the supervisor has already ended.
pub fn tie_to_supervisor(env: &dyn Fn(&str) -> Option<String>) -> Result<(), TetherError> {
    if !is_supervised(env) {
        return Ok(());
    }
    let expected = env(SUPERVISOR_VARIABLE).unwrap_or_default();
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let parent_is = |pid: &str| getppid().is_some_and(|parent| parent.as_raw_pid().to_string() == pid);
    // A supervisor that ended before the line above sends no signal any more.
    if !parent_is(&expected) {
        return Err(TetherError::Orphaned { expected });
    }
    #[cfg(not(target_os = "linux"))]
    std::thread::Builder::new().name("tether".into()).spawn(move || {
        while parent_is(&expected) {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    /// This test binary once more, as a process with a role.
    fn start(role: &str, supervisor: &str, stdout: Stdio) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "launch::tether::tests::roles", "--nocapture", "--test-threads=1"])
            .env("JAZARI_TEST_ROLE", role)
            .env(SUPERVISOR_VARIABLE, supervisor)
            .stdout(stdout)
            .spawn()
            .unwrap()
    }

    /// What the processes of the test below do; nothing when it runs as a test of its own.
    #[test]
    fn roles() {
        let env = |name: &str| std::env::var(name).ok();
        match env("JAZARI_TEST_ROLE").as_deref() {
            Some("supervisor") => {
                let mut child = start("child", &std::process::id().to_string(), Stdio::inherit());
                child.wait().unwrap();
            }
            Some("child") => {
                println!("\n{}", tie_to_supervisor(&env).map_or_else(|e| e.to_string(), |()| "tied".into()));
                std::thread::sleep(Duration::from_secs(20));
                println!("survived");
            }
            Some("orphan") => println!("\n{}", tie_to_supervisor(&env).unwrap_err()),
            _ => {}
        }
    }

    #[test]
    fn a_process_ends_with_its_supervisor() {
        let mut supervisor = start("supervisor", "", Stdio::piped());
        let mut lines = BufReader::new(supervisor.stdout.take().unwrap());
        let mut line = String::new();
        while line != "tied\n" {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the child never said that it is tied");
        }
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        let mut rest = String::new();
        // The child holds the other end of the pipe: this returns when it is gone.
        lines.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("survived"), "{rest}");
    }

    #[test]
    fn a_process_without_its_supervisor_does_not_start() {
        let output = start("orphan", "1999999999", Stdio::piped()).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("the supervisor (pid 1999999999) is gone"), "{text}");
        assert!(tie_to_supervisor(&|_| None).is_ok() && !is_supervised(&|_| Some(String::new())));
    }
}
