//! Owns Arabizi in Arabic letters: digits, digraphs, vowels, the article; never claims to spell as a person would.
//!
//! Letters are those that the users of DODa and of chats agree on: 2 ء, 3 ع, 5 خ, 6 ط, 7 ح, 8 ه, 9 ق, 4 and gh غ, kh خ,
//! ch, sh and x ش; in capitals T S D H ط ص ض ح. Darija has no ث and ذ, so th and dh are two letters. Vowels that are
//! written are taken as long (a ا, i ي, o u ou و), e is left out, and a doubled consonant is one letter. What Latin
//! letters do not tell (ة or ا at the end, ت or ط where nobody marks it) is not guessed.

/// Digits in a row from which a word is a number or a code.
const MAX_DIGITS: usize = 2;

/// Consonants that swallow the l of the article: nnas is ن after the article.
const SUN_LETTERS: [char; 11] = ['t', 'd', 's', 'n', 'z', 'r', 'x', 'j', 'T', 'D', 'S'];

/// Arabizi in Arabic letters. Words with other letters (`réunion`), numbers and everything that is no word stay.
pub fn to_arabic(text: &str) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut begins_sentence = true;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        let Some((token, after)) = rest.split_at_checked(len.max(first.len_utf8())) else { break };
        if len == 0 {
            out.push(first);
            begins_sentence = begins_sentence && !first.is_alphanumeric() || matches!(first, '.' | '!' | '?' | '\n');
        } else {
            word(token, begins_sentence, &mut out);
            begins_sentence = false;
        }
        rest = after;
    }
    out
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '’' | '_')
}

/// Writes one token.
fn word(token: &str, begins_sentence: bool, out: &mut String) {
    let trimmed = token.trim_matches(['\'', '’']);
    let digits = trimmed.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    let is_arabizi = trimmed.bytes().all(|b| b.is_ascii_alphabetic() || (b'2'..=b'9').contains(&b) || b == b'\'')
        && trimmed.bytes().any(|b| b.is_ascii_alphabetic())
        && digits <= MAX_DIGITS;
    if !is_arabizi {
        out.push_str(token);
        return;
    }
    let (before, after) = token.split_once(trimmed).unwrap_or_default();
    out.push_str(before);
    letters(&plain(trimmed, begins_sentence), out);
    out.push_str(after);
}

/// The letters of a word with only those capitals that mean another letter.
fn plain(word: &str, begins_sentence: bool) -> Vec<char> {
    let mut letters: Vec<char> = word.chars().filter(|c| *c != '\'').collect();
    let shouted = letters.len() > 1 && letters.iter().all(|c| !c.is_ascii_lowercase());
    for (i, c) in letters.iter_mut().enumerate() {
        let means_another = matches!(c, 'T' | 'S' | 'D' | 'H') && !shouted && !(i == 0 && begins_sentence);
        if !means_another {
            *c = c.to_ascii_lowercase();
        }
    }
    // `TTbib` at the start of a sentence has lost its first capital.
    if let [first, second, ..] = letters.as_mut_slice()
        && second.is_ascii_uppercase()
        && first.eq_ignore_ascii_case(second)
    {
        *first = *second;
    }
    letters
}

fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

/// How many letters at the start are the article: `l` before a consonant, or the first of two sun letters.
fn article(letters: &[char]) -> usize {
    match letters {
        ['c', 'h', 'c', 'h', _, ..] | ['s', 'h', 's', 'h', _, ..] => 2,
        ['l', second, _, _, ..] if !is_vowel(*second) && *second != 'l' => 1,
        ['l', 'e', third, _, _, ..] if !is_vowel(*third) => 2,
        [first, second, _, _, ..] if first == second && SUN_LETTERS.contains(first) => 1,
        _ => 0,
    }
}

fn letters(word: &[char], out: &mut String) {
    let start = article(word);
    if start > 0 {
        out.push_str("ال");
    }
    let mut last = '\0';
    let mut at = start;
    while let Some(&c) = word.get(at) {
        let next = word.get(at + 1).copied().unwrap_or('\0');
        let (letter, taken) = match digraph(c, next) {
            Some(letter) => (letter, 2),
            None => (single(c, next), 1),
        };
        // A vowel at the very start needs something to stand on.
        let opens = at == 0 && word.len() > 1;
        match c {
            '2' if opens => {
                out.push(if matches!(next, 'i' | 'e') { 'إ' } else { 'أ' });
                at += usize::from(matches!(next, 'a' | 'e' | 'i' | 'o' | 'u'));
                last = 'ا';
            }
            'e' => {
                if opens {
                    out.push('ا');
                }
                last = 'e';
            }
            'i' | 'o' | 'u' if opens => {
                out.push('ا');
                out.push(letter);
                last = letter;
            }
            _ if letter == last => {}
            _ => {
                out.push(letter);
                last = letter;
            }
        }
        at += taken;
    }
}

fn digraph(c: char, next: char) -> Option<char> {
    Some(match (c, next) {
        ('c' | 's', 'h') => 'ش',
        ('g', 'h') => 'غ',
        ('k', 'h') => 'خ',
        ('o', 'u' | 'o') => 'و',
        ('e', 'e') => 'ي',
        _ => return None,
    })
}

fn single(c: char, next: char) -> char {
    match c {
        'a' => 'ا',
        'b' => 'ب',
        'c' if matches!(next, 'e' | 'i' | 'y') => 'س',
        'c' | 'k' => 'ك',
        'd' => 'د',
        'D' => 'ض',
        'f' => 'ف',
        'g' => 'گ',
        'h' | '8' => 'ه',
        'H' | '7' => 'ح',
        'i' | 'y' => 'ي',
        'j' => 'ج',
        'l' => 'ل',
        'm' => 'م',
        'n' => 'ن',
        'o' | 'u' | 'w' => 'و',
        'p' => 'پ',
        'q' | '9' => 'ق',
        'r' => 'ر',
        's' => 'س',
        'S' => 'ص',
        't' => 'ت',
        'T' | '6' => 'ط',
        'v' => 'ڤ',
        'x' => 'ش',
        'z' => 'ز',
        '2' => 'ء',
        '3' => 'ع',
        '4' => 'غ',
        '5' => 'خ',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arabizi_becomes_arabic_letters() {
        for (arabizi, arabic) in [
            ("wach kayn chi jdid?", "واش كاين شي جديد؟"),
            ("3lach ma jitich lbar7?", "علاش ما جيتيش البارح؟"),
            ("khoya 9alli xi haja 5ayba", "خويا قالي شي هاجا خايبا"),
            ("ana f Dar, wSSbah f lmdina", "انا ف ضار, وصباه ف المدينا"),
            ("SSbah nnour. TTbib", "الصباه النور. الطبيب"),
            ("TTbib 8na", "الطبيب هنا"),
            ("zidha 3ndha", "زيدها عندها"),
            ("2ana 2immi su2al", "أنا إمي سوءال"),
            ("ghadi nchouf lmaghrib", "غادي نشوف الماغريب"),
            ("l'blad", "البلاد"),
            ("imta oumma", "ايمتا اوما"),
            ("BZAAF", "بزاف"),
        ] {
            assert_eq!(to_arabic(arabizi).replace('?', "؟"), arabic, "{arabizi}");
        }
    }

    #[test]
    fn other_words_and_numbers_stay() {
        for kept in ["réunion été", "2025 10 06-12-34", "covid19 a1", "سلام ⴰⵣⵓⵍ", "x1000y", "", "'"] {
            assert_eq!(to_arabic(kept), kept);
        }
    }

    proptest! {
        #[test]
        fn no_letter_of_arabizi_is_left(text in "[a-zA-Z]{1,3}([a-zA-Z]|[23456789][a-z]){0,8}( [a-z]{1,9}){0,4}") {
            let out = to_arabic(&text);
            prop_assert!(!out.chars().any(|c| c.is_ascii_alphanumeric()), "{} {}", text, out);
        }
    }
}
