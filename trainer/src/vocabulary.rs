//! Owns giving a trained model the rows of a larger vocabulary; never touches how the vocabulary was learned.
//!
//! A new token begins as the mean of the rows of the old tokens that spelled it, in the embedding and in the output
//! head: the model then reads and writes it about as it did the pieces (as in Hewitt, "Initializing New Word Embeddings
//! for Pretrained Language Models", 2021, with the pieces' mean in the place of the mean of all).

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use data_pipeline::tokenizer::{Tokenizer, TokenizerError};
use model_zoo::{Model, ModelConfig, Params};
use serde_json::Value;

use crate::hub::{HubError, Imported};

/// Tensors with a row for each token, in the names of all families.
const VOCABULARY_TENSORS: [&str; 3] = ["embed_tokens.weight", "wte.weight", "lm_head.weight"];

/// Why the tokenizer of the data does not go with the base model.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// A tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The base model's ids mean something else in the data.
    #[error(
        "the data set was prepared with another tokenizer than `base_model`'s: token {id} is {data:?} in the data and \
         {base:?} in the model; prepare the data with `tokenizer: {{path: {}}}`, or with an extension of it made by \
         `jazari tokenizer extend`",
        folder.display()
    )]
    Other {
        /// The first id that differs.
        id: u32,
        /// What it is in the data.
        data: String,
        /// What it is in the model.
        base: String,
        /// Folder of the model's tokenizer.
        folder: std::path::PathBuf,
    },
    /// A new token cannot be spelled with old ones.
    #[error("token {id} ({piece:?}) of the data set cannot be spelled with the tokens of `base_model`")]
    NotSpelled {
        /// The id.
        id: u32,
        /// As the tokenizer.json spells it.
        piece: String,
    },
}

/// The tokens that the data set's tokenizer has beyond the base model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// First new id.
    pub first: usize,
    /// For each new id the old ids that spell it, one or more.
    pub spelled: Vec<Vec<u32>>,
}

/// Compares the tokenizer of a base model with the data set's; `None` when the data has no further tokens, or the base
/// model comes without a tokenizer.
///
/// # Errors
/// When an old id has another meaning in the data.
pub fn extension(base: &Path, data: &Path) -> Result<Option<Extension>, VocabularyError> {
    if !base.join("tokenizer.json").is_file() {
        return Ok(None);
    }
    let (folder, base, data) = (base, Tokenizer::open(base)?, Tokenizer::open(data)?);
    if base.digest() == data.digest() {
        return Ok(None);
    }
    let first = base.vocab_size();
    for id in 0..first.min(data.vocab_size()) as u32 {
        let (old, new) = (base.piece(id), data.piece(id));
        if old.is_some() && old != new {
            let [data, base] = [new, old].map(Option::unwrap_or_default);
            return Err(VocabularyError::Other { id, data, base, folder: folder.to_owned() });
        }
    }
    if data.vocab_size() <= first {
        return Ok(None);
    }
    let spell = |id: usize| {
        let id = id as u32;
        let piece = data.piece(id).unwrap_or_default();
        let ids = base.spell(&piece)?;
        if ids.is_empty() { Err(VocabularyError::NotSpelled { id, piece }) } else { Ok(ids) }
    };
    let spelled = (first..data.vocab_size()).map(spell).collect::<Result<_, _>>()?;
    Ok(Some(Extension { first, spelled }))
}

impl Extension {
    /// Size of the extended vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.first + self.spelled.len()
    }

    /// In words, for the note at the start.
    pub fn summary(&self) -> String {
        let pieces: usize = self.spelled.iter().map(Vec::len).sum();
        format!(
            "the vocabulary grows from {} to {} tokens: each new row of embedding and head is the mean of the {:.1} old \
             tokens (on average) that spell it",
            self.first,
            self.vocab_size(),
            pieces as f64 / self.spelled.len().max(1) as f64
        )
    }

    /// The model with at least as many rows as the vocabulary.
    ///
    /// # Errors
    /// When the family refuses the size.
    pub fn widen(&self, config: &ModelConfig) -> Result<ModelConfig, model_zoo::config::ConfigError> {
        let size = config.vocab_size().max(self.vocab_size());
        let mut json: Value = serde_json::from_str(&config.to_checkpoint_json()).unwrap_or_default();
        if let Some(keys) = json.as_object_mut() {
            keys.insert("vocab_size".into(), size.into());
        }
        ModelConfig::from_hub_json(&json.to_string())
    }

    /// The parameters of the wider model, in f32 on `device`.
    ///
    /// # Errors
    /// When the device refuses, or the base model has fewer rows than its tokenizer tokens.
    pub fn apply(&self, base: &Imported, wide: &Model, device: &Device) -> Result<Params, HubError> {
        let specs = wide.specs();
        let mut tensors = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let mut values = base.params.to_host(index)?;
            if let (true, [rows, width]) = (is_by_token(&spec.name), spec.shape.as_slice()) {
                values = self.extended(&values, *rows, *width);
            }
            let count = values.len();
            tensors.push(Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32)));
        }
        Ok(Params::from_tensors(specs, tensors)?)
    }

    /// `values` `[old rows, width]` with `rows` rows, the new tokens' filled with means.
    fn extended(&self, values: &[f32], rows: usize, width: usize) -> Vec<f32> {
        let mut wide = values.to_vec();
        wide.resize(rows * width, 0.0);
        for (id, spelled) in (self.first..).zip(&self.spelled) {
            let mut sum = vec![0.0_f64; width];
            for old in spelled {
                let at = *old as usize * width;
                let row = values.get(at..at + width).unwrap_or_default();
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let slots = wide.get_mut(id * width..(id + 1) * width).unwrap_or_default();
            slots.iter_mut().zip(sum).for_each(|(slot, sum)| *slot = (sum / spelled.len().max(1) as f64) as f32);
        }
        wide
    }
}

fn is_by_token(name: &str) -> bool {
    VOCABULARY_TENSORS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_rows_are_means_and_old_rows_stay() {
        let extension = Extension { first: 3, spelled: vec![vec![0, 2], vec![1]] };
        let old = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        assert_eq!(extension.extended(&old, 6, 2), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 2.0, 20.0, 2.0, 20.0, 0.0, 0.0]);
        assert_eq!(extension.vocab_size(), 5);
        // A model whose rows were padded beyond its tokenizer already has places for the new tokens.
        let padded = [1.0, 2.0, 3.0, 9.0, 9.0];
        assert_eq!(extension.extended(&padded, 5, 1), [1.0, 2.0, 3.0, 2.0, 2.0]);
    }

    #[test]
    fn only_tensors_by_token_grow() {
        assert!(is_by_token("model.embed_tokens.weight") && is_by_token("lm_head.weight"));
        assert!(is_by_token("transformer.wte.weight") && !is_by_token("transformer.wpe.weight"));
    }
}
