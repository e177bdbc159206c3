//! Owns what a document is: its text, its labels and how it is identified; never touches files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of bytes of a document identifier (the first half of a BLAKE3 digest).
pub const DOCUMENT_ID_BYTES: usize = 16;

/// Unicode byte order mark, which some editors put before the first character.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// What the stages of a preparation found out about a text and did to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notes {
    /// The language label that the file (or the configuration) gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// The label that was identified; `und_Arab` and the like when it is not sure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identified: Option<String>,
    /// Probability of the identified label, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Shares of languages mixed into the text, largest first: `fra_Latn 0.31, eng_Latn 0.12`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mixed: String,
    /// Figures of the quality filters, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f32>,
    /// When the text was published or fetched, as its file says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// How often each rule changed the text, by stage and name (`normalize:tatweel`, `pii:phone`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub history: BTreeMap<String, u64>,
}

/// One text with where it comes from and what may be done with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// 32 hexadecimal digits, see [`document_id`].
    pub id: String,
    /// The text in training form (see [`crate::normalize`]), never empty.
    pub text: String,
    /// ISO 639-3 language, underscore, ISO 15924 script: `ary_Arab`.
    pub lang: String,
    /// Name of the corpus the text comes from.
    pub source: String,
    /// SPDX identifier or expression, as the corpus states it.
    pub licence: String,
    /// Where the text was published, when the corpus says so.
    pub url: Option<String>,
    /// What was found out about it, when the configuration asks for such stages.
    pub notes: Option<Box<Notes>>,
}

/// Identifier of a document: the first 16 bytes of BLAKE3 over `source`, a zero byte and `content`.
///
/// `content` is the text in training form, or the identifier that the corpus itself gives when `fields.id` maps one.
pub fn document_id(source: &str, content: &str) -> [u8; DOCUMENT_ID_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(source.as_bytes());
    hasher.update(&[0]);
    hasher.update(content.as_bytes());
    let mut id = [0; DOCUMENT_ID_BYTES];
    hasher.finalize_xof().fill(&mut id);
    id
}

/// The hexadecimal form of an identifier, as [`Document::id`] holds it.
pub fn id_to_hex(id: &[u8; DOCUMENT_ID_BYTES]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xf)]);
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The label `ary_Arab` from a language and a script, or `None` when they are not an ISO 639-3 and an ISO 15924 code.
///
/// `lang` may already hold both parts, joined by `_` or `-`; then `script` must be absent or agree.
pub fn language_label(lang: &str, script: Option<&str>) -> Option<String> {
    let lang = lang.trim();
    let script = script.map(str::trim).filter(|s| !s.is_empty());
    let (language, own_script) = match lang.split_once(['_', '-']) {
        Some((language, own)) => (language, Some(own)),
        None => (lang, None),
    };
    let script = match (own_script, script) {
        (Some(own), Some(given)) if own != given => return None,
        (Some(own), _) => own,
        (None, Some(given)) => given,
        (None, None) => return None,
    };
    is_label_part(language, script).then(|| format!("{language}_{script}"))
}

/// Whether `label` is a well formed `ary_Arab`.
pub fn is_language_label(label: &str) -> bool {
    label.split_once('_').is_some_and(|(language, script)| is_label_part(language, script))
}

fn is_label_part(language: &str, script: &str) -> bool {
    let language_ok = language.len() == 3 && language.bytes().all(|b| b.is_ascii_lowercase());
    let mut letters = script.bytes();
    let script_ok = script.len() == 4
        && letters.next().is_some_and(|b| b.is_ascii_uppercase())
        && letters.all(|b| b.is_ascii_lowercase());
    language_ok && script_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_source_and_text_and_not_on_where_they_meet() {
        assert_ne!(document_id("ab", "c"), document_id("a", "bc"));
        assert_eq!(document_id("a", "b"), document_id("a", "b"));
        let hex = id_to_hex(&document_id("a", "b"));
        assert_eq!(hex.len(), 2 * DOCUMENT_ID_BYTES);
        assert!(blake3::hash(b"a\0b").to_hex().starts_with(&hex));
    }

    #[test]
    fn labels_come_from_one_field_or_two() {
        assert_eq!(language_label("ary", Some("Arab")).as_deref(), Some("ary_Arab"));
        assert_eq!(language_label("ary_Latn", None).as_deref(), Some("ary_Latn"));
        assert_eq!(language_label("zgh-Tfng", Some("Tfng")).as_deref(), Some("zgh_Tfng"));
        assert_eq!(language_label("zgh_Tfng", Some("Latn")), None);
        assert_eq!(language_label("ary", None), None);
        assert_eq!(language_label("Darija", Some("Arab")), None);
        assert_eq!(language_label("fr", Some("Latn")), None);
        assert_eq!(language_label("fra", Some("latin")), None);
        assert!(is_language_label("ary_Arab") && !is_language_label("ary-Arab") && !is_language_label("ary"));
    }
}
