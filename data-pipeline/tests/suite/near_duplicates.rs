//! Near duplicates against a slow reference; the same clusters on any number of threads and in any memory; texts in
//! Arabic and Tifinagh are not swept away; paragraphs against counting.

use std::collections::HashMap;

use crate::support::pages::{self, Page, Sequence};
use crate::support::reference::{all_pairs, all_pairs_by_prefix, components, shingle_sets};
use crate::support::{NEVER, shared};
use data_pipeline::near::paragraphs::{KeepParagraph, ParagraphBuffers, ParagraphUnit};
use data_pipeline::near::{
    Clusterer, Clusters, Keep, NearConfig, ParagraphConfig, Paragraphs, RepeatFinder, Signer, SignerBuffers,
};
use proptest::prelude::*;

fn cluster(pages: &[Page], config: &NearConfig) -> Clusters {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new(config);
    let mut clusterer = Clusterer::create(config, dir.path()).unwrap();
    let mut buffers = SignerBuffers::default();
    for page in pages {
        clusterer.add(&signer.sign(&page.text, &page.label, &mut buffers)).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "scratch files have no name");
    clusterer.finish(&|_, _| (), &NEVER).unwrap()
}

fn members(clusters: &Clusters) -> Vec<Vec<u32>> {
    clusters.clusters().map(|cluster| cluster.members).collect()
}

fn slow(pages: &[Page], config: &NearConfig) -> Vec<Vec<u32>> {
    let sets = shingle_sets(pages.iter().map(|page| (page.text.as_str(), page.label.as_str())), config);
    components(pages.len(), &all_pairs(&sets, config.threshold))
}

/// Candidates are certain but for one pair in a million at the threshold.
fn certain() -> NearConfig {
    NearConfig { bands: 60, rows: 4, ..NearConfig::default() }
}

fn page(text: String) -> Page {
    Page { text, label: "ary_Latn".into(), source: "made".into() }
}

/// Families of texts: each member is its family's text with some words exchanged.
fn families(seed: u64, families: usize) -> Vec<Page> {
    let mut sequence = Sequence(seed);
    let mut pages = Vec::new();
    for _ in 0..families {
        let length = [6, 20, 33, 38, 60, 200][sequence.below(6)];
        let base: Vec<usize> = (0..length).map(|_| sequence.below(5000)).collect();
        for _ in 0..1 + sequence.below(5) {
            let mut words = base.clone();
            for _ in 0..sequence.below(1 + length / 25) {
                let at = sequence.below(words.len());
                words[at] = sequence.below(5000);
            }
            words.truncate(length - sequence.below(1 + length / 20));
            pages.push(page(words.iter().map(|word| format!("kelma{word}")).collect::<Vec<_>>().join(" ")));
        }
    }
    for last in (1..pages.len()).rev() {
        pages.swap(last, sequence.below(last + 1));
    }
    pages
}

#[test]
fn the_clusters_are_those_of_comparing_every_pair() {
    for seed in [1, 2, 3] {
        let pages = families(seed, 150);
        let config = certain();
        let expected = slow(&pages, &config);
        assert!(expected.len() > 30, "{}", expected.len());
        let sets = shingle_sets(pages.iter().map(|page| (page.text.as_str(), page.label.as_str())), &config);
        assert_eq!(all_pairs(&sets, config.threshold), all_pairs_by_prefix(&sets, config.threshold));
        assert_eq!(members(&cluster(&pages, &config)), expected);
        // Below the threshold something differs, so the comparison can fail.
        assert_ne!(members(&cluster(&pages, &NearConfig { threshold: 0.5, ..config })), expected);
    }
}

#[test]
fn threads_memory_and_order_change_nothing() {
    let pages = families(9, 400);
    let config = NearConfig { memory_mib: 1, bands: 120, rows: 3, ..NearConfig::default() };
    let expected = cluster(&pages, &NearConfig { memory_mib: 64, ..config.clone() });
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| cluster(&pages, &config)), expected);
    }
    let reversed: Vec<Page> = pages.iter().rev().cloned().collect();
    let last = pages.len() as u32 - 1;
    let mut back: Vec<Vec<u32>> = members(&cluster(&reversed, &config))
        .into_iter()
        .map(|cluster| cluster.into_iter().rev().map(|number| last - number).collect())
        .collect();
    back.sort();
    let mut expected = members(&expected);
    expected.sort();
    assert_eq!(back, expected);
}

#[test]
fn the_first_or_the_longest_stays() {
    let text = |extra: &str| page(format!("{} {extra}", (0..80).map(|i| format!("w{i} ")).collect::<String>()));
    let pages = [text("a"), page("chi haja khra bzaf".into()), text("a b c"), text("a b"), text("c b a")];
    let first = cluster(&pages, &certain());
    let kept = |clusters: &Clusters| (0..5).map(|i| clusters.duplicate_of(i)).collect::<Vec<_>>();
    assert_eq!(kept(&first), [None, None, Some(0), Some(0), Some(0)]);
    let longest = cluster(&pages, &NearConfig { keep: Keep::Longest, ..certain() });
    assert_eq!(kept(&longest), [Some(2), None, None, Some(2), Some(2)]);
    assert_eq!(longest.num_duplicates(), 3);
    assert_eq!(longest.sizes().into_iter().collect::<Vec<_>>(), [(4, 1)]);
    let cluster = longest.clusters().next().unwrap();
    assert_eq!((cluster.kept, cluster.members), (2, vec![0, 2, 3, 4]));
}

#[test]
fn a_bucket_far_larger_than_the_window_is_one_cluster() {
    let text: String = (0..60).map(|i| format!("w{i} ")).collect();
    let pages: Vec<Page> = (0..1000).map(|i| page(format!("{text} n{}", i % 3))).collect();
    let clusters = cluster(&pages, &certain());
    assert_eq!(clusters.num_duplicates(), 999);
    assert!(clusters.compared < 5_000, "{} comparisons", clusters.compared);
    assert!(clusters.capped_buckets > 0);
}

/// A word pattern that knew no Arabic once found every Arabic text equal to every other.
#[test]
fn different_texts_of_every_script_stay() {
    let scripts = [
        ("ary_Arab", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"),
        ("arb_Arab", "اَبَتِثُجّحًخٌدٍذْرَزِسُشّ"),
        ("zgh_Tfng", "ⴰⴱⴳⴷⴹⴻⴼⴽⵀⵃⵄⵅⵇⵉⵊⵍⵎⵏⵓⵔⵕⵖⵙⵚⵛⵜⵟⵡⵢⵣⵥ"),
        ("kab_Latn", "abcčdḍefgǧhḥijklmnqrṛsṣtṭuwxyzẓɛɣ"),
        ("zho_Hans", "摩洛哥王国位于非洲西北端东部以及东南部"),
    ];
    for (label, letters) in scripts {
        let letters: Vec<char> = letters.chars().collect();
        let mut sequence = Sequence(3);
        let mut word =
            || (0..2 + sequence.below(6)).map(|_| letters[sequence.below(letters.len())]).collect::<String>();
        for length in [6, 60] {
            let text = |_| (0..length).map(|_| word()).collect::<Vec<_>>().join(" ");
            let pages: Vec<Page> = (0..200).map(text).map(|text| Page { label: label.into(), ..page(text) }).collect();
            assert_eq!(cluster(&pages, &NearConfig::default()).num_duplicates(), 0, "{label} {length}");
        }
    }
}

/// Needs ../shared.
#[test]
fn the_corpora_are_not_emptied() {
    let Some(folder) = shared("corpora") else { return };
    let rows = pages::rows(&folder);
    let mut by_label: HashMap<&str, Vec<Page>> = HashMap::new();
    for row in &rows {
        let group = by_label.entry(&row.label).or_default();
        if group.len() < 3000 {
            group.push(row.clone());
        }
    }
    for label in ["arb_Arab", "ary_Arab", "mey_Arab", "zgh_Tfng", "tzm_Tfng", "rif_Tfng", "kab_Latn", "ary_Latn"] {
        let rows = &by_label[label];
        let distinct: std::collections::HashSet<&str> = rows.iter().map(|row| row.text.trim()).collect();
        let kept = rows.len() as u64 - cluster(rows, &NearConfig::default()).num_duplicates();
        // Interface texts hold variants of one message; nine tenths of the different rows of any language stay.
        assert!(kept * 10 >= distinct.len() as u64 * 8, "{label}: {kept} of {} distinct rows", distinct.len());
    }
}

/// Needs ../shared. A sample of each source, every pair compared.
#[test]
fn the_corpora_have_the_clusters_of_the_reference() {
    let Some(folder) = shared("corpora") else { return };
    let all = pages::pages(&pages::rows(&folder));
    let sample: Vec<Page> = all.iter().step_by(30).cloned().collect();
    let sample = pages::doubled(&sample);
    let config = certain();
    let sets = shingle_sets(sample.iter().map(|page| (page.text.as_str(), page.label.as_str())), &config);
    let expected = components(sample.len(), &all_pairs_by_prefix(&sets, config.threshold));
    assert!(expected.len() > 20, "{}", expected.len());
    assert_eq!(members(&cluster(&sample, &config)), expected);
}

fn repeats(texts: &[String], config: &ParagraphConfig) -> Vec<Option<String>> {
    let dir = tempfile::tempdir().unwrap();
    let cutter = Paragraphs::new(config);
    let mut finder = RepeatFinder::new(config, dir.path());
    for text in texts {
        finder.add(&cutter.keys(text, "ary_Latn", &mut ParagraphBuffers::default())).unwrap();
    }
    let repeats = finder.finish(&NEVER).unwrap();
    let of = |number: usize| repeats.of(number as u32).unwrap();
    let edited = texts.iter().enumerate().map(|(number, text)| match of(number).as_slice() {
        [] => Some(text.clone()),
        gone => cutter.without(text, gone),
    });
    edited.collect()
}

#[test]
fn a_notice_on_every_page_stays_once() {
    let notice = "Jami3 l7o9o9 ma7fouda 2024 - l'3awda bla idn mamnou3a";
    let page = |body: &str| format!("{body}\n\n{notice}\n");
    let texts = [page("lwel"), page("tani"), format!("{}!", notice.to_uppercase()), page("tallet")];
    let config = ParagraphConfig::default();
    let found = repeats(&texts, &config);
    assert_eq!(found, [Some(texts[0].clone()), Some("tani".into()), None, Some("tallet".into())]);
    let none = ParagraphConfig { keep: KeepParagraph::None, ..config.clone() };
    assert_eq!(repeats(&texts, &none), [Some("lwel".into()), Some("tani".into()), None, Some("tallet".into())]);
    let rare = ParagraphConfig { min_count: 5, ..config.clone() };
    assert_eq!(repeats(&texts, &rare), texts.clone().map(Some));
    let long = ParagraphConfig { min_chars: 90, ..config };
    assert_eq!(repeats(&texts, &long), texts.map(Some));
}

#[test]
fn paragraphs_of_several_lines() {
    let address = "royaume du maroc\nministère de la justice\ndirection des affaires";
    let texts = ["un", "deux", "trois"].map(|body| format!("{address}\n \n{body}\nsuite de {body}\n\nfin"));
    let config = ParagraphConfig { unit: ParagraphUnit::Paragraph, ..ParagraphConfig::default() };
    let found = repeats(&texts, &config);
    assert_eq!(found[0].as_deref(), Some(texts[0].as_str()));
    assert_eq!(found[1].as_deref(), Some("deux\nsuite de deux\n\nfin"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn repeated_lines_are_those_that_counting_finds(
        documents in prop::collection::vec(prop::collection::vec(0..12_usize, 0..6), 0..30),
        min_count in 2..5_u32,
        first in any::<bool>(),
    ) {
        let keep = if first { KeepParagraph::First } else { KeepParagraph::None };
        let config = ParagraphConfig { min_chars: 5, min_count, keep, ..ParagraphConfig::default() };
        // Lines below 3 are too short to be compared.
        let line = |kind: &usize| if *kind < 3 { format!("l{kind}") } else { format!("line number {kind}") };
        let texts: Vec<String> =
            documents.iter().map(|kinds| kinds.iter().map(line).collect::<Vec<_>>().join("\n")).collect();
        let mut counts: HashMap<usize, u32> = HashMap::new();
        documents.iter().flatten().for_each(|kind| *counts.entry(*kind).or_default() += 1);
        let mut seen = std::collections::HashSet::new();
        let mut expected = Vec::new();
        for (kinds, text) in documents.iter().zip(&texts) {
            let stays = |kind: &&usize| {
                **kind < 3 || counts[*kind] < min_count || (seen.insert(**kind) && first)
            };
            let kept: Vec<String> = kinds.iter().filter(stays).map(line).collect();
            let same = kept.len() == kinds.len();
            expected.push(if same { Some(text.clone()) } else { (!kept.is_empty()).then(|| kept.join("\n")) });
        }
        prop_assert_eq!(repeats(&texts, &config), expected);
    }
}
