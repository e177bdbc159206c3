//! Owns how the output of many processes becomes whole lines with a prefix; never touches the terminal.

use std::io::Read;
use std::sync::Arc;

/// Longest line that is shown in one piece, bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Where a process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Receives one whole line, prefixed, without its end; called from several threads, so it must write it in one go.
pub type LineSink = Arc<dyn Fn(Stream, &str) + Send + Sync>;

/// Cuts a stream of bytes into lines.
struct Cutter {
    prefix: String,
    line: Vec<u8>,
    /// The last piece ended in the middle of a line.
    continued: bool,
    /// The last byte was a carriage return: a newline right after it ends nothing more.
    after_return: bool,
}

impl Cutter {
    fn new(prefix: String) -> Self {
        Self { prefix, line: Vec::new(), continued: false, after_return: false }
    }

    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            if self.after_return && piece == b"\n" {
                self.after_return = false;
                continue;
            }
            let (text, end) = match piece {
                [text @ .., end @ (b'\n' | b'\r')] => (text, Some(*end)),
                text => (text, None),
            };
            self.after_return = end == Some(b'\r');
            self.extend(text, emit);
            if end.is_some() {
                self.finish(emit);
            }
        }
    }

    fn extend(&mut self, mut text: &[u8], emit: &mut dyn FnMut(&str)) {
        while self.line.len() + text.len() > MAX_LINE_BYTES {
            let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
            let (now, later) = text.split_at(room.min(text.len()));
            self.line.extend_from_slice(now);
            text = later;
            // A letter that was cut in two belongs to the next piece.
            let keep = match std::str::from_utf8(&self.line) {
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                _ => self.line.len(),
            };
            let rest = self.line.split_off(keep);
            self.emit(emit);
            self.continued = true;
            self.line = rest;
        }
        self.line.extend_from_slice(text);
    }

    /// Ends the line.
    fn finish(&mut self, emit: &mut dyn FnMut(&str)) {
        self.emit(emit);
        self.continued = false;
    }

    fn emit(&mut self, emit: &mut dyn FnMut(&str)) {
        let more = if self.continued { "... " } else { "" };
        emit(&format!("{}{more}{}", self.prefix, String::from_utf8_lossy(&self.line)));
        self.line.clear();
    }
}

/// Copies lines until the stream ends.
pub(super) fn copy_lines(mut from: impl Read, rank: usize, stream: Stream, sink: &LineSink) {
    let mut cutter = Cutter::new(format!("[{rank}] "));
    let mut emit = |line: &str| sink(stream, line);
    let mut buffer = [0_u8; 8 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => cutter.push(buffer.get(..count).unwrap_or_default(), &mut emit),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // A pipe that cannot be read any more has nothing left to show.
            Err(_) => break,
        }
    }
    if !cutter.line.is_empty() {
        cutter.finish(&mut emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let mut cutter = Cutter::new("[3] ".into());
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.push(piece, &mut |line| lines.push(line.to_owned()));
        }
        if !cutter.line.is_empty() {
            cutter.finish(&mut |line| lines.push(line.to_owned()));
        }
        lines
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        assert_eq!(cut(&[b"one\ntw", b"o\n", b"\nend"]), ["[3] one", "[3] two", "[3] ", "[3] end"]);
        assert_eq!(cut(&[b"a\r\nb\r", b"\nc\rd\n"]), ["[3] a", "[3] b", "[3] c", "[3] d"]);
        assert!(cut(&[b""]).is_empty());
    }

    #[test]
    fn what_is_not_utf8_is_shown_as_far_as_it_can_be() {
        assert_eq!(cut(&[b"a\xff\xfeb\n"]), ["[3] a\u{fffd}\u{fffd}b"]);
        assert_eq!(cut(&["س\n".as_bytes().split_at(1).0, "س\n".as_bytes().split_at(1).1]), ["[3] س"]);
    }

    #[test]
    fn long_lines_come_in_pieces_that_keep_letters_whole() {
        let long = format!("x{}", "س".repeat(MAX_LINE_BYTES));
        let lines = cut(&[long.as_bytes(), b"\nnext\n"]);
        assert_eq!(lines.len(), 4, "two and a bit pieces, then the next line");
        assert!(lines.iter().all(|l| l.len() <= MAX_LINE_BYTES + 8 && !l.contains('\u{fffd}')));
        assert!(lines[1].starts_with("[3] ... س") && lines[3] == "[3] next");
        let together: String =
            lines[..3].iter().map(|l| l.trim_start_matches("[3] ").trim_start_matches("... ")).collect();
        assert_eq!(together, long);
        assert_eq!(cut(&[&vec![0xff; MAX_LINE_BYTES + 1], b"\n"]).len(), 2);
    }

    proptest! {
        #[test]
        fn the_cut_does_not_depend_on_the_pieces(bytes in prop::collection::vec(prop::sample::select(b"a\n\r\xd8\xb3".to_vec()), 0..60), at in 0_usize..60) {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(cut(&[head, tail]), cut(&[&bytes]));
        }
    }
}
