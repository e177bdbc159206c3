//! Owns what a user may ask of language identification and what follows from an answer; never touches files.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Identification, LidError};

/// Language identification of documents (`identify:` of a prepare configuration).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentifyConfig {
    /// A model to use instead of the one in the binary: one written by `jazari data identify --train`, or a fastText
    /// `.bin` or `.ftz` (GlotLID, lid.176).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// What happens when the text is surely in another language than its row says.
    pub on_conflict: OnConflict,
    /// Labels whose documents are dropped, such as `und` and `zxx`; a label without script means every script.
    pub drop: Vec<String>,
    /// Labels whose documents stay, such as `ary_Arab`; all others go, whether the row named the language or the text did.
    /// A label without script means every script. Default: every one stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Lowest score at which an answer overrules what the row says, 0 to 1.
    pub min_score: f32,
}

/// What happens when the text is surely in another language than its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// The row is right; the answer is only recorded.
    Keep,
    /// The answer becomes the label.
    #[default]
    Relabel,
    /// The document is dropped.
    Drop,
}

/// What becomes of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It stays, under this label.
    Keep(String),
    /// It goes; the reason is a name for counts.
    Drop(&'static str),
}

impl Default for IdentifyConfig {
    fn default() -> Self {
        IdentifyConfig {
            model: None,
            on_conflict: OnConflict::default(),
            drop: vec!["und".into(), "zxx".into()],
            keep: Vec::new(),
            min_score: 0.5,
        }
    }
}

impl IdentifyConfig {
    /// Checks the values without opening the model.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn validate(&self) -> Result<(), LidError> {
        if !(0.0..=1.0).contains(&self.min_score) {
            let what = format!("{} is no probability; write 0 to 1", self.min_score);
            return Err(LidError::Config { key: "min_score", what });
        }
        for (key, labels) in [("drop", &self.drop), ("keep", &self.keep)] {
            if let Some(label) = labels.iter().find(|label| !is_pattern(label)) {
                let what =
                    format!("`{label}` is no label; write a language or a language and a script: `und`, `arb_Arab`");
                return Err(LidError::Config { key, what });
            }
        }
        Ok(())
    }

    /// What becomes of a document whose row says `declared` (`None` when it says nothing).
    pub fn decide(&self, declared: Option<&str>, found: &Identification) -> Decision {
        match self.labelled(declared, found) {
            Decision::Keep(label) if !self.keep.is_empty() && !is_listed(&self.keep, &label) => {
                Decision::Drop("unwanted language")
            }
            decided => decided,
        }
    }

    /// [`IdentifyConfig::decide`] before `keep`.
    fn labelled(&self, declared: Option<&str>, found: &Identification) -> Decision {
        let label = found.document_label();
        let language = label.split('_').next().unwrap_or(&label);
        let firm = found.sure && found.score >= self.min_score;
        if (firm || language == "zxx") && is_listed(&self.drop, &label) {
            return Decision::Drop(match language {
                "zxx" => "no language",
                "und" => "unknown language",
                _ => "unwanted language",
            });
        }
        match declared {
            None => Decision::Keep(label),
            Some(declared) if !firm || declared == label || agrees(declared, &label) => Decision::Keep(declared.into()),
            Some(declared) => match self.on_conflict {
                OnConflict::Keep => Decision::Keep(declared.into()),
                OnConflict::Relabel => Decision::Keep(label),
                OnConflict::Drop => Decision::Drop("another language than declared"),
            },
        }
    }
}

/// Whether a list names a label, or its language in every script.
fn is_listed(list: &[String], label: &str) -> bool {
    let language = label.split('_').next().unwrap_or(label);
    list.iter().any(|one| one == label || one == language)
}

fn is_pattern(label: &str) -> bool {
    let language = |l: &str| l.len() == 3 && l.bytes().all(|b| b.is_ascii_lowercase());
    language(label) || crate::document::is_language_label(label)
}

/// Whether a macro label covers the declared one: `ber_Latn` says nothing against `shi_Latn`.
fn agrees(declared: &str, found: &str) -> bool {
    let parts = (declared.split_once('_'), found.split_once('_'));
    let (Some((language, script)), Some((macro_language, found_script))) = parts else { return false };
    let tamazight = ["zgh", "tzm", "shi", "rif", "kab", "ber"].contains(&language);
    script == found_script && (macro_language == "ber" && tamazight || language == "ara" && macro_language == "arb")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: &str, sure: bool) -> Identification {
        Identification {
            label: label.into(),
            guess: label.into(),
            script: if label.ends_with("Latn") { "Latn" } else { "Arab" },
            score: 0.9,
            margin: 0.8,
            sure,
            spans: Vec::new(),
        }
    }

    #[test]
    fn only_what_is_to_be_kept_stays_whoever_named_it() {
        let keep = vec!["ary_Arab".to_owned(), "zgh".to_owned()];
        let config = IdentifyConfig { keep, on_conflict: OnConflict::Keep, ..IdentifyConfig::default() };
        config.validate().unwrap();
        let unwanted = Decision::Drop("unwanted language");
        assert_eq!(config.decide(Some("ary_Arab"), &found("arb_Arab", true)), Decision::Keep("ary_Arab".into()));
        assert_eq!(config.decide(Some("arb_Arab"), &found("ary_Arab", true)), unwanted);
        assert_eq!(config.decide(None, &found("ary_Arab", false)), Decision::Keep("ary_Arab".into()));
        assert_eq!(config.decide(None, &found("ary_Latn", true)), unwanted);
        assert_eq!(config.decide(Some("zgh_Latn"), &found("fra_Latn", false)), Decision::Keep("zgh_Latn".into()));
        let wrong = IdentifyConfig { keep: vec!["darija".into()], ..IdentifyConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("keep"));
    }

    #[test]
    fn a_sure_answer_overrules_the_row_and_an_unsure_one_does_not() {
        let config = IdentifyConfig::default();
        config.validate().unwrap();
        assert_eq!(config.decide(Some("ary_Arab"), &found("arb_Arab", true)), Decision::Keep("arb_Arab".into()));
        assert_eq!(config.decide(Some("ary_Arab"), &found("arb_Arab", false)), Decision::Keep("ary_Arab".into()));
        assert_eq!(config.decide(Some("shi_Latn"), &found("ber_Latn", true)), Decision::Keep("shi_Latn".into()));
        assert_eq!(config.decide(None, &found("fra_Latn", false)), Decision::Keep("fra_Latn".into()));
        assert_eq!(config.decide(Some("ary_Latn"), &found("zxx", true)), Decision::Drop("no language"));
        let strict = IdentifyConfig { on_conflict: OnConflict::Drop, ..config };
        assert!(matches!(strict.decide(Some("ary_Arab"), &found("arb_Arab", true)), Decision::Drop(_)));
    }

    #[test]
    fn wrong_values_are_named() {
        let config = IdentifyConfig { drop: vec!["Darija".into()], ..IdentifyConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("identify.drop: `Darija`"));
        let config = IdentifyConfig { min_score: f32::NAN, ..IdentifyConfig::default() };
        assert!(config.validate().is_err());
    }
}
