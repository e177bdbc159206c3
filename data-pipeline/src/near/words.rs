//! Owns what two texts are compared by: one key for all spellings and scripts of a text, cut into words; never touches
//! files.
//!
//! On top of [`crate::normalize::key_form`]: a hyphen between two letters joins (`yenna-yas` is one word, as clitics are
//! written in Amazigh Latin), Tifinagh is read as Latin, and in Amazigh languages clitics written apart are joined to the
//! word before them and Greek look-alikes are read as the Latin letters they stand for.

use crate::normalize::key_form;
use crate::normalize::tifinagh::{has_tifinagh, to_latin};

/// Possessive and demonstrative clitics of Amazigh that are written with a hyphen, without, or apart, and that are no
/// words of their own.
const CLITICS: &[&str] = &[
    "nni", "agi", "yagi", "inna", "yinna", "nneɣ", "nwen", "nkent", "nsen", "nsent", "nnsen", "nnsent", "nnes", "nnek",
    "nnem", "nns", "nnk", "nnm", "nnɣ", "nsn", "nsnt", "nnsn", "nnsnt", "nnun",
];

/// Room for [`compare_key`], kept between texts.
#[derive(Debug, Default)]
pub struct KeyBuffers {
    joined: String,
    latin: String,
}

/// Writes the form of `text` that is compared into `out`, replacing what it held.
///
/// `label` is the language label (`kab_Latn`) or empty; it decides about the rules for Amazigh Latin.
pub fn compare_key(text: &str, label: &str, buffers: &mut KeyBuffers, out: &mut String) {
    let text = if has_inner_hyphen(text) {
        join_hyphens(text, &mut buffers.joined);
        buffers.joined.as_str()
    } else {
        text
    };
    key_form(text, out);
    if has_tifinagh(out) {
        buffers.latin.clear();
        buffers.latin.push_str(&to_latin(out));
        std::mem::swap(out, &mut buffers.latin);
    }
    if is_amazigh(label) {
        buffers.latin.clear();
        fold_amazigh(out, &mut buffers.latin);
        std::mem::swap(out, &mut buffers.latin);
    }
}

/// Whether a label names an Amazigh language, whatever its script.
pub(crate) fn is_amazigh(label: &str) -> bool {
    let language = label.split(['_', '-']).next().unwrap_or(label);
    matches!(language, "zgh" | "tzm" | "shi" | "rif" | "kab" | "taq" | "thv" | "ttq" | "ber" | "cnu" | "shy")
}

fn has_inner_hyphen(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'-', bytes).any(|at| {
        let letter =
            |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(|b| b.is_ascii_alphabetic() || *b >= 0x80);
        letter(at.checked_sub(1)) && letter(at.checked_add(1))
    }) || memchr::memmem::find(bytes, "\u{2010}".as_bytes()).is_some()
        || memchr::memmem::find(bytes, "\u{2011}".as_bytes()).is_some()
}

/// Leaves out hyphens between two letters that are not Arabic.
fn join_hyphens(text: &str, out: &mut String) {
    out.clear();
    out.reserve(text.len());
    let joins = |c: char| c.is_alphabetic() && !('\u{600}'..='\u{8ff}').contains(&c);
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let is_hyphen = matches!(c, '-' | '\u{2010}' | '\u{2011}');
        if !(is_hyphen && joins(before) && chars.peek().copied().is_some_and(joins)) {
            out.push(c);
        }
        before = c;
    }
}

/// Joins clitics and reads look-alikes, in a key.
fn fold_amazigh(key: &str, out: &mut String) {
    out.reserve(key.len());
    for (i, word) in key.split(' ').enumerate() {
        if i > 0 && !CLITICS.contains(&word) {
            out.push(' ');
        }
        if word.is_ascii() {
            out.push_str(word);
            continue;
        }
        out.extend(word.chars().map(|c| match c {
            'γ' => 'ɣ',
            'ε' | 'σ' | 'ς' | 'ԑ' | '€' => 'ɛ',
            'ţ' => 'ṭ',
            'ş' => 'ṣ',
            c => c,
        }));
    }
}

/// How a character of a key takes part in words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Belongs to the word it stands in.
    Letter,
    /// A word of its own: scripts that put no space between words.
    Whole,
    /// Between words.
    Gap,
}

#[inline]
fn part(c: char) -> Part {
    match c {
        '0'..='9' | 'a'..='z' => Part::Letter,
        '\0'..='\u{7f}' => Part::Gap,
        // What the key form leaves of Latin, Greek, Cyrillic, Hebrew and Arabic are letters.
        '\u{c0}'..='\u{24f}' | '\u{600}'..='\u{77f}' | '\u{2d30}'..='\u{2d6f}' => Part::Letter,
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}'
        | '\u{20000}'..='\u{3ffff}' => Part::Whole,
        c if c.is_alphanumeric() => Part::Letter,
        _ => Part::Gap,
    }
}

/// The words of a key: runs of letters, marks and digits. A key without any is one word, so that it equals only itself.
pub fn words(key: &str) -> Words<'_> {
    Words { key, at: 0, any: false }
}

/// See [`words`].
#[derive(Debug, Clone)]
pub struct Words<'a> {
    key: &'a str,
    at: usize,
    any: bool,
}

impl<'a> Iterator for Words<'a> {
    /// Byte position in the key, and the word.
    type Item = (usize, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let rest = self.key.get(self.at..)?;
        let mut start = None;
        for (i, c) in rest.char_indices() {
            match (part(c), start) {
                (Part::Letter, None) => start = Some(i),
                (Part::Letter, Some(_)) | (Part::Gap, None) => {}
                (Part::Gap, Some(from)) => return self.take(rest, from, i),
                (Part::Whole, Some(from)) => return self.take(rest, from, i),
                (Part::Whole, None) => return self.take(rest, i, i + c.len_utf8()),
            }
        }
        if let Some(from) = start {
            return self.take(rest, from, rest.len());
        }
        self.at = self.key.len() + 1;
        (!self.any && !self.key.is_empty()).then_some((0, self.key))
    }
}

impl<'a> Words<'a> {
    fn take(&mut self, rest: &'a str, from: usize, to: usize) -> Option<(usize, &'a str)> {
        let start = self.at + from;
        self.at += to;
        self.any = true;
        rest.get(from..to).map(|word| (start, word))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str, label: &str) -> String {
        let mut out = String::from("left over");
        compare_key(text, label, &mut KeyBuffers::default(), &mut out);
        out
    }

    fn cut(text: &str, label: &str) -> Vec<String> {
        words(&key(text, label)).map(|(_, word)| word.to_owned()).collect()
    }

    #[test]
    fn words_of_every_script() {
        assert_eq!(cut("وَاشْ نَقْدَرْ نسوّلك؟", "ary_Arab"), ["واش", "نقدر", "نسولك"]);
        assert_eq!(cut("3lach m9wd, l'blad?", "ary_Latn"), ["3lach", "m9wd", "l", "blad"]);
        assert_eq!(cut("rendez-vous – demain", "fra_Latn"), ["rendezvous", "demain"]);
        assert_eq!(cut("salam🙂labas", "ary_Latn"), ["salam", "labas"]);
        assert_eq!(cut("摩洛哥 ok", ""), ["摩", "洛", "哥", "ok"]);
        assert_eq!(cut("🙂🙂", ""), ["🙂🙂"]);
        assert_eq!(cut("", ""), Vec::<String>::new());
    }

    #[test]
    fn clitics_meet_however_they_are_written() {
        let expected = cut("yenna-yas axxam-nni", "kab_Latn");
        assert_eq!(expected, ["yennayas", "axxamnni"]);
        assert_eq!(cut("Yenna‑yas axxam nni", "kab_Latn"), expected);
        assert_eq!(cut("axxam nni", "fra_Latn").len(), 2);
        assert_eq!(cut("نص-ثاني", "arb_Arab").len(), 2);
    }

    #[test]
    fn a_text_in_tifinagh_has_the_key_of_its_transliteration() {
        for label in ["zgh_Tfng", "shi_Tfng", "", "und_Zzzz"] {
            assert_eq!(key("ⵜⴰⵎⴰⵣⵉⵖⵜ ⴷ ⵡⴰⵡⴰⵍ, ⴰⴳⵯⴹⵉ!", label), key("Tamaziɣt d wawal; agʷḍi", "zgh_Latn"));
        }
        assert_eq!(key("Γurwat tejmaεt", "kab_Latn"), key("ɣurwat tejmaɛt", "kab_Latn"));
        assert_eq!(key("λόγος εγώ", "ell_Grek"), key("λόγος εγώ", ""));
    }

    proptest! {
        #[test]
        fn words_are_in_order_and_lose_no_letter(text in "[a-z0-9 .+🙂\u{620}-\u{64a}\u{2d30}-\u{2d67}-]{0,40}") {
            let key = key(&text, "");
            let mut last = 0;
            for (at, word) in words(&key) {
                prop_assert!(at >= last && key[at..].starts_with(word) && !word.is_empty());
                last = at + word.len();
            }
            let letters = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).count();
            let in_words: usize = words(&key).map(|(_, word)| letters(word)).sum();
            prop_assert_eq!(in_words, letters(&key));
        }
    }
}
