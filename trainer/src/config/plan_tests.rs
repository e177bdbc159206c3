//! Tests of resolving: defaults, rules that span keys, the digest, and the pure functions of the step.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use model_zoo::size::count_parameters;

use super::super::presets;
use super::super::resolve::{BaseFacts, ComponentFacts, DatasetFacts, resolve};
use super::super::yaml;
use super::*;
use crate::config::raw::RawConfig;

pub(crate) const GOOD: &str = "\
config_version: 1
output_dir: runs/x
model: {size: 3m}
datasets: [{path: data/sample}]
sequence_len: 128
global_batch_size: 32 seq
max_steps: 200
learning_rate: 1e-3
";

pub(crate) fn facts() -> DatasetFacts {
    let part = |lang: &str, source: &str, rows: u64| ComponentFacts {
        lang: lang.into(),
        source: source.into(),
        tokens: rows * 128,
        rows,
    };
    DatasetFacts {
        id: "d1".into(),
        vocab_size: 4096,
        bos: Some(0),
        eos: Some(1),
        pad: Some(2),
        train: vec![
            part("ary_Arab", "doda-mit", 3000),
            part("ary_Latn", "doda-mit", 2000),
            part("zgh_Tfng", "cldr", 40),
        ],
        validation: vec![part("ary_Arab", "doda-mit", 30), part("zgh_Tfng", "cldr", 2)],
        bytes: 1_000_000,
        chat: None,
        parts: Vec::new(),
        best_fit: None,
    }
}

pub(crate) fn plan_of(text: &str, set: &[&str]) -> Result<Plan, ConfigError> {
    let set: Vec<String> = set.iter().map(|text| (*text).to_string()).collect();
    let (raw, _) = yaml::parse::<RawConfig>(Path::new("x.yaml"), text, &set)?;
    resolve(raw, &facts(), None)
}

fn plan(set: &[&str]) -> Plan {
    plan_of(GOOD, set).unwrap()
}

#[track_caller]
fn refused(set: &[&str], word: &str) {
    let error = plan_of(GOOD, set).unwrap_err();
    assert!(error.to_string().contains(word) && !error.hint().is_empty(), "{set:?}: {error}");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let plan = plan(&[]);
    assert_eq!(plan.micro_batch_rows, 32, "32 rows of 128 tokens are one micro-batch");
    assert_eq!((plan.eval_steps, plan.save_steps, plan.logging_steps, plan.save_total_limit), (20, 20, 10, 3));
    assert_eq!(plan.schedule, Schedule::Cosine { peak: 1e-3, min: 1e-4, warmup_steps: 2, total_steps: 200 });
    assert_eq!((plan.adamw.beta1, plan.adamw.beta2, plan.adamw.eps), (0.9, 0.999, 1e-8));
    assert_eq!((plan.adamw.weight_decay, plan.adamw.max_grad_norm), (0.01, Some(1.0)));
    assert_eq!((plan.mixture.temperature, plan.mixture.max_epochs), (0.7, 8.0));
    let ModelConfig::Llama(model) = &plan.model else { panic!("not a Llama") };
    assert_eq!((model.vocab_size, model.max_position_embeddings), (4096, 128));
    assert_eq!((model.bos_token_id, model.eos_token_ids.as_slice()), (Some(0), [1].as_slice()));
    assert!(plan.notes.iter().any(|note| note.text.contains("one micro-batch, chosen")));
}

#[test]
fn durations_agree() {
    assert_eq!(plan_of(&GOOD.replace("max_steps: 200", "max_tokens: 819200"), &[]).unwrap().max_steps, 200);
    assert_eq!(plan_of(&GOOD.replace("max_steps: 200", "max_tokens: 819201"), &[]).unwrap().max_steps, 201);
    // 5040 rows in steps of 32.
    assert_eq!(plan_of(&GOOD.replace("max_steps: 200", "num_epochs: 1"), &[]).unwrap().max_steps, 158);
    refused(&["max_tokens=100"], "`max_steps` and `max_tokens` both say");
}

#[test]
fn batches_are_cut_without_gap_or_overlap() {
    let plan = plan(&["micro_batch_size=4"]);
    assert_eq!((plan.rows_of(0), plan.rows_of(3)), (0..32, 96..128));
    let cut = plan.micro_batches(3);
    assert_eq!(cut.len(), 8);
    assert_eq!((cut[0].clone(), cut[7].clone()), (96..100, 124..128));
    assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_eq!(plan.rows_of(u64::MAX), u64::MAX..u64::MAX, "far beyond the end nothing overflows");
    assert_eq!(plan_of(&GOOD.replace("32 seq", "4 KiTok"), &[]).unwrap().global_batch_rows, 32);
    let derived = GOOD.replace("global_batch_size: 32 seq", "micro_batch_size: 8\ngradient_accumulation_steps: 4");
    assert_eq!(plan_of(&derived, &[]).unwrap().global_batch_rows, 32);
    refused(&["micro_batch_size=5"], "write 4 or 8");
    refused(&["global_batch_size=1000 tok"], "`896 tok` (7 seq) or `1024 tok` (8 seq)");
    refused(&["micro_batch_size=8", "gradient_accumulation_steps=2"], "16 sequences, but `global_batch_size` says 32");
}

#[test]
fn intervals_include_the_ends() {
    let plan = plan(&["max_steps=25", "eval_steps=10", "save_steps=10", "logging_steps=10"]);
    let due = |is_due: &dyn Fn(u64) -> bool| (0..=26).filter(|step| is_due(*step)).collect::<Vec<u64>>();
    assert_eq!(due(&|step| plan.evaluates_at(step)), [0, 10, 20, 25]);
    assert_eq!(due(&|step| plan.saves_at(step)), [10, 20, 25]);
    assert_eq!(due(&|step| plan.logs_at(step)), [1, 10, 20, 25]);
}

#[test]
fn the_digest_follows_the_numbers_and_nothing_else() {
    let digest = plan(&[]).digest();
    assert_eq!(digest.len(), 64);
    for indifferent in [
        "output_dir=runs/other",
        "device=cpu",
        "threads=3",
        "eval_steps=7",
        "eval.max_tokens_per_language=100",
        "save_steps=9",
        "save_total_limit=5",
        "logging_steps=1",
        "cluster.engine=mpi",
        "expect.final_loss_below=3",
        "datasets.0.path=data/moved",
        // Written out, but the default.
        "weight_decay=0.01",
    ] {
        assert_eq!(plan(&[indifferent]).digest(), digest, "{indifferent}");
    }
    for decisive in [
        "seed=1",
        "model.size=10m",
        "model.initializer_range=0.03",
        "global_batch_size=16 seq",
        "micro_batch_size=8",
        "sequence_len=64",
        "max_steps=201",
        "learning_rate=2e-3",
        "betas=[0.9, 0.95]",
        "eps=1e-7",
        "weight_decay=0.1",
        "max_grad_norm=0",
        "lr_scheduler=linear",
        "warmup_steps=3",
        "min_lr_ratio=0",
        "precision=bf16-mixed",
        "reduction=fast",
        "guard.outlier_sigma=5",
        "mixture.temperature=1",
        "mixture.weights={ary_Arab: 2}",
    ] {
        assert_ne!(plan(&[decisive]).digest(), digest, "{decisive}");
    }
    let (raw, _) = yaml::parse::<RawConfig>(Path::new("x.yaml"), GOOD, &[]).unwrap();
    let other_data = DatasetFacts { id: "d2".into(), ..facts() };
    assert_ne!(resolve(raw, &other_data, None).unwrap().digest(), digest);
}

#[test]
fn several_data_sets_and_a_warm_start_decide_and_are_written_down() {
    let joined = DatasetFacts { parts: vec![("old".into(), 2), ("new".into(), 1)], ..facts() };
    let of = |text: &str, set: &[&str]| {
        let set: Vec<String> = set.iter().map(|text| (*text).to_string()).collect();
        let (raw, _) = yaml::parse::<RawConfig>(Path::new("x.yaml"), text, &set).unwrap();
        resolve(raw, &joined, None).unwrap()
    };
    let set = |weights: [&str; 2]| format!("datasets=[{{path: a{}}}, {{path: b{}}}]", weights[0], weights[1]);
    let plain = of(GOOD, &[&set(["", ""])]);
    let weighed = of(GOOD, &[&set([", weight: 0.2", ", weight: 0.8"])]);
    assert_ne!(plain.digest(), weighed.digest());
    assert_ne!(weighed.digest(), of(GOOD, &[&set([", weight: 0.3", ", weight: 0.7"])]).digest());
    assert_eq!(weighed.dataset.parts.iter().map(|part| part.streams).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(of(&weighed.resolved_yaml().unwrap(), &[]).digest(), weighed.digest());

    let (cold, warm) = (of(GOOD, &[]), of(GOOD, &["warmup_start_ratio=0.5", "warmup_steps=4"]));
    let peak = warm.schedule.peak();
    let rates: Vec<f64> = (0..4).map(|step| warm.lr(step) / peak).collect();
    for (rate, expected) in rates.iter().zip([0.625, 0.75, 0.875, 1.0]) {
        assert!((rate - expected).abs() < 1e-12, "{rates:?}");
    }
    assert_ne!(cold.digest(), warm.digest());
    assert_eq!(of(&warm.resolved_yaml().unwrap(), &[]).digest(), warm.digest());
}

#[test]
fn the_resolved_file_is_the_same_run() {
    let wsd = [
        "lr_scheduler=wsd",
        "decay_ratio=0.3",
        "warmup_ratio=0.05",
        "max_grad_norm=0",
        "mixture.weights={ary_Latn: 0.5}",
    ];
    let rope = "model.rope_scaling={rope_type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, \
                original_max_position_embeddings: 64}";
    let cases: [&[&str]; 4] = [
        &[],
        &wsd,
        &[rope, "min_lr=7e-5", "expect.val_bpb_below={ary_Arab: 3}"],
        &["lr_scheduler=constant", "threads=2"],
    ];
    for set in cases {
        let plan = plan(set);
        let yaml = plan.resolved_yaml().unwrap();
        let again = plan_of(&yaml, &[]).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(again.digest(), plan.digest(), "{yaml}");
        assert_eq!(again.to_json(), plan.to_json());
        assert_eq!(again.resolved_yaml().unwrap(), yaml);
    }
}

#[test]
fn plan_json_carries_the_digest_and_no_null_number() {
    let plan = plan(&[]);
    let json = plan.to_json();
    assert_eq!(json["digest"], plan.digest());
    assert_eq!(json["model"]["family"], "llama");
    assert_eq!(json["schedule"]["kind"], "cosine");
    assert!(json["adamw"].as_object().unwrap().values().all(|value| value.is_number()));
}

#[test]
fn presets_are_as_large_as_their_names() {
    for size in presets::ALL {
        let (nominal, vocab_size) = size.nominal();
        let name = serde_json::to_value(size).unwrap();
        let (size_key, vocab_key) =
            (format!("model.size={}", name.as_str().unwrap()), format!("model.vocab_size={vocab_size}"));
        let total = count_parameters(&plan(&[&size_key, &vocab_key]).model).total();
        let ratio = total as f64 / nominal as f64;
        assert!((0.93..1.07).contains(&ratio), "{name}: {total}");
    }
}

#[test]
fn explicit_dimensions_replace_those_of_a_preset() {
    let ModelConfig::Llama(wide) = plan(&["model.size=10m", "model.hidden_size=384"]).model else {
        panic!("not a Llama")
    };
    assert_eq!((wide.hidden_size, wide.intermediate_size, wide.head_dim), (384, 1024, 64));
    let ModelConfig::Llama(heads) = plan(&["model.size=10m", "model.num_attention_heads=6"]).model else {
        panic!("not a Llama")
    };
    assert_eq!((heads.num_attention_heads, heads.num_key_value_heads), (6, 6));
    let own = "model={hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4}";
    let ModelConfig::Llama(own) = plan(&[own]).model else { panic!("not a Llama") };
    assert_eq!((own.intermediate_size, own.head_dim, own.num_key_value_heads), (192, 16, 4));
    assert!(own.tie_word_embeddings);
    refused(&["model.num_key_value_heads=3"], "not a multiple of num_key_value_heads");
    refused(&["model={hidden_size: 64, num_attention_heads: 4}"], "`model.num_hidden_layers` is missing");
}

#[test]
fn a_family_is_chosen_and_written_back() {
    for (family, name) in [("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("qwen3", "Qwen3")] {
        let key = format!("model.family={family}");
        let chosen = plan(&[&key]);
        assert_eq!(chosen.model.family_name(), name);
        let again = resolve(chosen.to_raw(), &facts(), None).unwrap();
        assert_eq!((again.digest(), &again.model), (chosen.digest(), &chosen.model));
    }
    let ModelConfig::Mistral(mistral) = plan(&["model.family=mistral", "model.sliding_window=64"]).model else {
        panic!("not a Mistral")
    };
    assert_eq!(mistral.sliding_window, Some(64));
    refused(&["model.sliding_window=64"], "only a Mistral or Mixtral has a window");
    refused(&["model.family=gemma2"], "gemma2");
}

#[test]
fn the_data_set_is_held_against_the_configuration() {
    refused(&["model.vocab_size=100"], "smaller than the data set's tokenizer's of 4096");
    refused(&["mixture.weights={ary_Arb: 2}"], "did you mean `ary_Arab`?");
    refused(&["mixture.weights={xyz_Qqqq: 2}"], "it has `ary_Arab`, `ary_Latn` or `zgh_Tfng`");
    refused(&["mixture.weights={ary_Arab: 0, ary_Latn: 0, '*/cldr': 0}"], "leave out every part");
    refused(&["max_steps=5000"], "31.7 passes");
    refused(&["expect.val_bpb_below={ary_Latn: 2}"], "no held-out documents");
    assert!(plan_of(GOOD, &["expect.val_bpb_below={all: 2}"]).is_ok());
    refused(&["warmup_steps=300"], "longer than the run of 200");
    refused(&["lr_scheduler=wsd", "decay_ratio=0.9", "warmup_ratio=0.2"], "more than the run");
}

#[test]
fn the_cpu_refuses_bf16_early_or_once_it_is_known() {
    refused(&["precision=bf16-mixed", "device=cpu"], "emulated");
    let plan = plan(&["precision=bf16-mixed"]);
    assert!(plan.check_on_cpu().unwrap_err().to_string().starts_with("--set precision=bf16-mixed: "));
}

#[test]
fn a_base_model_brings_its_own_shape() {
    let text = GOOD.replace("model: {size: 3m}", "base_model: models/base");
    let ModelConfig::Llama(mut base) = plan(&[]).model else { panic!("not a Llama") };
    base.eos_token_ids = vec![5];
    let (raw, _) = yaml::parse::<RawConfig>(Path::new("x.yaml"), &text, &[]).unwrap();
    let base =
        BaseFacts { model: ModelConfig::Llama(base), weights: "w1".into(), stored_in_bf16: false, adapter: None };
    let resolved = resolve(raw.clone(), &facts(), Some(base.clone())).unwrap();
    let other = resolve(raw.clone(), &facts(), Some(BaseFacts { weights: "w2".into(), ..base.clone() })).unwrap();
    assert_ne!(resolved.digest(), other.digest(), "other weights make another run");
    assert!(resolved.notes.iter().any(|note| note.text.contains("does not know as an end")));
    assert!(resolved.to_raw().model.is_none());
    assert!(resolve(raw.clone(), &facts(), None).is_err());
    let large = DatasetFacts { vocab_size: 5000, ..facts() };
    assert!(resolve(raw, &large, Some(base)).unwrap_err().hint().contains("tokenizer of `base_model`"));
}

#[test]
fn canonical_json_sorts_keys() {
    let mut text = String::new();
    write_canonical(&json!({"b": [1, 2.5, null], "a": {"d": "x\"", "c": true}}), &mut text);
    assert_eq!(text, r#"{"a":{"c":true,"d":"x\""},"b":[1,2.5,null]}"#);
}
