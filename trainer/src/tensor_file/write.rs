//! Owns writing one safetensors file as a stream while its BLAKE3 is taken; never touches how it is read back.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::durable::FileError;

/// Size of the buffer for hashing and copying, bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// One file as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name inside its folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hex BLAKE3 of the content.
    pub blake3: String,
}

/// One tensor to be written; `bytes` is called once, in order.
pub struct Entry<'a, E> {
    /// Name in the file.
    pub name: String,
    /// Number format of the bytes.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Little-endian values, row-major; as many bytes as `dtype` and `shape` say.
    pub bytes: Box<dyn FnOnce() -> Result<Vec<u8>, E> + 'a>,
}

impl<E> Entry<'_, E> {
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes `entries` to a new file, syncs it and returns its description.
///
/// # Errors
/// When the disk refuses, or what an entry's `bytes` returns.
pub fn write<E: From<FileError>>(path: &Path, entries: Vec<Entry<'_, E>>) -> Result<FileEntry, E> {
    let file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(FileError::at(path, "create the file"))?;
    let mut out =
        Hashing { inner: BufWriter::with_capacity(BUFFER_BYTES, file), hasher: blake3::Hasher::new(), bytes: 0 };
    let header = header(&entries);
    out.put(path, &(header.len() as u64).to_le_bytes())?;
    out.put(path, &header)?;
    for entry in entries {
        let len = entry.len();
        let bytes = (entry.bytes)()?;
        assert_eq!(bytes.len(), len, "the bytes of tensor {:?} fit its shape", entry.name);
        out.put(path, &bytes)?;
    }
    let (hash, size) = (out.hasher.finalize(), out.bytes);
    let file = out.inner.into_inner().map_err(|e| FileError::at(path, "write")(e.into_error()))?;
    file.sync_all().map_err(FileError::at(path, "sync"))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(FileEntry { name, bytes: size, blake3: hash.to_hex().to_string() })
}

/// The JSON header, padded with spaces so that the data begin at a multiple of 8 bytes.
fn header<E>(entries: &[Entry<'_, E>]) -> Vec<u8> {
    let mut header = Map::new();
    // Loaders of transformers 4 and mlx stop without this note.
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for entry in entries {
        let end = start + entry.len();
        let dtype = json!(entry.dtype);
        header
            .insert(entry.name.clone(), json!({ "dtype": dtype, "shape": entry.shape, "data_offsets": [start, end] }));
        start = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    text
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn entry(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Entry<'static, FileError> {
        Entry { name: name.into(), dtype, shape: shape.to_vec(), bytes: Box::new(move || Ok(bytes)) }
    }

    #[test]
    fn the_header_is_aligned_and_contiguous() {
        let bytes = header(&[entry("t0", Dtype::BF16, &[3], vec![]), entry("t1", Dtype::I64, &[5, 1], vec![])]);
        assert_eq!(bytes.len() % 8, 0);
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["t1"]["data_offsets"], json!([6, 46]));
        assert_eq!((&json["t0"]["dtype"], &json["t1"]["dtype"]), (&json!("BF16"), &json!("I64")));
        assert_eq!(json["__metadata__"]["format"], json!("pt"));
    }

    #[test]
    fn what_is_written_is_described_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let one = || vec![entry("w", Dtype::F32, &[2], [1.0_f32, 2.0].map(f32::to_le_bytes).concat())];
        let written = write(&path, one()).unwrap();
        assert_eq!(written, describe(&path).unwrap());
        assert_eq!(crate::tensor_file::TensorFile::open(&path).unwrap().floats("w").unwrap(), [1.0, 2.0]);
        assert!(write(&path, one()).unwrap_err().to_string().contains("cannot create the file"));
    }
}
