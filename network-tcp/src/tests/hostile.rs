//! Peers that are broken, or mean harm: they lose their own connection and nothing else happens.

use super::*;

#[test]
fn a_bad_frame_closes_its_connection_alone() {
    run(async |rt| {
        let small = TcpConfig { max_frame_bytes: 10_000, ..config() };
        let mut node = Node::start_with(&rt, member(1), ANYWHERE, small, Timing::DEFAULT).await;
        let mut bystander = Wire::welcomed(&rt, &node, 3).await;
        let number = |from, to| encode(&message(from, to, Body::ReadIndex { sequence: 5 }));
        let (between, read_index) = (message_between, || Body::ReadIndex { sequence: 5 });
        let other = |id| Replica::new(id, 9);
        let mut to_any = number(2, 1);
        to_any[48..56].fill(0);
        let good = number(2, 1);
        let mut damaged = frame(&good);
        damaged[20] ^= 4;
        let mut unknown_kind = good.clone();
        unknown_kind[64] = 99;
        let mut too_long = good.clone();
        too_long.push(0);
        let bad = [
            ("damaged", damaged),
            ("too large", frame(&[0; 10_001])),
            ("claims 4 GiB", vec![0xFF; 8]),
            ("empty", frame(&[])),
            ("an unknown sign of life", frame(&[3])),
            ("cut short", frame(&good[..good.len() - 1])),
            ("too long", frame(&too_long)),
            ("of an unknown kind", frame(&unknown_kind)),
            ("from another node", frame(&number(3, 1))),
            ("to another node", frame(&number(2, 9))),
            ("from itself", frame(&number(1, 1))),
            ("from another store", frame(&encode(&between(other(2), replica(1), read_index())))),
            ("to another store", frame(&encode(&between(replica(2), other(1), read_index())))),
            ("to any store, but no question", frame(&to_any)),
        ];
        for (count, (what, bytes)) in bad.into_iter().enumerate() {
            let mut wire = Wire::welcomed(&rt, &node, 2).await;
            wire.send(frame(&good)).await;
            assert_eq!(node.number().await, 5);
            // One that is good but comes too late is not delivered.
            wire.send([bytes, frame(&good)].concat()).await;
            wire.until_closed().await;
            until(&rt, || node.transport.stats().bad_frames == count as u64 + 1).await;
            assert_eq!(node.inbox.try_recv().ok(), None, "after a frame that is {what}");
            bystander.send(frame(&number(3, 1))).await;
            assert_eq!(node.number().await, 5, "after a frame that is {what}");
        }
    });
}

#[test]
fn what_has_arrived_is_reported_to_its_sender_in_bytes() {
    run(async |rt| {
        let timing = Timing { report: Duration::from_millis(1), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut wire = Wire::welcomed(&rt, &node, 2).await;
        let bytes = frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 1 })));
        wire.send(bytes.clone()).await;
        while wire.buffer.len() < 8 {
            assert!(wire.more().await);
        }
        assert_eq!(wire.buffer[..8], (bytes.len() as u64).to_le_bytes());
        wire.send(bytes.clone()).await;
        while wire.buffer.len() < 16 {
            assert!(wire.more().await);
        }
        assert_eq!(wire.buffer[8..], (2 * bytes.len() as u64).to_le_bytes());
    });
}

/// The stub's missing reports are no reason to leave it.
const PATIENT: Timing = Timing { silence: Duration::from_secs(3600), ..Timing::DEFAULT };

/// A transport and a peer that welcomes it, and then is in the test's hands.
async fn facing_a_stub(rt: &Tokio, timing: Timing) -> (Node, TokioListener, Wire) {
    let limited = TcpConfig { max_outbox_bytes: 1 << 20, ..config() };
    let node = Node::start_with(rt, member(1), ANYWHERE, limited, timing).await;
    let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
    node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
    node.send_number(2, 1);
    let (wire, _) = Wire::welcome(&mut listener, 2).await;
    until(rt, || node.transport.stats().connects == 1).await;
    (node, listener, wire)
}

#[test]
fn a_peer_that_never_reads_costs_a_full_outbox_and_delays_nobody() {
    run(async |rt| {
        let (node, listener, _wire) = facing_a_stub(&rt, Timing::DEFAULT).await;
        let mut three = Node::start(&rt, 3).await;
        let stub = listener.local_addr().unwrap().to_string();
        node.meet(&[(2, stub), (3, three.address())]);
        let commands = vec![Bytes::from(vec![1; 100_000])];
        // More than all the buffers of the kernel hold.
        for sequence in 0..400 {
            node.send(2, Body::Forward { boot: 1, sequence, commands: commands.clone() });
            node.send_number(3, sequence);
            assert!(node.transport.outbox_bytes(replica(2), Lane::Main) <= (1 << 20) + 101_000);
            assert_eq!(three.number().await, sequence);
        }
        assert!(node.transport.outbox_bytes(replica(2), Lane::Main) >= 1 << 20);
        assert!(node.transport.stats().dropped_out > 0);
        assert_eq!(node.transport.stats().connects, 2);
    });
}

/// R20: who asks before it sends loses nothing, and an answer is not lost because of an entry.
#[test]
fn a_full_outbox_is_not_ready_and_takes_only_small_messages() {
    run(async |rt| {
        let (node, _listener, _wire) = facing_a_stub(&rt, PATIENT).await;
        assert!(!node.transport.is_ready(replica(3)), "nobody knows where it is");
        let commands = vec![Bytes::from(vec![1; 100_000])];
        let forward = |sequence| Body::Forward { boot: 1, sequence, commands: commands.clone() };
        let dropped = || node.transport.dropped_messages();
        let mut sent = 0;
        // Nothing is written meanwhile.
        while node.transport.is_ready(replica(2)) {
            sent += 1;
            node.send(2, forward(sent));
        }
        assert_eq!((sent, dropped()), (11, 0));
        node.send(2, forward(12));
        assert_eq!(dropped(), 1);
        for sequence in 0..100 {
            node.send_number(2, sequence);
        }
        assert_eq!(dropped(), 1);
        for sequence in 0..500 {
            node.send_number(2, sequence);
        }
        assert!(dropped() > 1, "they have a limit, too");
        let bytes = node.transport.outbox_bytes(replica(2), Lane::Main);
        assert!(bytes <= (1 << 20) + (64 << 10) + 101_000, "{bytes}");
    });
}

#[test]
fn a_way_is_ready_from_when_it_is_open() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let two = Node::start(&rt, 2).await;
        one.meet(&[(2, two.address())]);
        assert!(!one.transport.is_ready(replica(2)));
        until(&rt, || one.transport.is_ready(replica(2))).await;
        two.transport.detach(GROUP);
        until(&rt, || !one.transport.is_ready(replica(2))).await;
    });
}

#[test]
fn a_peer_that_reports_nothing_is_left_and_tried_again() {
    run(async |rt| {
        let timing = Timing { silence: Duration::from_millis(50), ..Timing::DEFAULT };
        let (node, mut listener, mut wire) = facing_a_stub(&rt, timing).await;
        // It reads, as the kernel of a machine without power doesn't; that alone is no sign of
        // life.
        wire.until_closed().await;
        until(&rt, || {
            node.send_number(2, 2);
            node.transport.outbox_bytes(replica(2), Lane::Main) > 0
        })
        .await;
        Wire::welcome(&mut listener, 2).await;
        until(&rt, || node.transport.stats().connects == 2).await;
    });
}

#[test]
fn a_peer_that_closes_is_connected_to_anew_for_the_next_message() {
    run(async |rt| {
        let (node, mut listener, wire) = facing_a_stub(&rt, PATIENT).await;
        drop(wire);
        let again = rt.spawn(async move { Wire::welcome(&mut listener, 2).await.1 });
        until(&rt, || {
            node.send_number(2, 2);
            node.transport.stats().connects == 2
        })
        .await;
        assert_eq!(again.await.unwrap().from.replica, replica(1));
    });
}

#[test]
fn a_report_of_more_than_was_sent_ends_the_connection() {
    run(async |rt| {
        let (_node, _listener, mut wire) = facing_a_stub(&rt, PATIENT).await;
        wire.send((u64::MAX - 2).to_le_bytes().to_vec()).await;
        wire.until_closed().await;
    });
}

#[test]
fn a_peer_that_sends_its_end_is_left_without_waiting_for_a_write_to_fail() {
    run(async |rt| {
        let (_node, _listener, mut wire) = facing_a_stub(&rt, PATIENT).await;
        wire.write.shutdown().await.unwrap();
        wire.until_closed().await;
    });
}

#[test]
fn a_dropped_transport_closes_its_connections_in_both_directions() {
    run(async |rt| {
        let (node, _listener, mut outgoing) = facing_a_stub(&rt, PATIENT).await;
        let mut incoming = Wire::welcomed(&rt, &node, 3).await;
        let clone = node.transport.clone();
        drop(node);
        let body = Body::ReadIndex { sequence: 1 };
        clone.send(message(1, 2, body));
        until(&rt, || clone.stats().frames_out == 2).await;
        drop(clone);
        outgoing.until_closed().await;
        incoming.until_closed().await;
    });
}

/// Each stranger may name itself after a listed node, with a store of its own, and gets an answer
/// where that node is.
#[test]
fn a_store_that_no_list_names_is_dialled_once_for_a_message_and_leaves_nothing() {
    run(async |rt| {
        let timing = Timing { backoff_max: Duration::from_millis(1), ..Timing::DEFAULT };
        let mut one = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let two = Node::start(&rt, 2).await;
        one.meet(&[(2, two.address())]);
        two.meet(&[(1, one.address())]);
        for incarnation in 1..=1000 {
            one.send_to(Replica::new(2, incarnation), situation());
        }
        let ways = one.transport.ways();
        assert!(ways <= 2 * quorate_core::MAX_NODES, "{ways}");
        let refused = || two.transport.stats().refused_handshakes;
        until(&rt, || refused() >= ways as u64).await;
        // It would be dialled many times until all this has gone to and fro.
        for sequence in 1..100 {
            two.send_number(1, sequence);
            assert_eq!(one.number().await, sequence);
            rt.sleep(timing.backoff_max).await;
        }
        assert_eq!(refused(), ways as u64);
        let stats = one.transport.stats();
        assert_eq!((stats.dropped_out, stats.connects), (1000, 0));
    });
}

#[test]
fn who_proves_nothing_and_sends_without_end_holds_up_nobody() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let bystander = Wire::welcomed(&rt, &node, 3).await;
        let mut stranger = Wire::connect(&rt, &node).await;
        stranger.shake_hands(&hello_by(empty(2), replica(1)), None).await;
        let many = 2000;
        stranger.send(frame(&encode(&message(2, 1, who()))).repeat(many)).await;
        let mut bystander = bystander;
        assert_eq!(node.inbox.recv().await.unwrap().body, who());
        bystander.send(frame(&encode(&message(3, 1, Body::ReadIndex { sequence: 1 })))).await;
        let mut before = 0;
        while node.inbox.recv().await.unwrap().body == who() {
            before += 1;
        }
        assert!(before < many / 2, "{before} were taken first");
    });
}

#[test]
fn a_frame_that_is_mostly_of_fields_that_nobody_knows_closes_its_connection() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let mut wire = Wire::welcomed(&rt, &node, 2).await;
        let commands = vec![Bytes::from_static(b"set")];
        let forward = encode(&message(2, 1, Body::Forward { boot: 3, sequence: 1, commands }));
        let with = |bytes: usize| {
            let field = [&[9, 0xFF][..], &(bytes as u32).to_le_bytes(), &vec![0; bytes]].concat();
            frame(&[&forward[..], &field].concat())
        };
        // What a later version may have to say.
        wire.send(with(1000)).await;
        assert!(matches!(node.inbox.recv().await.unwrap().body, Body::Forward { .. }));
        wire.send(with(100_000)).await;
        wire.until_closed().await;
        until(&rt, || node.transport.stats().bad_frames == 1).await;
        assert_eq!(node.inbox.try_recv().ok(), None);
    });
}

#[test]
fn entries_and_commands_that_take_more_memory_than_a_frame_may_close_their_connection() {
    run(async |rt| {
        let small = TcpConfig { max_frame_bytes: 64_000, ..config() };
        let mut node = Node::start_with(&rt, member(1), ANYWHERE, small, Timing::DEFAULT).await;
        let append = |count: u64| {
            let entries: Vec<Entry> = (11..11 + count).map(|index| command(index, 0)).collect();
            let prev = LogId::new(2, 1, 10);
            let entries = entries.into();
            Body::Append { prev, committed: 9, round: 77, durable: 0, entries }
        };
        let forward = |count: u64| {
            let commands = vec![Bytes::new(); count as usize];
            Body::Forward { boot: 3, sequence: 1, commands }
        };
        for (bad, of_so_many) in [(1, append as fn(u64) -> Body), (2, forward)] {
            let mut wire = Wire::welcomed(&rt, &node, 2).await;
            wire.send(frame(&encode(&message(2, 1, of_so_many(1000))))).await;
            assert_eq!(node.inbox.recv().await.unwrap().body, of_so_many(1000));
            wire.send(frame(&encode(&message(2, 1, of_so_many(1001))))).await;
            wire.until_closed().await;
            until(&rt, || node.transport.stats().bad_frames == bad).await;
            assert_eq!(node.inbox.try_recv().ok(), None);
        }
    });
}
