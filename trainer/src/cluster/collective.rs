//! Owns the interface of collectives over host memory and the arithmetic of slices; never touches a transport.

use std::ops::Range;

use super::device_collective::DeviceCollective;
use super::error::ClusterError;

/// The order in which the contributions of ranks are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Along the canonical tree: the same bits as one process that adds all leaves itself
    /// (`docs/adr/0002-the-sum-is-a-tree.md`).
    Exact,
    /// Whatever the engine does fastest; every rank still receives the same bits.
    Fast,
}

/// Communication among the processes of a run. Every rank calls the same methods in the same order with vectors of the
/// same length; an engine that notices otherwise returns an error that names the rank.
pub trait Collective: Send {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// A short name of the engine for messages and reports: `tcp`, `mpi`, `alone`.
    fn name(&self) -> &'static str;

    /// Replaces `values` by the sum over ranks.
    ///
    /// # Errors
    /// [`ClusterError::Lost`] names the rank that did not take part.
    fn all_reduce(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError>;

    /// Replaces this rank's slice of `values` (see [`slice_of`]) by the sum over ranks; the rest is undefined.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn reduce_scatter(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError>;

    /// Fills `values` with every rank's own slice of it (see [`slice_of`]).
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn all_gather(&mut self, values: &mut [f32]) -> Result<(), ClusterError>;

    /// Gives every rank the bytes of every other: entry `r` is what rank `r` passed. Lengths may differ.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError>;

    /// Replaces `bytes` by those of `root`; the length follows.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), ClusterError>;

    /// Sends bytes to one rank, which must call [`Collective::recv`].
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError>;

    /// Receives what `from` sends.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn barrier(&mut self) -> Result<(), ClusterError> {
        self.all_gather_bytes(&[]).map(|_| ())
    }

    /// The same processes over tensors that stay on the device, where the engine can; `None` means that gradients go
    /// through host memory.
    fn on_device(&mut self) -> Option<&mut dyn DeviceCollective> {
        None
    }
}

/// Slices are cut at multiples of this many elements, so that kernels meet whole vectors and sums whole blocks.
pub const SLICE_ALIGNMENT: usize = 1024;

/// The part of a vector of `len` elements that `rank` of `world` owns: contiguous, in rank order, cut at multiples of
/// [`SLICE_ALIGNMENT`]; the last ones may be shorter or empty.
#[must_use]
pub fn slice_of(len: usize, world: usize, rank: usize) -> Range<usize> {
    let blocks = len.div_ceil(SLICE_ALIGNMENT);
    let world = world.max(1);
    let at = |rank: usize| (blocks * rank / world * SLICE_ALIGNMENT).min(len);
    at(rank)..at(rank + 1)
}

/// A world of one process: nothing to say to anybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn name(&self) -> &'static str {
        "alone"
    }

    fn all_reduce(&mut self, _: &mut [f32], _: Order) -> Result<(), ClusterError> {
        Ok(())
    }

    fn reduce_scatter(&mut self, _: &mut [f32], _: Order) -> Result<(), ClusterError> {
        Ok(())
    }

    fn all_gather(&mut self, _: &mut [f32]) -> Result<(), ClusterError> {
        Ok(())
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
        Ok(vec![bytes.to_vec()])
    }

    fn broadcast(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), ClusterError> {
        Ok(())
    }

    fn send(&mut self, to: usize, _: &[u8]) -> Result<(), ClusterError> {
        Err(no_peer(to))
    }

    fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError> {
        Err(no_peer(from))
    }
}

fn no_peer(rank: usize) -> ClusterError {
    ClusterError::Refused {
        what: format!("rank {rank} does not exist in a run of one process"),
        advice: "this is a defect, please report it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_vector_without_overlap() {
        for len in [0, 1, 1023, 1024, 1025, 5000, 123_457] {
            for world in [1, 2, 3, 4, 7, 8, 64] {
                let slices: Vec<_> = (0..world).map(|rank| slice_of(len, world, rank)).collect();
                assert_eq!(slices.first().map(|s| s.start), Some(0));
                assert_eq!(slices.last().map(|s| s.end), Some(len));
                assert!(slices.windows(2).all(|w| w[0].end == w[1].start), "{len} over {world}: {slices:?}");
                assert!(slices.iter().all(|s| s.start == len || s.start.is_multiple_of(SLICE_ALIGNMENT)));
            }
        }
    }
}
