//! Owns the flat, named parameters of a model; never touches files, optimizers or the order of a forward pass.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::init::initial_values;

/// How a parameter is first filled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Every element is 0 (biases, and norm scales that are counted from 1).
    Zeros,
    /// Every element is 1 (norm scales).
    Ones,
    /// Uniform draws of mean 0.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
    /// Normal draws of mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// What one parameter is, apart from its values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// Hugging Face tensor name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Hugging Face shape, row-major; `[out, in]` for linear layers.
    pub shape: Vec<usize>,
    /// How it is first filled.
    pub init: Init,
    /// Whether weight decay applies: tensors of two dimensions or more.
    pub decay: bool,
}

impl ParamSpec {
    /// Whether this is a matrix between hidden layers, `[out, in]` or `[in, out]`: neither a table of tokens or positions
    /// nor the head, whose rows are independent of each other.
    pub fn is_hidden_matrix(&self) -> bool {
        const TABLES: [&str; 5] = ["embed_tokens", "lm_head", "wte", "wpe", "lora_embedding"];
        self.shape.len() == 2 && !self.name.split('.').any(|part| TABLES.iter().any(|table| part.starts_with(table)))
    }

    /// A spec whose `decay` follows from the number of dimensions.
    #[must_use]
    pub fn new(name: String, shape: Vec<usize>, init: Init) -> Self {
        let decay = shape.len() >= 2;
        Self { name, shape, init, decay }
    }

    /// Product of the shape.
    #[must_use]
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Values that do not fit the parameters they are meant for.
#[derive(Debug, Error)]
pub enum ParamsError {
    /// Not one list of values for each parameter.
    #[error("{found} tensors were given for {expected} parameters; give one for each, in the order of the specs")]
    Count {
        /// Number of parameters.
        expected: usize,
        /// Number of tensors given.
        found: usize,
    },
    /// A tensor has too few or too many elements.
    #[error("parameter {name} has shape {shape:?} and {expected} elements, but {found} values were given")]
    Size {
        /// Parameter.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// The device would not hand a tensor back.
    #[error("parameter {name} could not be read from its device: {cause}; the device may have failed, restart the run")]
    Read {
        /// Parameter.
        name: String,
        /// What the backend said.
        cause: String,
    },
}

/// The parameters of a model: one flat `[num_elements]` tensor for each spec, in f32.
///
/// Optimizers, gradient sums, collectives and checkpoints treat all parameters alike; only the forward pass gives
/// them their shape back, by free views. Cloning is cheap: tensors are shared until one side writes.
#[derive(Debug, Clone)]
pub struct Params {
    specs: Arc<[ParamSpec]>,
    tensors: Vec<Tensor<1>>,
}

impl Params {
    /// Fresh parameters on `device`, a pure function of (`specs`, `seed`); see [`initial_values`].
    #[must_use]
    pub fn init(specs: Arc<[ParamSpec]>, seed: u64, device: &Device) -> Self {
        let tensors = specs.iter().map(|spec| upload(initial_values(spec, seed), device)).collect();
        Self { specs, tensors }
    }

    /// Parameters from host values, row-major, in the order of `specs`.
    ///
    /// # Errors
    /// [`ParamsError`] when a list is missing, surplus or of the wrong length.
    pub fn from_host(specs: Arc<[ParamSpec]>, values: Vec<Vec<f32>>, device: &Device) -> Result<Self, ParamsError> {
        if specs.len() != values.len() {
            return Err(ParamsError::Count { expected: specs.len(), found: values.len() });
        }
        for (spec, list) in specs.iter().zip(&values) {
            check_size(spec, list.len())?;
        }
        let tensors = values.into_iter().map(|list| upload(list, device)).collect();
        Ok(Self { specs, tensors })
    }

    /// Parameters from tensors that are already on their device, in the order of `specs`.
    ///
    /// # Errors
    /// [`ParamsError`] when a tensor is missing, surplus or of the wrong length.
    pub fn from_tensors(specs: Arc<[ParamSpec]>, tensors: Vec<Tensor<1>>) -> Result<Self, ParamsError> {
        if specs.len() != tensors.len() {
            return Err(ParamsError::Count { expected: specs.len(), found: tensors.len() });
        }
        for (spec, tensor) in specs.iter().zip(&tensors) {
            check_size(spec, tensor.dims()[0])?;
        }
        Ok(Self { specs, tensors })
    }

    /// The same values as leaves of an autodiff graph: after `loss.backward()`, `tensors()[i].grad_remove(..)` gives
    /// the gradient of parameter `i`. The values are shared with `self`; drop one of the two before updating in place.
    #[must_use]
    pub fn tracked(&self) -> Self {
        let track = |tensor: &Tensor<1>| tensor.clone().inner().autodiff().require_grad();
        Self { specs: Arc::clone(&self.specs), tensors: self.tensors.iter().map(track).collect() }
    }

    /// The same values, of which those at `indices` are leaves of an autodiff graph, see [`Params::tracked`].
    #[must_use]
    pub(crate) fn tracked_only(&self, indices: &[usize]) -> Self {
        let mut tensors = self.tensors.clone();
        for &index in indices {
            tensors[index] = self.tensors[index].clone().inner().autodiff().require_grad();
        }
        Self { specs: Arc::clone(&self.specs), tensors }
    }

    /// The same values without autodiff.
    #[must_use]
    pub fn untracked(&self) -> Self {
        let untrack = |tensor: &Tensor<1>| tensor.clone().inner();
        Self { specs: Arc::clone(&self.specs), tensors: self.tensors.iter().map(untrack).collect() }
    }

    /// What each parameter is, in order.
    #[must_use]
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// The shared list behind [`Params::specs`].
    #[must_use]
    pub fn shared_specs(&self) -> &Arc<[ParamSpec]> {
        &self.specs
    }

    /// One `[num_elements]` tensor for each spec.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor<1>] {
        &self.tensors
    }

    /// The tensors, to be updated in place. Lengths must not change.
    pub fn tensors_mut(&mut self) -> &mut [Tensor<1>] {
        &mut self.tensors
    }

    /// Total number of elements.
    #[must_use]
    pub fn num_elements(&self) -> usize {
        self.specs.iter().map(ParamSpec::num_elements).sum()
    }

    /// Copies parameter `index` to the host, row-major.
    ///
    /// # Errors
    /// [`ParamsError::Read`] when the device fails.
    pub fn to_host(&self, index: usize) -> Result<Vec<f32>, ParamsError> {
        self.tensors[index]
            .clone()
            .inner()
            .try_into_vec_as::<f32>()
            .map_err(|error| ParamsError::Read { name: self.specs[index].name.clone(), cause: error.to_string() })
    }

    /// Parameter `index` as `[rows, columns]`, a view.
    pub(crate) fn matrix(&self, index: usize) -> Tensor<2> {
        let spec = &self.specs[index];
        let rows = spec.shape.first().copied().unwrap_or(1);
        let columns = spec.num_elements().checked_div(rows).unwrap_or(0);
        self.tensors[index].clone().reshape([rows, columns])
    }

    /// Parameter `index` as `[num_elements]`.
    pub(crate) fn vector(&self, index: usize) -> Tensor<1> {
        self.tensors[index].clone()
    }
}

fn check_size(spec: &ParamSpec, found: usize) -> Result<(), ParamsError> {
    let expected = spec.num_elements();
    if expected == found {
        return Ok(());
    }
    Err(ParamsError::Size { name: spec.name.clone(), shape: spec.shape.clone(), expected, found })
}

fn upload(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, burn::tensor::DType::F32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn specs() -> Arc<[ParamSpec]> {
        Arc::from(vec![
            ParamSpec::new("w".into(), vec![2, 3], Init::Normal { std: 1.0 }),
            ParamSpec::new("g".into(), vec![3], Init::Ones),
        ])
    }

    #[test]
    fn host_round_trip_keeps_every_bit() {
        let values = vec![vec![1.0, -2.5, 3.0, 0.0, f32::MIN_POSITIVE, 1e30], vec![7.0, 8.0, 9.0]];
        let params = Params::from_host(specs(), values.clone(), &Device::flex()).unwrap();
        assert_eq!(params.to_host(0).unwrap(), values[0]);
        assert_eq!(params.to_host(1).unwrap(), values[1]);
        assert_eq!(params.num_elements(), 9);
        assert_eq!(params.matrix(0).dims(), [2, 3]);
    }

    #[test]
    fn decay_follows_the_dimensions() {
        assert_eq!(specs().iter().map(|spec| spec.decay).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn misfits_are_named() {
        let device = Device::flex();
        let short = Params::from_host(specs(), vec![vec![0.0; 5], vec![0.0; 3]], &device).unwrap_err();
        assert_eq!(short.to_string(), "parameter w has shape [2, 3] and 6 elements, but 5 values were given");
        let few = Params::from_host(specs(), vec![vec![0.0; 6]], &device).unwrap_err();
        assert!(few.to_string().starts_with("1 tensors were given for 2 parameters"));
    }

    #[test]
    fn tracked_parameters_receive_gradients() {
        let params = Params::init(specs(), 1, &Device::flex());
        let tracked = params.tracked();
        let loss = (tracked.tensors()[0].clone() * 2.0).sum();
        let mut gradients = loss.backward();
        let gradient = tracked.tensors()[0].grad_remove(&mut gradients).unwrap();
        assert_eq!(gradient.try_into_vec_as::<f32>().unwrap(), vec![2.0; 6]);
        assert!(tracked.tensors()[1].grad_remove(&mut gradients).is_none());
    }
}
