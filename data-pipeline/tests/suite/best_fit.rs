//! Rows of texts packed by best fit: whole documents, every token learned once, licences counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support;
use data_pipeline::dataset::Dataset;
use data_pipeline::inspect;
use data_pipeline::loader::Loader;
use data_pipeline::order::{MixtureSpec, Order, Quota};

fn open(seq_len: usize) -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    support::dataset(dir.path());
    let dataset = Dataset::open(&dir.path().join("data")).unwrap().with_best_fit(seq_len).unwrap();
    (dir, Arc::new(dataset))
}

fn loader(dataset: &Arc<Dataset>, seq_len: usize, rows: u64) -> Loader {
    let order = Order::new(&dataset.streams(seq_len), &MixtureSpec::default(), rows, 3).unwrap();
    Loader::new(Arc::clone(dataset), order, seq_len)
}

#[test]
fn an_epoch_learns_every_token_but_first_ones_exactly_once_and_keeps_documents_whole() {
    for seq_len in [3, 16, 61, 300] {
        let (_dir, dataset) = open(seq_len);
        let loader = loader(&dataset, seq_len, 1);
        for (number, component) in dataset.train().iter().enumerate() {
            let rows = component.num_rows(seq_len);
            let batch = loader.training_rows(number, 0..rows).unwrap();
            let mut learned: Vec<(Vec<u32>, Vec<i32>)> = Vec::new();
            for row in 0..rows as usize {
                let at = row * seq_len..(row + 1) * seq_len;
                let segments = &batch.segments[at.clone()];
                for (first, run) in runs(segments) {
                    let own = at.start + first..at.start + first + run;
                    assert!(batch.positions[own.clone()].iter().copied().eq(0..run as u32));
                    let targets = batch.targets[own.clone()].to_vec();
                    if targets.iter().any(|target| *target >= 0) {
                        assert!(targets.iter().all(|target| *target >= 0), "no place inside a document is idle");
                        learned.push((batch.tokens[own].to_vec(), targets));
                    } else {
                        assert_eq!(own.end, at.end, "only the rest of a row is idle");
                    }
                }
            }
            let mut expected: Vec<(Vec<u32>, Vec<i32>)> = Vec::new();
            for document in 0..component.num_documents() {
                let ids = component.document(document).unwrap();
                let (inputs, targets) = (&ids[..ids.len() - 1], &ids[1..]);
                for (inputs, targets) in inputs.chunks(seq_len).zip(targets.chunks(seq_len)) {
                    expected.push((inputs.to_vec(), targets.iter().map(|&id| id as i32).collect()));
                }
            }
            learned.sort();
            expected.sort();
            assert!(learned == expected, "rows of {seq_len}");
        }
        let (counts, digest) = dataset.best_fit().unwrap();
        assert_eq!((counts.cut_needlessly, digest.len()), (0, 64));
        let expected: u64 = dataset.train().iter().map(|c| c.num_tokens() - c.num_documents()).sum();
        assert_eq!(counts.targets, expected);
    }
}

/// Begin and length of each run of equal numbers.
fn runs(segments: &[u32]) -> Vec<(usize, usize)> {
    let place = |at: &mut usize, run: &[u32]| Some((std::mem::replace(at, *at + run.len()), run.len()));
    segments.chunk_by(|a, b| a == b).scan(0, place).collect()
}

#[test]
fn held_out_texts_and_other_lengths_stay_end_to_end() {
    let (dir, packed) = open(61);
    let plain = Arc::new(Dataset::open(&dir.path().join("data")).unwrap());
    assert!(plain.best_fit().is_none());
    let of = |dataset: &Arc<Dataset>| loader(dataset, 61, 1).validation_rows(0, 0..2).unwrap();
    assert_eq!(of(&packed), of(&plain));
    for (packed, plain) in packed.train().iter().zip(plain.train()) {
        assert_eq!(packed.num_rows(60), plain.num_rows(60));
        assert_eq!(packed.row(0, 60).unwrap(), plain.row(0, 60).unwrap());
        assert_ne!(packed.row(0, 61).unwrap(), plain.row(0, 61).unwrap());
    }
    for compared in plain.compare_packings(61).unwrap() {
        assert_eq!(compared.best_fit.targets, compared.end_to_end.targets);
        assert!(compared.best_fit.cut <= compared.end_to_end.cut);
        assert!(compared.best_fit.mean_context() >= compared.end_to_end.mean_context());
    }
}

#[test]
fn rows_can_be_looked_at() {
    let (dir, dataset) = open(61);
    let tokenizer = data_pipeline::tokenizer::Tokenizer::open(&dir.path().join("tokenizer")).unwrap();
    let rows = inspect::rows(&loader(&dataset, 61, 40), &tokenizer, 0..5).unwrap();
    for row in rows {
        let inputs: usize = row.documents.iter().map(|document| document.tokens.len() - 1).sum();
        assert!((1..=61).contains(&inputs));
        for document in &row.documents {
            let whole = document.tokens.len() as u64 == document.num_tokens;
            assert!(whole || document.num_tokens > 62, "a document that fits is whole");
        }
    }
}

#[test]
fn licences_are_counted_and_bound() {
    let dir = tempfile::tempdir().unwrap();
    support::dataset(dir.path());
    let dataset = Dataset::open(&dir.path().join("data")).unwrap();
    let streams = dataset.licensed_streams(61).unwrap();
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (stream, component) in streams.iter().zip(dataset.train()) {
        assert_eq!(stream.licences.values().sum::<u64>(), component.num_tokens());
        stream.licences.iter().for_each(|(name, tokens)| *all.entry(name.clone()).or_default() += tokens);
    }
    let licence = all.keys().next().unwrap().clone();
    let quota = Quota { min_share: None, max_share: Some(1.0), max_epochs: Some(1000.0) };
    let quotas = BTreeMap::from([(format!("licence:{licence}"), quota)]);
    let order = Order::new(&streams, &MixtureSpec { quotas, ..MixtureSpec::default() }, 50, 1).unwrap();
    let (whole, _) = order.exposures(&streams);
    assert!((whole.licences.values().map(|seen| seen.share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!((whole.languages.values().map(|seen| seen.rows).sum::<f64>() - 50.0).abs() < 1e-9);
}
