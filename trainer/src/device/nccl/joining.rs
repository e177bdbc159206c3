//! Owns how a rank with a GPU gets ready for NCCL and joins its communicator; never touches a sum.

use std::sync::Arc;

use super::Joined;
use super::communicator::Communicator;
use super::cuda_fabric::{CudaFabric, FabricError};
use super::driver::{self, Context};
use super::engine::{Engine, conclude};
use super::library::Places;
use super::passport::{Facts, SHARING_VARIABLE, version_text};
use super::symbols::{Api, ID_BYTES, UniqueId};
use crate::cluster::control::Control;
use crate::cluster::recorder::Kind;
use crate::cluster::{ClusterError, Collective};
use crate::device::{Device, DeviceChoice, Opened};

/// First byte of what rank 0 spreads: an id follows.
const ID: u8 = 1;

/// A rank that has a GPU and the library, before it has spoken to any other.
pub(super) struct Ready {
    device: Device,
    context: Context,
    api: Arc<Api>,
    facts: Facts,
}

impl Ready {
    /// Looks at this process's GPU and finds the library.
    pub(super) fn new(opened: &Opened) -> Result<Self, String> {
        let DeviceChoice::Cuda(ordinal) = opened.choice else {
            return Err(format!("it computes on `{}`, which is no NVIDIA GPU; write `device: auto`", opened.choice));
        };
        let api = Api::load(&Places::from_env()).map_err(|missing| missing.to_string())?;
        let gpu = driver::gpu(ordinal)?;
        let facts = Facts {
            version: api.version,
            gpu: driver::identity(gpu)?,
            device: opened.choice.to_string(),
            may_share: std::env::var(SHARING_VARIABLE).is_ok_and(|value| value == "1"),
        };
        Ok(Self { device: opened.device.clone(), context: Context::primary(gpu)?, api: Arc::new(api), facts })
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// Joins the communicator together with all other ranks, which are ready as well.
    pub(super) fn join(self, control: Arc<Control>, mut host: Box<dyn Collective>) -> Result<Joined, ClusterError> {
        let Self { device, context, api, .. } = self;
        let library = format!("NCCL {} ({})", version_text(api.version), api.path.display());
        let id = share_id(&api, host.as_mut())?;
        // Joining is a collective too: whoever does not come is found by the control plane.
        let sequence = control.issue(Kind::Barrier, 0);
        let broken = |fault| conclude(&control, fault);
        context.set_current().map_err(|why| broken(super::fabric::Fault::Broken(why)))?;
        let keep_waiting = || control.verdict().map_or(Ok(()), Err);
        let comm = Communicator::join(api, id, control.rank(), control.world(), &keep_waiting).map_err(broken)?;
        control.land(sequence);
        let fabric = CudaFabric::new(&device, context, comm, &control).map_err(|error| match error {
            FabricError::Fault(fault) => broken(fault),
            FabricError::Other(error) => error,
        })?;
        let collective = Box::new(Engine::new("nccl", fabric, Arc::clone(&control), host));
        Ok(Joined { collective, library })
    }
}

/// Rank 0 makes the id of the communicator; everybody has it, or the reason why there is none.
fn share_id(api: &Api, host: &mut dyn Collective) -> Result<UniqueId, ClusterError> {
    let mut bytes = Vec::new();
    if host.rank() == 0 {
        match api.unique_id() {
            Ok(id) => {
                bytes.push(ID);
                bytes.extend_from_slice(&id.internal);
            }
            Err(why) => bytes.extend_from_slice(why.as_bytes()),
        }
    }
    host.broadcast(&mut bytes, 0)?;
    match bytes.split_first() {
        Some((&ID, id)) if id.len() == ID_BYTES => {
            let mut internal = [0; ID_BYTES];
            internal.copy_from_slice(id);
            Ok(UniqueId { internal })
        }
        _ => Err(ClusterError::Refused {
            what: format!("rank 0 could not open NCCL's rendezvous: {}", String::from_utf8_lossy(&bytes)),
            advice: "name the network interface that reaches the other hosts (NCCL_SOCKET_IFNAME), and look at NCCL's \
                     own messages (NCCL_DEBUG=INFO)"
                .into(),
        }),
    }
}
