//! Owns the judgement of what no repair can help: signs of damage counted in one pass, a score and the reason; never
//! changes a text, but for removing characters that stand for lost ones.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::lexicon::{Lexicon, is_arabic, is_mark};
use super::signs::Signs;
use super::survey::{Survey, is_lost_control};
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
    /// Latin letters that follow each other as in no language: keys hit at random, encoded bytes, other glyph numbers.
    Gibberish,
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
            GarbageReason::Gibberish => "gibberish",
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
/// Share of pairs of letters that no language has, at the limit: clean pages have a twentieth at most, letters drawn at
/// random a quarter.
const RARE_PAIRS: f32 = 0.15;
/// Pairs of letters that a text must have before they are judged.
const MIN_PAIRS: u32 = 60;
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
/// Words looked up at most to find that share.
const MAX_JUDGED_WORDS: usize = 1_000;

/// The text without control characters and U+FFFD.
pub(super) fn without_lost<'a>(text: &'a str, changes: &mut Changes) -> Cow<'a, str> {
    let replaced = memchr::memmem::find_iter(text.as_bytes(), "\u{fffd}".as_bytes()).count();
    let controls = text.chars().filter(|&c| is_lost_control(c)).count();
    if replaced + controls == 0 {
        return Cow::Borrowed(text);
    }
    changes.add(Rule::Control, controls as u64);
    changes.add(Rule::Replacement, replaced as u64);
    let kept = |c: &char| *c != '\u{fffd}' && !is_lost_control(*c);
    Cow::Owned(text.chars().filter(kept).collect())
}

/// Judges a text by its signs after the repair; `lost` is what it had before.
pub(super) fn judge(text: &str, signs: &Signs, lost: Survey, label: Option<&str>, lexicon: &Lexicon) -> Verdict {
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
    sign(GarbageReason::Undecodable, share(lost.controls + lost.replaced, lost.chars, 1), LOST);
    sign(GarbageReason::GlyphSoup, share(signs.rare, signs.chars, MIN_CHARS), RARE_LETTERS);
    sign(GarbageReason::GlyphSoup, share(signs.private, signs.chars, MIN_CHARS), PRIVATE);
    sign(GarbageReason::GlyphSoup, share(signs.odd, signs.chars, MIN_CHARS), ODD_LATIN);
    sign(GarbageReason::Mojibake, signs.byte_pairs as f32 / signs.chars.max(1) as f32, SUSPICIOUS);
    // Formulas and abbreviations in an Arabic text are no soup.
    if signs.latin_words > signs.arabic_words {
        sign(GarbageReason::OcrSoup, share(signs.broken_words, signs.latin_words, MIN_LATIN_WORDS), BROKEN_WORDS);
        sign(GarbageReason::Gibberish, share(signs.rare_pairs, signs.pairs, MIN_PAIRS), RARE_PAIRS);
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

/// Share of the words of four letters and more that neither the list nor its stems know, among the first ones.
fn unknown_share(text: &str, lexicon: &Lexicon) -> f32 {
    let (mut unknown, mut all) = (0_u32, 0_u32);
    let mut plain = String::new();
    let words = text.split(|c| !is_arabic(c)).filter(|word| word.len() >= 8);
    for word in words.take(MAX_JUDGED_WORDS) {
        let word = if word.contains(is_mark) {
            plain.clear();
            plain.extend(word.chars().filter(|&c| !is_mark(c)));
            plain.as_str()
        } else {
            word
        };
        all += 1;
        unknown += u32::from(!lexicon.contains(word) && lexicon.weight(word) == 0.0);
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
        let scrambled = "ةبجد ىقثط ةيسثق صضث يسبش ةخحج ثصضق نمتلك ىكمنط ةزوثر ".repeat(3);
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
