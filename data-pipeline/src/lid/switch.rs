//! Owns code switching inside a sentence of one script: which words are in which language; never sums documents.
//!
//! A Viterbi search over the words: the evidence of each word for each label, and a price for every change of label.

use super::judge::best_of;
use super::model::{Logits, MAX_LABELS, Model, WordScore};
use super::roles::Roles;
use super::words::Word;

/// Price of a change of label, in units of the logits of a word.
const SWITCH_PRICE: f32 = 4.5;
/// Share of the letters from which the language of the grammar is the label of the sentence, even as a minority.
const MATRIX_SHARE: f32 = 0.34;
/// What the path with both languages has to be better by than the language of the sentence alone, in the same units.
const LEAST_GAIN: f32 = 3.0;
/// By how much a word that is beyond doubt speaks for its language, in the same units.
const CLEAR_LEAD: f32 = 1.5;
/// What a marker word adds to its own label.
const MARKER_BONUS: f32 = 0.5;

/// A stretch of words with one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// Number of the label in its model.
    pub label: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Letters in it.
    pub letters: u32,
    /// Whether a word of another script stands right before.
    pub gap: bool,
}

/// The stretches of a run of words whose label as a whole is `best`; `gaps` tells which words follow one of another
/// script, where a stretch ends.
pub fn spans(
    (model, roles): (&Model, &Roles),
    (words, gaps): (&[(Word, WordScore, u32)], &[bool]),
    logits: &Logits,
    best: usize,
) -> Vec<Stretch> {
    let pair = (words.len() >= 3).then(|| candidates(model, roles, words, logits, best)).flatten();
    let path = match pair.map(|(host, guest)| (viterbi(model, words, host, guest), guest)) {
        Some(((path, gain), guest)) if best != guest || gain >= LEAST_GAIN => Some(path),
        _ => None,
    };
    let mut stretches: Vec<Stretch> = Vec::new();
    for (at, ((word, _, _), &gap)) in words.iter().zip(gaps).enumerate() {
        let label = path.as_ref().and_then(|path| path.get(at).copied()).unwrap_or(best);
        let letters = (word.end - word.start) as u32;
        match stretches.last_mut() {
            Some(last) if last.label == label && !gap => {
                last.end = word.end;
                last.letters += letters;
            }
            _ => stretches.push(Stretch { label, start: word.start, end: word.end, letters, gap }),
        }
    }
    stretches
}

/// The language that may take in words and the one they may come from, when both have evidence. Models whose labels
/// take in no others (Arabic, Tifinagh) have none.
fn candidates(
    model: &Model,
    roles: &Roles,
    words: &[(Word, WordScore, u32)],
    logits: &Logits,
    best: usize,
) -> Option<(usize, usize)> {
    let host = if roles.hosts.has(best) { best } else { roles.hosts.best(logits)? };
    let guest = if roles.guests.has(best) { best } else { guest_of(model, roles, words, host)? };
    if best != host && best != guest {
        return None;
    }
    // A sentence that is French and holds no marker that another language has for itself is French.
    let (of_host, of_guest) = (roles.own(host), roles.own(guest));
    if best == guest && !words.iter().any(|(_, _, mask)| mask & of_host != 0 && mask & of_guest == 0) {
        return None;
    }
    // Both need a word of their own that is beyond doubt.
    let is_clear =
        |a: usize, b: usize| words.iter().any(|(w, s, _)| w.end - w.start > 1 && lead(model, s, a, b) > CLEAR_LEAD);
    (is_clear(host, guest) && is_clear(guest, host)).then_some((host, guest))
}

/// The language of the foreign words: of those that can be one, the one with most evidence in the words that are least
/// of the host.
fn guest_of(model: &Model, roles: &Roles, words: &[(Word, WordScore, u32)], host: usize) -> Option<usize> {
    let evidence = |guest: usize| -> f32 { words.iter().map(|(_, s, _)| lead(model, s, guest, host).max(0.0)).sum() };
    roles.guests.iter().map(|guest| (guest, evidence(guest))).max_by(|a, b| a.1.total_cmp(&b.1)).map(|(guest, _)| guest)
}

/// By how much a word speaks for `a` rather than `b`.
fn lead(model: &Model, score: &WordScore, a: usize, b: usize) -> f32 {
    let of = |label: usize| f32::from(score.sums.get(label).copied().unwrap_or(0));
    model.scale * (of(a) - of(b)) * score.root
}

/// The best path, and by how much it is better than the guest alone.
fn viterbi(model: &Model, words: &[(Word, WordScore, u32)], host: usize, guest: usize) -> (Vec<usize>, f32) {
    let mut guest_alone = 0.0f32;
    let mut from_guest: Vec<[bool; 2]> = Vec::with_capacity(words.len());
    let (mut in_host, mut in_guest) = (0.0f32, 0.0f32);
    for (_, score, mask) in words {
        let lean = (lead(model, score, host, guest) + marker_lean(model, *mask, host, guest)).clamp(-4.0, 4.0);
        let (stay_host, stay_guest) = (in_host >= in_guest - SWITCH_PRICE, in_guest >= in_host - SWITCH_PRICE);
        let next_host = if stay_host { in_host } else { in_guest - SWITCH_PRICE };
        let next_guest = if stay_guest { in_guest } else { in_host - SWITCH_PRICE };
        from_guest.push([!stay_host, stay_guest]);
        (in_host, in_guest) = (next_host + lean, next_guest - lean);
        guest_alone -= lean;
    }
    let mut is_guest = in_guest > in_host;
    let mut path = Vec::with_capacity(words.len());
    for back in from_guest.iter().rev() {
        path.push(if is_guest { guest } else { host });
        is_guest = back[usize::from(is_guest)];
    }
    path.reverse();
    (path, in_host.max(in_guest) - guest_alone)
}

/// What the marker groups of a word say about two labels.
fn marker_lean(model: &Model, mask: u32, host: usize, guest: usize) -> f32 {
    let mut lean = 0.0;
    let mut rest = mask;
    while rest != 0 {
        let group = rest.trailing_zeros() as usize;
        if let Some(row) = model.markers.get(group * super::model::GROUP_FEATURES) {
            let of = |label: usize| row.get(label).copied().unwrap_or(0.0);
            lean += MARKER_BONUS * (of(host) - of(guest));
        }
        rest &= rest - 1;
    }
    lean
}

/// The label of a sentence: that of the language whose grammar it follows. Words taken in can be the longer part.
pub fn matrix_language(roles: &Roles, stretches: &[Stretch], best: usize) -> usize {
    if stretches.len() < 2 {
        return best;
    }
    let mut shares = [0f32; MAX_LABELS];
    let total: u32 = stretches.iter().map(|s| s.letters).sum();
    for stretch in stretches {
        if let Some(share) = shares.get_mut(stretch.label) {
            *share += stretch.letters as f32 / total.max(1) as f32;
        }
    }
    let host = stretches.iter().map(|s| s.label).find(|label| roles.hosts.has(*label));
    match host {
        Some(host) if shares.get(host).is_some_and(|share| *share >= MATRIX_SHARE) => host,
        _ => best_of(&shares),
    }
}
