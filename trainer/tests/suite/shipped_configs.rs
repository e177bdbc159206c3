//! Every configuration in `configs/` is read without a note and resolves to what its comments say.

use std::path::{Path, PathBuf};

use crate::support::{run_ok, text};
use data_pipeline::config::PrepareConfig;
use trainer::config::plan::ChatPlan;
use trainer::config::raw::DatasetType;
use trainer::config::{BaseFacts, ComponentFacts, DatasetFacts, Estimate, Plan, RawConfig, load, resolve};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(configs()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    names
}

/// A data set that is large enough for every recipe, with the languages that they name.
fn facts(vocab_size: usize, sequence_len: usize) -> DatasetFacts {
    let part = |lang: &str| {
        let tokens = 1 << 30;
        ComponentFacts { lang: lang.into(), source: "s".into(), tokens, rows: tokens / sequence_len as u64 }
    };
    let languages = "afb_Arab apc_Arab arb_Arab arq_Latn ars_Arab ary_Arab ary_Latn eng_Latn fra_Latn kab_Latn mey_Arab \
                     rif_Latn shi_Latn spa_Latn tzm_Latn tzm_Tfng zgh_Tfng";
    let parts: Vec<ComponentFacts> = languages.split_whitespace().map(part).collect();
    DatasetFacts {
        best_fit: None,
        id: "synthetic".into(),
        vocab_size,
        bos: Some(0),
        eos: Some(1),
        pad: Some(2),
        train: parts.clone(),
        validation: parts,
        bytes: 1 << 31,
        chat: None,
        parts: Vec::new(),
    }
}

fn plan(name: &str, vocab_size: usize) -> Plan {
    plan_of(&configs().join(name), vocab_size)
}

fn plan_of(path: &Path, vocab_size: usize) -> Plan {
    let name = path.display();
    let (raw, notes) = load::<RawConfig>(path, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(notes.is_empty(), "{name}: a shipped config uses our own names: {notes:?}");
    let mut facts = facts(vocab_size, raw.sequence_len);
    let kind = raw.datasets[0].kind.and_then(DatasetType::records);
    facts.chat = kind.map(|kind| ChatPlan { kind, excess: Default::default(), end_of_turn: vec![4] });
    let base = raw.base_model.is_some().then(|| base(vocab_size));
    resolve(raw, &facts, base).unwrap_or_else(|error| panic!("{error}"))
}

/// A base for recipes that start from one: the model that such a recipe names.
fn base(vocab_size: usize) -> BaseFacts {
    let model = plan("darija-30m-cpu.yaml", vocab_size).model;
    BaseFacts { model, weights: "synthetic".into(), stored_in_bf16: false, adapter: None }
}

#[test]
fn every_config_is_valid() {
    let names = names();
    assert!(names.len() >= 8, "{names:?}");
    for name in &names {
        if name.ends_with("-data.yaml") {
            let (config, notes) =
                load::<PrepareConfig>(&configs().join(name), &[]).unwrap_or_else(|error| panic!("{error}"));
            assert!(notes.is_empty(), "{name}");
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        } else {
            let plan = plan(name, 32_768);
            assert!(plan.micro_batches(0).len() as u64 == plan.micro_batches_per_step(), "{name}");
            let estimate = Estimate::of(&plan, None);
            assert!(estimate.parameters > 0 && estimate.hours.is_none(), "{name}");
        }
    }
}

/// What `jazari init` writes is held to the same, whatever is chosen.
#[test]
fn every_size_that_init_offers_is_valid_on_every_hardware() {
    let dir = tempfile::tempdir().unwrap();
    for hardware in ["cpu", "gpu-24gb", "gpu-80gb", "8xgpu-80gb"] {
        for (size, vocab_size) in [("3m", 16), ("10m", 16), ("30m", 16), ("110m", 32), ("350m", 32), ("1b", 32)] {
            let folder = dir.path().join(format!("{hardware}-{size}"));
            let arguments = ["init", &folder.display().to_string(), "--hardware", hardware, "--size", size];
            let told = text(&run_ok(&arguments));
            assert!(told.contains(&format!("size {size}: about ")) && told.contains("next:"), "{told}");
            let plan = plan_of(&folder.join("train.yaml"), vocab_size * 1024);
            let named = size.strip_suffix('m').map_or(1e9, |millions| millions.parse::<f64>().unwrap() * 1e6);
            let parameters = Estimate::of(&plan, None).parameters as f64;
            assert!((0.8..1.25).contains(&(parameters / named)), "{size}: {parameters}");
            let processes = if hardware == "8xgpu-80gb" { 8 } else { 1 };
            plan.check_world(processes).unwrap();
        }
    }
}

#[test]
fn the_sizes_are_those_that_the_comments_say() {
    for (name, vocab_size, low, high) in [
        ("ci-tiny.yaml", 1024, 100_000, 300_000),
        ("quickstart.yaml", 2048, 1_000_000, 3_000_000),
        ("darija-30m-cpu.yaml", 16_384, 28_000_000, 33_000_000),
        ("moroccan-110m-1gpu.yaml", 32_768, 105_000_000, 115_000_000),
        ("moroccan-1b-8gpu.yaml", 32_768, 950_000_000, 1_100_000_000),
    ] {
        let parameters = Estimate::of(&plan(name, vocab_size), None).parameters;
        assert!((low..=high).contains(&parameters), "{name}: {parameters}");
    }
}

#[test]
fn recipes_and_data_agree_on_folders() {
    for (recipe, data) in [
        ("quickstart.yaml", "quickstart-data.yaml"),
        ("ci-tiny.yaml", "ci-tiny-data.yaml"),
        ("darija-30m-cpu.yaml", "moroccan-data.yaml"),
    ] {
        let (prepare, _) = load::<PrepareConfig>(&configs().join(data), &[]).unwrap();
        assert_eq!(plan(recipe, 16_384).dataset.path, prepare.output_dir, "{recipe}");
    }
}

#[test]
fn a_wrong_command_is_recognised() {
    let error = load::<RawConfig>(&configs().join("quickstart-data.yaml"), &[]).unwrap_err();
    assert!(error.hint().contains("jazari data prepare"), "{error}");
    let error = load::<PrepareConfig>(&configs().join("quickstart.yaml"), &[]).unwrap_err();
    assert!(error.hint().contains("jazari train"), "{error}");
}
