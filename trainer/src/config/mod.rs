//! Owns what a run is asked to do: YAML text to [`raw::RawConfig`] to [`plan::Plan`]; never touches devices, and no
//! file but the configuration (and, for an estimate, the metrics of an earlier run).
//!
//! Two stages. `yaml` reads strictly: an unknown key is an error that names the line and the nearest key. `resolve`
//! decides every value. Relative paths, in a file or in `--set`, are relative to the directory that `jazari` is started
//! in, never to the configuration file, so that a command means the same for every recipe it is given.

mod adapter;
pub mod alias;
mod chat;
pub mod check;
mod de;
pub mod error;
pub mod estimate;
mod experts;
mod fresh;
mod hints;
mod keys;
pub mod migrate;
mod mixture;
pub mod plan;
mod power;
pub mod presets;
pub mod raw;
pub mod resolve;
mod tree;
pub mod units;
pub mod yaml;

use data_pipeline::config::PrepareConfig;

pub use adapter::{AdapterCost, AdapterFacts};
pub use error::{ConfigError, Note, Places};
pub use estimate::{Estimate, Throughput};
pub use plan::Plan;
pub use raw::RawConfig;
pub use resolve::{BaseFacts, ComponentFacts, DatasetFacts, resolve};
pub use yaml::{ConfigFile, load, load_placed};

impl ConfigFile for RawConfig {
    const WHAT: &'static str = "a training configuration";
    const VERSION: Option<u32> = Some(check::CONFIG_VERSION);

    fn aliases() -> &'static [alias::Alias] {
        alias::TRAINING
    }

    fn elsewhere() -> &'static [(&'static str, &'static str)] {
        alias::ELSEWHERE
    }

    fn attach(&mut self, places: Places) {
        self.places = places;
    }
}

impl ConfigFile for data_pipeline::scrub::ScrubConfig {
    const WHAT: &'static str = "a file of filters";
}

impl ConfigFile for data_pipeline::clean::CleanConfig {
    const WHAT: &'static str = "a file of rules";
}

impl ConfigFile for PrepareConfig {
    const WHAT: &'static str = "a data configuration";

    fn elsewhere() -> &'static [(&'static str, &'static str)] {
        const TRAINING: &str = "this is a key of a training configuration: did you mean `jazari train`?";
        &[
            ("config_version", TRAINING),
            ("base_model", TRAINING),
            ("model", TRAINING),
            ("datasets", TRAINING),
            ("learning_rate", TRAINING),
            ("mixture", "texts are mixed when a model is trained: write it into the training configuration"),
            ("sequence_len", TRAINING),
            ("max_steps", TRAINING),
            ("tokenizer_path", "write `tokenizer: {path: FILE}`"),
            ("license", "write `licence:` into an item of `sources:`, or `allow_licences:` here"),
        ]
    }

    fn misnomers() -> &'static [(&'static str, &'static str, &'static str)] {
        const NEAR: &str = "near duplicates have a section of their own: write `near: {}`";
        const SHEET: &str = "save the sheet as CSV, and write `format: csv`";
        &[
            ("dedup", "minhash", NEAR),
            ("dedup", "near", NEAR),
            ("dedup", "fuzzy", NEAR),
            ("dedup", "paragraphs", "repeated paragraphs have a section of their own: write `paragraphs: {}`"),
            ("normalize", "nfkc", "it would destroy the Tifinagh ⵯ and joined letters: write `nfc` or `moroccan-v1`"),
            ("format", "xlsx", SHEET),
            ("format", "xls", SHEET),
            ("format", "html", "pages are read from web archives only: write `format: warc`"),
            ("encoding", "latin1", "write `encoding: windows-1252`, which reads Latin-1 as well"),
            ("encoding", "iso-8859-1", "write `encoding: windows-1252`, which reads Latin-1 as well"),
        ]
    }
}

/// The JSON Schema of training configurations, for editors.
pub fn training_schema() -> serde_json::Value {
    keys::schema_of::<RawConfig>()
}

/// The JSON Schema of data configurations, for editors.
pub fn data_schema() -> serde_json::Value {
    keys::schema_of::<PrepareConfig>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Every key of every block is described, and unknown keys are refused by editors too.
    #[test]
    fn the_schema_documents_every_key() {
        let schema = training_schema();
        let blocks = schema["$defs"].as_object().unwrap().values().chain([&schema]);
        let mut keys = 0;
        for block in blocks.filter(|block| block.get("properties").is_some()) {
            assert_eq!(block["additionalProperties"], false, "{block:#}");
            for (key, property) in block["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{key}");
                keys += 1;
            }
        }
        assert!(keys > 60, "{keys}");
        assert!(!schema.to_string().contains("null"), "a key without a value is an error");
        assert!(data_schema()["properties"]["sources"].is_object());
    }
}
