//! Owns which process keeps which part of gradients and optimizer state (ZeRO stages 1 and 2, Rajbhandari et al., arXiv
//! 1910.02054); never touches tensors or sockets.
//!
//! The parameters of a bucket are laid end to end and cut into units of [`SUM_CHUNK`] elements that never cross a
//! parameter; every process owns a contiguous run of units of about the same size. As kernels work on the same units
//! whether a parameter is whole or not, the numbers of a step do not depend on the cut, to the bit. What Muon updates is
//! not cut: its matrices are dealt out whole.

use std::ops::Range;

use model_zoo::ParamSpec;
use model_zoo::ops::SUM_CHUNK;

use crate::buckets::Buckets;
use crate::cluster::collective::SLICE_ALIGNMENT;

/// A run of elements of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Index of the parameter in `Params::specs`.
    pub param: usize,
    /// Its elements.
    pub range: Range<usize>,
    /// Whether it is a matrix that Muon updates, which has no second moment.
    pub by_muon: bool,
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

    /// Elements of its first (0) or second (1) moment.
    #[must_use]
    pub fn moment_len(&self, moment: usize) -> usize {
        if moment == 1 && self.by_muon { 0 } else { self.len() }
    }
}

/// The pieces of every process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    rank: usize,
    pieces: Vec<Vec<Piece>>,
    sections: Vec<Section>,
}

/// One bucket as it travels: a flat vector with a region of equal size for every process, padded at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    region: usize,
    placed: Vec<(usize, Piece)>,
    /// Places in the flat vector of this process's pieces, with their index in [`Partition::own`].
    own: Vec<(usize, usize)>,
}

impl Partition {
    /// Cuts every bucket among `world` processes, so that all of them share the work on each; `rank` is this one.
    /// Parameters that are updated `by_muon` stay whole.
    #[must_use]
    pub fn new(
        specs: &[ParamSpec],
        buckets: &Buckets,
        by_muon: impl Fn(&ParamSpec) -> bool,
        rank: usize,
        world: usize,
    ) -> Self {
        let world = world.max(1);
        let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); world];
        let mut sections = Vec::with_capacity(buckets.len());
        for bucket in 0..buckets.len() {
            let mut members = buckets.members(bucket).to_vec();
            members.sort_unstable();
            let (whole, rest): (Vec<usize>, Vec<usize>) =
                members.into_iter().partition(|&param| specs.get(param).is_some_and(&by_muon));
            let mut cut = cut_bucket(specs, &rest, world);
            deal(specs, &whole, &mut cut, &pieces);
            let largest = cut.iter().map(|own| own.iter().map(Piece::len).sum::<usize>()).max().unwrap_or(0);
            let region = largest.next_multiple_of(SLICE_ALIGNMENT);
            let mut placed = Vec::new();
            for (owner, (own, all)) in cut.into_iter().zip(&mut pieces).enumerate() {
                let mut at = owner * region;
                for piece in own {
                    all.push(piece.clone());
                    let len = piece.len();
                    placed.push((at, piece));
                    at += len;
                }
            }
            sections.push(Section { region, placed, own: Vec::new() });
        }
        for own in &mut pieces {
            own.sort_unstable_by_key(|piece| (piece.param, piece.range.start));
        }
        let own = pieces.get(rank).map_or(&[][..], Vec::as_slice);
        for section in &mut sections {
            let index_of = |piece: &Piece| own.iter().position(|other| other == piece);
            let indexed = |(at, piece): &(usize, Piece)| Some((*at, index_of(piece)?));
            section.own = section.placed.iter().filter_map(indexed).collect();
        }
        Self { rank, pieces, sections }
    }

    /// The pieces of this process, in the order of parameters.
    #[must_use]
    pub fn own(&self) -> &[Piece] {
        self.of(self.rank)
    }

    /// The pieces of `rank`, in the order of parameters.
    #[must_use]
    pub fn of(&self, rank: usize) -> &[Piece] {
        self.pieces.get(rank).map_or(&[], Vec::as_slice)
    }

    /// Number of processes.
    #[must_use]
    pub fn world(&self) -> usize {
        self.pieces.len()
    }

    /// Number of buckets.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.sections.len()
    }

    /// Elements of the vector in which `bucket` travels.
    #[must_use]
    pub fn flat_len(&self, bucket: usize) -> usize {
        self.sections.get(bucket).map_or(0, |section| section.region * self.world())
    }

    /// The part of that vector which belongs to this process.
    #[must_use]
    pub fn region(&self, bucket: usize) -> Range<usize> {
        let region = self.sections.get(bucket).map_or(0, |section| section.region);
        region * self.rank..region * (self.rank + 1)
    }

    /// Every piece of every process in `bucket` with its place in the flat vector.
    pub fn placed(&self, bucket: usize) -> impl Iterator<Item = (usize, &Piece)> {
        self.sections.get(bucket).into_iter().flat_map(|section| section.placed.iter().map(|(at, piece)| (*at, piece)))
    }

    /// This process's pieces in `bucket`: the place in the flat vector, the index in [`Partition::own`], the piece.
    pub fn own_in(&self, bucket: usize) -> impl Iterator<Item = (usize, usize, &Piece)> {
        let own = self.own();
        let section = self.sections.get(bucket).into_iter();
        section.flat_map(move |section| section.own.iter().filter_map(move |&(at, i)| Some((at, i, own.get(i)?))))
    }
}

/// The pieces of one bucket for every process: its parameters end to end, cut into runs of units of about equal size.
fn cut_bucket(specs: &[ParamSpec], members: &[usize], world: usize) -> Vec<Vec<Piece>> {
    let numel = |param: usize| specs.get(param).map_or(0, ParamSpec::num_elements);
    let total: usize = members.iter().map(|&param| numel(param)).sum();
    let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); world];
    let mut before = 0;
    for &param in members {
        let len = numel(param);
        for start in (0..len).step_by(SUM_CHUNK) {
            let end = (start + SUM_CHUNK).min(len);
            // u128: a model of 2^40 elements over 2^16 processes must not overflow.
            let owner = (before as u128 * world as u128 / total.max(1) as u128) as usize;
            before += end - start;
            let Some(own) = pieces.get_mut(owner.min(world - 1)) else { continue };
            match own.last_mut() {
                Some(last) if last.param == param => last.range.end = end,
                _ => own.push(Piece { param, range: start..end, by_muon: false }),
            }
        }
    }
    pieces
}

/// Adds the parameters `whole` of a bucket to what `cut` gives every process of it, the largest first, each to the process
/// that has least of this bucket, and of those to the one that has least of the buckets `before`.
fn deal(specs: &[ParamSpec], whole: &[usize], cut: &mut [Vec<Piece>], before: &[Vec<Piece>]) {
    let elements = |pieces: &[Piece]| pieces.iter().map(Piece::len).sum::<usize>();
    let mut whole: Vec<(usize, usize)> =
        whole.iter().map(|&param| (param, specs.get(param).map_or(0, ParamSpec::num_elements))).collect();
    whole.sort_by_key(|&(param, len)| (std::cmp::Reverse(len), param));
    let mut loads: Vec<(usize, usize)> = cut.iter().zip(before).map(|(a, b)| (elements(a), elements(b))).collect();
    for (param, len) in whole.into_iter().filter(|&(_, len)| len > 0) {
        let least = loads.iter().enumerate().min_by_key(|(_, load)| **load).map_or(0, |(owner, _)| owner);
        if let (Some(own), Some(load)) = (cut.get_mut(least), loads.get_mut(least)) {
            own.push(Piece { param, range: 0..len, by_muon: true });
            load.0 += len;
        }
    }
    for own in cut {
        own.sort_unstable_by_key(|piece| (piece.param, piece.range.start));
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

    fn reversed(specs: &[ParamSpec], min_bytes: u64) -> Buckets {
        Buckets::new(specs, &(0..specs.len()).rev().collect::<Vec<_>>(), min_bytes)
    }

    proptest! {
        #[test]
        fn every_element_has_one_owner(
            sizes in prop::collection::vec(0_usize..200_000, 0..12),
            world in 1_usize..9,
            min_bytes in 0_u64..600_000,
            muon in prop::option::of(1_usize..4),
        ) {
            let specs = specs(&sizes);
            let buckets = reversed(&specs, min_bytes);
            let by_muon = |spec: &ParamSpec| muon.is_some_and(|every| spec.num_elements().is_multiple_of(every));
            let partition = Partition::new(&specs, &buckets, by_muon, world - 1, world);
            let mut next = vec![0; sizes.len()];
            for bucket in 0..buckets.len() {
                let (flat_len, mut end_of_last) = (partition.flat_len(bucket), 0);
                for (at, piece) in partition.placed(bucket) {
                    prop_assert_eq!(buckets.of(piece.param), bucket);
                    prop_assert_eq!(next[piece.param], piece.range.start, "in order, without holes");
                    prop_assert!(piece.range.start.is_multiple_of(SUM_CHUNK) && !piece.is_empty());
                    prop_assert!(at >= end_of_last);
                    let owner = (0..world).find(|&rank| slice_of(flat_len, world, rank).contains(&at)).unwrap();
                    prop_assert!(at + piece.len() <= slice_of(flat_len, world, owner).end, "what collectives cut");
                    prop_assert!(partition.of(owner).contains(piece));
                    prop_assert_eq!(piece.by_muon, by_muon(&specs[piece.param]));
                    prop_assert!(!piece.by_muon || piece.len() == sizes[piece.param], "a matrix is not cut");
                    prop_assert_eq!((piece.moment_len(0), piece.moment_len(1) == 0), (piece.len(), piece.by_muon));
                    next[piece.param] = piece.range.end;
                    end_of_last = at + piece.len();
                }
                for (at, index, piece) in partition.own_in(bucket) {
                    prop_assert_eq!(slice_of(flat_len, world, world - 1), partition.region(bucket));
                    prop_assert!(partition.region(bucket).contains(&at));
                    prop_assert_eq!(&partition.own()[index], piece);
                }
            }
            prop_assert_eq!(next, sizes);
            prop_assert!(partition.own().is_sorted_by_key(|piece| (piece.param, piece.range.start)));
            let own: usize = (0..buckets.len()).map(|bucket| partition.own_in(bucket).count()).sum();
            prop_assert_eq!(own, partition.own().len());
        }
    }

    #[test]
    fn processes_own_about_the_same() {
        let sizes = [16_384 * 128, 128, 384 * 128, 384 * 128, 128, 128 * 128, 16_384 * 128];
        let (specs, total): (_, usize) = (specs(&sizes), sizes.iter().sum());
        let buckets = reversed(&specs, 4 << 20);
        for world in [2, 4, 8] {
            let partition = Partition::new(&specs, &buckets, |_| false, 0, world);
            for rank in 0..world {
                let share = partition.of(rank).iter().map(Piece::len).sum::<usize>();
                let limit = 2 * SUM_CHUNK * buckets.len();
                assert!(share.abs_diff(total / world) <= limit, "{world}: rank {rank} owns {share}");
            }
        }
    }

    /// 12 blocks of a model of 110 M parameters, one bucket each: no process has more than a third above its share.
    #[test]
    fn whole_matrices_are_dealt_evenly() {
        let block = [768, 768 * 768, 256 * 768, 256 * 768, 768 * 768, 768, 2048 * 768, 2048 * 768, 768 * 2048];
        let sizes = block.repeat(12);
        let (specs, total): (_, usize) = (specs(&sizes), sizes.iter().sum());
        let buckets = reversed(&specs, 4 * block.iter().sum::<usize>() as u64);
        for world in [2, 4, 8] {
            let partition = Partition::new(&specs, &buckets, |spec| spec.num_elements() > 768, 0, world);
            for rank in 0..world {
                let share = partition.of(rank).iter().map(Piece::len).sum::<usize>();
                assert!(3 * world * share <= 4 * total, "{world}: rank {rank} owns {share} of {total}");
            }
        }
    }
}
