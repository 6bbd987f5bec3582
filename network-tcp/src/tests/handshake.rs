//! Who is refused, and that both sides know it.

use super::*;
use crate::handshake::{Refusal, Versions};

#[test]
fn a_wrong_hello_is_answered_with_the_reason_counted_and_closed() {
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        let good = hello(2, 1).encode();
        let change = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            bytes
        };
        let stranger = Replica::new(1, 5);
        let wrong = [
            (change(0, b'Q'), Refusal::Magic.code()),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refusal::Magic.code()),
            (b"PING\r\n".to_vec(), Refusal::Magic.code()),
            (change(8, 4), 2),
            (change(19, 1), Refusal::Malformed.code()),
            (hello(2, 3).encode().to_vec(), 4),
            (hello_by(member(2), stranger).encode().to_vec(), 6),
            (hello(1, 1).encode().to_vec(), Refusal::Malformed.code()),
            (hello_by(rebooted(member(1)), replica(1)).encode().to_vec(), Refusal::Twin.code()),
        ];
        for (count, (bytes, reason)) in wrong.into_iter().enumerate() {
            let mut wire = Wire::connect(&rt, &node).await;
            wire.send(bytes).await;
            let answer = wire.answer().await;
            assert_eq!((answer.refused, answer.versions, answer.mac), (reason, VERSIONS, None));
            assert_eq!(answer.node.unwrap().replica, replica(1));
            wire.until_closed().await;
            let stats = node.transport.stats();
            assert_eq!((stats.refused_handshakes, stats.accepts), (count as u64 + 1, 0));
        }
        Wire::welcomed(&rt, &node, 2).await;
    });
}

#[test]
fn a_hello_with_any_byte_changed_is_refused_or_heard_and_never_harms() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let good = hello(2, 1).encode();
        for at in 0..good.len() {
            for byte in [0, 1, 0x7F, 0x80, 0xFF, good[at] ^ 1] {
                let mut bytes = good.to_vec();
                bytes[at] = byte;
                let mut wire = Wire::connect(&rt, &node).await;
                wire.send(bytes).await;
                // With a longer length it waits for more.
                let _ = wire.write.shutdown().await;
                wire.until_closed().await;
            }
        }
        // Of what was not confirmed nothing is known.
        assert_eq!((node.inbox.try_recv().ok(), node.transport.stats().accepts), (None, 0));
        Wire::welcomed(&rt, &node, 2).await;
    });
}

#[test]
fn a_confirmation_with_any_byte_changed_proves_nothing() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let hello = hello(2, 1);
        let mut at = 0;
        loop {
            let mut wire = Wire::connect(&rt, &node).await;
            let there = wire.greet(&hello).await.node.unwrap();
            let mac = Some(mac(CLUSTER, Role::Dialler, &hello.from, &there));
            let mut bytes = Confirm { mac, ..Confirm::default() }.encode().to_vec();
            if at == bytes.len() {
                break;
            }
            bytes[at] ^= 1;
            let number = frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 1 })));
            wire.send([bytes, number].concat()).await;
            let _ = wire.write.shutdown().await;
            wire.until_closed().await;
            at += 1;
        }
        let stats = node.transport.stats();
        assert_eq!((node.inbox.try_recv().ok(), stats.accepts, stats.frames_in), (None, 0, 0));
    });
}

#[test]
fn a_client_that_says_too_little_is_closed_after_the_deadline() {
    run(async |rt| {
        let timing = Timing { handshake: Duration::from_millis(50), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut silent = Wire::connect(&rt, &node).await;
        let mut half = Wire::connect(&rt, &node).await;
        half.send(hello(2, 1).encode().slice(..30)).await;
        let mut unconfirmed = Wire::connect(&rt, &node).await;
        unconfirmed.greet(&hello(3, 1)).await;
        silent.until_closed().await;
        half.until_closed().await;
        unconfirmed.until_closed().await;
        let stats = node.transport.stats();
        assert_eq!((stats.refused_handshakes, stats.accepts), (3, 0));
    });
}

#[test]
fn a_client_that_closes_at_once_is_no_refusal_but_half_a_hello_is() {
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        drop(Wire::connect(&rt, &node).await);
        let mut half = Wire::connect(&rt, &node).await;
        half.send(hello(2, 1).encode().slice(..30)).await;
        drop(half);
        until(&rt, || node.transport.stats().refused_handshakes == 1).await;
        // Accepted after the others, and so dealt with after them.
        Wire::welcomed(&rt, &node, 2).await;
        assert_eq!(node.transport.stats().refused_handshakes, 1);
    });
}

#[test]
fn members_of_different_clusters_refuse_each_other_on_both_sides() {
    run(async |rt| {
        let elsewhere = |id, state| {
            let cluster = Some(OTHER_CLUSTER);
            Credentials { cluster, state, ..member(id) }
        };
        let one = Node::start(&rt, 1).await;
        for (count, state) in [StoreState::Member, StoreState::Spent].into_iter().enumerate() {
            let mut two = Node::start_as(&rt, elsewhere(2 + count as u64, state)).await;
            let there = two.own.replica;
            one.meet(&[(there.id, two.address())]);
            let before = one.transport.stats();
            // Members try again and again, so there may be more refusals than are waited for.
            one.send_to(there, who());
            until(&rt, || one.transport.stats().dropped_out > before.dropped_out).await;
            until(&rt, || two.transport.stats().refused_handshakes >= 1).await;
            // And the other way round.
            two.meet(&[(1, one.address())]);
            two.send_number(1, 1);
            until(&rt, || two.transport.stats().dropped_out >= 1).await;
            let refused = before.refused_handshakes + 2;
            until(&rt, || one.transport.stats().refused_handshakes >= refused).await;
            assert_eq!((one.transport.stats().connects, two.transport.stats().accepts), (0, 0));
            assert_eq!(two.inbox.try_recv().ok(), None);
        }
    });
}

#[test]
fn a_dialler_refuses_who_is_not_the_wanted_replica() {
    run(async |rt| {
        let timing = Timing { backoff_max: Duration::from_millis(1), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        let answer = welcome_by(member(2), &hello(1, 2));
        let with = |replica| {
            let party = Party { replica, ..answer.node.unwrap() };
            Answer { node: Some(party), ..answer.clone() }.encode().to_vec()
        };
        let mut version = answer.encode().to_vec();
        version[8] += 1;
        let wrong = [
            b"-ERR unknown command\r\n".to_vec(),
            version,
            with(replica(3)),
            with(Replica::new(2, 5)),
            Answer { node: None, mac: None, ..answer.clone() }.encode().to_vec(),
            Answer::refuse(Refusal::Malformed, answer.node).encode().to_vec(),
            Answer::refuse(Refusal::Unknown(99), None).encode().to_vec(),
        ];
        for (count, bytes) in wrong.into_iter().enumerate() {
            node.send_number(2, 1);
            let mut wire = Wire::new(listener.accept().await.unwrap().0);
            wire.send(bytes).await;
            wire.until_closed().await;
            until(&rt, || node.transport.stats().dropped_out == count as u64 + 1).await;
            assert_eq!(node.transport.stats().refused_handshakes, count as u64 + 1);
        }
        node.send_number(2, 1);
        let (_wire, hello) = Wire::welcome(&mut listener, 2).await;
        assert_eq!((hello.from.replica, hello.to), (replica(1), replica(2)));
        assert_eq!((hello.from.boot, hello.from.state), (member(1).boot, StoreState::Member));
        assert_eq!(hello.address, node.address());
        until(&rt, || node.transport.stats().connects == 1).await;
    });
}

#[test]
fn whichever_store_a_node_has_answers_who_asks_for_any() {
    run(async |rt| {
        let timing = Timing { backoff_max: Duration::from_millis(1), ..Timing::DEFAULT };
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let new = Credentials { replica: Replica::new(2, 5), ..empty(2) };
        let mut two = Node::start_as(&rt, new).await;
        one.meet(&[(2, two.address())]);
        one.send_number(2, 1);
        until(&rt, || one.transport.stats().refused_handshakes > 0).await;
        one.send_to(Replica::any(2), who());
        let arrived = two.inbox.recv().await.unwrap();
        assert_eq!((arrived.to, arrived.body), (Replica::any(2), who()));
        // It is known by its name now, and has a connection of its own for that; neither replaces
        // the other.
        one.send_to(new.replica, situation());
        assert_eq!(two.inbox.recv().await.unwrap().to, new.replica);
        one.send_to(Replica::any(2), who());
        assert_eq!(two.inbox.recv().await.unwrap().body, who());
        assert_eq!((one.transport.stats().connects, two.transport.stats().accepts), (2, 2));
    });
}

#[test]
fn versions_are_agreed_on_within_both_ranges() {
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        let offer = |min, max| Hello { versions: Versions { min, max }, ..hello(2, 1) };
        for (min, max) in [(3, 3), (1, 3), (3, 9), (1, 9)] {
            let answer = Wire::connect(&rt, &node).await.greet(&offer(min, max)).await;
            assert_eq!((answer.version, answer.refused), (3, 0));
        }
        for (min, max) in [(4, 9), (1, 2), (0, 0), (9, 3), (u32::MAX, u32::MAX)] {
            let asked = offer(min, max);
            let answer = Wire::connect(&rt, &node).await.greet(&asked).await;
            assert_eq!((answer.version, answer.versions), (0, VERSIONS));
            assert!(matches!(answer.check(&asked), Err(Refusal::Versions { .. })));
        }
    });
}

#[test]
fn a_refusal_over_versions_tells_both_ranges() {
    let theirs = Versions { min: 4, max: 9 };
    let mut hello = BytesMut::from(&Hello { versions: theirs, ..hello(2, 1) }.encode()[..]);
    let refusal = Hello::take(&mut hello).unwrap_err();
    let here = refusal.to_string();
    assert!(here.contains("this node speaks 3") && here.contains("the other 4 to 9"), "{here}");
    // The dialler of such a version reads the range of this node from the answer, and this node
    // that of another.
    let answer = Answer { versions: theirs, ..Answer::refuse(refusal, None) };
    let answer = Answer::take(&mut BytesMut::from(&answer.encode()[..])).unwrap().unwrap();
    let there = answer.check(&self::hello(2, 1)).unwrap_err();
    assert_eq!(there, Refusal::Versions { theirs });
}

#[test]
fn a_peer_that_never_answers_the_hello_is_given_up_and_tried_again() {
    run(async |rt| {
        let timing = Timing {
            handshake: Duration::from_millis(30),
            backoff_max: Duration::from_millis(1),
            ..Timing::DEFAULT
        };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        node.send_number(2, 1);
        let mut silent = Wire::new(listener.accept().await.unwrap().0);
        silent.until_closed().await;
        until(&rt, || node.transport.stats().dropped_out == 1).await;
        node.send_number(2, 2);
        Wire::welcome(&mut listener, 2).await;
    });
}

#[test]
fn a_newer_connection_of_a_peer_replaces_the_older_of_the_same_lane() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let mut bulk = Wire::welcomed_on(&rt, &node, 2, Lane::Bulk).await;
        let mut older = Wire::welcomed(&rt, &node, 2).await;
        let mut another = Wire::welcomed(&rt, &node, 3).await;
        let mut newer = Wire::welcomed(&rt, &node, 2).await;
        older.until_closed().await;
        let number =
            |from, sequence| frame(&encode(&message(from, 1, Body::ReadIndex { sequence })));
        newer.send(number(2, 1)).await;
        assert_eq!(node.number().await, 1);
        another.send(number(3, 2)).await;
        assert_eq!(node.number().await, 2);
        bulk.send(frame(&encode(&message(2, 1, snapshot_chunk(0, 10))))).await;
        assert_eq!(node.inbox.recv().await.unwrap().body, snapshot_chunk(0, 10));
        let mut newer_bulk = Wire::welcomed_on(&rt, &node, 2, Lane::Bulk).await;
        bulk.until_closed().await;
        newer.send(number(2, 3)).await;
        assert_eq!(node.number().await, 3);
        newer_bulk.send(frame(&encode(&message(2, 1, snapshot_chunk(10, 10))))).await;
        assert_eq!(node.inbox.recv().await.unwrap().body, snapshot_chunk(10, 10));
    });
}
