//! Owns `jazari export`, `verify` and `parity`; never touches tensors itself.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::HumanBytes;
use model_zoo::{Model, WeightDtype};

use super::certify::{self, CertificateArguments};
use super::failure::{Exit, Failure, note, say};
use super::formats::{Quantize, Source, export_gguf, export_mistral, open_source, progress, verify_gguf};
use super::progress::{StageProgress, short};
use crate::card::RunFacts;
use crate::card::markdown::{self, ModelFacts};
use crate::checkpoint::{self, CheckpointError, Manifest};
use crate::device::{self, DeviceChoice, Opened};
use crate::durable;
use crate::gguf::Quantization;
use crate::hub::{self, ExportOptions, VerifyReport};
use crate::parity::{self, ParityRow};

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// A checkpoint, a run directory (its newest valid checkpoint is taken), or a directory in the layout of Hugging
    /// Face or of Mistral
    #[arg(value_name = "MODEL")]
    checkpoint: PathBuf,
    /// Layout to write
    #[arg(long, value_enum, default_value_t = Layout::Hf)]
    to: Layout,
    /// Directory to make; it must not exist
    #[arg(long)]
    out: PathBuf,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,
    /// Number format of the weights in a GGUF file; default: that of --dtype
    #[arg(long, value_enum)]
    quantize: Option<Quantize>,
    /// Largest weight file, MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    max_shard_size: u64,
    /// Licence of the model for its card, as the Hub names it: apache-2.0, cc-by-nc-4.0
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Folder with tokenizer.json; default: that of the run the checkpoint belongs to
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Of an adapter run: merge the adapter into its base; this is what `--to hf` does anyway
    #[arg(long)]
    merge: bool,
    /// Of an adapter run: directory of the base model; default: where the run found it
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Also write what the model answers (logits, greedy texts, token ids) to this new folder, for checking servers
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Hugging Face directory
    Hf,
    /// One GGUF file, for llama.cpp, Ollama and others
    Gguf,
    /// Mistral's own: params.json, consolidated.safetensors, tekken.json or tokenizer.model
    Mistral,
    /// Adapter directory of PEFT; only of an adapter run
    Adapter,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    /// 32-bit floats: the checkpoint's own values
    F32,
    /// bfloat16
    Bf16,
    /// IEEE half precision
    F16,
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// A checkpoint, a run directory, an exported model, a GGUF file, a data set or a certificate
    path: PathBuf,
    #[command(flatten)]
    certificate: CertificateArguments,
}

#[derive(Debug, Args)]
pub(super) struct ParityArguments {
    /// Reference bundle: a folder with hf/ and expected/
    bundle: PathBuf,
    /// Where to compute: auto, cpu, cuda:N, wgpu:N
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Print one JSON object a check
    #[arg(long)]
    json: bool,
}

/// Writes a checkpoint as a Hugging Face directory and proves that it is the same model.
pub(super) fn export(arguments: &ExportArguments) -> Result<Exit, Failure> {
    check_options(arguments)?;
    for (option, path) in [("--out", Some(&arguments.out)), ("--reference", arguments.reference.as_ref())] {
        if let Some(path) = path.filter(|path| path.symlink_metadata().is_ok()) {
            return Err(Failure::usage(format!("{}: exists already; choose another {option}", path.display())));
        }
    }
    let opened = device::open(DeviceChoice::Cpu, None).map_err(Failure::usage)?;
    let dtype = arguments.dtype.into();
    let base = arguments.base.as_deref();
    if arguments.to == Layout::Adapter {
        return super::adapter::export(&arguments.checkpoint, base, &arguments.out, dtype);
    }
    let source = open_source(&arguments.checkpoint, arguments.tokenizer.as_deref(), (base, arguments.merge), &opened)?;
    note(&format!("exporting {}", source.title));
    if arguments.to == Layout::Gguf {
        let format = arguments.quantize.map_or_else(|| plain(dtype), Quantize::format);
        return export_gguf(&source, &arguments.out, format, &opened);
    }
    let options = ExportOptions {
        out: &arguments.out,
        tokenizer: source.tokenizer.path(),
        dtype,
        max_shard_bytes: arguments.max_shard_size.max(1) << 20,
        end_of_turn: &source.end_of_turn,
        chat_template: source.chat_template.as_deref(),
    };
    match arguments.to {
        Layout::Mistral => export_mistral(&source, &options, &opened),
        _ => export_hub(arguments, &source, &options, &opened),
    }
}

/// Options that mean nothing together.
fn check_options(arguments: &ExportArguments) -> Result<(), Failure> {
    if arguments.to == Layout::Adapter && arguments.merge {
        return Err(Failure::usage(
            "--merge makes a whole model, --to adapter an adapter; keep one of them".to_owned(),
        ));
    }
    if arguments.to != Layout::Gguf && arguments.quantize.is_some() {
        return Err(Failure::usage("--quantize is for --to gguf; other layouts take --dtype".to_owned()));
    }
    if arguments.to != Layout::Hf && arguments.reference.is_some() {
        return Err(Failure::usage("--reference is for --to hf; write the answers with a second export".to_owned()));
    }
    if arguments.to == Layout::Adapter && arguments.merge {
        return Err(Failure::usage("--merge is for layouts of whole models; --to adapter writes it apart".to_owned()));
    }
    Ok(())
}

fn plain(dtype: WeightDtype) -> Quantization {
    match dtype {
        WeightDtype::F32 => Quantization::F32,
        WeightDtype::F16 => Quantization::F16,
        WeightDtype::Bf16 => Quantization::Bf16,
    }
}

fn export_hub(
    arguments: &ExportArguments,
    source: &Source,
    options: &ExportOptions<'_>,
    opened: &Opened,
) -> Result<Exit, Failure> {
    let stage = std::cell::RefCell::new(StageProgress::new());
    stage.borrow_mut().stage("writing, reopening, comparing", None);
    let report = hub::export(&source.model, &source.params, options, &opened.device, &progress(&stage));
    stage.borrow_mut().end();
    let report = report.map_err(Failure::failed)?;
    for (name, bytes) in &report.files {
        say(&format!("  {name:<28} {}", HumanBytes(*bytes)));
    }
    say(&format!(
        "exported to {}: {} tensors equal bit for bit after rounding, logits differ by at most {}, {} token ids equal",
        report.dir.display(),
        report.num_tensors,
        super::formats::distance(&report.logits),
        report.num_token_ids
    ));
    if let Some((path, manifest)) = &source.checkpoint {
        write_card(arguments, path, manifest, &source.model, &source.params)?;
    }
    if let Some(reference) = &arguments.reference {
        parity::write_reference(&arguments.out, reference, &opened.device).map_err(Failure::failed)?;
        say(&format!("its answers are in {}: logits, greedy texts, log-likelihoods, token ids", reference.display()));
    }
    Ok(Exit::Done)
}

/// Writes the model card, from what the run directory knows.
fn write_card(
    arguments: &ExportArguments,
    checkpoint: &Path,
    manifest: &Manifest,
    model: &Model,
    params: &model_zoo::Params,
) -> Result<(), Failure> {
    let config = model.config();
    let hub: serde_json::Value = serde_json::from_str(&config.to_hub_json(WeightDtype::F32)).unwrap_or_default();
    let facts = ModelFacts {
        name: arguments.out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        licence: arguments.license.clone(),
        architecture: hub.pointer("/architectures/0").and_then(|name| name.as_str()).unwrap_or_default().to_owned(),
        parameters: params.num_elements() as u64,
        vocab_size: config.vocab_size(),
        context: config.max_positions(),
        dtype: arguments.dtype.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
        step: manifest.step,
        tokens: manifest.tokens,
        digest: manifest.state_digest.clone(),
    };
    let run = RunFacts::read(checkpoint.ancestors().nth(2).unwrap_or(Path::new(".")));
    let card = markdown::render(&facts, &run);
    durable::write_atomic(&arguments.out.join(markdown::FILE), card.as_bytes()).map_err(Failure::failed)?;
    say(&format!("  {:<28} model card: data, licences, training, evaluation, limits", markdown::FILE));
    let forbidden = run.data.non_commercial();
    if !forbidden.is_empty() {
        note(&format!("warning: parts of the training data forbid commercial use: {}", forbidden.join(", ")));
    }
    Ok(())
}

/// Checks whatever `path` is.
pub(super) fn verify(arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let path = &arguments.path;
    if path.is_file() && path.extension().is_some_and(|extension| extension == "gguf") {
        return verify_gguf(path);
    }
    if path.is_file() && path.extension().is_some_and(|extension| extension == "json") {
        return certify::verify(path, &arguments.certificate);
    }
    if path.join("manifest.json").is_file() {
        return super::data::verify(path);
    }
    if path.join("config.json").is_file() && !path.join(checkpoint::manifest::FILE_NAME).is_file() {
        return verify_export(path);
    }
    if path.join("checkpoints").is_dir() {
        return verify_run(path);
    }
    if !path.join(checkpoint::manifest::FILE_NAME).is_file() {
        return Err(Failure::usage(format!(
            "{}: neither a checkpoint, a run directory, an exported model (a directory or a .gguf file), a data set nor a certificate (a .json file); check the path",
            path.display()
        )));
    }
    verify_checkpoint(path).map_err(Failure::failed)?;
    Ok(Exit::Done)
}

fn verify_checkpoint(path: &Path) -> Result<(), CheckpointError> {
    let opened = burn::tensor::Device::flex();
    let saved = checkpoint::read::read_model(path, &opened)?;
    say(&format!(
        "{}: valid; step {}, {} tokens, {} parameters, state {}, plan {}",
        path.display(),
        saved.manifest.step,
        saved.manifest.tokens,
        saved.params.num_elements(),
        short(&saved.manifest.state_digest),
        short(&saved.manifest.identity.plan)
    ));
    Ok(())
}

fn verify_run(path: &Path) -> Result<Exit, Failure> {
    let found = checkpoint::store::list(&path.join("checkpoints")).map_err(Failure::usage)?;
    if found.is_empty() {
        return Err(Failure::failed(format!("{}: the run has no checkpoint", path.display())));
    }
    let mut bad = 0;
    for (_, checkpoint) in found {
        let checked = Manifest::read(&checkpoint).and_then(|_| verify_checkpoint(&checkpoint));
        if let Err(error) = checked {
            bad += 1;
            note(&format!("{error}; an older checkpoint is used at the next `jazari train`, this one is kept aside"));
        }
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}

fn verify_export(path: &Path) -> Result<Exit, Failure> {
    show_checks(path, &hub::verify(path, &|_, _| {}))
}

/// One line a check, and the verdict.
pub(super) fn show_checks(path: &Path, report: &VerifyReport) -> Result<Exit, Failure> {
    for check in &report.checks {
        let verdict = if check.passed { "ok  " } else { "FAIL" };
        say(&format!("{verdict} {:<22} {}", check.name, check.detail));
    }
    say(&format!("{}: {}", path.display(), if report.is_sound() { "sound" } else { "NOT sound" }));
    Ok(if report.is_sound() { Exit::Done } else { Exit::Failed })
}

/// Compares with a reference bundle.
pub(super) fn parity(arguments: &ParityArguments) -> Result<Exit, Failure> {
    let opened = device::open(arguments.device, None).map_err(Failure::usage)?;
    let json = arguments.json;
    let show = |row: &ParityRow| {
        let verdict = if row.passed() { "ok  " } else { "FAIL" };
        if json {
            let (check, value, tolerance, detail) = (&row.check, row.value, row.tolerance, &row.detail);
            let passed = row.passed();
            let row = serde_json::json!({ "check": check, "value": value, "tolerance": tolerance, "passed": passed, "detail": detail });
            say(&row.to_string());
        } else {
            say(&format!(
                "{verdict} {:<34} {:>10.3e} <= {:<10.3e} {}",
                row.check, row.value, row.tolerance, row.detail
            ));
        }
    };
    let report = parity::run(&arguments.bundle, &opened.device, &show).map_err(Failure::usage)?;
    for absent in &report.absent {
        note(&format!("note: not compared: {absent}"));
    }
    let failed = report.rows.iter().filter(|row| !row.passed()).count();
    if !json {
        say(&format!("{}: {} checks, {failed} failed, on {}", report.name, report.rows.len(), opened.summary()));
    }
    Ok(if report.passed() { Exit::Done } else { Exit::Failed })
}
