//! Owns turning sentences of Standard Arabic into made-up sentences of a neighbouring variety; never reads a corpus.
//!
//! The content words stay, so a model cannot learn the label from what a text is about: it has to look at function
//! words, clitics and verb forms, as a reader of the news in Darija does.

use std::collections::HashMap;

use super::rng::Rng;
use super::sample::Token;
use crate::lid::lexicon::fold;

const RULES: &str = include_str!("dialects.txt");

const ALEF: u32 = 0x627;
const LAM: u32 = 0x644;
const YEH: u32 = 0x64A;
const TEH: u32 = 0x62A;

/// Verbs in ت- that are frequent enough to be taken for verbs.
const FEMININE_VERBS: &str = "تكون تقول تعتبر تشمل تستخدم تحتوي تسمح تعمل تؤدي توجد تصبح تقوم تعد تتم تقع تضم توفر تشير تهدف تمثل تستطيع \
    ترتبط تعود تبدأ تنتج تأتي تساعد تستمر تبلغ تقدم تعرف تشكل تعيش تريد تحاول تحتاج تطلب تنتشر تتكون تعتمد تظهر تختلف تسمى تدعم";
/// Words in ي- that are no verbs.
const NO_VERBS: &str = "يوم يومين يوميا يناير يونيو يوليو يد يده يدها يسار يمين ياباني يابانية يهود يهودي يونان يونانية يا يورو يوسف يعقوب يحيى";

/// Replacements for all labels.
#[derive(Debug)]
pub struct Dialects {
    words: HashMap<Vec<u32>, HashMap<String, Vec<Vec<Vec<u32>>>>>,
    feminine: Vec<Vec<u32>>,
    no_verbs: Vec<Vec<u32>>,
}

impl Dialects {
    /// The rules of `dialects.txt`.
    pub fn built_in() -> Dialects {
        let mut words: HashMap<Vec<u32>, HashMap<String, Vec<Vec<Vec<u32>>>>> = HashMap::new();
        for line in RULES.lines().filter(|line| !line.starts_with('#')) {
            let Some((keys, forms)) = line.split_once(" : ") else { continue };
            let phrase =
                |form: &str| -> Vec<Vec<u32>> { form.split('_').map(fold).filter(|w| !w.is_empty()).collect() };
            let by_label: HashMap<String, Vec<Vec<Vec<u32>>>> = forms
                .split_whitespace()
                .filter_map(|entry| entry.split_once('='))
                .map(|(label, forms)| (label.to_owned(), forms.split('|').map(phrase).collect()))
                .collect();
            for key in keys.split_whitespace() {
                words.insert(fold(key), by_label.clone());
            }
        }
        let list = |text: &str| text.split_whitespace().map(fold).collect();
        Dialects { words, feminine: list(FEMININE_VERBS), no_verbs: list(NO_VERBS) }
    }

    /// `tokens` as language `lang` (`ary`, `arz`, ...) would put them; `None` when nothing in it changed.
    pub fn put(&self, tokens: &[Token], lang: &str, rng: &mut Rng) -> Option<Vec<Token>> {
        let style = Style::draw(lang, rng);
        let mut out: Vec<Token> = Vec::with_capacity(tokens.len() + 4);
        let mut changes = 0;
        let mut negated = false;
        for (at, token) in tokens.iter().enumerate() {
            let letters = &token.letters;
            let next = tokens.get(at + 1).map(|t| t.letters.as_slice()).unwrap_or_default();
            if is_negation(letters) && self.is_verb(next) && rng.chance(0.85) {
                negated = true;
                continue;
            }
            if self.is_verb(letters) {
                let verb = style.verb(letters, negated, rng);
                changes += usize::from(verb.iter().any(|w| w != letters));
                out.extend(verb.into_iter().map(Token::lower));
                negated = false;
            } else if let Some(forms) = self.words.get(letters).and_then(|labels| labels.get(lang))
                && rng.chance(style.zeal)
            {
                let form = rng.pick(forms).cloned().unwrap_or_default();
                changes += usize::from(form.iter().any(|w| w != letters));
                out.extend(form.into_iter().map(Token::lower));
            } else {
                style.noun(token, next, &mut out, rng, &mut changes);
            }
        }
        (changes > 0).then_some(out)
    }

    fn is_verb(&self, letters: &[u32]) -> bool {
        let person = letters.first().copied().unwrap_or(0);
        (4..=7).contains(&letters.len())
            && (person == YEH && !self.no_verbs.iter().any(|w| w == letters)
                || person == TEH && self.feminine.iter().any(|w| w == letters))
    }
}

fn is_negation(letters: &[u32]) -> bool {
    letters == [LAM, ALEF] || letters == [LAM, 0x645] || letters == [LAM, 0x646]
}

/// Habits of one writer.
struct Style {
    verb_prefixes: Vec<Vec<u32>>,
    negation_suffix: bool,
    is_ary: bool,
    /// Probability that a function word is put into the variety.
    zeal: f64,
    /// ال written ل.
    bare_article: f64,
    /// في ال written فال.
    joined_fi: f64,
    /// ث ذ written ت د.
    stops: bool,
    /// ديال between nouns.
    genitive: f64,
    genitive_word: Vec<u32>,
}

impl Style {
    fn draw(lang: &str, rng: &mut Rng) -> Style {
        let prefixes: &[&str] = match lang {
            "ary" => *rng
                .pick(&[
                    &["ك", "ك", "ك", "غ", "", "كا", "غا"][..],
                    &["ت", "ت", "غ", "", "تا", "غادي "],
                    &["ك", "ك", "", "غادي "],
                ])
                .unwrap_or(&&["ك"][..]),
            "arz" => &["ب", "ب", "ه", "ح", ""],
            "apc" => &["ب", "ب", "رح ", "عم ", ""],
            "acm" => &["د", "راح ", "", ""],
            "aeb" => &["", "", "باش ", "بش "],
            "arq" => &["", "", "راح ", "راه "],
            "mey" => &["", "", "لاهي "],
            "ars" | "afb" => &["", "", "ب", "راح "],
            _ => &[""],
        };
        let is_ary = lang == "ary";
        let maghreb = is_ary || lang == "arq" || lang == "mey" || lang == "aeb";
        let genitives: &[&str] = match lang {
            "ary" => &["ديال", "ديال", "د", "نتاع", "ديال"],
            "arq" => &["تاع", "نتاع", "تع"],
            "aeb" => &["متاع", "متع"],
            "arz" => &["بتاع"],
            "apc" => &["تبع"],
            "acm" => &["مال"],
            "ars" | "afb" => &["حق"],
            _ => &[""],
        };
        Style {
            verb_prefixes: prefixes.iter().map(|p| p.chars().map(u32::from).collect()).collect(),
            negation_suffix: maghreb || lang == "arz",
            is_ary,
            zeal: [0.55, 0.8, 0.95][rng.below(3)],
            bare_article: if maghreb && rng.chance(0.25) { 0.4 } else { 0.0 },
            joined_fi: if is_ary && rng.chance(0.6) { 0.6 } else { 0.0 },
            stops: lang != "ars" && lang != "afb" && lang != "acm" && rng.chance(0.3),
            genitive: if is_ary { 0.3 } else { 0.1 },
            genitive_word: rng.pick(genitives).map(|w| fold(w)).unwrap_or_default(),
        }
    }

    fn verb(&self, letters: &[u32], negated: bool, rng: &mut Rng) -> Vec<Vec<u32>> {
        let prefix = rng.pick(&self.verb_prefixes).cloned().unwrap_or_default();
        let mut stem = letters.to_vec();
        // ون at the end of plural verbs is Standard Arabic.
        if stem.ends_with(&[0x648, 0x646]) {
            stem.pop();
        }
        let mut words: Vec<Vec<u32>> = Vec::new();
        if prefix.last() == Some(&u32::from(' ')) {
            words.push(prefix.iter().copied().filter(|l| *l != u32::from(' ')).collect());
        } else {
            stem.splice(0..0, prefix);
        }
        if negated {
            if self.negation_suffix {
                stem.push(0x634);
            }
            if rng.chance(0.5) && words.is_empty() {
                stem.splice(0..0, if self.is_ary && rng.chance(0.5) { vec![0x645] } else { vec![0x645, ALEF] });
            } else {
                words.insert(0, vec![0x645, ALEF]);
            }
        }
        words.push(stem);
        words
    }

    fn noun(&self, token: &Token, next: &[u32], out: &mut Vec<Token>, rng: &mut Rng, changes: &mut usize) {
        let mut letters = token.letters.clone();
        let is_definite = |w: &[u32]| w.len() > 4 && w.starts_with(&[ALEF, LAM]);
        let after_fi = out.last().is_some_and(|t| t.letters == [0x641] || t.letters == [0x641, YEH]);
        if is_definite(&letters) && after_fi && rng.chance(self.joined_fi) {
            out.pop();
            letters.insert(0, 0x641);
            *changes += 1;
        } else if is_definite(&letters) && rng.chance(self.bare_article) {
            letters.remove(0);
            *changes += 1;
        }
        if letters.ends_with(&[0x648, ALEF]) && letters.len() > 4 && rng.chance(0.7) {
            letters.pop();
        }
        if self.stops {
            letters.iter_mut().for_each(|l| match *l {
                0x62B => *l = TEH,
                0x630 => *l = 0x62F,
                0x638 => *l = 0x636,
                _ => {}
            });
        }
        let bare = letters.len() > 3 && !letters.starts_with(&[ALEF, LAM]);
        out.push(Token { letters, capital: false });
        if bare && is_definite(next) && !self.genitive_word.is_empty() && rng.chance(self.genitive) {
            if let Some(last) = out.last_mut()
                && rng.chance(0.6)
            {
                last.letters.splice(0..0, [ALEF, LAM]);
            }
            out.push(Token::lower(self.genitive_word.clone()));
            *changes += 1;
        }
    }
}
