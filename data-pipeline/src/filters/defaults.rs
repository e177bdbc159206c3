//! Owns the default limits of every rule by language and script; never measures.
//!
//! They start from Gopher, C4 and FineWeb for French, English, Spanish and Arabic, and from the limits of FineWeb-2 for
//! Darija and the Amazigh languages, and were then moved so that the clean corpora of the data notes lose little
//! (`docs/guide/quality.md` has the table). Rules about punctuation are off for Tifinagh, which writes little of it.

use super::rule::{NUM_RULES, Rule};

/// A limit for each rule; `None` is off.
pub(super) type Table = [Option<f32>; NUM_RULES];

fn set(table: &mut Table, limits: &[(Rule, f32)]) {
    for (rule, limit) in limits {
        if let Some(slot) = table.get_mut(*rule as usize) {
            *slot = Some(*limit);
        }
    }
}

fn off(table: &mut Table, rules: &[Rule]) {
    for rule in rules {
        if let Some(slot) = table.get_mut(*rule as usize) {
            *slot = None;
        }
    }
}

/// The limits for running text of a language.
pub(super) fn of(label: &str) -> Table {
    let mut table = base();
    let script = label.split_once('_').map_or("", |(_, script)| script);
    match script {
        "Arab" => set(&mut table, &[(Rule::MinWordLength, 2.0), (Rule::MaxWordLength, 9.0)]),
        "Tfng" => tifinagh(&mut table),
        _ => {}
    }
    match label {
        "fra_Latn" | "eng_Latn" | "spa_Latn" => {
            set(&mut table, &[(Rule::MinWordLength, 2.5), (Rule::FunctionShare, 0.10), (Rule::FunctionWords, 2.0)]);
        }
        "arb_Arab" => set(&mut table, &[(Rule::FunctionShare, 0.03), (Rule::FunctionWords, 2.0)]),
        "ary_Arab" | "arq_Arab" | "mey_Arab" => {
            set(&mut table, &[(Rule::FunctionShare, 0.04), (Rule::FunctionWords, 2.0), (Rule::MaxWordLength, 8.0)]);
            spoken(&mut table);
        }
        "ary_Latn" | "arq_Latn" => {
            set(&mut table, &[(Rule::FunctionShare, 0.04), (Rule::FunctionWords, 2.0), (Rule::MaxWordLength, 9.0)]);
            spoken(&mut table);
        }
        "kab_Latn" | "shi_Latn" | "tzm_Latn" | "rif_Latn" | "zgh_Latn" => {
            set(&mut table, &[(Rule::FunctionShare, 0.04), (Rule::FunctionWords, 2.0), (Rule::MaxWordLength, 12.0)]);
            small_language(&mut table);
        }
        _ => {}
    }
    table
}

/// The limits of Gopher, C4 and FineWeb, and ours.
fn base() -> Table {
    let mut table = [None; NUM_RULES];
    set(
        &mut table,
        &[
            (Rule::MaxWords, 500_000.0),
            (Rule::MinWordLength, 2.0),
            (Rule::MaxWordLength, 11.0),
            (Rule::SymbolWords, 0.1),
            (Rule::BulletLines, 0.9),
            (Rule::EllipsisLines, 0.3),
            (Rule::AlphabeticWords, 0.7),
            (Rule::DuplicateLines, 0.3),
            (Rule::DuplicateLineChars, 0.2),
            (Rule::DuplicateParagraphs, 0.4),
            (Rule::DuplicateParagraphChars, 0.2),
            (Rule::Top2Gram, 0.20),
            (Rule::Top3Gram, 0.18),
            (Rule::Top4Gram, 0.16),
            (Rule::Dup5Gram, 0.34),
            (Rule::Dup6Gram, 0.31),
            (Rule::Dup7Gram, 0.28),
            (Rule::Dup8Gram, 0.26),
            (Rule::Dup9Gram, 0.24),
            (Rule::Dup10Gram, 0.23),
            (Rule::LoremIpsum, 0.0),
            (Rule::CurlyBrackets, 0.02),
            (Rule::Boilerplate, 0.10),
            (Rule::LinePunctuation, 0.07),
            (Rule::ShortLines, 0.75),
            (Rule::NewLines, 0.30),
            (Rule::Fragments, 0.40),
            (Rule::Separators, 0.08),
            (Rule::Commas, 0.35),
            (Rule::DistinctWords, 0.15),
            (Rule::Symbols, 0.10),
            (Rule::Digits, 0.25),
            (Rule::OddLetters, 0.10),
            (Rule::Controls, 0.005),
            (Rule::UnknownWords, 0.50),
        ],
    );
    table
}

/// Spoken language: repetition is part of it, and comments carry no punctuation.
fn spoken(table: &mut Table) {
    set(table, &[(Rule::DuplicateLines, 0.35)]);
    off(table, &[Rule::LinePunctuation]);
}

/// Languages of which little is written: better some repetition than no text.
fn small_language(table: &mut Table) {
    set(
        table,
        &[
            (Rule::Top2Gram, 0.30),
            (Rule::Top3Gram, 0.30),
            (Rule::Top4Gram, 0.30),
            (Rule::Dup5Gram, 0.40),
            (Rule::Dup6Gram, 0.40),
            (Rule::Dup7Gram, 0.40),
            (Rule::Dup8Gram, 0.40),
            (Rule::Dup9Gram, 0.38),
            (Rule::Dup10Gram, 0.38),
            (Rule::DuplicateLines, 0.43),
            (Rule::AlphabeticWords, 0.6),
        ],
    );
    off(table, &[Rule::LinePunctuation]);
}

fn tifinagh(table: &mut Table) {
    small_language(table);
    set(
        table,
        &[
            (Rule::MinWordLength, 1.5),
            (Rule::MaxWordLength, 12.0),
            (Rule::FunctionShare, 0.04),
            (Rule::FunctionWords, 2.0),
            (Rule::NewLines, 0.5),
            (Rule::Fragments, 0.6),
        ],
    );
    off(table, &[Rule::LinePunctuation, Rule::ShortLines, Rule::EllipsisLines]);
}

/// The limits for short texts: only what cannot be one in any language.
pub(super) fn short() -> Table {
    let mut table = [None; NUM_RULES];
    set(
        &mut table,
        &[
            (Rule::MaxWordLength, 40.0),
            (Rule::LoremIpsum, 0.0),
            (Rule::DistinctWords, 0.12),
            (Rule::Symbols, 0.35),
            (Rule::OddLetters, 0.5),
            (Rule::Controls, 0.1),
        ],
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tifinagh_and_short_texts_have_no_rules_on_punctuation() {
        let limit = |table: Table, rule: Rule| table.get(rule as usize).copied().flatten();
        for label in ["zgh_Tfng", "tzm_Tfng"] {
            for rule in [Rule::LinePunctuation, Rule::ShortLines, Rule::EllipsisLines] {
                assert_eq!(limit(of(label), rule), None);
                assert_eq!(limit(short(), rule), None);
            }
        }
        assert_eq!(limit(of("fra_Latn"), Rule::LinePunctuation), Some(0.07));
        assert_eq!(limit(of("und"), Rule::FunctionShare), None);
    }
}
