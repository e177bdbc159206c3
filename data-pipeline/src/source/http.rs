//! Owns the HTTP responses that web records hold: status, the headers that matter and the body under limits; never touches
//! the network.

use std::borrow::Cow;
use std::io::Read;

use super::html::{reserves_mining, robots_opt_out};
use super::row::Reason;

/// Longest header block, in bytes.
pub(super) const MAX_HEADER_BYTES: usize = 256 * 1024;

/// A response.
#[derive(Debug, Default)]
pub(super) struct Response<'a> {
    pub status: u16,
    /// Media type in lower case, without parameters.
    pub media_type: String,
    pub charset: Option<String>,
    /// The header by which the publisher forbids training.
    pub opt_out: Option<&'static str>,
    pub body: Cow<'a, [u8]>,
}

/// The lines of a header block and what follows it; `None` unless the block ends within its limit.
pub(super) fn split_headers(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    while let Some(end) = block.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)) {
        let end = from + end;
        if end > MAX_HEADER_BYTES {
            return None;
        }
        match block.get(end + 1..) {
            Some([b'\r', b'\n', rest @ ..]) | Some([b'\n', rest @ ..]) => return Some((block.get(..=end)?, rest)),
            _ => from = end + 1,
        }
    }
    None
}

/// The fields of a header block, names in lower case; a line that begins with a space goes on with the one before.
pub(super) fn fields(head: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text = String::from_utf8_lossy(head);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().skip(1) {
        match (line.split_once(':'), fields.last_mut()) {
            (_, Some((_, value))) if line.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            (Some((name, value)), _) => fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            _ => {}
        }
    }
    fields.into_iter()
}

/// Media type and charset of a `Content-Type`.
pub(super) fn content_type(value: &str) -> (String, Option<String>) {
    let mut parts = value.split(';');
    let media_type = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
    });
    (media_type, charset)
}

/// Reads a response whose decoded body has at most `max` bytes.
///
/// # Errors
/// [`Reason::BadWebRecord`] when it is no HTTP, [`Reason::RecordTooLarge`] when it expands beyond `max`.
pub(super) fn parse(block: &[u8], max: usize) -> Result<Response<'_>, Reason> {
    let (head, body) = split_headers(block).ok_or(Reason::BadWebRecord)?;
    let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    if !words.next().is_some_and(|version| version.starts_with("HTTP/")) {
        return Err(Reason::BadWebRecord);
    }
    let status = words.next().and_then(|word| word.parse().ok()).ok_or(Reason::BadWebRecord)?;
    let mut response = Response { status, body: Cow::Borrowed(body), ..Response::default() };
    let (mut chunked, mut coding) = (false, String::new());
    for (name, value) in fields(head) {
        match name.as_str() {
            "content-type" => (response.media_type, response.charset) = content_type(&value),
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "content-encoding" => coding = value.to_ascii_lowercase(),
            "x-robots-tag" => response.opt_out = response.opt_out.or(robots_opt_out(&value)),
            "tdm-reservation" if reserves_mining(&value) => {
                response.opt_out = response.opt_out.or(Some("tdm-reservation"));
            }
            _ => {}
        }
    }
    // Crawlers that undo the transfer coding often leave its header.
    if chunked && let Some(joined) = dechunk(body) {
        response.body = Cow::Owned(joined);
    }
    response.body = decompress(response.body, &coding, max)?;
    Ok(response)
}

/// The body of a chunked message, `None` when it is not chunked.
fn dechunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let end = memchr::memchr(b'\n', body.get(..body.len().min(1024))?)?;
        let line = std::str::from_utf8(body.get(..end)?).ok()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        body = body.get(end + 1..)?;
        if size == 0 {
            return Some(joined);
        }
        let Some(data) = body.get(..size) else {
            // The crawler cut the page: what is there is worth reading.
            joined.extend_from_slice(body);
            return Some(joined);
        };
        joined.extend_from_slice(data);
        body = body.get(size..)?;
        body = body.strip_prefix(b"\r\n").or_else(|| body.strip_prefix(b"\n")).unwrap_or(body);
    }
}

/// Undoes the content codings that are known; a body that does not begin as its coding does was undone by the crawler.
fn decompress<'a>(body: Cow<'a, [u8]>, coding: &str, max: usize) -> Result<Cow<'a, [u8]>, Reason> {
    let limit = max as u64 + 1;
    let mut out = Vec::new();
    let read = match coding.trim() {
        "gzip" | "x-gzip" if body.starts_with(&[0x1f, 0x8b]) => {
            flate2::bufread::MultiGzDecoder::new(body.as_ref()).take(limit).read_to_end(&mut out)
        }
        "deflate" if body.first().is_some_and(|b| b & 0x0f == 8) => {
            flate2::bufread::ZlibDecoder::new(body.as_ref()).take(limit).read_to_end(&mut out)
        }
        "zstd" if body.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(body.as_ref());
            decoder.and_then(|mut decoder| {
                decoder.window_log_max(super::stream::ZSTD_WINDOW_LOG_MAX)?;
                decoder.take(limit).read_to_end(&mut out)
            })
        }
        "br" if std::str::from_utf8(&body).is_err() => return Err(Reason::BadWebRecord),
        _ => return Ok(body),
    };
    match read {
        Ok(_) if out.len() as u64 == limit => Err(Reason::RecordTooLarge),
        // A page cut by the crawler: what is there is worth reading.
        Err(_) if out.is_empty() => Err(Reason::BadWebRecord),
        _ => Ok(Cow::Owned(out)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::io::Write;

    use super::*;

    fn parsed(text: &str) -> Response<'_> {
        parse(text.as_bytes(), 1 << 20).unwrap()
    }

    #[test]
    fn headers_are_read_in_any_case_and_layout() {
        let text = "HTTP/1.1 200 OK\r\nCONTENT-type: text/HTML; Charset=\"windows-1256\"\r\nX-Robots-Tag: googlebot:\r\n noai, \
                    noindex\r\n\r\nbody";
        let response = parsed(text);
        assert_eq!((response.status, response.media_type.as_str()), (200, "text/html"));
        assert_eq!((response.charset.as_deref(), response.opt_out), (Some("windows-1256"), Some("noai")));
        assert_eq!(&*response.body, b"body");
        assert_eq!(parsed("HTTP/2 404\n\nx").status, 404);
        assert_eq!(parsed("HTTP/1.0 200\r\nTDM-Reservation: 1\r\n\r\n").opt_out, Some("tdm-reservation"));
        assert_eq!(parsed("HTTP/1.0 200\r\nTDM-Reservation: 0\r\nX-Robots-Tag: noindex\r\n\r\n").opt_out, None);
    }

    #[test]
    fn bodies_are_joined_and_decompressed() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(&*parsed(&format!("{head}3;x\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).body, b"abcde");
        assert_eq!(&*parsed(&format!("{head}already joined")).body, b"already joined");
        assert_eq!(&*parsed(&format!("{head}ff\r\ncut")).body, b"cut");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b'a'; 100_000]).unwrap();
        let block =
            [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n".as_slice(), &encoder.finish().unwrap()].concat();
        assert_eq!(parse(&block, 100_000).unwrap().body.len(), 100_000);
        assert_eq!(parse(&block, 99_999).unwrap_err(), Reason::RecordTooLarge);
        assert_eq!(parse(b"not http\r\n\r\n", 100).unwrap_err(), Reason::BadWebRecord);
        assert_eq!(parse(b"HTTP/1.1 200 OK", 100).unwrap_err(), Reason::BadWebRecord);
    }
}
