//! Owns what the training loop needs of the other processes: one gradient, one wish to stop, equal states; never
//! touches sockets, files or the model.
//!
//! A run of one process is a team of one: every method is then the identity and costs nothing.

mod reduction;
mod sharded;
mod worker;

pub use reduction::{Layout, Reduction};

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::tensor::{Device, Tensor, TensorData};
use model_zoo::Params;

use self::worker::{Shared, Worker, lock};
use crate::cluster::control::{Control, Straggler};
use crate::cluster::device_collective::DeviceCollective;
use crate::cluster::{Alone, Cause, ClusterError, Collective, Order};
use crate::gradient_sum::TreeSum;
use crate::optim;
use crate::partition::Partition;
use crate::step::StepGradients;

/// Bytes of a digest that are compared: enough to tell two states apart, few enough to print.
const DIGEST_CHARS: usize = 16;

/// The processes of a run, as the loop of one of them sees them.
pub struct Team {
    rank: usize,
    world: usize,
    collective: Shared,
    control: Option<Arc<Control>>,
    order: Order,
    /// Whether the engine adds tensors where they are.
    on_device: bool,
    /// Whether such an engine is still to be joined.
    awaits_device: bool,
    worker: Option<Worker>,
    /// Time that the loop waited for others.
    waited: Duration,
    /// Time that collectives took, also those beside the backward pass.
    busy: Duration,
}

/// Time that a process spent on others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// In which the loop stood still.
    pub exposed: Duration,
    /// In collectives, of which a part ran beside the backward pass.
    pub collectives: Duration,
}

impl Waits {
    /// Share of the collectives' time that the backward pass hid, 0 to 1; `None` where nobody measures it: one process,
    /// or an engine on the device.
    #[must_use]
    pub fn hidden(&self) -> Option<f64> {
        let (exposed, collectives) = (self.exposed.as_secs_f64(), self.collectives.as_secs_f64());
        (collectives > 0.0).then(|| (1.0 - exposed / collectives).max(0.0))
    }
}

/// What is known about one micro-batch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Share {
    loss_sum: f64,
    valid: u64,
}

impl Share {
    const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (loss, valid) = bytes.split_at_mut(8);
        loss.copy_from_slice(&self.loss_sum.to_le_bytes());
        valid.copy_from_slice(&self.valid.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (loss, valid) = bytes.split_first_chunk()?;
        Some(Self { loss_sum: f64::from_le_bytes(*loss), valid: u64::from_le_bytes(*valid.first_chunk()?) })
    }

    fn merge(self, right: Self) -> Self {
        Self { loss_sum: self.loss_sum + right.loss_sum, valid: self.valid + right.valid }
    }
}

/// A wish to stop and the shares of a process's micro-batches, as they travel.
fn encode(stop: bool, shares: &[Share]) -> Vec<u8> {
    std::iter::once(u8::from(stop)).chain(shares.iter().flat_map(|share| share.to_bytes())).collect()
}

fn decode(bytes: &[u8]) -> Option<(bool, Vec<Share>)> {
    let (stop, shares) = bytes.split_first()?;
    let (shares, rest) = shares.as_chunks();
    let shares = shares.iter().map(Share::from_bytes).collect::<Option<_>>()?;
    rest.is_empty().then_some((*stop == 1, shares))
}

impl Team {
    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self::of(Box::new(Alone), None, Order::Exact)
    }

    /// Processes that are connected.
    #[must_use]
    pub fn new(collective: Box<dyn Collective>, control: Arc<Control>, order: Order) -> Self {
        Self::of(collective, Some(control), order)
    }

    fn of(mut collective: Box<dyn Collective>, control: Option<Arc<Control>>, order: Order) -> Self {
        let (rank, world, on_device) = (collective.rank(), collective.world(), collective.on_device().is_some());
        let collective = Arc::new(Mutex::new(collective));
        let (waited, busy) = (Duration::ZERO, Duration::ZERO);
        Self { rank, world, collective, control, order, on_device, awaits_device: false, worker: None, waited, busy }
    }

    /// The same, to be joined on the device by [`Team::join_device`] once that is open.
    #[must_use]
    pub fn awaiting_device(self) -> Self {
        Self { awaits_device: true, ..self }
    }

    /// Exchanges the engine for one on the device if this team awaits one; `join` returns what takes its place.
    pub(crate) fn join_device(
        &mut self,
        join: impl FnOnce(Arc<Control>, Box<dyn Collective>) -> (Box<dyn Collective>, Result<Option<String>, ClusterError>),
    ) -> Result<Option<String>, ClusterError> {
        let Some(control) = self.control.clone().filter(|_| self.awaits_device) else { return Ok(None) };
        self.awaits_device = false;
        let mut place = lock(&self.collective);
        let (mut engine, result) = join(control, std::mem::replace(&mut *place, Box::new(Alone)));
        self.on_device = engine.on_device().is_some();
        *place = engine;
        result
    }

    /// This process, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    #[must_use]
    pub fn world(&self) -> usize {
        self.world
    }

    /// The engine of collectives in use: `tcp`, `mpi`; `alone` for one process.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        lock(&self.collective).name()
    }

    /// Whether this process writes: logs, checkpoints, the terminal.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    fn is_alone(&self) -> bool {
        self.world() == 1
    }

    /// Tells the others where this process is, for messages about whoever does not come.
    pub fn at(&self, step: u64, phase: &'static str) {
        if let Some(control) = &self.control {
            control.at(step, phase);
        }
    }

    /// Starts the sum of a step's gradients.
    pub fn reduction<'a>(&'a mut self, layout: Layout<'a>) -> Reduction<'a> {
        Reduction::new(self, layout)
    }

    /// The thread that adds gradients; started when first asked for.
    fn worker(&mut self) -> Result<&Worker, ClusterError> {
        if self.worker.is_none() {
            self.worker = Some(Worker::start(Arc::clone(&self.collective), self.order)?);
        }
        self.worker.as_ref().ok_or_else(|| ClusterError::Refused {
            what: "there is no thread that adds gradients".into(),
            advice: "this is a defect, please report it".into(),
        })
    }

    /// Asks the engine that adds tensors where they are; only where there is one.
    fn with_device<T>(
        &self,
        ask: impl FnOnce(&mut dyn DeviceCollective) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let mut collective = lock(&self.collective);
        let engine = collective.on_device().ok_or_else(|| ClusterError::Refused {
            what: "the engine of collectives does not add tensors on the device".into(),
            advice: "this is a defect, please report it".into(),
        })?;
        ask(engine)
    }

    /// Waits until the device has finished all collectives: what it holds is true only then.
    fn settle(&self) -> Result<(), ClusterError> {
        if self.on_device { self.with_device(|engine| engine.settle()) } else { Ok(()) }
    }

    /// Whether anybody wants to stop; the same answer everywhere.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn any_stop(&mut self, stop: bool) -> Result<bool, ClusterError> {
        if self.is_alone() {
            return Ok(stop);
        }
        Ok(self.fold_shares(&[], stop, false)?.1)
    }

    /// Global L2 norm of the mean gradient, see [`optim::grad_norm`]; the same bits on every process.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn grad_norm(&mut self, sum: &StepGradients, partition: Option<&Partition>) -> Result<f64, ClusterError> {
        match partition {
            None => Ok(optim::grad_norm(&sum.grads, sum.valid)),
            Some(partition) => Ok(optim::norm(self.sum_squares_of_pieces(&sum.grads, partition)?, sum.valid)),
        }
    }

    /// Loss and targets of all micro-batches of all processes, added along the canonical tree; and whether anybody wants
    /// to stop. Processes hold blocks of micro-batches, or were `dealt` them in turn.
    fn fold_shares(&mut self, own: &[Share], stop: bool, dealt: bool) -> Result<(Share, bool), ClusterError> {
        let (mut anyone, mut all) = (false, Vec::with_capacity(self.world));
        if self.is_alone() {
            (anyone, all) = (stop, vec![own.to_vec()]);
        } else {
            let gathered = lock(&self.collective).all_gather_bytes(&encode(stop, own))?;
            for (rank, bytes) in gathered.iter().enumerate() {
                let (stop, shares) = decode(bytes).ok_or_else(|| self.nonsense(rank, "share of a step"))?;
                anyone |= stop;
                all.push(shares);
            }
        }
        let turns = all.iter().map(Vec::len).max().unwrap_or(0);
        let mut sum = TreeSum::default();
        if dealt {
            for turn in 0..turns {
                all.iter().filter_map(|shares| shares.get(turn)).for_each(|share| sum.push(*share, Share::merge));
            }
        } else {
            all.into_iter().flatten().for_each(|share| sum.push(share, Share::merge));
        }
        let nothing = Share { loss_sum: 0.0, valid: 0 };
        Ok((sum.finish(Share::merge).unwrap_or(nothing), anyone))
    }

    /// Gives everybody everybody's bytes, by rank.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn gather(&mut self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, ClusterError> {
        if self.is_alone() {
            return Ok(vec![bytes]);
        }
        lock(&self.collective).all_gather_bytes(&bytes)
    }

    /// Gives everybody the bytes of rank 0.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn from_leader(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ClusterError> {
        lock(&self.collective).broadcast(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces `tensors` by those of rank 0.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn copy_of_leaders(&mut self, tensors: &mut [Tensor<1>], device: &Device) -> Result<(), ClusterError> {
        if self.is_alone() {
            return Ok(());
        }
        // Muon leaves second moments empty.
        let mut some = tensors.iter_mut().filter(|tensor| tensor.dims() != [0]);
        some.try_for_each(|tensor| self.copy_of_leader(tensor, device))
    }

    /// Replaces parameters by those of rank 0.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn copy_parameters_of_leader(&mut self, params: &mut Params, device: &Device) -> Result<(), ClusterError> {
        if self.is_alone() {
            return Ok(());
        }
        params.tensors_mut().iter_mut().try_for_each(|tensor| self.copy_of_leader(tensor, device))
    }

    fn copy_of_leader(&mut self, tensor: &mut Tensor<1>, device: &Device) -> Result<(), ClusterError> {
        if self.on_device {
            *tensor = self.with_device(|engine| engine.broadcast_tensor(tensor.clone(), 0))?;
            return self.settle();
        }
        let mut bytes = if self.leads() { floats_to_bytes(&to_host(tensor.clone())?) } else { Vec::new() };
        lock(&self.collective).broadcast(&mut bytes, 0)?;
        if !self.leads() {
            let values = floats_of(&bytes);
            if values.len() != tensor.dims().iter().product::<usize>() {
                return Err(self.nonsense(0, "tensor of the state"));
            }
            *tensor = to_device(values, device);
        }
        Ok(())
    }

    /// The answer of rank 0 to a question that only it can decide.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn leader_says(&mut self, answer: bool) -> Result<bool, ClusterError> {
        if self.is_alone() {
            return Ok(answer);
        }
        Ok(self.from_leader(vec![u8::from(answer)])? == [1])
    }

    /// Compares the digest of the state at `step` over all processes: replicas must hold the same bits.
    ///
    /// # Errors
    /// [`ClusterError::Lost`] names the rank that differs from the majority (from rank 0 where there is none).
    pub fn compare_digests(&mut self, step: u64, digest: &str) -> Result<(), ClusterError> {
        if self.is_alone() {
            return Ok(());
        }
        self.at(step, "comparing replicas");
        let all = lock(&self.collective).all_gather_bytes(digest.as_bytes())?;
        let count = |digest: &[u8]| all.iter().filter(|other| other.as_slice() == digest).count();
        let common = all.iter().max_by_key(|digest| (count(digest), std::cmp::Reverse(first(&all, digest))));
        let Some(common) = common else { return Ok(()) };
        let Some(rank) = all.iter().position(|digest| digest != common) else { return Ok(()) };
        let short = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(DIGEST_CHARS).collect::<String>();
        let found = all.get(rank).map(|digest| short(digest)).unwrap_or_default();
        let (same, world) = (count(common), all.len());
        let tie = if 2 * same > world { "" } else { "; the vote is tied, so the fault may lie on the other side" };
        let detail = format!(
            "its state at step {step} has the digest {found}, {same} of {world} processes hold {}{tie}; suspect the \
             memory or the processor of that host",
            short(common)
        );
        Err(self.control.as_ref().map_or_else(
            || ClusterError::Refused { what: detail.clone(), advice: "restart the run".into() },
            |control| control.accuse(rank, Cause::Disagrees, &detail),
        ))
    }

    /// Returns once everybody has called it.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn barrier(&mut self) -> Result<(), ClusterError> {
        lock(&self.collective).barrier()
    }

    /// Tells rank 0 how long this process spent on what in the last `total`, of which it waited for `data` and, in
    /// collectives, for `communication`; hears there who held up the others.
    pub fn report_phases(&self, step: u64, data: Duration, total: Duration, waits: Waits) -> Vec<Straggler> {
        let Some(control) = &self.control else { return Vec::new() };
        let waited = waits.exposed;
        control.report_phases(step, data, total.saturating_sub(data + waited), waited);
        if self.leads() { control.stragglers() } else { Vec::new() }
    }

    /// Time in collectives since the last call.
    pub fn take_waits(&mut self) -> Waits {
        let (exposed, busy) = (std::mem::take(&mut self.waited), std::mem::take(&mut self.busy));
        Waits { exposed, collectives: busy }
    }

    /// On rank 0, after a process was lost: the newest collectives of every rank.
    #[must_use]
    pub fn flight_recorder(&self) -> Option<String> {
        self.control.as_ref()?.flight_recorder()
    }

    /// Tells the others that this process failed by itself, in its own words, before it leaves.
    pub fn fail(&self, message: &str) {
        if let Some(control) = &self.control {
            control.fail(message);
        }
    }

    /// Leaves in good order, after the last collective: a team of one remains.
    pub fn leave(&mut self) {
        // The data connections close first, while the others still know this process as one that leaves.
        self.worker = None;
        *lock(&self.collective) = Box::new(Alone);
        (self.rank, self.world, self.on_device) = (0, 1, false);
        if let Some(control) = self.control.take() {
            control.leave();
        }
    }

    /// Hears of a lost process between two collectives.
    ///
    /// # Errors
    /// [`ClusterError`] when there is one.
    pub fn check(&self) -> Result<(), ClusterError> {
        self.control.as_ref().map_or(Ok(()), |control| control.check())
    }

    fn nonsense(&self, rank: usize, what: &str) -> ClusterError {
        let detail = format!("its {what} cannot be read");
        self.control.as_ref().map_or_else(
            || ClusterError::Refused { what: detail.clone(), advice: "please report it".into() },
            |control| control.accuse(rank, Cause::Disagrees, &detail),
        )
    }
}

fn first(all: &[Vec<u8>], digest: &[u8]) -> usize {
    all.iter().position(|other| other.as_slice() == digest).unwrap_or(usize::MAX)
}

fn device_failed(error: impl std::fmt::Display) -> ClusterError {
    ClusterError::Local {
        what: "the device failed".into(),
        cause: error.to_string(),
        advice: "restart the run; it goes on from the newest checkpoint".into(),
    }
}

/// Pieces at their places (ascending) in a vector `[len]`, zeros between them.
fn laid_out(pieces: impl Iterator<Item = (usize, Tensor<1>)>, len: usize, device: Option<&Device>) -> Tensor<1> {
    let device = device.cloned().unwrap_or_else(Device::flex);
    let (mut parts, mut end) = (Vec::new(), 0);
    for (at, piece) in pieces {
        if at > end {
            parts.push(Tensor::zeros([at - end], &device));
        }
        end = at + piece.dims().iter().product::<usize>();
        parts.push(piece);
    }
    if len > end {
        parts.push(Tensor::zeros([len - end], &device));
    }
    Tensor::cat(parts, 0)
}

fn to_host(tensor: Tensor<1>) -> Result<Vec<f32>, ClusterError> {
    tensor.into_data().try_into_vec::<f32>().map_err(|error| ClusterError::Local {
        what: "gradients could not be read from the device".into(),
        cause: error.to_string(),
        advice: "the device may have failed: restart the run".into(),
    })
}

fn to_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

/// Copies `range` of `from` to `at` in `to`.
fn place(to: &mut [f32], at: usize, from: &[f32], range: Range<usize>) {
    if let (Some(to), Some(from)) = (to.get_mut(at..at + range.len()), from.get(range)) {
        to.copy_from_slice(from);
    }
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn floats_to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::buckets::Buckets;

    #[test]
    fn shares_survive_the_wire() {
        let shares = [Share { loss_sum: -1.25e-7, valid: u64::MAX }, Share { loss_sum: f64::INFINITY, valid: 0 }];
        for stop in [false, true] {
            assert_eq!(decode(&encode(stop, &shares)), Some((stop, shares.to_vec())));
        }
        assert_eq!(decode(&[1]), Some((true, Vec::new())));
        assert_eq!(decode(&encode(true, &shares)[..20]), None, "cut");
        assert_eq!(decode(&[]), None);
    }

    #[test]
    fn a_team_of_one_adds_its_own_micro_batches() {
        let spec = model_zoo::ParamSpec::new("w".into(), vec![2], model_zoo::Init::Ones);
        let buckets = Buckets::new(&[spec], &[0], 0);
        let mut team = Team::alone();
        let layout = Layout { buckets: &buckets, partition: None, every_micro_batch: false, micro_batches: 2 };
        let mut reduction = team.reduction(layout);
        for (values, loss_sum, valid) in [([1.5, -2.0], 3.0, 2), ([0.25, 1.0], 1.0, 5)] {
            reduction.take(0, to_device(values.to_vec(), &Device::flex())).unwrap();
            reduction.end_micro_batch(loss_sum, valid).unwrap();
        }
        let (sum, stop) = reduction.finish(true).unwrap();
        assert_eq!((sum.loss_sum, sum.valid, stop), (4.0, 7, true));
        assert_eq!(to_host(sum.grads[0].clone()).unwrap(), [1.75, -1.0]);
        assert!(team.any_stop(true).unwrap());
        team.compare_digests(1, "a").unwrap();
        team.barrier().unwrap();
        assert_eq!(team.gather(vec![7]).unwrap(), [[7]]);
        assert_eq!(team.take_waits().hidden(), None);
    }
}
