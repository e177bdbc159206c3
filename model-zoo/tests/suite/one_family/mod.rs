//! What every family must keep, as functions of a configuration.

use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::generate::KvCache;
use model_zoo::{Inputs, Model, ModelConfig, NoGradient, Params, Precision, Recompute};

pub fn made(config: &ModelConfig, precision: Precision) -> (Model, Params) {
    let model = Model::new(config).unwrap().with_precision(precision);
    let params = Params::init(model.specs(), 3, &Device::flex());
    let params = shaken(&model, params);
    (model, params)
}

/// Biases and norms away from their first values, where errors in them would not show.
fn shaken(model: &Model, params: Params) -> Params {
    let values = (0..model.specs().len()).map(|index| {
        let mut values = params.to_host(index).unwrap();
        if model.specs()[index].shape.len() == 1 {
            values.iter_mut().enumerate().for_each(|(i, v)| *v += ((i * 7 + index * 5) % 11) as f32 * 0.04 - 0.2);
        }
        values
    });
    Params::from_host(model.specs(), values.collect(), &Device::flex()).unwrap()
}

pub fn ints<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

pub fn ids(count: usize, vocab: usize) -> Vec<i32> {
    (0..count).map(|i| ((i * 31 + i * i * 7 + 3) % vocab) as i32).collect()
}

/// Rows of one document each.
pub fn inputs(tokens: &[i32], rows: usize) -> Inputs {
    let seq = tokens.len() / rows;
    Inputs {
        tokens: ints(tokens.to_vec(), [rows, seq]),
        positions: ints((0..rows).flat_map(|_| 0..seq as i32).collect(), [rows, seq]),
        segments: ints(vec![0; tokens.len()], [rows, seq]),
    }
}

/// Two rows of two documents each.
pub fn packed(vocab: usize) -> (Inputs, Tensor<2, Int>) {
    const SHAPE: [usize; 2] = [2, 12];
    let all = |value: &dyn Fn(i32) -> i32| ints((0..24).map(value).collect(), SHAPE);
    let column = |i: i32| i % 12;
    let inputs = Inputs {
        tokens: ints(ids(24, vocab), SHAPE),
        positions: all(&|i| if column(i) < 5 { column(i) } else { column(i) - 5 }),
        segments: all(&|i| i32::from(column(i) >= 5)),
    };
    (inputs, all(&|i| if i % 7 == 0 { -1 } else { (i * 13 + 5) % vocab as i32 }))
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as::<f32>().unwrap()
}

pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Loss and gradients of the pass block by block.
pub fn pass(
    model: &Model,
    params: &Params,
    inputs: &Inputs,
    targets: &Tensor<2, Int>,
    recompute: Recompute,
) -> (f64, Vec<Vec<f32>>) {
    let (mut found, mut order) = (vec![Vec::new(); params.specs().len()], Vec::new());
    let mut done = |index: usize, gradient: Tensor<1>| {
        order.push(index);
        found[index] = host(gradient);
        Ok(())
    };
    let loss = model.loss_and_gradients::<NoGradient>(params, inputs, targets.clone(), recompute, &mut done).unwrap();
    assert_eq!(order, model.gradient_order());
    (loss, found)
}

/// The pass block by block has the bits of one pass through the whole model.
pub fn blocks_have_the_bits_of_one_pass(config: &ModelConfig) {
    for precision in [Precision::F32, Precision::Bf16Mixed] {
        let (model, params) = made(config, precision);
        let (inputs, targets) = packed(model.vocab_size());
        let tracked = params.tracked();
        let loss = model.loss_sum(&tracked, &inputs, targets.clone());
        let expected_loss = f64::from(loss.clone().inner().into_scalar::<f32>());
        let mut gradients = loss.backward();
        for recompute in [Recompute::Nothing, Recompute::EveryOther, Recompute::Everything] {
            let (loss, found) = pass(&model, &params, &inputs, &targets, recompute);
            assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{precision:?}, {recompute:?}");
            for (index, spec) in model.specs().iter().enumerate() {
                let expected = host(tracked.tensors()[index].grad(&gradients).unwrap());
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert!(bits(&found[index]) == bits(&expected), "{precision:?}, {recompute:?}: {}", spec.name);
            }
        }
        tracked.tensors().iter().for_each(|tensor| drop(tensor.grad_remove(&mut gradients)));
    }
}

/// Central differences of `loss` along a direction in each parameter, against `gradients`.
pub fn slopes_agree(params: &Params, gradients: &[Vec<f32>], loss: &dyn Fn(&Params) -> f64) {
    for (index, spec) in params.specs().iter().enumerate() {
        let gradient = &gradients[index];
        let direction: Vec<f32> =
            (0..gradient.len()).map(|i| if (i * 7919 + index) % 13 < 6 { 1.0 } else { -1.0 }).collect();
        let slope: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let step = 2e-3 / (gradient.len() as f32).sqrt();
        let moved = |sign: f32| {
            let mut values: Vec<Vec<f32>> = (0..params.specs().len()).map(|i| params.to_host(i).unwrap()).collect();
            values[index].iter_mut().zip(&direction).for_each(|(v, d)| *v += sign * step * d);
            loss(&Params::from_host(params.shared_specs().clone(), values, &Device::flex()).unwrap())
        };
        let measured = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(step));
        let norm: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let scale = norm * (gradient.len() as f64).sqrt() + 1e-3;
        assert!((measured - slope).abs() < 0.02 * scale, "{}: {measured} against {slope} of {scale}", spec.name);
    }
}

/// Decoding a text in pieces gives the logits of the whole.
pub fn any_cut_of_a_text_gives_the_logits_of_the_whole(config: &ModelConfig) {
    let text = ids(19, config.vocab_size());
    for (precision, tolerance) in [(Precision::F32, 3e-5), (Precision::Bf16Mixed, 6e-2)] {
        let (model, params) = made(config, precision);
        let expected = host(model.logits(&params, &inputs(&text, 1)));
        let peak = expected.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
        for cut in [vec![19], vec![1; 19], vec![7, 1, 1, 5, 5]] {
            let mut cache = KvCache::new(&model, 20, &Device::flex());
            let (mut found, mut at) = (Vec::new(), 0);
            for piece in cut {
                let tokens = ints(text[at..at + piece].to_vec(), [piece]);
                let hidden = model.decode(&params, tokens, &mut cache);
                found.extend(host(model.head(&params, hidden)));
                at += piece;
            }
            let worst = worst(&expected, &found);
            assert!(worst <= tolerance * peak, "{precision:?}: {worst} of {peak}");
        }
    }
}

/// Documents in one row get the logits that each has alone.
pub fn packed_documents_see_only_themselves(config: &ModelConfig) {
    let (model, params) = made(config, Precision::F32);
    let (all, vocab) = (ids(19, config.vocab_size()), config.vocab_size());
    let row = Inputs {
        tokens: ints(all.clone(), [1, 19]),
        positions: ints((0..8).chain(0..11).collect(), [1, 19]),
        segments: ints((0..19).map(|i| i32::from(i >= 8)).collect(), [1, 19]),
    };
    let together = host(model.logits(&params, &row));
    let alone: Vec<f32> =
        [&all[..8], &all[8..]].into_iter().flat_map(|d| host(model.logits(&params, &inputs(d, 1)))).collect();
    assert!(worst(&together, &alone) < 1e-4, "{}", worst(&together, &alone));
    let mixed = host(model.logits(&params, &inputs(&all, 1)));
    assert!(worst(&together[8 * vocab..], &mixed[8 * vocab..]) > 0.01, "segments have no effect");
}
