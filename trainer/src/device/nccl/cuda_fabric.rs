//! Owns the meeting of burn's tensors with NCCL: addresses, order, memory under way; never touches who sums what.
//!
//! CubeCL launches kernels from one thread a device. Everything that must be ordered with them runs on that thread
//! (`Client::exclusive`): finding a tensor's address, recording that its input is ready, handing over a group, putting
//! later work behind it. CubeCL's own streams are private, so ordering is by the whole context: an event of all its
//! work so far, and all its later work behind an event. Tensors under way are held until the device has finished
//! with them; without that the memory pool would hand their memory out, or move it.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::backend::Cuda;
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;

use super::communicator::{Communicator, Group};
use super::driver::{Context, Event, Lane};
use super::fabric::{Call, Fabric, Fault, out_len};
use super::symbols::{BFLOAT16, FLOAT16, FLOAT32, SUM};
use super::watch::{Probe, Sighting, Watch};
use crate::cluster::ClusterError;
use crate::cluster::control::Control;
use crate::cluster::device_collective::len_of;

type CudaServer = <CudaRuntime as Runtime>::Server;

/// A group that the device has not finished.
struct UnderWay {
    sequence: u64,
    done: Arc<Event>,
    issued: Instant,
    /// Tensors and their pinned memory.
    _held: Vec<Box<dyn Any + Send>>,
}

/// What the device's thread and the watch share.
struct Shared {
    context: Context,
    lane: Lane,
    ready: Event,
    // Before what is under way: closing it waits for that.
    comm: Communicator,
    under_way: Mutex<VecDeque<UnderWay>>,
    rank: usize,
    world: usize,
}

/// What a call does, apart from its memory.
enum Work {
    Sum,
    SumRegion,
    Spread(usize),
    Exchange(Vec<Range<usize>>),
    Assemble(Vec<Range<usize>>),
}

/// A call with its memory.
struct Part {
    work: Work,
    from: CubeTensor,
    into: CubeTensor,
    /// Elements that go in.
    len: usize,
}

/// Where the memory of a call lies.
struct Addresses {
    from: u64,
    into: u64,
    dtype: c_int,
    width: u64,
}

impl Addresses {
    fn source(&self, element: usize) -> *const c_void {
        (self.from + element as u64 * self.width) as *const _
    }

    fn target(&self, element: usize) -> *mut c_void {
        (self.into + element as u64 * self.width) as *mut _
    }
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a group over; on the device's thread, after the kernels that make its inputs have been launched.
    fn launch(&self, sequence: u64, parts: Vec<Part>) -> Result<Arc<Event>, Fault> {
        self.context.set_current().map_err(Fault::Broken)?;
        let mut held: Vec<Box<dyn Any + Send>> = Vec::with_capacity(2 * parts.len());
        let mut calls = Vec::with_capacity(parts.len());
        for Part { work, from, into, len } in parts {
            let (dtype, width) = nccl_type(from.dtype)?;
            let ((source, from_pin), (target, into_pin)) = (pin(&from)?, pin(&into)?);
            calls.push((work, len, Addresses { from: source, into: target, dtype, width }));
            held.extend([from_pin, into_pin, Box::new(from), Box::new(into)]);
        }
        self.context.record(&self.ready).and_then(|()| self.lane.wait(&self.ready)).map_err(Fault::Broken)?;
        let done = Arc::new(Event::new().map_err(Fault::Broken)?);
        let launched = self
            .comm
            .group(&mut |group| calls.iter().try_for_each(|(work, len, memory)| self.call(group, work, *len, memory)));
        // Also after a fault: a part of the group may have been launched.
        let recorded = self.lane.record(&done);
        let entry = UnderWay { sequence, done: Arc::clone(&done), issued: Instant::now(), _held: held };
        self.under_way().push_back(entry);
        launched?;
        recorded.map_err(Fault::Broken)?;
        Ok(done)
    }

    /// Makes the calls of the library for one call of the engine.
    fn call(&self, group: &Group<'_>, work: &Work, len: usize, memory: &Addresses) -> Result<(), String> {
        let (functions, comm, stream, dtype) = (&group.api.functions, group.comm, self.lane.raw(), memory.dtype);
        let (from, into) = (memory.source(0), memory.target(0));
        let own = |cuts: &[Range<usize>]| cuts.get(self.rank).map_or(0, ExactSizeIterator::len);
        match work {
            Work::Sum => {
                // SAFETY: both tensors have `len` elements of this type and are pinned until the group is done; the
                // stream is behind the work that makes the input and belongs to the communicator's device. All this
                // holds for every call below and in `send` and `recv`.
                let code = unsafe { (functions.all_reduce)(from, into, len, dtype, SUM, comm, stream) };
                group.check("ncclAllReduce", code)
            }
            Work::SumRegion => {
                let region = len / self.world;
                // SAFETY: `from` has as many regions as there are ranks, `into` one.
                let code = unsafe { (functions.reduce_scatter)(from, into, region, dtype, SUM, comm, stream) };
                group.check("ncclReduceScatter", code)
            }
            Work::Spread(root) => {
                // SAFETY: both have `len` elements.
                let code = unsafe { (functions.broadcast)(from, into, len, dtype, number(*root), comm, stream) };
                group.check("ncclBroadcast", code)
            }
            Work::Exchange(cuts) => {
                let own = own(cuts);
                cuts.iter().enumerate().try_for_each(|(peer, cut)| {
                    self.send(group, memory, cut.clone(), peer)?;
                    self.recv(group, memory, peer * own..(peer + 1) * own, peer)
                })
            }
            Work::Assemble(cuts) if cuts.iter().all(|cut| cut.len() == own(cuts)) => {
                // SAFETY: `from` has as many elements as a cut, `into` as many times that as there are ranks.
                let code = unsafe { (functions.all_gather)(from, into, own(cuts), dtype, comm, stream) };
                group.check("ncclAllGather", code)
            }
            Work::Assemble(cuts) => cuts.iter().enumerate().try_for_each(|(peer, cut)| {
                self.send(group, memory, 0..own(cuts), peer)?;
                self.recv(group, memory, cut.clone(), peer)
            }),
        }
    }

    fn send(&self, group: &Group<'_>, memory: &Addresses, part: Range<usize>, to: usize) -> Result<(), String> {
        if part.is_empty() {
            return Ok(());
        }
        let (from, send) = (memory.source(part.start), group.api.functions.send);
        // SAFETY: as in `call`; the engine's cuts lie within the tensor.
        let code = unsafe { send(from, part.len(), memory.dtype, number(to), group.comm, self.lane.raw()) };
        group.check("ncclSend", code)
    }

    fn recv(&self, group: &Group<'_>, memory: &Addresses, part: Range<usize>, from: usize) -> Result<(), String> {
        if part.is_empty() {
            return Ok(());
        }
        let (into, recv) = (memory.target(part.start), group.api.functions.recv);
        // SAFETY: as in `call`; the engine's cuts lie within the tensor.
        let code = unsafe { recv(into, part.len(), memory.dtype, number(from), group.comm, self.lane.raw()) };
        group.check("ncclRecv", code)
    }

    /// Puts later work behind a group; on the device's thread.
    fn join(&self, done: &Event) -> Result<(), Fault> {
        self.context.set_current().and_then(|()| self.context.wait(done)).map_err(Fault::Broken)?;
        // Cut short, its tensors hold anything.
        if self.comm.is_aborted() { Err(Fault::Aborted) } else { Ok(()) }
    }
}

/// A rank as NCCL takes it; the world's size was one of its numbers already.
fn number(rank: usize) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

/// NCCL's number of a type, and bytes of an element.
fn nccl_type(dtype: DType) -> Result<(c_int, u64), Fault> {
    match dtype {
        DType::F32 => Ok((FLOAT32, 4)),
        DType::BF16 => Ok((BFLOAT16, 2)),
        DType::F16 => Ok((FLOAT16, 2)),
        other => Err(Fault::Defect(format!("no collective over {other:?} on a GPU"))),
    }
}

/// The address of a tensor on the GPU, and what keeps its memory in place. Fails where a kernel failed to write it.
fn pin(tensor: &CubeTensor) -> Result<(u64, Box<dyn Any + Send>), Fault> {
    let resource = tensor.client.get_resource::<CudaServer>(tensor.handle.clone());
    let resource = resource.map_err(|error| Fault::Broken(format!("a tensor has no memory on the GPU: {error}")))?;
    Ok((resource.resource().ptr, Box::new(resource)))
}

/// The buffer behind a tensor. Operations that were only noted so far are launched first.
fn unfuse(tensor: Tensor<1>) -> Result<CubeTensor, Fault> {
    let primitive = tensor.try_into_primitive::<Cuda>();
    let primitive = primitive.map_err(|error| Fault::Defect(format!("not a plain tensor on a GPU: {error:?}")))?;
    let client = primitive.client.clone();
    // burn panics where work before failed.
    let resolved =
        catch_unwind(AssertUnwindSafe(|| into_contiguous(client.resolve_tensor_float::<CubeBackend>(primitive))));
    resolved.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Fault::Broken(format!("work before a collective failed: {text}"))
    })
}

/// One GPU and this process's part in a communicator.
pub(super) struct CudaFabric {
    // Ends before the rest goes.
    _watch: Watch,
    client: Client,
    shared: Arc<Shared>,
}

/// A group that was handed over.
pub(super) struct CudaFlight {
    done: Arc<Event>,
    results: Vec<Tensor<1>>,
}

impl CudaFabric {
    /// Puts the communicator to work on tensors of `device`, whose context is `context`, current on this thread.
    pub(super) fn new(
        device: &Device,
        context: Context,
        comm: Communicator,
        control: &Arc<Control>,
    ) -> Result<Self, FabricError> {
        let (lane, ready) = (Lane::new().map_err(Fault::Broken)?, Event::new().map_err(Fault::Broken)?);
        let client = unfuse(Tensor::<1>::zeros([1], device))?.client;
        let (rank, world) = (control.rank(), control.world());
        let shared = Arc::new(Shared { context, lane, ready, comm, under_way: Mutex::default(), rank, world });
        let watch = Watch::start(Arc::clone(control), Arc::clone(&shared) as Arc<dyn Probe>)?;
        Ok(Self { _watch: watch, client, shared })
    }

    /// Runs `task` on the thread that launches kernels, after all that were launched before.
    fn on_device_thread<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Shared) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = Arc::clone(&self.shared);
        let done = self.client.exclusive(move || task(&shared));
        done.map_err(|error| Fault::Broken(format!("the thread of the GPU failed: {error}")))?
    }
}

/// Why a fabric could not be made.
pub(super) enum FabricError {
    /// The device or the communicator failed.
    Fault(Fault),
    /// Something else of this process did.
    Other(ClusterError),
}

impl From<Fault> for FabricError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ClusterError> for FabricError {
    fn from(error: ClusterError) -> Self {
        Self::Other(error)
    }
}

impl Fabric for CudaFabric {
    type Flight = CudaFlight;

    fn issue(&mut self, sequence: u64, group: Vec<Call>) -> Result<CudaFlight, Fault> {
        let (mut parts, mut results) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        for call in group {
            let out_len = out_len(&call, self.shared.rank, self.shared.world);
            let (work, tensor) = match call {
                Call::Sum(tensor) => (Work::Sum, tensor),
                Call::SumRegion(tensor) => (Work::SumRegion, tensor),
                Call::Spread { tensor, root } => (Work::Spread(root), tensor),
                Call::Exchange { tensor, cuts } => (Work::Exchange(cuts), tensor),
                Call::Assemble { piece, cuts } => (Work::Assemble(cuts), piece),
            };
            let len = len_of(&tensor);
            // A result has memory of its own: the input may be a view of something that others still read.
            let result = Tensor::<1>::empty([out_len], (&tensor.device(), tensor.dtype()));
            let (from, into) = (unfuse(tensor)?, unfuse(result.clone())?);
            parts.push(Part { work, from, into, len });
            results.push(result);
        }
        let done = self.on_device_thread(move |shared| shared.launch(sequence, parts))?;
        Ok(CudaFlight { done, results })
    }

    fn join(&mut self, flight: CudaFlight) -> Result<Vec<Tensor<1>>, Fault> {
        let CudaFlight { done, results } = flight;
        self.on_device_thread(move |shared| shared.join(&done))?;
        Ok(results)
    }

    fn is_idle(&mut self) -> Result<bool, Fault> {
        let look = || {
            self.shared.context.set_current()?;
            self.shared.under_way().iter().try_fold(true, |all, entry| Ok(all && entry.done.is_done()?))
        };
        look().map_err(Fault::Broken)
    }
}

impl Probe for Shared {
    fn look(&self) -> Result<Sighting, String> {
        match self.comm.is_in_progress() {
            Ok(_) | Err(Fault::Aborted) => {}
            Err(Fault::Broken(why) | Fault::Defect(why)) => return Err(why),
        }
        self.context.set_current()?;
        let (mut back, mut sighting) = (Vec::new(), Sighting::default());
        {
            let mut under_way = self.under_way();
            while let Some(first) = under_way.front() {
                if !first.done.is_done()? {
                    sighting.oldest = Some(first.issued.elapsed());
                    break;
                }
                back.extend(under_way.pop_front());
            }
        }
        sighting.landed = back.iter().map(|entry| entry.sequence).collect();
        Ok(sighting)
    }

    fn abort(&self) {
        self.comm.abort();
    }
}
