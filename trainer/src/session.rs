//! Owns the start of a run: from a config to an opened device, data set, run directory and state; never touches the
//! loop. Everything that can be wrong with the input is found before the first byte is written.

mod data;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::loader::Loader;
use data_pipeline::order::{Order, OrderError};
use data_pipeline::prepare::PrepareError;
use model_zoo::{Model, ParamSpec, Params};

pub(crate) use self::data::order_of;
use self::data::{facts, order, packed, packing_note};
use crate::adapter::{self, AdapterFileError};
use crate::assembly;
use crate::buckets::Buckets;
use crate::card::data::DataFacts;
use crate::chat_data::{self, ChatData, Fresh};
use crate::checkpoint::read::Moments;
use crate::checkpoint::store::Loaded;
use crate::checkpoint::{self, CheckpointError, CheckpointStore, Identity, LossSpan, TrainState};
use crate::cluster::ClusterError;
use crate::config::raw::{Precision, RawDataset};
use crate::config::{self, AdapterFacts, BaseFacts, ConfigError, Note, Plan, RawConfig};
use crate::dataset_change::{self, Acknowledged, OtherDataset};
use crate::device::{self, DeviceError, Opened};
use crate::eval::EvalError;
use crate::eval::subject::Place;
use crate::events::Event;
use crate::guard::Guard;
use crate::hub;
use crate::optim::Optimizer;
use crate::partition::Partition;
use crate::run_dir::{RunDir, RunDirError};
use crate::seen::Seen;
use crate::team::Team;
use crate::vocabulary::{self, VocabularyError};

/// Where a run takes its first state from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest valid checkpoint in the output directory, or fresh when there is none.
    Auto,
    /// Fresh; an output directory with checkpoints is refused.
    Never,
    /// This checkpoint.
    From(PathBuf),
}

/// Why a run cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data set is missing or damaged.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Files of chats cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The mixture cannot be drawn.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The device does not answer.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The base model cannot be read.
    #[error(transparent)]
    Hub(#[from] hub::HubError),
    /// The adapter cannot be made, or does not fit the base.
    #[error(transparent)]
    Adapter(#[from] AdapterFileError),
    /// `base_model` names no model.
    #[error(transparent)]
    Base(Box<EvalError>),
    /// The data set's tokenizer does not go with the base model.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The model's config breaks a rule of its family.
    #[error(transparent)]
    Model(#[from] model_zoo::config::ConfigError),
    /// The run directory cannot be used.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The processes of the run do not find each other.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The checkpoints belong to another plan.
    #[error(
        "{}: this folder holds a run with another plan: {changes}; undo the change, or use another output_dir",
        path.display()
    )]
    OtherPlan {
        /// The checkpoint.
        path: PathBuf,
        /// The keys that differ, with both values.
        changes: String,
    },
    /// The checkpoints were made of another data set.
    #[error(transparent)]
    OtherDataset(Box<OtherDataset>),
    /// `--resume never` on a folder with checkpoints.
    #[error(
        "{}: there are checkpoints of an earlier run here; choose another output_dir, or drop `--resume never`",
        path.display()
    )]
    NotFresh {
        /// The folder.
        path: PathBuf,
    },
    /// The precision cannot be computed on the device.
    #[error(
        "precision bf16-mixed was asked for, but {device} cannot compute in bf16; write `precision: fp32` or choose a GPU"
    )]
    NoBf16 {
        /// The device.
        device: String,
    },
}

impl From<EvalError> for SessionError {
    fn from(error: EvalError) -> Self {
        Self::Base(Box::new(error))
    }
}

/// A config that was read and resolved; nothing is opened yet but the data set's manifest.
pub struct Resolved {
    /// The plan.
    pub plan: Plan,
    /// What the user should know about how the config was read.
    pub notes: Vec<Note>,
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// The order of its training rows.
    pub order: Order,
    /// What was prepared on the way, until the run has begun.
    pub fresh: Option<Fresh>,
    /// Changes of the data set that the user knows of.
    pub acknowledged: Vec<Acknowledged>,
}

/// Reads a config, the manifest of its data set and the config of its base model, and resolves the plan.
///
/// # Errors
/// When any of them is missing or wrong.
pub fn resolve(config: &Path, overrides: &[String]) -> Result<Resolved, SessionError> {
    let (raw, notes) = config::load::<RawConfig>(config, overrides)?;
    resolve_raw(raw, notes)
}

/// [`resolve`] of a config that is in memory; `path` is what errors call it.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_text(path: &Path, text: &str, overrides: &[String]) -> Result<Resolved, SessionError> {
    let (raw, notes) = config::yaml::parse::<RawConfig>(path, text, overrides)?;
    resolve_raw(raw, notes)
}

fn resolve_raw(raw: RawConfig, mut notes: Vec<Note>) -> Result<Resolved, SessionError> {
    // First the file by itself: a wrong key must not hide behind a missing data set.
    raw.check()?;
    let chats = chat_data::prepare(&raw)?;
    let mut raw = raw;
    let excess = raw.chat.as_ref().and_then(|chat| chat.excess_length_strategy).unwrap_or_default();
    let mut fresh = None;
    if let Some(ChatData { dir, fresh: prepared, warnings }) = chats {
        notes.extend(warnings.into_iter().map(|text| raw.places.note("datasets[0].path", text)));
        fresh = prepared;
        // All files became one data set.
        raw.datasets.truncate(1);
        raw.datasets.iter_mut().for_each(|dataset| dataset.path.clone_from(&dir));
    }
    let open = |dataset: &RawDataset| Dataset::open_with(&dataset.path, excess);
    let dataset = Dataset::join(raw.datasets.iter().map(open).collect::<Result<Vec<_>, _>>()?)?;
    let dataset = Arc::new(packed(dataset, &raw, &mut notes)?);
    notes.extend(packing_note(&dataset, raw.sequence_len, excess)?.map(|text| raw.places.note("sequence_len", text)));
    let facts = facts(&dataset, raw.sequence_len, excess);
    let base = raw.base_model.take().map(|path| Place::of(&path)).transpose()?;
    // A run goes on while others train from it: what is written down is the checkpoint.
    raw.base_model = base.as_ref().map(|place| place.hub_folder().map(Path::to_owned)).transpose()?;
    let base = base.map(|place| base_facts(&place, &dataset, &raw, &mut notes)).transpose()?;
    let plan = config::resolve(raw, &facts, base)?;
    notes.extend(plan.notes.iter().cloned());
    // Quotas that cannot be met are found here, before any device is touched.
    let order = order(&plan, &dataset)?;
    Ok(Resolved { plan, notes, dataset, order, fresh, acknowledged: Vec::new() })
}

/// What a plan needs to know of the model that training starts from.
fn base_facts(
    place: &Place,
    dataset: &Dataset,
    raw: &RawConfig,
    notes: &mut Vec<Note>,
) -> Result<BaseFacts, SessionError> {
    let dir = place.folder();
    let adapter_facts = |dir: &Path| -> Result<AdapterFacts, AdapterFileError> {
        Ok(AdapterFacts { lora: adapter::read_config(dir)?.0, weights: adapter::digest(dir)? })
    };
    if checkpoint::read::read_adapter(dir)?.is_some() {
        return Err(AdapterFileError::NotWhole { path: dir.to_owned() }.into());
    }
    let model = hub::read_config(dir)?;
    // A chat model names the end of a turn in generation_config.json only; what is trained from it ends turns so too.
    let ends = hub::GenerationConfig::read(dir, &model)?.eos_token_ids;
    let facts = BaseFacts {
        model: model.with_end_ids(&ends),
        weights: hub::weights_digest(dir)?,
        stored_in_bf16: hub::weights::Weights::open(dir)?.dtypes()? == [model_zoo::WeightDtype::Bf16],
        adapter: raw.lora_model_dir.as_deref().map(adapter_facts).transpose()?,
    };
    let Some(extension) = vocabulary::extension(&place.tokenizer(), &dataset.tokenizer_folder())? else {
        return Ok(facts);
    };
    if raw.adapter.is_some() {
        let message = "the data's tokenizer has tokens that `base_model` has no rows for, which an adapter cannot add";
        let hint = "train all weights on the extended vocabulary first, or prepare the data with the base's tokenizer";
        return Err(raw.places.invalid("adapter", message, hint).into());
    }
    notes.push(raw.places.note("base_model", extension.summary()));
    Ok(BaseFacts { model: extension.widen(&facts.model)?, ..facts })
}

/// Where a run is written.
pub struct Output {
    /// The run directory, locked.
    pub run: RunDir,
    /// Its checkpoints.
    pub checkpoints: CheckpointStore,
}

/// An opened run, ready for [`crate::train::train`].
pub struct Session {
    /// The plan.
    pub plan: Plan,
    /// The device.
    pub opened: Opened,
    /// The model.
    pub model: Model,
    /// What travels together between processes.
    pub buckets: Buckets,
    /// The data set.
    pub dataset: Arc<Dataset>,
    /// Rows by index.
    pub loader: Arc<Loader>,
    /// Where the run is written; `None` in a process that does not lead.
    pub output: Option<Output>,
    /// The other processes.
    pub team: Team,
    /// Small files that travel inside every checkpoint.
    pub checkpoint_files: Vec<(&'static str, Vec<u8>)>,
    /// Where training starts.
    pub state: TrainState,
    /// What happened on the way: resumed, set aside.
    pub events: Vec<Event>,
}

/// A process's part of its host.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostShare {
    /// Threads, where the config says nothing.
    pub threads: Option<usize>,
    /// This process among those of its host, from 0.
    pub local_rank: usize,
}

impl Session {
    /// Opens everything a run needs. Writes only after config, data, device and earlier checkpoints were found good.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn open(resolved: Resolved, resume: &Resume, share: HostShare, team: Team) -> Result<Self, SessionError> {
        let Resolved { plan, dataset, order, fresh, acknowledged, .. } = resolved;
        let opened = device::open_for(plan.device, share.local_rank, plan.threads.or(share.threads))?;
        if plan.precision == Precision::Bf16Mixed && !opened.supports_bf16() {
            return Err(SessionError::NoBf16 { device: opened.summary() });
        }
        let mut team = team;
        let mut events = Vec::new();
        events.extend(assembly::join_device(&mut team, &plan, &opened)?.map(|text| Event::Noted { text }));
        let model = model_of(&plan, &opened.device)?;
        let loader = Arc::new(Loader::new(Arc::clone(&dataset), order, plan.sequence_len));
        let output = if team.leads() { Some(Output::open(&plan, &dataset, resume, &acknowledged)?) } else { None };
        let bucket_bytes = (plan.cluster.bucket_cap_mb * 1e6) as u64;
        let buckets = Buckets::new(&model.specs(), &model.gradient_order(), bucket_bytes);
        let is_divided = plan.cluster.zero > 0 && team.world() > 1;
        let by_muon = |spec: &ParamSpec| plan.adamw.by_muon(spec);
        let partition =
            is_divided.then(|| Partition::new(&model.specs(), &buckets, by_muon, team.rank(), team.world()));
        let device = &opened.device;
        let loaded = match &output {
            Some(output) => {
                load(&plan, resume, &output.checkpoints, (&model, partition.as_ref(), device), &mut events)?
            }
            None => None,
        };
        let state = shared(loaded, &plan, &model, partition, device, &mut team)?;
        let mut session = Self {
            checkpoint_files: checkpoint_files(&plan, &dataset),
            plan,
            opened,
            model,
            buckets,
            dataset,
            loader,
            output,
            team,
            state,
            events,
        };
        session.write_run_files()?;
        fresh.into_iter().for_each(Fresh::keep);
        Ok(session)
    }

    fn write_run_files(&mut self) -> Result<(), SessionError> {
        let Some(Output { run, .. }) = &mut self.output else { return Ok(()) };
        run.rewind_metrics(self.state.step)?;
        run.write("plan.json", format!("{:#}\n", self.plan.to_json()).as_bytes())?;
        run.write("config.resolved.yaml", self.plan.resolved_yaml()?.as_bytes())?;
        let facts = serde_json::to_string_pretty(&DataFacts::of(&self.dataset)).unwrap_or_default();
        run.write(crate::card::data::FILE, format!("{facts}\n").as_bytes())?;
        run.copy_tokenizer(&self.dataset.tokenizer_folder())?;
        Ok(())
    }
}

/// Small files that travel inside every checkpoint.
fn checkpoint_files(plan: &Plan, dataset: &Dataset) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = vec![
        ("plan.json", format!("{:#}\n", plan.to_json()).into_bytes()),
        ("config.json", plan.model.to_checkpoint_json().into_bytes()),
    ];
    files.extend(hub::ChatFormat::of(dataset).map(|chat| (hub::CHAT_FORMAT_FILE, chat.to_json())));
    files
}

impl Output {
    fn open(
        plan: &Plan,
        dataset: &Dataset,
        resume: &Resume,
        acknowledged: &[Acknowledged],
    ) -> Result<Self, SessionError> {
        let predecessors = dataset_change::continued(plan, dataset, resume, acknowledged)?;
        let run = RunDir::open(&plan.output_dir)?;
        let identity = Identity { plan: plan.digest(), dataset: dataset.id().to_owned() };
        let keep = plan.save_total_limit as usize;
        let checkpoints = CheckpointStore::open(&run.checkpoints(), keep, identity)?.continuing(predecessors);
        checkpoints.clear_leftovers()?;
        Ok(Self { run, checkpoints })
    }
}

/// What a process that does not lead must know of a state beside its tensors.
#[derive(serde::Serialize, serde::Deserialize)]
struct Counters {
    step: u64,
    tokens: u64,
    updates: u64,
    guard: Guard,
    losses: LossSpan,
}

/// Gives every process the state that rank 0 has loaded, or a fresh one: initial weights depend on nothing but the
/// plan, so everybody makes its own and only the digests are compared.
fn shared(
    loaded: Option<Loaded>,
    plan: &Plan,
    model: &Model,
    partition: Option<Partition>,
    device: &Device,
    team: &mut Team,
) -> Result<TrainState, SessionError> {
    if team.world() == 1 {
        return loaded.map_or_else(|| fresh(plan, model, None, device), |loaded| Ok(loaded.state));
    }
    team.at(loaded.as_ref().map_or(0, |loaded| loaded.state.step), "sharing the state");
    let counters = loaded.as_ref().map(|Loaded { state, .. }| Counters {
        step: state.step,
        tokens: state.tokens,
        updates: state.optimizer.updates,
        guard: state.guard.clone(),
        losses: state.losses.clone(),
    });
    let bytes = team.from_leader(serde_json::to_vec(&counters).unwrap_or_default())?;
    let counters: Option<Counters> = serde_json::from_slice(&bytes).map_err(|error| ClusterError::Refused {
        what: format!("rank 0 sent a state that cannot be read ({error})"),
        advice: "use the same jazari on every host".into(),
    })?;
    let from = loaded.as_ref().map(|loaded| loaded.path.clone());
    let mut state = match (loaded, &counters) {
        (Some(loaded), _) => loaded.state,
        (None, None) => fresh(plan, model, partition, device)?,
        (None, Some(_)) => empty(plan, model, partition, device)?,
    };
    if let Some(Counters { step, tokens, updates, guard, losses }) = counters {
        (state.step, state.tokens, state.guard, state.losses) = (step, tokens, guard, losses);
        state.optimizer.updates = updates;
        team.copy_of_leaders(state.params.tensors_mut(), device)?;
        if state.optimizer.partition.is_some() {
            let moments = from.map(|path| Moments::open(&path, &model.specs(), plan.adamw)).transpose()?;
            let read = |moment, param| moments.as_ref().map_or(Ok(Vec::new()), |file| file.read(moment, param));
            let params = model.specs().len();
            team.share_pieces(&mut state.optimizer, params, device, |m, p| read(m, p).map_err(SessionError::from))?;
        } else {
            team.copy_of_leaders(&mut state.optimizer.exp_avg, device)?;
            team.copy_of_leaders(&mut state.optimizer.exp_avg_sq, device)?;
        }
    }
    team.compare_digests(state.step, &checkpoint::digest::replica(&state))?;
    Ok(state)
}

/// A state whose tensors are about to be replaced.
fn empty(
    plan: &Plan,
    model: &Model,
    partition: Option<Partition>,
    device: &Device,
) -> Result<TrainState, SessionError> {
    let specs = model.specs();
    let zeros = specs.iter().map(|spec| burn::tensor::Tensor::zeros([spec.num_elements()], device)).collect();
    Ok(beginning(plan, Params::from_tensors(specs, zeros).map_err(hub::HubError::from)?, partition, device))
}

/// The model of a plan: whole, or frozen with an adapter on top.
fn model_of(plan: &Plan, device: &Device) -> Result<Model, SessionError> {
    let model = plan.build_model()?;
    let (Some(adapter), Some(folder)) = (&plan.adapter, &plan.base_model) else { return Ok(model) };
    let base = adapter::load_base(folder, &model, adapter.base, device)?;
    Ok(adapter::adapted_model(model, &adapter.lora, base)?)
}

fn load(
    plan: &Plan,
    resume: &Resume,
    checkpoints: &CheckpointStore,
    (model, partition, device): (&Model, Option<&Partition>, &Device),
    events: &mut Vec<Event>,
) -> Result<Option<Loaded>, SessionError> {
    let specs = model.specs();
    let loaded = match resume {
        Resume::From(path) => Some(checkpoints.load(path, &specs, plan.adamw, partition, device)?),
        Resume::Never => match checkpoints.list()?.into_iter().next() {
            Some((_, path)) => return Err(SessionError::NotFresh { path }),
            None => None,
        },
        Resume::Auto => {
            let (loaded, aside) = checkpoints.newest_valid(&specs, plan.adamw, partition, device)?;
            events.extend(aside.into_iter().map(|a| Event::SetAside {
                checkpoint: a.from,
                moved_to: a.to,
                why: a.why,
            }));
            loaded
        }
    };
    if let Some(loaded) = &loaded {
        events.extend(loaded.change.clone().map(|change| dataset_change::event(change, plan)));
        events.push(Event::Resumed { step: loaded.state.step, checkpoint: loaded.path.clone() });
    }
    Ok(loaded)
}

fn fresh(
    plan: &Plan,
    model: &Model,
    partition: Option<Partition>,
    device: &Device,
) -> Result<TrainState, SessionError> {
    let params = starting_weights(plan, model, device)?;
    Ok(beginning(plan, params, partition, device))
}

/// The weights before the first step.
///
/// # Errors
/// A base model that cannot be read.
pub fn starting_weights(plan: &Plan, model: &Model, device: &Device) -> Result<Params, SessionError> {
    match (&plan.adapter, &plan.base_model) {
        (Some(adapter), _) => Ok(adapter::first_params(adapter, model, plan.seed, device)?),
        (None, Some(folder)) => base_params(folder, plan, model, device),
        (None, None) => Ok(Params::init(model.specs(), plan.seed, device)),
    }
}

/// The weights that training starts from, with rows for the tokens that only the data has.
fn base_params(folder: &Path, plan: &Plan, model: &Model, device: &Device) -> Result<Params, SessionError> {
    let imported = hub::import(folder, device)?;
    let tokenizer = plan.dataset.path.join(data_pipeline::manifest::TOKENIZER_FOLDER);
    match vocabulary::extension(&Place::of(folder)?.tokenizer(), &tokenizer)? {
        Some(extension) => Ok(extension.apply(&imported, model, device)?),
        None => Ok(imported.params),
    }
}

/// The state before the first step.
fn beginning(plan: &Plan, params: Params, partition: Option<Partition>, device: &Device) -> TrainState {
    TrainState {
        step: 0,
        tokens: 0,
        optimizer: Optimizer::divided(plan.adamw, &params, partition, device),
        params,
        guard: Guard::default(),
        losses: LossSpan::default(),
        seen: Seen::default(),
        dataset_changes: Vec::new(),
        outer: None,
    }
}
