//! Owns checking a GGUF file as a server will read it; never changes it.

use std::path::Path;

use super::GgufError;
use super::model::{Description, parts};
use super::read::GgufFile;
use super::tokenizer::Vocabulary;
use super::types::TensorType;
use crate::hub::VerifyReport;
use crate::hub::verify_recorded;

/// Checks a GGUF file: header, settings, names and shapes, finite values, vocabulary, end ids, chat template. `checked`
/// is told how many tensors have been read, of how many. Later checks that need what an earlier one could not read are
/// left out.
#[must_use]
pub fn verify(path: &Path, checked: &dyn Fn(usize, usize)) -> VerifyReport {
    let mut report = VerifyReport::default();
    let said = |error: GgufError| error.to_string();
    let opened = GgufFile::open(path).map_err(said).map(|file| {
        let detail = format!("{} settings, {} tensors", file.metadata().len(), file.tensors().len());
        (detail, file)
    });
    let Some(file) = report.note("header", opened) else { return report };
    let described = Description::of(&file).map_err(said).map(|described| {
        let class = file.get("general.architecture").and_then(super::Value::as_str).unwrap_or_default();
        (format!("{class}, vocabulary {}", described.config.vocab_size()), described)
    });
    if let Some(described) = report.note("settings and shapes", described) {
        report.note("finite values", values(&file, &described, checked));
    }
    let vocabulary = Vocabulary::read(&file).map_err(said);
    let vocabulary = vocabulary.and_then(|vocabulary| {
        let rows = file.tensors().get("token_embd.weight").and_then(|place| place.shape.first().copied());
        let entries = vocabulary.tokens.len();
        if rows != Some(entries) {
            let rows = rows.unwrap_or_default();
            return Err(format!("{entries} entries for {rows} rows of the embedding; llama.cpp stops at that"));
        }
        vocabulary.open(path).map_err(said)?;
        Ok((format!("{entries} entries"), vocabulary))
    });
    if let Some(vocabulary) = report.note("tokenizer", vocabulary) {
        report.note("end ids", end_ids(&vocabulary));
        report.note("chat template", template(&vocabulary));
    }
    if let Some(folder) = path.parent() {
        report.note("recorded digests", verify_recorded(folder));
    }
    report
}

fn values(file: &GgufFile, described: &Description, checked: &dyn Fn(usize, usize)) -> Result<(String, ()), String> {
    let mut elements = 0;
    for (done, planned) in described.plan.iter().enumerate() {
        for (_, values) in parts(file, planned).map_err(|error| error.to_string())? {
            if values.len() > 1 && values.iter().all(|value| *value == 0.0) && !planned.name.ends_with(".bias") {
                return Err(format!("every element of {:?} is 0; these weights are damaged", planned.name));
            }
            elements += values.len();
        }
        checked(done + 1, described.plan.len());
    }
    let formats = TensorType::ALL.into_iter().filter(|kind| file.tensors().values().any(|place| place.kind == *kind));
    let formats: Vec<&str> = formats.map(TensorType::name).collect();
    Ok((format!("{elements} values in {}", formats.join(", ")), ()))
}

fn end_ids(vocabulary: &Vocabulary) -> Result<(String, ()), String> {
    let Some(eos) = vocabulary.eos else {
        return Err("no end id is set, so a server would never stop; export with an end-of-text token".into());
    };
    let ids: Vec<u32> = [eos].into_iter().chain(vocabulary.eot).collect();
    let name = |id: &u32| vocabulary.tokens.get(*id as usize).cloned().unwrap_or_default();
    let ordinary = ids.iter().find(|id| vocabulary.types.get(**id as usize) == Some(&1));
    match ordinary {
        Some(id) => Err(format!("end id {id} is the ordinary entry {:?}; texts would end inside words", name(id))),
        None => Ok((ids.iter().map(name).collect::<Vec<_>>().join(" "), ())),
    }
}

fn template(vocabulary: &Vocabulary) -> Result<(String, ()), String> {
    match &vocabulary.chat_template {
        None => Ok(("none (a base model)".into(), ())),
        Some(template) if template.contains("generation %}") || template.contains("generation -%}") => {
            Err("it has generation marks, at which servers stop; remove them and export again".into())
        }
        Some(_) => Ok(("inside the file".into(), ())),
    }
}
