//! Owns the engine of collectives over TCP connections; never touches how ranks find each other or who is to blame.
//!
//! For processes of one host, tests, and links between institutes; clusters have engines of their own. Exact sums go
//! straight to the owners of slices ([`exchange`]), fast ones around a ring ([`ring`]): both send
//! `2 (world - 1) / world` of the vector.

mod exchange;
mod link;
mod ring;

use std::sync::Arc;

use self::link::{CHUNK_BYTES, Link};
use super::channel::Channel;
use super::collective::{Collective, Order};
use super::control::Control;
use super::error::{Cause, ClusterError};
use super::header::Header;
use super::recorder::Kind;
use super::sums::{self, Tree};

/// Vectors up to this many values are summed in one exchange instead of two.
const SHORT_VALUES: usize = 4096;

/// Vectors from this many values on may go around the ring: below, its many small turns cost more than they save.
const RING_VALUES: usize = 64 * 1024;

/// The largest message of [`Collective::all_gather_bytes`], [`Collective::broadcast`] and [`Collective::send`].
const MAX_MESSAGE_BYTES: u64 = 1 << 36;

/// Collectives over one TCP connection to every other rank. Messages between two ranks ([`Collective::send`]) larger
/// than the buffers between them (about a megabyte) block until the other side receives.
pub struct TcpCollective {
    control: Arc<Control>,
    rank: usize,
    world: usize,
    links: Vec<Option<Link>>,
    sequence: u64,
    /// Peers whose header of the running collective has been read.
    greeted: Vec<bool>,
    scratch: Vec<u8>,
    tree: Tree,
}

impl TcpCollective {
    /// Takes over the data connections, indexed by rank (the own entry is `None`).
    ///
    /// # Errors
    /// [`ClusterError::Local`] when a thread cannot be started; [`ClusterError::Refused`] when a connection is missing.
    pub fn new(data: Vec<Option<Channel>>, control: Arc<Control>) -> Result<Self, ClusterError> {
        let (rank, world) = (control.rank(), control.world());
        let mut links = Vec::with_capacity(world);
        for (peer, channel) in data.into_iter().enumerate() {
            links.push(channel.map(|c| Link::new(peer, c)).transpose()?);
        }
        links.resize_with(world, || None);
        if let Some(peer) = (0..world).find(|&p| p != rank && links.get(p).is_none_or(Option::is_none)) {
            return Err(no_link(peer));
        }
        let (greeted, scratch, tree) = (vec![false; world], vec![0; CHUNK_BYTES], Tree::default());
        Ok(Self { control, rank, world, links, sequence: 0, greeted, scratch, tree })
    }

    /// The other ranks, the next one first: so that not everybody turns to rank 0 first.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, world) = (self.rank, self.world);
        (1..world).map(move |k| (rank + k) % world)
    }

    fn link(&mut self, peer: usize) -> Result<(&mut Link, &Control), ClusterError> {
        let link = self.links.get_mut(peer).and_then(Option::as_mut).ok_or_else(|| no_link(peer))?;
        Ok((link, &self.control))
    }

    fn has_room(&mut self, peer: usize) -> bool {
        self.links.get_mut(peer).and_then(Option::as_mut).is_some_and(Link::has_room)
    }

    /// Sends at most one chunk of values.
    fn push_values(&mut self, peer: usize, values: &[f32]) -> Result<(), ClusterError> {
        let (link, control) = self.link(peer)?;
        let mut buffer = link.buffer(control)?;
        sums::append(&mut buffer, values);
        link.push(buffer, control)
    }

    /// Receives at most a chunk of bytes, after the header where it is due.
    fn receive(&mut self, peer: usize, count: usize, header: Header) -> Result<&[u8], ClusterError> {
        if self.greeted.get(peer) == Some(&false) {
            let (link, control) = self.link(peer)?;
            link.expect(header, true, control)?;
            self.set_greeted(peer);
        }
        self.receive_plain(peer, count)
    }

    fn receive_plain(&mut self, peer: usize, count: usize) -> Result<&[u8], ClusterError> {
        let link = self.links.get_mut(peer).and_then(Option::as_mut).ok_or_else(|| no_link(peer))?;
        let into = self.scratch.get_mut(..count).unwrap_or_default();
        link.recv(into, &self.control)?;
        Ok(into)
    }

    /// Receives the header of a peer that may pass another number of bytes; returns that number.
    fn expect_length(&mut self, peer: usize, header: Header) -> Result<usize, ClusterError> {
        let (link, control) = self.link(peer)?;
        // A barrier carries nothing: any length is a mistake, and to wait for so many bytes would be one more.
        let length = link.expect(header, header.kind == Kind::Barrier, control)?;
        self.set_greeted(peer);
        if length > MAX_MESSAGE_BYTES {
            let detail = format!("it announces a message of {length} bytes, the limit is {MAX_MESSAGE_BYTES}");
            return Err(self.control.accuse(peer, Cause::Disagrees, &detail));
        }
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn set_greeted(&mut self, peer: usize) {
        if let Some(greeted) = self.greeted.get_mut(peer) {
            *greeted = true;
        }
    }

    /// Runs one collective: numbers it, records it, and returns only when everything sent has reached the system.
    fn collective<T>(
        &mut self,
        kind: Kind,
        order: Option<Order>,
        root: usize,
        elements: usize,
        body: impl FnOnce(&mut Self, Header) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        self.control.check()?;
        self.sequence += 1;
        self.control.arrive(self.sequence, kind, elements as u64);
        let header = Header {
            sequence: self.sequence as u32,
            kind,
            order,
            root: u16::try_from(root).unwrap_or(u16::MAX),
            elements: elements as u64,
        };
        self.greeted.fill(false);
        for link in self.links.iter_mut().flatten() {
            link.begin(header);
        }
        let result = body(self, header)?;
        for link in self.links.iter_mut().flatten() {
            link.finish(&self.control)?;
        }
        self.control.depart();
        Ok(result)
    }

    /// Whether the vector goes around the ring: with two ranks the exchange is one.
    fn uses_ring(&self, order: Order, len: usize) -> bool {
        order == Order::Fast && self.world > 2 && len >= RING_VALUES
    }

    fn sum(&mut self, values: &mut [f32], order: Order, header: Header) -> Result<(), ClusterError> {
        if self.uses_ring(order, values.len()) {
            self.ring_add(values, header)
        } else {
            self.exchange_and_add(values, header)
        }
    }

    fn gather(&mut self, values: &mut [f32], order: Order, header: Header) -> Result<(), ClusterError> {
        if self.uses_ring(order, values.len()) {
            self.ring_gather(values, header)
        } else {
            self.exchange_slices(values, header)
        }
    }

    /// Down a binomial tree, chunk by chunk. Only the root knows the length beforehand.
    fn spread(&mut self, bytes: &mut Vec<u8>, root: usize, header: Header) -> Result<(), ClusterError> {
        let (world, rank) = (self.world, self.rank);
        let from_root = (rank + world - root) % world;
        let lowest_bit = if from_root == 0 { world.next_power_of_two() } else { from_root & from_root.wrapping_neg() };
        let distances = (0..usize::BITS).map(|k| 1usize << k).take_while(|&d| d < lowest_bit);
        let mut children: Vec<usize> =
            distances.filter(|d| from_root + d < world).map(|d| (rank + d) % world).collect();
        children.reverse();
        let parent = (rank + world - lowest_bit % world) % world;
        let length = if from_root == 0 { bytes.len() } else { self.expect_length(parent, header)? };
        if from_root != 0 {
            bytes.clear();
        }
        let header = Header { elements: length as u64, ..header };
        for &child in &children {
            let (link, control) = self.link(child)?;
            link.begin(header);
            link.flush_header(control)?;
        }
        let mut done = 0;
        while done < length {
            let count = CHUNK_BYTES.min(length - done);
            if from_root != 0 {
                bytes.extend_from_slice(self.receive_plain(parent, count)?);
            }
            for &child in &children {
                let (link, control) = self.link(child)?;
                link.push_bytes(bytes.get(done..done + count).unwrap_or_default(), control)?;
            }
            done += count;
        }
        Ok(())
    }

    /// A message between two ranks: numbered by the connection, not by the run.
    fn message(&mut self, kind: Kind, sequence: u32, elements: usize) -> Header {
        self.control.arrive(self.sequence, kind, elements as u64);
        Header { sequence, kind: Kind::Send, order: None, root: 0, elements: elements as u64 }
    }
}

impl Collective for TcpCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn name(&self) -> &'static str {
        "tcp"
    }

    fn all_reduce(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.collective(Kind::AllReduce, Some(order), 0, values.len(), |tcp, header| {
            if values.len() <= SHORT_VALUES {
                return tcp.exchange_whole(values, header);
            }
            tcp.sum(values, order, header)?;
            tcp.gather(values, order, header)
        })
    }

    fn reduce_scatter(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.collective(Kind::ReduceScatter, Some(order), 0, values.len(), |tcp, header| tcp.sum(values, order, header))
    }

    fn all_gather(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        self.collective(Kind::AllGather, None, 0, values.len(), |tcp, header| tcp.exchange_slices(values, header))
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
        self.collective(Kind::AllGatherBytes, None, 0, bytes.len(), |tcp, header| tcp.exchange_bytes(bytes, header))
    }

    fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), ClusterError> {
        if root >= self.world {
            return Err(no_link(root));
        }
        self.collective(Kind::Broadcast, None, root, bytes.len(), |tcp, header| tcp.spread(bytes, root, header))
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError> {
        self.control.check()?;
        let sequence = self.link(to)?.0.messages.0.wrapping_add(1);
        let header = self.message(Kind::Send, sequence, bytes.len());
        let (link, control) = self.link(to)?;
        link.messages.0 = sequence;
        link.begin(header);
        link.push_bytes(bytes, control)?;
        link.flush_header(control)?;
        link.finish(control)?;
        control.depart();
        Ok(())
    }

    fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError> {
        self.control.check()?;
        let sequence = self.link(from)?.0.messages.1.wrapping_add(1);
        let header = self.message(Kind::Recv, sequence, 0);
        self.link(from)?.0.messages.1 = sequence;
        let length = self.expect_length(from, header)?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let count = CHUNK_BYTES.min(length - bytes.len());
            bytes.extend_from_slice(self.receive_plain(from, count)?);
        }
        self.control.depart();
        Ok(bytes)
    }

    fn barrier(&mut self) -> Result<(), ClusterError> {
        self.collective(Kind::Barrier, None, 0, 0, |tcp, header| tcp.exchange_bytes(&[], header).map(drop))
    }
}

fn no_link(rank: usize) -> ClusterError {
    ClusterError::Refused {
        what: format!("there is no data connection to rank {rank}"),
        advice: "this is a defect, please report it".into(),
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
