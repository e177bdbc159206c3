//! Owns which tensor of a GGUF file is made of which Hugging Face tensors, and how; never touches files.
//!
//! One plan serves both ways: written tensors are made of parts, read tensors are taken apart into them.

use super::GgufError;

/// The model families, by what distinguishes their tensors and settings in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3 and look-alikes.
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Mistral with experts.
    Mixtral,
    /// Biases on queries, keys and values.
    Qwen2,
    /// Norms on queries and keys.
    Qwen3,
    /// Soft caps, norms before and after.
    Gemma2,
    /// Two rotary bases, norms on queries and keys.
    Gemma3,
    /// Learned positions, LayerNorm.
    Gpt2,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 8] =
        [Self::Llama, Self::Mistral, Self::Mixtral, Self::Qwen2, Self::Qwen3, Self::Gemma2, Self::Gemma3, Self::Gpt2];

    /// The class in `architectures` of config.json.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Mixtral => "MixtralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma2 => "Gemma2ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
            Self::Gpt2 => "GPT2LMHeadModel",
        }
    }

    /// The `model_type` of config.json.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Gemma3 => "gemma3_text",
            Self::Mistral => "mistral",
            Self::Mixtral => "mixtral",
            other => other.architecture(),
        }
    }

    /// The `general.architecture` of GGUF. llama.cpp has one for Llama, Mistral and Mixtral.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama | Self::Mistral | Self::Mixtral => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Gpt2 => "gpt2",
        }
    }

    /// Whether llama.cpp turns neighbouring pairs: rows of queries and keys then stand in another order.
    fn turns_neighbours(self) -> bool {
        self.architecture() == "llama"
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

/// What happens to the values of a Hugging Face tensor on their way into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The two halves of each head are interleaved row by row.
    Interleave {
        /// Rows of a head.
        head_dim: usize,
        /// Elements of a row.
        width: usize,
    },
    /// 1 is added: Gemma's norms store their distance from 1.
    AddOne,
    /// Rows become columns; the shape is the one before.
    Transpose {
        /// Rows before.
        rows: usize,
        /// Columns before.
        columns: usize,
    },
}

impl Change {
    /// The values as the file holds them.
    #[must_use]
    pub fn apply(self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Self::None => values,
            Self::AddOne => values.into_iter().map(|value| value + 1.0).collect(),
            Self::Interleave { head_dim, width } => {
                reorder_rows(&values, head_dim, width, |row, half| row / 2 + (row % 2) * half)
            }
            Self::Transpose { rows, columns } => transpose(&values, rows, columns),
        }
    }

    /// The values as Hugging Face holds them.
    #[must_use]
    pub fn undo(self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Self::None => values,
            Self::AddOne => values.into_iter().map(|value| value - 1.0).collect(),
            Self::Interleave { head_dim, width } => {
                reorder_rows(&values, head_dim, width, |row, half| (row % half) * 2 + row / half)
            }
            Self::Transpose { rows, columns } => transpose(&values, columns, rows),
        }
    }
}

/// Row `row` of each head of the result is row `from(row, half a head)` of the same head.
fn reorder_rows(values: &[f32], head_dim: usize, width: usize, from: impl Fn(usize, usize) -> usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact((head_dim * width).max(1)) {
        for row in 0..head_dim {
            let start = from(row, head_dim / 2) * width;
            out.extend_from_slice(head.get(start..start + width).unwrap_or_default());
        }
    }
    out
}

fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).filter_map(|row| values.get(row * columns + column)));
    }
    out
}

/// One Hugging Face tensor inside a tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its place among the names that were given to [`plan`].
    pub index: usize,
    /// How it is changed.
    pub change: Change,
    /// Number of its elements.
    pub len: usize,
}

/// One tensor of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// What it is made of, in order: one tensor, or one for each expert.
    pub parts: Vec<Part>,
}

/// The tensors of the file that `tensors` (Hugging Face names and shapes) become. `head_dim` is that of queries and
/// keys.
///
/// # Errors
/// [`GgufError::Model`] names a tensor that has no place in the file or does not fit.
pub fn plan(
    family: Family,
    head_dim: usize,
    tensors: &[(String, Vec<usize>)],
) -> Result<Vec<PlannedTensor>, GgufError> {
    let mut planned: Vec<PlannedTensor> = Vec::new();
    for (index, (hub_name, shape)) in tensors.iter().enumerate() {
        let refused = |what: &str| GgufError::Model { cause: format!("tensor {hub_name:?} of shape {shape:?} {what}") };
        let (name, expert) = match family {
            Family::Gpt2 => gpt2_name(hub_name).map(|name| (name, None)),
            _ => block_name(family, hub_name),
        }
        .ok_or_else(|| refused("has no place in this family"))?;
        let len = shape.iter().product();
        let change = change(family, head_dim, hub_name, shape).ok_or_else(|| refused("does not fit head_dim"))?;
        let part = Part { index, change, len };
        let shape = if let Change::Transpose { rows, columns } = change { vec![columns, rows] } else { shape.clone() };
        match (expert, planned.iter_mut().find(|tensor| tensor.name == name)) {
            (None, None) => planned.push(PlannedTensor { name, shape, parts: vec![part] }),
            (Some(0), None) => {
                let shape = [vec![1], shape].concat();
                planned.push(PlannedTensor { name, shape, parts: vec![part] });
            }
            (Some(number), Some(stack))
                if number == stack.parts.len() && stack.shape.get(1..) == Some(shape.as_slice()) =>
            {
                stack.parts.push(part);
                if let Some(experts) = stack.shape.first_mut() {
                    *experts += 1;
                }
            }
            _ => return Err(refused("is out of order or another shape than its siblings")),
        }
    }
    Ok(planned)
}

fn change(family: Family, head_dim: usize, hub_name: &str, shape: &[usize]) -> Option<Change> {
    let rotated = [".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias"];
    if family.turns_neighbours() && rotated.iter().any(|end| hub_name.ends_with(end)) {
        let rows = shape.first().copied().unwrap_or_default();
        let width = shape.get(1).copied().unwrap_or(1);
        let fits = head_dim > 0 && head_dim.is_multiple_of(2) && rows.is_multiple_of(head_dim);
        return fits.then_some(Change::Interleave { head_dim, width });
    }
    if family.is_gemma() && hub_name.ends_with("norm.weight") {
        return Some(Change::AddOne);
    }
    let stored_transposed = [".c_attn.weight", ".c_proj.weight", ".c_fc.weight"];
    if family == Family::Gpt2 && stored_transposed.iter().any(|end| hub_name.ends_with(end)) {
        let [rows, columns] = *shape else { return None };
        return Some(Change::Transpose { rows, columns });
    }
    Some(Change::None)
}

fn block_name(family: Family, hub_name: &str) -> Option<(String, Option<usize>)> {
    let whole = match hub_name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(name) = whole {
        return Some((name.into(), None));
    }
    let (layer, rest) = hub_name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    if let Some(expert) = rest.strip_prefix("block_sparse_moe.experts.") {
        let (number, weight) = expert.split_once('.')?;
        let name = match weight {
            "w1.weight" => "ffn_gate_exps.weight",
            "w2.weight" => "ffn_down_exps.weight",
            "w3.weight" => "ffn_up_exps.weight",
            _ => return None,
        };
        return Some((format!("blk.{layer}.{name}"), Some(number.parse().ok()?)));
    }
    let (path, kind) = rest.rsplit_once('.')?;
    let name = match path {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "block_sparse_moe.gate" => "ffn_gate_inp",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if family.is_gemma() => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        _ => return None,
    };
    matches!(kind, "weight" | "bias").then(|| (format!("blk.{layer}.{name}.{kind}"), None))
}

fn gpt2_name(hub_name: &str) -> Option<String> {
    let name = hub_name.strip_prefix("transformer.").unwrap_or(hub_name);
    let (path, kind) = name.rsplit_once('.')?;
    let whole = match path {
        "wte" => Some("token_embd"),
        "wpe" => Some("position_embd"),
        "ln_f" => Some("output_norm"),
        "lm_head" => Some("output"),
        _ => None,
    };
    if let Some(name) = whole {
        return Some(format!("{name}.{kind}"));
    }
    let (layer, rest) = path.strip_prefix("h.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let name = match rest {
        "ln_1" => "attn_norm",
        "ln_2" => "ffn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{name}.{kind}"))
}
