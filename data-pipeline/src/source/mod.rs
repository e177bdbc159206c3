//! Owns turning untrusted files into rows under limits: discovery, decompression, encodings and formats; never judges
//! what a text says.
//!
//! Suggested reading order: [`discover`], `stream` (bytes under limits), `window`, then one reader a format, then `feed`
//! (all files as one sequence of chunks).

mod arrow;
mod arrow_json;
mod csv;
pub mod discover;
mod dolma;
mod encoding;
mod error;
mod feed;
mod html;
mod http;
mod json_array;
mod json_rows;
mod jsonl;
mod page;
mod page_header;
mod parquet;
mod parquet_pages;
mod row;
mod stream;
mod text;
mod warc;
mod window;

pub use error::SourceError;
pub(crate) use feed::{Feed, FileEnd, Item};
pub(crate) use jsonl::{lines, parse_line};
pub(crate) use parquet_pages::CheckedFile;
pub use row::Reason;
pub(crate) use row::{Chunk, Fields, Place, Reject, RowChunk, Slot, Value, excerpt};
pub(crate) use stream::digest_file;
