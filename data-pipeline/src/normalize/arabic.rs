//! Owns the letters of Persian and Urdu keyboards in Arabic words; never touches text in those languages.

use std::borrow::Cow;

use super::changes::{Changes, Rule};

/// What is known about the language of a text in Arabic script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arabic {
    /// Standard Arabic or one of its dialects.
    Yes,
    /// Not known: the letters of the text decide.
    Unknown,
    /// Another language in Arabic script: Persian, Urdu, Kurdish.
    No,
}

/// Reads a language label.
pub(super) fn arabic(label: Option<&str>) -> Arabic {
    let Some((language, script)) = label.and_then(|label| label.split_once(['_', '-'])) else { return Arabic::Unknown };
    match language {
        "arb" | "ary" | "mey" | "ara" | "arq" | "aeb" | "arz" | "ayl" | "apc" | "ajp" | "acm" | "ayp" | "acq"
        | "ayn" | "acw" | "ars" | "afb" | "aec" | "apd" | "shu" | "abh" | "ayh" | "acx" | "avl" | "ssh" | "arc" => {
            Arabic::Yes
        }
        "und" | "mul" | "zxx" => Arabic::Unknown,
        _ if script == "Arab" => Arabic::No,
        _ => Arabic::Unknown,
    }
}

/// The letter that an Arabic keyboard would have given.
fn arabic_letter(c: char) -> Option<char> {
    Some(match c {
        '\u{6cc}' => 'ي',
        '\u{6a9}' => 'ك',
        '\u{6c1}' | '\u{6be}' => 'ه',
        _ => return None,
    })
}

/// Letters that Persian and its neighbours do not type: their keyboards have U+06CC and U+06A9 instead, and no U+0629.
fn is_arabic_only(c: char) -> bool {
    matches!(c, 'ي' | 'ك' | 'ة' | 'ى')
}

/// Letters of Persian, Urdu, Pashto, Kurdish and Uyghur that neither Arabic nor Darija has.
fn is_foreign(c: char) -> bool {
    matches!(
        c,
        'ژ' | 'ٹ'
            | 'ڈ'
            | 'ڑ'
            | 'ں'
            | 'ے'
            | 'ۓ'
            | 'ۀ'
            | 'ۂ'
            | 'ێ'
            | 'ۆ'
            | 'ڵ'
            | 'ڕ'
            | 'ە'
            | 'ټ'
            | 'ځ'
            | 'څ'
            | 'ډ'
            | 'ړ'
            | 'ږ'
            | 'ښ'
            | 'ګ'
            | 'ڼ'
            | 'ې'
            | 'ۍ'
            | 'ۋ'
            | 'ۇ'
            | 'ۈ'
    )
}

/// Replaces keyboard letters where the text is Arabic.
pub(super) fn keyboard_letters<'a>(text: Cow<'a, str>, language: Arabic, changes: &mut Changes) -> Cow<'a, str> {
    let applies = match language {
        Arabic::Yes => true,
        Arabic::No => false,
        Arabic::Unknown => text.contains(is_arabic_only) && !text.contains(is_foreign),
    };
    if !applies || !text.contains(|c| arabic_letter(c).is_some()) {
        return text;
    }
    let mut replaced = 0;
    let out = text
        .chars()
        .map(|c| {
            let letter = arabic_letter(c);
            replaced += u64::from(letter.is_some());
            letter.unwrap_or(c)
        })
        .collect();
    changes.add(Rule::PersianLetter, replaced);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, label: &str) -> String {
        let label = (!label.is_empty()).then_some(label);
        keyboard_letters(Cow::Borrowed(text), arabic(label), &mut Changes::default()).into_owned()
    }

    #[test]
    fn keyboard_letters_are_replaced_in_arabic_alone() {
        assert_eq!(replaced("کیفاش ہادا ھذا", "ary_Arab"), "كيفاش هادا هذا");
        assert_eq!(replaced("گاع ڤيديو پاري ݣلس ڭاع چاي", "ary_Arab"), "گاع ڤيديو پاري ݣلس ڭاع چاي");
        assert_eq!(replaced("کتاب من", "fas_Arab"), "کتاب من");
        assert_eq!(replaced("کتاب من", ""), "کتاب من");
        assert_eq!(replaced("کتاب المدرسة", ""), "كتاب المدرسة");
        assert_eq!(replaced("کتاب المدرسة ژ", "und"), "کتاب المدرسة ژ");
    }
}
