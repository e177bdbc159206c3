//! Owns bringing the processes of a run together before it starts: place, secret, what all must agree on; never
//! touches training.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::store::BURN_VERSION;
use crate::cluster::control::{Control, Members, Timing};
use crate::cluster::engine::{Engine, Wish};
use crate::cluster::place::Place;
use crate::cluster::rendezvous::{JoinOptions, Membership, Wire, join};
use crate::cluster::token::Token;
use crate::cluster::{Alone, ClusterError, Collective, Order};
use crate::config::Plan;
use crate::config::raw::{EngineChoice, Reduction, WireChoice};
use crate::device::{DeviceChoice, DeviceKind, Opened, nccl};
use crate::signals::StopFlag;
use crate::team::Team;

/// Variable with the path of the file that holds the secret of the run.
pub const TOKEN_VARIABLE: &str = "JAZARI_TOKEN_FILE";
/// Variable with the address this process listens at.
pub const BIND_VARIABLE: &str = "JAZARI_BIND";

/// How long a process that was told to stop still waits for the others to come.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What is said while the processes come together, and what happens to one that does not end when it must.
pub struct Callbacks<'a> {
    /// Hears of connections that were turned away.
    pub on_refused: &'a dyn Fn(&str),
    /// Ends the process; called from another thread when the main thread does not react to a lost peer.
    pub on_fatal: Box<dyn Fn(&ClusterError) + Send>,
}

/// How the processes of a run meet, apart from their places.
pub struct Meeting {
    /// What all must have alike; the run's name is taken from the place.
    pub members: Membership,
    /// What carries the data of collectives.
    pub engine: Engine,
    /// How data travels, where we carry it ourselves; `None` chooses by where the processes are.
    pub wire: Option<Wire>,
    /// How long to wait for all processes.
    pub join_timeout: Duration,
    /// When a process counts as lost.
    pub timing: Timing,
}

/// Joins the run that `place` is a part of. A place alone is a team of one, without any socket.
///
/// # Errors
/// [`ClusterError`] when the engine cannot be used, the secret is missing, the processes disagree, or not all come in
/// time.
pub fn assemble(
    place: &Place,
    plan: &Plan,
    dataset: &str,
    stop: &StopFlag,
    callbacks: Callbacks<'_>,
) -> Result<Team, ClusterError> {
    let engine = Engine::choose(wish(plan), place, &|name| std::env::var(name).ok())?;
    if place.is_alone() {
        return Ok(Team::alone());
    }
    let meeting = Meeting {
        members: agreement(plan, dataset, engine),
        engine,
        wire: match plan.cluster.wire {
            WireChoice::Auto => None,
            WireChoice::Sealed => Some(Wire::Sealed),
            WireChoice::Plain => Some(Wire::Plain),
        },
        join_timeout: Duration::from_secs_f64(plan.cluster.join_timeout),
        timing: Timing {
            peer_timeout: Duration::from_secs_f64(plan.cluster.peer_timeout),
            collective_timeout: Duration::from_secs_f64(plan.cluster.collective_timeout),
            ..Timing::default()
        },
    };
    let (collective, control) = connect(place, meeting, stop, callbacks)?;
    let order = match plan.reduction {
        Reduction::Exact => Order::Exact,
        Reduction::Fast => Order::Fast,
    };
    let team = Team::new(collective, control, order);
    Ok(if engine == Engine::Nccl { team.awaiting_device() } else { team })
}

/// Lets a run over NCCL join it, now that the device is open; other runs stay as they are. Every process calls it at the
/// same point. Returns what is worth telling the user.
///
/// # Errors
/// [`ClusterError`] when `cluster.engine: nccl` was written and a process cannot use it, or a process is lost.
pub fn join_device(team: &mut Team, plan: &Plan, opened: &Opened) -> Result<Option<String>, ClusterError> {
    let named = plan.cluster.engine == EngineChoice::Nccl;
    team.join_device(|control, host| match nccl::connect(opened, control, host) {
        Ok(joined) => (joined.collective, Ok(Some(format!("gradients are added by {}", joined.library)))),
        Err(refusal) => match refusal.host {
            Some(host) if !named => {
                let on_gpu = opened.kind == DeviceKind::Cuda;
                (host, Ok(on_gpu.then(|| format!("gradients go over TCP: {}", refusal.error))))
            }
            host => (host.unwrap_or_else(|| Box::new(Alone)), Err(refusal.error)),
        },
    })
}

fn wish(plan: &Plan) -> Wish {
    Wish {
        engine: match plan.cluster.engine {
            EngineChoice::Auto => None,
            EngineChoice::Tcp => Some(Engine::Tcp),
            EngineChoice::Mpi => Some(Engine::Mpi),
            EngineChoice::Nccl => Some(Engine::Nccl),
        },
        on_cuda: matches!(plan.device, DeviceChoice::Cuda(_) | DeviceChoice::Auto),
        sealed: plan.cluster.wire == WireChoice::Sealed,
    }
}

/// Meets the other processes: rendezvous, control plane, collectives.
///
/// # Errors
/// [`ClusterError`] when the secret is missing, the processes disagree, or not all come in time.
pub fn connect(
    place: &Place,
    meeting: Meeting,
    stop: &StopFlag,
    callbacks: Callbacks<'_>,
) -> Result<(Box<dyn Collective>, Arc<Control>), ClusterError> {
    let token = token()?;
    let bind = std::env::var(BIND_VARIABLE).ok().filter(|value| !value.is_empty());
    let bind = bind.map(|value| {
        value.parse().map_err(|_| ClusterError::Refused {
            what: format!("{BIND_VARIABLE}={value}: this is no IP address"),
            advice: "write the address of this host's network card, or 0.0.0.0 for all of them".into(),
        })
    });
    let members = Membership { run_id: place.run_id.clone(), ..meeting.members };
    // Once all are connected they agree on the stop and leave together, so a rendezvous that succeeds is not disturbed.
    let asked = OnceCell::new();
    let was_stopped = || {
        let (rank, host) = (place.rank, host_name());
        ClusterError::Stopped(format!("rank {rank} (host {host}) was told to stop while it waited for the others"))
    };
    let stopped = || match stop.is_set() && asked.get_or_init(Instant::now).elapsed() >= STOP_PATIENCE {
        false => Ok(()),
        true => Err(was_stopped()),
    };
    let mesh = join(&JoinOptions {
        rank: place.rank,
        world: place.world,
        host: host_name(),
        rendezvous: place.rendezvous.clone(),
        bind: bind.transpose()?,
        token: &token,
        wire: meeting.wire,
        deadline: meeting.join_timeout,
        members: &members,
        on_refused: callbacks.on_refused,
        keep_waiting: &stopped,
    });
    let mesh = mesh.map_err(|error| match error {
        // Another one was told as well and left first.
        ClusterError::Absent { .. } if stop.is_set() => was_stopped(),
        other => other,
    })?;
    let who = Members { rank: mesh.rank, hosts: mesh.hosts, pids: mesh.pids };
    let control = Control::start(who, mesh.control, meeting.timing, callbacks.on_fatal)?;
    let collective = meeting.engine.start(mesh.data, Arc::clone(&control))?;
    Ok((collective, control))
}

/// What every process must have alike. The plan and the data decide the numbers; the version decides what they mean.
fn agreement(plan: &Plan, dataset: &str, engine: Engine) -> Membership {
    let facts = [
        ("plan", plan.digest()),
        ("data set", dataset.to_owned()),
        ("version of jazari", env!("CARGO_PKG_VERSION").to_owned()),
        ("version of burn", BURN_VERSION.to_owned()),
        ("instruction set of the CPU kernels", instruction_set(plan)),
        ("cluster.zero", plan.cluster.zero.to_string()),
        ("cluster.bucket_cap_mb", plan.cluster.bucket_cap_mb.to_string()),
        ("engine of collectives", engine.to_string()),
    ];
    let facts: Vec<_> = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut hasher = blake3::Hasher::new();
    for (key, value) in &facts {
        hasher.update(format!("{key}={value}\n").as_bytes());
    }
    Membership { fingerprint: hasher.finalize().to_hex().to_string(), facts, ..Membership::default() }
}

/// With `reduction: exact` replicas on processors with other vector instructions would drift apart in the last bit.
fn instruction_set(plan: &Plan) -> String {
    match plan.reduction {
        Reduction::Exact => crate::device::Processor::detect().simd.to_owned(),
        Reduction::Fast => "any".into(),
    }
}

fn token() -> Result<Token, ClusterError> {
    let path = std::env::var_os(TOKEN_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = path.ok_or_else(|| ClusterError::Refused {
        what: format!("several processes need a secret, and {TOKEN_VARIABLE} names no file with one"),
        advice: format!(
            "make one with `(umask 077; head -c 32 /dev/urandom | base64 > token)`, give every host the same file and \
             set {TOKEN_VARIABLE} to its path; `jazari launch` does all this by itself on one host"
        ),
    })?;
    Token::read(&path).map_err(|error| ClusterError::Refused {
        what: error.to_string(),
        advice: format!("check the file that {TOKEN_VARIABLE} names"),
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
