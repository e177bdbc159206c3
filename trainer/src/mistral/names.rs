//! Owns Mistral's names of the tensors and the order of their rows; never touches files.

use crate::gguf::{Change, Family, plan};
use crate::hub::HubError;

/// Where a Hugging Face tensor stands in `consolidated.safetensors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub name: String,
    /// Queries and keys keep the rows of neighbouring pairs together, as Meta's code had them.
    pub change: Change,
}

/// The places of `tensors` (Hugging Face names and shapes), in their order.
///
/// # Errors
/// [`HubError::Layout`] names a tensor that Mistral's layout has no place for.
pub(super) fn places(head_dim: usize, tensors: &[(String, Vec<usize>)]) -> Result<Vec<Place>, HubError> {
    let refused = |name: &str| HubError::Layout {
        what: format!("tensor {name:?} has no place in Mistral's layout; it is for Llama, Mistral and Mixtral"),
    };
    // Rows of queries and keys stand as in GGUF, whose architecture "llama" comes from the same code.
    let planned =
        plan(Family::Mixtral, head_dim, tensors).map_err(|error| HubError::Layout { what: error.to_string() })?;
    let mut changes = vec![Change::None; tensors.len()];
    for part in planned.iter().flat_map(|tensor| &tensor.parts) {
        if let Some(change) = changes.get_mut(part.index) {
            *change = part.change;
        }
    }
    let named = tensors.iter().zip(changes).map(|((hub_name, _), change)| {
        Ok(Place { name: own_name(hub_name).ok_or_else(|| refused(hub_name))?, change })
    });
    named.collect()
}

fn own_name(hub_name: &str) -> Option<String> {
    match hub_name {
        "model.embed_tokens.weight" => return Some("tok_embeddings.weight".into()),
        "model.norm.weight" => return Some("norm.weight".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, rest) = hub_name.strip_prefix("model.layers.")?.split_once('.')?;
    if let Some(expert) = rest.strip_prefix("block_sparse_moe.") {
        return Some(format!("layers.{layer}.feed_forward.{expert}"));
    }
    let name = match rest {
        "self_attn.q_proj.weight" => "attention.wq.weight",
        "self_attn.k_proj.weight" => "attention.wk.weight",
        "self_attn.v_proj.weight" => "attention.wv.weight",
        "self_attn.o_proj.weight" => "attention.wo.weight",
        "mlp.gate_proj.weight" => "feed_forward.w1.weight",
        "mlp.down_proj.weight" => "feed_forward.w2.weight",
        "mlp.up_proj.weight" => "feed_forward.w3.weight",
        "input_layernorm.weight" => "attention_norm.weight",
        "post_attention_layernorm.weight" => "ffn_norm.weight",
        _ => return None,
    };
    Some(format!("layers.{layer}.{name}"))
}
