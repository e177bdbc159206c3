//! Owns the tests of channels and their handshake; never touches a rendezvous.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use super::handshake::{Answer, HandshakeError, MESSAGE_BYTES, UNPROVEN_FRAME_BYTES, dial};
use super::*;

const KEY: [u8; 32] = [7; 32];

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn answer(stream: TcpStream, key: &[u8; 32], prologue: &[u8]) -> Result<Channel, ChannelError> {
    let mut answer = Answer::new();
    while !answer.read(&stream)? {}
    answer.reply(stream, key, prologue)
}

/// Two channels whose sockets lead to the test: what one sends comes out of its wire, what the other receives goes in.
fn over_wires(wire: Wire) -> ((Channel, TcpStream), (Channel, TcpStream)) {
    let ((near, mut near_wire), (far, mut far_wire)) = (sockets(), sockets());
    let dialling = thread::spawn(move || dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap());
    let answering = thread::spawn(move || answer(far, &KEY, b"test").unwrap());
    let mut message = [0; MESSAGE_BYTES];
    near_wire.read_exact(&mut message).unwrap();
    far_wire.write_all(&message).unwrap();
    far_wire.read_exact(&mut message).unwrap();
    near_wire.write_all(&message).unwrap();
    let mut far = answering.join().unwrap();
    far.trust();
    ((dialling.join().unwrap().into_wire(wire), near_wire), (far.into_wire(wire), far_wire))
}

fn pair(wire: Wire) -> (Channel, Channel) {
    let (near, far) = sockets();
    let dialling = thread::spawn(move || dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap());
    let mut far = answer(far, &KEY, b"test").unwrap();
    far.trust();
    (dialling.join().unwrap().into_wire(wire), far.into_wire(wire))
}

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn never() -> Result<(), ChannelError> {
    Ok(())
}

/// What `send` puts on the wire.
fn recorded(channel: &mut Channel, wire: &mut TcpStream, send: impl FnOnce(&mut Sender)) -> Vec<u8> {
    send(channel.sender());
    let mut all = vec![0; 1 << 20];
    let count = wire.read(&mut all).unwrap();
    all.truncate(count);
    all
}

#[test]
fn frames_of_all_sizes_arrive_in_both_directions() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let (mut near, mut far) = pair(wire);
        assert_eq!((near.wire(), far.wire()), (wire, wire));
        let border = MAX_PLAIN_BYTES - FRAME_HEADER_BYTES;
        let sizes = [0, 1, 4091, 4096, border - 1, border, border + 1, 2 * MAX_PLAIN_BYTES, MAX_FRAME];
        let echo = thread::spawn(move || {
            for _ in sizes {
                let (kind, payload) = far.receiver().recv().unwrap();
                far.sender().send(kind + 1, &payload).unwrap();
            }
            far
        });
        for (i, size) in sizes.into_iter().enumerate() {
            near.sender().send(i as u8, &bytes(size, 3)).unwrap();
            assert_eq!(near.receiver().recv().unwrap(), (i as u8 + 1, bytes(size, 3)), "{wire:?} {size}");
        }
        let error = near.sender().send(0, &vec![0; MAX_FRAME + 1]).unwrap_err();
        assert!(matches!(error, ChannelError::Protocol(_)), "{error}");
        drop(echo.join().unwrap());
        assert!(matches!(near.receiver().recv(), Err(ChannelError::Closed)));
    }
}

#[test]
fn bulk_data_may_be_cut_anywhere_and_stands_between_frames() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let (mut near, mut far) = pair(wire);
        let data = bytes(3_000_001, 1);
        let expected = data.clone();
        let sending = thread::spawn(move || {
            near.sender().send(1, b"before").unwrap();
            let mut rest = data.as_slice();
            for size in [1, 65_519, 65_520, 0, 700_000, 5, usize::MAX] {
                let (now, later) = rest.split_at(size.min(rest.len()));
                near.sender().send_bulk(now).unwrap();
                rest = later;
            }
            near.sender().send(2, b"after").unwrap();
            near
        });
        assert_eq!(far.receiver().recv().unwrap(), (1, b"before".to_vec()));
        let mut got = vec![0; expected.len()];
        let mut rest = got.as_mut_slice();
        for size in [7, 0, 131_072, 1, 262_144, 65_519, usize::MAX] {
            let (now, later) = rest.split_at_mut(size.min(rest.len()));
            far.receiver().recv_bulk(now, &mut never).unwrap();
            rest = later;
        }
        assert!(got == expected, "{wire:?}");
        assert_eq!(far.receiver().recv().unwrap(), (2, b"after".to_vec()));
        drop(sending.join().unwrap());
    }
}

#[test]
fn two_threads_use_the_two_directions_at_once() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let (near, far) = pair(wire);
        let halves: Vec<_> = [near, far].into_iter().map(|channel| channel.split().unwrap()).collect();
        let data = bytes(4 << 20, 9);
        thread::scope(|scope| {
            for (mut sender, mut receiver) in halves {
                let data = &data;
                scope.spawn(move || sender.send_bulk(data).unwrap());
                scope.spawn(move || {
                    let mut got = vec![0; data.len()];
                    receiver.recv_bulk(&mut got, &mut never).unwrap();
                    assert!(got == *data);
                });
            }
        });
    }
}

#[test]
fn a_timeout_loses_nothing_of_a_frame_that_came_in_part() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let ((mut near, mut out), (mut far, mut input)) = over_wires(wire);
        let frame = bytes(9_000, 5);
        let on_wire = recorded(&mut near, &mut out, |s| s.send(8, &frame).unwrap());
        let mut received = None;
        for piece in on_wire.chunks(1_499) {
            assert!(received.is_none());
            input.write_all(piece).unwrap();
            received = far.receiver().try_recv(Duration::from_millis(20)).unwrap();
        }
        assert_eq!(received.unwrap(), (8, frame), "{wire:?}");
        far.receiver().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert!(matches!(far.receiver().recv(), Err(ChannelError::Timeout)));
    }
}

#[test]
fn the_idle_check_is_called_while_nothing_comes_and_ends_the_wait() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let (mut near, mut far) = pair(wire);
        let mut calls = 0;
        let started = Instant::now();
        let mut idle = || {
            calls += 1;
            if calls < 6 { Ok(()) } else { Err(ChannelError::Timeout) }
        };
        let mut into = [0; 100];
        assert!(matches!(far.receiver().recv_bulk(&mut into, &mut idle), Err(ChannelError::Timeout)));
        assert_eq!(calls, 6);
        // 240 ms where nothing else runs; the bound is there for a check that is hardly ever called.
        assert!(started.elapsed() < Duration::from_secs(10), "6 calls took {:?}", started.elapsed());
        // Nothing had come, so nothing is lost.
        near.sender().send_bulk(&[5; 100]).unwrap();
        far.receiver().recv_bulk(&mut into, &mut never).unwrap();
        assert_eq!(into, [5; 100]);
        // A part had come: its rest must not be taken for something else.
        near.sender().send_bulk(&[6; 40]).unwrap();
        assert!(far.receiver().recv_bulk(&mut into, &mut || Err(ChannelError::Timeout)).is_err());
        let after = far.receiver().recv_bulk(&mut into, &mut never);
        assert!(matches!(after, Err(ChannelError::Protocol(_))), "{after:?}");
    }
}

#[test]
fn no_byte_of_a_sealed_record_can_be_changed() {
    let ((mut near, mut out), (far, input)) = over_wires(Wire::Sealed);
    let on_wire = recorded(&mut near, &mut out, |s| s.send(3, b"secret payload").unwrap());
    drop((far, input));
    assert!(!on_wire.windows(6).any(|w| w == b"secret"), "the payload can be read on the wire");
    // A fresh receiver per byte would need a handshake each: the same receiver refuses again and again instead.
    let ((mut near, mut out), (mut far, mut input)) = over_wires(Wire::Sealed);
    let good = recorded(&mut near, &mut out, |s| s.send(3, b"payload").unwrap());
    for at in RECORD_HEADER_BYTES..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        input.write_all(&bad).unwrap();
        let error = far.receiver().recv().unwrap_err();
        assert!(matches!(error, ChannelError::Tampered(_)), "byte {at}: {error}");
        // Skips the record that did not open, as no product code does.
        far.receiver().discard_unread();
    }
    input.write_all(&good).unwrap();
    assert_eq!(far.receiver().recv().unwrap(), (3, b"payload".to_vec()));
    // The same record again is a replay.
    input.write_all(&good).unwrap();
    assert!(matches!(far.receiver().recv(), Err(ChannelError::Tampered(_))));
}

#[test]
fn records_out_of_order_or_of_another_sort_do_not_open() {
    let ((mut near, mut out), (mut far, mut input)) = over_wires(Wire::Sealed);
    let first = recorded(&mut near, &mut out, |s| s.send(1, b"1").unwrap());
    let second = recorded(&mut near, &mut out, |s| s.send(2, b"2").unwrap());
    input.write_all(&second).unwrap();
    assert!(matches!(far.receiver().recv(), Err(ChannelError::Tampered(_))));
    far.receiver().discard_unread();
    input.write_all(&first).unwrap();
    assert!(matches!(far.receiver().recv_bulk(&mut [0; 6], &mut never), Err(ChannelError::Tampered(_))));
    far.receiver().discard_unread();
    input.write_all(&[first, second].concat()).unwrap();
    assert_eq!(far.receiver().recv().unwrap().0, 1);
    assert_eq!(far.receiver().recv().unwrap().0, 2);
    for header in [[0u8, 0], [0, 16], [0xff, 0xff]] {
        let ((_near, _out), (mut far, mut input)) = over_wires(Wire::Sealed);
        input.write_all(&header).unwrap();
        input.write_all(&[0; 70_000]).unwrap();
        assert!(matches!(far.receiver().recv(), Err(ChannelError::Tampered(_))));
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_held() {
    let ((_near, _out), (mut far, mut input)) = over_wires(Wire::Plain);
    let mut header = vec![1];
    header.extend((MAX_FRAME as u32 + 1).to_le_bytes());
    input.write_all(&header).unwrap();
    let error = far.receiver().recv().unwrap_err().to_string();
    assert!(error.contains("1048577 bytes") && error.contains("1048576"), "{error}");

    let (near, far) = sockets();
    let dialling = thread::spawn(move || {
        let mut near = dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap();
        near.sender().send(1, &[0; UNPROVEN_FRAME_BYTES]).unwrap();
        near.sender().send(1, &[0; UNPROVEN_FRAME_BYTES + 1]).unwrap();
        near
    });
    let mut far = answer(far, &KEY, b"test").unwrap();
    assert_eq!(far.receiver().recv().unwrap().1.len(), UNPROVEN_FRAME_BYTES);
    assert!(far.receiver().recv().is_err());
    drop(dialling.join().unwrap());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_end_in_frames_or_errors(
        sent in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        sealed: bool,
    ) {
        let wire = if sealed { Wire::Sealed } else { Wire::Plain };
        let ((_near, _out), (mut far, mut input)) = over_wires(wire);
        input.write_all(&sent).unwrap();
        drop(input);
        let mut frames = 0;
        while far.receiver().recv().is_ok() {
            frames += 1;
        }
        proptest::prop_assert!(frames <= sent.len() / FRAME_HEADER_BYTES);
        proptest::prop_assert!(!sealed || frames == 0);
    }
}

#[test]
fn a_closer_ends_waits_of_both_halves() {
    let (near, far) = pair(Wire::Plain);
    let closer = near.closer();
    let (mut sender, mut receiver) = near.split().unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(move || receiver.recv().unwrap_err());
        let sends = scope.spawn(move || {
            loop {
                if let Err(error) = sender.send_bulk(&[0; 1 << 20]) {
                    return error;
                }
            }
        });
        thread::sleep(Duration::from_millis(50));
        closer.close();
        assert!(matches!(waits.join().unwrap(), ChannelError::Closed));
        assert!(matches!(sends.join().unwrap(), ChannelError::Closed));
    });
    drop(far);
}

#[test]
fn a_write_timeout_ends_a_send_and_nothing_follows_half_a_message() {
    for wire in [Wire::Sealed, Wire::Plain] {
        let (mut near, far) = pair(wire);
        near.sender().set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let error = near.sender().send_bulk(&vec![0; 64 << 20]).unwrap_err();
        assert!(matches!(error, ChannelError::Timeout), "{error}");
        assert!(matches!(near.sender().send(1, b""), Err(ChannelError::Protocol(_))));
        drop(far);
    }
}

#[test]
fn another_key_prologue_or_program_is_told_apart() {
    for (key, prologue) in [([8; 32], b"test".as_slice()), (KEY, b"tesT".as_slice())] {
        let (near, far) = sockets();
        let dialling = thread::spawn(move || dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap_err());
        assert!(matches!(answer(far, &key, prologue), Err(ChannelError::Tampered(_))));
        assert!(matches!(dialling.join().unwrap(), HandshakeError::OtherToken));
    }
    let (near, mut far) = sockets();
    far.write_all(&[b'x'; MESSAGE_BYTES]).unwrap();
    let error = dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap_err();
    assert!(matches!(error, HandshakeError::Stranger), "{error}");
    let (near, far) = sockets();
    drop(far);
    let error = dial(near, &KEY, b"test", soon(), &mut || Ok(())).unwrap_err();
    assert!(matches!(error, HandshakeError::Channel(ChannelError::Closed)), "{error}");
    let (near, _far) = sockets();
    let error = dial(near, &KEY, b"test", Instant::now(), &mut || Ok(())).unwrap_err();
    assert!(matches!(error, HandshakeError::Channel(ChannelError::Timeout)), "{error}");
}
