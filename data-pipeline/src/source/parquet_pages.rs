//! Owns checking each page of a Parquet file before the library allocates anything for it: sizes against the file, counts
//! against sizes; never decodes a text.
//!
//! The library believes the header of a page: it allocates what the header says that the page expands to, and what the
//! lengths inside say that there are values. A file of a few bytes could so ask for gigabytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, Type as SchemaType};

use super::page_header::{Header, parse_header};
use crate::config::DEFAULT_EXPANSION;

/// A page may expand to this many bytes whatever is stored of it; writers aim at 1 MiB.
const PAGE_GRACE_BYTES: u64 = 8 << 20;
/// Values that a column of lists may have beyond those that its stored bytes allow.
const FREE_LIST_VALUES: u64 = 1 << 24;
/// Values of a page whose lengths are written as differences; pages have some ten thousand.
const MAX_DELTA_VALUES: u64 = 1 << 24;
/// Bytes read to find a page header, and the longest header: it may hold the least and the greatest text of its page.
const HEADER_READ_BYTES: usize = 256;
const MAX_HEADER_BYTES: usize = 16 << 20;

/// A Parquet file whose pages are checked before they are read.
pub(crate) struct CheckedFile {
    reader: SerializedFileReader<File>,
    raw: Arc<File>,
    /// Most bytes out for a stored byte.
    expansion: u64,
}

impl CheckedFile {
    /// Reads the footer.
    pub fn open(file: File, expansion: u64) -> Result<CheckedFile> {
        let raw = Arc::new(file.try_clone()?);
        Ok(CheckedFile { reader: SerializedFileReader::new(file)?, raw, expansion })
    }

    /// Reads the footer of a file that no configuration is about.
    pub fn of_default_limits(file: File) -> Result<CheckedFile> {
        CheckedFile::open(file, DEFAULT_EXPANSION)
    }
}

impl FileReader for CheckedFile {
    fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    fn get_row_group(&self, i: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        if i >= self.num_row_groups() {
            return Err(malformed("a row group outside the file"));
        }
        let (raw, expansion) = (Arc::clone(&self.raw), self.expansion);
        Ok(Box::new(CheckedGroup { group: self.reader.get_row_group(i)?, raw, expansion }))
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct CheckedGroup<'a> {
    group: Box<dyn RowGroupReader + 'a>,
    raw: Arc<File>,
    expansion: u64,
}

impl RowGroupReader for CheckedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        let column = self.metadata().columns().get(i).ok_or_else(|| malformed("a column outside its row group"))?;
        let range = place(column, self.raw.metadata()?.len())?;
        Ok(Box::new(CheckedPages {
            pages: self.group.get_column_page_reader(i)?,
            raw: Arc::clone(&self.raw),
            at: range.0,
            end: range.1,
            expansion: self.expansion,
            column: column.column_descr_ptr(),
            stored: 0,
            values: 0,
        }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<SchemaType>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// Where the pages of a column begin and end.
fn place(column: &ColumnChunkMetaData, file_bytes: u64) -> Result<(u64, u64)> {
    let first = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let start = u64::try_from(first).ok();
    let end = start.zip(u64::try_from(column.compressed_size()).ok()).and_then(|(start, size)| start.checked_add(size));
    match (start, end) {
        (Some(start), Some(end)) if end <= file_bytes => Ok((start, end)),
        _ => Err(malformed("a column outside the file")),
    }
}

/// The pages of a column, one after the other.
struct CheckedPages {
    pages: Box<dyn PageReader>,
    raw: Arc<File>,
    /// Place of the next page header.
    at: u64,
    end: u64,
    expansion: u64,
    column: ColumnDescPtr,
    /// Bytes and values of the pages so far.
    stored: u64,
    values: u64,
}

impl CheckedPages {
    /// The header of the next page that the library will decode, and where the page ends; `None` after the last page.
    fn next_header(&self) -> Result<Option<(Header, u64)>> {
        let mut at = self.at;
        while at < self.end {
            let header = self.header_at(at)?;
            let stored = u64::try_from(header.compressed).map_err(|_| malformed("a page of negative size"))?;
            let out = u64::try_from(header.uncompressed).map_err(|_| malformed("a page of negative size"))?;
            if out > PAGE_GRACE_BYTES && out / stored.max(1) >= self.expansion {
                return Err(malformed(&format!("a page of {stored} bytes that expands to {out}")));
            }
            at += header.length as u64 + stored;
            if at > self.end {
                return Err(malformed("a page longer than its column"));
            }
            if header.dictionary_values.is_some_and(|values| u64::try_from(values).map_or(true, |values| values > out))
            {
                return Err(malformed("a dictionary of more values than bytes"));
            }
            if !header.is_index() {
                return Ok(Some((header, at)));
            }
        }
        Ok(None)
    }

    fn header_at(&self, at: u64) -> Result<Header> {
        let left = usize::try_from(self.end - at).unwrap_or(usize::MAX);
        let mut wanted = HEADER_READ_BYTES;
        loop {
            let mut bytes = vec![0; wanted.min(left)];
            self.raw.read_exact_at(&mut bytes, at)?;
            if let Some(header) = parse_header(&bytes).map_err(malformed)? {
                return Ok(header);
            }
            if wanted >= left || wanted >= MAX_HEADER_BYTES {
                return Err(malformed("a page header that does not end"));
            }
            wanted *= 8;
        }
    }

    /// Refuses values that the bytes of the page do not hold.
    fn check_values(&mut self, page: &Page, stored: u64) -> Result<()> {
        if page.is_dictionary_page() {
            return Ok(());
        }
        let values = u64::from(page.num_values());
        self.stored += stored;
        self.values += values;
        let is_list = self.column.max_rep_level() > 0;
        if is_list && self.values > FREE_LIST_VALUES.saturating_add(self.stored.saturating_mul(self.expansion)) {
            return Err(malformed("a list of more values than its bytes can hold"));
        }
        let delta = matches!(page.encoding(), Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY);
        if !delta
            || !matches!(self.column.physical_type(), PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY)
        {
            return Ok(());
        }
        let most = usize::try_from(values.min(MAX_DELTA_VALUES)).unwrap_or(usize::MAX);
        let bytes = self.value_bytes(page).ok_or_else(|| malformed("a page without room for its levels"))?;
        let out = delta_bytes(bytes, page.encoding(), most).ok_or_else(|| malformed("a page of impossible lengths"))?;
        if out > PAGE_GRACE_BYTES && out / stored.max(1) >= self.expansion {
            return Err(malformed(&format!("a page of {stored} bytes whose texts have {out}")));
        }
        Ok(())
    }

    /// What follows the levels in a data page.
    fn value_bytes<'p>(&self, page: &'p Page) -> Option<&'p [u8]> {
        match page {
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                buf.get((*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)?..)
            }
            Page::DataPage { buf, rep_level_encoding, def_level_encoding, num_values, .. } => {
                let mut rest = buf.as_ref();
                let levels = [
                    (self.column.max_rep_level(), *rep_level_encoding),
                    (self.column.max_def_level(), *def_level_encoding),
                ];
                for (highest, encoding) in levels.into_iter().filter(|(highest, _)| *highest > 0) {
                    let length = if encoding == Encoding::RLE {
                        4 + u32::from_le_bytes(*rest.first_chunk::<4>()?) as usize
                    } else {
                        let bits = 16 - highest.leading_zeros() as usize;
                        (*num_values as usize * bits).div_ceil(8)
                    };
                    rest = rest.get(length..)?;
                }
                Some(rest)
            }
            Page::DictionaryPage { .. } => None,
        }
    }
}

/// Bytes that the texts of a page take whose lengths are written as differences; `None` when it has more than `most`
/// lengths, or is cut.
fn delta_bytes(bytes: &[u8], encoding: Encoding, most: usize) -> Option<u64> {
    let sum =
        |lengths: &[i64]| lengths.iter().try_fold(0_u64, |sum, &length| sum.checked_add(u64::try_from(length).ok()?));
    let (lengths, rest) = super::page_header::delta_lengths(bytes, most)?;
    if encoding == Encoding::DELTA_LENGTH_BYTE_ARRAY {
        return sum(&lengths).filter(|&sum| sum <= rest.len() as u64);
    }
    let (suffixes, rest) = super::page_header::delta_lengths(rest, most)?;
    let written = sum(&suffixes).filter(|&sum| sum <= rest.len() as u64)?;
    sum(&lengths)?.checked_add(written)
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some((header, end)) = self.next_header()? else { return Ok(None) };
        let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
        self.at = end;
        self.check_values(&page, header.compressed.unsigned_abs().into())?;
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        match self.next_header()? {
            Some(_) => self.pages.peek_next_page(),
            None => Ok(None),
        }
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some((_, end)) = self.next_header()? {
            self.pages.skip_next_page()?;
            self.at = end;
        }
        Ok(())
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.next_header()?;
        self.pages.at_record_boundary()
    }
}

fn malformed(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

#[cfg(test)]
#[path = "parquet_pages_tests.rs"]
mod tests;
