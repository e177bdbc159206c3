//! Owns what a user may ask of `prepare` and checks it before any file is opened; never touches files.

mod format;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::format::{Encoding, Format, Unit};
use crate::chat::{ChatConfig, RecordKind};
use crate::decontaminate::DecontaminateConfig;
use crate::dedup::Dedup;
use crate::document::is_language_label;
use crate::filters::FilterConfig;
use crate::lid::IdentifyConfig;
pub use crate::limits::*;
use crate::near::{NearConfig, ParagraphConfig};
use crate::normalize::Normalize;
use crate::opt_out::OptOutConfig;
use crate::pii::PiiConfig;
use crate::repair::RepairConfig;
pub use crate::tokenizer::config::{TokenizerConfig, TokenizerSource};

/// Everything `data prepare` does, from raw files to token shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareConfig {
    /// Folder of the finished dataset. It must not exist, or be empty, or hold a dataset made from this configuration.
    #[schemars(example = &"data/moroccan")]
    pub output_dir: PathBuf,
    /// The raw files, read in this order.
    #[schemars(example = serde_json::json!([{"path": "corpora/*/data.jsonl"}]))]
    pub sources: Vec<SourceConfig>,
    /// Licences whose texts may be used: SPDX identifiers, or prefixes that end in `*`. Texts under another licence are
    /// dropped and counted. Required; when it is missing the error lists the licences that the sources name.
    #[serde(default, alias = "allow_licenses")]
    #[schemars(example = serde_json::json!(["CC0-1.0", "MIT", "CC-BY-4.0"]))]
    pub allow_licences: Vec<String>,
    /// Accept licences that forbid commercial use (they must still be listed in `allow_licences`). While this is false,
    /// a source that holds such a text is refused as a whole run, so that none slips in.
    #[serde(default)]
    pub non_commercial: bool,
    /// Who asked to stay out: marks in rows, and lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_outs: Option<OptOutConfig>,
    /// Text normalisation.
    #[serde(default)]
    pub normalize: Normalize,
    /// Repair of damaged text, and what counts as garbage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairConfig>,
    /// Language identification: labels for rows without one, and a second opinion on the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identify: Option<IdentifyConfig>,
    /// Quality filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<FilterConfig>,
    /// Removal of personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiConfig>,
    /// Removal of texts that hold parts of benchmarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decontaminate: Option<DecontaminateConfig>,
    /// Deduplication.
    #[serde(default)]
    pub dedup: Dedup,
    /// Removal of paragraphs that repeat over the corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paragraphs: Option<ParagraphConfig>,
    /// Removal of near duplicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<NearConfig>,
    /// Held-out documents.
    #[serde(default)]
    pub validation: ValidationConfig,
    /// The tokenizer: `path` to a tokenizer.json, or `train` to train one on the training documents; and its `gates`.
    #[schemars(example = serde_json::json!({"train": {"vocab_size": 32768}}))]
    pub tokenizer: TokenizerConfig,
    /// How chats become tokens, when the sources hold chats or preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatConfig>,
    /// Layout of the token shards.
    #[serde(default)]
    pub shards: ShardConfig,
    /// What a damaged compressed or Parquet file does to the run.
    #[serde(default)]
    pub on_damage: OnDamage,
    /// Bounds on what a file may make this process hold or write.
    #[serde(default)]
    pub limits: Limits,
    /// Seed of the order of the documents inside a shard.
    #[serde(default)]
    pub seed: u64,
}

/// One group of raw files that are read alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({"path": "corpora/*/data.jsonl"}))]
pub struct SourceConfig {
    /// A file, a folder (searched with its subfolders) or a glob such as `corpora/*/data.jsonl`. Relative paths start at
    /// the current directory.
    #[schemars(example = &"corpora/*/data.jsonl")]
    pub path: String,
    /// Globs of files to leave out, matched against the path and against the path below `path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = serde_json::json!(["corpora/old/*"]))]
    pub exclude: Vec<String>,
    /// What a record is: a text, a chat or a preference. All sources of a data set are of one type.
    #[serde(default, rename = "type", skip_serializing_if = "RecordKind::is_text")]
    pub kind: RecordKind,
    /// File format.
    #[serde(default)]
    pub format: Format,
    /// Which fields or columns hold what.
    #[serde(default)]
    pub fields: FieldNames,
    /// Language of rows that name none: ISO 639-3 and ISO 15924 codes, `ary_Arab`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"ary_Arab")]
    pub lang: Option<String>,
    /// Corpus name of rows that name none; without it the file name up to its first dot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Licence of rows that name none.
    #[serde(default, alias = "license", skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"CC0-1.0")]
    pub licence: Option<String>,
    /// What one document of a text file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Text encoding of the files. By default each file's own is found out and reported; write one when that goes wrong.
    #[serde(default, skip_serializing_if = "Encoding::is_auto")]
    pub encoding: Encoding,
}

impl SourceConfig {
    /// A source with every setting at its default.
    pub fn at(path: impl Into<String>) -> SourceConfig {
        SourceConfig {
            path: path.into(),
            exclude: Vec::new(),
            kind: RecordKind::Text,
            format: Format::Auto,
            fields: FieldNames::default(),
            lang: None,
            source: None,
            licence: None,
            unit: None,
            encoding: Encoding::Auto,
        }
    }
}

/// Names of the fields or columns. A dot reaches into an object: `metadata.lang`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldNames {
    /// When the text was published or fetched, as any short text; of web records the date of the archive by default. It is kept
    /// in the table of documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The text; `text` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The language, `ary` or `ary_Arab`; `lang` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
    /// The script, `Arab`, when the language field holds only a language; `script` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The corpus; `source` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The licence; `licence` or else `license` by default.
    #[serde(default, alias = "license", skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The address the text was published at; `url` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A stable identifier. Not read by default: documents are then identified by their text. With it, an edited text
    /// keeps its identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Fields that say whether the text may be trained on, such as `metadata.noai`, `robots` or `tdm-reservation`; by
    /// default the usual names, in the row and below `metadata`, `meta` and `headers`. `[]` looks at none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = serde_json::json!(["metadata.noai"]))]
    pub opt_out: Option<Vec<String>>,
    /// The list of messages of a chat; `messages`, `conversations` or `conversation` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<String>,
    /// Who speaks, in a message; `role` or `from` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What is said, in a message; `content` or `value` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The system message of an Alpaca record; `system` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The task of an Alpaca record; `instruction` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// What the task is about, in an Alpaca record; `input` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The answer of an Alpaca record; `output` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// What both answers of a preference follow; `prompt` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The better answer of a preference; `chosen` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// The worse answer of a preference; `rejected` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
}

/// Which documents are held out. The choice depends on the text alone, so equal texts of all sources fall on one side,
/// and adding data never moves a training document into validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Share of the documents of each language, between 0 and 0.5. 0 holds out nothing at all.
    #[serde(default = "default_fraction")]
    pub fraction: f64,
    /// Languages with few documents hold out more than `fraction`: up to a tenth, until this many are held out.
    #[serde(default = "default_min_documents")]
    pub min_documents: u64,
    /// At most this many documents of a language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_documents: Option<u64>,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { fraction: default_fraction(), min_documents: default_min_documents(), max_documents: None }
    }
}

/// Largest `validation.fraction`.
pub const MAX_VALIDATION_FRACTION: f64 = 0.5;

fn default_fraction() -> f64 {
    0.02
}

fn default_min_documents() -> u64 {
    16
}

/// Layout of the token shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardConfig {
    /// A shard is closed at the document that brings it to this many tokens.
    #[serde(default = "default_shard_tokens")]
    pub max_tokens: u64,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig { max_tokens: default_shard_tokens() }
    }
}

fn default_shard_tokens() -> u64 {
    128 * 1024 * 1024
}

/// What a damaged compressed or Parquet file does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDamage {
    /// Stop with the file and the byte; nothing is written.
    #[default]
    Error,
    /// Keep the whole rows before the damage, record the file in the quarantine and go on.
    Quarantine,
}

/// A configuration that cannot be carried out; every problem is named with its key and what to write.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    /// One line a problem.
    pub problems: Vec<String>,
}

impl PrepareConfig {
    /// Checks every rule that needs no file.
    ///
    /// # Errors
    /// All problems found, each with its key and what to write.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if self.output_dir.as_os_str().is_empty() {
            problems.push("output_dir: is empty; write the folder that shall hold the dataset".to_owned());
        }
        if self.sources.is_empty() {
            problems.push("sources: is empty; write at least one `- path: FILE_FOLDER_OR_GLOB`".to_owned());
        }
        for (i, source) in self.sources.iter().enumerate() {
            source.check(&format!("sources[{i}]"), &mut problems);
        }
        for (i, licence) in self.allow_licences.iter().enumerate() {
            if licence.trim().is_empty() {
                problems.push(format!(
                    "allow_licences[{i}]: is empty; write an SPDX identifier such as `MIT`, or remove it"
                ));
            }
        }
        self.check_chats(&mut problems);
        self.check_stages(&mut problems);
        self.validation.check(&mut problems);
        self.limits.check(&mut problems);
        self.tokenizer.check(&mut problems);
        if self.shards.max_tokens == 0 {
            problems.push("shards.max_tokens: is 0; write a number of tokens, for example 134217728".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// What the records of the sources are.
    pub fn kind(&self) -> RecordKind {
        self.sources.first().map_or(RecordKind::Text, |source| source.kind)
    }

    fn check_chats(&self, problems: &mut Vec<String>) {
        let kind = self.kind();
        for (i, source) in self.sources.iter().enumerate() {
            if source.kind != kind {
                let (found, first) = (source.kind.name(), kind.name());
                problems.push(format!(
                    "sources[{i}].type: is {found}, the first source's is {first}; prepare them as data sets of their own"
                ));
            }
            if !source.kind.is_text() && matches!(source.format, Format::Csv | Format::Tsv | Format::Text) {
                problems.push(format!("sources[{i}].format: chats are read from JSONL and Parquet; convert the file"));
            }
            if source.kind.is_text()
                && let Some((name, _)) = source.fields.of_chats().find(|(_, name)| name.is_some())
            {
                problems
                    .push(format!("sources[{i}].fields.{name}: only chats have it; write `type: chat` beside `path`"));
            }
        }
        if kind.is_text() && self.chat.is_some() {
            problems
                .push("chat: no source holds chats; write `type: chat` beside its `path`, or remove this".to_owned());
        }
        if self.chat.as_ref().is_some_and(|chat| chat.roles().is_empty()) {
            problems.push("chat.roles_to_train: is empty; write for example `[assistant]`, or remove it".to_owned());
        }
        if !kind.is_text() && self.tokenizer.train.is_some() {
            problems.push(
                "tokenizer.train: a tokenizer is not trained on chats; write `tokenizer: {path: ...}` with that of the model"
                    .to_owned(),
            );
        }
    }

    /// Hexadecimal BLAKE3 of the rules: everything that decides what becomes of given input files and a given tokenizer,
    /// but not where they or the output lie.
    pub fn rules_digest(&self) -> String {
        json_digest(&(self.documents_digest(), &self.tokenizer.train, &self.shards, self.seed))
    }

    /// The part of [`PrepareConfig::rules_digest`] that decides which documents are kept, before any tokenizer.
    pub(crate) fn documents_digest(&self) -> String {
        let unplaced =
            |source: &SourceConfig| SourceConfig { path: String::new(), exclude: Vec::new(), ..source.clone() };
        let sources: Vec<SourceConfig> = self.sources.iter().map(unplaced).collect();
        let rules = json_digest(&(
            sources,
            &self.allow_licences,
            self.non_commercial,
            self.normalize,
            self.dedup,
            &self.validation,
            self.on_damage,
            self.limits.deciding(),
        ));
        // Absent where there is none, so that data sets without them keep their identities.
        let rules = match self.stages_digest() {
            Some(stages) => json_digest(&(rules, stages)),
            None => rules,
        };
        match &self.opt_outs {
            None => rules,
            Some(opt_outs) => json_digest(&(rules, opt_outs.markers, &opt_outs.digest)),
        }
    }
}

/// Hexadecimal BLAKE3 of a value's JSON form.
pub(crate) fn json_digest(value: &impl Serialize) -> String {
    // Plain data with string keys always has a JSON form.
    let json = serde_json::to_vec(value).unwrap_or_default();
    blake3::hash(&json).to_hex().to_string()
}

impl SourceConfig {
    fn check(&self, key: &str, problems: &mut Vec<String>) {
        if self.path.trim().is_empty() {
            problems
                .push(format!("{key}.path: is empty; write a file, a folder or a glob such as `corpora/*/data.jsonl`"));
        }
        if let Some(lang) = &self.lang
            && !is_language_label(lang)
        {
            problems.push(format!(
                "{key}.lang: `{lang}` is not a language label; write ISO 639-3 and ISO 15924 codes joined by `_`, \
                 for example `ary_Arab` or `ary_Latn`"
            ));
        }
        if self.source.as_ref().is_some_and(|name| !is_source_name(name)) {
            problems.push(format!(
                "{key}.source: write a name of 1 to {MAX_SOURCE_NAME_BYTES} bytes without control characters"
            ));
        }
        if self.licence.as_ref().is_some_and(|licence| licence.trim().is_empty()) {
            problems.push(format!(
                "{key}.licence: is empty; write an SPDX identifier such as `CC0-1.0`, or remove the key"
            ));
        }
        if self.unit.is_some() && !matches!(self.format, Format::Auto | Format::Text) {
            problems
                .push(format!("{key}.unit: only text files are cut into units; remove it, or write `format: text`"));
        }
        if !self.encoding.is_auto() && matches!(self.format, Format::Parquet | Format::Arrow | Format::Warc) {
            problems.push(format!("{key}.encoding: this format says itself how its text is encoded; remove it"));
        }
        if self.format == Format::Text && self.fields != FieldNames::default() {
            problems
                .push(format!("{key}.fields: text files have no fields; remove it and write `lang:` and `licence:`"));
        }
        let opt_outs = self.fields.opt_out.iter().flatten().map(|value| ("opt_out", value));
        for (name, value) in self.fields.given().chain(opt_outs) {
            if value.is_empty() || value.split('.').any(str::is_empty) {
                problems.push(format!(
                    "{key}.fields.{name}: `{value}` is not a field name; write for example `metadata.{name}`"
                ));
            }
        }
    }
}

impl FieldNames {
    fn given(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [
            ("text", &self.text),
            ("lang", &self.lang),
            ("script", &self.script),
            ("source", &self.source),
            ("licence", &self.licence),
            ("url", &self.url),
            ("id", &self.id),
        ]
        .into_iter()
        .chain(self.of_chats())
        .filter_map(|(name, value)| value.as_ref().map(|value| (name, value)))
    }

    fn of_chats(&self) -> impl Iterator<Item = (&'static str, &Option<String>)> {
        [
            ("messages", &self.messages),
            ("role", &self.role),
            ("content", &self.content),
            ("system", &self.system),
            ("instruction", &self.instruction),
            ("input", &self.input),
            ("output", &self.output),
            ("prompt", &self.prompt),
            ("chosen", &self.chosen),
            ("rejected", &self.rejected),
        ]
        .into_iter()
    }
}

/// Longest corpus name in bytes.
pub const MAX_SOURCE_NAME_BYTES: usize = 256;

/// Whether `name` can stand as a corpus name in manifests and mixture weights.
pub(crate) fn is_source_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_SOURCE_NAME_BYTES && !name.chars().any(char::is_control)
}

impl ValidationConfig {
    fn check(&self, problems: &mut Vec<String>) {
        if !(0.0..=MAX_VALIDATION_FRACTION).contains(&self.fraction) {
            problems.push(format!(
                "validation.fraction: {} is not between 0 and {MAX_VALIDATION_FRACTION}; write a share such as 0.02",
                self.fraction
            ));
        }
        if let Some(max) = self.max_documents.filter(|max| *max < self.min_documents) {
            problems.push(format!(
                "validation.max_documents: is {max}, below validation.min_documents ({}); lower that one as well",
                self.min_documents
            ));
        }
        for (key, documents) in [("min", Some(self.min_documents)), ("max", self.max_documents)] {
            if let Some(documents) = documents.filter(|documents| *documents > MAX_BOUNDED_DOCUMENTS) {
                problems.push(format!(
                    "validation.{key}_documents: is {documents}; write a number up to {MAX_BOUNDED_DOCUMENTS}, and use \
                     `fraction` for more"
                ));
            }
        }
    }
}

/// Largest `validation.min_documents` and `max_documents`; that many hashes a language are kept in memory.
pub const MAX_BOUNDED_DOCUMENTS: u64 = 1_000_000;
