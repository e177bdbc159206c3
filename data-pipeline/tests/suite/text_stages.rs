//! Prints how fast each stage reads the pages of the corpora, in MB of text per CPU second of one thread:
//! `cargo test --release -p data-pipeline --test suite -- --ignored --nocapture text_stages`.

use std::collections::BTreeMap;

use data_pipeline::filters::{FilterConfig, Filters};
use data_pipeline::lid::Identifier;
use data_pipeline::normalize::{Changes, Normalize, Profile};
use data_pipeline::pii::{PiiConfig, Scrubber};
use data_pipeline::repair::Repairer;

use crate::support::pages::{Page, pages, rows};
use crate::support::shared;

/// Rounds of which the fastest counts: other work on the machine only ever slows one down.
const ROUNDS: usize = 3;
const NAMES: [&str; 6] = ["normalise", "repair", "identify", "filters", "PII", "normalise + identify + filters"];

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn normalised(page: &Page) -> String {
    let form = Normalize::Profile(Profile::default());
    form.apply_to(&page.text, Some(&page.label), &mut Changes::default()).into_owned()
}

/// The fastest of some rounds over the pages of each label, in seconds; what `work` gives back is added up so that
/// nothing is left out.
fn time(pages: &[Page], seconds: &mut BTreeMap<String, [f64; NAMES.len()]>, at: usize, work: &dyn Fn(&Page) -> usize) {
    let mut best: BTreeMap<&str, f64> = BTreeMap::new();
    let mut sum = 0;
    for _ in 0..ROUNDS {
        let mut round: BTreeMap<&str, f64> = BTreeMap::new();
        for run in pages.chunk_by(|a, b| a.label == b.label) {
            let start = cpu_seconds();
            sum += run.iter().map(work).sum::<usize>();
            *round.entry(&run[0].label).or_default() += cpu_seconds() - start;
        }
        for (label, seconds) in round {
            let best = best.entry(label).or_insert(f64::MAX);
            *best = best.min(seconds);
        }
    }
    assert!(sum > 0);
    for (label, best) in best {
        seconds.entry(label.to_owned()).or_default()[at] = best;
    }
}

#[test]
#[ignore = "prints a table; needs ../shared and a release build"]
fn speeds() {
    let Some(corpora) = shared("corpora") else { return };
    let mut raw = pages(&rows(&corpora));
    raw.sort_by(|a, b| a.label.cmp(&b.label));
    let clean: Vec<Page> = raw.iter().map(|page| Page { text: normalised(page), ..page.clone() }).collect();
    let (filters, scrubber) = (Filters::new(&FilterConfig::default()).unwrap(), Scrubber::new(&PiiConfig::default()));
    let (repairer, identifier) = (Repairer::embedded(), Identifier::embedded());
    let mut seconds = BTreeMap::new();
    let identify = |text: &str| identifier.identify(text).document_label();
    time(&raw, &mut seconds, 0, &|page| {
        let form = Normalize::Profile(Profile::default());
        form.apply_to(&page.text, Some(&page.label), &mut Changes::default()).len()
    });
    time(&clean, &mut seconds, 1, &|page| {
        repairer.repair(&page.text, Some(&page.label), &mut Changes::default()).0.len()
    });
    time(&clean, &mut seconds, 2, &|page| identify(&page.text).len());
    time(&clean, &mut seconds, 3, &|page| usize::from(filters.judge(&page.text, &page.label, &page.source).is_ok()));
    time(&clean, &mut seconds, 4, &|page| scrubber.scrub(&page.text).1.found_total() as usize + 1);
    time(&raw, &mut seconds, 5, &|page| {
        let form = Normalize::Profile(Profile::default());
        let text = form.apply_to(&page.text, Some(&page.label), &mut Changes::default());
        let label = identify(&text);
        usize::from(filters.judge(&text, &label, &page.source).is_ok()) + 1
    });
    println!(
        "{} pages\n\n| language | MB | {} |\n|---|---|{}",
        raw.len(),
        NAMES.join(" | "),
        "---|".repeat(NAMES.len())
    );
    let mut megabytes: BTreeMap<&str, f64> = BTreeMap::new();
    raw.iter().for_each(|page| *megabytes.entry(&page.label).or_default() += page.text.len() as f64 / 1e6);
    let line = |name: &str, megabytes: f64, seconds: &[f64]| {
        let speeds: Vec<String> =
            seconds.iter().map(|seconds| format!("{:.1}", megabytes / seconds.max(1e-9))).collect();
        println!("| {name} | {megabytes:.2} | {} |", speeds.join(" | "));
    };
    let mut sums = [0.0; NAMES.len()];
    for (label, seconds) in &seconds {
        sums.iter_mut().zip(seconds).for_each(|(sum, seconds)| *sum += seconds);
        // The clock is too coarse for less.
        if megabytes[label.as_str()] > 0.1 {
            line(label, megabytes[label.as_str()], seconds);
        }
    }
    line("all", megabytes.values().sum(), &sums);
}

/// Identification of single sentences, as when a chat or a table of phrases is read.
#[test]
#[ignore = "prints a table; needs ../shared and a release build"]
fn sentences_per_second() {
    let Some(corpora) = shared("corpora") else { return };
    let mut by_script: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows(&corpora).into_iter().filter(|row| (20..300).contains(&row.text.len()) && !row.text.contains('\n'))
    {
        let script = row.label.split('_').nth(1).unwrap_or_default().to_owned();
        by_script.entry(script).or_default().push(row.text);
    }
    let identifier = Identifier::embedded();
    println!(
        "| script | sentences | bytes each | sentences per CPU second | MB per CPU second |\n|---|---|---|---|---|"
    );
    for (script, texts) in by_script.iter().filter(|(_, texts)| texts.len() > 1000) {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let start = cpu_seconds();
            let sum: usize = texts.iter().map(|text| identifier.identify(text).label.len()).sum();
            best = best.min(cpu_seconds() - start);
            assert!(sum > 0);
        }
        let bytes: usize = texts.iter().map(String::len).sum();
        println!(
            "| {script} | {} | {} | {:.0} | {:.1} |",
            texts.len(),
            bytes / texts.len(),
            texts.len() as f64 / best,
            bytes as f64 / 1e6 / best
        );
    }
}
