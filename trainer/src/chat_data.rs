//! Owns files of chats that a training configuration names: prepared once, into the run directory; never touches the
//! run itself.
//!
//! What was prepared is recognised by its rules and the content of the files, so a run that is started again finds it,
//! and changed files are refused. A start that fails afterwards takes away what it has prepared.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use data_pipeline::chat::RecordKind;
use data_pipeline::config::{PrepareConfig, SourceConfig, TokenizerConfig, ValidationConfig};
use data_pipeline::prepare::{self, PrepareError, PrepareEvent};

use crate::config::RawConfig;
use crate::config::raw::RawDataset;
use crate::eval::subject::Place;

/// Folder of the prepared chats inside the run directory.
pub const FOLDER: &str = "data";
/// Licence of records that name none: whoever names a file in a training configuration answers for it.
const UNSTATED_LICENCE: &str = "unstated";
/// Wait for another process of the run that prepares the same folder.
const POLL: Duration = Duration::from_millis(200);

/// A prepared folder, taken away again unless it is kept.
#[derive(Debug)]
pub struct Fresh {
    /// What this start made, innermost first.
    made: Vec<PathBuf>,
}

impl Fresh {
    /// The run has begun: the folder stays.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for (i, path) in self.made.iter().enumerate() {
            // What was prepared goes as a whole, the folders around it only when nothing else is in them.
            let removed = if i == 0 { std::fs::remove_dir_all(path) } else { std::fs::remove_dir(path) };
            if removed.is_err() {
                return;
            }
        }
    }
}

/// A data set made of files of chats.
#[derive(Debug)]
pub struct ChatData {
    /// Its folder.
    pub dir: PathBuf,
    /// What was made by this start, if anything.
    pub fresh: Option<Fresh>,
    /// What the user should look at.
    pub warnings: Vec<String>,
}

/// Prepares the files of chats that `raw` names; `None` when it names a prepared data set.
///
/// # Errors
/// A record, template or tokenizer that cannot be used; nothing is left on disk then.
pub fn prepare(raw: &RawConfig) -> Result<Option<ChatData>, PrepareError> {
    let Some(dataset) = raw.datasets.first() else { return Ok(None) };
    let Some(kind) = dataset.kind.unwrap_or_default().records() else { return Ok(None) };
    let dir = raw.output_dir.join(FOLDER);
    let config = configuration(raw, kind, &dir);
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let mut made: Vec<PathBuf> = raw.output_dir.ancestors().take_while(missing).map(Path::to_owned).collect();
    made.insert(0, dir.clone());
    let warnings = RefCell::new(Vec::new());
    let observe = |event: &PrepareEvent| {
        if let PrepareEvent::Warning(text) = event {
            warnings.borrow_mut().push(text.clone());
        }
    };
    let never = AtomicBool::new(false);
    let mut attempts = 0;
    let prepared = loop {
        match prepare::prepare(&config, &observe, &never) {
            // Processes of one host start together: one prepares, the others find it.
            Err(PrepareError::Busy { .. }) => std::thread::sleep(POLL),
            // It appeared after this process had looked for it.
            Err(PrepareError::Io { .. } | PrepareError::OutputRefused { .. }) if attempts == 0 && dir.exists() => {
                attempts += 1;
            }
            other => break other,
        }
    };
    // The keys are those of a data configuration, which the user has never seen; the file is named all the same.
    let prepared = prepared.map_err(|error| match error {
        PrepareError::At { error, .. } => *error,
        other => other,
    });
    let prepared = prepared.inspect_err(|_| remove_work(&raw.output_dir, &made))?;
    // Not `then_some`: what is made in vain is dropped, and this takes away the folder when it is.
    let fresh = if prepared.already { None } else { Some(Fresh { made }) };
    let warnings = warnings.into_inner();
    Ok(Some(ChatData { dir, fresh, warnings }))
}

/// Takes away what a failed preparation keeps for the next attempt: nothing has begun here.
fn remove_work(output: &Path, made: &[PathBuf]) {
    // The failure itself is what the caller must hear about.
    _ = std::fs::remove_dir_all(output.join(format!(".{FOLDER}.preparing")));
    for path in made.iter().skip(1) {
        if std::fs::remove_dir(path).is_err() {
            return;
        }
    }
}

fn source(dataset: &RawDataset, kind: RecordKind) -> SourceConfig {
    let dataset = dataset.clone();
    SourceConfig {
        kind: dataset.kind.unwrap_or_default().records().unwrap_or(kind),
        fields: dataset.fields.unwrap_or_default(),
        lang: dataset.lang,
        licence: Some(UNSTATED_LICENCE.to_owned()),
        ..SourceConfig::at(dataset.path.to_string_lossy())
    }
}

fn configuration(raw: &RawConfig, kind: RecordKind, dir: &Path) -> PrepareConfig {
    let chat = raw.chat.clone().unwrap_or_default();
    let of_base = |base: &PathBuf| Place::of(base).map_or_else(|_| base.clone(), |place| place.tokenizer());
    let tokenizer = chat.tokenizer.clone().or_else(|| raw.base_model.as_ref().map(of_base)).unwrap_or_default();
    let mut validation = ValidationConfig::default();
    if let Some(fraction) = chat.validation_fraction {
        validation.fraction = fraction;
    }
    PrepareConfig {
        output_dir: dir.to_owned(),
        sources: raw.datasets.iter().map(|dataset| source(dataset, kind)).collect(),
        allow_licences: vec!["*".to_owned()],
        non_commercial: false,
        opt_outs: None,
        normalize: Default::default(),
        repair: None,
        identify: None,
        filters: None,
        pii: None,
        decontaminate: None,
        dedup: Default::default(),
        paragraphs: None,
        near: None,
        validation,
        tokenizer: TokenizerConfig::at(tokenizer),
        chat: Some(chat.encoding()),
        shards: Default::default(),
        on_damage: Default::default(),
        limits: Default::default(),
        seed: raw.seed.unwrap_or_default(),
    }
}
