//! Owns what a self-test reports, row by row; never touches what is checked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use serde::Serialize;

use super::SelftestError;
use crate::signals::StopFlag;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What was promised holds.
    Ok,
    /// It does not.
    Miss,
    /// There was nothing to check.
    Absent,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Miss => "MISS",
            Self::Absent => "absent",
        })
    }
}

/// A number that was measured on the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it measures.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what; empty for a plain count.
    pub unit: &'static str,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (self.name, self.value);
        // Three digits that count; whole numbers stay whole.
        match value.abs() {
            _ if value.fract() == 0.0 => write!(f, "{name} {value:.0}")?,
            tiny if tiny < 1e-3 => write!(f, "{name} {value:.1e}")?,
            size => {
                let decimals = (2.0 - size.log10().floor()).clamp(0.0, 5.0) as usize;
                write!(f, "{name} {value:.decimals$}")?;
            }
        }
        if self.unit.is_empty() { Ok(()) } else { write!(f, " {}", self.unit) }
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was checked.
    pub check: String,
    /// What was found, in words; after a miss why, and what to do.
    pub result: String,
    /// What was measured.
    pub measured: Vec<Figure>,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

/// How far a self-test is.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A check of this name begins.
    Started(&'a str),
    /// A check is done.
    Done(&'a Row),
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Finding {
    result: String,
    measured: Vec<Figure>,
    verdict: Verdict,
    seconds: Option<f64>,
}

/// What a check found, or why it missed.
pub(super) type Outcome = Result<Finding, String>;

impl Finding {
    fn new(verdict: Verdict, result: String) -> Self {
        Self { result, measured: Vec::new(), verdict, seconds: None }
    }

    pub(super) fn ok(result: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, result.into())
    }

    pub(super) fn absent(result: impl Into<String>) -> Self {
        Self::new(Verdict::Absent, result.into())
    }

    /// Adds a figure.
    pub(super) fn with(mut self, name: &'static str, value: f64, unit: &'static str) -> Self {
        self.measured.push(Figure { name, value, unit });
        self
    }

    /// For what was measured in an earlier check: how long that took there.
    pub(super) fn lasting(self, seconds: f64) -> Self {
        Self { seconds: Some(seconds), ..self }
    }
}

/// Rows under construction.
pub(super) struct Table<'a> {
    rows: Vec<Row>,
    stop: StopFlag,
    observe: &'a mut dyn FnMut(Progress<'_>),
}

impl<'a> Table<'a> {
    pub(super) fn new(stop: StopFlag, observe: &'a mut dyn FnMut(Progress<'_>)) -> Self {
        Self { rows: Vec::new(), stop, observe }
    }

    /// Does one check and adds its row. A panic (a backend that does not answer) is a miss like any other.
    pub(super) fn check(&mut self, name: &str, body: impl FnOnce() -> Outcome) -> Result<(), SelftestError> {
        if self.stop.is_set() {
            return Err(SelftestError::Interrupted);
        }
        (self.observe)(Progress::Started(name));
        let start = Instant::now();
        let panicked = |_| Err("internal error, shown on standard error; please report it".to_owned());
        let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked);
        // A check that was stopped half-way says nothing about the machine.
        if self.stop.is_set() {
            return Err(SelftestError::Interrupted);
        }
        let Finding { result, measured, verdict, seconds } =
            outcome.unwrap_or_else(|why| Finding::new(Verdict::Miss, why));
        let seconds = seconds.unwrap_or_else(|| start.elapsed().as_secs_f64());
        let row = Row { check: name.to_owned(), result, measured, verdict, seconds };
        (self.observe)(Progress::Done(&row));
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn figures_show_three_digits() {
        let shown = |value, unit| Figure { name: "n", value, unit }.to_string();
        assert_eq!(shown(1234.5, "MB/s"), "n 1234 MB/s");
        assert_eq!(shown(12.345, "s"), "n 12.3 s");
        assert_eq!(shown(0.012345, "s"), "n 0.0123 s");
        assert_eq!(shown(0.000012, "%"), "n 1.2e-5 %");
        assert_eq!(shown(40.0, ""), "n 40");
        assert_eq!(shown(0.0, ""), "n 0");
        assert_eq!(shown(f64::NAN, "s"), "n NaN s");
    }

    #[test]
    fn misses_and_panics_are_rows_and_a_stop_ends_the_table() {
        let (stop, mut seen) = (StopFlag::default(), Vec::new());
        let mut observe = |event: Progress<'_>| seen.push(format!("{event:?}"));
        let mut table = Table::new(stop.clone(), &mut observe);
        table.check("a", || Ok(Finding::ok("fine").with("n", 1.0, "").lasting(7.0))).unwrap();
        table.check("b", || Err("broken; mend it".into())).unwrap();
        table.check("c", || Ok(Finding::absent("none"))).unwrap();
        table.check("d", || panic!("on purpose")).unwrap();
        let interrupted = table.check("e", || {
            stop.set();
            Err("half done".into())
        });
        assert!(matches!(interrupted, Err(SelftestError::Interrupted)));
        assert!(matches!(table.check("f", || Ok(Finding::ok(""))), Err(SelftestError::Interrupted)));
        let rows = table.into_rows();
        let verdicts: Vec<_> = rows.iter().map(|row| (row.check.as_str(), row.verdict)).collect();
        let expected = [("a", Verdict::Ok), ("b", Verdict::Miss), ("c", Verdict::Absent), ("d", Verdict::Miss)];
        assert_eq!(verdicts, expected);
        assert_eq!((rows[0].seconds, rows[1].result.as_str()), (7.0, "broken; mend it"));
        let json = serde_json::to_value(&rows[0]).unwrap();
        let expected = serde_json::json!({
            "check": "a", "result": "fine", "measured": [{ "name": "n", "value": 1.0, "unit": "" }],
            "verdict": "ok", "seconds": 7.0,
        });
        assert_eq!(json, expected);
        assert_eq!(seen.len(), 9, "{seen:?}");
    }
}
