//! Tests of the estimate: sums by hand, and a throughput that is only ever measured.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::super::plan::tests::{GOOD, plan_of};
use super::*;

#[test]
fn memory_and_disk_add_up() {
    let plan = plan_of(GOOD, &["device=cpu", "micro_batch_size=4"]).unwrap();
    let estimate = Estimate::of(&plan, None);
    // 4096 x 128 embedding, four layers of 2 x 128 x (128 + 64) + 3 x 128 x 384, nine norms of 128.
    let parameters = 4096 * 128 + 4 * (2 * 128 * 192 + 3 * 128 * 384) + 9 * 128;
    assert_eq!(estimate.parameters, parameters);
    assert_eq!(estimate.memory.len(), 1);
    let memory = &estimate.memory[0];
    assert_eq!((memory.weights, memory.gradients, memory.moments), (4 * parameters, 4 * parameters, 8 * parameters));
    assert_eq!(memory.gradient_tree, 3 * 4 * parameters, "before the eighth leaf three partial sums wait");
    let parts = [memory.weights, memory.gradients, memory.gradient_tree, memory.moments, memory.activations];
    let rest = memory.head_and_logits + memory.program;
    assert_eq!(memory.total, parts.iter().sum::<u64>() + rest);
    assert!(memory.program > 0);
    assert_eq!(estimate.checkpoint_bytes, 12 * parameters);
    assert_eq!(estimate.checkpoints_total_bytes, 4 * 12 * parameters);
    assert_eq!((estimate.tokens_per_step, estimate.tokens), (4096, 819_200));
    assert_eq!(estimate.flops_total, estimate.flops_per_token * 819_200.0);
}

#[test]
fn one_micro_batch_needs_no_tree() {
    let estimate = Estimate::of(&plan_of(GOOD, &["micro_batch_size=32"]).unwrap(), None);
    assert!(estimate.memory.iter().all(|memory| memory.gradient_tree == 0));
}

#[test]
fn an_open_device_is_estimated_both_ways() {
    let kinds = |set: &[&str]| -> Vec<&'static str> {
        Estimate::of(&plan_of(GOOD, set).unwrap(), None).memory.iter().map(|memory| memory.device).collect()
    };
    assert_eq!(kinds(&[]), ["cpu", "gpu"]);
    assert_eq!(kinds(&["precision=bf16-mixed"]), ["gpu"]);
    assert_eq!(kinds(&["device=cuda:0"]), ["gpu"]);
}

#[test]
fn hours_are_unknown_until_measured() {
    let plan = plan_of(GOOD, &[]).unwrap();
    assert!(Estimate::of(&plan, None).hours.is_none());
    assert!(Estimate::of(&plan, None).render().contains("unknown until measured"));
    let dir = tempfile::tempdir().unwrap();
    let error = Throughput::of_run(dir.path()).unwrap_err().to_string();
    assert!(error.contains("name its output_dir"), "{error}");
    let metrics = dir.path().join("metrics.jsonl");
    std::fs::write(&metrics, "{\"event\":\"eval\"}\n").unwrap();
    assert!(matches!(Throughput::of_run(dir.path()), Err(ThroughputError::NoFigure { .. })));
    let records: String =
        [10.0, 900.0, 1100.0, 1000.0].map(|figure| format!("{{\"step\":1,\"tokens_per_second\":{figure}}}\n")).concat();
    std::fs::write(&metrics, format!("{records}{{\"tokens_per_sec")).unwrap();
    let throughput = Throughput::of_run(dir.path()).unwrap();
    assert_eq!(throughput.tokens_per_second, 1000.0, "the first record includes starting up");
    let estimate = Estimate::of(&plan, Some(throughput));
    assert_eq!(estimate.hours, Some(819_200.0 / 1000.0 / 3600.0));
    assert!(estimate.render().contains("0.23 h at 1000 tokens/s"));
}

#[test]
fn numbers_are_readable() {
    assert_eq!((count(999), count(1_500), count(110_000_000)), ("999".into(), "1.50 k".into(), "110.00 M".into()));
    assert_eq!((bytes(1023), bytes(1536), bytes(u64::MAX)), ("1023 B".into(), "1.50 KiB".into(), "16.00 EiB".into()));
}
