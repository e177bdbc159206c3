//! Owns which tensor of a file gets which number format; never touches values.
//!
//! The rules are those of llama.cpp's `llama-quant.cpp` (LLAMA_FTYPE_MOSTLY_*), so that a file is what its name says.

use serde::{Deserialize, Serialize};

use super::types::TensorType;

/// What the weights of a file are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Brain floating point.
    Bf16,
    /// 8 bits and a scale for 32 elements.
    Q8_0,
    /// 6 bits, 8 for the output head.
    Q6K,
    /// 5 bits; 6 where it matters most.
    Q5KM,
    /// 4 bits; 6 where it matters most.
    Q4KM,
}

impl Quantization {
    /// The number that `general.file_type` holds (`enum llama_ftype`).
    #[must_use]
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The name in file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
            Self::Q5KM => "Q5_K_M",
            Self::Q4KM => "Q4_K_M",
        }
    }

    fn base(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q6K => TensorType::Q6K,
            Self::Q5KM => TensorType::Q5K,
            Self::Q4KM => TensorType::Q4K,
        }
    }

    /// Largest accepted root mean square error of a tensor, as a part of its root mean square. The bound is several
    /// times what normally distributed weights give, and far below what a wrong order of elements does (about 1.4).
    #[must_use]
    pub fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 1e-6,
            Self::F16 => 1e-3,
            Self::Bf16 => 8e-3,
            Self::Q8_0 => 2e-2,
            Self::Q6K => 6e-2,
            Self::Q5KM => 0.12,
            Self::Q4KM => 0.25,
        }
    }

    /// Largest accepted difference of a logit on the probe, as a part of the largest logit, and largest mean
    /// divergence (nats a token). Small or badly trained models lie closest to them.
    #[must_use]
    pub fn logit_tolerance(self) -> (f64, f64) {
        match self {
            Self::F32 => (1e-4, 1e-6),
            Self::F16 => (1e-2, 1e-3),
            Self::Bf16 => (8e-2, 1e-2),
            Self::Q8_0 => (0.1, 2e-2),
            Self::Q6K => (0.15, 5e-2),
            Self::Q5KM => (0.3, 0.2),
            Self::Q4KM => (0.5, 0.5),
        }
    }

    /// The number format of the tensor `name` (as in GGUF) with `shape`, in a model of `layers` blocks.
    #[must_use]
    pub fn of_tensor(self, name: &str, shape: &[usize], model: MixModel) -> TensorType {
        let small = shape.len() < 2
            || !name.ends_with(".weight")
            || name.ends_with("_norm.weight")
            || name.ends_with("ffn_gate_inp.weight")
            || name == "position_embd.weight";
        if small {
            return TensorType::F32;
        }
        let columns = shape.last().copied().unwrap_or_default();
        fitting(self.wanted(name, columns, model), columns)
    }

    fn wanted(self, name: &str, columns: usize, model: MixModel) -> TensorType {
        let base = self.base();
        if !matches!(self, Self::Q4KM | Self::Q5KM | Self::Q6K) {
            return base;
        }
        let eight_experts = model.experts == 8;
        let more = more_bits(layer_of(name), model.layers);
        let mixed = matches!(self, Self::Q4KM | Self::Q5KM);
        match part_of(name) {
            "output" => head_type(columns),
            "token_embd" if model.tied_head => head_type(columns),
            "attn_v" | "attn_k" if eight_experts => TensorType::Q8_0,
            "attn_v" | "ffn_down" | "ffn_down_exps" if mixed && more => TensorType::Q6K,
            "attn_output" if eight_experts && self == Self::Q4KM => TensorType::Q5K,
            "attn_qkv" if self == Self::Q4KM => TensorType::Q5K,
            "attn_qkv" if self == Self::Q5KM => TensorType::Q6K,
            _ => base,
        }
    }
}

/// What the rules need to know of a model.
#[derive(Debug, Clone, Copy)]
pub struct MixModel {
    /// Number of blocks.
    pub layers: usize,
    /// Number of experts; 0 without.
    pub experts: usize,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
}

fn head_type(columns: usize) -> TensorType {
    if columns.is_multiple_of(TensorType::Q6K.block_len()) { TensorType::Q6K } else { TensorType::Q8_0 }
}

/// The format itself, or the nearest one whose blocks fit rows of `columns`.
fn fitting(wanted: TensorType, columns: usize) -> TensorType {
    let fits = |kind: TensorType| columns.is_multiple_of(kind.block_len());
    let smaller = match wanted {
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K | TensorType::Q6K => TensorType::Q8_0,
        other => other,
    };
    [wanted, smaller].into_iter().find(|kind| fits(*kind)).unwrap_or(TensorType::F16)
}

/// The first and last eighth of the blocks, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// `attn_v` of `blk.3.attn_v.weight`, `output` of `output.weight`.
fn part_of(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    name.rsplit('.').next().unwrap_or(name)
}

fn layer_of(name: &str) -> usize {
    name.split('.').nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}
