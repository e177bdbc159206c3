//! Owns which letters follow each other in the languages of Morocco written in Latin letters; never judges a text.

/// Letters that follow `a`, `b`, ... `z` at least twice in ten thousand pairs in French, English, Spanish, Kabyle, the
/// Amazigh languages of Morocco, Darija or Algerian in Latin letters, accents left out: counted on the corpora of
/// docs/guide/data.md, DODa under CC BY-NC left out, and copied here from `repair_figures::letter_pairs`.
const FOLLOWERS: [&str; 26] = [
    "abcdefghijklmnopqrstuvwxyz",
    "abcdeghiklnorstuyz",
    "acefhiklmnorstuy",
    "abcdefhijklmnorstuwyz",
    "abcdefghijklmnopqrstuvwxyz",
    "acdefhiklnorstuy",
    "abdeghilmnoprstuwz",
    "abcdefhiklmnorstuwy",
    "abcdefghijklmnopqrstvwxyz",
    "abdeijlmorstu",
    "abcdefhiklmnorstuw",
    "abcdefghijklmnopqrstuvwy",
    "abcdeghijklmnopqrstuyz",
    "abcdefghijklmnoqrstuvwyz",
    "abcdefghijklmnopqrstuvwy",
    "acdehiloprstuy",
    "abcdeilmnqrstu",
    "abcdefghijklmnopqrstuvwyz",
    "abcdefghiklmnopqrstuwxy",
    "abcdefghijklmnoqrstuwxyz",
    "abcdefghijklmnpqrstuvwxyz",
    "aeioru",
    "adehijlnoprstuwz",
    "adefimpstwx",
    "abcdefghijklmnopqrstuy",
    "adegilmnortuwyz",
];

/// The same as bits.
const MASKS: [u32; 26] = masks();

const fn masks() -> [u32; 26] {
    let mut masks = [0; 26];
    let mut first = 0;
    while first < 26 {
        let followers = FOLLOWERS[first].as_bytes();
        let mut at = 0;
        while at < followers.len() {
            masks[first] |= 1 << (followers[at] - b'a');
            at += 1;
        }
        first += 1;
    }
    masks
}

/// Whether one ASCII letter (either case) hardly ever follows another.
#[inline]
pub(super) fn is_rare(first: u8, second: u8) -> bool {
    let index = |letter: u8| (letter | 0x20).wrapping_sub(b'a');
    MASKS.get(usize::from(index(first))).is_some_and(|mask| mask >> (index(second) & 31) & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_words_are_usual_and_others_rare() {
        for word in ["bonjour", "bzzaf", "Tamazight", "mkhbbi", "rhythm", "hadchi"] {
            assert!(word.as_bytes().windows(2).all(|pair| !is_rare(pair[0], pair[1])), "{word}");
        }
        for pair in ["qz", "VB", "jx", "wq", "fv"] {
            assert!(is_rare(pair.as_bytes()[0], pair.as_bytes()[1]), "{pair}");
        }
    }
}
