//! Owns making an adapted model of a model, its first parameters, and merging it back; never touches passes.

use std::sync::Arc;

use burn::tensor::Device;

use crate::adapter::{Adapted, AdapterError, AdapterSpec, Correction, Layout, Place, matrix_dims, module_name};
use crate::frozen::FrozenBase;
use crate::model::Model;
use crate::ops::{self, LowRank};
use crate::params::{ParamSpec, Params, ParamsError};

impl Model {
    /// All parameters of the family under their Hugging Face names, frozen ones included.
    #[must_use]
    pub fn family_specs(&self) -> Arc<[ParamSpec]> {
        self.family().specs()
    }

    /// Indices in [`Model::family_specs`] of the matrices that are linear layers of blocks.
    #[must_use]
    pub fn linear_params(&self) -> Vec<usize> {
        let (family, specs) = (self.family(), self.family().specs());
        let num_blocks = if family.takes_adapters() { family.num_blocks() } else { 0 };
        let of_blocks = (0..num_blocks).flat_map(|layer| family.block_params(layer));
        of_blocks.filter(|index| specs.get(*index).is_some_and(|spec| spec.shape.len() == 2)).collect()
    }

    /// Linear layers that an adapter can correct: those of the blocks, by name without `.weight`.
    #[must_use]
    pub fn adaptable_modules(&self) -> Vec<String> {
        let specs = self.family().specs();
        let name = |index: usize| specs.get(index).and_then(|spec| module_name(&spec.name)).map(str::to_owned);
        self.linear_params().into_iter().filter_map(name).collect()
    }

    /// What `adapter` would train, without its base.
    ///
    /// # Errors
    /// [`AdapterError`] when it does not fit this model.
    pub fn adapter_specs(&self, adapter: &AdapterSpec) -> Result<Arc<[ParamSpec]>, AdapterError> {
        Ok(Layout::new(&self.family_specs(), &self.linear_params(), adapter)?.specs)
    }

    /// The same model with its weights frozen in `base` and `adapter` on top: from here on its parameters are the
    /// adapter's.
    ///
    /// # Errors
    /// [`AdapterError`] when adapter or base do not fit this model.
    pub fn with_adapter(self, adapter: &AdapterSpec, base: Arc<FrozenBase>) -> Result<Self, AdapterError> {
        let specs = self.family_specs();
        if let Some((own, other)) = specs.iter().zip(base.specs().iter()).find(|(own, other)| own != other) {
            let what = format!("`{}` {:?} beside `{}` {:?}", own.name, own.shape, other.name, other.shape);
            return Err(AdapterError::OtherBase { what });
        }
        if specs.len() != base.specs().len() {
            let what = format!("{} parameters instead of {}", base.specs().len(), specs.len());
            return Err(AdapterError::OtherBase { what });
        }
        let layout = Layout::new(&specs, &self.linear_params(), adapter)?;
        Ok(self.adapted_to(Some(Adapted { base, layout })))
    }

    /// The model without its adapter: its parameters are all of the family's again.
    #[must_use]
    pub fn without_adapter(self) -> Self {
        self.adapted_to(None)
    }

    /// The frozen weights of an adapted model.
    #[must_use]
    pub fn frozen_base(&self) -> Option<&Arc<FrozenBase>> {
        self.adapted().map(|adapted| &adapted.base)
    }

    /// The parameters among those of the family at `indices` that are trained, and those of their corrections.
    pub(crate) fn trained(&self, indices: &[usize]) -> Vec<usize> {
        match self.adapted() {
            None => indices.to_vec(),
            Some(Adapted { layout, .. }) => indices.iter().flat_map(|index| layout.places[*index].trained()).collect(),
        }
    }

    /// The parameters of a fresh run: a pure function of the seed and, for an adapted model, of its base. Corrections
    /// start at nothing; magnitudes are the lengths of the base's rows; what is trained whole starts as it is there.
    ///
    /// # Errors
    /// [`ParamsError`] when the device fails.
    pub fn initial_params(&self, seed: u64, device: &Device) -> Result<Params, ParamsError> {
        let mut params = Params::init(self.specs(), seed, device);
        let Some(Adapted { base, layout }) = self.adapted() else { return Ok(params) };
        for (index, place) in layout.places.iter().enumerate() {
            match *place {
                Place::Frozen => {}
                Place::Trained(param) => params.tensors_mut()[param] = base.widened(index, device),
                Place::Corrected(correction) => {
                    if let Some(magnitude) = correction.magnitude {
                        let dims = matrix_dims(&base.specs()[index]);
                        let low_rank = low_rank(&params, correction);
                        params.tensors_mut()[magnitude] = ops::adapted_row_lengths(base.stored(index), dims, &low_rank);
                    }
                }
            }
        }
        Ok(params)
    }

    /// Parameter `index` of the family as an adapted model computes with it, correction included, flat, f32.
    #[must_use]
    pub fn merged(&self, params: &Params, index: usize, device: &Device) -> burn::tensor::Tensor<1> {
        let Some(Adapted { base, layout }) = self.adapted() else { return params.tensors()[index].clone().inner() };
        let correction = match layout.places[index] {
            Place::Trained(param) => return params.tensors()[param].clone().inner(),
            Place::Frozen => return base.widened(index, device),
            Place::Corrected(correction) => correction,
        };
        let dims = matrix_dims(&base.specs()[index]);
        let merged = ops::adapted_matrix(base.stored(index), dims, &low_rank(params, correction));
        let Some(magnitude) = correction.magnitude else { return merged };
        let lengths = ops::row_lengths(merged.clone(), dims);
        let factors = params.tensors()[magnitude].clone().inner() / lengths;
        (merged.reshape(dims) * factors.unsqueeze_dim(1)).reshape([dims[0] * dims[1]])
    }

    /// All parameters of the family as an adapted model computes with them, in f32.
    ///
    /// # Errors
    /// [`ParamsError`] when the device fails.
    pub fn merged_params(&self, params: &Params, device: &Device) -> Result<Params, ParamsError> {
        let specs = self.family_specs();
        let tensors = (0..specs.len()).map(|index| self.merged(params, index, device)).collect();
        Params::from_tensors(specs, tensors)
    }
}

fn low_rank(params: &Params, Correction { a, b, scale, .. }: Correction) -> LowRank {
    LowRank { a: params.matrix(a), b: params.matrix(b), scale }
}
