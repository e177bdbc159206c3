//! Promise: configurations of published models are read as they stand on the Hub, and the models built of them have
//! their published numbers of parameters.

use model_zoo::size::count_parameters;
use model_zoo::{Model, ModelConfig};
use serde_json::{Value, json};

/// Name, parameters, configuration (the keys that say what is computed).
type Published = (&'static str, u64, Value);

fn llamas() -> Vec<Published> {
    vec![
        (
            "Llama 2 7B",
            6_738_415_616,
            json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2,
                "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
                "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
                "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-5, "rope_scaling": null,
                "tie_word_embeddings": false, "torch_dtype": "float16", "use_cache": true, "vocab_size": 32000}),
        ),
        (
            "Llama 3.2 1B",
            1_235_814_400,
            json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false,
                "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
                "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
                "max_position_embeddings": 131072, "mlp_bias": false, "num_attention_heads": 32,
                "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
                "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3"},
                "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128256}),
        ),
    ]
}

fn mistrals() -> Vec<Published> {
    vec![
        (
            "Mistral 7B",
            7_241_732_096,
            json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "bos_token_id": 1,
                "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
                "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
                "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
                "vocab_size": 32000}),
        ),
        (
            "Mistral Nemo 12B",
            12_247_782_400,
            json!({"architectures": ["MistralForCausalLM"], "model_type": "mistral", "attention_dropout": 0.0,
                "bos_token_id": 1, "eos_token_id": 2, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
                "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072,
                "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false,
                "torch_dtype": "bfloat16", "vocab_size": 131072}),
        ),
    ]
}

fn qwens() -> Vec<Published> {
    vec![
        (
            "Qwen 2.5 0.5B",
            494_032_768,
            json!({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0,
                "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896,
                "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768,
                "max_window_layers": 24, "num_attention_heads": 14, "num_hidden_layers": 24,
                "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "sliding_window": 32768,
                "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "use_mrope": false,
                "use_sliding_window": false, "vocab_size": 151936}),
        ),
        (
            "Qwen 3 0.6B",
            596_049_920,
            json!({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
                "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128,
                "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
                "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
                "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-6, "rope_scaling": null,
                "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
                "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}),
        ),
    ]
}

fn gemmas() -> Vec<Published> {
    vec![
        (
            "Gemma 2 2B",
            2_614_341_888,
            json!({"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "attention_bias": false,
                "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
                "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
                "initializer_range": 0.02, "intermediate_size": 9216, "max_position_embeddings": 8192,
                "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096,
                "torch_dtype": "float32", "use_cache": true, "vocab_size": 256000}),
        ),
        (
            "Gemma 3 1B",
            999_885_952,
            json!({"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "attention_bias": false,
                "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2,
                "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": null,
                "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
                "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
                "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
                "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000,
                "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
                "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 262144}),
        ),
    ]
}

fn others() -> Vec<Published> {
    vec![
        (
            "Mixtral 8x7B",
            46_702_792_704,
            json!({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "attention_dropout": 0.0,
                "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
                "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
                "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
                "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
                "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
                "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000}),
        ),
        (
            "GPT-2",
            124_439_808,
            json!({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
                "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
                "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "n_ctx": 1024, "n_embd": 768, "n_head": 12,
                "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
                "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
                "summary_use_proj": true, "task_specific_params": {"text-generation": {"do_sample": true,
                "max_length": 50}}, "vocab_size": 50257}),
        ),
    ]
}

#[test]
fn published_models_have_their_published_sizes() {
    for (name, parameters, json) in [llamas(), mistrals(), qwens(), gemmas(), others()].concat() {
        let config = ModelConfig::from_hub_json(&json.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(count_parameters(&config).total(), parameters, "{name}");
        let specs = Model::new(&config).unwrap().specs();
        let elements: u64 = specs.iter().map(|spec| spec.num_elements() as u64).sum();
        assert_eq!(elements, parameters, "{name}: the tensors of the model");
    }
}
