//! Promise: a damaged checkpoint is named and set aside, never loaded, never deleted; an older valid one is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use model_zoo::{Init, ParamSpec, Params};
use trainer::checkpoint::{CheckpointError, CheckpointStore, Identity, LossSpan, TrainState, digest};
use trainer::guard::Guard;
use trainer::optim::{Optimizer, OptimizerHyper};

const HYPER: OptimizerHyper =
    OptimizerHyper { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, max_grad_norm: None, muon_momentum: None };

fn specs() -> Arc<[ParamSpec]> {
    vec![
        ParamSpec::new("model.embed_tokens.weight".into(), vec![6, 4], Init::Normal { std: 0.02 }),
        ParamSpec::new("model.norm.weight".into(), vec![4], Init::Ones),
    ]
    .into()
}

fn identity() -> Identity {
    Identity { plan: "plan".into(), dataset: "data".into() }
}

fn store(folder: &Path, keep: usize) -> CheckpointStore {
    CheckpointStore::open(folder, keep, identity()).unwrap()
}

fn state(step: u64) -> TrainState {
    let device = Device::flex();
    let params = Params::init(specs(), step, &device);
    let optimizer = Optimizer::new(HYPER, &params, &device);
    TrainState {
        step,
        tokens: step * 10,
        params,
        optimizer,
        guard: Guard::default(),
        losses: LossSpan::default(),
        seen: trainer::seen::Seen::default(),
        dataset_changes: Vec::new(),
        outer: None,
    }
}

/// A folder with checkpoints of steps 1 and 2.
fn two() -> (tempfile::TempDir, CheckpointStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 2);
    for step in [1, 2] {
        store.commit(&state(step), &[("plan.json", b"{}".to_vec())]).unwrap();
    }
    (dir, store)
}

fn newest(store: &CheckpointStore) -> (Option<u64>, Vec<String>) {
    let (loaded, aside) = store.newest_valid(&specs(), HYPER, None, &Device::flex()).unwrap();
    (loaded.map(|l| l.state.step), aside.into_iter().map(|a| a.why).collect())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let (dir, store) = two();
    let (loaded, aside) = store.newest_valid(&specs(), HYPER, None, &Device::flex()).unwrap();
    let loaded = loaded.unwrap();
    assert!(aside.is_empty());
    assert_eq!(loaded.path, dir.path().join("step-00000002"));
    assert_eq!(digest::state(&loaded.state), digest::state(&state(2)));
    assert_ne!(digest::state(&loaded.state), digest::state(&state(1)));
}

#[test]
fn every_flipped_byte_and_every_cut_is_seen() {
    let (dir, store) = two();
    let checkpoint = dir.path().join("step-00000002");
    let load = || store.load(&checkpoint, &specs(), HYPER, None, &Device::flex()).map(|l| digest::state(&l.state));
    let good = load().unwrap();
    let mut tried = 0;
    for file in files(&checkpoint) {
        let bytes = fs::read(&file).unwrap();
        for i in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[i] ^= 0x10;
            fs::write(&file, &broken).unwrap();
            // A flipped byte of the manifest may stand in a field that is only told, such as a version.
            let told_only = file.ends_with("MANIFEST.json");
            match load() {
                Err(_) => {}
                Ok(found) => assert!(told_only && found == good, "{}: byte {i} flipped", file.display()),
            }
            tried += 1;
        }
        for len in 0..bytes.len() {
            fs::write(&file, &bytes[..len]).unwrap();
            // The last byte of the manifest is its final newline.
            let harmless = file.ends_with("MANIFEST.json") && len + 1 == bytes.len();
            assert!(harmless || load().is_err(), "{}: cut to {len} bytes", file.display());
            tried += 1;
        }
        fs::write(&file, &bytes).unwrap();
    }
    assert!(tried > 3000, "{tried}");
    assert_eq!(load().unwrap(), good);
}

#[test]
fn the_newest_valid_one_is_used_and_the_damaged_one_kept() {
    let (dir, store) = two();
    let model = dir.path().join("step-00000002/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&model, &bytes).unwrap();
    let (step, why) = newest(&store);
    assert_eq!(step, Some(1));
    assert!(why[0].contains("model.safetensors: the content's BLAKE3 is"), "{why:?}");
    assert_eq!(fs::read(dir.path().join("invalid-step-00000002/model.safetensors")).unwrap(), bytes);
    assert_eq!(newest(&store), (Some(1), Vec::new()));
}

#[test]
fn messages_name_the_file_and_the_cause() {
    let check = |break_it: &dyn Fn(&Path), expected: &str| {
        let (dir, store) = two();
        break_it(&dir.path().join("step-00000002"));
        let (step, why) = newest(&store);
        assert_eq!(step, Some(1), "{expected}");
        assert!(why[0].contains(expected), "{why:?} should contain {expected}");
    };
    check(&|c| fs::remove_file(c.join("MANIFEST.json")).unwrap(), "there is no manifest");
    check(&|c| fs::write(c.join("MANIFEST.json"), "{").unwrap(), "the manifest is not valid JSON");
    check(
        &|c| fs::write(c.join("MANIFEST.json"), "{\"format_version\":99}").unwrap(),
        "format version 99 is not known",
    );
    check(&|c| fs::write(c.join("MANIFEST.json"), "{\"format_version\":1}").unwrap(), "the manifest is incomplete");
    check(&|c| fs::remove_file(c.join("optimizer.safetensors")).unwrap(), "the file cannot be read");
    check(&|c| fs::write(c.join("model.safetensors"), b"x").unwrap(), "the file has 1 bytes, the manifest says");
    check(
        &|c| {
            let path = c.join("MANIFEST.json");
            let text = fs::read_to_string(&path).unwrap().replace("plan.json", "../plan.json");
            fs::write(path, text).unwrap();
        },
        "is not allowed",
    );
}

#[test]
fn another_plan_or_dataset_is_refused_not_set_aside() {
    let (dir, _) = two();
    for (identity, expected) in [
        (Identity { plan: "other".into(), ..identity() }, "undo the change"),
        (Identity { dataset: "other".into(), ..identity() }, "use the same dataset"),
    ] {
        let store = CheckpointStore::open(dir.path(), 2, identity).unwrap();
        let Err(error) = store.newest_valid(&specs(), HYPER, None, &Device::flex()) else { panic!("loaded") };
        assert!(matches!(error, CheckpointError::Mismatch { .. }) && error.to_string().contains(expected), "{error}");
    }
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn surplus_missing_and_misshapen_tensors_are_named() {
    let (dir, store) = two();
    let path = dir.path().join("step-00000002");
    let check = |specs: Vec<ParamSpec>, expected: &str| {
        let Err(error) = store.load(&path, &specs.into(), HYPER, None, &Device::flex()) else { panic!("loaded") };
        assert!(error.to_string().contains(expected), "{error}");
    };
    let [embed, norm] = [specs()[0].clone(), specs()[1].clone()];
    check(vec![embed.clone()], "2 parameters and 4 moments are stored, the model needs 1 and 2");
    check(vec![embed.clone(), ParamSpec { name: "x".into(), ..norm.clone() }], "tensor `x` is missing");
    check(vec![ParamSpec { shape: vec![4, 6], ..embed }, norm], "is F32 [6, 4], expected F32 [4, 6]");
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 2);
    let mut poisoned = state(3);
    poisoned.params.tensors_mut()[1] = burn::tensor::Tensor::from_floats([1.0, f32::NAN, 1.0, 1.0], &Device::flex());
    let path = store.commit(&poisoned, &[]).unwrap().path;
    let Err(error) = store.load(&path, &specs(), HYPER, None, &Device::flex()) else { panic!("loaded") };
    assert!(error.to_string().contains("tensor `model.norm.weight` is not finite at element 1"), "{error}");
}

#[test]
fn retention_keeps_two_valid_ones_and_never_deletes_damaged_ones() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 1);
    for step in 1..=3 {
        store.commit(&state(step), &[]).unwrap();
    }
    let steps = |store: &CheckpointStore| store.list().unwrap().into_iter().map(|(s, _)| s).collect::<Vec<_>>();
    assert_eq!(steps(&store), [3, 2], "two are kept even when one was asked for");
    fs::write(dir.path().join("step-00000003/model.safetensors"), b"cut").unwrap();
    store.commit(&state(4), &[]).unwrap();
    store.commit(&state(5), &[]).unwrap();
    assert_eq!(steps(&store), [5, 4, 3], "a damaged one neither counts nor goes");
}

#[test]
fn the_same_state_may_be_saved_again_and_another_one_sets_the_old_aside() {
    let (dir, store) = two();
    store.commit(&state(2), &[("plan.json", b"{}".to_vec())]).unwrap();
    assert_eq!(files(dir.path()).len(), 2);
    let mut other = state(2);
    other.tokens += 1;
    store.commit(&other, &[]).unwrap();
    assert!(dir.path().join("invalid-step-00000002").exists());
    assert_eq!(newest(&store), (Some(2), Vec::new()));
}

#[test]
fn leftovers_of_killed_saves_are_cleared_and_nothing_else() {
    let (dir, store) = two();
    fs::create_dir(dir.path().join(".step-00000009.1.tmp")).unwrap();
    fs::write(dir.path().join(".step-00000009.1.tmp/model.safetensors"), b"half").unwrap();
    fs::create_dir(dir.path().join("mine")).unwrap();
    assert_eq!(newest(&store).0, Some(2), "a leftover is invisible");
    store.clear_leftovers().unwrap();
    let names: Vec<_> =
        files(dir.path()).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["mine", "step-00000001", "step-00000002"]);
}

#[test]
fn a_failed_save_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 2);
    store.commit(&state(1), &[]).unwrap();
    let blocked = dir.path().join(format!(".step-00000002.{}.tmp", std::process::id()));
    fs::create_dir(&blocked).unwrap();
    let failed = store.commit(&state(2), &[("no/such/folder", Vec::new())]);
    assert!(failed.is_err());
    assert!(!blocked.exists(), "the failed attempt is gone");
    assert_eq!(newest(&store), (Some(1), Vec::new()));
}
