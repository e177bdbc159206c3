//! Owns the fast sum: partial sums travel around a ring of ranks; never touches the full mesh.
//!
//! A rank sends only to the next and receives only from the previous one. What it receives in one turn it sends on in
//! the next, so the chunks to send are those of the first slice followed by those received. A rank blocks on sending
//! only while it has not sent more than it has received, and on receiving only otherwise: if all were blocked, the
//! numbers sent and received around the ring would contradict each other.

use std::ops::Range;

use crate::cluster::collective::slice_of;
use crate::cluster::error::ClusterError;

use super::TcpCollective;
use super::exchange::chunk;
use crate::cluster::header::Header;
use crate::cluster::sums::{self, VALUE_BYTES};

impl TcpCollective {
    /// Sums this rank's slice of `values`; the rest is undefined.
    pub(super) fn ring_add(&mut self, values: &mut [f32], header: Header) -> Result<(), ClusterError> {
        // Ends with this rank's own slice: the last of `world - 1` turns receives slice `rank`.
        self.ring(values, header, self.rank + self.world - 1, sums::add_right)
    }

    /// Fills `values` with every rank's slice of it.
    pub(super) fn ring_gather(&mut self, values: &mut [f32], header: Header) -> Result<(), ClusterError> {
        self.ring(values, header, self.rank, sums::copy)
    }

    /// Sends slice `first`, then what was received, while receiving slice `first - 1`, `first - 2`, ...
    fn ring(
        &mut self,
        values: &mut [f32],
        header: Header,
        first: usize,
        take: fn(&mut [f32], &[u8]),
    ) -> Result<(), ClusterError> {
        let world = self.world;
        let (next, previous) = ((self.rank + 1) % world, (self.rank + world - 1) % world);
        let chunks = |slice: usize| -> Vec<Range<usize>> {
            let slice = slice_of(values.len(), world, slice % world);
            (0..).map_while(|round| chunk(&slice, round)).collect()
        };
        let of_turn = |turn: usize| chunks(first + 2 * world - turn);
        let to_send: Vec<_> = (0..world - 1).flat_map(of_turn).collect();
        let to_receive: Vec<_> = (1..world).flat_map(of_turn).collect();
        let head_start = of_turn(0).len();
        let (mut sent, mut received) = (0, 0);
        while sent < to_send.len() || received < to_receive.len() {
            let may_send = sent < to_send.len().min(head_start + received);
            if may_send && (sent <= received || received == to_receive.len() || self.has_room(next)) {
                let range = to_send.get(sent).cloned().unwrap_or_default();
                self.push_values(next, values.get(range).unwrap_or_default())?;
                sent += 1;
            } else {
                let range = to_receive.get(received).cloned().unwrap_or_default();
                let bytes = self.receive(previous, range.len() * VALUE_BYTES, header)?;
                take(values.get_mut(range).unwrap_or_default(), bytes);
                received += 1;
            }
        }
        Ok(())
    }
}
