//! Owns the trace of a run, what it computed step by step, and the comparison of two of them; never touches the run.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::card::RunFacts;
use crate::checkpoint::{self, CheckpointError, Manifest};

/// Relative difference of a loss up to which two runs count as the same but for rounding: what `reduction: fast` and other
/// vector instructions make of one plan over hundreds of steps stays well below it.
pub const LOSS_ROUNDING: f64 = 1e-4;
/// The same for the norm of the gradient, in which rounding shows more.
pub const NORM_ROUNDING: f64 = 1e-2;

/// What a run computed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Logged steps, in order.
    pub steps: Vec<TracedStep>,
    /// Digests of all parameters and counters after a step, at the steps of `cluster.digest_steps`.
    pub parameters: BTreeMap<u64, String>,
    /// Digests of the whole state after a step, moments included, at checkpoints.
    pub states: BTreeMap<u64, String>,
}

/// One logged step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracedStep {
    /// Steps done, this one included.
    pub step: u64,
    /// Mean loss, nats a token.
    pub loss: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// The bits of both, see [`crate::events::StepRecord::exact`].
    pub exact: String,
}

impl Trace {
    /// Reads the trace of a run directory from its logs and its checkpoints.
    ///
    /// # Errors
    /// When the folder of checkpoints cannot be listed.
    pub fn read(run: &Path, facts: &RunFacts) -> Result<Self, CheckpointError> {
        let text = |record: &Value, key: &str| record.get(key).and_then(Value::as_str).map(str::to_owned);
        let step = |record: &Value| record.get("step").and_then(Value::as_u64);
        let number = |record: &Value, key: &str| record.get(key).and_then(Value::as_f64);
        let traced = |record: &Value| {
            let (loss, grad_norm) = (number(record, "loss")?, number(record, "grad_norm")?);
            Some(TracedStep { step: step(record)?, loss, grad_norm, exact: text(record, "exact")? })
        };
        let digests = |records: &[Value], key: &str| -> BTreeMap<u64, String> {
            records.iter().filter_map(|record| Some((step(record)?, text(record, key)?))).collect()
        };
        let mut states = digests(&facts.events, "state_digest");
        for (step, path) in checkpoint::store::list(&run.join("checkpoints"))? {
            states.extend(Manifest::read(&path).ok().map(|manifest| (step, manifest.state_digest)));
        }
        Ok(Self {
            steps: facts.steps.iter().filter_map(traced).collect(),
            parameters: digests(&facts.digests, "parameters_digest"),
            states,
        })
    }

    /// The steps that something is known about, rising.
    pub fn known(&self) -> Vec<u64> {
        let logged = self.steps.iter().map(|step| step.step);
        let mut known: Vec<u64> =
            logged.chain(self.parameters.keys().copied()).chain(self.states.keys().copied()).collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    fn step(&self, step: u64) -> Option<&TracedStep> {
        self.steps.iter().find(|traced| traced.step == step)
    }
}

/// How far two runs agree at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// Every bit that is known.
    SameBits,
    /// Not the bits, but what rounding explains.
    SameToRounding,
    /// More than rounding explains, or nothing to compare with.
    Different,
}

/// What was found at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepVerdict {
    /// The step.
    pub step: u64,
    /// How far the runs agree.
    pub agreement: Agreement,
    /// What was compared, and the values that differ.
    pub detail: String,
}

/// Compares a replay with what was certified, at every step of `steps` that the certificate knows something about.
pub fn compare(certified: &Trace, replayed: &Trace, steps: &RangeInclusive<u64>) -> Vec<StepVerdict> {
    certified
        .known()
        .into_iter()
        .filter(|step| steps.contains(step))
        .map(|step| at_step(certified, replayed, step))
        .collect()
}

fn at_step(certified: &Trace, replayed: &Trace, step: u64) -> StepVerdict {
    let mut found: Vec<(Agreement, String)> = Vec::new();
    if let Some(before) = certified.step(step) {
        found.push(match replayed.step(step) {
            None => (Agreement::Different, "the replay has no record of this step".into()),
            Some(now) if now.exact == before.exact => (Agreement::SameBits, "loss".into()),
            Some(now) => numbers(before, now),
        });
    }
    for (what, before, now) in [
        ("parameters", certified.parameters.get(&step), replayed.parameters.get(&step)),
        ("state", certified.states.get(&step), replayed.states.get(&step)),
    ] {
        match (before, now) {
            (Some(before), Some(now)) if before == now => found.push((Agreement::SameBits, what.into())),
            // How much a digest differs by it does not say; the losses around it do.
            (Some(_), Some(_)) => found.push((Agreement::SameToRounding, format!("{what} differ in their bits"))),
            _ => {}
        }
    }
    let agreement = found.iter().map(|(agreement, _)| *agreement).max().unwrap_or(Agreement::SameBits);
    let told: Vec<String> = found
        .into_iter()
        .filter(|(one, _)| agreement == Agreement::SameBits || *one != Agreement::SameBits)
        .map(|(_, what)| what)
        .collect();
    StepVerdict { step, agreement, detail: told.join(", ") }
}

fn numbers(before: &TracedStep, now: &TracedStep) -> (Agreement, String) {
    let relative = |a: f64, b: f64| (a - b).abs() / a.abs().max(f64::MIN_POSITIVE);
    let (loss, norm) = (relative(before.loss, now.loss), relative(before.grad_norm, now.grad_norm));
    // Comparisons with NaN are false, which makes it a difference.
    let near = loss <= LOSS_ROUNDING && norm <= NORM_ROUNDING;
    let agreement = if near { Agreement::SameToRounding } else { Agreement::Different };
    let detail = format!(
        "loss {} against {} (relative {loss:.1e}), gradient norm {} against {} (relative {norm:.1e})",
        before.loss, now.loss, before.grad_norm, now.grad_norm
    );
    (agreement, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(losses: &[f64], parameters: &[(u64, &str)]) -> Trace {
        let step = |(i, loss): (usize, &f64)| TracedStep {
            step: i as u64 + 1,
            loss: *loss,
            grad_norm: 1.0,
            exact: format!("{:016x}", loss.to_bits()),
        };
        Trace {
            steps: losses.iter().enumerate().map(step).collect(),
            parameters: parameters.iter().map(|(step, digest)| (*step, (*digest).to_owned())).collect(),
            states: BTreeMap::new(),
        }
    }

    #[test]
    fn bits_rounding_and_differences_are_told_apart() {
        let certified = trace(&[5.0, 4.0, 3.0, 2.0], &[(2, "a"), (4, "b")]);
        let replayed = trace(&[5.0, 4.000_001, 3.1], &[(2, "a"), (4, "c")]);
        let found = compare(&certified, &replayed, &(1..=4));
        let agreements: Vec<_> = found.iter().map(|verdict| verdict.agreement).collect();
        use Agreement::{Different, SameBits, SameToRounding};
        assert_eq!(agreements, [SameBits, SameToRounding, Different, Different]);
        assert!(found[2].detail.contains("loss 3 against 3.1"), "{}", found[2].detail);
        assert!(found[3].detail.contains("no record"), "{}", found[3].detail);
        assert_eq!(compare(&certified, &certified, &(2..=3)).len(), 2);
        let other = trace(&[5.0, 4.0, 3.0, 2.0], &[(2, "a"), (4, "c")]);
        let last = &compare(&certified, &other, &(4..=4))[0];
        assert_eq!((last.agreement, last.detail.as_str()), (SameToRounding, "parameters differ in their bits"));
        assert_eq!(compare(&trace(&[f64::NAN], &[]), &trace(&[1.0], &[]), &(1..=1))[0].agreement, Different);
    }
}
