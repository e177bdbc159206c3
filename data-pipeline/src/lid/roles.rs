//! Owns what the labels of one model are to the judgement, looked up by number; never scores a text.
//!
//! Names are compared once, when the model is loaded: a sentence costs no string.

use super::model::{Logits, MAX_LABELS, Model};
use super::tally::UND;

/// Lowest probability of a dialect other than Darija in a sentence of Arabic letters without a marker of it.
const DIALECT_WITHOUT_MARKER: f32 = 0.95;
/// The same for Darija.
const ARY_WITHOUT_MARKER: f32 = 0.8;

/// The labels of one model.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// For each label, the marker groups that speak for it, as a bit mask. Lists of short words that other languages
    /// have too (`aryshort`) prove nothing.
    own: [u32; MAX_LABELS],
    /// Labels whose speakers write French, Spanish or English words inside their sentences.
    pub hosts: Labels,
    /// The labels such words come from.
    pub guests: Labels,
    /// `kab_Latn`.
    pub kabyle: Labels,
    /// `arq_Latn`.
    pub algerian: Labels,
    /// Darija, in any script.
    pub moroccan: Labels,
    /// Standard Arabic.
    pub standard: Labels,
    /// Other languages.
    pub others: Labels,
    /// Words with letters that none of the languages told apart here writes, as a mask of marker groups.
    pub strange: u32,
    /// Lowest probability of a label of Arabic letters without a marker of its own.
    needed: [f32; MAX_LABELS],
}

/// A set of labels of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels(u32);

impl Labels {
    fn of(labels: &[String], wanted: impl Fn(&str) -> bool) -> Labels {
        let chosen = labels.iter().enumerate().filter(|(_, label)| wanted(label));
        Labels(chosen.fold(0, |set, (at, _)| set | 1 << at))
    }

    /// Whether the label of this number is one of them.
    #[inline]
    pub fn has(self, label: usize) -> bool {
        self.0 >> label & 1 == 1
    }

    /// Their numbers in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_LABELS).filter(move |label| self.has(*label))
    }

    /// The first of them.
    pub fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as usize)
    }

    /// That of the largest logit; the last of equals.
    pub fn best(self, logits: &Logits) -> Option<usize> {
        let of = |label: usize| logits.get(label).copied().unwrap_or(f32::MIN);
        self.iter().max_by(|a, b| of(*a).total_cmp(&of(*b)))
    }
}

impl Roles {
    /// The roles of the labels of `model`, with the marker groups of its script.
    pub fn new(model: &Model, groups: &[String]) -> Roles {
        let labels = &model.labels;
        let lang = |label: &str| label.split('_').next().unwrap_or_default().to_owned();
        let mut roles = Roles {
            hosts: Labels::of(labels, |label| {
                matches!(label, "ary_Latn" | "arq_Latn" | "shi_Latn" | "tzm_Latn" | "rif_Latn" | "kab_Latn")
            }),
            guests: Labels::of(labels, |label| matches!(label, "fra_Latn" | "eng_Latn" | "spa_Latn")),
            kabyle: Labels::of(labels, |label| label == "kab_Latn"),
            algerian: Labels::of(labels, |label| label == "arq_Latn"),
            moroccan: Labels::of(labels, |label| lang(label) == "ary"),
            standard: Labels::of(labels, |label| lang(label) == "arb"),
            others: Labels::of(labels, |label| lang(label) == "und"),
            strange: groups.iter().position(|group| group == "undletters").map_or(0, |at| 1 << at),
            ..Roles::default()
        };
        for ((own, needed), label) in roles.own.iter_mut().zip(&mut roles.needed).zip(labels) {
            let lang = lang(label);
            let named =
                groups.iter().enumerate().filter(|(_, name)| name.starts_with(&lang) && !name.ends_with("short"));
            *own = named.fold(0, |mask, (group, _)| mask | 1 << group);
            *needed = match lang.as_str() {
                "arb" | UND => 0.0,
                "ary" => ARY_WITHOUT_MARKER,
                _ => DIALECT_WITHOUT_MARKER,
            };
        }
        roles
    }

    /// The marker groups that speak for a label.
    #[inline]
    pub fn own(&self, label: usize) -> u32 {
        self.own.get(label).copied().unwrap_or(0)
    }

    /// Lowest probability of a label of Arabic letters without a marker of its own; 0 asks for none.
    #[inline]
    pub fn needed(&self, label: usize) -> f32 {
        self.needed.get(label).copied().unwrap_or(0.0)
    }
}
