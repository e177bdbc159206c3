//! Owns the corpus that deduplication is measured on: pages cut from the corpora, and a second copy with shuffled words, a
//! tenth of it near duplicates; the same on every machine.

use std::path::Path;

use data_pipeline::document::language_label;

/// Bytes of a page of a long document.
const PAGE_BYTES: usize = 7000;
/// Short rows on a page.
const ROWS_PER_PAGE: usize = 20;
/// A row of more bytes is a long document.
const LONG_BYTES: usize = 2000;

#[derive(Debug, Clone)]
pub struct Page {
    pub text: String,
    pub label: String,
    pub source: String,
}

/// A sequence of numbers that is the same everywhere.
pub struct Sequence(pub u64);

impl Sequence {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// All rows of the corpora in `folder`, sources in order.
pub fn rows(folder: &Path) -> Vec<Page> {
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut rows = Vec::new();
    for folder in folders {
        let Ok(text) = std::fs::read_to_string(folder.join("data.jsonl")) else { continue };
        let source = folder.file_name().unwrap().to_string_lossy().into_owned();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let label = language_label(row["lang"].as_str().unwrap(), row["script"].as_str()).unwrap();
            rows.push(Page { text: row["text"].as_str().unwrap().to_owned(), label, source: source.clone() });
        }
    }
    rows
}

/// The rows as pages: long documents cut, short rows of a source and language together.
pub fn pages(rows: &[Page]) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut short: std::collections::BTreeMap<(String, String), Vec<&str>> = std::collections::BTreeMap::new();
    for row in rows {
        if row.text.len() > LONG_BYTES {
            let mut rest = row.text.as_str();
            while !rest.is_empty() {
                let mut end = rest.len().min(PAGE_BYTES);
                while !rest.is_char_boundary(end) {
                    end += 1;
                }
                pages.push(Page { text: rest[..end].to_owned(), ..row.clone() });
                rest = &rest[end..];
            }
            continue;
        }
        let held = short.entry((row.source.clone(), row.label.clone())).or_default();
        held.push(&row.text);
        if held.len() == ROWS_PER_PAGE {
            pages.push(Page { text: held.join("\n"), ..row.clone() });
            held.clear();
        }
    }
    for ((source, label), held) in short {
        if !held.is_empty() {
            pages.push(Page { text: held.join("\n"), label, source });
        }
    }
    pages
}

/// The pages and a second copy: words shuffled, or (a tenth) the page with three words of a hundred replaced.
pub fn doubled(pages: &[Page]) -> Vec<Page> {
    let mut sequence = Sequence(7);
    let mut all = pages.to_vec();
    for page in pages {
        let mut words: Vec<&str> = page.text.split(' ').collect();
        if sequence.below(10) == 0 {
            for _ in 0..words.len() * 3 / 100 {
                let (to, from) = (sequence.below(words.len()), sequence.below(words.len()));
                words[to] = words[from];
            }
        } else {
            for last in (1..words.len()).rev() {
                words.swap(last, sequence.below(last + 1));
            }
        }
        all.push(Page { text: words.join(" "), ..page.clone() });
    }
    all
}

/// User and system time of this process in seconds, to a hundredth.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
