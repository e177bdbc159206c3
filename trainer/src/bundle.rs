//! Owns bundles: everything a site without a network needs in one signed file, packed, checked and unpacked; never knows
//! what the files are.
//!
//! A bundle is a tar archive in Zstandard. Its first entry is the signed list of all others with their sizes and SHA-256.
//! Nothing is written that is not in the list, under another name, or longer than it says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::certificate::CertificateError;
use crate::certificate::envelope::{PrivateKey, PublicKey, hex};
use crate::certificate::statement::{Opened, Predicate, Statement};
use crate::certificate::subjects::{self, OnBytes};
use crate::durable::{self, FileError};

/// Name of the list inside a bundle.
pub const LIST: &str = "BUNDLE.json";
/// Largest list that is read, bytes: a quarter of a million files fit.
const LIST_LIMIT_BYTES: u64 = 64 << 20;
/// Longest name of a file, bytes.
const NAME_LIMIT_BYTES: usize = 4096;
/// Zstandard's level: weights hardly shrink, text does at any level.
const LEVEL: i32 = 3;
/// Largest window a bundle may ask for: 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes copied at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Free space asked for beyond the files, bytes.
const SPARE_BYTES: u64 = 16 << 20;

/// Why a bundle cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Disk trouble.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signed list is refused.
    #[error(transparent)]
    List(#[from] CertificateError),
    /// What was asked for cannot be.
    #[error("{}: {what}", path.display())]
    Wrong {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// The content is not what was signed.
    #[error("{}: refused: {what}; nothing of it is kept", path.display())]
    Refused {
        /// The bundle.
        path: PathBuf,
        /// What was found, with the name of the file inside.
        what: String,
    },
}

/// What the list says beside names and digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// When it was packed, milliseconds since 1970, by the packer's clock.
    pub packed_unix_ms: u64,
    /// Version of the program that packed.
    pub jazari: String,
    /// Public key of the signer, PEM.
    pub signer: String,
    /// Sizes and kinds of the files, in the order of the archive.
    pub files: BTreeMap<String, Entry>,
}

/// A file of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its size.
    pub bytes: u64,
    /// Whether it may be run.
    pub executable: bool,
}

impl Predicate for Listing {
    const TYPE: &'static str = "urn:jazari:bundle:1";
    const WHAT: &'static str = "bundle";

    fn signer(&self) -> &str {
        &self.signer
    }
}

/// Packs files and folders, each under the name given, into `out`, which must not exist.
///
/// # Errors
/// When a file cannot be read, is a link, or `out` cannot be written.
pub fn pack(
    out: &Path,
    content: &[(String, PathBuf)],
    key: &PrivateKey,
    on_bytes: OnBytes<'_>,
) -> Result<Statement<Listing>, BundleError> {
    if out.exists() {
        return Err(wrong(out, "it exists already; move it away, or choose another name"));
    }
    let files = collect(content)?;
    let statement = list(&files, key, on_bytes)?;
    let temporary = out.with_extension(format!("{}.tmp", std::process::id()));
    let written = write(&temporary, &files, &statement, key, on_bytes);
    let committed = written.and_then(|()| {
        fs::rename(&temporary, out).map_err(FileError::at(out, "put the bundle into place"))?;
        Ok(())
    });
    if committed.is_err() {
        // Half a bundle is of no use to anybody.
        let _ = fs::remove_file(&temporary);
    }
    committed.map(|()| statement)
}

fn wrong(path: &Path, what: impl Into<String>) -> BundleError {
    BundleError::Wrong { path: path.to_owned(), what: what.into() }
}

/// Every file by its name in the bundle.
fn collect(content: &[(String, PathBuf)]) -> Result<BTreeMap<String, PathBuf>, BundleError> {
    let mut files = BTreeMap::new();
    for (name, path) in content {
        if !is_safe(name) || name == LIST {
            return Err(wrong(path, format!("`{name}` is no name for a file of a bundle; write NAME=PATH")));
        }
        let kind = fs::metadata(path).map_err(FileError::at(path, "look at"))?;
        let inside: Vec<(String, PathBuf)> = if kind.is_dir() {
            let found = subjects::files_of(path)?;
            found.into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)).collect()
        } else {
            vec![(name.clone(), path.clone())]
        };
        if inside.is_empty() {
            return Err(wrong(path, "there is no file in it; leave it out"));
        }
        for (name, path) in inside {
            if files.insert(name.clone(), path.clone()).is_some() {
                return Err(wrong(
                    &path,
                    format!("two files would be called `{name}`; write NAME=PATH for one of them"),
                ));
            }
        }
    }
    Ok(files)
}

/// The signed list of files.
fn list(
    files: &BTreeMap<String, PathBuf>,
    key: &PrivateKey,
    on_bytes: OnBytes<'_>,
) -> Result<Statement<Listing>, BundleError> {
    let mut subject = subjects::describe("bundle", files, on_bytes)?;
    // Of a bundle the names are those inside it.
    subject.iter_mut().for_each(|one| one.name = one.name.trim_start_matches("bundle/").to_owned());
    let mut entries = BTreeMap::new();
    for (name, path) in files {
        let metadata = fs::metadata(path).map_err(FileError::at(path, "look at"))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        entries.insert(name.clone(), Entry { bytes: metadata.len(), executable });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let listing = Listing {
        packed_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        jazari: env!("CARGO_PKG_VERSION").into(),
        signer: key.public().to_pem(),
        files: entries,
    };
    Ok(Statement::new(subject, listing))
}

fn write(
    path: &Path,
    files: &BTreeMap<String, PathBuf>,
    statement: &Statement<Listing>,
    key: &PrivateKey,
    on_bytes: OnBytes<'_>,
) -> Result<(), BundleError> {
    let at = |action: &'static str| FileError::at(path, action);
    let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(at("create"))?;
    let encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(at("compress"))?;
    let mut archive = tar::Builder::new(encoder);
    let text = statement.seal(key);
    archive.append_data(&mut header(text.len() as u64, false), LIST, text.as_bytes()).map_err(at("write"))?;
    for (name, source) in files {
        let Some(entry) = statement.predicate.files.get(name) else { continue };
        let opened = File::open(source).map_err(FileError::at(source, "open"))?;
        // The size is in the list: a file that grows meanwhile is cut, and found out when it is unpacked.
        let content = Counted { inner: opened.take(entry.bytes), on_bytes };
        archive.append_data(&mut header(entry.bytes, entry.executable), name, content).map_err(at("write"))?;
    }
    let encoder = archive.into_inner().map_err(at("write"))?;
    let buffer = encoder.finish().map_err(at("write"))?;
    let file = buffer.into_inner().map_err(|error| at("write")(error.into_error()))?;
    file.sync_all().map_err(at("sync"))?;
    Ok(())
}

/// A header that says nothing of who packed it, and when.
fn header(bytes: u64, executable: bool) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header
}

struct Counted<'a, R> {
    inner: R,
    on_bytes: OnBytes<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.on_bytes)(count as u64);
        Ok(count)
    }
}

/// A relative name without tricks: it cannot leave the folder it is unpacked into.
fn is_safe(name: &str) -> bool {
    let is_plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    !name.is_empty()
        && name.len() <= NAME_LIMIT_BYTES
        && !name.contains(['\\', '\0'])
        && Path::new(name).components().all(is_plain)
        // `a//b`, `a/.` and `a/` are other spellings of a name that may be in the list as well.
        && name.split('/').all(|part| !part.is_empty() && part != ".")
}

/// Checks a bundle from its first byte to its last; with `into` its files are written there, and kept only when all of it is
/// as signed.
///
/// # Errors
/// [`BundleError::Refused`] names what is wrong; then nothing is kept.
pub fn open(
    path: &Path,
    trusted: Option<&PublicKey>,
    into: Option<&Path>,
    on_bytes: OnBytes<'_>,
) -> Result<Opened<Listing>, BundleError> {
    let Some(out) = into else { return read(path, trusted, None, on_bytes) };
    if out.exists() {
        return Err(wrong(out, "it exists already; choose a folder that does not"));
    }
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = out.with_file_name(format!(".{name}.{}.unpacking", std::process::id()));
    durable::create_folder(&temporary)?;
    let unpacked = read(path, trusted, Some(&temporary), on_bytes).and_then(|opened| {
        fs::rename(&temporary, out).map_err(FileError::at(out, "put the files into place"))?;
        Ok(opened)
    });
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    unpacked
}

fn read(
    path: &Path,
    trusted: Option<&PublicKey>,
    into: Option<&Path>,
    on_bytes: OnBytes<'_>,
) -> Result<Opened<Listing>, BundleError> {
    let refused = |what: String| BundleError::Refused { path: path.to_owned(), what };
    let damaged = |error: io::Error| refused(format!("it is no whole bundle ({error})"));
    let file = durable::open_file(path)?;
    let mut decoder = zstd::Decoder::new(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(damaged)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(damaged)?;
    let mut archive = tar::Archive::new(decoder);
    // Raw: names that are longer than a header are read here, where their length is bounded.
    let mut entries = archive.entries().map_err(damaged)?.raw(true);
    let first = entries.next().ok_or_else(|| refused("it is empty".into()))?.map_err(damaged)?;
    let opened = signed_list(path, first, trusted)?;
    let Statement { subject, predicate: Listing { files, .. }, .. } = &opened.statement;
    let digests: BTreeMap<&str, &str> =
        subject.iter().map(|one| (one.name.as_str(), one.digest.sha256.as_str())).collect();
    if digests.len() != subject.len() || !digests.keys().copied().eq(files.keys().map(String::as_str)) {
        return Err(refused("its list contradicts itself".into()));
    }
    if let Some(folder) = into {
        check_space(folder, files)?;
    }
    let mut missing: BTreeMap<&str, &str> = digests;
    let mut long_name = None;
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        let name = name_of(&mut entry).map_err(&refused)?;
        if entry.header().entry_type().is_gnu_longname() {
            long_name = Some(name);
            continue;
        }
        let name = long_name.take().unwrap_or(name);
        let Some((digest, expected)) = missing.remove(name.as_str()).zip(files.get(&name)) else {
            return Err(refused(format!("`{name}` is not in its list, or stands there twice")));
        };
        if !is_safe(&name) {
            return Err(refused(format!("`{name}` would leave the folder it is unpacked into")));
        }
        if !entry.header().entry_type().is_file() || entry.size() != expected.bytes {
            return Err(refused(format!("`{name}` is no file of {} bytes", expected.bytes)));
        }
        let target = into.map(|folder| create(folder, &name, expected.executable)).transpose()?;
        let found = copy(&mut entry, target, on_bytes).map_err(damaged)?;
        if found != *digest {
            return Err(refused(format!("`{name}` was changed: its SHA-256 is not the signed one")));
        }
    }
    match missing.keys().next() {
        Some(name) => Err(refused(format!("`{name}` is missing"))),
        None => Ok(opened),
    }
}

/// The name of an entry, or the one that it holds for the next entry.
fn name_of<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<String, String> {
    let mut bytes = entry.path_bytes().into_owned();
    if entry.header().entry_type().is_gnu_longname() {
        bytes.clear();
        let limit = NAME_LIMIT_BYTES as u64 + 1;
        entry.take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("a name cannot be read ({error})"))?;
        if bytes.len() as u64 > limit {
            return Err(format!("a name is longer than {NAME_LIMIT_BYTES} bytes"));
        }
        // It ends in a zero.
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| "a name is not UTF-8".into())
}

fn signed_list<R: Read>(
    path: &Path,
    mut entry: tar::Entry<'_, R>,
    trusted: Option<&PublicKey>,
) -> Result<Opened<Listing>, BundleError> {
    let refused = |what: String| BundleError::Refused { path: path.to_owned(), what };
    if entry.path_bytes().as_ref() != LIST.as_bytes() || entry.size() > LIST_LIMIT_BYTES {
        return Err(refused(format!("it does not begin with {LIST}: this is no bundle")));
    }
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(|error| refused(format!("{LIST} cannot be read ({error})")))?;
    Ok(Statement::open(path, &text, trusted)?)
}

fn check_space(folder: &Path, files: &BTreeMap<String, Entry>) -> Result<(), BundleError> {
    let needed = files.values().fold(SPARE_BYTES, |sum, entry| sum.saturating_add(entry.bytes));
    match durable::free_bytes(folder) {
        Some(free) if free < needed => {
            Err(wrong(folder, format!("the files need {needed} bytes and {free} are free; free some space")))
        }
        _ => Ok(()),
    }
}

/// A new file in the folder that is being unpacked.
fn create(folder: &Path, name: &str, executable: bool) -> Result<(File, PathBuf), BundleError> {
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        durable::create_folder(parent)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    Ok((file.map_err(FileError::at(&path, "create"))?, path))
}

/// Reads an entry to its end, writes it where asked, and returns its SHA-256.
fn copy(entry: &mut impl Read, target: Option<(File, PathBuf)>, on_bytes: OnBytes<'_>) -> io::Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0u8; BUFFER_BYTES]);
    let mut target = target.map(|(file, _)| file);
    loop {
        let count = entry.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        hasher.update(read);
        if let Some(file) = &mut target {
            file.write_all(read)?;
        }
        on_bytes(count as u64);
    }
    if let Some(file) = target {
        file.sync_all()?;
    }
    Ok(hex(&hasher.finalize()))
}

/// The files of an opened bundle, for people.
pub fn total(opened: &Opened<Listing>) -> (usize, u64) {
    let files = &opened.statement.predicate.files;
    (files.len(), files.values().map(|entry| entry.bytes).sum())
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
