//! Owns the thread that sees collectives come back, or not; never touches the main thread or the device's own.
//!
//! The main thread may be waiting for the device, and the device's thread may be inside the library: whoever shall
//! notice that a peer is gone must be neither. On a verdict of the control plane the communicator is cut short, so
//! that the kernels of survivors end and everybody who waits for the device goes on to hear the verdict.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::engine::PATIENCE;
use crate::cluster::ClusterError;
use crate::cluster::control::Control;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(5);

/// What is known of the collectives under way.
#[derive(Debug, Default)]
pub(super) struct Sighting {
    /// Numbers of those that have come back since the last look.
    pub(super) landed: Vec<u64>,
    /// How long the oldest of the others has been under way.
    pub(super) oldest: Option<Duration>,
}

/// What the thread looks at.
pub(super) trait Probe: Send + Sync {
    /// Looks without waiting; an error says what broke.
    fn look(&self) -> Result<Sighting, String>;

    /// Cuts all collectives short, also those that others wait in.
    fn abort(&self);
}

/// The running thread; dropping this ends it.
pub(super) struct Watch {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread.
    pub(super) fn start(control: Arc<Control>, probe: Arc<dyn Probe>) -> Result<Self, ClusterError> {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = Arc::clone(&over);
        let thread = thread::Builder::new().name("collectives-watch".into());
        let thread = thread.spawn(move || watch(&control, probe.as_ref(), &seen)).map_err(|e| ClusterError::Local {
            what: "cannot start the thread collectives-watch".into(),
            cause: e.to_string(),
            advice: "raise the limit on processes (`ulimit -u`)".into(),
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sleeps; `true` when the thread shall end.
fn rest(over: &(Mutex<bool>, Condvar), time: Duration) -> bool {
    let guard = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    *over.1.wait_timeout_while(guard, time, |over| !*over).unwrap_or_else(PoisonError::into_inner).0
}

fn watch(control: &Control, probe: &dyn Probe, over: &(Mutex<bool>, Condvar)) {
    // The control plane names whoever keeps a device waiting after `collective_timeout`; this is for the case that it
    // finds nobody.
    let limit = control.timing().collective_timeout * 3 / 2 + PATIENCE;
    loop {
        if control.verdict().is_some() {
            return probe.abort();
        }
        let trouble = match probe.look() {
            Ok(sighting) => {
                sighting.landed.iter().for_each(|&sequence| control.land(sequence));
                let late = sighting.oldest.filter(|age| *age > limit);
                late.map(|age| format!("a collective on the device has not come back for {:.1} s", age.as_secs_f64()))
            }
            Err(trouble) => Some(trouble),
        };
        if let Some(trouble) = trouble {
            let end = Instant::now() + PATIENCE;
            while control.verdict().is_none() && Instant::now() < end {
                if rest(over, PERIOD) {
                    return;
                }
            }
            // Without effect where there is a verdict.
            control.fail(&trouble);
            return probe.abort();
        }
        if rest(over, PERIOD) {
            return;
        }
    }
}
