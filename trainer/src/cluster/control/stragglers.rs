//! Owns the comparison of phase times among ranks; never touches clocks or connections.

use std::collections::VecDeque;

use super::frame::Phases;

/// Windows kept a rank.
const KEPT_WINDOWS: usize = 4;

/// A phase counts as slow above this multiple of the others' median.
const RATIO: f64 = 1.5;

/// And only when it costs at least this share of the window.
const SHARE: f64 = 0.05;

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for data.
    Data,
    /// Forward, backward, optimizer.
    Compute,
    /// Anything that is not measured: the others wait for this rank although its data and compute are as quick as
    /// theirs.
    Other,
}

impl Phase {
    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Compute => "compute",
            Self::Other => "other",
        }
    }
}

/// A rank that holds the others up.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Straggler {
    /// The rank.
    pub rank: usize,
    /// Its host.
    pub host: String,
    /// Where it loses time.
    pub phase: Phase,
    /// Seconds it spent there in the last window ([`Phase::Other`]: seconds the others waited longer than it).
    pub seconds: f64,
    /// Median of the others.
    pub median: f64,
    /// Steps done at the end of the window.
    pub step: u64,
}

/// One of the seconds of a window.
type Pick = fn(&Phases) -> f64;

/// The newest windows of every rank.
#[derive(Default)]
pub(super) struct Table {
    windows: Vec<VecDeque<Phases>>,
}

impl Table {
    pub(super) fn new(world: usize) -> Self {
        Self { windows: vec![VecDeque::new(); world] }
    }

    pub(super) fn insert(&mut self, rank: usize, phases: Phases) {
        let Some(windows) = self.windows.get_mut(rank) else { return };
        if windows.len() == KEPT_WINDOWS {
            windows.pop_front();
        }
        windows.push_back(phases);
    }

    /// The stragglers of the newest window that all ranks have reported.
    pub(super) fn stragglers(&self, hosts: &[String]) -> Vec<Straggler> {
        let Some(rows) = self.newest_common() else { return Vec::new() };
        let mut found = Vec::new();
        for (rank, own) in rows.iter().enumerate() {
            let others = |pick: Pick| {
                median(rows.iter().enumerate().filter(|(r, _)| *r != rank).map(|(_, p)| pick(p)).collect())
            };
            let window = own.data + own.compute + own.communication;
            let mut blame = |phase, seconds: f64, median| {
                let host = hosts.get(rank).cloned().unwrap_or_default();
                found.push(Straggler { rank, host, phase, seconds, median, step: own.step });
            };
            let measured: [(Phase, Pick); 2] = [(Phase::Data, |p| p.data), (Phase::Compute, |p| p.compute)];
            let mut explained = false;
            for (phase, pick) in measured {
                let (seconds, median) = (pick(own), others(pick));
                if seconds > RATIO * median && seconds - median >= SHARE * window {
                    blame(phase, seconds, median);
                    explained = true;
                }
            }
            // Communication is waiting for the slowest: who waits least is the one the others wait for.
            let busy = |p: &Phases| p.data + p.compute;
            let (wait, waits) = (own.communication, others(|p| p.communication));
            let hidden = (waits - wait) - (busy(own) - others(busy)).max(0.0);
            if !explained && waits > RATIO * wait && hidden >= SHARE * (window + hidden) {
                blame(Phase::Other, hidden, 0.0);
            }
        }
        found
    }

    fn newest_common(&self) -> Option<Vec<Phases>> {
        let first = self.windows.first().filter(|_| self.windows.len() > 1)?;
        first.iter().rev().find_map(|candidate| {
            self.windows.iter().map(|w| w.iter().find(|p| p.step == candidate.step).copied()).collect()
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(0.0);
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = values.len().checked_sub(2).and_then(|n| values.get(n / 2)).copied().unwrap_or(upper);
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[[f64; 3]]) -> Vec<(usize, Phase)> {
        let mut table = Table::new(rows.len());
        for (rank, &[data, compute, communication]) in rows.iter().enumerate() {
            table.insert(rank, Phases { step: 20, data, compute, communication });
        }
        let hosts = vec!["h".to_owned(); rows.len()];
        table.stragglers(&hosts).into_iter().map(|s| (s.rank, s.phase)).collect()
    }

    #[test]
    fn names_rank_and_phase() {
        let even = [0.1, 2.0, 0.5];
        assert_eq!(found(&[even, even, even]), []);
        assert_eq!(found(&[even, [0.1, 4.0, 0.1], even]), [(1, Phase::Compute)]);
        assert_eq!(found(&[[0.1, 2.0, 1.5], [0.1, 2.0, 1.5], [1.1, 2.0, 0.5]]), [(2, Phase::Data)]);
        assert_eq!(found(&[[0.1, 2.0, 2.5], [0.1, 2.0, 0.4], [0.1, 2.0, 2.5]]), [(1, Phase::Other)]);
        assert_eq!(found(&[[0.1, 2.0, 0.1], [0.1, 1.0, 1.1]]), [(0, Phase::Compute)]);
        // Three times the median, but nothing to speak of.
        assert_eq!(found(&[[0.01, 2.0, 0.5], [0.03, 2.0, 0.5], [0.01, 2.0, 0.5]]), []);
        assert_eq!(found(&[even]), []);
    }

    #[test]
    fn only_windows_that_all_have_reported_are_compared() {
        let mut table = Table::new(2);
        let slow = Phases { step: 20, data: 0.0, compute: 9.0, communication: 0.0 };
        table.insert(0, slow);
        assert!(table.stragglers(&[String::new(), String::new()]).is_empty());
        table.insert(1, Phases { compute: 1.0, communication: 8.0, ..slow });
        table.insert(1, Phases { step: 40, ..slow });
        assert_eq!(table.stragglers(&[String::new(), String::new()]).len(), 1);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5f64.to_bits());
        assert_eq!(median(Vec::new()).to_bits(), 0.0f64.to_bits());
    }
}
