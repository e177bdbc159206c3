//! Owns the way from raw files to a finished dataset: its stages, what is reused and what is published; never prints.

pub(crate) mod admit;
pub(crate) mod curate;
mod dedupe;
mod encode;
mod error;
mod event;
mod existing;
pub(crate) mod ingest;
mod parts;
mod queue;
mod together;
mod vocabulary;
mod work;

pub use dedupe::NEAR_DUPLICATES_FILE;
pub use error::PrepareError;
pub use event::{Observer, PrepareEvent, Stage};
pub use existing::INPUTS_FILE;
pub use parts::{CONTAMINATION_FILE, PII_AUDIT_FILE, QUARANTINE_FILE};

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::card;
use crate::chat::ChatEncoder;
use crate::config::{PrepareConfig, SourceConfig, TokenizerSource};
use crate::dataset::DataError;
use crate::manifest::Manifest;
use crate::opt_out::OptOuts;
use crate::source::SourceError;
use crate::source::discover::{InputFile, discover_each, would_find};
use crate::spool::{PartState, Spool};
use crate::stats::{STATS_FILE, Stats};
use crate::tokenizer::{Tokenizer, TokenizerError};
use curate::Curation;
use dedupe::Searches;
use ingest::Reader;
use work::{Holding, WorkDir};

/// Version of everything that decides what a configuration makes of its inputs. A change of rules raises it, so that
/// results of older versions are not taken for current.
pub const PREPARE_VERSION: u32 = 1;

/// Folders of the work folder.
const SPOOL: &str = "spool";
const DATASET: &str = "dataset";
/// The list of finished shards in it.
const SHARD_LOG: &str = "shards.jsonl";

/// A dataset that is in place.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The folder.
    pub dir: PathBuf,
    /// The DatasetId.
    pub id: String,
    /// It was there before, made from the same configuration and inputs; nothing was written.
    pub already: bool,
    /// What was read, kept and dropped.
    pub stats: Stats,
}

/// Makes the dataset that `config` describes.
///
/// Everything up to the tokenizer is kept in a hidden folder beside the output until the dataset is whole; a run that was
/// stopped or killed goes on from its last checkpoint when it is started again. The finished folder appears in one
/// rename. The same configuration and input bytes give the same bytes, wherever they lie and however many threads and
/// processes work.
///
/// # Errors
/// See [`PrepareError`]. After a refusal nothing is left on disk.
pub fn prepare(config: &PrepareConfig, observe: Observer<'_>, stop: &AtomicBool) -> Result<Prepared, PrepareError> {
    prepare_as(config, None, observe, stop)
}

/// Makes the dataset together with other processes that call this for the same configuration, on this machine or on
/// others that see the same files under the same paths. They divide the reading among them; one of them, at the end,
/// does the rest, and all return when the dataset is in place. A process that dies is replaced by the others. The bytes
/// are those of [`prepare`].
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare_together(
    config: &PrepareConfig,
    worker: &Worker,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    prepare_as(config, Some(worker), observe, stop)
}

/// How a process works with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// A process that has not been heard of for this long is taken for dead. Too short a time costs work done twice,
    /// never a wrong result.
    pub lease_time: Duration,
}

fn prepare_as(
    config: &PrepareConfig,
    worker: Option<&Worker>,
    observe: Observer<'_>,
    stop: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    config.validate()?;
    let config = &with_opt_out_digest(config)?;
    let files = discover_labelled(config)?;
    refuse_output_in_input(config)?;
    let given = open_given(config)?;
    let chats = given.as_ref().map(|tokenizer| open_chats(config, tokenizer)).transpose()?.flatten();
    if existing::is_prepared(config, (given.as_ref(), chats.as_ref()), &files)? {
        if !existing::has_passed_gates(config) {
            vocabulary::check_gates_again(config, stop)?;
        }
        if worker.is_none() {
            WorkDir::sweep(&config.output_dir);
        }
        return already(&config.output_dir);
    }
    if config.allow_licences.is_empty() {
        return Err(PrepareError::NoLicencesAllowed { found: ingest::survey(config, &files, stop)? });
    }
    let curation = Curation::open(&config.cleaning(), config.decontaminate.as_ref())?;
    let (given, chats) = (given.as_ref(), chats.as_ref());
    let run = Run { config, files: &files, curation: &curation, given, chats, observe, stop };
    match worker {
        None => {
            let work = WorkDir::open(&config.output_dir, Holding::Alone)?;
            match run.alone(&work) {
                Ok(prepared) => run.publish(work, prepared),
                Err(error) => {
                    if !error.is_passing() {
                        work.discard();
                    }
                    Err(error)
                }
            }
        }
        Some(worker) => together::run(&run, worker),
    }
}

/// The configuration with the digest of its opt-out lists, which are read before anything else.
fn with_opt_out_digest(config: &PrepareConfig) -> Result<PrepareConfig, PrepareError> {
    let mut config = config.clone();
    if let Some(opt_outs) = &mut config.opt_outs {
        let opened = OptOuts::open(opt_outs).map_err(PrepareError::at("opt_outs.lists"))?;
        opt_outs.digest = opened.list.digest().map(str::to_owned);
    }
    Ok(config)
}

/// The input files. Where languages are identified, a text file need not be told its own.
fn discover_labelled(config: &PrepareConfig) -> Result<Vec<InputFile>, PrepareError> {
    let labelled = |source: &SourceConfig| {
        let mut source = source.clone();
        if config.identify.is_some() {
            source.lang.get_or_insert_with(|| admit::UNKNOWN_LANGUAGE.to_owned());
        }
        source
    };
    let sources: Vec<_> = config.sources.iter().map(labelled).collect();
    let named = |(entry, error): (usize, SourceError)| match error {
        SourceError::BadGlob { ref pattern, .. } if config.sources.get(entry).is_none_or(|s| s.path != *pattern) => {
            PrepareError::at(format!("sources[{entry}].exclude"))(error)
        }
        error => PrepareError::at(format!("sources[{entry}].path"))(error),
    };
    let files = discover_each(&sources).map_err(named)?;
    // What cannot be read is told before anything is written.
    for file in &files {
        openable(&file.path).map_err(|error| named((file.entry, error)))?;
    }
    Ok(files)
}

fn openable(path: &Path) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io { path: path.to_owned(), action: "opened", source };
    // A pipe is not opened: that would wait for whoever writes into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SourceError::NotAFile { path: path.to_owned() });
    }
    std::fs::File::open(path).map(|_| ()).map_err(failed)
}

/// A data set among its own inputs would be read by the next run.
fn refuse_output_in_input(config: &PrepareConfig) -> Result<(), PrepareError> {
    for (entry, source) in config.sources.iter().enumerate() {
        let key = || format!("sources[{entry}].path");
        if would_find(source, &config.output_dir).map_err(|error| PrepareError::at(key())(error))? {
            // Without a slash at its end, which the message would double.
            let (dir, pattern) = (config.output_dir.components().collect(), source.path.clone());
            return Err(PrepareError::OutputInInput { dir, entry, pattern });
        }
    }
    Ok(())
}

/// The tokenizer that the configuration names, checked before anything is read.
fn open_given(config: &PrepareConfig) -> Result<Option<Tokenizer>, PrepareError> {
    let TokenizerSource::Path(path) = config.tokenizer.source() else { return Ok(None) };
    let key = || "tokenizer.path".to_owned();
    let tokenizer = Tokenizer::open(path).map_err(|error| PrepareError::at(key())(error))?;
    if tokenizer.eos().is_none() {
        return Err(PrepareError::at(key())(DataError::NoEndOfText { tokenizer: path.to_owned() }));
    }
    Ok(Some(tokenizer))
}

/// What makes tokens of chats, when the sources hold any; its template is checked before anything is read.
fn open_chats<'a>(config: &PrepareConfig, tokenizer: &'a Tokenizer) -> Result<Option<ChatEncoder<'a>>, PrepareError> {
    if config.kind().is_text() {
        return Ok(None);
    }
    let encoder = ChatEncoder::open(&config.chat.clone().unwrap_or_default(), tokenizer);
    let encoder = encoder.map_err(PrepareError::at("chat.chat_template"))?;
    let missing = || PrepareError::NoTemplate { tokenizer: tokenizer.path().to_owned() };
    encoder.ok_or_else(missing).map(Some)
}

fn already(dir: &Path) -> Result<Prepared, PrepareError> {
    let manifest = Manifest::read(dir)?;
    let stats = Stats::read(dir)?;
    Ok(Prepared { dir: dir.to_owned(), id: manifest.id(), already: true, stats })
}

/// What all stages need to know.
struct Run<'a> {
    config: &'a PrepareConfig,
    files: &'a [InputFile],
    curation: &'a Curation,
    /// The tokenizer that the configuration names.
    given: Option<&'a Tokenizer>,
    /// What makes tokens of chats.
    chats: Option<&'a ChatEncoder<'a>>,
    observe: Observer<'a>,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    /// All stages in one process.
    fn alone(&self, work: &WorkDir) -> Result<(Manifest, Stats), PrepareError> {
        let key = existing::documents_key(self.config, self.files)?;
        let stage = Stage::Read;
        let total_bytes = self.files.iter().map(|file| file.bytes).sum();
        (self.observe)(&PrepareEvent::StageStarted { stage, total_bytes });
        work.keep_only_parts(&key)?;
        if let Some(spool) = Spool::reuse(work.path(), &work.at(SPOOL), &key) {
            (self.observe)(&PrepareEvent::StageFinished { stage, reused: true });
            return self.after_reading(&spool, work);
        }
        let reader = Reader::new(self.config, self.files, self.curation, &key, self.observe, self.stop)?;
        let (mut parts, mut reused) = (Vec::new(), true);
        for (number, range) in parts::plan(self.files, self.config.limits.checkpoint_bytes).into_iter().enumerate() {
            let below = parts::folder(&key).join(parts::name(number));
            let state = PartState::read(&work.at(&below), &key).filter(|state| state.done);
            reused &= state.is_some();
            parts.push((below.clone(), state.map_or_else(|| reader.part(range, &work.at(&below)), Ok)?));
        }
        (self.observe)(&PrepareEvent::StageFinished { stage, reused });
        let spool = self.dedupe(&parts, work, &key)?;
        self.after_reading(&spool, work)
    }

    /// The dedup stage, from parts that lie in the work folder.
    fn dedupe(&self, parts: &[(PathBuf, PartState)], work: &WorkDir, key: &str) -> Result<Spool, PrepareError> {
        let dir = work.fresh(SPOOL)?;
        let (config, files, observe, stop) = (self.config, self.files, self.observe, self.stop);
        Searches { config, files, root: work.path(), dir: &dir, observe, stop }.run(parts, key)?;
        parts::gather(parts, work.path(), &dir)?;
        Spool::open(work.path(), &dir).map_err(PrepareError::io(&dir, "read back"))
    }

    /// Tokenizer and shards; the dataset is whole in the work folder then.
    fn after_reading(&self, spool: &Spool, work: &WorkDir) -> Result<(Manifest, Stats), PrepareError> {
        let trained = match self.config.tokenizer.source() {
            TokenizerSource::Train(train) => Some(vocabulary::train(train, spool, work, self.observe, self.stop)?),
            TokenizerSource::Path(_) | TokenizerSource::Missing => None,
        };
        if let Some(tokenizer) = trained.as_ref().or(self.given) {
            vocabulary::check_gates(&self.config.tokenizer.gates, tokenizer, spool, self.stop)?;
        }
        let (dataset, log) = (work.at(DATASET), work.at(SHARD_LOG));
        self.write(spool, trained.as_ref(), (&dataset, &log)).inspect_err(|error| {
            // Finished shards are of use to a run that goes on; of a run that is refused nothing is.
            if !error.is_passing() {
                _ = std::fs::remove_dir_all(&dataset);
            }
        })
    }

    fn publish(&self, work: WorkDir, (manifest, stats): (Manifest, Stats)) -> Result<Prepared, PrepareError> {
        work.publish(DATASET)?;
        Ok(Prepared { dir: self.config.output_dir.clone(), id: manifest.id(), already: false, stats })
    }

    /// Writes everything that a dataset folder holds.
    fn write(
        &self,
        spool: &Spool,
        trained: Option<&Tokenizer>,
        (dir, log): (&Path, &Path),
    ) -> Result<(Manifest, Stats), PrepareError> {
        let Some(tokenizer) = trained.or(self.given) else { return Err(TokenizerError::NoText.into()) };
        let (manifest, stats) =
            encode::encode(self.config, spool, (tokenizer, self.chats), (dir, log), self.observe, self.stop)?;
        let mut json = serde_json::to_vec_pretty(&stats).unwrap_or_default();
        json.push(b'\n');
        write_durably(&dir.join(STATS_FILE), &json)?;
        write_durably(
            &dir.join(INPUTS_FILE),
            &existing::record(self.config, (self.given, self.chats), self.files, &stats)?,
        )?;
        for name in [QUARANTINE_FILE, CONTAMINATION_FILE, NEAR_DUPLICATES_FILE, PII_AUDIT_FILE] {
            let (from, to) = (spool.dir().join(name), dir.join(name));
            // Only what a stage wrote; the quarantine is always there.
            if from.exists() || name == QUARANTINE_FILE {
                std::fs::copy(&from, &to).map_err(PrepareError::io(&to, "written"))?;
                sync_file(&to)?;
            }
        }
        // The cards tell of the other files, so they come last.
        for (name, page) in card::render(dir, &manifest, &stats, self.config)? {
            write_durably(&dir.join(name), page.as_bytes())?;
        }
        Ok((manifest, stats))
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), PrepareError> {
    std::fs::write(path, bytes).map_err(PrepareError::io(path, "written"))?;
    sync_file(path)
}

fn sync_file(path: &Path) -> Result<(), PrepareError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(PrepareError::io(path, "synced"))
}
