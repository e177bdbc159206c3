//! Owns the order in which gradients of micro-batches are added; never touches the device's kernels or the network.
//!
//! The micro-batches of a step are the leaves of one fixed binary tree. Leaves arrive from left to right and are merged
//! like the carries of a binary counter, so a step with any number of leaves has exactly one tree, and a process that
//! holds an aligned power-of-two block of leaves computes one of its inner nodes. Continued across processes this
//! gives the same bits for 1, 2, 4, 8 processes (`docs/adr/0002-the-sum-is-a-tree.md`).

use burn::tensor::Tensor;

/// A sum of leaves under construction; memory is one value per set bit of the number of leaves so far.
#[derive(Debug)]
pub struct TreeSum<T> {
    /// Inner nodes with their height, leftmost first; heights strictly decrease.
    nodes: Vec<(u32, T)>,
}

impl<T> Default for TreeSum<T> {
    fn default() -> Self {
        Self { nodes: Vec::new() }
    }
}

impl<T> TreeSum<T> {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: T, merge: impl Fn(T, T) -> T) {
        let mut node = (0, leaf);
        while let Some((height, left)) = self.nodes.pop_if(|(height, _)| *height == node.0) {
            node = (height + 1, merge(left, node.1));
        }
        self.nodes.push(node);
    }

    /// The root: folds what is left from the right. `None` when no leaf was pushed.
    pub fn finish(mut self, merge: impl Fn(T, T) -> T) -> Option<T> {
        let (_, mut root) = self.nodes.pop()?;
        while let Some((_, left)) = self.nodes.pop() {
            root = merge(left, root);
        }
        Some(root)
    }
}

/// A [`TreeSum`] for each of several tensors: parameters, or pieces of them.
pub struct GradientSum(Vec<TreeSum<Tensor<1>>>);

impl GradientSum {
    /// Nothing added yet to any of `count` sums.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| TreeSum::default()).collect())
    }

    /// Adds the next leaf of sum `index`.
    pub fn add(&mut self, index: usize, leaf: Tensor<1>) {
        if let Some(sum) = self.0.get_mut(index) {
            sum.push(leaf, model_zoo::ops::add);
        }
    }

    /// The root of sum `index`, which is empty afterwards; `None` when no leaf was added.
    pub fn take(&mut self, index: usize) -> Option<Tensor<1>> {
        self.0.get_mut(index).map(std::mem::take).and_then(|sum| sum.finish(model_zoo::ops::add))
    }

    /// All roots; `None` when one of the sums has no leaf.
    #[must_use]
    pub fn finish(mut self) -> Option<Vec<Tensor<1>>> {
        (0..self.0.len()).map(|index| self.take(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn leaf(value: f32) -> Tensor<1> {
        Tensor::from_data(TensorData::new(vec![value], [1]), &Device::flex())
    }

    fn sum(values: &[f32]) -> f32 {
        let mut sum = GradientSum::new(1);
        for &value in values {
            sum.add(0, leaf(value));
        }
        sum.take(0).map_or(f32::NAN, |root| root.into_scalar::<f32>())
    }

    #[test]
    fn is_the_balanced_tree_for_powers_of_two() {
        let v = [1e8_f32, 1.0, -1e8, 3.0, 7e7, 0.25, -7e7, 1.5];
        let expected = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
        assert_eq!(sum(&v).to_bits(), expected.to_bits());
        let sequential: f32 = v.iter().sum();
        assert_ne!(sum(&v).to_bits(), sequential.to_bits(), "the values must be able to tell the orders apart");
    }

    #[test]
    fn blocks_of_processes_are_inner_nodes() {
        let v: Vec<f32> = (0..16).map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 7)).collect();
        let whole = sum(&v);
        for processes in [2, 4, 8] {
            let parts: Vec<f32> = v.chunks(v.len() / processes).map(sum).collect();
            assert_eq!(sum(&parts).to_bits(), whole.to_bits(), "{processes} processes");
        }
    }

    #[test]
    fn odd_numbers_of_leaves_have_one_tree() {
        let v = [1e8_f32, 1.0, -1e8];
        assert_eq!(sum(&v).to_bits(), ((v[0] + v[1]) + v[2]).to_bits());
        let v = [1.0_f32, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(sum(&v).to_bits(), (((v[0] + v[1]) + (v[2] + v[3])) + v[4]).to_bits());
        let mut sums = GradientSum::new(2);
        sums.add(1, leaf(2.0));
        assert!(sums.take(0).is_none(), "nothing was added");
        assert!(sums.finish().is_none(), "one of two sums is empty");
    }
}
