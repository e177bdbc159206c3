//! Tests of the order of rows: bijections, shares, seeking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::*;

pub(super) fn stream(lang: &str, source: &str, rows: u64) -> Stream {
    Stream {
        lang: lang.into(),
        source: source.into(),
        rows,
        tokens: rows * 100,
        text_bytes: rows * 400,
        licences: BTreeMap::new(),
    }
}

pub(super) fn streams(rows: &[u64]) -> Vec<Stream> {
    let name = |i: usize| format!("l{}_Latn", (b'a' + (i % 3) as u8) as char);
    rows.iter().enumerate().map(|(i, &rows)| stream(&name(i), &format!("s{i}"), rows)).collect()
}

pub(super) fn spec(temperature: f64, weights: &[(&str, f64)], max_epochs: f64) -> MixtureSpec {
    MixtureSpec {
        temperature,
        weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
        max_epochs,
        ..MixtureSpec::default()
    }
}

#[test]
fn datasets_share_by_their_weights_and_inside_as_they_would_alone() {
    let streams = [stream("fra_Latn", "old", 9_000), stream("ary_Arab", "old", 1_000), stream("ary_Arab", "new", 100)];
    let part = |streams, weight| PartShare { streams, weight };
    let mix = |parts: &[PartShare]| MixtureSpec { parts: parts.to_vec(), ..spec(1.0, &[], f64::INFINITY) };
    near(&shares(&streams, &mix(&[part(2, 0.2), part(1, 0.8)])), &[0.18, 0.02, 0.8]);
    near(&shares(&streams, &mix(&[part(2, 0.0), part(1, 3.0)])), &[0.0, 0.0, 1.0]);
    let left_out = MixtureSpec { weights: [("fra_Latn".to_owned(), 0.0)].into(), ..mix(&[part(1, 1.0), part(2, 1.0)]) };
    near(&shares(&streams, &left_out), &[0.0, 1_000. / 1_100., 100. / 1_100.]);
    let negative = Order::new(&streams, &mix(&[part(2, -1.0), part(1, 1.0)]), 10, 1).unwrap_err().to_string();
    assert!(negative.starts_with("datasets[0].weight: -1 is not a share"), "{negative}");
}

#[test]
fn streams_of_one_name_in_two_datasets_are_shuffled_apart() {
    let streams = [stream("ary_Arab", "a", 1_000), stream("ary_Arab", "a", 1_000)];
    let order = Order::new(&streams, &spec(1.0, &[], f64::INFINITY), 2_000, 1).unwrap();
    let rows = |component| -> Vec<u64> {
        (0..2_000).map(|i| order.row(i)).filter(|row| row.component == component).map(|row| row.row).collect()
    };
    assert_ne!(rows(0), rows(1));
    let alone = Order::new(&streams[..1], &spec(1.0, &[], f64::INFINITY), 1_000, 1).unwrap();
    let alone: Vec<u64> = (0..900).map(|i| alone.row(i).row).collect();
    assert_eq!(rows(0)[..900], alone, "the order of a dataset does not change when another joins it");
}

fn shares(streams: &[Stream], spec: &MixtureSpec) -> Vec<f64> {
    let order = Order::new(streams, spec, 1_000_000, 1).unwrap();
    order.shares().iter().map(|share| share.share).collect()
}

fn near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 2e-5, "{found:?} is not {expected:?}");
    }
}

#[test]
fn temperature_moves_languages_between_natural_and_equal_shares() {
    let streams = [stream("ara_Arab", "a", 900), stream("zgh_Tfng", "b", 75), stream("zgh_Tfng", "c", 25)];
    near(&shares(&streams, &spec(1.0, &[], f64::INFINITY)), &[0.9, 0.075, 0.025]);
    near(&shares(&streams, &spec(0.0, &[], f64::INFINITY)), &[0.5, 0.375, 0.125]);
    near(&shares(&streams, &spec(0.5, &[], f64::INFINITY)), &[0.75, 0.1875, 0.0625]);
}

#[test]
fn weights_multiply_by_language_source_and_pair() {
    let streams = [stream("ary_Arab", "a", 100), stream("ary_Latn", "a", 100), stream("ary_Latn", "b", 100)];
    near(&shares(&streams, &spec(1.0, &[("ary_Latn", 2.0)], f64::INFINITY)), &[0.2, 0.4, 0.4]);
    near(
        &shares(&streams, &spec(1.0, &[("*/a", 0.5), ("ary_Latn/a", 4.0)], f64::INFINITY)),
        &[1. / 7., 4. / 7., 2. / 7.],
    );
    near(&shares(&streams, &spec(1.0, &[("*/a", 0.0)], f64::INFINITY)), &[0.0, 0.0, 1.0]);
}

#[test]
fn the_repeat_cap_hands_rows_to_the_others() {
    let streams = [stream("fra_Latn", "a", 10_000), stream("zgh_Tfng", "b", 10)];
    let order = Order::new(&streams, &spec(0.0, &[], 4.0), 2_000, 1).unwrap();
    let [french, tamazight] = order.shares() else { panic!("two shares") };
    assert!(tamazight.capped && !french.capped);
    assert!((tamazight.wanted - 0.5).abs() < 1e-12);
    assert!((39..=41).contains(&tamazight.draws), "{}", tamazight.draws);
    assert_eq!(french.draws + tamazight.draws, 2_000);
    assert!((tamazight.epochs - 4.0).abs() < 0.11);
}

#[test]
fn impossible_mixtures_say_what_to_write() {
    let streams = [stream("ary_Arab", "a", 100), stream("ary_Latn", "b", 50)];
    let message = |spec: &MixtureSpec| Order::new(&streams, spec, 1_000, 1).unwrap_err().to_string();
    assert_eq!(
        message(&spec(1.0, &[], 4.0)),
        "mixture.max_epochs: 600 rows at most can be drawn (150 rows, each up to 4 times), the run asks for 1000; \
         write max_epochs: 6.67 or more, train fewer steps, or prepare more data"
    );
    assert_eq!(
        message(&spec(1.0, &[("ary_Latm", 2.0)], 9.0)),
        "mixture.weights.ary_Latm: the dataset has no such language or source; it has `*/a`, `*/b`, `ary_Arab`, \
         `ary_Arab/a`, `ary_Latn`, `ary_Latn/b`"
    );
    assert_eq!(
        message(&spec(1.0, &[("ary_Latn", 0.0), ("ary_Arab", 0.0)], 9.0)),
        "mixture.weights: nothing is left to train on; give at least one language that has rows a weight above 0"
    );
    assert_eq!(message(&spec(1.0, &[("*/a", -1.0)], 9.0)), "mixture.weights.*/a: -1 is not a factor of 0 or more");
    assert_eq!(
        message(&spec(f64::NAN, &[], 9.0)),
        "mixture.temperature: NaN is not between 0 (languages equal) and 1 (natural shares)"
    );
    assert_eq!(
        message(&spec(1.0, &[], 0.0)),
        "mixture.max_epochs: 0 is not a number above 0; it caps how often a row is repeated"
    );
    assert!(matches!(Order::new(&[], &MixtureSpec::default(), 1, 1), Err(OrderError::NothingLeft)));
    let empty = [stream("ary_Arab", "a", 0)];
    assert!(matches!(Order::new(&empty, &MixtureSpec::default(), 1, 1), Err(OrderError::NothingLeft)));
}

#[test]
fn an_epoch_of_the_natural_mixture_shows_every_row_once() {
    let streams = streams(&[700, 250, 50]);
    let order = Order::new(&streams, &MixtureSpec::default(), 1_000, 3).unwrap();
    let seen: HashSet<RowRef> = (0..1_000).map(|i| order.row(i)).collect();
    assert!(seen.len() >= 998, "{} of 1000 rows; rounding to places may repeat one row a component", seen.len());
    assert!(order.shares().iter().all(|share| (share.epochs - 1.0).abs() < 0.03), "{:?}", order.shares());
}

#[test]
fn every_stretch_holds_the_mixture() {
    let order = Order::new(&streams(&[70_000, 20_000, 9_000, 1_000]), &MixtureSpec::default(), 100_000, 3).unwrap();
    for start in (0..200_000).step_by(997) {
        let mut counts = [0_u64; 4];
        (start..start + 1_000).for_each(|i| counts[order.row(i).component] += 1);
        for (count, expected) in counts.iter().zip([700_u64, 200, 90, 10]) {
            assert!(count.abs_diff(expected) <= 8, "{counts:?} from {start}");
        }
    }
}

#[test]
fn adding_a_component_keeps_the_permutations_of_the_others() {
    let few = streams(&[500, 300]);
    let more = streams(&[500, 300, 40]);
    let rows = |streams: &[Stream]| {
        let order = Order::new(streams, &MixtureSpec::default(), 1_000, 9).unwrap();
        let first = (0..65_536).map(|i| order.row(i)).filter(|row| row.component == 0);
        first.map(|row| row.row).take(500).collect::<Vec<_>>()
    };
    assert_eq!(rows(&few), rows(&more));
}

#[test]
fn the_order_is_fixed_for_ever() {
    let order = Order::new(&streams(&[40, 20]), &MixtureSpec::default(), 60, 7).unwrap();
    let rows: Vec<(usize, u64)> = (0..6).map(|i| order.row(i)).map(|r| (r.component, r.row)).collect();
    assert_eq!(rows, GOLDEN, "a change here reorders the data of every resumed run");
}

const GOLDEN: [(usize, u64); 6] = [(0, 15), (1, 17), (0, 36), (0, 27), (1, 3), (0, 12)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn epochs_are_complete_and_follow_each_other(
        rows in proptest::collection::vec(1_u64..3_000, 1..6), temperature in 0.0..=1.0_f64, seed: u64,
    ) {
        let streams = streams(&rows);
        let order = Order::new(&streams, &spec(temperature, &[], f64::INFINITY), 100_000, seed).unwrap();
        let mut seen: HashMap<usize, HashSet<u64>> = HashMap::new();
        for i in 0..150_000 {
            let RowRef { component, row } = order.row(i);
            prop_assert!(row < rows[component]);
            let epoch = seen.entry(component).or_default();
            prop_assert!(epoch.insert(row), "row {} of component {} comes twice in an epoch", row, component);
            if epoch.len() as u64 == rows[component] {
                epoch.clear();
            }
        }
    }

    #[test]
    fn draws_are_counted_and_quotas_fill_the_block(
        rows in proptest::collection::vec(1_u64..900_000, 1..20), temperature in 0.0..=1.0_f64, upto in 0_u64..200_000,
    ) {
        let streams = streams(&rows);
        let order = Order::new(&streams, &spec(temperature, &[], f64::INFINITY), upto.max(1), 5).unwrap();
        let mut counted = vec![0_u64; rows.len()];
        (0..upto).for_each(|i| counted[order.row(i).component] += 1);
        prop_assert_eq!(order.draws_before(upto), counted);
        prop_assert_eq!(order.draws_before(BLOCK_ROWS).iter().sum::<u64>(), BLOCK_ROWS);
        let total: f64 = order.shares().iter().map(|share| share.share).sum();
        prop_assert!((total - 1.0).abs() < 1e-9);
        for share in order.shares() {
            prop_assert!((share.share - share.wanted).abs() <= 1.0 / BLOCK_ROWS as f64 + 1e-9);
        }
    }

    #[test]
    fn caps_hold_to_within_rounding(
        rows in proptest::collection::vec(1_u64..3_000, 2..8), temperature in 0.0..=1.0_f64, cap in 0.5..6.0_f64, part in 0.1..1.0_f64,
    ) {
        let streams = streams(&rows);
        let available = rows.iter().sum::<u64>() as f64 * cap;
        let total = ((available * part) as u64).max(1);
        let Ok(order) = Order::new(&streams, &spec(temperature, &[], cap), total, 5) else {
            return Err(TestCaseError::fail("there are enough rows"));
        };
        let rounding = total as f64 / BLOCK_ROWS as f64 + rows.len() as f64 + 1.0;
        for share in order.shares() {
            prop_assert!(share.draws as f64 <= cap * share.stream.rows as f64 + rounding, "{:?}", share);
        }
    }

    #[test]
    fn ranks_together_see_what_one_sees(world in 1_u64..9, per_step in 1_u64..40, seed: u64) {
        let order = Order::new(&streams(&[300, 70, 9]), &spec(0.5, &[], f64::INFINITY), 4_000, seed).unwrap();
        let rows_per_step = world * per_step;
        let mut together: BTreeMap<u64, RowRef> = BTreeMap::new();
        for rank in 0..world {
            for step in 0..10 {
                let first = step * rows_per_step + rank * per_step;
                together.extend((first..first + per_step).map(|i| (i, order.row(i))));
            }
        }
        let alone: Vec<RowRef> = (0..10 * rows_per_step).map(|i| order.row(i)).collect();
        prop_assert_eq!(together.into_values().collect::<Vec<_>>(), alone);
    }
}
