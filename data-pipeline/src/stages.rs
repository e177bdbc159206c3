//! Owns what a configuration asks of the stages between reading and tokenising: checks, and what of it decides about the
//! result; never runs a stage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::clean::CleanConfig;
use crate::config::{PrepareConfig, json_digest};
use crate::prepare::PrepareError;
use crate::source::digest_file;

/// Folders of benchmarks nested deeper than this are not searched.
const MAX_FOLDER_DEPTH: usize = 32;

impl PrepareConfig {
    pub(crate) fn check_stages(&self, problems: &mut Vec<String>) {
        problems.extend(self.cleaning().validate());
        if let Some(decontaminate) = &self.decontaminate {
            decontaminate.check("decontaminate", problems);
        }
        if let Some(paragraphs) = &self.paragraphs {
            paragraphs.check("paragraphs", problems);
        }
        if let Some(near) = &self.near {
            near.check("near", problems);
        }
        let named = self.named_stages();
        if let (false, Some(name)) = (self.kind().is_text(), named.first()) {
            problems.push(format!("{name}: is made for texts, not for chats; remove it"));
        }
    }

    /// What is done to each text before duplicates are looked for, but for benchmarks.
    pub(crate) fn cleaning(&self) -> CleanConfig {
        CleanConfig {
            normalize: self.normalize,
            repair: self.repair.clone(),
            identify: self.identify.clone(),
            filters: self.filters.clone(),
            pii: self.pii.clone(),
        }
    }

    /// Keys of the stages that are asked for.
    fn named_stages(&self) -> Vec<&'static str> {
        let asked = [
            ("repair", self.repair.is_some()),
            ("identify", self.identify.is_some()),
            ("filters", self.filters.is_some()),
            ("pii", self.pii.is_some()),
            ("decontaminate", self.decontaminate.is_some()),
            ("paragraphs", self.paragraphs.is_some()),
            ("near", self.near.is_some()),
        ];
        asked.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
    }

    /// What the stages do, wherever their files lie and whatever memory they may use; `None` without any.
    pub(crate) fn stages_digest(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Stages<'a> {
            repair: Option<crate::repair::RepairConfig>,
            identify: Option<crate::lid::IdentifyConfig>,
            filters: Option<crate::filters::FilterConfig>,
            pii: Option<&'a crate::pii::PiiConfig>,
            decontaminate: Option<crate::decontaminate::DecontaminateConfig>,
            paragraphs: Option<crate::near::ParagraphConfig>,
            near: Option<crate::near::NearConfig>,
            names: Vec<&'a str>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            built_in: BTreeMap<&'a str, String>,
        }
        let names = self.named_stages();
        if names.is_empty() {
            return None;
        }
        let mut stages = Stages {
            repair: self.repair.clone(),
            identify: self.identify.clone(),
            filters: self.filters.clone(),
            pii: self.pii.as_ref(),
            decontaminate: self.decontaminate.clone(),
            paragraphs: self.paragraphs.clone(),
            near: self.near.clone(),
            names,
            built_in: self.built_in_digests(),
        };
        // Files are judged by their content, see `stage_files_digest`.
        stages.repair.iter_mut().for_each(|repair| repair.lexicons.clear());
        stages.identify.iter_mut().for_each(|identify| identify.model = None);
        stages.filters.iter_mut().for_each(|filters| filters.word_lists.clear());
        stages.decontaminate.iter_mut().for_each(|decontaminate| decontaminate.against = PathBuf::new());
        stages.paragraphs.iter_mut().for_each(|paragraphs| paragraphs.memory_mib = 0);
        stages.near.iter_mut().for_each(|near| near.memory_mib = 0);
        Some(json_digest(&stages))
    }

    /// Digests of the word lists, limits and models inside the program that the stages judge by: another version of the
    /// program that brings others makes another data set of the same configuration.
    fn built_in_digests(&self) -> BTreeMap<&'static str, String> {
        let mut digests = BTreeMap::new();
        if self.repair.is_some() {
            digests.insert("repair", crate::repair::content_digest());
        }
        if self.filters.is_some() {
            digests.insert("filters", crate::filters::content_digest());
        }
        if self.identify.as_ref().is_some_and(|identify| identify.model.is_none()) {
            digests.insert("identify", crate::lid::embedded_digest());
        }
        digests
    }

    /// Digest of the files that the stages read beside the inputs: models, word lists, benchmarks; `None` without any.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn stage_files_digest(&self) -> Result<Option<String>, PrepareError> {
        let mut files = Vec::new();
        for lexicon in self.repair.iter().flat_map(|repair| &repair.lexicons) {
            files.push(("repair", String::new(), lexicon.clone()));
        }
        if let Some(model) = self.identify.as_ref().and_then(|identify| identify.model.clone()) {
            files.push(("identify", String::new(), model));
        }
        for (label, list) in self.filters.iter().flat_map(|filters| &filters.word_lists) {
            files.push(("filters", label.clone(), list.clone()));
        }
        if let Some(decontaminate) = &self.decontaminate {
            let mut found = Vec::new();
            walk(&decontaminate.against, 0, &mut found)?;
            found.sort();
            for path in found {
                let below = path.strip_prefix(&decontaminate.against).unwrap_or(&path);
                files.push(("decontaminate", below.to_string_lossy().into_owned(), path));
            }
        }
        let digests = files
            .into_iter()
            .map(|(stage, name, path)| Ok((stage, name, digest_file(&path)?.blake3)))
            .collect::<Result<Vec<_>, PrepareError>>()?;
        Ok((!digests.is_empty()).then(|| json_digest(&digests)))
    }
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), PrepareError> {
    if depth > MAX_FOLDER_DEPTH {
        return Ok(());
    }
    let failed = || PrepareError::io(folder, "listed");
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_dir() { walk(&path, depth + 1, found)? } else { found.push(path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::{Value, json};

    fn config(stages: Value) -> PrepareConfig {
        let mut config = json!({
            "output_dir": "out",
            "sources": [{"path": "a.jsonl"}],
            "tokenizer": {"path": "tokenizer.json"},
        });
        for (key, value) in stages.as_object().unwrap() {
            config[key] = value.clone();
        }
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn every_wrong_value_is_named_with_its_key() {
        let wrong = config(json!({
            "repair": {"max_garbage": 7.0},
            "identify": {"min_score": 3.0},
            "filters": {"rules": {"alphabetic_words": -1.0}},
            "pii": {"audit_per_kind": 4_000_000_000_u32},
            "decontaminate": {"against": "", "ngram": 1},
            "paragraphs": {"min_count": 1},
            "near": {"threshold": 0.0},
            "limits": {"max_memory_bytes": 1, "checkpoint_bytes": 1},
        }));
        let problems = wrong.validate().unwrap_err().problems.join("\n");
        for key in [
            "repair.max_garbage",
            "identify.min_score",
            "filters.rules.alphabetic_words",
            "pii.audit_per_kind",
            "decontaminate.against",
            "paragraphs.min_count",
            "near.threshold",
            "limits.max_memory_bytes",
            "limits.checkpoint_bytes",
        ] {
            assert!(problems.contains(key), "{key} is not in\n{problems}");
        }
        let mut chats = config(json!({"near": {}}));
        chats.sources[0].kind = crate::chat::RecordKind::Chat;
        assert!(chats.validate().unwrap_err().to_string().contains("near: is made for texts"));
    }

    #[test]
    fn stages_change_the_rules_and_their_absence_does_not() {
        let plain = config(json!({}));
        // As it was before there were stages: data sets made then are still recognised.
        assert_eq!(plain.stages_digest(), None);
        assert!(!serde_json::to_string(&plain).unwrap().contains("near"));
        let digests: Vec<String> = [
            json!({}),
            json!({"near": {}}),
            json!({"near": {"threshold": 0.9}}),
            json!({"paragraphs": {}}),
            json!({"pii": {}}),
            json!({"filters": {}}),
            json!({"repair": {}}),
            json!({"identify": {}}),
        ]
        .into_iter()
        .map(|stages| config(stages).rules_digest())
        .collect();
        let different: std::collections::BTreeSet<&String> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
        assert_eq!(config(json!({"pii": {}, "near": {}})).built_in_digests().len(), 0);
        let built_in = config(json!({"repair": {}, "filters": {}, "identify": {}})).built_in_digests();
        assert_eq!(built_in.keys().copied().collect::<Vec<_>>(), ["filters", "identify", "repair"]);
        assert!(built_in.values().all(|digest| digest.len() == 64));
        let memory = config(json!({"near": {"memory_mib": 7}, "limits": {"max_memory_bytes": 999_999_999}}));
        assert_eq!(memory.rules_digest(), digests[1], "memory decides nothing");
    }
}
