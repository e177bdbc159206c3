//! Documents, a tokenizer and a dataset for tests.

pub mod disk;
pub mod pages;
pub mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data_pipeline::DataError;
use data_pipeline::dataset::{DatasetMeta, Group, write_dataset};
use data_pipeline::document::{Document, document_id, id_to_hex};
use data_pipeline::manifest::{Manifest, Split};
use data_pipeline::tokenizer::{Tokenizer, TokenizerTrainer, TrainConfig, Trained};

pub static NEVER: AtomicBool = AtomicBool::new(false);

/// `../shared/NAME`, or a loud line when it is absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: ../shared is absent");
    None
}

pub fn document(lang: &str, source: &str, text: &str) -> Document {
    let id = id_to_hex(&document_id(source, text));
    let licence = if source == "b" { "MIT" } else { "CC0-1.0" };
    let url = text.len().is_multiple_of(2).then(|| format!("https://example.org/{id}"));
    Document {
        id,
        text: text.into(),
        lang: lang.into(),
        source: source.into(),
        licence: licence.into(),
        url,
        notes: None,
    }
}

const WORDS: [(&str, &[&str]); 4] = [
    ("ary_Latn", &["salam", "labas", "3lik", "wach", "kayn", "chi", "jdid", "mzyan", "bzzaf", "7it", "m9wd", "l'blad"]),
    ("ary_Arab", &["السلام", "لاباس", "عليك", "واش", "كاين", "شي", "جديد", "مزيان", "بزاف", "كَتَبَ"]),
    ("zgh_Tfng", &["ⴰⵣⵓⵍ", "ⵎⴰⵏⵣⴰⴽⵉⵏ", "ⵜⴰⴷⴷⴰⵔⵜ", "ⴰⵎⴰⵏ", "ⵜⴰⴳⵯⵎⴰⵜ"]),
    ("fra_Latn", &["bonjour", "l’école", "été", "demain", "rendez-vous", "à", "12", "heures"]),
];

/// The `i`-th made-up text of a language.
pub fn text(lang: &str, i: usize) -> String {
    let words = WORDS.iter().find(|(name, _)| *name == lang).unwrap().1;
    let len = 3 + i * 7 % 11;
    let word = |j: usize| words[(i * 5 + j * j + j * i) % words.len()];
    let mut text: Vec<String> = (0..len).map(|j| word(j).to_owned()).collect();
    text.push(i.to_string());
    text.join(" ")
}

pub fn documents(lang: &str, source: &str, count: usize) -> Vec<Document> {
    (0..count).map(|i| document(lang, source, &text(lang, i))).collect()
}

pub fn train(documents: &[Document], config: &TrainConfig) -> Trained {
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for document in documents {
        *bytes.entry(document.lang.clone()).or_default() += document.text.len() as u64;
    }
    let mut trainer = TokenizerTrainer::new(config, &bytes).unwrap();
    documents.iter().for_each(|document| trainer.add(document));
    trainer.finish(&|_| {}, &NEVER).unwrap()
}

pub fn write_files(trained: &Trained, dir: &Path) {
    for (name, bytes) in &trained.files {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

/// A small tokenizer in `dir`, which is created.
pub fn tokenizer(dir: &Path) -> Tokenizer {
    std::fs::create_dir_all(dir).unwrap();
    let texts: Vec<Document> = WORDS.iter().flat_map(|(lang, _)| documents(lang, "a", 60)).collect();
    let trained = train(&texts, &TrainConfig { vocab_size: 420, ..TrainConfig::default() });
    write_files(&trained, dir);
    Tokenizer::open(dir).unwrap()
}

pub type Groups = Vec<(Split, &'static str, &'static str, Vec<Document>)>;

/// Four components, one of them held out.
pub fn groups() -> Groups {
    vec![
        (Split::Train, "ary_Arab", "a", documents("ary_Arab", "a", 40)),
        (Split::Train, "ary_Latn", "a", documents("ary_Latn", "a", 90)),
        (Split::Train, "ary_Latn", "b", documents("ary_Latn", "b", 7)),
        (Split::Validation, "zgh_Tfng", "a", documents("zgh_Tfng", "a", 9)),
    ]
}

pub fn meta(max_shard_tokens: u64) -> DatasetMeta {
    DatasetMeta { config_digest: "c0ffee".into(), seed: 5, max_shard_tokens }
}

pub fn try_write(
    dir: &Path,
    groups: &Groups,
    tokenizer: &Tokenizer,
    max_shard_tokens: u64,
) -> Result<Manifest, DataError> {
    std::fs::create_dir_all(dir).unwrap();
    let groups = groups.iter().map(|(split, lang, source, documents)| Group {
        split: *split,
        lang: (*lang).to_owned(),
        source: (*source).to_owned(),
        documents: documents.iter().cloned().map(Ok),
    });
    write_dataset(dir, groups, tokenizer, &meta(max_shard_tokens), &|_| {}, &NEVER)
}

/// A dataset in `dir/data` with shards of about 400 tokens.
pub fn dataset(dir: &Path) -> (Manifest, Tokenizer) {
    let tokenizer = tokenizer(&dir.join("tokenizer"));
    (try_write(&dir.join("data"), &groups(), &tokenizer, 400).unwrap(), tokenizer)
}

/// All files below `dir` with their bytes.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(
                contents(&path)
                    .into_iter()
                    .map(|(name, bytes)| (Path::new(path.file_name().unwrap()).join(name), bytes)),
            );
        } else {
            files.insert(PathBuf::from(path.file_name().unwrap()), std::fs::read(&path).unwrap());
        }
    }
    files
}
