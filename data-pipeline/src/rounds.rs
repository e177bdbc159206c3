//! Owns reading files in rounds: while one round of chunks is judged on all threads, the next one is read; never knows
//! what a judgement is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::config::Limits;
use crate::source::discover::InputFile;
use crate::source::{Chunk, Feed, FileEnd, Item, SourceError};

/// Bytes of rows that each thread gets in a round.
pub(crate) const ROUND_BYTES_PER_THREAD: usize = 4 * 1024 * 1024;
/// Chunks of a round at most; with very small files a round ends here.
const ROUND_CHUNKS: usize = 4096;

/// What is read, and in which bites.
pub(crate) struct Reading<'a> {
    /// All files.
    pub files: &'a [InputFile],
    /// Bounds on each file.
    pub limits: &'a Limits,
    /// Of all files, those to read.
    pub range: Range<usize>,
    /// The first row to hand out, when not all of the first file is wanted.
    pub first_row: u64,
    /// Bytes of rows in a round at most.
    pub round_bytes: usize,
}

impl<'a> Reading<'a> {
    /// Everything.
    pub fn all(files: &'a [InputFile], limits: &'a Limits) -> Reading<'a> {
        Reading { files, limits, range: 0..files.len(), first_row: 1, round_bytes: usize::MAX }
    }
}

/// The stop flag was raised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopped;

/// What a round brings, in file order.
pub(crate) enum Step<T> {
    /// A judged chunk.
    Chunk(T),
    /// A file's end.
    End(FileEnd),
    /// Stored bytes read so far; everything before has been handed out.
    Position(u64),
}

struct Round {
    items: Vec<Item>,
    /// Why reading stopped after `items`.
    failure: Option<SourceError>,
    position: u64,
}

fn next_round(feed: &mut Feed<'_>, bytes: usize, reading: &Reading<'_>) -> Round {
    let (mut items, mut held) = (Vec::new(), 0);
    let mut failure = None;
    while held < bytes && items.len() < ROUND_CHUNKS {
        match feed.next() {
            Ok(Some(Item::Chunk { file, chunk })) if file == reading.range.start && reading.first_row > 1 => {
                if let Some(chunk) = chunk.starting_at(reading.first_row) {
                    held += chunk.len_bytes();
                    items.push(Item::Chunk { file, chunk });
                }
            }
            Ok(Some(item)) => {
                if let Item::Chunk { chunk, .. } = &item {
                    held += chunk.len_bytes();
                }
                items.push(item);
            }
            Ok(None) => break,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    Round { items, failure, position: feed.stored_bytes() }
}

/// Reads the files. `take` sees everything in file order, whatever the number of threads.
///
/// # Errors
/// A file that cannot be read, the stop flag, or an error of `take`.
pub(crate) fn read_all<T: Send, E: From<SourceError> + From<Stopped>>(
    reading: &Reading<'_>,
    stop: &AtomicBool,
    judge: &(dyn Fn(usize, &Chunk) -> T + Sync),
    take: &mut dyn FnMut(Step<T>) -> Result<(), E>,
) -> Result<(), E> {
    let mut feed = Feed::new(reading.files, reading.limits, reading.range.clone());
    let bytes = (ROUND_BYTES_PER_THREAD * rayon::current_num_threads()).min(reading.round_bytes);
    let mut round = next_round(&mut feed, bytes, reading);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
        let Round { items, failure, position } = round;
        let last = failure.is_some() || items.is_empty();
        let judge_all = || -> Vec<Step<T>> {
            items
                .into_par_iter()
                .map(|item| match item {
                    Item::Chunk { file, chunk } => Step::Chunk(judge(file, &chunk)),
                    Item::End(end) => Step::End(end),
                })
                .collect()
        };
        let (steps, next) = if last {
            (judge_all(), None)
        } else {
            let (steps, next) = rayon::join(judge_all, || next_round(&mut feed, bytes, reading));
            (steps, Some(next))
        };
        for step in steps {
            take(step)?;
        }
        take(Step::Position(position))?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        match next {
            Some(next) => round = next,
            None => return Ok(()),
        }
    }
}
