//! Owns reading a run of digit groups, `+212 (0) 6 61-23.45 67`, with what separates them; never decides what it is.
//!
//! Digits are ASCII, Arabic-Indic, Persian or full-width; characters that do not show may stand anywhere between them.

use super::scan::char_at;

/// Most groups of a run; a longer list of numbers is read in parts.
pub(super) const MAX_GROUPS: usize = 64;
/// Digits of a group that are kept; a longer group matches nothing.
pub(super) const MAX_GROUP_DIGITS: usize = 40;
/// Visible characters between two groups of one run.
const MAX_SEPARATOR: usize = 4;

/// What separates a group from the one before it: a set of these.
pub(super) mod sep {
    /// A space of any width.
    pub const SPACE: u8 = 1;
    /// A hyphen, a dash or a minus.
    pub const DASH: u8 = 2;
    /// A full stop or a middle dot.
    pub const DOT: u8 = 4;
    /// A slash.
    pub const SLASH: u8 = 8;
    /// A bracket.
    pub const BRACKET: u8 = 16;
    /// More than two spaces.
    pub const WIDE: u8 = 32;
}

/// A run of digits without visible characters in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    /// Bytes of the text.
    pub start: usize,
    /// Bytes of the text.
    pub end: usize,
    /// Where its digits begin in [`Run::digits`].
    pub from: usize,
    /// How many digits it has; those beyond [`MAX_GROUP_DIGITS`] are not kept.
    pub len: usize,
    /// What stands before it, see [`sep`]; 0 for the first.
    pub before: u8,
}

/// Groups of digits in a row.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub digits: Vec<u8>,
    pub groups: Vec<Group>,
    /// Whether the run was cut at [`MAX_GROUPS`].
    pub cut: bool,
}

/// The value of a decimal digit of the scripts of the corpora.
pub(super) fn digit_value(c: char) -> Option<u8> {
    let value = match c {
        '0'..='9' => c as u32 - 0x30,
        '\u{660}'..='\u{669}' => c as u32 - 0x660,
        '\u{6f0}'..='\u{6f9}' => c as u32 - 0x6f0,
        '\u{ff10}'..='\u{ff19}' => c as u32 - 0xff10,
        _ => return None,
    };
    Some(value as u8)
}

/// The digits of a text in ASCII.
pub(super) fn ascii_digits(text: &str) -> String {
    text.chars().filter_map(digit_value).map(|digit| char::from(b'0' + digit)).collect()
}

/// Characters that do not show: bidirectional marks, joiners, zero-width spaces, the soft hyphen.
pub(super) fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Spaces inside a line, a tabulator not included.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Hyphens, dashes and the minus.
pub(super) fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}')
}

fn separator(c: char) -> Option<u8> {
    match c {
        '.' | '\u{b7}' | '\u{2022}' => Some(sep::DOT),
        '/' => Some(sep::SLASH),
        '(' | ')' => Some(sep::BRACKET),
        c if is_space(c) => Some(sep::SPACE),
        c if is_dash(c) => Some(sep::DASH),
        _ => None,
    }
}

impl Run {
    /// Reads the run that begins with the digit at `start`, forgetting what was read before.
    pub fn read(&mut self, text: &str, start: usize) {
        self.digits.clear();
        self.groups.clear();
        self.cut = false;
        let (mut start, mut before) = (start, 0);
        loop {
            let (end, len, from) = self.read_group(text, start);
            self.groups.push(Group { start, end, from, len, before });
            match next_group(text, end) {
                Some(_) if self.groups.len() >= MAX_GROUPS => {
                    self.cut = true;
                    return;
                }
                Some((next, flags)) => (start, before) = (next, flags),
                None => return,
            }
        }
    }

    /// Reads the digits at `at`: the byte after the last, how many, and where they begin in `digits`.
    fn read_group(&mut self, text: &str, mut at: usize) -> (usize, usize, usize) {
        let from = self.digits.len();
        let (mut end, mut len) = (at, 0);
        while let Some(c) = char_at(text, at) {
            at += c.len_utf8();
            if let Some(digit) = digit_value(c) {
                if len < MAX_GROUP_DIGITS {
                    self.digits.push(digit);
                }
                (len, end) = (len + 1, at);
            } else if !is_hidden(c) {
                break;
            }
        }
        (end, len, from)
    }

    /// The group at an index.
    pub fn group(&self, at: usize) -> Option<Group> {
        self.groups.get(at).copied()
    }

    /// The digits of `count` groups from `first` on; `None` when one is too long.
    pub fn digits_of(&self, first: usize, count: usize) -> Option<&[u8]> {
        let groups = self.groups.get(first..first.checked_add(count)?)?;
        if groups.iter().any(|group| group.len > MAX_GROUP_DIGITS) {
            return None;
        }
        let (start, end) = (groups.first()?, groups.last()?);
        self.digits.get(start.from..end.from + end.len)
    }

    /// How many groups from `first` on make exactly `wanted` digits.
    pub fn groups_of(&self, first: usize, wanted: usize) -> Option<usize> {
        let mut sum = 0;
        for (at, group) in self.groups.get(first..)?.iter().enumerate() {
            sum += group.len;
            if sum >= wanted {
                return (sum == wanted).then_some(at + 1);
            }
        }
        None
    }
}

/// The digit after a separator that begins at `at`, and what the separator is made of.
fn next_group(text: &str, mut at: usize) -> Option<(usize, u8)> {
    let (mut flags, mut visible, mut spaces) = (0, 0, 0);
    // Hidden characters between visible ones are few in honest texts.
    for _ in 0..4 * MAX_SEPARATOR {
        let c = char_at(text, at)?;
        if digit_value(c).is_some() {
            return (flags != 0).then_some((at, flags));
        }
        if !is_hidden(c) {
            let kind = separator(c)?;
            visible += 1;
            spaces += usize::from(kind == sep::SPACE);
            flags |= kind | if spaces > 2 { sep::WIDE } else { 0 };
            if visible > MAX_SEPARATOR {
                return None;
            }
        }
        at += c.len_utf8();
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> (Vec<(String, u8)>, Run) {
        let mut run = Run::default();
        run.read(text, text.find(|c| digit_value(c).is_some()).unwrap());
        (run.groups.iter().map(|g| (ascii_digits(&text[g.start..g.end]), g.before)).collect(), run)
    }

    #[test]
    fn groups_and_their_separators() {
        let (groups, run) = read("+212 (0)6-61\u{a0}23.45 / 67, 8");
        let expected = [
            ("212", 0),
            ("0", sep::SPACE | sep::BRACKET),
            ("6", sep::BRACKET),
            ("61", sep::DASH),
            ("23", sep::SPACE),
            ("45", sep::DOT),
            ("67", sep::SPACE | sep::SLASH),
        ];
        assert_eq!(groups.iter().map(|(d, s)| (d.as_str(), *s)).collect::<Vec<_>>(), expected);
        assert_eq!(run.digits_of(1, 3).unwrap(), [0, 6, 6, 1]);
        assert_eq!((run.groups_of(0, 5), run.groups_of(0, 6)), (Some(3), None));
    }

    #[test]
    fn hidden_characters_and_other_digits() {
        let (groups, _) = read("\u{200f}٠٦\u{200e}٦١\u{202c} ۲۳\u{200f}");
        assert_eq!(groups, [("0661".to_owned(), 0), ("23".to_owned(), sep::SPACE)]);
    }

    #[test]
    fn long_groups_and_lists_are_bounded() {
        let (groups, run) = read(&"7".repeat(1000));
        assert_eq!((groups.len(), run.digits.len(), run.digits_of(0, 1)), (1, MAX_GROUP_DIGITS, None));
        let (groups, run) = read(&"7 ".repeat(1000));
        assert_eq!((groups.len(), run.cut), (MAX_GROUPS, true));
    }
}
