//! Owns the order in which gradients of micro-batches are added; never touches the device's kernels or the network.
//!
//! The micro-batches of a step are the leaves of one fixed binary tree. Leaves arrive from left to right and are merged
//! like the carries of a binary counter, so a step with any number of leaves has exactly one tree, and a process that
//! holds an aligned power-of-two block of leaves computes one of its inner nodes. Continued across processes this
//! gives the same bits for 1, 2, 4, 8 processes (`docs/adr/0002-the-sum-is-a-tree.md`).

use crate::step::StepGradients;

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

/// A [`TreeSum`] of gradients.
#[derive(Default)]
pub struct GradientSum(TreeSum<StepGradients>);

impl GradientSum {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: StepGradients) {
        self.0.push(leaf, merge);
    }

    /// The root; `None` when no leaf was pushed.
    pub fn finish(self) -> Option<StepGradients> {
        self.0.finish(merge)
    }
}

fn merge(left: StepGradients, right: StepGradients) -> StepGradients {
    let grads = left.grads.into_iter().zip(right.grads).map(|(a, b)| model_zoo::ops::add(a, b)).collect();
    StepGradients { loss_sum: left.loss_sum + right.loss_sum, valid: left.valid + right.valid, grads }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};

    fn leaf(value: f32) -> StepGradients {
        let grad = Tensor::<1>::from_data(TensorData::new(vec![value], [1]), &Device::flex());
        StepGradients { loss_sum: f64::from(value), valid: 1, grads: vec![grad] }
    }

    fn sum(values: &[f32]) -> f32 {
        let mut sum = GradientSum::default();
        for &value in values {
            sum.push(leaf(value));
        }
        match sum.finish() {
            Some(mut root) => root.grads.remove(0).into_scalar::<f32>(),
            None => f32::NAN,
        }
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
        assert!(GradientSum::default().finish().is_none());
    }
}
