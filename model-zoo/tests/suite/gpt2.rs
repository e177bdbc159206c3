//! What a GPT-2's forward and backward pass must keep, whatever kernels compute it.

use crate::one_family::{self, host, ids, inputs, made, packed, pass, slopes_agree, worst};
use burn::tensor::Device;
use model_zoo::config::Gpt2Config;
use model_zoo::{Model, ModelConfig, Params, Precision, Recompute};

const VOCAB: usize = 41;

fn config(tied: bool) -> Gpt2Config {
    Gpt2Config {
        vocab_size: VOCAB,
        n_positions: 20,
        n_embd: 24,
        n_layer: 3,
        n_head: 3,
        n_inner: 40,
        layer_norm_epsilon: 1e-5,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        tie_word_embeddings: tied,
        initializer_range: 0.3,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    }
}

#[test]
fn gradients_have_the_bits_of_one_pass() {
    for tied in [false, true] {
        one_family::blocks_have_the_bits_of_one_pass(&ModelConfig::Gpt2(config(tied)));
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for tied in [false, true] {
        let (model, params) = made(&ModelConfig::Gpt2(config(tied)), Precision::F32);
        let (inputs, targets) = packed(VOCAB);
        let (_, gradients) = pass(&model, &params, &inputs, &targets, Recompute::Nothing);
        slopes_agree(&params, &gradients, &|moved| f64::from(host(model.loss_sum(moved, &inputs, targets.clone()))[0]));
    }
}

/// A key's bias adds the same to all scores of a query, which the softmax does not see.
#[test]
fn key_biases_have_no_gradient_but_noise() {
    let (model, params) = made(&ModelConfig::Gpt2(config(true)), Precision::F32);
    let (inputs, targets) = packed(VOCAB);
    let (_, gradients) = pass(&model, &params, &inputs, &targets, Recompute::Nothing);
    let index = model.specs().iter().position(|spec| spec.name == "transformer.h.1.attn.c_attn.bias").unwrap();
    let size = |part: &[f32]| part.iter().map(|g| g.abs()).fold(0.0, f32::max);
    let bias = &gradients[index];
    assert!(size(&bias[24..48]) < 1e-4 * size(bias), "{:?}", &bias[24..48]);
    assert!(size(&bias[..24]) > 1e-3 * size(bias));
}

#[test]
fn any_cut_of_a_text_gives_the_logits_of_the_whole() {
    one_family::any_cut_of_a_text_gives_the_logits_of_the_whole(&ModelConfig::Gpt2(config(true)));
}

#[test]
fn packed_documents_see_only_themselves() {
    one_family::packed_documents_see_only_themselves(&ModelConfig::Gpt2(config(true)));
}

#[test]
fn positions_are_counted_and_end() {
    let (model, _) = made(&ModelConfig::Gpt2(config(true)), Precision::F32);
    assert_eq!(model.position_limit(), Some(20));
    let spec = model.specs()[1].clone();
    assert_eq!((spec.name.as_str(), spec.shape), ("transformer.wpe.weight", vec![20, 24]));
}

#[test]
fn scores_are_scaled_as_the_configuration_says() {
    let logits = |change: fn(&mut Gpt2Config)| {
        let mut config = config(true);
        change(&mut config);
        let (model, params) = made(&ModelConfig::Gpt2(config), Precision::F32);
        host(model.logits(&params, &inputs(&ids(9, VOCAB), 1)))
    };
    let plain = logits(|_| ());
    assert!(worst(&plain, &logits(|c| c.scale_attn_weights = false)) > 1e-3);
    assert!(worst(&plain, &logits(|c| c.scale_attn_by_inverse_layer_idx = true)) > 1e-3);
}

#[test]
fn biases_begin_with_zero_and_norms_with_one() {
    let model = Model::new(&ModelConfig::Gpt2(config(true))).unwrap();
    let params = Params::init(model.specs(), 1, &Device::flex());
    for (index, spec) in model.specs().iter().enumerate() {
        let values = params.to_host(index).unwrap();
        if spec.name.ends_with(".bias") {
            assert!(values.iter().all(|value| *value == 0.0), "{}", spec.name);
        } else if spec.shape.len() == 1 {
            assert!(values.iter().all(|value| *value == 1.0), "{}", spec.name);
        }
        assert_eq!(spec.decay, spec.shape.len() == 2, "{}", spec.name);
    }
}
