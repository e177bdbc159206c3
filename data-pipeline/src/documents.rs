//! Owns reading raw files as documents without preparing a dataset, for tokenizer training and evaluation; never applies
//! a licence gate, deduplicates or writes.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use crate::config::{Limits, OnDamage, SourceConfig};
use crate::document::{Document, id_to_hex};
use crate::licence::LicenceGate;
use crate::normalize::Normalize;
use crate::opt_out::OptOuts;
use crate::prepare::PrepareError;
use crate::prepare::admit::{Admission, Admitted, UNKNOWN_LANGUAGE};
use crate::rounds::{Reading, Step, read_all};
use crate::source::discover::discover;
use crate::source::{Chunk, SourceError};

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Text normalisation.
    pub normalize: Normalize,
    /// What a damaged file does.
    pub on_damage: OnDamage,
    /// Bounds on each file.
    pub limits: Limits,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSummary {
    /// Files read.
    pub files: u64,
    /// Records read, good or bad.
    pub rows: u64,
    /// Documents handed out.
    pub documents: u64,
    /// Records that were not, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Files that were damaged.
    pub damaged_files: u64,
    /// Files in other encodings than UTF-8, by its name.
    pub encodings: BTreeMap<String, u64>,
}

/// Hands every document of `sources` to `each`, in the order of the entries, files and rows, whatever the number of
/// threads. Rows without a language are handed out as `und_Zzzz`, rows without a licence as `unknown`.
///
/// # Errors
/// An input that cannot be read, as in a preparation; an error of `each`.
pub fn read_documents(
    sources: &[SourceConfig],
    options: &ReadOptions,
    stop: &AtomicBool,
    each: &mut dyn FnMut(Document) -> Result<(), PrepareError>,
) -> Result<ReadSummary, PrepareError> {
    let sources: Vec<SourceConfig> = sources
        .iter()
        .cloned()
        .map(|mut source| {
            source.lang.get_or_insert_with(|| UNKNOWN_LANGUAGE.to_owned());
            source.licence.get_or_insert_with(|| "unknown".to_owned());
            source
        })
        .collect();
    let files = discover(&sources)?;
    let admission = Admission {
        files: &files,
        normalize: options.normalize,
        gate: LicenceGate::new(&["*".to_owned()], true),
        opt_outs: OptOuts::default(),
        max_record_bytes: options.limits.max_record_bytes,
        roles: Vec::new(),
        curation: None,
    };
    let mut summary = ReadSummary::default();
    let mut rows_of_file = 0;
    let judge = |file: usize, chunk: &Chunk| admission.judge(file, chunk);
    read_all(&Reading::all(&files, &options.limits), stop, &judge, &mut |step| match step {
        Step::Chunk(admitted) => {
            let rows: u64 = admitted.labels.iter().map(|labels| labels.rows).sum();
            rows_of_file += rows;
            summary.rows += rows;
            summary.documents += admitted.documents.len() as u64;
            for (reason, count) in admitted.labels.iter().flat_map(|labels| &labels.dropped) {
                *summary.dropped.entry(reason.to_string()).or_default() += count;
            }
            hand_out(&admitted, each)
        }
        Step::End(end) => {
            let rows = std::mem::take(&mut rows_of_file);
            summary.files += 1;
            if let Some(encoding) = end.encoding {
                *summary.encodings.entry(encoding.name().to_owned()).or_default() += 1;
            }
            match end.damage {
                Some(SourceError::Damaged { path, byte, what, .. }) if options.on_damage == OnDamage::Error => {
                    Err(SourceError::Damaged { path, byte, what, rows }.into())
                }
                Some(SourceError::Damaged { .. }) => {
                    summary.damaged_files += 1;
                    Ok(())
                }
                Some(other) => Err(other.into()),
                None => Ok(()),
            }
        }
        Step::Position(_) => Ok::<(), PrepareError>(()),
    })?;
    Ok(summary)
}

fn hand_out(
    admitted: &Admitted,
    each: &mut dyn FnMut(Document) -> Result<(), PrepareError>,
) -> Result<(), PrepareError> {
    let mut rest = admitted.content.as_slice();
    for document in &admitted.documents {
        let (url, tail) = rest.split_at_checked(document.url_len as usize).unwrap_or((rest, &[]));
        let (text, tail) = tail.split_at_checked(document.text_len as usize).unwrap_or((tail, &[]));
        rest = tail;
        rest = rest.get(document.notes_len as usize..).unwrap_or_default();
        let Some(labels) = admitted.labels.get(document.labels) else { continue };
        let owned = |bytes| String::from_utf8_lossy(bytes).into_owned();
        each(Document {
            id: id_to_hex(&document.id),
            text: owned(text),
            lang: labels.lang.clone(),
            source: labels.source.clone(),
            licence: labels.licence.clone(),
            url: (!url.is_empty()).then(|| owned(url)),
            notes: None,
        })?;
    }
    Ok(())
}
