//! Owns the judgement of what no repair can help: signs of damage counted in one pass, a score and the reason; never
//! changes a text, but for removing characters that stand for lost ones.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::lexicon::{Lexicon, is_arabic, is_mark, words};
use super::mojibake;
use crate::normalize::{Changes, Rule};

/// Why a text counts as garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GarbageReason {
    /// Letters of rare blocks in place of text: a font without a table of characters.
    GlyphSoup,
    /// Words cut up by optical recognition.
    OcrSoup,
    /// Arabic letters that make no Arabic words: lines in the wrong order or direction.
    ScrambledArabic,
    /// Latin letters that an old font draws as Tifinagh.
    LegacyTifinagh,
    /// Control characters or U+FFFD in number.
    Undecodable,
    /// Text read in a wrong encoding, past repair.
    Mojibake,
}

impl GarbageReason {
    /// The name in reports: `glyph_soup`.
    pub fn name(self) -> &'static str {
        match self {
            GarbageReason::GlyphSoup => "glyph_soup",
            GarbageReason::OcrSoup => "ocr_soup",
            GarbageReason::ScrambledArabic => "scrambled_arabic",
            GarbageReason::LegacyTifinagh => "legacy_tifinagh",
            GarbageReason::Undecodable => "undecodable",
            GarbageReason::Mojibake => "mojibake",
        }
    }
}

/// How damaged a text still is after the repair.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// 0 for clean text, 1 for text that no one can read; 0.5 is the limit of each sign.
    pub score: f32,
    /// The damage that scored highest; `None` when the score is 0.
    pub reason: Option<GarbageReason>,
}

impl Verdict {
    /// The reason to drop the text, if its score reaches `max_garbage`.
    pub fn garbage(&self, max_garbage: f32) -> Option<GarbageReason> {
        self.reason.filter(|_| self.score >= max_garbage)
    }
}

/// Share of control characters and U+FFFD at the limit.
const LOST: f32 = 0.005;
/// Share of Latin Extended-B and other letters that no language of Morocco has, at the limit.
const RARE_LETTERS: f32 = 0.02;
/// Share of private use characters at the limit; bullets and logos stay below it.
const PRIVATE: f32 = 0.06;
/// Share of letters and signs of Latin-1 that French does not have, at the limit.
const ODD_LATIN: f32 = 0.08;
/// Share of characters that look like bytes of another table, at the limit.
const SUSPICIOUS: f32 = 0.02;
/// Share of Arabic words that begin with a letter that only ends words, at the limit.
const WRONG_START: f32 = 0.03;
/// Share of single letters among the words, at the limit.
const SINGLE: f32 = 0.65;
/// Share of Latin words with a capital after a small letter or a sign inside, at the limit.
const BROKEN_WORDS: f32 = 0.35;
/// Arabic words that a text must have before they are judged.
const MIN_ARABIC_WORDS: u32 = 20;
/// Latin words that a text must have before they are judged.
const MIN_LATIN_WORDS: u32 = 20;
/// Characters that a text must have before shares of characters are judged.
const MIN_CHARS: u32 = 40;
/// Damaged characters that count as a sign at all.
const MIN_COUNT: u32 = 4;
/// Share of unknown Arabic words that leaves no doubt, in a text that is called Standard Arabic.
const UNKNOWN_WORDS: f32 = 0.8;

/// Characters that say that others were lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    controls: u32,
    replaced: u32,
    all: u32,
}

impl Lost {
    pub fn of(text: &str) -> Lost {
        let mut lost = Lost::default();
        for c in text.chars() {
            lost.all += 1;
            match c {
                '\t' | '\n' | '\r' => {}
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => lost.controls += 1,
                '\u{fffd}' => lost.replaced += 1,
                _ => {}
            }
        }
        lost
    }

    pub fn any(&self) -> bool {
        self.controls + self.replaced > 0
    }
}

/// The text without control characters and U+FFFD.
pub(super) fn without_lost<'a>(text: &'a str, changes: &mut Changes) -> Cow<'a, str> {
    let lost = Lost::of(text);
    if !lost.any() {
        return Cow::Borrowed(text);
    }
    changes.add(Rule::Control, u64::from(lost.controls));
    changes.add(Rule::Replacement, u64::from(lost.replaced));
    let kept =
        |c: &char| matches!(c, '\t' | '\n' | '\r') || !matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffd}');
    Cow::Owned(text.chars().filter(kept).collect())
}

/// What one pass over a text counts.
#[derive(Debug, Default)]
struct Signs {
    chars: u32,
    rare: u32,
    private: u32,
    odd: u32,
    latin_words: u32,
    broken_words: u32,
    single_letters: u32,
    arabic_words: u32,
    arabic_singles: u32,
    wrong_starts: u32,
    letters: u32,
    e: u32,
    v: u32,
    amazigh: u32,
}

impl Signs {
    fn of(text: &str) -> Signs {
        let mut signs = Signs::default();
        let mut word = Word::default();
        for c in text.chars() {
            signs.chars += 1;
            match c {
                '\0'..='\u{7f}' => {}
                c if is_arabic(c) => {}
                '\u{18f}' | '\u{190}' | '\u{194}' | '\u{1dd}' | '\u{1e6}' | '\u{1e7}' | '\u{218}'..='\u{21b}' => {}
                '\u{180}'..='\u{24f}' | '\u{530}'..='\u{5cf}' | '\u{840}'..='\u{8ff}' | '\u{1200}'..='\u{139f}' => {
                    signs.rare += 1;
                }
                '\u{e000}'..='\u{f8ff}' => signs.private += 1,
                'é' | 'è' | 'ê' | 'ë' | 'à' | 'â' | 'ä' | 'î' | 'ï' | 'ô' | 'ö' | 'ù' | 'û' | 'ü' | 'ç' | 'ñ' | 'á'
                | 'í' | 'ó' | 'ú' | 'É' | 'È' | 'Ê' | 'À' | 'Â' | 'Î' | 'Ô' | 'Ç' | '«' | '»' | '\u{a0}' | '°'
                | '·' | '²' | '³' | '©' | '®' | '¿' | '¡' | 'º' | 'ª' => {}
                '\u{a1}'..='\u{ff}' => signs.odd += 1,
                _ => {}
            }
            if word.goes_on(c) {
                word.push(c);
            } else {
                signs.end_of_word(&word);
                word = Word::default();
            }
        }
        signs.end_of_word(&word);
        signs
    }

    fn end_of_word(&mut self, word: &Word) {
        match (word.arabic, word.latin) {
            (0, 0) => {}
            (arabic, 0) => {
                self.arabic_words += 1;
                self.arabic_singles += u32::from(arabic == 1);
                self.wrong_starts += u32::from(arabic > 1 && matches!(word.first, 'ة' | 'ى'));
            }
            (0, latin) => {
                self.latin_words += 1;
                self.single_letters += u32::from(latin == 1);
                self.broken_words += u32::from(word.turns > 1 || word.inner_signs > 0);
                self.letters += latin;
                self.e += word.e;
                self.v += word.v;
                self.amazigh += u32::from(word.is_amazigh());
            }
            _ => {}
        }
    }
}

/// A word while it is read.
#[derive(Debug, Default)]
struct Word {
    first: char,
    last: char,
    arabic: u32,
    latin: u32,
    /// Capitals after a small letter.
    turns: u32,
    /// Signs that recognition puts inside words.
    inner_signs: u32,
    e: u32,
    v: u32,
    /// Its first letters, small, when they are ASCII.
    start: [u8; 4],
}

impl Word {
    fn goes_on(&self, c: char) -> bool {
        is_arabic(c)
            || c.is_alphanumeric()
            || (self.latin > 0 && matches!(c, '~' | '^' | '|' | '{' | '}' | '<' | '>' | '¬' | '¦'))
    }

    fn push(&mut self, c: char) {
        if self.first == '\0' {
            self.first = c;
        }
        if is_arabic(c) {
            self.arabic += u32::from(!is_mark(c));
        } else if c.is_alphabetic() {
            if let (Some(slot), true) = (self.start.get_mut(self.latin as usize), c.is_ascii()) {
                *slot = c.to_ascii_lowercase() as u8;
            }
            self.latin += 1;
            self.turns += u32::from(c.is_uppercase() && self.last.is_lowercase());
            self.e += u32::from(matches!(c, 'e' | 'E' | 'é' | 'o' | 'O'));
            self.v += u32::from(matches!(c, 'v'));
        } else if !c.is_numeric() {
            self.inner_signs += 1;
        }
        self.last = c;
    }

    /// Function words that Amazigh texts are full of.
    fn is_amazigh(&self) -> bool {
        let start = self.start.get(..(self.latin as usize).min(4)).unwrap_or_default();
        matches!(
            start,
            b"n" | b"ad" | b"ar" | b"ur" | b"lli" | b"vr" | b"vf" | b"zv" | b"dar" | b"tam" | b"ima" | b"is"
        )
    }
}

/// Judges a text after its repair; `lost` is what it had before.
pub(super) fn judge(text: &str, lost: Lost, label: Option<&str>, lexicon: &Lexicon) -> Verdict {
    let signs = Signs::of(text);
    let mut verdict = Verdict::default();
    let mut sign = |reason: GarbageReason, share: f32, limit: f32| {
        let score = (0.5 * share / limit).min(1.0);
        if score > verdict.score {
            verdict = Verdict { score, reason: Some(reason) };
        }
    };
    let share = |count: u32, all: u32, least: u32| {
        if count < MIN_COUNT || all < least { 0.0 } else { count as f32 / all as f32 }
    };
    sign(GarbageReason::Undecodable, share(lost.controls + lost.replaced, lost.all, 1), LOST);
    sign(GarbageReason::GlyphSoup, share(signs.rare, signs.chars, MIN_CHARS), RARE_LETTERS);
    sign(GarbageReason::GlyphSoup, share(signs.private, signs.chars, MIN_CHARS), PRIVATE);
    sign(GarbageReason::GlyphSoup, share(signs.odd, signs.chars, MIN_CHARS), ODD_LATIN);
    sign(GarbageReason::Mojibake, mojibake::suspicious_share(text), SUSPICIOUS);
    // Formulas and abbreviations in an Arabic text are no soup.
    if signs.latin_words > signs.arabic_words {
        sign(GarbageReason::OcrSoup, share(signs.broken_words, signs.latin_words, MIN_LATIN_WORDS), BROKEN_WORDS);
        sign(GarbageReason::OcrSoup, share(signs.single_letters, signs.latin_words, MIN_LATIN_WORDS), SINGLE);
    }
    sign(GarbageReason::ScrambledArabic, share(signs.arabic_singles, signs.arabic_words, MIN_ARABIC_WORDS), SINGLE);
    sign(GarbageReason::ScrambledArabic, share(signs.wrong_starts, signs.arabic_words, MIN_ARABIC_WORDS), WRONG_START);
    if signs.letters >= 60 && signs.e * 50 < signs.letters && signs.v * 80 > signs.letters && signs.amazigh >= 3 {
        sign(GarbageReason::LegacyTifinagh, signs.amazigh as f32 / signs.latin_words.max(1) as f32, 0.08);
    }
    // Dialects have words that no list has; only a text that is called Standard Arabic is judged by them.
    if label == Some("arb_Arab") && signs.arabic_words >= MIN_ARABIC_WORDS {
        sign(GarbageReason::ScrambledArabic, unknown_share(text, lexicon), UNKNOWN_WORDS);
    }
    // Below a fifth of the limit a sign is what clean text has as well.
    if verdict.score < 0.1 { Verdict::default() } else { verdict }
}

/// Share of the words of four letters and more that neither the list nor its stems know.
fn unknown_share(text: &str, lexicon: &Lexicon) -> f32 {
    let (mut unknown, mut all) = (0_u32, 0_u32);
    for word in words(text).filter(|word| word.len() >= 8).take(4_000) {
        all += 1;
        unknown += u32::from(lexicon.weight(&word) == 0.0);
    }
    if all < MIN_ARABIC_WORDS { 0.0 } else { unknown as f32 / all as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Option<GarbageReason> {
        let mut changes = Changes::default();
        let (_, verdict) = super::super::repair(text, None, &mut changes);
        verdict.garbage(0.5)
    }

    #[test]
    fn garbage_is_named() {
        let scrambled = "ةيمسرلا ةديرجلا يف رشني ىلع ةقفاوملاب يضاقلا نوناقلا ةيبرغملا ةكلمملا ".repeat(3);
        for (text, reason) in [
            ("ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ ǀƁǋƲƶŽȚ ƹǀƁǋ Ʋƶ", GarbageReason::GlyphSoup),
            (
                "\u{f021}\u{f022}\u{f023} text \u{f024}\u{f025}\u{f026} and more text after it, and more",
                GarbageReason::GlyphSoup,
            ),
            ("a\u{1}b\u{2}c\u{6}d\u{fffd} e\u{fffd}", GarbageReason::Undecodable),
            (scrambled.as_str(), GarbageReason::ScrambledArabic),
            (
                "tamazivt tga tutlayt n imazivn, ar sawaln s tmazivt v lmvrib d dzayr, ur aksul ifav mddn ad t skrn n wass",
                GarbageReason::LegacyTifinagh,
            ),
            ("l a f o n d a t i o n d u r o y a u m e e t d e s p r o v i n c e s d u s u d", GarbageReason::OcrSoup),
        ] {
            assert_eq!(judged(text), Some(reason), "{text}");
        }
    }

    #[test]
    fn clean_text_of_every_script_is_not() {
        for text in [
            "bghit nmchi l TTbib ghedda, wach nta jay m3aya wla la? SSaraHa 3yit bzzaf, kolchi ghali f had lblad.",
            "Tamaziɣt d tutlayt n Yimaziɣen ; ɛli yenna-yas: ad nruḥ ɣer uxxam n jeddi. D acu i k-yuɣen?",
            "ⵜⴰⵎⴰⵣⵉⵖⵜ ⵜⴳⴰ ⵜⵓⵜⵍⴰⵢⵜ ⵏ ⵉⵎⴰⵣⵉⵖⵏ ⴷ ⵜⵎⵓⵔⵜ ⵏ ⵍⵎⵖⵔⵉⴱ",
            "L’été à Noël, où l’on va « là-bas » : déjà vu, n°5, 20°C — œuvre",
            "وَاشْ نَقْدَرْ نْسَوّلَكْ عْلَى شِي حَاجَة؟ هَادْ النّْهَارْ زْوِينْ بَزَّافْ وَ النَّاسْ خَارْجِينْ كَيْتْمَشَّاوْ",
            "A B C D E F",
            "x = a + b * c; if (x > y) { return z; }",
        ] {
            assert_eq!(judged(text), None, "{text}");
        }
    }
}
