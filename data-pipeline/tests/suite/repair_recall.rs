//! Prints what the repair makes of clean pages that were damaged on purpose, kind by kind:
//! `cargo test --release -p data-pipeline --test suite -- --ignored --nocapture repair_recall`.

use data_pipeline::normalize::{Changes, Normalize, Profile};
use data_pipeline::repair::Repairer;
use encoding_rs::{Encoding, WINDOWS_1252, WINDOWS_1256};

use crate::support::pages::{Page, Sequence, pages, rows};
use crate::support::shared;

/// Pages of each language.
const PAGES: usize = 40;
/// Share of the words of a damaged page that must be right again to call it repaired.
const REPAIRED: f64 = 0.9;
const LABELS: [&str; 4] = ["fra_Latn", "arb_Arab", "ary_Latn", "zgh_Tfng"];

type Damage = fn(&str, &mut Sequence) -> String;

/// Kinds of damage, and the end of the labels they are made for.
const KINDS: [(&str, &str, Damage); 16] = [
    ("glyph numbers", "Latn", |text, _| glyphs(text, '\u{3}')),
    ("glyph numbers, spaces kept", "Latn", |text, _| glyphs(text, ' ')),
    ("capitals with damaged accents", "fra_Latn", |text, _| capitals(text)),
    ("UTF-8 read as windows-1252", "", |text, _| misread(text.as_bytes(), WINDOWS_1252)),
    ("UTF-8 read as windows-1256", "Arab", |text, _| misread(text.as_bytes(), WINDOWS_1256)),
    ("the same twice", "", |text, _| misread(misread(text.as_bytes(), WINDOWS_1252).as_bytes(), WINDOWS_1252)),
    ("windows-1256 read as windows-1252", "Arab", |text, _| misread(&WINDOWS_1256.encode(text).0, WINDOWS_1252)),
    ("lines from the other end", "Arab", |text, _| by_lines(text, |line| line.chars().rev().collect())),
    ("lam-alef turned round", "Arab", |text, _| text.replace("لا", "ال").replace("لأ", "أل").replace("لإ", "إل")),
    ("letters apart", "", |text, _| by_lines(text, |line| line.chars().flat_map(|c| [c, ' ']).collect())),
    ("words cut", "", |text, random| cut(text, random)),
    ("signs inside words", "Latn", |text, random| soup(text, random)),
    ("keys hit at random", "", |text, random| keys(text, random)),
    ("base64", "", |text, _| base64(text.as_bytes())),
    ("binary read as windows-1252", "", |text, random| misread(&bytes(text.len(), random), WINDOWS_1252)),
    ("binary read as UTF-8", "", |text, random| String::from_utf8_lossy(&bytes(text.len(), random)).into_owned()),
];

fn by_lines(text: &str, damage: impl Fn(&str) -> String) -> String {
    text.lines().map(damage).collect::<Vec<_>>().join("\n")
}

fn glyphs(text: &str, space: char) -> String {
    let glyph = |c: char| match c {
        '\n' => c,
        ' ' => space,
        'é' => 'p',
        'è' => 'q',
        'ê' => 'r',
        'à' => 'j',
        'ç' => 'o',
        'ô' => '{',
        '’' | '\'' => '¶',
        '\u{21}'..='\u{7e}' => char::from_u32(c as u32 - 29).unwrap_or(c),
        c => c,
    };
    text.chars().map(glyph).collect()
}

fn capitals(text: &str) -> String {
    let shown = |c: char| match c {
        'É' => 'm',
        'È' => 'n',
        'Ê' => 'o',
        'À' => 'g',
        'Ç' => 'l',
        'Î' => 's',
        'X' => '[',
        'Y' => '\\',
        'Z' => ']',
        '’' => '¶',
        '–' => '±',
        '«' => '©',
        '»' => 'ª',
        c => c,
    };
    text.to_uppercase().chars().map(shown).collect()
}

fn misread(bytes: &[u8], table: &'static Encoding) -> String {
    table.decode_without_bom_handling(bytes).0.into_owned()
}

fn bytes(count: usize, random: &mut Sequence) -> Vec<u8> {
    (0..count).map(|_| random.below(256) as u8).collect()
}

fn cut(text: &str, random: &mut Sequence) -> String {
    let mut out = String::new();
    for c in text.chars() {
        out.push(c);
        if c.is_alphabetic() && random.below(3) == 0 {
            out.push(' ');
        }
    }
    out
}

fn soup(text: &str, random: &mut Sequence) -> String {
    let signs = ['~', '^', '|', '{', '¬', 'I', 'J', 'M'];
    let shown = |c: char| if c.is_alphabetic() && random.below(5) == 0 { signs[random.below(signs.len())] } else { c };
    text.chars().map(shown).collect()
}

/// As many words, of keys of one row each.
fn keys(text: &str, random: &mut Sequence) -> String {
    let rows: [&str; 3] = match text.chars().find(|c| c.is_alphabetic()) {
        Some('\u{600}'..='\u{6ff}') => ["ضصثقفغعهخحجد", "شسيبلاتنمكط", "ئءؤرىةوزظ"],
        Some('\u{2d30}'..='\u{2d7f}') => ["ⴰⵣⴻⵔⵜⵢⵓⵉⵄⵃ", "ⵇⵙⴷⴼⴳⵀⵊⴽⵍⵎ", "ⵡⵅⵛⵖⴱⵏ"],
        _ => ["qwertyuiop", "asdfghjkl", "zxcvbnm"],
    };
    let word = |random: &mut Sequence| {
        let keys: Vec<char> = rows[random.below(3)].chars().collect();
        (0..3 + random.below(7)).map(|_| keys[random.below(keys.len())]).collect::<String>()
    };
    text.split_whitespace().map(|_| word(random)).collect::<Vec<_>>().join(" ")
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for (at, chunk) in bytes.chunks(3).enumerate() {
        let all = chunk.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        out.extend((0..4).map(|i| char::from(SIGNS[(all >> (18 - 6 * i)) as usize & 63])));
        if at % 19 == 18 {
            out.push('\n');
        }
    }
    out
}

fn clean(text: &str, label: Option<&str>) -> (String, bool, bool) {
    let mut changes = Changes::default();
    let form = Normalize::Profile(Profile::default());
    let (text, verdict) = Repairer::embedded().clean(text, form, label, &mut changes);
    (text.into_owned(), verdict.garbage(0.5).is_some(), changes.total() > 0)
}

/// Share of the words of `expected` that stand in `found`, in any order.
fn recovered(found: &str, expected: &str) -> f64 {
    let found: std::collections::HashSet<&str> = found.split_whitespace().collect();
    let words: Vec<&str> = expected.split_whitespace().collect();
    words.iter().filter(|word| found.contains(*word)).count() as f64 / words.len().max(1) as f64
}

#[test]
#[ignore = "prints a table; needs ../shared"]
fn table() {
    let Some(corpora) = shared("corpora") else { return };
    let all: Vec<Page> = pages(&rows(&corpora)).into_iter().filter(|page| page.source != "moroccan-law").collect();
    let mut random = Sequence(11);
    let mut chosen: Vec<Vec<(String, &str)>> = Vec::new();
    let (mut flagged, mut judged) = (0, 0);
    for label in LABELS {
        let pages: Vec<&Page> = all.iter().filter(|page| page.label == label && page.text.len() > 400).collect();
        for page in &pages {
            judged += 1;
            flagged += usize::from(clean(&page.text, Some(label)).1);
        }
        let step = (pages.len() / PAGES).max(1);
        let of_label = pages.iter().step_by(step).take(PAGES);
        chosen.push(of_label.map(|page| (clean(&page.text, Some(label)).0, label)).collect());
    }
    println!("clean pages: {judged}, of them called garbage: {flagged}\n");
    println!("| damage | language | pages | repaired | called garbage | missed | recall | precision |");
    println!("|---|---|---|---|---|---|---|---|");
    for (kind, labels, damage) in KINDS {
        for pages in &chosen {
            let label = pages[0].1;
            if !(label.ends_with(labels) || labels == "Latn" && label.ends_with("Latn")) {
                continue;
            }
            let (mut repaired, mut dropped) = (0, 0);
            for (text, label) in pages {
                let expected = if kind.starts_with("capitals") { text.to_uppercase() } else { text.clone() };
                let damaged = damage(text, &mut random);
                let (out, is_garbage, _) = clean(&damaged, Some(label));
                if is_garbage {
                    dropped += 1;
                } else if recovered(&out, &expected) >= REPAIRED {
                    repaired += 1;
                }
            }
            let (count, caught) = (pages.len(), repaired + dropped);
            // Of the clean pages as many are taken as there are damaged ones.
            let wrong = flagged as f64 * count as f64 / judged as f64;
            println!(
                "| {kind} | {label} | {count} | {repaired} | {dropped} | {} | {:.2} | {:.3} |",
                count - caught,
                caught as f64 / count as f64,
                if caught == 0 { 0.0 } else { caught as f64 / (caught as f64 + wrong) }
            );
        }
    }
}
