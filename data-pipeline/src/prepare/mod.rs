//! Owns the way from raw files to a finished dataset: its stages, what is reused and what is published; never prints.

pub(crate) mod admit;
mod encode;
mod error;
mod event;
mod existing;
pub(crate) mod ingest;
mod vocabulary;
mod work;

pub use error::PrepareError;
pub use event::{Observer, PrepareEvent, Stage};
pub use existing::INPUTS_FILE;
pub use ingest::QUARANTINE_FILE;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::card;
use crate::chat::ChatEncoder;
use crate::config::{PrepareConfig, TokenizerConfig};
use crate::dataset::DataError;
use crate::manifest::Manifest;
use crate::opt_out::OptOuts;
use crate::source::discover::{InputFile, discover};
use crate::spool::Spool;
use crate::stats::{STATS_FILE, Stats};
use crate::tokenizer::{Tokenizer, TokenizerError};
use work::WorkDir;

/// Version of everything that decides what a configuration makes of its inputs. A change of rules raises it, so that
/// results of older versions are not taken for current.
pub const PREPARE_VERSION: u32 = 1;

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
/// The reading stage and the tokenizer are kept in a hidden folder beside the output until the dataset is whole, and are
/// reused when a run that was stopped or killed is started again. The finished folder appears in one rename. The same
/// configuration and input bytes give the same bytes, wherever they lie and however many threads work.
///
/// # Errors
/// See [`PrepareError`]. After a refusal nothing is left on disk.
pub fn prepare(config: &PrepareConfig, observe: Observer<'_>, stop: &AtomicBool) -> Result<Prepared, PrepareError> {
    config.validate()?;
    let config = &with_opt_out_digest(config)?;
    let files = discover(&config.sources)?;
    let given = open_given(config)?;
    let chats = given.as_ref().map(|tokenizer| open_chats(config, tokenizer)).transpose()?.flatten();
    if existing::is_prepared(config, (given.as_ref(), chats.as_ref()), &files)? {
        return already(&config.output_dir);
    }
    if config.allow_licences.is_empty() {
        return Err(PrepareError::NoLicencesAllowed { found: ingest::survey(config, &files, stop)? });
    }
    let run = Run { config, files: &files, given: given.as_ref(), chats: chats.as_ref(), observe, stop };
    let work = WorkDir::open(&config.output_dir)?;
    let spool = match run.read(&work) {
        Ok(spool) => spool,
        Err(error) => {
            work.discard();
            return Err(error);
        }
    };
    let trained = match &config.tokenizer {
        TokenizerConfig::Train(train) => Some(vocabulary::train(train, &spool, &work, observe, stop)?),
        TokenizerConfig::Path(_) => None,
    };
    let dataset = work.fresh("dataset")?;
    let (manifest, stats) = match run.write(&spool, trained.as_ref(), &dataset) {
        Ok(written) => written,
        Err(error) => {
            // Half a dataset is of no use to the next run; the stages before it are.
            _ = std::fs::remove_dir_all(&dataset);
            return Err(error);
        }
    };
    work.publish("dataset")?;
    Ok(Prepared { dir: config.output_dir.clone(), id: manifest.id(), already: false, stats })
}

/// The configuration with the digest of its opt-out lists, which are read before anything else.
fn with_opt_out_digest(config: &PrepareConfig) -> Result<PrepareConfig, PrepareError> {
    let mut config = config.clone();
    if let Some(opt_outs) = &mut config.opt_outs {
        opt_outs.digest = OptOuts::open(opt_outs)?.list.digest().map(str::to_owned);
    }
    Ok(config)
}

/// The tokenizer that the configuration names, checked before anything is read.
fn open_given(config: &PrepareConfig) -> Result<Option<Tokenizer>, PrepareError> {
    let TokenizerConfig::Path(path) = &config.tokenizer else { return Ok(None) };
    let tokenizer = Tokenizer::open(path)?;
    if tokenizer.eos().is_none() {
        return Err(DataError::NoEndOfText { tokenizer: path.clone() }.into());
    }
    Ok(Some(tokenizer))
}

/// What makes tokens of chats, when the sources hold any; its template is checked before anything is read.
fn open_chats<'a>(config: &PrepareConfig, tokenizer: &'a Tokenizer) -> Result<Option<ChatEncoder<'a>>, PrepareError> {
    if config.kind().is_text() {
        return Ok(None);
    }
    let encoder = ChatEncoder::open(&config.chat.clone().unwrap_or_default(), tokenizer)?;
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
    /// The tokenizer that the configuration names.
    given: Option<&'a Tokenizer>,
    /// What makes tokens of chats.
    chats: Option<&'a ChatEncoder<'a>>,
    observe: Observer<'a>,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    /// The reading stage, or its result from an earlier run.
    fn read(&self, work: &WorkDir) -> Result<Spool, PrepareError> {
        let stage = Stage::Read;
        let total_bytes = self.files.iter().map(|file| file.bytes).sum();
        (self.observe)(&PrepareEvent::StageStarted { stage, total_bytes });
        let key = existing::documents_key(self.config, self.files)?;
        let reused = Spool::reuse(&work.at("spool"), &key);
        let finished = PrepareEvent::StageFinished { stage, reused: reused.is_some() };
        let spool = match reused {
            Some(spool) => spool,
            None => {
                let dir = work.fresh("spool")?;
                ingest::ingest(self.config, self.files, &key, &dir, self.observe, self.stop)?;
                Spool::open(&dir).map_err(PrepareError::io(&dir, "read back"))?
            }
        };
        (self.observe)(&finished);
        Ok(spool)
    }

    /// Writes everything that a dataset folder holds.
    fn write(&self, spool: &Spool, trained: Option<&Tokenizer>, dir: &Path) -> Result<(Manifest, Stats), PrepareError> {
        let Some(tokenizer) = trained.or(self.given) else { return Err(TokenizerError::NoText.into()) };
        let (manifest, stats) =
            encode::encode(self.config, spool, (tokenizer, self.chats), dir, self.observe, self.stop)?;
        let mut json = serde_json::to_vec_pretty(&stats).unwrap_or_default();
        json.push(b'\n');
        write_durably(&dir.join(STATS_FILE), &json)?;
        for (name, page) in card::render(dir, &manifest, &stats, self.config)? {
            write_durably(&dir.join(name), page.as_bytes())?;
        }
        write_durably(
            &dir.join(INPUTS_FILE),
            &existing::record(self.config, (self.given, self.chats), self.files, &stats)?,
        )?;
        let (from, to) = (spool.dir().join(QUARANTINE_FILE), dir.join(QUARANTINE_FILE));
        std::fs::copy(&from, &to).map_err(PrepareError::io(&to, "written"))?;
        sync_file(&to)?;
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
