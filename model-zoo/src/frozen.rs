//! Owns the weights of a model that are read and never trained; never touches what is trained on them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::ops::Stored;
use crate::params::{ParamSpec, Params, ParamsError};

/// Number format in which frozen weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseFormat {
    /// f32 throughout.
    F32,
    /// Matrices in bf16, vectors in f32.
    Bf16,
    /// Linear layers of blocks in 4 bits (NormalFloat with double quantisation), other matrices in bf16, vectors in f32.
    Nf4,
}

/// All weights of a model, each in the number format it is held in.
#[derive(Debug)]
pub struct FrozenBase {
    specs: Arc<[ParamSpec]>,
    format: BaseFormat,
    stored: Vec<Stored>,
}

impl FrozenBase {
    /// Takes the values of all parameters, one `values(index)` at a time, and holds them in `format`; those at `linear`
    /// are linear layers of blocks. At no time do more than one parameter's values stand beside what is held.
    ///
    /// # Errors
    /// What `values` returns; [`ParamsError::Size`] where it gives another number than the spec asks for.
    pub fn load<E: From<ParamsError>>(
        specs: Arc<[ParamSpec]>,
        linear: &[usize],
        format: BaseFormat,
        device: &Device,
        mut values: impl FnMut(&ParamSpec) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let in_host_memory = *device == Device::flex();
        let mut stored = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let values = values(spec)?;
            if values.len() != spec.num_elements() {
                let (name, shape) = (spec.name.clone(), spec.shape.clone());
                let (expected, found) = (spec.num_elements(), values.len());
                return Err(ParamsError::Size { name, shape, expected, found }.into());
            }
            stored.push(match format {
                _ if spec.shape.len() < 2 => Stored::f32(values, device),
                BaseFormat::F32 => Stored::f32(values, device),
                BaseFormat::Nf4 if linear.contains(&index) => Stored::nf4(&values),
                BaseFormat::Bf16 | BaseFormat::Nf4 => Stored::bf16(values, device, in_host_memory),
            });
        }
        Ok(Self { specs, format, stored })
    }

    /// Parameters that are there already, shared.
    #[must_use]
    pub fn of_params(params: &Params) -> Self {
        let stored = params.tensors().iter().map(|tensor| Stored::Plain(tensor.clone().inner())).collect();
        Self { specs: Arc::clone(params.shared_specs()), format: BaseFormat::F32, stored }
    }

    /// What each weight is.
    #[must_use]
    pub fn specs(&self) -> &Arc<[ParamSpec]> {
        &self.specs
    }

    /// The number format asked for.
    #[must_use]
    pub fn format(&self) -> BaseFormat {
        self.format
    }

    /// Bytes that all weights occupy.
    #[must_use]
    pub fn num_bytes(&self) -> u64 {
        self.stored.iter().map(|stored| stored.num_bytes() as u64).sum()
    }

    /// Weight `index` as it is held.
    pub(crate) fn stored(&self, index: usize) -> &Stored {
        &self.stored[index]
    }

    /// Weight `index` in f32, flat.
    #[must_use]
    pub fn widened(&self, index: usize, device: &Device) -> Tensor<1> {
        self.stored[index].widened(device)
    }
}

/// Bytes that a model's weights occupy when they are held in `format`, by arithmetic; see [`FrozenBase::load`].
#[must_use]
pub fn frozen_bytes(specs: &[ParamSpec], linear: &[usize], format: BaseFormat) -> u64 {
    let of = |(index, spec): (usize, &ParamSpec)| {
        let count = spec.num_elements() as u64;
        match format {
            _ if spec.shape.len() < 2 => 4 * count,
            BaseFormat::F32 => 4 * count,
            BaseFormat::Nf4 if linear.contains(&index) => {
                let blocks = count.div_ceil(64);
                count.div_ceil(2) + blocks + 4 * blocks.div_ceil(256) + 4
            }
            BaseFormat::Bf16 | BaseFormat::Nf4 => 2 * count,
        }
    };
    specs.iter().enumerate().map(of).sum()
}
