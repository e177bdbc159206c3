//! Owns the number formats and metadata values of GGUF; never touches files.

/// First bytes of every file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Version that is written; 2 differs only in what it allows and is read as well.
pub(super) const VERSION: u32 = 3;
/// Tensors begin at multiples of this unless `general.alignment` says otherwise.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
/// Elements of a super-block of the K formats.
pub(super) const SUPER_BLOCK: usize = 256;
/// Elements of a block of the older formats.
pub(super) const BLOCK: usize = 32;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain floating point.
    Bf16,
    /// 32 elements of 5 bits and a scale.
    Q5_0,
    /// 32 elements of 8 bits and a scale.
    Q8_0,
    /// 256 elements of 4 bits; 8 scales and minima of 6 bits.
    Q4K,
    /// 256 elements of 5 bits; 8 scales and minima of 6 bits.
    Q5K,
    /// 256 elements of 6 bits; 16 scales of 8 bits.
    Q6K,
}

impl TensorType {
    /// Every format that is read and written.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q5_0, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K];

    /// The number that stands in files (`enum ggml_type`).
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The format of a number in a file.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name llama.cpp prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q5_0 => "Q5_0",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together; rows are multiples of it.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q5_0 | Self::Q8_0 => BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER_BLOCK,
        }
    }

    /// Bytes of one block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            // A scale, a word of high bits, half a byte an element.
            Self::Q5_0 => 2 + 4 + BLOCK / 2,
            Self::Q8_0 => 2 + BLOCK,
            // Scale of scales, scale of minima, 8 pairs of 6 bits, half a byte an element; one more bit for Q5_K.
            Self::Q4K => 2 + 2 + 12 + SUPER_BLOCK / 2,
            Self::Q5K => 2 + 2 + 12 + SUPER_BLOCK / 8 + SUPER_BLOCK / 2,
            // Low nibbles, high pairs of bits, 16 scales, a scale of scales.
            Self::Q6K => SUPER_BLOCK / 2 + SUPER_BLOCK / 4 + SUPER_BLOCK / 16 + 2,
        }
    }
}

/// A metadata value. Arrays of arrays do not occur in model files and are not read.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Strings(Vec<String>),
    /// Whole numbers of any width, written as I32.
    Integers(Vec<i64>),
    /// Floating point numbers of any width, written as F32.
    Floats(Vec<f32>),
    Bools(Vec<bool>),
}

impl Value {
    /// A whole number of at least 0 of any width.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(v) => Some((*v).into()),
            Self::U16(v) => Some((*v).into()),
            Self::U32(v) => Some((*v).into()),
            Self::U64(v) => Some(*v),
            Self::I8(v) => (*v).try_into().ok(),
            Self::I16(v) => (*v).try_into().ok(),
            Self::I32(v) => (*v).try_into().ok(),
            Self::I64(v) => (*v).try_into().ok(),
            _ => None,
        }
    }

    /// A number. Single precision is widened to the shortest decimal that it rounds from: 1e-5 stays 1e-5.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::F32(v) => v.to_string().parse().ok(),
            Self::F64(v) => Some(*v),
            _ => None,
        }
    }

    /// A text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// A truth value.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number of the type in files.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Strings(_) | Self::Integers(_) | Self::Floats(_) | Self::Bools(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }
}
