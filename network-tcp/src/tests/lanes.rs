//! Chunks of snapshots beside the other messages: neither waits behind, nor breaks off with, the
//! other.

use super::*;
use crate::config::Stats;

/// The stub's missing reports are no reason to leave it.
const PATIENT: Timing = Timing { silence: Duration::from_secs(3600), ..Timing::DEFAULT };

/// A transport and a peer that welcomes both of its lanes, and then is in the test's hands.
struct Facing {
    node: Node,
    listener: TokioListener,
    main: Wire,
    bulk: Wire,
}

impl Facing {
    async fn start(rt: &Tokio, timing: Timing) -> Self {
        let limited = TcpConfig { max_outbox_bytes: 1 << 20, ..config() };
        let node = Node::start_with(rt, member(1), ANYWHERE, limited, timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        node.send_number(2, 0);
        let (mut main, hello) = Wire::welcome(&mut listener, 2).await;
        assert_eq!(hello.lane, Lane::Main);
        node.send(2, snapshot_chunk(0, 100));
        let (mut bulk, hello) = Wire::welcome(&mut listener, 2).await;
        assert_eq!(hello.from.replica, replica(1));
        assert_eq!((hello.to, hello.lane), (replica(2), Lane::Bulk));
        bulk.expect(&message(1, 2, snapshot_chunk(0, 100))).await;
        main.expect(&number(0)).await;
        Self { node, listener, main, bulk }
    }

    fn stats(&self) -> Stats {
        self.node.transport.stats()
    }

    /// A heartbeat arrives, on the same connection as ever.
    async fn beats(&mut self, sequence: u64) {
        self.node.send_number(2, sequence);
        self.main.expect(&number(sequence)).await;
    }
}

fn number(sequence: u64) -> Message {
    message(1, 2, Body::ReadIndex { sequence })
}

#[test]
fn heartbeats_arrive_while_the_chunks_are_stuck() {
    run(async |rt| {
        let mut facing = Facing::start(&rt, PATIENT).await;
        // More than all the buffers of the kernel hold, and nobody reads it.
        for sequence in 1..400 {
            facing.node.send(2, snapshot_chunk(sequence, 100_000));
            facing.beats(sequence).await;
            let waiting = facing.node.transport.outbox_bytes(replica(2), Lane::Bulk);
            assert!(waiting <= (1 << 20) + 101_000, "{waiting}");
        }
        assert!(facing.node.transport.outbox_bytes(replica(2), Lane::Bulk) >= 1 << 20);
        let stats = facing.stats();
        assert!(stats.dropped_out > 0);
        assert_eq!(stats.connects, 2);
    });
}

#[test]
fn chunks_arrive_while_the_heartbeats_are_stuck() {
    run(async |rt| {
        let mut facing = Facing::start(&rt, PATIENT).await;
        for sequence in 1..400 {
            let commands = vec![Bytes::from(vec![1; 100_000])];
            facing.node.send(2, Body::Forward { boot: 1, sequence, commands });
            facing.node.send(2, snapshot_chunk(sequence, 100));
            facing.bulk.expect(&message(1, 2, snapshot_chunk(sequence, 100))).await;
        }
        assert!(facing.node.transport.outbox_bytes(replica(2), Lane::Main) >= 1 << 20);
        assert_eq!(facing.stats().connects, 2);
    });
}

#[test]
fn broken_chunks_are_connected_anew_and_the_heartbeats_go_on() {
    run(async |rt| {
        let mut facing = Facing::start(&rt, PATIENT).await;
        for life in 1..=3 {
            let Facing { node, listener, bulk, .. } = &mut facing;
            // In the middle of a chunk.
            node.send(2, snapshot_chunk(life, 900_000));
            assert!(bulk.more().await);
            bulk.write.shutdown().await.unwrap();
            bulk.until_closed().await;
            until(&rt, || {
                node.send(2, snapshot_chunk(life, 10));
                node.transport.outbox_bytes(replica(2), Lane::Bulk) > 0
            })
            .await;
            let (next, hello) = Wire::welcome(listener, 2).await;
            assert_eq!(hello.lane, Lane::Bulk);
            facing.bulk = next;
            facing.beats(life).await;
            until(&rt, || facing.stats().connects == 2 + life).await;
        }
    });
}

#[test]
fn a_peer_that_reports_no_chunks_is_left_and_tried_again() {
    run(async |rt| {
        let timing = Timing { silence: Duration::from_millis(50), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        node.send(2, snapshot_chunk(0, 10));
        let (mut silent, _) = Wire::welcome(&mut listener, 2).await;
        silent.until_closed().await;
        until(&rt, || {
            node.send(2, snapshot_chunk(0, 10));
            node.transport.outbox_bytes(replica(2), Lane::Bulk) > 0
        })
        .await;
        let (_, hello) = Wire::welcome(&mut listener, 2).await;
        assert_eq!(hello.lane, Lane::Bulk);
    });
}

#[test]
fn an_idle_lane_is_closed_and_opened_for_the_next_chunk() {
    run(async |rt| {
        let timing = Timing { idle: Duration::from_millis(1), ..PATIENT };
        let mut facing = Facing::start(&rt, timing).await;
        let mut arrived = frame(&encode(&message(1, 2, snapshot_chunk(0, 100)))).len() as u64;
        for life in 1..=3 {
            // Not idle as long as something may still be on its way.
            rt.sleep(Duration::from_millis(20)).await;
            let last = message(1, 2, snapshot_chunk(life, 1000));
            facing.node.send(2, last.body.clone());
            facing.bulk.expect(&last).await;
            arrived += frame(&encode(&last)).len() as u64;
            facing.bulk.send(arrived.to_le_bytes().to_vec()).await;
            facing.bulk.until_closed().await;
            facing.beats(life).await;

            let first = message(1, 2, snapshot_chunk(life, 30));
            facing.node.send(2, first.body.clone());
            let (bulk, hello) = Wire::welcome(&mut facing.listener, 2).await;
            assert_eq!(hello.lane, Lane::Bulk);
            facing.bulk = bulk;
            facing.bulk.expect(&first).await;
            arrived = frame(&encode(&first)).len() as u64;
            until(&rt, || facing.stats().connects == 2 + life).await;
        }
        assert_eq!(facing.stats().dropped_out, 0);
    });
}

#[test]
fn a_message_on_the_wrong_lane_closes_its_connection_alone() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        let append = Body::Append {
            prev: LogId::ZERO,
            committed: 0,
            round: 1,
            durable: 0,
            entries: vec![command(1, 5)].into(),
        };
        let reply = Body::SnapshotReply { digest: Digest::of(b""), stored: 1 };
        let wrong = [
            (Lane::Main, snapshot_chunk(0, 0)),
            (Lane::Main, snapshot_chunk(7, 5000)),
            (Lane::Bulk, append),
            (Lane::Bulk, reply),
            (Lane::Bulk, Body::TimeoutNow { last_log_id: LogId::ZERO, round: 1 }),
            (Lane::Bulk, who()),
        ];
        for (count, (lane, body)) in wrong.into_iter().enumerate() {
            let other = if lane == Lane::Main { Lane::Bulk } else { Lane::Main };
            let mut bystander = Wire::welcomed_on(&rt, &node, 2, other).await;
            let mut wire = Wire::welcomed_on(&rt, &node, 2, lane).await;
            let bytes = frame(&encode(&message(2, 1, body.clone())));
            wire.send(bytes.clone()).await;
            wire.until_closed().await;
            until(&rt, || node.transport.stats().bad_frames == count as u64 + 1).await;
            assert_eq!(node.inbox.try_recv().ok(), None);
            // Where it belongs it is welcome.
            bystander.send(bytes).await;
            assert_eq!(node.inbox.recv().await.unwrap().body, body);
        }
    });
}

#[test]
fn a_restarted_peer_is_found_again_on_both_lanes() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        for life in 1..=3 {
            let sent = snapshot_chunk(life, 300_000);
            let mut missing = vec![sent.clone(), Body::ReadIndex { sequence: life }];
            until(&rt, || {
                one.send_number(2, life);
                one.send(2, sent.clone());
                while let Ok(message) = two.inbox.try_recv() {
                    missing.retain(|body| *body != message.body);
                }
                missing.is_empty()
            })
            .await;
            until(&rt, || one.transport.stats().connects == 2 * life).await;
            let address = two.address();
            let reboot = rebooted(two.own);
            drop(two);
            until(&rt, || std::net::TcpListener::bind(&address).is_ok()).await;
            two = Node::start_with(&rt, reboot, &address, config(), Timing::DEFAULT).await;
        }
    });
}

#[test]
fn large_chunks_arrive_whole_and_in_order() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.send(2, snapshot_chunk(0, 0));
        assert_eq!(two.inbox.recv().await.unwrap().body, snapshot_chunk(0, 0));
        // Less than an outbox holds.
        let chunks: Vec<Body> = [4 << 20, 1 << 20, 70_000, 3, 1 << 20, 5 << 20]
            .into_iter()
            .zip(1..)
            .map(|(bytes, offset)| snapshot_chunk(offset, bytes))
            .collect();
        chunks.iter().for_each(|body| one.send(2, body.clone()));
        one.send_number(2, 1);
        let mut arrived = Vec::new();
        while arrived.len() <= chunks.len() {
            arrived.push(two.inbox.recv().await.unwrap().body);
        }
        arrived.retain(|body| *body != Body::ReadIndex { sequence: 1 });
        assert!(arrived == chunks);
        assert_eq!(one.transport.stats().connects, 2);
    });
}
