//! Owns what rank 0 knows of every rank and who keeps the others waiting; never touches connections.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::recorder::{Position, Record};

/// What rank 0 knows of one rank.
pub(super) struct Peer {
    /// Its newest position.
    pub(super) position: Position,
    /// When it was last heard.
    pub(super) heard: Instant,
    /// Its newest collectives, once asked for.
    pub(super) records: Vec<Record>,
    /// It has said goodbye.
    pub(super) left: bool,
    /// Its control connection has closed.
    pub(super) closed: bool,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self { position: Position::start(), heard: now, records: Vec::new(), left: false, closed: false }
    }

    fn takes_part(&self) -> bool {
        !self.left && !self.closed
    }

    fn waits_longer_than(&self, limit: Duration) -> bool {
        self.takes_part() && self.position.inside && self.position.idle_seconds >= limit.as_secs_f64()
    }
}

/// A rank that keeps the others waiting.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stuck {
    /// The rank.
    pub(super) rank: usize,
    /// What the others wait in.
    pub(super) during: String,
    /// Who else is missing, and how long the others have waited.
    pub(super) detail: String,
}

/// The rank for which others have been waiting longer than `limit`.
pub(super) fn find_stuck(peers: &[Peer], limit: Duration) -> Option<Stuck> {
    let waiting = || peers.iter().enumerate().filter(|(_, p)| p.waits_longer_than(limit));
    let collectives = waiting().filter(|(_, p)| p.position.kind.is_some_and(|k| k.is_collective()));
    let Some((_, first)) = collectives.min_by_key(|(_, p)| p.position.sequence) else {
        return waiting().next().map(|(rank, peer)| blame_the_awaited(peers, rank, peer, limit));
    };
    let sequence = first.position.sequence;
    let missing: Vec<usize> = peers
        .iter()
        .enumerate()
        .filter(|(_, p)| p.takes_part() && p.position.sequence < sequence)
        .map(|(rank, _)| rank)
        .collect();
    // Of several missing ranks, those that wait themselves are victims as well.
    let idle = |rank: &&usize| peers.get(**rank).is_some_and(|p| !p.position.inside);
    let Some(&rank) = missing.iter().find(idle).or(missing.first()) else {
        let (rank, peer) = waiting().next()?;
        return Some(blame_the_awaited(peers, rank, peer, limit));
    };
    let waited = waiting().map(|(_, p)| p.position.idle_seconds).fold(0.0, f64::max);
    let whereabouts: Vec<String> = missing.iter().filter_map(|&r| peers.get(r).map(|p| whereabouts(r, p))).collect();
    let detail = format!("not there after {waited:.1} s: {}", whereabouts.join(", "));
    Some(Stuck { rank, during: first.position.activity(), detail })
}

/// Everybody has arrived and yet nothing moves: follows the chain of who waits for whom to its end. In a circle nobody
/// is last, so the one that most wait for is blamed: with its connections cut, a rank waits for the others as well.
fn blame_the_awaited(peers: &[Peer], rank: usize, peer: &Peer, limit: Duration) -> Stuck {
    // They have not all begun to wait in the same moment.
    let awaits = |peer: &Peer| peer.position.waits_for.filter(|_| peer.waits_longer_than(limit / 2));
    let mut chain = vec![rank];
    let mut last = rank;
    while let Some(next) = peers.get(last).and_then(awaits).filter(|next| *next < peers.len()) {
        let circle = chain.iter().position(|rank| *rank == next);
        chain.push(next);
        last = next;
        if let Some(start) = circle {
            let votes = |rank: &usize| peers.iter().filter(|p| awaits(p) == Some(*rank)).count();
            let circle = chain.get(start..chain.len() - 1).unwrap_or_default();
            last = circle.iter().copied().max_by_key(votes).unwrap_or(next);
            break;
        }
    }
    let names: Vec<String> = chain.iter().map(ToString::to_string).collect();
    let detail = if names.len() == 1 {
        "all ranks have arrived but nothing moves, and nobody says for whom it waits; look at the network".to_owned()
    } else {
        format!("nothing has moved for {:.1} s; rank {}", peer.position.idle_seconds, names.join(" waits for rank "))
    };
    Stuck { rank: last, during: peer.position.activity(), detail }
}

fn whereabouts(rank: usize, peer: &Peer) -> String {
    let position = &peer.position;
    format!("rank {rank} is at step {} in {}", position.step, position.activity())
}

/// What the ranks other than `blamed` were doing: the activity of most of them.
pub(super) fn during(peers: &[Peer], blamed: usize) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, peer) in peers.iter().enumerate().filter(|(rank, p)| *rank != blamed && p.takes_part()) {
        // Somebody in a collective says more than somebody who has not reached it yet.
        *counts.entry(peer.position.activity()).or_default() += if peer.position.inside { peers.len() } else { 1 };
    }
    let fallback = || peers.get(blamed).map(|p| p.position.activity()).unwrap_or_default();
    counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(fallback, |(activity, _)| activity)
}

/// One line: the blamed rank's last position and, grouped, those of the others.
pub(super) fn whereabouts_of_all(peers: &[Peer], blamed: usize) -> String {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (rank, peer) in peers.iter().enumerate().filter(|(rank, p)| *rank != blamed && !p.left) {
        let position = &peer.position;
        groups.entry(format!("at step {} in {}", position.step, position.activity())).or_default().push(rank);
    }
    let mut line = String::new();
    if let Some(peer) = peers.get(blamed) {
        let (step, sequence) = (peer.position.step, peer.position.sequence);
        line = format!("rank {blamed} was last seen at step {step} in {}, newest collective #{sequence}", {
            peer.position.activity()
        });
    }
    for (place, ranks) in groups {
        let names: Vec<String> = ranks.iter().map(ToString::to_string).collect();
        let (noun, verb) = if ranks.len() == 1 { ("rank", "is") } else { ("ranks", "are") };
        line.push_str(&format!("; {noun} {} {verb} {place}", names.join(", ")));
    }
    line
}

/// The newest collectives of every rank as text, for the report of rank 0.
pub(super) fn flight_recorder(peers: &[Peer]) -> String {
    let mut text = String::new();
    for (rank, peer) in peers.iter().enumerate() {
        text.push_str(&format!("rank {rank}: step {}, {}\n", peer.position.step, peer.position.activity()));
        for r in &peer.records {
            let took = r.seconds.map_or_else(|| "not done".to_owned(), |s| format!("took {s:.4} s"));
            text.push_str(&format!(
                "  #{} {} of {} at step {}, started {:.3} s before, {took}\n",
                r.sequence,
                r.kind.name(),
                r.elements,
                r.step,
                r.started_seconds_ago
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::recorder::Kind;

    const LIMIT: Duration = Duration::from_secs(10);

    fn peer(sequence: u64, inside: bool, idle_seconds: f64, waits_for: Option<usize>) -> Peer {
        let mut peer = Peer::new(Instant::now());
        let kind = Some(Kind::AllReduce);
        peer.position =
            Position { sequence, inside, idle_seconds, waits_for, kind, phase: "compute".into(), ..Position::start() };
        peer
    }

    #[test]
    fn the_missing_rank_is_stuck() {
        let peers = [peer(7, true, 11.0, Some(2)), peer(7, true, 12.0, None), peer(6, false, 30.0, None)];
        let stuck = find_stuck(&peers, LIMIT).unwrap();
        assert_eq!((stuck.rank, stuck.during.as_str()), (2, "all_reduce #7 (0 values)"));
        assert!(stuck.detail.contains("rank 2 is at step 0 in compute"), "{}", stuck.detail);
        assert_eq!(find_stuck(&peers, Duration::from_secs(13)), None);
    }

    #[test]
    fn a_missing_rank_that_waits_itself_is_a_victim() {
        let mut receiving = peer(6, true, 11.0, Some(2));
        receiving.position.kind = Some(Kind::Recv);
        let peers = [peer(7, true, 11.0, None), receiving, peer(6, false, 30.0, None)];
        assert_eq!(find_stuck(&peers, LIMIT).unwrap().rank, 2);
    }

    #[test]
    fn when_all_have_arrived_the_end_of_the_chain_is_stuck() {
        let peers = [peer(7, true, 11.0, Some(1)), peer(7, true, 12.0, Some(2)), peer(7, true, 1.0, None)];
        assert_eq!(find_stuck(&peers, LIMIT).unwrap().rank, 2);
        let ring = [peer(7, true, 11.0, Some(1)), peer(7, true, 12.0, Some(0))];
        assert_eq!(find_stuck(&ring, LIMIT).unwrap().rank, 1);
        // The connections of rank 0 pass nothing on: it waits itself, but all others wait for it.
        let cut_off = [peer(7, true, 11.0, Some(1)), peer(7, true, 9.0, Some(0)), peer(7, true, 9.5, Some(0))];
        let stuck = find_stuck(&cut_off, LIMIT).unwrap();
        assert_eq!((stuck.rank, stuck.detail.ends_with("rank 0 waits for rank 1 waits for rank 0")), (0, true));
        let progress = [peer(7, true, 1.0, Some(1)), peer(7, true, 2.0, Some(0))];
        assert_eq!(find_stuck(&progress, LIMIT), None);
    }

    #[test]
    fn ranks_that_left_keep_nobody_waiting() {
        let mut gone = peer(6, false, 30.0, None);
        gone.left = true;
        let peers = [peer(7, false, 11.0, None), gone];
        assert_eq!(find_stuck(&peers, LIMIT), None);
    }

    #[test]
    fn the_line_groups_ranks() {
        let peers = [peer(7, true, 1.0, None), peer(7, true, 2.0, None), peer(6, false, 3.0, None)];
        assert_eq!(
            whereabouts_of_all(&peers, 2),
            "rank 2 was last seen at step 0 in compute, newest collective #6; \
             ranks 0, 1 are at step 0 in all_reduce #7 (0 values)"
        );
        assert_eq!(during(&peers, 2), "all_reduce #7 (0 values)");
    }
}
