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
use crate::durable::FileError;
use crate::gguf::{self, GgufOptions, GgufSource, Quantization, TensorType};
use crate::hub::{self, ExportOptions, ExportProgress, GenerationConfig};
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
    pub(super) tokenizer: PathBuf,
    /// Ids that end a turn, beside those of the model's configuration.
    pub(super) end_of_turn: Vec<u32>,
    /// How the model was taught to chat; `None`: as the tokenizer's folder says.
    pub(super) chat_template: Option<String>,
    /// The checkpoint it was read from and what that says of itself.
    pub(super) checkpoint: Option<(PathBuf, Manifest)>,
    /// Holds the tokenizer's folder where it had to be made.
    _unpacked: Option<Unpacked>,
}

/// A folder of our own under the system's temporary one; removed with the value.
struct Unpacked(PathBuf);

impl Unpacked {
    fn of(folder: &Path) -> Result<Self, Failure> {
        let own = std::env::temp_dir().join(format!("jazari-tokenizer-{}", std::process::id()));
        std::fs::create_dir(&own).map_err(FileError::at(&own, "create the folder")).map_err(Failure::failed)?;
        let unpacked = Self(own);
        mistral::unpack_tokenizer(folder, &unpacked.0).map_err(Failure::usage)?;
        Ok(unpacked)
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What is left behind is small and harmless.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a checkpoint, a run (its newest valid checkpoint) or a Hugging Face directory. The adapter of a run is merged
/// into its base, found in `base` if that is named; `merge` says that the user asked for it.
pub(super) fn open_source(
    path: &Path,
    tokenizer: Option<&Path>,
    (base, merge): (Option<&Path>, bool),
    opened: &Opened,
) -> Result<Source, Failure> {
    let is_hub = path.join("config.json").is_file() && !path.join(checkpoint::manifest::FILE_NAME).is_file();
    let mut source = if is_hub {
        let imported = hub::import(path, &opened.device).map_err(Failure::usage)?;
        Source {
            title: path.display().to_string(),
            model: imported.model,
            params: imported.params,
            tokenizer: path.to_owned(),
            end_of_turn: imported.generation.eos_token_ids,
            chat_template: None,
            checkpoint: None,
            _unpacked: None,
        }
    } else if mistral::is_layout(path) {
        let imported = mistral::import(path, &opened.device).map_err(Failure::usage)?;
        let tekken_only = tokenizer.is_none() && !path.join("tokenizer.json").is_file();
        let unpacked = if tekken_only { Some(Unpacked::of(path)?) } else { None };
        Source {
            title: path.display().to_string(),
            model: imported.model,
            params: imported.params,
            tokenizer: unpacked.as_ref().map_or_else(|| path.to_owned(), |folder| folder.0.clone()),
            end_of_turn: imported.generation.eos_token_ids,
            chat_template: None,
            checkpoint: None,
            _unpacked: unpacked,
        }
    } else if !path.join("checkpoints").is_dir() && !path.join(checkpoint::manifest::FILE_NAME).is_file() {
        return Err(Failure::usage(format!(
            "{}: neither a checkpoint, a run directory nor a model in the layout of Hugging Face or Mistral; check the \
             path",
            path.display()
        )));
    } else {
        let saved = checkpoint::read::read_model(path, &opened.device).map_err(Failure::usage)?;
        let SavedModel { path, manifest, config, params, .. } =
            super::adapter::merged(saved, base, merge, &opened.device)?;
        let chat = hub::ChatFormat::read(&path).map_err(Failure::usage)?;
        let (chat_template, end_of_turn) =
            chat.map_or((None, Vec::new()), |chat| (Some(chat.chat_template), chat.end_of_turn));
        Source {
            title: format!("{} (step {}, state {})", path.display(), manifest.step, short(&manifest.state_digest)),
            model: Model::new(&config).map_err(Failure::usage)?,
            params,
            // RUN/checkpoints/step-N -> RUN/tokenizer
            tokenizer: path.ancestors().nth(2).unwrap_or(Path::new(".")).join("tokenizer"),
            end_of_turn,
            chat_template,
            checkpoint: Some((path, manifest)),
            _unpacked: None,
        }
    };
    if let Some(folder) = tokenizer {
        source.tokenizer = folder.to_owned();
    }
    if !source.tokenizer.join("tokenizer.json").is_file() {
        return Err(Failure::usage(format!(
            "{}: there is no tokenizer.json here; name the tokenizer's folder with --tokenizer",
            source.tokenizer.display()
        )));
    }
    Ok(source)
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
    let mut gguf_source = GgufSource::of_params(model, params, tokenizer, generation, &opened.device);
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
        "exported to {}: {} tensors equal bit for bit after rounding, logits differ by at most {:.2e} (largest {:.2}), \
         tokenizer in {}",
        report.dir.display(),
        report.num_tensors,
        report.logits.0,
        report.logits.1,
        report.tokenizer
    ));
    Ok(Exit::Done)
}

/// Checks a GGUF file.
pub(super) fn verify_gguf(path: &Path) -> Result<Exit, Failure> {
    super::export::show_checks(path, &gguf::verify(path, &|_, _| {}))
}
