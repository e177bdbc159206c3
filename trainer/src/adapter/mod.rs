//! Owns adapters as files and configurations: which layers they mean, PEFT's directories, frozen bases, merging; never
//! touches the passes over a model or the training loop.

mod base;
mod config;
mod error;
mod merge;
mod peft;
mod targets;

pub use base::{adapted_model, first_params, load_base, saved_model};
pub use config::{AdapterPlan, LoraConfig, StartPlan};
pub use error::AdapterFileError;
pub use merge::{Closeness, Merged, compare, merge};
pub use peft::{AdapterDir, AdapterReport, CONFIG_FILE, WEIGHTS_FILE, digest, read_config, write};
pub use targets::Targets;
