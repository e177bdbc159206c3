//! Owns the answer to "which process of which run am I?"; never touches sockets or devices.
//!
//! [`Place::find`] looks, in this order, at
//! 1. `jazari`'s own flags and `JAZARI_*` variables, which `jazari launch` sets;
//! 2. the names of torchrun: `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`;
//! 3. Open MPI: `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`, `_LOCAL_SIZE`;
//! 4. Slurm, inside a step of more than one task: `SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID`, node lists;
//! 5. other MPIs: `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`, `MPI_LOCALNRANKS`;
//! 6. pods of an Indexed Job: `JOB_COMPLETION_INDEX` with `JAZARI_WORLD_SIZE`;
//!
//! and otherwise runs as one process. The first source that names a rank is taken; `JAZARI_RENDEZVOUS`, and then
//! `MASTER_ADDR` with `MASTER_PORT`, say where rank 0 listens whatever the source (torchrun's port excepted). What is
//! set but cannot be right is an error: a process that guesses its rank would train alone over its neighbours' work.

mod hosts;
mod sources;
#[cfg(test)]
mod tests;

use std::fmt;

/// Most processes of a run.
pub const MAX_WORLD: usize = 65_536;

/// Who this process is among those of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// This process among those of its host, from 0.
    pub local_rank: usize,
    /// Number of processes on this host.
    pub local_world: usize,
    /// Where rank 0 listens, `host:port`; empty for one process alone.
    pub rendezvous: String,
    /// Name that all processes of the run share; empty for one process alone.
    pub run_id: String,
    /// How often the launcher has restarted the run, for messages only.
    pub restart: u32,
    /// Where all this was found.
    pub source: Source,
}

/// Where a place was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Flags or `JAZARI_*` variables.
    Own,
    /// torchrun, or whatever else sets its variables.
    Torchrun,
    /// Open MPI's mpirun.
    OpenMpi,
    /// A step of Slurm.
    Slurm,
    /// An MPI with the PMI variables of MPICH.
    Pmi,
    /// A pod of an Indexed Job.
    Kubernetes,
    /// No launcher: one process.
    Single,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "jazari's own flags or JAZARI_RANK",
            Self::Torchrun => "torchrun's variables (RANK, WORLD_SIZE)",
            Self::OpenMpi => "Open MPI (OMPI_COMM_WORLD_RANK)",
            Self::Slurm => "Slurm (SLURM_PROCID)",
            Self::Pmi => "MPI (PMI_RANK)",
            Self::Kubernetes => "Kubernetes (JOB_COMPLETION_INDEX)",
            Self::Single => "no launcher",
        })
    }
}

/// What the command line says about the place; each flag wins over the variable of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceFlags {
    /// Over `JAZARI_RANK`.
    pub rank: Option<usize>,
    /// Over `JAZARI_WORLD_SIZE`.
    pub world: Option<usize>,
    /// Over `JAZARI_RENDEZVOUS`, `host:port`.
    pub rendezvous: Option<String>,
    /// Over `JAZARI_RUN_ID`.
    pub run_id: Option<String>,
}

/// What is wrong with the flags and variables; always a matter of usage (exit code 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A value that cannot be read.
    #[error("{name}={value}: {why}; {advice}")]
    Value {
        /// The variable.
        name: String,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        advice: String,
    },
    /// Some of the variables that belong together are missing.
    #[error("{found} is set, but {missing} is not; {advice}")]
    HalfSet {
        /// The variable that is there, with its value.
        found: String,
        /// What is missing.
        missing: String,
        /// What to do.
        advice: String,
    },
    /// Two values that cannot both be right.
    #[error("{one} contradicts {other}; {advice}")]
    Contradiction {
        /// A variable with its value.
        one: String,
        /// The other.
        other: String,
        /// What to do.
        advice: String,
    },
}

impl Place {
    /// Finds the place of this process; `env` reads an environment variable.
    ///
    /// # Errors
    /// When variables that belong together are half set, cannot be read, or contradict each other.
    pub fn find(flags: &PlaceFlags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, PlaceError> {
        sources::find(flags, env)
    }

    /// One process alone.
    #[must_use]
    pub fn single() -> Self {
        Self {
            rank: 0,
            world: 1,
            local_rank: 0,
            local_world: 1,
            rendezvous: String::new(),
            run_id: String::new(),
            restart: 0,
            source: Source::Single,
        }
    }

    /// Whether there are other processes to talk to.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.world == 1
    }
}

impl fmt::Display for Place {
    /// What was found and from where, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, world, local_rank, local_world, rendezvous, run_id, restart, source } = self;
        if *world == 1 {
            return write!(f, "one process ({source})");
        }
        write!(f, "rank {rank} of {world}, {} of {local_world} on this host", local_rank + 1)?;
        write!(f, ", rank 0 at {rendezvous}, run {run_id}")?;
        if *restart > 0 {
            write!(f, ", restart {restart}")?;
        }
        write!(f, "; from {source}")
    }
}
