//! Owns what the commands have in common that run one stage over rows (`data normalize`, `identify`, `scrub`, `dedup`):
//! arguments, progress, where the rows go, the summary; never knows what a stage does.
//!
//! A command adds [`FilterArguments`] with `#[command(flatten)]`, makes its stage and calls [`filter`].

use std::cell::{Cell, RefCell};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use data_pipeline::config::{Format, Limits, OnDamage, SourceConfig, Unit};
use data_pipeline::filter::{self, AtomicFile, FilterError, Inputs, Options, Progress, Stage, Summary, Watch};

use super::failure::{Exit, Failure, note};
use super::progress::{StageProgress, thousands};
use crate::signals::StopFlag;

/// Where rows come from and where they go.
#[derive(Debug, Args)]
pub(super) struct FilterArguments {
    /// Files, folders or globs in any format that `data prepare` reads; `-` is standard input
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<String>,
    /// The file to write, JSONL; compressed when its name ends in .gz or .zst; `-` is standard output. It gets its name
    /// when it is whole, and then replaces a file that has the name already; it must be no input
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    out: PathBuf,
    /// Format of the inputs, when their names do not tell it
    #[arg(long, value_enum, default_value_t = InputFormat::Auto)]
    format: InputFormat,
    /// Name of the field that holds the text; a dot reaches into an object
    #[arg(long, value_name = "FIELD")]
    text_field: Option<String>,
    /// Name of the field that holds the language
    #[arg(long, value_name = "FIELD")]
    lang_field: Option<String>,
    /// Language of rows that name none, such as ary_Arab
    #[arg(long, value_name = "LABEL")]
    lang: Option<String>,
    /// What one row of a text file is
    #[arg(long, value_enum, default_value_t = TextUnit::Paragraph)]
    unit: TextUnit,
    /// Read damaged files up to their damage instead of stopping
    #[arg(long)]
    keep_damaged: bool,
}

/// Formats of `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum InputFormat {
    Auto,
    Jsonl,
    Csv,
    Tsv,
    Text,
    Parquet,
}

/// Units of `--unit`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TextUnit {
    Line,
    Paragraph,
    File,
}

impl FilterArguments {
    /// The sources that the arguments describe.
    pub(super) fn sources(&self) -> Vec<SourceConfig> {
        let source = |path: &String| {
            let mut source = SourceConfig::at(path.clone());
            source.format = match self.format {
                InputFormat::Auto => Format::Auto,
                InputFormat::Jsonl => Format::Jsonl,
                InputFormat::Csv => Format::Csv,
                InputFormat::Tsv => Format::Tsv,
                InputFormat::Text => Format::Text,
                InputFormat::Parquet => Format::Parquet,
            };
            source.fields.text = self.text_field.clone();
            source.fields.lang = self.lang_field.clone();
            source.lang = self.lang.clone();
            source.unit = Some(match self.unit {
                TextUnit::Line => Unit::Line,
                TextUnit::Paragraph => Unit::Paragraph,
                TextUnit::File => Unit::File,
            });
            source
        };
        self.inputs.iter().map(source).collect()
    }

    /// The input files.
    pub(super) fn open(&self) -> Result<Inputs, Failure> {
        if self.inputs.len() > 1 && self.inputs.iter().any(|path| path == filter::STANDARD_INPUT) {
            return Err(Failure::usage(
                "`-` (standard input) cannot be read together with files; name one or the other",
            ));
        }
        let inputs = Inputs::open(&self.sources())?;
        self.refuse_input("--out", &self.out, &inputs)?;
        Ok(inputs)
    }

    /// Opens another file that a command writes beside `--out`, before anything is read.
    pub(super) fn side_file(&self, option: &str, path: &Path, inputs: &Inputs) -> Result<AtomicFile, Failure> {
        self.refuse_input(option, path, inputs)?;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !self.to_standard_output() && absolute(path) == absolute(&self.out) {
            return Err(Failure::usage(format!("{option} {}: is the file of --out; name another one", path.display())));
        }
        Ok(AtomicFile::create(path)?)
    }

    /// An input that is replaced by what is made of it could not be read again.
    fn refuse_input(&self, option: &str, path: &Path, inputs: &Inputs) -> Result<(), Failure> {
        if path != Path::new("-") && inputs.hold(path) {
            let name = path.display();
            return Err(Failure::usage(format!("{option} {name}: is one of the inputs; name another file")));
        }
        Ok(())
    }

    /// How to read them.
    pub(super) fn options(&self) -> Options {
        let on_damage = if self.keep_damaged { OnDamage::Quarantine } else { OnDamage::Error };
        Options { limits: Limits::default(), on_damage }
    }

    /// The file to write.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// Whether rows go to standard output.
    pub(super) fn to_standard_output(&self) -> bool {
        self.out == Path::new("-")
    }
}

/// Runs `stage` over the rows; `name` says on the terminal what is done. Prints what was read, kept, dropped and broken
/// to standard error.
pub(super) fn filter(arguments: &FilterArguments, name: &str, stage: &dyn Stage) -> Result<(Exit, Summary), Failure> {
    let inputs = arguments.open()?;
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let options = arguments.options();
    let summary = with_progress(name, |observe| {
        let watch = Watch { observe, stop: stop.as_atomic() };
        if arguments.to_standard_output() {
            let mut out = BufWriter::new(std::io::stdout().lock());
            return filter::run(&inputs, &options, stage, (&mut out, Path::new("standard output")), watch);
        }
        let mut out = AtomicFile::create(&arguments.out)?;
        let summary = filter::run(&inputs, &options, stage, (&mut out, &arguments.out), watch)?;
        out.commit()?;
        Ok(summary)
    });
    let summary = match summary {
        Err(FilterError::Io { source, .. }) if closed_pipe(arguments, &source) => {
            return Ok((Exit::Done, Summary::default()));
        }
        other => other?,
    };
    report(&summary);
    Ok((Exit::Done, summary))
}

/// `--dropped` cannot go with an input that is read once.
pub(super) fn refuse_dropped(path: Option<&Path>, inputs: &Inputs) -> Result<(), Failure> {
    if path.is_some() && inputs.is_standard_input() {
        return Err(Failure::usage("--dropped reads the inputs twice, and `-` can be read once; name a file"));
    }
    Ok(())
}

/// Reads the inputs again and writes to `path` what `stage` hands on: the rows that were dropped, with their reason.
pub(super) fn write_dropped(
    arguments: &FilterArguments,
    inputs: &Inputs,
    stage: &dyn Stage,
    path: &Path,
) -> Result<(), Failure> {
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let summary = with_progress("writing dropped rows", |observe| {
        let watch = Watch { observe, stop: stop.as_atomic() };
        let mut out = AtomicFile::create(path)?;
        let summary = filter::run(inputs, &arguments.options(), stage, (&mut out, path), watch)?;
        out.commit()?;
        Ok::<_, FilterError>(summary)
    })?;
    report(&summary);
    Ok(())
}

/// `| head` has read enough.
pub(super) fn closed_pipe(arguments: &FilterArguments, error: &std::io::Error) -> bool {
    arguments.to_standard_output() && error.kind() == std::io::ErrorKind::BrokenPipe
}

/// Runs `work` with a progress bar on standard error.
pub(super) fn with_progress<T>(name: &str, work: impl FnOnce(&dyn Fn(Progress)) -> T) -> T {
    let progress = RefCell::new(StageProgress::new());
    let started = Cell::new(false);
    let observe = |at: Progress| {
        let mut progress = progress.borrow_mut();
        if !started.replace(true) {
            progress.stage(name, (at.total_bytes > 0).then_some(at.total_bytes));
        }
        progress.at(at.bytes, &format!("{} rows", thousands(at.rows as f64)));
    };
    let result = work(&observe);
    progress.borrow_mut().end();
    result
}

/// Prints the figures of a run to standard error.
pub(super) fn report(summary: &Summary) {
    let dropped: u64 = summary.dropped.0.values().sum();
    let broken: u64 = summary.broken.0.values().sum();
    note(&format!(
        "{} rows of {} files: {} kept ({} with another text), {dropped} dropped, {broken} not usable",
        summary.rows, summary.files, summary.kept, summary.changed
    ));
    for (title, counts) in
        [("dropped", &summary.dropped), ("not usable", &summary.broken), ("counted", &summary.counts)]
    {
        for (name, count) in &counts.0 {
            note(&format!("  {title:<10} {count:>12}  {name}"));
        }
    }
    for damage in &summary.damaged {
        note(&format!("warning: {damage}; its whole rows were kept"));
    }
}

impl From<FilterError> for Failure {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Io { .. } | FilterError::Stopped => Self::failed(error),
            other => Self::usage(other),
        }
    }
}

/// Checks that the folder `out`, which may not exist yet, can be made, before long work is done for it.
pub(super) fn refuse_unwritable(out: &Path) -> Result<(), Failure> {
    let absolute = std::path::absolute(out).map_err(Failure::usage)?;
    let above = absolute.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let probe = above.join(absolute.file_name().unwrap_or_default());
    AtomicFile::create(&probe).map(drop).map_err(|error| match error {
        FilterError::Out { source, .. } => FilterError::Out { path: out.to_owned(), source }.into(),
        other => other.into(),
    })
}
