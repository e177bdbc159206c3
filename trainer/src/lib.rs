//! The trainer library behind the `jazari` binary: configuration, the training loop, checkpoints and exports.
//!
//! It is the only crate of the workspace with a disk, a clock and a network. Suggested reading order:
//! `config`, `train`, `step`, `optim`, `guard`, `checkpoint`, `team`, `cluster`, `launch`, `outer`, `hub`.

pub mod adapter;
pub mod allocator;
pub mod assembly;
pub mod buckets;
pub mod bundle;
pub mod card;
pub mod certificate;
pub mod chat_data;
pub mod checkpoint;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod dataset_change;
pub mod device;
pub mod durable;
pub mod energy;
pub mod eval;
pub mod evaluate;
pub mod events;
pub mod expect;
pub mod gguf;
pub mod gradient_sum;
pub mod guard;
pub mod hub;
pub mod launch;
pub mod mistral;
pub mod optim;
pub mod outer;
pub mod parity;
pub mod partition;
pub mod power;
pub mod preference;
pub mod prefetch;
pub mod prometheus;
pub mod recipe;
pub mod regression;
pub mod run_dir;
pub mod schedule;
pub mod secret_file;
pub mod seen;
pub mod selftest;
pub mod session;
pub mod signals;
pub mod step;
pub mod team;
pub mod tensor_file;
pub mod tensorboard;
pub mod train;
pub mod vocabulary;
