//! Owns text taken from fonts without a table of characters, whose letters come out as glyph numbers; never touches text
//! without the control character that stands for their space.
//!
//! TrueType fonts in the standard Macintosh order give glyph 3 to the space and go on like ASCII, so every letter lies 29
//! below its code: `D\x03VRFLpWp` is `a société`. From glyph 98 on the order is that of the Mac Roman table.

use std::borrow::Cow;

use crate::normalize::{Changes, Rule};

/// Glyph 3.
const SPACE: char = '\u{3}';
/// Distance between glyph numbers and ASCII.
const SHIFT: u32 = 29;
/// Share of a decoded line that must be letters and spaces.
const MIN_TEXT: f32 = 0.7;

/// Glyphs 98 to 183. The first 74 are those of the standard Macintosh order (Apple TrueType Reference Manual, table
/// `post`, format 1); the fonts of Windows leave its no-break space out, so that from À on every glyph is one place
/// earlier: `l¶pWXGH` is `l’étude`.
const GLYPHS: [char; 86] = [
    'Ä', 'Å', 'Ç', 'É', 'Ñ', 'Ö', 'Ü', 'á', 'à', 'â', 'ä', 'ã', 'å', 'ç', 'é', 'è', 'ê', 'ë', 'í', 'ì', 'î', 'ï', 'ñ',
    'ó', 'ò', 'ô', 'ö', 'õ', 'ú', 'ù', 'û', 'ü', '†', '°', '¢', '£', '§', '•', '¶', 'ß', '®', '©', '™', '´', '¨', '≠',
    'Æ', 'Ø', '∞', '±', '≤', '≥', '¥', 'µ', '∂', '∑', '∏', 'π', '∫', 'ª', 'º', 'Ω', 'æ', 'ø', '¿', '¡', '¬', '√', 'ƒ',
    '≈', '∆', '«', '»', '…', 'À', 'Ã', 'Õ', 'Œ', 'œ', '–', '—', '“', '”', '‘', '’', '÷',
];

fn letter(c: char) -> Option<char> {
    match c as u32 {
        glyph @ 3..=97 => char::from_u32(glyph + SHIFT),
        glyph @ 98..=183 => GLYPHS.get(glyph as usize - 98).copied(),
        _ => None,
    }
}

/// Turns lines of glyph numbers into letters. Borrows when there are none.
pub(super) fn decode<'a>(text: &'a str, changes: &mut Changes) -> Cow<'a, str> {
    if !text.contains(SPACE) {
        return Cow::Borrowed(text);
    }
    // Where nothing else is in the text, single words between the lines are glyph numbers as well.
    let only = !text.contains(' ');
    let mut out = String::with_capacity(text.len());
    let mut count = 0;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match decoded_line(line, only) {
            Some(decoded) => {
                out.push_str(&decoded);
                count += 1;
            }
            None => out.push_str(line),
        }
        out.push_str(end);
    }
    if count == 0 {
        return Cow::Borrowed(text);
    }
    changes.add(Rule::ShiftedFont, count);
    Cow::Owned(out)
}

fn decoded_line(line: &str, only: bool) -> Option<String> {
    let is_shifted = line.contains(SPACE) || only && is_shifted_word(line);
    if !is_shifted {
        return None;
    }
    let decoded: String = line.chars().map(|c| letter(c).unwrap_or(c)).collect();
    let (mut text, mut all) = (0_u32, 0_u32);
    for c in decoded.chars() {
        all += 1;
        text += u32::from(c.is_ascii_alphabetic() || c == ' ');
    }
    (text as f32 >= MIN_TEXT * all as f32).then_some(decoded)
}

/// Small letters lie from `D` to `]`, and a word has little else.
fn is_shifted_word(line: &str) -> bool {
    let small = line.chars().filter(|c| ('D'..=']').contains(c)).count();
    small >= 3 && line.chars().all(|c| letter(c).is_some_and(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shifted(text: &str) -> String {
        let glyph = |c: char| match GLYPHS.iter().position(|&d| d == c && d != ' ') {
            Some(i) => char::from_u32(98 + i as u32).unwrap_or(c),
            None => char::from_u32(c as u32 - SHIFT).unwrap_or(c),
        };
        text.chars().map(glyph).collect()
    }

    #[test]
    fn glyph_numbers_become_letters() {
        let mut changes = Changes::default();
        assert_eq!(decode("D\u{3}VRFLpWp", &mut changes), "a société");
        let text = "La société anonyme est régie par la présente loi";
        let page = format!("Titre I\n{}\n12\n{}\n", shifted(text), shifted("où l’accord était déjà donné"));
        assert_eq!(decode(&page, &mut changes), format!("Titre I\n{text}\n12\noù l’accord était déjà donné\n"));
        assert_eq!(changes.count(Rule::ShiftedFont), 3);
        assert_eq!(decode(&format!("{}\n{}", shifted("la loi"), shifted("article")), &mut changes), "la loi\narticle");
    }

    #[test]
    fn other_text_is_borrowed() {
        for text in
            ["a société", "ABCDEF\nXYZ", "TITRE II\nla société\u{3}anonyme", "a\u{3}b\u{3}\u{1}\u{2}\u{4}", "سلام\u{3}"]
        {
            assert!(matches!(decode(text, &mut Changes::default()), Cow::Borrowed(_)), "{text:?}");
        }
    }
}
