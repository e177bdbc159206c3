//! Owns expanding the paths of a configuration into a sorted list of input files; never opens them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dolma;
use super::error::{PassedOver, SourceError};
use super::jsonl::FieldTree;
use super::row::Wanted;
use crate::config::{Format, SourceConfig, Unit};

/// Compression of a file, by its last extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Stored as is.
    None,
    /// `.gz`, any number of members.
    Gzip,
    /// `.zst`, any number of frames.
    Zstd,
}

/// How the records of a file are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One JSON object a line.
    Jsonl,
    /// Delimited values with a header; the delimiter.
    Delimited(u8),
    /// Plain text cut by a unit.
    Text(Unit),
    /// Apache Parquet.
    Parquet,
    /// JSON objects in a list or one after another.
    Json,
    /// Apache Arrow IPC.
    Arrow,
    /// Web archive records.
    Warc,
    /// Attributes of Dolma documents, which are read with their documents; no rows of their own.
    Attributes,
}

/// What the files of one source entry share.
#[derive(Debug)]
pub struct SourceSpec {
    /// The entry of the configuration.
    pub config: SourceConfig,
    /// Field names to look for.
    pub(crate) wanted: Vec<Wanted>,
    /// The same names as a tree, for JSON.
    pub(crate) tree: FieldTree,
}

/// A file to read.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its place below the entry's path: what statistics call it, the same on every machine.
    pub label: String,
    /// Record layout.
    pub layout: Layout,
    /// Compression.
    pub compression: Compression,
    /// Size on disk in bytes.
    pub bytes: u64,
    /// Corpus name of rows that name none.
    pub default_source: String,
    /// Number of the entry it belongs to, from 0.
    pub entry: usize,
    /// That entry.
    pub spec: Arc<SourceSpec>,
    /// Files with attributes of its rows.
    pub(crate) attributes: Vec<PathBuf>,
    /// Rows are wanted with all their fields, as JSON.
    pub(crate) whole: bool,
}

/// Folders nested deeper than this are not searched (a link that points upwards would never end).
const MAX_FOLDER_DEPTH: usize = 32;

/// All input files of `sources`, in the order of the entries and sorted by path inside each. A file that two entries
/// reach belongs to the first.
///
/// # Errors
/// A path that does not exist, an entry without a single file, a file of unknown format that was named itself.
pub fn discover(sources: &[SourceConfig]) -> Result<Vec<InputFile>, SourceError> {
    discover_each(sources).map_err(|(_, error)| error)
}

/// [`discover`]; an error comes with the number of its entry.
pub(crate) fn discover_each(sources: &[SourceConfig]) -> Result<Vec<InputFile>, (usize, SourceError)> {
    let (mut files, mut taken) = (Vec::new(), BTreeSet::new());
    for (entry, source) in sources.iter().enumerate() {
        of_entry(entry, source, &mut taken, &mut files).map_err(|error| (entry, error))?;
    }
    Ok(files)
}

/// Adds the files of one entry.
fn of_entry(
    entry: usize,
    source: &SourceConfig,
    taken: &mut BTreeSet<PathBuf>,
    files: &mut Vec<InputFile>,
) -> Result<(), SourceError> {
    let excluded = excluded(source)?;
    let found = expand(source)?;
    let wanted = source.fields.wanted(source.format);
    let tree = FieldTree::new(&wanted);
    let spec = Arc::new(SourceSpec { config: source.clone(), wanted, tree });
    let (before, mut passed_over) = (files.len(), PassedOver::default());
    for path in found.paths {
        let label = label(&path, &found.root);
        if is_excluded(&excluded, &path, &label) {
            passed_over.excluded += 1;
            continue;
        }
        let known = layout(&path, source);
        if known.is_err() && !found.single {
            passed_over.unknown += 1;
            continue;
        }
        let (layout, compression) = known?;
        if !source.kind.is_text() && !matches!(layout, Layout::Jsonl | Layout::Json | Layout::Parquet) {
            return Err(SourceError::NoChats { path });
        }
        if !taken.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            passed_over.repeated += 1;
            continue;
        }
        let first = files.len();
        files.push(input_file(entry, path, label, layout, compression, &spec)?);
        beside(files, first, &found.root)?;
    }
    if files.len() == before {
        return Err(SourceError::NoInput { pattern: source.path.clone(), passed_over });
    }
    Ok(())
}

fn excluded(source: &SourceConfig) -> Result<Vec<glob::Pattern>, SourceError> {
    let parse = |pattern: &String| glob::Pattern::new(pattern).map_err(|error| bad_glob(pattern, &error));
    source.exclude.iter().map(parse).collect()
}

fn is_excluded(excluded: &[glob::Pattern], path: &Path, label: &str) -> bool {
    excluded.iter().any(|pattern| pattern.matches_path(path) || pattern.matches(label))
}

/// Whether an entry would find files that are written into `folder`, which need not exist yet.
///
/// # Errors
/// A glob that is none.
pub(crate) fn would_find(source: &SourceConfig, folder: &Path) -> Result<bool, SourceError> {
    let excluded = excluded(source)?;
    let resolved = resolved(folder);
    // Files of a data set in every format that is read.
    let files = ["quarantine.jsonl", "manifest.json", "shard-00000.parquet"];
    let path = Path::new(&source.path);
    if path.is_dir() {
        let root = resolved_existing(path);
        let Ok(below) = resolved.strip_prefix(&root) else { return Ok(false) };
        // Hidden folders are not searched.
        if below.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.')) {
            return Ok(false);
        }
        let found = |name: &&str| {
            !is_excluded(&excluded, &path.join(below).join(name), &label(&below.join(name), Path::new("")))
        };
        return Ok(files.iter().any(found));
    }
    if path.exists() || !source.path.contains(['*', '?', '[']) {
        return Ok(false);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let pattern = absolute.to_string_lossy();
    let glob = glob::Pattern::new(&pattern).map_err(|error| bad_glob(&source.path, &error))?;
    let literal = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let written = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let by_folder =
        [&resolved, &written].iter().any(|place| place.ancestors().any(|above| glob.matches_path_with(above, literal)));
    let root: PathBuf = path.components().take_while(|part| !is_wild(part)).collect();
    let root = resolved_existing(&root);
    Ok(files.iter().any(|name| {
        let file = written.join(name);
        let label = label(&resolved.join(name), &root);
        (by_folder || glob.matches_path_with(&file, literal)) && !is_excluded(&excluded, &folder.join(name), &label)
    }))
}

/// A path without links, of which only the beginning may exist.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for above in path.ancestors() {
        if let (Ok(root), Ok(below)) = (above.canonicalize(), path.strip_prefix(above)) {
            return root.join(below);
        }
    }
    path
}

fn resolved_existing(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn is_wild(part: &std::path::Component<'_>) -> bool {
    part.as_os_str().to_string_lossy().contains(['*', '?', '['])
}

struct Found {
    paths: BTreeSet<PathBuf>,
    /// The part of the path before any wildcard.
    root: PathBuf,
    /// One file, named itself.
    single: bool,
}

fn expand(source: &SourceConfig) -> Result<Found, SourceError> {
    let path = Path::new(&source.path);
    let mut paths = BTreeSet::new();
    if path.is_dir() {
        walk(path, 0, &mut paths)?;
        return Ok(Found { paths, root: path.to_owned(), single: false });
    }
    if path.exists() {
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        return Ok(Found { paths: BTreeSet::from([path.to_owned()]), root, single: true });
    }
    if !source.path.contains(['*', '?', '[']) {
        return Err(SourceError::NotFound { path: path.to_owned() });
    }
    let matches = glob::glob(&source.path).map_err(|error| bad_glob(&source.path, &error))?;
    for entry in matches {
        let entry = entry.map_err(|error| {
            let path = error.path().to_owned();
            SourceError::Io { path, action: "listed", source: error.into() }
        })?;
        if entry.is_dir() { walk(&entry, 0, &mut paths)? } else { _ = paths.insert(entry) }
    }
    let root = path.components().take_while(|part| !is_wild(part)).collect();
    Ok(Found { paths, root, single: false })
}

fn bad_glob(pattern: &str, error: &glob::PatternError) -> SourceError {
    SourceError::BadGlob { pattern: pattern.to_owned(), what: error.msg.to_owned() }
}

fn walk(folder: &Path, depth: usize, paths: &mut BTreeSet<PathBuf>) -> Result<(), SourceError> {
    let failed = |path: &Path, source: io::Error| SourceError::Io { path: path.to_owned(), action: "listed", source };
    if depth > MAX_FOLDER_DEPTH {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, e))? {
        let entry = entry.map_err(|e| failed(folder, e))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Dolma keeps what it says of the documents beside them, in lines that are no documents.
        if entry.file_name() == "attributes" && path.is_dir() && folder.join("documents").is_dir() {
            continue;
        }
        if path.is_dir() {
            walk(&path, depth + 1, paths)?;
        } else {
            paths.insert(path);
        }
    }
    Ok(())
}

/// The path below `root` with `/` on every system.
fn label(path: &Path, root: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = below.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

fn input_file(
    entry: usize,
    path: PathBuf,
    label: String,
    layout: Layout,
    compression: Compression,
    spec: &Arc<SourceSpec>,
) -> Result<InputFile, SourceError> {
    let io_error = |source| SourceError::Io { path: path.clone(), action: "opened", source };
    let bytes = std::fs::metadata(&path).map_err(io_error)?.len();
    let config = &spec.config;
    if matches!(layout, Layout::Text(_)) {
        if config.lang.is_none() {
            return Err(SourceError::TextNeedsDefault { path, missing: "lang", example: "ary_Arab" });
        }
        if config.licence.is_none() {
            return Err(SourceError::TextNeedsDefault { path, missing: "licence", example: "CC0-1.0" });
        }
    }
    let stem = || {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        stem.chars().filter(|c| !c.is_control()).collect::<String>()
    };
    let default_source = config.source.clone().unwrap_or_else(stem);
    Ok(InputFile {
        label,
        layout,
        compression,
        bytes,
        default_source,
        entry,
        spec: Arc::clone(spec),
        attributes: if layout == Layout::Jsonl { dolma::attribute_files(&path) } else { Vec::new() },
        path,
        whole: false,
    })
}

/// Adds the files of attributes of a file from which fields are taken, so that a change of them is seen.
fn beside(files: &mut Vec<InputFile>, at: usize, root: &Path) -> Result<(), SourceError> {
    let Some(documents) = files.get(at).cloned() else { return Ok(()) };
    if !documents.spec.wanted.iter().any(|wanted| dolma::is_attribute(&wanted.name)) {
        return Ok(());
    }
    for path in &documents.attributes {
        let (compression, spec) = (documents.compression, &documents.spec);
        let from = if path.starts_with(root) { root } else { root.parent().unwrap_or(root) };
        let name = label(path, from);
        files.push(input_file(documents.entry, path.clone(), name, Layout::Attributes, compression, spec)?);
    }
    Ok(())
}

/// Standard input as a file, with all fields of its rows; JSONL unless the format of `source` is given.
///
/// # Errors
/// A format that cannot be read from a pipe.
pub(crate) fn of_standard_input(source: &SourceConfig) -> Result<InputFile, SourceError> {
    let path = PathBuf::from("/dev/stdin");
    let layout = layout_of(source.format, source);
    if layout == Layout::Parquet {
        return Err(SourceError::UnknownFormat { path, hint: "; this format cannot be read from a pipe" });
    }
    let wanted = source.fields.wanted(source.format);
    let tree = FieldTree::new(&wanted);
    let spec = Arc::new(SourceSpec { config: source.clone(), wanted, tree });
    let default_source = source.source.clone().unwrap_or_else(|| "stdin".to_owned());
    let (label, compression) = ("-".to_owned(), Compression::None);
    Ok(InputFile {
        path,
        label,
        layout,
        compression,
        bytes: 0,
        default_source,
        entry: 0,
        spec,
        attributes: Vec::new(),
        whole: true,
    })
}

fn layout(path: &Path, source: &SourceConfig) -> Result<(Layout, Compression), SourceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, compression) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem.to_owned(), Compression::Gzip),
        Some((stem, "zst" | "zstd")) => (stem.to_owned(), Compression::Zstd),
        _ => (name, Compression::None),
    };
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let by_name = match extension {
        "jsonl" | "ndjson" if source.format == Format::Dolma => Some(Format::Dolma),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "json" if source.format == Format::Dolma => Some(Format::Dolma),
        "json" => Some(Format::Json),
        "arrow" | "arrows" | "feather" | "ipc" => Some(Format::Arrow),
        "warc" | "wet" => Some(Format::Warc),
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "txt" => Some(Format::Text),
        "parquet" => Some(Format::Parquet),
        _ => None,
    };
    let single = Path::new(&source.path) == path;
    let format = match (source.format, by_name) {
        (Format::Auto, Some(format)) => format,
        (Format::Auto, None) => {
            let hint = match extension {
                "xz" | "bz2" | "zip" | "7z" | "tar" | "tgz" => "; unpack it first, or compress it as .gz or .zst",
                "xml" | "html" | "htm" => "; markup is read from web archives only (`.warc`)",
                _ => "",
            };
            return Err(SourceError::UnknownFormat { path: path.to_owned(), hint });
        }
        // A named file is read as it says; of a folder only the files that look the part.
        (format, Some(other)) if !single && format != other => {
            return Err(SourceError::UnknownFormat { path: path.to_owned(), hint: "" });
        }
        (format, _) => format,
    };
    let layout = layout_of(format, source);
    Ok((layout, if layout == Layout::Parquet { Compression::None } else { compression }))
}

/// How a format is laid out; what nobody could name is JSONL.
fn layout_of(format: Format, source: &SourceConfig) -> Layout {
    match format {
        Format::Auto | Format::Jsonl | Format::Dolma => Layout::Jsonl,
        Format::Json => Layout::Json,
        Format::Arrow => Layout::Arrow,
        Format::Warc => Layout::Warc,
        Format::Csv => Layout::Delimited(b','),
        Format::Tsv => Layout::Delimited(b'\t'),
        Format::Text => Layout::Text(source.unit.unwrap_or_default()),
        Format::Parquet => Layout::Parquet,
    }
}
