//! Owns what a run of digits can be, tried in order of certainty; never touches the checks themselves.

use super::bank::{RIB_DIGITS, iban_length, is_card, is_iban, is_rib};
use super::context::Label;
use super::kind::Kind;
use super::run::{MAX_GROUPS, digit_value, is_dash, is_hidden, is_space, sep};
use super::scan::{Before, Scan, char_at, in_address, shown_after, shown_before};
use super::{identity, network, phone, place};

/// Where reading goes on after a run that was cut: numbers across the cut are seen whole.
const RESUME_AT: usize = MAX_GROUPS * 3 / 4;

/// Labels of which the nearest one names a company's number, its kind, and how many digits and words may stand between.
const LABELLED: [(Label, Kind, std::ops::RangeInclusive<usize>, usize); 5] = [
    (Label::Ice, Kind::Ice, 15..=15, 4),
    (Label::If, Kind::If, 6..=9, 4),
    (Label::Rc, Kind::Rc, 4..=7, 5),
    (Label::Cnss, Kind::Cnss, 7..=10, 4),
    (Label::Patente, Kind::Patente, 7..=9, 4),
];

impl Scan<'_> {
    /// The number that begins with the digit at `start`; gives back where reading goes on.
    pub fn number(&mut self, start: usize) -> Option<usize> {
        let mut run = std::mem::take(&mut self.run);
        run.read(self.text, start);
        self.run = run;
        if let Some(end) = self.iban(start) {
            return Some(end);
        }
        if let Some((kind, start, end)) = identity::recognise(self.text, &self.run)
            && let Some(end) = self.push(kind, start, end)
        {
            return Some(end);
        }
        let mut at = 0;
        while let Some(group) = self.run.group(at) {
            if self.run.cut && at >= RESUME_AT {
                return Some(group.start);
            }
            if let Some((kind, from, end)) = self.part(at)
                && let Some(end) = self.push(kind, from, end)
            {
                while self.run.group(at).is_some_and(|group| group.start < end) {
                    at += 1;
                }
                if self.run.group(at).is_none() {
                    return Some(end);
                }
                continue;
            }
            at += 1;
        }
        self.run.groups.last().map(|group| group.end)
    }

    /// What begins with the group `at` of the run.
    fn part(&self, at: usize) -> Option<(Kind, usize, usize)> {
        let (text, run) = (self.text, &self.run);
        let group = run.group(at)?;
        let next = run.group(at + 1);
        let decimal = next.is_some_and(|next| next.before == sep::DOT);
        if decimal || char_at(text, group.end) == Some(',') {
            let address = if decimal { network::ipv4(text, run, at) } else { None };
            let found = address.or_else(|| place::coordinates(text, run, at));
            if found.is_some() {
                return found;
            }
        }
        if let Some(found) = place::degrees(text, group) {
            return Some(found);
        }
        if (group.len <= 6)
            && let Some(found) = place::plate(text, run, at)
        {
            return Some(found);
        }
        if let Some(groups) = self.account(at).or_else(|| self.card(at)) {
            let kind = if self.is_account(at, groups) { Kind::Rib } else { Kind::Card };
            return Some((kind, group.start, self.end_of(at, groups)?));
        }
        // Shorter numbers are neither called nor registered.
        let digits = run.digits.len().saturating_sub(group.from);
        if digits < 4 || (group.len < 4 && digits < 8) {
            return None;
        }
        let before = Before::new(text, group.start);
        if let Some((kind, groups)) = self.labelled(at, &before) {
            return Some((kind, group.start, self.end_of(at, groups)?));
        }
        let found = phone::recognise(text, run, at, &before, self.done)?;
        Some((Kind::Phone, found.start, self.end_of(at, found.groups)?))
    }

    fn end_of(&self, first: usize, groups: usize) -> Option<usize> {
        self.run.group(first + groups - 1).map(|group| group.end)
    }

    fn is_account(&self, first: usize, groups: usize) -> bool {
        self.run.digits_of(first, groups).is_some_and(|digits| digits.len() == RIB_DIGITS)
    }

    /// A RIB: how many groups it takes.
    fn account(&self, first: usize) -> Option<usize> {
        let groups = self.run.groups_of(first, RIB_DIGITS)?;
        // Points between some groups and spaces between others are a row of decimal numbers.
        let inner = self.run.groups.get(first + 1..first + groups)?;
        let points = inner.iter().filter(|group| group.before & sep::DOT != 0).count();
        if points != 0 && points != inner.len() {
            return None;
        }
        let whole = self.is_whole(first, groups, true) && is_rib(self.run.digits_of(first, groups)?);
        // Behind "MA65", the check digits of an IBAN that does not add up.
        let in_iban =
            first == 1 && self.run.group(0).is_some_and(|g| g.len == 2 && self.country_before(g.start).is_some());
        (whole && !in_iban).then_some(groups)
    }

    fn card(&self, first: usize) -> Option<usize> {
        let group = self.run.group(first)?;
        let groups = [16, 15, 14].into_iter().find_map(|len| {
            let groups = self.run.groups_of(first, len)?;
            let lens: Vec<usize> = self.run.groups.iter().skip(first).take(groups).map(|group| group.len).collect();
            let usual = groups == 1 || matches!(lens.as_slice(), [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4]);
            (usual && is_card(self.run.digits_of(first, groups)?)).then_some(groups)
        })?;
        let stands = self.is_whole(first, groups, false) && !in_address(self.text, group.start);
        (stands && !Before::new(self.text, group.start).get().is_other()).then_some(groups)
    }

    /// Whether groups are a number of their own: no letter, digit or sign is glued to them, and slashes stand between
    /// them only where that is allowed.
    fn is_whole(&self, first: usize, groups: usize, slashes: bool) -> bool {
        let (Some(head), Some(tail)) = (self.run.group(first), self.run.group(first + groups - 1)) else {
            return false;
        };
        let glue = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '#' | '$' | '%' | '@' | '=');
        let inner = self.run.groups.get(first + 1..first + groups).unwrap_or_default();
        let between = slashes || inner.iter().all(|group| group.before & sep::SLASH == 0);
        let tight = |flags: u8| flags & (sep::SPACE | sep::BRACKET) == 0;
        let before = if first == 0 {
            !shown_before(self.text, head.start).is_some_and(glue)
        } else {
            !tight(head.before) || self.done == head.start
        };
        let after = match self.run.group(first + groups) {
            Some(next) => !tight(next.before),
            None => !shown_after(self.text, tail.end).is_some_and(glue),
        };
        between && before && after
    }

    /// The number of a company: how many groups it takes.
    fn labelled(&self, first: usize, before: &Before<'_>) -> Option<(Kind, usize)> {
        let labels = before.get();
        let rivals = [Label::Phone, Label::Cin, Label::Passport, Label::Plate, Label::Other];
        let (label, kind, lens, words) = LABELLED.iter().max_by_key(|(label, ..)| labels.nearness(*label))?;
        if !labels.is_nearest(*label, &rivals) || labels.words_between(*label) > *words {
            return None;
        }
        let groups = lens.clone().rev().find_map(|len| self.run.groups_of(first, len))?;
        let wide = self.run.groups.get(first + 1..first + groups)?.iter().any(|group| group.before & sep::WIDE != 0);
        // 317 000 000 behind "taxe professionnelle" is an amount; an ICE is long enough to be written in parts.
        let parts = groups == 1 || *kind == Kind::Ice;
        (!wide && parts && self.is_whole(first, groups, false)).then_some((*kind, groups))
    }

    /// The two capitals of a country with IBANs that end before a byte, spaces in between allowed.
    fn country_before(&self, at: usize) -> Option<(usize, [u8; 2])> {
        let head = self.text.get(..at)?;
        let trimmed = head.trim_end_matches(|c| is_hidden(c) || is_space(c));
        if head.len() - trimmed.len() > 8 {
            return None;
        }
        let start = trimmed.len().checked_sub(2)?;
        let letters = trimmed.as_bytes().get(start..)?;
        let &[a, b] = letters.first_chunk::<2>()?;
        let glued = shown_before(self.text, start).is_some_and(|c| c.is_ascii_alphanumeric());
        let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
        (!glued && iban_length(country).is_some()).then_some((start, country))
    }

    /// An IBAN whose check digits begin at `at`: letters, digits and what may separate them up to the country's length.
    fn iban(&mut self, at: usize) -> Option<usize> {
        let (start, country) = self.country_before(at)?;
        let length = iban_length(country)?;
        let mut iban = Vec::with_capacity(length);
        let (mut place, mut end, mut gap) = (start, start, 0);
        while iban.len() < length {
            let c = char_at(self.text, place)?;
            place += c.len_utf8();
            match digit_value(c) {
                Some(digit) => iban.push(b'0' + digit),
                None if c.is_ascii_alphabetic() => iban.push(c.to_ascii_uppercase() as u8),
                None if is_hidden(c) => continue,
                None if is_space(c) || is_dash(c) || c == '.' => {
                    gap += 1;
                    if gap > 2 {
                        return None;
                    }
                    continue;
                }
                None => return None,
            }
            (gap, end) = (0, place);
        }
        let glued = shown_after(self.text, end).is_some_and(|c| c.is_ascii_alphanumeric() || digit_value(c).is_some());
        if glued || !is_iban(&iban) {
            return None;
        }
        self.push(Kind::Iban, start, end)
    }
}
