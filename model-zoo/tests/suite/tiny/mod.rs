//! One small model of every family, for tests that hold for all of them.

use model_zoo::config::{
    DecoderConfig, Gemma2Config, Gemma3Config, LayerType, LayerWindows, MistralConfig, Qwen2Config, Qwen3Config,
};
use model_zoo::{ModelConfig, RopeConfig, RopeScaling};

/// Tokens that a window holds: fewer than a document of the tests.
pub const WINDOW: usize = 3;

/// All families over the same sizes, with windows where a family has them. `vocab_size`, the length of the context and
/// whether the head is tied are as given; heads are wider than the stream divided by their number.
pub fn families(vocab_size: usize, context: usize, tied: bool) -> Vec<ModelConfig> {
    let decoder = DecoderConfig {
        vocab_size,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: context,
        rms_norm_eps: 1e-5,
        rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
        tie_word_embeddings: tied,
        initializer_range: 0.4,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    };
    let windows = LayerWindows {
        sliding_window: WINDOW,
        layer_types: vec![LayerType::SlidingAttention, LayerType::FullAttention, LayerType::SlidingAttention],
    };
    let local_rope = RopeConfig { theta: 500.0, scaling: RopeScaling::None };
    let mut global = decoder.clone();
    global.rope.scaling = RopeScaling::Linear { factor: 4.0 };
    vec![
        ModelConfig::Llama(decoder.clone()),
        ModelConfig::Mistral(MistralConfig { decoder: decoder.clone(), sliding_window: Some(WINDOW) }),
        ModelConfig::Mistral(MistralConfig { decoder: decoder.clone(), sliding_window: None }),
        ModelConfig::Qwen2(Qwen2Config { decoder: decoder.clone(), windows: Some(windows.clone()) }),
        ModelConfig::Qwen3(Qwen3Config { decoder: decoder.clone(), windows: None }),
        ModelConfig::Gemma2(Gemma2Config {
            decoder,
            windows: windows.clone(),
            query_pre_attn_scalar: 12.0,
            attn_logit_softcapping: Some(2.0),
            final_logit_softcapping: Some(5.0),
        }),
        ModelConfig::Gemma3(Gemma3Config {
            decoder: global,
            windows,
            local_rope,
            query_pre_attn_scalar: 8.0,
            final_logit_softcapping: None,
        }),
    ]
}
