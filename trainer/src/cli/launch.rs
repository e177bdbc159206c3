//! Owns `jazari launch`: arguments, printing, the exit code; never touches the processes themselves.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser};

use super::failure::{Exit, Failure, note, say};
use super::replay;
use crate::checkpoint;
use crate::cluster::token::Token;
use crate::launch::{self, Launch, LaunchError, LineSink, Patience, PrivateToken, Stream, Supervisor};
use crate::session;

#[derive(Debug, Args)]
pub(super) struct LaunchArguments {
    /// Processes on this host: usually one for each GPU
    #[arg(long, value_name = "N")]
    nproc: usize,
    /// Hosts of the run, each with the same number of processes
    #[arg(long, default_value_t = 1, value_name = "M")]
    nnodes: usize,
    /// This host among them, from 0; needed with more than one
    #[arg(long, value_name = "R")]
    node_rank: Option<usize>,
    /// Where rank 0 listens, the same on every host; default with one host: a free port of 127.0.0.1
    #[arg(long, value_name = "HOST:PORT")]
    rendezvous: Option<String>,
    /// Restarts without a new checkpoint in between before giving up; 0 never restarts
    #[arg(long, default_value_t = 3, value_name = "K")]
    max_restarts: u32,
    /// File with the secret that the processes share (mode 0600); default with one host: a fresh one
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Name of the run, the same on every host; default: the scheduler's job, else made up
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Seconds that the other processes have to leave by themselves when one has failed
    #[arg(long, default_value_t = Patience::default().grace.as_secs(), value_name = "SECONDS")]
    grace: u64,
    /// What every process does: `-- train CONFIG ...` or `-- replay CERTIFICATE ...`
    #[arg(last = true, required = true, value_name = "train CONFIG")]
    command: Vec<OsString>,
}

/// Starts, watches and restarts the processes of a run on this host.
pub(super) fn launch(arguments: LaunchArguments) -> Result<Exit, Failure> {
    let name = OsString::from("jazari");
    // A mistake in the config is shown once, here, instead of by every process.
    let run = match super::Arguments::try_parse_from(std::iter::once(&name).chain(&arguments.command)) {
        Ok(super::Arguments { command: super::Command::Train(train) }) => {
            session::resolve(&train.config.config, &train.config.set)?.plan.output_dir
        }
        Ok(super::Arguments { command: super::Command::Replay(again) }) => replay::prepare(&again)?,
        Ok(_) => {
            let why = "launch starts runs only; write `jazari launch ... -- train CONFIG` or `-- replay CERTIFICATE`";
            return Err(Failure::usage(why));
        }
        Err(error) => {
            let _ = error.print();
            return Ok(if error.use_stderr() { Exit::Usage } else { Exit::Done });
        }
    };
    let checkpoints = run.join("checkpoints");
    let (token, _private) = token(&arguments)?;
    let launch = describe(arguments, token)?;
    launch.check().map_err(Failure::from)?;
    let supervisor = Supervisor::new(launch, sink());
    launch::pass_signals_on(supervisor.bell()).map_err(Failure::from)?;
    let newest_step = || checkpoint::store::list(&checkpoints).ok()?.first().map(|(step, _)| *step);
    let code = supervisor.run(&newest_step, &mut |event| note(&format!("launch: {event}"))).map_err(Failure::from)?;
    Ok(match code {
        0 => Exit::Done,
        2 => Exit::Usage,
        3 => Exit::Missed,
        75 => Exit::PeerLost,
        _ => Exit::Failed,
    })
}

/// The token file, and its owner when it was made here.
fn token(arguments: &LaunchArguments) -> Result<(PathBuf, Option<PrivateToken>), Failure> {
    match &arguments.token {
        Some(path) => {
            // Every process reads it again; a mistake is shown once, here.
            Token::read(path).map_err(Failure::usage)?;
            Ok((path.clone(), None))
        }
        None if arguments.nnodes > 1 => Err(Failure::usage(format!(
            "--nnodes {} needs --token; make a secret with `(umask 077; head -c 32 /dev/urandom | base64 > token)` and \
             give every host the same file",
            arguments.nnodes
        ))),
        None => {
            let private = PrivateToken::create(&std::env::temp_dir()).map_err(Failure::from)?;
            Ok((private.path().to_owned(), Some(private)))
        }
    }
}

fn describe(arguments: LaunchArguments, token: PathBuf) -> Result<Launch, Failure> {
    let node_rank = match arguments.node_rank {
        Some(rank) => rank,
        None if arguments.nnodes <= 1 => 0,
        None => {
            let why = format!("--nnodes {} needs --node-rank; number the hosts from 0", arguments.nnodes);
            return Err(Failure::usage(why));
        }
    };
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let run_id = run_id(&arguments)?;
    Ok(Launch {
        program,
        environment: threads(arguments.nproc),
        arguments: arguments.command,
        nproc: arguments.nproc,
        nnodes: arguments.nnodes,
        node_rank,
        rendezvous: arguments.rendezvous,
        run_id,
        token: absolute(&token),
        max_restarts: arguments.max_restarts,
        patience: Patience { grace: Duration::from_secs(arguments.grace), ..Patience::default() },
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Several hosts must agree on the name without talking: from the scheduler, else from the port they meet at.
fn run_id(arguments: &LaunchArguments) -> Result<String, Failure> {
    if let Some(id) = arguments.run_id.clone().or_else(|| variable("JAZARI_RUN_ID")) {
        return Ok(id);
    }
    if let Some(job) = variable("SLURM_JOB_ID") {
        return Ok(format!("slurm-{job}"));
    }
    if arguments.nnodes == 1 {
        return launch::random_name().map_err(Failure::from);
    }
    let port = arguments.rendezvous.as_deref().and_then(|at| at.rsplit_once(':')).map_or("", |(_, port)| port);
    Ok(format!("launch-{port}"))
}

/// The processes of a host share its cores, unless the user has divided them already.
fn threads(nproc: usize) -> Vec<(OsString, OsString)> {
    let name = "RAYON_NUM_THREADS";
    if variable(name).is_some() {
        return Vec::new();
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![(name.into(), (cores / nproc.max(1)).max(1).to_string().into())]
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn sink() -> LineSink {
    Arc::new(|stream, line: &str| match stream {
        Stream::Output => say(line),
        Stream::Error => {
            // One write for the whole line: standard error has no buffer, and other programs may share it.
            let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        }
    })
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Usage { .. } | LaunchError::Token(_) => Self::usage(error),
            LaunchError::System { .. } | LaunchError::Unkillable { .. } => Self::failed(error),
        }
    }
}
