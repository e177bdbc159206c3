//! Owns the one pass over a text that stops where personal data can begin; never decides what stands there.

use std::cell::OnceCell;

use super::Finding;
use super::context::Context;
use super::kind::Kind;
use super::run::{Run, is_hidden};

/// Bytes at which the pass stops: ASCII digits, `@`, `:`, `/`, opening brackets, and the first bytes of Arabic-Indic,
/// Persian and full-width digits.
const STOPS: [bool; 256] = stops();

const fn stops() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = b'0';
    while byte <= b'9' {
        table[byte as usize] = true;
        byte += 1;
    }
    let others = *b"@:/([{\xd9\xdb\xef";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Most bytes that a word without spaces is followed back or forth.
pub(super) const MAX_TOKEN: usize = 256;

/// The pass over one text.
pub(super) struct Scan<'a> {
    pub text: &'a str,
    pub obfuscated_email: bool,
    pub run: Run,
    found: Vec<Finding>,
    /// Where the last finding ends.
    pub done: usize,
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a str, obfuscated_email: bool) -> Scan<'a> {
        Scan { text, obfuscated_email, run: Run::default(), found: Vec::new(), done: 0 }
    }

    /// Everything found, in order.
    pub fn run(mut self) -> Vec<Finding> {
        let mut at = 0;
        while let Some(stop) = self.next_stop(at) {
            let end = match self.text.as_bytes().get(stop) {
                Some(b'@') => self.at_sign(stop),
                Some(b':') => self.colon(stop),
                Some(b'/') => self.slash(stop),
                Some(b'(' | b'[' | b'{') => self.bracket(stop),
                _ => self.number(stop),
            };
            at = end.unwrap_or(0).max(stop + 1);
        }
        self.found
    }

    /// The next byte at which something may begin; for digits of more than one byte the first of them.
    fn next_stop(&self, mut at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        loop {
            let rest = bytes.get(at..)?;
            let (skipped, byte) = rest.iter().enumerate().find(|(_, byte)| STOPS[usize::from(**byte)])?;
            at += skipped;
            let follows = |ahead: usize| bytes.get(at + ahead).copied().unwrap_or(0);
            let stands = match byte {
                0xd9 => (0xa0..=0xa9).contains(&follows(1)),
                0xdb => (0xb0..=0xb9).contains(&follows(1)),
                0xef => follows(1) == 0xbc && (0x90..=0x99).contains(&follows(2)),
                _ => true,
            };
            if stands {
                return Some(at);
            }
            at += 1;
        }
    }

    /// Notes a finding, and gives back where it ends; nothing when it reaches into the one before.
    pub fn push(&mut self, kind: Kind, start: usize, end: usize) -> Option<usize> {
        if start < self.done || end <= start {
            return None;
        }
        self.found.push(Finding { kind, range: start..end });
        self.done = end;
        Some(end)
    }
}

/// The labels before a place, looked for at most once.
pub(super) struct Before<'a> {
    text: &'a str,
    at: usize,
    context: OnceCell<Context>,
}

impl<'a> Before<'a> {
    pub fn new(text: &'a str, at: usize) -> Before<'a> {
        Before { text, at, context: OnceCell::new() }
    }

    pub fn get(&self) -> &Context {
        self.context.get_or_init(|| Context::before(self.text, self.at))
    }
}

/// The character that begins at a byte.
pub(super) fn char_at(text: &str, at: usize) -> Option<char> {
    match text.as_bytes().get(at) {
        Some(&byte) if byte.is_ascii() => Some(char::from(byte)),
        _ => text.get(at..)?.chars().next(),
    }
}

/// The nearest character before a byte that shows.
pub(super) fn shown_before(text: &str, at: usize) -> Option<char> {
    text.get(..at)?.chars().rev().find(|c| !is_hidden(*c))
}

/// The nearest character from a byte on that shows.
pub(super) fn shown_after(text: &str, at: usize) -> Option<char> {
    text.get(at..)?.chars().find(|c| !is_hidden(*c))
}

/// The ASCII letters that end right before a byte.
pub(super) fn letters_before(text: &str, at: usize) -> &str {
    token_before(text, at, |b| b.is_ascii_alphabetic())
}

/// The longest run of bytes of a kind that ends right before `at`, at most [`MAX_TOKEN`].
pub(super) fn token_before(text: &str, at: usize, of: impl Fn(u8) -> bool) -> &str {
    let len =
        text.as_bytes().get(..at).unwrap_or_default().iter().rev().take(MAX_TOKEN).take_while(|b| of(**b)).count();
    text.get(at - len..at).unwrap_or_default()
}

/// The longest run of bytes of a kind that begins at `at`, at most [`MAX_TOKEN`].
pub(super) fn token_after(text: &str, at: usize, of: impl Fn(u8) -> bool) -> &str {
    let len = text.as_bytes().get(at..).unwrap_or_default().iter().take(MAX_TOKEN).take_while(|b| of(**b)).count();
    text.get(at..at + len).unwrap_or_default()
}

/// Whether a byte lies in a web address, by what stands before it up to the last white space.
pub(super) fn in_address(text: &str, at: usize) -> bool {
    let token = token_before(text, at, |b| b > b' ' && b != b'"' && b != b'<' && b.is_ascii());
    token.contains("://") || token.contains("www.") || token.contains("href=")
}
