//! Owns the rules of the filters: their names, and which signal each compares with its limit; never measures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::signals::Signals;

/// Which side of its limit a signal must stay on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A text below the limit is dropped.
    Min,
    /// A text above the limit is dropped.
    Max,
}

/// A rule by which a text may be dropped. The families are those of Gopher (Rae et al. 2021, table A1), C4 (Raffel et al.
/// 2020, section 2.2) and FineWeb (Penedo et al. 2024, section 3.6); rules without a family are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Rule {
    /// Gopher: words of the text.
    #[serde(rename = "min_words")]
    MinWords,
    /// Gopher: words of the text.
    #[serde(rename = "max_words")]
    MaxWords,
    /// Gopher: mean letters and digits of a word.
    #[serde(rename = "min_word_length")]
    MinWordLength,
    /// Gopher: mean letters and digits of a word.
    #[serde(rename = "max_word_length")]
    MaxWordLength,
    /// Gopher: `#` and ellipses for each word.
    #[serde(rename = "symbol_words")]
    SymbolWords,
    /// Gopher: share of lines that begin with a bullet.
    #[serde(rename = "bullet_lines")]
    BulletLines,
    /// Gopher: share of lines that end in an ellipsis.
    #[serde(rename = "ellipsis_lines")]
    EllipsisLines,
    /// Gopher: share of words with a letter.
    #[serde(rename = "alphabetic_words")]
    AlphabeticWords,
    /// Gopher: function words of the language in the text.
    #[serde(rename = "function_words")]
    FunctionWords,
    /// Gopher: share of lines that stood before.
    #[serde(rename = "duplicate_lines")]
    DuplicateLines,
    /// Gopher: share of characters in lines that stood before.
    #[serde(rename = "duplicate_line_chars")]
    DuplicateLineChars,
    /// Gopher: share of paragraphs that stood before.
    #[serde(rename = "duplicate_paragraphs")]
    DuplicateParagraphs,
    /// Gopher: share of characters in paragraphs that stood before.
    #[serde(rename = "duplicate_paragraph_chars")]
    DuplicateParagraphChars,
    /// Gopher: share of characters in the most frequent pair of words.
    #[serde(rename = "top_2_gram")]
    Top2Gram,
    /// Gopher: the same of three words.
    #[serde(rename = "top_3_gram")]
    Top3Gram,
    /// Gopher: the same of four words.
    #[serde(rename = "top_4_gram")]
    Top4Gram,
    /// Gopher: share of characters in repeated runs of five words.
    #[serde(rename = "dup_5_gram")]
    Dup5Gram,
    /// Gopher: the same of six words.
    #[serde(rename = "dup_6_gram")]
    Dup6Gram,
    /// Gopher: the same of seven words.
    #[serde(rename = "dup_7_gram")]
    Dup7Gram,
    /// Gopher: the same of eight words.
    #[serde(rename = "dup_8_gram")]
    Dup8Gram,
    /// Gopher: the same of nine words.
    #[serde(rename = "dup_9_gram")]
    Dup9Gram,
    /// Gopher: the same of ten words.
    #[serde(rename = "dup_10_gram")]
    Dup10Gram,
    /// C4: times that `lorem ipsum` stands in the text.
    #[serde(rename = "lorem_ipsum")]
    LoremIpsum,
    /// C4: opening curly brackets for each word.
    #[serde(rename = "curly_brackets")]
    CurlyBrackets,
    /// C4: share of words in phrases of cookie banners, rights and shops.
    #[serde(rename = "boilerplate")]
    Boilerplate,
    /// FineWeb: share of lines that end in punctuation.
    #[serde(rename = "line_punctuation")]
    LinePunctuation,
    /// FineWeb: share of lines of at most 30 characters.
    #[serde(rename = "short_lines")]
    ShortLines,
    /// FineWeb: line breaks for each word.
    #[serde(rename = "new_lines")]
    NewLines,
    /// Share of words in lines of one to four words without punctuation at their end.
    #[serde(rename = "fragments")]
    Fragments,
    /// Bars, chevrons and middle dots for each word.
    #[serde(rename = "separators")]
    Separators,
    /// Commas and semicolons for each word.
    #[serde(rename = "commas")]
    Commas,
    /// Share of words that are function words of the language.
    #[serde(rename = "function_share")]
    FunctionShare,
    /// Share of words that are different, among the first 200.
    #[serde(rename = "distinct_words")]
    DistinctWords,
    /// Share of visible characters that are symbols.
    #[serde(rename = "symbols")]
    Symbols,
    /// Share of visible characters that are digits.
    #[serde(rename = "digits")]
    Digits,
    /// Share of words with letters that no language of the pipeline writes.
    #[serde(rename = "odd_letters")]
    OddLetters,
    /// Share of characters that are controls, private or unassigned.
    #[serde(rename = "controls")]
    Controls,
    /// Share of words that the language's word list does not hold.
    #[serde(rename = "unknown_words")]
    UnknownWords,
}

/// How many rules there are.
pub const NUM_RULES: usize = 38;

/// A row of [`RULES`].
type Row = (Rule, &'static str, Bound, fn(&Signals) -> f32);

/// Every rule in the order in which they are tried, its name, its side and its signal.
#[rustfmt::skip]
const RULES: [Row; NUM_RULES] = [
    (Rule::MinWords, "min_words", Bound::Min, |s| s.words),
    (Rule::MaxWords, "max_words", Bound::Max, |s| s.words),
    (Rule::MinWordLength, "min_word_length", Bound::Min, |s| s.word_length),
    (Rule::MaxWordLength, "max_word_length", Bound::Max, |s| s.word_length),
    (Rule::SymbolWords, "symbol_words", Bound::Max, |s| s.symbol_words),
    (Rule::BulletLines, "bullet_lines", Bound::Max, |s| s.bullet_lines),
    (Rule::EllipsisLines, "ellipsis_lines", Bound::Max, |s| s.ellipsis_lines),
    (Rule::AlphabeticWords, "alphabetic_words", Bound::Min, |s| s.alphabetic_words),
    (Rule::FunctionWords, "function_words", Bound::Min, |s| s.function_words),
    (Rule::DuplicateLines, "duplicate_lines", Bound::Max, |s| s.duplicate_lines),
    (Rule::DuplicateLineChars, "duplicate_line_chars", Bound::Max, |s| s.duplicate_line_chars),
    (Rule::DuplicateParagraphs, "duplicate_paragraphs", Bound::Max, |s| s.duplicate_paragraphs),
    (Rule::DuplicateParagraphChars, "duplicate_paragraph_chars", Bound::Max, |s| s.duplicate_paragraph_chars),
    (Rule::Top2Gram, "top_2_gram", Bound::Max, |s| s.top_2_gram),
    (Rule::Top3Gram, "top_3_gram", Bound::Max, |s| s.top_3_gram),
    (Rule::Top4Gram, "top_4_gram", Bound::Max, |s| s.top_4_gram),
    (Rule::Dup5Gram, "dup_5_gram", Bound::Max, |s| s.dup_5_gram),
    (Rule::Dup6Gram, "dup_6_gram", Bound::Max, |s| s.dup_6_gram),
    (Rule::Dup7Gram, "dup_7_gram", Bound::Max, |s| s.dup_7_gram),
    (Rule::Dup8Gram, "dup_8_gram", Bound::Max, |s| s.dup_8_gram),
    (Rule::Dup9Gram, "dup_9_gram", Bound::Max, |s| s.dup_9_gram),
    (Rule::Dup10Gram, "dup_10_gram", Bound::Max, |s| s.dup_10_gram),
    (Rule::LoremIpsum, "lorem_ipsum", Bound::Max, |s| s.lorem_ipsum),
    (Rule::CurlyBrackets, "curly_brackets", Bound::Max, |s| s.curly_brackets),
    (Rule::Boilerplate, "boilerplate", Bound::Max, |s| s.boilerplate),
    (Rule::LinePunctuation, "line_punctuation", Bound::Min, |s| s.line_punctuation),
    (Rule::ShortLines, "short_lines", Bound::Max, |s| s.short_lines),
    (Rule::NewLines, "new_lines", Bound::Max, |s| s.new_lines),
    (Rule::Fragments, "fragments", Bound::Max, |s| s.fragments),
    (Rule::Separators, "separators", Bound::Max, |s| s.separators),
    (Rule::Commas, "commas", Bound::Max, |s| s.commas),
    (Rule::FunctionShare, "function_share", Bound::Min, |s| s.function_share),
    (Rule::DistinctWords, "distinct_words", Bound::Min, |s| s.distinct_words),
    (Rule::Symbols, "symbols", Bound::Max, |s| s.symbols),
    (Rule::Digits, "digits", Bound::Max, |s| s.digits),
    (Rule::OddLetters, "odd_letters", Bound::Max, |s| s.odd_letters),
    (Rule::Controls, "controls", Bound::Max, |s| s.controls),
    (Rule::UnknownWords, "unknown_words", Bound::Max, |s| s.unknown_words),
];

impl Rule {
    /// All rules, in the order in which they are tried.
    pub fn all() -> impl Iterator<Item = Rule> {
        RULES.iter().map(|row| row.0)
    }

    fn row(self) -> Option<&'static Row> {
        RULES.get(self as usize)
    }

    /// The name in configurations and drop counts.
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.1)
    }

    /// Which side of the limit a text must stay on.
    pub fn bound(self) -> Bound {
        self.row().map_or(Bound::Max, |row| row.2)
    }

    /// What the rule looks at.
    pub fn value(self, signals: &Signals) -> f32 {
        self.row().map_or(0.0, |row| (row.3)(signals))
    }

    /// Whether a value is on the wrong side of a limit.
    pub fn is_broken(self, value: f32, limit: f32) -> bool {
        match self.bound() {
            Bound::Min => value < limit,
            Bound::Max => value > limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_in_order_and_names_agree_with_configurations() {
        for (at, rule) in Rule::all().enumerate() {
            assert_eq!(rule as usize, at);
            assert_eq!(serde_json::to_value(rule).ok(), Some(rule.name().into()));
        }
        assert!(Rule::MinWords.is_broken(1.0, 2.0) && !Rule::MaxWords.is_broken(1.0, 2.0));
    }
}
