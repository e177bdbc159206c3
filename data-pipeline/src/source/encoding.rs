//! Owns telling UTF-8 from the other encodings that Moroccan text files come in; never converts.

use std::path::Path;

use super::error::SourceError;

/// Bytes of a file that are looked at.
pub(crate) const SNIFF_BYTES: usize = 64 * 1024;
/// Fewer invalid sequences than this in the head of a file are damage, not an encoding.
const MIN_LEGACY_SEQUENCES: usize = 8;

/// Length of the UTF-8 byte order mark at the start of `head`, 0 without one.
///
/// # Errors
/// [`SourceError::Encoding`] when the head of the file is UTF-16, UTF-32 or an 8-bit code page.
pub(crate) fn check(path: &Path, head: &[u8]) -> Result<usize, SourceError> {
    let refuse = |(encoding, iconv)| Err(SourceError::Encoding { path: path.to_owned(), encoding, iconv });
    if head.starts_with(&[0xef, 0xbb, 0xbf]) {
        return Ok(3);
    }
    if let Some(found) = wide(head).or_else(|| legacy(head)) {
        return refuse(found);
    }
    Ok(0)
}

/// UTF-16 and UTF-32, by their byte order mark or by the zero (or Arabic block, 06) in every second byte.
fn wide(head: &[u8]) -> Option<(&'static str, &'static str)> {
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some(("UTF-32", "UTF-32")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some(("UTF-16", "UTF-16")),
        _ => {}
    }
    let pairs = head.len() / 2;
    if pairs < 8 {
        return None;
    }
    let high = |offset: usize| {
        head.iter().skip(offset).step_by(2).take(pairs).filter(|&&b| b == 0 || b == 6).count() * 2 > pairs
    };
    match (high(0), high(1)) {
        (false, true) => Some(("UTF-16 without a byte order mark", "UTF-16LE")),
        (true, false) => Some(("UTF-16 without a byte order mark", "UTF-16BE")),
        _ => None,
    }
}

/// 8-bit code pages: more invalid than valid sequences. In windows-1256 Arabic words are runs of high bytes; in Western
/// code pages accented letters stand alone.
fn legacy(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let (mut invalid, mut valid) = (0_usize, 0_usize);
    for chunk in head.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    if invalid < MIN_LEGACY_SEQUENCES || invalid <= valid {
        return None;
    }
    let high = head.iter().filter(|b| !b.is_ascii()).count();
    let joined = head.windows(2).filter(|pair| pair.iter().all(|b| !b.is_ascii())).count();
    if joined * 2 > high {
        Some(("windows-1256 (legacy Arabic)", "WINDOWS-1256"))
    } else {
        Some(("windows-1252 or Latin-1 (legacy Western)", "WINDOWS-1252"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn found(head: &[u8]) -> Option<&'static str> {
        match check(Path::new("f"), head) {
            Ok(_) => None,
            Err(SourceError::Encoding { iconv, .. }) => Some(iconv),
            Err(other) => panic!("{other}"),
        }
    }

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    }

    #[test]
    fn utf8_passes_with_and_without_mark() {
        assert_eq!(check(Path::new("f"), "\u{feff}سلام".as_bytes()).unwrap(), 3);
        assert_eq!(check(Path::new("f"), "سلام wach ⵢⴰⵏ".as_bytes()).unwrap(), 0);
        assert_eq!(check(Path::new("f"), b"").unwrap(), 0);
        assert_eq!(found("- - - - - - - - - - - -".as_bytes()), None);
    }

    #[test]
    fn some_damage_is_not_an_encoding() {
        let mut text = "نقدر ".repeat(40).into_bytes();
        text.extend([0xff, 0xfe, 0xff, b' ', 0xc0]);
        text.extend("نقدر ".as_bytes());
        assert_eq!(found(&text), None);
    }

    #[test]
    fn wide_encodings_are_named() {
        assert_eq!(found(&[0xff, 0xfe, b'a', 0]), Some("UTF-16"));
        assert_eq!(found(&[0xff, 0xfe, 0, 0, b'a', 0, 0, 0]), Some("UTF-32"));
        assert_eq!(found(&utf16("Walk carefully there", false)), Some("UTF-16LE"));
        assert_eq!(found(&utf16("Walk carefully there", true)), Some("UTF-16BE"));
        assert_eq!(found(&utf16("واش نقدر نسولك سؤال", false)), Some("UTF-16LE"));
    }

    #[test]
    fn code_pages_are_named() {
        // "جدول أعمال" and "déjà été créé" as the code pages store them.
        let arabic: Vec<u8> = [0xcc, 0xcf, 0xe6, 0xe1, b' ', 0xc3, 0xda, 0xe3, 0xc7, 0xe1, b'\n'].repeat(4);
        assert_eq!(found(&arabic), Some("WINDOWS-1256"));
        let western: Vec<u8> = b"d\xe9j\xe0 \xe9t\xe9 cr\xe9e \n".repeat(4);
        assert_eq!(found(&western), Some("WINDOWS-1252"));
    }

    #[test]
    fn the_head_may_end_inside_a_character() {
        let text = "سلام".as_bytes();
        assert_eq!(found(&text[..text.len() - 1]), None);
    }
}
