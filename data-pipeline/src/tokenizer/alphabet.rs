//! Owns what text a vocabulary entry stands for: the byte-level alphabet and SentencePiece marks; never touches files.

/// How vocabulary entries spell text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// One character of the byte-level alphabet a byte (GPT-2, Llama 3, Qwen and the tokenizers trained here).
    ByteLevel,
    /// UTF-8 with `▁` for a space and `<0x0A>` for a byte (Llama 2, Mistral, Gemma).
    SentencePiece,
}

impl Spelling {
    /// UTF-8 bytes that an entry stands for.
    pub fn num_bytes(self, piece: &str) -> usize {
        match self {
            Self::ByteLevel => piece.chars().count(),
            Self::SentencePiece if is_byte_piece(piece) => 1,
            Self::SentencePiece => piece.chars().map(|c| if c == WORD_START { 1 } else { c.len_utf8() }).sum(),
        }
    }
}

/// SentencePiece's mark for a space.
pub const WORD_START: char = '▁';

pub(super) fn is_byte_piece(piece: &str) -> bool {
    let hex = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The character that stands for a byte in a byte-level vocabulary: printable Latin-1 stands for itself, the other
/// bytes, in order, for U+0100 and up (GPT-2, `encoder.py`, `bytes_to_unicode`).
pub fn byte_to_char(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0..=b' ' => 0x100 + u32::from(byte),
        // 33 bytes come before DEL.
        0x7f..=0xa0 => 0x100 + 33 + u32::from(byte) - 0x7f,
        0xad => 0x100 + 33 + 34,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character of the byte-level alphabet stands for.
pub fn char_to_byte(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_alphabet_is_that_of_the_tokenizers_crate() {
        let ours: HashSet<char> = (0..=255).map(byte_to_char).collect();
        let theirs: HashSet<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(byte_to_char(b'a'), 'a');
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(char_to_byte('ش'), None);
    }

    #[test]
    fn pieces_stand_for_their_bytes() {
        assert_eq!(Spelling::ByteLevel.num_bytes("Ġw"), 2);
        assert_eq!(Spelling::ByteLevel.num_bytes("Ø³"), 2);
        assert_eq!(Spelling::SentencePiece.num_bytes("▁واش"), 7);
        assert_eq!(Spelling::SentencePiece.num_bytes("<0x0A>"), 1);
        assert_eq!(Spelling::SentencePiece.num_bytes("<0x0>"), 5);
        assert_eq!(Spelling::SentencePiece.num_bytes("<0xZZ>"), 6);
        assert_eq!(Spelling::SentencePiece.num_bytes("▁▁"), 2);
    }
}
