//! Owns how each launcher names ranks, hosts and runs; never touches anything but the variables it is shown.

use super::hosts;
use super::{MAX_WORLD, Place, PlaceError, PlaceFlags, Source};

/// Ports that stand for a run whose launcher names none: below the range that Linux gives to outgoing connections.
const DERIVED_PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Slurm numbers steps upwards; its special steps (batch script, interactive, extern) lie above this.
const LAST_SLURM_STEP: u64 = 0xffff_0000;

/// The environment, with empty variables as unset ones.
struct Env<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
    }

    /// The first of several variables that is set, with its name.
    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, String)> {
        names.iter().find_map(|name| Some((*name, self.text(name)?)))
    }

    fn number(&self, name: &str) -> Result<Option<usize>, PlaceError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(wrong(name, &value, "this is not a whole number", "correct it or unset it")),
        }
    }

    /// As [`Env::number`], for variables that must be there because `found` is.
    fn needed(&self, name: &str, found: &str) -> Result<usize, PlaceError> {
        self.number(name)?.ok_or_else(|| self.half_set(found, name, &format!("set both, or unset {found}")))
    }

    fn half_set(&self, found: &str, missing: &str, advice: &str) -> PlaceError {
        PlaceError::HalfSet { found: self.shown(found), missing: missing.into(), advice: advice.into() }
    }

    fn shown(&self, name: &str) -> String {
        format!("{name}={}", self.text(name).unwrap_or_default())
    }
}

fn wrong(name: &str, value: &str, why: &str, advice: &str) -> PlaceError {
    PlaceError::Value { name: name.into(), value: value.into(), why: why.into(), advice: advice.into() }
}

/// What a launcher said, before it is checked as a whole.
struct Found {
    source: Source,
    rank: (&'static str, usize),
    world: (&'static str, usize),
    local_rank: (&'static str, usize),
    local_world: (&'static str, usize),
    /// Identity of the job at its launcher.
    run_id: Option<String>,
    restart: u32,
    rendezvous: Rendezvous,
}

/// What a launcher says about where rank 0 listens.
enum Rendezvous {
    /// Exactly there; no variable may say otherwise, except `JAZARI_RENDEZVOUS`.
    At(String),
    /// On this host; any free port would do.
    Host(String),
    /// It does not say; the advice is for the user.
    Unknown(&'static str),
}

pub(super) fn find(flags: &PlaceFlags, env: &dyn Fn(&str) -> Option<String>) -> Result<Place, PlaceError> {
    let env = Env(env);
    let sources = [torchrun, open_mpi, slurm, pmi, kubernetes];
    let mut found = own(flags, &env)?;
    for source in sources {
        if found.is_none() {
            found = source(flags, &env)?;
        }
    }
    match found {
        Some(found) => settle(found, flags, &env),
        None => nobody(flags, &env),
    }
}

/// No launcher at all: then nothing may claim that there are several processes.
fn nobody(flags: &PlaceFlags, env: &Env<'_>) -> Result<Place, PlaceError> {
    let advice = "give each process its rank (JAZARI_RANK), start them with `jazari launch`, or unset it";
    if let Some(world) = flags.world.filter(|world| *world != 1) {
        let found = format!("--world-size {world}");
        return Err(PlaceError::HalfSet { found, missing: "a rank".into(), advice: advice.into() });
    }
    for name in ["JAZARI_WORLD_SIZE", "WORLD_SIZE"] {
        if flags.world.is_none() && env.number(name)?.is_some_and(|world| world != 1) {
            return Err(env.half_set(name, "a rank", advice));
        }
    }
    for name in ["JAZARI_LOCAL_RANK", "JAZARI_LOCAL_WORLD_SIZE"] {
        if env.text(name).is_some() {
            return Err(env.half_set(name, "JAZARI_RANK", advice));
        }
    }
    Ok(Place::single())
}

fn own(flags: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    let Some(rank) = flags.rank.map_or_else(|| env.number("JAZARI_RANK"), |rank| Ok(Some(rank)))? else {
        return Ok(None);
    };
    let rank_name = if flags.rank.is_some() { "--rank" } else { "JAZARI_RANK" };
    let (world_name, world) = match (flags.world, env.number("JAZARI_WORLD_SIZE")?) {
        (Some(world), _) => ("--world-size", world),
        (None, Some(world)) => ("JAZARI_WORLD_SIZE", world),
        (None, None) => {
            let found = format!("{rank_name}={rank}");
            let advice = "say how many processes there are, or leave both out to train with one process";
            return Err(PlaceError::HalfSet { found, missing: "JAZARI_WORLD_SIZE".into(), advice: advice.into() });
        }
    };
    let local_rank = env.number("JAZARI_LOCAL_RANK")?;
    let local_world = env.number("JAZARI_LOCAL_WORLD_SIZE")?;
    Ok(Some(Found {
        source: Source::Own,
        rank: (rank_name, rank),
        world: (world_name, world),
        local_rank: ("JAZARI_LOCAL_RANK", local_rank.unwrap_or(0)),
        local_world: ("JAZARI_LOCAL_WORLD_SIZE", local_world.unwrap_or(local_rank.unwrap_or(0) + 1)),
        run_id: None,
        restart: restart(env, "JAZARI_RESTART")?,
        rendezvous: Rendezvous::Unknown("set it to host:port of rank 0, or start the run with `jazari launch`"),
    }))
}

fn torchrun(_: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    let Some(rank) = env.number("RANK")? else { return Ok(None) };
    let world = env.needed("WORLD_SIZE", "RANK")?;
    let restart = restart(env, "TORCHELASTIC_RESTART_COUNT")?;
    let local_rank = env.number("LOCAL_RANK")?.unwrap_or(0);
    let rendezvous = match (env.text("MASTER_ADDR"), env.number("MASTER_PORT")?) {
        (Some(host), Some(port)) => Rendezvous::At(torchrun_address(env, &host, port, restart)?),
        (None, None) => Rendezvous::Unknown("set MASTER_ADDR and MASTER_PORT as torchrun does, or JAZARI_RENDEZVOUS"),
        (Some(_), None) => return Err(env.half_set("MASTER_ADDR", "MASTER_PORT", "set both, or JAZARI_RENDEZVOUS")),
        (None, Some(_)) => return Err(env.half_set("MASTER_PORT", "MASTER_ADDR", "set both, or JAZARI_RENDEZVOUS")),
    };
    Ok(Some(Found {
        source: Source::Torchrun,
        rank: ("RANK", rank),
        world: ("WORLD_SIZE", world),
        local_rank: ("LOCAL_RANK", local_rank),
        local_world: ("LOCAL_WORLD_SIZE", env.number("LOCAL_WORLD_SIZE")?.unwrap_or(local_rank + 1)),
        run_id: env.text("TORCHELASTIC_RUN_ID").map(|id| format!("torchrun-{id}")),
        restart,
        rendezvous,
    }))
}

/// torchrun's agent listens at MASTER_PORT itself when it shares its store; the ports after it are ours, another one
/// for each restart, so that the last one's may rest in TIME_WAIT.
fn torchrun_address(env: &Env<'_>, host: &str, port: usize, restart: u32) -> Result<String, PlaceError> {
    let agent = env.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1");
    let port = if agent { port.saturating_add(1).saturating_add(restart as usize) } else { port };
    let too_high = "choose a lower --master-port (or --rdzv-endpoint port) for torchrun, or set JAZARI_RENDEZVOUS";
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(join(host, port)),
        _ => Err(wrong(
            "MASTER_PORT",
            &env.text("MASTER_PORT").unwrap_or_default(),
            &format!("the processes would meet at port {port}, which does not exist"),
            too_high,
        )),
    }
}

fn open_mpi(_: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    let Some(rank) = env.number("OMPI_COMM_WORLD_RANK")? else { return Ok(None) };
    let world = env.needed("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")?;
    let local_rank = env.number("OMPI_COMM_WORLD_LOCAL_RANK")?.unwrap_or(0);
    let local_world = env.number("OMPI_COMM_WORLD_LOCAL_SIZE")?.unwrap_or(local_rank + 1);
    let job = env.first(&["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"]).map(|(_, id)| format!("mpirun-{id}"));
    Ok(Some(Found {
        source: Source::OpenMpi,
        rank: ("OMPI_COMM_WORLD_RANK", rank),
        world: ("OMPI_COMM_WORLD_SIZE", world),
        local_rank: ("OMPI_COMM_WORLD_LOCAL_RANK", local_rank),
        local_world: ("OMPI_COMM_WORLD_LOCAL_SIZE", local_world),
        run_id: job,
        restart: 0,
        rendezvous: on_one_host(
            world,
            local_world,
            "pass the address of rank 0: mpirun -x JAZARI_RENDEZVOUS=host:port",
        ),
    }))
}

fn pmi(_: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    let Some(rank) = env.number("PMI_RANK")? else { return Ok(None) };
    let world = env.needed("PMI_SIZE", "PMI_RANK")?;
    let local_rank = env.number("MPI_LOCALRANKID")?.unwrap_or(0);
    let local_world = env.number("MPI_LOCALNRANKS")?.unwrap_or(local_rank + 1);
    Ok(Some(Found {
        source: Source::Pmi,
        rank: ("PMI_RANK", rank),
        world: ("PMI_SIZE", world),
        local_rank: ("MPI_LOCALRANKID", local_rank),
        local_world: ("MPI_LOCALNRANKS", local_world),
        run_id: env.first(&["PMI_JOBID"]).map(|(_, id)| format!("mpi-{id}")),
        restart: 0,
        rendezvous: on_one_host(
            world,
            local_world,
            "pass the address of rank 0: mpiexec -env JAZARI_RENDEZVOUS host:port",
        ),
    }))
}

fn on_one_host(world: usize, local_world: usize, advice: &'static str) -> Rendezvous {
    if world == local_world { Rendezvous::Host("127.0.0.1".into()) } else { Rendezvous::Unknown(advice) }
}

fn slurm(_: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    // A batch script's own shell carries the job's variables as well: it is one process, whatever SLURM_NTASKS says.
    let step = env.text("SLURM_STEP_ID").and_then(|id| id.parse::<u64>().ok()).filter(|id| *id < LAST_SLURM_STEP);
    let (Some(step), Some(rank)) = (step, env.number("SLURM_PROCID")?) else { return Ok(None) };
    let world_name = if env.text("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
    let world = env.needed(world_name, "SLURM_PROCID")?;
    if world <= 1 {
        return Ok(None);
    }
    let Some((list_name, list)) = env.first(&["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"]) else {
        return Err(env.half_set("SLURM_PROCID", "SLURM_STEP_NODELIST", "start the processes with srun"));
    };
    let advice = "start the processes with srun, or set JAZARI_RENDEZVOUS to host:port of rank 0";
    let nodes = hosts::unfold(&list).map_err(|why| wrong(list_name, &list, &why, advice))?;
    let first = match nodes.as_slice() {
        [] | [_] => "127.0.0.1".to_owned(),
        [first, ..] => first.clone(),
    };
    let local_rank = env.needed("SLURM_LOCALID", "SLURM_PROCID")?;
    let (local_name, local_world) = slurm_local_world(env, world, nodes.len(), local_rank)?;
    let job = env.first(&["SLURM_JOB_ID", "SLURM_JOBID"]).map(|(_, id)| format!("slurm-{id}.{step}"));
    Ok(Some(Found {
        source: Source::Slurm,
        rank: ("SLURM_PROCID", rank),
        world: (world_name, world),
        local_rank: ("SLURM_LOCALID", local_rank),
        local_world: (local_name, local_world),
        run_id: job,
        restart: restart(env, "SLURM_RESTART_COUNT")?,
        rendezvous: Rendezvous::Host(first),
    }))
}

fn slurm_local_world(
    env: &Env<'_>,
    world: usize,
    nodes: usize,
    local_rank: usize,
) -> Result<(&'static str, usize), PlaceError> {
    let name = "SLURM_STEP_TASKS_PER_NODE";
    if let (Some(list), Some(node)) = (env.text(name), env.number("SLURM_NODEID")?) {
        let counts = hosts::unfold_counts(&list);
        let counts = counts.map_err(|why| wrong(name, &list, &why, "start the processes with srun"))?;
        if let Some(count) = counts.get(node) {
            return Ok((name, *count));
        }
    }
    Ok(("SLURM_NTASKS", world.div_ceil(nodes.max(1)).max(local_rank + 1)))
}

fn kubernetes(flags: &PlaceFlags, env: &Env<'_>) -> Result<Option<Found>, PlaceError> {
    let index = "JOB_COMPLETION_INDEX";
    let Some(rank) = env.number(index)? else { return Ok(None) };
    let world = match flags.world {
        Some(world) => ("--world-size", world),
        None => match (env.number("JAZARI_WORLD_SIZE")?, env.number("WORLD_SIZE")?) {
            (Some(world), _) => ("JAZARI_WORLD_SIZE", world),
            (None, Some(world)) => ("WORLD_SIZE", world),
            (None, None) => {
                let advice = "set it to the number of pods of the job, or to 1 when every pod trains for itself";
                return Err(env.half_set(index, "JAZARI_WORLD_SIZE", advice));
            }
        },
    };
    if world.1 == 1 {
        return Ok(None);
    }
    Ok(Some(Found {
        source: Source::Kubernetes,
        rank: (index, rank),
        world,
        local_rank: ("JAZARI_LOCAL_RANK", 0),
        local_world: ("JAZARI_LOCAL_WORLD_SIZE", 1),
        run_id: None,
        restart: 0,
        rendezvous: Rendezvous::Unknown("set it to the host name of the pod with index 0 and a port"),
    }))
}

fn restart(env: &Env<'_>, name: &str) -> Result<u32, PlaceError> {
    Ok(env.number(name)?.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)))
}

/// Checks the numbers against each other and completes the address and the run id.
fn settle(found: Found, flags: &PlaceFlags, env: &Env<'_>) -> Result<Place, PlaceError> {
    let (rank, world) = (found.rank, found.world);
    if world.1 == 0 || world.1 > MAX_WORLD {
        let why = format!("a run has 1 to {MAX_WORLD} processes");
        return Err(wrong(world.0, &world.1.to_string(), &why, "correct it"));
    }
    for (small, large) in [(rank, world), (found.local_rank, found.local_world)] {
        if small.1 >= large.1 {
            let advice = "ranks count from 0 and stay below the number of processes: correct the one that is wrong";
            return Err(contradiction(small, large, advice));
        }
    }
    if found.local_world.1 > world.1 {
        return Err(contradiction(found.local_world, world, "one host cannot hold more processes than there are"));
    }
    agree_on_world(&found, flags, env)?;
    if world.1 == 1 {
        return Ok(Place { source: found.source, restart: found.restart, ..Place::single() });
    }
    let run_id = flags.run_id.clone().or_else(|| env.text("JAZARI_RUN_ID")).or(found.run_id);
    let rendezvous = rendezvous(found.rendezvous, found.source, run_id.as_deref(), flags, env)?;
    Ok(Place {
        rank: rank.1,
        world: world.1,
        local_rank: found.local_rank.1,
        local_world: found.local_world.1,
        rendezvous,
        run_id: run_id.unwrap_or_else(|| "unnamed".into()),
        restart: found.restart,
        source: found.source,
    })
}

fn contradiction(one: (&str, usize), other: (&str, usize), advice: &str) -> PlaceError {
    let shown = |(name, value): (&str, usize)| format!("{name}={value}");
    PlaceError::Contradiction { one: shown(one), other: shown(other), advice: advice.into() }
}

/// A number of processes that the user states must be the launcher's.
fn agree_on_world(found: &Found, flags: &PlaceFlags, env: &Env<'_>) -> Result<(), PlaceError> {
    let stated = match flags.world {
        Some(world) => Some(("--world-size", world)),
        None => env.number("JAZARI_WORLD_SIZE")?.map(|world| ("JAZARI_WORLD_SIZE", world)),
    };
    match stated {
        Some(stated) if stated.1 != found.world.1 => {
            Err(contradiction(stated, found.world, "unset it, or start as many processes as it says"))
        }
        _ => Ok(()),
    }
}

fn rendezvous(
    said: Rendezvous,
    source: Source,
    run_id: Option<&str>,
    flags: &PlaceFlags,
    env: &Env<'_>,
) -> Result<String, PlaceError> {
    if let Some(address) = &flags.rendezvous {
        return checked("--rendezvous", address);
    }
    if let Some(address) = env.text("JAZARI_RENDEZVOUS") {
        return checked("JAZARI_RENDEZVOUS", &address);
    }
    if let Rendezvous::At(address) = said {
        return checked("MASTER_ADDR", &address);
    }
    // Under our own launcher only our own variables count: MASTER_* may be left from something else.
    let master = env.text("MASTER_ADDR").filter(|_| source != Source::Own);
    let host = match (master, said) {
        (Some(host), _) | (None, Rendezvous::Host(host)) => host,
        (None, Rendezvous::Unknown(advice)) => {
            let found = format!("a place among several processes (from {source})");
            return Err(PlaceError::HalfSet { found, missing: "JAZARI_RENDEZVOUS".into(), advice: advice.into() });
        }
        (None, Rendezvous::At(address)) => return checked("MASTER_ADDR", &address),
    };
    let port = match env.number("MASTER_PORT")?.filter(|_| source != Source::Own) {
        Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
            wrong("MASTER_PORT", &port.to_string(), "ports lie between 1 and 65535", "correct it or unset it")
        })?,
        None => derived_port(run_id.unwrap_or_default()),
    };
    checked("MASTER_ADDR", &join(&host, port))
}

/// The same port on every rank of a run, most likely another one for another run.
fn derived_port(run_id: &str) -> u16 {
    let [a, b, ..] = *blake3::hash(run_id.as_bytes()).as_bytes();
    let spread = DERIVED_PORTS.end - DERIVED_PORTS.start;
    DERIVED_PORTS.start + u16::from_le_bytes([a, b]) % spread
}

fn join(host: &str, port: u16) -> String {
    // An IPv6 address needs its brackets before a port.
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn checked(name: &str, address: &str) -> Result<String, PlaceError> {
    let advice = "write host:port, for example node001:23456 or [fd00::1]:23456";
    let refuse = |why: &str| Err(wrong(name, address, why, advice));
    let Some((host, port)) = address.rsplit_once(':') else { return refuse("there is no port") };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return refuse("there is no host");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return refuse("an IPv6 address stands in brackets");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(address.to_owned()),
        _ => refuse("the port is not a number between 1 and 65535"),
    }
}
