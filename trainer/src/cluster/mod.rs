//! Owns the processes of a run as one machine: joining, collectives, failure; never touches models or checkpoints.

pub mod channel;
pub mod collective;
pub mod conformance;
pub mod control;
pub mod device_collective;
pub mod device_conformance;
pub mod engine;
pub mod error;
mod header;
pub mod place;
pub mod recorder;
pub mod rendezvous;
mod sums;
pub mod tcp;
pub mod token;

pub use collective::{Alone, Collective, Order};
pub use device_collective::{DeviceCollective, Ticket};
pub use error::{Cause, ClusterError, Verdict};
