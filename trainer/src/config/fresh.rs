//! Owns which model a block of keys describes, and the keys that describe a model; never touches the other keys.

use model_zoo::config::{
    DecoderConfig, MistralConfig, MixtralConfig, ModelConfig, Qwen2Config, Qwen3Config, RopeConfig, RopeScaling,
};

use super::experts;
use super::raw::{Family, RawModel, RawRopeScaling, RopeScalingKind};
use super::resolve::DatasetFacts;

/// A model with fresh weights; the dimensions were checked to be there.
pub(super) fn fresh_model(model: &RawModel, sequence_len: usize, dataset: &DatasetFacts) -> ModelConfig {
    let preset = model.size.map(super::raw::SizePreset::dimensions);
    let hidden_size = model.hidden_size.or(preset.map(|p| p.hidden_size)).unwrap_or_default();
    let heads = model.num_attention_heads.or(preset.map(|p| p.num_attention_heads)).unwrap_or_default();
    let head_dim = model.head_dim.or(preset.map(|p| p.head_dim)).unwrap_or(hidden_size / heads.max(1));
    let inner = model.intermediate_size.or(preset.filter(|_| model.hidden_size.is_none()).map(|p| p.intermediate_size));
    let key_value_heads = model
        .num_key_value_heads
        .or(preset.filter(|_| model.num_attention_heads.is_none()).map(|p| p.num_key_value_heads));
    let decoder = DecoderConfig {
        vocab_size: model.vocab_size.unwrap_or(dataset.vocab_size),
        hidden_size,
        // 8/3 of the width in whole blocks of 64, as the presets have it.
        intermediate_size: inner.unwrap_or((hidden_size * 8).div_ceil(3 * 64) * 64),
        num_hidden_layers: model.num_hidden_layers.or(preset.map(|p| p.num_hidden_layers)).unwrap_or_default(),
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads.unwrap_or(heads),
        head_dim,
        max_position_embeddings: model.max_position_embeddings.unwrap_or(sequence_len),
        rms_norm_eps: model.rms_norm_eps.unwrap_or(1e-5),
        rope: RopeConfig {
            theta: model.rope_theta.unwrap_or(10_000.0),
            scaling: model.rope_scaling.as_ref().map_or(RopeScaling::None, rope_scaling),
        },
        tie_word_embeddings: model.tie_word_embeddings.or(preset.map(|p| p.tie_word_embeddings)).unwrap_or(true),
        initializer_range: model.initializer_range.unwrap_or(0.02),
        bos_token_id: dataset.bos,
        eos_token_ids: dataset.eos.into_iter().collect(),
        pad_token_id: dataset.pad,
    };
    match model.family.unwrap_or_default() {
        Family::Llama => ModelConfig::Llama(decoder),
        Family::Mistral => ModelConfig::Mistral(MistralConfig { decoder, sliding_window: model.sliding_window }),
        Family::Qwen2 => ModelConfig::Qwen2(Qwen2Config { decoder, windows: None }),
        Family::Qwen3 => ModelConfig::Qwen3(Qwen3Config { decoder, windows: None }),
        Family::Mixtral => ModelConfig::Mixtral(MixtralConfig {
            decoder,
            sliding_window: model.sliding_window,
            num_local_experts: model.num_local_experts.unwrap_or(experts::DEFAULT_EXPERTS),
            num_experts_per_tok: model.num_experts_per_tok.unwrap_or(experts::DEFAULT_EXPERTS_PER_TOKEN),
            router_aux_loss_coef: experts::DEFAULT_COEFFICIENT,
            output_router_logits: false,
        }),
    }
}

fn rope_scaling(raw: &RawRopeScaling) -> RopeScaling {
    match raw.rope_type {
        RopeScalingKind::Llama3 => RopeScaling::Llama3 {
            factor: raw.factor,
            low_freq_factor: raw.low_freq_factor,
            high_freq_factor: raw.high_freq_factor,
            original_max_position_embeddings: raw.original_max_position_embeddings,
        },
    }
}

/// How a model is written that [`fresh_model`] can make; `None` of another.
pub(super) fn raw_model(model: &ModelConfig) -> Option<RawModel> {
    let (family, decoder, sliding_window) = match model {
        ModelConfig::Llama(decoder) => (Family::Llama, decoder, None),
        ModelConfig::Mistral(config) => (Family::Mistral, &config.decoder, config.sliding_window),
        ModelConfig::Qwen2(config) => (Family::Qwen2, &config.decoder, None),
        ModelConfig::Qwen3(config) => (Family::Qwen3, &config.decoder, None),
        ModelConfig::Mixtral(config) => (Family::Mixtral, &config.decoder, config.sliding_window),
        ModelConfig::Gemma2(_) | ModelConfig::Gemma3(_) | ModelConfig::Gpt2(_) => return None,
    };
    let experts = match model {
        ModelConfig::Mixtral(config) => Some((config.num_local_experts, config.num_experts_per_tok)),
        _ => None,
    };
    Some(RawModel {
        family: Some(family),
        size: None,
        hidden_size: Some(decoder.hidden_size),
        intermediate_size: Some(decoder.intermediate_size),
        num_hidden_layers: Some(decoder.num_hidden_layers),
        num_attention_heads: Some(decoder.num_attention_heads),
        num_key_value_heads: Some(decoder.num_key_value_heads),
        head_dim: Some(decoder.head_dim),
        vocab_size: Some(decoder.vocab_size),
        max_position_embeddings: Some(decoder.max_position_embeddings),
        tie_word_embeddings: Some(decoder.tie_word_embeddings),
        rope_theta: Some(decoder.rope.theta),
        rope_scaling: match decoder.rope.scaling {
            RopeScaling::None | RopeScaling::Linear { .. } => None,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                Some(RawRopeScaling {
                    rope_type: RopeScalingKind::Llama3,
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                })
            }
        },
        rms_norm_eps: Some(decoder.rms_norm_eps),
        initializer_range: Some(decoder.initializer_range),
        sliding_window,
        num_local_experts: experts.map(|(all, _)| all),
        num_experts_per_tok: experts.map(|(_, chosen)| chosen),
    })
}
