//! Owns finding personal data in a text and replacing it; never touches files, and knows no names of people.
//!
//! One pass over the bytes stops at digits, `@`, `:`, `/` and brackets; what stands there is parsed by hand, checked by
//! its checksum where the kind has one, and by the label beside it (`CIN`, `الهاتف`, `réf.`) where a bare number means
//! nothing. Every value of a kind gets a number within its document, so that `<PHONE_1>` twice is one telephone.

mod audit;
mod bank;
mod config;
mod context;
mod identity;
mod kind;
mod mail;
mod network;
mod number;
mod phone;
mod place;
mod run;
mod scan;
mod web;

use std::borrow::Cow;
use std::ops::Range;

use ahash::AHashMap;

pub use audit::{AuditEntry, AuditSample};
pub use config::{Action, PiiConfig};
pub use kind::{Kind, PiiCounts};

/// One piece of personal data in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Where it stands, in bytes.
    pub range: Range<usize>,
}

/// Finds and replaces personal data. Cheap to share between threads; the same text always gives the same result.
#[derive(Debug, Clone)]
pub struct Scrubber {
    actions: [Action; Kind::ALL.len()],
    obfuscated_email: bool,
}

impl Scrubber {
    /// A scrubber that does what the configuration asks.
    pub fn new(config: &PiiConfig) -> Scrubber {
        Scrubber { actions: Kind::ALL.map(|kind| config.action(kind)), obfuscated_email: config.obfuscated_email }
    }

    /// What is done with a kind.
    pub fn action(&self, kind: Kind) -> Action {
        self.actions.get(kind as usize).copied().unwrap_or(Action::Keep)
    }

    /// Everything found in a text, in order and without overlaps, whatever is done with it.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        scan::Scan::new(text, self.obfuscated_email).run()
    }

    /// The text with personal data replaced, and what was found. Borrows when nothing was replaced.
    ///
    /// When [`PiiCounts::dropped_for`] is set the document is to be dropped; the text is then returned unchanged.
    pub fn scrub<'a>(&self, text: &'a str) -> (Cow<'a, str>, PiiCounts) {
        let findings = self.find(text);
        let (out, counts) = self.replace(text, &findings);
        (out, counts)
    }

    /// Carries out the actions on findings of [`Scrubber::find`].
    pub fn replace<'a>(&self, text: &'a str, findings: &[Finding]) -> (Cow<'a, str>, PiiCounts) {
        let mut counts = PiiCounts::default();
        for finding in findings {
            let action = self.action(finding.kind);
            counts.add(finding.kind, action == Action::Replace);
            if action == Action::Drop && counts.dropped_for.is_none() {
                counts.dropped_for = Some(finding.kind);
            }
        }
        if counts.dropped_for.is_some() || counts.replaced_total() == 0 {
            return (Cow::Borrowed(text), counts);
        }
        let mut numbers = Numbers::default();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for finding in findings.iter().filter(|finding| self.action(finding.kind) == Action::Replace) {
            let value = text.get(finding.range.clone()).unwrap_or_default();
            out.push_str(text.get(at..finding.range.start).unwrap_or_default());
            let number = numbers.of(text, finding.kind, value);
            out.push('<');
            out.push_str(finding.kind.placeholder());
            out.push('_');
            out.push_str(&number.to_string());
            out.push('>');
            at = finding.range.end;
        }
        out.push_str(text.get(at..).unwrap_or_default());
        (Cow::Owned(out), counts)
    }
}

/// The numbers of the values of a document.
#[derive(Default)]
struct Numbers {
    known: AHashMap<(Kind, String), u32>,
    last: [Option<u32>; Kind::ALL.len()],
}

impl Numbers {
    fn of(&mut self, text: &str, kind: Kind, value: &str) -> u32 {
        let key = (kind, canonical(kind, value));
        if let Some(&number) = self.known.get(&key) {
            return number;
        }
        let Some(last) = self.last.get_mut(kind as usize) else { return 0 };
        // A text that was scrubbed before goes on counting.
        let number = last.unwrap_or_else(|| highest_placeholder(text, kind)).saturating_add(1);
        *last = Some(number);
        self.known.insert(key, number);
        number
    }
}

/// The highest number of a placeholder of `kind` that stands in a text already.
fn highest_placeholder(text: &str, kind: Kind) -> u32 {
    let opening = format!("<{}_", kind.placeholder());
    let after = |at: usize| text.get(at + opening.len()..).unwrap_or_default();
    text.match_indices(&opening)
        .filter_map(|(at, _)| after(at).split_once('>').and_then(|(number, _)| number.parse().ok()))
        .max()
        .unwrap_or(0)
}

/// Two spellings of one value have one canonical form.
fn canonical(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Phone => {
            let digits = run::ascii_digits(value);
            let national = ["00212", "212"].iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(&digits);
            national.trim_start_matches('0').to_owned()
        }
        Kind::Email | Kind::Handle => {
            value.chars().filter(|c| !run::is_hidden(*c)).flat_map(char::to_lowercase).collect()
        }
        Kind::Url | Kind::Gps | Kind::Ip => value.trim().to_owned(),
        _ => value
            .chars()
            .filter_map(|c| run::digit_value(c).map(|d| char::from(b'0' + d)).or(c.is_alphabetic().then_some(c)))
            .flat_map(char::to_uppercase)
            .collect(),
    }
}

#[cfg(test)]
mod tests;
