//! Owns what the engine asks of a device and its communicator; never touches either.

use std::ops::Range;

use burn::tensor::Tensor;

/// One operation of a group. Each has one tensor as its result.
#[derive(Debug)]
pub(super) enum Call {
    /// The sum over ranks, in any order, everywhere.
    Sum(Tensor<1>),
    /// The sum over ranks, in any order, of this rank's region of as many equal regions as there are ranks.
    SumRegion(Tensor<1>),
    /// The root's tensor, everywhere.
    Spread {
        /// What the root sends; on the others only its length counts.
        tensor: Tensor<1>,
        /// Who sends.
        root: usize,
    },
    /// Every rank's own cut of every rank's tensor: what arrives lies in the order of ranks. One element of anything
    /// where this rank's cut is empty.
    Exchange {
        /// What is cut.
        tensor: Tensor<1>,
        /// The part that each rank receives.
        cuts: Vec<Range<usize>>,
    },
    /// Every rank's piece at its place. The piece of an empty cut is ignored.
    Assemble {
        /// This rank's piece; its first elements, as many as the cut has.
        piece: Tensor<1>,
        /// The place of each rank's piece; together they cover the result.
        cuts: Vec<Range<usize>>,
    },
}

/// Why a device or its communicator did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The communicator was cut short, because a rank is lost.
    Aborted,
    /// Something broke on this rank, or between it and another.
    Broken(String),
    /// This program asked for something that cannot be.
    Defect(String),
}

/// A device with a communicator: collectives are handed to it in one order that all ranks share, and run in that
/// order, while the device goes on with other work.
pub(super) trait Fabric: Send {
    /// A group that was handed over.
    type Flight: Send;

    /// Hands over a group as collective number `sequence` of the run, behind the work that makes its inputs.
    fn issue(&mut self, sequence: u64, group: Vec<Call>) -> Result<Self::Flight, Fault>;

    /// Puts later work behind the group and returns its results, one a call.
    fn join(&mut self, flight: Self::Flight) -> Result<Vec<Tensor<1>>, Fault>;

    /// Whether all groups have come back.
    fn is_idle(&mut self) -> Result<bool, Fault>;
}

/// Length of the result of a call, and the tensor that goes in.
pub(super) fn out_len(call: &Call, rank: usize, world: usize) -> usize {
    let own = |cuts: &[Range<usize>]| cuts.get(rank).map_or(0, ExactSizeIterator::len);
    match call {
        Call::Sum(tensor) | Call::Spread { tensor, .. } => crate::cluster::device_collective::len_of(tensor),
        Call::SumRegion(tensor) => crate::cluster::device_collective::len_of(tensor) / world.max(1),
        Call::Exchange { cuts, .. } => (world * own(cuts)).max(1),
        Call::Assemble { cuts, .. } => cuts.iter().map(|cut| cut.end).max().unwrap_or(0),
    }
}
