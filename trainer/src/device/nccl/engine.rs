//! Owns how sums of tensors are made of a fabric's calls: buckets, tickets, the canonical tree; never touches CUDA.
//!
//! A fast sum is one call of the library. An exact one sends every rank its slice of everybody's values, adds them on
//! the device along the canonical tree and, for an all-reduce, sends the sums round. The first half is handed over
//! when the collective is started, the second when it is waited for: additions put in between would make the rest of
//! the backward pass wait for the network.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;

use super::fabric::{Call, Fabric, Fault};
use crate::cluster::collective::slice_of;
use crate::cluster::control::Control;
use crate::cluster::device_collective::{defect, delegate_to_host, foreign, len_of, region_of};
use crate::cluster::recorder::Kind;
use crate::cluster::{ClusterError, Collective, DeviceCollective, Order, Ticket};
use crate::gradient_sum::TreeSum;

/// How long the control plane may take to say who is lost before this rank takes a fault upon itself. A dead process
/// is known within a second; its peers' libraries may notice even earlier.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks while the host waits for the device.
const LOOK: Duration = Duration::from_micros(200);

/// A collective that has been started.
enum Started<T> {
    /// The results are what the fabric brings.
    Plain(T),
    /// As [`Started::Plain`], with empty tensors back at their places.
    Bucket(T, Places),
    /// What arrives is this rank's slice of every rank's values; the sum is the result.
    Slice(T),
    /// As [`Started::Slice`], then every rank's sum is collected and cut into tensors.
    Whole(T, Vec<Range<usize>>, Places),
    /// There was nothing to send.
    Done(Vec<Tensor<1>>),
}

/// Where the tensors of a bucket stand: empty ones are not sent.
struct Places {
    /// Lengths, in order.
    lengths: Vec<usize>,
    /// The empty ones, in order.
    empty: Vec<Tensor<1>>,
}

impl Places {
    /// Takes the empty tensors out of a bucket.
    fn split(bucket: Vec<Tensor<1>>) -> (Self, Vec<Tensor<1>>) {
        let lengths = bucket.iter().map(len_of).collect();
        let (empty, sent) = bucket.into_iter().partition(|tensor| len_of(tensor) == 0);
        (Self { lengths, empty }, sent)
    }

    /// Puts them back among what came.
    fn restore(self, came: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        let (mut empty, mut came) = (self.empty.into_iter(), came.into_iter());
        self.lengths.iter().filter_map(|&len| if len == 0 { empty.next() } else { came.next() }).collect()
    }

    /// Cuts one long tensor into those that were joined in it, and puts the empty ones back.
    fn cut(self, whole: &Tensor<1>) -> Vec<Tensor<1>> {
        let mut start = 0;
        let mut pieces = Vec::new();
        for &len in self.lengths.iter().filter(|&&len| len > 0) {
            pieces.push(whole.clone().narrow(0, start, len));
            start += len;
        }
        self.restore(pieces)
    }
}

/// Collectives over tensors on a fabric, and over the host engine everything else.
pub(super) struct Engine<F: Fabric> {
    // Before the host engine: the communicator goes while the others still answer.
    fabric: F,
    host: Box<dyn Collective>,
    control: Arc<Control>,
    name: &'static str,
    started: BTreeMap<u64, Started<F::Flight>>,
    tickets: u64,
}

impl<F: Fabric> Engine<F> {
    /// Puts `fabric` beside the host engine.
    pub(super) fn new(name: &'static str, fabric: F, control: Arc<Control>, host: Box<dyn Collective>) -> Self {
        Self { fabric, host, control, name, started: BTreeMap::new(), tickets: 0 }
    }

    fn keep(&mut self, started: Started<F::Flight>) -> Ticket {
        self.tickets += 1;
        self.started.insert(self.tickets, started);
        Ticket(self.tickets)
    }

    fn issue(&mut self, kind: Kind, elements: usize, group: Vec<Call>) -> Result<F::Flight, ClusterError> {
        self.control.check()?;
        let sequence = self.control.issue(kind, elements as u64);
        self.fabric.issue(sequence, group).map_err(|fault| conclude(&self.control, fault))
    }

    fn join(&mut self, flight: F::Flight) -> Result<Vec<Tensor<1>>, ClusterError> {
        self.control.check()?;
        self.fabric.join(flight).map_err(|fault| conclude(&self.control, fault))
    }

    fn join_one(&mut self, flight: F::Flight) -> Result<Tensor<1>, ClusterError> {
        let mut tensors = self.join(flight)?;
        tensors.pop().filter(|_| tensors.is_empty()).ok_or_else(|| defect("a group of one call has one result".into()))
    }

    /// The first half of an exact sum: everybody's values of this rank's cut.
    fn exchange(&mut self, kind: Kind, tensor: Tensor<1>, cuts: Vec<Range<usize>>) -> Result<F::Flight, ClusterError> {
        let elements = len_of(&tensor);
        self.issue(kind, elements, vec![Call::Exchange { tensor, cuts }])
    }

    /// Adds the parts of what arrived along the canonical tree over ranks.
    fn fold(&self, arrived: Tensor<1>, len: usize) -> Tensor<1> {
        if len == 0 {
            return arrived;
        }
        let mut sum = TreeSum::default();
        for rank in 0..self.world() {
            sum.push(arrived.clone().narrow(0, rank * len, len), model_zoo::ops::add);
        }
        sum.finish(model_zoo::ops::add).unwrap_or(arrived)
    }

    /// The second half of an exact all-reduce.
    fn finish_whole(
        &mut self,
        flight: F::Flight,
        cuts: Vec<Range<usize>>,
        places: Places,
    ) -> Result<Vec<Tensor<1>>, ClusterError> {
        let arrived = self.join_one(flight)?;
        let own = cuts.get(self.rank()).map_or(0, ExactSizeIterator::len);
        let piece = self.fold(arrived, own);
        let flight = self.issue(Kind::AllGather, own, vec![Call::Assemble { piece, cuts }])?;
        Ok(places.cut(&self.join_one(flight)?))
    }
}

/// The error for a fault of this rank's device or communicator. Whoever is lost is for the control plane to say; only
/// when it knows of nobody, this rank failed.
pub(super) fn conclude(control: &Control, fault: Fault) -> ClusterError {
    let what = match fault {
        Fault::Defect(what) => return defect(what),
        Fault::Aborted => "the collectives of this rank were cut short".to_owned(),
        Fault::Broken(what) => what,
    };
    let end = Instant::now() + PATIENCE;
    loop {
        if let Err(verdict) = control.check() {
            return verdict;
        }
        if Instant::now() >= end {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    control.fail(&what);
    control.check().err().unwrap_or(ClusterError::Local {
        what: "collectives on the device failed".into(),
        cause: what,
        advice: "look at `nvidia-smi` and at NCCL's own messages (NCCL_DEBUG=WARN), then restart the run".into(),
    })
}

impl<F: Fabric> Collective for Engine<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    delegate_to_host!();
}

impl<F: Fabric> DeviceCollective for Engine<F> {
    fn start_all_reduce(&mut self, bucket: Vec<Tensor<1>>, order: Order) -> Result<Ticket, ClusterError> {
        let (places, sent) = Places::split(bucket);
        let elements: usize = places.lengths.iter().sum();
        let Some(first) = sent.first() else {
            return Ok(self.keep(Started::Done(places.empty)));
        };
        let dtype = first.dtype();
        if order == Order::Fast {
            let calls = sent.into_iter().map(Call::Sum).collect();
            let flight = self.issue(Kind::AllReduce, elements, calls)?;
            return Ok(self.keep(Started::Bucket(flight, places)));
        }
        if sent.iter().any(|tensor| tensor.dtype() != dtype) {
            return Err(defect("an exact sum of a bucket needs tensors of one type".into()));
        }
        let world = self.world();
        let cuts: Vec<_> = (0..world).map(|rank| slice_of(elements, world, rank)).collect();
        let flat = Tensor::cat(sent, 0);
        let flight = self.exchange(Kind::AllReduce, flat, cuts.clone())?;
        Ok(self.keep(Started::Whole(flight, cuts, places)))
    }

    fn start_reduce_scatter(&mut self, flat: Tensor<1>, order: Order) -> Result<Ticket, ClusterError> {
        let (world, elements) = (self.world(), len_of(&flat));
        let region = region_of(elements, world)?;
        if region == 0 {
            return Ok(self.keep(Started::Done(vec![flat])));
        }
        let started = match order {
            Order::Fast => Started::Plain(self.issue(Kind::ReduceScatter, elements, vec![Call::SumRegion(flat)])?),
            Order::Exact => Started::Slice(self.exchange(Kind::ReduceScatter, flat, equal_cuts(region, world))?),
        };
        Ok(self.keep(started))
    }

    fn start_all_gather(&mut self, region: Tensor<1>) -> Result<Ticket, ClusterError> {
        let len = len_of(&region);
        if len == 0 {
            return Ok(self.keep(Started::Done(vec![region])));
        }
        let cuts = equal_cuts(len, self.world());
        let flight = self.issue(Kind::AllGather, len, vec![Call::Assemble { piece: region, cuts }])?;
        Ok(self.keep(Started::Plain(flight)))
    }

    fn start_broadcast(&mut self, tensor: Tensor<1>, root: usize) -> Result<Ticket, ClusterError> {
        if root >= self.world() {
            return Err(defect(format!("rank {root} does not exist in a run of {}", self.world())));
        }
        let elements = len_of(&tensor);
        if elements == 0 {
            return Ok(self.keep(Started::Done(vec![tensor])));
        }
        let flight = self.issue(Kind::Broadcast, elements, vec![Call::Spread { tensor, root }])?;
        Ok(self.keep(Started::Plain(flight)))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Tensor<1>>, ClusterError> {
        match self.started.remove(&ticket.0).ok_or_else(|| foreign(&ticket))? {
            Started::Done(tensors) => Ok(tensors),
            Started::Plain(flight) => self.join(flight),
            Started::Bucket(flight, places) => Ok(places.restore(self.join(flight)?)),
            Started::Slice(flight) => {
                let arrived = self.join_one(flight)?;
                let region = len_of(&arrived) / self.world();
                Ok(vec![self.fold(arrived, region)])
            }
            Started::Whole(flight, cuts, places) => self.finish_whole(flight, cuts, places),
        }
    }

    fn settle(&mut self) -> Result<(), ClusterError> {
        loop {
            self.control.check()?;
            if self.fabric.is_idle().map_err(|fault| conclude(&self.control, fault))? {
                // A verdict may have cut them short just now.
                return self.control.check();
            }
            thread::sleep(LOOK);
        }
    }
}

fn equal_cuts(region: usize, world: usize) -> Vec<Range<usize>> {
    (0..world).map(|rank| rank * region..(rank + 1) * region).collect()
}
