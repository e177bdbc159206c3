//! Owns writing one GGUF file as a stream, one piece of a tensor in memory at a time; never touches what it means.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::GgufError;
use super::types::{DEFAULT_ALIGNMENT, MAGIC, TensorType, VERSION, Value};
use crate::durable::FileError;

const BUFFER_BYTES: usize = 1 << 20;

/// One tensor to be written. `pieces` are called once each, in order; together they hold the whole tensor.
pub struct Entry<'a> {
    /// Name in the file.
    pub name: String,
    /// Shape, slowest dimension first, as Hugging Face writes it; the file has it reversed.
    pub shape: Vec<usize>,
    /// Number format.
    pub kind: TensorType,
    /// Bytes of whole blocks.
    pub pieces: Vec<Piece<'a>>,
}

/// Makes the bytes of a part of a tensor.
pub type Piece<'a> = Box<dyn FnOnce() -> Result<Vec<u8>, GgufError> + 'a>;

impl Entry<'_> {
    fn len(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 / self.kind.block_len() as u64 * self.kind.block_bytes() as u64
    }
}

/// Writes a new file, syncs it and returns its size in bytes. `written` is told the number of tensors done.
///
/// # Errors
/// When the disk refuses, or what a piece returns.
pub fn write(
    path: &Path,
    metadata: &[(String, Value)],
    entries: Vec<Entry<'_>>,
    written: &dyn Fn(usize),
) -> Result<u64, GgufError> {
    let file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(FileError::at(path, "create the file"))?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut size = put(&mut out, path, &header(metadata, &entries))?;
    for (done, entry) in entries.into_iter().enumerate() {
        let (len, mut found) = (entry.len(), 0);
        for piece in entry.pieces {
            found += put(&mut out, path, &piece()?)?;
        }
        if found != len {
            return Err(GgufError::Differs {
                what: format!("tensor {:?} has {found} bytes instead of {len}", entry.name),
            });
        }
        size += found + put(&mut out, path, padding(found))?;
        written(done + 1);
    }
    let file = out.into_inner().map_err(|error| FileError::at(path, "write")(error.into_error()))?;
    file.sync_all().map_err(FileError::at(path, "sync"))?;
    Ok(size)
}

fn put(out: &mut BufWriter<File>, path: &Path, bytes: &[u8]) -> Result<u64, FileError> {
    out.write_all(bytes).map_err(FileError::at(path, "write"))?;
    Ok(bytes.len() as u64)
}

/// Zeros up to the next multiple of the alignment.
fn padding(len: u64) -> &'static [u8] {
    const ZEROS: [u8; DEFAULT_ALIGNMENT as usize] = [0; DEFAULT_ALIGNMENT as usize];
    let missing = len.next_multiple_of(DEFAULT_ALIGNMENT) - len;
    ZEROS.get(..missing as usize).unwrap_or_default()
}

fn header(metadata: &[(String, Value)], entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut bytes, key);
        bytes.extend(value.code().to_le_bytes());
        put_value(&mut bytes, value);
    }
    let mut offset = 0_u64;
    for entry in entries {
        put_text(&mut bytes, &entry.name);
        bytes.extend((entry.shape.len() as u32).to_le_bytes());
        for size in entry.shape.iter().rev() {
            bytes.extend((*size as u64).to_le_bytes());
        }
        bytes.extend(entry.kind.code().to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += entry.len().next_multiple_of(DEFAULT_ALIGNMENT);
    }
    let missing = padding(bytes.len() as u64);
    bytes.extend(missing);
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    let list = |bytes: &mut Vec<u8>, code: u32, len: usize| {
        bytes.extend(code.to_le_bytes());
        bytes.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U8(v) => bytes.push(*v),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push(u8::from(*v)),
        Value::String(v) => put_text(bytes, v),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
        Value::Strings(items) => {
            list(bytes, 8, items.len());
            items.iter().for_each(|item| put_text(bytes, item));
        }
        Value::Integers(items) => {
            list(bytes, 5, items.len());
            items.iter().for_each(|item| bytes.extend((*item as i32).to_le_bytes()));
        }
        Value::Floats(items) => {
            list(bytes, 6, items.len());
            items.iter().for_each(|item| bytes.extend(item.to_le_bytes()));
        }
        Value::Bools(items) => {
            list(bytes, 7, items.len());
            items.iter().for_each(|item| bytes.push(u8::from(*item)));
        }
    }
}
