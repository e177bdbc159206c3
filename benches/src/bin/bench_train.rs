//! Owns one timed training run on random tokens, printed as one JSON line; never touches data sets or checkpoints.
//!
//! It calls the functions that `jazari train` calls (`trainer::step`, `trainer::optim`) with
//! the allocator of that binary. Options and fields follow the PyTorch peer that `compare_torch.py` runs beside it.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use data_pipeline::loader::TokenBatch;
use model_zoo::init::initial_values;
use model_zoo::size::flops_per_token;
use model_zoo::{
    AdaptedModule, AdapterSpec, BaseFormat, FrozenBase, Model, ModelConfig, ParamSpec, Params, ParamsError, Precision,
};
use serde_json::{Value, json};
use trainer::device::{self, DeviceChoice, DeviceKind, Opened};
use trainer::optim::{Optimizer, OptimizerHyper};
use trainer::step::{StepGradients, summed_gradients};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains a Llama-shaped model on random tokens and prints its speed.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 6)]
    layers: usize,
    #[arg(long, default_value_t = 256)]
    d_model: usize,
    #[arg(long, default_value_t = 8)]
    heads: usize,
    #[arg(long, default_value_t = 4)]
    kv_heads: usize,
    /// Elements of a head; 0: `d-model / heads`.
    #[arg(long, default_value_t = 0)]
    head_dim: usize,
    #[arg(long, default_value_t = 704)]
    ffn: usize,
    #[arg(long, default_value_t = 8192)]
    vocab: usize,
    /// Rows of a micro-batch.
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 256)]
    seq: usize,
    /// Timed steps.
    #[arg(long, default_value_t = 6)]
    steps: usize,
    /// Steps before the clock starts.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// Micro-batches of a step.
    #[arg(long, default_value_t = 1)]
    grad_accum: usize,
    /// Threads of the CPU kernels; 0: all.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Update the matrices between layers by Muon.
    #[arg(long)]
    muon: bool,
    /// Freeze the weights and train a LoRA adapter.
    #[arg(long, value_enum, default_value_t = Adapter::None)]
    adapter: Adapter,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Use the embedding as head.
    #[arg(long)]
    tie: bool,
    #[arg(long, default_value_t = 3e-4)]
    lr: f64,
    /// Global gradient norm; 0: no clip.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Peak to compare with; 0: the published one of the GPU, or a measured one.
    #[arg(long, default_value_t = 0.0)]
    peak_tflops: f64,
    /// Append the line to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// bf16 on a GPU that computes in it, fp32 elsewhere.
    Auto,
    Fp32,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Adapter {
    /// All weights are trained.
    None,
    /// On a base in f32.
    Lora,
    /// On a base in bf16.
    LoraBf16,
    /// On a base in 4 bits.
    Qlora,
}

/// What the clock saw.
#[derive(Default)]
struct Timing {
    first_step: f64,
    wall: f64,
    cpu: Option<f64>,
    best_step: Option<f64>,
    loss_first: f64,
    loss_last: f64,
    gpu_bytes: Option<u64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    trainer::allocator::fit_training();
    let options = Options::parse();
    let opened = device::open(options.device, (options.threads > 0).then_some(options.threads))?;
    let precision = match options.dtype {
        Dtype::Bf16 => Precision::Bf16Mixed,
        Dtype::Auto if opened.kind != DeviceKind::Cpu && opened.supports_bf16() => Precision::Bf16Mixed,
        Dtype::Auto | Dtype::Fp32 => Precision::F32,
    };
    let config = config(&options)?;
    let model = adapted(&options, Model::new(&config)?.with_precision(precision), &opened)?;
    let mut params = model.initial_params(options.seed, &opened.device)?;
    let num_params = params.num_elements();
    let base_bytes = model.frozen_base().map(|base| base.num_bytes());
    let timing = train(&options, &opened, &model, &mut params)?;
    let peak = match options.peak_tflops {
        given if given > 0.0 => Some(given * 1e12),
        _ => opened.published_peak_flops(precision).or_else(|| device::measure_peak_flops(&opened.device)),
    };
    let mut report =
        report(&options, &opened, precision, num_params, &timing, (flops_per_token(&config, options.seq), peak));
    if let (Some(fields), Some(bytes)) = (report.as_object_mut(), base_bytes) {
        fields.insert("base_weights_mib".into(), json!((bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0));
    }
    writeln!(std::io::stdout(), "{report}")?;
    if let Some(path) = &options.json {
        writeln!(OpenOptions::new().create(true).append(true).open(path)?, "{report}")?;
    }
    Ok(())
}

/// The model frozen in the number format asked for, with LoRA on all linear layers of its blocks.
fn adapted(options: &Options, model: Model, opened: &Opened) -> Result<Model, Box<dyn Error>> {
    let format = match options.adapter {
        Adapter::None => return Ok(model),
        Adapter::Lora => BaseFormat::F32,
        Adapter::LoraBf16 => BaseFormat::Bf16,
        Adapter::Qlora => BaseFormat::Nf4,
    };
    let values = |spec: &ParamSpec| Ok::<_, ParamsError>(initial_values(spec, options.seed));
    let base = FrozenBase::load(model.family_specs(), &model.linear_params(), format, &opened.device, values)?;
    let module = |name| AdaptedModule { name, rank: options.rank, scale: 2.0 };
    let modules = model.adaptable_modules().into_iter().map(module).collect();
    let adapter = AdapterSpec { modules, ..AdapterSpec::default() };
    Ok(model.with_adapter(&adapter, Arc::new(base))?)
}

fn config(options: &Options) -> Result<ModelConfig, Box<dyn Error>> {
    let json = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": options.d_model,
        "intermediate_size": options.ffn,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.kv_heads,
        "head_dim": head_dim(options),
        "vocab_size": options.vocab,
        "max_position_embeddings": options.seq,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": options.tie,
    });
    Ok(ModelConfig::from_hub_json(&json.to_string())?)
}

fn head_dim(options: &Options) -> usize {
    if options.head_dim > 0 { options.head_dim } else { options.d_model / options.heads.max(1) }
}

/// Batch `index` of random rows; one document a row, every target counts.
fn random_batch(options: &Options, index: u64) -> TokenBatch {
    let (rows, seq_len) = (options.batch, options.seq);
    let row_tokens = seq_len + 1;
    let token = |position: usize| {
        // splitmix64 (Steele, Lea and Flood, 2014) of a counter.
        let mut z =
            (options.seed << 48 ^ index << 32).wrapping_add(position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % options.vocab.max(1) as u64) as u32
    };
    let cells = || (0..rows).flat_map(|row| (0..seq_len).map(move |column| (row, column)));
    TokenBatch {
        rows,
        seq_len,
        tokens: cells().map(|(row, column)| token(row * row_tokens + column)).collect(),
        targets: cells().map(|(row, column)| token(row * row_tokens + column + 1) as i32).collect(),
        segments: vec![0; rows * seq_len],
        positions: cells().map(|(_, column)| column as u32).collect(),
        components: vec![0; rows],
        samples: Vec::new(),
    }
}

/// Warm-up and timed steps over four batches that repeat.
fn train(options: &Options, opened: &Opened, model: &Model, params: &mut Params) -> Result<Timing, Box<dyn Error>> {
    let batches: Vec<TokenBatch> = (0..4).map(|index| random_batch(options, index)).collect();
    let max_grad_norm = (options.clip > 0.0).then_some(options.clip);
    let muon_momentum = options.muon.then_some(0.95);
    let hyper = OptimizerHyper { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, max_grad_norm, muon_momentum };
    let mut optimizer = Optimizer::new(hyper, params, &opened.device);
    let mut timing = Timing::default();
    let (mut start, mut cpu_start) = (Instant::now(), cpu_seconds());
    for step in 0..options.warmup.max(1) + options.steps.max(1) {
        if step == options.warmup.max(1) {
            sync(&opened.device)?;
            (start, cpu_start) = (Instant::now(), cpu_seconds());
        }
        let step_start = Instant::now();
        let micro = |micro: usize| batches.get((step + micro) % batches.len());
        let own: Vec<_> = (0..options.grad_accum.max(1)).filter_map(micro).collect();
        let StepGradients { loss_sum, valid, grads } = summed_gradients(model, params, &own, &opened.device)?;
        optimizer.step(params, grads, valid, options.lr);
        timing.loss_last = loss_sum / valid.max(1) as f64;
        if opened.kind != DeviceKind::Cpu {
            timing.gpu_bytes = timing.gpu_bytes.max(opened.memory().used);
        }
        if step == 0 {
            sync(&opened.device)?;
            timing.first_step = step_start.elapsed().as_secs_f64();
            timing.loss_first = timing.loss_last;
        } else if opened.kind == DeviceKind::Cpu && step >= options.warmup.max(1) {
            let seconds = step_start.elapsed().as_secs_f64();
            timing.best_step = Some(timing.best_step.map_or(seconds, |best: f64| best.min(seconds)));
        }
    }
    sync(&opened.device)?;
    timing.wall = start.elapsed().as_secs_f64();
    timing.cpu = cpu_seconds().zip(cpu_start).map(|(end, start)| end - start);
    Ok(timing)
}

fn sync(device: &Device) -> Result<(), Box<dyn Error>> {
    device.sync().map_err(|error| format!("the device failed: {error}").into())
}

/// Processor time of this process, user and system, in seconds (`/proc/self/stat`, in ticks of 10 ms).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// The line, with the fields of the peer; `flops` is a token's cost and the device's peak.
fn report(
    options: &Options,
    opened: &Opened,
    precision: Precision,
    num_params: usize,
    timing: &Timing,
    (token_flops, peak): (f64, Option<f64>),
) -> Value {
    let round = |value: f64, digits: i32| (value * 10f64.powi(digits)).round() / 10f64.powi(digits);
    let steps = options.steps.max(1);
    let step_tokens = (options.batch * options.seq * options.grad_accum.max(1)) as f64;
    let tokens_per_s = step_tokens * steps as f64 / timing.wall;
    let cpu = opened.kind == DeviceKind::Cpu;
    let peak_bytes = if cpu { opened.memory().peak } else { timing.gpu_bytes };
    let fields = [
        ("impl", json!("jazari")),
        ("device", json!(if cpu { format!("cpu x{}", opened.threads) } else { opened.name.clone() })),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("dtype", json!(if precision == Precision::F32 { "fp32" } else { "bf16" })),
        ("layers", json!(options.layers)),
        ("d_model", json!(options.d_model)),
        ("heads", json!(options.heads)),
        ("kv_heads", json!(options.kv_heads)),
        ("head_dim", json!(head_dim(options))),
        ("ffn", json!(options.ffn)),
        ("vocab", json!(options.vocab)),
        ("batch", json!(options.batch)),
        ("seq", json!(options.seq)),
        ("grad_accum", json!(options.grad_accum.max(1))),
        ("params", json!(num_params)),
        ("tokens_per_s", json!(round(tokens_per_s, 1))),
        ("ms_per_step", json!(round(1000.0 * timing.wall / steps as f64, 1))),
        ("best_ms_per_step", json!(timing.best_step.map(|best| round(1000.0 * best, 1)))),
        ("best_tokens_per_s", json!(timing.best_step.map(|best| round(step_tokens / best, 1)))),
        ("cpu_s_per_wall_s", json!(timing.cpu.map(|cpu| round(cpu / timing.wall, 2)))),
        ("tokens_per_cpu_s", json!(timing.cpu.map(|cpu| round(step_tokens * steps as f64 / cpu, 1)))),
        ("peak_mem_gib", json!(peak_bytes.map(|bytes| round(bytes as f64 / f64::from(1 << 30), 3)))),
        ("peak_mem_kind", json!(if cpu { "process RSS" } else { "reserved by burn" })),
        ("achieved_tflops", json!(round(tokens_per_s * token_flops / 1e12, 4))),
        ("peak_tflops", json!(peak.map(|peak| round(peak / 1e12, 3)))),
        ("mfu_causal", json!(peak.map(|peak| round(tokens_per_s * token_flops / peak, 4)))),
        ("first_step_s", json!(round(timing.first_step, 2))),
        ("loss_first", json!(round(timing.loss_first, 4))),
        ("loss_last", json!(round(timing.loss_last, 4))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
