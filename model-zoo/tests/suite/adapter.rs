//! Promises of adapted models: they start as their base, train what they name and nothing else, and merge to the same.

use std::sync::Arc;

use crate::tiny;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::config::{Gpt2Config, MixtralConfig};
use model_zoo::{
    AdaptedModule, AdapterError, AdapterSpec, BaseFormat, FrozenBase, Inputs, LlamaConfig, Model, ModelConfig,
    NoGradient, Params, ParamsError, Recompute, RopeConfig, RopeScaling,
};

const VOCAB: usize = 61;
const SHAPE: [usize; 2] = [2, 12];

fn base(tied: bool) -> (Model, Params) {
    let config = LlamaConfig {
        vocab_size: VOCAB,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
        tie_word_embeddings: tied,
        initializer_range: 0.3,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    };
    let model = Model::new(&ModelConfig::Llama(config)).unwrap();
    let params = Params::init(model.specs(), 3, &Device::flex());
    (model, params)
}

fn frozen(model: &Model, params: &Params, format: BaseFormat) -> Arc<FrozenBase> {
    let mut index = 0;
    let values = |_: &_| {
        index += 1;
        params.to_host(index - 1)
    };
    let linear = model.linear_params();
    Arc::new(FrozenBase::load::<ParamsError>(model.specs(), &linear, format, &Device::flex(), values).unwrap())
}

fn module(name: &str, rank: usize) -> AdaptedModule {
    AdaptedModule { name: name.into(), rank, scale: 1.5 }
}

fn everything(model: &Model, learns_magnitude: bool) -> AdapterSpec {
    let modules = model.adaptable_modules().iter().map(|name| module(name, 3)).collect();
    AdapterSpec { modules, learns_magnitude, whole: Vec::new() }
}

fn ints(value: impl Fn(i32) -> i32) -> Tensor<2, Int> {
    let values: Vec<i32> = (0..(SHAPE[0] * SHAPE[1]) as i32).map(value).collect();
    Tensor::from_data(TensorData::new(values, SHAPE), &Device::flex())
}

fn batch() -> (Inputs, Tensor<2, Int>) {
    let column = |i: i32| i % SHAPE[1] as i32;
    let inputs = Inputs {
        tokens: ints(|i| (i * 31 + i * i) % VOCAB as i32),
        positions: ints(|i| if column(i) < 5 { column(i) } else { column(i) - 5 }),
        segments: ints(|i| i32::from(column(i) >= 5)),
    };
    (inputs, ints(|i| if i % 7 == 0 { -1 } else { (i * 13 + 5) % VOCAB as i32 }))
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as::<f32>().unwrap()
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    host(tensor).into_iter().map(f32::to_bits).collect()
}

/// Parameters away from their beginning, so that nothing is 0.
fn disturbed(params: &Params) -> Params {
    let specs = Arc::clone(params.shared_specs());
    let values = specs.iter().enumerate().map(|(index, spec)| {
        let noise = model_zoo::init::initial_values(
            &model_zoo::ParamSpec { init: model_zoo::Init::Normal { std: 0.2 }, ..spec.clone() },
            9,
        );
        params.to_host(index).unwrap().iter().zip(noise).map(|(value, noise)| value + noise).collect()
    });
    Params::from_host(Arc::clone(&specs), values.collect(), &Device::flex()).unwrap()
}

#[test]
fn a_fresh_adapter_is_its_base() {
    let (model, params) = base(true);
    let (inputs, _) = batch();
    let expected = host(model.logits(&params, &inputs));
    let base = frozen(&model, &params, BaseFormat::F32);
    for learns_magnitude in [false, true] {
        let adapted = model.clone().with_adapter(&everything(&model, learns_magnitude), Arc::clone(&base)).unwrap();
        let fresh = adapted.initial_params(1, &Device::flex()).unwrap();
        let found = host(adapted.logits(&fresh, &inputs));
        let worst = expected.iter().zip(&found).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        // A magnitude is divided by the same length again, which rounds.
        assert!(worst <= if learns_magnitude { 2e-5 } else { 0.0 }, "{worst}");
    }
}

#[test]
fn what_is_trained_has_the_names_of_peft() {
    let (model, params) = base(false);
    let base = frozen(&model, &params, BaseFormat::F32);
    let adapter = AdapterSpec {
        modules: vec![module("model.layers.2.mlp.up_proj", 4), module("model.layers.0.self_attn.q_proj", 2)],
        learns_magnitude: true,
        whole: vec!["lm_head.weight".into()],
    };
    let adapted = model.with_adapter(&adapter, base).unwrap();
    let found: Vec<_> =
        adapted.specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone(), spec.decay)).collect();
    let name = |rest: &str| format!("base_model.model.{rest}");
    assert_eq!(
        found,
        [
            (name("model.layers.0.self_attn.q_proj.lora_A.weight"), vec![2, 32], true),
            (name("model.layers.0.self_attn.q_proj.lora_B.weight"), vec![32, 2], true),
            (name("model.layers.0.self_attn.q_proj.lora_magnitude_vector"), vec![32], false),
            (name("model.layers.2.mlp.up_proj.lora_A.weight"), vec![4, 32], true),
            (name("model.layers.2.mlp.up_proj.lora_B.weight"), vec![48, 4], true),
            (name("model.layers.2.mlp.up_proj.lora_magnitude_vector"), vec![48], false),
            (name("lm_head.weight"), vec![61, 32], true),
        ]
    );
    let first = adapted.initial_params(7, &Device::flex()).unwrap();
    let a = first.to_host(0).unwrap();
    let bound = 1.0 / 32.0_f32.sqrt();
    assert!(a.iter().all(|value| value.abs() <= bound) && a.iter().any(|value| value.abs() > 0.8 * bound));
    assert!(first.to_host(1).unwrap().iter().all(|value| *value == 0.0));
    assert_eq!(first.to_host(6).unwrap(), params.to_host(29).unwrap());
}

#[test]
fn gradients_by_blocks_are_those_of_one_pass() {
    for tied in [false, true] {
        let (model, params) = base(tied);
        let head = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let some = |layer: usize, whole: &[&str]| AdapterSpec {
            modules: vec![module(&format!("model.layers.{layer}.self_attn.v_proj"), 2)],
            learns_magnitude: false,
            whole: whole.iter().map(|name| (*name).to_owned()).collect(),
        };
        let only_head = AdapterSpec { whole: vec![head.into(), "model.norm.weight".into()], ..AdapterSpec::default() };
        let norms =
            AdapterSpec { whole: vec!["model.layers.1.input_layernorm.weight".into()], ..everything(&model, true) };
        let adapters =
            [everything(&model, false), everything(&model, true), some(2, &[]), some(1, &[head]), only_head, norms];
        for (case, adapter) in adapters.iter().enumerate() {
            for format in [BaseFormat::F32, BaseFormat::Bf16, BaseFormat::Nf4] {
                let base = frozen(&model, &params, format);
                let adapted = model.clone().with_adapter(adapter, base).unwrap();
                let start = disturbed(&adapted.initial_params(5, &Device::flex()).unwrap());
                check_gradients(&adapted, &start, &format!("tied {tied}, adapter {case}, {format:?}"));
            }
        }
    }
}

/// Every family goes through the same place where weights are read.
#[test]
fn every_family_can_be_adapted() {
    for config in families() {
        let model = Model::new(&config).unwrap();
        let params = disturbed(&Params::init(model.specs(), 3, &Device::flex()));
        for format in [BaseFormat::F32, BaseFormat::Nf4] {
            let adapted =
                model.clone().with_adapter(&everything(&model, false), frozen(&model, &params, format)).unwrap();
            let start = disturbed(&adapted.initial_params(5, &Device::flex()).unwrap());
            let case = format!("{config:?}, {format:?}");
            check_gradients(&adapted, &start, &case);
            let (inputs, _) = batch();
            let expected = host(adapted.logits(&start, &inputs));
            let merged = adapted.merged_params(&start, &Device::flex()).unwrap();
            let found = host(adapted.without_adapter().logits(&merged, &inputs));
            let (peak, worst) = expected
                .iter()
                .zip(&found)
                .fold((0.0_f32, 0.0_f32), |(peak, worst), (a, b)| (peak.max(a.abs()), worst.max((a - b).abs())));
            assert!(worst <= 1e-4 * peak, "{case}: {worst} of {peak}");
        }
    }
}

fn families() -> Vec<ModelConfig> {
    let mut all = tiny::families(VOCAB, 64, true);
    let ModelConfig::Llama(decoder) = all[0].clone() else { panic!("the first family is Llama") };
    all.push(ModelConfig::Mixtral(MixtralConfig {
        decoder,
        sliding_window: None,
        num_local_experts: 4,
        num_experts_per_tok: 2,
        router_aux_loss_coef: 0.0,
        output_router_logits: false,
    }));
    all.push(ModelConfig::Gpt2(Gpt2Config {
        vocab_size: VOCAB,
        n_positions: 64,
        n_embd: 24,
        n_layer: 2,
        n_head: 3,
        n_inner: 40,
        layer_norm_epsilon: 1e-5,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        initializer_range: 0.4,
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    }));
    all
}

fn check_gradients(model: &Model, params: &Params, case: &str) {
    let (inputs, targets) = batch();
    let tracked = params.tracked();
    let loss = model.loss_sum(&tracked, &inputs, targets.clone());
    let expected_loss = f64::from(loss.clone().inner().into_scalar::<f32>());
    let mut gradients = loss.backward();
    let expected: Vec<_> =
        tracked.tensors().iter().map(|tensor| bits(tensor.grad_remove(&mut gradients).unwrap())).collect();
    // An expert that no token has chosen has none.
    let is_some = |gradient: &Vec<u32>| gradient.iter().any(|bits| *bits << 1 != 0);
    let all = expected.iter().all(is_some) || matches!(model.config(), ModelConfig::Mixtral(_));
    assert!(all, "{case}: a gradient is 0");
    for recompute in [Recompute::Nothing, Recompute::EveryOther, Recompute::Everything] {
        let (mut found, mut order) = (vec![Vec::new(); expected.len()], Vec::new());
        let mut done = |index: usize, gradient| {
            order.push(index);
            found[index] = bits(gradient);
            Ok::<(), NoGradient>(())
        };
        let loss = model.loss_and_gradients(params, &inputs, targets.clone(), recompute, &mut done);
        assert_eq!(loss.unwrap().to_bits(), expected_loss.to_bits(), "{case}");
        assert_eq!(order, model.gradient_order(), "{case}");
        for (spec, (found, expected)) in model.specs().iter().zip(found.iter().zip(&expected)) {
            assert_eq!(found, expected, "{case}, {recompute:?}: {}", spec.name);
        }
    }
}

#[test]
fn a_merged_model_answers_as_the_adapted_one() {
    let (model, params) = base(false);
    let (inputs, _) = batch();
    for learns_magnitude in [false, true] {
        for format in [BaseFormat::F32, BaseFormat::Bf16, BaseFormat::Nf4] {
            let base = frozen(&model, &params, format);
            let adapter =
                AdapterSpec { whole: vec!["model.norm.weight".into()], ..everything(&model, learns_magnitude) };
            let adapted = model.clone().with_adapter(&adapter, base).unwrap();
            let trained = disturbed(&adapted.initial_params(5, &Device::flex()).unwrap());
            let expected = host(adapted.logits(&trained, &inputs));
            let merged = adapted.merged_params(&trained, &Device::flex()).unwrap();
            let found = host(adapted.without_adapter().logits(&merged, &inputs));
            let (peak, worst) = expected
                .iter()
                .zip(&found)
                .fold((0.0_f32, 0.0_f32), |(peak, worst), (a, b)| (peak.max(a.abs()), worst.max((a - b).abs())));
            assert!(worst <= 2e-5 * peak, "{worst} of {peak}, magnitude {learns_magnitude}, {format:?}");
        }
    }
}

#[test]
fn four_bits_take_less_than_a_third_of_bf16() {
    let (model, params) = base(true);
    let bytes = |format| frozen(&model, &params, format).num_bytes();
    let linear = model.linear_params();
    for format in [BaseFormat::F32, BaseFormat::Bf16, BaseFormat::Nf4] {
        assert_eq!(bytes(format), model_zoo::frozen::frozen_bytes(&model.specs(), &linear, format), "{format:?}");
    }
    // Here embeddings, which stay in bf16, are most of the model; of a model in use they are a few percent.
    assert!(3 * bytes(BaseFormat::Nf4) < 2 * bytes(BaseFormat::Bf16));
    let published = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "rms_norm_eps": 1e-5}"#;
    let model = Model::new(&ModelConfig::from_hub_json(published).unwrap()).unwrap();
    let of = |format| model_zoo::frozen::frozen_bytes(&model.specs(), &model.linear_params(), format);
    assert!(3 * of(BaseFormat::Nf4) < of(BaseFormat::Bf16), "{} {}", of(BaseFormat::Nf4), of(BaseFormat::Bf16));
}

#[test]
fn what_does_not_fit_is_named() {
    let (model, params) = base(true);
    let frozen = frozen(&model, &params, BaseFormat::F32);
    let refused =
        |adapter: AdapterSpec| model.clone().with_adapter(&adapter, Arc::clone(&frozen)).unwrap_err().to_string();
    let with = |modules: Vec<AdaptedModule>| AdapterSpec { modules, ..AdapterSpec::default() };
    let unknown = refused(with(vec![module("model.layers.3.mlp.up_proj", 2)]));
    assert!(unknown.starts_with("the model has no linear layer `model.layers.3.mlp.up_proj`"), "{unknown}");
    assert!(unknown.contains("`model.layers.0.self_attn.q_proj`"), "{unknown}");
    let embedding = refused(with(vec![module("model.embed_tokens", 2)]));
    assert!(embedding.contains("no linear layer `model.embed_tokens`"), "{embedding}");
    for rank in [0, 33] {
        let rank = refused(with(vec![module("model.layers.0.mlp.up_proj", rank)]));
        assert!(rank.contains("a rank of 1 to 32"), "{rank}");
    }
    assert_eq!(model.adapter_specs(&AdapterSpec::default()).unwrap_err(), AdapterError::Empty);
    let whole = refused(AdapterSpec { whole: vec!["lm_head.weight".into()], ..AdapterSpec::default() });
    assert!(whole.contains("no parameter `lm_head.weight` to train whole"), "{whole}");
    let other = base(false).0.with_adapter(&everything(&model, false), frozen).unwrap_err().to_string();
    assert!(other.contains("another model"), "{other}");
}
