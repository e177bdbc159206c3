//! Owns Mistral's own layout: `params.json`, `consolidated.safetensors`, `tekken.json` or `tokenizer.model`, both ways;
//! never touches training state.
//!
//! Facts: mistral-inference (`args.py`, `transformer.py`) and mistral-common (`tekken.py`).

mod byte_order;
mod export;
mod import;
mod names;
mod settings;
mod tekken;

pub use export::{MistralReport, export};
pub use import::{import, is_layout, unpack_tokenizer};
pub use tekken::{from_hub as tekken_from_hub, to_hub as tekken_to_hub};

/// Names that Mistral's libraries look for.
pub(crate) const PARAMS_FILE: &str = "params.json";
pub(crate) const WEIGHTS_FILE: &str = "consolidated.safetensors";
pub(crate) const TEKKEN_FILE: &str = "tekken.json";
pub(crate) const SENTENCE_PIECE_FILE: &str = "tokenizer.model";
