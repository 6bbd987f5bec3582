//! Who is refused, and that both sides know it.

use super::*;
use crate::handshake::Refusal;
use crate::incoming::MAX_CONNECTIONS;

#[test]
fn a_wrong_hello_is_answered_with_the_reason_counted_and_closed() {
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        let good = hello(2, 1).encode();
        let change = |at: usize, bits: u8| {
            let mut bytes = good.to_vec();
            bytes[at] ^= bits;
            bytes
        };
        let wrong = [
            (change(0, 1), Refusal::Magic),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refusal::Magic),
            (b"PING\r\n".to_vec(), Refusal::Magic),
            (change(8, 1), Refusal::Version),
            (change(12, 1), Refusal::Cluster),
            (hello(2, 3).encode().to_vec(), Refusal::Node),
            (hello(1, 1).encode().to_vec(), Refusal::Malformed),
            (hello(0, 1).encode().to_vec(), Refusal::Malformed),
            (change(36, 2), Refusal::Malformed),
        ];
        for (count, (bytes, reason)) in wrong.into_iter().enumerate() {
            let mut wire = Wire::connect(&rt, &node).await;
            wire.send(bytes).await;
            assert_eq!(
                wire.answer().await,
                Answer { cluster: CLUSTER, node: 1, refused: Some(reason) }
            );
            wire.until_closed().await;
            let stats = node.transport.stats();
            assert_eq!((stats.refused_handshakes, stats.accepts), (count as u64 + 1, 0));
        }
        Wire::welcomed(&rt, &node, 2).await;
    });
}

#[test]
fn a_client_that_says_too_little_is_closed_after_the_deadline() {
    run(async |rt| {
        let timing = Timing { handshake: Duration::from_millis(50), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, 1, ANYWHERE, config(), timing).await;
        let mut silent = Wire::connect(&rt, &node).await;
        let mut half = Wire::connect(&rt, &node).await;
        half.send(hello(2, 1).encode().slice(..30)).await;
        silent.until_closed().await;
        half.until_closed().await;
        assert_eq!(node.transport.stats().refused_handshakes, 2);
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
fn connections_are_bounded_in_number() {
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(Wire::connect(&rt, &node).await);
        }
        let mut one_more = Wire::connect(&rt, &node).await;
        one_more.until_closed().await;
        assert_eq!(node.transport.stats().refused_handshakes, 1);
        drop(silent);
        until(&rt, || node.transport.stats().refused_handshakes == 1).await;
        // There is room again, once the node has noticed.
        loop {
            let mut wire = Wire::connect(&rt, &node).await;
            wire.send(hello(2, 1).encode()).await;
            if wire.more().await {
                assert_eq!(wire.answer().await.refused, None);
                break;
            }
        }
    });
}

#[test]
fn nodes_of_different_clusters_refuse_each_other_on_both_sides() {
    run(async |rt| {
        let other = TcpConfig { cluster_id: CLUSTER + 1, ..config() };
        let one = Node::start(&rt, 1).await;
        let mut two = Node::start_with(&rt, 2, ANYWHERE, other, Timing::DEFAULT).await;
        one.meet(&[(2, two.address())]);
        one.send_number(2, 1);
        until(&rt, || one.transport.stats().refused_handshakes == 1).await;
        until(&rt, || one.transport.stats().dropped_out == 1).await;
        assert_eq!(two.transport.stats().refused_handshakes, 1);
        assert_eq!((one.transport.stats().connects, two.transport.stats().accepts), (0, 0));
        assert_eq!(two.inbox.try_recv(), None);
    });
}

#[test]
fn a_connector_refuses_who_is_not_the_wanted_node() {
    run(async |rt| {
        let timing = Timing { backoff_max: Duration::from_millis(1), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, 1, ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        node.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        let answer = Answer { cluster: CLUSTER, node: 2, refused: None };
        let mut version = answer.encode().to_vec();
        version[8] += 1;
        let wrong = [
            b"-ERR unknown command\r\n".to_vec(),
            version,
            Answer { cluster: 1, ..answer }.encode().to_vec(),
            Answer { node: 3, ..answer }.encode().to_vec(),
            Answer { refused: Some(Refusal::Malformed), ..answer }.encode().to_vec(),
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
        assert_eq!((hello.from, hello.to, hello.cluster), (1, 2, CLUSTER));
        assert_eq!(hello.address, node.address());
        until(&rt, || node.transport.stats().connects == 1).await;
    });
}

#[test]
fn a_peer_that_never_answers_the_hello_is_given_up_and_tried_again() {
    run(async |rt| {
        let timing = Timing {
            handshake: Duration::from_millis(30),
            backoff_max: Duration::from_millis(1),
            ..Timing::DEFAULT
        };
        let node = Node::start_with(&rt, 1, ANYWHERE, config(), timing).await;
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
        bulk.send(frame(&encode(&message(2, 1, piece(0, 10))))).await;
        assert_eq!(node.inbox.recv().await.unwrap().body, piece(0, 10));
        let mut newer_bulk = Wire::welcomed_on(&rt, &node, 2, Lane::Bulk).await;
        bulk.until_closed().await;
        newer.send(number(2, 3)).await;
        assert_eq!(node.number().await, 3);
        newer_bulk.send(frame(&encode(&message(2, 1, piece(10, 10))))).await;
        assert_eq!(node.inbox.recv().await.unwrap().body, piece(10, 10));
    });
}
