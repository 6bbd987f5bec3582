//! Panics in the tasks of a transport.

use std::cell::Cell;
use std::rc::Rc;

use quorate_core::{Fatal, Node as RaftNode};
use quorate_store_mem::MemStore;

use super::*;
use crate::watch;

/// An inbox that panics when it hears of a peer for the first time, and delivers to `node`'s.
fn panics_once(node: &mut Node) -> Rc<Cell<u32>> {
    let (sender, inbox) = mpsc::unbounded();
    node.inbox = inbox;
    let met = Rc::new(Cell::new(0));
    let meets = Rc::clone(&met);
    let inbox = Inbox::with_memory(
        move |message| sender.unbounded_send(message).unwrap(),
        |_| None,
        |_, _| (),
        move |_, _| {
            meets.set(meets.get() + 1);
            assert!(meets.get() > 1, "as the test wants it");
        },
    );
    node.transport.attach(GROUP, node.own, inbox);
    met
}

/// P3.
#[test]
fn a_panic_in_the_task_of_a_peer_does_not_mute_that_peer() {
    run(async |rt| {
        let mut one = Node::start(&rt, 1).await;
        let mut two = Node::start(&rt, 2).await;
        let met = panics_once(&mut one);
        one.meet(&[(2, two.address())]);
        one.reach(&rt, &mut two, 5).await;
        assert_eq!((met.get(), one.transport.stats().panics), (2, 1));
    });
}

#[test]
fn a_panic_for_an_accepted_connection_closes_it_alone() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        panics_once(&mut node);
        let mut wire = Wire::welcomed(&rt, &node, 2).await;
        wire.until_closed().await;
        until(&rt, || node.transport.stats().panics == 1).await;
        assert!(node.transport.state().accepted.borrow().watched.is_empty());
        assert!(!node.transport.state().sessions.is_connected(replica(2)));
        let mut again = Wire::welcomed(&rt, &node, 2).await;
        again.send(frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 5 })))).await;
        assert_eq!(node.number().await, 5);
    });
}

#[test]
fn what_a_node_cannot_do_without_ends_it_with_the_cause() {
    run(async |rt| {
        let transport = TcpTransport::bind(&rt, ANYWHERE).await.unwrap();
        let node = RaftNode::builder(1)
            .log_store(MemStore::new())
            .transport(transport.clone())
            .start(&rt)
            .await
            .unwrap();
        let raft = node.group(GROUP).open_local(()).await.unwrap();
        let task = async { panic!("the cause") };
        watch::or_fail(Rc::clone(transport.state()), "accepts connections", task).await;
        let Err(Fatal::Transport(reason)) = node.stopped().await else { panic!("another end") };
        assert!(reason.contains("accepts connections") && reason.contains("the cause"), "{reason}");
        let Err(Fatal::Transport(of_group)) = raft.stopped().await else { panic!("another end") };
        assert_eq!(of_group, reason, "its groups end with it");
    });
}

/// A transport that panics when its node ends.
struct EndsBadly;

impl Transport for EndsBadly {
    fn send(&self, _: Message) -> bool {
        true
    }

    fn detach(&self, _: GroupId) {
        panic!("not in order");
    }
}

#[test]
fn a_panic_in_the_last_steps_of_a_node_is_its_outcome() {
    run(async |rt| {
        let node = RaftNode::builder(1)
            .log_store(MemStore::new())
            .transport(EndsBadly)
            .start(&rt)
            .await
            .unwrap();
        let _raft = node.group(0).open_local(()).await.unwrap();
        let Err(Fatal::Bug(reason)) = node.shutdown().await else { panic!("another end") };
        assert!(reason.contains("not in order"), "{reason}");
    });
}
