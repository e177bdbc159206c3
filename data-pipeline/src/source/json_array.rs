//! Owns JSON files: cutting a list of objects, or objects one after another, into one line each while the file streams by;
//! never parses a value.
//!
//! A line is the element as it stands with its line ends blanked out, and the bytes between two elements pad the first of
//! them, so that every line knows its place in the file. A broken element costs itself and what follows up to the next
//! line that begins with an object.

use super::jsonl::{CHUNK_BYTES, skip_line};
use super::row::{Chunk, Place, Reason, Reject, excerpt};
use super::window::Window;

/// Longest space between two elements of one chunk, in bytes.
const MAX_GAP_BYTES: u64 = 4096;
/// How far a line's first character is looked for after a broken element, in bytes.
const MAX_INDENT_BYTES: usize = 4096;

/// Cuts a stream of JSON values into lines.
pub(crate) struct ElementCutter {
    window: Window,
    max_record: usize,
    rows: u64,
    /// Whether the values at hand are elements of a list.
    in_list: bool,
    /// Bytes before the current element on its line, as far as known.
    column: usize,
    ended: bool,
}

/// What is being collected.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    first: Option<Place>,
    /// Position after the last element taken.
    end: u64,
    rejects: Vec<Reject>,
}

impl ElementCutter {
    pub fn new(window: Window, max_record: usize) -> ElementCutter {
        ElementCutter { window, max_record, rows: 0, in_list: false, column: usize::MAX, ended: false }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next elements, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let mut out = Lines::default();
        while !self.ended && out.bytes.len() < CHUNK_BYTES && out.rejects.len() < CHUNK_BYTES / 64 {
            if !self.skip_separators() {
                self.ended = true;
                self.reject_open_list(&mut out);
                break;
            }
            let gap = self.window.offset() - out.end;
            if !out.bytes.is_empty() && (gap == 0 || gap > MAX_GAP_BYTES || !out.rejects.is_empty()) {
                break;
            }
            self.element(&mut out);
        }
        if out.bytes.is_empty() && out.rejects.is_empty() {
            return None;
        }
        let first = out.first.unwrap_or(Place { row: self.rows, byte: Some(self.window.offset()) });
        Some(Chunk::Lines { bytes: out.bytes, first, rejects: out.rejects })
    }

    /// Consumes white space, commas and the brackets of the list; false at the end of the file.
    fn skip_separators(&mut self) -> bool {
        loop {
            let Some(&byte) = self.window.data().first() else {
                if self.window.fill() || !self.window.data().is_empty() {
                    continue;
                }
                return false;
            };
            match byte {
                b'\n' => self.column = 0,
                b' ' | b'\t' | b'\r' | b',' => self.column = self.column.saturating_add(1),
                b'[' if !self.in_list => self.in_list = true,
                b']' if self.in_list => self.in_list = false,
                _ => return true,
            }
            self.window.consume(1);
        }
    }

    /// A list that the file's end leaves open is not silently a shorter one.
    fn reject_open_list(&mut self, out: &mut Lines) {
        if !self.in_list {
            return;
        }
        self.in_list = false;
        let reason = if self.window.cut() { Reason::Damaged } else { Reason::InvalidJson };
        self.rows += 1;
        let place = Place { row: self.rows, byte: Some(self.window.offset()) };
        out.rejects.push(Reject { place, reason, excerpt: "the list does not end".to_owned() });
    }

    /// Takes or rejects the element that the bytes at hand begin with.
    fn element(&mut self, out: &mut Lines) {
        self.rows += 1;
        let place = Place { row: self.rows, byte: Some(self.window.offset()) };
        let head = |window: &Window| excerpt(window.data());
        let mut scanner = Scanner::default();
        let (mut at, mut too_large) = (0, false);
        loop {
            match scanner.feed(self.window.data(), at) {
                Scan::End(end) if too_large => return self.window.consume(end),
                Scan::End(end) => {
                    out.take(place, self.window.data().get(..end).unwrap_or_default());
                    return self.window.consume(end);
                }
                Scan::Broken(position) => {
                    if !too_large {
                        let excerpt = head(&self.window);
                        out.rejects.push(Reject { place, reason: Reason::InvalidJson, excerpt });
                    }
                    return self.resync(position);
                }
                Scan::More => {
                    at = self.window.data().len();
                    if !too_large && at > self.max_record {
                        let excerpt = head(&self.window);
                        out.rejects.push(Reject { place, reason: Reason::RecordTooLarge, excerpt });
                        too_large = true;
                    }
                    if too_large {
                        self.window.consume(at);
                        at = 0;
                    }
                    if !self.window.fill() && self.window.data().len() == at {
                        return self.last(place, &scanner, too_large, out);
                    }
                }
            }
        }
    }

    /// The element that the file's end ends.
    fn last(&mut self, place: Place, scanner: &Scanner, too_large: bool, out: &mut Lines) {
        let data = self.window.data();
        if scanner.is_scalar() && !self.window.cut() && !too_large {
            out.take(place, data);
        } else if !too_large {
            let reason = if self.window.cut() { Reason::Damaged } else { Reason::InvalidJson };
            out.rejects.push(Reject { place, reason, excerpt: excerpt(data) });
            // This is what the open list comes from.
            self.in_list = false;
        }
        self.window.consume(self.window.data().len());
    }

    /// Goes on at the next line that begins with an object no further in than the broken one, from `position` on.
    fn resync(&mut self, position: usize) {
        let column = self.column;
        let line = self.window.data().get(..position).unwrap_or_default();
        let line = memchr::memrchr(b'\n', line).and_then(|end| line.get(end + 1..));
        let begins_line = line.is_some_and(|line| line.len() <= column && line.iter().all(|b| b" \t\r,".contains(b)));
        let at_object = self.window.data().get(position) == Some(&b'{');
        self.window.consume(position);
        if begins_line && at_object {
            return;
        }
        loop {
            skip_line(&mut self.window);
            self.window.fill_to(MAX_INDENT_BYTES);
            let data = self.window.data();
            let Some(indent) = data.iter().position(|b| !b" \t\r,".contains(b)) else {
                if data.is_empty() {
                    return;
                }
                continue;
            };
            if indent <= column && (data.get(indent) == Some(&b'{') || self.in_list && data.get(indent) == Some(&b']'))
            {
                self.column = 0;
                return;
            }
        }
    }
}

impl Lines {
    fn take(&mut self, place: Place, element: &[u8]) {
        let offset = place.byte.unwrap_or(0);
        if self.first.is_some() {
            let padding = usize::try_from(offset.saturating_sub(self.end + 1)).unwrap_or(0);
            self.bytes.resize(self.bytes.len() + padding, b' ');
            self.bytes.push(b'\n');
        }
        self.first.get_or_insert(place);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(element);
        let line = self.bytes.get_mut(start..).unwrap_or_default();
        let mut from = 0;
        while let Some(end) = line.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            if let Some(byte) = line.get_mut(from + end) {
                *byte = b' ';
            }
            from += end + 1;
        }
        self.end = offset + element.len() as u64;
    }
}

/// Finds the end of a value without parsing it.
#[derive(Default)]
struct Scanner {
    /// Open brackets; no deeper than the largest record is long.
    stack: Vec<u8>,
    /// The last byte that was not white space; 0 at the beginning.
    before: u8,
    in_string: bool,
    escaped: bool,
}

enum Scan {
    /// The value ends before this position.
    End(usize),
    /// The value cannot be JSON from this position on.
    Broken(usize),
    /// Everything was looked at.
    More,
}

impl Scanner {
    /// Whether what was scanned is a number or a word, which ends where the file ends.
    fn is_scalar(&self) -> bool {
        self.stack.is_empty() && !self.in_string && self.before == b'0'
    }

    fn feed(&mut self, data: &[u8], mut at: usize) -> Scan {
        while at < data.len() {
            if self.in_string {
                match self.string(data, at) {
                    Ok(next) => at = next,
                    Err(scan) => return scan,
                }
                if !self.in_string && self.stack.is_empty() {
                    return Scan::End(at);
                }
                continue;
            }
            let Some(&byte) = data.get(at) else { return Scan::More };
            let legal = match byte {
                b' ' | b'\t' | b'\r' | b'\n' if !self.stack.is_empty() => true,
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' if self.stack.is_empty() => {
                    // A stray closing bracket is an element of its own, else the scan would never move on.
                    return if self.before == 0 { Scan::End(at + 1) } else { Scan::End(at) };
                }
                b'"' => {
                    self.in_string = true;
                    let legal = matches!(self.before, 0 | b'{' | b'[' | b',' | b':');
                    self.before = byte;
                    legal
                }
                b'{' | b'[' => self.open(byte),
                b'}' | b']' => self.close(byte),
                b',' | b':' => {
                    self.before = byte;
                    true
                }
                _ => {
                    self.before = b'0';
                    true
                }
            };
            if !legal {
                return Scan::Broken(at);
            }
            at += 1;
            if matches!(byte, b'}' | b']') && self.stack.is_empty() {
                return Scan::End(at);
            }
        }
        Scan::More
    }

    fn open(&mut self, byte: u8) -> bool {
        let legal = match self.stack.last() {
            None => self.before == 0,
            Some(b'{') => self.before == b':',
            Some(_) => matches!(self.before, b'[' | b','),
        };
        self.stack.push(byte);
        self.before = byte;
        legal
    }

    fn close(&mut self, byte: u8) -> bool {
        self.before = byte;
        matches!((self.stack.pop(), byte), (Some(b'{'), b'}') | (Some(b'['), b']'))
    }

    /// Goes to the end of a string, or of the bytes at hand. A line end in a string is not JSON.
    fn string(&mut self, data: &[u8], mut at: usize) -> Result<usize, Scan> {
        if self.escaped {
            self.escaped = false;
            if data.get(at) == Some(&b'\n') {
                return Err(Scan::Broken(at));
            }
            at += 1;
        }
        let rest = data.get(at..).unwrap_or_default();
        let Some(found) = memchr::memchr3(b'"', b'\\', b'\n', rest) else { return Err(Scan::More) };
        match rest.get(found) {
            Some(b'\n') => Err(Scan::Broken(at + found)),
            Some(b'\\') => {
                self.escaped = true;
                Ok(at + found + 1)
            }
            _ => {
                self.in_string = false;
                Ok(at + found + 1)
            }
        }
    }
}

#[cfg(test)]
#[path = "json_array_tests.rs"]
mod tests;
