//! Owns the exact collectives over the full mesh: every rank sends each slice straight to its owner, who adds along the
//! canonical tree; never touches the ring.
//!
//! All loops run in rounds, a chunk of every slice a round, and send [`AHEAD`] rounds before they receive. A rank that
//! waits to send (its buffers to a peer are full) waits for a peer that is at least `BUFFERS - AHEAD` rounds behind; a
//! rank that waits to receive waits for a peer that is at least `AHEAD` rounds behind. So the rank that is furthest
//! behind never waits, and nobody waits for ever.

use std::ops::Range;

use crate::cluster::collective::slice_of;
use crate::cluster::error::ClusterError;

use super::TcpCollective;
use super::link::{BUFFERS, CHUNK_BYTES};
use crate::cluster::header::Header;
use crate::cluster::sums::{self, VALUE_BYTES};

/// Rounds that sending is ahead of receiving.
const AHEAD: usize = 2;
const _: () = assert!(AHEAD >= 1 && AHEAD < BUFFERS);

/// Values a chunk.
pub(super) const CHUNK_VALUES: usize = CHUNK_BYTES / VALUE_BYTES;

/// The `round`-th chunk of a slice, if it has so many.
pub(super) fn chunk(slice: &Range<usize>, round: usize) -> Option<Range<usize>> {
    let start = slice.start + round * CHUNK_VALUES;
    (start < slice.end).then(|| start..slice.end.min(start + CHUNK_VALUES))
}

/// Rounds it takes for the longest slice.
fn rounds(len: usize, world: usize) -> usize {
    (0..world).map(|rank| slice_of(len, world, rank).len().div_ceil(CHUNK_VALUES)).max().unwrap_or(0)
}

impl TcpCollective {
    /// Sums this rank's slice of `values`; the rest stays as it was.
    pub(super) fn exchange_and_add(&mut self, values: &mut [f32], header: Header) -> Result<(), ClusterError> {
        let own = slice_of(values.len(), self.world, self.rank);
        let rounds = rounds(values.len(), self.world);
        for round in 0..rounds + AHEAD {
            for peer in self.others() {
                if let Some(range) = chunk(&slice_of(values.len(), self.world, peer), round) {
                    self.push_values(peer, values.get(range).unwrap_or_default())?;
                }
            }
            let due = round.checked_sub(AHEAD).and_then(|round| chunk(&own, round));
            if let Some(range) = due {
                self.receive_and_add(values.get_mut(range).unwrap_or_default(), header)?;
            }
        }
        Ok(())
    }

    /// Receives a chunk from everybody and adds it to this rank's own, in the order of the tree.
    fn receive_and_add(&mut self, own: &mut [f32], header: Header) -> Result<(), ClusterError> {
        if self.world == 1 {
            return Ok(());
        }
        if let (2, rank @ (0 | 1)) = (self.world, self.rank) {
            let bytes = self.receive(1 - rank, own.len() * VALUE_BYTES, header)?;
            if rank == 0 {
                sums::add_right(own, bytes)
            } else {
                sums::add_left(own, bytes)
            }
            return Ok(());
        }
        for rank in 0..self.world {
            if rank == self.rank {
                self.tree.push_values(own);
            } else {
                self.receive(rank, own.len() * VALUE_BYTES, header)?;
                self.tree.push_bytes(self.scratch.get(..own.len() * VALUE_BYTES).unwrap_or_default());
            }
        }
        self.tree.finish(own);
        Ok(())
    }

    /// Fills `values` with every rank's slice of it.
    pub(super) fn exchange_slices(&mut self, values: &mut [f32], header: Header) -> Result<(), ClusterError> {
        let (len, world) = (values.len(), self.world);
        let own = slice_of(len, world, self.rank);
        for round in 0..rounds(len, world) + AHEAD {
            if let Some(range) = chunk(&own, round) {
                for peer in self.others() {
                    self.push_values(peer, values.get(range.clone()).unwrap_or_default())?;
                }
            }
            let Some(due) = round.checked_sub(AHEAD) else { continue };
            for peer in self.others() {
                if let Some(range) = chunk(&slice_of(len, world, peer), due) {
                    let bytes = self.receive(peer, range.len() * VALUE_BYTES, header)?;
                    sums::copy(values.get_mut(range).unwrap_or_default(), bytes);
                }
            }
        }
        Ok(())
    }

    /// The sum of a short vector: everybody sends everything to everybody and adds by itself. The same bits as by
    /// slices, with half the latency. At most [`CHUNK_VALUES`].
    pub(super) fn exchange_whole(&mut self, values: &mut [f32], header: Header) -> Result<(), ClusterError> {
        for peer in self.others() {
            self.push_values(peer, values)?;
        }
        self.receive_and_add(values, header)
    }

    /// Bytes of every rank, of any length. The header tells the length.
    pub(super) fn exchange_bytes(&mut self, own: &[u8], header: Header) -> Result<Vec<Vec<u8>>, ClusterError> {
        let piece = |len: usize, round: usize| {
            let start = round * CHUNK_BYTES;
            (start < len).then(|| start..len.min(start + CHUNK_BYTES))
        };
        let mut all = vec![Vec::new(); self.world];
        let mut lengths = vec![0; self.world];
        for peer in self.others() {
            let (link, control) = self.link(peer)?;
            link.flush_header(control)?;
        }
        for peer in self.others() {
            let length = self.expect_length(peer, header)?;
            if let Some(entry) = lengths.get_mut(peer) {
                *entry = length;
            }
        }
        let longest = lengths.iter().copied().max().unwrap_or(0).max(own.len());
        for round in 0..longest.div_ceil(CHUNK_BYTES) + AHEAD {
            if let Some(range) = piece(own.len(), round) {
                for peer in self.others() {
                    let (link, control) = self.link(peer)?;
                    link.push_bytes(own.get(range.clone()).unwrap_or_default(), control)?;
                }
            }
            let Some(due) = round.checked_sub(AHEAD) else { continue };
            for peer in self.others() {
                if let Some(range) = piece(lengths.get(peer).copied().unwrap_or(0), due) {
                    let bytes = self.receive_plain(peer, range.len())?;
                    if let Some(entry) = all.get_mut(peer) {
                        entry.extend_from_slice(bytes);
                    }
                }
            }
        }
        if let Some(entry) = all.get_mut(self.rank) {
            entry.extend_from_slice(own);
        }
        Ok(all)
    }
}
