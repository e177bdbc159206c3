//! Owns what a shell, `man` and an auditor know about the program; never touches what commands do.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::failure::{Exit, Failure, note};
use crate::certificate::program;

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
    print(&script)
}

/// Prints the bill of materials.
pub(super) fn sbom() -> Result<Exit, Failure> {
    print(format!("{:#}\n", program::bill_of_materials()).as_bytes())
}

fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    match std::io::stdout().lock().write_all(bytes) {
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
