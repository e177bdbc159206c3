//! Owns the checksums of bank accounts and payment cards; never touches texts.

/// Digits of a Moroccan bank account number: bank 3, town 3, account 16, key 2.
pub(super) const RIB_DIGITS: usize = 24;

/// Whether 24 digits are a RIB with a valid key: the key is 97 less the remainder of the other 22 digits, times 100, by
/// 97 (Bank Al-Maghrib's rule; the same as demanding a remainder of 0 for the whole number).
pub(super) fn is_rib(digits: &[u8]) -> bool {
    let key = digits.iter().rev().take(2).rev().fold(0, |sum, digit| sum * 10 + u32::from(*digit));
    // 000... and 123456789012... are examples; the latter has a valid key by chance.
    let steps = |step: u8| digits.iter().zip(digits.iter().skip(1)).all(|(a, b)| (a + step) % 10 == *b);
    digits.len() == RIB_DIGITS
        && !steps(0)
        && !steps(1)
        && (1..=97).contains(&key)
        && remainder(digits.iter().copied()) == 0
}

/// The remainder by 97 of a number written in decimal digits.
fn remainder(digits: impl Iterator<Item = u8>) -> u32 {
    digits.fold(0, |sum, digit| (sum * 10 + u32::from(digit)) % 97)
}

/// Length of an IBAN by country (the IBAN registry of SWIFT, ISO 13616).
#[rustfmt::skip]
const IBAN_LENGTHS: [(&[u8; 2], usize); 84] = [
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22),
    (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24),
    (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"DZ", 26), (b"EE", 20), (b"EG", 29), (b"ES", 24),
    (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18),
    (b"GR", 27), (b"GT", 28), (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26),
    (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20),
    (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MA", 28), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19),
    (b"MN", 20), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33),
    (b"SA", 24), (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"TN", 24),
    (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"XK", 20),
];

/// Length of the IBANs of a country, both letters in capitals.
pub(super) fn iban_length(country: [u8; 2]) -> Option<usize> {
    IBAN_LENGTHS.iter().find(|(code, _)| **code == country).map(|(_, length)| *length)
}

/// Whether letters and digits, in capitals, are an IBAN of the right length with valid check digits (ISO 7064, mod 97-10).
pub(super) fn is_iban(iban: &[u8]) -> bool {
    let Some(&[a, b, c, d]) = iban.first_chunk::<4>() else { return false };
    if iban_length([a, b]) != Some(iban.len()) || !c.is_ascii_digit() || !d.is_ascii_digit() {
        return false;
    }
    let turned = iban.iter().skip(4).chain(iban.iter().take(4));
    let digits = turned.flat_map(|byte| {
        let value = if byte.is_ascii_digit() { byte - b'0' } else { byte.wrapping_sub(b'A').wrapping_add(10) };
        [(value >= 10).then_some(value / 10), Some(value % 10)].into_iter().flatten()
    });
    remainder(digits) == 1
}

/// The check of payment card numbers (ISO/IEC 7812).
pub(super) fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(*digit) * if at % 2 == 1 { 2 } else { 1 };
            value / 10 + value % 10
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}

/// Whether digits have the opening and length of a card of a large network and pass the check: Visa, Mastercard, American
/// Express, Discover, Diners, JCB, UnionPay.
pub(super) fn is_card(digits: &[u8]) -> bool {
    let opening = |len: usize| digits.iter().take(len).fold(0, |sum, digit| sum * 10 + u32::from(*digit));
    let (two, four) = (opening(2), opening(4));
    let known = match digits.len() {
        16 => {
            two / 10 == 4
                || (51..=55).contains(&two)
                || (2221..=2720).contains(&four)
                || four == 6011
                || two == 65
                || (6440..=6499).contains(&four)
                || (3528..=3589).contains(&four)
                || two == 62
        }
        15 => two == 34 || two == 37,
        14 => two == 36 || two == 38 || (3000..=3059).contains(&four),
        _ => false,
    };
    known && is_luhn(digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect()
    }

    #[test]
    fn keys_of_bank_accounts() {
        // 97 less the remainder of 011780000012345678901200 by 97 is 32: worked out by hand with other digits below.
        let mut account = digits("0117800000123456789012");
        let remainder = account.iter().chain(&[0, 0]).fold(0u32, |sum, d| (sum * 10 + u32::from(*d)) % 97);
        let key = 97 - remainder;
        account.extend([(key / 10) as u8, (key % 10) as u8]);
        assert!(is_rib(&account));
        for at in 0..24 {
            let mut wrong = account.clone();
            wrong[at] = (wrong[at] + 1) % 10;
            assert!(!is_rib(&wrong), "digit {at}");
        }
        assert!(!is_rib(&account[1..]) && !is_rib(&[0; 24]));
    }

    #[test]
    fn international_accounts() {
        for iban in [
            "FR1420041010050500013M02606",
            "GB29NWBK60161331926819",
            "DE89370400440532013000",
            "ES9121000418450200051332",
            "MA64011519000001205000534921",
        ] {
            assert!(is_iban(iban.as_bytes()), "{iban}");
            assert!(!is_iban(iban.replacen('0', "1", 1).as_bytes()), "{iban}");
        }
        assert!(!is_iban(b"ZZ64011519000001205000534921") && !is_iban(b"MA") && !is_iban(b"MA640115190000"));
    }

    #[test]
    fn cards() {
        for card in ["4111 1111 1111 1111", "5555 5555 5555 4444", "378282246310005", "30569309025904"] {
            assert!(is_card(&digits(card)), "{card}");
        }
        for not in
            ["4111 1111 1111 1112", "0000 0000 0000 0000", "9111111111111111", "001525879000045", "4222222222222"]
        {
            assert!(!is_card(&digits(not)), "{not}");
        }
    }
}
