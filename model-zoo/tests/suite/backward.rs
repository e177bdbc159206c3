//! Promise: the pass block by block gives the bits of one backward pass through the whole model, in the order it names.

use crate::tiny::families;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::init::initial_values;
use model_zoo::{Init, Inputs, Model, ModelConfig, NoGradient, ParamSpec, Params, Precision, Recompute};

const VOCAB: usize = 61;
const SHAPE: [usize; 2] = [2, 12];

fn model(config: &ModelConfig, precision: Precision) -> (Model, Params) {
    let model = Model::new(config).unwrap().with_precision(precision);
    // Drawn, so that no norm and no bias is where a fresh one stands.
    let drawn: Vec<ParamSpec> =
        model.specs().iter().map(|spec| ParamSpec { init: Init::Normal { std: 0.3 }, ..spec.clone() }).collect();
    let values = drawn.iter().map(|spec| initial_values(spec, 3)).collect();
    let params = Params::from_host(model.specs(), values, &Device::flex()).unwrap();
    (model, params)
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

fn bits(tensor: Tensor<1>) -> Vec<u32> {
    tensor.inner().try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn gradients_have_the_bits_of_one_pass_and_come_in_order() {
    let cases = [false, true].into_iter().flat_map(|tied| families(VOCAB, 64, tied));
    let cases =
        cases.flat_map(|config| [Precision::F32, Precision::Bf16Mixed].map(|precision| (config.clone(), precision)));
    for (config, precision) in cases {
        let (model, params) = model(&config, precision);
        let (inputs, targets) = batch();
        let tracked = params.tracked();
        let loss = model.loss_sum(&tracked, &inputs, targets.clone());
        let expected_loss = f64::from(loss.clone().inner().into_scalar::<f32>());
        let mut gradients = loss.backward();
        let expected: Vec<_> =
            tracked.tensors().iter().map(|tensor| bits(tensor.grad_remove(&mut gradients).unwrap())).collect();
        for recompute in [Recompute::Nothing, Recompute::EveryOther, Recompute::Everything] {
            let (mut found, mut order) = (vec![Vec::new(); expected.len()], Vec::new());
            let loss = model.loss_and_gradients::<NoGradient>(
                &params,
                &inputs,
                targets.clone(),
                recompute,
                &mut |index, gradient| {
                    order.push(index);
                    found[index] = bits(gradient);
                    Ok(())
                },
            );
            let case = format!("{config:?}, {precision:?}, {recompute:?}");
            assert_eq!(loss.unwrap().to_bits(), expected_loss.to_bits(), "{case}");
            assert_eq!(order, model.gradient_order(), "{case}");
            for (spec, (found, expected)) in model.specs().iter().zip(found.iter().zip(&expected)) {
                assert_eq!(found, expected, "{case}: {}", spec.name);
            }
        }
    }
}

#[test]
fn the_order_ends_with_the_embedding_and_names_every_parameter_once() {
    for config in [false, true].into_iter().flat_map(|tied| families(VOCAB, 64, tied)) {
        let (model, _) = model(&config, Precision::F32);
        let count = model.specs().len();
        let is_head = |index: usize| !model.specs()[index].name.contains("layers.") && index > 0;
        let mut order = model.gradient_order();
        assert_eq!(order.last(), Some(&0), "the embedding is complete last");
        let heads = order.iter().take_while(|index| is_head(**index)).count();
        assert_eq!(heads, if model.config().tied_head() { 1 } else { 2 }, "final norm and head come first: {order:?}");
        order.sort_unstable();
        assert_eq!(order, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn a_receiver_that_fails_ends_the_pass() {
    #[derive(Debug, PartialEq)]
    struct Stop(usize);
    impl From<NoGradient> for Stop {
        fn from(_: NoGradient) -> Self {
            unreachable!("every parameter has a gradient")
        }
    }
    let (model, params) = model(&families(VOCAB, 64, false)[0], Precision::F32);
    let (inputs, targets) = batch();
    let mut calls = 0;
    let result = model.loss_and_gradients(&params, &inputs, targets, Recompute::Nothing, &mut |index, _| {
        calls += 1;
        if calls == 4 { Err(Stop(index)) } else { Ok(()) }
    });
    assert_eq!(result, Err(Stop(model.gradient_order()[3])));
    assert_eq!(calls, 4);
}

/// Everything before `cut` of each row, or everything from there on.
fn half(targets: &Tensor<2, Int>, cut: usize, first: bool) -> Tensor<2, Int> {
    let values = targets.clone().try_into_vec_as::<i64>().unwrap();
    let kept = values.iter().enumerate().map(|(at, &id)| if (at % SHAPE[1] < cut) == first { id as i32 } else { -1 });
    Tensor::from_data(TensorData::new(kept.collect::<Vec<i32>>(), SHAPE), &Device::flex())
}

#[test]
fn weighed_parts_have_the_gradient_of_the_weighed_sum() {
    for tied in [false, true] {
        let (model, params) = model(&families(VOCAB, 64, tied)[0], Precision::F32);
        let (inputs, targets) = batch();
        let parts = || vec![half(&targets, 5, true), half(&targets, 5, false)];
        let losses = model.part_losses(&params, &inputs, parts());
        let tracked = params.tracked();
        let [first, second] = parts().try_into().unwrap();
        let sum = model.loss_sum(&tracked, &inputs, first).mul_scalar(0.25)
            - model.loss_sum(&tracked, &inputs, second).mul_scalar(1.5);
        let mut expected = sum.backward();
        let mut seen = Vec::new();
        let mut weigh = |found: &[f64]| {
            assert_eq!(found, losses, "the same bits");
            model_zoo::Weighed { loss: 7.0, weights: vec![0.25, -1.5] }
        };
        let mut done = |index: usize, gradient: Tensor<1>| {
            let expected = tracked.tensors()[index].grad_remove(&mut expected).unwrap();
            let difference = (expected - gradient.clone()).abs().max().into_scalar::<f32>();
            let largest = gradient.abs().max().into_scalar::<f32>();
            assert!(difference <= 2e-6 + 1e-5 * largest, "parameter {index}: {difference} of {largest}");
            seen.push(index);
            Ok::<(), NoGradient>(())
        };
        let parts = model_zoo::Parts { targets: parts(), weigh: &mut weigh };
        let loss = model.weighed_loss_and_gradients(&params, &inputs, parts, Recompute::Everything, &mut done).unwrap();
        assert_eq!((loss, seen), (7.0, model.gradient_order()));
    }
}
