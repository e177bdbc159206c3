//! Owns what commands say about adapters: exporting, merging and putting several on one base; never touches tensors
//! itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use indicatif::HumanBytes;
use model_zoo::{BaseFormat, FrozenBase, Model, Params, WeightDtype};

use super::failure::{Exit, Failure, note, say};
use super::progress::short;
use crate::adapter::{self, AdapterDir, AdapterFileError, Closeness, Merged};
use crate::checkpoint::read::{self, SavedAdapter, SavedModel};
use crate::eval::subject::Subject;
use crate::hub::HubError;

/// Writes the adapter of a run as PEFT reads it.
pub(super) fn export(checkpoint: &Path, base: Option<&Path>, out: &Path, dtype: WeightDtype) -> Result<Exit, Failure> {
    let saved = &read::read_model(checkpoint, &Device::flex()).map_err(Failure::usage)?;
    let Some(saved_adapter) = &saved.adapter else {
        let message = format!("{}: this run trained all weights, there is no adapter", saved.path.display());
        return Err(Failure::usage(format!("{message}; export it with `--to hf`")));
    };
    let (manifest, path) = (&saved.manifest, saved.path.display());
    note(&format!("exporting the adapter of {path} (step {}, state {})", manifest.step, short(&manifest.state_digest)));
    let named = base.unwrap_or(&saved_adapter.base_model).display().to_string();
    let model = Model::new(&saved.config).map_err(Failure::usage)?;
    let both = (&model, &saved.params);
    let report = adapter::write(out, both, &saved_adapter.plan, &named, dtype, &Device::flex()).map_err(failure)?;
    for (name, bytes) in &report.files {
        say(&format!("  {name:<28} {}", HumanBytes(*bytes)));
    }
    say(&format!(
        "exported to {}: {} tensors equal bit for bit after rounding; PEFT loads it on {named}",
        report.dir.display(),
        report.num_tensors
    ));
    Ok(Exit::Done)
}

/// The model of a checkpoint with its adapter merged, if it has one; says how close the merged model is.
pub(super) fn merged(
    saved: SavedModel,
    base: Option<&Path>,
    asked: bool,
    device: &Device,
) -> Result<SavedModel, Failure> {
    let Some(saved_adapter) = &saved.adapter else {
        let unused = [("--merge", asked), ("--base", base.is_some())].into_iter().find(|(_, is_written)| *is_written);
        return match unused {
            None => Ok(saved),
            Some((option, _)) => Err(Failure::usage(format!(
                "{}: this run trained all weights, so {option} has no effect; leave it out",
                saved.path.display()
            ))),
        };
    };
    let model = adapter::saved_model(&saved, saved_adapter, base, device).map_err(failure)?;
    let Merged { params, closeness, .. } = adapter::merge(&model, &saved.params, device).map_err(Failure::failed)?;
    say(&format!("merged the adapter into its base: {}, allowed {:.2e}", described(&closeness), closeness.tolerance()));
    if saved_adapter.plan.base == BaseFormat::Nf4 {
        let onto = onto_original(&model, &saved, saved_adapter, base, device).map_err(failure)?;
        say(&format!(
            "merged into the base as it was trained on, in 4 bits and widened again; merging into the original base \
             instead would answer differently: {}",
            described(&onto)
        ));
    }
    Ok(SavedModel { params, adapter: None, ..saved })
}

/// How close an adapter trained on a base in 4 bits would be to itself merged into the base as it is stored.
fn onto_original(
    model: &Model,
    saved: &SavedModel,
    saved_adapter: &SavedAdapter,
    base: Option<&Path>,
    device: &Device,
) -> Result<Closeness, AdapterFileError> {
    let dir = base.unwrap_or(&saved_adapter.base_model);
    let whole = model.clone().without_adapter();
    let base = adapter::load_base(dir, &whole, BaseFormat::F32, device)?;
    let original = adapter::adapted_model(whole, &saved_adapter.plan.lora, base)?;
    Ok(adapter::compare((model, &saved.params), (&original, &saved.params), device)?)
}

fn described(closeness: &Closeness) -> String {
    let Closeness { max_logit, max_difference, kl } = closeness;
    format!("logits differ by at most {max_difference:.2e} (largest {max_logit:.2}), divergence {kl:.2e} nats a token")
}

/// A model on a base that it shares with others, under the name that was given to it.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) params: Params,
}

/// Puts each adapter on the same base: `NAME=DIR`, or `DIR` under the name of its folder.
pub(super) fn on_one_base(subject: &Subject, adapters: &[String]) -> Result<Vec<Named>, Failure> {
    if !adapters.is_empty() && subject.model.frozen_base().is_some() {
        return Err(failure(AdapterFileError::NotWhole { path: subject.path().to_owned() }));
    }
    let base = Arc::new(FrozenBase::of_params(&subject.params));
    let mut all: Vec<Named> = Vec::new();
    for written in adapters {
        let (name, dir) = match written.split_once('=') {
            Some((name, dir)) if !name.is_empty() && !name.contains('/') => (name.to_owned(), PathBuf::from(dir)),
            _ => {
                let dir = PathBuf::from(written);
                (dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), dir)
            }
        };
        if all.iter().any(|other| other.name == name) {
            return Err(Failure::usage(format!("two adapters are called {name:?}; write --adapter NAME={written}")));
        }
        let opened = AdapterDir::open(&dir).map_err(failure)?;
        let fits = |error: AdapterFileError| Failure::usage(format!("{}: {error}", dir.display()));
        let model = adapter::adapted_model(subject.model.clone(), &opened.config, Arc::clone(&base)).map_err(fits)?;
        let params = opened.params(&model.specs(), &subject.device).map_err(failure)?;
        all.push(Named { name, model, params });
    }
    Ok(all)
}

/// A base or an adapter that is wrong is the user's input; a device that fails is not.
pub(super) fn failure(error: AdapterFileError) -> Failure {
    match error {
        AdapterFileError::Params(_) | AdapterFileError::Differs { .. } => Failure::failed(error),
        AdapterFileError::Hub(HubError::Differs { .. } | HubError::Params(_)) => Failure::failed(error),
        other => Failure::usage(other),
    }
}
