//! Owns finding the tensors of a Hugging Face directory, in one file or in shards; never touches devices.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use model_zoo::{ModelConfig, ParamSpec, Stored, WeightDtype};
use serde::Deserialize;

use super::{HEAD_NAME, HubError, INDEX_FILE, WEIGHTS_FILE};
use crate::durable::read_text;
use crate::tensor_file::{MAX_HEADER_BYTES, TensorFile, describe};

/// The weight files of a directory.
#[derive(Debug)]
pub struct Weights {
    dir: PathBuf,
    shards: Vec<TensorFile>,
    /// Tensor name -> its shard.
    places: BTreeMap<String, usize>,
    /// `metadata.total_size` of the index, where there is one.
    indexed_bytes: Option<u64>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    metadata: IndexMetadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct IndexMetadata {
    total_size: Option<serde_json::Number>,
}

/// Digest of the weight files of a directory, their names included, read once from disk.
///
/// # Errors
/// As [`Weights::open`], or when the disk refuses.
pub fn weights_digest(dir: &Path) -> Result<String, HubError> {
    let weights = Weights::open(dir)?;
    let mut hasher = blake3::Hasher::new();
    for shard in weights.shards() {
        let file = describe(shard.path())?;
        hasher.update(format!("{} {} {}\n", file.name, file.bytes, file.blake3).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

impl Weights {
    /// Opens every weight file and checks that index and files name the same tensors.
    ///
    /// # Errors
    /// [`HubError`] when there are no weights, two sets of them, a damaged file, or an index that does not fit.
    pub fn open(dir: &Path) -> Result<Self, HubError> {
        let (single, index) = (dir.join(WEIGHTS_FILE), dir.join(INDEX_FILE));
        match (single.exists(), index.exists()) {
            (true, true) => Err(HubError::TwoWeights { dir: dir.to_owned() }),
            (false, false) => Err(HubError::NoWeights { dir: dir.to_owned() }),
            (true, false) => {
                let shard = TensorFile::open(&single)?;
                let places = shard.names().into_iter().map(|name| (name, 0)).collect();
                Ok(Self { dir: dir.to_owned(), shards: vec![shard], places, indexed_bytes: None })
            }
            (false, true) => Self::open_shards(dir, &index),
        }
    }

    fn open_shards(dir: &Path, index_path: &Path) -> Result<Self, HubError> {
        let wrong = |cause: String| HubError::Json { path: index_path.to_owned(), cause };
        let text = read_text(index_path, MAX_HEADER_BYTES)?;
        let index: Index = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        let mut shards = Vec::with_capacity(files.len());
        let mut places = BTreeMap::new();
        for (number, file) in files.into_iter().enumerate() {
            // A name with a folder in it could lead anywhere on this machine.
            if Path::new(file).file_name() != Some(file.as_ref()) {
                return Err(wrong(format!("{file:?} is not a plain file name")));
            }
            let shard = TensorFile::open(&dir.join(file))?;
            for name in shard.names() {
                match index.weight_map.get(&name) {
                    Some(expected) if expected == file => places.insert(name, number),
                    Some(other) => return Err(wrong(format!("{name:?} is said to be in {other}, but is in {file}"))),
                    None => return Err(wrong(format!("{name:?} of {file} is not listed"))),
                };
            }
            shards.push(shard);
        }
        if let Some((name, file)) = index.weight_map.iter().find(|(name, _)| !places.contains_key(*name)) {
            return Err(wrong(format!("{name:?} is not in {file}, where it is said to be")));
        }
        let indexed_bytes = index.metadata.total_size.and_then(|n| n.as_u64().or(n.as_f64().map(|n| n as u64)));
        Ok(Self { dir: dir.to_owned(), shards, places, indexed_bytes })
    }

    /// The weight files.
    #[must_use]
    pub fn shards(&self) -> &[TensorFile] {
        &self.shards
    }

    /// `metadata.total_size` of the index, where there is one.
    #[must_use]
    pub fn indexed_bytes(&self) -> Option<u64> {
        self.indexed_bytes
    }

    /// Names and shapes of all tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&String, &[usize])> {
        let shape = |name: &String| self.shard_of(name)?.info(name).map(|info| info.shape.as_slice());
        self.places.keys().filter_map(move |name| Some((name, shape(name)?)))
    }

    /// The file that holds a tensor.
    #[must_use]
    pub fn shard_of(&self, name: &str) -> Option<&TensorFile> {
        self.shards.get(*self.places.get(name)?)
    }

    /// The number formats in use.
    ///
    /// # Errors
    /// [`HubError::Dtype`] names a tensor of a format that is not read.
    pub fn dtypes(&self) -> Result<Vec<WeightDtype>, HubError> {
        let mut seen = Vec::new();
        for (name, shard) in self.places.iter().filter_map(|(name, number)| Some((name, self.shards.get(*number)?))) {
            let dtype = shard.float_dtype(name)?;
            if !seen.contains(&dtype) {
                seen.push(dtype);
            }
        }
        Ok(seen)
    }

    /// Checks that exactly the parameters `specs` of `config` are stored, in their shapes and in a number format that is
    /// read. Returns names that are stored, not needed and known to be harmless: a copy of a tied head (whose values the
    /// caller must compare), and tables that old files carry ([`ModelConfig::is_buffer`]).
    ///
    /// # Errors
    /// [`HubError`] names what is missing, surplus or misshapen.
    pub fn check(&self, config: &ModelConfig, specs: &[ParamSpec]) -> Result<Vec<String>, HubError> {
        let places: Vec<Option<Stored>> = specs.iter().map(|spec| self.place(config, spec)).collect();
        let missing: Vec<String> =
            specs.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(spec, _)| spec.name.clone()).collect();
        if !missing.is_empty() {
            return Err(HubError::Missing { dir: self.dir.clone(), names: missing });
        }
        let needed: BTreeSet<&str> = places.iter().flatten().map(|stored| stored.name.as_str()).collect();
        let harmless = |name: &str| (config.tied_head() && name == HEAD_NAME) || config.is_buffer(name);
        let (dropped, surplus): (Vec<String>, Vec<String>) =
            self.places.keys().filter(|name| !needed.contains(name.as_str())).cloned().partition(|name| harmless(name));
        if let Some(shard) = surplus.first().and_then(|name| self.shard_of(name)) {
            return Err(HubError::Surplus { path: shard.path().to_owned(), names: surplus });
        }
        for stored in places.iter().flatten() {
            self.check_shape(&stored.name, &stored.shape)?;
        }
        if dropped.iter().any(|name| name == HEAD_NAME) {
            let embedding = specs.first().map(|spec| spec.shape.as_slice()).unwrap_or_default();
            self.check_shape(HEAD_NAME, embedding)?;
        }
        Ok(dropped)
    }

    /// Where the values of a parameter stand.
    fn place(&self, config: &ModelConfig, spec: &ParamSpec) -> Option<Stored> {
        config.spellings(spec).into_iter().find(|stored| self.places.contains_key(&stored.name))
    }

    /// The name under which a parameter is stored, if it is another than the one that exports use.
    #[must_use]
    pub fn foreign_name(&self, config: &ModelConfig, spec: &ParamSpec) -> Option<String> {
        self.place(config, spec).map(|stored| stored.name).filter(|name| *name != spec.name)
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), HubError> {
        let shard = self.holder(name)?;
        let found = shard.info(name).map(|info| info.shape.clone()).unwrap_or_default();
        shard.float_dtype(name)?;
        if found == expected {
            return Ok(());
        }
        Err(HubError::Shape {
            path: shard.path().to_owned(),
            name: name.to_owned(),
            found,
            expected: expected.to_vec(),
        })
    }

    /// The values of a parameter, widened to f32; all of them finite.
    ///
    /// # Errors
    /// [`HubError::Missing`] when it is not stored, [`HubError::NotFinite`] names the first value that is no number.
    pub fn parameter(&self, config: &ModelConfig, spec: &ParamSpec) -> Result<Vec<f32>, HubError> {
        match self.place(config, spec) {
            Some(stored) => self.elements(&stored.name, stored.elements),
            None => Err(HubError::Missing { dir: self.dir.clone(), names: vec![spec.name.clone()] }),
        }
    }

    /// The values of a tensor under the name it is stored by, widened to f32; all of them finite.
    ///
    /// # Errors
    /// [`HubError::NotFinite`] names the first value that is no number.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, HubError> {
        let count = self.holder(name)?.info(name).map_or(0, |info| info.shape.iter().product());
        self.elements(name, 0..count)
    }

    fn elements(&self, name: &str, elements: Range<usize>) -> Result<Vec<f32>, HubError> {
        let shard = self.holder(name)?;
        let first = elements.start;
        let values = shard.floats_of(name, elements)?;
        match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            None => Ok(values),
            Some((index, value)) => Err(HubError::NotFinite {
                path: shard.path().to_owned(),
                name: name.to_owned(),
                index: first + index,
                value: *value,
            }),
        }
    }

    fn holder(&self, name: &str) -> Result<&TensorFile, HubError> {
        self.shard_of(name).ok_or_else(|| HubError::Missing { dir: self.dir.clone(), names: vec![name.to_owned()] })
    }
}
