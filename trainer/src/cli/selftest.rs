//! Owns `jazari selftest`: arguments, progress, the table; never touches the checks themselves.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::failure::{Exit, Failure, note, say};
use super::progress::StageProgress;
use super::train::end_process;
use crate::assembly::Callbacks;
use crate::cluster::ClusterError;
use crate::cluster::place::{Place, PlaceFlags};
use crate::launch;
use crate::selftest::{self, PROCESSES, Progress, RANK_COMMAND, Row, SelftestError, Setup, Verdict, WorkFolder};
use crate::signals::StopFlag;

/// Widest columns of words; longer texts go on in the next line.
const RESULT_WIDTH: usize = 46;
const MEASURED_WIDTH: usize = 36;
/// The default takes no more processes than this, however many cores there are.
const MOST_BY_DEFAULT: usize = 4;

#[derive(Debug, Args)]
pub(super) struct SelftestArguments {
    /// Processes in the checks of the cluster; default: one a core, at least 2 and at most 4
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Print one JSON object a check
    #[arg(long)]
    json: bool,
    /// Work in this new or empty folder and keep it: its disk is measured, logs and runs stay for a look
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Checks this machine.
pub(super) fn selftest(arguments: &SelftestArguments) -> Result<Exit, Failure> {
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let processes = arguments.processes.unwrap_or_else(|| cores.clamp(*PROCESSES.start(), MOST_BY_DEFAULT));
    if !PROCESSES.contains(&processes) {
        let (least, most) = PROCESSES.into_inner();
        return Err(Failure::usage(format!("--processes {processes}: write a number between {least} and {most}")));
    }
    let program = std::env::current_exe().map_err(Failure::failed)?;
    // Before the first write, so that a signal never leaves the work folder behind.
    let stop = StopFlag::install(true).map_err(Failure::failed)?;
    let folder = match &arguments.keep {
        Some(path) => WorkFolder::kept(path).map_err(Failure::usage)?,
        None => WorkFolder::temporary().map_err(Failure::usage)?,
    };
    let setup = Setup { program, processes, folder: folder.path().to_owned(), stop };
    let mut progress = StageProgress::new();
    let mut observe = |event: Progress<'_>| match event {
        Progress::Started(name) => progress.stage(&format!("selftest: {name}"), None),
        Progress::Done(row) => {
            progress.end();
            if arguments.json {
                serde_json::to_string(row).into_iter().for_each(|line| say(&line));
            }
        }
    };
    let rows = selftest::run(&setup, &mut observe);
    progress.end();
    let rows = rows.map_err(Failure::from)?;
    let missed = rows.iter().filter(|row| row.verdict == Verdict::Miss).count();
    if !arguments.json {
        table(&rows).iter().for_each(|line| say(line));
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("{} checks, {missed} missed, in {seconds:.1} s with up to {processes} processes", rows.len()));
    }
    if arguments.keep.is_some() {
        note(&format!("work folder: {}", folder.path().display()));
    }
    Ok(if missed == 0 { Exit::Done } else { Exit::Failed })
}

/// One process of the collectives' check; started by `jazari selftest` only.
pub(super) fn rank() -> Result<Exit, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    launch::tie_to_supervisor(&env).map_err(Failure::failed)?;
    let place = Place::find(&PlaceFlags::default(), &env).map_err(Failure::usage)?;
    if place.is_alone() {
        return Err(Failure::usage(format!("`jazari {RANK_COMMAND}` is a part of `jazari selftest`; run that")));
    }
    let on_fatal = Box::new(|error: &ClusterError| {
        note(&format!("error: {error}"));
        end_process(Exit::from(error));
    });
    let callbacks = Callbacks { on_refused: &|line| note(&format!("warning: {line}")), on_fatal };
    selftest::rank(&place, &say, callbacks).map_err(Failure::from)?;
    Ok(Exit::Done)
}

/// The lines of the table.
fn table(rows: &[Row]) -> Vec<String> {
    let head = ["check", "result", "measured", "verdict", "seconds"].map(|name| vec![name.to_owned()]);
    let cells = rows.iter().map(|row| {
        let figures: Vec<_> = row.measured.iter().map(ToString::to_string).collect();
        [
            vec![row.check.clone()],
            wrap(row.result.split_whitespace(), " ", RESULT_WIDTH),
            wrap(figures.iter().map(String::as_str), ", ", MEASURED_WIDTH),
            vec![row.verdict.to_string()],
            vec![format!("{:.1}", row.seconds)],
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(cells).collect();
    let width = |cell: &[String]| cell.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut widths = [0; 5];
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = width(cell).max(*widest);
        }
    }
    let mut lines = Vec::new();
    for row in &rows {
        for at in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let cells = row.iter().zip(widths).map(|(cell, width)| {
                let text = cell.get(at).map_or("", String::as_str);
                format!("{text:<width$}")
            });
            lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
        }
    }
    lines
}

/// Fills lines with parts; one that is wider than a line stands alone.
fn wrap<'a>(parts: impl Iterator<Item = &'a str>, between: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + between.len() + part.chars().count() <= width => {
                line.push_str(between);
                line.push_str(part);
            }
            Some(line) => {
                line.push_str(between.trim_end());
                lines.push(part.to_owned());
            }
            None => lines.push(part.to_owned()),
        }
    }
    lines
}

impl From<SelftestError> for Failure {
    fn from(error: SelftestError) -> Self {
        match error {
            SelftestError::Interrupted => Self::failed(error),
            SelftestError::Folder(_) => Self::usage(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selftest::Figure;

    #[test]
    fn long_texts_go_on_in_the_next_line() {
        assert_eq!(wrap("one two three".split_whitespace(), " ", 7), ["one two", "three"]);
        assert_eq!(wrap(["a 1", "b 2", "c 3"].into_iter(), ", ", 8), ["a 1, b 2,", "c 3"]);
        assert_eq!(wrap("overlong x".split_whitespace(), " ", 4), ["overlong", "x"]);
        assert!(wrap("".split_whitespace(), " ", 4).is_empty());
    }

    #[test]
    fn columns_are_aligned() {
        let row = |check: &str, words: usize, verdict| Row {
            check: check.into(),
            result: "word ".repeat(words),
            measured: vec![Figure { name: "write", value: 12.0, unit: "MB/s" }],
            verdict,
            seconds: 1.25,
        };
        let lines = table(&[row("disk", 1, Verdict::Ok), row("commit", 12, Verdict::Miss)]);
        assert_eq!(lines.len(), 4);
        let column = |line: &str, text: &str| line.find(text);
        assert_eq!(lines.first().and_then(|l| column(l, "verdict")), lines.get(1).and_then(|l| column(l, "ok")));
        assert_eq!(lines.first().and_then(|l| column(l, "verdict")), lines.get(2).and_then(|l| column(l, "MISS")));
        assert!(lines.get(3).is_some_and(|line| line.trim() == "word word word"), "{lines:?}");
        assert!(lines.get(1).is_some_and(|line| line.ends_with("1.2")), "{lines:?}");
    }
}
