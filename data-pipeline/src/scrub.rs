//! Owns the stage of `data scrub`: quality filters and the removal of personal data over rows; never reads or writes files.

use std::sync::Mutex;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::filter::{Counts, Edits, Outcome, Row, Stage};
use crate::filters::{FilterConfig, FilterError, Filters};
use crate::pii::{AuditEntry, AuditSample, PiiConfig, PiiCounts, Scrubber};

/// What is done to each row; the two sections of a data configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubConfig {
    /// Quality filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<FilterConfig>,
    /// Removal of personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiConfig>,
}

impl ScrubConfig {
    /// Problems that need no file to be seen, each with its key and what to write.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(filters) = &self.filters {
            filters.validate("filters", &mut problems);
        }
        if let Some(pii) = &self.pii {
            pii.validate("pii", &mut problems);
        }
        problems
    }
}

/// Judges and scrubs rows.
///
/// Rows that stay get the fields `pii` (findings by kind) and, when asked for, `signals`. Rows that are dropped are
/// counted as `filter:RULE` or `pii:KIND`.
pub struct Scrub {
    filters: Option<Filters>,
    scrubber: Option<Scrubber>,
    with_signals: bool,
    /// Hands on what would be dropped, with the field `reason`, and drops the rest.
    only_dropped: bool,
    audit: Mutex<AuditSample>,
}

impl Scrub {
    /// A stage for a configuration.
    ///
    /// # Errors
    /// A wrong limit, a word list that cannot be read.
    pub fn new(config: &ScrubConfig) -> Result<Scrub, FilterError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(FilterError::Config(problems));
        }
        Ok(Scrub {
            filters: config.filters.as_ref().map(Filters::new).transpose()?,
            scrubber: config.pii.as_ref().map(Scrubber::new),
            with_signals: false,
            only_dropped: false,
            audit: Mutex::new(AuditSample::new(config.pii.as_ref().map_or(0, |pii| pii.audit_per_kind))),
        })
    }

    /// Also writes what the filters measured into the field `signals`.
    pub fn with_signals(mut self) -> Scrub {
        self.with_signals = true;
        self
    }

    /// The stage that hands on the rows that this one drops, unchanged but for the field `reason`.
    pub fn only_dropped(mut self) -> Scrub {
        self.only_dropped = true;
        self
    }

    /// A sample of what was found, masked.
    pub fn audit(&self) -> Vec<AuditEntry> {
        self.audit.lock().map(|sample| sample.entries().cloned().collect()).unwrap_or_default()
    }

    /// What becomes of a row.
    fn judge(&self, row: &Row<'_>, counts: &mut Counts) -> Result<Edits, (String, Option<Json>)> {
        let label = row.label().unwrap_or_default();
        let source = row.source;
        let mut edits = Edits::default();
        if let Some(filters) = &self.filters {
            let (cleaned, lines) = filters.clean_lines(row.text, &label, source);
            for (name, count) in
                [("unfinished", lines.unfinished), ("short", lines.short), ("boilerplate", lines.boilerplate)]
            {
                if count > 0 {
                    counts.add(&format!("lines:{name}"), count);
                }
            }
            if let std::borrow::Cow::Owned(cleaned) = cleaned {
                if cleaned.is_empty() {
                    return Err(("filter:no_line_left".to_owned(), None));
                }
                edits.text = Some(cleaned);
            }
            let text = edits.text.as_deref().unwrap_or(row.text);
            let signals = filters.judge(text, &label, source).map_err(|reason| {
                let details = serde_json::json!({
                    "rule": reason.rule.name(), "value": reason.value, "limit": reason.limit, "signals": reason.signals,
                });
                (format!("filter:{}", reason.rule.name()), Some(details))
            })?;
            if self.with_signals {
                edits.set.push(("signals".to_owned(), serde_json::to_value(signals).unwrap_or_default()));
            }
        }
        if let Some(scrubber) = &self.scrubber {
            self.scrub(scrubber, row, &mut edits, counts)?;
        }
        Ok(edits)
    }

    fn scrub(
        &self,
        scrubber: &Scrubber,
        row: &Row<'_>,
        edits: &mut Edits,
        counts: &mut Counts,
    ) -> Result<(), (String, Option<Json>)> {
        let text = edits.text.as_deref().unwrap_or(row.text);
        let findings = scrubber.find(text);
        if findings.is_empty() {
            return Ok(());
        }
        let (scrubbed, found) = scrubber.replace(text, &findings);
        for (name, count) in found.by_name() {
            counts.add(&format!("pii:{name}"), count);
        }
        if !self.only_dropped
            && let Ok(mut audit) = self.audit.lock()
        {
            let place = format!("{}:{}", row.file, row.number);
            let label = row.label().unwrap_or_default();
            audit.add(row.id.unwrap_or(&place), &label, text, &findings);
        }
        if let Some(kind) = found.dropped_for {
            return Err((format!("pii:{}", kind.name()), None));
        }
        edits.set.push(("pii".to_owned(), counts_of(&found)));
        if let std::borrow::Cow::Owned(scrubbed) = scrubbed {
            edits.text = Some(scrubbed);
        }
        Ok(())
    }
}

fn counts_of(found: &PiiCounts) -> Json {
    serde_json::to_value(found.by_name()).unwrap_or_default()
}

impl Stage for Scrub {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        match (self.judge(row, counts), self.only_dropped) {
            (Ok(edits), false) => Outcome::Keep(edits),
            (Ok(_), true) => Outcome::Drop("stays".into()),
            (Err((reason, _)), false) => Outcome::Drop(reason.into()),
            (Err((reason, details)), true) => {
                let mut set = vec![("reason".to_owned(), Json::String(reason))];
                set.extend(details.map(|details| ("details".to_owned(), details)));
                Outcome::Keep(Edits { text: None, set })
            }
        }
    }
}
