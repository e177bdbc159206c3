//! Owns the engine of collectives over MPI; never touches how ranks find each other or who is to blame.
//!
//! For clusters without NVIDIA GPUs: whatever network MPI knows carries the data, out of host memory. Rendezvous and
//! control plane stay what they are, so a lost rank is named as everywhere; mpirun then ends the job.
//!
//! Every collective begins with the headers of all ranks: they show that all mean the same and how much is to come,
//! before MPI, for which a difference is a defect of the program, is told. Exact sums go to the owners of slices, who add
//! along the canonical tree; fast ones are MPI's own. A process that leaves with an error or a panic leaves MPI as it
//! is: `MPI_Finalize` would wait for the others for ever.

mod port;

use std::ops::Range;
use std::sync::Arc;

use self::port::{Batch, Port};
use crate::cluster::collective::{Collective, Order, slice_of};
use crate::cluster::control::Control;
use crate::cluster::error::{Cause, ClusterError};
use crate::cluster::header::{HEADER_BYTES, Header};
use crate::cluster::recorder::Kind;
use crate::cluster::sums::{self, Tree, VALUE_BYTES};

/// Vectors up to this many values are summed in one exchange instead of two.
const SHORT_VALUES: usize = 4096;

/// Values handed to MPI at a time, for each other rank: what stays in the cache between the copy, the way and the sum.
const CHUNK_VALUES: usize = 64 * 1024;

/// Bytes handed to MPI at a time, for each other rank.
const CHUNK_BYTES: usize = CHUNK_VALUES * VALUE_BYTES;

/// Values that MPI sums at a time, for each rank: small enough to stay in the cache, and more for more ranks, since MPI
/// cuts them into a piece for each.
const SUM_VALUES: usize = 32 * 1024;

/// Values that MPI sums at a time, at most.
const MAX_SUM_VALUES: usize = 4 * 1024 * 1024;

/// Chunks that are on their way while another one is added or copied.
const AHEAD: usize = 2;

/// The largest message of [`Collective::all_gather_bytes`], [`Collective::broadcast`] and [`Collective::send`].
const MAX_MESSAGE_BYTES: u64 = 1 << 36;

/// Messages of collectives.
const COLLECTIVE_TAG: i32 = 1;

/// Messages between two ranks.
const MESSAGE_TAG: i32 = 2;

/// Collectives over MPI. Dropping it ends MPI if all ranks do so within a few seconds and none is lost; otherwise MPI
/// is left running until the process ends. There is one a process, once.
pub struct MpiCollective {
    control: Arc<Control>,
    rank: usize,
    world: usize,
    port: Port,
    sequence: u64,
    /// Messages sent to and received from each rank outside collectives.
    messages: Vec<(u32, u32)>,
    tree: Tree,
}

impl MpiCollective {
    /// Starts MPI. Its ranks must be those of the run.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when MPI numbers the processes in another way, [`ClusterError::Local`] when it cannot
    /// be started.
    pub fn new(control: Arc<Control>) -> Result<Self, ClusterError> {
        let (rank, world) = (control.rank(), control.world());
        let (port, mpi_rank, mpi_world) = Port::open(Arc::clone(&control))?;
        if (mpi_rank, mpi_world) != (rank, world) {
            return Err(ClusterError::Refused {
                what: format!(
                    "this process is rank {rank} of {world} in the run, but rank {mpi_rank} of {mpi_world} for MPI"
                ),
                advice: "start the run with the mpirun (or srun --mpi=...) of the MPI library that jazari was built \
                         with, or write `cluster.engine: tcp`"
                    .into(),
            });
        }
        let (messages, tree) = (vec![(0, 0); world], Tree::default());
        Ok(Self { control, rank, world, port, sequence: 0, messages, tree })
    }

    /// The other ranks, the next one first: so that not everybody turns to rank 0 first.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, world) = (self.rank, self.world);
        (1..world).map(move |k| (rank + k) % world)
    }

    /// The other ranks in order, as the tree wants them.
    fn others_in_order(&self) -> impl Iterator<Item = usize> + use<> {
        let rank = self.rank;
        (0..self.world).filter(move |&peer| peer != rank)
    }

    fn is_other(&self, rank: usize) -> Result<(), ClusterError> {
        if rank < self.world && rank != self.rank {
            return Ok(());
        }
        Err(ClusterError::Refused {
            what: format!("rank {} cannot exchange messages with rank {rank} of {}", self.rank, self.world),
            advice: "this is a defect, please report it".into(),
        })
    }

    /// Runs one collective: numbers it, records it, and compares it with what the others run. `body` gets the number of
    /// elements of every rank.
    fn collective<T>(
        &mut self,
        (kind, order): (Kind, Option<Order>),
        root: usize,
        elements: usize,
        body: impl FnOnce(&mut Self, &[usize]) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        self.control.check()?;
        self.sequence += 1;
        self.control.arrive(self.sequence, kind, elements as u64);
        let root = u16::try_from(root).unwrap_or(u16::MAX);
        let header = Header { sequence: self.sequence as u32, kind, order, root, elements: elements as u64 };
        let lengths = self.agree(header)?;
        let result = body(self, &lengths)?;
        self.control.depart();
        Ok(result)
    }

    /// Exchanges headers with everybody; returns everybody's number of elements.
    fn agree(&mut self, header: Header) -> Result<Vec<usize>, ClusterError> {
        let mut lengths = vec![header.elements as usize; self.world];
        let mut batch = Batch::default();
        batch.send(self.others(), header.encode().to_vec());
        for peer in self.others() {
            batch.expect(peer, vec![0; HEADER_BYTES]);
        }
        self.port.exchange(COLLECTIVE_TAG, batch)?;
        let uneven = matches!(header.kind, Kind::AllGatherBytes | Kind::Broadcast);
        for (peer, bytes) in self.port.complete()?.received() {
            let elements = self.compare(peer, header, bytes, uneven)?;
            if let Some(length) = lengths.get_mut(peer) {
                *length = elements;
            }
        }
        Ok(lengths)
    }

    /// Whether the header of a peer means the same as `mine`; returns its number of elements.
    fn compare(&self, peer: usize, mine: Header, bytes: &[u8], uneven: bool) -> Result<usize, ClusterError> {
        let theirs = bytes.first_chunk().and_then(|bytes| Header::decode(*bytes));
        let elements = match theirs {
            Some(theirs) if theirs == mine || (uneven && mine.agrees_except_length(&theirs)) => theirs.elements,
            Some(theirs) => return Err(self.control.disagree(peer, &mine.describe(), &theirs.describe())),
            None => return Err(self.control.disagree(peer, &mine.describe(), "something that cannot be read")),
        };
        if uneven && elements > MAX_MESSAGE_BYTES {
            let detail = format!("it announces a message of {elements} bytes, the limit is {MAX_MESSAGE_BYTES}");
            return Err(self.control.accuse(peer, Cause::Disagrees, &detail));
        }
        Ok(usize::try_from(elements).unwrap_or(usize::MAX))
    }

    /// Sums this rank's slice of `values`; the rest stays as it was.
    fn sum_slices(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        let (len, world) = (values.len(), self.world);
        let own = slice_of(len, world, self.rank);
        let rounds = rounds(len, world);
        for turn in 0..rounds + AHEAD {
            if turn < rounds {
                let mut batch = Batch::default();
                for peer in self.others() {
                    if let Some(range) = chunk(&slice_of(len, world, peer), turn) {
                        let buffer = self.filled(values.get(range).unwrap_or_default());
                        batch.send(std::iter::once(peer), buffer);
                    }
                }
                if let Some(range) = chunk(&own, turn) {
                    for peer in self.others_in_order() {
                        batch.expect(peer, self.port.buffer(range.len() * VALUE_BYTES));
                    }
                }
                self.port.exchange(COLLECTIVE_TAG, batch)?;
            }
            let Some(due) = turn.checked_sub(AHEAD) else { continue };
            let batch = self.port.complete()?;
            let range = chunk(&own, due).unwrap_or_default();
            self.add(values.get_mut(range).unwrap_or_default(), &batch);
            self.port.recycle(batch);
        }
        Ok(())
    }

    /// Fills `values` with every rank's slice of it.
    fn gather_slices(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        let (len, world) = (values.len(), self.world);
        let own = slice_of(len, world, self.rank);
        let rounds = rounds(len, world);
        for turn in 0..rounds + AHEAD {
            if turn < rounds {
                let mut batch = Batch::default();
                if let Some(range) = chunk(&own, turn) {
                    let buffer = self.filled(values.get(range).unwrap_or_default());
                    batch.send(self.others(), buffer);
                }
                for peer in self.others() {
                    if let Some(range) = chunk(&slice_of(len, world, peer), turn) {
                        batch.expect(peer, self.port.buffer(range.len() * VALUE_BYTES));
                    }
                }
                self.port.exchange(COLLECTIVE_TAG, batch)?;
            }
            let Some(due) = turn.checked_sub(AHEAD) else { continue };
            let batch = self.port.complete()?;
            for (peer, bytes) in batch.received() {
                let range = chunk(&slice_of(len, world, peer), due).unwrap_or_default();
                sums::copy(values.get_mut(range).unwrap_or_default(), bytes);
            }
            self.port.recycle(batch);
        }
        Ok(())
    }

    /// The sum of a short vector: everybody sends everything to everybody and adds by itself. The same bits as by
    /// slices, with half the latency.
    fn sum_whole(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        let mut batch = Batch::default();
        let buffer = self.filled(values);
        batch.send(self.others(), buffer);
        for peer in self.others_in_order() {
            batch.expect(peer, self.port.buffer(values.len() * VALUE_BYTES));
        }
        self.port.exchange(COLLECTIVE_TAG, batch)?;
        let batch = self.port.complete()?;
        self.add(values, &batch);
        self.port.recycle(batch);
        Ok(())
    }

    /// A buffer with these values.
    fn filled(&mut self, values: &[f32]) -> Vec<u8> {
        let mut buffer = self.port.buffer(values.len() * VALUE_BYTES);
        sums::write(&mut buffer, values);
        buffer
    }

    /// Adds what came of everybody to this rank's own, in the order of the tree.
    fn add(&mut self, own: &mut [f32], batch: &Batch) {
        let mut received = batch.received().map(|(_, bytes)| bytes);
        if self.world == 2 {
            let bytes = received.next().unwrap_or_default();
            return if self.rank == 0 { sums::add_right(own, bytes) } else { sums::add_left(own, bytes) };
        }
        if own.is_empty() {
            return;
        }
        for rank in 0..self.world {
            if rank == self.rank {
                self.tree.push_values(own);
            } else {
                self.tree.push_bytes(received.next().unwrap_or_default());
            }
        }
        self.tree.finish(own);
    }

    /// MPI's own sum, in chunks: one is copied while another is on its way.
    fn sum_by_mpi(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        let (len, step) = (values.len(), (self.world * SUM_VALUES).min(MAX_SUM_VALUES));
        let part = |turn: usize| (turn * step).min(len)..((turn + 1) * step).min(len);
        let rounds = len.div_ceil(step);
        for turn in 0..rounds + AHEAD {
            if turn < rounds {
                self.port.sum(values.get(part(turn)).unwrap_or_default())?;
            }
            let Some(due) = turn.checked_sub(AHEAD) else { continue };
            let batch = self.port.complete()?;
            values.get_mut(part(due)).unwrap_or_default().copy_from_slice(batch.sum());
            self.port.recycle(batch);
        }
        Ok(())
    }

    /// Bytes of every rank, whose lengths are known.
    fn gather_bytes(&mut self, own: &[u8], lengths: &[usize]) -> Result<Vec<Vec<u8>>, ClusterError> {
        let mut all = vec![Vec::new(); self.world];
        let length = |rank: usize| lengths.get(rank).copied().unwrap_or(0);
        let rounds = lengths.iter().max().map_or(0, |longest| longest.div_ceil(CHUNK_BYTES));
        for turn in 0..rounds + AHEAD {
            if turn < rounds {
                let mut batch = Batch::default();
                if let Some(range) = piece(own.len(), turn) {
                    let mut buffer = self.port.buffer(range.len());
                    buffer.copy_from_slice(own.get(range).unwrap_or_default());
                    batch.send(self.others(), buffer);
                }
                for peer in self.others() {
                    if let Some(range) = piece(length(peer), turn) {
                        batch.expect(peer, self.port.buffer(range.len()));
                    }
                }
                self.port.exchange(COLLECTIVE_TAG, batch)?;
            }
            if turn < AHEAD {
                continue;
            }
            let batch = self.port.complete()?;
            for (peer, bytes) in batch.received() {
                if let Some(entry) = all.get_mut(peer) {
                    entry.extend_from_slice(bytes);
                }
            }
            self.port.recycle(batch);
        }
        if let Some(entry) = all.get_mut(self.rank) {
            entry.extend_from_slice(own);
        }
        Ok(all)
    }

    /// The bytes of `root`, whose number is known, to everybody.
    fn spread(&mut self, bytes: &mut Vec<u8>, root: usize, length: usize) -> Result<(), ClusterError> {
        if root != self.rank {
            bytes.clear();
        }
        let rounds = length.div_ceil(CHUNK_BYTES);
        for turn in 0..rounds + AHEAD {
            if let Some(range) = piece(length, turn) {
                let mut buffer = self.port.buffer(range.len());
                if root == self.rank {
                    buffer.copy_from_slice(bytes.get(range).unwrap_or_default());
                }
                self.port.spread(root, buffer)?;
            }
            if turn < AHEAD {
                continue;
            }
            let batch = self.port.complete()?;
            for (_, came) in batch.received().filter(|_| root != self.rank) {
                bytes.extend_from_slice(came);
            }
            self.port.recycle(batch);
        }
        Ok(())
    }

    /// A part of a message to one rank.
    fn send_part(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError> {
        let mut buffer = self.port.buffer(bytes.len());
        buffer.copy_from_slice(bytes);
        let mut batch = Batch::default();
        batch.send(std::iter::once(to), buffer);
        self.port.exchange(MESSAGE_TAG, batch)?;
        let batch = self.port.complete()?;
        self.port.recycle(batch);
        Ok(())
    }

    /// A part of a message of one rank.
    fn receive_part(&mut self, from: usize, count: usize, into: &mut Vec<u8>) -> Result<(), ClusterError> {
        let mut batch = Batch::default();
        batch.expect(from, self.port.buffer(count));
        self.port.exchange(MESSAGE_TAG, batch)?;
        let batch = self.port.complete()?;
        for (_, bytes) in batch.received() {
            into.extend_from_slice(bytes);
        }
        self.port.recycle(batch);
        Ok(())
    }

    /// A message between two ranks: numbered by the pair, not by the run.
    fn message(&mut self, kind: Kind, sequence: u32, elements: usize) -> Header {
        self.control.arrive(self.sequence, kind, elements as u64);
        Header { sequence, kind: Kind::Send, order: None, root: 0, elements: elements as u64 }
    }
}

impl Collective for MpiCollective {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn name(&self) -> &'static str {
        "mpi"
    }

    fn all_reduce(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.collective((Kind::AllReduce, Some(order)), 0, values.len(), |mpi, _| match order {
            _ if mpi.world == 1 => Ok(()),
            // With two ranks the exchange is the fastest there is.
            Order::Fast if mpi.world > 2 => mpi.sum_by_mpi(values),
            _ if values.len() <= SHORT_VALUES => mpi.sum_whole(values),
            _ => mpi.sum_slices(values).and_then(|()| mpi.gather_slices(values)),
        })
    }

    fn reduce_scatter(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
        self.collective((Kind::ReduceScatter, Some(order)), 0, values.len(), |mpi, _| match mpi.world {
            1 => Ok(()),
            _ => mpi.sum_slices(values),
        })
    }

    fn all_gather(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
        self.collective((Kind::AllGather, None), 0, values.len(), |mpi, _| mpi.gather_slices(values))
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
        let kind = (Kind::AllGatherBytes, None);
        self.collective(kind, 0, bytes.len(), |mpi, lengths| mpi.gather_bytes(bytes, lengths))
    }

    fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), ClusterError> {
        if root != self.rank {
            self.is_other(root)?;
        }
        self.collective((Kind::Broadcast, None), root, bytes.len(), |mpi, lengths| {
            mpi.spread(bytes, root, lengths.get(root).copied().unwrap_or(0))
        })
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError> {
        self.is_other(to)?;
        self.control.check()?;
        let sequence = self.messages.get_mut(to).map_or(0, |(sent, _)| {
            *sent = sent.wrapping_add(1);
            *sent
        });
        let header = self.message(Kind::Send, sequence, bytes.len());
        self.send_part(to, &header.encode())?;
        for part in bytes.chunks(CHUNK_BYTES) {
            self.send_part(to, part)?;
        }
        self.control.depart();
        Ok(())
    }

    fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError> {
        self.is_other(from)?;
        self.control.check()?;
        let sequence = self.messages.get_mut(from).map_or(0, |(_, received)| {
            *received = received.wrapping_add(1);
            *received
        });
        let header = self.message(Kind::Recv, sequence, 0);
        let mut first = Vec::with_capacity(HEADER_BYTES);
        self.receive_part(from, HEADER_BYTES, &mut first)?;
        let length = self.compare(from, header, &first, true)?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            self.receive_part(from, CHUNK_BYTES.min(length - bytes.len()), &mut bytes)?;
        }
        self.control.depart();
        Ok(bytes)
    }

    fn barrier(&mut self) -> Result<(), ClusterError> {
        self.collective((Kind::Barrier, None), 0, 0, |_, _| Ok(()))
    }
}

impl Drop for MpiCollective {
    fn drop(&mut self) {
        // A process that panics or leaves because of a verdict has nobody to wait for.
        if !std::thread::panicking() && self.control.check().is_ok() {
            self.port.finish();
        }
    }
}

/// The `round`-th chunk of a slice, if it has so many.
fn chunk(slice: &Range<usize>, round: usize) -> Option<Range<usize>> {
    let start = slice.start + round * CHUNK_VALUES;
    (start < slice.end).then(|| start..slice.end.min(start + CHUNK_VALUES))
}

/// The `round`-th piece of a message, if it has so many.
fn piece(len: usize, round: usize) -> Option<Range<usize>> {
    let start = round * CHUNK_BYTES;
    (start < len).then(|| start..len.min(start + CHUNK_BYTES))
}

/// Rounds it takes for the longest slice.
fn rounds(len: usize, world: usize) -> usize {
    (0..world).map(|rank| slice_of(len, world, rank).len().div_ceil(CHUNK_VALUES)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
