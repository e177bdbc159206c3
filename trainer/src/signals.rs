//! Owns the wish to stop: SIGINT and SIGTERM set a flag; never touches the run itself.
//!
//! Handlers only set the flag: the loop reads it at a step boundary, saves and leaves. A second signal ends the
//! process at once; the commit protocol of checkpoints makes that safe at any moment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Exit code of a process ended by a second signal: 128 + SIGINT, as a shell reports it.
const SECOND_SIGNAL_EXIT: i32 = 130;

/// A flag that is set once the user or the scheduler wants the work to stop.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Installs the handlers. With `second_ends` a second signal ends the process at once; a supervised process leaves
    /// that to its supervisor, as a scheduler and the supervisor may both pass on what was one wish.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn install(second_ends: bool) -> io::Result<Self> {
        let flag = Self::default();
        let came = [SIGINT, SIGTERM].map(|signal| (signal, Arc::new(AtomicBool::new(false))));
        for (which, (signal, own)) in came.iter().enumerate() {
            let (_, other) = &came[1 - which];
            if second_ends {
                // Handlers run in this order. Two signals at the same moment may be handled on two threads: as each says
                // that it came before it looks for the other, at least one of them sees two.
                signal_hook::flag::register_conditional_shutdown(*signal, SECOND_SIGNAL_EXIT, Arc::clone(own))?;
                signal_hook::flag::register(*signal, Arc::clone(own))?;
                signal_hook::flag::register_conditional_shutdown(*signal, SECOND_SIGNAL_EXIT, Arc::clone(other))?;
            }
            signal_hook::flag::register(*signal, Arc::clone(&flag.0))?;
        }
        Ok(flag)
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks for a stop from inside the program (tests, a supervisor).
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for crates that only know an atomic.
    pub fn as_atomic(&self) -> &AtomicBool {
        &self.0
    }
}
