//! Owns the engine of collectives over NVIDIA's NCCL: gradients are summed where they are, on the device; never
//! touches how processes find each other or who is to blame for a lost one.
//!
//! One communicator a process, on a stream of its own. A collective waits on the device for the work that makes its
//! input and later work waits for it (`cuCtxRecordEvent`, `cuCtxWaitEvent`); the host waits for neither. What is not
//! a tensor on the device goes through the host engine that also carried the communicator's id. `engine` is the
//! arithmetic and bookkeeping, over the `Fabric` that hides CUDA and NCCL: tests put threads in its place.

// What a build without CUDA does not use is compiled in all the same, so that it is checked and tested everywhere.
#[cfg(any(feature = "cuda", test))]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod communicator;
#[cfg(feature = "cuda")]
mod cuda_fabric;
#[cfg(feature = "cuda")]
mod driver;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod engine;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod fabric;
#[cfg(feature = "cuda")]
mod joining;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod library;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod passport;
#[cfg(any(feature = "cuda", test))]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod symbols;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod watch;

use std::sync::Arc;

use super::Opened;
use crate::cluster::control::Control;
use crate::cluster::{ClusterError, Collective};

pub use library::{LIBRARY_VARIABLE, NcclMissing};

/// The engine, and what is worth printing once.
pub struct Joined {
    /// Sums tensors on the device ([`Collective::on_device`]), everything else over the host engine.
    pub collective: Box<dyn Collective>,
    /// `NCCL 2.28.9 (/usr/lib/.../libnccl.so.2)`.
    pub library: String,
}

/// Why there is no NCCL for this run. All ranks come to the same end.
pub struct Refusal {
    /// What is missing on which rank, and what to do.
    pub error: ClusterError,
    /// The host engine, where the ranks agreed before NCCL was touched: the run can go on with it.
    pub host: Option<Box<dyn Collective>>,
}

impl From<ClusterError> for Box<Refusal> {
    fn from(error: ClusterError) -> Self {
        Box::new(Refusal { error, host: None })
    }
}

/// Joins NCCL's communicator of this run with the device `opened`; every rank calls it at the same point. `host`
/// carries the id of the communicator and stays in use for everything that is not a tensor on the device.
///
/// # Errors
/// [`Refusal`], the same on every rank, when a rank has no CUDA device or no NCCL, when versions differ or ranks
/// share a GPU that NCCL does not let them share; [`ClusterError::Lost`] in it when a process is lost meanwhile.
pub fn connect(opened: &Opened, control: Arc<Control>, mut host: Box<dyn Collective>) -> Result<Joined, Box<Refusal>> {
    let ready = prepare(opened);
    let (rank, name) = (host.rank(), control.host());
    let passport = passport::Passport::of(rank, name, &ready.as_ref().map(Ready::facts).map_err(Clone::clone));
    let all = host.all_gather_bytes(&passport.to_bytes())?;
    if let Err(error) = passport::judge(&all) {
        return Err(Box::new(Refusal { error, host: Some(host) }));
    }
    // All ranks are ready, this one included.
    let ready = ready.map_err(|why| ClusterError::Refused { what: why, advice: "please report it".into() })?;
    Ok(ready.join(control, host)?)
}

#[cfg(feature = "cuda")]
use joining::Ready;
#[cfg(feature = "cuda")]
pub(super) use symbols::words;

#[cfg(feature = "cuda")]
fn prepare(opened: &Opened) -> Result<Ready, String> {
    Ready::new(opened)
}

/// Without CUDA in the build no rank is ever ready.
#[cfg(not(feature = "cuda"))]
enum Ready {}

#[cfg(not(feature = "cuda"))]
impl Ready {
    fn facts(&self) -> passport::Facts {
        match *self {}
    }

    fn join(self, _: Arc<Control>, _: Box<dyn Collective>) -> Result<Joined, ClusterError> {
        match self {}
    }
}

#[cfg(not(feature = "cuda"))]
fn prepare(_: &Opened) -> Result<Ready, String> {
    Err("this binary was built without CUDA; build with `cargo build --release -p trainer --features cuda`".into())
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
