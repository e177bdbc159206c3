//! Owns `jazari watch`: the loop between the files of a run, the keys and the screen; never touches the run.

mod course;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};

use self::course::Course;
use self::view::Chart;
use super::failure::{Exit, Failure, say};
use super::runs;
use crate::signals::StopFlag;

/// Longest wait for a key before the files are looked at again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Time between two looks at the files.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// A run directory, or a folder that holds some: the one that was written to last is shown; default: runs, else the
    /// folder you are in
    folder: Option<PathBuf>,
    /// Print the state once, as text; what happens as well where the output is no terminal
    #[arg(long)]
    once: bool,
}

/// Shows how a run goes on.
pub(super) fn watch(arguments: &WatchArguments) -> Result<Exit, Failure> {
    let default = || if Path::new("runs").is_dir() { "runs".into() } else { PathBuf::from(".") };
    let folder = arguments.folder.clone().unwrap_or_else(default);
    let root = runs::newest(&folder)?;
    let mut course = Course::new(root);
    course.refresh();
    if arguments.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        view::plain(&course).iter().for_each(|line| say(line));
        return Ok(Exit::Done);
    }
    let stop = StopFlag::install(false).map_err(Failure::failed)?;
    let mut terminal = ratatui::try_init().map_err(Failure::failed)?;
    let shown = show(&mut terminal, &mut course, &stop);
    ratatui::restore();
    shown.map_err(Failure::failed)?;
    Ok(Exit::Done)
}

fn show(terminal: &mut DefaultTerminal, course: &mut Course, stop: &StopFlag) -> std::io::Result<()> {
    let mut chart = Chart::default();
    let mut looked = Instant::now();
    while !stop.is_set() {
        terminal.draw(|frame| view::draw(frame, course, chart))?;
        // A key shows at once; the files are looked at now and then.
        while looked.elapsed() < REFRESH && !stop.is_set() {
            if !event::poll(PATIENCE)? {
                continue;
            }
            match event::read()? {
                Input::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Tab | KeyCode::Right => chart = chart.next(),
                    KeyCode::BackTab | KeyCode::Left => chart = chart.before(),
                    _ => continue,
                },
                Input::Resize(..) => {}
                _ => continue,
            }
            terminal.draw(|frame| view::draw(frame, course, chart))?;
        }
        looked = Instant::now();
        course.refresh();
    }
    Ok(())
}
