//! Owns exit codes and how failures are shown; never touches what failed.

use std::error::Error;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use super::codes::{self, Code};
use crate::cluster::{Cause, ClusterError, Verdict};

/// How the program ends; the codes are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the run failed.
    Failed,
    /// 2: wrong usage, config or input; nothing was started and nothing written.
    Usage,
    /// 3: an expectation was not met.
    Missed,
    /// 75: a peer was lost; start again.
    PeerLost,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Missed => 3,
            Self::PeerLost => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<&ClusterError> for Exit {
    fn from(error: &ClusterError) -> Self {
        match error {
            // A rank that failed by itself would fail again: only the others were lost by surprise.
            ClusterError::Lost(Verdict { cause: Cause::Failed, .. }) | ClusterError::Local { .. } => Self::Failed,
            ClusterError::Lost(_) | ClusterError::Absent { .. } => Self::PeerLost,
            ClusterError::Stopped(_) => Self::Done,
            ClusterError::Refused { .. } => Self::Usage,
        }
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    /// What is said instead of the error's own words.
    told: Option<String>,
}

impl Failure {
    /// Wrong usage, config or input.
    pub fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with(Exit::Usage, error)
    }

    /// Something failed while the work was under way.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::with(Exit::Failed, error)
    }

    /// With the exit code given.
    pub fn with(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), told: None }
    }

    /// The same failure in other words; its causes are still those of the error.
    pub fn told(self, words: String) -> Self {
        Self { told: Some(words), ..self }
    }

    /// The error itself, for looking at its causes.
    pub fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.error.as_ref())
    }

    /// The code of its cause.
    pub fn code(&self) -> &'static str {
        codes::of(self.error.as_ref(), self.exit).text()
    }

    /// How the program ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the error with its causes, once, and returns the exit code.
    pub fn report(&self) -> Exit {
        let mut text = match self.exit {
            Exit::Done => format!("note: {self}"),
            _ => format!("error[{}]: {self}", self.code()),
        };
        let mut source = self.error.source();
        while let Some(cause) = source {
            // Transparent wrappers show their cause themselves; saying it twice helps nobody.
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(&format!("\n  because: {cause_text}"));
            }
            source = cause.source();
        }
        note(&text);
        self.exit
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.told {
            Some(words) => f.write_str(words),
            None => self.error.fmt(f),
        }
    }
}

/// Writes a line to standard error; a closed standard error is no reason to fail.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a line to standard output; a closed pipe (`| head`) is no reason to fail.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a user sees of a panic: one sentence and where it was, instead of a backtrace.
pub fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
    note(&format!(
        "error[{}]: internal error: {message}{place}; this is a defect of jazari {}: please report it with the command, \
         checkpoints that were committed are intact",
        Code::Defect.text(),
        env!("CARGO_PKG_VERSION")
    ));
}
