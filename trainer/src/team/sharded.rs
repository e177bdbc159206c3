//! Owns the exchange of gradients, parameters and moments that are cut into pieces; never touches whole gradients.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use model_zoo::Params;
use model_zoo::ops::{SUM_CHUNK, chunk_squares};

use super::worker::lock;
use super::{Team, floats_of, floats_to_bytes, laid_out, place, to_device, to_host};
use crate::cluster::ClusterError;
use crate::optim::{Optimizer, cut};
use crate::partition::{Partition, Piece};

/// Bytes of a term of the gradient norm on the wire: the parameter, the first element and the value.
const TERM_BYTES: usize = 24;

impl Team {
    /// Sum of the squares of the whole gradient, of which this process holds its pieces: the same terms in the same
    /// order as for whole gradients.
    pub(super) fn sum_squares_of_pieces(
        &mut self,
        pieces: &[Tensor<1>],
        partition: &Partition,
    ) -> Result<f64, ClusterError> {
        let mut mine = Vec::new();
        for (piece, grad) in partition.own().iter().zip(pieces) {
            for (unit, square) in chunk_squares(grad).into_iter().enumerate() {
                mine.extend((piece.param as u64).to_le_bytes());
                mine.extend(((piece.range.start + unit * SUM_CHUNK) as u64).to_le_bytes());
                mine.extend(square.to_le_bytes());
            }
        }
        let gathered = lock(&self.collective).all_gather_bytes(&mine)?;
        let mut terms: Vec<_> = gathered.iter().flat_map(|terms| terms.as_chunks().0).map(term).collect();
        terms.sort_unstable_by_key(|(param, start, _)| (*param, *start));
        let by_param = terms.chunk_by(|a, b| a.0 == b.0);
        Ok(by_param.map(|terms| terms.iter().map(|(_, _, square)| square).sum::<f64>()).sum())
    }

    /// Gives every process the parameters that the others have updated.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn gather_parameters(&mut self, params: &mut Params, partition: &Partition) -> Result<(), ClusterError> {
        if self.on_device {
            return self.gather_on_device(params, partition);
        }
        let start = Instant::now();
        for bucket in 0..partition.buckets() {
            let mut flat = vec![0.0_f32; partition.flat_len(bucket)];
            for (at, _, piece) in partition.own_in(bucket) {
                if let Some(tensor) = params.tensors().get(piece.param) {
                    place(&mut flat, at, &to_host(cut(tensor.clone(), piece))?, 0..piece.len());
                }
            }
            lock(&self.collective).all_gather(&mut flat)?;
            let mut values: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
            for (at, piece) in partition.placed(bucket) {
                let part = flat.get(at..at + piece.len()).unwrap_or_default();
                // Pieces of a parameter follow each other in the order of ranks.
                values.entry(piece.param).or_default().extend_from_slice(part);
            }
            for (param, values) in values {
                if let Some(tensor) = params.tensors_mut().get_mut(param) {
                    *tensor = to_device(values, &tensor.device());
                }
            }
        }
        self.waited += start.elapsed();
        self.busy += start.elapsed();
        Ok(())
    }

    /// [`Team::gather_parameters`] without the way over the host.
    fn gather_on_device(&mut self, params: &mut Params, partition: &Partition) -> Result<(), ClusterError> {
        let mut tickets = Vec::with_capacity(partition.buckets());
        for bucket in 0..partition.buckets() {
            let region = partition.region(bucket);
            let own = partition.own_in(bucket).filter_map(|(at, _, piece)| {
                Some((at - region.start, cut(params.tensors().get(piece.param)?.clone(), piece)))
            });
            let device = params.tensors().first().map(Tensor::device);
            let own = laid_out(own, region.len(), device.as_ref());
            tickets.push(self.with_device(|engine| engine.start_all_gather(own))?);
        }
        for (bucket, ticket) in tickets.into_iter().enumerate() {
            let flat = self.with_device(|engine| engine.wait(ticket))?.pop();
            let mut pieces: BTreeMap<usize, Vec<Tensor<1>>> = BTreeMap::new();
            for (at, piece) in partition.placed(bucket) {
                let range = at..at + piece.len();
                let part = flat.clone().map(|flat| flat.slice([range]));
                pieces.entry(piece.param).or_default().extend(part);
            }
            for (param, pieces) in pieces {
                if let Some(tensor) = params.tensors_mut().get_mut(param) {
                    *tensor = Tensor::cat(pieces, 0);
                }
            }
        }
        self.settle()
    }

    /// Gives every process its pieces of the moments; `read(moment, param)` reads a whole one on rank 0, which has its
    /// own pieces already. Nobody ever holds more than one moment of one parameter whole.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost, and what `read` returns.
    pub fn share_pieces<E: From<ClusterError>>(
        &mut self,
        optimizer: &mut Optimizer,
        params: usize,
        device: &Device,
        mut read: impl FnMut(usize, usize) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        let Some(partition) = optimizer.partition.clone() else { return Ok(()) };
        for moment in 0..2 {
            if self.leads() {
                for param in 0..params {
                    self.send_pieces(&partition, moment, param, || read(moment, param))?;
                }
                continue;
            }
            for (index, piece) in partition.own().iter().enumerate().filter(|(_, piece)| piece.moment_len(moment) > 0) {
                let part = floats_of(&lock(&self.collective).recv(0)?);
                if part.len() != piece.len() {
                    return Err(self.nonsense(0, "piece of a moment").into());
                }
                let moments = if moment == 0 { &mut optimizer.exp_avg } else { &mut optimizer.exp_avg_sq };
                if let Some(place) = moments.get_mut(index) {
                    *place = to_device(part, device);
                }
            }
        }
        Ok(())
    }

    /// Rank 0 sends the others their pieces of one moment of a parameter; it is read only if there are any.
    fn send_pieces<E: From<ClusterError>>(
        &self,
        partition: &Partition,
        moment: usize,
        param: usize,
        read: impl FnOnce() -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        let there = move |piece: &&Piece| piece.param == param && piece.moment_len(moment) > 0;
        let pieces = |rank: usize| partition.of(rank).iter().filter(there);
        if (1..self.world()).all(|rank| pieces(rank).next().is_none()) {
            return Ok(());
        }
        let values = read()?;
        for rank in 1..self.world() {
            for piece in pieces(rank) {
                let part = values.get(piece.range.clone()).unwrap_or_default();
                lock(&self.collective).send(rank, &floats_to_bytes(part))?;
            }
        }
        Ok(())
    }

    /// On rank 0: the bytes of one moment of one parameter, whole. Must be called for every moment and parameter in
    /// order while the others are in [`Team::send_moments`].
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn collect_moment(
        &mut self,
        optimizer: &Optimizer,
        moment: usize,
        param: usize,
    ) -> Result<Vec<u8>, ClusterError> {
        let Some(partition) = &optimizer.partition else { return Ok(Vec::new()) };
        let mut bytes = Vec::new();
        for rank in 0..self.world() {
            let there = |(_, piece): &(usize, &Piece)| piece.param == param && piece.moment_len(moment) > 0;
            for (index, piece) in partition.of(rank).iter().enumerate().filter(there) {
                if rank == self.rank() {
                    let own = moments(optimizer, moment).get(index).cloned();
                    bytes.extend(floats_to_bytes(&own.map_or_else(|| Ok(Vec::new()), to_host)?));
                } else {
                    let part = lock(&self.collective).recv(rank)?;
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
    pub fn send_moments(&mut self, optimizer: &Optimizer) -> Result<(), ClusterError> {
        for moment in 0..2 {
            // Muon leaves second moments empty.
            for piece in moments(optimizer, moment).iter().filter(|piece| piece.dims() != [0]) {
                let bytes = floats_to_bytes(&to_host(piece.clone())?);
                lock(&self.collective).send(0, &bytes)?;
            }
        }
        Ok(())
    }
}

fn moments(optimizer: &Optimizer, moment: usize) -> &[Tensor<1>] {
    if moment == 0 { &optimizer.exp_avg } else { &optimizer.exp_avg_sq }
}

/// Parameter, first element and value of a term of the gradient norm.
fn term(bytes: &[u8; TERM_BYTES]) -> (u64, u64, f64) {
    let word = |index: usize| *bytes.as_chunks::<8>().0.get(index).unwrap_or(&[0xff; 8]);
    (u64::from_le_bytes(word(0)), u64::from_le_bytes(word(1)), f64::from_le_bytes(word(2)))
}
