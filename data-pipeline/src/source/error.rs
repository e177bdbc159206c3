//! Owns what can be wrong with an input file; never touches files.

use std::io;
use std::path::{Path, PathBuf};

use super::row::Wanted;

/// An input that cannot be read, named with file, place, cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A path of the configuration names nothing.
    #[error("{}: no such file or folder; check the path, which starts at the current directory", .path.display())]
    NotFound {
        /// The path as the configuration gives it.
        path: PathBuf,
    },
    /// A glob is malformed.
    #[error(
        "`{pattern}` is not a valid glob ({what}); `*`, `?`, `[a-z]` and `**/` are understood, and `[[]` stands for a bracket"
    )]
    BadGlob {
        /// The glob.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
    /// A folder or glob holds no file of a known format.
    #[error("{}", no_input(.pattern, .passed_over))]
    NoInput {
        /// Path or glob as the configuration gives it.
        pattern: String,
        /// Files seen but not taken.
        passed_over: PassedOver,
    },
    /// A pipe or a device where a file must be.
    #[error("{}: is no regular file, and inputs are read more than once; write its content to a file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file name does not tell the format.
    #[error("{}: cannot tell the format from the name; write `format:` (`jsonl`, `json`, `csv`, `tsv`, `text`, `parquet`, `arrow` or `warc`){hint}", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What to do for a container that is known but not read.
        hint: &'static str,
    },
    /// A text file without a language or licence for its rows.
    #[error("{}: a text file cannot name its {missing}; write `{missing}: {example}` beside `path`", .path.display())]
    TextNeedsDefault {
        /// The file.
        path: PathBuf,
        /// Key to write.
        missing: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// The operating system refused.
    #[error("{}: cannot be {action}; check that it is readable and the disk is whole", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// "opened", "read" or "listed".
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Compressed or columnar data that ends early or does not decode.
    #[error(
        "{}: damaged at or before byte {byte} of the file: {what} (whole rows before it: {rows}); \
         fetch the file again, or write `on_damage: quarantine` to keep those rows", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Position in the file as stored, in bytes.
        byte: u64,
        /// What the decoder found.
        what: String,
        /// Rows before the damage, good or bad.
        rows: u64,
    },
    /// The file expands beyond its limits.
    #[error("{}: {what}; if the file is trusted, raise `limits.{limit}`", .path.display())]
    Bomb {
        /// The file.
        path: PathBuf,
        /// What was exceeded, with figures.
        what: String,
        /// Key of the limit.
        limit: &'static str,
    },
    /// A Zstandard stream that would need too much memory.
    #[error(
        "{}: its zstd window is larger than 2^{log_max} bytes; decompress it first, or compress it without --long", .path.display()
    )]
    WindowTooLarge {
        /// The file.
        path: PathBuf,
        /// Largest window as a power of two.
        log_max: u32,
    },
    /// A file that cannot hold chats.
    #[error("{}: chats are read from JSONL, JSON and Parquet; convert the file, or leave it out with `exclude:`", .path.display())]
    NoChats {
        /// The file.
        path: PathBuf,
    },
    /// Text in an encoding that is not read.
    #[error(
        "{}: {found}; convert it to UTF-8 with `iconv`, or write `encoding:` if it is one that is read ({})",
        .path.display(), "utf-8, utf-16le, utf-16be, windows-1256, windows-1252, iso-8859-6"
    )]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What the bytes look like.
        found: &'static str,
    },
    /// A CSV, TSV, Parquet or Arrow file without a column that is needed.
    #[error("{}: no column `{column}`; it has {found}; write `fields: {{{field}: COLUMN}}`", .path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// Key below `fields`.
        field: &'static str,
        /// The column looked for.
        column: String,
        /// The columns there are.
        found: String,
    },
    /// A Parquet column that is not a plain string.
    #[error("{}: column `{column}` is {found}, not a string column; name another one in `fields`", .path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
}

/// Files that were seen and not taken, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// `exclude` names them.
    pub excluded: usize,
    /// Their names tell no format, or another than the one written.
    pub unknown: usize,
    /// An earlier source has them.
    pub repeated: usize,
}

fn no_input(pattern: &str, passed: &PassedOver) -> String {
    let PassedOver { excluded, unknown, repeated } = *passed;
    let is_glob = pattern.contains(['*', '?', '[']);
    match (excluded, unknown, repeated) {
        (0, 0, 0) if is_glob => {
            format!("`{pattern}` matches no file; check it, it starts at the current directory")
        }
        (0, 0, 0) => format!("`{pattern}` holds no file; check the path, it starts at the current directory"),
        (0, 0, 1) => format!("`{pattern}` is named before already, and read as it says there; remove one of the two"),
        (0, 0, _) => format!(
            "all {repeated} files of `{pattern}` are named before already, and read as it says there; remove one of the two"
        ),
        (_, 0, 0) => format!("all files of `{pattern}` ({excluded}) are left out by `exclude`; narrow its globs"),
        (_, 0, _) => format!(
            "nothing is left of `{pattern}`: {excluded} files are left out by `exclude`, {repeated} are named before \
             already; remove it, or narrow the globs"
        ),
        _ => format!(
            "`{pattern}` holds no input file: the names of {unknown} files tell no format that is read, or another than \
             `format:` says ({} more were left out); name a file itself and write `format:` beside it",
            excluded + repeated
        ),
    }
}

impl SourceError {
    /// A table without the column that `wanted` names; `names` are those it has.
    pub(super) fn missing_column(path: &Path, wanted: &Wanted, names: &[impl AsRef<str>]) -> Self {
        const SHOWN: usize = 12;
        let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{:.40}`", name.as_ref())).collect();
        let more = if names.len() > SHOWN { " and more" } else { "" };
        let found = if shown.is_empty() { "no columns".to_owned() } else { format!("{}{more}", shown.join(", ")) };
        Self::MissingColumn { path: path.to_owned(), field: wanted.field, column: wanted.name.clone(), found }
    }
}
