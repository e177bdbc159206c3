//! Owns the training sentences: balanced over labels and sources, lengthened, noised; never fits a model.

use std::collections::BTreeMap;

use super::dialect::Dialects;
use super::noise;
use super::rng::Rng;
use super::variety::Varieties;
use crate::lid::lexicon::{Lexicon, fold};
use crate::lid::script::Script;
use crate::lid::words::sentences;

/// Sentences kept of one label and source; more add time and no variety.
const MAX_SENTENCES: usize = 20_000;
/// Sentences taken from one document.
const MAX_SENTENCES_PER_ROW: usize = 40;

const NAMES: &str = include_str!("names.txt");

/// A folded word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Folded letters.
    pub letters: Vec<u32>,
    /// Whether it was written with a capital.
    pub capital: bool,
}

impl Token {
    /// A word without capital.
    pub fn lower(letters: Vec<u32>) -> Token {
        Token { letters, capital: false }
    }
}

/// The rows to learn from, by label and source.
#[derive(Debug, Default)]
pub struct Corpus {
    by_label: BTreeMap<String, BTreeMap<String, Vec<Vec<Token>>>>,
}

impl Corpus {
    /// Adds one text. Words of other scripts than that of the label are left out.
    pub fn push(&mut self, text: &str, label: &str, source: &str) {
        let Some(script) = label.split_once('_').and_then(|(_, code)| Script::from_code(code)) else { return };
        let pieces = self.by_label.entry(label.to_owned()).or_default().entry(source.to_owned()).or_default();
        let mut taken = 0;
        sentences(text, |sentence| {
            let words = sentence.words.iter().filter(|word| word.script == script);
            let piece: Vec<Token> =
                words.map(|w| Token { letters: sentence.letters(w).to_vec(), capital: w.capital }).collect();
            if !piece.is_empty() && taken < MAX_SENTENCES_PER_ROW && pieces.len() < MAX_SENTENCES {
                taken += 1;
                pieces.push(piece);
            }
        });
    }

    /// The corpus without some sources.
    pub fn without(&self, sources: &[&str]) -> Corpus {
        let keep = |of: &BTreeMap<String, Vec<Vec<Token>>>| {
            of.iter()
                .filter(|(name, _)| !sources.contains(&name.as_str()))
                .map(|(n, p)| (n.clone(), p.clone()))
                .collect()
        };
        Corpus { by_label: self.by_label.iter().map(|(label, of)| (label.clone(), keep(of))).collect() }
    }

    /// Sentences by label and source.
    pub fn counts(&self) -> Vec<(&str, &str, usize)> {
        let mut counts = Vec::new();
        for (label, sources) in &self.by_label {
            for (name, pieces) in sources {
                counts.push((label.as_str(), name.as_str(), pieces.len()));
            }
        }
        counts
    }

    fn pieces(&self, label: &str) -> Vec<(f64, &[Vec<Token>])> {
        let sources = self.by_label.get(label).into_iter().flat_map(BTreeMap::values);
        let sources = sources.filter(|pieces| !pieces.is_empty());
        // A source weighs as the root of its size: large ones lead, small ones are heard.
        sources.map(|pieces| ((pieces.len() as f64).sqrt(), pieces.as_slice())).collect()
    }
}

/// Draws training sentences.
pub struct Sampler<'a> {
    corpus: &'a Corpus,
    lexicon: &'a Lexicon,
    dialects: Dialects,
    varieties: Varieties,
    names: Vec<Token>,
}

impl<'a> Sampler<'a> {
    /// A sampler over a corpus.
    pub fn new(corpus: &'a Corpus, lexicon: &'a Lexicon) -> Sampler<'a> {
        let listed = NAMES.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
        let names = listed.map(|name| Token { letters: fold(name), capital: true }).collect();
        Sampler { corpus, lexicon, dialects: Dialects::built_in(), varieties: Varieties::built_in(), names }
    }

    /// One sentence of `label`, or `None` when the draw gave nothing.
    pub fn draw(&self, label: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let (lang, script) = label.split_once('_')?;
        let tokens = match script {
            "Arab" => self.arabic(label, lang, rng),
            "Tfng" => self.tifinagh(label, lang, rng),
            _ => self.latin(label, lang, rng),
        }?;
        (!tokens.is_empty()).then_some(tokens)
    }

    fn arabic(&self, label: &str, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let real = match lang {
            "arb" => 1.0,
            "und" => 0.0,
            "ary" => 0.4,
            _ => 0.3,
        };
        let mut tokens = if lang == "ary" && rng.chance(0.2) {
            // Most Darija that may be used is in Latin letters.
            noise::to_arabic(&self.real("ary_Latn", rng)?, rng)
        } else if rng.chance(real) {
            self.real(label, rng).or_else(|| self.salad(Script::Arab, lang, rng))?
        } else if lang == "und" || rng.chance(0.12) {
            self.salad(Script::Arab, lang, rng)?
        } else {
            let base = self.real("arb_Arab", rng)?;
            let mut put = self.dialects.put(&base, lang, rng);
            if put.is_none() || rng.chance(0.15) {
                put = Some(self.mix(put.unwrap_or(base), Script::Arab, lang, rng)?);
            }
            put?
        };
        noise::drop_words(&mut tokens, rng);
        noise::arabic(&mut tokens, lang == "arb", rng);
        Some(tokens)
    }

    fn tifinagh(&self, label: &str, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let latin = format!("{lang}_Latn");
        let borrow = lang != "zgh" && rng.chance(0.5);
        let drawn = if borrow { self.real(&latin, rng).map(|t| noise::to_tifinagh(&t)) } else { self.real(label, rng) };
        let mut tokens = drawn.or_else(|| self.real(label, rng))?;
        noise::drop_words(&mut tokens, rng);
        Some(tokens)
    }

    fn latin(&self, label: &str, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let salad = match lang {
            "und" => 1.0,
            "shi" | "rif" | "tzm" => 0.25,
            "arq" | "ary" => 0.08,
            _ => 0.02,
        };
        let (base, rewritten) = match lang {
            "arq" => ("ary", 0.5),
            "shi" | "tzm" | "rif" => ("kab", 0.2),
            _ => ("", 0.0),
        };
        let mut tokens = if rng.chance(salad) {
            self.salad(Script::Latn, lang, rng)?
        } else if rng.chance(rewritten) {
            let drawn = self.real(&format!("{base}_Latn"), rng);
            let put = drawn.and_then(|tokens| self.varieties.put(&tokens, base, lang, rng));
            put.or_else(|| self.real(label, rng))?
        } else if (lang == "tzm" || lang == "shi" || lang == "rif") && rng.chance(0.2) {
            let borrowed = self.real(&format!("{lang}_Tfng"), rng).map(|t| noise::to_latin(&t));
            borrowed.or_else(|| self.real(label, rng))?
        } else {
            self.real(label, rng)?
        };
        noise::drop_words(&mut tokens, rng);
        if (lang == "ary" || lang == "arq") && tokens.len() > 2 && rng.chance(0.35) {
            let other = if rng.chance(0.8) { "fra_Latn" } else { "eng_Latn" };
            self.code_switch(&mut tokens, other, rng);
        }
        noise::latin(&mut tokens, lang, rng);
        if rng.chance(0.15) {
            self.add_names(&mut tokens, rng);
        }
        Some(tokens)
    }

    /// A sentence of the corpus, of a drawn length: short rows are joined, long ones cut.
    fn real(&self, label: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let sources = self.corpus.pieces(label);
        let total: f64 = sources.iter().map(|(weight, _)| weight).sum();
        let mut point = rng.below(1 << 30) as f64 / f64::from(1 << 30) * total;
        let chosen = sources.iter().find(|(weight, _)| {
            point -= weight;
            point < 0.0
        });
        let pieces = chosen.or(sources.last())?.1;
        let (least, most) = *rng.pick(&[(1, 4), (3, 8), (5, 14), (10, 24), (15, 40)])?;
        let mut tokens: Vec<Token> = Vec::new();
        for _ in 0..6 {
            tokens.extend_from_slice(rng.pick(pieces)?);
            if tokens.len() >= least {
                break;
            }
        }
        if tokens.len() > most {
            let start = rng.below(tokens.len() - most + 1);
            tokens = tokens.get(start..start + most)?.to_vec();
        }
        Some(tokens)
    }

    /// One to three names somewhere in the sentence.
    fn add_names(&self, tokens: &mut Vec<Token>, rng: &mut Rng) {
        let at = rng.below(tokens.len() + 1);
        for _ in 0..1 + rng.below(3) {
            tokens.splice(at..at, rng.pick(&self.names).cloned());
        }
    }

    /// A made-up sentence: words of one list of the language in any order.
    fn salad(&self, script: Script, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let lines = self.lexicon.lines(script, lang);
        let one = rng.pick(&lines)?;
        let whole = lang != "und";
        let count = 3 + rng.below(12);
        let word = |rng: &mut Rng| if whole { rng.pick(&lines).and_then(|l| rng.pick(l)) } else { rng.pick(one) };
        Some((0..count).filter_map(|_| word(rng)).map(|w| Token::lower(w.clone())).collect())
    }

    /// `tokens` with some words replaced by words of the lists.
    fn mix(&self, mut tokens: Vec<Token>, script: Script, lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let lines = self.lexicon.lines(script, lang);
        for _ in 0..1 + tokens.len() / 6 {
            let at = rng.below(tokens.len());
            let word = rng.pick(&lines).and_then(|line| rng.pick(line))?;
            *tokens.get_mut(at)? = Token::lower(word.clone());
        }
        Some(tokens)
    }

    fn code_switch(&self, tokens: &mut Vec<Token>, other: &str, rng: &mut Rng) {
        let Some(foreign) = self.real(other, rng) else { return };
        let count = (1 + rng.below(4)).min(foreign.len()).min(tokens.len() * 2 / 3).max(1);
        let start = rng.below(foreign.len() - count + 1);
        let at = rng.below(tokens.len() + 1);
        tokens.splice(at..at, foreign.into_iter().skip(start).take(count));
    }
}
