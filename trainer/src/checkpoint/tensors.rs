//! Owns reading and writing safetensors files of f32 tensors; never touches what the tensors are for.
//!
//! Files are written as a stream, one tensor in memory at a time, while their BLAKE3 is taken. Format:
//! <https://huggingface.co/docs/safetensors>: u64 header length, JSON header, data.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::CheckpointError;
use super::manifest::FileEntry;
use crate::durable::FileError;

/// Largest header that is read, bytes; the format allows 100 MB, real ones are far smaller.
const HEADER_LIMIT_BYTES: u64 = 16 << 20;
/// Size of the buffer for hashing and copying, bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// One tensor to be written; `bytes` is called once, in order.
pub struct Entry<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Little-endian f32 values.
    pub bytes: Box<dyn FnOnce() -> Vec<u8> + 'a>,
}

/// Writes `entries` to a new file, syncs it and returns its description.
///
/// # Errors
/// When the disk refuses or a tensor's bytes do not fit its shape.
pub fn write(path: &Path, entries: Vec<Entry<'_>>) -> Result<FileEntry, CheckpointError> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0usize;
    for entry in &entries {
        let len = entry.shape.iter().product::<usize>() * 4;
        header.insert(
            entry.name.clone(),
            json!({ "dtype": "F32", "shape": entry.shape, "data_offsets": [offset, offset + len] }),
        );
        offset += len;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(FileError::at(path, "create the file"))?;
    let mut out =
        Hashing { inner: BufWriter::with_capacity(BUFFER_BYTES, file), hasher: blake3::Hasher::new(), bytes: 0 };
    out.put(path, &(header.len() as u64).to_le_bytes())?;
    out.put(path, &header)?;
    for entry in entries {
        let bytes = (entry.bytes)();
        let expected = entry.shape.iter().product::<usize>() * 4;
        if bytes.len() != expected {
            return Err(CheckpointError::Damaged {
                path: path.to_owned(),
                what: format!(
                    "tensor `{}` has {} bytes in memory, its shape needs {expected}",
                    entry.name,
                    bytes.len()
                ),
            });
        }
        out.put(path, &bytes)?;
    }
    let (hash, size) = (out.hasher.finalize(), out.bytes);
    let file = out.inner.into_inner().map_err(|e| FileError::at(path, "write")(e.into_error()))?;
    file.sync_all().map_err(FileError::at(path, "sync"))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileEntry { name, bytes: size, blake3: hash.to_hex().to_string() })
}

struct Hashing {
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Hashing {
    fn put(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes).map_err(FileError::at(path, "write"))
    }
}

/// Size and BLAKE3 of a file, read as a stream.
///
/// # Errors
/// When the file cannot be read.
pub fn describe(path: &Path) -> Result<FileEntry, FileError> {
    let mut file = File::open(path).map_err(FileError::at(path, "open"))?;
    let (mut hasher, mut bytes, mut buffer) = (blake3::Hasher::new(), 0u64, vec![0u8; BUFFER_BYTES]);
    loop {
        let n = file.read(&mut buffer).map_err(FileError::at(path, "read"))?;
        if n == 0 {
            break;
        }
        hasher.update(buffer.get(..n).unwrap_or_default());
        bytes += n as u64;
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileEntry { name, bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// Shape and place of a tensor in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Shape.
    pub shape: Vec<usize>,
    start: u64,
    len: u64,
}

/// An open safetensors file of f32 tensors.
pub struct TensorFile {
    path: std::path::PathBuf,
    file: BufReader<File>,
    data_start: u64,
    places: BTreeMap<String, Place>,
}

impl TensorFile {
    /// Opens a file and checks its header: sizes, types, contiguity.
    ///
    /// # Errors
    /// When the header is damaged or holds anything but f32 tensors.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let damaged = |what: String| CheckpointError::Damaged { path: path.to_owned(), what };
        let file = File::open(path).map_err(FileError::at(path, "open"))?;
        let size = file.metadata().map_err(FileError::at(path, "read the size"))?.len();
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut prefix = [0u8; 8];
        file.read_exact(&mut prefix).map_err(|_| damaged(format!("{size} bytes are too few for a header")))?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > HEADER_LIMIT_BYTES || header_len.saturating_add(8) > size {
            return Err(damaged(format!("the header claims {header_len} bytes of a file of {size}")));
        }
        let mut header = vec![0u8; usize::try_from(header_len).unwrap_or(0)];
        file.read_exact(&mut header).map_err(FileError::at(path, "read the header"))?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|e| damaged(format!("the header is not JSON: {e}")))?;
        let data_start = 8 + header_len;
        let places = places(&header, size - data_start).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), file, data_start, places })
    }

    /// Names and shapes, sorted by name.
    pub fn places(&self) -> &BTreeMap<String, Place> {
        &self.places
    }

    /// Little-endian bytes of one tensor.
    ///
    /// # Errors
    /// When there is no such tensor or the disk refuses.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        use std::io::{Seek, SeekFrom};
        let place = self.places.get(name).ok_or_else(|| CheckpointError::Damaged {
            path: self.path.clone(),
            what: format!("tensor `{name}` is missing"),
        })?;
        let mut bytes = vec![0u8; usize::try_from(place.len).unwrap_or(0)];
        self.file
            .seek(SeekFrom::Start(self.data_start + place.start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(FileError::at(&self.path, "read a tensor"))?;
        Ok(bytes)
    }
}

fn places(header: &Map<String, Value>, data_len: u64) -> Result<BTreeMap<String, Place>, String> {
    let mut places = BTreeMap::new();
    for (name, info) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        if info.get("dtype").and_then(Value::as_str) != Some("F32") {
            return Err(format!("tensor `{name}` is not F32"));
        }
        let numbers =
            |key: &str| -> Option<Vec<u64>> { info.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
        let (Some(shape), Some(offsets)) = (numbers("shape"), numbers("data_offsets")) else {
            return Err(format!("tensor `{name}` has no shape or offsets"));
        };
        let bytes = shape.iter().try_fold(4u64, |n, &d| n.checked_mul(d));
        match (offsets.as_slice(), bytes) {
            (&[start, end], Some(len)) if end.checked_sub(start) == Some(len) && end <= data_len => {
                let shape = shape.iter().map(|&d| d as usize).collect();
                places.insert(name.clone(), Place { shape, start, len });
            }
            _ => return Err(format!("the offsets of tensor `{name}` do not fit its shape or the file")),
        }
    }
    let mut ordered: Vec<_> = places.values().map(|p| (p.start, p.start + p.len)).collect();
    ordered.sort_unstable();
    let mut end = 0;
    for (start, stop) in ordered {
        if start != end {
            return Err("the tensors overlap or leave holes".into());
        }
        end = stop;
    }
    if end == data_len { Ok(places) } else { Err(format!("{} bytes belong to no tensor", data_len - end)) }
}

/// f32 values of little-endian bytes.
pub fn to_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}
