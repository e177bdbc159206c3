//! Owns the names of all rules that change a text and the counts of how often each fired; never changes a text itself.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule of the normaliser or of the repair.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// All rules, in the order of their counts.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant,)*];

            /// The name that reports and change histories use.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Rule::$variant => $name,)*
                }
            }
        }

        const RULES: usize = [$(Rule::$variant,)*].len();
    };
}

rules! {
    /// CRLF or CR became LF.
    LineEnd = "line_end",
    /// A control character was removed, or became the sign that it is in windows-1252.
    Control = "control",
    /// A byte order mark or another invisible character without a meaning in text (soft hyphen, zero-width space) was
    /// removed.
    Invisible = "invisible",
    /// A direction mark was removed.
    Bidi = "bidi",
    /// A zero-width joiner or non-joiner was removed from Arabic script.
    Joiner = "joiner",
    /// An Arabic presentation form became letters.
    PresentationForm = "presentation_form",
    /// A tatweel was removed.
    Tatweel = "tatweel",
    /// A vowel sign was removed (only with `harakat: drop`).
    Harakat = "harakat",
    /// A letter of a Persian or Urdu keyboard became the Arabic letter that was meant.
    PersianLetter = "persian_letter",
    /// An Arabic-Indic digit became an ASCII digit.
    Digit = "digit",
    /// Characters were composed or ordered as NFC asks; counted once a text.
    Nfc = "nfc",
    /// A Greek letter became the Amazigh Latin letter that was meant.
    GreekLetter = "greek_letter",
    /// A Cyrillic letter became the Amazigh Latin letter that was meant.
    CyrillicLetter = "cyrillic_letter",
    /// A t with cedilla or comma became a t with a dot below.
    Cedilla = "cedilla",
    /// A euro sign inside an Amazigh word became the letter that was meant.
    Euro = "euro",
    /// A degree sign inside an Amazigh word became the labialisation mark.
    Degree = "degree",
    /// A mark of Tifinagh that has a standard spelling got it.
    Tifinagh = "tifinagh",
    /// A run of three or more equal letters was cut to two.
    Elongation = "elongation",
    /// Text read in a wrong encoding was decoded again; counted once a run.
    Mojibake = "mojibake",
    /// U+FFFD was removed.
    Replacement = "replacement",
    /// A line of glyph numbers, 29 below the letters, became letters.
    ShiftedFont = "shifted_font",
    /// A lam-alef turned round by PDF extraction was put right, in a place where only that can be meant.
    LamAlef = "lam_alef",
    /// A lam-alef inside a word was put right after a look into the word list.
    LamAlefInner = "lam_alef_inner",
    /// Another ligature turned round by PDF extraction was put right after a look into the word list.
    Ligature = "ligature",
}

/// How often each rule fired on a text, or on many.
#[derive(Clone, PartialEq, Eq)]
pub struct Changes {
    counts: [u64; RULES],
}

impl Default for Changes {
    fn default() -> Self {
        Changes { counts: [0; RULES] }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Changes {
    /// Counts that `rule` fired `times` more.
    pub fn add(&mut self, rule: Rule, times: u64) {
        if let Some(count) = self.counts.get_mut(rule as usize) {
            *count += times;
        }
    }

    /// How often `rule` fired.
    pub fn count(&self, rule: Rule) -> u64 {
        self.counts.get(rule as usize).copied().unwrap_or(0)
    }

    /// Adds the counts of another text.
    pub fn merge(&mut self, other: &Changes) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The rules that fired, in a fixed order, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Rule::ALL.iter().zip(&self.counts).filter(|(_, count)| **count > 0).map(|(rule, count)| (rule.name(), *count))
    }

    /// Whether no rule fired.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// How often rules fired altogether.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A map from the names of the rules that fired to how often.
impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.iter() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

/// Reads what [`Changes`] writes; names of rules that this version does not know are passed over.
impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut changes = Changes::default();
        for rule in Rule::ALL {
            changes.add(*rule, named.get(rule.name()).copied().unwrap_or(0));
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn counts_have_one_place_and_one_name_each() {
        let mut names = std::collections::HashSet::new();
        for (i, rule) in Rule::ALL.iter().enumerate() {
            assert_eq!(*rule as usize, i);
            assert!(names.insert(rule.name()));
        }
    }

    #[test]
    fn changes_add_up_and_survive_json() {
        let mut a = Changes::default();
        assert!(a.is_empty());
        a.add(Rule::Tatweel, 3);
        let mut b = Changes::default();
        b.add(Rule::Tatweel, 1);
        b.add(Rule::LineEnd, 2);
        a.merge(&b);
        assert_eq!(a.iter().collect::<Vec<_>>(), [("line_end", 2), ("tatweel", 4)]);
        assert_eq!(a.total(), 6);
        let json = serde_json::to_string(&a).unwrap();
        assert_eq!(json, r#"{"line_end":2,"tatweel":4}"#);
        assert_eq!(serde_json::from_str::<Changes>(&json).unwrap(), a);
    }
}
