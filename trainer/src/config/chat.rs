//! Owns the rules of configurations of chats and preferences; never touches the data.

use data_pipeline::chat::RecordKind;
use data_pipeline::chat::config::ExcessLength;
use data_pipeline::document::is_language_label;

use super::error::{ConfigError, Places};
use super::raw::{DatasetType, ObjectiveName, RawConfig, RawDataset};
use super::resolve::DatasetFacts;
use crate::preference::Objective;

/// Rules that need no data.
pub(super) fn check(raw: &RawConfig, dataset: &RawDataset, places: &Places) -> Result<(), ConfigError> {
    let chat = raw.chat.clone().unwrap_or_default();
    let kind = dataset.kind.unwrap_or_default();
    if kind == DatasetType::Prepared {
        let of_files = [
            ("datasets[0].fields", dataset.fields.is_some()),
            ("datasets[0].lang", dataset.lang.is_some()),
            ("chat.chat_template", chat.chat_template.is_some()),
            ("chat.roles_to_train", chat.roles_to_train.is_some()),
            ("chat.tokenizer", chat.tokenizer.is_some()),
            ("chat.validation_fraction", chat.validation_fraction.is_some()),
        ];
        if let Some((key, _)) = of_files.iter().find(|(_, written)| *written) {
            let message = format!("`{key}` has no effect on a data set that is prepared already");
            let hint = "write `type: chat` beside the `path` of files of chats, or delete the line";
            return Err(places.invalid(key, message, hint));
        }
    } else if chat.tokenizer.is_none() && raw.base_model.is_none() {
        let message = "chats need a tokenizer, and there is no `base_model` to take it from";
        return Err(places.missing(
            "chat.tokenizer",
            message,
            "add `chat: {tokenizer: FOLDER}`, with its tokenizer.json",
        ));
    }
    if chat.roles_to_train.as_ref().is_some_and(Vec::is_empty) {
        let message = "`chat.roles_to_train` is empty, so nothing would be learned";
        return Err(places.invalid("chat.roles_to_train", message, "write for example `roles_to_train: [assistant]`"));
    }
    if let Some(fraction) = chat.validation_fraction.filter(|fraction| !(0.0..=0.5).contains(fraction)) {
        let message = format!("`chat.validation_fraction` is {fraction}; it must be from 0 to 0.5");
        return Err(places.invalid("chat.validation_fraction", message, "write for example 0.02"));
    }
    if let Some(lang) = dataset.lang.as_ref().filter(|lang| !is_language_label(lang)) {
        let message = format!("`{}` is not a language label", super::error::shown(lang));
        return Err(places.invalid("datasets[0].lang", message, "write for example `ary_Arab` or `ary_Latn`"));
    }
    check_objective(raw, places)
}

/// Rules of several data sets: files of one type become one data set, which prepared ones cannot stand beside.
pub(super) fn check_list(raw: &RawConfig, datasets: &[RawDataset], places: &Places) -> Result<(), ConfigError> {
    let kind = |dataset: &RawDataset| dataset.kind.unwrap_or_default();
    let Some(first) = datasets.first() else { return Ok(()) };
    check(raw, first, places)?;
    for (i, dataset) in datasets.iter().enumerate() {
        if kind(dataset) != kind(first) {
            let message = "it is of another type than the first data set";
            let hint = "list files of one type, or prepare each with `jazari data prepare` and list the folders";
            return Err(places.invalid(&format!("datasets[{i}].type"), message, hint));
        }
        if kind(dataset) != DatasetType::Prepared && dataset.weight.is_some() {
            let message = "files of chats become one data set, in which a weight has no effect";
            let hint = "weigh languages and sources under `mixture: {weights: ...}`, or prepare the files first";
            return Err(places.invalid(&format!("datasets[{i}].weight"), message, hint));
        }
    }
    Ok(())
}

fn check_objective(raw: &RawConfig, places: &Places) -> Result<(), ConfigError> {
    let Some(objective) = &raw.objective else { return Ok(()) };
    let idle = [
        ("objective.label_smoothing", objective.label_smoothing.is_some() && objective.kind != ObjectiveName::Dpo),
        ("objective.gamma", objective.gamma.is_some() && objective.kind != ObjectiveName::Simpo),
    ];
    if let Some((key, _)) = idle.iter().find(|(_, idle)| *idle) {
        let message = format!("`{key}` has no effect with this `objective.type`");
        return Err(places.invalid(key, message, "delete the line"));
    }
    let bounds = [
        ("objective.beta", objective.beta, 0.0, 100.0),
        ("objective.label_smoothing", objective.label_smoothing.map(|share| share + f64::MIN_POSITIVE), 0.0, 0.4999),
        ("objective.gamma", objective.gamma.map(|gamma| gamma + f64::MIN_POSITIVE), 0.0, 100.0),
    ];
    for (key, value, low, high) in bounds {
        if let Some(value) = value.filter(|value| !(*value > low && *value <= high)) {
            let message = format!("`{key}` is {value}; it must be above {low} and at most {high}");
            return Err(places.invalid(key, message, "delete the line to take the usual value"));
        }
    }
    if raw.outer.is_some() {
        let message = "preferences are not trained over several sites";
        return Err(places.invalid("objective", message, "delete `outer`"));
    }
    Ok(())
}

/// The objective, against what the data set holds.
pub(super) fn objective(raw: &RawConfig, dataset: &DatasetFacts) -> Result<Option<Objective>, ConfigError> {
    let places = &raw.places;
    let kind = dataset.chat.as_ref().map(|chat| chat.kind);
    if kind.is_none() && raw.chat.is_some() {
        let message = "`chat` has no effect: the data set holds texts";
        return Err(places.invalid("chat", message, "delete it, or name a data set of chats"));
    }
    let excess = raw.chat.as_ref().and_then(|chat| chat.excess_length_strategy);
    if kind == Some(RecordKind::Preference) && excess == Some(ExcessLength::Truncate) {
        let message = "preferences cannot be truncated: an answer without its end is another answer";
        return Err(places.invalid("chat.excess_length_strategy", message, "write `drop`, or a longer `sequence_len`"));
    }
    match (kind, &raw.objective) {
        (Some(RecordKind::Preference), Some(objective)) => Ok(Some(Objective::from_raw(objective))),
        (Some(RecordKind::Preference), None) => {
            let message = "the data set holds preferences, and nothing says what is learned from them";
            Err(places.missing("objective", message, "add `objective: {type: dpo, beta: 0.1}`"))
        }
        (_, Some(_)) => {
            let message = "the data set holds no preferences";
            Err(places.invalid(
                "objective",
                message,
                "delete it, or name a data set with `chosen` and `rejected` answers",
            ))
        }
        (_, None) => Ok(None),
    }
}
