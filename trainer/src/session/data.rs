//! Owns what the start of a run makes of its data set: packing, facts for the plan, the order of rows; never writes.

use data_pipeline::chat::config::ExcessLength;
use data_pipeline::dataset::{Component, DataError, Dataset};
use data_pipeline::order::{Order, Stream};

use super::SessionError;
use crate::config::plan::ChatPlan;
use crate::config::raw::SamplePacking;
use crate::config::{ComponentFacts, DatasetFacts, Note, Plan, RawConfig};

/// The data set with its texts packed as the config says.
pub(super) fn packed(dataset: Dataset, raw: &RawConfig, notes: &mut Vec<Note>) -> Result<Dataset, SessionError> {
    if raw.sample_packing != Some(SamplePacking::BestFit) {
        return Ok(dataset);
    }
    if dataset.manifest().chat.is_some() {
        let message = "`sample_packing: best_fit` has no effect on chats: their samples are always packed whole";
        return Err(raw.places.invalid("sample_packing", message, "delete the line").into());
    }
    let dataset = dataset.with_best_fit(raw.sequence_len)?;
    if let Some((counts, _)) = dataset.best_fit() {
        let text = format!(
            "{} documents in {} rows, {:.2} % of their places empty; {} are longer than a row and cut",
            counts.documents,
            counts.rows,
            100.0 * counts.idle_share(),
            counts.cut
        );
        notes.push(raw.places.note("sample_packing", text));
    }
    Ok(dataset)
}

/// How samples fill rows, in words; `None` of texts.
pub(super) fn packing_note(
    dataset: &Dataset,
    sequence_len: usize,
    excess: ExcessLength,
) -> Result<Option<String>, DataError> {
    let Some(counts) = dataset.packing(sequence_len, excess)? else { return Ok(None) };
    let share = 100.0 * counts.tokens as f64 / (counts.rows.max(1) * sequence_len as u64) as f64;
    Ok(Some(format!(
        "{} samples of up to {} tokens in {} rows, {share:.0} % of their places filled; {} truncated, {} dropped",
        counts.samples, counts.longest, counts.rows, counts.truncated, counts.dropped
    )))
}

/// What a plan needs to know of a data set.
pub(super) fn facts(dataset: &Dataset, sequence_len: usize, excess: ExcessLength) -> DatasetFacts {
    let components = |components: &[Component]| {
        let facts = |c: &Component| ComponentFacts {
            lang: c.lang().to_owned(),
            source: c.source().to_owned(),
            tokens: c.num_tokens(),
            rows: c.num_rows(sequence_len),
        };
        components.iter().map(facts).collect()
    };
    let manifest = dataset.manifest();
    DatasetFacts {
        id: dataset.id().to_owned(),
        vocab_size: manifest.tokenizer.vocab_size,
        bos: manifest.tokenizer.bos_id,
        eos: Some(manifest.tokenizer.eos_id),
        pad: manifest.tokenizer.pad_id,
        train: components(dataset.train()),
        validation: components(dataset.validation()),
        bytes: manifest.shards.iter().flat_map(|s| s.files.values()).map(|f| f.bytes).sum(),
        chat: manifest.chat.as_ref().map(|chat| ChatPlan {
            kind: chat.kind,
            excess,
            end_of_turn: chat.end_of_turn_ids.clone(),
        }),
        parts: dataset.parts().into_iter().map(|part| (part.id, part.streams)).collect(),
        best_fit: dataset.best_fit().map(|(_, digest)| digest),
    }
}

/// The order of training rows that a plan describes.
pub(super) fn order(plan: &Plan, dataset: &Dataset) -> Result<Order, SessionError> {
    let streams = match plan.mixture_spec().names_licences() {
        true => dataset.licensed_streams(plan.sequence_len)?,
        false => dataset.streams(plan.sequence_len),
    };
    order_of(plan, &streams)
}

/// [`order`] from what it needs to know of the streams.
pub(crate) fn order_of(plan: &Plan, streams: &[Stream]) -> Result<Order, SessionError> {
    Ok(Order::new(streams, &plan.mixture_spec(), plan.total_rows(), plan.seed)?)
}
