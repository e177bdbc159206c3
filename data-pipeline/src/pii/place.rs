//! Owns where people and their vehicles are: coordinates and registration plates; never knows a map.

use super::context::Label;
use super::kind::Kind;
use super::run::{Group, Run, digit_value, is_dash, is_hidden, is_space, sep};
use super::scan::{Before, char_at, shown_after, shown_before, token_after};

/// Numbers of the regions in which Moroccan vehicles are registered.
const PLATE_REGIONS: std::ops::RangeInclusive<u32> = 1..=99;
/// Latitudes and longitudes of Morocco, in degrees.
const MOROCCO: [std::ops::RangeInclusive<f64>; 2] = [20.5..=36.2, -17.5..=-0.9];
/// Most characters between the two numbers of a pair of coordinates.
const MAX_BETWEEN: usize = 24;

/// `12345-أ-6`, also with `|`, spaces or a Latin letter, and in the order of a right-to-left line.
pub(super) fn plate(text: &str, run: &Run, at: usize) -> Option<(Kind, usize, usize)> {
    let head = run.group(at)?;
    let (letter_at, first_gap) = gap(text, head.end);
    let letter = char_at(text, letter_at)?;
    let arabic = matches!(letter, '\u{621}'..='\u{64a}');
    if !arabic && !letter.is_ascii_alphabetic() {
        return None;
    }
    let mut after_letter = letter_at + letter.len_utf8();
    // The letter ه is written with a tatweel behind it.
    after_letter += token_after_tatweel(text, after_letter);
    if char_at(text, after_letter).is_some_and(char::is_alphabetic) {
        return None;
    }
    let (tail_start, second_gap) = gap(text, after_letter);
    let (tail, end) = number_at(text, tail_start)?;
    let (head_len, tail_len) = (head.len, tail.len());
    let wide = |len: usize| (4..=5).contains(&len);
    let number = |digits: &[u8]| digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit));
    let region = match (head_len, tail_len) {
        (1..=5, 1..=2) if head_len > tail_len => number(&tail),
        (1..=2, 1..=5) => number(run.digits_of(at, 1)?),
        _ => return None,
    };
    let glued = shown_before(text, head.start)
        .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ',' | '-' | '/' | '#'));
    let alone = (at > 0 && head.before & sep::SPACE != 0) || (at == 0 && !glued);
    let goes_on = match shown_after(text, end) {
        Some('-') => char_at(text, end + 1).is_some_and(char::is_alphanumeric),
        Some(c) => c.is_ascii_alphanumeric() || matches!(c, '_' | '%' | '/'),
        None => false,
    };
    if !alone || goes_on || !PLATE_REGIONS.contains(&region) {
        return None;
    }
    let marked = first_gap.contains(&Some('-')) && second_gap.contains(&Some('-'))
        || first_gap.contains(&Some('|')) && second_gap.contains(&Some('|'));
    let labels = Before::new(text, head.start);
    let labels = labels.get();
    let labelled = labels.is_nearest(Label::Plate, &[Label::Other, Label::Phone, Label::Cin, Label::Passport]);
    let latin_small = !arabic && letter.is_ascii_lowercase();
    // "13 و 14" is two numbers and "18h15" a time: only the marks of a plate make plates of them.
    let joined = matches!(letter, 'و' | 'ا') || !arabic && !letter.is_ascii_uppercase();
    let longest = head_len.max(tail_len);
    let labelled = labelled && if marked { longest >= 2 } else { longest >= if joined { 5 } else { 3 } };
    let telling = marked
        && !latin_small
        && (wide(head_len) || wide(tail_len))
        && !labels.is_other()
        && !labels.has(Label::Version);
    (labelled || telling).then_some((Kind::Plate, head.start, end))
}

fn token_after_tatweel(text: &str, at: usize) -> usize {
    text.get(at..).unwrap_or_default().chars().take_while(|c| *c == '\u{640}').take(3).map(char::len_utf8).sum()
}

/// Skips spaces, dashes, bars and slashes: where they end, and the visible ones (dashes as `-`).
fn gap(text: &str, mut at: usize) -> (usize, [Option<char>; 4]) {
    let mut seen = [None; 4];
    let mut count = 0;
    for _ in 0..8 {
        let Some(c) = char_at(text, at) else { break };
        let shown = match c {
            c if is_hidden(c) => None,
            c if is_space(c) => Some(' '),
            c if is_dash(c) || c == '\u{640}' => Some('-'),
            '|' | '/' => Some(c),
            _ => break,
        };
        if let Some(shown) = shown {
            let Some(slot) = seen.get_mut(count) else { break };
            *slot = Some(shown);
            count += 1;
        }
        at += c.len_utf8();
    }
    (at, seen)
}

/// The digits at a byte, at most 6, and where they end.
fn number_at(text: &str, start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut digits, mut at, mut end) = (Vec::new(), start, start);
    while let Some(c) = char_at(text, at) {
        at += c.len_utf8();
        if let Some(digit) = digit_value(c) {
            digits.push(digit);
            end = at;
        } else if !is_hidden(c) {
            break;
        }
        if digits.len() > 6 {
            return None;
        }
    }
    (!digits.is_empty()).then_some((digits, end))
}

/// A coordinate in decimal degrees.
struct Degrees {
    value: f64,
    decimals: usize,
    end: usize,
}

/// Reads `33.5731` at a byte.
fn decimal(text: &str, at: usize) -> Option<Degrees> {
    let digits = |at: usize| token_after(text, at, |b| b.is_ascii_digit());
    let whole = digits(at);
    let point = at + whole.len();
    let part = digits(point + 1);
    let dotted = matches!(char_at(text, point), Some('.' | ','));
    let fits = (1..=3).contains(&whole.len()) && (3..=15).contains(&part.len());
    let value = format!("{whole}.{part}").parse().ok()?;
    (dotted && fits).then_some(Degrees { value, decimals: part.len(), end: point + 1 + part.len() })
}

/// A pair of decimal coordinates whose first number begins with the group `at`: `33.5731, -7.5898`.
pub(super) fn coordinates(text: &str, run: &Run, at: usize) -> Option<(Kind, usize, usize)> {
    let head = run.group(at)?;
    let first = decimal(text, head.start)?;
    let (mut start, mut sign) = (head.start, 1.0);
    let ahead = text.get(..start)?.chars().next_back();
    if ahead.is_some_and(is_dash) || ahead == Some('+') {
        sign = if ahead == Some('+') { 1.0 } else { -1.0 };
        start -= ahead.map_or(0, char::len_utf8);
    }
    let glued =
        text.get(..start)?.chars().next_back().is_some_and(|c| (c.is_alphanumeric() && c < '\u{250}') || c == '.');
    if glued {
        return None;
    }
    let (second_at, south, second_sign) = between(text, first.end)?;
    let second = decimal(text, second_at)?;
    let letter = shown_after_degree(text, second.end);
    let west = matches!(letter, Some((c, _)) if "wWoOغ".contains(c));
    let end = letter.map_or(second.end, |(_, end)| end);
    let latitude = first.value * sign * if south { -1.0 } else { 1.0 };
    let longitude = second.value * second_sign * if west { -1.0 } else { 1.0 };
    if latitude.abs() > 90.0 || longitude.abs() > 180.0 {
        return None;
    }
    let labels = Before::new(text, start);
    let labels = labels.get();
    let labelled = labels.has(Label::Gps) && labels.words_between(Label::Gps) <= 6;
    let decimals = first.decimals.min(second.decimals);
    let here = MOROCCO.iter().zip([latitude, longitude]).all(|(range, value)| range.contains(&value));
    let hemisphere = letter.is_some();
    let listed = char_at(text, end) == Some(',')
        && text.get(end + 1..)?.trim_start_matches(' ').starts_with(|c: char| c.is_ascii_digit() || c == '-');
    // A row of a table: numbers stand before, behind, or with nothing but a space between.
    let row = shown_number(text.get(..start)?.chars().rev())
        || shown_number(text.get(end..)?.chars())
        || (decimals < 4 && text.get(first.end..second_at)?.chars().all(|c| is_space(c) || is_dash(c)));
    let certain = labelled || hemisphere || ((here || decimals >= 5) && !listed && !row);
    certain.then_some((Kind::Gps, start, end))
}

/// Whether a number is what comes next, behind spaces and dashes.
fn shown_number(chars: impl Iterator<Item = char>) -> bool {
    let mut chars = chars.skip_while(|c| is_space(*c) || is_dash(*c) || is_hidden(*c));
    chars.next().is_some_and(|c| digit_value(c).is_some())
}

/// What may stand between latitude and longitude: where the second number begins, whether the first was southern, and
/// the sign of the second.
fn between(text: &str, from: usize) -> Option<(usize, bool, f64)> {
    let (mut word, mut south, mut sign, mut parted) = (String::new(), false, 1.0, false);
    for (offset, c) in text.get(from..)?.char_indices().take(MAX_BETWEEN) {
        if c.is_ascii_digit() {
            return (parted && word.is_empty()).then_some((from + offset, south, sign));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
            continue;
        }
        let known = [
            "",
            "n",
            "s",
            "lat",
            "lon",
            "lng",
            "long",
            "longitude",
            "et",
            "and",
            "و",
            "nord",
            "sud",
            "north",
            "x",
            "y",
        ];
        if !known.contains(&word.as_str()) {
            return None;
        }
        south |= word == "s" || word == "sud";
        word.clear();
        match c {
            '-' | '\u{2212}' | '\u{2013}' => sign = -1.0,
            ',' | ';' | ' ' | '/' | '|' | '&' | '=' | ':' | '"' | '°' | 'º' | '\u{a0}' | '\n' | '(' | ')' | '،'
            | '+' => {}
            c if is_hidden(c) => {}
            _ => return None,
        }
        parted = true;
    }
    None
}

/// The letter of the hemisphere behind a coordinate, with or without the sign of degrees, and where it ends.
fn shown_after_degree(text: &str, from: usize) -> Option<(char, usize)> {
    for (offset, c) in text.get(from..)?.char_indices().take(4) {
        match c {
            '°' | 'º' | ' ' | '\u{a0}' => {}
            'E' | 'W' | 'O' | 'e' | 'w' | 'o' | 'غ' | 'ق' => {
                let end = from + offset + c.len_utf8();
                return (!char_at(text, end).is_some_and(char::is_alphanumeric)).then_some((c, end));
            }
            _ => return None,
        }
    }
    None
}

/// `33°34'23.2"N, 7°35'23.3"W` at a group: both with minutes, and with seconds or decimals.
pub(super) fn degrees(text: &str, head: Group) -> Option<(Kind, usize, usize)> {
    if !matches!(char_at(text, head.end), Some('°' | 'º')) || head.len > 2 {
        return None;
    }
    let (precise_first, north, after) = sexagesimal(text, head.start)?;
    let skipped: usize = text
        .get(after..)?
        .chars()
        .take(4)
        .take_while(|c| matches!(c, ' ' | ',' | ';' | '/' | '\u{a0}') || is_hidden(*c))
        .map(char::len_utf8)
        .sum();
    let (precise_second, east, end) = sexagesimal(text, after + skipped)?;
    let sides = matches!(north, 'N' | 'S' | 'n' | 's' | 'ش' | 'ج')
        && matches!(east, 'E' | 'W' | 'O' | 'e' | 'w' | 'o' | 'غ' | 'ق');
    (precise_first && precise_second && sides).then_some((Kind::Gps, head.start, end))
}

/// Degrees, minutes, seconds and a hemisphere: whether seconds or decimals are given, the hemisphere, where it ends.
fn sexagesimal(text: &str, start: usize) -> Option<(bool, char, usize)> {
    let (mut at, mut parts, mut precise) = (start, 0, false);
    loop {
        let whole = token_after(text, at, |b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || parts == 3 {
            return None;
        }
        at += whole.len();
        if matches!(char_at(text, at), Some('.' | ',')) {
            let part = token_after(text, at + 1, |b| b.is_ascii_digit());
            precise |= part.len() >= 2 || (parts == 2 && !part.is_empty());
            at += 1 + part.len();
        }
        parts += 1;
        precise |= parts == 3;
        let mut marked = false;
        while let Some(c) = char_at(text, at) {
            match c {
                '°' | 'º' | '\'' | '’' | '′' | '"' | '″' | '”' => marked = true,
                ' ' | '\u{a0}' => {}
                c if is_hidden(c) => {}
                c if c.is_ascii_digit() && marked => break,
                c if parts >= 2 && marked => {
                    let end = at + c.len_utf8();
                    let alone = !char_at(text, end).is_some_and(char::is_alphabetic);
                    return (c.is_alphabetic() && alone).then_some((precise, c, end));
                }
                _ => return None,
            }
            at += c.len_utf8();
        }
        char_at(text, at)?;
    }
}
