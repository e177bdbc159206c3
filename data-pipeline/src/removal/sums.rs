//! Owns statistics and cards of a data set from which documents were removed; never touches shards.

use std::collections::HashMap;
use std::path::Path;

use super::rewrite::by_component;
use super::selection::Found;
use super::{RemovalError, RemovedDocument};
use crate::card;
use crate::dataset::{DataError, Dataset};
use crate::manifest::{Manifest, Split};
use crate::stats::{STATS_FILE, Stats, TAKEN_DOWN, count_words};
use crate::tokenizer::Tokenizer;

/// Rewrites the statistics and the cards that were taken over from `old` into `new`.
pub(super) fn write(
    old: &Path,
    new: &Path,
    before: &Manifest,
    after: &Manifest,
    found: &Found,
) -> Result<(), RemovalError> {
    // Data sets that were not prepared from files have none.
    if !new.join(STATS_FILE).exists() {
        return Ok(());
    }
    let mut stats = Stats::read(new)?;
    let words = words(old, before, found)?;
    subtract(&mut stats, found, &words);
    stats.sum();
    stats.reconcile().map_err(|what| DataError::Content {
        path: old.join(STATS_FILE),
        reason: format!("does not add up with the shards once documents are removed ({what})"),
    })?;
    let mut json = serde_json::to_vec_pretty(&stats).unwrap_or_default();
    json.push(b'\n');
    replace(&new.join(STATS_FILE), &json)?;
    for (name, page) in card::rerender(new, after, &stats)? {
        replace(&new.join(name), page.as_bytes())?;
    }
    Ok(())
}

/// A file that may share its bytes with the old data set's is replaced, not written into.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let failed = || DataError::io(path, "written");
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes).map_err(failed())?;
    std::fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed())?;
    std::fs::rename(&temporary, path).map_err(failed())
}

/// Words of each removed document, from its tokens. Chats are stored otherwise than their template writes them: theirs
/// are left to their share of the bytes.
fn words<'a>(old: &Path, manifest: &Manifest, found: &'a Found) -> Result<HashMap<&'a str, u64>, DataError> {
    let mut words = HashMap::new();
    if manifest.chat.is_some() {
        return Ok(words);
    }
    let dataset = Dataset::open(old)?;
    let tokenizer = Tokenizer::open(&dataset.tokenizer_file())?;
    for document in &found.documents {
        let components = match document.split {
            Split::Train => dataset.train(),
            Split::Validation => dataset.validation(),
        };
        let component = components.iter().find(|c| c.lang() == document.lang && c.source() == document.source);
        let Some(component) = component else { continue };
        let text = tokenizer.decode(&component.document(document.document)?, true)?;
        words.insert(document.id.as_str(), count_words(&text));
    }
    Ok(words)
}

fn subtract(stats: &mut Stats, found: &Found, words: &HashMap<&str, u64>) {
    for ((lang, source), documents) in by_component(found) {
        let Some(component) = stats.components.iter_mut().find(|c| c.lang == lang && c.source == source) else {
            continue;
        };
        for RemovedDocument { id, split, licence, tokens, text_bytes, .. } in documents {
            let tally = &mut component.tally;
            let share = tally.words * text_bytes / tally.bytes.max(1);
            let in_licence = stats.licences.get_mut(licence);
            let most = tally.words.min(in_licence.as_ref().map_or(u64::MAX, |licence| licence.words));
            let gone = words.get(id.as_str()).copied().unwrap_or(share).min(most);
            tally.documents = tally.documents.saturating_sub(1);
            tally.bytes = tally.bytes.saturating_sub(*text_bytes);
            tally.words -= gone;
            match split {
                Split::Train => tally.train_tokens = tally.train_tokens.saturating_sub(*tokens),
                Split::Validation => {
                    tally.validation_tokens = tally.validation_tokens.saturating_sub(*tokens);
                    tally.validation_documents = tally.validation_documents.saturating_sub(1);
                }
            }
            *tally.dropped.entry(TAKEN_DOWN.to_owned()).or_default() += 1;
            if let Some(count) = component.licences.get_mut(licence) {
                *count = count.saturating_sub(1);
            }
            component.licences.retain(|_, count| *count > 0);
            if let Some(sum) = in_licence {
                sum.documents = sum.documents.saturating_sub(1);
                sum.words -= gone;
            }
        }
    }
    stats.licences.retain(|_, sum| sum.documents > 0);
}
