//! Owns the end of a process whose main thread does not react to a verdict; never touches the verdict itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::error::ClusterError;

use super::shared::Shared;

/// How often the watchdog looks whether the main thread has been told.
const LOOK: Duration = Duration::from_millis(100);

/// What ends the process when its main thread does not.
pub(super) type OnFatal = Box<dyn Fn(&ClusterError) + Send>;

/// Calls `on_fatal` once if, after a verdict, the main thread has not asked within `check_grace`, or the handle of the
/// control plane still lives after `exit_grace`.
pub(super) fn watch(shared: &Arc<Shared>, check_grace: Duration, exit_grace: Duration, on_fatal: &OnFatal) {
    let Some(since) = shared.wait_for_verdict_or_end() else { return };
    loop {
        let late = since + if shared.is_told() { exit_grace } else { check_grace };
        let now = Instant::now();
        if now >= late {
            break;
        }
        if shared.sleep_or_end(late.min(now + LOOK)) {
            return;
        }
    }
    if let Some(verdict) = shared.verdict() {
        on_fatal(verdict);
    }
}
