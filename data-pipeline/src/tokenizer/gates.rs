//! Owns the bounds that a tokenizer must keep for a language, and the table of those it does not; never measures.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::{Figures, Report};

/// Bounds by language and script (`zgh_Tfng`), script (`*_Tfng`) or for every language that was measured (`*`).
pub type Gates = BTreeMap<String, Gate>;

/// What a tokenizer must reach for a language. A bound that is not written is not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Most tokens a word, words being divided by white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 3.2)]
    pub max_tokens_per_word: Option<f64>,
    /// Most tokens a character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.6)]
    pub max_tokens_per_character: Option<f64>,
    /// Fewest UTF-8 bytes a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 3.0)]
    pub min_bytes_per_token: Option<f64>,
    /// Longest against the reference language, as a ratio; only where there is one (`tokenizer eval --reference`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 1.8)]
    pub max_parity: Option<f64>,
    /// Largest share of tokens that stand for text the vocabulary cannot spell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.0)]
    pub max_unknown_share: Option<f64>,
    /// Largest share of tokens that stand for less than a character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.02)]
    pub max_byte_share: Option<f64>,
    /// Largest share of words with a letter beside a digit (`3lach`) that are cut there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.1)]
    pub max_cut_share: Option<f64>,
    /// Most documents that do not come back from their tokens as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0)]
    pub max_failed_round_trips: Option<u64>,
}

impl Gate {
    /// Names of the bounds.
    pub const NAMES: [&'static str; 8] = [
        "max_tokens_per_word",
        "max_tokens_per_character",
        "min_bytes_per_token",
        "max_parity",
        "max_unknown_share",
        "max_byte_share",
        "max_cut_share",
        "max_failed_round_trips",
    ];

    /// Sets a bound by its name; whether there is such a bound.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let slot = match name {
            "max_tokens_per_word" => &mut self.max_tokens_per_word,
            "max_tokens_per_character" => &mut self.max_tokens_per_character,
            "min_bytes_per_token" => &mut self.min_bytes_per_token,
            "max_parity" => &mut self.max_parity,
            "max_unknown_share" => &mut self.max_unknown_share,
            "max_byte_share" => &mut self.max_byte_share,
            "max_cut_share" => &mut self.max_cut_share,
            "max_failed_round_trips" => {
                self.max_failed_round_trips = Some(value as u64);
                return true;
            }
            _ => return false,
        };
        *slot = Some(value);
        true
    }

    /// Bounds that are written: name, limit.
    fn written(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let limits = [
            self.max_tokens_per_word,
            self.max_tokens_per_character,
            self.min_bytes_per_token,
            self.max_parity,
            self.max_unknown_share,
            self.max_byte_share,
            self.max_cut_share,
            self.max_failed_round_trips.map(|number| number as f64),
        ];
        Self::NAMES.into_iter().zip(limits).filter_map(|(name, limit)| Some((name, limit?)))
    }

    /// Every bound that is no number or below 0.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let wrong = |(name, limit): (&'static str, f64)| {
            // A token that stands for nothing: no tokenizer reaches 0 here, and the run would find out at its end.
            let positive = matches!(name, "max_tokens_per_word" | "max_tokens_per_character" | "max_parity");
            let (right, bound) = if positive { (limit > 0.0, "above 0") } else { (limit >= 0.0, "of 0 or more") };
            (!(limit.is_finite() && right)).then(|| format!("{name}: is {limit}; write a number {bound}"))
        };
        self.written().filter_map(wrong)
    }
}

/// One bound against what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The language.
    pub language: String,
    /// The bound.
    pub gate: &'static str,
    /// Its limit.
    pub limit: f64,
    /// What was measured; `None` when there was nothing to measure.
    pub found: Option<f64>,
    /// Whether it holds.
    pub passed: bool,
}

/// All bounds against a report, in the order of their names. A language that is named and has no documents fails.
pub fn check(gates: &Gates, report: &Report) -> Verdict {
    let mut checked = Vec::new();
    for (name, gate) in gates {
        let fits = |lang: &str| match name.strip_prefix('*') {
            Some(script) => lang.ends_with(script),
            None => lang == name,
        };
        let found: Vec<_> = report.languages.iter().filter(|(lang, _)| fits(lang)).collect();
        for (bound, limit) in gate.written() {
            if found.is_empty() {
                let language = name.clone();
                checked.push(Checked { language, gate: bound, limit, found: None, passed: false });
            }
            for (language, figures) in &found {
                let value = value_of(bound, figures);
                let holds = |value: f64| if bound.starts_with("min") { value >= limit } else { value <= limit };
                let passed = value.is_some_and(holds);
                checked.push(Checked { language: (*language).clone(), gate: bound, limit, found: value, passed });
            }
        }
    }
    Verdict { checked }
}

fn value_of(bound: &str, figures: &Figures) -> Option<f64> {
    match bound {
        "max_tokens_per_word" => Some(figures.tokens_per_word),
        "max_tokens_per_character" => Some(figures.tokens_per_character),
        "min_bytes_per_token" => Some(figures.bytes_per_token),
        "max_parity" => figures.parity.as_ref().map(|parity| parity.ratio),
        "max_unknown_share" => Some(figures.unknown_share),
        "max_byte_share" => Some(figures.byte_share),
        "max_cut_share" => Some(figures.cut_share),
        "max_failed_round_trips" => Some(figures.counts.failed_round_trips as f64),
        _ => None,
    }
}

/// All bounds that were checked; `Display` is a table of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// One entry a bound and language.
    pub checked: Vec<Checked>,
}

impl Verdict {
    /// Whether all bounds hold.
    pub fn passed(&self) -> bool {
        self.checked.iter().all(|checked| checked.passed)
    }

    /// Number of bounds that do not.
    pub fn failures(&self) -> usize {
        self.checked.iter().filter(|checked| !checked.passed).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:<25} {:>10} {:>10}", "language", "gate", "limit", "found")?;
        for Checked { language, gate, limit, found, passed } in &self.checked {
            let verdict = if *passed { "ok" } else { "FAILED" };
            let found = found.map_or_else(|| "no text".to_owned(), |value| format!("{value:.4}"));
            write!(f, "\n{language:<10} {gate:<25} {limit:>10} {found:>10}  {verdict}")?;
        }
        Ok(())
    }
}
