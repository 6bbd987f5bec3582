//! Peers that can't prove that they are of the same cluster: only what forms one, or lets a disk
//! in, goes to them and comes from them, and the cluster's id is told to nobody else.

use super::*;
use quorate_rt_tokio::TokioListener;

/// A transport of member 1, and a peer of its list that is in the test's hands.
async fn facing(rt: &Tokio, own: Credentials) -> (Node, TokioListener) {
    let timing = Timing { backoff_max: Duration::from_millis(1), ..Timing::DEFAULT };
    let node = Node::start_with(rt, own, ANYWHERE, config(), timing).await;
    let listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
    node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
    (node, listener)
}

/// Whether the id of the cluster, or the key that is made of it, is anywhere in these bytes.
fn tells_cluster(bytes: &[u8]) -> bool {
    let id = CLUSTER.0;
    let text = CLUSTER.to_string();
    let forms = [id.to_le_bytes().to_vec(), id.to_be_bytes().to_vec(), text.into_bytes()];
    // Half of it is too much, too.
    forms.iter().any(|form| {
        form.chunks_exact(8).any(|half| bytes.windows(half.len()).any(|window| window == half))
    })
}

#[test]
fn an_empty_node_and_a_member_speak_of_formation_alone() {
    run(async |rt| {
        let mut one = Node::start(&rt, 1).await;
        let mut two = Node::start_as(&rt, empty(2)).await;
        one.meet(&[(2, two.address())]);
        two.meet(&[(1, one.address())]);
        for body in all_kinds() {
            let before = one.transport.stats().dropped_out;
            one.send(2, body.clone());
            two.send(1, body.clone());
            if is_formation(&body) {
                assert_eq!(two.inbox.recv().await.unwrap(), message(1, 2, body.clone()));
                assert_eq!(one.inbox.recv().await.unwrap(), message(2, 1, body));
            } else {
                until(&rt, || one.transport.stats().dropped_out > before).await;
            }
        }
        let (one, two) = (one.transport.stats(), two.transport.stats());
        assert_eq!(one.frames_in + two.frames_in, 8);
        assert_eq!((one.bad_frames, two.bad_frames), (0, 0));
        assert_eq!((one.unproven, one.connects + one.accepts), (4, 4), "two lanes, two directions");
        assert_eq!((one.refused_handshakes, two.refused_handshakes), (0, 0));
    });
}

#[test]
fn whatever_an_unproven_peer_sends_beside_formation_closes_its_connection() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let mut bad = 0;
        // With no cluster, with another one's proof, and claimed by another founder.
        let claimed =
            Credentials { state: StoreState::Claimed, cluster: Some(OTHER_CLUSTER), ..member(2) };
        for own in [empty(2), claimed] {
            for body in all_kinds() {
                let lane = Lane::of(&body);
                let mut wire = Wire::connect(&rt, &node).await;
                let hello = Hello { lane, ..hello_by(own, replica(1)) };
                wire.shake_hands(&hello, own.cluster).await;
                wire.send(frame(&encode(&message(2, 1, body.clone())))).await;
                if is_formation(&body) {
                    assert_eq!(node.inbox.recv().await.unwrap().body, body);
                } else {
                    wire.until_closed().await;
                    bad += 1;
                    until(&rt, || node.transport.stats().bad_frames == bad).await;
                    assert_eq!(node.inbox.try_recv().ok(), None);
                }
            }
        }
        assert_eq!(node.transport.stats().frames_in, 8);
    });
}

#[test]
fn the_id_of_the_cluster_is_in_nothing_that_an_unproven_peer_gets() {
    run(async |rt| {
        let (node, mut listener) = facing(&rt, member(1)).await;
        // Who dials in, and sends nonsense afterwards, gets an answer, reports and a close.
        let mut got = Vec::new();
        for state in [StoreState::Empty, StoreState::Claimed, StoreState::Member] {
            let stranger = Credentials { state, cluster: Some(OTHER_CLUSTER), ..member(2) };
            let mut wire = Wire::connect(&rt, &node).await;
            wire.send(hello_by(stranger, replica(1)).encode()).await;
            while wire.buffer.is_empty() {
                assert!(wire.more().await);
            }
            let read = BytesMut::from(&wire.buffer[..]);
            let answer = Answer::take(&mut wire.buffer).unwrap().unwrap();
            got.extend_from_slice(&read);
            let there = answer.node.unwrap();
            let hello = hello_by(stranger, replica(1));
            let mac = Some(mac(OTHER_CLUSTER, Role::Dialler, &hello.from, &there));
            wire.send(Confirm { mac, ..Confirm::default() }.encode()).await;
            let _ = wire.write.write_all(vec![frame(&[7; 100]).into()]).await;
            while wire.more().await {}
            got.extend_from_slice(&wire.buffer);
        }
        // Who is dialled gets the handshake and what forms clusters.
        for body in all_kinds() {
            node.send(2, body);
        }
        for _ in 0..2 {
            let mut wire = Wire::new(listener.accept().await.unwrap().0);
            let hello = wire.take_bytes(&mut got, Hello::take).await;
            wire.send(welcome_by(empty(2), &hello).encode()).await;
            wire.take_bytes(&mut got, Confirm::take).await;
            let frames = if hello.lane == Lane::Main { vec![who(), situation()] } else { vec![] };
            for body in frames {
                let bytes = frame(&encode(&message(1, 2, body)));
                wire.expect_bytes(&bytes).await;
                got.extend(bytes);
            }
            if hello.lane == Lane::Main {
                // These two are how a member or a founder lets somebody in, and what they go to was
                // listed.
                for body in [claim(), admit()] {
                    let bytes = frame(&encode(&message(1, 2, body)));
                    assert!(tells_cluster(&bytes), "or the search finds nothing");
                    wire.expect_bytes(&bytes).await;
                }
                // The others do not follow.
                node.send(2, who());
                wire.expect(&message(1, 2, who())).await;
            }
        }
        assert!(got.len() > 900, "{}", got.len());
        assert!(!tells_cluster(&got));
    });
}

#[test]
fn a_claim_and_an_admission_go_to_a_listed_address_and_not_to_who_dials_in() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let mut two = Node::start_as(&rt, empty(2)).await;
        two.meet(&[(1, one.address())]);
        two.send(1, who());
        until(&rt, || one.transport.stats().frames_in == 1).await;
        // It is dialled back, where it said it is.
        one.send(2, claim());
        one.send(2, admit());
        assert_eq!(one.transport.stats().dropped_out, 2);
        one.send(2, situation());
        assert_eq!(two.inbox.recv().await.unwrap().body, situation());
        one.meet(&[(2, two.address())]);
        one.send(2, claim());
        assert_eq!(two.inbox.recv().await.unwrap().body, claim());
    });
}

#[test]
fn what_a_peer_says_of_itself_reaches_no_other_replica_of_its_node() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let two = Node::start_as(&rt, empty(2)).await;
        two.meet(&[(1, one.address())]);
        two.send(1, who());
        until(&rt, || one.transport.stats().frames_in == 1).await;
        one.send_to(Replica::any(2), who());
        one.send_to(Replica::new(2, 5), situation());
        assert_eq!(one.transport.stats().dropped_out, 2);
        assert_eq!(one.transport.stats().connects, 0);
    });
}

#[test]
fn a_mac_of_another_connection_or_of_the_other_role_proves_nothing() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let hello = hello(2, 1);
        // What a member has once sent to this very node.
        let mut earlier = Wire::connect(&rt, &node).await;
        let there = earlier.greet(&hello).await.node.unwrap();
        let replayed = mac(CLUSTER, Role::Dialler, &hello.from, &there);
        drop(earlier);

        let mut wire = Wire::connect(&rt, &node).await;
        let answer = wire.greet(&hello).await;
        let there = answer.node.unwrap();
        let reflected = answer.mac.unwrap();
        assert_ne!(there.nonce, NONCE);
        // Of the same connection, but with the parties the other way round, or another boot.
        let turned = mac(CLUSTER, Role::Dialler, &there, &hello.from);
        let boot = rebooted(member(2)).boot;
        let booted = mac(CLUSTER, Role::Dialler, &Party { boot, ..hello.from }, &there);
        drop(wire);
        for wrong in [replayed, reflected, turned, booted, [0; 32]] {
            let mut wire = Wire::connect(&rt, &node).await;
            wire.greet(&hello).await;
            wire.send(Confirm { mac: Some(wrong), ..Confirm::default() }.encode()).await;
            wire.send(frame(&encode(&message(2, 1, who())))).await;
            wire.until_closed().await;
        }
        let mut wire = Wire::connect(&rt, &node).await;
        let own = wire.greet(&hello).await;
        wire.send(Confirm { mac: own.mac, ..Confirm::default() }.encode()).await;
        wire.until_closed().await;
        assert_eq!((node.transport.stats().accepts, node.inbox.try_recv().ok()), (0, None));
        Wire::connect(&rt, &node).await.shake_hands(&hello, Some(CLUSTER)).await;
        until(&rt, || node.transport.stats().accepts == 1).await;
    });
}

#[test]
fn a_dialler_that_gets_its_own_mac_back_sends_no_frame() {
    run(async |rt| {
        let (node, mut listener) = facing(&rt, member(1)).await;
        node.send_number(2, 1);
        let mut wire = Wire::new(listener.accept().await.unwrap().0);
        let hello = wire.take(Hello::take).await;
        let there = Party::new(&member(2), hello.from.nonce);
        let own = mac(CLUSTER, Role::Dialler, &hello.from, &there);
        wire.send(Answer::welcome(&hello, there, Some(own)).encode()).await;
        let confirm = wire.take(Confirm::take).await;
        assert_eq!(
            (confirm.refused, confirm.mac),
            (crate::handshake::Refusal::Cluster.code(), None)
        );
        wire.until_closed().await;
        assert!(wire.buffer.is_empty(), "nothing else was sent");
        until(&rt, || node.transport.stats().dropped_out == 1).await;
        assert_eq!(node.transport.stats().connects, 0);
    });
}

#[test]
fn an_unproven_connection_is_made_anew_when_the_node_has_joined_and_a_proven_one_stays() {
    run(async |rt| {
        let mut one = Node::start(&rt, 1).await;
        let mut two = Node::start_as(&rt, empty(2)).await;
        one.meet(&[(2, two.address())]);
        two.meet(&[(1, one.address())]);
        one.send(2, admit());
        assert_eq!(two.inbox.recv().await.unwrap().body, admit());
        two.send(1, who());
        assert_eq!(one.inbox.recv().await.unwrap().body, who());
        // It answers and changes in one turn, as a node does; nothing is lost by that.
        two.send(1, situation());
        two.becomes(StoreState::Claimed, Some(CLUSTER));
        two.send_number(1, 0);
        assert_eq!(one.inbox.recv().await.unwrap().body, situation());
        assert_eq!(one.number().await, 0);
        one.reach(&rt, &mut two, 1).await;
        two.reach(&rt, &mut one, 2).await;
        let before = (one.transport.stats(), two.transport.stats());
        assert!(before.0.unproven >= 1, "{before:?}");
        two.becomes(StoreState::Member, Some(CLUSTER));
        two.send_number(1, 3);
        while one.number().await != 3 {}
        one.send_number(2, 4);
        while two.number().await != 4 {}
        let after = (one.transport.stats(), two.transport.stats());
        assert_eq!(before.0.connects + before.1.connects, after.0.connects + after.1.connects);
        assert_eq!(before.0.accepts + before.1.accepts, after.0.accepts + after.1.accepts);
    });
}

#[test]
fn proven_connections_end_when_the_claim_is_superseded() {
    run(async |rt| {
        let claimed = |id| Credentials { state: StoreState::Claimed, ..member(id) };
        let mut one = Node::start_as(&rt, claimed(1)).await;
        let mut two = Node::start_as(&rt, claimed(2)).await;
        one.meet(&[(2, two.address())]);
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        one.becomes(StoreState::Claimed, Some(OTHER_CLUSTER));
        one.send(2, claim());
        assert_eq!(two.inbox.recv().await.unwrap().body, claim());
        assert_eq!(two.transport.stats().unproven, 1);
        two.becomes(StoreState::Claimed, Some(OTHER_CLUSTER));
        one.reach(&rt, &mut two, 2).await;
    });
}

#[test]
fn an_unproven_connection_with_nothing_to_do_is_closed() {
    run(async |rt| {
        let timing = Timing { unproven_idle: Duration::from_millis(20), ..Timing::DEFAULT };
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        one.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        one.send(2, who());
        let (mut wire, ..) = Wire::welcome_as(&mut listener, empty(2)).await;
        let who = message(1, 2, who());
        wire.expect(&who).await;
        wire.send((frame(&encode(&who)).len() as u64).to_le_bytes().to_vec()).await;
        wire.until_closed().await;
        // By now it may have joined, and nobody has said so.
        one.send_number(2, 1);
        let (mut wire, _) = Wire::welcome(&mut listener, 2).await;
        wire.expect(&message(1, 2, Body::ReadIndex { sequence: 1 })).await;
    });
}
