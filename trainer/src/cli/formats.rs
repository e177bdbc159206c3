//! Owns what `jazari export` reads, and showing the layouts other than Hugging Face's that it writes; never touches
//! tensors itself.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::HumanBytes;
use model_zoo::{Model, Params};

use super::failure::{Exit, Failure, note, say};
use super::progress::{StageProgress, short};
use crate::checkpoint::{self, Manifest, read::SavedModel};
use crate::device::Opened;
use crate::eval::subject::{self, Place, TokenizerFolder};
use crate::gguf::{self, GgufOptions, GgufSource, Quantization, TensorType};
use crate::hub::{self, ExportOptions, ExportProgress, GenerationConfig, LogitDistance};
use crate::mistral;

/// Number formats of `--quantize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Quantize {
    /// 32-bit floats
    F32,
    /// IEEE half precision
    F16,
    /// bfloat16
    Bf16,
    /// 8 bits: hardly any loss
    #[value(name = "q8_0")]
    Q8,
    /// 6 bits
    #[value(name = "q6_k")]
    Q6,
    /// 5 bits, 6 where it matters most
    #[value(name = "q5_k_m")]
    Q5,
    /// 4 bits, 6 where it matters most
    #[value(name = "q4_k_m")]
    Q4,
}

impl Quantize {
    pub(super) fn format(self) -> Quantization {
        match self {
            Self::F32 => Quantization::F32,
            Self::F16 => Quantization::F16,
            Self::Bf16 => Quantization::Bf16,
            Self::Q8 => Quantization::Q8_0,
            Self::Q6 => Quantization::Q6K,
            Self::Q5 => Quantization::Q5KM,
            Self::Q4 => Quantization::Q4KM,
        }
    }
}

/// A model to be exported.
pub(super) struct Source {
    /// One line for the user.
    pub(super) title: String,
    pub(super) model: Model,
    pub(super) params: Params,
    /// Folder with tokenizer.json.
    pub(super) tokenizer: TokenizerFolder,
    /// Ids that end a turn, beside those of the model's configuration.
    pub(super) end_of_turn: Vec<u32>,
    /// How the model was taught to chat; `None`: as the tokenizer's folder says.
    pub(super) chat_template: Option<String>,
    /// The checkpoint it was read from and what that says of itself.
    pub(super) checkpoint: Option<(PathBuf, Manifest)>,
}

/// Opens a checkpoint, a run (its newest valid checkpoint) or a Hugging Face directory. The adapter of a run is merged
/// into its base, found in `base` if that is named; `merge` says that the user asked for it.
pub(super) fn open_source(
    path: &Path,
    tokenizer: Option<&Path>,
    (base, merge): (Option<&Path>, bool),
    opened: &Opened,
) -> Result<Source, Failure> {
    let place = Place::of(path)?;
    if let Some(imported) = subject::import(&place, &opened.device)? {
        if let Some((option, _)) = [("--merge", merge), ("--base", base.is_some())].iter().find(|(_, written)| *written)
        {
            return Err(Failure::usage(format!(
                "{}: {option} is for the checkpoint of an adapter's run, and this is a whole model; leave it out",
                path.display()
            )));
        }
        return Ok(Source {
            title: path.display().to_string(),
            model: imported.model,
            params: imported.params,
            tokenizer: place.tokenizer_folder(tokenizer)?,
            end_of_turn: imported.generation.eos_token_ids,
            chat_template: None,
            checkpoint: None,
        });
    }
    let tokenizer = place.tokenizer_folder(tokenizer)?;
    let saved = checkpoint::read::read_model(place.folder(), &opened.device).map_err(Failure::usage)?;
    let SavedModel { path, manifest, config, params, .. } = super::adapter::merged(saved, base, merge, &opened.device)?;
    let chat = hub::ChatFormat::read(&path).map_err(Failure::usage)?;
    let (chat_template, end_of_turn) =
        chat.map_or((None, Vec::new()), |chat| (Some(chat.chat_template), chat.end_of_turn));
    Ok(Source {
        title: format!("{} (step {}, state {})", path.display(), manifest.step, short(&manifest.state_digest)),
        model: Model::new(&config).map_err(Failure::usage)?,
        params,
        tokenizer,
        end_of_turn,
        chat_template,
        checkpoint: Some((path, manifest)),
    })
}

/// Shows what an export is doing.
pub(super) fn progress(stage: &std::cell::RefCell<StageProgress>) -> impl Fn(ExportProgress) + '_ {
    move |event| {
        let message = match event {
            ExportProgress::Written { tensors, total } => format!("{tensors}/{total} tensors"),
            ExportProgress::Reopening => "reopening".into(),
            ExportProgress::Comparing => "comparing with the source".into(),
        };
        stage.borrow_mut().at(0, &message);
    }
}

/// Writes a GGUF file and says how far it is from the model.
pub(super) fn export_gguf(
    source: &Source,
    out: &Path,
    quantization: Quantization,
    opened: &Opened,
) -> Result<Exit, Failure> {
    let generation = GenerationConfig::of(source.model.config(), &source.end_of_turn);
    let Source { model, params, tokenizer, .. } = source;
    let mut gguf_source = GgufSource::of_params(model, params, tokenizer.path(), generation, &opened.device);
    gguf_source.chat_template.clone_from(&source.chat_template);
    let stage = std::cell::RefCell::new(StageProgress::new());
    stage.borrow_mut().stage("writing, reopening, comparing", None);
    let report = gguf::export(&gguf_source, &GgufOptions { out, quantization }, &progress(&stage));
    stage.borrow_mut().end();
    let report = report.map_err(Failure::failed)?;
    for warning in &report.warnings {
        note(&format!("note: {warning}"));
    }
    let formats: Vec<String> =
        report.formats.iter().map(|(kind, count)| format!("{count} {}", TensorType::name(*kind))).collect();
    say(&format!("  {}  {}", report.path.display(), HumanBytes(report.bytes)));
    say(&format!(
        "  {} tensors ({}), largest relative error {:.1e} ({})",
        report.num_tensors,
        formats.join(", "),
        report.worst_tensor.0,
        if report.worst_tensor.1.is_empty() { "none" } else { &report.worst_tensor.1 }
    ));
    if let Some(logits) = report.logits {
        say(&format!(
            "  logits differ by at most {:.2e} (allowed {:.2e}, largest {:.2}), mean KL {:.1e} nats a token (allowed \
             {:.0e})",
            logits.largest, logits.tolerance, logits.peak, logits.divergence, logits.divergence_tolerance
        ));
    }
    say(&format!(
        "exported to {}; {} of {} test texts get the same token ids in llama.cpp",
        report.path.display(),
        report.equal_texts.0,
        report.equal_texts.1
    ));
    Ok(Exit::Done)
}

/// Writes a folder in Mistral's layout and says how far it is from the model.
pub(super) fn export_mistral(source: &Source, options: &ExportOptions<'_>, opened: &Opened) -> Result<Exit, Failure> {
    let stage = std::cell::RefCell::new(StageProgress::new());
    stage.borrow_mut().stage("writing, reopening, comparing", None);
    let report = mistral::export(&source.model, &source.params, options, &opened.device, &progress(&stage));
    stage.borrow_mut().end();
    let report = report.map_err(Failure::failed)?;
    for warning in &report.warnings {
        note(&format!("note: {warning}"));
    }
    say(&format!(
        "exported to {}: {} tensors equal bit for bit after rounding, logits differ by at most {}, tokenizer in {}",
        report.dir.display(),
        report.num_tensors,
        distance(&report.logits),
        report.tokenizer
    ));
    Ok(Exit::Done)
}

/// `1.00e-2 (allowed 8.00e-2, largest 3.00)`.
pub(super) fn distance(logits: &LogitDistance) -> String {
    let LogitDistance { largest, peak, tolerance } = logits;
    let allowed = match tolerance {
        Some(tolerance) => format!("allowed {tolerance:.2e}"),
        None => "rounding lets tokens choose other experts".to_owned(),
    };
    format!("{largest:.2e} ({allowed}, largest {peak:.2})")
}

/// Checks a GGUF file.
pub(super) fn verify_gguf(path: &Path) -> Result<Exit, Failure> {
    super::export::show_checks(path, &gguf::verify(path, &|_, _| {}))
}
