//! Owns the manifest of a dataset: what it holds, to the digest of every file; never opens the files it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::chat::{RecordKind, Role};
use crate::dataset::DataError;
use crate::document::is_language_label;
use crate::shard::format::{
    Dtype, END_BYTES, ENDS, MARKS, MEGATRON_INDEX, TOKENS, endings, is_shard_name, megatron_index_bytes,
};

/// File name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// File name of the table of bytes a token stands for: one little-endian u16 an id.
pub const TOKEN_BYTES_FILE: &str = "token_bytes.bin";
/// Folder of the tokenizer's files.
pub const TOKENIZER_FOLDER: &str = "tokenizer";
/// Version of the layout.
pub const MANIFEST_VERSION: u32 = 1;
/// Version of the layout of a data set of chats, which older programs must not take for texts.
pub const CHAT_MANIFEST_VERSION: u32 = 2;
/// What the file says it is.
const FORMAT: &str = "jazari-tokens";
/// Largest manifest in bytes: about a hundred thousand shards.
const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// What documents are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// Held out to measure on.
    Validation,
}

impl Split {
    /// `train` or `validation`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// Length and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// Hexadecimal BLAKE3.
    pub blake3: String,
}

/// The tokenizer of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecord {
    /// Hexadecimal SHA-256 of its tokenizer.json.
    pub sha256: String,
    /// Largest id plus one.
    pub vocab_size: usize,
    /// The token before every document, when there is one.
    pub bos_id: Option<u32>,
    /// The token after every document.
    pub eos_id: u32,
    /// The tokenizer's padding token, when it names one; shards hold no padding.
    pub pad_id: Option<u32>,
    /// The files in the folder `tokenizer`.
    pub files: BTreeMap<String, FileRecord>,
}

/// Sizes of a set of documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Tokens, BOS and EOS included.
    pub tokens: u64,
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
}

impl Counts {
    /// Adds the sizes of another set.
    pub fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.text_bytes += other.text_bytes;
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// `shard-00000`; its files add an ending.
    pub name: String,
    /// What its documents are for.
    pub split: Split,
    /// `ary_Arab`.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Documents.
    pub documents: u64,
    /// Tokens, BOS and EOS included.
    pub tokens: u64,
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
    /// Its files by ending: `bin`, `idx`, `bin.index`, `parquet`.
    pub files: BTreeMap<String, FileRecord>,
}

impl ShardRecord {
    /// Sizes of the shard.
    pub fn counts(&self) -> Counts {
        Counts { documents: self.documents, tokens: self.tokens, text_bytes: self.text_bytes }
    }
}

/// What a data set of chats is beside its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRecord {
    /// Chats or preferences.
    pub kind: RecordKind,
    /// Hexadecimal BLAKE3 of the chat template.
    pub template_blake3: String,
    /// Whose words are learned.
    pub roles: Vec<Role>,
    /// Ids that end trained turns.
    pub end_of_turn_ids: Vec<u32>,
    /// Tokens whose loss counts, both splits together.
    pub trained_tokens: u64,
}

/// Everything that a dataset is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Type of the stored tokens, little-endian.
    pub dtype: Dtype,
    /// The tokenizer.
    pub tokenizer: TokenizerRecord,
    /// The file `token_bytes.bin`.
    pub token_bytes: FileRecord,
    /// Seed of the documents' order.
    pub seed: u64,
    /// Digest of the configuration that made the dataset.
    pub config_digest: String,
    /// What chats are beside their tokens; absent in a data set of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<ChatRecord>,
    /// Sizes by language and script, both splits together.
    pub languages: BTreeMap<String, Counts>,
    /// Sizes by licence, both splits together.
    pub licences: BTreeMap<String, Counts>,
    /// The shards, those of a component one after another.
    pub shards: Vec<ShardRecord>,
}

/// What a manifest says beside its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Type of the stored tokens.
    pub dtype: Dtype,
    /// The tokenizer.
    pub tokenizer: TokenizerRecord,
    /// The file `token_bytes.bin`.
    pub token_bytes: FileRecord,
    /// Seed of the documents' order.
    pub seed: u64,
    /// Digest of the configuration.
    pub config_digest: String,
}

impl Manifest {
    /// Puts a manifest together; the sizes by language are those of the shards.
    pub fn new(head: ManifestHead, licences: BTreeMap<String, Counts>, shards: Vec<ShardRecord>) -> Self {
        let mut languages: BTreeMap<String, Counts> = BTreeMap::new();
        for shard in &shards {
            languages.entry(shard.lang.clone()).or_default().add(shard.counts());
        }
        let ManifestHead { dtype, tokenizer, token_bytes, seed, config_digest } = head;
        Self {
            format: FORMAT.to_owned(),
            version: MANIFEST_VERSION,
            dtype,
            tokenizer,
            token_bytes,
            seed,
            config_digest,
            chat: None,
            languages,
            licences,
            shards,
        }
    }

    /// The same as a data set of chats.
    #[must_use]
    pub fn with_chat(mut self, chat: ChatRecord) -> Self {
        self.version = CHAT_MANIFEST_VERSION;
        self.chat = Some(chat);
        self
    }

    /// The bytes of manifest.json: the one spelling that has this meaning.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data with string keys always has a JSON form.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The DatasetId: hexadecimal BLAKE3 of [`Self::to_bytes`], which is what `b3sum manifest.json` prints.
    pub fn id(&self) -> String {
        blake3::hash(&self.to_bytes()).to_hex().to_string()
    }

    /// Sizes of one split.
    pub fn counts(&self, split: Split) -> Counts {
        let mut sum = Counts::default();
        self.shards.iter().filter(|shard| shard.split == split).for_each(|shard| sum.add(shard.counts()));
        sum
    }

    /// Reads and checks the manifest of the dataset in `dir`.
    ///
    /// # Errors
    /// A folder without one, another version, or a manifest that contradicts itself.
    pub fn read(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join(MANIFEST_FILE);
        if !path.is_file() {
            return Err(DataError::NotADataset { dir: dir.to_owned() });
        }
        let wrong = |reason: String| DataError::Manifest { path: path.clone(), reason };
        let size = std::fs::metadata(&path).map_err(DataError::io(&path, "read"))?.len();
        if size > MAX_MANIFEST_BYTES {
            return Err(wrong(format!("has {size} bytes, more than the {MAX_MANIFEST_BYTES} of any manifest")));
        }
        let bytes = std::fs::read(&path).map_err(DataError::io(&path, "read"))?;
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is no dataset manifest ({e})")))?;
        if head.format != FORMAT {
            return Err(wrong(format!("is a `{}`, expected `{FORMAT}`", head.format)));
        }
        if ![MANIFEST_VERSION, CHAT_MANIFEST_VERSION].map(u64::from).contains(&head.version) {
            return Err(DataError::Version { path, found: head.version, supported: CHAT_MANIFEST_VERSION });
        }
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is damaged ({e})")))?;
        if manifest.to_bytes() != bytes {
            return Err(wrong("is not spelled as it was written, so its digest is not the dataset's".to_owned()));
        }
        manifest.check().map_err(wrong)?;
        Ok(manifest)
    }

    /// Checks everything that needs no other file, so that later arithmetic on its numbers cannot overflow and its
    /// names stay inside the folder.
    fn check(&self) -> Result<(), String> {
        let vocab = self.tokenizer.vocab_size;
        if vocab == 0 || vocab > 1 << 31 || Dtype::for_vocab(vocab) != self.dtype {
            return Err(format!(
                "has tokens of type {}, which a vocabulary of {vocab} does not have",
                self.dtype.name()
            ));
        }
        if (self.version == CHAT_MANIFEST_VERSION) != self.chat.is_some() {
            return Err("says in its version and its content differently whether it holds chats".to_owned());
        }
        let turns = self.chat.iter().flat_map(|chat| &chat.end_of_turn_ids);
        if let Some(id) = turns.into_iter().find(|&&id| id as usize >= vocab) {
            return Err(format!("ends turns with the token {id}, outside the vocabulary of {vocab}"));
        }
        let special = [self.tokenizer.bos_id, Some(self.tokenizer.eos_id), self.tokenizer.pad_id];
        if let Some(id) = special.into_iter().flatten().find(|&id| id as usize >= vocab) {
            return Err(format!("names the special token {id}, outside the vocabulary of {vocab}"));
        }
        if self.token_bytes.bytes != 2 * vocab as u64 {
            return Err(format!("has {TOKEN_BYTES_FILE} of {} bytes, expected {}", self.token_bytes.bytes, 2 * vocab));
        }
        if let Some(name) = self.tokenizer.files.keys().find(|name| !is_plain_name(name)) {
            return Err(format!("names the tokenizer file `{name}`, which is no plain file name"));
        }
        let mut names = BTreeSet::new();
        for shard in &self.shards {
            shard.check(self.dtype, self.chat.is_some())?;
            if !names.insert(&shard.name) {
                return Err(format!("names {} twice", shard.name));
            }
        }
        let recount = Self::new(self.head(), self.licences.clone(), self.shards.clone());
        if recount.languages != self.languages {
            return Err("has sizes by language that are not those of its shards".to_owned());
        }
        Ok(())
    }

    fn head(&self) -> ManifestHead {
        ManifestHead {
            dtype: self.dtype,
            tokenizer: self.tokenizer.clone(),
            token_bytes: self.token_bytes.clone(),
            seed: self.seed,
            config_digest: self.config_digest.clone(),
        }
    }
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

/// Most tokens, documents or bytes of one shard: sums over all shards then fit 64 bits.
const MAX_SHARD_COUNT: u64 = 1 << 44;

impl ShardRecord {
    fn check(&self, dtype: Dtype, chats: bool) -> Result<(), String> {
        let name = &self.name;
        if !is_shard_name(name) {
            return Err(format!("names the shard `{name}`, expected a name such as `shard-00000`"));
        }
        if !is_language_label(&self.lang) {
            return Err(format!("gives {name} the language `{}`, expected one such as `ary_Arab`", self.lang));
        }
        let counts = [self.tokens, self.documents, self.text_bytes];
        if counts.iter().any(|&count| count > MAX_SHARD_COUNT) || self.documents == 0 || self.documents > self.tokens {
            return Err(format!(
                "gives {name} {} documents, {} tokens and {} bytes, which cannot be",
                self.documents, self.tokens, self.text_bytes
            ));
        }
        if !self.files.keys().map(String::as_str).eq(sorted_endings(chats)) {
            return Err(format!("does not name the files {} of {name}", endings(chats).join(", ")));
        }
        let expected = [
            (TOKENS, self.tokens * dtype.width() as u64),
            (ENDS, self.documents * END_BYTES as u64),
            (MEGATRON_INDEX, megatron_index_bytes(self.documents)),
        ];
        let marks = chats.then_some((MARKS, self.tokens));
        for (ending, bytes) in expected.into_iter().chain(marks) {
            let found = self.files.get(ending).map_or(0, |file| file.bytes);
            if found != bytes {
                return Err(format!("gives {name}.{ending} {found} bytes, its counts make {bytes}"));
            }
        }
        Ok(())
    }
}

fn sorted_endings(chats: bool) -> impl Iterator<Item = &'static str> {
    let mut endings = endings(chats).to_vec();
    endings.sort_unstable();
    endings.into_iter()
}

/// Whether joining `name` to a folder gives a file in that folder.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests;
