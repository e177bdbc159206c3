//! Owns the evidence about lost ranks and who is to blame; never touches connections or clocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::error::{Cause, Verdict};

use super::frame::Claim;
use super::standing::{Peer, Stuck};

/// How long evidence is collected before anybody is blamed.
pub(super) const SETTLE: Duration = Duration::from_millis(150);

/// How long the control connection of a rank may outlive its data connections: a process that is being torn down
/// closes one after the other.
pub(super) const PATIENCE: Duration = Duration::from_millis(1000);

/// Something that went wrong.
#[derive(Debug, Clone)]
pub(super) enum Evidence {
    /// The control connection of a rank closed without a goodbye.
    Closed { rank: usize, why: String },
    /// A rank said that it failed.
    Failed { rank: usize, message: String },
    /// A rank said something about another.
    Claim { by: usize, claim: Claim },
    /// A rank was not heard for too long.
    Silent,
    /// Ranks have been waiting for another for too long.
    Stuck,
    /// A rank lost rank 0 and left.
    Concluded(Verdict),
}

/// Who is to blame, for what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) rank: usize,
    pub(super) cause: Cause,
    /// What the others were doing, where the evidence itself tells.
    pub(super) during: Option<String>,
    pub(super) detail: String,
}

impl Finding {
    fn new(rank: usize, cause: Cause, detail: String) -> Self {
        Self { rank, cause, during: None, detail }
    }
}

/// What the evidence amounts to.
#[derive(Debug, PartialEq)]
pub(super) enum Ruling {
    /// Look again later.
    Wait,
    /// It was nothing.
    Dismissed,
    /// Somebody is to blame.
    Blame(Finding),
    /// Somebody else has ruled already.
    Adopt(Verdict),
}

/// All evidence since something first went wrong, in order of arrival.
#[derive(Default)]
pub(super) struct Docket {
    opened: Option<Instant>,
    entries: Vec<Evidence>,
}

impl Docket {
    /// Files a piece of evidence; `true` when it is the first.
    pub(super) fn file(&mut self, evidence: Evidence, now: Instant) -> bool {
        let first = self.opened.is_none();
        self.opened.get_or_insert(now);
        self.entries.push(evidence);
        first
    }

    /// When to rule next.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let opened = self.opened?;
        let settled = opened + SETTLE;
        Some(if now < settled { settled } else { now + SETTLE / 3 })
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Forgets everything.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// Rules. `silent` and `stuck` are who is silent or stuck now: such evidence can turn out to be outdated.
    pub(super) fn rule(
        &self,
        peers: &[Peer],
        now: Instant,
        silent: Option<(usize, Duration)>,
        stuck: Option<Stuck>,
    ) -> Ruling {
        if let Some(verdict) = self.entries.iter().find_map(|e| match e {
            Evidence::Concluded(verdict) => Some(verdict.clone()),
            _ => None,
        }) {
            return Ruling::Adopt(verdict);
        }
        let Some(opened) = self.opened else { return Ruling::Dismissed };
        if now.duration_since(opened) < SETTLE {
            return Ruling::Wait;
        }
        if let Some(finding) = self.first_hand(false).or_else(|| self.disagreement()) {
            return Ruling::Blame(finding);
        }
        // Who is silent as well needs no patience: nothing more will come from it.
        let is_silent = |finding: &Finding| silent.is_some_and(|(rank, _)| rank == finding.rank);
        let claimed = self.claimed(peers).filter(|(finding, left)| *left || !is_silent(finding));
        if let Some((finding, left)) = claimed {
            // The control connection of a crashing process closes any moment now, and says more.
            let patience = if left { SETTLE } else { PATIENCE };
            return if now.duration_since(opened) < patience { Ruling::Wait } else { Ruling::Blame(finding) };
        }
        if let Some(finding) = self.first_hand(true) {
            return Ruling::Blame(finding);
        }
        if let Some((rank, quiet)) = silent {
            let detail = format!("nothing was heard for {:.1} s", quiet.as_secs_f64());
            return Ruling::Blame(Finding::new(rank, Cause::Silent, detail));
        }
        stuck.map_or(Ruling::Dismissed, |s| {
            let during = Some(s.during);
            Ruling::Blame(Finding { rank: s.rank, cause: Cause::Stuck, during, detail: s.detail })
        })
    }

    /// The first rank that failed or whose control connection closed. One that had itself reported another rank left
    /// because of that one, and counts only if `all`.
    fn first_hand(&self, all: bool) -> Option<Finding> {
        let mut reporters = Vec::new();
        let mut found = None;
        for evidence in &self.entries {
            match evidence {
                Evidence::Claim { by, .. } => reporters.push(*by),
                Evidence::Failed { rank, message } => {
                    found = Some(Finding::new(*rank, Cause::Failed, message.clone()));
                }
                Evidence::Closed { rank, why } if all || !reporters.contains(rank) => {
                    let detail = format!("its control connection closed without a farewell ({why})");
                    found = Some(Finding::new(*rank, Cause::Died, detail));
                }
                _ => {}
            }
            if found.is_some() {
                break;
            }
        }
        // A rank that says why it fails may be seen to close first.
        let rank = found.as_ref()?.rank;
        let confession = self.entries.iter().find_map(|e| match e {
            Evidence::Failed { rank: r, message } if *r == rank => Some(message.clone()),
            _ => None,
        });
        confession.map(|message| Finding::new(rank, Cause::Failed, message)).or(found)
    }

    /// The first rank that holds something else than most.
    fn disagreement(&self) -> Option<Finding> {
        let mut held: BTreeMap<usize, &str> = BTreeMap::new();
        let mut named: BTreeMap<usize, (usize, &Claim)> = BTreeMap::new();
        for evidence in &self.entries {
            if let Evidence::Claim { by, claim } = evidence
                && claim.cause == Cause::Disagrees
            {
                let entry = named.entry(claim.rank).or_insert((0, claim));
                entry.0 += 1;
                if claim.mine != claim.theirs {
                    held.insert(*by, &claim.mine);
                    held.insert(claim.rank, &claim.theirs);
                }
            }
        }
        if held.is_empty() {
            // A claim without both values: the rank that most name, the lowest of several.
            let (rank, (_, claim)) = named.iter().min_by_key(|(rank, (count, _))| (usize::MAX - count, **rank))?;
            return Some(Finding::new(*rank, Cause::Disagrees, claim.detail.clone()));
        }
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (rank, text) in &held {
            let entry = counts.entry(text).or_insert((0, *rank));
            entry.0 += 1;
        }
        // What most hold is right; where numbers are equal, what the lowest rank holds.
        let (right, (_, witness)) = counts.iter().min_by_key(|(_, (count, lowest))| (usize::MAX - count, *lowest))?;
        let (rank, wrong) = held.iter().find(|(_, text)| *text != right)?;
        Some(Finding::new(*rank, Cause::Disagrees, format!("it has {wrong}, rank {witness} has {right}")))
    }

    /// The rank about which most others complain, and whether it has left in good order.
    fn claimed(&self, peers: &[Peer]) -> Option<(Finding, bool)> {
        let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
        let claims = || {
            self.entries.iter().filter_map(|e| match e {
                Evidence::Claim { by, claim } => Some((*by, claim)),
                _ => None,
            })
        };
        for (_, claim) in claims() {
            *votes.entry(claim.rank).or_default() += 1;
        }
        let most = votes.values().max()?;
        let (by, claim) = claims().find(|(_, c)| votes.get(&c.rank) == Some(most))?;
        let left = peers.get(claim.rank).is_some_and(|p| p.left);
        let finding = if left {
            let detail = format!("it left the run in good order while rank {by} still needs it ({})", claim.detail);
            Finding::new(claim.rank, Cause::Disagrees, detail)
        } else {
            Finding::new(claim.rank, claim.cause, format!("rank {by} says: {}", claim.detail))
        };
        Some((finding, left))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn claim(rank: usize, cause: Cause, mine: &str, theirs: &str) -> Claim {
        Claim { rank, cause, mine: mine.into(), theirs: theirs.into(), detail: "seen".into() }
    }

    fn died(by: usize, rank: usize) -> Evidence {
        Evidence::Claim { by, claim: claim(rank, Cause::Died, "", "") }
    }

    fn closed(rank: usize) -> Evidence {
        Evidence::Closed { rank, why: "end of stream".into() }
    }

    fn rule(entries: Vec<Evidence>, after: Duration, left: &[usize]) -> Ruling {
        let now = Instant::now();
        let mut docket = Docket::default();
        for evidence in entries {
            docket.file(evidence, now);
        }
        let mut peers: Vec<Peer> = (0..4).map(|_| Peer::new(now)).collect();
        for &rank in left {
            peers.get_mut(rank).unwrap().left = true;
        }
        docket.rule(&peers, now + after, None, None)
    }

    fn blamed(entries: Vec<Evidence>, after: Duration) -> (usize, Cause) {
        match rule(entries, after, &[]) {
            Ruling::Blame(finding) => (finding.rank, finding.cause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn evidence_settles_before_anybody_is_blamed() {
        assert_eq!(rule(vec![closed(2)], SETTLE / 2, &[]), Ruling::Wait);
        assert_eq!(blamed(vec![closed(2)], SETTLE), (2, Cause::Died));
        assert_eq!(rule(vec![Evidence::Silent], SETTLE, &[]), Ruling::Dismissed);
    }

    #[test]
    fn what_rank_0_saw_itself_beats_hearsay() {
        assert_eq!(blamed(vec![died(1, 3), died(3, 1), closed(2)], SETTLE), (2, Cause::Died));
    }

    #[test]
    fn the_first_cause_wins_and_its_own_words_tell_why() {
        let failed = |rank| Evidence::Failed { rank, message: "disk full".into() };
        assert_eq!(blamed(vec![closed(2), closed(1)], SETTLE), (2, Cause::Died));
        assert_eq!(blamed(vec![died(0, 2), closed(2), failed(2), closed(1)], SETTLE), (2, Cause::Failed));
        assert_eq!(blamed(vec![failed(1), closed(2)], SETTLE), (1, Cause::Failed));
    }

    #[test]
    fn a_rank_that_left_because_of_another_is_no_cause() {
        assert_eq!(rule(vec![died(1, 2), closed(1)], SETTLE, &[]), Ruling::Wait);
        assert_eq!(blamed(vec![died(1, 2), closed(1)], PATIENCE), (2, Cause::Died));
        assert_eq!(blamed(vec![died(1, 2), closed(1), closed(2)], SETTLE), (2, Cause::Died));
    }

    #[test]
    fn hearsay_alone_needs_patience_and_the_most_named_rank_is_blamed() {
        assert_eq!(rule(vec![died(0, 1)], SETTLE, &[]), Ruling::Wait);
        assert_eq!(blamed(vec![died(1, 0), died(0, 1), died(2, 1)], PATIENCE), (1, Cause::Died));
    }

    #[test]
    fn a_rank_that_is_silent_and_complained_about_needs_no_patience() {
        let (now, mut docket) = (Instant::now(), Docket::default());
        docket.file(died(0, 2), now);
        let peers: Vec<Peer> = (0..4).map(|_| Peer::new(now)).collect();
        let rule = |rank| docket.rule(&peers, now + SETTLE, Some((rank, Duration::from_secs(2))), None);
        assert_eq!(rule(3), Ruling::Wait);
        let Ruling::Blame(finding) = rule(2) else { panic!() };
        assert_eq!((finding.rank, finding.cause), (2, Cause::Silent));
    }

    #[test]
    fn leaving_early_is_a_disagreement() {
        let Ruling::Blame(finding) = rule(vec![died(0, 1)], SETTLE, &[1]) else { panic!() };
        assert_eq!((finding.rank, finding.cause), (1, Cause::Disagrees));
        assert!(finding.detail.contains("rank 0 still needs it"), "{}", finding.detail);
    }

    #[test]
    fn the_majority_is_right() {
        let says = |by, rank, mine, theirs| Evidence::Claim { by, claim: claim(rank, Cause::Disagrees, mine, theirs) };
        let odd = vec![says(1, 0, "b", "a"), says(0, 1, "a", "b"), says(2, 1, "a", "b")];
        assert_eq!(blamed(odd, SETTLE), (1, Cause::Disagrees));
        assert_eq!(blamed(vec![says(2, 0, "a", "b"), says(1, 0, "a", "b")], SETTLE), (0, Cause::Disagrees));
        assert_eq!(blamed(vec![says(1, 0, "b", "a")], SETTLE), (1, Cause::Disagrees));
        assert_eq!(blamed(vec![says(1, 3, "", ""), says(0, 3, "", "")], SETTLE), (3, Cause::Disagrees));
    }
}
