//! Owns which process keeps which part of the optimizer state (ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054);
//! never touches tensors or sockets.
//!
//! Parameters are laid end to end and cut into units of [`SUM_CHUNK`] elements that never cross a parameter; every
//! process owns a contiguous run of units of about the same size. As kernels work on the same units whether a
//! parameter is whole or not, the numbers of a step do not depend on the cut, to the bit.

use std::ops::Range;

use model_zoo::ParamSpec;
use model_zoo::ops::SUM_CHUNK;

use crate::cluster::collective::SLICE_ALIGNMENT;

/// A run of elements of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Index of the parameter in `Params::specs`.
    pub param: usize,
    /// Its elements.
    pub range: Range<usize>,
}

impl Piece {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

/// The pieces of every process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    rank: usize,
    pieces: Vec<Vec<Piece>>,
    region: usize,
}

impl Partition {
    /// Cuts the parameters for `world` processes; `rank` is this one.
    #[must_use]
    pub fn new(specs: &[ParamSpec], rank: usize, world: usize) -> Self {
        let world = world.max(1);
        let total: usize = specs.iter().map(ParamSpec::num_elements).sum();
        let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); world];
        let mut before = 0;
        for (param, spec) in specs.iter().enumerate() {
            let len = spec.num_elements();
            for start in (0..len).step_by(SUM_CHUNK) {
                let end = (start + SUM_CHUNK).min(len);
                // u128: a model of 2^40 elements over 2^16 processes must not overflow.
                let owner = (before as u128 * world as u128 / total.max(1) as u128) as usize;
                before += end - start;
                let Some(own) = pieces.get_mut(owner.min(world - 1)) else { continue };
                match own.last_mut() {
                    Some(last) if last.param == param => last.range.end = end,
                    _ => own.push(Piece { param, range: start..end }),
                }
            }
        }
        let largest = pieces.iter().map(|own| own.iter().map(Piece::len).sum::<usize>()).max().unwrap_or(0);
        Self { rank, pieces, region: largest.next_multiple_of(SLICE_ALIGNMENT) }
    }

    /// The pieces of this process, in the order of parameters.
    #[must_use]
    pub fn own(&self) -> &[Piece] {
        self.of(self.rank)
    }

    /// The pieces of `rank`.
    #[must_use]
    pub fn of(&self, rank: usize) -> &[Piece] {
        self.pieces.get(rank).map_or(&[], Vec::as_slice)
    }

    /// Number of processes.
    #[must_use]
    pub fn world(&self) -> usize {
        self.pieces.len()
    }

    /// Elements of the vector that travels: a region of equal size for every process, padded at its end.
    #[must_use]
    pub fn flat_len(&self) -> usize {
        self.region * self.world()
    }

    /// Where the region of `rank` begins in the flat vector.
    #[must_use]
    pub fn region_of(&self, rank: usize) -> usize {
        self.region * rank
    }

    /// Every piece of every process with its place in the flat vector.
    pub fn placed(&self) -> impl Iterator<Item = (usize, &Piece)> {
        self.pieces.iter().enumerate().flat_map(|(rank, own)| {
            own.iter().scan(self.region_of(rank), |at, piece| {
                let start = *at;
                *at += piece.len();
                Some((start, piece))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::cluster::collective::slice_of;
    use model_zoo::Init;
    use proptest::prelude::*;

    fn specs(sizes: &[usize]) -> Vec<ParamSpec> {
        let spec = |(i, size): (usize, &usize)| ParamSpec::new(format!("t{i}"), vec![*size], Init::Ones);
        sizes.iter().enumerate().map(spec).collect()
    }

    proptest! {
        #[test]
        fn every_element_has_one_owner(sizes in prop::collection::vec(0_usize..200_000, 0..12), world in 1_usize..9) {
            let specs = specs(&sizes);
            let partition = Partition::new(&specs, 0, world);
            let mut next = vec![0; sizes.len()];
            let mut end_of_last = 0;
            for (at, piece) in partition.placed() {
                prop_assert_eq!(next[piece.param], piece.range.start, "in order, without holes");
                prop_assert!(piece.range.start.is_multiple_of(SUM_CHUNK) && !piece.is_empty());
                prop_assert!(at >= end_of_last);
                next[piece.param] = piece.range.end;
                end_of_last = at + piece.len();
            }
            prop_assert_eq!(next, sizes);
            prop_assert!(end_of_last <= partition.flat_len());
            for rank in 0..world {
                let region = partition.region_of(rank)..partition.region_of(rank) + partition.region;
                prop_assert_eq!(slice_of(partition.flat_len(), world, rank), region, "what collectives call its slice");
            }
        }
    }

    #[test]
    fn processes_own_about_the_same() {
        let sizes = [16_384 * 128, 128, 384 * 128, 384 * 128, 128, 128 * 128, 16_384 * 128];
        let total: usize = sizes.iter().sum();
        for world in [2, 4, 8] {
            let partition = Partition::new(&specs(&sizes), 0, world);
            let share = |rank| partition.of(rank).iter().map(Piece::len).sum::<usize>();
            for rank in 0..world {
                assert!(
                    share(rank).abs_diff(total / world) <= 2 * SUM_CHUNK,
                    "{world}: rank {rank} owns {}",
                    share(rank)
                );
            }
        }
    }
}
