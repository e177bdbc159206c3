//! Owns the sum of a step's gradients over micro-batches and processes while they are being computed; never touches the
//! model or the optimizer.
//!
//! Gradients come one parameter at a time, in the order of the backward pass. Without division, or with the optimizer
//! state divided (ZeRO-1), a process adds up its own micro-batches and a bucket leaves during the backward pass of the
//! last one. With gradients divided too (ZeRO-2) a bucket leaves in every micro-batch, and only this process's pieces
//! of its sum are kept; micro-batches are then dealt out in turn, so that what is added at a time is again an inner node
//! of the canonical tree. Either way the sum has the bits of one process.

use std::collections::VecDeque;
use std::time::Instant;

use burn::tensor::{Device, Tensor};

use super::worker::{Done, Job, Part, Worker};
use super::{Share, Team, device_failed, laid_out, place, to_device, to_host};
use crate::buckets::Buckets;
use crate::cluster::ClusterError;
use crate::cluster::device_collective::Ticket;
use crate::gradient_sum::GradientSum;
use crate::optim::cut;
use crate::partition::Partition;
use crate::step::StepGradients;

/// Gradients with fewer elements than this travel together: a message costs more than they do.
const SMALL_ELEMENTS: usize = 64 * 1024;

/// Buckets whose micro-batch goes on while they are added on the device, where every micro-batch travels.
const BUCKETS_ON_DEVICE: usize = 2;

/// How the gradients of a step are added.
#[derive(Clone, Copy)]
pub struct Layout<'a> {
    /// What travels together.
    pub buckets: &'a Buckets,
    /// Who keeps what; `None` gives everybody the whole sum.
    pub partition: Option<&'a Partition>,
    /// Whether every micro-batch travels, which needs a partition and equally many micro-batches everywhere.
    pub every_micro_batch: bool,
    /// Micro-batches of this process.
    pub micro_batches: usize,
}

/// One step's sum under construction.
pub struct Reduction<'a> {
    team: &'a mut Team,
    layout: Layout<'a>,
    /// Micro-batches of this process, by parameter.
    own: GradientSum,
    /// Of all processes, by parameter or by this process's piece.
    total: GradientSum,
    /// Complete gradients that wait for the rest of their bucket.
    waiting: Vec<Vec<(usize, Tensor<1>)>>,
    shares: Vec<Share>,
    /// Buckets that the worker has.
    in_flight: usize,
    /// Buckets that the device has, with their parameters.
    tickets: VecDeque<(usize, Vec<usize>, Ticket)>,
    device: Option<Device>,
}

impl<'a> Reduction<'a> {
    pub(super) fn new(team: &'a mut Team, layout: Layout<'a>) -> Self {
        let params = layout.buckets.params();
        let total = layout.partition.map_or(params, |partition| partition.own().len());
        Self {
            team,
            own: GradientSum::new(params),
            total: GradientSum::new(total),
            waiting: (0..layout.buckets.len()).map(|_| Vec::new()).collect(),
            layout,
            shares: Vec::new(),
            in_flight: 0,
            tickets: VecDeque::new(),
            device: None,
        }
    }

    /// Takes the gradient of one parameter in the running micro-batch, flat `[numel]`.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn take(&mut self, param: usize, gradient: Tensor<1>) -> Result<(), ClusterError> {
        let complete = if self.layout.every_micro_batch && !self.team.is_alone() {
            gradient
        } else {
            self.own.add(param, gradient);
            let is_last = self.shares.len() + 1 == self.layout.micro_batches;
            if self.team.is_alone() || !is_last {
                return Ok(());
            }
            let Some(sum) = self.own.take(param) else { return Ok(()) };
            sum
        };
        self.device.get_or_insert_with(|| complete.device());
        let bucket = self.layout.buckets.of(param);
        let Some(waiting) = self.waiting.get_mut(bucket) else { return Ok(()) };
        waiting.push((param, complete));
        if waiting.len() < self.layout.buckets.members(bucket).len() {
            return Ok(());
        }
        let full = std::mem::take(waiting);
        self.send(bucket, full)
    }

    /// Ends the running micro-batch, whose loss is a sum over `valid` targets.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn end_micro_batch(&mut self, loss_sum: f64, valid: u64) -> Result<(), ClusterError> {
        self.shares.push(Share { loss_sum, valid });
        self.team.check()
    }

    /// The sum over all processes, and whether anybody wants to stop. With a partition the gradients are this process's
    /// pieces.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn finish(mut self, stop: bool) -> Result<(StepGradients, bool), ClusterError> {
        if let Some(device) = self.device.as_ref().filter(|_| !self.tickets.is_empty()) {
            // So that the clock below sees what is left of the collectives, not of the backward pass.
            device.sync().map_err(device_failed)?;
        }
        let start = Instant::now();
        while let Some((bucket, params, ticket)) = self.tickets.pop_front() {
            self.redeem(bucket, params, ticket)?;
        }
        self.team.settle()?;
        while self.in_flight > 0 {
            let done = self.worker()?.next()?;
            self.receive(done)?;
        }
        let (share, stop) = self.team.fold_shares(&self.shares, stop, self.layout.every_micro_batch)?;
        self.team.waited += start.elapsed();
        let sums = if self.team.is_alone() { self.own } else { self.total };
        let grads = sums.finish().ok_or_else(|| ClusterError::Refused {
            what: "a parameter has no gradient from any process".into(),
            advice: "this is a defect, please report it".into(),
        })?;
        Ok((StepGradients { loss_sum: share.loss_sum, valid: share.valid, grads }, stop))
    }

    fn worker(&mut self) -> Result<&Worker, ClusterError> {
        self.team.worker()
    }

    fn send(&mut self, bucket: usize, gradients: Vec<(usize, Tensor<1>)>) -> Result<(), ClusterError> {
        if self.team.on_device {
            return self.start(bucket, gradients);
        }
        let parts = match self.layout.partition {
            Some(partition) => vec![flatten(bucket, gradients, partition)?],
            None => pack(gradients)?,
        };
        let job = Job { bucket, parts, scatter: self.layout.partition.is_some() };
        let start = Instant::now();
        self.worker()?.submit(job)?;
        self.in_flight += 1;
        self.team.waited += start.elapsed();
        while let Some(done) = self.worker()?.ready()? {
            self.receive(done)?;
        }
        Ok(())
    }

    /// Hands a bucket to an engine that adds on the device.
    fn start(&mut self, bucket: usize, gradients: Vec<(usize, Tensor<1>)>) -> Result<(), ClusterError> {
        let (params, tensors): (Vec<usize>, Vec<Tensor<1>>) = gradients.into_iter().unzip();
        let order = self.team.order;
        let ticket = match self.layout.partition {
            None => self.team.with_device(|engine| engine.start_all_reduce(tensors, order))?,
            Some(partition) => {
                let of = |param: usize| params.iter().position(|p| *p == param).and_then(|i| tensors.get(i));
                let pieces = partition.placed(bucket);
                let pieces = pieces.filter_map(|(at, piece)| Some((at, cut(of(piece.param)?.clone(), piece))));
                let flat = laid_out(pieces, partition.flat_len(bucket), self.device.as_ref());
                self.team.with_device(|engine| engine.start_reduce_scatter(flat, order))?
            }
        };
        self.tickets.push_back((bucket, params, ticket));
        // What a bucket holds is free once it is redeemed; to redeem one puts the rest of the pass behind it.
        if !self.layout.every_micro_batch || self.tickets.len() <= BUCKETS_ON_DEVICE {
            return Ok(());
        }
        match self.tickets.pop_front() {
            Some((bucket, params, ticket)) => self.redeem(bucket, params, ticket),
            None => Ok(()),
        }
    }

    fn redeem(&mut self, bucket: usize, params: Vec<usize>, ticket: Ticket) -> Result<(), ClusterError> {
        let sums = self.team.with_device(|engine| engine.wait(ticket))?;
        let Some(partition) = self.layout.partition else {
            params.into_iter().zip(sums).for_each(|(param, sum)| self.total.add(param, sum));
            return Ok(());
        };
        let first = partition.region(bucket).start;
        for region in sums {
            for (at, index, piece) in partition.own_in(bucket) {
                let own = at - first..at - first + piece.len();
                self.total.add(index, region.clone().slice([own]));
            }
        }
        Ok(())
    }

    fn receive(&mut self, done: Done) -> Result<(), ClusterError> {
        self.in_flight -= 1;
        self.team.busy += done.busy;
        let Some(device) = &self.device else { return Ok(()) };
        for Part { params, values } in done.parts {
            if let Some(partition) = self.layout.partition {
                for (at, index, piece) in partition.own_in(done.bucket) {
                    let piece = values.get(at..at + piece.len()).unwrap_or_default();
                    self.total.add(index, to_device(piece.to_vec(), device));
                }
            } else if let [(param, _)] = params[..] {
                self.total.add(param, to_device(values, device));
            } else {
                let mut rest = values.as_slice();
                for (param, len) in params {
                    let (own, tail) = rest.split_at(len.min(rest.len()));
                    self.total.add(param, to_device(own.to_vec(), device));
                    rest = tail;
                }
            }
        }
        Ok(())
    }
}

/// A bucket as the vector that its partition describes.
fn flatten(bucket: usize, gradients: Vec<(usize, Tensor<1>)>, partition: &Partition) -> Result<Part, ClusterError> {
    let mut flat = vec![0.0_f32; partition.flat_len(bucket)];
    for (param, gradient) in gradients {
        let values = to_host(gradient)?;
        for (at, piece) in partition.placed(bucket).filter(|(_, piece)| piece.param == param) {
            place(&mut flat, at, &values, piece.range.clone());
        }
    }
    Ok(Part { params: Vec::new(), values: flat })
}

/// A bucket as it is, small parameters together.
fn pack(gradients: Vec<(usize, Tensor<1>)>) -> Result<Vec<Part>, ClusterError> {
    let mut parts = Vec::new();
    let mut small = Part { params: Vec::new(), values: Vec::new() };
    for (param, gradient) in gradients {
        let values = to_host(gradient)?;
        if values.len() < SMALL_ELEMENTS {
            small.params.push((param, values.len()));
            small.values.extend(values);
        } else {
            parts.push(Part { params: vec![(param, values.len())], values });
        }
    }
    if !small.params.is_empty() {
        parts.push(small);
    }
    Ok(parts)
}
