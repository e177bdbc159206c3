//! Promise: a run with Muon learns, goes on after a kill and on another number of processes with the same bits, and keeps
//! one moment of a matrix.

use crate::support::{final_digest, jazari, kill_after, launch_tiny, losses, text, tiny_arguments, train_tiny};
use trainer::tensor_file::TensorFile;

const MUON: [&str; 5] =
    ["optimizer=muon", "micro_batch_size=1", "save_steps=5", "logging_steps=1", "cluster.digest_steps=5"];

#[test]
fn it_learns_and_its_bits_depend_on_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, other, cut, two] = ["whole", "other", "cut", "two"].map(|name| dir.path().join(name));
    // The configuration expects the loss to fall by 1.0 nats, or the run fails.
    train_tiny(&whole, &MUON);
    train_tiny(&other, &[&MUON[1..], &["optimizer=adamw"]].concat());
    assert_ne!(final_digest(&whole), final_digest(&other));

    kill_after(&cut, 10, &MUON);
    launch_tiny(2, &cut, &MUON);
    launch_tiny(2, &two, &[&MUON[..], &["threads=1"]].concat());
    for run in [&cut, &two] {
        assert_eq!((losses(run), final_digest(run)), (losses(&whole), final_digest(&whole)), "{}", run.display());
    }

    let checkpoint = whole.join("checkpoints/step-00000030");
    let file = TensorFile::open(&checkpoint.join("optimizer.safetensors")).unwrap();
    let second = |name: &str| file.info(&format!("exp_avg_sq/{name}/0")).unwrap().shape.clone();
    assert_eq!(second("model.layers.0.mlp.up_proj.weight"), [0]);
    assert_ne!(second("model.embed_tokens.weight"), [0]);
}

#[test]
fn what_muon_cannot_do_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, named) in [
        (["optimizer=muon", "muon_momentum=1"], "`muon_momentum` is 1"),
        (["optimizer=adamw", "muon_momentum=0.9"], "is for `optimizer: muon`"),
    ] {
        let run = dir.path().join("run");
        let arguments = tiny_arguments(&run, &settings);
        let output = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{settings:?}");
        assert!(text(&output).contains(named), "{}", text(&output));
        assert!(!run.exists(), "{settings:?}");
    }
}
