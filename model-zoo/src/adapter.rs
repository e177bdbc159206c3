//! Owns what an adapter adds to a frozen model: which matrices it corrects, its parameters and their names; never touches
//! the values of the base or the passes over a model.
//!
//! Parameters carry the names of PEFT's adapter files, so that what is trained is what is saved.

use std::sync::Arc;

use thiserror::Error;

use crate::frozen::FrozenBase;
use crate::params::{Init, ParamSpec};

/// What PEFT puts before the names of a model's parameters.
pub const PREFIX: &str = "base_model.model.";
/// What ends the name of a matrix.
const WEIGHT: &str = ".weight";

/// An adapter with every decision made: patterns of names are the caller's matter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterSpec {
    /// Linear layers with a low-rank correction.
    pub modules: Vec<AdaptedModule>,
    /// Whether corrected matrices also learn the length of their rows (DoRA).
    pub learns_magnitude: bool,
    /// Parameters that are trained whole, by their Hugging Face names.
    pub whole: Vec<String>,
}

/// A linear layer with a low-rank correction.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptedModule {
    /// Its name without `.weight`, `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Rank of the correction.
    pub rank: usize,
    /// Factor of the correction.
    pub scale: f64,
}

/// An adapter that does not fit its base.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum AdapterError {
    /// There is no such linear layer in a block.
    #[error("the model has no linear layer `{name}` that an adapter could correct; it has {}", examples(known))]
    NoModule {
        /// The name asked for.
        name: String,
        /// Layers there are.
        known: Vec<String>,
    },
    /// There is no such parameter.
    #[error("the model has no parameter `{name}` to train whole; it has {}", examples(known))]
    NoParameter {
        /// The name asked for.
        name: String,
        /// Parameters there are.
        known: Vec<String>,
    },
    /// A rank that corrects nothing.
    #[error("rank {rank} of `{name}` is impossible: a correction needs a rank of 1 to {most}")]
    Rank {
        /// The layer.
        name: String,
        /// The rank asked for.
        rank: usize,
        /// The smaller of its two sizes.
        most: usize,
    },
    /// Nothing would be trained.
    #[error("the adapter trains nothing; name at least one linear layer")]
    Empty,
    /// The base was made for another model.
    #[error("the frozen weights are those of another model: {what}")]
    OtherBase {
        /// What differs.
        what: String,
    },
}

fn examples(known: &[String]) -> String {
    let quoted: Vec<String> = known.iter().take(8).map(|name| format!("`{name}`")).collect();
    let more = if known.len() > quoted.len() { ", ..." } else { "" };
    if quoted.is_empty() { "none".into() } else { format!("{}{more}", quoted.join(", ")) }
}

/// Where the values of a parameter of the family are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// Trained: a parameter with this index.
    Trained(usize),
    /// Frozen.
    Frozen,
    /// Frozen, with a correction that is trained.
    Corrected(Correction),
}

/// A correction by the indices of its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Correction {
    /// `[rank, in]`.
    pub(crate) a: usize,
    /// `[out, rank]`.
    pub(crate) b: usize,
    /// `[out]`; only of DoRA.
    pub(crate) magnitude: Option<usize>,
    /// Factor of `b · a`.
    pub(crate) scale: f64,
}

impl Place {
    /// Parameters that are trained here, in order.
    pub(crate) fn trained(self) -> Vec<usize> {
        match self {
            Self::Trained(index) => vec![index],
            Self::Frozen => Vec::new(),
            Self::Corrected(Correction { a, b, magnitude, .. }) => {
                [Some(a), Some(b), magnitude].into_iter().flatten().collect()
            }
        }
    }
}

/// A frozen base with what is trained on it.
#[derive(Debug, Clone)]
pub(crate) struct Adapted {
    pub(crate) base: Arc<FrozenBase>,
    pub(crate) layout: Layout,
}

/// Places of a family's parameters and what is trained.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// One for each parameter of the family.
    pub(crate) places: Vec<Place>,
    /// What is trained.
    pub(crate) specs: Arc<[ParamSpec]>,
}

impl Layout {
    /// Lays out an adapter over the parameters of a family, of which those at `linear` are linear layers.
    pub(crate) fn new(base: &[ParamSpec], linear: &[usize], adapter: &AdapterSpec) -> Result<Self, AdapterError> {
        refuse_unknown(base, linear, adapter)?;
        let (mut places, mut specs) = (Vec::with_capacity(base.len()), Vec::new());
        for (index, spec) in base.iter().enumerate() {
            let module = module_name(&spec.name);
            if adapter.whole.contains(&spec.name) {
                places.push(Place::Trained(specs.len()));
                specs.push(ParamSpec { name: format!("{PREFIX}{}", spec.name), ..spec.clone() });
                continue;
            }
            let corrected = adapter.modules.iter().find(|m| linear.contains(&index) && Some(m.name.as_str()) == module);
            let Some(AdaptedModule { name, rank, scale }) = corrected else {
                places.push(Place::Frozen);
                continue;
            };
            let [out, features] = matrix_dims(spec);
            let most = out.min(features);
            if !(1..=most).contains(rank) {
                return Err(AdapterError::Rank { name: name.clone(), rank: *rank, most });
            }
            let (a, b) = (specs.len(), specs.len() + 1);
            // PEFT: Kaiming's uniform draws with slope sqrt(5), which comes to 1 / sqrt(in); and zeros, so that the
            // first step starts from the base.
            let first = Init::Uniform { bound: 1.0 / (features as f64).sqrt() };
            let low_rank = |part: &str, shape, init| ParamSpec::new(format!("{PREFIX}{name}.{part}"), shape, init);
            specs.push(low_rank("lora_A.weight", vec![*rank, features], first));
            specs.push(low_rank("lora_B.weight", vec![out, *rank], Init::Zeros));
            let magnitude = adapter.learns_magnitude.then(|| {
                specs.push(low_rank("lora_magnitude_vector", vec![out], Init::Ones));
                b + 1
            });
            places.push(Place::Corrected(Correction { a, b, magnitude, scale: *scale }));
        }
        if specs.is_empty() {
            return Err(AdapterError::Empty);
        }
        Ok(Self { places, specs: specs.into() })
    }
}

fn refuse_unknown(base: &[ParamSpec], linear: &[usize], adapter: &AdapterSpec) -> Result<(), AdapterError> {
    let modules: Vec<&str> = linear.iter().filter_map(|index| module_name(&base.get(*index)?.name)).collect();
    if let Some(module) = adapter.modules.iter().find(|module| !modules.contains(&module.name.as_str())) {
        let known = modules.iter().map(|name| (*name).to_owned()).collect();
        return Err(AdapterError::NoModule { name: module.name.clone(), known });
    }
    if let Some(name) = adapter.whole.iter().find(|name| base.iter().all(|spec| spec.name != **name)) {
        let known = base.iter().map(|spec| spec.name.clone()).collect();
        return Err(AdapterError::NoParameter { name: name.clone(), known });
    }
    Ok(())
}

/// Name of the layer that a matrix belongs to.
pub(crate) fn module_name(parameter: &str) -> Option<&str> {
    parameter.strip_suffix(WEIGHT)
}

/// Rows and columns of a matrix.
pub(crate) fn matrix_dims(spec: &ParamSpec) -> [usize; 2] {
    let rows = spec.shape.first().copied().unwrap_or(1);
    [rows, spec.num_elements().checked_div(rows).unwrap_or(0)]
}
