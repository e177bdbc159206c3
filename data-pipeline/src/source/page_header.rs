//! Owns the few numbers of a Parquet page that decide how much memory it takes: its header (Thrift compact protocol) and
//! lengths written as differences; never reads files.
//!
//! Layouts: parquet-format `parquet.thrift` (PageHeader), `Encodings.md` (DELTA_BINARY_PACKED), and the compact protocol of
//! Apache Thrift.

/// Structures of a header nested deeper than this are refused; it has three levels.
const MAX_DEPTH: usize = 16;
/// Page types.
const INDEX_PAGE: i32 = 1;

/// What a page header says of sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the header itself.
    pub length: usize,
    kind: i32,
    /// Bytes of the page once it is decompressed.
    pub uncompressed: i32,
    /// Bytes of the page in the file.
    pub compressed: i32,
    /// Values of a dictionary.
    pub dictionary_values: Option<i32>,
}

impl Header {
    /// Whether it is of a page that readers pass over.
    pub fn is_index(&self) -> bool {
        self.kind == INDEX_PAGE
    }
}

/// The header that `bytes` begin with; `None` when it goes on behind them.
pub(super) fn parse_header(bytes: &[u8]) -> Result<Option<Header>, &'static str> {
    let mut cursor = Cursor { bytes, at: 0 };
    match header(&mut cursor) {
        Ok(header) => Ok(Some(Header { length: cursor.at, ..header })),
        Err(Stop::More) => Ok(None),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

/// Why reading stops.
enum Stop {
    /// The bytes are at their end.
    More,
    Wrong(&'static str),
}

fn header(cursor: &mut Cursor<'_>) -> Result<Header, Stop> {
    let mut header = Header::default();
    let mut seen = [false; 4];
    let mut last = 0;
    while let Some((id, kind)) = cursor.field(&mut last)? {
        match (id, kind) {
            (1..=3, INT) => {
                let value = cursor.int()?;
                *[&mut header.kind, &mut header.uncompressed, &mut header.compressed][id as usize - 1] = value;
                seen[id as usize] = true;
            }
            (7, STRUCT) => {
                let mut last = 0;
                while let Some((id, kind)) = cursor.field(&mut last)? {
                    match (id, kind) {
                        (1, INT) => header.dictionary_values = Some(cursor.int()?),
                        (1, _) => return Err(Stop::Wrong("a dictionary header of another type")),
                        _ => cursor.skip(kind, 1)?,
                    }
                }
            }
            (1..=3 | 7, _) => return Err(Stop::Wrong("a page header of another type")),
            _ => cursor.skip(kind, 0)?,
        }
    }
    if seen == [false, true, true, true] { Ok(header) } else { Err(Stop::Wrong("a page header without sizes")) }
}

/// Types of the compact protocol.
const INT: u8 = 5;
const STRUCT: u8 = 12;

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.bytes.get(self.at).ok_or(Stop::More)?;
        self.at += 1;
        Ok(*byte)
    }

    fn skip_bytes(&mut self, count: u64) -> Result<(), Stop> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        self.at = end.filter(|&end| end <= self.bytes.len()).ok_or(Stop::More)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::Wrong("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, Stop> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn int(&mut self) -> Result<i32, Stop> {
        i32::try_from(self.zigzag()?).map_err(|_| Stop::Wrong("a number of more than 32 bits"))
    }

    /// Number and type of the next field, `None` at the end of its structure.
    fn field(&mut self, last: &mut i64) -> Result<Option<(i64, u8)>, Stop> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let (delta, kind) = (i64::from(byte >> 4), byte & 0xf);
        *last = if delta == 0 { self.zigzag()? } else { last.saturating_add(delta) };
        Ok(Some((*last, kind)))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Wrong("a page header nested too deep"));
        }
        match kind {
            1 | 2 => Ok(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                // A list of truths has a byte for each.
                let of = if matches!(head & 0xf, 1 | 2) { 3 } else { head & 0xf };
                (0..count).try_for_each(|_| self.skip(of, depth + 1))
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(Stop::Wrong("a page header with an unknown type")),
        }
    }
}

/// Numbers in DELTA_BINARY_PACKED and what follows them; `None` when there are more than `most`, or they are cut.
pub(super) fn delta_lengths(bytes: &[u8], most: usize) -> Option<(Vec<i64>, &[u8])> {
    let mut cursor = Cursor { bytes, at: 0 };
    let block = usize::try_from(cursor.varint().ok()?).ok()?;
    let minis = usize::try_from(cursor.varint().ok()?).ok()?;
    let count = usize::try_from(cursor.varint().ok()?).ok()?;
    let mut value = cursor.zigzag().ok()?;
    if minis == 0 || count > most || !block.is_multiple_of(128) || !block.is_multiple_of(minis) {
        return None;
    }
    let per_mini = block / minis;
    if per_mini == 0 || !per_mini.is_multiple_of(32) {
        return None;
    }
    let mut values = Vec::new();
    values.extend((count > 0).then_some(value));
    while values.len() < count {
        let least = cursor.zigzag().ok()?;
        let widths = cursor.bytes.get(cursor.at..cursor.at.checked_add(minis)?)?;
        cursor.at += minis;
        for &width in widths {
            let left = count - values.len();
            if left == 0 {
                break;
            }
            let packed_bytes = usize::from(width).checked_mul(per_mini)? / 8;
            let packed = cursor.bytes.get(cursor.at..cursor.at.checked_add(packed_bytes)?)?;
            cursor.at += packed_bytes;
            for i in 0..left.min(per_mini) {
                let delta = bits(packed, i * usize::from(width), width)?;
                value = value.wrapping_add(least).wrapping_add(delta as i64);
                values.push(value);
            }
        }
    }
    Some((values, bytes.get(cursor.at..)?))
}

/// A number of `width` bits, least first, at a position in bits.
fn bits(packed: &[u8], at: usize, width: u8) -> Option<u64> {
    if width > 64 {
        return None;
    }
    let mut value = 0_u64;
    for i in 0..usize::from(width) {
        let byte = packed.get((at + i) / 8)?;
        value |= u64::from(byte >> ((at + i) % 8) & 1) << i;
    }
    Some(value)
}
