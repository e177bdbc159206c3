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
/// Three rounds are under way at a time: one is taken by the calling thread, while the next is judged on all threads and the
/// one after it is read. So one large file keeps all threads busy, and what `take` does by itself costs them nothing.
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
    let mut judged = Vec::new();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped.into());
        }
        let Round { items, failure, position } = round;
        let last = failure.is_some() || items.is_empty();
        let (mut steps, mut next) = (Vec::new(), None);
        rayon::in_place_scope(|scope| {
            let (feed, steps, next) = (&mut feed, &mut steps, &mut next);
            scope.spawn(move |_| {
                let read = || (!last).then(|| next_round(feed, bytes, reading));
                (*steps, *next) = rayon::join(|| judge_all(items, judge), read);
            });
            std::mem::take(&mut judged).into_iter().try_for_each(&mut *take)
        })?;
        steps.push(Step::Position(position));
        match next {
            Some(next) => (round, judged) = (next, steps),
            None => {
                steps.into_iter().try_for_each(take)?;
                return failure.map_or(Ok(()), |error| Err(error.into()));
            }
        }
    }
}

fn judge_all<T: Send>(items: Vec<Item>, judge: &(dyn Fn(usize, &Chunk) -> T + Sync)) -> Vec<Step<T>> {
    items
        .into_par_iter()
        .map(|item| match item {
            Item::Chunk { file, chunk } => Step::Chunk(judge(file, &chunk)),
            Item::End(end) => Step::End(end),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::SourceConfig;
    use crate::prepare::PrepareError;
    use crate::source::discover::discover;

    /// One file of several chunks.
    fn large_file(dir: &std::path::Path) -> Vec<InputFile> {
        let path = dir.join("a.jsonl");
        let line = format!("{{\"text\": \"{}\"}}\n", "salam ".repeat(100));
        std::fs::write(&path, line.repeat(8 << 20 >> 9)).unwrap();
        discover(&[SourceConfig::at(path.to_str().unwrap())]).unwrap()
    }

    #[test]
    fn the_next_round_of_a_file_is_judged_while_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (files, limits) = (large_file(dir.path()), Limits::default());
        let reading = Reading { round_bytes: 1, ..Reading::all(&files, &limits) };
        let (started, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let judge = |_: usize, chunk: &Chunk| {
            started.fetch_add(1, Ordering::SeqCst);
            chunk.next_row()
        };
        let mut rows = Vec::new();
        let mut overlapped = 0;
        read_all(&reading, &AtomicBool::new(false), &judge, &mut |step| {
            if let Step::Chunk(next_row) = step {
                rows.push(next_row);
                let number = taken.fetch_add(1, Ordering::SeqCst) + 1;
                let patience = Instant::now();
                // The last round has none after it, and waits in vain.
                while started.load(Ordering::SeqCst) <= number && patience.elapsed() < Duration::from_secs(2) {
                    std::thread::yield_now();
                }
                overlapped += usize::from(started.load(Ordering::SeqCst) > number);
            }
            Ok::<(), PrepareError>(())
        })
        .unwrap();
        assert!(rows.len() > 4 && rows.is_sorted(), "{rows:?}");
        assert_eq!(overlapped, rows.len() - 1);
    }

    #[test]
    fn an_error_and_the_stop_flag_end_it() {
        let dir = tempfile::tempdir().unwrap();
        let (files, limits) = (large_file(dir.path()), Limits::default());
        let reading = Reading { round_bytes: 1, ..Reading::all(&files, &limits) };
        let judge = |_: usize, chunk: &Chunk| chunk.next_row();
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let stopped = read_all(&reading, &stop, &judge, &mut |_| {
            steps += 1;
            stop.store(true, Ordering::Relaxed);
            Ok::<(), PrepareError>(())
        });
        assert!(stopped.is_err() && steps < 6, "{steps}");
        let failed = read_all(&reading, &AtomicBool::new(false), &judge, &mut |_| {
            Err::<(), PrepareError>(PrepareError::Interrupted { stage: "read" })
        });
        assert!(matches!(failed, Err(PrepareError::Interrupted { .. })));
    }
}
