//! Owns the choice of the engine of collectives; never touches how one works.
//!
//! The only module outside `device` that knows cargo features: which engines a binary has is decided here and nowhere
//! else.

#[cfg(feature = "mpi")]
pub mod mpi;

use std::fmt;
use std::sync::Arc;

use super::channel::Channel;
use super::collective::Collective;
use super::control::Control;
use super::error::ClusterError;
use super::place::Place;
use super::tcp::TcpCollective;

/// What carries the data of collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Connections of our own; every binary has it.
    Tcp,
    /// The MPI library of the machine; feature `mpi`.
    Mpi,
    /// NVIDIA's library, between GPUs; feature `cuda`. Without a CUDA device on every rank the run goes on with `tcp`,
    /// unless this engine was named.
    Nccl,
}

/// What the configuration says about the engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// The engine it names, if it does.
    pub engine: Option<Engine>,
    /// Whether the processes may compute on CUDA devices.
    pub on_cuda: bool,
    /// Whether data must be encrypted on its way, which only `tcp` does.
    pub sealed: bool,
}

/// Rank and number of processes as MPI launchers tell them: Open MPI, MPICH's PMI (Intel MPI, `srun --mpi=pmi2`), and
/// PMIx, which has no variable for the number.
const MPI_NUMBERS: [(&str, Option<&str>); 3] =
    [("OMPI_COMM_WORLD_RANK", Some("OMPI_COMM_WORLD_SIZE")), ("PMI_RANK", Some("PMI_SIZE")), ("PMIX_RANK", None)];

impl Engine {
    /// Whether this binary has it.
    #[must_use]
    pub fn is_built(self) -> bool {
        match self {
            Self::Tcp => true,
            Self::Mpi => cfg!(feature = "mpi"),
            Self::Nccl => cfg!(feature = "cuda"),
        }
    }

    /// The engine of a run (one process needs none, and may name any that exists): the one that is wished for, or
    /// without a wish the best one that this binary has and that fits: `nccl` between CUDA devices, `mpi` under an MPI
    /// launcher, else `tcp`.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] when this binary does not have what is wanted, it does not encrypt and must, or `mpi`
    /// is wanted for processes that no MPI launcher has started, or that it numbers in another way.
    pub fn choose(wish: Wish, place: &Place, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ClusterError> {
        let Wish { engine: wanted, on_cuda, sealed } = wish;
        let engine = match wanted {
            Some(engine) => engine,
            None if sealed => Self::Tcp,
            None if on_cuda && Self::Nccl.is_built() => Self::Nccl,
            None if Self::Mpi.is_built() && fits_mpi(place, env).is_ok() => Self::Mpi,
            None => Self::Tcp,
        };
        if !engine.is_built() {
            return Err(engine.missing());
        }
        if sealed && engine != Self::Tcp {
            return Err(ClusterError::Refused {
                what: format!(
                    "`cluster.engine: {engine}` does not encrypt what it sends, but `cluster.wire` is `sealed`"
                ),
                advice: "write `cluster.engine: tcp`, or `cluster.wire: auto`".into(),
            });
        }
        if engine == Self::Mpi && !place.is_alone() {
            fits_mpi(place, env)?;
        }
        Ok(engine)
    }

    /// Starts the engine between processes that have met. `data` are the connections between them, by rank, which an
    /// engine with connections of its own closes.
    ///
    /// # Errors
    /// [`ClusterError`] when it cannot be started here.
    pub fn start(self, data: Vec<Option<Channel>>, control: Arc<Control>) -> Result<Box<dyn Collective>, ClusterError> {
        match self {
            #[cfg(feature = "mpi")]
            Self::Mpi => Ok(Box::new(mpi::MpiCollective::new(control)?)),
            // NCCL needs the device, which is opened later (`assembly::join_device`), and connections beside its own.
            Self::Tcp | Self::Nccl => Ok(Box::new(TcpCollective::new(data, control)?)),
            #[cfg(not(feature = "mpi"))]
            Self::Mpi => Err(self.missing()),
        }
    }

    /// Why this binary cannot use it.
    fn missing(self) -> ClusterError {
        let (feature, also) = match self {
            Self::Tcp => (None, ""),
            Self::Mpi => (Some("mpi"), " (it takes an MPI library with mpicc, and libclang)"),
            Self::Nccl => (Some("cuda"), ""),
        };
        match feature {
            Some(feature) => ClusterError::Refused {
                what: format!("`cluster.engine: {self}`: this jazari was built without the feature `{feature}`"),
                advice: format!(
                    "build it with `cargo build --release -p trainer --features {feature}`{also}, or write \
                     `cluster.engine: auto`"
                ),
            },
            None => ClusterError::Refused {
                what: format!("`cluster.engine: {self}`: this version of jazari does not have that engine yet"),
                advice: "write `cluster.engine: auto`".into(),
            },
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Mpi => "mpi",
            Self::Nccl => "nccl",
        })
    }
}

/// Whether an MPI launcher has started this process and numbers it as `place` does: MPI would otherwise start alone, or
/// with other ranks. Every process comes to the same answer before any of them connects.
fn fits_mpi(place: &Place, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ClusterError> {
    let Some((rank_name, world_name)) = MPI_NUMBERS.into_iter().find(|(name, _)| env(name).is_some()) else {
        let tried = MPI_NUMBERS.map(|(name, _)| name).join(", ");
        return Err(ClusterError::Refused {
            what: format!("`cluster.engine: mpi`: no MPI launcher has started this process (none of {tried} is set)"),
            advice: "start it with mpirun, or with srun --mpi=pmix; `jazari launch` and torchrun go with \
                     `cluster.engine: auto`"
                .into(),
        });
    };
    for (name, number) in [(Some(rank_name), place.rank), (world_name, place.world)] {
        let Some(name) = name else { continue };
        let told = env(name).unwrap_or_default();
        if told.trim().parse() != Ok(number) {
            return Err(ClusterError::Refused {
                what: format!(
                    "`cluster.engine: mpi`: this is rank {} of {} by {}, but the MPI launcher has set {name}={told}",
                    place.rank, place.world, place.source
                ),
                advice: "let one launcher number the processes, or write `cluster.engine: tcp`".into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::place::Source;

    fn choose(engine: Option<Engine>, variables: &[(&str, &str)]) -> Result<Engine, String> {
        choose_sealed(Wish { engine, ..Wish::default() }, variables)
    }

    fn choose_sealed(wish: Wish, variables: &[(&str, &str)]) -> Result<Engine, String> {
        let place = Place { rank: 1, world: 4, source: Source::OpenMpi, ..Place::single() };
        let env = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Engine::choose(wish, &place, &env).map_err(|error| error.to_string())
    }

    const MPIRUN: [(&str, &str); 2] = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];

    #[test]
    fn auto_takes_mpi_only_where_its_launcher_numbers_the_ranks() {
        let under_mpi = if Engine::Mpi.is_built() { Engine::Mpi } else { Engine::Tcp };
        assert_eq!(choose(None, &MPIRUN), Ok(under_mpi));
        assert_eq!(choose(None, &[("PMI_RANK", "1"), ("PMI_SIZE", "4")]), Ok(under_mpi));
        assert_eq!(choose(None, &[("PMIX_RANK", "1")]), Ok(under_mpi));
        assert_eq!(choose(None, &[]), Ok(Engine::Tcp));
        // `mpirun -n 2 jazari launch`: the variables are those of the supervisor.
        assert_eq!(choose(None, &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]), Ok(Engine::Tcp));
        assert_eq!(choose(Some(Engine::Tcp), &MPIRUN), Ok(Engine::Tcp));
        assert_eq!(choose_sealed(Wish { sealed: true, ..Wish::default() }, &MPIRUN), Ok(Engine::Tcp));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_to_do() {
        match choose(Some(Engine::Nccl), &[]) {
            Ok(engine) => assert!(engine == Engine::Nccl && engine.is_built()),
            Err(error) => assert!(error.contains("without the feature `cuda`; build it with `cargo build"), "{error}"),
        }
        if !Engine::Mpi.is_built() {
            let error = choose(Some(Engine::Mpi), &MPIRUN).unwrap_err();
            assert!(error.contains("without the feature `mpi`; build it with `cargo build"), "{error}");
            return;
        }
        assert_eq!(choose(Some(Engine::Mpi), &MPIRUN), Ok(Engine::Mpi));
        let sealed = Wish { engine: Some(Engine::Mpi), sealed: true, ..Wish::default() };
        let error = choose_sealed(sealed, &MPIRUN).unwrap_err();
        assert!(error.contains("`cluster.engine: mpi` does not encrypt"), "{error}");
        let error = choose(Some(Engine::Mpi), &[]).unwrap_err();
        assert!(error.contains("(none of OMPI_COMM_WORLD_RANK, PMI_RANK, PMIX_RANK is set); start it with"), "{error}");
        let error = choose(Some(Engine::Mpi), &[("PMI_RANK", "1"), ("PMI_SIZE", "8")]).unwrap_err();
        assert!(error.contains("rank 1 of 4 by Open MPI") && error.contains("set PMI_SIZE=8; let one"), "{error}");
    }
}
