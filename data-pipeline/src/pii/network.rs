//! Owns IPv4 and IPv6 addresses, told from version numbers, sections and times; never opens a connection.

use std::net::Ipv6Addr;

use super::context::Label;
use super::kind::Kind;
use super::run::{Run, sep};
use super::scan::{Before, Scan, char_at, shown_before, token_after, token_before};

/// From this number on a part of a dotted number is taken for one of an address without any label.
const TELLING_PART: u32 = 64;

/// Four numbers with dots at the group `at`.
pub(super) fn ipv4(text: &str, run: &Run, at: usize) -> Option<(Kind, usize, usize)> {
    let groups = run.groups.get(at..at + 4)?;
    let (head, tail) = (groups.first()?, groups.last()?);
    let dotted =
        groups.iter().skip(1).all(|group| group.before == sep::DOT) && groups.iter().all(|group| group.len <= 3);
    let more = run.group(at + 4).is_some_and(|next| next.before & sep::SPACE == 0 && next.before & sep::SLASH == 0);
    if !dotted || more || (at > 0 && head.before & sep::SPACE == 0) {
        return None;
    }
    let before = shown_before(text, head.start).filter(|_| at == 0);
    if before.is_some_and(|c| (c.is_alphanumeric() && c < '\u{250}') || matches!(c, '.' | '_' | ',' | '-')) {
        return None;
    }
    let after = char_at(text, tail.end);
    if after.is_some_and(|c| (c.is_alphanumeric() && c < '\u{250}') || c == '_' || c == '%')
        || (after == Some('.') && char_at(text, tail.end + 1).is_some_and(char::is_alphanumeric))
    {
        return None;
    }
    let mut parts = [0u32; 4];
    for (part, group) in parts.iter_mut().zip(groups) {
        let digits = run.digits.get(group.from..group.from + group.len)?;
        if digits.len() > 1 && digits.first() == Some(&0) {
            return None;
        }
        *part = digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(*digit));
    }
    let [first, second, ..] = parts;
    let nobody =
        first == 0 || first == 127 || (first == 255 && second == 255) || parts == [8, 8, 8, 8] || parts == [1; 4];
    if parts.iter().any(|part| *part > 255) || nobody {
        return None;
    }
    let labels = Before::new(text, head.start);
    let labels = labels.get();
    let version = labels.words_between(Label::Version) <= 2 && !labels.has(Label::Ip)
        || labels.words_between(Label::Other) <= 2 && !labels.has(Label::Ip);
    let port = after == Some(':') && char_at(text, tail.end + 1).is_some_and(|c| c.is_ascii_digit());
    let net = after == Some('/') && char_at(text, tail.end + 1).is_some_and(|c| c.is_ascii_digit());
    let link = text.get(..head.start)?.ends_with("//") || text.get(..head.start)?.ends_with('@');
    let telling = parts.iter().any(|part| *part >= TELLING_PART) || port || net || link;
    (!version && (telling || labels.has(Label::Ip))).then_some((Kind::Ip, head.start, tail.end))
}

impl Scan<'_> {
    /// What a colon stands in: an address with a scheme, or an IPv6 address.
    pub fn colon(&mut self, at: usize) -> Option<usize> {
        if self.text.as_bytes().get(at + 1..at + 3) == Some(b"//") {
            return self.authority(at);
        }
        let next = self.text.as_bytes().get(at + 1)?;
        if !next.is_ascii_hexdigit() && *next != b':' {
            return None;
        }
        let part = |b: u8| b.is_ascii_hexdigit() || b == b':';
        let head = token_before(self.text, at, part);
        let tail = token_after(self.text, at, |b| part(b) || b == b'.');
        let token_end = at + tail.trim_end_matches('.').len();
        let start = at - head.len();
        let token = self.text.get(start..token_end)?;
        let colons = token.bytes().filter(|b| *b == b':').count();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let glued = shown_before(self.text, start).is_some_and(|c| word(c) && c < '\u{250}')
            || char_at(self.text, token_end).is_some_and(|c| word(c) && c < '\u{250}');
        // Long tokens of colons cannot be an address; the pass goes on behind them.
        if !(2..=7).contains(&colons) || glued || token.len() > 45 {
            return (colons > 7 || token.len() > 45).then_some(token_end);
        }
        let token = token.strip_suffix(':').filter(|token| !token.ends_with(':')).unwrap_or(token);
        let address: Ipv6Addr = token.parse().ok()?;
        let groups = token.split(':').filter(|group| !group.is_empty());
        let long = groups.clone().filter(|group| group.len() >= 3).count();
        let digit = token.bytes().any(|b| b.is_ascii_digit());
        let local = address.is_loopback() || address.is_unspecified();
        (digit && !local && (long >= 1 && groups.count() >= 2))
            .then(|| self.push(Kind::Ip, start, start + token.len()))
            .flatten()
    }
}
