//! Figures of deduplication and decontamination on the corpora, each printed by one command:
//! `cargo nextest run -p data-pipeline --run-ignored all --no-capture dedup_figures::NAME`. Needs ../shared.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::support::pages::{self, Page, Sequence, cpu_seconds};
use crate::support::reference::{all_pairs_by_prefix, components, shingle_sets};
use crate::support::{NEVER, shared};
use data_pipeline::decontaminate::{Action, Benchmarks, DecontaminateConfig, SearchBuffers};
use data_pipeline::dedup::KeyDigest;
use data_pipeline::near::paragraphs::ParagraphBuffers;
use data_pipeline::near::words::{KeyBuffers, compare_key, words};
use data_pipeline::near::{
    Clusterer, NearConfig, ParagraphConfig, Paragraphs, RepeatFinder, Signature, Signer, SignerBuffers, SpillingKeys,
};

fn corpus() -> Option<Vec<Page>> {
    Some(pages::doubled(&pages::pages(&pages::rows(&shared("corpora")?))))
}

/// Prints megabytes of text per second of user and system time.
fn timed<T>(name: &str, megabytes: f64, work: impl FnOnce() -> T) -> T {
    let before = cpu_seconds();
    let result = work();
    let seconds = (cpu_seconds() - before).max(0.01);
    println!("| {name} | {megabytes:.1} | {seconds:.2} | **{:.1}** |", megabytes / seconds);
    result
}

#[test]
#[ignore = "prints speeds"]
fn speed() {
    let Some(pages) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let megabytes = pages.iter().map(|page| page.text.len()).sum::<usize>() as f64 / 1e6;
    println!("{} pages, {megabytes:.1} MB of text, one thread\n", pages.len());
    println!("| step | MB | CPU s | MB per CPU s |\n|---|---|---|---|");
    let mut buffer = String::new();
    let keys: Vec<u128> = timed("key form and digest", megabytes, || {
        pages.iter().map(|page| KeyDigest::of(&page.text, &mut buffer).key).collect()
    });
    timed("exact: set in memory", megabytes, || {
        let mut seen = HashSet::new();
        keys.iter().filter(|key| !seen.insert((0, **key))).count()
    });
    timed("exact: set that spills", megabytes, || {
        let mut seen = SpillingKeys::new(1, dir.path());
        keys.iter().filter(|key| !seen.insert(0, **key).unwrap()).count()
    });
    let cutter = Paragraphs::new(&ParagraphConfig::default());
    let mut finder = RepeatFinder::new(&ParagraphConfig::default(), dir.path());
    let mut paragraph_buffers = ParagraphBuffers::default();
    timed("paragraph keys", megabytes, || {
        pages.iter().for_each(|page| {
            _ = finder.add(&cutter.keys(&page.text, &page.label, &mut paragraph_buffers)).unwrap();
        });
    });
    let repeats = timed("paragraphs: sorting and choosing", megabytes, || finder.finish(&NEVER).unwrap());
    timed("compare key alone", megabytes, || {
        let mut buffers = KeyBuffers::default();
        pages.iter().for_each(|page| compare_key(&page.text, &page.label, &mut buffers, &mut buffer));
    });
    for (bands, rows) in [(20, 6), (14, 8)] {
        let config = NearConfig { bands, rows, ..NearConfig::default() };
        let signer = Signer::new(&config);
        let mut buffers = SignerBuffers::default();
        let signatures: Vec<Signature> = timed(&format!("MinHash signatures, {bands} x {rows}"), megabytes, || {
            pages.iter().map(|page| signer.sign(&page.text, &page.label, &mut buffers)).collect()
        });
        let mut clusterer = Clusterer::create(&config, dir.path()).unwrap();
        let clusters = timed("bands, buckets, verification, clusters", megabytes, || {
            signatures.iter().for_each(|signature| _ = clusterer.add(signature).unwrap());
            clusterer.finish(&|_, _| (), &NEVER).unwrap()
        });
        println!("| &nbsp; {} near duplicates, {} pairs compared |", clusters.num_duplicates(), clusters.compared);
    }
    println!("| &nbsp; {} different paragraphs repeat, {} go |", repeats.distinct, repeats.removed);
}

#[test]
#[ignore = "prints a table, takes minutes"]
fn against_the_reference() {
    let Some(pages) = corpus() else { return };
    println!("{} pages; the reference compares shingles as strings, all pairs by prefix filtering\n", pages.len());
    println!(
        "| threshold | settings | reference pairs | found in one cluster | clusters | reference clusters | the same |"
    );
    println!("|---|---|---|---|---|---|---|");
    let plain = NearConfig::default();
    let sets = shingle_sets(pages.iter().map(|page| (page.text.as_str(), page.label.as_str())), &plain);
    for threshold in [0.8, 0.7] {
        let pairs = all_pairs_by_prefix(&sets, threshold);
        let expected = components(pages.len(), &pairs);
        let settings = [(20, 6, true), (14, 8, true), (14, 8, false), (60, 4, true)];
        for (bands, rows, verify) in settings {
            let config = NearConfig { bands, rows, verify, threshold, ..NearConfig::default() };
            let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::new(&config));
            let mut clusterer = Clusterer::create(&config, dir.path()).unwrap();
            let mut buffers = SignerBuffers::default();
            for page in &pages {
                clusterer.add(&signer.sign(&page.text, &page.label, &mut buffers)).unwrap();
            }
            let clusters = clusterer.finish(&|_, _| (), &NEVER).unwrap();
            let kept = |document: u32| clusters.duplicate_of(document).unwrap_or(document);
            let found = pairs.iter().filter(|(a, b)| kept(*a) == kept(*b)).count();
            let own: Vec<Vec<u32>> = clusters.clusters().map(|cluster| cluster.members).collect();
            let known: HashSet<&Vec<u32>> = expected.iter().collect();
            let same = own.iter().filter(|cluster| known.contains(cluster)).count();
            println!(
                "| {threshold} | {bands} x {rows}{} | {} | {:.3} % | {} | {} | {same} |",
                if verify { ", verified" } else { ", not verified" },
                pairs.len(),
                100.0 * found as f64 / pairs.len() as f64,
                own.len(),
                expected.len()
            );
        }
    }
}

/// Another way to write a text: no diacritics lost or won matter, nor case, tatweel, hamza, punctuation.
fn respelled(text: &str, sequence: &mut Sequence) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            'أ' | 'إ' | 'آ' => out.push('ا'),
            'ة' => out.push('ه'),
            'ى' => out.push('ي'),
            c if c.is_lowercase() && sequence.below(2) == 0 => out.extend(c.to_uppercase()),
            c => out.push(c),
        }
        if ('\u{628}'..='\u{64a}').contains(&c) && sequence.below(6) == 0 {
            out.push('\u{64e}');
        }
        if matches!(c, 'س' | 'ص' | 'م' | 'ن') && sequence.below(6) == 0 {
            out.push('\u{640}');
        }
        if c == ' ' && sequence.below(8) == 0 {
            out.push_str("- ");
        }
    }
    out
}

/// Items of a language: from some rows of its sources, at least three words.
fn items<'a>(rows: &'a [Page], label: &str) -> Vec<&'a Page> {
    let count = |page: &Page| {
        let mut key = String::new();
        compare_key(&page.text, &page.label, &mut KeyBuffers::default(), &mut key);
        words(&key).count()
    };
    let fitting: Vec<&Page> = rows
        .iter()
        .filter(|row| row.label == label && (4..60).contains(&count(row)) && row.text.len() < 1500)
        .collect();
    fitting.iter().step_by((fitting.len() / 200).max(1)).take(200).copied().collect()
}

#[test]
#[ignore = "prints a table"]
fn decontamination() {
    let Some(folder) = shared("corpora") else { return };
    let rows = pages::rows(&folder);
    println!(
        "| language | items | planted and found | dropped | clean rows | hit | dropped |\n|---|---|---|---|---|---|---|"
    );
    for label in ["ary_Arab", "ary_Latn", "arb_Arab", "fra_Latn", "eng_Latn", "kab_Latn", "zgh_Tfng"] {
        let items = items(&rows, label);
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<String> = items.iter().map(|item| item.text.replace('\n', " ")).collect();
        std::fs::write(dir.path().join(format!("{label}.txt")), lines.join("\n")).unwrap();
        let benchmarks = Benchmarks::open(&DecontaminateConfig::against(dir.path())).unwrap();
        let mut buffers = SearchBuffers::default();
        let mut sequence = Sequence(11);
        let fillers: Vec<&Page> = rows.iter().filter(|row| row.label == label && row.text.len() < 1000).collect();
        let (mut found, mut dropped) = (0, 0);
        for (number, line) in (1_u32..).zip(&lines) {
            let filler = |sequence: &mut Sequence| fillers[sequence.below(fillers.len())].text.clone();
            let planted =
                format!("{}\n{}\n{}", filler(&mut sequence), respelled(line, &mut sequence), filler(&mut sequence));
            let hits = benchmarks.hits(&planted, label, &mut buffers);
            found += usize::from(hits.iter().any(|hit| hit.item == number || lines[hit.item as usize - 1] == *line));
            dropped += usize::from(hits.iter().any(|hit| hit.item == number && hit.action == Action::Drop));
        }
        // Clean: rows of every language from sources that gave no item, without those that equal one.
        let sources: HashSet<&str> = items.iter().map(|item| item.source.as_str()).collect();
        let clean: Vec<&Page> = rows.iter().filter(|row| !sources.contains(row.source.as_str())).collect();
        let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
        for row in &clean {
            if let Some(worst) = benchmarks.hits(&row.text, &row.label, &mut buffers).iter().map(|hit| hit.action).max()
            {
                *counts.entry(worst).or_default() += 1;
            }
        }
        let drops = counts.get(&Action::Drop).copied().unwrap_or(0);
        println!(
            "| {label} | {} | {found} | {dropped} | {} | {} | {drops} |",
            lines.len(),
            clean.len(),
            counts.values().sum::<usize>()
        );
    }
}

#[test]
#[ignore = "prints speeds"]
fn decontamination_speed() {
    let Some(pages) = corpus() else { return };
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<String> = pages
        .iter()
        .step_by(9)
        .map(|page| page.text.chars().take(300).collect::<String>().replace('\n', " "))
        .collect();
    std::fs::write(dir.path().join("items.txt"), lines.join("\n")).unwrap();
    println!("| step | MB | CPU s | MB per CPU s |\n|---|---|---|---|");
    let bench_megabytes = lines.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let config = DecontaminateConfig::against(dir.path());
    let benchmarks = timed("index", bench_megabytes, || Benchmarks::open(&config).unwrap());
    let megabytes = pages.iter().map(|page| page.text.len()).sum::<usize>() as f64 / 1e6;
    let mut buffers = SearchBuffers::default();
    let hit = timed("search", megabytes, || {
        pages.iter().filter(|page| !benchmarks.hits(&page.text, &page.label, &mut buffers).is_empty()).count()
    });
    println!("| &nbsp; {} n-grams, {hit} of {} pages hit |", benchmarks.num_grams(), pages.len());
}

/// What each language loses, to see that none is swept away.
#[test]
#[ignore = "prints a table"]
fn by_language() {
    let Some(folder) = shared("corpora") else { return };
    let rows = pages::rows(&folder);
    let dir = tempfile::tempdir().unwrap();
    let config = NearConfig::default();
    let (signer, mut buffers) = (Signer::new(&config), SignerBuffers::default());
    let mut clusterer = Clusterer::create(&config, dir.path()).unwrap();
    let mut languages: HashMap<&str, usize> = HashMap::new();
    let mut seen = SpillingKeys::new(64, dir.path());
    let mut tallies: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut exact = Vec::new();
    for row in &rows {
        let next = languages.len();
        let language = *languages.entry(row.label.as_str()).or_insert(next);
        let repeats = !seen.insert(language, KeyDigest::of(&row.text, &mut String::new()).key).unwrap();
        let signature = if repeats { Signature::default() } else { signer.sign(&row.text, &row.label, &mut buffers) };
        clusterer.add(&signature).unwrap();
        exact.push(repeats);
    }
    let clusters = clusterer.finish(&|_, _| (), &NEVER).unwrap();
    for ((number, row), repeats) in (0..).zip(&rows).zip(exact) {
        let tally = tallies.entry(&row.label).or_default();
        tally[0] += 1;
        tally[1] += u64::from(repeats);
        tally[2] += u64::from(clusters.duplicate_of(number).is_some());
    }
    println!("| language | rows | exact duplicates | near duplicates | kept |\n|---|---|---|---|---|");
    for (label, [rows, exact, near]) in tallies {
        println!(
            "| {label} | {rows} | {exact} | {near} | {:.1} % |",
            100.0 * (rows - exact - near) as f64 / rows as f64
        );
    }
}
