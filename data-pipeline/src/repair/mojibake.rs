//! Owns text that was decoded with the wrong table: UTF-8 read as windows-1252, Latin-1 or windows-1256 (once or several
//! times over), windows-1256 read as windows-1252; never touches text without the byte patterns of such a mistake.

use std::borrow::Cow;

use super::lexicon::{Lexicon, is_arabic};
use crate::normalize::{Changes, Rule};

/// Times that one text is decoded again at most.
const MAX_ROUNDS: usize = 3;
/// Sequences that were surely decoded wrongly, before doubtful ones of the same text are believed.
const MIN_SURE: usize = 3;
/// Share of the words of a passage that must be Arabic words once decoded as windows-1256.
const MIN_KNOWN: f32 = 0.4;

/// Characters of the bytes 80 to 9F in windows-1252; the five that it leaves out stay control characters.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];
/// Characters of the bytes 80 to FF in windows-1256.
const WINDOWS_1256: [char; 128] = [
    '€', 'پ', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'ٹ', '‹', 'Œ', 'چ', 'ژ', 'ڈ', 'گ', '‘', '’', '“', '”', '•', '–',
    '—', 'ک', '™', 'ڑ', '›', 'œ', '\u{200c}', '\u{200d}', 'ں', '\u{a0}', '،', '¢', '£', '¤', '¥', '¦', '§', '¨', '©',
    'ھ', '«', '¬', '\u{ad}', '®', '¯', '°', '±', '²', '³', '´', 'µ', '¶', '·', '¸', '¹', '؛', '»', '¼', '½', '¾', '؟',
    'ہ', 'ء', 'آ', 'أ', 'ؤ', 'إ', 'ئ', 'ا', 'ب', 'ة', 'ت', 'ث', 'ج', 'ح', 'خ', 'د', 'ذ', 'ر', 'ز', 'س', 'ش', 'ص', 'ض',
    '×', 'ط', 'ظ', 'ع', 'غ', 'ـ', 'ف', 'ق', 'ك', 'à', 'ل', 'â', 'م', 'ن', 'ه', 'و', 'ç', 'è', 'é', 'ê', 'ë', 'ى', 'ي',
    'î', 'ï', '\u{64b}', '\u{64c}', '\u{64d}', '\u{64e}', 'ô', '\u{64f}', '\u{650}', '÷', '\u{651}', 'ù', '\u{652}',
    'û', 'ü', '\u{200e}', '\u{200f}', 'ے',
];

/// The table that a text was wrongly read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Western,
    Arabic,
}

impl Table {
    /// The byte above 7F that the table shows as `c`.
    fn byte(self, c: char) -> Option<u8> {
        if c.is_ascii() {
            return None;
        }
        let position = |table: &[char]| table.iter().position(|&d| d == c).map(|i| 0x80 + i as u8);
        match self {
            Table::Western => match c {
                '\u{80}'..='\u{ff}' => Some(c as u8),
                '\u{152}'..='\u{2122}' => position(&WINDOWS_1252),
                _ => None,
            },
            Table::Arabic => position(&WINDOWS_1256),
        }
    }

    /// Whether `c` may be the first byte of a UTF-8 sequence.
    fn is_lead(self, c: char) -> bool {
        match self {
            Table::Western => matches!(c, '\u{c2}'..='\u{f4}'),
            // D8 and D9 (Arabic), C3 and C2 (accents), E2 (quotation marks), F0 (emoji).
            Table::Arabic => matches!(c, 'ط' | 'ظ' | 'أ' | 'آ' | 'â' | '\u{64b}'),
        }
    }
}

/// Decodes again what was decoded wrongly. Borrows when there is nothing to do; `may_be_utf8` is false where no two
/// characters of the text can be a sequence of UTF-8.
pub(super) fn decode<'a>(text: &'a str, may_be_utf8: bool, lexicon: &Lexicon, changes: &mut Changes) -> Cow<'a, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut text = Cow::Borrowed(text);
    let rounds = if may_be_utf8 { MAX_ROUNDS } else { 0 };
    for _ in 0..rounds {
        let found = [Table::Western, Table::Arabic].into_iter().find_map(|table| as_utf8(&text, table));
        let Some((decoded, count)) = found else { break };
        changes.add(Rule::Mojibake, count);
        text = Cow::Owned(decoded);
    }
    if let Some((decoded, count)) = as_arabic_page(&text, lexicon) {
        changes.add(Rule::Mojibake, count);
        text = Cow::Owned(decoded);
    }
    text
}

/// A run of characters that are the bytes of UTF-8.
struct Run {
    start: usize,
    end: usize,
    decoded: String,
    is_sure: bool,
}

fn as_utf8(text: &str, table: Table) -> Option<(String, u64)> {
    let runs = runs(text, table);
    let sure = runs.iter().filter(|run| run.is_sure).count();
    if sure == 0 {
        return None;
    }
    let (mut out, mut copied, mut count) = (String::with_capacity(text.len()), 0, 0);
    for run in runs.iter().filter(|run| run.is_sure || sure >= MIN_SURE) {
        out.push_str(text.get(copied..run.start).unwrap_or_default());
        out.push_str(&run.decoded);
        copied = run.end;
        count += 1;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    if table == Table::Western && sure >= MIN_SURE {
        // A no-break space after Ã is the second half of à; some programs made a plain space of it.
        out = out.replace("Ã\u{a0}", "à").replace("Ã ", "à ").replace("Â ", " ");
    }
    Some((out, count))
}

fn runs(text: &str, table: Table) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut chars = text.char_indices();
    while let Some((start, c)) = chars.next() {
        if !table.is_lead(c) {
            continue;
        }
        let (mut end, mut decoded, mut units, mut symbols) = (start, String::new(), 0, false);
        while let Some((length, letter, has_symbol)) = unit(text.get(end..).unwrap_or_default(), table) {
            end += length;
            units += 1;
            symbols |= has_symbol;
            decoded.push(letter);
        }
        if units == 0 {
            continue;
        }
        let first = decoded.chars().next().unwrap_or_default();
        let is_sure = match table {
            Table::Western => units > 1 || matches!(first, '\u{a0}'..='\u{ff}' | 'ɣ' | 'ɛ' | 'Ɣ' | 'Ɛ' | '\u{1e00}'..),
            Table::Arabic => {
                units > 1 && symbols
                    || matches!(first, '\u{2010}'..='\u{2044}' | '\u{2d30}'..='\u{2d7f}' | '\u{1f000}'..)
            }
        };
        runs.push(Run { start, end, decoded, is_sure });
        while chars.offset() < end {
            chars.next();
        }
    }
    runs
}

/// One UTF-8 sequence at the start of `text`: its length there, its character, whether it was shown with a symbol.
fn unit(text: &str, table: Table) -> Option<(usize, char, bool)> {
    let mut chars = text.chars();
    let lead = table.byte(chars.next()?)?;
    let wanted = match lead {
        0xc2..=0xdf => 2,
        0xe1..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let mut bytes = [lead, 0, 0, 0];
    let mut has_symbol = false;
    for byte in bytes.get_mut(1..wanted)? {
        let c = chars.next()?;
        *byte = table.byte(c).filter(|byte| (0x80..0xc0).contains(byte))?;
        has_symbol |= !c.is_alphabetic();
    }
    let letter = std::str::from_utf8(bytes.get(..wanted)?).ok()?.chars().next()?;
    let length = text.len() - chars.as_str().len();
    is_plausible(letter).then_some((length, letter, has_symbol))
}

/// Characters that Moroccan text has; not the rest of Unicode, which closing quotation marks after É or é decode to.
fn is_plausible(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{24f}' | '\u{254}'..='\u{272}' | '\u{2b0}'..='\u{2bf}' | '\u{2c6}' | '\u{2dc}' | '\u{300}'..='\u{33f}' | '\u{391}'..='\u{3c9}'
        | '\u{60c}'..='\u{6d3}' | '\u{6f0}'..='\u{6f9}' | '\u{750}'..='\u{77f}'
        | '\u{1e00}'..='\u{1eff}' | '\u{2009}'..='\u{2044}' | '\u{20ac}' | '\u{2100}'..='\u{214f}' | '\u{2190}'..='\u{22ff}'
        | '\u{25a0}'..='\u{27bf}' | '\u{2d30}'..='\u{2d7f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe0f}' | '\u{fe70}'..='\u{feff}'
        | '\u{fffd}' | '\u{1f000}'..='\u{1faff}')
}

/// windows-1256 read as windows-1252: `ÇáÓáÇã`. Passages of words without an ASCII letter, most of which are Arabic words
/// once decoded.
fn as_arabic_page(text: &str, lexicon: &Lexicon) -> Option<(String, u64)> {
    // U+00C0 to U+00FF are C3 and another byte, and nothing else is.
    if memchr::memchr_iter(0xc3, text.as_bytes()).take(3).count() < 3 {
        return None;
    }
    let (mut out, mut count) = (String::with_capacity(text.len()), 0);
    for line in text.split_inclusive('\n') {
        match arabic_line(line, lexicon) {
            Some(decoded) => {
                out.push_str(&decoded);
                count += 1;
            }
            None => out.push_str(line),
        }
    }
    (count > 0).then_some((out, count))
}

fn arabic_line(line: &str, lexicon: &Lexicon) -> Option<String> {
    if !line.split_whitespace().any(|token| arabic_token(token).is_some()) {
        return None;
    }
    let (mut known, mut all) = (0, 0);
    let mut out = String::with_capacity(line.len());
    for token in line.split_inclusive(char::is_whitespace) {
        let Some(decoded) = arabic_token(token) else {
            out.push_str(token);
            continue;
        };
        let word: String = decoded.chars().filter(|&c| is_arabic(c) && !super::lexicon::is_mark(c)).collect();
        if word.chars().nth(1).is_some() {
            all += 1;
            known += usize::from(lexicon.weight(&word) > 0.0);
        }
        out.push_str(&decoded);
    }
    let enough = all > 0
        && known as f32 >= MIN_KNOWN * all as f32
        && (known > 1 || out.chars().filter(|&c| is_arabic(c)).count() >= 4);
    enough.then_some(out)
}

/// The Arabic of a token without ASCII letters, when it has at least one letter that is none in French.
fn arabic_token(token: &str) -> Option<String> {
    if token.is_ascii() || token.bytes().any(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    let mut has_arabic = false;
    let decode = |c: char| {
        let Some(byte) = Table::Western.byte(c) else { return c };
        let decoded = WINDOWS_1256.get(usize::from(byte) - 0x80).copied().unwrap_or(c);
        has_arabic |= is_arabic(decoded);
        decoded
    };
    let decoded: String = token.chars().map(decode).collect();
    // à, é and the like have the same place in both tables and show that the word is French.
    let french = decoded.chars().any(|c| matches!(c, '\u{c0}'..='\u{ff}' | '\u{152}' | '\u{153}'));
    (has_arabic && !french).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn wrongly(text: &str, table: Table) -> String {
        let show = |byte: u8| match (table, byte) {
            (_, 0..=0x7f) => char::from(byte),
            (Table::Arabic, _) => WINDOWS_1256[usize::from(byte) - 0x80],
            (Table::Western, 0x80..=0x9f) => WINDOWS_1252[usize::from(byte) - 0x80],
            (Table::Western, _) => char::from(byte),
        };
        text.bytes().map(show).collect()
    }

    fn decoded(text: &str) -> String {
        decode(text, true, Lexicon::built_in(), &mut Changes::default()).into_owned()
    }

    const TEXTS: [&str; 6] = [
        "L’été à Noël, déjà vu : « cœur » — 10 €",
        "السلام عليكم ورحمة الله",
        "واش نقدر نسولك على شي حاجة؟ الجو زوين هاد النهار",
        "ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ ⵎⴰⵏⵣⴰⴽⵉⵏ",
        "aɣrum n uḍar, ṭṭalb, taɛrabt",
        "صافي 😀",
    ];

    #[test]
    fn utf8_read_with_another_table_is_decoded() {
        for text in TEXTS {
            for table in [Table::Western, Table::Arabic] {
                let wrong = wrongly(text, table);
                // Single accents shown as Arabic letters are not believed.
                if table == Table::Arabic && text.starts_with(['L', 'a']) {
                    continue;
                }
                assert_eq!(decoded(&wrong), text, "{wrong}");
                assert_eq!(decoded(&decoded(&wrong)), text);
            }
            let twice = wrongly(&wrongly(text, Table::Western), Table::Western);
            assert_eq!(decoded(&twice), text, "{twice}");
        }
    }

    #[test]
    fn windows_1256_read_as_windows_1252_is_decoded() {
        let wrong: String = "مرحبا بكم في المملكة المغربية، السلام عليكم"
            .chars()
            .map(|c| match WINDOWS_1256.iter().position(|&d| d == c) {
                Some(i) if i < 32 => WINDOWS_1252[i],
                Some(i) => char::from(0x80 + i as u8),
                None => c,
            })
            .collect();
        assert_eq!(decoded(&wrong), "مرحبا بكم في المملكة المغربية، السلام عليكم");
    }

    #[test]
    fn sound_text_is_borrowed() {
        let sound = [
            "été à Noël ÉTÉ ÇA È Ê « CITÉ » “É” É» voilà\u{a0}»",
            "naïve São Paulo AÇÃO coração Zoë Ångström Ø 12",
            "À l'École, où êtes-vous ? Ça va ! 25°C n°3 Œuvre",
            "ظروف طبية ط، ظ؟ «ظل» أ) آ) الطقس",
            "السلام عليكم، كيف الحال؟",
            "ⴰⵣⵓⵍ",
            "ÉÈÊ ÀÂ ÇÎÏ",
        ];
        for text in sound.iter().chain(&TEXTS) {
            assert!(
                matches!(decode(text, true, Lexicon::built_in(), &mut Changes::default()), Cow::Borrowed(_)),
                "{text}"
            );
        }
    }
}
