//! Owns the commit protocol of checkpoints and the choice of the newest valid one; never touches training.
//!
//! A save goes into a temporary sibling; every file is synced; the manifest comes last; one rename commits; the parent
//! folder is synced; the result is opened again and checked; only then may older checkpoints go, and two valid ones
//! always stay. Nothing that was once committed is ever deleted because it is damaged: it is renamed `invalid-...`.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model_zoo::ParamSpec;
use rayon::prelude::*;

use super::manifest::{self, DatasetChange, Identity, Manifest};
use super::read::{StateTensors, read_state_tensors, slice_name};
use super::{CheckpointError, TrainState, digest};
use crate::durable::{self, FileError};
use crate::optim::{Optimizer, OptimizerHyper};
use crate::outer::held::Held;
use crate::partition::Partition;
use crate::tensor_file::{self, Entry};

/// Weights, under Hugging Face names.
pub const MODEL_FILE: &str = "model.safetensors";
/// Optimizer moments, as slices of flat parameters.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// At least this many valid checkpoints are kept, whatever the config says.
pub const MIN_KEPT: usize = 2;
/// Free space asked for beyond the size of a checkpoint, bytes: logs and the manifest must fit as well.
const SPARE_BYTES: u64 = 1 << 20;
/// Kinds of optimizer moments, in the order of [`Optimizer`]'s fields.
pub(super) const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// The checkpoints of one run.
pub struct CheckpointStore {
    folder: PathBuf,
    keep: usize,
    identity: Identity,
    /// Runs that this one may continue though their data set was another.
    predecessors: Vec<Identity>,
}

/// A state read from disk.
pub struct Loaded {
    /// The state.
    pub state: TrainState,
    /// The folder it came from.
    pub path: PathBuf,
    /// The change of data set that loading it was.
    pub change: Option<DatasetChange>,
}

/// A checkpoint that was renamed because it is damaged.
#[derive(Debug, Clone, PartialEq)]
pub struct SetAside {
    /// Where it was.
    pub from: PathBuf,
    /// Where it is now.
    pub to: PathBuf,
    /// What is wrong.
    pub why: String,
}

/// What a committed save looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Digest of the state.
    pub state_digest: String,
}

/// Digests of tensors by kind and name, in the order in which they were written.
type Digests = RefCell<Vec<(String, String)>>;

/// A tensor on its way into a file, whose digest is taken as it passes.
fn entry<'a>(
    digests: &'a Digests,
    kind: &str,
    spec: &ParamSpec,
    name: String,
    shape: Vec<usize>,
    values: Values<'a>,
) -> Entry<'a, CheckpointError> {
    let key = format!("{kind}/{}", spec.name);
    let bytes = Box::new(move || {
        let bytes = values()?;
        digests.borrow_mut().push((key, digest::bytes_digest(&bytes)));
        Ok(bytes)
    });
    Entry { name, dtype: safetensors::Dtype::F32, shape, bytes }
}

/// Where the moments of a save come from, see [`CheckpointStore::commit_with`].
pub type MomentSource<'a> = dyn FnMut(usize, usize) -> Result<Vec<u8>, CheckpointError> + 'a;
type Values<'a> = Box<dyn FnOnce() -> Result<Vec<u8>, CheckpointError> + 'a>;

impl CheckpointStore {
    /// A store in `folder` that keeps `keep` (at least two) checkpoints of the run `identity`.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(folder: &Path, keep: usize, identity: Identity) -> Result<Self, CheckpointError> {
        durable::create_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), keep: keep.max(MIN_KEPT), identity, predecessors: Vec::new() })
    }

    /// The same store, which also loads checkpoints of `predecessors`: the same run on a data set that the user has
    /// acknowledged to be another.
    #[must_use]
    pub fn continuing(mut self, predecessors: Vec<Identity>) -> Self {
        self.predecessors = predecessors;
        self
    }

    /// Removes half-written saves of killed processes. The caller must hold the run's lock.
    ///
    /// # Errors
    /// When the folder cannot be listed or a leftover cannot be removed.
    pub fn clear_leftovers(&self) -> Result<(), CheckpointError> {
        for entry in fs::read_dir(&self.folder).map_err(FileError::at(&self.folder, "list the folder"))? {
            let path = entry.map_err(FileError::at(&self.folder, "list the folder"))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(".step-") && name.ends_with(".tmp") {
                fs::remove_dir_all(&path).map_err(FileError::at(&path, "remove an unfinished save"))?;
            }
        }
        Ok(())
    }

    /// Committed checkpoints, newest first.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        list(&self.folder)
    }

    /// Saves a state. After `Ok` it survives a crash; after `Err` all older checkpoints are as they were.
    ///
    /// # Errors
    /// When there is too little space or the disk refuses.
    pub fn commit(&self, state: &TrainState, extra: &[(&str, Vec<u8>)]) -> Result<Committed, CheckpointError> {
        let optimizer = &state.optimizer;
        let mut own = |moment: usize, param: usize| {
            let moments = if moment == 0 { &optimizer.exp_avg } else { &optimizer.exp_avg_sq };
            Ok(moments.get(param).map(digest::tensor_bytes).unwrap_or_default())
        };
        self.commit_with(state, extra, &mut own)
    }

    /// [`CheckpointStore::commit`] with moments from elsewhere: `moment(kind, parameter)` is called for every kind (0:
    /// first, 1: second) and parameter, in order, and returns the bytes of the whole moment.
    ///
    /// # Errors
    /// As [`CheckpointStore::commit`], or what `moment` returns.
    pub fn commit_with(
        &self,
        state: &TrainState,
        extra: &[(&str, Vec<u8>)],
        moment: &mut MomentSource<'_>,
    ) -> Result<Committed, CheckpointError> {
        self.check_space(state)?;
        let target = self.folder.join(format!("step-{:08}", state.step));
        let temporary = self.folder.join(format!(".step-{:08}.{}.tmp", state.step, std::process::id()));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(FileError::at(&temporary, "remove an unfinished save"))?;
        }
        durable::create_folder(&temporary)?;
        let result =
            self.write_files(&temporary, state, extra, moment).and_then(|m| self.put_in_place(&temporary, &target, &m));
        if result.is_err() {
            // The leftover has no manifest in place, so it can never be taken for a checkpoint.
            let _ = fs::remove_dir_all(&temporary);
        }
        let manifest = result?;
        verify_files(&target, &manifest)?;
        self.prune()?;
        let bytes = manifest.files.iter().map(|f| f.bytes).sum();
        Ok(Committed { bytes, path: target, state_digest: manifest.state_digest })
    }

    fn check_space(&self, state: &TrainState) -> Result<(), CheckpointError> {
        let hyper = &state.optimizer.hyper;
        let of = |s: &ParamSpec| s.num_elements() + hyper.moment_len(0, s) + hyper.moment_len(1, s);
        let numbers: u64 = state.params.specs().iter().map(|spec| of(spec) as u64).sum();
        let outer = state.outer.as_ref().map_or(0, Held::bytes);
        let needed_bytes = numbers * 4 + outer + SPARE_BYTES;
        match durable::free_bytes(&self.folder) {
            Some(free_bytes) if free_bytes < needed_bytes => {
                Err(CheckpointError::NoSpace { path: self.folder.clone(), needed_bytes, free_bytes })
            }
            _ => Ok(()),
        }
    }

    fn write_files(
        &self,
        folder: &Path,
        state: &TrainState,
        extra: &[(&str, Vec<u8>)],
        moment: &mut MomentSource<'_>,
    ) -> Result<Manifest, CheckpointError> {
        let digests: Digests = RefCell::default();
        let specs = state.params.specs();
        let moment = RefCell::new(moment);
        let model = specs
            .iter()
            .zip(state.params.tensors())
            .map(|(spec, tensor)| {
                let values = Box::new(|| Ok(digest::tensor_bytes(tensor)));
                entry(&digests, "parameter", spec, spec.name.clone(), spec.shape.clone(), values)
            })
            .collect();
        let mut files = vec![tensor_file::write::<CheckpointError>(&folder.join(MODEL_FILE), model)?];
        let mut moments = Vec::new();
        for (number, kind) in MOMENTS.into_iter().enumerate() {
            for (param, spec) in specs.iter().enumerate() {
                let len = state.optimizer.hyper.moment_len(number, spec);
                let (name, shape) = (slice_name(kind, &spec.name, 0), vec![len]);
                let moment = &moment;
                let values = Box::new(move || (moment.borrow_mut())(number, param));
                moments.push(entry(&digests, kind, spec, name, shape, values));
            }
        }
        files.push(tensor_file::write::<CheckpointError>(&folder.join(OPTIMIZER_FILE), moments)?);
        if let Some(outer) = &state.outer {
            files.extend(outer.write(folder, specs)?);
        }
        for (name, bytes) in extra {
            let path = folder.join(name);
            durable::write_atomic(&path, bytes)?;
            files.push(tensor_file::describe(&path)?);
        }
        let manifest = Manifest {
            format_version: manifest::FORMAT_VERSION,
            step: state.step,
            tokens: state.tokens,
            updates: state.optimizer.updates,
            identity: self.identity.clone(),
            world_size: 1,
            jazari: env!("CARGO_PKG_VERSION").into(),
            burn: BURN_VERSION.into(),
            parameters: specs.len(),
            moments: specs.len() * MOMENTS.len(),
            state_digest: digest::combine(digests.take(), state.step, state.tokens, state.optimizer.updates),
            dataset_changes: state.dataset_changes.clone(),
            losses: state.losses.clone(),
            seen: state.seen.clone(),
            guard: state.guard.clone(),
            files,
        };
        durable::write_atomic(&folder.join(manifest::FILE_NAME), &manifest.to_bytes())?;
        durable::sync_folder(folder)?;
        Ok(manifest)
    }

    fn put_in_place(&self, temporary: &Path, target: &Path, manifest: &Manifest) -> Result<Manifest, CheckpointError> {
        if target.exists() {
            // A run that went back to an older checkpoint reaches this step again; the same plan gives the same bits.
            let same = Manifest::read(target)
                .and_then(|old| verify_files(target, &old).map(|()| old))
                .is_ok_and(|old| old.state_digest == manifest.state_digest && old.identity == manifest.identity);
            if same {
                fs::remove_dir_all(temporary).map_err(FileError::at(temporary, "remove"))?;
                return Manifest::read(target);
            }
            set_aside(target, "another state of the same step was saved")?;
        }
        fs::rename(temporary, target).map_err(FileError::at(target, "put the checkpoint into place"))?;
        durable::sync_folder(&self.folder)?;
        Manifest::read(target)
    }

    /// Deletes the oldest checkpoints beyond the number to keep; damaged ones neither count nor go.
    fn prune(&self) -> Result<(), CheckpointError> {
        let mut valid = 0;
        for (_, path) in self.list()? {
            let readable = Manifest::read(&path).is_ok_and(|m| sizes_match(&path, &m).is_ok());
            if !readable {
                continue;
            }
            valid += 1;
            if valid > self.keep {
                // Without its manifest a checkpoint is invisible, so a kill in mid-removal leaves no half one.
                let manifest = path.join(manifest::FILE_NAME);
                fs::remove_file(&manifest).map_err(FileError::at(&manifest, "remove"))?;
                fs::remove_dir_all(&path).map_err(FileError::at(&path, "remove an old checkpoint"))?;
            }
        }
        Ok(())
    }

    /// Loads the newest valid checkpoint; damaged ones on the way are renamed and reported, never deleted.
    ///
    /// # Errors
    /// When a valid checkpoint belongs to another plan or dataset, or the disk refuses.
    pub fn newest_valid(
        &self,
        specs: &std::sync::Arc<[ParamSpec]>,
        hyper: OptimizerHyper,
        partition: Option<&Partition>,
        device: &Device,
    ) -> Result<(Option<Loaded>, Vec<SetAside>), CheckpointError> {
        let mut aside = Vec::new();
        for (_, path) in self.list()? {
            match self.load(&path, specs, hyper, partition, device) {
                Ok(loaded) => return Ok((Some(loaded), aside)),
                Err(CheckpointError::Damaged { path: at, what }) => {
                    aside.push(set_aside(&path, &format!("{}: {what}", at.display()))?);
                }
                Err(other) => return Err(other),
            }
        }
        Ok((None, aside))
    }

    /// Loads one checkpoint after checking every byte of it; of the optimizer only the pieces of this process where there
    /// is a partition.
    ///
    /// # Errors
    /// When it is damaged or belongs to another plan or dataset.
    pub fn load(
        &self,
        path: &Path,
        specs: &std::sync::Arc<[ParamSpec]>,
        hyper: OptimizerHyper,
        partition: Option<&Partition>,
        device: &Device,
    ) -> Result<Loaded, CheckpointError> {
        let manifest = Manifest::read(path)?;
        self.check_identity(path, &manifest)?;
        verify_files(path, &manifest)?;
        let StateTensors { params, exp_avg, exp_avg_sq, digest } =
            read_state_tensors(path, &manifest, specs, hyper, partition, device)?;
        let change = self.change(&manifest);
        let state = TrainState {
            step: manifest.step,
            tokens: manifest.tokens,
            params,
            optimizer: Optimizer {
                hyper,
                updates: manifest.updates,
                exp_avg,
                exp_avg_sq,
                partition: partition.cloned(),
            },
            guard: manifest.guard.clone(),
            losses: manifest.losses.clone(),
            seen: manifest.seen.clone(),
            dataset_changes: manifest.dataset_changes.iter().cloned().chain(change.clone()).collect(),
            outer: Held::read(path, specs)?,
        };
        if digest != manifest.state_digest {
            return Err(CheckpointError::Damaged {
                path: path.to_owned(),
                what: format!("the state's digest is {digest}, the manifest says {}", manifest.state_digest),
            });
        }
        Ok(Loaded { state, path: path.to_owned(), change })
    }

    /// The change of data set that loading a checkpoint into this run is.
    fn change(&self, manifest: &Manifest) -> Option<DatasetChange> {
        (manifest.identity != self.identity).then(|| DatasetChange {
            step: manifest.step,
            from: manifest.identity.dataset.clone(),
            to: self.identity.dataset.clone(),
            from_plan: manifest.identity.plan.clone(),
        })
    }

    fn check_identity(&self, path: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
        if self.predecessors.contains(&manifest.identity) {
            return Ok(());
        }
        let mismatch = |what: String| CheckpointError::Mismatch { path: path.to_owned(), what };
        if manifest.identity.dataset != self.identity.dataset {
            return Err(mismatch(format!(
                "the checkpoint was trained on dataset {}, the config names dataset {}; \
                 use the same dataset, another output_dir for a new run, or acknowledge the change with \
                 `--accept-dataset-change {}..{}`",
                manifest.identity.dataset,
                self.identity.dataset,
                short(&manifest.identity.dataset),
                short(&self.identity.dataset)
            )));
        }
        if manifest.identity.plan != self.identity.plan {
            return Err(mismatch(format!(
                "the checkpoint belongs to plan {}, the config resolves to plan {}; \
                 undo the change, or use another output_dir for a new run",
                manifest.identity.plan, self.identity.plan
            )));
        }
        Ok(())
    }
}

/// The first digits of a digest, enough to tell data sets apart.
pub fn short(digest: &str) -> &str {
    digest.get(..SHORT_DIGITS).unwrap_or(digest)
}

/// Digits of a digest in messages.
const SHORT_DIGITS: usize = 12;

/// Version of burn this program is built with; part of a checkpoint's description.
pub const BURN_VERSION: &str = "0.22.1";

/// Checkpoint folders below `folder`, newest first.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(FileError::at(folder, "list the folder"))? {
        let path = entry.map_err(FileError::at(folder, "list the folder"))?.path();
        let step = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn set_aside(path: &Path, why: &str) -> Result<SetAside, CheckpointError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new("."));
    let free = (0..).map(|i| match i {
        0 => parent.join(format!("invalid-{name}")),
        i => parent.join(format!("invalid-{name}.{i}")),
    });
    let to = free.into_iter().find(|p| !p.exists()).unwrap_or_else(|| parent.join("invalid"));
    fs::rename(path, &to).map_err(FileError::at(path, "set the damaged checkpoint aside"))?;
    durable::sync_folder(parent)?;
    Ok(SetAside { from: path.to_owned(), to, why: why.into() })
}

fn sizes_match(path: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    for file in &manifest.files {
        let at = path.join(&file.name);
        let damaged = |what: String| CheckpointError::Damaged { path: at.clone(), what };
        let size = fs::metadata(&at).map_err(|e| damaged(format!("the file cannot be read ({e})")))?.len();
        if size != file.bytes {
            return Err(damaged(format!("the file has {size} bytes, the manifest says {}", file.bytes)));
        }
    }
    Ok(())
}

/// Checks size and digest of every file the manifest names.
///
/// # Errors
/// [`CheckpointError::Damaged`] naming the first file that differs.
pub fn verify_files(path: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    sizes_match(path, manifest)?;
    let check = |file: &tensor_file::FileEntry| {
        let at = path.join(&file.name);
        let found = tensor_file::describe(&at)?;
        if found.blake3 != file.blake3 {
            let what = format!("the content's BLAKE3 is {}, the manifest says {}", found.blake3, file.blake3);
            return Err(CheckpointError::Damaged { path: at, what });
        }
        Ok(())
    };
    // All are read at the same time; the first in the manifest's order is named.
    let checked: Vec<_> = manifest.files.par_iter().map(check).collect();
    checked.into_iter().collect::<Result<(), _>>()?;
    for required in [MODEL_FILE, OPTIMIZER_FILE] {
        if !manifest.files.iter().any(|f| f.name == required) {
            return Err(CheckpointError::Damaged {
                path: path.join(required),
                what: "the manifest does not list this file".into(),
            });
        }
    }
    Ok(())
}
