//! Owns telephone numbers as Moroccans write them, and foreign ones with their country code; never reads digits itself.

use super::context::Label;
use super::run::{Run, is_space, sep};
use super::scan::{Before, char_at, in_address, letters_before, shown_after, shown_before, token_after, token_before};

/// A number that begins with the group `first` of a run.
pub(super) struct Phone {
    /// Where it begins, sign and bracket included.
    pub start: usize,
    /// How many groups it takes.
    pub groups: usize,
}

/// Where a number may begin.
struct Place<'a> {
    text: &'a str,
    run: &'a Run,
    first: usize,
    before: &'a Before<'a>,
    done: usize,
}

/// How the digits begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `+212` or `00212` and 9 digits, or 10 when the `(0)` is written out.
    Moroccan { country: usize },
    /// `+33`... or `0033`...: country code and as many digits as the country has.
    Foreign { country: usize, min: usize, max: usize },
    /// `06` and 8 digits.
    Local,
    /// Anything else that only a label makes a number.
    Labelled,
}

/// Country codes and how many digits follow; ITU-T E.164 with the national plans of Morocco's neighbours and of the
/// countries its people call most.
#[rustfmt::skip]
const COUNTRIES: [(&str, usize, usize); 33] = [
    ("1", 10, 10), ("7", 10, 10), ("20", 9, 10), ("27", 9, 9), ("30", 10, 10), ("31", 9, 9), ("32", 8, 9), ("33", 9, 9),
    ("34", 9, 9), ("39", 8, 11), ("41", 9, 9), ("43", 8, 12), ("44", 9, 10), ("45", 8, 8), ("46", 7, 10), ("47", 8, 8),
    ("48", 9, 9), ("49", 8, 11), ("86", 10, 11), ("90", 10, 10), ("91", 10, 10), ("213", 8, 9), ("216", 8, 8),
    ("218", 8, 9), ("221", 9, 9), ("222", 8, 8), ("225", 8, 10), ("351", 9, 9), ("352", 6, 9), ("353", 7, 9),
    ("966", 8, 9), ("971", 8, 9), ("974", 8, 8),
];

/// Recognises a number at the group `first`; what lies before the byte `done` has been recognised already.
pub(super) fn recognise(text: &str, run: &Run, first: usize, before: &Before<'_>, done: usize) -> Option<Phone> {
    let group = run.group(first)?;
    let (start, plus) = with_plus(text, group.start, first);
    let digits = run.digits.get(group.from..).unwrap_or_default();
    let place = Place { text, run, first, before, done };
    for form in forms(digits, plus) {
        if let Some(groups) = extent(run, first, form).filter(|groups| accepted(&place, *groups, form, plus)) {
            let inner = run.group(first + 1).is_some_and(|group| groups > 1 && group.before & sep::BRACKET != 0);
            let bracket = inner && text.get(..start).is_some_and(|head| head.ends_with('('));
            return Some(Phone { start: start - usize::from(bracket), groups });
        }
    }
    None
}

/// Where a number with a plus sign begins, and whether there is one: `+212`, `(+212`, `+ 212`.
fn with_plus(text: &str, start: usize, first: usize) -> (usize, bool) {
    if first > 0 {
        return (start, false);
    }
    let mut at = start;
    let mut plus = false;
    for c in text.get(..start).unwrap_or_default().chars().rev().take(6) {
        let ahead = at - c.len_utf8();
        match c {
            '+' | '\u{ff0b}' if !plus => plus = true,
            '(' if plus => return (ahead, true),
            c if !plus && (super::run::is_hidden(c) || is_space(c) || c == '(') => {}
            _ => break,
        }
        at = ahead;
        if plus && !text.get(..at).is_some_and(|head| head.ends_with('(')) {
            break;
        }
    }
    if plus { (at, true) } else { (start, false) }
}

/// The readings of the digits that are worth trying, the most telling first.
fn forms(digits: &[u8], plus: bool) -> impl Iterator<Item = Form> {
    let international = match digits {
        _ if plus => Some(0),
        [0, 0, ..] => Some(2),
        _ => None,
    };
    let moroccan = |at: usize| {
        digits.get(at..).is_some_and(|rest| rest.starts_with(&[2, 1, 2])).then_some(Form::Moroccan { country: at + 3 })
    };
    let foreign = international.and_then(|at| {
        let rest = digits.get(at..).unwrap_or_default();
        COUNTRIES
            .iter()
            .find(|(code, ..)| code.len() <= rest.len() && code.bytes().zip(rest).all(|(a, b)| a - b'0' == *b))
            .map(|&(code, min, max)| Form::Foreign { country: at + code.len(), min, max })
            .or((plus && !rest.starts_with(&[0])).then_some(Form::Foreign { country: at + 3, min: 6, max: 11 }))
    });
    let local = matches!(digits, [0, 5..=8, ..]).then_some(Form::Local);
    let national = moroccan(international.unwrap_or(0));
    // +212 is no country of the table, and what is no valid number of Morocco is none of another country either.
    let foreign = if national.is_some() { None } else { foreign };
    let labelled = (!plus).then_some(Form::Labelled);
    [national, foreign, local, labelled].into_iter().flatten()
}

/// How many groups a form takes from `first` on.
fn extent(run: &Run, first: usize, form: Form) -> Option<usize> {
    let group = run.group(first)?;
    let digits = run.digits.get(group.from..).unwrap_or_default();
    match form {
        Form::Moroccan { country } => {
            let zero = usize::from(digits.get(country) == Some(&0));
            matches!(digits.get(country + zero), Some(5..=8)).then_some(())?;
            run.groups_of(first, country + zero + 9)
        }
        Form::Foreign { country, min, max } => {
            let zero = usize::from(digits.get(country) == Some(&0));
            (country + zero + min..=country + zero + max)
                .rev()
                .find_map(|wanted| run.groups_of(first, wanted).filter(|groups| is_one_number(run, first, *groups)))
        }
        Form::Local => run.groups_of(first, 10),
        Form::Labelled => labelled_extent(run, first),
    }
}

/// Numbers without a telling start: nine digits without the first 0, old ones, foreign ones, groups written backwards.
fn labelled_extent(run: &Run, first: usize) -> Option<usize> {
    let digits = |groups: usize| run.digits_of(first, groups);
    for wanted in [10, 9, 8] {
        let Some(groups) = run.groups_of(first, wanted) else { continue };
        if !is_one_number(run, first, groups) {
            continue;
        }
        let found = digits(groups)?;
        let last = run.group(first + groups - 1)?;
        let telling = match (found, wanted) {
            ([0, ..], 9 | 10) => true,
            ([5..=7, ..], 9) => true,
            // 45 67 23 61 06: a right-to-left line turned the groups around.
            (_, 10) => {
                let ends = run.digits.get(last.from..last.from + 2);
                let american = groups == 3 && last.len == 4;
                american || (groups == 5 && last.len == 2 && matches!(ends, Some([0, 5..=8])))
            }
            _ => false,
        };
        if telling {
            return Some(groups);
        }
    }
    None
}

/// Whether separators are those inside one number: no wide gap, slashes between all groups or after the first only.
fn is_one_number(run: &Run, first: usize, groups: usize) -> bool {
    let inner = run.groups.get(first + 1..first + groups).unwrap_or_default();
    let slashes = inner.iter().filter(|group| group.before & sep::SLASH != 0).count();
    let wide = |flags: u8| flags & sep::WIDE != 0 && flags & (sep::DASH | sep::DOT | sep::BRACKET | sep::SLASH) == 0;
    let slash_first = inner.first().is_some_and(|group| group.before & sep::SLASH != 0)
        && run.group(first).is_some_and(|group| group.len <= 5);
    !inner.iter().any(|group| wide(group.before))
        && (slashes == 0 || slashes == inner.len() || (slashes == 1 && slash_first))
}

fn accepted(place: &Place<'_>, groups: usize, form: Form, plus: bool) -> bool {
    let Place { text, run, first, before, done } = *place;
    let (Some(head), Some(tail)) = (run.group(first), run.group(first + groups - 1)) else { return false };
    if !is_one_number(run, first, groups) || !closes(text, tail.end) || !opens(text, head.start, first, plus) {
        return false;
    }
    if in_address(text, head.start) && !is_call_link(text, head.start) {
        return false;
    }
    let labels = || before.get();
    let labelled = || {
        let near = labels();
        near.is_nearest(Label::Phone, &[Label::Other, Label::Cin, Label::Ice, Label::If, Label::Cnss, Label::Patente])
            && near.words_between(Label::Phone) <= 5
    };
    match form {
        Form::Labelled => labelled() && labels().words_between(Label::Phone) <= 3 && !is_money(text, tail.end),
        _ if plus => stands_alone(run, first, groups, done) || labelled(),
        Form::Foreign { .. } => labelled(),
        _ => {
            let plain = plain_shape(run, first, groups, form) && stands_alone(run, first, groups, done);
            (plain && !labels().is_other() && !is_money(text, tail.end)) || labelled()
        }
    }
}

/// Whether the character before a number may stand there.
fn opens(text: &str, start: usize, first: usize, plus: bool) -> bool {
    if plus || first > 0 {
        return true;
    }
    match shown_before(text, start) {
        None => true,
        Some(c) if c.is_ascii_alphabetic() => {
            let word = letters_before(text, start).to_ascii_lowercase();
            ["tel", "gsm", "fax", "mob", "num", "wtp", "wtsp", "whatsapp", "telephone", "nmra", "phone", "portable"]
                .contains(&word.as_str())
        }
        Some('#' | '$' | '€' | '£' | '\\' | '@' | '%') => in_address(text, start),
        // Between two underscores or asterisks a message is set in italics or bold.
        Some('_') => !text.get(..start).is_some_and(|h| h.chars().rev().nth(1).is_some_and(char::is_alphanumeric)),
        Some(',' | '.' | '\u{66b}' | '\u{66c}') => {
            !text.get(..start).is_some_and(|head| head.chars().rev().nth(1).is_some_and(|c| c.is_numeric()))
        }
        Some('-' | '/') => {
            let ahead = text.get(..start).unwrap_or_default().chars().rev().nth(1);
            !ahead.is_some_and(|c| c.is_ascii_alphanumeric()) || in_address(text, start)
        }
        // Letters of other Latin alphabets; Arabic ones are glued to numbers all the time.
        Some(c) => !(c.is_alphabetic() && c < '\u{250}'),
    }
}

/// Whether the character after a number may stand there.
fn closes(text: &str, end: usize) -> bool {
    let next = match shown_after(text, end) {
        None => return true,
        Some(next) => next,
    };
    match next {
        '%' | '@' | '=' | '\u{b0}' => false,
        '_' => !char_at(text, end + 1).is_some_and(char::is_alphanumeric),
        c if c.is_alphabetic() && c < '\u{250}' => {
            let word = token_after(text, end, |b| b.is_ascii_alphabetic());
            ["ou", "et", "whatsapp", "tel", "gsm"].contains(&word.to_ascii_lowercase().as_str())
        }
        '.' | '-' | '+' => {
            let rest = token_after(text, end, |b| b.is_ascii_alphanumeric() || b"._+-@".contains(&b));
            !rest.contains('@') && !char_at(text, end + 1).is_some_and(|c| c.is_ascii_alphabetic() && next == '-')
        }
        ':' | ',' => !char_at(text, end + 1).is_some_and(char::is_numeric),
        _ => true,
    }
}

/// Whether the groups around do not belong to the number: no list or table of numbers goes on.
fn stands_alone(run: &Run, first: usize, groups: usize, done: usize) -> bool {
    let (Some(head), Some(tail)) = (run.group(first), run.group(first + groups - 1)) else { return false };
    let in_pairs = groups > 1 && tail.len <= 3;
    if let Some(next) = run.group(first + groups) {
        let tight = next.before & (sep::SPACE | sep::SLASH | sep::BRACKET) == 0;
        let begins_another =
            next.len >= 2 && run.digits.get(next.from..next.from + 2).is_some_and(|d| matches!(d, [0, _]));
        let goes_on = in_pairs && next.before == tail.before && next.len <= 3 && !begins_another;
        if tight || goes_on {
            return false;
        }
    }
    if let Some(previous) = first.checked_sub(1).and_then(|at| run.group(at)).filter(|group| group.end > done) {
        let tight = head.before & (sep::SPACE | sep::SLASH | sep::BRACKET) == 0;
        let listed = in_pairs && first > 1 && previous.len <= 2 && previous.before == head.before;
        let joined = head.before & sep::SLASH != 0 && head.before & sep::SPACE == 0 && previous.len <= 4 && !in_pairs;
        if tight || listed || joined {
            return false;
        }
    }
    true
}

/// Whether the groups are those people write: 10, 2-2-2-2-2, 4-6, 4-2-2-2, 4-3-3, 3-3-4, 2-8 and so on, and no date or
/// row of counting numbers.
fn plain_shape(run: &Run, first: usize, groups: usize, form: Form) -> bool {
    let Some(found) = run.groups.get(first..first + groups) else { return false };
    let skipped = usize::from(matches!(form, Form::Moroccan { .. }) && groups > 1);
    let lens: Vec<usize> = found.iter().map(|group| group.len).collect();
    let inner = lens.get(skipped.max(1)..).unwrap_or_default();
    let ones = inner.iter().filter(|len| **len == 1).count();
    let allowed_ones = if skipped == 1 { 2 } else { 0 };
    if ones > allowed_ones || (skipped == 0 && groups > 1 && !(2..=4).contains(&lens.first().copied().unwrap_or(0))) {
        return false;
    }
    if form == Form::Local && matches!(lens.as_slice(), [2, 2, 4, 2] | [4, 2, 2, 2] if is_year(run, first, &lens)) {
        return false;
    }
    // 212 661 234 567 without a plus may be an amount, so its parts must not all be of three digits with one space.
    let digits = run.digits_of(first, groups).unwrap_or_default();
    let counting = lens.iter().all(|len| *len == 2) && {
        let values: Vec<i16> = digits.chunks(2).map(|c| c.iter().fold(0, |v, d| v * 10 + i16::from(*d))).collect();
        let step = |pair: &[i16]| pair.last().copied().unwrap_or(0) - pair.first().copied().unwrap_or(0);
        let mut steps = values.windows(2).map(step);
        let one = steps.next();
        matches!(one, Some(1 | 2 | 5 | 10)) && steps.all(|other| Some(other) == one)
    };
    !counting
}

/// Whether the third group of 2-2-4-2 is a year after a day and a month.
fn is_year(run: &Run, first: usize, lens: &[usize]) -> bool {
    if lens.first() != Some(&2) {
        return false;
    }
    let value = |at: usize| {
        run.digits_of(first + at, 1).unwrap_or_default().iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit))
    };
    value(0) <= 31 && value(1) <= 12 && (1900..=2100).contains(&value(2))
}

/// Whether an amount or a measure ends here: "dirhams" follows, a percent sign, a currency.
fn is_money(text: &str, end: usize) -> bool {
    let rest = text.get(end..).unwrap_or_default().trim_start_matches(|c| is_space(c) || super::run::is_hidden(c));
    let word: String = rest.chars().take_while(|c| c.is_alphabetic()).take(12).flat_map(char::to_lowercase).collect();
    rest.starts_with(['€', '$', '%', '£', '²'])
        || [
            "dh",
            "dhs",
            "mad",
            "dirham",
            "dirhams",
            "euro",
            "euros",
            "usd",
            "eur",
            "درهم",
            "درهما",
            "دراهم",
            "ريال",
            "سنتيم",
            "دولار",
            "أورو",
            "km",
            "kg",
            "drhm",
            "derhem",
            "dirhem",
            "ryal",
            "centimes",
            "fcfa",
        ]
        .contains(&word.as_str())
}

/// Whether a number in an address is one to call: `tel:`, `wa.me/`, `phone=`.
fn is_call_link(text: &str, start: usize) -> bool {
    let token = token_before(text, start, |b| b > b' ' && b.is_ascii()).trim_end_matches('+').to_ascii_lowercase();
    ["tel:", "wa.me/", "phone=", "sms:", "callto:", "tel=", "phone:"].iter().any(|link| token.ends_with(link))
}
