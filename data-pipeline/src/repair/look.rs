//! Owns the one pass over a text that every decision of the repair is taken from; never decides.

use super::chars::{ARABIC, MARK, Sets};
use super::direction::Order;
use super::inversion::{Evidence, EvidenceReader};
use super::signs::{Signs, SignsReader};
use super::survey::Survey;

/// What one pass over a text finds.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Which repairs have anything to look for.
    pub survey: Survey,
    /// Signs of damage.
    pub signs: Signs,
    /// Ligatures turned round.
    pub evidence: Evidence,
    /// Words that begin as words end.
    pub order: Order,
}

impl Look {
    /// Looks at a text.
    pub fn of(text: &str) -> Look {
        let table = Sets::table();
        let mut look = Look::default();
        let (mut signs, mut evidence) = (SignsReader::default(), EvidenceReader::default());
        let (mut last, mut last_sets) = (' ', 0);
        for c in text.chars() {
            let sets = table.of(c);
            look.survey.push(c, sets, last, last_sets);
            signs.push(c, sets, last, last_sets);
            if sets & ARABIC != 0 {
                evidence.push(c, sets & MARK != 0);
                look.order.push(c, sets & MARK != 0);
            } else if last_sets & ARABIC != 0 {
                evidence.end();
                look.order.end();
            }
            (last, last_sets) = (c, sets);
        }
        look.order.end();
        look.evidence = evidence.finish();
        look.signs = signs.finish();
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_pass_finds_what_each_reader_finds_alone(text in "(\\PC|[األإةىملحيف ]|[ÃÂØ©\u{64b}ظ„a-z~]){0,80}") {
            let look = Look::of(&text);
            prop_assert_eq!(look.evidence, Evidence::of(&text));
            prop_assert_eq!(look.survey.chars as usize, text.chars().count());
            prop_assert_eq!(look.signs.chars, look.survey.chars);
        }
    }
}
