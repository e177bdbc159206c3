//! Owns `jazari data dedup` and `jazari data decontaminate`: arguments, where scratch files and lists go, summaries;
//! never compares texts itself.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use data_pipeline::config::{ConfigError, Format};
use data_pipeline::decontaminate::{Benchmarks, DecontaminateConfig, OnHit, rows as hits};
use data_pipeline::filter::{AtomicFile, FilterError, Inputs, Summary, Watch};
use data_pipeline::near::paragraphs::ParagraphUnit;
use data_pipeline::near::rows::{self, DedupPlan, DedupReport, DedupWatch};
use data_pipeline::near::{Keep, NearConfig, ParagraphConfig};

use super::failure::{Exit, Failure, note};
use super::filter::{FilterArguments, closed_pipe, report, with_progress};
use crate::signals::StopFlag;

/// Arguments of `data dedup`.
#[derive(Debug, Args)]
pub(super) struct DedupArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// Find rows of a language that are the same but for spelling (as `data prepare` does); with --near this is the
    /// default
    #[arg(long)]
    exact: bool,
    /// Remove paragraphs that repeat over the rows
    #[arg(long)]
    paragraphs: bool,
    /// Find near duplicates (MinHash, then exact similarity)
    #[arg(long)]
    near: bool,
    /// Leave duplicates out instead of adding `duplicate_of` to them
    #[arg(long)]
    drop: bool,
    /// Write the clusters here, one JSON object a line
    #[arg(long, value_name = "FILE")]
    clusters: Option<PathBuf>,
    /// Least similarity (Jaccard, of shingles) of near duplicates
    #[arg(long, default_value_t = NearConfig::default().threshold, value_name = "SHARE")]
    threshold: f64,
    /// Words of a shingle
    #[arg(long, default_value_t = NearConfig::default().ngram, value_name = "N")]
    ngram: usize,
    /// Bands of a MinHash signature
    #[arg(long, default_value_t = NearConfig::default().bands, value_name = "N")]
    bands: usize,
    /// Hash functions of a band
    #[arg(long, default_value_t = NearConfig::default().rows, value_name = "N")]
    rows_per_band: usize,
    /// Take candidates as near duplicates without computing their similarity
    #[arg(long)]
    no_verify: bool,
    /// Read every number as 0
    #[arg(long)]
    fold_numbers: bool,
    /// Take texts of different languages as different, also when they are the same
    #[arg(long)]
    per_language: bool,
    /// Which row of a cluster of near duplicates stays
    #[arg(long, value_enum, default_value_t = KeepWhich::First)]
    keep: KeepWhich,
    /// What a paragraph is
    #[arg(long, value_enum, default_value_t = Unit::Line)]
    paragraph_unit: Unit,
    /// Paragraphs with fewer characters stay
    #[arg(long, default_value_t = ParagraphConfig::default().min_chars, value_name = "N")]
    min_chars: usize,
    /// Paragraphs that occur at least this often are removed but for the first
    #[arg(long, default_value_t = ParagraphConfig::default().min_count, value_name = "N")]
    min_count: u32,
    /// Memory for keys in MiB; what goes beyond is sorted on disk
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    memory: usize,
    /// Folder for scratch files [default: that of the output]
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

/// Values of `--keep`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeepWhich {
    First,
    Longest,
}

/// Values of `--paragraph-unit`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    Line,
    Paragraph,
}

/// Arguments of `data decontaminate`.
#[derive(Debug, Args)]
pub(super) struct DecontaminateArguments {
    #[command(flatten)]
    rows: FilterArguments,
    /// Folder of the benchmarks (JSONL, JSON, CSV, TSV, Parquet, text)
    #[arg(long, value_name = "FOLDER")]
    against: PathBuf,
    /// Write what was found here, one JSON object a hit
    #[arg(long, value_name = "FILE")]
    hits: PathBuf,
    /// Words in a row that hit in languages of long texts
    #[arg(long, default_value_t = 13, value_name = "N")]
    ngram: usize,
    /// Words in a row that hit in Darija, Amazigh and unlabelled texts
    #[arg(long, default_value_t = 8, value_name = "N")]
    short_ngram: usize,
    /// Share of an item that a row must hold to be dropped; below, the hit is only listed
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    coverage: f64,
    /// List hits and drop nothing
    #[arg(long)]
    report_only: bool,
    /// A benchmark that must be in the folder; may be given several times
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
}

impl DedupArguments {
    fn plan(&self) -> Result<DedupPlan, Failure> {
        let all = !(self.exact || self.paragraphs || self.near);
        // Parts that are at work at the same time share the memory.
        let parts = usize::from(self.exact || all) + usize::from(self.paragraphs) + usize::from(self.near || all);
        let memory_mib = (self.memory / parts.max(1)).max(1);
        let near = NearConfig {
            ngram: self.ngram,
            bands: self.bands,
            rows: self.rows_per_band,
            threshold: self.threshold,
            verify: !self.no_verify,
            keep: match self.keep {
                KeepWhich::First => Keep::First,
                KeepWhich::Longest => Keep::Longest,
            },
            fold_numbers: self.fold_numbers,
            per_language: self.per_language,
            memory_mib,
            ..NearConfig::default()
        };
        let paragraphs = ParagraphConfig {
            unit: match self.paragraph_unit {
                Unit::Line => ParagraphUnit::Line,
                Unit::Paragraph => ParagraphUnit::Paragraph,
            },
            min_chars: self.min_chars,
            min_count: self.min_count,
            memory_mib,
            ..ParagraphConfig::default()
        };
        let mut problems = Vec::new();
        near.check("near", &mut problems);
        paragraphs.check("paragraphs", &mut problems);
        if !problems.is_empty() {
            return Err(Failure::usage(ConfigError { problems }));
        }
        Ok(DedupPlan {
            exact: self.exact || all,
            paragraphs: self.paragraphs.then_some(paragraphs),
            near: (self.near || all).then_some(near),
            leave_out: self.drop,
            memory_mib,
            names: Vec::new(),
        })
    }

    fn scratch_folder(&self) -> PathBuf {
        match &self.scratch {
            Some(folder) => folder.clone(),
            None if self.rows.to_standard_output() => std::env::temp_dir(),
            None => folder_of(self.rows.out()),
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Finds duplicates.
pub(super) fn dedup(arguments: &DedupArguments) -> Result<Exit, Failure> {
    let mut plan = arguments.plan()?;
    let scratch = arguments.scratch_folder();
    if !scratch.is_dir() {
        return Err(Failure::usage(format!(
            "{}: no such folder for the output or for scratch files; create it, or name another with --scratch",
            scratch.display()
        )));
    }
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let mut inputs = arguments.rows.open()?;
    if let Some(path) = &arguments.clusters {
        drop(arguments.rows.side_file("--clusters", path, &inputs)?);
    }
    let copy =
        if inputs.is_standard_input() && !plan.is_one_reading() { Some(InputCopy::take(&scratch)?) } else { None };
    if let Some(copy) = &copy {
        let mut sources = arguments.rows.sources();
        for source in &mut sources {
            source.path = copy.path.display().to_string();
            if source.format == Format::Auto {
                source.format = Format::Jsonl;
            }
        }
        inputs = Inputs::open(&sources)?;
        plan.names = vec!["-".to_owned()];
    }
    let result = with_progress("looking for duplicates", |observe| {
        let watch = Watch { observe, stop: stop.as_atomic() };
        write_rows(arguments, &inputs, &plan, &DedupWatch { watch, phase: &|_| (), scratch: &scratch })
    });
    let (summary, found) = match result {
        Err(FilterError::Io { source, .. }) if closed_pipe(&arguments.rows, &source) => return Ok(Exit::Done),
        other => other?,
    };
    report(&summary);
    say_found(&found);
    Ok(Exit::Done)
}

fn write_rows(
    arguments: &DedupArguments,
    inputs: &Inputs,
    plan: &DedupPlan,
    watch: &DedupWatch<'_>,
) -> Result<(Summary, DedupReport), FilterError> {
    let options = arguments.rows.options();
    let mut list = arguments.clusters.as_deref().map(AtomicFile::create).transpose()?;
    let clusters = match (&mut list, &arguments.clusters) {
        (Some(file), Some(path)) => Some((file as &mut dyn Write, path.as_path())),
        _ => None,
    };
    let result = if arguments.rows.to_standard_output() {
        let mut out = BufWriter::new(std::io::stdout().lock());
        rows::dedup((inputs, &options), plan, (&mut out, Path::new("standard output")), clusters, watch)?
    } else {
        let mut out = AtomicFile::create(arguments.rows.out())?;
        let result = rows::dedup((inputs, &options), plan, (&mut out, arguments.rows.out()), clusters, watch)?;
        out.commit()?;
        result
    };
    if let Some(list) = list {
        list.commit()?;
    }
    Ok(result)
}

fn say_found(found: &DedupReport) {
    note(&format!("{} exact duplicates, {} near duplicates", found.exact, found.near));
    if found.paragraphs > 0 {
        note(&format!(
            "{} paragraphs removed ({} different ones), {} rows held nothing else",
            found.paragraphs, found.distinct_paragraphs, found.emptied
        ));
    }
    let count: u64 = found.clusters.values().sum();
    if let Some((largest, _)) = found.clusters.last_key_value() {
        let sizes: Vec<String> =
            found.clusters.iter().take(8).map(|(size, count)| format!("{count} of {size}")).collect();
        let more = if found.clusters.len() > 8 { ", ..." } else { "" };
        note(&format!("{count} clusters, the largest of {largest} rows ({}{more})", sizes.join(", ")));
    }
    if found.capped_buckets > 0 {
        note(&format!(
            "note: {} groups of more than {} candidates were compared with their nearest neighbours only",
            found.capped_buckets,
            data_pipeline::near::cluster::BUCKET_WINDOW
        ));
    }
}

/// Standard input as a file, because it is read more than once; removed at the end.
struct InputCopy {
    path: PathBuf,
}

impl InputCopy {
    fn take(scratch: &Path) -> Result<InputCopy, Failure> {
        let path = scratch.join(format!(".stdin-{}.partial", std::process::id()));
        let failed = |what: &str, error| Failure::failed(format!("{}: cannot be {what} ({error})", path.display()));
        let mut file = File::create(&path).map_err(|error| failed("created", error))?;
        let copy = InputCopy { path: path.clone() };
        std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(|error| failed("written", error))?;
        Ok(copy)
    }
}

impl Drop for InputCopy {
    fn drop(&mut self) {
        // A copy that stays costs disk and nothing else.
        _ = std::fs::remove_file(&self.path);
    }
}

impl DecontaminateArguments {
    fn config(&self) -> Result<DecontaminateConfig, Failure> {
        let config = DecontaminateConfig {
            ngram: self.ngram,
            short_ngram: self.short_ngram,
            coverage: self.coverage,
            on_hit: if self.report_only { OnHit::Report } else { OnHit::Drop },
            require: self.require.clone(),
            ..DecontaminateConfig::against(&self.against)
        };
        let mut problems = Vec::new();
        config.check("decontaminate", &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(Failure::usage(ConfigError { problems })) }
    }
}

/// Drops rows that hold benchmark items.
pub(super) fn decontaminate(arguments: &DecontaminateArguments) -> Result<Exit, Failure> {
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let benchmarks = Benchmarks::open(&arguments.config()?).map_err(Failure::usage)?;
    let inputs = arguments.rows.open()?;
    drop(arguments.rows.side_file("--hits", &arguments.hits, &inputs)?);
    say_benchmarks(&benchmarks);
    let options = arguments.rows.options();
    let result = with_progress("looking for benchmark items", |observe| {
        let watch = Watch { observe, stop: stop.as_atomic() };
        let mut list = AtomicFile::create(&arguments.hits)?;
        let to_list = (&mut list as &mut dyn Write, arguments.hits.as_path());
        let from = (&inputs, &options);
        let result = if arguments.rows.to_standard_output() {
            let mut out = BufWriter::new(std::io::stdout().lock());
            hits::decontaminate(from, &benchmarks, (&mut out, Path::new("standard output")), to_list, watch)?
        } else {
            let out_path = arguments.rows.out();
            let mut out = AtomicFile::create(out_path)?;
            let result = hits::decontaminate(from, &benchmarks, (&mut out, out_path), to_list, watch)?;
            out.commit()?;
            result
        };
        list.commit()?;
        Ok::<_, FilterError>(result)
    });
    let (summary, found) = match result {
        Err(FilterError::Io { source, .. }) if closed_pipe(&arguments.rows, &source) => return Ok(Exit::Done),
        other => other?,
    };
    report(&summary);
    note(&format!("{} hits in {} rows, listed in {}", found.hits, found.rows, arguments.hits.display()));
    for (file, items) in &found.items {
        note(&format!("  {items:>8} items  {file}"));
    }
    Ok(Exit::Done)
}

fn say_benchmarks(benchmarks: &Benchmarks) {
    for file in benchmarks.files() {
        note(&format!("benchmark {}: {} items, {} of them searchable", file.file, file.items, file.searchable));
    }
    for (task, data) in benchmarks.declared_tasks() {
        note(&format!("note: the task file of {task} holds no items; put its data ({data}) into the folder"));
    }
    let ignored = benchmarks.ignored();
    if !ignored.is_empty() {
        let shown: Vec<&str> = ignored.iter().take(5).map(String::as_str).collect();
        let more = if ignored.len() > 5 { ", ..." } else { "" };
        note(&format!("note: {} files of other types were not read: {}{more}", ignored.len(), shown.join(", ")));
    }
}
