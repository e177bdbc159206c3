//! Owns what a shell and `man` know about the command line; never touches what commands do.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::failure::{Exit, Failure, note};

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// Which shell; for bash: `jazari completions bash > ~/.local/share/bash-completion/completions/jazari`
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Folder for a page of every command, `jazari-train.1` and the like; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn completions(arguments: &CompletionsArguments, command: &clap::Command) -> Result<Exit, Failure> {
    // Scripts would offer hidden commands too.
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set()).cloned();
    let mut command = clap::Command::new("jazari").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "jazari", &mut script);
    match std::io::stdout().lock().write_all(&script) {
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
        _ => Ok(Exit::Done),
    }
}

pub(super) fn man(arguments: &ManArguments, command: clap::Command) -> Result<Exit, Failure> {
    let out = &arguments.out;
    let refused = |error: std::io::Error| {
        let hint = "name a folder that can be written with --out";
        Failure::usage(format!("{}: cannot write the pages: {error}; {hint}", out.display()))
    };
    std::fs::create_dir_all(out).map_err(refused)?;
    clap_mangen::generate_to(command, out).map_err(refused)?;
    note(&format!("the pages are in {}; read one with `man {}`", out.display(), out.join("jazari.1").display()));
    Ok(Exit::Done)
}
