//! Owns the quality filters: signals of a text, limits by language, the rule that drops it; never touches files but word
//! lists at the start, and never changes a text but in [`Filters::clean_lines`].

mod config;
mod defaults;
mod function_words;
mod lines;
mod phrases;
mod repetition;
mod rule;
mod signals;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use config::{FilterConfig, Limit, Limits, Off};
pub use lines::LineCounts;
pub use rule::{Bound, NUM_RULES, Rule};
pub use signals::Signals;

use defaults::Table;
use function_words::WordSet;
use signals::Lists;

/// Largest word list, in bytes.
pub const MAX_WORD_LIST_BYTES: u64 = 1 << 28;

/// Why the filters cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The configuration asks for something that does not exist.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// A word list cannot be read.
    #[error("{path}: cannot read the word list: {reason}; write one word a line in UTF-8")]
    WordList {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// Why a text is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterReason {
    /// The rule that it broke.
    pub rule: Rule,
    /// What the rule measured.
    pub value: f32,
    /// The limit of the rule for the language.
    pub limit: f32,
    /// Everything that was measured.
    pub signals: Signals,
}

impl fmt::Display for FilterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.rule.bound() {
            Bound::Min => "below",
            Bound::Max => "above",
        };
        write!(f, "{}: {:.3} is {side} {}", self.rule.name(), self.value, self.limit)
    }
}

/// Limits and word lists of one language.
#[derive(Debug, Clone)]
struct Language {
    limits: Table,
    function_words: Option<WordSet>,
    known_words: Option<WordSet>,
}

/// The filters, ready to judge. Cheap to share between threads; the same text always gets the same judgement.
#[derive(Debug, Clone)]
pub struct Filters {
    languages: BTreeMap<String, Language>,
    /// For languages without limits of their own, by script.
    others: BTreeMap<&'static str, Language>,
    short: Table,
    short_below: u32,
    short_sources: Vec<glob::Pattern>,
    clean_lines: bool,
}

/// Languages with limits or function words of their own.
#[rustfmt::skip]
const LANGUAGES: [&str; 22] = [
    "ary_Arab", "ary_Latn", "arb_Arab", "arq_Arab", "arq_Latn", "mey_Arab", "aeb_Arab", "arz_Arab", "apc_Arab", "ars_Arab",
    "afb_Arab", "fra_Latn", "eng_Latn", "spa_Latn", "kab_Latn", "shi_Latn", "tzm_Latn", "rif_Latn", "zgh_Tfng", "tzm_Tfng",
    "shi_Tfng", "rif_Tfng",
];

/// Version of what the filters measure: it goes up when a text gets other signals.
const SIGNALS_VERSION: u32 = 1;

/// Digest of everything inside the program that decides what the filters drop: default limits, function words, phrases.
pub(crate) fn content_digest() -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&SIGNALS_VERSION.to_le_bytes());
    for label in LANGUAGES.into_iter().chain(["und_Arab", "und_Latn", "und_Tfng", "und"]) {
        hasher.update(format!("{label} {:?}", defaults::of(label)).as_bytes());
        for list in function_words::lists(label).unwrap_or_default() {
            hasher.update(list.as_bytes()).update(b"\0");
        }
    }
    hasher.update(format!("{:?}", defaults::short()).as_bytes());
    phrases::PHRASES.iter().for_each(|phrase| _ = hasher.update(phrase.as_bytes()).update(b"\0"));
    hasher.finalize().to_hex().to_string()
}

impl Filters {
    /// Filters with the limits of a configuration over the defaults.
    ///
    /// # Errors
    /// [`FilterError`]: a wrong limit or label, or a word list that cannot be read.
    pub fn new(config: &FilterConfig) -> Result<Filters, FilterError> {
        let mut problems = Vec::new();
        config.validate("filters", &mut problems);
        let short_sources: Vec<_> = config.short_sources.iter().filter_map(|p| glob::Pattern::new(p).ok()).collect();
        if !problems.is_empty() {
            return Err(FilterError::Config(problems));
        }
        let mut languages = BTreeMap::new();
        let named = config.languages.keys().chain(config.word_lists.keys()).map(String::as_str);
        for label in LANGUAGES.into_iter().chain(named) {
            if languages.contains_key(label) {
                continue;
            }
            languages.insert(label.to_owned(), language(config, label)?);
        }
        let mut others = BTreeMap::new();
        for (script, like) in [("Arab", "und_Arab"), ("Latn", "und_Latn"), ("Tfng", "und_Tfng"), ("", "und")] {
            others.insert(script, Language { function_words: None, ..language(config, like)? });
        }
        let mut short = defaults::short();
        overlay(&mut short, &config.short);
        Ok(Filters {
            languages,
            others,
            short,
            short_below: config.short_below,
            short_sources,
            clean_lines: config.clean_lines,
        })
    }

    /// Measures a text of a language (`ary_Arab`) and a source, and judges it.
    ///
    /// # Errors
    /// The first rule that the text breaks, in the order of [`Rule::all`].
    pub fn judge(&self, text: &str, label: &str, source: &str) -> Result<Signals, Box<FilterReason>> {
        let signals = self.measure(text, label);
        match self.broken(&signals, label, source).next() {
            None => Ok(signals),
            Some(reason) => Err(Box::new(reason)),
        }
    }

    /// What is known of a text.
    pub fn measure(&self, text: &str, label: &str) -> Signals {
        let language = self.language(label);
        let lists = Lists {
            function_words: language.and_then(|l| l.function_words.as_ref()),
            known_words: language.and_then(|l| l.known_words.as_ref()),
        };
        signals::measure(text, lists)
    }

    /// Every rule that a text breaks.
    pub fn broken(&self, signals: &Signals, label: &str, source: &str) -> impl Iterator<Item = FilterReason> {
        let signals = *signals;
        let table = self.limits(&signals, label, source);
        Rule::all().zip(table).filter_map(move |(rule, limit)| {
            let (value, limit) = (rule.value(&signals), limit?);
            rule.is_broken(value, limit).then_some(FilterReason { rule, value, limit, signals })
        })
    }

    /// The text without lines that are no text, when the configuration asks for it; short texts stay whole.
    pub fn clean_lines<'a>(&self, text: &'a str, label: &str, source: &str) -> (Cow<'a, str>, LineCounts) {
        if !self.clean_lines || self.is_short_source(source) {
            return (Cow::Borrowed(text), LineCounts::default());
        }
        lines::clean(text, !label.ends_with("_Tfng"))
    }

    /// Whether a text is judged as a short one.
    pub fn is_short(&self, signals: &Signals, source: &str) -> bool {
        signals.words < self.short_below as f32 || self.is_short_source(source)
    }

    fn is_short_source(&self, source: &str) -> bool {
        self.short_sources.iter().any(|pattern| pattern.matches(source))
    }

    fn limits(&self, signals: &Signals, label: &str, source: &str) -> Table {
        if self.is_short(signals, source) {
            return self.short;
        }
        self.language(label).map_or([None; NUM_RULES], |language| language.limits)
    }

    fn language(&self, label: &str) -> Option<&Language> {
        self.languages.get(label).or_else(|| {
            let script = label.split_once('_').map_or("", |(_, script)| script);
            self.others.get(script).or_else(|| self.others.get(""))
        })
    }
}

fn language(config: &FilterConfig, label: &str) -> Result<Language, FilterError> {
    let mut limits = defaults::of(label);
    overlay(&mut limits, &config.rules);
    if let Some(own) = config.languages.get(label) {
        overlay(&mut limits, own);
    }
    let known_words = config.word_lists.get(label).map(read_word_list).transpose()?;
    Ok(Language { limits, function_words: function_words::of(label), known_words })
}

fn overlay(table: &mut Table, limits: &Limits) {
    for (rule, limit) in limits {
        if let Some(slot) = table.get_mut(*rule as usize) {
            *slot = limit.value();
        }
    }
}

/// Reads a list with one word a line; what follows a tabulator (a count) is left out.
fn read_word_list(path: &PathBuf) -> Result<WordSet, FilterError> {
    let failed = |reason: String| FilterError::WordList { path: path.clone(), reason };
    let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_WORD_LIST_BYTES {
        return Err(failed(format!("it is larger than {MAX_WORD_LIST_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let words: Vec<String> = text
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default().trim().to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let set = WordSet::of(words.iter().map(String::as_str));
    if set.is_empty() { Err(failed("it is empty".to_owned())) } else { Ok(set) }
}

#[cfg(test)]
mod tests;
