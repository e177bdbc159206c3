//! Owns measuring the filters and the removal of personal data: generated texts, garbage, the corpora.
//!
//! `cargo nextest run -p data-pipeline --run-ignored all --no-capture scrub::` prints every table.

mod garbage;
mod generator;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_pipeline::filters::{FilterConfig, Filters, Rule};
use data_pipeline::pii::{Kind, PiiConfig, Scrubber};

/// True positives, false positives, false negatives.
#[derive(Default, Clone, Copy)]
struct Score {
    right: u64,
    wrong: u64,
    missed: u64,
}

impl Score {
    fn precision(&self) -> f64 {
        self.right as f64 / (self.right + self.wrong).max(1) as f64
    }

    fn recall(&self) -> f64 {
        self.right as f64 / (self.right + self.missed).max(1) as f64
    }
}

/// Scores of every kind on the generated set; examples of mistakes are printed.
fn pii_scores(per_kind: usize, show: usize) -> BTreeMap<Kind, Score> {
    let scrubber = Scrubber::new(&PiiConfig::default());
    let mut scores: BTreeMap<Kind, Score> = BTreeMap::new();
    let mut shown = 0;
    for sample in generator::samples(per_kind) {
        let mut found: Vec<(Kind, String)> =
            scrubber.find(&sample.text).into_iter().map(|f| (f.kind, sample.text[f.range].to_owned())).collect();
        let mut mistakes = Vec::new();
        for (kind, value) in &sample.expected {
            // A bracket or letter more or less at the ends is no mistake; every digit of the value must be inside.
            let core: String = value.trim_matches(['(', ')', '+', ' ']).to_owned();
            match found.iter().position(|(k, text)| k == kind && text.contains(&core)) {
                Some(at) => {
                    found.remove(at);
                    scores.entry(*kind).or_default().right += 1;
                }
                None => {
                    scores.entry(*kind).or_default().missed += 1;
                    mistakes.push(format!("missed {} {value:?}", kind.name()));
                }
            }
        }
        for (kind, text) in &found {
            scores.entry(*kind).or_default().wrong += 1;
            mistakes.push(format!("wrong {} {text:?}", kind.name()));
        }
        if !mistakes.is_empty() && shown < show {
            shown += 1;
            eprintln!("{} in {:?}", mistakes.join(", "), sample.text);
        }
    }
    scores
}

#[test]
fn generated_numbers_are_found_and_others_are_not() {
    let scores = pii_scores(64, 40);
    let weak: Vec<String> = scores
        .iter()
        .filter(|(_, score)| score.precision() < 0.98 || score.recall() < 0.97)
        .map(|(kind, score)| format!("{} {:.3} {:.3}", kind.name(), score.precision(), score.recall()))
        .collect();
    assert_eq!(scores.len(), Kind::ALL.len());
    assert!(weak.is_empty(), "precision and recall: {weak:?}");
}

#[test]
#[ignore = "prints the table of benches/results"]
fn table_of_personal_data() {
    println!("| kind | found rightly | found wrongly | missed | precision | recall |\n|---|---|---|---|---|---|");
    for (kind, score) in pii_scores(500, 0) {
        let Score { right, wrong, missed } = score;
        println!(
            "| {} | {right} | {wrong} | {missed} | {:.4} | {:.4} |",
            kind.name(),
            score.precision(),
            score.recall()
        );
    }
}

/// Rows of a corpus: text, label, source.
fn rows(path: &PathBuf) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).ok()?;
            let field = |name: &str| row.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            let label =
                data_pipeline::document::language_label(&field("lang"), row.get("script").and_then(|v| v.as_str()));
            Some((field("text"), label.unwrap_or_default(), field("source")))
        })
        .collect()
}

fn corpora() -> Option<Vec<(String, PathBuf)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    if !root.exists() {
        eprintln!("SKIPPED: ../shared is absent");
        return None;
    }
    let mut all: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path.join("data.jsonl")))
        .filter(|(_, path)| path.exists())
        .collect();
    all.sort();
    Some(all)
}

fn filters() -> Filters {
    Filters::new(&FilterConfig::default()).unwrap()
}

#[test]
fn garbage_is_caught() {
    let filters = filters();
    let mut caught: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for page in garbage::pages(20) {
        let dropped = filters.judge(&page.text, page.label, "web").is_err();
        let count = caught.entry(page.sort).or_default();
        *count = (count.0 + u32::from(dropped), count.1 + 1);
        if !dropped {
            eprintln!("kept {} {}: {:?}", page.sort, page.label, filters.measure(&page.text, page.label));
        }
    }
    let weak: Vec<_> = caught.iter().filter(|(_, (dropped, all))| dropped * 100 < all * 95).collect();
    assert!(weak.is_empty() && caught.len() == garbage::SORTS.len(), "{weak:?}");
}

#[test]
#[ignore = "prints the table of benches/results"]
fn table_of_filters() {
    let filters = filters();
    println!("| garbage | pages | caught | by |\n|---|---|---|---|");
    for sort in garbage::SORTS {
        let pages: Vec<_> = garbage::pages(40).into_iter().filter(|page| page.sort == *sort).collect();
        let mut rules: BTreeMap<&str, u32> = BTreeMap::new();
        for page in &pages {
            if let Err(reason) = filters.judge(&page.text, page.label, "web") {
                *rules.entry(reason.rule.name()).or_default() += 1;
            }
        }
        let caught: u32 = rules.values().sum();
        println!(
            "| {sort} | {} | {:.1} % | {} |",
            pages.len(),
            f64::from(caught) * 100.0 / pages.len() as f64,
            list(&rules)
        );
    }
    let Some(corpora) = corpora() else { return };
    println!(
        "\n| corpus | language | rows | long texts | dropped of all, % | dropped of long, % | rules broken (% of long) |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, path) in corpora {
        let mut tables: BTreeMap<String, Drops> = BTreeMap::new();
        for (text, label, source) in rows(&path) {
            let signals = filters.measure(&text, &label);
            let drops = tables.entry(label.clone()).or_default();
            drops.rows += 1;
            drops.long += u32::from(!filters.is_short(&signals, &source));
            let mut broken = filters.broken(&signals, &label, &source).peekable();
            drops.dropped += u32::from(broken.peek().is_some());
            for reason in broken {
                *drops.rules.entry(reason.rule).or_default() += 1;
            }
        }
        for (label, drops) in tables {
            let of = |count: u32, all: u32| f64::from(count) * 100.0 / f64::from(all.max(1));
            let rules: Vec<String> = drops
                .rules
                .iter()
                .map(|(rule, count)| format!("{} {:.2}", rule.name(), of(*count, drops.long)))
                .collect();
            println!(
                "| {name} | {label} | {} | {} | {:.2} | {:.2} | {} |",
                drops.rows,
                drops.long,
                of(drops.dropped, drops.rows),
                of(drops.dropped, drops.long),
                rules.join(", ")
            );
        }
    }
}

#[derive(Default)]
struct Drops {
    rows: u32,
    long: u32,
    dropped: u32,
    rules: BTreeMap<Rule, u32>,
}

fn list(rules: &BTreeMap<&str, u32>) -> String {
    let mut all: Vec<_> = rules.iter().collect();
    all.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), **name));
    all.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Findings on the corpora by source and kind, with a few to look at.
#[test]
#[ignore = "prints what is found in the corpora"]
fn findings_in_the_corpora() {
    let scrubber = Scrubber::new(&PiiConfig::default());
    for (name, path) in corpora().unwrap_or_default() {
        let mut found: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
        for (text, ..) in rows(&path) {
            for finding in scrubber.find(&text) {
                let from = text[..finding.range.start].char_indices().rev().nth(30).map_or(0, |(at, _)| at);
                let to = (finding.range.end..text.len())
                    .filter(|at| text.is_char_boundary(*at))
                    .nth(12)
                    .unwrap_or(text.len());
                let shown = format!(
                    "{}[{}]{}",
                    &text[from..finding.range.start],
                    &text[finding.range.clone()],
                    &text[finding.range.end..to]
                );
                found.entry(finding.kind).or_default().push(shown.replace('\n', " "));
            }
        }
        for (kind, all) in found {
            println!("{name} {} {}", kind.name(), all.len());
            let step = (all.len() / 12).max(1);
            all.iter().step_by(step).for_each(|shown| println!("    {shown}"));
        }
    }
}

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "prints speeds"]
fn speeds() {
    let (filters, scrubber) = (filters(), Scrubber::new(&PiiConfig::default()));
    println!("| corpus | MB | words, MB per CPU s | filters | personal data | findings |\n|---|---|---|---|---|---|");
    let mut sums = [0.0; 4];
    let per_second = |bytes: f64, seconds: f64| bytes / 1e6 / seconds.max(1e-9);
    for (name, path) in corpora().unwrap_or_default() {
        let rows = rows(&path);
        let bytes: f64 = rows.iter().map(|row| row.0.len() as f64).sum();
        let mut found = 0;
        let mut times = [f64::MAX; 3];
        for _ in 0..3 {
            let start = cpu_seconds();
            let words: usize = rows.iter().map(|row| data_pipeline::words::words(&row.0).count()).sum();
            let counted = cpu_seconds();
            let kept = rows.iter().filter(|row| filters.judge(&row.0, &row.1, &row.2).is_ok()).count();
            let filtered = cpu_seconds();
            found = rows.iter().map(|row| scrubber.scrub(&row.0).1.found_total()).sum();
            let scrubbed = cpu_seconds();
            assert!(words > 0 && kept > 0);
            for (time, now) in times.iter_mut().zip([counted - start, filtered - counted, scrubbed - filtered]) {
                *time = time.min(now);
            }
        }
        let [words, judged, scrubbed] = times.map(|time| per_second(bytes, time));
        println!("| {name} | {:.1} | {words:.0} | {judged:.0} | {scrubbed:.0} | {found} |", bytes / 1e6);
        sums.iter_mut().zip([bytes, times[0], times[1], times[2]]).for_each(|(sum, value)| *sum += value);
    }
    let [bytes, words, judged, scrubbed] = sums;
    println!(
        "| all | {:.1} | {:.0} | {:.0} | {:.0} | |",
        bytes / 1e6,
        per_second(bytes, words),
        per_second(bytes, judged),
        per_second(bytes, scrubbed)
    );
}
