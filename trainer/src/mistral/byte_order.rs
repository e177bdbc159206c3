//! Owns the order of the 256 bytes in a vocabulary: Tekken's, and that of the tokenizer a model was trained with; never
//! touches files.
//!
//! Tokenizers of the Hugging Face trainer, and ours, number the bytes in the order of the characters that stand for
//! them, Tekken by their value. An exported model gets Tekken's numbers, and its rows by token stand accordingly.

use burn::tensor::{DType, Device, Tensor, TensorData};
use model_zoo::Params;

use crate::hub::HubError;

/// Where the row of each id was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ByteOrder {
    /// The old id of each new one; ids past the end keep theirs.
    old_of_new: Vec<usize>,
}

impl ByteOrder {
    /// From the place that each byte had among the 256 after `num_specials` special tokens; `None` when each keeps its
    /// own.
    pub fn new(num_specials: usize, old_places: &[usize]) -> Option<Self> {
        let is_same = old_places.iter().enumerate().all(|(new, old)| new == *old);
        let bytes = old_places.iter().map(|old| num_specials + old);
        (!is_same).then(|| Self { old_of_new: (0..num_specials).chain(bytes).collect() })
    }

    /// The id that a new one was before.
    pub fn old(&self, id: u32) -> u32 {
        self.old_of_new.get(id as usize).and_then(|old| u32::try_from(*old).ok()).unwrap_or(id)
    }

    /// The rows of a tensor by token in the new order; other tensors as they are.
    pub fn apply(&self, name: &str, shape: &[usize], values: Vec<f32>) -> Vec<f32> {
        self.moved(name, shape, values, |new, old| (new, old))
    }

    /// All tensors with their rows in the old order.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn undo(&self, params: &Params, device: &Device) -> Result<Params, HubError> {
        let mut tensors = Vec::with_capacity(params.specs().len());
        for (index, spec) in params.specs().iter().enumerate() {
            let values = self.moved(&spec.name, &spec.shape, params.to_host(index)?, |new, old| (old, new));
            let count = values.len();
            tensors.push(Tensor::<1>::from_data(TensorData::new(values, [count]), (device, DType::F32)));
        }
        Ok(Params::from_tensors(params.specs().to_vec().into(), tensors)?)
    }

    fn moved(
        &self,
        name: &str,
        shape: &[usize],
        values: Vec<f32>,
        way: impl Fn(usize, usize) -> (usize, usize),
    ) -> Vec<f32> {
        let by_token = name == "model.embed_tokens.weight" || name == "lm_head.weight";
        let (true, [_, width]) = (by_token, shape) else { return values };
        let mut moved = values.clone();
        for (new, old) in self.old_of_new.iter().enumerate() {
            let (to, from) = way(new, *old);
            let row = values.get(from * width..(from + 1) * width);
            if let (Some(slot), Some(row)) = (moved.get_mut(to * width..(to + 1) * width), row) {
                slot.copy_from_slice(row);
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_with_their_bytes_and_back() {
        assert!(ByteOrder::new(2, &[0, 1, 2]).is_none());
        let Some(order) = ByteOrder::new(1, &[2, 0, 1]) else { return };
        let values = vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 9.0, 9.5];
        let moved = order.apply("lm_head.weight", &[5, 2], values.clone());
        assert_eq!(moved, [0.0, 0.5, 3.0, 3.5, 1.0, 1.5, 2.0, 2.5, 9.0, 9.5]);
        assert_eq!(order.moved("lm_head.weight", &[5, 2], moved, |new, old| (old, new)), values);
        assert_eq!(order.apply("model.norm.weight", &[10], values.clone()), values);
        assert_eq!((order.old(0), order.old(1), order.old(2), order.old(4)), (0, 3, 1, 4));
    }
}
