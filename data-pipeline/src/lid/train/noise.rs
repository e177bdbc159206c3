//! Owns the noise of training sentences: dropped words, spelling habits, transliteration; never reads a corpus.

use super::rng::Rng;
use super::sample::Token;
use crate::normalize::tifinagh::EXACT;

/// The mark of labialisation, which those who write with Latin letters most often write as a plain w.
const LABIALISATION: char = 'ⵯ';

fn letters(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

fn map(tokens: &[Token], f: impl Fn(u32) -> Option<u32>) -> Vec<Token> {
    let word = |token: &Token| Token { letters: token.letters.iter().filter_map(|l| f(*l)).collect(), capital: false };
    tokens.iter().map(word).filter(|token| !token.letters.is_empty()).collect()
}

/// Amazigh in Tifinagh as Latin; letters outside the standard alphabet go.
pub fn to_latin(tokens: &[Token]) -> Vec<Token> {
    map(tokens, |l| match EXACT.iter().find(|(t, _)| u32::from(*t) == l) {
        Some((LABIALISATION, _)) => Some(u32::from('w')),
        pair => pair.map(|(_, latin)| u32::from(*latin)),
    })
}

/// Amazigh in Latin as Tifinagh; letters without counterpart go.
pub fn to_tifinagh(tokens: &[Token]) -> Vec<Token> {
    let pair_of = |l| EXACT.iter().find(|(t, latin)| u32::from(*latin) == l && *t != LABIALISATION);
    map(tokens, |l| pair_of(l).map(|(t, _)| u32::from(*t)))
}

/// Arabizi and the Arabic letters that writers may mean by it; an empty choice is a short vowel.
const ARABIC: [(&str, &[&str]); 42] = [
    ("ch", &["ش"]),
    ("sh", &["ش"]),
    ("kh", &["خ"]),
    ("gh", &["غ"]),
    ("ou", &["و", "و", ""]),
    ("aa", &["ا"]),
    ("ee", &["ي"]),
    ("oo", &["و"]),
    ("2", &["ء", "ا", "أ"]),
    ("3", &["ع"]),
    ("4", &["غ"]),
    ("5", &["خ"]),
    ("6", &["ط"]),
    ("7", &["ح"]),
    ("8", &["ه"]),
    ("9", &["ق"]),
    ("a", &["ا", "ا", ""]),
    ("b", &["ب"]),
    ("c", &["س"]),
    ("d", &["د", "د", "د", "ض"]),
    ("e", &["", "", "ي"]),
    ("f", &["ف"]),
    ("g", &["گ", "ك", "ق"]),
    ("h", &["ه"]),
    ("i", &["ي", "ي", ""]),
    ("j", &["ج"]),
    ("k", &["ك"]),
    ("l", &["ل"]),
    ("m", &["م"]),
    ("n", &["ن"]),
    ("o", &["و", ""]),
    ("p", &["پ", "ب"]),
    ("q", &["ق"]),
    ("r", &["ر"]),
    ("s", &["س", "س", "س", "ص"]),
    ("t", &["ت", "ت", "ت", "ط"]),
    ("u", &["و", ""]),
    ("v", &["ڤ", "ف"]),
    ("w", &["و"]),
    ("x", &["ش"]),
    ("y", &["ي"]),
    ("z", &["ز"]),
];

/// Arabizi as Arabic letters, roughly: doubled letters once, short vowels mostly unwritten, an alef before a first vowel.
pub fn to_arabic(tokens: &[Token], rng: &mut Rng) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    for token in tokens {
        let mut word: Vec<u32> = Vec::new();
        let mut at = 0;
        while let Some(rest) = token.letters.get(at..).filter(|rest| !rest.is_empty()) {
            let found = ARABIC.iter().map(|(from, to)| (letters(from), to)).find(|(from, _)| rest.starts_with(from));
            let (len, mut form) = match found {
                Some((from, to)) => (from.len(), rng.pick(to).map(|t| letters(t)).unwrap_or_default()),
                None => (1, Vec::new()),
            };
            let is_vowel = rest.first().is_some_and(|l| "aeiou".chars().any(|v| u32::from(v) == *l));
            if at == 0 && is_vowel && form != [0x627] {
                form.insert(0, 0x627);
            }
            if at > 0 && at + len >= token.letters.len() && is_vowel && form.is_empty() {
                form = letters("ا");
            }
            if word.last() != form.first() || form.is_empty() {
                word.extend(form);
            }
            at += len;
        }
        if !word.is_empty() {
            out.push(Token::lower(word));
        }
    }
    out
}

/// Drops words here and there, names (capitals inside the sentence) more often; keeps at least one.
pub fn drop_words(tokens: &mut Vec<Token>, rng: &mut Rng) {
    let rate = [0.0, 0.05, 0.15, 0.25][rng.below(4)];
    let first = tokens.first().cloned();
    let mut at = 0;
    tokens.retain(|token| {
        at += 1;
        let is_name = token.capital && at > 1;
        !rng.chance(if is_name { 0.5 } else { rate })
    });
    if tokens.is_empty() {
        tokens.extend(first);
    }
}

/// Careless hamza, teh marbuta and final yeh.
pub fn arabic(tokens: &mut [Token], standard: bool, rng: &mut Rng) {
    let (teh, yeh, hamza) = (rng.chance(0.08), rng.chance(0.1), rng.chance(if standard { 0.15 } else { 0.4 }));
    for token in tokens {
        if let Some(last) = token.letters.last_mut() {
            match *last {
                0x629 if teh => *last = 0x647,
                0x64A if yeh => *last = 0x649,
                0x649 if yeh => *last = 0x64A,
                _ => {}
            }
        }
        if hamza {
            token.letters.iter_mut().for_each(|l| match *l {
                0x626 => *l = 0x64A,
                0x624 => *l = 0x648,
                _ => {}
            });
            if token.letters.len() > 2 && token.letters.last() == Some(&0x621) {
                token.letters.pop();
            }
        }
    }
}

/// Spellings of Arabizi that writers choose between.
const ARABIZI: [(&str, &[&str]); 22] = [
    ("ch", &["sh", "x", "ch", "ch"]),
    ("sh", &["ch", "x", "sh"]),
    ("kh", &["5", "kh", "x", "7'"]),
    ("gh", &["8", "gh", "4", "r", "gh"]),
    ("7", &["h", "7", "7"]),
    ("9", &["q", "k", "9", "9"]),
    ("3", &["a", "3", "e", "3", "aa"]),
    ("8", &["h", "8"]),
    ("ou", &["u", "o", "ou", "w"]),
    ("oo", &["ou", "u"]),
    ("u", &["ou", "o", "u"]),
    ("o", &["ou", "u", "o", "o"]),
    ("w", &["ou", "w", "w", "w"]),
    ("y", &["i", "y", "y"]),
    ("i", &["y", "i", "i", "e"]),
    ("e", &["a", "", "e", "e", "i"]),
    ("a", &["e", "a", "a", "a"]),
    ("ss", &["s", "ss"]),
    ("zz", &["z", "zz"]),
    ("ll", &["l", "ll"]),
    ("mm", &["m", "mm"]),
    ("j", &["dj", "g", "j", "j"]),
];

/// Spelling noise of Latin text by language.
pub fn latin(tokens: &mut Vec<Token>, lang: &str, rng: &mut Rng) {
    match lang {
        "ary" | "arq" if rng.chance(0.5) => arabizi(tokens, lang, rng),
        "shi" | "rif" | "tzm" | "kab" if rng.chance(if lang == "kab" { 0.15 } else { 0.3 }) => amazigh(tokens, rng),
        "fra" | "spa" if rng.chance(0.12) => tokens.iter_mut().for_each(|t| t.letters = plain(&t.letters)),
        _ => {}
    }
    tokens.retain(|token| !token.letters.is_empty());
}

/// Rewrites some spellings; one choice for a whole sentence, as a writer has habits.
fn arabizi(tokens: &mut [Token], lang: &str, rng: &mut Rng) {
    let mut habits: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
    for (from, forms) in ARABIZI {
        let dz = lang == "ary" && from == "j";
        if rng.chance(0.2)
            && !dz
            && let Some(form) = rng.pick(forms)
        {
            habits.push((letters(from), letters(form)));
        }
    }
    for token in tokens.iter_mut() {
        let mut out = Vec::with_capacity(token.letters.len());
        let mut at = 0;
        while let Some(rest) = token.letters.get(at..).filter(|rest| !rest.is_empty()) {
            match habits.iter().find(|(from, _)| rest.starts_with(from)) {
                Some((from, to)) => {
                    out.extend_from_slice(to);
                    at += from.len();
                }
                None => {
                    out.extend(rest.first());
                    at += 1;
                }
            }
        }
        token.letters = out;
    }
}

/// Amazigh as people without its keyboard write it: gh for ɣ, kh for x, ch for c, no dots.
fn amazigh(tokens: &mut [Token], rng: &mut Rng) {
    let (digraphs, dots) = (rng.chance(0.6), rng.chance(0.6));
    for token in tokens.iter_mut() {
        let mut out = Vec::new();
        for l in &token.letters {
            match char::from_u32(*l) {
                Some('ɣ') if digraphs => out.extend(letters("gh")),
                Some('x') if digraphs => out.extend(letters("kh")),
                Some('c') if digraphs => out.extend(letters("ch")),
                Some('ɛ') if digraphs => out.extend(letters("3")),
                Some(_) if dots => out.extend(plain(&[*l])),
                _ => out.push(*l),
            }
        }
        token.letters = out;
    }
}

/// Letters without diacritics.
fn plain(word: &[u32]) -> Vec<u32> {
    use unicode_normalization::UnicodeNormalization;
    let decomposed = word.iter().filter_map(|l| char::from_u32(*l)).nfd();
    decomposed.filter(|c| !('\u{300}'..='\u{36f}').contains(c)).map(u32::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tifinagh_goes_to_latin_and_back() {
        let word = [Token::lower(letters("ⵜⴰⵎⴰⵣⵉⵖⵜ"))];
        let latin = to_latin(&word);
        assert_eq!(latin[0].letters, letters("tamaziɣt"));
        assert_eq!(to_tifinagh(&latin), word);
        assert_eq!(plain(&letters("éḍñ")), letters("edn"));
    }

    #[test]
    fn at_least_one_word_is_left() {
        let mut rng = Rng(3);
        for _ in 0..200 {
            let mut tokens = vec![Token { letters: letters("a"), capital: true }];
            drop_words(&mut tokens, &mut rng);
            assert_eq!(tokens.len(), 1);
        }
    }
}
