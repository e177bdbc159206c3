//! Owns opening GGUF files from anywhere, strictly and within limits; never touches what the tensors are for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::GgufError;
use super::quantise::dequantise;
use super::types::{DEFAULT_ALIGNMENT, MAGIC, TensorType, Value};
use crate::durable::FileError;

/// Most bytes of settings and descriptions; a vocabulary of 256k entries with its merges takes 20 MB.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Most items of one list.
const MAX_ITEMS: u64 = 1 << 22;
/// Most tensors and most settings.
const MAX_ENTRIES: u64 = 1 << 17;
const MAX_NAME_BYTES: u64 = 256;
const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment that is believed.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// Bytes of blocks that are read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a tensor stands and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// Shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Number format.
    pub kind: TensorType,
    /// First byte, from the start of the file.
    start: u64,
    /// Bytes.
    len: u64,
}

impl TensorPlace {
    /// Product of the shape.
    #[must_use]
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An open GGUF file whose header has been checked against its size.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorPlace>,
}

impl GgufFile {
    /// Opens a file: every setting and every tensor description is read and checked, no tensor is.
    ///
    /// # Errors
    /// [`GgufError::Damaged`] or [`GgufError::Unsupported`] says what is wrong and where.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path).map_err(FileError::at(path, "open"))?;
        let size = file.metadata().map_err(FileError::at(path, "read the size of"))?.len();
        let mut header = Header { path, input: BufReader::new(&file), at: 0, limit: size.min(MAX_HEADER_BYTES) };
        let (metadata, described) = header.read()?;
        let at = header.at;
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => value
                .as_u64()
                .filter(|a| a.is_power_of_two() && *a <= MAX_ALIGNMENT)
                .ok_or_else(|| damaged(path, format!("general.alignment is {value:?}, no power of two")))?,
        };
        let tensors = place_all(path, described, at.next_multiple_of(alignment), alignment, size)?;
        Ok(Self { path: path.to_owned(), file, metadata, tensors })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All settings by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// A setting.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All tensors by name.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, TensorPlace> {
        &self.tensors
    }

    /// The values of a tensor, widened to f32, row-major.
    ///
    /// # Errors
    /// When there is no such tensor or the disk refuses.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let place = self.tensors.get(name);
        let place = place.ok_or_else(|| damaged(&self.path, format!("tensor {name:?} is missing")))?;
        let mut values = Vec::with_capacity(place.num_elements());
        let refused = FileError::at(&self.path, "read a tensor of");
        let mut file = &self.file;
        let chunk = CHUNK_BYTES / place.kind.block_bytes() * place.kind.block_bytes();
        let mut copy = || -> std::io::Result<()> {
            file.seek(SeekFrom::Start(place.start))?;
            let mut left = place.len as usize;
            let mut buffer = vec![0_u8; chunk.min(left)];
            while left > 0 {
                let now = chunk.min(left);
                let piece = buffer.get_mut(..now).unwrap_or_default();
                file.read_exact(piece)?;
                dequantise(piece, place.kind, &mut values);
                left -= now;
            }
            Ok(())
        };
        copy().map_err(refused)?;
        Ok(values)
    }
}

fn damaged(path: &Path, cause: String) -> GgufError {
    GgufError::Damaged { path: path.to_owned(), cause }
}

/// A tensor as the header describes it: name, shape, format, offset.
type Described = (String, Vec<usize>, TensorType, u64);

/// Checks that the tensors fill the file without gaps, in the order in which they are described.
fn place_all(
    path: &Path,
    described: Vec<Described>,
    data_start: u64,
    alignment: u64,
    size: u64,
) -> Result<BTreeMap<String, TensorPlace>, GgufError> {
    let mut tensors = BTreeMap::new();
    let mut expected = 0_u64;
    let mut end = data_start;
    for (name, shape, kind, offset) in described {
        if offset != expected {
            return Err(damaged(path, format!("tensor {name:?} is said to begin at {offset}, but {expected} is next")));
        }
        let columns = shape.last().copied().unwrap_or_default();
        if !columns.is_multiple_of(kind.block_len()) {
            let (len, format) = (kind.block_len(), kind.name());
            return Err(damaged(
                path,
                format!("tensor {name:?} has rows of {columns}, no multiple of {len} ({format})"),
            ));
        }
        let elements = shape.iter().try_fold(1_u64, |n, size| n.checked_mul(*size as u64));
        let len = elements.and_then(|n| (n / kind.block_len() as u64).checked_mul(kind.block_bytes() as u64));
        let fits = len.and_then(|len| Some((len, data_start.checked_add(offset)?.checked_add(len)?)));
        let Some((len, last)) = fits.filter(|(_, last)| *last <= size) else {
            return Err(damaged(path, format!("tensor {name:?} of shape {shape:?} reaches beyond the {size} bytes")));
        };
        end = last;
        expected = (offset + len).next_multiple_of(alignment);
        let place = TensorPlace { shape, kind, start: data_start + offset, len };
        if tensors.insert(name.clone(), place).is_some() {
            return Err(damaged(path, format!("tensor {name:?} is described twice")));
        }
    }
    if size > end.next_multiple_of(alignment) {
        return Err(damaged(path, format!("{} bytes follow the last tensor", size - end)));
    }
    Ok(tensors)
}

/// The part of a file before its tensors.
struct Header<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    at: u64,
    /// No byte at or after this one belongs to the header.
    limit: u64,
}

impl Header<'_> {
    fn read(&mut self) -> Result<(BTreeMap<String, Value>, Vec<Described>), GgufError> {
        if &self.array::<4>()? != MAGIC {
            return Err(self.wrong("this is no GGUF file".into()));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            let cause = if version.swap_bytes() <= 3 { "is big-endian" } else { "has an unknown version" };
            let cause = format!("the file {cause} ({version:#x}); little-endian files of version 2 and 3 are read");
            return Err(GgufError::Unsupported { path: self.path.to_owned(), cause });
        }
        let (num_tensors, num_settings) = (self.u64()?, self.u64()?);
        if num_tensors > MAX_ENTRIES || num_settings > MAX_ENTRIES {
            return Err(self.wrong(format!("{num_tensors} tensors and {num_settings} settings cannot be")));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..num_settings {
            let key = self.text(MAX_NAME_BYTES, "a key")?;
            let code = self.u32()?;
            let value = self.value(&key, code)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.wrong(format!("key {key:?} is set twice")));
            }
        }
        let mut described = Vec::new();
        for _ in 0..num_tensors {
            described.push(self.tensor()?);
        }
        Ok((metadata, described))
    }

    fn tensor(&mut self) -> Result<Described, GgufError> {
        let name = self.text(MAX_NAME_BYTES, "a tensor name")?;
        let dimensions = self.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(self.wrong(format!("tensor {name:?} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            if !(1..=u64::from(u32::MAX)).contains(&size) {
                return Err(self.wrong(format!("tensor {name:?} has a dimension of {size}")));
            }
            shape.insert(0, size as usize);
        }
        let code = self.u32()?;
        let kind = TensorType::from_code(code).ok_or_else(|| {
            let read = TensorType::ALL.map(TensorType::name).join(", ");
            let cause = format!("tensor {name:?} has number format {code}, which is not read here; read: {read}");
            GgufError::Unsupported { path: self.path.to_owned(), cause }
        })?;
        Ok((name, shape, kind, self.u64()?))
    }

    fn value(&mut self, key: &str, code: u32) -> Result<Value, GgufError> {
        Ok(match code {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.truth(key)?),
            8 => Value::String(self.text(MAX_HEADER_BYTES, key)?),
            9 => self.list(key)?,
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(format!("key {key:?} has the unknown type {other}"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, GgufError> {
        let (code, items) = (self.u32()?, self.u64()?);
        if items > MAX_ITEMS {
            return Err(self.wrong(format!("key {key:?} claims a list of {items} items, more than {MAX_ITEMS}")));
        }
        // Items are counted only as they are found in the file: a claim reserves nothing.
        Ok(match code {
            8 => {
                let mut list = Vec::new();
                for _ in 0..items {
                    list.push(self.text(MAX_HEADER_BYTES, key)?);
                }
                Value::Strings(list)
            }
            7 => {
                let mut list = Vec::new();
                for _ in 0..items {
                    list.push(self.truth(key)?);
                }
                Value::Bools(list)
            }
            0..=5 | 10 | 11 => {
                let mut list = Vec::new();
                for _ in 0..items {
                    list.push(self.integer(code)?);
                }
                Value::Integers(list)
            }
            6 | 12 => {
                let mut list = Vec::new();
                for _ in 0..items {
                    list.push(if code == 6 {
                        f32::from_le_bytes(self.array()?)
                    } else {
                        f64::from_le_bytes(self.array()?) as f32
                    });
                }
                Value::Floats(list)
            }
            other => return Err(self.wrong(format!("key {key:?} is a list of type {other}, which is not read"))),
        })
    }

    fn integer(&mut self, code: u32) -> Result<i64, GgufError> {
        Ok(match code {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            11 => i64::from_le_bytes(self.array()?),
            _ => i64::try_from(self.u64()?).unwrap_or(i64::MAX),
        })
    }

    fn truth(&mut self, key: &str) -> Result<bool, GgufError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.wrong(format!("key {key:?} holds {other} for a truth value"))),
        }
    }

    fn text(&mut self, longest: u64, what: &str) -> Result<String, GgufError> {
        let len = self.u64()?;
        if len > longest || len > self.limit.saturating_sub(self.at) {
            return Err(self.wrong(format!("{what:?} claims a text of {len} bytes")));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.wrong(format!("{what:?} is not UTF-8")))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        if bytes.len() as u64 > self.limit.saturating_sub(self.at) {
            return Err(self.wrong("the header is cut off or too large".into()));
        }
        self.input.read_exact(bytes).map_err(FileError::at(self.path, "read"))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn wrong(&self, cause: String) -> GgufError {
        damaged(self.path, format!("at byte {}: {cause}", self.at))
    }
}
