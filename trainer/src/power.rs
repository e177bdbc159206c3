//! Owns when a run may draw power: hours of the day, and the answer of a command; never touches the run.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// A command that has not answered after this time is ended.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two looks at a command that is running.
const ANSWER_TICK: Duration = Duration::from_millis(20);
/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// When a run may draw power; part of the plan, of no consequence for its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerPlan {
    /// Hours of the day; empty: all.
    pub hours: Vec<Hours>,
    /// Time zone of the hours; `None`: the system's.
    pub time_zone: Option<String>,
    /// A shell command: exit code 0 says that there is power, 1 that there is none.
    pub command: Option<String>,
    /// Seconds between two questions.
    pub check_every: f64,
}

/// A stretch of the day, in minutes since midnight; past midnight when it ends before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    from: u16,
    until: u16,
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no stretch of the day; write it as `08:30-17:00`");
        let time = |text: &str| -> Option<u16> {
            let (hour, minute) = text.trim().split_once(':')?;
            let two_digits = |part: &str| (part.len() <= 2).then(|| part.parse::<u16>().ok()).flatten();
            let (hour, minute) = (two_digits(hour)?, two_digits(minute)?);
            (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
        };
        let (from, until) = text.split_once('-').ok_or_else(wrong)?;
        let (from, until) = (time(from).ok_or_else(wrong)?, time(until).ok_or_else(wrong)?);
        if from == until || from == DAY {
            return Err(format!("`{text}` is empty; leave `hours` out to train at all hours"));
        }
        Ok(Self { from, until })
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl std::fmt::Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Hours {
    fn contain(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

/// Finds a time zone: a name of the IANA database (`Africa/Casablanca`) or the system's.
///
/// # Errors
/// When the machine does not know it.
pub fn time_zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(name).map_err(|error| {
            format!(
                "this machine does not know the time zone `{name}` ({error}); write one such as `Africa/Casablanca`"
            )
        }),
    }
}

/// Watches the power of a run.
pub struct PowerWindow {
    plan: PowerPlan,
    zone: TimeZone,
    /// When the command was last asked, and whether it said that there is power.
    asked: Option<(Instant, bool)>,
    /// What is wrong with the command, until it is told.
    trouble: Option<String>,
}

impl PowerWindow {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the time zone is not known here.
    pub fn new(plan: &PowerPlan) -> Result<Self, String> {
        let zone = time_zone(plan.time_zone.as_deref())?;
        Ok(Self { plan: plan.clone(), zone, asked: None, trouble: None })
    }

    /// Why there is no power now; `None` while there is.
    pub fn closed(&mut self) -> Option<String> {
        let now = Timestamp::now().to_zoned(self.zone.clone());
        let minute = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).unwrap_or(0);
        if !self.plan.hours.is_empty() && !self.plan.hours.iter().any(|hours| hours.contain(minute)) {
            let hours: Vec<String> = self.plan.hours.iter().map(Hours::to_string).collect();
            return Some(format!("it is {:02}:{:02}, the hours are {}", minute / 60, minute % 60, hours.join(", ")));
        }
        let command = self.plan.command.clone()?;
        let due = self.asked.is_none_or(|(at, _)| at.elapsed().as_secs_f64() >= self.plan.check_every);
        if due {
            let before = self.asked.is_none_or(|(_, open)| open);
            let open = self.answer(&command).unwrap_or(before);
            self.asked = Some((Instant::now(), open));
        }
        let open = self.asked.is_none_or(|(_, open)| open);
        (!open).then(|| format!("`{command}` says that there is no power"))
    }

    /// What was wrong with the command since this was last asked.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Asks the command; `None` when it gives no answer, and then what it said before still counts.
    fn answer(&mut self, command: &str) -> Option<bool> {
        let told = match run(command) {
            Ok(status) => match status.code() {
                Some(0) => return Some(true),
                Some(1) => return Some(false),
                _ => format!("it ended with {status}"),
            },
            Err(error) => error,
        };
        self.trouble = Some(format!(
            "the command of `power_window` gave no answer ({told}); its last one counts: exit code 0 means power, 1 none"
        ));
        None
    }
}

fn run(command: &str) -> Result<ExitStatus, String> {
    let nothing = Stdio::null;
    let started = Command::new("sh").args(["-c", command]).stdin(nothing()).stdout(nothing()).stderr(nothing()).spawn();
    let mut child = started.map_err(|error| format!("it cannot be started: {error}"))?;
    let since = Instant::now();
    while since.elapsed() < ANSWER_TIMEOUT {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => std::thread::sleep(ANSWER_TICK),
            Err(error) => return Err(error.to_string()),
        }
    }
    end(&mut child);
    Err(format!("it took longer than {} seconds", ANSWER_TIMEOUT.as_secs()))
}

fn end(child: &mut Child) {
    // It may have ended meanwhile, which is as well.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn hours_are_read_and_cross_midnight() {
        let day: Hours = "08:30-17:00".parse().unwrap();
        assert_eq!([509, 510, 1019, 1020].map(|minute| day.contain(minute)), [false, true, true, false]);
        let night: Hours = "22:00-6:15".parse().unwrap();
        assert_eq!([1319, 1320, 0, 374, 375].map(|minute| night.contain(minute)), [false, true, true, true, false]);
        assert_eq!(night.to_string(), "22:00-06:15");
        let evening: Hours = "18:00-24:00".parse().unwrap();
        assert!(evening.contain(1439) && !evening.contain(0));
        for wrong in ["8-17", "08:30", "25:00-26:00", "08:60-09:00", "08:00-08:00", "24:00-06:00", "a:b-c:d", ""] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn zones_are_known_or_refused() {
        assert!(time_zone(Some("Mars/Olympus")).unwrap_err().contains("Africa/Casablanca"));
        assert!(time_zone(None).is_ok());
    }

    #[test]
    fn a_command_is_asked_and_silence_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let answer = dir.path().join("answer");
        let command = format!("exit $(cat {})", answer.display());
        let plan = PowerPlan { hours: Vec::new(), time_zone: None, command: Some(command), check_every: 1e-9 };
        let mut window = PowerWindow::new(&plan).unwrap();
        let mut says = |text: &str| {
            std::fs::write(&answer, text).unwrap();
            (window.closed().is_some(), window.take_trouble().is_some())
        };
        assert_eq!(says("0"), (false, false));
        assert_eq!(says("1"), (true, false));
        // Neither yes nor no: still closed, and somebody is told.
        assert_eq!(says("7"), (true, true));
        assert_eq!(says("0"), (false, false));
        assert_eq!(says("7"), (false, true));
    }
}
