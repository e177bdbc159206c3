//! Owns what a user may ask of the removal of personal data; never touches texts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// What is done with a kind of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Write a placeholder in its place: `<PHONE_1>`.
    Replace,
    /// Leave it in the text and count it.
    Keep,
    /// Drop the whole document.
    Drop,
}

/// Removal of personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PiiConfig {
    /// What is done with each kind; kinds that are not named keep their default: `replace`, but `keep` for the numbers
    /// of companies (`ice`, `if`, `rc`, `cnss`, `patente`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<Kind, Action>,
    /// Also find addresses written to escape robots: `name [at] example [dot] com`.
    #[serde(default = "yes")]
    pub obfuscated_email: bool,
    /// Findings of each kind and language that are shown, masked, in the audit file of the data set (`pii_audit.jsonl`).
    #[serde(default = "default_audit")]
    pub audit_per_kind: u32,
}

impl Default for PiiConfig {
    fn default() -> Self {
        PiiConfig { kinds: BTreeMap::new(), obfuscated_email: yes(), audit_per_kind: default_audit() }
    }
}

impl PiiConfig {
    /// The largest audit sample of a kind.
    pub const MAX_AUDIT: u32 = 10_000;

    /// What is done with a kind.
    pub fn action(&self, kind: Kind) -> Action {
        self.kinds.get(&kind).copied().unwrap_or(match kind {
            Kind::Ice | Kind::If | Kind::Rc | Kind::Cnss | Kind::Patente => Action::Keep,
            _ => Action::Replace,
        })
    }

    /// Problems that need no text to be seen, each with its key and what to write; `key` is where this struct stands.
    pub fn validate(&self, key: &str, problems: &mut Vec<String>) {
        if self.audit_per_kind > PiiConfig::MAX_AUDIT {
            let (found, most) = (self.audit_per_kind, PiiConfig::MAX_AUDIT);
            problems.push(format!("{key}.audit_per_kind: is {found}; write a number up to {most}"));
        }
    }
}

fn yes() -> bool {
    true
}

fn default_audit() -> u32 {
    20
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn defaults_keep_companies_and_replace_the_rest() {
        let config: PiiConfig = serde_json::from_str(r#"{"kinds": {"cnss": "replace", "card": "drop"}}"#).unwrap();
        assert_eq!(config.action(Kind::Ice), Action::Keep);
        assert_eq!(config.action(Kind::Cnss), Action::Replace);
        assert_eq!(config.action(Kind::Card), Action::Drop);
        assert_eq!(config.action(Kind::Phone), Action::Replace);
        assert!(serde_json::from_str::<PiiConfig>(r#"{"kinds": {"names": "replace"}}"#).is_err());
        let mut problems = Vec::new();
        PiiConfig { audit_per_kind: 10_001, ..config }.validate("pii", &mut problems);
        assert_eq!(problems, ["pii.audit_per_kind: is 10001; write a number up to 10000"]);
    }
}
