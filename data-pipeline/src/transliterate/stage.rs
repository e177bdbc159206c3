//! Owns transliteration as a stage over rows (`jazari data transliterate`): which fields it writes and what it counts;
//! never touches files.

use serde_json::json;

use super::{Target, is_reversible};
use crate::filter::{Counts, Edits, Outcome, Row, Stage};

/// The field of rows that are no originals: `Tfng>Latn`.
pub const FIELD: &str = "transliterated";

/// Writes the texts of rows in another script.
///
/// Rows whose script is not the source, and rows that were transliterated before, pass through unchanged and are counted
/// as `passed`.
#[derive(Debug, Clone, Copy)]
pub struct TransliterateStage {
    target: Target,
    drop_others: bool,
}

impl TransliterateStage {
    /// A stage for one direction; `drop_others` drops the rows that would pass through unchanged.
    pub fn new(target: Target, drop_others: bool) -> Self {
        TransliterateStage { target, drop_others }
    }
}

impl Stage for TransliterateStage {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        let target = self.target;
        let label = row.label();
        if !target.takes(row.text, label.as_deref()) || row.field(FIELD).is_some() {
            if self.drop_others {
                return Outcome::Drop("other_script".into());
            }
            counts.add("passed", 1);
            return Outcome::Keep(Edits::default());
        }
        counts.add("transliterated", 1);
        if target == Target::Latin {
            counts.add(if is_reversible(row.text) { "reversible" } else { "not_reversible" }, 1);
        }
        let text = target.write(row.text, label.as_deref()).into_owned();
        let mut set = Vec::new();
        let language = label.as_deref().and_then(|label| label.split(['_', '-']).next());
        if let Some(language) = language {
            // A row whose language is one field keeps it so: `zgh_Latn`.
            if row.lang.is_some_and(|given| given.contains(['_', '-'])) {
                set.push(("lang".to_owned(), json!(format!("{language}_{}", target.script()))));
            }
            if row.script.is_some() {
                set.push(("script".to_owned(), json!(target.script())));
            }
        }
        set.push((FIELD.to_owned(), json!(format!("{}>{}", target.from_script(), target.script()))));
        Outcome::Keep(Edits { text: Some(text), set })
    }
}
