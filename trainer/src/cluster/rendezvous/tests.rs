//! Owns the tests of the rendezvous with real sockets on this host; never touches collectives.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::messages::{FAREWELL, Farewell, HELLO, HERE, PROBE, PROTOCOL, ROSTER, WELCOME};
use super::*;
use crate::cluster::channel::handshake;

/// A member's set-up, to be changed by tests.
#[derive(Clone)]
struct Setup {
    rank: usize,
    world: usize,
    host: String,
    rendezvous: String,
    bind: Option<IpAddr>,
    token: Token,
    wire: Option<Wire>,
    deadline: Duration,
    members: Membership,
    leaves: Arc<AtomicBool>,
}

/// What became of a member.
struct Outcome {
    result: Result<Mesh, ClusterError>,
    refused: Vec<String>,
    took: Duration,
}

impl Outcome {
    /// The words of its failure.
    fn error(self) -> String {
        self.result.expect_err("it should not have joined").to_string()
    }
}

fn token() -> Token {
    let dir = tempfile::tempdir().unwrap();
    Token::generate(&dir.path().join("token")).unwrap()
}

fn free_port(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

fn setup(world: usize) -> Setup {
    let facts = [("plan", "ab12"), ("dataset", "cd34")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let members = Membership { run_id: "run-a".into(), fingerprint: "ff00".into(), facts: facts.into() };
    Setup {
        rank: 0,
        world,
        host: String::new(),
        rendezvous: free_port("127.0.0.1"),
        bind: None,
        token: token(),
        wire: None,
        deadline: Duration::from_secs(30),
        members,
        leaves: Arc::default(),
    }
}

fn start(mut setup: Setup, rank: usize) -> JoinHandle<Outcome> {
    setup.rank = rank;
    if setup.host.is_empty() {
        setup.host = format!("node{rank}");
    }
    thread::spawn(move || {
        let refused = Mutex::new(Vec::new());
        let started = Instant::now();
        let options = JoinOptions {
            rank: setup.rank,
            world: setup.world,
            host: setup.host.clone(),
            rendezvous: setup.rendezvous.clone(),
            bind: setup.bind,
            token: &setup.token,
            wire: setup.wire,
            deadline: setup.deadline,
            members: &setup.members,
            on_refused: &|text| refused.lock().unwrap().push(text.to_owned()),
            keep_waiting: &|| match setup.leaves.load(Ordering::Relaxed) {
                true => Err(ClusterError::Local { what: "stop".into(), cause: "signal".into(), advice: "-".into() }),
                false => Ok(()),
            },
        };
        let result = join(&options);
        Outcome { result, took: started.elapsed(), refused: refused.into_inner().unwrap() }
    })
}

fn with(setup: &Setup, change: impl FnOnce(&mut Setup)) -> Setup {
    let mut changed = setup.clone();
    changed.leaves = Arc::default();
    change(&mut changed);
    changed
}

/// Dials until somebody is there.
fn reach(address: &str) -> TcpStream {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Takes a rank's seat at rank 0 by hand: a member that does what the test wants from then on.
fn sit(setup: &Setup, rank: usize) -> Channel {
    let stream = reach(&setup.rendezvous);
    let until = Instant::now() + Duration::from_secs(20);
    let key = setup.token.derive("control");
    let mut channel = handshake::dial(stream, &key, PROTOCOL.as_bytes(), until, &mut || Ok(())).unwrap();
    let mut facts = setup.members.facts.clone();
    facts.push(("wire".into(), "auto".into()));
    facts.push(("fingerprint".into(), setup.members.fingerprint.clone()));
    let run_id = setup.members.run_id.clone();
    let (world, host, pid) = (setup.world, "by-hand".to_owned(), 77);
    let hello = Hello { run_id, rank, world, host, pid, facts, data_ip: None, data_port: 9 };
    messages::send(&mut channel, HELLO, &hello).unwrap();
    assert_eq!(channel.receiver().recv().unwrap().0, WELCOME);
    channel
}

/// What rank 0 says to a member made by hand.
fn farewell(mut channel: Channel) -> String {
    let frame = channel.receiver().recv().unwrap();
    messages::parse::<Farewell>(FAREWELL, &frame).unwrap().into_error().to_string()
}

/// Plays rank 0 for one member until it has its welcome.
fn seat_by_hand(setup: &Setup) -> (Channel, JoinHandle<Outcome>) {
    let listener = TcpListener::bind(&setup.rendezvous).unwrap();
    let mut gate = gate::Gate::new(listener, setup.token.derive("control"), PROTOCOL.into(), &|_| {}).unwrap();
    let member = start(setup.clone(), 1);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "the member never came");
        if let Some(mut arrival) = gate.wait(TICK, &[]).unwrap().arrivals.pop() {
            arrival.channel.sender().send(WELCOME, &[]).unwrap();
            return (arrival.channel, member);
        }
    }
}

/// Starts all ranks and checks that every pair can talk and every roster is right.
fn all_join(setup: &Setup) -> Vec<Mesh> {
    let started: Vec<_> = (0..setup.world).map(|rank| start(setup.clone(), rank)).collect();
    let meshes: Vec<Mesh> = started.into_iter().map(|m| m.join().unwrap().result.unwrap()).collect();
    check(meshes)
}

fn check(meshes: Vec<Mesh>) -> Vec<Mesh> {
    let world = meshes.len();
    let talking: Vec<_> = meshes
        .into_iter()
        .map(|mut mesh| {
            thread::spawn(move || {
                assert_eq!(mesh.world, world);
                assert_eq!(mesh.hosts, (0..world).map(|r| format!("node{r}")).collect::<Vec<_>>());
                assert_eq!(mesh.pids, vec![std::process::id(); world]);
                for (peer, link) in mesh.data.iter_mut().enumerate() {
                    assert_eq!(link.is_some(), peer != mesh.rank);
                    if let Some(link) = link {
                        assert_eq!(link.wire(), mesh.wire);
                        link.sender().send_bulk(&[mesh.rank as u8; 1000]).unwrap();
                    }
                }
                for (peer, link) in mesh.data.iter_mut().enumerate() {
                    if let Some(link) = link {
                        let mut got = [0; 1000];
                        link.receiver().recv_bulk(&mut got, &mut || Ok(())).unwrap();
                        assert_eq!(got, [peer as u8; 1000]);
                    }
                }
                for (peer, control) in mesh.control.iter_mut().enumerate() {
                    assert_eq!(control.is_some(), peer != mesh.rank && (mesh.rank == 0 || peer == 0));
                    if let Some(control) = control {
                        assert_eq!(control.wire(), Wire::Sealed);
                        control.sender().send(9, &[mesh.rank as u8]).unwrap();
                        assert_eq!(control.receiver().recv().unwrap(), (9, vec![peer as u8]));
                    }
                }
                mesh
            })
        })
        .collect();
    talking.into_iter().map(|t| t.join().unwrap()).collect()
}

#[test]
fn worlds_of_all_sizes_join() {
    for world in [1, 2, 3, 8] {
        let meshes = all_join(&setup(world));
        assert!(meshes.iter().all(|mesh| mesh.wire == Wire::Plain), "all are on loopback");
    }
}

#[test]
fn the_wire_can_be_chosen_and_must_be_the_same() {
    let sealed = with(&setup(3), |s| s.wire = Some(Wire::Sealed));
    assert!(all_join(&sealed).iter().all(|mesh| mesh.wire == Wire::Sealed));
    let base = setup(2);
    let (host, member) = (start(base.clone(), 0), start(with(&base, |s| s.wire = Some(Wire::Sealed)), 1));
    for outcome in [host, member] {
        let text = outcome.join().unwrap().error();
        assert!(text.contains("wire is 'sealed' on rank 1 and 'auto' on rank 0"), "{text}");
    }
}

#[test]
fn names_ipv6_and_other_bind_addresses_work() {
    let port = |s: &Setup| s.rendezvous.rsplit_once(':').unwrap().1.to_owned();
    let named = setup(2);
    all_join(&with(&named, |s| s.rendezvous = format!("localhost:{}", port(s))));
    all_join(&with(&setup(3), |s| s.bind = Some(Ipv4Addr::UNSPECIFIED.into())));
    let v6 = with(&setup(3), |s| s.rendezvous = format!("[::1]:{}", port(s)));
    if TcpListener::bind("[::1]:0").is_ok() {
        all_join(&v6);
        all_join(&with(&v6, |s| s.bind = Some(Ipv6Addr::UNSPECIFIED.into())));
        // A dual-stack rank 0 sees IPv4 members in IPv6 clothes.
        all_join(&with(&setup(3), |s| s.bind = Some(Ipv6Addr::UNSPECIFIED.into())));
    }
}

#[test]
fn a_host_address_beyond_loopback_is_sealed() {
    // The source address that this host would use; nothing is sent.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let Some(ip) = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()).ok().map(|a| a.ip()) else {
        return;
    };
    if is_loopback(ip) || ip.is_unspecified() {
        return;
    }
    let meshes = all_join(&with(&setup(3), |s| s.rendezvous = free_port(&ip.to_string())));
    assert!(meshes.iter().all(|mesh| mesh.wire == Wire::Sealed));
}

#[test]
fn members_may_come_long_before_rank_0() {
    let base = setup(3);
    let members = [start(base.clone(), 1), start(base.clone(), 2)];
    thread::sleep(Duration::from_millis(700));
    let host = start(base, 0);
    let mut meshes = vec![host.join().unwrap().result.unwrap()];
    meshes.extend(members.map(|m| m.join().unwrap().result.unwrap()));
    check(meshes);
}

#[test]
fn the_same_port_serves_fifty_attempts_in_a_row() {
    let base = setup(2);
    for _ in 0..50 {
        all_join(&base);
    }
}

/// Opens connections that say part of `text`, until told to stop; holds them open if `keeps`.
fn flood(address: &str, keeps: bool, text: &'static [u8]) -> (Arc<AtomicUsize>, Arc<AtomicBool>, JoinHandle<()>) {
    let (count, stop, address) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default(), address.to_owned());
    let (counted, stopped) = (Arc::clone(&count), Arc::clone(&stop));
    let thread = thread::spawn(move || {
        let mut kept = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            if keeps && kept.len() == 500 {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            // Rank 0 is not there yet, or has all members and no longer listens.
            let Ok(mut stream) = TcpStream::connect(&address) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let made = counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(&text[..text.len() * (made % 7) / 6]);
            if keeps {
                kept.push(stream);
            }
        }
    });
    (count, stop, thread)
}

/// How long the last of 4 members takes to join, when so many strangers have come before it and more keep coming.
fn last_member_joins(stalled: usize, garbage: usize) -> Duration {
    let base = setup(4);
    let early: Vec<_> = (0..3).map(|rank| start(base.clone(), rank)).collect();
    let floods = [
        (stalled, flood(&base.rendezvous, true, b"GET / HTTP/1.1\r\n")),
        (garbage, flood(&base.rendezvous, false, &[0x5a; 400])),
    ];
    for (wanted, (count, stop, _)) in &floods {
        stop.store(*wanted == 0, Ordering::Relaxed);
        while count.load(Ordering::Relaxed) < *wanted {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let last = start(base, 3).join().unwrap();
    for (_, (_, stop, thread)) in floods {
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }
    let mut outcomes: Vec<_> = early.into_iter().map(|m| m.join().unwrap()).collect();
    if garbage > 0 {
        assert_eq!(outcomes[0].refused.len(), 1, "once per address: {:?}", outcomes[0].refused);
    }
    let took = last.took;
    outcomes.push(last);
    check(outcomes.into_iter().map(|o| o.result.unwrap()).collect());
    took
}

#[test]
fn a_flood_of_strangers_delays_nobody() {
    let (normal, flooded) = (last_member_joins(0, 0), last_member_joins(500, 1000));
    let text = format!(
        "the last member joins in {normal:.1?}, among 500 stalled and 1,000 garbage connections in {flooded:.1?}\n"
    );
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(flooded < normal + Duration::from_secs(5), "{text}");
}

#[test]
fn no_more_than_64_unproven_connections_are_held() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut gate = gate::Gate::new(listener, [0; 32], Vec::new(), &|_| {}).unwrap();
    let clients: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..3 {
        assert!(gate.wait(Duration::from_millis(50), &[]).unwrap().arrivals.is_empty());
    }
    let is_closed = |mut client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    };
    let closed: Vec<bool> = clients.iter().map(is_closed).collect();
    assert_eq!(closed.iter().filter(|c| **c).count(), 100 - MAX_PENDING);
    assert!(closed[..100 - MAX_PENDING].iter().all(|c| *c), "the oldest make place");
}

#[test]
fn another_token_is_refused_and_rank_0_goes_on() {
    let base = setup(2);
    let host = start(base.clone(), 0);
    let text = start(with(&base, |s| s.token = token()), 1).join().unwrap().error();
    assert!(text.contains("another token") && text.contains("port belongs"), "{text}");
    let member = start(base, 1);
    let host = host.join().unwrap();
    assert!(host.refused.len() == 1 && host.refused[0].contains("127.0.0.1"), "{:?}", host.refused);
    check(vec![host.result.unwrap(), member.join().unwrap().result.unwrap()]);
}

#[test]
fn another_program_at_the_port_is_named() {
    let base = with(&setup(2), |s| s.deadline = Duration::from_secs(6));
    let listener = TcpListener::bind(&base.rendezvous).unwrap();
    let member = start(base.clone(), 1);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3 and some more text\r\n");
        }
    });
    let text = member.join().unwrap().error();
    assert!(text.contains("another program") && text.contains(&base.rendezvous), "{text}");
}

/// Passes one connection on to rank 0 and returns what the member sent.
fn record(rendezvous: String) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let recorder = thread::spawn(move || {
        let (mut member, _) = listener.accept().unwrap();
        let mut host = reach(&rendezvous);
        let (mut answers, mut back) = (host.try_clone().unwrap(), member.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut answers, &mut back).map(|_| back.shutdown(Shutdown::Both)));
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        // The greeting and the hello: what a listener on the line could have recorded before the member is in.
        while let Ok(count @ 1..) = member.read(&mut piece) {
            all.extend_from_slice(&piece[..count]);
            if host.write_all(&piece[..count]).is_err() {
                break;
            }
            if all.len() > 48 {
                thread::spawn(move || std::io::copy(&mut member, &mut host));
                break;
            }
        }
        all
    });
    (address, recorder)
}

#[test]
fn a_recorded_conversation_cannot_be_replayed() {
    let base = setup(3);
    let host = start(base.clone(), 0);
    let (address, recorder) = record(base.rendezvous.clone());
    let first = start(with(&base, |s| s.rendezvous = address), 1);
    let recorded = recorder.join().unwrap();
    assert!(recorded.len() > 48);
    let mut replay = TcpStream::connect(&base.rendezvous).unwrap();
    replay.write_all(&recorded[..48]).unwrap();
    let mut answer = [0; 48];
    replay.read_exact(&mut answer).unwrap();
    replay.write_all(&recorded[48..]).unwrap();
    assert!(matches!(replay.read(&mut answer), Ok(0) | Err(_)), "the replay was answered");
    let second = start(base, 2);
    let host = host.join().unwrap();
    assert!(host.refused.iter().any(|r| r.contains("recorded or forged")), "{:?}", host.refused);
    let meshes = [first, second].map(|m| m.join().unwrap().result.unwrap());
    check([host.result.unwrap()].into_iter().chain(meshes).collect());
}

#[test]
fn a_second_process_of_a_rank_is_refused_by_name() {
    let base = setup(3);
    let host = start(base.clone(), 0);
    let mut first = sit(&base, 1);
    let second = start(with(&base, |s| s.host = "intruder".into()), 1);
    assert_eq!(first.receiver().recv().unwrap().0, PROBE);
    first.sender().send(HERE, &[]).unwrap();
    let text = second.join().unwrap().error();
    assert!(text.contains("came twice: first rank 1 (host by-hand, pid 77)"), "{text}");
    assert!(text.contains(&format!("then rank 1 (host intruder, pid {})", std::process::id())), "{text}");
    // The first one goes on: only its own end ends the rendezvous.
    drop(first);
    let Outcome { refused, result, .. } = host.join().unwrap();
    assert!(refused.iter().any(|r| r.contains("intruder")), "{refused:?}");
    assert!(matches!(&result, Err(ClusterError::Lost(verdict)) if verdict.host == "by-hand"));
}

#[test]
fn the_replacement_of_a_host_that_fell_silent_takes_its_seat() {
    let base = setup(3);
    let host = start(base.clone(), 0);
    // Power was cut: the connection stands, and nobody answers on it. Were the last seat taken first, nobody would ask.
    let mut gone = sit(&base, 1);
    let replacement = start(base.clone(), 1);
    assert_eq!(gone.receiver().recv().unwrap().0, PROBE);
    let other = start(base, 2);
    check([host, replacement, other].map(|m| m.join().unwrap().result.unwrap()).into_iter().collect());
}

#[test]
fn what_must_be_equal_is_named_with_both_values_on_every_rank() {
    type Change = fn(&mut Setup);
    let cases: [(Change, &[&str]); 3] = [
        (|s| s.world = 4, &["expects 4 processes", "expects 3"]),
        (|s| s.members.facts[0].1 = "zz99".into(), &["plan is 'zz99' on rank 2", "'ab12' on rank 0"]),
        (|s| s.members.fingerprint = "0000".into(), &["fingerprint is '0000' on rank 2", "'ff00' on rank 0"]),
    ];
    for (change, parts) in cases {
        let base = setup(3);
        let host = start(base.clone(), 0);
        let right = sit(&base, 1);
        let wrong = start(with(&base, change), 2).join().unwrap();
        let host = host.join().unwrap();
        for outcome in [&host, &wrong] {
            assert!(matches!(outcome.result, Err(ClusterError::Refused { .. })));
        }
        for text in [host.error(), wrong.error(), farewell(right)] {
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}

#[test]
fn another_run_is_turned_away_alone() {
    let base = setup(2);
    let host = start(base.clone(), 0);
    let other = start(with(&base, |s| s.members.run_id = "run-b".into()), 1).join().unwrap().error();
    assert!(other.contains("'run-b'") && other.contains("'run-a'"), "{other}");
    let member = start(base, 1);
    check(vec![host.join().unwrap().result.unwrap(), member.join().unwrap().result.unwrap()]);
}

#[test]
fn who_never_comes_is_named_at_the_deadline_to_all() {
    let base = with(&setup(4), |s| s.deadline = Duration::from_millis(900));
    let host = start(base.clone(), 0);
    let member = start(with(&base, |s| s.deadline = Duration::from_secs(30)), 2);
    for outcome in [host, member] {
        let text = outcome.join().unwrap().error();
        assert!(text.contains("ranks 1, 3 of 4 never came") && text.contains(&base.rendezvous), "{text}");
    }
}

#[test]
fn members_without_rank_0_say_what_they_tried() {
    let base = with(&setup(2), |s| s.deadline = Duration::from_millis(500));
    let outcome = start(base.clone(), 1).join().unwrap();
    assert!(outcome.took >= Duration::from_millis(500));
    let text = outcome.error();
    assert!(text.contains(&base.rendezvous) && text.contains("refused") && text.contains("start rank 0"), "{text}");
    let text = start(with(&base, |s| s.rendezvous = "no.such.host.invalid:29500".into()), 1).join().unwrap().error();
    assert!(text.contains("cannot find no.such.host.invalid:29500"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named_and_one_that_becomes_free_is_used() {
    let base = setup(2);
    let taken = TcpListener::bind(&base.rendezvous).unwrap();
    let text = start(with(&base, |s| s.deadline = Duration::from_millis(300)), 0).join().unwrap().error();
    assert!(text.contains(&base.rendezvous) && text.contains("another program"), "{text}");
    let host = start(base.clone(), 0);
    thread::sleep(Duration::from_millis(200));
    drop(taken);
    let member = start(base.clone(), 1);
    check(vec![host.join().unwrap().result.unwrap(), member.join().unwrap().result.unwrap()]);
    let text = start(with(&base, |s| s.rendezvous = "192.0.2.1:29500".into()), 0).join().unwrap().error();
    assert!(text.contains("192.0.2.1:29500") && text.contains("no address of this host"), "{text}");
}

#[test]
fn a_member_that_dies_or_fails_while_the_others_wait_is_named_to_all() {
    for says_why in [false, true] {
        let base = setup(4);
        let host = start(base.clone(), 0);
        let (other, mut dying) = (sit(&base, 1), sit(&base, 2));
        if says_why {
            let lost = lost(2, "by-hand", 77, Cause::Failed, "no memory");
            let ClusterError::Lost(verdict) = lost else { panic!("{lost}") };
            messages::send(&mut dying, FAREWELL, &Farewell::Lost(verdict)).unwrap();
        }
        drop(dying);
        let host = host.join().unwrap();
        assert!(matches!(&host.result, Err(ClusterError::Lost(verdict)) if verdict.rank == 2));
        let (host, other) = (host.error(), farewell(other));
        assert!(host.contains("rank 2 (host by-hand, pid 77)"), "{host}");
        assert!(
            host.contains(if says_why { "failed at step 0, during the rendezvous: no memory" } else { "died" }),
            "{host}"
        );
        assert_eq!(host, other);
    }
}

#[test]
fn a_member_that_is_told_to_stop_tells_rank_0() {
    let base = setup(2);
    let (channel, member) = seat_by_hand(&base);
    base.leaves.store(true, Ordering::Relaxed);
    assert_eq!(member.join().unwrap().error(), "stop: signal; -");
    let text = farewell(channel);
    assert!(text.contains("rank 1 (host node1") && text.contains("stop: signal"), "{text}");
}

#[test]
fn the_end_of_rank_0_is_told_or_noticed() {
    let base = setup(3);
    let host = start(base.clone(), 0);
    let member = sit(&base, 1);
    base.leaves.store(true, Ordering::Relaxed);
    host.join().unwrap().error();
    let text = farewell(member);
    assert!(text.contains("rank 0 (host node0") && text.contains("stop: signal"), "{text}");

    let (channel, member) = seat_by_hand(&setup(2));
    drop(channel);
    let member = member.join().unwrap();
    assert!(matches!(&member.result, Err(ClusterError::Lost(verdict)) if verdict.rank == 0));
    let text = member.error();
    assert!(text.contains("died"), "{text}");
}

#[test]
fn a_member_that_dies_while_all_connect_is_named() {
    let base = setup(2);
    let host = start(base.clone(), 0);
    let mut member = sit(&base, 1);
    assert_eq!(member.receiver().recv().unwrap().0, ROSTER);
    drop(member);
    let text = host.join().unwrap().error();
    assert!(text.contains("rank 1 (host by-hand, pid 77) died"), "{text}");
}

#[test]
fn impossible_places_and_addresses_are_refused_at_once() {
    for (rank, world) in [(0, 0), (2, 2), (1, 1), (0, MAX_WORLD + 1)] {
        let text = start(with(&setup(2), |s| s.world = world), rank).join().unwrap().error();
        assert!(text.contains("is impossible"), "{text}");
    }
    for name in ["node0", "node0:", ":29500", "node0:0", "node0:99999", "::1:29500", "[::1]"] {
        for rank in [0, 1] {
            let text = start(with(&setup(2), |s| s.rendezvous = name.into()), rank).join().unwrap().error();
            assert!(text.contains("HOST:PORT"), "{name}: {text}");
        }
    }
}
