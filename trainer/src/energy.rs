//! Owns the energy that a run draws, added over its processes; never touches counters itself.

use crate::cluster::ClusterError;
use crate::device::energy::{EnergyMeter, Sources};
use crate::device::{DeviceKind, Opened};
use crate::team::Team;

/// Joules of a kilowatt-hour.
pub const JOULES_PER_KWH: f64 = 3.6e6;

/// The counters of this process, and whether any process has some.
#[derive(Debug, Default)]
pub struct Energy {
    meter: Option<EnergyMeter>,
    is_measured: bool,
}

impl Energy {
    /// Opens the counters: those of the host in the first process of each, that of the GPU in every one. Says what is
    /// measured in this process, or why nothing is.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn open(opened: &Opened, local_rank: usize, team: &mut Team) -> Result<(Self, String), ClusterError> {
        let gpu = match (opened.kind, opened.choice) {
            (DeviceKind::Cpu, _) => None,
            (_, choice) => choice.index(),
        };
        let (meter, told) = match EnergyMeter::open(local_rank == 0, gpu) {
            Ok((meter, Sources(told))) => (Some(meter), told),
            Err(why) => (None, why),
        };
        let everybody = team.gather(vec![u8::from(meter.is_some())])?;
        let is_measured = everybody.iter().any(|has| has.as_slice() == [1]);
        Ok((Self { meter, is_measured }, told))
    }

    /// Joules that all processes drew since this was last asked; `None` where nothing is measured. All of them ask at the
    /// same points of the run.
    ///
    /// # Errors
    /// [`ClusterError`] when a process is lost.
    pub fn take(&mut self, team: &mut Team) -> Result<Option<f64>, ClusterError> {
        if !self.is_measured {
            return Ok(None);
        }
        let own = self.meter.as_mut().map_or(0.0, EnergyMeter::take);
        let everybody = team.gather(own.to_le_bytes().to_vec())?;
        let joules = everybody.iter().filter_map(|bytes| Some(f64::from_le_bytes(bytes.as_slice().try_into().ok()?)));
        Ok(Some(joules.sum()))
    }
}
