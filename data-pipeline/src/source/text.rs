//! Owns plain text: cutting it into lines, paragraphs or one whole file; never joins or trims what is inside a unit.

use super::jsonl::CHUNK_BYTES;
use super::row::{Place, Reason, Reject, RowChunk, Slot, excerpt};
use super::window::Window;
use crate::config::Unit;

/// Cuts a stream of text into units.
pub(crate) struct UnitCutter {
    window: Window,
    unit: Unit,
    max_record: usize,
    rows: u64,
}

impl UnitCutter {
    pub fn new(window: Window, unit: Unit, max_record: usize) -> UnitCutter {
        UnitCutter { window, unit, max_record, rows: 0 }
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next units, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<RowChunk> {
        let mut chunk = RowChunk::default();
        let start = self.window.offset();
        while (self.window.offset() - start) < CHUNK_BYTES as u64 && self.next_unit(&mut chunk) {}
        (!chunk.is_empty()).then_some(chunk)
    }

    fn next_unit(&mut self, chunk: &mut RowChunk) -> bool {
        if self.unit != Unit::File {
            self.skip_blank_lines();
        }
        if self.window.data().is_empty() && !self.window.fill() && self.window.data().is_empty() {
            return false;
        }
        let place = Place { row: self.rows + 1, byte: Some(self.window.offset()) };
        self.rows += 1;
        let Some((length, whole)) = self.find_end() else {
            let reject = Reject { place, reason: Reason::RecordTooLarge, excerpt: excerpt(self.window.data()) };
            chunk.rejects.push(reject);
            self.skip_unit();
            return true;
        };
        let unit = self.window.data().get(..length).unwrap_or_default();
        if self.window.cut() && !whole {
            chunk.rejects.push(Reject { place, reason: Reason::Damaged, excerpt: excerpt(unit) });
        } else {
            chunk.open_row(place);
            chunk.value(Slot::Text, if self.unit == Unit::File { unit } else { without_line_ends(unit) });
        }
        self.window.consume(length);
        true
    }

    /// Bytes up to the end of the unit that begins here and whether that end was seen (and not only the stream's), `None`
    /// when it passes the largest record size.
    fn find_end(&mut self) -> Option<(usize, bool)> {
        let mut searched = 0;
        loop {
            let data = self.window.data();
            if let Some(end) = unit_end(data, searched, self.unit) {
                return (end <= self.max_record).then_some((end, true));
            }
            if data.len() > self.max_record {
                return None;
            }
            if self.window.ended() {
                return Some((data.len(), false));
            }
            // A blank line may straddle the bytes at hand and those to come.
            searched = memchr::memrchr(b'\n', data).unwrap_or(0);
            self.window.fill();
        }
    }

    fn skip_unit(&mut self) {
        loop {
            if let Some(end) = unit_end(self.window.data(), 0, self.unit) {
                self.window.consume(end);
                return;
            }
            let keep = self.window.data().len() - memchr::memrchr(b'\n', self.window.data()).unwrap_or(0);
            let keep = if keep > CHUNK_BYTES { 0 } else { keep };
            self.window.consume(self.window.data().len() - keep);
            if !self.window.fill() {
                self.window.consume(self.window.data().len());
                return;
            }
        }
    }

    fn skip_blank_lines(&mut self) {
        loop {
            let data = self.window.data();
            let Some(end) = memchr::memchr(b'\n', data) else {
                if self.window.ended() {
                    if is_blank(data) {
                        self.window.consume(data.len());
                    }
                    return;
                }
                if data.len() > CHUNK_BYTES {
                    return;
                }
                self.window.fill();
                continue;
            };
            if !data.get(..end).is_some_and(is_blank) {
                return;
            }
            self.window.consume(end + 1);
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn without_line_ends(unit: &[u8]) -> &[u8] {
    let end = unit.iter().rposition(|&b| b != b'\n' && b != b'\r').map_or(0, |last| last + 1);
    unit.get(..end).unwrap_or_default()
}

/// End of the unit that `data` begins with, searched from `from`, line ends included.
fn unit_end(data: &[u8], from: usize, unit: Unit) -> Option<usize> {
    match unit {
        Unit::File => None,
        Unit::Line => memchr::memchr(b'\n', data.get(from..)?).map(|end| from + end + 1),
        Unit::Paragraph => {
            let mut line_start = match data.get(from) {
                Some(b'\n') => from + 1,
                _ => from,
            };
            let mut first = line_start == 0;
            loop {
                let end = line_start + memchr::memchr(b'\n', data.get(line_start..)?)?;
                if !first && data.get(line_start..end).is_some_and(is_blank) {
                    return Some(end + 1);
                }
                first = false;
                line_start = end + 1;
            }
        }
    }
}
