//! Transformer architectures, losses and fused ops as functions of tensors.
//!
//! Owns what a model computes; never touches files, clocks or sockets, and starts no threads outside its CPU kernels.
//! Parameters are flat and named ([`Params`]); a [`Model`] holds none and computes with those it is given.

mod adapted_model;
pub mod adapter;
mod backward;
mod balance;
pub mod config;
mod families;
mod family;
pub mod frozen;
pub mod generate;
mod goal;
mod hub_config;
pub mod init;
pub mod model;
pub mod ops;
pub mod params;
pub mod philox;
pub mod rotary;
pub mod size;
mod spelling;
mod weights;

pub use adapter::{AdaptedModule, AdapterError, AdapterSpec};
pub use backward::{NoGradient, Recompute};
pub use config::{ConfigError, DecoderConfig, LlamaConfig, ModelConfig, RopeConfig, RopeScaling, WeightDtype};
pub use frozen::{BaseFormat, FrozenBase};
pub use goal::{Parts, Weighed};
pub use model::{Inputs, Model, Precision};
pub use ops::AttentionRule;
pub use params::{Init, ParamSpec, Params, ParamsError};
pub use spelling::Stored;
