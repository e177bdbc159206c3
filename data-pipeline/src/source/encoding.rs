//! Owns telling the text encodings of Moroccan files apart, and decoding them to UTF-8 as a stream; never cuts rows.

use std::path::Path;

use encoding_rs::{CoderResult, Decoder, ISO_8859_6, UTF_16BE, UTF_16LE, WINDOWS_1252, WINDOWS_1256};

use super::error::SourceError;
use crate::config::Encoding;

/// Bytes of a file that are looked at.
pub(crate) const SNIFF_BYTES: usize = 64 * 1024;
/// With fewer valid UTF-8 sequences than this and more invalid ones, letters decide.
const MIN_LEGACY_BYTES: usize = 3;
/// Share of the bytes outside ASCII that must be letters or marks of the guessed code page's languages.
const MIN_LEGACY_SHARE: f64 = 0.9;
/// Share of the units that must be plausible for UTF-16 without a byte order mark.
const MIN_WIDE_SHARE: f64 = 0.9;

/// What a file is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detected {
    /// Never [`Encoding::Auto`].
    pub encoding: Encoding,
    /// Length of the byte order mark, in bytes.
    pub mark: usize,
}

/// The encoding of a file that begins with `head`, or the one that the configuration asks for.
///
/// # Errors
/// [`SourceError::Encoding`] for UTF-32 and for bytes that are neither UTF-8 nor text in a code page that is known.
pub(crate) fn detect(path: &Path, head: &[u8], asked: Encoding) -> Result<Detected, SourceError> {
    let refuse = |found| Err(SourceError::Encoding { path: path.to_owned(), found });
    let (marked, mark) = match head {
        [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] if asked.is_auto() => return refuse("looks like UTF-32"),
        [0xff, 0xfe, ..] => (Encoding::Utf16Le, 2),
        [0xfe, 0xff, ..] => (Encoding::Utf16Be, 2),
        _ => (Encoding::Auto, 0),
    };
    if !asked.is_auto() {
        return Ok(Detected { encoding: asked, mark: if marked == asked { mark } else { 0 } });
    }
    if marked != Encoding::Auto {
        return Ok(Detected { encoding: marked, mark });
    }
    let encoding = match wide(head) {
        Some(encoding) => encoding,
        None => match legacy(head) {
            Legacy::No => Encoding::Utf8,
            Legacy::Page(encoding) => encoding,
            Legacy::Unknown => return refuse("is neither UTF-8 nor text in a code page that is known"),
        },
    };
    Ok(Detected { encoding, mark: 0 })
}

/// UTF-16 without a byte order mark: read in one byte order nearly every unit is a letter, a digit or a mark of the
/// languages met here, read in the other one hardly any is.
fn wide(head: &[u8]) -> Option<Encoding> {
    let units = (head.len() / 2).min(SNIFF_BYTES / 2);
    // Text in an 8-bit encoding has next to no control characters; UTF-16 has one in each of its spaces.
    let controls = head.iter().filter(|&&b| b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c)).count();
    if units < 4 || controls * 50 < head.len() {
        return None;
    }
    let share = |decode: fn([u8; 2]) -> u16| {
        let pairs = head.as_chunks::<2>().0.iter();
        pairs.filter(|&&pair| is_plausible(decode(pair))).count() as f64 / units as f64
    };
    let (little, big) = (share(u16::from_le_bytes), share(u16::from_be_bytes));
    match (little >= MIN_WIDE_SHARE, big >= MIN_WIDE_SHARE) {
        (true, false) => Some(Encoding::Utf16Le),
        (false, true) => Some(Encoding::Utf16Be),
        (true, true) => Some(if little >= big { Encoding::Utf16Le } else { Encoding::Utf16Be }),
        (false, false) => None,
    }
}

/// Latin with its supplements, Arabic with its supplements and presentation forms, Tifinagh, general punctuation,
/// surrogates of the emoji planes.
fn is_plausible(unit: u16) -> bool {
    matches!(unit,
        0x09 | 0x0a | 0x0d | 0x20..=0x7e | 0xa0..=0x24f | 0x0300..=0x036f | 0x0600..=0x06ff | 0x0750..=0x077f
        | 0x1e00..=0x1eff | 0x2000..=0x206f | 0x20ac | 0x2d30..=0x2d7f | 0xd83c..=0xd83e | 0xdc00..=0xdfff
        | 0xfb50..=0xfdff | 0xfe70..=0xfeff)
}

enum Legacy {
    No,
    Page(Encoding),
    Unknown,
}

/// 8-bit code pages. Damage leaves most sequences of a UTF-8 file valid; in a code page hardly any is.
fn legacy(head: &[u8]) -> Legacy {
    let (mut invalid, mut valid) = (0_usize, 0_usize);
    for chunk in head.utf8_chunks() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += chunk.invalid().len();
    }
    // The head may end inside a character.
    let cut = head.utf8_chunks().last().is_some_and(|last| !last.invalid().is_empty() && head.len() >= SNIFF_BYTES);
    let invalid = invalid.saturating_sub(if cut { 3 } else { 0 });
    if invalid < MIN_LEGACY_BYTES || invalid <= 2 * valid {
        return Legacy::No;
    }
    let western = western_share(head);
    let arabic = arabic_share(head);
    let page = if arabic >= MIN_LEGACY_SHARE && arabic_runs(head) { Some(arabic_page(head)) } else { None };
    match page {
        Some(page) => Legacy::Page(page),
        None if western >= MIN_LEGACY_SHARE => Legacy::Page(Encoding::Windows1252),
        // A handful of odd bytes in ASCII text is damage.
        None if invalid * 100 < head.len() => Legacy::No,
        None => Legacy::Unknown,
    }
}

/// Share of the high bytes that are letters or punctuation of French and Spanish in windows-1252, letters only beside
/// other letters.
fn western_share(head: &[u8]) -> f64 {
    let (mut high, mut good) = (0_usize, 0_usize);
    for (i, &byte) in head.iter().enumerate().filter(|(_, b)| !b.is_ascii()) {
        high += 1;
        let before = i.checked_sub(1).and_then(|i| head.get(i)).copied().unwrap_or(b' ');
        let after = head.get(i + 1).copied().unwrap_or(b' ');
        let beside_letter = before.is_ascii_alphabetic() || after.is_ascii_alphabetic();
        let is_letter = matches!(byte, 0xc0..=0xcf | 0xd1..=0xd6 | 0xd9..=0xdc | 0xdf..=0xef | 0xf1..=0xf6 | 0xf9..=0xfc
            | 0x8c | 0x9c | 0x9f | 0xff);
        let is_mark = matches!(byte, 0x80 | 0x82 | 0x84 | 0x85 | 0x8b | 0x91..=0x97 | 0x99 | 0x9b | 0xa0 | 0xa1 | 0xa7
            | 0xa9 | 0xaa | 0xab | 0xae | 0xb0 | 0xb2 | 0xb3 | 0xb4 | 0xb7 | 0xb9 | 0xba | 0xbb..=0xbf);
        good += usize::from((is_letter && (beside_letter || before == b' ' || before == b'\'')) || is_mark);
    }
    share(good, high)
}

/// Share of the high bytes that are letters or marks of Arabic and French in windows-1256.
fn arabic_share(head: &[u8]) -> f64 {
    let high = head.iter().filter(|b| !b.is_ascii());
    let good = high.clone().filter(|b| {
        matches!(b, 0xc0..=0xd6 | 0xd8..=0xff | 0x81 | 0x8d | 0x8e | 0x90 | 0x91..=0x97
        | 0x80 | 0x85 | 0x98 | 0x9d..=0x9f | 0xa0 | 0xa1 | 0xab | 0xb0 | 0xb7 | 0xba | 0xbb | 0xbf)
    });
    share(good.count(), high.count())
}

/// Whether the high bytes stand in runs and are mostly the commonest letters of Arabic: ا ل ي م ن و ر ب ت د ة ع, as
/// windows-1256 and ISO 8859-6 have them.
fn arabic_runs(head: &[u8]) -> bool {
    let high = head.iter().filter(|b| !b.is_ascii()).count();
    let joined = head.windows(2).filter(|pair| pair.iter().all(|b| !b.is_ascii())).count();
    let common =
        head.iter().filter(|b| matches!(b, 0xc7..=0xca | 0xcf | 0xd1 | 0xda | 0xe1 | 0xe3..=0xea | 0xed)).count();
    joined * 2 > high && common * 2 > high
}

/// The two Arabic code pages differ from ف on: the article ال is C7 E1 in one and C7 E4 in the other.
fn arabic_page(head: &[u8]) -> Encoding {
    let count = |pair: [u8; 2]| head.windows(2).filter(|&w| w == pair).count();
    if count([0xc7, 0xe4]) > 2 * count([0xc7, 0xe1]) { Encoding::Iso8859Six } else { Encoding::Windows1256 }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Decodes a stream to UTF-8, replacing what has no character.
pub(crate) struct Transcoder {
    encoding: Encoding,
    decoder: Decoder,
}

impl Transcoder {
    /// A decoder, unless the text is UTF-8 already.
    pub fn new(encoding: Encoding) -> Option<Transcoder> {
        let table = match encoding {
            Encoding::Auto | Encoding::Utf8 => return None,
            Encoding::Utf16Le => UTF_16LE,
            Encoding::Utf16Be => UTF_16BE,
            Encoding::Windows1256 => WINDOWS_1256,
            Encoding::Windows1252 => WINDOWS_1252,
            Encoding::Iso8859Six => ISO_8859_6,
        };
        Some(Transcoder { encoding, decoder: table.new_decoder_without_bom_handling() })
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Appends `bytes` to `out` as UTF-8; `last` when the stream ends after them.
    pub fn decode(&mut self, mut bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        loop {
            let start = out.len();
            let room = self.decoder.max_utf8_buffer_length(bytes.len()).unwrap_or(3 * bytes.len() + 16);
            out.resize(start + room, 0);
            let free = out.get_mut(start..).unwrap_or_default();
            let (result, read, written, _) = self.decoder.decode_to_utf8(bytes, free, last);
            out.truncate(start + written);
            bytes = bytes.get(read..).unwrap_or_default();
            if result == CoderResult::InputEmpty {
                return;
            }
        }
    }
}

/// The text of a web page or record in the encoding that its label names, in UTF-8 when the label is unknown.
pub(crate) fn decode_labelled(bytes: &[u8], label: Option<&str>) -> (String, &'static str) {
    let known = label.and_then(|label| encoding_rs::Encoding::for_label(label.trim().as_bytes()));
    let guess = || match detect(Path::new(""), bytes.get(..SNIFF_BYTES).unwrap_or(bytes), Encoding::Auto) {
        Ok(Detected { encoding: Encoding::Utf16Le, .. }) => UTF_16LE,
        Ok(Detected { encoding: Encoding::Utf16Be, .. }) => UTF_16BE,
        Ok(Detected { encoding: Encoding::Windows1256, .. }) => WINDOWS_1256,
        Ok(Detected { encoding: Encoding::Windows1252, .. }) => WINDOWS_1252,
        Ok(Detected { encoding: Encoding::Iso8859Six, .. }) => ISO_8859_6,
        _ => encoding_rs::UTF_8,
    };
    // Pages that say windows-1252 or ISO 8859-1 and are UTF-8 or windows-1256 are common; the other way round as well.
    let is_utf8 = std::str::from_utf8(bytes).is_ok();
    let table = match known {
        Some(table) if table == WINDOWS_1252 && is_utf8 => encoding_rs::UTF_8,
        Some(table) if table == WINDOWS_1252 => Some(guess()).filter(|&g| g != encoding_rs::UTF_8).unwrap_or(table),
        Some(table) if table == encoding_rs::UTF_8 && is_utf8 => table,
        Some(table) if table != encoding_rs::UTF_8 => table,
        _ => guess(),
    };
    let (text, used, _) = table.decode(bytes);
    (text.into_owned(), used.name())
}

#[cfg(test)]
#[path = "encoding_tests.rs"]
mod tests;
