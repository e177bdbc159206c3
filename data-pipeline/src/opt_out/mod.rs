//! Owns the wish of authors to stay out of training data: what in a row says so, and lists of what was asked for; never
//! decides about licences.
//!
//! Marks come in four kinds. A *flag* (`no_ai: true`) and a *reservation* (`tdm-reservation: 1`, the W3C community's TDM
//! Reservation Protocol) opt out when they are set; a *permission* (`ai_training: false`, the assertion
//! `c2pa.ai_training`) when it is refused; *directives* (`robots: "noindex, noai"`, `Content-Usage: train-ai=n`, a list
//! of tags) when one of their words says so.

mod address;
mod list;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::address::{Address, is_below};
pub use self::list::{Candidate, OptOutError, OptOutList};

/// Key of a configuration: who is left out because they asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptOutConfig {
    /// Drop rows whose own fields say that they must not be trained on (`fields.opt_out` names the fields).
    #[serde(default = "yes")]
    pub markers: bool,
    /// Files that list what is left out, a line each: `id: X`, `url: PREFIX`, `domain: HOST` or `source: NAME`; `#` begins
    /// a comment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<PathBuf>,
    /// Digest of the lists, filled in when they are read: other lists make another data set.
    #[serde(skip)]
    pub digest: Option<String>,
}

fn yes() -> bool {
    true
}

impl Default for OptOutConfig {
    fn default() -> Self {
        Self { markers: true, lists: Vec::new(), digest: None }
    }
}

/// What a field says about training, by the kind of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkerKind {
    /// Set, it opts out: `no_ai`.
    Flag,
    /// Set, it reserves text and data mining: `tdm-reservation`.
    Reservation,
    /// Refused, it opts out: `ai_training`.
    Permission,
    /// Words, one of which may opt out: `robots`.
    Directives,
}

impl MarkerKind {
    /// All kinds.
    pub const ALL: [MarkerKind; 4] = [Self::Flag, Self::Reservation, Self::Permission, Self::Directives];

    /// The name that statistics count drops under, behind `opt_out:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "no_ai",
            Self::Reservation => "tdm_reservation",
            Self::Permission => "ai_training",
            Self::Directives => "directive",
        }
    }

    /// The kind of a field, by the last part of its name in any spelling; `None` for names that say nothing.
    pub fn of(field: &str) -> Option<Self> {
        let last = field.rsplit('.').next().unwrap_or(field);
        let bare: String = last.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        Some(match bare.as_str() {
            "noai" | "noaitraining" | "aioptout" | "optout" | "optedout" | "optoutai" | "donottrain" | "notrain"
            | "dnt" | "noml" | "noimageai" => Self::Flag,
            "tdmreservation" | "tdmreserved" | "tdmoptout" => Self::Reservation,
            "aitraining"
            | "trainai"
            | "aitrain"
            | "allowai"
            | "aiallowed"
            | "allowaitraining"
            | "allowtraining"
            | "c2paaitraining"
            | "aigenerativetraining"
            | "c2paaigenerativetraining"
            | "datamining"
            | "c2padatamining" => Self::Permission,
            "robots" | "metarobots" | "robotsmeta" | "xrobotstag" | "robotstag" | "contentusage" | "contentsignal"
            | "aipref" | "tags" | "keywords" | "rights" | "usagerights" => Self::Directives,
            _ => return None,
        })
    }

    /// Whether text in a field of this kind opts out.
    pub fn says_no(self, text: &str) -> bool {
        let value = text.trim().to_lowercase();
        match self {
            Self::Flag | Self::Reservation => is_yes(&value) || words_opt_out(&value),
            Self::Permission => is_no(&value) || words_opt_out(&value),
            Self::Directives => words_opt_out(&value),
        }
    }

    /// Whether a boolean in a field of this kind opts out.
    pub fn says_no_by(self, set: bool) -> bool {
        match self {
            Self::Flag | Self::Reservation => set,
            Self::Permission => !set,
            Self::Directives => false,
        }
    }
}

/// Everything that keeps a document out because somebody asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptOuts {
    /// Whether what rows say of themselves counts.
    pub markers: bool,
    /// What was asked for elsewhere.
    pub list: OptOutList,
}

impl Default for OptOuts {
    fn default() -> Self {
        Self { markers: true, list: OptOutList::default() }
    }
}

impl OptOuts {
    /// Reads the lists of a configuration.
    ///
    /// # Errors
    /// As [`OptOutList::read`].
    pub fn open(config: &OptOutConfig) -> Result<Self, OptOutError> {
        Ok(Self { markers: config.markers, list: OptOutList::read(&config.lists)? })
    }

    /// Whether a licence says `no-ai`, whatever else it allows.
    pub fn licence_says_no(&self, licence: &str) -> bool {
        self.markers && words_opt_out(&licence.to_lowercase())
    }
}

fn is_yes(value: &str) -> bool {
    // Numbers come as text from CSV and as numbers from JSON.
    matches!(value, "1" | "1.0" | "true" | "yes" | "y" | "t" | "on" | "reserved" | "all" | "oui" | "نعم" | "opt-out")
}

fn is_no(value: &str) -> bool {
    let bare: String = value.chars().filter(|c| c.is_alphanumeric()).collect();
    let denied = ["notallowed", "disallow", "disallowed", "denied", "deny", "forbidden", "prohibited", "constrained"];
    matches!(bare.as_str(), "0" | "00" | "false" | "no" | "n" | "f" | "off" | "none" | "non" | "لا")
        || denied.contains(&bare.as_str())
}

/// Phrases of free text that opt out, in lower case with single spaces.
const PHRASES: [&str; 12] = [
    "no ai training",
    "not for ai",
    "no machine learning",
    "do not train",
    "don t train",
    "not be used to train",
    "not be used for training",
    "no text and data mining",
    "tdm reserved",
    "no llm training",
    "ai training prohibited",
    "ai training is prohibited",
];

/// Whether lower-case text holds a directive such as `noai`, `train-ai=n` or `tdm-reservation: 1`.
pub(crate) fn words_opt_out(value: &str) -> bool {
    let words: Vec<&str> = value.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let pair = |first: &str, second: &str| words.windows(2).any(|pair| pair == [first, second]);
    let setting = |name: [&str; 2], refusals: &[&str]| {
        words.windows(3).any(|w| w.get(..2) == Some(&name) && w.get(2).is_some_and(|v| refusals.contains(v)))
    };
    let refusals = ["n", "no", "0", "false", "disallow", "notallowed"];
    words.iter().any(|word| matches!(*word, "noai" | "noaitraining" | "noml" | "notrain" | "donottrain"))
        || pair("no", "ai")
        || pair("no", "ml")
        || setting(["train", "ai"], &refusals)
        || setting(["ai", "train"], &refusals)
        || setting(["ai", "training"], &refusals)
        || setting(["tdm", "reservation"], &["1", "true", "yes"])
        || PHRASES.iter().any(|phrase| words.join(" ").contains(phrase))
}

/// Names looked for where `fields.opt_out` is absent, below each of [`PARENTS`].
const DEFAULT_NAMES: [&str; 24] = [
    "no_ai",
    "no-ai",
    "noai",
    "NoAI",
    "ai_opt_out",
    "opt_out",
    "opt-out",
    "optout",
    "do_not_train",
    "tdm-reservation",
    "tdm_reservation",
    "tdmReservation",
    "tdm_reserved",
    "tdm_opt_out",
    "ai_training",
    "ai-training",
    "train_ai",
    "robots",
    "meta_robots",
    "x_robots_tag",
    "x-robots-tag",
    "X-Robots-Tag",
    "content_usage",
    "Content-Usage",
];
/// Objects that rows of crawls and of dolma keep such fields in; "" is the row itself.
const PARENTS: [&str; 4] = ["", "metadata.", "meta.", "headers."];

/// The names of fields looked for by default.
pub fn default_fields() -> Vec<String> {
    PARENTS.iter().flat_map(|parent| DEFAULT_NAMES.iter().map(move |name| format!("{parent}{name}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_kinds_in_any_spelling() {
        for (name, kind) in [
            ("no-ai", MarkerKind::Flag),
            ("metadata.NoAI", MarkerKind::Flag),
            ("tdm-reservation", MarkerKind::Reservation),
            ("headers.X-Robots-Tag", MarkerKind::Directives),
            ("c2pa.ai_training", MarkerKind::Permission),
        ] {
            assert_eq!(MarkerKind::of(name), Some(kind), "{name}");
        }
        assert_eq!(MarkerKind::of("text"), None);
        assert!(default_fields().iter().all(|name| MarkerKind::of(name).is_some()));
    }

    #[test]
    fn values_say_no_as_their_kind_means_it() {
        use MarkerKind::{Directives, Flag, Permission, Reservation};
        for (kind, value) in [
            (Flag, "true"),
            (Flag, " YES "),
            (Flag, "noai"),
            (Reservation, "1"),
            (Permission, "notAllowed"),
            (Permission, "false"),
            (Directives, "noindex, noai"),
            (Directives, "No-AI"),
            (Directives, "max-snippet:3, NoAI, noimageai"),
            (Directives, "train-ai=n"),
            (Directives, "search=yes, ai-train=no"),
            (Directives, "This text must not be used to train models"),
        ] {
            assert!(kind.says_no(value), "{kind:?} {value}");
        }
        for (kind, value) in [
            (Flag, "false"),
            (Flag, "0"),
            (Flag, ""),
            (Reservation, "0"),
            (Permission, "allowed"),
            (Permission, "true"),
            (Directives, "noindex, nofollow"),
            (Directives, "train-ai=y"),
            (Directives, "no air"),
            (Directives, "trains, no aid"),
        ] {
            assert!(!kind.says_no(value), "{kind:?} {value}");
        }
        assert!(Flag.says_no_by(true) && Permission.says_no_by(false) && !Directives.says_no_by(true));
    }
}
