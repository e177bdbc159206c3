//! Decoding token by token must be the same as computing everything at once.

use std::ops::ControlFlow;

use crate::tiny::families;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model_zoo::generate::{Finish, GenerateError, GenerateOptions, KvCache, Sampling, generate};
use model_zoo::{Inputs, LlamaConfig, Model, ModelConfig, Params, Precision, RopeConfig, RopeScaling};

const VOCAB: usize = 41;
const CONTEXT: usize = 40;

fn model(precision: Precision) -> (Model, Params) {
    let config = ModelConfig::Llama(LlamaConfig {
        vocab_size: VOCAB,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 3,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: CONTEXT,
        rms_norm_eps: 1e-5,
        rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
        tie_word_embeddings: true,
        initializer_range: 0.4,
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
    });
    let model = Model::new(&config).unwrap().with_precision(precision);
    let params = Params::init(model.specs(), 3, &Device::flex());
    (model, params)
}

fn tokens(ids: &[u32]) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    Tensor::from_data(TensorData::new(ids.clone(), [ids.len()]), &Device::flex())
}

/// Logits of every position, computed at once.
fn full(model: &Model, params: &Params, ids: &[u32]) -> Vec<f32> {
    let count = ids.len();
    let inputs = Inputs {
        tokens: tokens(ids).reshape([1, count]),
        positions: Tensor::arange(0..count as i64, &Device::flex()).reshape([1, count]),
        segments: Tensor::zeros([1, count], &Device::flex()),
    };
    model.logits(params, &inputs).try_into_vec_as::<f32>().unwrap()
}

fn greedy(max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens, sampling: Sampling::GREEDY, seed: 0, eos: vec![] }
}

fn go_on(_: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn any_cut_of_a_text_gives_the_logits_of_the_whole() {
    let text: Vec<u32> = (0..23).map(|i| (i * i * 5 + 3 * i + 1) % VOCAB as u32).collect();
    let cases = families(VOCAB, CONTEXT, true).into_iter();
    let cases = cases.flat_map(|config| {
        [(Precision::F32, 2e-5), (Precision::Bf16Mixed, 4e-2)]
            .map(|(precision, apart)| (config.clone(), precision, apart))
    });
    for (config, precision, tolerance) in cases {
        let model = Model::new(&config).unwrap().with_precision(precision);
        let params = Params::init(model.specs(), 3, &Device::flex());
        let expected = full(&model, &params, &text);
        let peak = expected.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
        for cut in [vec![23], vec![1; 23], vec![7, 1, 1, 5, 9], vec![20, 3]] {
            let mut cache = KvCache::new(&model, 30, &Device::flex());
            let mut found = Vec::new();
            let mut at = 0;
            for piece in cut {
                let hidden = model.decode(&params, tokens(&text[at..at + piece]), &mut cache);
                found.extend(model.head(&params, hidden).try_into_vec_as::<f32>().unwrap());
                at += piece;
                assert_eq!(cache.len(), at);
            }
            let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance * peak, "{config:?}, {precision:?}: {worst} of {peak}");
        }
    }
}

#[test]
fn greedy_generation_is_the_argmax_of_the_full_pass() {
    for config in families(VOCAB, CONTEXT, true) {
        let model = Model::new(&config).unwrap();
        let params = Params::init(model.specs(), 3, &Device::flex());
        let mut text = vec![5, 9, 2];
        let found = generate(&model, &params, &text, &greedy(20), &mut go_on).unwrap();
        for id in &found.tokens {
            let logits = full(&model, &params, &text);
            let last = &logits[logits.len() - VOCAB..];
            let best = (0..VOCAB).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
            assert_eq!(*id as usize, best, "{config:?} after {} tokens", text.len());
            text.push(*id);
        }
        assert_eq!((found.tokens.len(), found.finish), (20, Finish::Length));
    }
}

#[test]
fn generation_stops_where_it_is_told() {
    let (model, params) = model(Precision::F32);
    let free = generate(&model, &params, &[5, 9, 2], &greedy(10), &mut go_on).unwrap().tokens;
    let end = free[3];
    let first_end = free.iter().position(|id| *id == end).unwrap();
    let stopped = generate(&model, &params, &[5, 9, 2], &GenerateOptions { eos: vec![end], ..greedy(10) }, &mut go_on);
    let stopped = stopped.unwrap();
    assert_eq!((stopped.tokens, stopped.finish), (free[..=first_end].to_vec(), Finish::Eos(end)));

    let mut seen = 0;
    let mut two = |_: u32| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let interrupted = generate(&model, &params, &[5, 9, 2], &greedy(10), &mut two).unwrap();
    assert_eq!((interrupted.tokens, interrupted.finish), (free[..2].to_vec(), Finish::Stopped));

    let long = generate(&model, &params, &[1; 30], &greedy(1000), &mut go_on).unwrap();
    // The token after the last position that fits is still computed from a full context.
    assert_eq!((long.tokens.len(), long.finish), (CONTEXT - 30 + 1, Finish::Context));
}

#[test]
fn sampling_is_a_function_of_the_seed() {
    let (model, params) = model(Precision::F32);
    let with = |seed| {
        let sampling = Sampling { temperature: 1.5, top_k: 0, top_p: 0.95 };
        let options = GenerateOptions { max_new_tokens: 25, sampling, seed, eos: vec![] };
        generate(&model, &params, &[7], &options, &mut go_on).unwrap().tokens
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (model, params) = model(Precision::F32);
    let refuse =
        |prompt: &[u32], options: GenerateOptions| generate(&model, &params, prompt, &options, &mut go_on).unwrap_err();
    assert_eq!(refuse(&[], greedy(1)), GenerateError::EmptyPrompt);
    assert_eq!(refuse(&[41], greedy(1)), GenerateError::Token { id: 41, vocab_size: VOCAB });
    assert_eq!(refuse(&[0; 41], greedy(1)), GenerateError::LongPrompt { tokens: 41, context: CONTEXT });
    let hot = Sampling { temperature: -1.0, ..Sampling::GREEDY };
    let message = refuse(&[0], GenerateOptions { sampling: hot, ..greedy(1) }).to_string();
    assert_eq!(message, "temperature is -1; choose 0 or more");
    let none = Sampling { top_p: 0.0, ..Sampling::GREEDY };
    let message = refuse(&[0], GenerateOptions { sampling: none, ..greedy(1) }).to_string();
    assert_eq!(message, "top_p is 0; choose a number in (0, 1]");
}
