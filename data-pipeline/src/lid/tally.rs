//! Owns the sum over the sentences of a text: shares, label, score, spans; never looks at words.

use super::script::{NUM_SCRIPTS, Script};
use super::words::{Sentence, Word};
use super::{Identification, Span};

/// Label of letters in no known language.
pub const UND: &str = "und";
/// Label of text without language.
pub const ZXX: &str = "zxx";

const UND_LABEL: usize = 0;
/// Lowest score and margin of a sure answer.
const SURE_SCORE: f32 = 0.6;
const SURE_MARGIN: f32 = 0.3;
/// Lowest probability of a single variety of Tamazight in Latin letters, and of another than the standard in Tifinagh.
const VARIETY_SCORE: f32 = 0.6;
const OTHER_TIFINAGH_SCORE: f32 = 0.9;
/// Languages that the macro label `ber` covers.
const TAMAZIGHT: [&str; 5] = ["zgh_", "tzm_", "shi_", "rif_", "kab_"];

/// What is known so far of a text.
#[derive(Debug)]
pub struct Tally {
    /// Letters times probability, by label.
    shares: Vec<f32>,
    script_letters: [u64; NUM_SCRIPTS],
    letters: u64,
    digits: u64,
    symbols: u64,
    code_letters: u64,
    spans: Vec<(usize, usize, usize, u32)>,
}

impl Tally {
    /// An empty sum over this many labels.
    pub fn new(labels: usize) -> Tally {
        Tally {
            shares: vec![0.0; labels],
            script_letters: [0; NUM_SCRIPTS],
            letters: 0,
            digits: 0,
            symbols: 0,
            code_letters: 0,
            spans: Vec::new(),
        }
    }

    /// Counts the characters of a sentence.
    pub fn note(&mut self, sentence: &Sentence) {
        self.letters += u64::from(sentence.num_letters());
        self.digits += u64::from(sentence.digits);
        self.symbols += u64::from(sentence.symbols);
        for (sum, count) in self.script_letters.iter_mut().zip(sentence.script_letters) {
            *sum += u64::from(count);
        }
    }

    /// Whether a sentence is a line of a program or a table of numbers; its letters are then left out.
    pub fn is_code(&mut self, sentence: &Sentence) -> bool {
        let letters = sentence.num_letters();
        let words = sentence.words.len() as u32;
        let is_program = sentence.symbols >= 4 && sentence.symbols * 3 >= letters;
        let is_numbers = sentence.digits >= 8 && sentence.digits > 2 * letters && letters <= 3 * words;
        let is_code = letters == 0 || is_program || is_numbers;
        if is_code {
            self.code_letters += u64::from(letters);
        }
        is_code
    }

    /// A word in a script without a model; `gap`: a word of another script stands right before.
    pub fn unknown(&mut self, word: &Word, letters: u32, gap: bool) {
        self.share(UND_LABEL, letters as f32);
        self.push_span(UND_LABEL, (word.start, word.end), letters, gap);
    }

    /// The probabilities of a run of words.
    pub fn add(&mut self, offset: usize, probabilities: &[f32], letters: u32, labels: usize) {
        for (label, p) in probabilities.iter().enumerate().take(labels) {
            self.share(offset + label, p * letters as f32);
        }
    }

    fn share(&mut self, label: usize, letters: f32) {
        if let Some(share) = self.shares.get_mut(label) {
            *share += letters;
        }
    }

    /// A stretch of words with one label; `gap`: a word of another script stands right before.
    pub fn push_span(&mut self, label: usize, (start, end): (usize, usize), letters: u32, gap: bool) {
        match self.spans.last_mut() {
            Some(last) if last.0 == label && last.2 <= start && !gap => {
                last.2 = end;
                last.3 += letters;
            }
            _ => self.spans.push((label, start, end, letters)),
        }
    }

    /// The answer.
    pub fn finish(mut self, labels: &[String]) -> Identification {
        let script = self.main_script();
        let spoken = self.letters - self.code_letters;
        if spoken == 0 || self.code_letters > spoken {
            return self.without_language(script);
        }
        let name = |label: usize| labels.get(label).map_or(UND, String::as_str);
        let merged = self.merged(labels);
        let of_script = |name: &str| name == UND || name.ends_with(script.map_or("", Script::code));
        let mut ranked: Vec<(&str, f32)> = merged.iter().filter(|(n, _)| of_script(n)).map(|(n, s)| (*n, *s)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        let total: f32 = ranked.iter().map(|(_, share)| share).sum::<f32>().max(f32::MIN_POSITIVE);
        let share = |at: usize| ranked.get(at).map_or(0.0, |(_, share)| share / total);
        let guess = ranked.first().map_or(UND, |(name, _)| *name);
        let (score, margin) = (share(0), share(0) - share(1));
        let sure = score >= SURE_SCORE && margin >= SURE_MARGIN;
        let mut found = Identification {
            label: guess.to_owned(),
            guess: guess.to_owned(),
            script: script.map_or("Zyyy", Script::code),
            score,
            margin,
            sure,
            spans: Vec::new(),
        };
        widen(&mut found, &ranked, total);
        self.spans.sort_by_key(|span| span.1);
        found.spans = self.spans(&found, name);
        found
    }

    fn main_script(&self) -> Option<Script> {
        let most = self.script_letters.iter().copied().max().filter(|most| *most > 0)?;
        Script::ALL.into_iter().zip(self.script_letters).find(|(_, count)| *count == most).map(|(script, _)| script)
    }

    fn without_language(&self, script: Option<Script>) -> Identification {
        Identification {
            label: ZXX.into(),
            guess: ZXX.into(),
            script: script.map_or("Zyyy", Script::code),
            score: 1.0,
            margin: 1.0,
            sure: true,
            spans: Vec::new(),
        }
    }

    /// Shares by name: `und` of all scripts is one label.
    fn merged<'a>(&self, labels: &'a [String]) -> Vec<(&'a str, f32)> {
        let mut merged: Vec<(&str, f32)> = Vec::with_capacity(labels.len());
        for (label, share) in labels.iter().zip(&self.shares).filter(|(_, share)| **share > 0.0) {
            // Only `und` stands more than once.
            match merged.first_mut().filter(|(known, _)| label == UND && *known == UND) {
                Some((_, sum)) => *sum += share,
                None if label == UND => merged.insert(0, (label, *share)),
                None => merged.push((label, *share)),
            }
        }
        merged
    }

    fn spans<'a>(&self, found: &Identification, name: impl Fn(usize) -> &'a str) -> Vec<Span> {
        let total: u32 = self.spans.iter().map(|span| span.3).sum();
        let mut spans: Vec<Span> = Vec::new();
        for (label, start, end, letters) in &self.spans {
            let own = name(*label);
            // Stretches of the guess carry the label of the document, also where that is a macro label.
            let label = if own == found.guess { found.label.as_str() } else { own };
            let share = *letters as f32 / total.max(1) as f32;
            match spans.last_mut() {
                Some(last) if last.label == label && last.end <= *start => {
                    last.end = *end;
                    last.share += share;
                }
                _ => spans.push(Span { start: *start, end: *end, label: label.to_owned(), share }),
            }
        }
        spans
    }
}

/// Tamazight whose variety is not certain gets the macro label; Tifinagh is the standard unless another is certain.
fn widen(found: &mut Identification, ranked: &[(&str, f32)], total: f32) {
    let is_tamazight = |name: &str| TAMAZIGHT.iter().any(|prefix| name.starts_with(prefix));
    if !is_tamazight(&found.guess) {
        return;
    }
    let together = ranked.iter().filter(|(name, _)| is_tamazight(name)).map(|(_, share)| share).sum::<f32>() / total;
    let needed = match (found.script, found.guess.starts_with("zgh")) {
        ("Tfng", true) => 0.4,
        ("Tfng", false) => OTHER_TIFINAGH_SCORE,
        _ => VARIETY_SCORE,
    };
    if found.score >= needed {
        return;
    }
    found.sure = false;
    let standard = ranked.iter().find(|(name, _)| name.starts_with("zgh")).map_or(0.0, |(_, share)| share / total);
    if found.script == "Tfng" {
        found.label = "zgh_Tfng".into();
        found.guess.clone_from(&found.label);
        found.score = standard;
        found.margin = 0.0;
    } else if together >= 0.5 {
        found.label = format!("ber_{}", found.script);
        found.score = together;
    }
}
