//! Owns the names of file formats, text encodings and units of text; never opens a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// File formats. Any of them but Parquet may be compressed: `.gz` or `.zst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// By the file name: `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.txt`, `.parquet`, `.arrow`, `.arrows`,
    /// `.feather`, `.ipc`, `.warc`, `.wet`.
    #[default]
    Auto,
    /// One JSON object a line.
    Jsonl,
    /// A list of JSON objects, or JSON objects one after another, over any number of lines.
    Json,
    /// JSONL as Dolma lays it out: `documents/`, with labels in `metadata`; `attributes/` is passed over.
    Dolma,
    /// Comma separated values with a header line, quoted as in RFC 4180.
    Csv,
    /// Tab separated values with a header line, quoted as in RFC 4180.
    Tsv,
    /// Plain text, cut by `unit`.
    Text,
    /// Apache Parquet (no compression, Snappy, gzip or Zstandard pages).
    Parquet,
    /// Apache Arrow IPC, file (Feather 2) or stream, with buffers as they are, LZ4 or Zstandard.
    Arrow,
    /// Web archives (WARC 1.0 and 1.1): the main text of each HTML page, and plain text as it is (WET).
    Warc,
}

/// Text encodings of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// Found out for each file.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// UTF-8, with or without a byte order mark.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little-endian.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big-endian.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Arabic (and French) of Windows.
    #[serde(rename = "windows-1256")]
    Windows1256,
    /// Western European of Windows; also for files in ISO 8859-1, which it contains.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// Arabic of ISO.
    #[serde(rename = "iso-8859-6")]
    Iso8859Six,
}

impl Encoding {
    /// Whether nothing was asked for.
    pub fn is_auto(&self) -> bool {
        *self == Encoding::Auto
    }

    /// The name as a configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Auto => "auto",
            Encoding::Utf8 => "utf-8",
            Encoding::Utf16Le => "utf-16le",
            Encoding::Utf16Be => "utf-16be",
            Encoding::Windows1256 => "windows-1256",
            Encoding::Windows1252 => "windows-1252",
            Encoding::Iso8859Six => "iso-8859-6",
        }
    }
}

/// What one document of a text file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Every line that is not blank.
    Line,
    /// Lines up to the next blank line.
    #[default]
    Paragraph,
    /// The whole file.
    File,
}
