//! Owns values as bytes and their sums along the canonical tree; never touches connections.
//!
//! The plain loops below compile to vector instructions; on a little-endian machine the conversions are copies.

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 4;

/// Appends values to a buffer.
pub(super) fn append(buffer: &mut Vec<u8>, values: &[f32]) {
    let start = buffer.len();
    buffer.resize(start + values.len() * VALUE_BYTES, 0);
    write(buffer.get_mut(start..).unwrap_or_default(), values);
}

/// Writes values into a buffer that holds as many.
pub(super) fn write(buffer: &mut [u8], values: &[f32]) {
    let (words, _) = buffer.as_chunks_mut::<VALUE_BYTES>();
    for (word, value) in words.iter_mut().zip(values) {
        *word = value.to_le_bytes();
    }
}

/// Replaces values by received ones.
pub(super) fn copy(values: &mut [f32], bytes: &[u8]) {
    let (words, _) = bytes.as_chunks::<VALUE_BYTES>();
    for (value, word) in values.iter_mut().zip(words) {
        *value = f32::from_le_bytes(*word);
    }
}

/// Adds received values on the right: `value + received`.
pub(super) fn add_right(values: &mut [f32], bytes: &[u8]) {
    let (words, _) = bytes.as_chunks::<VALUE_BYTES>();
    for (value, word) in values.iter_mut().zip(words) {
        *value += f32::from_le_bytes(*word);
    }
}

/// Adds received values on the left: `received + value`. The same number, but the bits of a NaN follow the order.
#[allow(clippy::assign_op_pattern)]
pub(super) fn add_left(values: &mut [f32], bytes: &[u8]) {
    let (words, _) = bytes.as_chunks::<VALUE_BYTES>();
    for (value, word) in values.iter_mut().zip(words) {
        *value = f32::from_le_bytes(*word) + *value;
    }
}

/// Adds the contributions of ranks in the order of `gradient_sum.rs`: like the carries of a binary counter, what is
/// left at the end is folded from the right. Buffers are reused.
#[derive(Default)]
pub(super) struct Tree {
    nodes: Vec<(u32, Vec<f32>)>,
    spare: Vec<Vec<f32>>,
}

impl Tree {
    /// Adds the next rank's values.
    pub(super) fn push_values(&mut self, values: &[f32]) {
        let mut node = self.spare.pop().unwrap_or_default();
        node.clear();
        node.extend_from_slice(values);
        self.carry(node);
    }

    /// Adds the next rank's values as they were received.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        if let Some((height, mut left)) = self.nodes.pop_if(|(height, _)| *height == 0) {
            add_right(&mut left, bytes);
            self.carry_from(height + 1, left);
            return;
        }
        let mut node = self.spare.pop().unwrap_or_default();
        node.resize(bytes.len() / VALUE_BYTES, 0.0);
        copy(&mut node, bytes);
        self.carry(node);
    }

    fn carry(&mut self, node: Vec<f32>) {
        self.carry_from(0, node);
    }

    fn carry_from(&mut self, mut height: u32, mut node: Vec<f32>) {
        while let Some((_, left)) = self.nodes.pop_if(|(h, _)| *h == height) {
            node = self.merge(left, node);
            height += 1;
        }
        self.nodes.push((height, node));
    }

    fn merge(&mut self, mut left: Vec<f32>, right: Vec<f32>) -> Vec<f32> {
        for (a, b) in left.iter_mut().zip(&right) {
            *a += b;
        }
        self.spare.push(right);
        left
    }

    /// Writes the sum and starts anew.
    pub(super) fn finish(&mut self, into: &mut [f32]) {
        let Some((_, mut root)) = self.nodes.pop() else { return };
        while let Some((_, left)) = self.nodes.pop() {
            root = self.merge(left, root);
        }
        into.copy_from_slice(root.get(..into.len()).unwrap_or_default());
        self.spare.push(root);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        let mut buffer = Vec::new();
        append(&mut buffer, values);
        buffer
    }

    /// The recursion that the binary counter stands for: the largest power of two below `n` goes to the left.
    fn reference(leaves: &[f32]) -> f32 {
        if let [leaf] = leaves {
            return *leaf;
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        reference(left) + reference(right)
    }

    #[test]
    fn the_tree_is_that_of_gradient_sum() {
        let mut tree = Tree::default();
        for leaves in 1..=33 {
            let v: Vec<f32> = (0..leaves).map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 7)).collect();
            for own in 0..v.len() {
                for (i, value) in v.iter().enumerate() {
                    if i == own { tree.push_values(&[*value; 3]) } else { tree.push_bytes(&bytes(&[*value; 3])) }
                }
                let mut sum = [0.0; 3];
                tree.finish(&mut sum);
                assert_eq!(sum.map(f32::to_bits), [reference(&v).to_bits(); 3], "{leaves} leaves, own {own}");
            }
        }
    }

    #[test]
    fn both_sides_add_in_the_same_order() {
        let (a, b) = ([1.5f32, f32::NAN, f32::INFINITY], [2.25f32, 1.0, -1.0]);
        let (mut left, mut right) = (a, b);
        add_right(&mut left, &bytes(&b));
        add_left(&mut right, &bytes(&a));
        assert_eq!(left.map(f32::to_bits), right.map(f32::to_bits));
        copy(&mut left, &bytes(&b));
        assert_eq!(left.map(f32::to_bits), b.map(f32::to_bits));
    }
}
