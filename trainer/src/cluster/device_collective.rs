//! Owns the interface of collectives over tensors that stay on the device; never touches a device or a transport.
//!
//! A collective is *started*, which hands it to the device behind the work that makes its input, and later *waited
//! for*, which puts the work that uses its output behind it. Neither waits for the device itself: the host goes on
//! and computes the next layer's gradients while a bucket of the last one travels.

use burn::tensor::{DType, Tensor, TensorData};

use super::collective::{Alone, Collective, Order};
use super::error::ClusterError;

/// A collective that has been started. Redeem it with [`DeviceCollective::wait`] of the engine that gave it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "the result of a collective is only what `wait` returns"]
pub struct Ticket(pub(crate) u64);

/// Collectives over one-dimensional float tensors on this process's device. Every rank starts the same collectives
/// with the same shapes in the same order, and waits for their tickets in one order that all ranks share; between
/// those it is free, and calls of [`Collective`] may stand anywhere.
///
/// Tensors that are passed are consumed. Numbers travel in the type they have.
pub trait DeviceCollective: Collective {
    /// Starts the sum over ranks of every tensor of a bucket, as one message where the library can.
    ///
    /// # Errors
    /// [`ClusterError::Lost`] when a process is lost, [`ClusterError::Refused`] for tensors it cannot take.
    fn start_all_reduce(&mut self, bucket: Vec<Tensor<1>>, order: Order) -> Result<Ticket, ClusterError>;

    /// Starts the sum over ranks of `flat`, `world` regions of one length; the result is this rank's region.
    ///
    /// # Errors
    /// As [`DeviceCollective::start_all_reduce`].
    fn start_reduce_scatter(&mut self, flat: Tensor<1>, order: Order) -> Result<Ticket, ClusterError>;

    /// Starts the collection of the regions of all ranks; the result is `world` regions in the order of ranks.
    ///
    /// # Errors
    /// As [`DeviceCollective::start_all_reduce`].
    fn start_all_gather(&mut self, region: Tensor<1>) -> Result<Ticket, ClusterError>;

    /// Starts the copy of `root`'s tensor to everybody; the others pass one of the same length.
    ///
    /// # Errors
    /// As [`DeviceCollective::start_all_reduce`].
    fn start_broadcast(&mut self, tensor: Tensor<1>, root: usize) -> Result<Ticket, ClusterError>;

    /// Puts later work on the device behind the collective and returns its tensors, in the order they were passed.
    /// The host does not wait for the device, so a peer may be lost after this has returned: see
    /// [`DeviceCollective::settle`].
    ///
    /// # Errors
    /// As [`DeviceCollective::start_all_reduce`].
    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Tensor<1>>, ClusterError>;

    /// Blocks the host until every collective has come back from the device. Whatever leaves the process (a saved
    /// state, a printed loss) is true only after this: when a peer dies, collectives are cut short and leave anything
    /// in their tensors.
    ///
    /// # Errors
    /// As [`DeviceCollective::start_all_reduce`].
    fn settle(&mut self) -> Result<(), ClusterError>;

    /// [`DeviceCollective::start_all_reduce`] and [`DeviceCollective::wait`].
    ///
    /// # Errors
    /// As these.
    fn all_reduce_tensors(&mut self, bucket: Vec<Tensor<1>>, order: Order) -> Result<Vec<Tensor<1>>, ClusterError> {
        let ticket = self.start_all_reduce(bucket, order)?;
        self.wait(ticket)
    }

    /// [`DeviceCollective::start_reduce_scatter`] and [`DeviceCollective::wait`].
    ///
    /// # Errors
    /// As these.
    fn reduce_scatter_tensor(&mut self, flat: Tensor<1>, order: Order) -> Result<Tensor<1>, ClusterError> {
        let ticket = self.start_reduce_scatter(flat, order)?;
        one(self.wait(ticket)?)
    }

    /// [`DeviceCollective::start_all_gather`] and [`DeviceCollective::wait`].
    ///
    /// # Errors
    /// As these.
    fn all_gather_tensor(&mut self, region: Tensor<1>) -> Result<Tensor<1>, ClusterError> {
        let ticket = self.start_all_gather(region)?;
        one(self.wait(ticket)?)
    }

    /// [`DeviceCollective::start_broadcast`] and [`DeviceCollective::wait`].
    ///
    /// # Errors
    /// As these.
    fn broadcast_tensor(&mut self, tensor: Tensor<1>, root: usize) -> Result<Tensor<1>, ClusterError> {
        let ticket = self.start_broadcast(tensor, root)?;
        one(self.wait(ticket)?)
    }
}

/// The only tensor of a result.
fn one(tensors: Vec<Tensor<1>>) -> Result<Tensor<1>, ClusterError> {
    let count = tensors.len();
    tensors.into_iter().next().filter(|_| count == 1).ok_or_else(|| defect(format!("{count} tensors came, not one")))
}

/// Something that only a mistake in this program can bring about.
pub(crate) fn defect(what: String) -> ClusterError {
    ClusterError::Refused { what, advice: "this is a defect, please report it".into() }
}

/// Number of elements.
pub(crate) fn len_of(tensor: &Tensor<1>) -> usize {
    let [len] = tensor.dims();
    len
}

/// Passes the methods of [`Collective`] on to the engine in the field `host`, which serves everything that is not a
/// tensor on the device; only the name is another.
macro_rules! delegate_to_host {
    () => {
        fn rank(&self) -> usize {
            self.host.rank()
        }

        fn world(&self) -> usize {
            self.host.world()
        }

        fn all_reduce(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
            self.host.all_reduce(values, order)
        }

        fn reduce_scatter(&mut self, values: &mut [f32], order: Order) -> Result<(), ClusterError> {
            self.host.reduce_scatter(values, order)
        }

        fn all_gather(&mut self, values: &mut [f32]) -> Result<(), ClusterError> {
            self.host.all_gather(values)
        }

        fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ClusterError> {
            self.host.all_gather_bytes(bytes)
        }

        fn broadcast(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), ClusterError> {
            self.host.broadcast(bytes, root)
        }

        fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), ClusterError> {
            self.host.send(to, bytes)
        }

        fn recv(&mut self, from: usize) -> Result<Vec<u8>, ClusterError> {
            self.host.recv(from)
        }

        fn barrier(&mut self) -> Result<(), ClusterError> {
            self.host.barrier()
        }

        fn on_device(&mut self) -> Option<&mut dyn DeviceCollective> {
            Some(self)
        }
    };
}
pub(crate) use delegate_to_host;

/// Any engine over host memory as a [`DeviceCollective`]: tensors are copied to the host and back, and a collective
/// is over when its start returns. For engines without a way to the device, and to hold those with one against. Sums
/// are computed in f32 whatever type the tensors have.
pub struct Staged {
    host: Box<dyn Collective>,
    results: std::collections::BTreeMap<u64, Vec<Tensor<1>>>,
    started: u64,
}

impl Staged {
    /// Takes over an engine.
    #[must_use]
    pub fn new(host: Box<dyn Collective>) -> Self {
        Self { host, results: std::collections::BTreeMap::new(), started: 0 }
    }

    /// A world of one process.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(Box::new(Alone))
    }

    fn keep(&mut self, tensors: Vec<Tensor<1>>) -> Ticket {
        self.started += 1;
        self.results.insert(self.started, tensors);
        Ticket(self.started)
    }
}

/// A tensor's values on the host, and what it takes to make another one like it.
struct Copy {
    values: Vec<f32>,
    device: burn::tensor::Device,
    dtype: DType,
}

impl Copy {
    fn of(tensor: Tensor<1>) -> Result<Self, ClusterError> {
        let (device, dtype) = (tensor.device(), tensor.dtype());
        let values = tensor.cast(DType::F32).into_data().try_into_vec::<f32>();
        let values = values.map_err(|error| ClusterError::Local {
            what: "a tensor could not be read from the device".into(),
            cause: error.to_string(),
            advice: "the device may have failed: restart the run".into(),
        })?;
        Ok(Self { values, device, dtype })
    }

    fn back(self) -> Tensor<1> {
        let len = self.values.len();
        Tensor::<1>::from_data(TensorData::new(self.values, [len]), &self.device).cast(self.dtype)
    }
}

impl Collective for Staged {
    fn name(&self) -> &'static str {
        self.host.name()
    }

    delegate_to_host!();
}

impl DeviceCollective for Staged {
    fn start_all_reduce(&mut self, bucket: Vec<Tensor<1>>, order: Order) -> Result<Ticket, ClusterError> {
        let mut sums = Vec::with_capacity(bucket.len());
        for tensor in bucket {
            let mut copy = Copy::of(tensor)?;
            self.host.all_reduce(&mut copy.values, order)?;
            sums.push(copy.back());
        }
        Ok(self.keep(sums))
    }

    fn start_reduce_scatter(&mut self, flat: Tensor<1>, order: Order) -> Result<Ticket, ClusterError> {
        let region = region_of(len_of(&flat), self.world())?;
        // Regions need not be the slices of the host's reduce-scatter, so the whole vector is summed.
        let mut copy = Copy::of(flat)?;
        self.host.all_reduce(&mut copy.values, order)?;
        copy.values = copy.values.split_off(self.rank() * region);
        copy.values.truncate(region);
        let sum = copy.back();
        Ok(self.keep(vec![sum]))
    }

    fn start_all_gather(&mut self, region: Tensor<1>) -> Result<Ticket, ClusterError> {
        let mut copy = Copy::of(region)?;
        let bytes: Vec<u8> = copy.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let all = self.host.all_gather_bytes(&bytes)?;
        copy.values = all.iter().flat_map(|b| b.as_chunks().0).map(|word| f32::from_le_bytes(*word)).collect();
        let whole = copy.back();
        Ok(self.keep(vec![whole]))
    }

    fn start_broadcast(&mut self, tensor: Tensor<1>, root: usize) -> Result<Ticket, ClusterError> {
        let mut copy = Copy::of(tensor)?;
        let mut bytes: Vec<u8> = copy.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.host.broadcast(&mut bytes, root)?;
        copy.values = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let tensor = copy.back();
        Ok(self.keep(vec![tensor]))
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Vec<Tensor<1>>, ClusterError> {
        self.results.remove(&ticket.0).ok_or_else(|| foreign(&ticket))
    }

    fn settle(&mut self) -> Result<(), ClusterError> {
        Ok(())
    }
}

/// Elements of each of `world` equal regions.
pub(crate) fn region_of(len: usize, world: usize) -> Result<usize, ClusterError> {
    if !len.is_multiple_of(world) {
        return Err(defect(format!("{len} values cannot be divided into {world} equal regions")));
    }
    Ok(len / world)
}

/// A ticket that this engine did not give.
pub(crate) fn foreign(ticket: &Ticket) -> ClusterError {
    defect(format!("ticket {} was not given by this engine", ticket.0))
}
