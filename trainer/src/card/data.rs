//! Owns what a run keeps of the facts of its data (`data.json`): languages, sources, licences; never reads a token.
//!
//! They are copied at the start of a run, because a model outlives the data set it was made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_pipeline::dataset::Dataset;
use data_pipeline::licence::is_non_commercial;
use data_pipeline::manifest::Manifest;
use data_pipeline::stats::Stats;
use serde::{Deserialize, Serialize};

/// File name inside a run directory.
pub const FILE: &str = "data.json";

/// The data of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DataFacts {
    /// The data sets, in order.
    pub datasets: Vec<DatasetFacts>,
}

/// One data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetFacts {
    /// Its folder when the run began.
    pub path: PathBuf,
    /// Its identity.
    pub id: String,
    /// Its streams.
    pub streams: Vec<StreamFacts>,
    /// Documents by licence.
    pub licences: BTreeMap<String, u64>,
}

/// One language of one source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamFacts {
    /// Language and script.
    pub lang: String,
    /// Corpus.
    pub source: String,
    /// Documents, held-out ones included.
    pub documents: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Tokens, special ones included.
    pub tokens: u64,
    /// Documents by licence; empty where the data set does not say.
    pub licences: BTreeMap<String, u64>,
}

impl DataFacts {
    /// The facts of a data set and of those it is joined of.
    pub fn of(dataset: &Dataset) -> Self {
        let facts = |part: data_pipeline::dataset::Part| {
            let manifest = Manifest::read(&part.dir).unwrap_or_else(|_| dataset.manifest().clone());
            let mut streams: BTreeMap<(String, String), StreamFacts> = BTreeMap::new();
            for shard in &manifest.shards {
                let key = (shard.lang.clone(), shard.source.clone());
                let stream = streams.entry(key).or_insert_with(|| StreamFacts {
                    lang: shard.lang.clone(),
                    source: shard.source.clone(),
                    ..StreamFacts::default()
                });
                stream.documents += shard.documents;
                stream.bytes += shard.text_bytes;
                stream.tokens += shard.tokens;
            }
            // The manifest knows licences of the whole, the statistics those of each stream.
            for component in Stats::read(&part.dir).unwrap_or_default().components {
                if let Some(stream) = streams.get_mut(&(component.lang, component.source)) {
                    stream.licences = component.licences;
                }
            }
            let licences = manifest.licences.iter().map(|(name, counts)| (name.clone(), counts.documents)).collect();
            DatasetFacts { path: part.dir, id: part.id, streams: streams.into_values().collect(), licences }
        };
        Self { datasets: dataset.parts().into_iter().map(facts).collect() }
    }

    /// Every stream of every data set.
    pub fn streams(&self) -> impl Iterator<Item = &StreamFacts> {
        self.datasets.iter().flat_map(|dataset| &dataset.streams)
    }

    /// Languages and scripts, sorted.
    pub fn languages(&self) -> Vec<&str> {
        let mut languages: Vec<&str> = self.streams().map(|stream| stream.lang.as_str()).collect();
        languages.sort_unstable();
        languages.dedup();
        languages
    }

    /// Documents by licence over everything.
    pub fn licences(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = BTreeMap::new();
        for (name, documents) in self.datasets.iter().flat_map(|dataset| &dataset.licences) {
            *all.entry(name.clone()).or_default() += documents;
        }
        all
    }

    /// Licences that forbid commercial use.
    pub fn non_commercial(&self) -> Vec<String> {
        self.licences().into_keys().filter(|name| is_non_commercial(name)).collect()
    }
}
