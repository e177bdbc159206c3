//! Owns the check of sums that stay on a GPU, with this process alone; never touches the training.
//!
//! A world of one goes the whole way all the same: library, communicator, streams, memory under way. Two processes
//! add what lies between GPUs ([`super::rank`]).

use std::sync::Arc;

use super::table::{Finding, Outcome};
use crate::cluster::control::{Control, Members, Timing};
use crate::cluster::{Alone, device_conformance};
use crate::device::{self, DeviceChoice, nccl};

/// Runs the suite for collectives over device tensors through NCCL on one GPU.
pub(super) fn alone(gpu: DeviceChoice) -> Outcome {
    let Ok(opened) = device::open(gpu, None) else { return Ok(Finding::absent("no GPU answers")) };
    let members = Members { rank: 0, hosts: vec!["this host".into()], pids: vec![std::process::id()] };
    let control = Control::start(members, vec![None], Timing::default(), Box::new(|_| {}));
    let control = control.map_err(|error| error.to_string())?;
    let joined = match nccl::connect(&opened, Arc::clone(&control), Box::new(Alone)) {
        Ok(joined) => joined,
        // The ranks agreed that there is no NCCL: gradients then go through host memory, which is no fault.
        Err(refusal) if refusal.host.is_some() => return Ok(Finding::absent(refusal.error.to_string())),
        Err(refusal) => return Err(refusal.error.to_string()),
    };
    let nccl::Joined { mut collective, library } = joined;
    let engine = collective.on_device().ok_or("the engine cannot reach the device; this is a defect")?;
    let report = device_conformance::run(engine, &opened.device);
    drop(collective);
    control.leave();
    match report.iter().find(|check| !check.passed) {
        None => Ok(Finding::ok(format!("{library}: {} checks of sums on the GPU hold", report.len()))),
        Some(check) => Err(format!("{library}: {}: {}; sums on this GPU cannot be trusted", check.name, check.detail)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_machine_without_nccl_is_no_miss() {
        let finding = format!("{:?}", alone(DeviceChoice::Cpu).unwrap());
        assert!(finding.contains("rank 0 (host this host) cannot use NCCL"), "{finding}");
    }
}
