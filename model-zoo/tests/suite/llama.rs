//! What a Llama's forward and backward pass must keep, whatever kernels compute it.

use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::{Inputs, LlamaConfig, Model, ModelConfig, Params, Precision, RopeConfig, RopeScaling};

const VOCAB: usize = 53;

fn config(tied: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: VOCAB,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
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
    })
}

fn model(tied: bool) -> (Model, Params) {
    let model = Model::new(&config(tied)).unwrap();
    let params = Params::init(model.specs(), 7, &Device::flex());
    (model, params)
}

fn ints(values: Vec<i32>, shape: [usize; 2]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Rows of one document each.
fn inputs(tokens: &[i32], rows: usize) -> Inputs {
    let seq = tokens.len() / rows;
    Inputs {
        tokens: ints(tokens.to_vec(), [rows, seq]),
        positions: ints((0..rows).flat_map(|_| 0..seq as i32).collect(), [rows, seq]),
        segments: ints(vec![0; tokens.len()], [rows, seq]),
    }
}

fn ids(count: i32, seed: i32) -> Vec<i32> {
    (0..count).map(|i| (i * 31 + seed * 17 + i * i) % VOCAB as i32).collect()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as::<f32>().unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn packed_documents_see_only_themselves() {
    let (model, params) = model(false);
    let (first, second) = (ids(9, 1), ids(14, 2));
    let row: Vec<i32> = first.iter().chain(&second).copied().collect();
    let packed = Inputs {
        tokens: ints(row.clone(), [1, 23]),
        positions: ints((0..9).chain(0..14).collect(), [1, 23]),
        segments: ints((0..23).map(|i| i32::from(i >= 9)).collect(), [1, 23]),
    };
    let together = host(model.logits(&params, &packed));
    let alone: Vec<f32> = [first, second].iter().flat_map(|d| host(model.logits(&params, &inputs(d, 1)))).collect();
    assert!(worst(&together, &alone) < 1e-4, "{}", worst(&together, &alone));
    let mixed = host(model.logits(&params, &inputs(&row, 1)));
    assert!(worst(&together, &mixed) > 0.1, "segments have no effect");
}

#[test]
fn later_tokens_do_not_change_earlier_logits() {
    let (model, params) = model(false);
    let (mut a, cut) = (ids(16, 3), 10 * VOCAB);
    let before = host(model.logits(&params, &inputs(&a, 1)));
    a[10..].iter_mut().for_each(|id| *id = (*id + 5) % VOCAB as i32);
    let after = host(model.logits(&params, &inputs(&a, 1)));
    assert_eq!(before[..cut], after[..cut]);
    assert!(worst(&before[cut..], &after[cut..]) > 0.1);
}

#[test]
fn rows_of_a_batch_do_not_touch_each_other() {
    let (model, params) = model(true);
    let tokens = ids(24, 4);
    let both = host(model.logits(&params, &inputs(&tokens, 2)));
    let alone: Vec<f32> = tokens.chunks(12).flat_map(|row| host(model.logits(&params, &inputs(row, 1)))).collect();
    assert!(worst(&both, &alone) < 1e-4);
}

#[test]
fn the_loss_is_the_sum_of_token_losses_and_ignores_negative_targets() {
    let (model, params) = model(false);
    let inputs = inputs(&ids(300, 5), 2);
    let mut targets = ids(300, 6);
    targets.iter_mut().step_by(3).for_each(|target| *target = -1);
    let targets = ints(targets.clone(), [2, 150]);
    let tokens = host(model.token_losses(&params, &inputs, targets.clone()));
    assert!(tokens.iter().step_by(3).all(|loss| *loss == 0.0));
    assert!(tokens.iter().skip(1).step_by(3).all(|loss| *loss > 0.0));
    let sum: f64 = tokens.iter().map(|loss| f64::from(*loss)).sum();
    let fused = f64::from(host(model.loss_sum(&params, &inputs, targets))[0]);
    assert!((sum / fused - 1.0).abs() < 1e-5, "{sum} and {fused}");
}

#[test]
fn hidden_states_end_with_the_hidden_states() {
    let (model, params) = model(false);
    let inputs = inputs(&ids(10, 8), 1);
    let states = model.hidden_states(&params, &inputs);
    assert_eq!(states.len(), 3);
    assert_eq!(host(states[2].clone()), host(model.hidden(&params, &inputs)));
    let head = model.head(&params, states[2].clone());
    assert_eq!(host(head), host(model.logits(&params, &inputs)));
}

/// Central differences along a random direction in each parameter, against the backward pass.
#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for tied in [false, true] {
        let (model, params) = model(tied);
        let inputs = inputs(&ids(20, 9), 2);
        let targets = ints(ids(20, 10), [2, 10]);
        let tracked = params.tracked();
        let mut gradients = model.loss_sum(&tracked, &inputs, targets.clone()).backward();
        for (index, spec) in model.specs().iter().enumerate() {
            let gradient = host(tracked.tensors()[index].grad_remove(&mut gradients).unwrap());
            let direction: Vec<f32> =
                (0..gradient.len()).map(|i| if (i * 7919 + index) % 13 < 6 { 1.0 } else { -1.0 }).collect();
            let slope: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let step = 1e-3 / (gradient.len() as f32).sqrt() * 4.0;
            let moved = |sign: f32| {
                let mut values: Vec<Vec<f32>> = (0..model.specs().len()).map(|i| params.to_host(i).unwrap()).collect();
                values[index].iter_mut().zip(&direction).for_each(|(v, d)| *v += sign * step * d);
                let params = Params::from_host(model.specs(), values, &Device::flex()).unwrap();
                f64::from(host(model.loss_sum(&params, &inputs, targets.clone()))[0])
            };
            let measured = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
            let norm: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let scale = norm * (gradient.len() as f64).sqrt();
            assert!((measured - slope).abs() < 0.02 * scale, "{}: {measured} against {slope}", spec.name);
        }
    }
}

#[test]
fn bf16_is_close_to_f32_and_keeps_gradients_in_f32() {
    let (exact, params) = model(false);
    let mixed = Model::new(&config(false)).unwrap().with_precision(Precision::Bf16Mixed);
    let inputs = inputs(&ids(24, 11), 2);
    let targets = ints(ids(24, 12), [2, 12]);
    let (a, b) = (host(exact.logits(&params, &inputs)), host(mixed.logits(&params, &inputs)));
    let peak = a.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
    assert!(worst(&a, &b) < 0.05 * peak, "{} of {peak}", worst(&a, &b));
    assert!(worst(&a, &b) > 0.0, "the precision has no effect");
    let tracked = params.tracked();
    let mut gradients = mixed.loss_sum(&tracked, &inputs, targets.clone()).backward();
    let exactly = params.tracked();
    let mut exact_gradients = exact.loss_sum(&exactly, &inputs, targets).backward();
    for (index, spec) in exact.specs().iter().enumerate() {
        let gradient = tracked.tensors()[index].grad_remove(&mut gradients).unwrap();
        assert_eq!(gradient.dtype(), burn::tensor::DType::F32, "{}", spec.name);
        let (found, expected) =
            (host(gradient), host(exactly.tensors()[index].grad_remove(&mut exact_gradients).unwrap()));
        let apart: f32 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let size: f32 = expected.iter().map(|b| b.powi(2)).sum::<f32>().sqrt();
        assert!(apart < 0.1 * size, "{}: {apart} of {size}", spec.name);
    }
}

#[test]
fn a_seed_gives_the_same_model_whatever_is_made_around_it() {
    let (model, params) = model(false);
    let tied = Model::new(&config(true)).unwrap();
    let other = Params::init(tied.specs(), 7, &Device::flex());
    for (index, spec) in tied.specs().iter().enumerate() {
        assert_eq!(params.to_host(index).unwrap(), other.to_host(index).unwrap(), "{}", spec.name);
    }
    let different = Params::init(model.specs(), 8, &Device::flex());
    assert_ne!(params.to_host(0).unwrap(), different.to_host(0).unwrap());
}
