//! Owns the model sizes that have a name; never decides which one a run uses.
//!
//! Widths are multiples of 64 so that matrix kernels run at full width, heads are 64 wide, and the feed-forward width
//! is about 8/3 of the hidden width, which gives SwiGLU the parameters of a plain 4x layer (Shazeer, arXiv 2002.05202).

use super::raw::SizePreset;

/// Dimensions of a preset, with the field names of Hugging Face.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Whether the embedding is the output layer too.
    pub tie_word_embeddings: bool,
}

/// All presets, smallest first.
pub const ALL: [SizePreset; 6] =
    [SizePreset::M3, SizePreset::M10, SizePreset::M30, SizePreset::M110, SizePreset::M350, SizePreset::B1];

impl SizePreset {
    /// The dimensions behind the name.
    pub fn dimensions(self) -> Dimensions {
        let (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads) = match self {
            SizePreset::M3 => (128, 384, 4, 2, 1),
            SizePreset::M10 => (256, 704, 8, 4, 2),
            SizePreset::M30 => (512, 1408, 8, 8, 4),
            SizePreset::M110 => (768, 2048, 12, 12, 12),
            SizePreset::M350 => (1024, 2816, 24, 16, 16),
            SizePreset::B1 => (2048, 8192, 16, 32, 8),
        };
        let (head_dim, tie_word_embeddings) = (64, true);
        Dimensions {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            tie_word_embeddings,
        }
    }

    /// Parameters that the name promises, and the vocabulary it is counted with.
    pub fn nominal(self) -> (u64, usize) {
        match self {
            SizePreset::M3 => (3_000_000, 16_384),
            SizePreset::M10 => (10_000_000, 16_384),
            SizePreset::M30 => (30_000_000, 16_384),
            SizePreset::M110 => (110_000_000, 32_768),
            SizePreset::M350 => (350_000_000, 32_768),
            SizePreset::B1 => (1_000_000_000, 32_768),
        }
    }
}
