//! Owns the script gate: which script a code point belongs to and its folded form; never judges a language.
//!
//! Folding makes spellings meet that differ by keyboard, font or care, not by language: case, harakat, tatweel, hamza
//! on alef, the g and v letters of Maghrebi Arabic, Greek look-alikes in Kabyle. It keeps what tells languages apart.

use std::sync::LazyLock;

/// Script of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Script {
    /// Arabic.
    Arab,
    /// Latin.
    Latn,
    /// Tifinagh.
    Tfng,
    /// Greek.
    Grek,
    /// Cyrillic.
    Cyrl,
    /// Hebrew.
    Hebr,
    /// Han.
    Hani,
    /// Hiragana and Katakana.
    Jpan,
    /// Hangul.
    Hang,
    /// Devanagari.
    Deva,
    /// Letters of any other script.
    Zzzz,
}

/// Number of scripts that are told apart.
pub const NUM_SCRIPTS: usize = 11;

impl Script {
    /// All scripts in the order of their numbers.
    pub const ALL: [Script; NUM_SCRIPTS] = [
        Script::Arab,
        Script::Latn,
        Script::Tfng,
        Script::Grek,
        Script::Cyrl,
        Script::Hebr,
        Script::Hani,
        Script::Jpan,
        Script::Hang,
        Script::Deva,
        Script::Zzzz,
    ];

    /// ISO 15924 code.
    pub fn code(self) -> &'static str {
        ["Arab", "Latn", "Tfng", "Grek", "Cyrl", "Hebr", "Hani", "Jpan", "Hang", "Deva", "Zzzz"][self as usize]
    }

    /// The script of an ISO 15924 code.
    pub fn from_code(code: &str) -> Option<Script> {
        Script::ALL.into_iter().find(|script| script.code() == code)
    }
}

/// What a code point is to the word cutter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A letter and its folded code point.
    Letter(Script, u32),
    /// Greek gamma or epsilon: a Latin letter inside Latin words (Kabyle keyboards), else Greek.
    LookAlike(u32),
    /// Part of the word that says nothing: shadda, tatweel, joiners.
    Ignore,
    /// A short vowel of Arabic, or the sign that there is none: writers of dialects put them on few words.
    Vowel,
    /// Tanwin, the ending of an indefinite noun, which dialects have dropped.
    Tanwin,
    /// A combining mark, which may compose with the letter before it.
    Mark(u32),
    /// A digit, folded to ASCII.
    Digit(u32),
    /// An apostrophe: ends a word and belongs to it (`l'`, `don't`).
    Apostrophe,
    /// A hyphen: ends a word and opens the next (`-nni`).
    Hyphen,
    /// Ends a sentence.
    Stop,
    /// Ends a line, and with it a sentence.
    Line,
    /// White space.
    Space,
    /// Everything else; `true` for characters that code is full of.
    Other(bool),
}

const TABLE_LEN: usize = 0x700;

static TABLE: LazyLock<Vec<Class>> = LazyLock::new(|| {
    (0..TABLE_LEN as u32).map(|c| char::from_u32(c).map_or(Class::Other(false), slow_class)).collect()
});

/// The table of classes of low code points, to be fetched once per text.
pub fn table() -> &'static [Class] {
    &TABLE
}

/// The class of `c`, with [`table`] for low code points.
#[inline]
pub fn class(table: &[Class], c: char) -> Class {
    match table.get(c as usize) {
        Some(class) => *class,
        None => slow_class(c),
    }
}

fn slow_class(c: char) -> Class {
    let code = c as u32;
    match code {
        0x0A | 0x0D | 0x0B | 0x0C | 0x85 | 0x2028 | 0x2029 => return Class::Line,
        0x21 | 0x2E | 0x3F | 0x61F | 0x6D4 | 0x2026 | 0x3002 | 0xFF01 | 0xFF1F => return Class::Stop,
        0x27 | 0x2019 | 0x2BC | 0x2018 | 0xB4 => return Class::Apostrophe,
        0x2D | 0x2010 | 0x2011 => return Class::Hyphen,
        0x640 | 0xAD | 0x200B..=0x200F | 0x61C | 0x202A..=0x202E | 0x2060..=0x2069 | 0xFEFF | 0x2D7F => {
            return Class::Ignore;
        }
        0x64B..=0x64D => return Class::Tanwin,
        0x64E..=0x650 | 0x652 => return Class::Vowel,
        0x610..=0x61A | 0x651 | 0x653..=0x65F | 0x670 | 0x6D6..=0x6ED | 0xFE00..=0xFE0F => return Class::Ignore,
        0x300..=0x36F => return Class::Mark(code),
        0x30..=0x39 => return Class::Digit(code),
        0x660..=0x669 => return Class::Digit(code - 0x660 + 0x30),
        0x6F0..=0x6F9 => return Class::Digit(code - 0x6F0 + 0x30),
        0x3B3 | 0x393 => return Class::LookAlike(0x263),
        0x3B5 | 0x395 | 0x3A3 | 0x2211 => return Class::LookAlike(0x25B),
        _ => {}
    }
    if c.is_whitespace() {
        return Class::Space;
    }
    match letter(c, code) {
        Some((script, folded)) => Class::Letter(script, folded),
        None => Class::Other(c.is_ascii() && !matches!(c, ',' | ':' | '"' | '(' | ')' | '*')),
    }
}

fn letter(c: char, code: u32) -> Option<(Script, u32)> {
    let script = match code {
        0x41..=0x5A
        | 0x61..=0x7A
        | 0xAA
        | 0xBA
        | 0xC0..=0x24F
        | 0x250..=0x2B8
        | 0x1D00..=0x1DBF
        | 0x1E00..=0x1EFF
        | 0x2C60..=0x2C7F
        | 0xA720..=0xA7FF
        | 0xFB00..=0xFB06
        | 0xFF21..=0xFF5A
            if c.is_alphabetic() =>
        {
            return Some((Script::Latn, fold_latin(c)));
        }
        0x510 => return Some((Script::Latn, 0x25B)),
        0x600..=0x6FF | 0x750..=0x77F | 0x870..=0x8FF | 0xFB50..=0xFDFF | 0xFE70..=0xFEFC if c.is_alphabetic() => {
            return Some((Script::Arab, fold_arabic(code)));
        }
        0x2D30..=0x2D6F => return Some((Script::Tfng, if code == 0x2D6F { 0x2D61 } else { code })),
        0x370..=0x3FF | 0x1F00..=0x1FFF => Script::Grek,
        0x400..=0x52F | 0x1C80..=0x1C8F | 0x2DE0..=0x2DFF | 0xA640..=0xA69F => Script::Cyrl,
        0x590..=0x5FF | 0xFB1D..=0xFB4F => Script::Hebr,
        0x3400..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF => Script::Hani,
        0x3040..=0x30FF | 0x31F0..=0x31FF | 0xFF66..=0xFF9F => Script::Jpan,
        0x1100..=0x11FF | 0x3130..=0x318F | 0xA960..=0xA97F | 0xAC00..=0xD7FF => Script::Hang,
        0x900..=0x97F | 0xA8E0..=0xA8FF => Script::Deva,
        _ => Script::Zzzz,
    };
    c.is_alphabetic().then(|| (script, c.to_lowercase().next().map_or(code, u32::from)))
}

fn fold_latin(c: char) -> u32 {
    match c {
        'ţ' | 'Ţ' | 'ț' | 'Ț' => 'ṭ' as u32,
        'Ɛ' | 'ԑ' | 'ε' => 'ɛ' as u32,
        'Ɣ' | 'ℽ' => 'ɣ' as u32,
        'ʷ' => 'w' as u32,
        'ﬁ' => 'i' as u32,
        'İ' => 'i' as u32,
        _ => c.to_lowercase().next().map_or(c as u32, u32::from),
    }
}

/// Letters by which Persian, Urdu, Kurdish and Pashto differ (heh goal, yeh barree, ...) stay as they are.
fn fold_arabic(code: u32) -> u32 {
    match code {
        0x622 | 0x623 | 0x625 | 0x671 | 0x672 | 0x673 | 0x675 => 0x627,
        0x6AD | 0x763 | 0x762 | 0x6B0 => 0x6AF,
        0x6A5 | 0x6A8 => 0x6A4,
        0x6CC => 0x64A,
        0x6A9 => 0x643,
        0x6A7 => 0x642,
        0x6A2 => 0x641,
        0xFE70..=0xFEFC => form_b(code),
        0xFB50..=0xFBFF => form_a(code),
        _ => code,
    }
}

/// Letters of Arabic Presentation Forms-B: each letter holds its forms in a row (Unicode chart FE70). A ligature of lam
/// and alef counts as its alef.
fn form_b(code: u32) -> u32 {
    const STARTS: [(u32, u32); 36] = [
        (0xFE80, 0x621),
        (0xFE81, 0x627),
        (0xFE83, 0x627),
        (0xFE85, 0x624),
        (0xFE87, 0x627),
        (0xFE89, 0x626),
        (0xFE8D, 0x627),
        (0xFE8F, 0x628),
        (0xFE93, 0x629),
        (0xFE95, 0x62A),
        (0xFE99, 0x62B),
        (0xFE9D, 0x62C),
        (0xFEA1, 0x62D),
        (0xFEA5, 0x62E),
        (0xFEA9, 0x62F),
        (0xFEAB, 0x630),
        (0xFEAD, 0x631),
        (0xFEAF, 0x632),
        (0xFEB1, 0x633),
        (0xFEB5, 0x634),
        (0xFEB9, 0x635),
        (0xFEBD, 0x636),
        (0xFEC1, 0x637),
        (0xFEC5, 0x638),
        (0xFEC9, 0x639),
        (0xFECD, 0x63A),
        (0xFED1, 0x641),
        (0xFED5, 0x642),
        (0xFED9, 0x643),
        (0xFEDD, 0x644),
        (0xFEE1, 0x645),
        (0xFEE5, 0x646),
        (0xFEE9, 0x647),
        (0xFEED, 0x648),
        (0xFEEF, 0x649),
        (0xFEF1, 0x64A),
    ];
    if code >= 0xFEF5 {
        return 0x627;
    }
    STARTS.iter().rev().find(|(start, _)| *start <= code).map_or(code, |(_, letter)| *letter)
}

/// The letters of Forms-A that Maghrebi text uses.
fn form_a(code: u32) -> u32 {
    match code {
        0xFB56..=0xFB59 => 0x67E,
        0xFB6A..=0xFB6D => 0x6A4,
        0xFB7A..=0xFB7D => 0x686,
        0xFB8A..=0xFB8B => 0x698,
        0xFB8E..=0xFB91 => 0x643,
        0xFB92..=0xFB95 | 0xFBD3..=0xFBD6 => 0x6AF,
        0xFBFC..=0xFBFF => 0x64A,
        _ => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        text.chars()
            .filter_map(|c| match class(table(), c) {
                Class::Letter(_, f) | Class::LookAlike(f) | Class::Digit(f) => char::from_u32(f),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn spellings_of_one_word_meet() {
        assert_eq!(folded("أُڭُولْ"), folded("اݣـول"));
        assert_eq!(folded("ﻛﺘﺎﺏ"), "كتاب");
        assert_eq!(folded("ÉCOLE"), "école");
        assert_eq!(folded("Γurwat ε"), "ɣurwatɛ");
        assert_eq!(folded("٣x۴"), "3x4");
        assert_ne!(folded("إلى"), folded("إلي"));
    }

    #[test]
    fn scripts_follow_code_points() {
        for (text, script) in [("ع", Script::Arab), ("ʷ", Script::Latn), ("ⵣ", Script::Tfng), ("ж", Script::Cyrl)]
        {
            let c = text.chars().next().unwrap();
            assert!(matches!(class(table(), c), Class::Letter(s, _) if s == script), "{text}");
        }
        for script in Script::ALL {
            assert_eq!(Script::from_code(script.code()), Some(script));
        }
    }
}
