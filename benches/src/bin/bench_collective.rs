//! Owns timed all-reduces of the engines of collectives, printed as JSON lines; never touches models or peers.
//!
//! Started without a launcher it starts itself once for each rank; under one (JAZARI_RANK and friends, torchrun, mpirun)
//! it is one of the ranks. A repetition: refill the vector, barrier, then the clock runs on rank 0 for one all-reduce in
//! place; `compare_collectives.py` does the same with the peers.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::json;
use trainer::cluster::control::{Control, Members, Timing};
use trainer::cluster::engine::{Engine, Wish};
use trainer::cluster::place::{Place, PlaceFlags};
use trainer::cluster::rendezvous::{JoinOptions, Membership, Wire, join};
use trainer::cluster::token::Token;
use trainer::cluster::{Collective, Order};

/// What the vectors hold before each sum.
const VALUE: f32 = 0.125;

/// Times sums of vectors over several processes of this host.
#[derive(Parser)]
struct Options {
    /// Processes, where no launcher says how many.
    #[arg(long, default_value_t = 2)]
    world: usize,
    /// Sizes of the vectors in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 20, 16 << 20, 64 << 20])]
    bytes: Vec<usize>,
    /// Orders of addition.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["exact", "fast"])]
    order: Vec<OrderChoice>,
    /// What carries the data; without it, `mpi` under mpirun where this program has it, else `tcp`.
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Print the engines that this program has and end.
    #[arg(long)]
    engines: bool,
    /// How data travels with `tcp`; without it: plain on one host.
    #[arg(long, value_enum)]
    wire: Option<WireChoice>,
    /// Timed repetitions of each size.
    #[arg(long, default_value_t = 20)]
    reps: usize,
    /// Repetitions before the clock starts.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Append the lines to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderChoice {
    Exact,
    Fast,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineChoice {
    Tcp,
    Mpi,
}

impl From<EngineChoice> for Engine {
    fn from(choice: EngineChoice) -> Self {
        match choice {
            EngineChoice::Tcp => Self::Tcp,
            EngineChoice::Mpi => Self::Mpi,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WireChoice {
    Plain,
    Sealed,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if options.engines {
        let all = [Engine::Tcp, Engine::Mpi].into_iter().filter(|engine| engine.is_built());
        let names: Vec<String> = all.map(|engine| engine.to_string()).collect();
        return Ok(writeln!(std::io::stdout(), "{}", names.join(" "))?);
    }
    let place = Place::find(&PlaceFlags::default(), &|name| std::env::var(name).ok())?;
    if place.is_alone() && options.world > 1 {
        return start_ranks(options.world);
    }
    run(&options, &place)
}

/// This program once more for each rank, with the same arguments.
fn start_ranks(world: usize) -> Result<(), Box<dyn Error>> {
    let token = Secret(std::env::temp_dir().join(format!("jazari-bench-{}", std::process::id())));
    Token::generate(&token.0)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let program = std::env::current_exe()?;
    let mut ranks = Ranks(Vec::new());
    for rank in 0..world {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1));
        command.envs([("JAZARI_RANK", rank), ("JAZARI_LOCAL_RANK", rank)].map(|(k, v)| (k, v.to_string())));
        command.envs(["JAZARI_WORLD_SIZE", "JAZARI_LOCAL_WORLD_SIZE"].map(|k| (k, world.to_string())));
        command.env("JAZARI_RENDEZVOUS", format!("127.0.0.1:{port}")).env("JAZARI_TOKEN_FILE", &token.0);
        ranks.0.push(command.spawn()?);
    }
    for (rank, child) in ranks.0.iter_mut().enumerate() {
        let status = child.wait()?;
        if !status.success() {
            return Err(format!("rank {rank} failed: {status}").into());
        }
    }
    Ok(())
}

/// A token file that goes when it is not needed any more.
struct Secret(PathBuf);

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Processes that do not outlive this one's interest in them.
struct Ranks(Vec<Child>);

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill().and_then(|()| child.wait().map(drop));
        }
    }
}

fn run(options: &Options, place: &Place) -> Result<(), Box<dyn Error>> {
    let wish = Wish { engine: options.engine.map(Engine::from), ..Wish::default() };
    let engine = Engine::choose(wish, place, &|name| std::env::var(name).ok())?;
    let token = std::env::var_os("JAZARI_TOKEN_FILE").ok_or("JAZARI_TOKEN_FILE names no file")?;
    let token = Token::read(token.as_ref())?;
    let mesh = join(&JoinOptions {
        rank: place.rank,
        world: place.world,
        host: "bench".into(),
        rendezvous: place.rendezvous.clone(),
        bind: None,
        token: &token,
        wire: options.wire.map(|w| if w == WireChoice::Plain { Wire::Plain } else { Wire::Sealed }),
        deadline: Duration::from_secs(60),
        members: &Membership { run_id: place.run_id.clone(), ..Membership::default() },
        on_refused: &|_| {},
        keep_waiting: &|| Ok(()),
    })?;
    let wire = if engine == Engine::Tcp { mesh.wire.name() } else { "none" };
    let members = Members { rank: mesh.rank, hosts: mesh.hosts, pids: mesh.pids };
    let on_fatal = Box::new(|error: &_| {
        let _ = writeln!(std::io::stderr(), "{error}");
        std::process::abort();
    });
    let control = Control::start(members, mesh.control, Timing::default(), on_fatal)?;
    let mut collective = engine.start(mesh.data, Arc::clone(&control))?;
    for &order in &options.order {
        for &bytes in &options.bytes {
            let seconds = time(collective.as_mut(), options, order, bytes)?;
            if place.rank == 0 {
                report(options, collective.as_ref(), wire, order, bytes, &seconds)?;
            }
        }
    }
    drop(collective);
    control.leave();
    Ok(())
}

/// Seconds of each repetition, sorted.
fn time(
    collective: &mut dyn Collective,
    options: &Options,
    order: OrderChoice,
    bytes: usize,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let order = if order == OrderChoice::Exact { Order::Exact } else { Order::Fast };
    let mut values = vec![VALUE; bytes / size_of::<f32>()];
    let mut seconds = Vec::with_capacity(options.reps);
    for rep in 0..options.warmup + options.reps.max(1) {
        values.fill(VALUE);
        collective.barrier()?;
        let start = Instant::now();
        collective.all_reduce(&mut values, order)?;
        if rep >= options.warmup {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    // Sums of a power of two are exact in any order.
    let expected = VALUE * collective.world() as f32;
    if let Some(wrong) = values.iter().position(|&value| value != expected) {
        return Err(format!("element {wrong} is {:?}, not {expected}", values.get(wrong)).into());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

fn report(
    options: &Options,
    collective: &dyn Collective,
    wire: &str,
    order: OrderChoice,
    bytes: usize,
    seconds: &[f64],
) -> Result<(), Box<dyn Error>> {
    let at = |index: usize| seconds.get(index).copied().unwrap_or(f64::NAN);
    let median = (at((seconds.len() - 1) / 2) + at(seconds.len() / 2)) / 2.0;
    let line = json!({
        "impl": "jazari",
        "version": env!("CARGO_PKG_VERSION"),
        "engine": collective.name(),
        "order": if order == OrderChoice::Exact { "exact" } else { "fast" },
        "wire": wire,
        "world": collective.world(),
        "bytes": bytes,
        "reps": seconds.len(),
        "median_s": median,
        "best_s": at(0),
        "gb_per_s": bytes as f64 / median / 1e9,
    });
    writeln!(std::io::stdout(), "{line}")?;
    if let Some(path) = &options.json {
        writeln!(OpenOptions::new().create(true).append(true).open(path)?, "{line}")?;
    }
    Ok(())
}
