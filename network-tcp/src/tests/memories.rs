//! What a node remembers of a peer is told to it before any message, and only where the cluster is
//! proven.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::handshake::{MAX_MEMORIES, Refusal};

fn memory(term: u64) -> Memory {
    let (acknowledged, committed) = (LogId::new(term, 1, 9), LogId::new(term, 1, 8));
    let boot = member(2).boot;
    Memory { term: Term(term), voted: Term(term - 1), acknowledged, committed, boot }
}

/// What has reached a group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Remembered(GroupId, Replica, Memory),
    Message(GroupId, Body),
}

/// Listens for a group, remembers in it of replica 2 what `recall` says, and notes what comes.
fn listen(node: &Node, group: GroupId, recall: Option<Memory>, events: &Rc<RefCell<Vec<Event>>>) {
    let note = |events: &Rc<RefCell<Vec<Event>>>| {
        let events = Rc::clone(events);
        move |event| events.borrow_mut().push(event)
    };
    let (delivered, remembered) = (note(events), note(events));
    let inbox = Inbox::with_memory(
        move |message| delivered(Event::Message(group, message.body)),
        move |of| recall.filter(|_| of == replica(2)),
        move |from, memory| remembered(Event::Remembered(group, from, memory)),
        |_, _| (),
    );
    node.transport.attach(group, node.own, inbox);
}

#[test]
fn memories_of_all_groups_come_before_the_first_message() {
    run(async |rt| {
        let (one, two) = pair(&rt).await;
        let (here, there) = (Rc::default(), Rc::default());
        for group in GROUP..GROUP + 3 {
            let recall = (group != GROUP + 1).then(|| memory(group));
            listen(&one, group, recall, &here);
            listen(&two, group, None, &there);
        }
        one.send_number(2, 1);
        until(&rt, || there.borrow().len() == 3).await;
        let remembered = |group| Event::Remembered(group, replica(1), memory(group));
        let message = |sequence| Event::Message(GROUP, Body::ReadIndex { sequence });
        let expected = [remembered(GROUP), remembered(GROUP + 2), message(1)];
        assert_eq!(*there.borrow(), expected);
        // The lane for snapshots is another connection, and the other direction another one.
        one.send(2, snapshot_chunk(0, 10));
        until(&rt, || there.borrow().len() == 6).await;
        two.send_number(1, 2);
        until(&rt, || here.borrow().len() == 1).await;
        assert_eq!(*here.borrow(), [message(2)], "nothing is remembered of 1");
    });
}

#[test]
fn an_unproven_peer_is_told_nothing_and_believed_nothing() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let here = Rc::default();
        listen(&one, GROUP, Some(memory(5)), &here);
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        one.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        one.send(2, who());
        let (_wire, _, confirm) = Wire::welcome_as(&mut listener, empty(2)).await;
        assert_eq!(confirm.remember, []);

        let mut wire = Wire::connect(&rt, &one).await;
        wire.greet(&hello_by(empty(3), replica(1))).await;
        let remember = vec![(GROUP, memory(9))];
        wire.send(Confirm { remember, ..Confirm::default() }.encode()).await;
        wire.send(frame(&encode(&message(3, 1, who())))).await;
        until(&rt, || !here.borrow().is_empty()).await;
        assert_eq!(*here.borrow(), [Event::Message(GROUP, who())]);
    });
}

#[test]
fn memories_are_told_in_a_bounded_number_and_for_groups_that_are_here() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let here = Rc::default();
        listen(&one, GROUP, None, &here);
        let hello = hello(2, 1);
        let mut wire = Wire::connect(&rt, &one).await;
        let there = wire.greet(&hello).await.node.unwrap();
        let remember: Vec<_> = (0..MAX_MEMORIES as u64).map(|group| (group, memory(5))).collect();
        let mac = Some(mac(CLUSTER, Role::Dialler, &hello.from, &there));
        wire.send(Confirm { mac, remember, refused: 0 }.encode()).await;
        until(&rt, || one.transport.stats().accepts == 1).await;
        until(&rt, || !here.borrow().is_empty()).await;
        assert_eq!(*here.borrow(), [Event::Remembered(GROUP, replica(2), memory(5))]);
    });
}

/// Boots of node 2 that have been, and can't be those in which it has promised what is remembered.
fn went_back() -> [Credentials; 2] {
    let mut older = member(2);
    older.boot.number -= 1;
    let mut other = member(2);
    other.boot.tag += 7;
    [older, other]
}

/// It has less than it has shown to others, and is to know: it stops by itself then.
#[test]
fn a_folder_that_went_back_is_refused_in_both_directions_and_told_what_it_has_forgotten() {
    run(async |rt| {
        let mut one = Node::start(&rt, 1).await;
        listen(&one, GROUP, Some(memory(5)), &Rc::default());
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        one.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        for own in went_back() {
            let mut wire = Wire::connect(&rt, &one).await;
            let answer = wire.greet(&hello_by(own, replica(1))).await;
            assert_eq!(answer.refused, Refusal::OlderBoot.code());

            one.send_number(2, 1);
            let (mut wire, _, confirm) = Wire::welcome_as(&mut listener, own).await;
            assert_eq!(confirm.refused, Refusal::OlderBoot.code());
            assert_eq!(confirm.remember, [(GROUP, memory(5))]);
            assert!(confirm.mac.is_some());
            wire.until_closed().await;
        }
        assert_eq!(one.transport.stats().twins, 0);
        // The same boot, and later ones, are welcome.
        for own in [member(2), rebooted(member(2))] {
            let mut wire = Wire::connect(&rt, &one).await;
            wire.shake_hands(&hello_by(own, replica(1)), own.cluster).await;
        }
        until(&rt, || one.transport.stats().accepts == 2).await;
        drop(one.inbox.try_recv());
    });
}

/// The transport of a node that went back brings it what others remember, though they refuse it.
#[test]
fn a_refused_boot_hears_what_is_remembered() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        listen(&one, GROUP, Some(memory(5)), &Rc::default());
        for own in went_back() {
            let two = Node::start_as(&rt, own).await;
            let there = Rc::default();
            listen(&two, GROUP, None, &there);
            one.meet(&[(2, two.address())]);
            one.send_number(2, 1);
            until(&rt, || !there.borrow().is_empty()).await;
            assert_eq!(*there.borrow(), [Event::Remembered(GROUP, replica(1), memory(5))]);
            assert_eq!(two.transport.stats().accepts, 0);
        }
    });
}

/// Groups learn in which boot a peer speaks, before its messages, and also those that are there
/// later than the connection. Who proves nothing is not taken for it.
#[test]
fn groups_learn_in_which_boot_a_peer_speaks() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        // Of each message, who had been met by then.
        let (met, heard) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<Vec<_>>>::default());
        let inbox = |group| {
            let (meets, known, hears) = (Rc::clone(&met), Rc::clone(&met), Rc::clone(&heard));
            Inbox::with_memory(
                move |message| hears.borrow_mut().push((message.body, known.borrow().clone())),
                |_| None,
                |_, _| (),
                move |replica, boot| meets.borrow_mut().push((group, replica, boot)),
            )
        };
        one.transport.attach(GROUP, one.own, inbox(GROUP));
        let mut wire = Wire::connect(&rt, &one).await;
        wire.shake_hands(&hello_by(empty(3), replica(1)), None).await;
        let mut wire = Wire::welcomed(&rt, &one, 2).await;
        let body = Body::ReadIndex { sequence: 1 };
        wire.send(frame(&encode(&message(2, 1, body.clone())))).await;
        until(&rt, || !heard.borrow().is_empty()).await;
        let meets = |group| (group, replica(2), member(2).boot);
        assert_eq!(heard.take(), [(body, vec![meets(GROUP)])]);
        one.transport.attach(GROUP + 1, one.own, inbox(GROUP + 1));
        assert_eq!(met.take(), [meets(GROUP), meets(GROUP + 1)]);
    });
}

#[test]
fn who_refuses_a_node_is_believed_what_it_remembers_of_it_if_it_is_of_the_cluster() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let here = Rc::default();
        listen(&one, GROUP, None, &here);
        for proven in [false, true] {
            let hello = hello(2, 1);
            let mut wire = Wire::connect(&rt, &one).await;
            let there = wire.greet(&hello).await.node.unwrap();
            let mac = proven.then(|| mac(CLUSTER, Role::Dialler, &hello.from, &there));
            let remember = vec![(GROUP, memory(5))];
            let refused = Refusal::OlderBoot.code();
            wire.send(Confirm { mac, remember, refused }.encode()).await;
            wire.until_closed().await;
        }
        assert_eq!(*here.borrow(), [Event::Remembered(GROUP, replica(2), memory(5))]);
        assert_eq!(one.transport.stats().refused_handshakes, 2);
    });
}
