//! Owns the numbers of identity cards and passports, which mean nothing without the words beside them; never reads digits.

use super::context::{Context, Label};
use super::kind::Kind;
use super::run::{Run, is_dash, is_hidden, is_space, sep};
use super::scan::{in_address, letters_before, shown_after, shown_before, token_after};

/// Letters of the offices that issue identity cards.
const REGIONS: &str = "A AA AB AC AD AE AJ AS AY B BA BB BE BF BH BJ BK BL BM BV BW C CA CB CC CD CN CT D DA DB DC DJ DN DO E \
     EA EB EC EE F FA FB FC FD FE FG FH FJ FK FL G GA GB GI GJ GK GM GN GR GY H HA HH I IA IB IC ID IE IJ IM IN IR J JA JB \
     JC JD JE JF JH JK JM JT JY JZ K KA KB L LA LB LC LE LF LG M MA MC MD N O OD P PA PB PK PP PS PY Q QA QB R RB RC RX \
     S SA SB SH SJ SK SL SZ T TA TK TW U UA UB UC UD V VA VM W WA WB X XA Y Z ZA ZG ZH ZT";

/// Short words that stand before numbers and are no letters of an office.
const WORDS: [&str; 18] =
    ["n", "no", "nr", "le", "la", "du", "de", "a", "et", "ou", "au", "en", "un", "b", "f", "w", "o", "l"];

/// Recognises a card or passport whose digits are the first groups of a run.
pub(super) fn recognise(text: &str, run: &Run) -> Option<(Kind, usize, usize)> {
    let first = run.group(0)?;
    if first.len > 9 {
        return None;
    }
    let (digits, end) = digits_in_parts(run);
    let (letters, start, spaced) = letters(text, first.start);
    match (letters.len(), digits) {
        (1 | 2, 5..=8) if !glued_after(text, end) => {
            let before = Context::before(text, start);
            numbered(text, &before, letters, start, end, digits, spaced)
        }
        // 765432 BE: a right-to-left line turned them around; or the passport of another country, 12AB34567.
        (0, 2..=9) => other_order(text, first.start, first.end, digits_of_one(run)?),
        _ => None,
    }
}

/// Digits of the first group, or of two or three groups such as `123 456`, and where they end.
fn digits_in_parts(run: &Run) -> (usize, usize) {
    let (mut sum, mut end) = (0, 0);
    for (at, group) in run.groups.iter().enumerate() {
        let joined = at == 0
            || (matches!(group.before, sep::SPACE | sep::DOT) && at < 3 && (2..=3).contains(&group.len) && sum <= 4);
        if !joined || sum + group.len > 8 {
            break;
        }
        sum += group.len;
        end = group.end;
        if sum >= 5 {
            break;
        }
    }
    (sum, end)
}

fn digits_of_one(run: &Run) -> Option<usize> {
    run.group(0).map(|group| group.len)
}

/// One or two letters before the digits, where they begin, and whether something stands between.
fn letters(text: &str, at: usize) -> (&str, usize, bool) {
    let head = text.get(..at).unwrap_or_default();
    let is_gap = |c: char| is_space(c) || is_dash(c) || is_hidden(c) || c == '.' || c == '/';
    let trimmed = head.trim_end_matches(is_gap);
    let gap = head.get(trimmed.len()..).unwrap_or_default();
    if gap.chars().filter(|c| !is_hidden(*c)).count() > 2 {
        return ("", at, false);
    }
    let letters = letters_before(text, trimmed.len());
    let start = trimmed.len() - letters.len();
    // "BK n° 12" and "l'an 2000": what is glued to the letters makes them part of a word.
    let glued = shown_before(text, start).is_some_and(|c| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '\'' | '’' | '@' | '#' | '&')
            || ('\u{c0}'..'\u{250}').contains(&c)
    });
    if glued || letters.len() > 2 {
        return ("x12", at, false);
    }
    (letters, start, !gap.is_empty())
}

fn numbered(
    text: &str,
    before: &Context,
    letters: &str,
    start: usize,
    end: usize,
    digits: usize,
    spaced: bool,
) -> Option<(Kind, usize, usize)> {
    let small = letters.bytes().any(|b| b.is_ascii_lowercase());
    if (spaced && small && WORDS.contains(&letters.to_ascii_lowercase().as_str())) || in_address(text, start) {
        return None;
    }
    let rivals =
        [Label::Other, Label::Plate, Label::Phone, Label::Rc, Label::If, Label::Ice, Label::Cnss, Label::Patente];
    let nearest =
        |label: Label, against: Label| before.is_nearest(label, &rivals) && before.is_nearest(label, &[against]);
    if (6..=8).contains(&digits) && nearest(Label::Passport, Label::Cin) {
        return Some((Kind::Passport, start, end));
    }
    if (5..=8).contains(&digits) && nearest(Label::Cin, Label::Passport) {
        return Some((Kind::Cin, start, end));
    }
    let silent = rivals.iter().all(|label| !before.has(*label));
    let after = Context::after(text, end);
    if silent && (5..=7).contains(&digits) && after.has(Label::Cin) && !crosses_sentence(text, end) {
        return Some((Kind::Cin, start, end));
    }
    if silent && (6..=8).contains(&digits) && after.has(Label::Passport) && !crosses_sentence(text, end) {
        return Some((Kind::Passport, start, end));
    }
    if letters.eq_ignore_ascii_case("ww") && before.has(Label::Plate) {
        return Some((Kind::Plate, start, end));
    }
    let region = REGIONS.split_whitespace().any(|region| region.eq_ignore_ascii_case(letters));
    let weak = before.is_nearest(Label::MaybeCin, &rivals) && before.words_between(Label::MaybeCin) <= 3;
    (region && weak && !(spaced && small) && (5..=6).contains(&digits)).then_some((Kind::Cin, start, end))
}

/// Whether a sentence or paragraph ends right after a byte, so that labels behind it speak of something else.
fn crosses_sentence(text: &str, end: usize) -> bool {
    matches!(shown_after(text, end), Some('.' | '\n' | ';' | '!' | '?' | '؟' | '؛'))
}

fn glued_after(text: &str, end: usize) -> bool {
    shown_after(text, end).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '%'))
}

/// `765432BE` beside the words of an identity card, `12AB34567` beside those of a passport.
fn other_order(text: &str, start: usize, end: usize, digits: usize) -> Option<(Kind, usize, usize)> {
    if shown_before(text, start).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ',' | '-' | '/'))
    {
        return None;
    }
    let rest = text.get(end..)?;
    let gap = rest.len() - rest.trim_start_matches(|c| c == ' ' || is_hidden(c)).len();
    let tail = token_after(text, end + gap, |b| b.is_ascii_alphanumeric());
    let letters = tail.bytes().take_while(u8::is_ascii_uppercase).count();
    let more = tail.bytes().skip(letters).filter(u8::is_ascii_digit).count();
    if !(1..=2).contains(&letters) || letters + more != tail.len() {
        return None;
    }
    let stop = end + gap + tail.len();
    let rivals = [Label::Other, Label::Plate, Label::Phone, Label::Rc, Label::If, Label::Ice];
    let card = more == 0 && (5..=7).contains(&digits);
    let pass = gap == 0 && more > 0 && (7..=9).contains(&(digits + tail.len())) && digits <= 2;
    if !card && !pass {
        return None;
    }
    let before = Context::before(text, start);
    if card && before.is_nearest(Label::Cin, &rivals) && before.is_nearest(Label::Cin, &[Label::Passport]) {
        return Some((Kind::Cin, start, stop));
    }
    (pass && before.is_nearest(Label::Passport, &rivals)).then_some((Kind::Passport, start, stop))
}
