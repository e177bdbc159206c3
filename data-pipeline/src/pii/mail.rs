//! Owns e-mail addresses and the names of users, plain and written to escape robots; never touches the network.

use super::kind::Kind;
use super::run::is_hidden;
use super::scan::{Scan, char_at, shown_after, shown_before, token_after, token_before};

/// Longest local part of an address (RFC 5321 §4.5.3.1).
const MAX_LOCAL: usize = 64;
/// Longest name of a user.
const MAX_HANDLE: usize = 40;

/// `@word` of programming languages, style sheets and documentation, which are no users.
const NOT_USERS: [&str; 44] = [
    "param",
    "return",
    "returns",
    "throws",
    "exception",
    "override",
    "deprecated",
    "see",
    "since",
    "author",
    "version",
    "link",
    "code",
    "inheritdoc",
    "media",
    "import",
    "charset",
    "keyframes",
    "namespace",
    "supports",
    "page",
    "include",
    "mixin",
    "extend",
    "test",
    "before",
    "after",
    "beforeeach",
    "aftereach",
    "autowired",
    "component",
    "service",
    "entity",
    "table",
    "column",
    "id",
    "property",
    "staticmethod",
    "classmethod",
    "interface",
    "nullable",
    "nonnull",
    "suppresswarnings",
    "todo",
];

fn is_local(b: u8) -> bool {
    // Letters beyond ASCII are judged by the caller.
    b.is_ascii_alphanumeric() || b"._%+-".contains(&b)
}

impl Scan<'_> {
    /// What an `@` stands in: an address or a user's name.
    pub fn at_sign(&mut self, at: usize) -> Option<usize> {
        if let Some((start, end)) = address(self.text, at, at + 1) {
            return self.push(Kind::Email, start, end);
        }
        if self.obfuscated_email
            && let Some((start, end)) = spaced_address(self.text, at)
        {
            return self.push(Kind::Email, start, end);
        }
        let end = handle(self.text, at)?;
        self.push(Kind::Handle, at, end)
    }

    /// `name [at] example [dot] com`: what an opening bracket can begin.
    pub fn bracket(&mut self, at: usize) -> Option<usize> {
        if !self.obfuscated_email {
            return None;
        }
        let (word, after) = bracketed(self.text, at)?;
        if !["at", "@", "arobase", "arobas", "a", "et", "آت", "ات"].contains(&word.as_str()) {
            return None;
        }
        let head = self.text.get(..at)?.trim_end_matches([' ', '\u{a0}']);
        let local = local_before(self.text, head.len());
        if local.is_empty() || at - head.len() > 2 {
            return None;
        }
        let start = head.len() - local.len();
        let end = spelled_domain(self.text, after)?;
        self.push(Kind::Email, start, end)
    }
}

/// The word inside brackets that open at `at`, in lower case, and the byte behind them.
fn bracketed(text: &str, at: usize) -> Option<(String, usize)> {
    let open = char_at(text, at)?;
    let close = match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    };
    let inner: String = text.get(at + 1..)?.chars().take(10).take_while(|c| *c != close).collect();
    let end = at + 1 + inner.len();
    (char_at(text, end) == Some(close)).then(|| (inner.trim().to_lowercase(), end + 1))
}

/// The local part that ends right before a byte, without dots at its start.
fn local_before(text: &str, at: usize) -> &str {
    let token = token_before(text, at, is_local);
    let token = token.trim_start_matches(['.', '-', '%', '+']);
    let usable = !token.is_empty() && token.len() <= MAX_LOCAL && !token.ends_with('.');
    if usable { token } else { "" }
}

/// An address around an `@` whose domain begins at `domain`.
fn address(text: &str, at: usize, domain: usize) -> Option<(usize, usize)> {
    let head = text.get(..at)?.trim_end_matches(is_hidden);
    let local = local_before(text, head.len());
    let mut start = head.len() - local.len();
    // Accented letters belong to the name; Arabic ones are the word before.
    while let Some(c) = text.get(..start).and_then(|head| head.chars().next_back()) {
        let part = ('\u{c0}'..'\u{250}').contains(&c) || (start < head.len() && c.is_ascii() && is_local(c as u8));
        if !part || head.len() - start > MAX_LOCAL {
            break;
        }
        start -= c.len_utf8();
    }
    let name = text.get(start..head.len())?.trim_start_matches(['.', '-', '%', '+']);
    if name.is_empty() || name.len() > MAX_LOCAL {
        return None;
    }
    let skipped = text.get(domain..)?.chars().take_while(|c| is_hidden(*c)).map(char::len_utf8).sum::<usize>();
    let end = domain_end(text, domain + skipped)?;
    Some((head.len() - name.len(), end))
}

/// Where a domain name with at least two labels and a top level of letters ends.
fn domain_end(text: &str, start: usize) -> Option<usize> {
    let token = token_after(text, start, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let mut token = token.trim_end_matches(['.', '-']);
    loop {
        let (rest, top) = token.rsplit_once('.')?;
        let letters = top.len() >= 2 && top.len() <= 24 && top.bytes().all(|b| b.is_ascii_alphabetic());
        let international = top.starts_with("xn--");
        let labels = rest.split('.').all(|label| !label.is_empty() && label.len() <= 63 && !label.starts_with('-'));
        if (letters || international) && labels && !rest.is_empty() {
            return Some(start + token.len());
        }
        // "name@example.com.2" and "name@example.com...": the longest part that is a name.
        token = rest.trim_end_matches(['.', '-']);
    }
}

/// `name @ example.com`, with spaces that do not belong there.
fn spaced_address(text: &str, at: usize) -> Option<(usize, usize)> {
    let head = text.get(..at)?;
    let trimmed = head.strip_suffix(' ').or_else(|| head.strip_suffix('\u{a0}')).unwrap_or(head);
    let rest = text.get(at + 1..)?;
    let behind = rest.len() - rest.strip_prefix(' ').or_else(|| rest.strip_prefix('\u{a0}')).unwrap_or(rest).len();
    if trimmed.len() == head.len() && behind == 0 {
        return None;
    }
    let local = local_before(text, trimmed.len());
    // "rendez-vous @ cafe.ma" reads the same, so only the large providers count.
    let end = domain_end(text, at + 1 + behind)?;
    let domain = text.get(at + 1 + behind..end)?.to_ascii_lowercase();
    let provider = ["gmail.", "hotmail.", "yahoo.", "outlook.", "live.", "menara.", "iam.", "icloud.", "protonmail."];
    let known = provider.iter().any(|name| domain.starts_with(name));
    (known && !local.is_empty()).then_some((trimmed.len() - local.len(), end))
}

/// Where `example [dot] com` or `example.com` ends, spaces before it allowed.
fn spelled_domain(text: &str, at: usize) -> Option<usize> {
    let skip = |at: usize| at + token_after(text, at, |b| b == b' ').len().min(2);
    let mut place = skip(at);
    let mut labels = 0;
    loop {
        let label = token_after(text, place, |b| b.is_ascii_alphanumeric() || b == b'-');
        if label.is_empty() {
            return None;
        }
        let end = place + label.len();
        labels += 1;
        let last = labels > 1 && label.len() >= 2 && label.bytes().all(|b| b.is_ascii_alphabetic());
        let next = skip(end);
        let dot = match char_at(text, end) {
            Some('.') if char_at(text, end + 1).is_some_and(|c| c.is_ascii_alphanumeric()) => Some(end + 1),
            _ => match char_at(text, next) {
                Some('[' | '(' | '{') => bracketed(text, next)
                    .filter(|(word, _)| ["dot", ".", "point", "نقطة"].contains(&word.as_str()))
                    .map(|(_, after)| skip(after)),
                _ => ["dot ", "point ", "DOT "]
                    .iter()
                    .find(|word| next > end && text.get(next..).is_some_and(|rest| rest.starts_with(**word)))
                    .map(|word| next + word.len()),
            },
        };
        match dot {
            Some(after) if labels < 6 => place = after,
            _ => return last.then_some(end),
        }
    }
}

/// Where the user's name behind an `@` ends.
fn handle(text: &str, at: usize) -> Option<usize> {
    let before = shown_before(text, at);
    let glued = before.is_some_and(|c| {
        (c.is_alphanumeric() && c < '\u{250}')
            || matches!(c, '@' | '%' | '_' | '/' | '\\' | '$' | '.' | '-' | '+' | '=')
    });
    if glued {
        return None;
    }
    let name: String = text.get(at + 1..)?.chars().take(MAX_HANDLE + 1).take_while(|c| is_name(*c)).collect();
    let name = name.trim_end_matches(['.', '_', '-', '\u{200c}']);
    let letters = name.chars().filter(|c| c.is_alphabetic()).count();
    let end = at + 1 + name.len();
    let next = char_at(text, end);
    let called = matches!(next, Some('(' | '/' | '{' | '}' | ':' | '=' | '\\' | '<'))
        && !matches!((next, char_at(text, end + 1)), (Some(':'), None | Some(' ' | '\n' | '\u{a0}')) | (Some('<'), _));
    let word = NOT_USERS.contains(&name.to_ascii_lowercase().as_str());
    let long = name.chars().count() > MAX_HANDLE;
    (letters > 0 && name.chars().count() >= 2 && !called && !word && !long && shown_after(text, at + 1).is_some())
        .then_some(end)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-') || matches!(c, '\u{64b}'..='\u{652}')
}
