//! Owns what each process of the collectives' check does; never touches how the processes are started.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::assembly::{self, Callbacks, Meeting};
use crate::cluster::control::{Control, Timing};
use crate::cluster::engine::Engine;
use crate::cluster::place::Place;
use crate::cluster::rendezvous::Membership;
use crate::cluster::{ClusterError, Collective, Order, conformance, device_conformance};
use crate::device::{self, DeviceChoice, DeviceChoiceError, nccl};
use crate::signals::StopFlag;

/// The hidden command that runs [`rank`].
pub const RANK_COMMAND: &str = "selftest-rank";

/// Variable that adds the checks over tensors on GPUs: a device for all processes (`cuda:0`), or `local`, a GPU each.
pub const DEVICE_VARIABLE: &str = "JAZARI_SELFTEST_DEVICE";

/// Longest wait for the other processes to come.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for one of them in a collective.
const COLLECTIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Sizes that are timed, MiB, each with the number of sums.
pub(super) const SIZES: [(u64, usize); 3] = [(1, 20), (16, 5), (64, 3)];

/// The order of a sum, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sum {
    Exact,
    Fast,
}

/// What a process says, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// A check of the conformance suite.
    Check { name: String, passed: bool, detail: String },
    /// The median time of a sum of vectors of this size, and whether all sums were right.
    Time { sum: Sum, mebibytes: u64, seconds: f64, right: bool },
}

/// Joins the others, runs the conformance suite and times sums; `emit` receives one line of JSON at a time.
///
/// # Errors
/// [`ClusterError`] when the processes do not come together or one is lost. A check that does not hold is no error.
pub fn rank(place: &Place, emit: &dyn Fn(&str), callbacks: Callbacks<'_>) -> Result<(), ClusterError> {
    let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let meeting = Meeting {
        members: Membership {
            fingerprint: RANK_COMMAND.into(),
            facts: vec![fact("version of jazari", env!("CARGO_PKG_VERSION"))],
            ..Membership::default()
        },
        engine: Engine::Tcp,
        wire: None,
        join_timeout: JOIN_TIMEOUT,
        timing: Timing { collective_timeout: COLLECTIVE_TIMEOUT, ..Timing::default() },
    };
    let (mut collective, control) = assembly::connect(place, meeting, &StopFlag::default(), callbacks)?;
    let tell = |line: &Line| serde_json::to_string(line).into_iter().for_each(|line| emit(&line));
    for conformance::Check { name, passed, detail } in conformance::run(collective.as_mut()) {
        tell(&Line::Check { name: name.to_owned(), passed, detail });
    }
    for sum in [Sum::Exact, Sum::Fast] {
        for (mebibytes, repeats) in SIZES {
            tell(&time(collective.as_mut(), sum, mebibytes, repeats)?);
        }
    }
    if let Ok(device) = std::env::var(DEVICE_VARIABLE) {
        let (engine, checks) = on_device(&device, place, &control, collective)?;
        collective = engine;
        for conformance::Check { name, passed, detail } in checks {
            tell(&Line::Check { name: name.to_owned(), passed, detail });
        }
    }
    collective.barrier()?;
    // The data connections close while the others still know this process as one that leaves.
    drop(collective);
    control.leave();
    Ok(())
}

/// Puts NCCL in front of the engine and runs the suite over tensors on a GPU.
fn on_device(
    device: &str,
    place: &Place,
    control: &Arc<Control>,
    host: Box<dyn Collective>,
) -> Result<(Box<dyn Collective>, Vec<conformance::Check>), ClusterError> {
    let refused = |what: String| ClusterError::Refused {
        what: format!("{DEVICE_VARIABLE}={device}: {what}"),
        advice: "unset the variable to check the collectives over host memory only".into(),
    };
    let choice = match device {
        "local" => Ok(DeviceChoice::Cuda(place.local_rank)),
        text => text.parse().map_err(|error: DeviceChoiceError| refused(error.to_string())),
    };
    let opened = device::open(choice?, None).map_err(|error| refused(error.to_string()))?;
    let joined = nccl::connect(&opened, Arc::clone(control), host).map_err(|refusal| refusal.error)?;
    let mut collective = joined.collective;
    let engine = collective.on_device().ok_or_else(|| refused("the engine cannot reach the device".into()))?;
    let checks = device_conformance::run(engine, &opened.device);
    Ok((collective, checks))
}

fn time(collective: &mut dyn Collective, sum: Sum, mebibytes: u64, repeats: usize) -> Result<Line, ClusterError> {
    let order = match sum {
        Sum::Exact => Order::Exact,
        Sum::Fast => Order::Fast,
    };
    let mut values = vec![0.0_f32; usize::try_from(mebibytes).unwrap_or(1) << 18];
    let expected = collective.world() as f32;
    let (mut times, mut right) = (Vec::new(), true);
    // The first sum pays for page faults and is not counted.
    for counts in (0..=repeats).map(|turn| turn > 0) {
        values.fill(1.0);
        collective.barrier()?;
        let start = Instant::now();
        collective.all_reduce(&mut values, order)?;
        if counts {
            times.push(start.elapsed().as_secs_f64());
        }
        right &= values.iter().all(|value| *value == expected);
    }
    times.sort_by(f64::total_cmp);
    let seconds = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(Line::Time { sum, mebibytes, seconds, right })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::Alone;

    #[test]
    fn lines_survive_the_pipe() {
        let line = time(&mut Alone, Sum::Fast, 1, 2).unwrap();
        assert!(matches!(line, Line::Time { sum: Sum::Fast, mebibytes: 1, right: true, .. }), "{line:?}");
        let check = Line::Check { name: "a \"b\"".into(), passed: false, detail: "c\nd".into() };
        for line in [line, check] {
            let json = serde_json::to_string(&line).unwrap();
            assert_eq!(json.lines().count(), 1);
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        }
    }
}
