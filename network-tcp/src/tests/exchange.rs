//! Nodes that mean well: what they send arrives, in few writes, and they find each other again.

use std::collections::BTreeMap;

use super::*;

#[test]
fn every_kind_of_message_arrives_as_it_was_sent_both_ways() {
    run(async |rt| {
        let (mut one, mut two) = pair(&rt).await;
        for body in all_kinds() {
            one.send(2, body.clone());
            assert_eq!(two.inbox.recv().await.unwrap(), message(1, 2, body.clone()));
            two.send(1, body.clone());
            assert_eq!(one.inbox.recv().await.unwrap(), message(2, 1, body));
        }
        let stats = one.transport.stats();
        assert_eq!((stats.connects, stats.accepts), (2, 2), "a lane for each in each direction");
        assert_eq!(stats.frames_out, all_kinds().len() as u64);
        assert_eq!(stats.frames_in, all_kinds().len() as u64);
        assert_eq!(stats.bytes_out, two.transport.stats().bytes_in);
        assert_eq!(stats.bad_frames + stats.dropped_in + stats.dropped_out, 0);
    });
}

#[test]
fn a_large_message_arrives_and_others_after_it() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        let prev = LogId::new(2, 1, 10);
        let entries = vec![command(11, 12 << 20), command(12, 30), command(13, 300_000)];
        let body =
            Body::Append { prev, committed: 9, round: 1, durable: 0, entries: entries.into() };
        one.send(2, body.clone());
        let commands = vec![Bytes::from(vec![5; 12 << 20])];
        let forward = Body::Forward { boot: 1, sequence: 1, commands };
        // Not before the first, for which an unconnected outbox has no second place.
        assert_eq!(two.inbox.recv().await.unwrap().body, body);
        one.send(2, forward.clone());
        one.send_number(2, 1);
        assert_eq!(two.inbox.recv().await.unwrap().body, forward);
        assert_eq!(two.number().await, 1);
    });
}

#[test]
fn the_messages_of_one_turn_go_in_one_write() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.send_number(2, 0);
        assert_eq!(two.number().await, 0);
        let before = one.transport.stats();
        let commands = vec![Bytes::from(vec![1; 2000])];
        one.send(2, Body::Forward { boot: 1, sequence: 1, commands });
        (1..=100).for_each(|number| one.send_number(2, number));
        two.inbox.recv().await.unwrap();
        for number in 1..=100 {
            assert_eq!(two.number().await, number);
        }
        let after = one.transport.stats();
        assert_eq!(after.writes - before.writes, 1);
        assert_eq!(after.frames_out - before.frames_out, 101);
    });
}

#[test]
fn groups_share_the_connection_and_an_unknown_group_is_dropped() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        let (sender, mut other) = mpsc::unbounded();
        two.transport.attach(
            GROUP + 1,
            member(2),
            Inbox::new(move |m| sender.unbounded_send(m).unwrap()),
        );
        let to_group = |group| {
            let body = Body::ReadIndex { sequence: group };
            one.transport.send(Message { group, ..message(1, 2, body) });
        };
        to_group(GROUP + 2);
        to_group(GROUP + 1);
        to_group(GROUP);
        assert_eq!(two.number().await, GROUP);
        assert_eq!(other.recv().await.unwrap().group, GROUP + 1);
        let stats = two.transport.stats();
        assert_eq!((stats.accepts, stats.frames_in, stats.dropped_in), (1, 3, 1));
    });
}

#[test]
fn a_node_without_a_membership_answers_who_speaks_to_it() {
    run(async |rt| {
        let (mut one, mut fresh) = (Node::start(&rt, 1).await, Node::start(&rt, 2).await);
        fresh.send_number(1, 0);
        assert_eq!(fresh.transport.stats().dropped_out, 1, "nobody knows where 1 is");
        one.meet(&[(2, fresh.address())]);
        one.send_number(2, 1);
        assert_eq!(fresh.number().await, 1);
        fresh.send_number(1, 2);
        assert_eq!(one.number().await, 2);
    });
}

#[test]
fn a_name_is_resolved_for_listening_and_for_connecting() {
    run(async |rt| {
        let mut one =
            Node::start_with(&rt, member(1), "localhost:0", config(), Timing::DEFAULT).await;
        let two = Node::start(&rt, 2).await;
        two.meet(&[(1, format!("localhost:{}", one.transport.local_addr().port()))]);
        two.send_number(1, 1);
        assert_eq!(one.number().await, 1);
    });
}

#[test]
fn a_restarted_peer_is_found_again_at_its_port() {
    run(async |rt| {
        let (mut one, mut two) = pair(&rt).await;
        one.reach(&rt, &mut two, 1).await;
        two.reach(&rt, &mut one, 2).await;
        let address = two.address();
        drop(two);
        // The dropped tasks, and the port with them, are gone when the runtime has got to them.
        let free = || std::net::TcpListener::bind(&address).is_ok();
        until(&rt, free).await;
        let reboot = rebooted(member(2));
        let mut two = Node::start_with(&rt, reboot, &address, config(), Timing::DEFAULT).await;
        two.meet(&[(1, one.address())]);
        one.reach(&rt, &mut two, 3).await;
        two.reach(&rt, &mut one, 4).await;
        assert_eq!(one.transport.stats().connects, 2);
        assert_eq!(one.transport.stats().accepts, 2);
    });
}

#[test]
fn a_peer_that_has_moved_is_reached_at_its_new_address() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        let mut moved = Node::start(&rt, 2).await;
        one.meet(&[(2, moved.address())]);
        one.send_number(2, 2);
        assert_eq!(moved.number().await, 2);
        until(&rt, || two.transport.stats().accepts == 1 && two.inbox.try_recv().is_err()).await;
        one.meet(&[]);
        one.send_number(2, 3);
        assert_eq!(one.transport.stats().dropped_out, 1, "it belongs to no group any more");
    });
}

#[test]
fn a_peer_is_reached_where_it_was_until_it_is_started_where_it_is_to_be() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.reach(&rt, &mut two, 1).await;
        let nobody = rt.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let new = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        one.meet(&[(2, new.clone())]);
        one.reach(&rt, &mut two, 2).await;
        drop(two);
        let reboot = rebooted(member(2));
        let mut two = Node::start_with(&rt, reboot, &new, config(), Timing::DEFAULT).await;
        one.reach(&rt, &mut two, 3).await;
        assert_eq!(one.transport.stats().connects, 3);
    });
}

/// The configurations of groups are changed one after the other, and a restart does not tell which
/// is the newer one.
#[test]
fn a_peer_is_reached_though_only_one_of_two_groups_knows_where_it_is() {
    run(async |rt| {
        let mut two = Node::start(&rt, 2).await;
        let nobody = rt.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let old = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        for is_old_first in [true, false] {
            let one = Node::start(&rt, 1 + 10 * u64::from(is_old_first)).await;
            let places = [old.clone(), two.address()];
            let [first, second] = if is_old_first { [0, 1] } else { [1, 0] };
            for (group, place) in [(GROUP, first), (GROUP + 1, second)] {
                let peers = BTreeMap::from([(Replica::any(2), places[place].clone())]);
                one.transport.set_peers(group, &peers);
            }
            one.reach(&rt, &mut two, 1).await;
            // Then one of them follows, and the connection stays.
            let connects = one.transport.stats().connects;
            let peers = BTreeMap::from([(Replica::any(2), two.address())]);
            (GROUP..GROUP + 2).for_each(|group| one.transport.set_peers(group, &peers));
            one.reach(&rt, &mut two, 2).await;
            assert_eq!(one.transport.stats().connects, connects + u64::from(is_old_first));
        }
    });
}

#[test]
fn what_waits_for_an_absent_peer_is_little_and_never_old() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        // A port on which nobody listens.
        let nobody = rt.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        one.meet(&[(2, address.to_string())]);
        let commands = vec![Bytes::from(vec![1; 10_000])];
        for sequence in 0..1000 {
            one.send(2, Body::Forward { boot: 1, sequence, commands: commands.clone() });
        }
        assert!(
            one.transport.outbox_bytes(replica(2), Lane::Main) < 80_000,
            "64 KiB and one message"
        );
        assert!(one.transport.stats().dropped_out > 990);
        until(&rt, || one.transport.stats().dropped_out == 1000).await;

        let mut two =
            Node::start_with(&rt, member(2), &address.to_string(), config(), Timing::DEFAULT).await;
        one.send_number(2, 5);
        assert_eq!(two.number().await, 5, "none of the old ones comes before it");
    });
}

#[test]
fn a_message_beyond_the_limit_is_dropped_where_it_is_sent() {
    run(async |rt| {
        let small = TcpConfig { max_frame_bytes: 2000, ..config() };
        let one = Node::start_with(&rt, member(1), ANYWHERE, small, Timing::DEFAULT).await;
        let mut two = Node::start(&rt, 2).await;
        one.meet(&[(2, two.address())]);
        let commands = vec![Bytes::from(vec![1; 2000])];
        one.send(2, Body::Forward { boot: 1, sequence: 1, commands });
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        assert_eq!(one.transport.stats().dropped_out, 1);
    });
}

#[test]
fn after_its_last_group_a_transport_is_silent_and_deaf() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        let mut stranger = Wire::welcomed(&rt, &two, 3).await;
        until(&rt, || two.transport.stats().accepts == 2).await;
        two.transport.detach(GROUP);
        stranger.until_closed().await;
        two.send_number(1, 2);
        assert_eq!(two.transport.stats().dropped_out, 1);
        let lost = one.transport.stats().dropped_out;
        until(&rt, || {
            one.send_number(2, 3);
            one.transport.stats().dropped_out > lost
        })
        .await;
        assert_eq!((two.inbox.try_recv().ok(), two.transport.stats().accepts), (None, 2));
    });
}

#[test]
#[should_panic(expected = "a transport belongs to one node")]
fn a_second_node_on_one_transport_is_a_bug() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        one.transport.attach(GROUP + 1, member(2), Inbox::new(|_| ()));
    });
}

#[test]
fn settings_and_addresses_that_cannot_work_are_errors() {
    run(async |rt| {
        let bad = TcpConfig { max_outbox_bytes: 0, ..config() };
        let error = TcpTransport::bind_with(&rt, ANYWHERE, bad).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("max_outbox_bytes"), "{error}");
        let one = Node::start(&rt, 1).await;
        let error = TcpTransport::bind(&rt, &one.address()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&one.address()), "{error}");
        assert!(TcpTransport::bind(&rt, "no port").await.is_err());
    });
}

#[test]
fn a_list_is_checked_against_where_the_transport_listens() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let list = |own: &str| BTreeMap::from([(1, own.to_owned()), (2, "raft-2:7001".to_owned())]);
        assert_eq!(one.transport.check_list(1, &list(&one.address())), Ok(()));
        let error = one.transport.check_list(1, &list("127.0.0.1:1")).unwrap_err();
        assert!(error.contains("127.0.0.1:1") && error.contains(&one.address()), "{error}");
        let nat = TcpConfig { advertise: Some("127.0.0.1:1".to_owned()), ..config() };
        let one = Node::start_with(&rt, member(1), ANYWHERE, nat, Timing::DEFAULT).await;
        assert_eq!(one.transport.check_list(1, &list("127.0.0.1:1")), Ok(()));
    });
}

#[test]
fn the_membership_decides_where_a_peer_is_whatever_it_says_of_itself() {
    run(async |rt| {
        let lies = TcpConfig { advertise: Some("127.0.0.1:1".to_owned()), ..config() };
        let mut one = Node::start_with(&rt, member(1), ANYWHERE, lies, Timing::DEFAULT).await;
        let mut two = Node::start(&rt, 2).await;
        one.meet(&[(2, two.address())]);
        two.transport.set_peers(GROUP, &BTreeMap::from([(replica(1), one.address())]));
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        two.send_number(1, 2);
        assert_eq!(one.number().await, 2);
    });
}

/// Its configuration names its lost disk until that is exchanged, at the address where it is now
/// itself.
#[test]
fn a_node_does_not_dial_its_own_address_for_its_lost_disk() {
    run(async |rt| {
        let (one, two) = (Node::start(&rt, 1).await, Node::start(&rt, 2).await);
        let lost = Replica::new(1, 5);
        let peers =
            [(lost, one.address()), (replica(1), one.address()), (replica(2), two.address())];
        one.transport.set_peers(GROUP, &BTreeMap::from(peers));
        until(&rt, || two.transport.stats().accepts == 1).await;
        one.send_to(lost, who());
        let stats = one.transport.stats();
        assert_eq!((stats.dropped_out, stats.accepts, stats.refused_handshakes), (1, 0, 0));
    });
}

#[test]
fn a_node_knows_what_hinders_each_of_its_peers() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let wiped =
            Node::start_as(&rt, Credentials { replica: Replica::new(2, 9), ..empty(2) }).await;
        let foreign = Credentials { cluster: Some(OTHER_CLUSTER), ..member(3) };
        let foreign = Node::start_as(&rt, foreign).await;
        let away = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        let nowhere = away.local_addr().unwrap().to_string();
        drop(away);
        let stranger = Node::start(&rt, 7).await;
        let friend = Node::start(&rt, 6).await;
        let peers = [
            (1, one.address()),
            (2, wiped.address()),
            (3, foreign.address()),
            (4, nowhere.clone()),
            (5, stranger.address()),
            (6, friend.address()),
        ];
        let obstacle = |id| one.transport.obstacle(replica(id));
        assert_eq!(obstacle(2), Obstacle::Silent, "it is not known");
        let peers = peers.map(|(id, address)| (replica(id), address));
        one.transport.set_peers(GROUP, &BTreeMap::from(peers));
        until(&rt, || (2..=6).all(|id| obstacle(id) != Obstacle::Silent)).await;

        let lives = Replica::new(2, 9);
        assert_eq!(obstacle(2), Obstacle::OtherStore { lives, is_empty: true });
        let Obstacle::Refused { reason } = obstacle(3) else { panic!("{:?}", obstacle(3)) };
        assert!(reason.contains("different clusters"), "{reason}");
        let Obstacle::Unreachable { address, .. } = obstacle(4) else {
            panic!("{:?}", obstacle(4))
        };
        assert_eq!(address, nowhere);
        let Obstacle::Unreachable { reason, .. } = obstacle(5) else { panic!("{:?}", obstacle(5)) };
        assert!(reason.contains("/d15c lives at this address, and not node 5"), "{reason}");
        assert_eq!(obstacle(6), Obstacle::Unheard { address: one.address() });

        drop(friend);
        until(&rt, || matches!(obstacle(6), Obstacle::Unreachable { .. })).await;
    });
}

/// The peer at the address is the right one. It dials in, too, and is refused then.
#[test]
fn why_a_dialler_is_refused_is_known_too() {
    run(async |rt| {
        let two = Node::start(&rt, 2).await;
        let mut wire = Wire::connect(&rt, &two).await;
        let asked = Replica::new(2, 5);
        let answer = wire.greet(&hello_by(member(1), asked)).await;
        assert_ne!(answer.refused, 0);
        until(&rt, || two.transport.obstacle(replica(1)) != Obstacle::Silent).await;
        assert_eq!(two.transport.obstacle(replica(1)), Obstacle::KnowsOther { asked });
        let _welcome = Wire::welcomed(&rt, &two, 1).await;
        until(&rt, || two.transport.obstacle(replica(1)) == Obstacle::Silent).await;
    });
}
