//! Owns turning sentences of one variety in Latin letters into made-up sentences of a neighbouring one: Moroccan into
//! Algerian Darija, Kabyle into Tachelhit, Central Atlas Tamazight and Tarifit; never reads a corpus.
//!
//! As with Standard Arabic ([`super::dialect`]) the content words stay, so that function words and verb forms decide.

use std::collections::HashMap;

use super::rng::Rng;
use super::sample::Token;
use crate::lid::lexicon::fold;

const RULES: &str = include_str!("varieties.txt");

type Forms = HashMap<String, Vec<Vec<Vec<u32>>>>;

/// Replacements by base language and word.
#[derive(Debug)]
pub struct Varieties {
    words: HashMap<String, HashMap<Vec<u32>, Forms>>,
}

impl Varieties {
    /// The rules of `varieties.txt`.
    pub fn built_in() -> Varieties {
        let mut words: HashMap<String, HashMap<Vec<u32>, Forms>> = HashMap::new();
        let mut base = String::new();
        for line in RULES.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                base = name.to_owned();
                continue;
            }
            let Some((keys, forms)) = line.split_once(" : ") else { continue };
            let phrase = |form: &str| -> Vec<Vec<u32>> {
                form.split('_').filter(|word| *word != "-").map(fold).filter(|word| !word.is_empty()).collect()
            };
            let by_label: Forms = forms
                .split_whitespace()
                .filter_map(|entry| entry.split_once('='))
                .map(|(label, forms)| (label.to_owned(), forms.split('|').map(phrase).collect()))
                .collect();
            for key in keys.split_whitespace() {
                words.entry(base.clone()).or_default().insert(fold(key), by_label.clone());
            }
        }
        Varieties { words }
    }

    /// `tokens` of language `base` as `lang` would put them; `None` when no word of the rules stands in them.
    pub fn put(&self, tokens: &[Token], base: &str, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let rules = self.words.get(base)?;
        let zeal = [0.7, 0.9, 1.0][rng.below(3)];
        let habits = Habits { without_e: rng.chance(0.85), few_e: rng.chance(0.4), r_for_l: rng.chance(0.4) };
        let mut out: Vec<Token> = Vec::with_capacity(tokens.len() + 4);
        let mut changes = 0;
        for token in tokens {
            let forms = rules.get(&token.letters).and_then(|labels| labels.get(lang));
            if let Some(forms) = forms
                && rng.chance(zeal)
            {
                changes += 1;
                out.extend(rng.pick(forms).into_iter().flatten().map(|word| Token::lower(word.clone())));
                continue;
            }
            let before = out.len();
            match base {
                "ary" => algerian_verb(token, &mut out, rng),
                _ => habits.amazigh(token, lang, &mut out),
            }
            changes += usize::from(base == "ary" && out.get(before) != Some(token));
        }
        (changes > 0 && !out.is_empty()).then_some(out)
    }
}

fn letters(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

fn starts(word: &[u32], prefix: &str) -> bool {
    prefix.chars().enumerate().all(|(at, c)| word.get(at) == Some(&u32::from(c)))
}

/// The present without `ka-` or `ta-`, the future with a word of its own instead of `gha-`.
fn algerian_verb(token: &Token, out: &mut Vec<Token>, rng: &mut Rng) {
    let word = &token.letters;
    let is_verb = |prefixes: [&str; 4]| word.len() >= 6 && prefixes.iter().any(|prefix| starts(word, prefix));
    let is_noun = starts(word, "kayn") || starts(word, "kano") || starts(word, "kanet");
    let rest = |from: usize| Token::lower(word.get(from..).unwrap_or_default().to_vec());
    if is_verb(["kan", "kat", "kay", "kai"]) && !is_noun || is_verb(["tan", "tat", "tay", "tai"]) {
        out.push(rest(2));
    } else if is_verb(["ghan", "ghat", "ghay", "ghai"]) {
        let future = ["rah", "rayeh", "raha", ""][rng.below(4)];
        if !future.is_empty() {
            out.push(Token::lower(letters(future)));
        }
        out.push(rest(3));
    } else {
        out.push(token.clone());
    }
}

/// How one writer spells.
struct Habits {
    /// Tachelhit mostly writes no schwa.
    without_e: bool,
    /// Central Atlas Tamazight sometimes neither.
    few_e: bool,
    /// Tarifit writes what it says: r for l, dj for ll.
    r_for_l: bool,
}

impl Habits {
    fn amazigh(&self, token: &Token, lang: &str, out: &mut Vec<Token>) {
        let mut word = token.letters.clone();
        let is_intensive = ["yett", "tett", "nett", "ttett"].iter().any(|prefix| starts(&word, prefix));
        if starts(&word, "ye") && lang != "rif" && word.len() > 3 {
            word.splice(..2, letters("i"));
        }
        let no_e = match lang {
            "shi" => self.without_e,
            "tzm" => self.few_e,
            _ => false,
        };
        if no_e && word.len() > 2 {
            word.retain(|l| *l != u32::from('e'));
        }
        if lang == "rif" && self.r_for_l {
            let doubled = word.windows(2).position(|pair| pair == [u32::from('l'); 2]);
            if let Some(at) = doubled {
                word.splice(at..at + 2, letters("dj"));
            }
            word.iter_mut().filter(|l| **l == u32::from('l')).for_each(|l| *l = u32::from('r'));
        }
        let particle = match lang {
            "shi" => "ar",
            "tzm" => "da",
            _ => "",
        };
        let has_particle = out.last().is_some_and(|last| last.letters.len() == 2 && last.letters.contains(&0x61));
        if is_intensive && !particle.is_empty() && !has_particle {
            out.push(Token::lower(letters(particle)));
        }
        if !word.is_empty() {
            out.push(Token { letters: word, capital: token.capital });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, base: &str, lang: &str) -> Option<String> {
        let tokens: Vec<Token> = text.split(' ').map(|w| Token::lower(fold(w))).collect();
        let put = Varieties::built_in().put(&tokens, base, lang, &mut Rng(5))?;
        let word = |t: &Token| t.letters.iter().filter_map(|l| char::from_u32(*l)).collect::<String>();
        Some(put.iter().map(word).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn function_words_change_and_content_words_stay() {
        let algerian = put("lktab dyalna kaydiroh daba", "ary", "arq").unwrap();
        assert!(algerian.starts_with("lktab ") && algerian.contains("ydiroh"), "{algerian}");
        assert!(!algerian.contains("dyalna") && !algerian.contains("daba"), "{algerian}");
        let tachelhit = put("deg tmurt tura", "kab", "shi").unwrap();
        assert!(tachelhit.contains("tmurt") && !tachelhit.contains("tura"), "{tachelhit}");
        assert_eq!(put("lktab jdid", "ary", "arq"), None);
    }
}
