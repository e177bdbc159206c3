//! Owns the exchange of gradients, parameters and moments that are cut into pieces; never touches whole gradients.

use burn::tensor::{Device, Tensor};
use model_zoo::Params;
use model_zoo::ops::chunk_squares;

use super::{Team, floats_of, floats_to_bytes, to_device, to_host};
use crate::checkpoint::TrainState;
use crate::cluster::ClusterError;
use crate::optim::{Adamw, cut};
use crate::partition::{Partition, Piece};

/// Bytes of a term of the gradient norm on the wire: the parameter and the value.
const TERM_BYTES: usize = 16;

impl Team {
    /// Adds the gradients of all processes and keeps this one's pieces of the sum.
    pub(super) fn reduce_pieces(
        &mut self,
        grads: Vec<Tensor<1>>,
        partition: &Partition,
    ) -> Result<Vec<Tensor<1>>, ClusterError> {
        let device = grads.first().map(Tensor::device);
        let mut flat = vec![0.0_f32; partition.flat_len()];
        let mut placed = partition.placed().peekable();
        for (param, grad) in grads.into_iter().enumerate() {
            let values = to_host(grad)?;
            while let Some((at, piece)) = placed.next_if(|(_, piece)| piece.param == param) {
                copy(&mut flat, at, &values, piece.range.start, piece.len());
            }
        }
        self.collective.reduce_scatter(&mut flat, self.order)?;
        let Some(device) = device else { return Ok(Vec::new()) };
        let mut at = partition.region_of(self.rank());
        let own = partition.own().iter().map(|piece| {
            let values = flat.get(at..at + piece.len()).unwrap_or_default().to_vec();
            at += piece.len();
            to_device(values, &device)
        });
        Ok(own.collect())
    }

    /// Sum of the squares of the whole gradient, of which this process holds its pieces: the same terms in the same
    /// order as for whole gradients.
    pub(super) fn sum_squares_of_pieces(
        &mut self,
        pieces: &[Tensor<1>],
        partition: &Partition,
    ) -> Result<f64, ClusterError> {
        let mut mine = Vec::new();
        for (piece, grad) in partition.own().iter().zip(pieces) {
            for square in chunk_squares(grad) {
                mine.extend((piece.param as u64).to_le_bytes());
                mine.extend(square.to_le_bytes());
            }
        }
        let (mut total, mut param_sum, mut current) = (0.0, 0.0, None);
        for terms in self.collective.all_gather_bytes(&mine)? {
            for term in terms.as_chunks::<TERM_BYTES>().0 {
                let (param, square) = term.split_at(TERM_BYTES / 2);
                if current != Some(param.to_vec()) {
                    total += std::mem::replace(&mut param_sum, 0.0);
                    current = Some(param.to_vec());
                }
                param_sum += square.first_chunk().map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes));
            }
        }
        Ok(total + param_sum)
    }

    /// Gives every process the parameters that the others have updated.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn gather_parameters(&mut self, params: &mut Params, partition: &Partition) -> Result<(), ClusterError> {
        let mut flat = vec![0.0_f32; partition.flat_len()];
        let mut at = partition.region_of(self.rank());
        for piece in partition.own() {
            if let Some(tensor) = params.tensors().get(piece.param) {
                copy(&mut flat, at, &to_host(cut(tensor.clone(), piece))?, 0, piece.len());
            }
            at += piece.len();
        }
        self.collective.all_gather(&mut flat)?;
        let mut placed = partition.placed().peekable();
        for (param, tensor) in params.tensors_mut().iter_mut().enumerate() {
            let mut values = vec![0.0_f32; tensor.dims().iter().product()];
            while let Some((at, piece)) = placed.next_if(|(_, piece)| piece.param == param) {
                copy(&mut values, piece.range.start, &flat, at, piece.len());
            }
            *tensor = to_device(values, &tensor.device());
        }
        Ok(())
    }

    /// Replaces parameters and moments by those of rank 0, which holds them whole; afterwards every process, rank 0
    /// included, keeps its own pieces of the moments.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn share_pieces(
        &mut self,
        state: &mut TrainState,
        partition: Partition,
        device: &Device,
    ) -> Result<(), ClusterError> {
        for tensor in state.params.tensors_mut() {
            self.copy_of_leader(tensor, device)?;
        }
        let Adamw { exp_avg, exp_avg_sq, .. } = &mut state.optimizer;
        for moments in [exp_avg, exp_avg_sq] {
            for (param, whole) in moments.iter_mut().enumerate() {
                let values = if self.leads() { to_host(whole.clone())? } else { Vec::new() };
                for rank in 1..self.world() {
                    for piece in partition.of(rank).iter().filter(|piece| piece.param == param) {
                        self.pass_piece(rank, piece, &values, whole, device)?;
                    }
                }
            }
        }
        state.optimizer.keep_own(partition);
        Ok(())
    }

    /// Rank 0 sends a piece of `values` to `rank`, which puts it into `whole`.
    fn pass_piece(
        &mut self,
        rank: usize,
        piece: &Piece,
        values: &[f32],
        whole: &mut Tensor<1>,
        device: &Device,
    ) -> Result<(), ClusterError> {
        if self.leads() {
            let part = values.get(piece.range.clone()).unwrap_or_default();
            return self.collective.send(rank, &floats_to_bytes(part));
        }
        if self.rank() != rank {
            return Ok(());
        }
        let part = floats_of(&self.collective.recv(0)?);
        if part.len() != piece.len() {
            return Err(self.nonsense(0, "piece of a moment"));
        }
        *whole = whole.clone().slice_assign([piece.range.clone()], to_device(part, device));
        Ok(())
    }

    /// On rank 0: the bytes of one moment of one parameter, whole. Must be called for every moment and parameter in
    /// order while the others are in [`Team::send_moments`].
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn collect_moment(&mut self, optimizer: &Adamw, moment: usize, param: usize) -> Result<Vec<u8>, ClusterError> {
        let Some(partition) = &optimizer.partition else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        for rank in 0..self.world() {
            for (index, piece) in partition.of(rank).iter().enumerate().filter(|(_, piece)| piece.param == param) {
                if rank == self.rank() {
                    let own = moments(optimizer, moment).get(index).cloned();
                    bytes.extend(floats_to_bytes(&own.map_or_else(|| Ok(Vec::new()), to_host)?));
                } else {
                    let part = self.collective.recv(rank)?;
                    if part.len() != piece.len() * size_of::<f32>() {
                        return Err(self.nonsense(rank, "piece of a moment"));
                    }
                    bytes.extend(part);
                }
            }
        }
        Ok(bytes)
    }

    /// On other ranks: sends rank 0 what it collects.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn send_moments(&mut self, optimizer: &Adamw) -> Result<(), ClusterError> {
        for moment in 0..2 {
            for piece in moments(optimizer, moment) {
                let bytes = floats_to_bytes(&to_host(piece.clone())?);
                self.collective.send(0, &bytes)?;
            }
        }
        Ok(())
    }
}

fn moments(optimizer: &Adamw, moment: usize) -> &[Tensor<1>] {
    if moment == 0 { &optimizer.exp_avg } else { &optimizer.exp_avg_sq }
}

fn copy(to: &mut [f32], to_start: usize, from: &[f32], from_start: usize, len: usize) {
    if let (Some(to), Some(from)) = (to.get_mut(to_start..to_start + len), from.get(from_start..from_start + len)) {
        to.copy_from_slice(from);
    }
}
