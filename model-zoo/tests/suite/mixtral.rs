//! What a Mixtral's forward and backward pass must keep, whatever kernels compute it.

use crate::one_family::{self, host, ids, inputs, made, packed, pass, slopes_agree, worst};
use burn::tensor::Device;
use model_zoo::config::{DecoderConfig, MixtralConfig};
use model_zoo::{Model, ModelConfig, Params, Precision, Recompute, RopeConfig, RopeScaling};

const VOCAB: usize = 41;
const EXPERTS: usize = 5;
const HIDDEN: usize = 24;

fn config() -> MixtralConfig {
    MixtralConfig {
        decoder: DecoderConfig {
            vocab_size: VOCAB,
            hidden_size: HIDDEN,
            intermediate_size: 20,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
            tie_word_embeddings: false,
            initializer_range: 0.3,
            bos_token_id: None,
            eos_token_ids: vec![],
            pad_token_id: None,
        },
        sliding_window: None,
        num_local_experts: EXPERTS,
        num_experts_per_tok: 2,
        router_aux_loss_coef: 0.02,
        output_router_logits: false,
    }
}

fn windowed() -> ModelConfig {
    ModelConfig::Mixtral(MixtralConfig { sliding_window: Some(4), num_experts_per_tok: 3, ..config() })
}

fn index_of(model: &Model, name: &str) -> usize {
    model.specs().iter().position(|spec| spec.name == name).unwrap()
}

#[test]
fn gradients_have_the_bits_of_one_pass() {
    one_family::blocks_have_the_bits_of_one_pass(&ModelConfig::Mixtral(config()));
    one_family::blocks_have_the_bits_of_one_pass(&windowed());
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let (model, params) = made(&ModelConfig::Mixtral(config()), Precision::F32);
    let (inputs, targets) = packed(VOCAB);
    let (_, gradients) = pass(&model, &params, &inputs, &targets, Recompute::Nothing);
    slopes_agree(&params, &gradients, &|moved| f64::from(host(model.loss_sum(moved, &inputs, targets.clone()))[0]));
}

#[test]
fn any_cut_of_a_text_gives_the_logits_of_the_whole() {
    one_family::any_cut_of_a_text_gives_the_logits_of_the_whole(&ModelConfig::Mixtral(config()));
    one_family::any_cut_of_a_text_gives_the_logits_of_the_whole(&windowed());
}

#[test]
fn packed_documents_see_only_themselves() {
    one_family::packed_documents_see_only_themselves(&ModelConfig::Mixtral(config()));
}

/// The mixture in plain `f64`, every expert for every token.
#[test]
fn the_mixture_is_that_of_all_experts_weighted() {
    let mut one_block = config();
    one_block.decoder.num_hidden_layers = 1;
    let (model, params) = made(&ModelConfig::Mixtral(one_block.clone()), Precision::F32);
    let weights = |name: &str| -> Vec<f64> {
        let index = index_of(&model, &format!("model.layers.0.{name}.weight"));
        params.to_host(index).unwrap().into_iter().map(f64::from).collect()
    };
    // A block whose attention gives nothing: what is left is the mixture of the normalised embedding.
    let values = (0..model.specs().len()).map(|index| {
        let mut values = params.to_host(index).unwrap();
        if model.specs()[index].name.ends_with("o_proj.weight") {
            values.iter_mut().for_each(|value| *value = 0.0);
        }
        values
    });
    let silent = Params::from_host(model.specs(), values.collect(), &Device::flex()).unwrap();
    let tokens = ids(15, VOCAB);
    // The state after the only block, before the last norm, from the one that follows it.
    let embedding: Vec<f64> = silent.to_host(0).unwrap().into_iter().map(f64::from).collect();
    let last: Vec<f64> =
        silent.to_host(index_of(&model, "model.norm.weight")).unwrap().into_iter().map(f64::from).collect();
    let found = host(model.hidden(&silent, &inputs(&tokens, 1)));
    let rms = |x: &[f64], gamma: &[f64]| -> Vec<f64> {
        let inverse = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
        x.iter().zip(gamma).map(|(x, g)| x * inverse * g).collect()
    };
    let through = |w: &[f64], x: &[f64]| -> Vec<f64> {
        w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    for (token, found) in tokens.iter().zip(found.chunks(HIDDEN)) {
        let stream = embedding[*token as usize * HIDDEN..][..HIDDEN].to_vec();
        let x = rms(&stream, &weights("post_attention_layernorm"));
        let scores: Vec<f64> = through(&weights("block_sparse_moe.gate"), &x).iter().map(|s| s.exp()).collect();
        let mut best = scores.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        let sum = best[0] + best[1];
        let mut expected = stream;
        for (expert, score) in scores.iter().enumerate().filter(|(_, score)| **score >= best[1]) {
            let part = |name: &str| weights(&format!("block_sparse_moe.experts.{expert}.{name}"));
            let gate = through(&part("w1"), &x);
            let up = through(&part("w3"), &x);
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let out = through(&part("w2"), &inner);
            expected.iter_mut().zip(&out).for_each(|(e, o)| *e += score / sum * o);
        }
        let expected = rms(&expected, &last);
        let apart = found.iter().zip(&expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-5, "token {token}: {apart}");
    }
}

/// Experts that no token chose: their gradient is there, and 0.
#[test]
fn idle_experts_have_a_gradient_of_zero() {
    for precision in [Precision::F32, Precision::Bf16Mixed] {
        let (model, params) = made(&ModelConfig::Mixtral(config()), precision);
        // One token that chooses two experts of five in every block.
        let targets = one_family::ints(vec![3], [1, 1]);
        let (_, gradients) = pass(&model, &params, &inputs(&[7], 1), &targets, Recompute::Nothing);
        for layer in 0..3 {
            let of = |expert: usize, part: &str| {
                let name = format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight");
                let (gradient, size) =
                    (&gradients[index_of(&model, &name)], model.specs()[index_of(&model, &name)].num_elements());
                assert_eq!(gradient.len(), size, "{name}");
                gradient.iter().any(|value| *value != 0.0)
            };
            let busy =
                (0..EXPERTS).filter(|expert| ["w1", "w2", "w3"].map(|part| of(*expert, part)) == [true; 3]).count();
            let idle =
                (0..EXPERTS).filter(|expert| ["w1", "w2", "w3"].map(|part| of(*expert, part)) == [false; 3]).count();
            assert_eq!((busy, idle), (2, EXPERTS - 2), "layer {layer}");
        }
    }
}

#[test]
fn the_balance_loss_lies_between_even_and_one_sided() {
    let (model, params) = made(&ModelConfig::Mixtral(config()), Precision::F32);
    let (inputs, _) = packed(VOCAB);
    let value = f64::from(host(model.balance_loss(&params, &inputs).unwrap())[0]);
    // Two experts for each token: about 2 where all are equally busy, 5 where two do everything.
    assert!(value > 1.9 && value < EXPERTS as f64, "{value}");
}

#[test]
fn the_balance_loss_is_trained_where_it_is_asked_for_and_not_reported() {
    let (inputs, targets) = packed(VOCAB);
    let valid = targets.clone().greater_equal_elem(0).int().sum().into_scalar::<i64>() as f64;
    let (plain, params) = made(&ModelConfig::Mixtral(config()), Precision::F32);
    let (loss, without) = pass(&plain, &params, &inputs, &targets, Recompute::Nothing);
    for coefficient in [0.5, 4.0] {
        let model = Model::new(&ModelConfig::Mixtral(config())).unwrap().with_router_aux_loss_coef(coefficient);
        let (same, gradients) = pass(&model, &params, &inputs, &targets, Recompute::Nothing);
        assert_eq!(loss, same, "the reported loss is the cross-entropy alone");
        assert!(
            gradients == pass(&model, &params, &inputs, &targets, Recompute::Everything).1,
            "recomputing changes bits"
        );
        slopes_agree(&params, &gradients, &|moved| {
            let balance = f64::from(host(model.balance_loss(moved, &inputs).unwrap())[0]);
            f64::from(host(model.loss_sum(moved, &inputs, targets.clone()))[0]) + coefficient * valid * balance
        });
        let router = index_of(&model, "model.layers.1.block_sparse_moe.gate.weight");
        assert!(worst(&gradients[router], &without[router]) > 1e-3, "the loss has no effect");
    }
    let asked =
        ModelConfig::Mixtral(MixtralConfig { output_router_logits: true, router_aux_loss_coef: 0.5, ..config() });
    let asked = Model::new(&asked).unwrap();
    let told = Model::new(&ModelConfig::Mixtral(config())).unwrap().with_router_aux_loss_coef(0.5);
    let of = |model: &Model| pass(model, &params, &inputs, &targets, Recompute::Nothing).1;
    assert!(of(&asked) == of(&told));
}

#[test]
fn a_window_hides_what_lies_before_it() {
    let logits = |window| {
        let config = ModelConfig::Mixtral(MixtralConfig { sliding_window: window, ..config() });
        let (model, params) = made(&config, Precision::F32);
        host(model.logits(&params, &inputs(&ids(12, VOCAB), 1)))
    };
    let (all, some) = (logits(None), logits(Some(4)));
    // Later tokens go to other experts, whose products may then be cut in another way.
    assert!(worst(&all[..4 * VOCAB], &some[..4 * VOCAB]) < 1e-5);
    assert!(worst(&all[4 * VOCAB..], &some[4 * VOCAB..]) > 1e-3);
}
