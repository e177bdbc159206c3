//! Owns the tests of the rules of rounds; never touches sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(100);

fn facts(sync_every: &str) -> Vec<(String, String)> {
    let facts = [
        (fact::MODEL, "llama (1234)"),
        (fact::SYNC_EVERY, sync_every),
        (fact::LEARNING_RATE, "0.7"),
        (fact::MOMENTUM, "0.9"),
        (fact::COMPRESS, "int8"),
    ];
    facts.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn hello(site: &str, purpose: Purpose) -> Hello {
    Hello { site: site.into(), host: "node".into(), facts: facts("10"), purpose }
}

fn shapes() -> Vec<Shape> {
    vec![Shape { name: "w".into(), shape: vec![3, 2] }, Shape { name: "norm".into(), shape: vec![2] }]
}

/// A site without a model: it moves by a fixed amount a round.
struct Member {
    name: &'static str,
    speed: f32,
    theta: Vec<f32>,
    residual: Vec<f32>,
    round: u64,
    included: u64,
}

impl Member {
    fn new(name: &'static str, speed: f32) -> Self {
        Self { name, speed, theta: vec![0.5; 8], residual: vec![0.0; 8], round: 0, included: 0 }
    }

    /// What it would send, and what compression would leave over.
    fn delta(&self, last: bool) -> (Offer, Vec<u8>, Vec<f32>) {
        let mut rest: Vec<f32> =
            (0..8).map(|i| self.speed * (1.0 + i as f32 / 7.0) * 0.01 + self.residual[i]).collect();
        let payload = Layout::of_sizes([6, 2]).encode(OuterCompress::Int8, &mut rest).unwrap();
        let digest = blake3::hash(&payload).to_hex().to_string();
        (Offer { round: self.round, digest, tokens: 100, last, whole: false }, payload, rest)
    }

    /// Offers its delta, and sends it if it is asked for.
    fn deliver(&self, desk: &mut Desk, last: bool, now: Instant) -> Next {
        let (offer, payload, _) = self.delta(last);
        let hello = hello(self.name, Purpose::Deliver(offer.clone()));
        desk.begin(1, &hello);
        let next = desk.next(1, &hello);
        if let Next::AskDelta { bytes } = next {
            assert_eq!(bytes, payload.len());
            desk.deliver(self.name, &offer, payload, now).unwrap();
            return desk.next(1, &hello);
        }
        next
    }

    /// Asks for the result of the round and takes it over; false while it must wait.
    fn collect(&mut self, desk: &mut Desk, last: bool, now: Instant) -> bool {
        let (update, vector) = match self.deliver(desk, last, now) {
            Next::Update(update, vector) => (update, vector),
            Next::Wait(_) => return false,
            other => panic!("{other:?}"),
        };
        match vector {
            Vector::Update(bytes) => {
                super::super::average::apply(&Layout::of_sizes([6, 2]), OuterCompress::Int8, &bytes, &mut self.theta)
                    .unwrap();
            }
            Vector::Whole(theta) => self.theta = theta.to_vec(),
            Vector::Nothing => {}
        }
        assert_eq!(digest(&[&self.theta]), update.theta);
        if update.included {
            self.residual = self.delta(last).2;
            self.included += 1;
        }
        self.round = update.round;
        desk.acknowledge(self.name);
        true
    }
}

fn desk(folder: &Path, sites: usize, min_sites: usize) -> Desk {
    let patience = Patience { sites, min_sites, round_timeout: TIMEOUT };
    Desk::open(patience, Store::open(folder).unwrap()).unwrap()
}

fn seeded(folder: &Path, sites: usize, min_sites: usize) -> Desk {
    let mut desk = desk(folder, sites, min_sites);
    let join = hello("a", Purpose::Join { theta: digest(&[&[0.5; 8]]) });
    assert!(matches!(desk.next(1, &join), Next::AskShapes));
    assert!(matches!(desk.next(2, &join), Next::Wait(_)), "only one is asked");
    desk.seed(&join, shapes(), vec![0.5; 8]).unwrap();
    match desk.next(1, &join) {
        Next::Update(update, Vector::Nothing) => assert_eq!((update.round, update.form), (0, Form::Same)),
        other => panic!("{other:?}"),
    }
    desk
}

/// `rounds` rounds of two sites; returns the digest of the state. `order` says who comes first, `restart` before which
/// round the coordinator is killed after one delivery.
fn digest_of(rounds: u64, reversed: bool, restart: Option<u64>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = seeded(dir.path(), 2, 2);
    let now = Instant::now();
    let mut members = [Member::new("a", 1.0), Member::new("b", -2.5)];
    if reversed {
        members.reverse();
    }
    for round in 0..rounds {
        if restart == Some(round) {
            members[0].deliver(&mut desk, false, now);
            drop(desk);
            desk = self::desk(dir.path(), 2, 2);
        }
        for member in &members {
            member.deliver(&mut desk, false, now);
        }
        if restart == Some(round) {
            // Killed again, after the round and before anybody has heard of it.
            drop(desk);
            desk = self::desk(dir.path(), 2, 2);
        }
        for member in &mut members {
            assert!(member.collect(&mut desk, false, now), "round {round} is over");
        }
    }
    assert_eq!(members[0].theta, members[1].theta);
    assert!(members.iter().all(|member| member.included == rounds));
    desk.position().unwrap().1
}

#[test]
fn order_of_arrival_and_restarts_do_not_change_a_bit() {
    let expected = digest_of(5, false, None);
    assert_eq!(digest_of(5, true, None), expected);
    for round in 0..5 {
        assert_eq!(digest_of(5, false, Some(round)), expected, "restart in round {round}");
    }
    assert_ne!(digest_of(4, false, None), expected);
}

#[test]
fn a_round_waits_for_all_until_enough_have_waited_long_enough() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = seeded(dir.path(), 3, 2);
    let start = Instant::now();
    let (mut a, mut b, mut c) = (Member::new("a", 1.0), Member::new("b", 2.0), Member::new("c", 3.0));
    assert!(!a.collect(&mut desk, false, start));
    desk.tick(start + 2 * TIMEOUT).unwrap();
    assert!(!a.collect(&mut desk, false, start), "one site is not enough, however long it waits");
    assert!(!b.collect(&mut desk, false, start));
    desk.tick(start + TIMEOUT - Duration::from_secs(1)).unwrap();
    assert_eq!(desk.position().unwrap().0, 0);
    desk.tick(start + TIMEOUT).unwrap();
    assert!(a.collect(&mut desk, false, start) && b.collect(&mut desk, false, start));
    // The third comes with a delta of round 0: dropped, and it goes on from round 1.
    assert!(c.collect(&mut desk, false, start));
    assert_eq!((c.round, c.included, &c.theta), (1, 0, &a.theta));
    let events = desk.take_events().unwrap();
    assert!(events.contains(&DeskEvent::Late { site: "c".into(), round: 0, open: 1 }), "{events:?}");
    // Much later: all parameters travel.
    for _ in 0..3 {
        assert!(!a.collect(&mut desk, false, start) && !b.collect(&mut desk, false, start));
        desk.tick(start + 3 * TIMEOUT).unwrap();
        assert!(a.collect(&mut desk, false, start) && b.collect(&mut desk, false, start));
    }
    assert!(c.collect(&mut desk, false, start));
    assert_eq!((c.round, &c.theta), (4, &a.theta));
    // Now all three are in time again.
    assert!(!c.collect(&mut desk, false, start) && !a.collect(&mut desk, false, start));
    assert!(b.collect(&mut desk, false, start) && c.collect(&mut desk, false, start));
    assert_eq!((c.round, c.included), (5, 1));
}

#[test]
fn sites_that_have_ended_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = seeded(dir.path(), 2, 2);
    let now = Instant::now();
    let (mut a, mut b) = (Member::new("a", 1.0), Member::new("b", 2.0));
    assert!(!a.collect(&mut desk, true, now), "the last round still waits for both");
    assert!(b.collect(&mut desk, false, now) && a.collect(&mut desk, true, now));
    assert!(!desk.is_over());
    assert!(b.collect(&mut desk, false, now), "alone from now on");
    let (offer, payload, _) = b.delta(true);
    desk.begin(2, &hello("b", Purpose::Deliver(offer.clone())));
    desk.deliver("b", &offer, payload, now).unwrap();
    assert!(desk.all_finished() && !desk.is_over(), "b has still to be told");
    drop(desk);
    let mut desk = self::desk(dir.path(), 2, 2);
    assert!(desk.all_finished() && !desk.is_over(), "after a restart as well");
    assert!(b.collect(&mut desk, true, now));
    assert_eq!((b.round, b.included), (3, 3));
    assert!(desk.is_over(), "a had the result of its last round long ago");
}

#[test]
fn who_does_not_fit_is_told_what_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = seeded(dir.path(), 2, 2);
    let refused = |next: Next| match next {
        Next::Refuse(Refused { what, advice }) => format!("{what}; {advice}"),
        other => panic!("{other:?}"),
    };
    let mut other = hello("b", Purpose::Check);
    assert!(matches!(desk.next(1, &other), Next::Welcome(Welcome { round: Some(0), included: None })));
    other.facts = facts("20");
    let text = refused(desk.next(1, &other));
    assert!(text.contains("outer.sync_every is 20 at site b (host node), 10 in this run"), "{text}");
    assert!(text.contains("if site a which came first is the wrong one"), "{text}");
    other.facts.remove(0);
    other.facts.push(("new".into(), "1\u{1b}[2J".into()));
    let text = refused(desk.next(1, &other));
    assert!(text.contains("model is missing at site b") && text.contains("new is 1[2J"), "{text}");
    let ahead = Offer { round: 7, digest: "0".into(), tokens: 1, last: false, whole: false };
    let text = refused(desk.next(1, &hello("b", Purpose::Deliver(ahead.clone()))));
    assert!(text.contains("site b is in round 7, the coordinator only in round 0"), "{text}");
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(refused(desk.next(1, &hello(name, Purpose::Check))).contains("is no name of a site"));
    }
    let offered = Offer { round: 0, ..ahead };
    for (payload, why) in [(vec![0; 16], "has the digest"), (vec![0; 3], "has the digest")] {
        let error = desk.deliver("b", &offered, payload, Instant::now()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let short = Offer { digest: blake3::hash(&[0; 3]).to_hex().to_string(), ..offered };
    let error = desk.deliver("b", &short, vec![0; 3], Instant::now()).unwrap_err().to_string();
    assert!(error.contains("3 bytes came, a vector of this model has 16"), "{error}");
}

#[test]
fn a_second_process_of_the_same_name_takes_over_and_the_first_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut desk = seeded(dir.path(), 2, 2);
    let (offer, payload, _) = Member::new("a", 1.0).delta(false);
    let hello = hello("a", Purpose::Deliver(offer.clone()));
    desk.begin(10, &hello);
    desk.deliver("a", &offer, payload, Instant::now()).unwrap();
    desk.begin(11, &hello);
    match desk.next(10, &hello) {
        Next::Refuse(refused) => assert!(refused.what.contains("another process has come as site a")),
        other => panic!("{other:?}"),
    }
    desk.end(10);
    assert!(matches!(desk.next(11, &hello), Next::Wait(_)), "its delta is here already and is not asked for again");
    desk.end(11);
    assert!(matches!(desk.next(12, &hello), Next::Wait(_)));
}
