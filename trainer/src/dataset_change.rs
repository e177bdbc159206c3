//! Owns a data set taking another's place in a run: what the user acknowledges, which checkpoints may then be continued,
//! and what a refusal says; never touches tensors.
//!
//! The order of the rows is a function of the step and of the data set. A run that goes on after a take-down therefore sees
//! rows of the new data set from that step on, and both identities stay written in every later checkpoint.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_pipeline::dataset::Dataset;
use data_pipeline::removal::{Removal, read_log};
use serde_json::Value;

use crate::checkpoint::store::{list, short};
use crate::checkpoint::{DatasetChange, Identity, Manifest};
use crate::config::Plan;
use crate::durable;
use crate::events::Event;
use crate::session::{Resume, SessionError};

/// Largest `plan.json` that is compared, bytes.
const PLAN_LIMIT_BYTES: u64 = 16 << 20;
/// Fewest digits of an identity that a user must write.
const LEAST_DIGITS: usize = 8;
/// Removals that a message tells of, the newest.
const TOLD_REMOVALS: usize = 3;

/// A change of the data set that the user knows of: `OLD..NEW`, the first digits of two identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    from: String,
    to: String,
}

impl FromStr for Acknowledged {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_id = |id: &str| (LEAST_DIGITS..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
        match text.trim().split_once("..") {
            Some((from, to)) if is_id(from) && is_id(to) => {
                Ok(Self { from: from.to_ascii_lowercase(), to: to.to_ascii_lowercase() })
            }
            _ => Err(format!(
                "write OLD..NEW, both the first {LEAST_DIGITS} to 64 digits of a data set's identity, as the refusal \
                 names them"
            )),
        }
    }
}

impl Acknowledged {
    fn covers(&self, from: &str, to: &str) -> bool {
        from.starts_with(&self.from) && to.starts_with(&self.to)
    }
}

/// Checkpoints of a run whose data set was another one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: this run was trained on data set {}, the config now names {}{}; to go on from step {step} with the new data set, \
     write `--accept-dataset-change {}..{}`; else name the old data set again, or use another output_dir",
    .path.display(), short(.old), short(.new), .since, short(.old), short(.new)
)]
pub struct OtherDataset {
    /// The checkpoint.
    pub path: PathBuf,
    /// Its step.
    pub step: u64,
    /// Its data set.
    pub old: String,
    /// The data set of the config.
    pub new: String,
    /// What the new data set's take-down log says.
    pub since: String,
}

/// What the log of a run keeps of a change.
pub fn event(change: DatasetChange, plan: &Plan) -> Event {
    let DatasetChange { step, from, to, from_plan } = change;
    Event::DatasetChanged { step, from, to, from_plan, to_plan: plan.digest() }
}

/// Compares the checkpoints of the run directory with the plan, and returns the identities of those that may be
/// continued though their data set was another.
///
/// # Errors
/// When the newest readable checkpoint belongs to another plan, or to another data set that nobody acknowledged.
pub fn continued(
    plan: &Plan,
    dataset: &Dataset,
    resume: &Resume,
    acknowledged: &[Acknowledged],
) -> Result<Vec<Identity>, SessionError> {
    let folder = plan.output_dir.join("checkpoints");
    if !folder.is_dir() && !matches!(resume, Resume::From(_)) {
        return Ok(Vec::new());
    }
    let found = match resume {
        Resume::From(path) => vec![(0, path.clone())],
        Resume::Auto | Resume::Never => list(&folder)?,
    };
    if let (Resume::Never, Some((_, path))) = (resume, found.first()) {
        return Err(SessionError::NotFresh { path: path.clone() });
    }
    let current = Identity { plan: plan.digest(), dataset: dataset.id().to_owned() };
    let readable: Vec<(PathBuf, Manifest)> =
        found.into_iter().filter_map(|(_, path)| Manifest::read(&path).ok().map(|manifest| (path, manifest))).collect();
    let mut predecessors = Vec::new();
    for (path, manifest) in &readable {
        let known = acknowledged.iter().any(|known| known.covers(&manifest.identity.dataset, dataset.id()));
        if known && differs_in_data_only(plan, path, manifest) {
            predecessors.push(manifest.identity.clone());
        }
    }
    predecessors.dedup();
    match readable.into_iter().next() {
        Some((path, manifest)) if manifest.identity != current && !predecessors.contains(&manifest.identity) => {
            Err(refusal(plan, dataset, path, &manifest))
        }
        _ => Ok(predecessors),
    }
}

/// Keys of a plan's decisive part that follow from the data set.
const OF_THE_DATA: [&str; 2] = ["dataset", "best_fit_packing"];

/// Whether the plan inside a checkpoint is this one but for its data set.
fn differs_in_data_only(plan: &Plan, checkpoint: &Path, manifest: &Manifest) -> bool {
    let (mut old, digest) = stored(checkpoint);
    // Read back as the stored one was: a number that was written and read may differ in its last bit.
    let mut new: Value = serde_json::from_str(&plan.decisive().to_string()).unwrap_or_default();
    for entries in [&mut old, &mut new].into_iter().filter_map(Value::as_object_mut) {
        entries.retain(|key, _| !OF_THE_DATA.contains(&key.as_str()));
    }
    digest == manifest.identity.plan && old == new
}

/// What decides the numbers of the run that a checkpoint belongs to, and its digest.
fn stored(checkpoint: &Path) -> (Value, String) {
    let text = durable::read_text(&checkpoint.join("plan.json"), PLAN_LIMIT_BYTES).unwrap_or_default();
    let mut plan: Value = serde_json::from_str(&text).unwrap_or_default();
    let digest = plan.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
    (plan.get_mut("decisive").map(Value::take).unwrap_or_default(), digest)
}

fn refusal(plan: &Plan, dataset: &Dataset, path: PathBuf, manifest: &Manifest) -> SessionError {
    let (old, new) = (&manifest.identity.dataset, dataset.id());
    if old != new && differs_in_data_only(plan, &path, manifest) {
        let (old, new, since) = (old.clone(), new.to_owned(), since(dataset, old));
        return SessionError::OtherDataset(Box::new(OtherDataset { path, step: manifest.step, old, new, since }));
    }
    let (stored, _) = stored(&path);
    let mut changes = changed_values(&stored, plan);
    if old != new {
        changes.push(format!("the dataset was {old}, now {new}"));
    }
    let mut changes = changes.join(", ");
    let steps = stored.get("max_steps").and_then(Value::as_u64).filter(|&steps| steps != plan.max_steps);
    if let (true, Some(steps)) = (old != new, steps) {
        changes
            .push_str(&format!(" (steps that follow from the data's size change with it: write `max_steps: {steps}`)"));
    }
    SessionError::OtherPlan { path, changes }
}

/// What the take-down logs of a data set say of its change, as a clause.
fn since(dataset: &Dataset, old: &str) -> String {
    let logs: Vec<Vec<Removal>> = dataset
        .parts()
        .iter()
        .map(|part| read_log(&part.dir).unwrap_or_default())
        .filter(|log| !log.is_empty())
        .collect();
    let told: Vec<String> = logs
        .iter()
        .flat_map(|log| {
            // Of a data set joined of several, `old` is no identity that a log knows.
            let from = log.iter().position(|removal| removal.old == old).unwrap_or(log.len() - 1);
            log.get(from..).unwrap_or_default()
        })
        .map(|removal| {
            let reason = removal.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{} documents taken down at {}{reason}", removal.documents, removal.time)
        })
        .collect();
    let newest = told.get(told.len().saturating_sub(TOLD_REMOVALS)..).unwrap_or_default();
    if newest.is_empty() { String::new() } else { format!(" ({})", newest.join(", ")) }
}

/// The values by which `plan` differs from the one whose decisive part is `decisive`, as `key was X, now Y`.
pub fn changed_values(decisive: &Value, plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    differences("", decisive, &plan.decisive(), &mut found);
    found
}

/// Leaves that differ, as `key was X, now Y`.
fn differences(prefix: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (old, new) else {
        if old != new {
            found.push(format!("{prefix} was {old}, now {new}"));
        }
        return;
    };
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        differences(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
    }
}

/// The data set that step `step` of a run saw, by the changes its newest checkpoint knows of.
pub fn dataset_of_step<'a>(changes: &'a [DatasetChange], current: &'a str, step: u64) -> &'a str {
    changes.iter().find(|change| step < change.step).map_or(current, |change| &change.from)
}

/// The changes that the newest readable checkpoint of a run directory knows of, and the steps it has done.
pub fn history(run: &Path) -> (Vec<DatasetChange>, u64) {
    let newest = list(&run.join("checkpoints")).unwrap_or_default().into_iter();
    newest
        .filter_map(|(_, path)| Manifest::read(&path).ok())
        .map(|manifest| (manifest.dataset_changes, manifest.step))
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_name_nested_keys_with_both_values() {
        let mut found = Vec::new();
        let old = json!({"seed": 1, "optimizer": {"lr": 0.1, "eps": 1e-8}, "gone": true});
        let new = json!({"seed": 1, "optimizer": {"lr": 0.2, "eps": 1e-8}});
        differences("", &old, &new, &mut found);
        assert_eq!(found, ["gone was true, now null", "optimizer.lr was 0.1, now 0.2"]);
    }

    #[test]
    fn an_acknowledgement_names_both_data_sets_by_enough_digits() {
        let known: Acknowledged = "0123456789ab..FEDCBA98".parse().unwrap();
        assert!(known.covers("0123456789abcdef", "fedcba987654"));
        assert!(!known.covers("0123456789acbdef", "fedcba987654") && !known.covers("0123456789abcdef", "fedcba99"));
        for bad in ["", "..", "0123456789ab", "0123..fedcba98", "0123456789ab..", "0123456789ab..xyzxyzxy"] {
            assert!(bad.parse::<Acknowledged>().unwrap_err().starts_with("write OLD..NEW"), "{bad}");
        }
    }

    #[test]
    fn steps_before_a_change_saw_the_data_set_before_it() {
        let change = |step, from: &str, to: &str| DatasetChange {
            step,
            from: from.into(),
            to: to.into(),
            from_plan: String::new(),
        };
        let changes = [change(10, "a", "b"), change(20, "b", "c")];
        let of = |step| dataset_of_step(&changes, "c", step);
        assert_eq!([of(0), of(9), of(10), of(19), of(20)], ["a", "a", "b", "b", "c"]);
    }
}
