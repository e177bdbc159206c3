//! Owns the model card of an export, `README.md` as the Hugging Face Hub reads it; never reads a file.

use std::fmt::Write;

use super::{RunFacts, number, schedule};
use crate::eval::results::Results;

/// File name inside an export.
pub const FILE: &str = "README.md";

/// What the card says of the model itself.
#[derive(Debug, Clone, Default)]
pub struct ModelFacts {
    /// Name of the export.
    pub name: String,
    /// Licence that its makers chose, an identifier of the Hub (`apache-2.0`).
    pub licence: Option<String>,
    /// Architecture as config.json names it.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// Vocabulary.
    pub vocab_size: usize,
    /// Longest context, tokens.
    pub context: usize,
    /// Number format of the weights.
    pub dtype: String,
    /// Steps of training.
    pub step: u64,
    /// Target tokens of training.
    pub tokens: u64,
    /// Digest of the training state.
    pub digest: String,
}

/// Renders the card. Equal facts give equal bytes.
pub fn render(model: &ModelFacts, run: &RunFacts) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    _ = write(&mut page, model, run);
    page
}

fn write(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    front_matter(page, model, run)?;
    writeln!(page, "# {}\n", line(&model.name))?;
    let languages: Vec<String> = run.data.languages().into_iter().map(language_name).collect();
    let trained = if languages.is_empty() { "text".to_owned() } else { languages.join(", ") };
    writeln!(
        page,
        "A language model of {:.1} million parameters, trained with Jazari {} on {trained}. It continues text; whether it \
         follows instructions depends on what it was trained for.\n",
        model.parameters as f64 / 1e6,
        env!("CARGO_PKG_VERSION")
    )?;
    writeln!(page, "| | |\n|---|---|")?;
    for (key, value) in [
        ("architecture", model.architecture.clone()),
        ("parameters", model.parameters.to_string()),
        ("vocabulary", model.vocab_size.to_string()),
        ("context", format!("{} tokens", model.context)),
        ("weights", model.dtype.clone()),
        ("training state", format!("`{}` at step {}", model.digest, model.step)),
    ] {
        writeln!(page, "| {key} | {} |", cell(&value))?;
    }
    data(page, model, run)?;
    training(page, model, run)?;
    evaluation(page, model, run)?;
    limits(page, run)
}

fn front_matter(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    writeln!(page, "---")?;
    let mut codes: Vec<&str> = run.data.languages().into_iter().map(hub_language).collect();
    codes.sort_unstable();
    codes.dedup();
    list(page, "language", codes.into_iter())?;
    match &model.licence {
        Some(licence) => writeln!(page, "license: {}", quoted(licence))?,
        None => writeln!(page, "license: other\nlicense_name: not-chosen-yet")?,
    }
    writeln!(page, "library_name: transformers\npipeline_tag: text-generation")?;
    if let Some(base) = hub_name(run) {
        writeln!(page, "base_model: {}", quoted(&base))?;
    }
    let mut sources: Vec<&str> = run.data.streams().map(|stream| stream.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    list(page, "datasets", sources.into_iter())?;
    writeln!(page, "tags:\n- jazari\n---\n")
}

fn list<'a>(page: &mut String, key: &str, items: impl Iterator<Item = &'a str>) -> std::fmt::Result {
    let items: Vec<String> = items.map(|item| format!("- {}\n", quoted(item))).collect();
    if items.is_empty() { Ok(()) } else { write!(page, "{key}:\n{}", items.concat()) }
}

/// The base model's name on the Hub, when its folder is called `organisation/model`.
fn hub_name(run: &RunFacts) -> Option<String> {
    let base = run.planned("/base_model")?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match base.split('/').collect::<Vec<_>>().as_slice() {
        [organisation, name] if plain(organisation) && plain(name) => Some(base),
        _ => None,
    }
}

fn data(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    writeln!(page, "\n## Data\n")?;
    if run.data.datasets.is_empty() {
        return writeln!(page, "The run directory does not say what the model was trained on.");
    }
    let forbidden = run.data.non_commercial();
    if !forbidden.is_empty() {
        let names: Vec<String> = forbidden.iter().map(|name| format!("`{}`", line(name))).collect();
        let names = names.join(", ");
        writeln!(page, "**Parts of the data forbid commercial use: {names}.** Ask their owners before you sell.\n")?;
    }
    writeln!(page, "| language | source | documents | bytes | tokens | licences |\n|---|---|---:|---:|---:|---|")?;
    for stream in run.data.streams() {
        let licences: Vec<String> = stream.licences.iter().map(|(name, n)| format!("{} ({n})", cell(name))).collect();
        let (lang, source) = (cell(&stream.lang), cell(&stream.source));
        let (documents, bytes, tokens) = (stream.documents, stream.bytes, stream.tokens);
        writeln!(page, "| {lang} | {source} | {documents} | {bytes} | {tokens} | {} |", licences.join(", "))?;
    }
    writeln!(page, "\nHeld-out documents are counted in. Documents by licence, over everything:\n")?;
    for (name, documents) in run.data.licences() {
        writeln!(page, "- {}: {documents}", line(&name))?;
    }
    writeln!(page)?;
    for dataset in &run.data.datasets {
        writeln!(page, "Data set `{}`.", dataset.id)?;
    }
    changes(page, model, run)
}

/// Every time that the run went on with another data set because somebody accepted it, up to the exported step.
fn changes(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    let mut told = Vec::new();
    for event in run.events.iter().filter(|event| event.get("event").is_some_and(|name| name == "dataset_changed")) {
        let id = |key: &str| event.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let step = event.get("step").and_then(serde_json::Value::as_u64).unwrap_or_default();
        // A resume from the same checkpoint says the same again.
        let change = (step, line(id("from")), line(id("to")));
        if step <= model.step && !told.contains(&change) {
            let (_, from, to) = &change;
            writeln!(
                page,
                "\n**The data changed during training:** up to step {step} the rows came from data set `{from}`, from there \
                 on from `{to}`. Whoever trained the model accepted this (`--accept-dataset-change`), as is done after a \
                 take-down; what was taken out is listed in `removals.jsonl` of the new data set. The model has seen it \
                 before that step. The figures above are those of the last data set."
            )?;
            told.push(change);
        }
    }
    Ok(())
}

fn training(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    writeln!(page, "\n## Training\n")?;
    let began = match run.planned("/base_model") {
        Some(base) => {
            let name = base.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_owned();
            format!("the weights of `{}` (digest `{}`)", line(&name), run.planned("/base_weights").unwrap_or_default())
        }
        None => "fresh weights".to_owned(),
    };
    writeln!(page, "- Began with {began}.")?;
    writeln!(page, "- {} steps, {} target tokens.", model.step, model.tokens)?;
    if let (Some(rows), Some(len)) = (run.planned("/global_batch_rows"), run.planned("/sequence_len")) {
        writeln!(page, "- {rows} rows of {len} tokens a step; documents in a row do not see each other.")?;
    }
    if !run.plan.is_null() {
        let precision = run.planned("/precision").unwrap_or_default();
        writeln!(page, "- AdamW, learning rate {}; precision {precision}.", schedule(run))?;
    }
    if let (Some(first), Some(last)) = (run.steps.first(), run.steps.last())
        && let (Some(a), Some(b)) = (number(first, "loss"), number(last, "loss"))
    {
        writeln!(page, "- Training loss {a:.3} -> {b:.3} nats a token.")?;
    }
    match run.planned("/digest") {
        Some(digest) => writeln!(page, "- Plan `{digest}`."),
        None => Ok(()),
    }
}

fn evaluation(page: &mut String, model: &ModelFacts, run: &RunFacts) -> std::fmt::Result {
    writeln!(page, "\n## Evaluation\n")?;
    let of_step = |record: &&serde_json::Value| number(record, "step").is_some_and(|step| step <= model.step as f64);
    let last = run.evaluations.iter().rev().find(of_step);
    if let Some(last) = last {
        let step = number(last, "step").unwrap_or_default();
        writeln!(page, "Bits per byte on held-out documents at step {step}; lower is better.\n")?;
        writeln!(page, "| language | first | now |\n|---|---:|---:|")?;
        let first = run.evaluations.first().map(RunFacts::scores).unwrap_or_default();
        for (language, now) in RunFacts::scores(last) {
            let before = first.iter().find(|(other, _)| *other == language).map(|(_, bpb)| format!("{bpb:.3}"));
            writeln!(page, "| {} | {} | {now:.3} |", cell(&language), before.unwrap_or_default())?;
        }
    }
    match run.results.as_ref().filter(|results| results.model.digest == model.digest) {
        Some(results) => tasks(page, results),
        None if last.is_none() => writeln!(page, "None was made; `jazari eval` makes one."),
        None => Ok(()),
    }
}

/// Accuracies as a table.
pub(super) fn tasks(page: &mut String, results: &Results) -> std::fmt::Result {
    if results.tasks.is_empty() {
        return Ok(());
    }
    writeln!(page, "\nMultiple choice by log-likelihood:\n")?;
    writeln!(page, "| task | shots | metric | questions | value | standard error | guessing |")?;
    writeln!(page, "|---|---:|---|---:|---:|---:|---:|")?;
    for (name, task) in &results.tasks {
        for (metric, accuracy) in &task.metrics {
            writeln!(
                page,
                "| {} | {} | {} | {} | {:.3} | {:.3} | {:.3} |",
                cell(name),
                task.num_fewshot,
                metric.name(),
                accuracy.questions,
                accuracy.value,
                accuracy.stderr,
                task.chance
            )?;
        }
    }
    Ok(())
}

fn limits(page: &mut String, run: &RunFacts) -> std::fmt::Result {
    writeln!(page, "\n## Limits\n")?;
    writeln!(page, "- The model states what is likely after its data, not what is true. Check facts.")?;
    writeln!(page, "- It repeats prejudices of its sources, and may repeat passages of them word for word.")?;
    writeln!(page, "- Languages with little text above are known less well; figures by language say how well.")?;
    if run.data.streams().any(|stream| stream.licences.is_empty()) {
        writeln!(page, "- Licences of some sources are not recorded with the run.")?;
    }
    Ok(())
}

/// The Hub's code of a language: two letters where ISO 639-1 has them.
fn hub_language(label: &str) -> &str {
    let language = label.split('_').next().unwrap_or(label);
    match language {
        "ara" | "arb" => "ar",
        "fra" => "fr",
        "eng" => "en",
        "spa" => "es",
        other => other,
    }
}

fn language_name(label: &str) -> String {
    let (language, script) = label.split_once('_').unwrap_or((label, ""));
    let language = match language {
        "ary" => "Moroccan Darija",
        "ara" | "arb" => "Standard Arabic",
        "zgh" => "Standard Moroccan Tamazight",
        "shi" => "Tachelhit",
        "tzm" => "Central Atlas Tamazight",
        "rif" => "Tarifit",
        "mey" => "Hassaniya",
        "fra" => "French",
        "eng" => "English",
        "spa" => "Spanish",
        other => other,
    };
    let script = match script {
        "Arab" => "Arabic script",
        "Latn" => "Latin script",
        "Tfng" => "Tifinagh",
        other => other,
    };
    format!("{language} ({script})")
}

/// A YAML string in double quotes, which JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text without line ends.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Text of a table cell.
pub(super) fn cell(text: &str) -> String {
    line(text).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;
    use crate::card::data::{DataFacts, DatasetFacts, StreamFacts};

    fn facts(licence: &str) -> RunFacts {
        let licences = [(licence.to_owned(), 7)];
        let stream = |lang: &str| StreamFacts {
            lang: lang.into(),
            source: "doda".into(),
            documents: 7,
            bytes: 700,
            tokens: 200,
            licences: licences.clone().into(),
        };
        let streams = vec![stream("ary_Arab"), stream("ary_Latn"), stream("fra_Latn")];
        let dataset = DatasetFacts { path: "d".into(), id: "ab".into(), streams, licences: licences.clone().into() };
        RunFacts {
            plan: json!({"base_model": "who/base", "base_weights": "00", "sequence_len": 128, "global_batch_rows": 4}),
            evaluations: vec![
                json!({"step": 0, "val": {"ary_Arab": {"bpb": 3.0}}}),
                json!({"step": 9, "val": {"ary_Arab": {"bpb": 2.0}}}),
                json!({"step": 99, "val": {"ary_Arab": {"bpb": 1.0}}}),
            ],
            data: DataFacts { datasets: vec![dataset] },
            ..RunFacts::default()
        }
    }

    #[test]
    fn the_front_matter_is_yaml_with_the_hubs_names() {
        let card = render(&ModelFacts { name: "m".into(), step: 10, ..ModelFacts::default() }, &facts("CC0-1.0"));
        let front = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap().0;
        let yaml: serde_json::Value = serde_saphyr::from_str(front).unwrap();
        assert_eq!(yaml["language"], json!(["ary", "fr"]));
        assert_eq!((&yaml["license"], &yaml["base_model"]), (&json!("other"), &json!("who/base")));
        assert_eq!((&yaml["datasets"], &yaml["library_name"]), (&json!(["doda"]), &json!("transformers")));
        assert!(card.contains("| ary_Arab | 3.000 | 2.000 |"), "the evaluation is that of the exported step\n{card}");
        assert!(!card.contains("forbid commercial use"));
    }

    #[test]
    fn an_accepted_change_of_the_data_is_told_once() {
        let mut facts = facts("CC0-1.0");
        let change = |step: u64, to: &str| json!({"event": "dataset_changed", "step": step, "from": "aa", "to": to});
        facts.events = vec![change(5, "bb"), change(5, "bb"), change(50, "cc")];
        let card = render(&ModelFacts { step: 10, ..ModelFacts::default() }, &facts);
        assert_eq!(card.matches("The data changed during training").count(), 1, "{card}");
        assert!(card.contains("up to step 5 the rows came from data set `aa`, from there on from `bb`"), "{card}");
    }

    #[test]
    fn a_non_commercial_source_shows_and_names_do_not_break_the_page() {
        let mut facts = facts("CC-BY-NC-4.0");
        facts.data.datasets[0].streams[0].source = "a|b\n# c".into();
        facts.plan = json!({"base_model": "/abs/run/checkpoints/step-1"});
        let card = render(&ModelFacts { licence: Some("apache-2.0".into()), ..ModelFacts::default() }, &facts);
        assert!(card.contains("**Parts of the data forbid commercial use: `CC-BY-NC-4.0`.**"), "{card}");
        assert!(
            card.contains("| a\\|b # c |") && card.contains("license: \"apache-2.0\"") && !card.contains("base_model:")
        );
    }
}
