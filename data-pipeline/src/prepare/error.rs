//! Owns the ways a preparation ends without a dataset; never touches files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::event::Stage;
use super::ingest::MAX_COMPONENTS;
use crate::chat::RecordError;
use crate::config::ConfigError;
use crate::dataset::DataError;
use crate::near::DedupError;
use crate::opt_out::OptOutError;
use crate::rounds::Stopped;
use crate::source::SourceError;
use crate::spool::Group;
use crate::stats::StatsError;
use crate::tokenizer::TokenizerError;
use crate::tokenizer::chat::ChatError;
use crate::tokenizer::gates::Verdict;

/// A preparation that came to nothing. But for [`PrepareError::Interrupted`], and failures after the reading stage,
/// nothing is left on disk.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An input file cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An opt-out list cannot be used.
    #[error(transparent)]
    OptOut(#[from] OptOutError),
    /// The tokenizer cannot be loaded or trained.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The shards cannot be written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The statistics of a finished dataset cannot be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A text that forbids commercial use.
    #[error(
        "{}: {place} of source `{source_name}` is under `{licence}`, which forbids commercial use; \
         leave the file out with `exclude:`, or write `non_commercial: true` and add the licence to `allow_licences`",
        .file.display()
    )]
    NonCommercial {
        /// The file.
        file: PathBuf,
        /// "row 12" or the like.
        place: String,
        /// Corpus name.
        source_name: String,
        /// The licence as written.
        licence: String,
    },
    /// A record that is no chat or preference. Chats are few and written by hand: none is left out silently.
    #[error("{}: {place}: {problem}", .file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// "row 12 (byte 3456), id `x`" or the like.
        place: String,
        /// What is wrong with it and what to do.
        problem: RecordError,
    },
    /// No chat template.
    #[error(
        "chat.chat_template: is missing, and {} names no template; write `chat: {{chat_template: chatml}}` or the path of a \
         template", .tokenizer.display()
    )]
    NoTemplate {
        /// The tokenizer.
        tokenizer: PathBuf,
    },
    /// A model, word list or benchmark that a stage needs cannot be used.
    #[error("{key}: {problem}")]
    Stage {
        /// Key of the configuration.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A dataset that is there already, whose tokenizer fails gates that were written later.
    #[error(
        "{}: this data set was prepared before `tokenizer.gates` said this, and its tokenizer fails {} of them; change the \
         gates, or remove the data set and train another tokenizer\n{verdict}", .dir.display(), .verdict.failures()
    )]
    Gates {
        /// The dataset.
        dir: PathBuf,
        /// All gates with what was measured.
        verdict: Box<Verdict>,
    },
    /// Something that a key of the configuration names cannot be used; nothing was started.
    #[error("{key}: {error}")]
    At {
        /// Key of the configuration, such as `sources[2].path`.
        key: String,
        /// What is wrong.
        #[source]
        error: Box<PrepareError>,
    },
    /// The search for duplicates failed.
    #[error(transparent)]
    Dedup(DedupError),
    /// A file of the work folder is not what was written.
    #[error("{}: is not as it was written; remove the folder and run again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A chat template that cannot be used.
    #[error(transparent)]
    Template(#[from] ChatError),
    /// `allow_licences` is missing.
    #[error(
        "allow_licences: is missing; the sources name {}; read these licences and write those you accept{}",
        listed_licences(.found), .found.keys().next().map(|name| format!(", such as `allow_licences: [{name}]`")).unwrap_or_default()
    )]
    NoLicencesAllowed {
        /// Licences of the sources with the number of rows.
        found: BTreeMap<String, u64>,
    },
    /// Every row was dropped.
    #[error("sources: no document is left of {rows} rows: {}; {}", listed(.dropped), advice(.dropped))]
    NothingLeft {
        /// Rows read.
        rows: u64,
        /// Rows dropped, by reason.
        dropped: BTreeMap<String, u64>,
    },
    /// So many languages and sources that one of the fields must be mapped wrongly.
    #[error(
        "more than {limit} pairs of language and source, such as `{example}`; \
         check which columns `fields.lang` and `fields.source` name"
    )]
    TooManyComponents {
        /// The limit.
        limit: usize,
        /// One of the pairs.
        example: String,
    },
    /// The output folder holds something else.
    #[error("output_dir: {} is not empty and holds no dataset; name a folder that does not exist yet", .dir.display())]
    OutputTaken {
        /// The folder.
        dir: PathBuf,
    },
    /// The output is no folder.
    #[error("output_dir: {} is a file; name a folder that does not exist yet", .path.display())]
    OutputIsFile {
        /// The file.
        path: PathBuf,
    },
    /// The output lies where the input is looked for.
    #[error(
        "output_dir: {} lies where sources[{entry}] looks for files (`{pattern}`), so the next run would read its own \
         output; name a folder elsewhere, or write `exclude: [\"{}/**\"]` into that source", .dir.display(), .dir.display()
    )]
    OutputInInput {
        /// The output folder.
        dir: PathBuf,
        /// Number of the source, from 0.
        entry: usize,
        /// Its path.
        pattern: String,
    },
    /// The output cannot be made; nothing was started.
    #[error("output_dir: {} cannot be created; name a folder where you may write", .dir.display())]
    OutputRefused {
        /// The output folder.
        dir: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The output folder holds another dataset.
    #[error("output_dir: {} holds a dataset with {difference}; remove it, or name another folder", .dir.display())]
    OutputDiffers {
        /// The folder.
        dir: PathBuf,
        /// What is not the same.
        difference: String,
    },
    /// Another process prepares into the same folder.
    #[error("{}: another process is preparing this dataset; wait for it, or choose another `output_dir`", .dir.display())]
    Busy {
        /// The output folder.
        dir: PathBuf,
    },
    /// The disk refused.
    #[error("{}: cannot be {action}; check permissions and free space", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// "written", "created", ...
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// An input changed while it was read.
    #[error("{}: changed while it was read; run again when nothing writes to it", .path.display())]
    InputChanged {
        /// The file.
        path: PathBuf,
    },
    /// The accounting does not add up; a fault of this program.
    #[error("the row counts do not add up ({what}); nothing was published, please report this")]
    Unreconciled {
        /// The sum that differs.
        what: String,
    },
    /// The stop flag was raised.
    #[error("stopped during stage `{stage}`; run the same command again to go on from the last finished stage")]
    Interrupted {
        /// Name of the stage.
        stage: &'static str,
    },
}

impl From<DedupError> for PrepareError {
    fn from(error: DedupError) -> Self {
        match error {
            DedupError::Stopped => PrepareError::Interrupted { stage: Stage::Dedup.name() },
            error => PrepareError::Dedup(error),
        }
    }
}

impl From<Stopped> for PrepareError {
    fn from(_: Stopped) -> Self {
        PrepareError::Interrupted { stage: Stage::Read.name() }
    }
}

impl PrepareError {
    pub(crate) fn changed(path: &Path) -> PrepareError {
        PrepareError::Changed { path: path.to_owned() }
    }

    /// Every line of the message that begins with a key of the configuration (`near.threshold: ...`), so that its place
    /// can be told; empty when the configuration is not at fault.
    pub fn by_key(&self) -> Vec<String> {
        match self {
            PrepareError::Config(error) => error.problems.clone(),
            PrepareError::Stage { .. }
            | PrepareError::At { .. }
            | PrepareError::NoLicencesAllowed { .. }
            | PrepareError::NothingLeft { .. }
            | PrepareError::NoTemplate { .. }
            | PrepareError::OutputTaken { .. }
            | PrepareError::OutputIsFile { .. }
            | PrepareError::OutputInInput { .. }
            | PrepareError::OutputRefused { .. }
            | PrepareError::OutputDiffers { .. } => vec![self.to_string()],
            _ => Vec::new(),
        }
    }

    /// The same error, behind the key that names what is wrong.
    pub(crate) fn at<E: Into<PrepareError>>(key: impl Into<String>) -> impl FnOnce(E) -> PrepareError {
        let key = key.into();
        move |error| PrepareError::At { key, error: Box::new(error.into()) }
    }

    /// Whether the work done so far is worth keeping: the same command may go on with it.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            PrepareError::Interrupted { .. } | PrepareError::Io { .. } | PrepareError::Dedup(_) => true,
            PrepareError::Data(error) => matches!(error, DataError::Io { .. }),
            PrepareError::Source(error) => matches!(error, SourceError::Io { .. }),
            _ => false,
        }
    }

    pub(crate) fn too_many_components(example: &Group) -> PrepareError {
        let example = format!("{}/{}", example.lang, example.source);
        PrepareError::TooManyComponents { limit: MAX_COMPONENTS, example }
    }

    /// Turns an I/O error at `path` into one of these.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> PrepareError + use<> {
        let path = path.to_owned();
        move |source| PrepareError::Io { path, action, source }
    }
}

/// Licences and reasons shown in a message.
const MAX_LISTED: usize = 20;

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let mut parts: Vec<String> = counts.iter().take(MAX_LISTED).map(|(name, n)| format!("{name} {n}")).collect();
    if counts.len() > MAX_LISTED {
        parts.push(format!("and {} more", counts.len() - MAX_LISTED));
    }
    if parts.is_empty() { "the files hold no rows".to_owned() } else { parts.join(", ") }
}

/// What to do about the most frequent reason.
fn advice(dropped: &BTreeMap<String, u64>) -> &'static str {
    let most = dropped.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(*name)));
    let reason = most.map(|(name, _)| name.as_str()).unwrap_or_default();
    match reason.split(':').next().unwrap_or_default() {
        "missing_text" | "null_text" | "text_not_string" => {
            "name the field that holds the text: `fields: {text: FIELD}` beside `path`"
        }
        "missing_language" | "bad_language" => {
            "write `lang: ary_Arab` or the like beside `path`, name the field that holds the language with \
             `fields: {lang: FIELD}`, or let `identify: {}` find the languages"
        }
        "licence" if reason == "licence:missing" => {
            "write `licence:` beside `path`, or name the field that holds it with `fields: {licence: FIELD}`"
        }
        "licence" => "add the licences that you accept to `allow_licences`",
        "opt_out" => "nobody who opted out is read; check `opt_outs`",
        "record_too_large" => "raise `limits.max_record_bytes`",
        "invalid_json" => "check `format:` of the source; its lines are no JSON objects",
        "filter" | "garbage" | "language" | "pii" => {
            "look at dropped rows with `jazari data scrub`, `data normalize` and `data identify`, then loosen that section"
        }
        "contaminated" => "every text holds parts of a benchmark; check `decontaminate.against`",
        "" => "check the paths of the sources",
        _ => "check `format:`, `fields:`, `lang:` and `licence:` of the sources",
    }
}

fn listed_licences(counts: &BTreeMap<String, u64>) -> String {
    let quoted = counts.iter().map(|(name, n)| (format!("`{name}`"), *n)).collect();
    if counts.is_empty() { "no licence".to_owned() } else { format!("{} rows", listed(&quoted)) }
}
