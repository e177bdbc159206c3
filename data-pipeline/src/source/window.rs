//! Owns the sliding buffer that the line and record readers cut from; never knows a format.

use super::encoding::Transcoder;
use super::error::SourceError;
use super::stream::{ByteStream, StoredDigest};

/// Bytes asked of the stream at a time.
const FILL_BYTES: usize = 256 * 1024;

/// The unconsumed part of a stream. A failure of the stream ends the data; it is handed out by [`Window::finish`], after
/// the reader has taken what came before.
pub(crate) struct Window {
    stream: ByteStream,
    buf: Vec<u8>,
    start: usize,
    /// Position of `buf[0]` in the decompressed stream, in its UTF-8 form when it is decoded.
    base: u64,
    ended: bool,
    failure: Option<SourceError>,
    /// Turns what is read into UTF-8.
    transcoder: Option<Transcoder>,
    /// What was read and not decoded yet.
    raw: Vec<u8>,
}

impl Window {
    pub fn new(stream: ByteStream) -> Window {
        Window {
            stream,
            buf: Vec::new(),
            start: 0,
            base: 0,
            ended: false,
            failure: None,
            transcoder: None,
            raw: Vec::new(),
        }
    }

    /// Decodes everything from here on, the bytes at hand included.
    pub fn transcode(&mut self, mut transcoder: Transcoder) {
        let mut decoded = Vec::new();
        transcoder.decode(self.data(), self.ended, &mut decoded);
        self.base = self.offset();
        (self.buf, self.start) = (decoded, 0);
        self.transcoder = Some(transcoder);
    }

    /// The encoding that is decoded, if any.
    pub fn transcoder(&self) -> Option<&Transcoder> {
        self.transcoder.as_ref()
    }

    pub fn stream(&self) -> &ByteStream {
        &self.stream
    }

    /// Bytes at hand.
    pub fn data(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }

    /// Position of the first byte at hand in the decompressed stream.
    pub fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Whether the stream has no more bytes than those at hand.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the stream ended because of a failure, so that its last record is cut.
    pub fn cut(&self) -> bool {
        self.failure.is_some()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.buf.len());
    }

    /// Adds bytes to those at hand; false when the stream has ended.
    pub fn fill(&mut self) -> bool {
        if self.ended {
            return false;
        }
        if self.start > 0 {
            self.base += self.start as u64;
            self.buf.drain(..self.start);
            self.start = 0;
        }
        match self.read() {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) => {
                self.failure = Some(error);
                self.ended = true;
            }
        }
        if let (true, Some(transcoder)) = (self.ended, &mut self.transcoder) {
            let before = self.buf.len();
            transcoder.decode(&[], true, &mut self.buf);
            return self.buf.len() > before;
        }
        !self.ended
    }

    /// Reads once, and decodes what was read; 0 at the end of the stream.
    fn read(&mut self) -> Result<usize, SourceError> {
        let target = if self.transcoder.is_some() { &mut self.raw } else { &mut self.buf };
        let len = target.len();
        target.resize(len + FILL_BYTES, 0);
        let got = self.stream.read(target.get_mut(len..).unwrap_or_default());
        target.truncate(len + got.as_ref().copied().unwrap_or(0));
        if let Some(transcoder) = &mut self.transcoder {
            transcoder.decode(&self.raw, false, &mut self.buf);
            self.raw.clear();
        }
        got
    }

    /// Fills until `bytes` are at hand or the stream ends.
    pub fn fill_to(&mut self, bytes: usize) {
        while self.data().len() < bytes && self.fill() {}
    }

    /// The failure that ended the stream, or else the stored file's digest.
    pub fn finish(self) -> Result<StoredDigest, (SourceError, Option<StoredDigest>)> {
        match self.failure {
            None => self.stream.finish().map_err(|error| (error, None)),
            Some(error @ SourceError::Damaged { .. }) => {
                let digest = self.stream.finish().map_err(|error| (error, None))?;
                Err((error, Some(digest)))
            }
            Some(error) => Err((error, None)),
        }
    }
}
