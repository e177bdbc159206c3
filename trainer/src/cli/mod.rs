//! Owns the command line: arguments, printing, progress and exit codes; never touches the work itself.
//!
//! This is the only module that prints. Results go to standard output, everything else to standard error.

mod adapter;
mod bundle;
mod certify;
mod clean;
mod codes;
mod data;
mod dedup;
mod eval;
mod export;
mod extend;
mod failure;
mod filter;
mod formats;
mod generate;
mod governance;
mod identify;
mod init;
mod launch;
mod mixing;
mod normalize;
mod outer;
mod plan;
mod progress;
mod replay;
mod runs;
mod scrub;
mod selftest;
mod shell;
mod tokenizer;
mod tokenizer_eval;
mod trace;
mod train;
mod transliterate;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use failure::{Exit, Failure};

/// Trains, fine-tunes and exports language models for Morocco.
#[derive(Debug, Parser)]
#[command(name = "jazari", version, about, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prepare corpora and look into prepared data sets
    #[command(subcommand)]
    Data(data::Command),
    /// Train and evaluate tokenizers
    #[command(subcommand)]
    Tokenizer(tokenizer::Command),
    /// Write the configurations of a new model: asks, or takes flags
    Init(init::InitArguments),
    /// Check a training config without touching a device
    Validate(ConfigArguments),
    /// Bring a training config to this version: other tools' names become ours, comments stay
    Migrate(plan::MigrateArguments),
    /// Show what a training run will do: parameters, tokens, FLOPs, memory, disk
    Plan(plan::PlanArguments),
    /// Print the JSON schema of a config, for editors
    Schema(plan::SchemaArguments),
    /// Train a model
    Train(train::TrainArguments),
    /// Train on several processes: start, watch and restart them
    Launch(launch::LaunchArguments),
    /// Train at several sites that are joined by slow links
    #[command(subcommand)]
    Outer(outer::Command),
    /// Turn a model into a Hugging Face directory or a GGUF file, reopen it and compare
    Export(export::ExportArguments),
    /// Evaluate a model: bits per byte by language, multiple choice, samples
    Eval(eval::EvalArguments),
    /// Generate text from an exported model
    Generate(generate::GenerateArguments),
    /// Check a checkpoint, an export, a data set or a certificate: digests, shapes, finiteness, signatures
    Verify(export::VerifyArguments),
    /// Sign what a run is and did: configuration, data, every digest on the way, the files it left
    Certify(certify::CertifyArguments),
    /// Repeat a certified run and say, step by step, whether it computes the same
    Replay(replay::ReplayArguments),
    /// Make and name the keys that certificates are signed with
    #[command(subcommand)]
    Key(certify::KeyCommand),
    /// Pack what a site without a network needs into one signed file; check it, unpack it
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Compare this program with a PyTorch reference bundle
    Parity(export::ParityArguments),
    /// List runs side by side, and what tells their configurations apart
    Runs(runs::RunsArguments),
    /// Watch a run on the terminal: curves, languages, events
    Watch(watch::WatchArguments),
    /// Show what a run did
    Inspect(train::InspectArguments),
    /// Check this machine in a few minutes: kernels, disk, collectives, invariance, resume, export, GPUs
    Selftest(selftest::SelftestArguments),
    /// Say what the code of an error means and what to do: `jazari explain J0103`
    Explain(codes::ExplainArguments),
    /// Print what a shell needs to complete commands and options
    Completions(shell::CompletionsArguments),
    /// Print the bill of materials: every crate that this program may be built of (CycloneDX)
    Sbom,
    /// Write the manual pages
    Man(shell::ManArguments),
    /// One process of the self-test's collectives
    #[command(hide = true)]
    SelftestRank,
}

/// A config file and changes to it.
#[derive(Debug, Args)]
struct ConfigArguments {
    /// Training config (YAML)
    config: PathBuf,
    /// Change a value: `--set learning_rate=1e-3 --set model.size=10m`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the program and turns its end into an exit code.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(failure::report_panic));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap prints help to standard output with code 0 and mistakes to standard error with code 2.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return code.into();
        }
    };
    match std::panic::catch_unwind(|| run(arguments.command)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.report().into(),
        Err(_) => Exit::Failed.into(),
    }
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Data(command) => data::run(command),
        Command::Tokenizer(command) => tokenizer::run(command),
        Command::Init(arguments) => init::init(&arguments),
        Command::Runs(arguments) => runs::runs(&arguments),
        Command::Validate(arguments) => plan::validate(&arguments),
        Command::Migrate(arguments) => plan::migrate(&arguments),
        Command::Plan(arguments) => plan::plan(&arguments),
        Command::Schema(arguments) => plan::schema(&arguments),
        Command::Train(arguments) => train::train(&arguments),
        Command::Launch(arguments) => launch::launch(arguments),
        Command::Outer(command) => outer::run(command),
        Command::Export(arguments) => export::export(&arguments),
        Command::Eval(arguments) => eval::eval(&arguments),
        Command::Generate(arguments) => generate::generate(&arguments),
        Command::Verify(arguments) => export::verify(&arguments),
        Command::Certify(arguments) => certify::certify(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Key(command) => certify::key(&command),
        Command::Bundle(command) => bundle::run(&command),
        Command::Parity(arguments) => export::parity(&arguments),
        Command::Watch(arguments) => watch::watch(&arguments),
        Command::Inspect(arguments) => train::inspect(&arguments),
        Command::Explain(arguments) => codes::explain(&arguments),
        Command::Selftest(arguments) => selftest::selftest(&arguments),
        Command::Completions(arguments) => shell::completions(&arguments, &Arguments::command()),
        Command::Sbom => shell::sbom(),
        Command::Man(arguments) => shell::man(&arguments, Arguments::command()),
        Command::SelftestRank => selftest::rank(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
