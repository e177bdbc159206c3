//! Owns `jazari data transliterate`: arguments; never knows a letter.

use clap::{Args, ValueEnum};
use data_pipeline::transliterate::{Target, TransliterateStage};

use super::failure::{Exit, Failure};
use super::filter::{FilterArguments, filter};

/// Arguments of `data transliterate`.
#[derive(Debug, Args)]
pub(super) struct TransliterateArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// The script to write; rows that are not in the script it is made from pass through as they are
    #[arg(long, value_enum)]
    to: Script,
    /// Drop the rows that would pass through as they are
    #[arg(long)]
    only: bool,
}

/// Values of `--to`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Script {
    /// From Amazigh in Latin letters (rows labelled zgh, shi, tzm, rif, kab)
    Tifinagh,
    /// From Tifinagh, letter by letter
    Latin,
    /// From Arabizi (rows labelled ary, arq in Latin letters): a guess, for keys and augmentation only
    Arabic,
}

/// Runs `data transliterate`.
pub(super) fn run(arguments: &TransliterateArguments) -> Result<Exit, Failure> {
    let target = match arguments.to {
        Script::Tifinagh => Target::Tifinagh,
        Script::Latin => Target::Latin,
        Script::Arabic => Target::Arabic,
    };
    Ok(filter(&arguments.rows, "transliterating", &TransliterateStage::new(target, arguments.only))?.0)
}
