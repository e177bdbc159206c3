//! Owns reading one safetensors file tensor by tensor; never touches what the tensors are for.
//!
//! Files are read, not mapped: a file that shrinks while it is open is then an error with a name, not a signal.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use model_zoo::WeightDtype;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::TensorFileError;
use crate::durable::{FileError, open_file};

/// Largest header that is read, bytes. The format allows 100 MB; a thousand tensors need a tenth of a megabyte.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Bytes read and widened at a time, so that a tensor's raw bytes never stand in memory beside its values.
const CHUNK_BYTES: usize = 1 << 20;

/// An open safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl TensorFile {
    /// Opens a file and checks its header: size, JSON, contiguity, and that it describes exactly the bytes there.
    ///
    /// # Errors
    /// [`TensorFileError::File`] or [`TensorFileError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let damaged = |cause: String| TensorFileError::Damaged { path: path.to_owned(), cause };
        let mut file = open_file(path)?;
        let size = file.metadata().map_err(FileError::at(path, "read the size of"))?.len();
        let mut prefix = [0_u8; 8];
        if size < prefix.len() as u64 {
            return Err(damaged(format!("{size} bytes are too few for a safetensors file")));
        }
        file.read_exact(&mut prefix).map_err(FileError::at(path, "read"))?;
        let header_len = u64::from_le_bytes(prefix);
        if header_len > MAX_HEADER_BYTES {
            return Err(damaged(format!("the header claims {header_len} bytes, more than {MAX_HEADER_BYTES}")));
        }
        let data_start = 8 + header_len;
        if data_start > size {
            return Err(damaged(format!("the header claims {header_len} bytes, the file has {size}")));
        }
        let mut header = vec![0_u8; header_len as usize];
        file.read_exact(&mut header).map_err(FileError::at(path, "read"))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| damaged(format!("the header is not valid: {error}")))?;
        let (described, stored) = (metadata.data_len() as u64, size - data_start);
        if described != stored {
            return Err(damaged(format!("the header describes {described} bytes of tensors, the file holds {stored}")));
        }
        Ok(Self { path: path.to_owned(), file, data_start, metadata })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names in the order of their bytes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Number format, shape and place of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Bytes of tensors.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.metadata.data_len() as u64
    }

    /// An entry of the header's `__metadata__`.
    #[must_use]
    pub fn note(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The number format of a float tensor.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`], or [`TensorFileError::Dtype`] for anything but F32, F16 and BF16.
    pub fn float_dtype(&self, name: &str) -> Result<WeightDtype, TensorFileError> {
        match self.find(name)?.dtype {
            Dtype::F32 => Ok(WeightDtype::F32),
            Dtype::F16 => Ok(WeightDtype::F16),
            Dtype::BF16 => Ok(WeightDtype::Bf16),
            other => Err(self.unreadable(name, other)),
        }
    }

    /// The values of a float tensor, widened to f32, row-major.
    ///
    /// # Errors
    /// As [`TensorFile::float_dtype`], or when the disk refuses.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        let count = self.find(name)?.shape.iter().product();
        self.floats_of(name, 0..count)
    }

    /// The same of some of its elements.
    ///
    /// # Errors
    /// As [`TensorFile::floats`]; [`TensorFileError::Damaged`] when the tensor has not so many elements.
    pub fn floats_of(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>, TensorFileError> {
        let dtype = self.float_dtype(name)?;
        let count: usize = self.find(name)?.shape.iter().product();
        if elements.start > elements.end || elements.end > count {
            let cause = format!("elements {elements:?} of tensor {name:?} were asked for, which has {count}");
            return Err(TensorFileError::Damaged { path: self.path.clone(), cause });
        }
        let mut values = Vec::with_capacity(elements.len());
        let bytes = elements.start * dtype.num_bytes()..elements.end * dtype.num_bytes();
        self.stream(name, bytes, |bytes| match dtype {
            WeightDtype::F32 => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            WeightDtype::F16 => values.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            WeightDtype::Bf16 => values.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
        })?;
        Ok(values)
    }

    /// The values of an I64 tensor, row-major.
    ///
    /// # Errors
    /// When the tensor is missing or of another type, or the disk refuses.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, TensorFileError> {
        let info = self.find(name)?;
        if info.dtype != Dtype::I64 {
            return Err(self.unreadable(name, info.dtype));
        }
        let mut values = Vec::with_capacity(info.shape.iter().product());
        let (start, end) = info.data_offsets;
        self.stream(name, 0..end - start, |bytes| {
            values.extend(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)))
        })?;
        Ok(values)
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, TensorFileError> {
        self.metadata
            .info(name)
            .ok_or_else(|| TensorFileError::Missing { path: self.path.clone(), name: name.to_owned() })
    }

    fn unreadable(&self, name: &str, dtype: Dtype) -> TensorFileError {
        TensorFileError::Dtype { path: self.path.clone(), name: name.to_owned(), dtype: format!("{dtype:?}") }
    }

    /// Hands some bytes of a tensor to `take` in order; every piece but the last has [`CHUNK_BYTES`].
    fn stream(&self, name: &str, bytes: Range<usize>, mut take: impl FnMut(&[u8])) -> Result<(), TensorFileError> {
        let start = self.find(name)?.data_offsets.0 + bytes.start;
        let read = FileError::at(&self.path, "read a tensor of");
        let mut file = &self.file;
        let mut copy = || -> std::io::Result<()> {
            file.seek(SeekFrom::Start(self.data_start + start as u64))?;
            let mut left = bytes.len();
            let mut buffer = vec![0_u8; CHUNK_BYTES.min(left)];
            while left > 0 {
                let piece = &mut buffer[..CHUNK_BYTES.min(left)];
                file.read_exact(piece)?;
                take(piece);
                left -= piece.len();
            }
            Ok(())
        };
        copy().map_err(|error| TensorFileError::File(read(error)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn refused(bytes: &[u8], part: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let message = TensorFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
        assert!(message.contains("x.safetensors"), "{message:?} names no file");
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn damaged_files_are_refused() {
        refused(b"", "0 bytes are too few");
        refused(&u64::MAX.to_le_bytes(), "the header claims 18446744073709551615 bytes, more than 16777216");
        refused(&with_header("{}", b"")[..9], "the header claims 2 bytes, the file has 9");
        refused(&with_header("{nonsense}", b""), "the header is not valid");
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        refused(&with_header(header, &[0; 7]), "the header describes 8 bytes of tensors, the file holds 7");
        refused(&with_header(header, &[0; 9]), "the header describes 8 bytes of tensors, the file holds 9");
        let hole = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        refused(&with_header(hole, &[0; 12]), "the header is not valid");
        let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,8]}}"#;
        refused(&with_header(huge, &[0; 8]), "the header is not valid");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        refused(&with_header(&deep, b""), "the header is not valid");
    }

    #[test]
    fn every_float_format_is_widened() {
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},"c":{"dtype":"F16","shape":[1,1],"data_offsets":[8,10]},"d":{"dtype":"I64","shape":[1],"data_offsets":[10,18]}}"#;
        let mut data = (-1.5_f32).to_le_bytes().to_vec();
        data.extend([bf16::from_f32(0.5), bf16::from_f32(-256.0)].iter().flat_map(|v| v.to_le_bytes()));
        data.extend(f16::from_f32(0.099_975_586).to_le_bytes());
        data.extend((-100_i64).to_le_bytes());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, with_header(header, &data)).unwrap();
        let shard = TensorFile::open(&path).unwrap();
        assert_eq!(shard.floats("a").unwrap(), [-1.5]);
        assert_eq!(shard.floats("b").unwrap(), [0.5, -256.0]);
        assert_eq!(shard.floats_of("b", 1..2).unwrap(), [-256.0]);
        let beyond = shard.floats_of("b", 1..3).unwrap_err().to_string();
        assert!(beyond.contains("elements 1..3 of tensor \"b\" were asked for, which has 2"), "{beyond}");
        assert_eq!(shard.floats("c").unwrap(), [0.099_975_586]);
        assert_eq!(shard.integers("d").unwrap(), [-100]);
        let wrong = shard.floats("d").unwrap_err().to_string();
        assert!(wrong.contains("tensor \"d\" is stored as I64"), "{wrong}");
        assert!(shard.floats("e").unwrap_err().to_string().contains("tensor \"e\" is missing"));
    }
}
