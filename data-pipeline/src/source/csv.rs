//! Owns CSV and TSV: cutting records by RFC 4180 quoting and recovering after a broken one; never guesses at columns.

use super::error::SourceError;
use super::jsonl::{CHUNK_BYTES, skip_line};
use super::row::{Place, Reason, Reject, RowChunk, Slot, Wanted, excerpt};
use super::window::Window;

/// Most columns of a file.
const MAX_COLUMNS: usize = 4096;

/// Cuts a stream of delimited values into rows.
pub(crate) struct RecordCutter {
    window: Window,
    delimiter: u8,
    max_record: usize,
    /// Number of columns of the header.
    columns: usize,
    /// Slot and column, in the order of preference.
    mapping: Vec<(Slot, usize)>,
    /// Names of all columns.
    names: Vec<String>,
    /// A row is handed out as a JSON object of all its columns, in the place of its text.
    whole: bool,
    rows: u64,
    record: Record,
    parser: csv_core::Reader,
}

/// The fields of one record, end to end.
#[derive(Default)]
struct Record {
    values: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
}

impl Record {
    fn field(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(i).copied().unwrap_or(start);
        self.values.get(start..end).unwrap_or_default()
    }
}

/// What the bytes at hand begin with.
enum Cut {
    /// A record of so many bytes, its line end included.
    Record(usize),
    /// No record ends within the largest record size.
    Endless,
    /// Nothing but line ends.
    End,
}

impl RecordCutter {
    /// Reads the header. Rows hold the `wanted` columns or, when `whole`, all as JSON.
    ///
    /// # Errors
    /// [`SourceError::MissingColumn`] when a column that the configuration names is absent.
    pub fn new(
        window: Window,
        delimiter: u8,
        max_record: usize,
        wanted: &[Wanted],
        whole: bool,
    ) -> Result<RecordCutter, SourceError> {
        let parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        let record = Record::default();
        let (mapping, names) = (Vec::new(), Vec::new());
        let (columns, rows) = (0, 0);
        let mut cutter =
            RecordCutter { window, delimiter, max_record, columns, mapping, names, whole, rows, record, parser };
        let header = match cutter.cut() {
            Cut::Record(length) => length,
            Cut::Endless => 0,
            Cut::End => return Ok(cutter),
        };
        cutter.columns = cutter.record.fields;
        let names: Vec<String> =
            (0..cutter.columns).map(|i| String::from_utf8_lossy(cutter.record.field(i)).trim().to_owned()).collect();
        for wanted in wanted {
            match names.iter().position(|name| *name == wanted.name) {
                Some(column) => cutter.mapping.push((wanted.slot, column)),
                None if wanted.required => {
                    return Err(SourceError::missing_column(cutter.window.stream().path(), wanted, &names));
                }
                None => {}
            }
        }
        cutter.window.consume(header);
        cutter.names = names;
        Ok(cutter)
    }

    /// The record as a JSON object of strings, `None` unless it is UTF-8.
    fn object(&self) -> Option<String> {
        let mut line = String::from("{");
        for (i, name) in self.names.iter().enumerate() {
            let value = std::str::from_utf8(self.record.field(i)).ok()?;
            line.push_str(if i > 0 { "," } else { "" });
            line.push_str(&serde_json::Value::from(name.as_str()).to_string());
            line.push(':');
            line.push_str(&serde_json::Value::from(value).to_string());
        }
        line.push('}');
        Some(line)
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next rows, or `None` at the end.
    pub fn next_chunk(&mut self) -> Option<RowChunk> {
        let mut chunk = RowChunk::default();
        let start = self.window.offset();
        while (self.window.offset() - start) < CHUNK_BYTES as u64 {
            match self.cut() {
                Cut::Record(length) => self.take(length, &mut chunk),
                Cut::Endless => self.reject_line(Reason::RecordTooLarge, &mut chunk),
                Cut::End => break,
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    fn take(&mut self, length: usize, chunk: &mut RowChunk) {
        let raw = self.window.data().get(..length).unwrap_or_default();
        let reason = if self.window.cut() && length == self.window.data().len() && !raw.ends_with(b"\n") {
            Some(Reason::Damaged)
        } else if !quotes_close(raw, self.delimiter) {
            Some(Reason::BadQuoting)
        } else if self.record.fields != self.columns {
            Some(Reason::ColumnCount)
        } else if length > self.max_record {
            Some(Reason::RecordTooLarge)
        } else {
            None
        };
        match reason {
            None => {
                let object = if self.whole { self.object() } else { None };
                if self.whole && object.is_none() {
                    return self.reject(length, Reason::InvalidUtf8, chunk);
                }
                self.rows += 1;
                chunk.open_row(Place { row: self.rows, byte: Some(self.window.offset()) });
                if let Some(object) = object {
                    chunk.value(Slot::Text, object.as_bytes());
                }
                for &(slot, column) in &self.mapping {
                    let value = self.record.field(column);
                    // An empty cell is a value that is not there, except for the text, which is then empty.
                    if !value.is_empty() || slot == Slot::Text {
                        chunk.value(slot, value);
                    }
                }
                self.window.consume(length);
            }
            Some(Reason::Damaged) => self.reject(length, Reason::Damaged, chunk),
            // A quote that does not close swallows the records after it: give up its first line only.
            Some(reason) => self.reject_line(reason, chunk),
        }
    }

    fn reject_line(&mut self, reason: Reason, chunk: &mut RowChunk) {
        match memchr::memchr(b'\n', self.window.data()) {
            Some(end) => self.reject(end + 1, reason, chunk),
            None => {
                self.reject(0, reason, chunk);
                skip_line(&mut self.window);
            }
        }
    }

    fn reject(&mut self, length: usize, reason: Reason, chunk: &mut RowChunk) {
        self.rows += 1;
        let place = Place { row: self.rows, byte: Some(self.window.offset()) };
        chunk.rejects.push(Reject { place, reason, excerpt: excerpt(self.window.data()) });
        self.window.consume(length);
    }

    fn skip_line_ends(&mut self) {
        loop {
            let blank = self.window.data().iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
            self.window.consume(blank);
            if !self.window.data().is_empty() || !self.window.fill() {
                return;
            }
        }
    }

    /// Finds the record that the bytes at hand begin with and cuts it into `self.record`.
    fn cut(&mut self) -> Cut {
        self.skip_line_ends();
        // A record may be cut again from its second line, so the parser starts afresh at each.
        self.parser.reset();
        self.record.values.resize(self.record.values.capacity().max(4096), 0);
        self.record.ends.resize(self.columns.max(16), 0);
        let (mut taken, mut values, mut fields) = (0, 0, 0);
        loop {
            let input = self.window.data().get(taken..).unwrap_or_default();
            if input.is_empty() && !self.window.ended() {
                if taken > self.max_record {
                    return Cut::Endless;
                }
                self.window.fill();
                continue;
            }
            let (Some(out), Some(ends)) = (self.record.values.get_mut(values..), self.record.ends.get_mut(fields..))
            else {
                return Cut::End;
            };
            let (result, read, written, ended) = self.parser.read_record(input, out, ends);
            taken += read;
            values += written;
            fields += ended;
            match result {
                csv_core::ReadRecordResult::InputEmpty => {}
                csv_core::ReadRecordResult::OutputFull => self.record.values.resize(self.record.values.len() * 2, 0),
                csv_core::ReadRecordResult::OutputEndsFull if self.record.ends.len() >= MAX_COLUMNS => {
                    return Cut::Endless;
                }
                csv_core::ReadRecordResult::OutputEndsFull => self.record.ends.resize(self.record.ends.len() * 2, 0),
                csv_core::ReadRecordResult::Record => {
                    self.record.fields = fields;
                    return Cut::Record(taken);
                }
                csv_core::ReadRecordResult::End => return Cut::End,
            }
        }
    }
}

/// Whether every quoted field of a record ends in a quote that a delimiter or the record's end follows. The parser itself
/// is lenient, and would join a stray quote's lines without a word.
fn quotes_close(record: &[u8], delimiter: u8) -> bool {
    if memchr::memchr(b'"', record).is_none() {
        return true;
    }
    let is_end = |b: u8| b == delimiter || b == b'\n' || b == b'\r';
    let mut bytes = record.iter().copied().peekable();
    while bytes.peek().is_some() {
        if bytes.next_if_eq(&b'"').is_some() {
            loop {
                match bytes.next() {
                    None => return false,
                    Some(b'"') if bytes.next_if_eq(&b'"').is_some() => {}
                    Some(b'"') => break,
                    Some(_) => {}
                }
            }
            if bytes.peek().is_some_and(|&b| !is_end(b)) {
                return false;
            }
        } else {
            while bytes.next_if(|&b| !is_end(b)).is_some() {}
        }
        _ = bytes.next_if(|&b| is_end(b));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_checked_as_rfc_4180_asks() {
        for good in ["a,b\n", "\"a\",\"b\"\r\n", "\"a\"\"b\",c", "\"a\nb\",c\n", "a\"b,c\n", "\"\",\"\"\n", ",\n"] {
            assert!(quotes_close(good.as_bytes(), b','), "{good:?}");
        }
        for bad in ["\"a,b\n", "\"a\"b,c\n", "\"a\" ,b\n", "a,\"b\n\"c,d\n", "\"\"\"\n"] {
            assert!(!quotes_close(bad.as_bytes(), b','), "{bad:?}");
        }
    }
}
