//! Owns `data clean` as a stage over rows: each text as a preparation of the same sections would take it, before it looks
//! for duplicates; never reads or writes files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::document::document_id;
use crate::filter::{Counts, Edits, Outcome, Row, Stage};
use crate::filters::FilterConfig;
use crate::lid::IdentifyConfig;
use crate::normalize::{Normalize, Profile};
use crate::pii::PiiConfig;
use crate::prepare::PrepareError;
use crate::prepare::admit::UNKNOWN_LANGUAGE;
use crate::prepare::curate::{Applied, Curation};
use crate::repair::RepairConfig;

/// What is done to each text, in this order; sections of a data configuration, with the same defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CleanConfig {
    /// The normal form.
    #[serde(default)]
    pub normalize: Normalize,
    /// Repair of what extraction and wrong encodings did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairConfig>,
    /// Identification of languages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identify: Option<IdentifyConfig>,
    /// Quality filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<FilterConfig>,
    /// Removal of personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiConfig>,
}

impl CleanConfig {
    /// Everything, by the rules for the scripts of Morocco.
    pub fn everything() -> CleanConfig {
        CleanConfig {
            normalize: Normalize::Profile(Profile::default()),
            repair: Some(RepairConfig::default()),
            identify: Some(IdentifyConfig::default()),
            filters: Some(FilterConfig::default()),
            pii: Some(PiiConfig::default()),
        }
    }

    /// Problems that need no file to be seen, each with its key and what to write.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(repair) = &self.repair
            && let Err(found) = repair.validate()
        {
            problems.extend(found.into_iter().map(|problem| format!("repair.{problem}")));
        }
        if let Some(identify) = &self.identify
            && let Err(error) = identify.validate()
        {
            problems.push(error.to_string());
        }
        if let Some(filters) = &self.filters {
            filters.validate("filters", &mut problems);
        }
        if let Some(pii) = &self.pii {
            pii.validate("pii", &mut problems);
        }
        problems
    }
}

/// Cleans rows.
///
/// A row that stays has the cleaned text, the fields `lang` and `script` where its language was identified as another,
/// and, when asked for, the field `notes`: what a data set keeps beside each document.
pub struct Clean {
    curation: Curation,
    with_notes: bool,
    /// Hands on what would be dropped, with the field `reason`, and drops the rest.
    only_dropped: bool,
}

impl Clean {
    /// A stage for a configuration.
    ///
    /// # Errors
    /// A model or a word list that cannot be read.
    pub fn new(config: &CleanConfig) -> Result<Clean, PrepareError> {
        Ok(Clean { curation: Curation::open(config, None)?, with_notes: false, only_dropped: false })
    }

    /// Also writes the field `notes`.
    pub fn with_notes(mut self) -> Clean {
        self.with_notes = true;
        self
    }

    /// The stage that hands on the rows that this one drops, unchanged but for the field `reason`.
    pub fn only_dropped(mut self) -> Clean {
        self.only_dropped = true;
        self
    }

    /// What becomes of a row; an error is the reason to drop it.
    fn cleaned(&self, row: &Row<'_>, counts: &mut Counts) -> Result<Edits, String> {
        let given = row.label().filter(|label| label != UNKNOWN_LANGUAGE);
        let mut applied = Applied::default();
        let text = self.curation.normalized(row.text, given.as_deref(), &mut applied);
        if text.trim().is_empty() {
            return Err("empty_text".to_owned());
        }
        let source = row.source;
        let id = document_id(source, row.id.unwrap_or(&text));
        let outcome = self.curation.apply(text, given.as_deref(), (&id, source), &mut applied);
        for (rule, count) in &applied.counts {
            counts.add(rule, *count);
        }
        let text = outcome.map_err(|reason| reason.into_owned())?;
        if text.trim().is_empty() {
            return Err("empty_text".to_owned());
        }
        let mut edits = Edits { text: (text != row.text).then(|| text.into_owned()), set: Vec::new() };
        if let Some(label) = &applied.label {
            edits.set.extend(row.label_fields(label));
        }
        if self.with_notes {
            edits.set.push(("notes".to_owned(), json!(applied.into_notes())));
        }
        Ok(edits)
    }
}

impl Stage for Clean {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        match (self.cleaned(row, counts), self.only_dropped) {
            (Ok(edits), false) => Outcome::Keep(edits),
            (Ok(_), true) => Outcome::Drop("stays".into()),
            (Err(reason), false) => Outcome::Drop(reason.into()),
            (Err(reason), true) => {
                Outcome::Keep(Edits { text: None, set: vec![("reason".to_owned(), Json::String(reason))] })
            }
        }
    }
}
