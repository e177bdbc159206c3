//! Owns the log-probabilities of all answers under the starting weights: computed once before training, kept in the run
//! directory; never touches the loss.

use std::path::Path;

use burn::tensor::Device;
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::loader::Loader;
use model_zoo::{Model, Params};

use super::pairs::PairBatch;
use crate::cluster::ClusterError;
use crate::config::Plan;
use crate::durable::{self, FileError};
use crate::step::StepError;
use crate::team::Team;

/// File in the run directory.
pub const REFERENCE_FILE: &str = "reference_log_probs.bin";
/// First bytes of the file, with the version of its layout.
const MAGIC: &[u8; 8] = b"JZREF\0\0\x01";
/// Digests of what the numbers depend on, and of the numbers.
const DIGEST_BYTES: usize = 32;
/// Largest file that is read: 10^8 pairs.
const MAX_BYTES: u64 = 4 << 30;

/// Why there is no reference.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The rows cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A row does not fit the model.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A process is lost.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The disk refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// A signal asked for a stop.
    #[error("stopped while the log-probabilities of the starting weights were computed; run the same command again")]
    Stopped,
}

/// Log-probabilities of the chosen and the rejected answer of every training pair, nats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reference {
    /// By component and number.
    pairs: Vec<Vec<(f32, f32)>>,
}

impl Reference {
    /// Those of a pair; zeros for a pair that no row holds.
    pub fn of(&self, component: usize, sample: u64) -> (f64, f64) {
        let pairs = self.pairs.get(component).map(Vec::as_slice).unwrap_or_default();
        let pair = usize::try_from(sample).ok().and_then(|sample| pairs.get(sample)).copied().unwrap_or_default();
        (f64::from(pair.0), f64::from(pair.1))
    }

    fn empty(dataset: &Dataset) -> Self {
        let zeros = |pairs: u64| vec![(0.0, 0.0); usize::try_from(pairs).unwrap_or(0)];
        Self { pairs: dataset.train().iter().map(|component| zeros(component.num_documents())).collect() }
    }

    fn set(&mut self, component: usize, sample: u64, found: (f32, f32)) {
        let pairs = self.pairs.get_mut(component);
        if let Some(pair) = pairs.and_then(|pairs| pairs.get_mut(usize::try_from(sample).unwrap_or(usize::MAX))) {
            *pair = found;
        }
    }

    fn to_bytes(&self, key: &[u8; DIGEST_BYTES]) -> Vec<u8> {
        let mut values = Vec::new();
        for (chosen, rejected) in self.pairs.iter().flatten() {
            values.extend_from_slice(&chosen.to_le_bytes());
            values.extend_from_slice(&rejected.to_le_bytes());
        }
        [MAGIC.as_slice(), key, blake3::hash(&values).as_bytes(), &values].concat()
    }

    /// Reads what [`Reference::to_bytes`] wrote for the same `key`; `None` for anything else.
    fn from_bytes(bytes: &[u8], key: &[u8; DIGEST_BYTES], dataset: &Dataset) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC.as_slice())?.strip_prefix(key.as_slice())?;
        let (digest, values) = rest.split_at_checked(DIGEST_BYTES)?;
        let mut reference = Self::empty(dataset);
        let count: usize = reference.pairs.iter().map(Vec::len).sum();
        if blake3::hash(values).as_bytes() != digest || values.len() != 8 * count {
            return None;
        }
        let mut floats = values.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
        for pair in reference.pairs.iter_mut().flatten() {
            *pair = (floats.next()?, floats.next()?);
        }
        Some(reference)
    }
}

/// What the numbers depend on.
fn key(plan: &Plan) -> [u8; DIGEST_BYTES] {
    let start = plan.base_weights.clone().unwrap_or_else(|| format!("fresh {}", plan.seed));
    let parts =
        serde_json::json!([start, plan.dataset.id, plan.dataset.chat, plan.sequence_len, plan.precision, plan.model]);
    *blake3::hash(parts.to_string().as_bytes()).as_bytes()
}

/// Where rows come from and what scores them.
pub struct Scoring<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The rows.
    pub loader: &'a Loader,
    /// The model.
    pub model: &'a Model,
    /// The plain device.
    pub device: &'a Device,
}

/// The reference of a run: read from `folder` (given in the process that leads) where it is there and fits, else
/// computed from `starting_weights`, by all processes together, and written there. `progress` gets rows done and rows in
/// all, and says whether to stop.
///
/// # Errors
/// See [`ReferenceError`].
pub fn obtain<E: From<ReferenceError>>(
    scoring: &Scoring<'_>,
    folder: Option<&Path>,
    starting_weights: impl FnOnce() -> Result<Params, E>,
    team: &mut Team,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Reference, E> {
    let (dataset, key) = (scoring.loader.dataset(), key(scoring.plan));
    let path = folder.map(|folder| folder.join(REFERENCE_FILE));
    let stored = path.as_ref().and_then(|path| read(path));
    let stored = share(team, stored.unwrap_or_default()).map_err(ReferenceError::from)?;
    if let Some(reference) = Reference::from_bytes(&stored, &key, dataset) {
        return Ok(reference);
    }
    let params = starting_weights()?;
    let reference = compute(scoring, &params, team, progress)?;
    if let Some(path) = path {
        durable::write_atomic(&path, &reference.to_bytes(&key)).map_err(ReferenceError::from)?;
    }
    Ok(reference)
}

/// The file's bytes; a file that cannot be read is made again.
fn read(path: &Path) -> Option<Vec<u8>> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > MAX_BYTES { None } else { std::fs::read(path).ok() }
}

fn share(team: &mut Team, bytes: Vec<u8>) -> Result<Vec<u8>, ClusterError> {
    if team.world() == 1 { Ok(bytes) } else { team.from_leader(bytes) }
}

fn compute(
    scoring: &Scoring<'_>,
    params: &Params,
    team: &mut Team,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Reference, ReferenceError> {
    let Scoring { plan, loader, model, device } = *scoring;
    let rows: Vec<(usize, u64)> = (loader.dataset().train().iter().enumerate())
        .flat_map(|(number, component)| (0..component.num_rows(plan.sequence_len)).map(move |row| (number, row)))
        .collect();
    let (rank, world) = (team.rank(), team.world());
    // Both lists are needed for the numbers' places: a component and a sample, then two floats.
    let (mut mine, mut stopped) = (Vec::new(), false);
    for (done, &(component, row)) in rows.iter().enumerate().filter(|(index, _)| index % world == rank) {
        stopped |= progress(done as u64, rows.len() as u64);
        if stopped {
            break;
        }
        let batch = loader.training_rows(component, row..row + 1)?;
        let batch = PairBatch::new(&batch, model.vocab_size(), device)?;
        let losses = model.part_losses(params, &batch.inputs, batch.targets);
        for (pair, both) in batch.pairs.iter().zip(losses.as_chunks::<2>().0) {
            mine.extend_from_slice(&(component as u64).to_le_bytes());
            mine.extend_from_slice(&pair.sample.to_le_bytes());
            both.iter().for_each(|loss| mine.extend_from_slice(&(-*loss as f32).to_le_bytes()));
        }
    }
    let shares = team.gather([vec![u8::from(stopped)], mine].concat())?;
    if shares.iter().any(|share| share.first() != Some(&0)) {
        return Err(ReferenceError::Stopped);
    }
    let mut reference = Reference::empty(loader.dataset());
    for entry in shares.iter().flat_map(|share| share.get(1..).unwrap_or_default().as_chunks::<24>().0) {
        let (places, values) = entry.split_at(16);
        let place = |at: usize| places.as_chunks::<8>().0.get(at).map_or(u64::MAX, |eight| u64::from_le_bytes(*eight));
        let value = |at: usize| values.as_chunks::<4>().0.get(at).map_or(f32::NAN, |four| f32::from_le_bytes(*four));
        reference.set(usize::try_from(place(0)).unwrap_or(usize::MAX), place(1), (value(0), value(1)));
    }
    Ok(reference)
}
