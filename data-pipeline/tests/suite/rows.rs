//! Rows of a run: every token predicted once, documents apart, the same from wherever one starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support;
use data_pipeline::DataError;
use data_pipeline::dataset::{Component, Dataset};
use data_pipeline::inspect::{self, Selection};
use data_pipeline::loader::{Loader, TokenBatch};
use data_pipeline::order::{MixtureSpec, Order};
use data_pipeline::tokenizer::Tokenizer;
use proptest::prelude::*;

fn open() -> (Arc<Dataset>, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    let (_, tokenizer) = support::dataset(dir.path());
    // The maps and the open files live on when the folder goes; tables of documents are not read here.
    (Arc::new(Dataset::open(&dir.path().join("data")).unwrap()), tokenizer)
}

fn shared() -> &'static Arc<Dataset> {
    static DATASET: std::sync::OnceLock<Arc<Dataset>> = std::sync::OnceLock::new();
    DATASET.get_or_init(|| open().0)
}

fn loader(seq_len: usize, total_rows: u64, seed: u64) -> Loader {
    let order = Order::new(&shared().streams(seq_len), &MixtureSpec::default(), total_rows, seed).unwrap();
    Loader::new(Arc::clone(shared()), order, seq_len)
}

/// The documents of a component, end to end.
fn stream(component: &Component) -> Vec<Vec<u32>> {
    (0..component.num_documents()).map(|i| component.document(i).unwrap()).collect()
}

/// The row as the definition says, token by token.
fn naive_row(component: &Component, row: u64, seq_len: usize) -> (Vec<u32>, Vec<i32>, Vec<u32>, Vec<u32>) {
    let documents = stream(component);
    let flat: Vec<(u32, usize)> =
        documents.iter().enumerate().flat_map(|(d, ids)| ids.iter().map(move |&id| (id, d))).collect();
    let start = row as usize * seq_len;
    let (mut tokens, mut targets, mut segments, mut positions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut segment, mut position) = (0, 0);
    for at in start..start + seq_len {
        let here = flat.get(at);
        if at > start && (at == flat.len() || here.is_some_and(|(_, d)| *d != flat[at - 1].1)) {
            (segment, position) = (segment + 1, 0);
        }
        tokens.push(here.map_or(1, |(id, _)| *id));
        let next = flat.get(at + 1).filter(|(_, d)| here.is_some_and(|(_, document)| document == d));
        targets.push(next.map_or(-1, |(id, _)| *id as i32));
        segments.push(segment);
        positions.push(position);
        position += 1;
    }
    (tokens, targets, segments, positions)
}

fn row_of(batch: &TokenBatch, i: usize) -> (Vec<u32>, Vec<i32>, Vec<u32>, Vec<u32>) {
    let range = i * batch.seq_len..(i + 1) * batch.seq_len;
    (
        batch.tokens[range.clone()].to_vec(),
        batch.targets[range.clone()].to_vec(),
        batch.segments[range.clone()].to_vec(),
        batch.positions[range].to_vec(),
    )
}

#[test]
fn rows_are_windows_of_the_stream_with_documents_apart() {
    for seq_len in [1, 2, 7, 64, 333, 5_000] {
        let loader = loader(seq_len, 1, 0);
        for (number, component) in shared().validation().iter().enumerate() {
            let rows = component.num_rows(seq_len);
            let batch = loader.validation_rows(number, 0..rows).unwrap();
            assert_eq!((batch.rows as u64, batch.components.len() as u64), (rows, rows));
            for row in 0..rows {
                assert_eq!(row_of(&batch, row as usize), naive_row(component, row, seq_len), "row {row} of {seq_len}");
            }
        }
        for (number, component) in shared().train().iter().enumerate() {
            let row = component.num_rows(seq_len) - 1;
            let window = component.row(row, seq_len).unwrap();
            let (tokens, ..) = naive_row(component, row, seq_len);
            assert_eq!(window.ids[..window.ids.len().min(seq_len)], tokens[..window.ids.len().min(seq_len)]);
            let last = window.spans.last().unwrap();
            assert_eq!((last.document, last.tokens.end), (component.num_documents() - 1, window.ids.len()), "{number}");
        }
    }
}

#[test]
fn an_epoch_predicts_every_token_but_first_ones_exactly_once() {
    let seq_len = 50;
    for (number, component) in shared().validation().iter().enumerate() {
        let batch = loader(seq_len, 1, 0).validation_rows(number, 0..component.num_rows(seq_len)).unwrap();
        let predicted: Vec<i32> = batch.targets.iter().copied().filter(|&target| target >= 0).collect();
        let expected: Vec<i32> =
            stream(component).iter().flat_map(|ids| ids[1..].iter().map(|&id| id as i32)).collect();
        assert_eq!(predicted, expected);
        assert_eq!(batch.num_targets() as u64, component.num_tokens() - component.num_documents());
    }
}

#[test]
fn the_run_holds_the_rows_that_the_order_names() {
    let seq_len = 32;
    let loader = loader(seq_len, 60, 11);
    let batch = loader.rows(0..60).unwrap();
    let mut seen: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for i in 0..60 {
        let place = loader.order().row(i);
        assert_eq!(batch.components[i as usize] as usize, place.component);
        let component = &shared().train()[place.component];
        assert_eq!(row_of(&batch, i as usize), naive_row(component, place.row, seq_len));
        *seen.entry((place.component, place.row)).or_default() += 1;
    }
    assert!(seen.len() > 30);
}

#[test]
fn an_order_for_another_length_is_an_error_not_a_panic() {
    let order = Order::new(&shared().streams(8), &MixtureSpec::default(), 5_000, 1).unwrap();
    let loader = Loader::new(Arc::clone(shared()), order, 4_000);
    let error = loader.rows(0..500).unwrap_err();
    assert!(matches!(error, DataError::OutOfRange { what: "row", .. }), "{error}");
    let error = loader.validation_rows(3, 0..1).unwrap_err();
    assert_eq!(error.to_string(), "component 3 was asked for, the dataset has 1; ask for a smaller number");
}

#[test]
fn documents_and_rows_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let (_, tokenizer) = support::dataset(dir.path());
    let dataset = Arc::new(Dataset::open(&dir.path().join("data")).unwrap());
    let selection = Selection { lang: Some("ary_Latn".into()), documents: 3, ..Selection::default() };
    let shown = inspect::documents(&dataset, &tokenizer, &selection).unwrap();
    assert_eq!(shown.iter().map(|d| (d.source.as_str(), d.number)).collect::<Vec<_>>().len(), 6);
    for document in &shown {
        let text = support::text("ary_Latn", document.number as usize);
        assert_eq!(document.text, format!("<|begin_of_text|>{text}<|end_of_text|>"));
        assert_eq!((document.tokens.len() as u64, document.text_bytes), (document.num_tokens, text.len() as u64));
        assert_eq!(document.pieces.first().map(String::as_str), Some("<|begin_of_text|>"));
    }
    let order = Order::new(&dataset.streams(40), &MixtureSpec::default(), 100, 2).unwrap();
    let loader = Loader::new(Arc::clone(&dataset), order, 40);
    let rows = inspect::rows(&loader, &tokenizer, 3..7).unwrap();
    let batch = loader.rows(3..7).unwrap();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(row.index, 3 + i as u64);
        let ids: Vec<u32> = row.documents.iter().flat_map(|d| d.tokens.iter().copied()).collect();
        let (tokens, ..) = row_of(&batch, i);
        assert_eq!(ids[..ids.len().min(40)], tokens[..ids.len().min(40)]);
        assert!(ids.len() <= 41);
    }
    let other = Tokenizer::open(&support::shared("fixtures/llama/hf").unwrap_or(dir.path().join("tokenizer"))).unwrap();
    if other.digest() != tokenizer.digest() {
        assert!(matches!(inspect::rows(&loader, &other, 0..1), Err(DataError::WrongTokenizer { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn seeking_equals_iterating(seq_len in 1_usize..90, start in 0_u64..300, len in 0_u64..9, seed: u64) {
        let loader = loader(seq_len, 400, seed);
        let sought = loader.rows(start..start + len).unwrap();
        prop_assert_eq!(sought.rows as u64, len);
        for i in 0..len {
            let single = loader.rows(start + i..start + i + 1).unwrap();
            prop_assert_eq!(row_of(&single, 0), row_of(&sought, i as usize));
            prop_assert_eq!(single.components[0], sought.components[i as usize]);
        }
    }

    #[test]
    fn any_row_is_what_the_definition_says(seq_len in 1_usize..200, pick: prop::sample::Index, row: prop::sample::Index) {
        let number = pick.index(shared().train().len());
        let component = &shared().train()[number];
        let row = row.index(component.num_rows(seq_len) as usize) as u64;
        let window = component.row(row, seq_len).unwrap();
        let (tokens, _, segments, _) = naive_row(component, row, seq_len);
        let inputs = window.ids.len().min(seq_len);
        prop_assert_eq!(&window.ids[..inputs], &tokens[..inputs]);
        for (i, span) in window.spans.iter().enumerate() {
            for at in span.tokens.clone().filter(|&at| at < seq_len) {
                prop_assert_eq!(segments[at] as usize, i);
            }
        }
    }
}
