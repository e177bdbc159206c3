//! Owns `jazari data identify`: naming the language of rows, training a model of languages, judging one; never judges a
//! text itself.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Args;
use data_pipeline::filter::{self, AtomicFile, FilterError, Watch};
use data_pipeline::lid::evaluation::{self, LabelledText};
use data_pipeline::lid::file::{self, Provenance};
use data_pipeline::lid::lexicon::BUILT_IN;
use data_pipeline::lid::stage::{IdentifyStage, summary};
use data_pipeline::lid::train::{FitConfig, train};
use data_pipeline::lid::{Identifier, LidError};

use super::failure::{Exit, Failure, note, say};
use super::filter::{FilterArguments, filter, with_progress};
use crate::signals::StopFlag;

/// Share of the usual training sentences that a model for evaluation takes, as there is one for each source.
const EVALUATION_SCALE: f64 = 0.5;

#[derive(Debug, Args)]
pub(super) struct IdentifyArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// A model instead of the one in the program: made by --train, or a fastText .bin or .ftz (GlotLID, lid.176)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["train", "evaluate"])]
    model: Option<PathBuf>,
    /// Print a table of the labels found, and of what the rows said before
    #[arg(long)]
    summary: bool,
    /// Write the spans of every text, not only of mixed ones
    #[arg(long)]
    spans: bool,
    /// Train a model on the rows (fields text, lang, script, source) and write it to --out
    #[arg(long, conflicts_with_all = ["evaluate", "summary", "spans"])]
    train: bool,
    /// Judge every source by a model that never saw it and print the confusion table; nothing is written
    #[arg(long, conflicts_with_all = ["summary", "spans"])]
    evaluate: bool,
    /// A source that is not learned from, with --train or --evaluate; may stand several times
    #[arg(long, value_name = "SOURCE")]
    without: Vec<String>,
}

/// Runs the command.
pub(super) fn run(arguments: &IdentifyArguments) -> Result<Exit, Failure> {
    if arguments.train || arguments.evaluate {
        return learn(arguments);
    }
    if !arguments.without.is_empty() {
        return Err(Failure::usage("--without belongs to --train or --evaluate"));
    }
    let opened;
    let identifier = match &arguments.model {
        None => Identifier::embedded(),
        Some(path) => {
            opened = Identifier::open(path)?;
            &opened
        }
    };
    let stage = IdentifyStage::new(identifier, arguments.spans);
    let (exit, found) = filter(&arguments.rows, "identifying", &stage)?;
    if arguments.summary {
        note(&summary(&found.counts));
    }
    Ok(exit)
}

fn learn(arguments: &IdentifyArguments) -> Result<Exit, Failure> {
    let out = arguments.rows.out();
    if arguments.train && out == Path::new("-") {
        return Err(Failure::usage("a model is not text: name its file with --out FILE"));
    }
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let made = if arguments.train { Some(AtomicFile::create(out)?) } else { None };
    let texts = labelled(&arguments.rows, stop.as_atomic())?;
    let without: BTreeSet<String> = arguments.without.iter().cloned().collect();
    if let Some(unknown) = without.iter().find(|name| !texts.iter().any(|text| text.source == **name)) {
        return Err(Failure::usage(format!("--without {unknown}: no row has this source")));
    }
    let stopped = || Failure::failed("stopped; nothing was written");
    if arguments.evaluate {
        let observe = |source: &str| note(&format!("a model without {source}"));
        let fit = (&FitConfig::default(), EVALUATION_SCALE);
        let report = evaluation::by_source(&texts, &without, fit, &observe, stop.as_atomic())?.ok_or_else(stopped)?;
        say(&report.table());
        return Ok(Exit::Done);
    }
    let corpus = evaluation::corpus(&texts, &without);
    let models = train(&corpus, &FitConfig::default(), 1.0, stop.as_atomic())?.ok_or_else(stopped)?;
    let counted = |(label, source, count): &(&str, &str, usize)| ((*label).into(), (*source).into(), *count as u64);
    let provenance = Provenance { sources: corpus.counts().iter().map(counted).collect() };
    let bytes = file::write(BUILT_IN, &models, &provenance).map_err(Failure::failed)?;
    let written = |source| FilterError::Io { path: out.to_owned(), action: "written", source };
    let mut made = match made {
        Some(made) => made,
        None => AtomicFile::create(out)?,
    };
    made.write_all(&bytes).map_err(written)?;
    made.commit()?;
    note(&format!("{}: a model of {} bytes from {} texts", out.display(), bytes.len(), texts.len()));
    Ok(Exit::Done)
}

/// The rows as labelled texts.
fn labelled(rows: &FilterArguments, stop: &AtomicBool) -> Result<Vec<LabelledText>, Failure> {
    let inputs = rows.open()?;
    let mut texts = Vec::new();
    with_progress("reading", |observe| {
        let of_row = |row: &filter::Row<'_>, _: &mut filter::Counts| {
            let (label, source) = (row.label()?, row.source.to_owned());
            Some(LabelledText { text: row.text.to_owned(), label, source })
        };
        let mut keep = |text: Option<LabelledText>| {
            texts.extend(text);
            Ok(())
        };
        filter::read(&inputs, &rows.options(), &of_row, &mut keep, Watch { observe, stop })
    })?;
    Ok(texts)
}

impl From<LidError> for Failure {
    fn from(error: LidError) -> Self {
        Failure::usage(error)
    }
}
