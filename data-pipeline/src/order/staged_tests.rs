//! Tests of stages and quotas: shares, bounds, caps over the run, the order for ever.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use super::tests::{spec, stream, streams};
use super::*;

fn quota(min: Option<f64>, max: Option<f64>, epochs: Option<f64>) -> Quota {
    Quota { min_share: min, max_share: max, max_epochs: epochs }
}

fn bounded(quotas: &[(&str, Quota)], base: MixtureSpec) -> MixtureSpec {
    MixtureSpec { quotas: quotas.iter().map(|(name, quota)| ((*name).to_owned(), *quota)).collect(), ..base }
}

fn stage(until_row: u64, temperature: f64, weights: &[(&str, f64)]) -> StageSpec {
    let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    StageSpec { until_row, temperature: Some(temperature), weights: Some(weights), ..StageSpec::default() }
}

fn counts(order: &Order, rows: Range<u64>) -> Vec<u64> {
    let mut counts = vec![0; order.shares().len()];
    rows.for_each(|i| counts[order.row(i).component] += 1);
    counts
}

fn natural() -> MixtureSpec {
    spec(1.0, &[], f64::INFINITY)
}

#[test]
fn quotas_hold_by_language_source_script_and_licence() {
    let mut list = [
        stream("ary_Arab", "web", 6_000),
        stream("fra_Latn", "web", 3_000),
        stream("zgh_Tfng", "cldr", 600),
        stream("tzm_Tfng", "books", 400),
    ];
    list[1].licences = BTreeMap::from([("CC-BY-SA-4.0".into(), 50), ("MIT".into(), 50)]);
    list[3].licences = BTreeMap::from([("MIT".into(), 10)]);
    let shares = |quotas: &[(&str, Quota)]| -> Vec<f64> {
        let order = Order::new(&list, &bounded(quotas, natural()), 8_000, 1).unwrap();
        order.shares().iter().map(|share| share.share).collect()
    };
    let near = |found: Vec<f64>, expected: [f64; 4]| {
        found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 3e-5, "{found:?} is not {expected:?}"));
    };
    near(
        shares(&[("zgh_Tfng", quota(Some(0.14), None, None))]),
        [0.6 / 0.94 * 0.86, 0.3 / 0.94 * 0.86, 0.14, 0.04 / 0.94 * 0.86],
    );
    near(shares(&[("*/web", quota(None, Some(0.5), None))]), [1. / 3., 1. / 6., 0.3, 0.2]);
    near(shares(&[("*_Tfng", quota(Some(0.3), None, None))]), [0.7 * 2. / 3., 0.7 / 3., 0.18, 0.12]);
    // Half of the French stream is under that licence.
    let found = shares(&[("licence:CC-BY-SA-*", quota(None, Some(0.1), None))]);
    assert!((found[1] - 0.2).abs() < 3e-5, "{found:?}");
    let tight =
        shares(&[("fra_Latn", quota(Some(0.4), Some(0.4), None)), ("zgh_Tfng/cldr", quota(None, Some(0.03), None))]);
    near(tight, [0.57 * 0.6 / 0.64, 0.4, 0.03, 0.57 * 0.04 / 0.64]);
}

#[test]
fn a_part_may_be_repeated_more_or_less_than_the_rest() {
    let list = [stream("fra_Latn", "a", 10_000), stream("zgh_Tfng", "b", 10), stream("rif_Latn", "c", 10)];
    let quotas = [("zgh_Tfng", quota(None, None, Some(16.0))), ("rif_Latn", quota(None, None, Some(2.0)))];
    let order = Order::new(&list, &bounded(&quotas, spec(0.0, &[], 4.0)), 20_000, 1).unwrap();
    let draws: Vec<u64> = order.shares().iter().map(|share| share.draws).collect();
    assert!((159..=161).contains(&draws[1]) && (19..=21).contains(&draws[2]), "{draws:?}");
    assert!(order.shares().iter().map(|s| s.capped).eq([false, true, true]));
}

#[test]
fn stages_have_their_own_shares_and_count_draws_on() {
    let list = [stream("fra_Latn", "a", 900), stream("zgh_Tfng", "b", 100)];
    let stages = vec![stage(400, 1.0, &[]), stage(0, 0.0, &[])];
    let order = Order::new(&list, &MixtureSpec { stages, ..natural() }, 1_000, 5).unwrap();
    assert_eq!(order.stages(), [0..400, 400..1_000]);
    assert_eq!(counts(&order, 0..400), [360, 40]);
    assert_eq!(counts(&order, 400..1_000), [300, 300]);
    let mut seen: HashMap<usize, HashSet<u64>> = HashMap::new();
    for i in 0..1_000 {
        let row = order.row(i);
        let epoch = seen.entry(row.component).or_default();
        assert!(epoch.insert(row.row), "row {row:?} comes twice in an epoch");
        if epoch.len() as u64 == list[row.component].rows {
            epoch.clear();
        }
    }
    let (whole, by_stage) = order.exposures(&list);
    assert_eq!(whole.languages["zgh_Tfng"].rows, 340.0);
    assert!((whole.languages["zgh_Tfng"].epochs - 3.4).abs() < 1e-12);
    assert_eq!((by_stage[0].sources["b"].tokens, by_stage[1].sources["b"].tokens), (4_000.0, 30_000.0));
    assert!((by_stage[1].components["fra_Latn/a"].share - 0.5).abs() < 1e-12);
}

#[test]
fn a_cap_is_shared_by_the_stages_in_proportion() {
    let list = [stream("fra_Latn", "a", 10_000), stream("zgh_Tfng", "b", 10)];
    // Equal shares first, then a quarter: 1250 rows of Tifinagh are wanted where 80 can be had.
    let stages = vec![stage(1_000, 0.0, &[]), stage(0, 0.0, &[("fra_Latn", 3.0)])];
    let order = Order::new(&list, &MixtureSpec { stages, ..spec(1.0, &[], 8.0) }, 4_000, 5).unwrap();
    let (first, second) = (counts(&order, 0..1_000)[1], counts(&order, 1_000..4_000)[1]);
    assert!((79..=81).contains(&(first + second)), "{first} and {second}");
    assert!(first >= 35 && second >= 35, "neither stage takes all: {first} and {second}");
}

#[test]
fn impossible_quotas_say_what_to_write() {
    let list = [stream("ary_Arab", "a", 1_000), stream("zgh_Tfng", "b", 10)];
    let message = |quotas: &[(&str, Quota)], rows: u64| {
        Order::new(&list, &bounded(quotas, spec(1.0, &[], 8.0)), rows, 1).unwrap_err().to_string()
    };
    assert_eq!(
        message(&[("zgh_Tfng", quota(Some(0.2), None, None))], 1_000),
        "mixture.quotas.zgh_Tfng: min_share 0.2 of 1000 rows (stage 1) is 200 rows, but zgh_Tfng has 10, which may be \
         repeated 8 times; lower it to 0.08 or raise `max_epochs` of zgh_Tfng to 20"
    );
    let unknown = message(&[("zgh_Latn", quota(Some(0.2), None, None))], 1_000);
    assert!(
        unknown
            .starts_with("mixture.quotas.zgh_Latn: the dataset has no such language, source or licence; it has `*/a`")
    );
    let together =
        message(&[("zgh_Tfng", quota(None, Some(0.2), None)), ("ary_Arab", quota(None, Some(0.5), None))], 50);
    assert_eq!(
        together,
        "mixture.quotas: in stage 1 of 1 these cannot be met together with the repeat caps: `ary_Arab: {max_share: 0.5}`, \
         `zgh_Tfng: {max_share: 0.2}`; lower a `min_share`, raise a `max_share` or `max_epochs`, or give more of the \
         data a weight above 0"
    );
    let above = message(&[("ary_Arab", quota(Some(0.6), Some(0.5), None))], 50);
    assert!(above.contains("min_share: 0.6 is not at most the `max_share` beside it"), "{above}");
    let zero = message(&[("ary_Arab", quota(None, Some(0.0), None))], 50);
    assert!(zero.contains("max_share: 0 is not a share above 0"), "{zero}");
    let sums = message(&[("ary_Arab", quota(Some(0.95), None, None)), ("zgh_Tfng", quota(Some(0.1), None, None))], 50);
    assert!(sums.contains("`ary_Arab: {min_share: 0.95}`, `zgh_Tfng: {min_share: 0.1}`"), "{sums}");
    let stages = vec![stage(40, 1.0, &[]), stage(40, 1.0, &[]), stage(0, 1.0, &[])];
    let order = Order::new(&list, &MixtureSpec { stages, ..natural() }, 50, 1).unwrap_err().to_string();
    assert!(order.starts_with("mixture.stages[1].until: the stage would end at row 40 of 50"), "{order}");
}

#[test]
fn the_staged_order_is_fixed_for_ever() {
    let stages = vec![stage(6, 1.0, &[]), stage(0, 0.0, &[])];
    let order = Order::new(&streams(&[40, 20]), &MixtureSpec { stages, ..natural() }, 12, 7).unwrap();
    let rows: Vec<(usize, u64)> = (0..12).map(|i| order.row(i)).map(|r| (r.component, r.row)).collect();
    assert_eq!(rows, GOLDEN, "a change here reorders the data of every resumed run");
}

const GOLDEN: [(usize, u64); 12] =
    [(0, 15), (0, 36), (1, 17), (0, 27), (0, 12), (1, 3), (0, 20), (1, 5), (0, 5), (1, 7), (0, 25), (1, 14)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_beginning_of_a_stage_holds_its_shares_to_within_one_row(
        rows in proptest::collection::vec(100_u64..9_000, 2..9), cuts in proptest::collection::vec(1_u64..900, 1..4),
        temperatures in proptest::collection::vec(0.0..=1.0_f64, 4), seed: u64,
    ) {
        let list = streams(&rows);
        let mut until = 0;
        let stages: Vec<StageSpec> = cuts.iter().zip(&temperatures).map(|(cut, t)| {
            until += cut;
            stage(until, *t, &[])
        }).collect();
        let order = Order::new(&list, &MixtureSpec { stages, ..natural() }, until, seed).unwrap();
        for (range, stage) in order.stages().into_iter().zip(&order.stages) {
            let mut counts = vec![0_u64; rows.len()];
            for i in range.clone() {
                counts[order.row(i).component] += 1;
                let done = i + 1 - range.start;
                for (count, quota) in counts.iter().zip(&stage.quotas) {
                    prop_assert!((count * BLOCK_ROWS).abs_diff(done * quota) < BLOCK_ROWS);
                }
            }
        }
    }

    #[test]
    fn quotas_and_caps_hold_over_any_window(
        rows in proptest::collection::vec(1_000_u64..20_000, 3..8), least in 0.01..0.3_f64, most in 0.1..0.5_f64,
        window in 1_u64..3_000, start in 0_u64..2_000,
    ) {
        let list = streams(&rows);
        let quotas = [("*/s0", quota(Some(least), None, None)), ("l1_Latn", quota(None, Some(most), None)),
            ("lb_Latn", quota(None, Some(most), Some(1.5)))];
        let known: Vec<(&str, Quota)> = quotas.into_iter().filter(|(name, _)| *name != "l1_Latn").collect();
        let made = Order::new(&list, &bounded(&known, natural()), 6_000, 3);
        let Ok(order) = made else { return Ok(()) };
        let window_counts = counts(&order, start..start + window);
        let sum = |name: &str, list: &[Stream]| -> (u64, u64) {
            let own = list.iter().zip(&window_counts).filter(|(s, _)| super::quota::coverage(name, s) > 0.0);
            own.fold((0, 0), |(sum, parts), (_, count)| (sum + count, parts + 1))
        };
        // Each component is within one row at both ends of the window, and within a place of the block in its share.
        let (first, _) = sum("*/s0", &list);
        prop_assert!(first as f64 >= least * window as f64 - 2.1, "{} of {} at least {}", first, window, least);
        let (capped, parts) = sum("lb_Latn", &list);
        let slack = 2.1 * f64::from(parts as u32);
        prop_assert!(capped as f64 <= most * window as f64 + slack, "{} of {} at most {}", capped, window, most);
        for share in order.shares() {
            let cap = if share.stream.lang == "lb_Latn" { 1.5 } else { f64::INFINITY };
            prop_assert!(share.draws as f64 <= cap * share.stream.rows as f64 + 2.0);
        }
    }

    #[test]
    fn any_start_and_any_world_see_the_same_rows(world in 1_u64..9, per_step in 1_u64..9, seed: u64, resumed in 0_u64..30) {
        let stages = vec![stage(300, 1.0, &[]), stage(700, 0.5, &[("la_Latn", 2.0)]), stage(0, 0.0, &[])];
        let make = || Order::new(&streams(&[300, 70, 90]), &MixtureSpec { stages: stages.clone(), ..natural() }, 2_000, seed);
        let (order, again) = (make().unwrap(), make().unwrap());
        let rows_per_step = world * per_step;
        for step in resumed..30 {
            for rank in 0..world {
                let first = step * rows_per_step + rank * per_step;
                for i in first..first + per_step {
                    prop_assert_eq!(again.row(i), order.row(i));
                }
            }
        }
        let at = resumed * rows_per_step;
        let mut counted = vec![0_u64; 3];
        (0..at).for_each(|i| counted[order.row(i).component] += 1);
        prop_assert_eq!(order.draws_before(at), counted);
    }
}
