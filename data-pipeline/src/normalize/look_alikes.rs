//! Owns the letters of other keyboards that stand for Amazigh Latin letters; never touches Greek or Russian words.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::changes::{Changes, Rule};
use super::class::{LOOK_ALIKE, class};

/// What is known about the language of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amazigh {
    /// A language of Morocco or one whose spelling is not told apart from them.
    Moroccan,
    /// Kabyle, where a t with cedilla is a letter of its own (the affricate that is spelt tt elsewhere).
    Kabyle,
    /// Not known.
    Unknown,
    /// Another language.
    No,
}

/// Reads a language label.
pub(super) fn amazigh(label: Option<&str>) -> Amazigh {
    let Some(label) = label else { return Amazigh::Unknown };
    match label.split(['_', '-']).next().unwrap_or_default() {
        "shi" | "tzm" | "rif" | "zgh" | "ber" | "taq" | "thv" | "ttq" | "tmh" | "gha" | "jbn" | "siz" | "auj" => {
            Amazigh::Moroccan
        }
        "kab" => Amazigh::Kabyle,
        "und" | "mul" | "zxx" | "" => Amazigh::Unknown,
        _ => Amazigh::No,
    }
}

/// The text with look-alikes in Amazigh words replaced.
pub(super) fn replace<'a>(text: Cow<'a, str>, language: Amazigh, changes: &mut Changes) -> Cow<'a, str> {
    if language == Amazigh::No && !super::tifinagh::has_tifinagh(&text) {
        return text;
    }
    let context = Context::of(&text, language);
    let mut out = String::new();
    let mut copied = 0;
    for word in words(&text) {
        let Some(old) = text.get(word.clone()) else { continue };
        let Some(new) = context.word(old, changes) else { continue };
        out.push_str(text.get(copied..word.start).unwrap_or_default());
        out.push_str(&new);
        copied = word.end;
    }
    if copied == 0 {
        return text;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(out)
}

/// Words that hold a look-alike: letters, marks, digits and the signs that stand for letters.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let found = at + rest.find(|c| class(c) & LOOK_ALIKE != 0)?;
        let before = text.get(at..found)?.trim_end_matches(is_word).len();
        let after = text.get(found..)?.trim_start_matches(is_word).len();
        let word = at + before..text.len() - after;
        at = word.end;
        Some(word)
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '€' | '°')
        || (!c.is_ascii() && (c.is_alphanumeric() || is_combining_mark(c)))
}

/// What the whole text says about its words.
struct Context {
    /// Look-alikes between Latin letters are replaced.
    mixed: bool,
    /// Words of look-alikes alone are replaced as well.
    pure: bool,
    /// A t with cedilla is a t with a dot below.
    cedilla: bool,
}

impl Context {
    fn of(text: &str, language: Amazigh) -> Context {
        match language {
            Amazigh::Moroccan => Context { mixed: true, pure: true, cedilla: true },
            Amazigh::Kabyle => Context { mixed: true, pure: true, cedilla: false },
            Amazigh::No => Context { mixed: false, pure: false, cedilla: false },
            Amazigh::Unknown => {
                let own =
                    text.contains(['ɣ', 'Ɣ', 'ɛ', 'Ɛ', 'ḍ', 'Ḍ', 'ḥ', 'Ḥ', 'ṛ', 'Ṛ', 'ṣ', 'Ṣ', 'ẓ', 'Ẓ', 'ǧ', 'Ǧ']);
                let mixed = own || has_letter_between_letters(text);
                // A doubled one only occurs in Kabyle.
                let cedilla = mixed && !text.contains("\u{163}\u{163}") && !text.contains("\u{21b}\u{21b}");
                Context { mixed, pure: false, cedilla }
            }
        }
    }

    /// The word with its look-alikes replaced; `None` when it stays.
    fn word(&self, word: &str, changes: &mut Changes) -> Option<String> {
        // A look-alike that is replaced on its own counts for its neighbours as the letter that it becomes.
        let has_latin = word.chars().any(|c| is_latin(c) || self.pure && is_pure_look_alike(c));
        let euro = !word.contains("€€");
        // One letter that only Greek or Russian has makes it a Greek or Russian word.
        let foreign = word.chars().any(|c| is_greek_or_cyrillic(c) && class(c) & LOOK_ALIKE == 0);
        let (mut out, mut changed) = (String::with_capacity(word.len()), false);
        let mut before = '\0';
        let mut chars = word.chars().peekable();
        while let Some(c) = chars.next() {
            let is_letter = self.mixed && has_latin && !foreign || self.pure && !foreign;
            let becomes_latin = |c| is_letter && (is_pure_look_alike(c) || has_latin && is_look_alike(c));
            let latin_next = chars.peek().is_some_and(|&c| is_latin(c) || becomes_latin(c));
            let around = Around { last: before, next: chars.peek().copied(), latin_next, is_letter, euro };
            let replaced = self.letter(c, around, has_latin && !foreign);
            let written = replaced.map_or(c, |(letter, _)| letter);
            if let Some((_, rule)) = replaced {
                changes.add(rule, 1);
                changed = true;
            }
            out.push(written);
            before = written;
        }
        changed.then_some(out)
    }

    fn letter(&self, c: char, around: Around, mixed: bool) -> Option<(char, Rule)> {
        let Around { last, next, latin_next, is_letter, euro } = around;
        if matches!(last, '\u{2d30}'..='\u{2d67}') && matches!(c, '\u{2b7}' | '°') {
            return Some(('\u{2d6f}', Rule::Tifinagh));
        }
        match c {
            'γ' if is_letter => Some(('ɣ', Rule::GreekLetter)),
            'Γ' if is_letter => Some(('Ɣ', Rule::GreekLetter)),
            'ε' if is_letter => Some(('ɛ', Rule::GreekLetter)),
            'Σ' if is_letter => Some(('Ɛ', Rule::GreekLetter)),
            'σ' | 'ς' if is_letter && mixed => Some(('ɛ', Rule::GreekLetter)),
            '\u{511}' if is_letter => Some(('ɛ', Rule::CyrillicLetter)),
            '\u{510}' if is_letter => Some(('Ɛ', Rule::CyrillicLetter)),
            '\u{4d9}' if is_letter && mixed => Some(('ə', Rule::CyrillicLetter)),
            '\u{4d8}' if is_letter && mixed => Some(('Ə', Rule::CyrillicLetter)),
            // One with a second mark is no Amazigh letter, and a second cedilla would not be NFC after the dot.
            '\u{162}' | '\u{163}' | '\u{21a}' | '\u{21b}' if next.is_some_and(is_combining_mark) => None,
            '\u{163}' | '\u{21b}' if self.cedilla => Some(('ṭ', Rule::Cedilla)),
            '\u{162}' | '\u{21a}' if self.cedilla => Some(('Ṭ', Rule::Cedilla)),
            // Not `10€` nor `5€/kg`: the euro is a letter only beside letters and away from digits.
            '€' if self.mixed && euro && (is_latin(last) || latin_next) && !is_digit(Some(last)) && !is_digit(next) => {
                Some(('ɛ', Rule::Euro))
            }
            // Not `n°`, `90°`, `°C`: only after a letter that Amazigh labialises.
            '°' if self.mixed && mixed && "gGkKqQxXɣƔbBmMfFcChH".contains(last) => Some(('\u{2b7}', Rule::Degree)),
            _ => None,
        }
    }
}

/// What stands around a character of a word.
#[derive(Clone, Copy)]
struct Around {
    last: char,
    next: Option<char>,
    /// The next character is a Latin letter or becomes one.
    latin_next: bool,
    /// Look-alikes of this word are letters.
    is_letter: bool,
    /// A euro sign may be one.
    euro: bool,
}

/// Look-alikes that are replaced also where a word has no Latin letter.
fn is_pure_look_alike(c: char) -> bool {
    matches!(c, 'γ' | 'Γ' | 'ε' | 'Σ' | '\u{510}' | '\u{511}')
}

fn is_look_alike(c: char) -> bool {
    is_pure_look_alike(c) || matches!(c, 'σ' | 'ς' | '\u{4d8}' | '\u{4d9}')
}

fn is_digit(c: Option<char>) -> bool {
    c.is_some_and(char::is_numeric)
}

/// Whether a Greek or Cyrillic look-alike stands between two small ASCII letters: `taεrabt`.
fn has_letter_between_letters(text: &str) -> bool {
    let mut before = ['\0'; 2];
    for c in text.chars() {
        let middle = before[1];
        if before[0].is_ascii_lowercase() && c.is_ascii_lowercase() && matches!(middle, 'γ' | 'ε' | 'σ' | '\u{511}')
        {
            return true;
        }
        before = [middle, c];
    }
    false
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, '\u{c0}'..='\u{2af}' | '\u{1e00}'..='\u{1eff}') && !matches!(c, '\u{d7}' | '\u{f7}')
}

fn is_greek_or_cyrillic(c: char) -> bool {
    matches!(c, '\u{370}'..='\u{52f}' | '\u{1f00}'..='\u{1fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_alike_is_part_of_a_word() {
        assert!(('\0'..=char::MAX).all(|c| class(c) & LOOK_ALIKE == 0 || is_word(c)));
        let words: Vec<&str> = words("x €2-tε γγ° a, n°3").map(|word| &"x €2-tε γγ° a, n°3"[word]).collect();
        assert_eq!(words, ["€2", "tε", "γγ°", "n°3"]);
    }

    fn replaced(text: &str, label: &str) -> String {
        let label = (!label.is_empty()).then_some(label);
        replace(Cow::Borrowed(text), amazigh(label), &mut Changes::default()).into_owned()
    }

    #[test]
    fn look_alikes_become_the_letters_that_were_meant() {
        for (label, before, after) in [
            ("kab_Latn", "Tamaziγt, taεrabt, Σli, Γas, ԑli Ԑli", "Tamaziɣt, taɛrabt, Ɛli, Ɣas, ɛli Ɛli"),
            ("shi_Latn", "amaţţar aţas", "amaṭṭar aṭas"),
            ("shi_Latn", "aţ\u{327}as aț\u{301}as", "aţ\u{327}as aț\u{301}as"),
            ("kab_Latn", "neţţa tideţ", "neţţa tideţ"),
            ("shi_Latn", "t€rabt €li 10€ 5€/kg", "tɛrabt ɛli 10€ 5€/kg"),
            ("tzm_Latn", "ag°lid akk° n° 25° 30°C", "agʷlid akkʷ n° 25° 30°C"),
            ("", "tamaziγt", "tamaziɣt"),
            ("", "γ-GT, IFNγ, Σn, 20°C, 10€", "γ-GT, IFNγ, Σn, 20°C, 10€"),
            ("", "aḍar n Σli", "aḍar n Ɛli"),
            ("fra_Latn", "rayons γ et tamaziγt 5€", "rayons γ et tamaziγt 5€"),
            ("kab_Latn", "αβγ γράμμα", "αβγ γράμμα"),
            ("zgh_Tfng", "ⴰⴳʷⵍⵍⵉⴷ ⴰⴽ°", "ⴰⴳⵯⵍⵍⵉⴷ ⴰⴽⵯ"),
        ] {
            assert_eq!(replaced(before, label), after, "{label}");
            assert_eq!(replaced(after, label), after, "{label} again");
        }
    }
}
