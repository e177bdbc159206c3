//! Owns the lines of the table that `scripts/faults.sh` prints; never touches what is measured.
#![allow(dead_code)]

use std::io::Write;

/// How many faults of the main kind a test does; the others are in proportion.
pub fn faults() -> usize {
    std::env::var("JAZARI_CLUSTER_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

/// What became of all faults of a kind.
#[derive(Default)]
pub struct Row {
    /// How many.
    pub count: usize,
    /// What did not end in time.
    pub hangs: Vec<String>,
    /// Checkpoints that were there before and not afterwards; `None` where none are at stake.
    pub lost: Option<Vec<String>>,
    /// Where somebody else was named, or nobody.
    pub wrong: Vec<String>,
    /// Seconds from the fault until the survivors named the rank.
    pub named: Vec<f64>,
    /// Seconds from the start of the processes after the fault until the first step was done.
    pub resumed: Vec<f64>,
    /// Whether the bits at the end are those of an undisturbed run, where there is an end.
    pub same_bits: Option<bool>,
}

impl Row {
    /// Adds another row to this one.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.hangs.extend(other.hangs.iter().cloned());
        self.wrong.extend(other.wrong.iter().cloned());
        self.named.extend(&other.named);
        self.resumed.extend(&other.resumed);
        if let Some(lost) = &other.lost {
            self.lost.get_or_insert_default().extend(lost.iter().cloned());
        }
    }

    /// Writes the line and fails if anything was wrong.
    pub fn finish(&self, what: &str) {
        self.print(what);
        let bad = |list: &[String]| list.iter().map(|text| format!("\n{text}")).collect::<String>();
        assert!(self.hangs.is_empty(), "{what}: hangs:{}", bad(&self.hangs));
        let lost = self.lost.clone().unwrap_or_default();
        assert!(lost.is_empty(), "{what}: lost checkpoints:{}", bad(&lost));
        assert!(self.wrong.is_empty(), "{what}: wrong ranks named:{}", bad(&self.wrong));
        assert_ne!(self.same_bits, Some(false), "{what}: other bits");
    }

    /// Writes the line.
    pub fn print(&self, what: &str) {
        let number = |list: &[String]| list.len().to_string();
        let cells = [
            what.to_owned(),
            self.count.to_string(),
            number(&self.hangs),
            self.lost.as_deref().map_or("–".to_owned(), number),
            number(&self.wrong),
            percentiles(&self.named),
            percentiles(&self.resumed),
            self.same_bits.map_or("–", |same| if same { "yes" } else { "NO" }).to_owned(),
        ];
        // The test harness may have begun a line of its own.
        let line = format!("\n| {} |\n", cells.join(" | "));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Median, 99th percentile and maximum.
fn percentiles(times: &[f64]) -> String {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let rank = |part: f64| ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1;
    let at = |part: f64| times.get(rank(part)).copied().unwrap_or(f64::NAN);
    if times.is_empty() { "–".to_owned() } else { format!("{:.2} / {:.2} / {:.2}", at(0.5), at(0.99), at(1.0)) }
}
