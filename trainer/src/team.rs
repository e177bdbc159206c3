//! Owns what the training loop needs of the other processes: one gradient, one wish to stop, equal states; never
//! touches sockets, files or the model.
//!
//! A run of one process is a team of one: every method is then the identity and costs nothing.

mod sharded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use model_zoo::Params;

use crate::checkpoint::TrainState;
use crate::cluster::control::{Control, Straggler};
use crate::cluster::{Alone, Cause, ClusterError, Collective, Order};
use crate::gradient_sum::TreeSum;
use crate::optim;
use crate::partition::Partition;
use crate::step::StepGradients;

/// Gradients with fewer elements than this travel together: a message costs more than they do.
const SMALL_ELEMENTS: usize = 64 * 1024;
/// Bytes of a digest that are compared: enough to tell two states apart, few enough to print.
const DIGEST_CHARS: usize = 16;

/// The processes of a run, as the loop of one of them sees them.
pub struct Team {
    collective: Box<dyn Collective>,
    control: Option<Arc<Control>>,
    order: Order,
    waited: Duration,
}

/// What one process knows about a step; the sum over processes is folded in the order of ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Share {
    loss_sum: f64,
    valid: u64,
    stop: bool,
}

impl Share {
    const BYTES: usize = 17;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (loss, rest) = bytes.split_at_mut(8);
        let (valid, stop) = rest.split_at_mut(8);
        loss.copy_from_slice(&self.loss_sum.to_le_bytes());
        valid.copy_from_slice(&self.valid.to_le_bytes());
        stop.copy_from_slice(&[u8::from(self.stop)]);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (loss, rest) = bytes.split_first_chunk()?;
        let (valid, stop) = rest.split_first_chunk()?;
        let stop = matches!(stop, [1]);
        Some(Self { loss_sum: f64::from_le_bytes(*loss), valid: u64::from_le_bytes(*valid), stop })
    }

    fn merge(self, right: Self) -> Self {
        Self { loss_sum: self.loss_sum + right.loss_sum, valid: self.valid + right.valid, stop: self.stop | right.stop }
    }
}

impl Team {
    /// One process.
    #[must_use]
    pub fn alone() -> Self {
        Self { collective: Box::new(Alone), control: None, order: Order::Exact, waited: Duration::ZERO }
    }

    /// Processes that are connected.
    #[must_use]
    pub fn new(collective: Box<dyn Collective>, control: Arc<Control>, order: Order) -> Self {
        Self { collective, control: Some(control), order, waited: Duration::ZERO }
    }

    /// This process, from 0.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// Number of processes.
    #[must_use]
    pub fn world(&self) -> usize {
        self.collective.world()
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

    /// Adds the gradients of all processes, which hold aligned blocks of the leaves, in the order of ranks: the root of
    /// the canonical tree. Also says whether anybody wants to stop. With a partition the gradients that come back are
    /// this process's pieces.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn reduce(
        &mut self,
        sum: StepGradients,
        stop: bool,
        partition: Option<&Partition>,
    ) -> Result<(StepGradients, bool), ClusterError> {
        if self.is_alone() {
            return Ok((sum, stop));
        }
        let start = Instant::now();
        let share = self.fold(Share { loss_sum: sum.loss_sum, valid: sum.valid, stop })?;
        let grads = match partition {
            Some(partition) => self.reduce_pieces(sum.grads, partition)?,
            None => self.reduce_gradients(sum.grads)?,
        };
        self.waited += start.elapsed();
        Ok((StepGradients { loss_sum: share.loss_sum, valid: share.valid, grads }, share.stop))
    }

    /// Whether anybody wants to stop; the same answer everywhere.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn any_stop(&mut self, stop: bool) -> Result<bool, ClusterError> {
        if self.is_alone() {
            return Ok(stop);
        }
        Ok(self.fold(Share { loss_sum: 0.0, valid: 0, stop })?.stop)
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

    fn fold(&mut self, share: Share) -> Result<Share, ClusterError> {
        let mut sum = TreeSum::default();
        for (rank, bytes) in self.collective.all_gather_bytes(&share.to_bytes())?.iter().enumerate() {
            sum.push(Share::from_bytes(bytes).ok_or_else(|| self.nonsense(rank, "share of a step"))?, Share::merge);
        }
        Ok(sum.finish(Share::merge).unwrap_or(share))
    }

    fn reduce_gradients(&mut self, grads: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ClusterError> {
        let mut out: Vec<Option<Tensor<1>>> = Vec::with_capacity(grads.len());
        let (mut bucket, mut bucketed) = (Vec::new(), Vec::new());
        for (index, grad) in grads.into_iter().enumerate() {
            let (device, len) = (grad.device(), grad.dims().iter().product::<usize>());
            if len < SMALL_ELEMENTS {
                bucket.extend_from_slice(&to_host(grad)?);
                bucketed.push((index, len, device));
                out.push(None);
            } else {
                let mut values = to_host(grad)?;
                self.collective.all_reduce(&mut values, self.order)?;
                out.push(Some(to_device(values, &device)));
            }
        }
        self.collective.all_reduce(&mut bucket, self.order)?;
        let mut rest = bucket.as_slice();
        for (index, len, device) in bucketed {
            let (values, tail) = rest.split_at(len.min(rest.len()));
            rest = tail;
            if let Some(place) = out.get_mut(index) {
                *place = Some(to_device(values.to_vec(), &device));
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// Gives everybody everybody's bytes, by rank.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn gather(&mut self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, ClusterError> {
        if self.is_alone() {
            return Ok(vec![bytes]);
        }
        self.collective.all_gather_bytes(&bytes)
    }

    /// Gives everybody the bytes of rank 0.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn from_leader(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ClusterError> {
        self.collective.broadcast(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces the tensors of `state` by those of rank 0; counters must be equal already.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn copy_tensors_of_leader(&mut self, state: &mut TrainState, device: &Device) -> Result<(), ClusterError> {
        if self.is_alone() {
            return Ok(());
        }
        let optimizer = &mut state.optimizer;
        let all = [state.params.tensors_mut(), &mut optimizer.exp_avg, &mut optimizer.exp_avg_sq];
        all.into_iter().flatten().try_for_each(|tensor| self.copy_of_leader(tensor, device))
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
        let mut bytes = if self.leads() { floats_to_bytes(&to_host(tensor.clone())?) } else { Vec::new() };
        self.collective.broadcast(&mut bytes, 0)?;
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
        let all = self.collective.all_gather_bytes(digest.as_bytes())?;
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
        self.collective.barrier()
    }

    /// Tells rank 0 how long this process spent on what since the last call, and hears there who held up the others.
    pub fn report_phases(&mut self, step: u64, data: Duration, total: Duration) -> Vec<Straggler> {
        let waited = std::mem::take(&mut self.waited);
        let Some(control) = &self.control else { return Vec::new() };
        control.report_phases(step, data, total.saturating_sub(data + waited), waited);
        if self.leads() { control.stragglers() } else { Vec::new() }
    }

    /// Time in collectives since the last [`Team::report_phases`].
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
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
        self.collective = Box::new(Alone);
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

    #[test]
    fn shares_survive_the_wire() {
        let share = Share { loss_sum: -1.25e-7, valid: u64::MAX, stop: true };
        assert_eq!(Share::from_bytes(&share.to_bytes()), Some(share));
        assert_eq!(Share::from_bytes(&share.to_bytes()[..15]), None);
    }

    #[test]
    fn a_team_of_one_is_the_identity() {
        let mut team = Team::alone();
        let grad = to_device(vec![1.5, -2.0], &Device::flex());
        let sum = StepGradients { loss_sum: 3.0, valid: 2, grads: vec![grad] };
        let (sum, stop) = team.reduce(sum, false, None).unwrap();
        assert_eq!((sum.loss_sum, sum.valid, stop), (3.0, 2, false));
        assert!(team.any_stop(true).unwrap());
        team.compare_digests(1, "a").unwrap();
        team.barrier().unwrap();
        assert_eq!(team.gather(vec![7]).unwrap(), [[7]]);
    }
}
