//! Two processes of one replica: a reboot is served at once, and a copy of a folder is refused.

use super::*;
use crate::handshake::Refusal;

/// Says hello in this boot, and gives the code with which it is refused.
async fn greet(rt: &Tokio, node: &Node, own: Credentials) -> (Wire, u8) {
    let mut wire = Wire::connect(rt, node).await;
    let answer = wire.greet(&hello_by(own, node.own.replica)).await;
    (wire, answer.refused)
}

async fn welcomed(rt: &Tokio, node: &Node, own: Credentials) -> Wire {
    let mut wire = Wire::connect(rt, node).await;
    wire.shake_hands(&hello_by(own, node.own.replica), own.cluster).await;
    wire
}

fn patient(ping: Duration) -> Timing {
    Timing { ping, backoff_max: Duration::from_millis(1), ..Timing::DEFAULT }
}

/// So long that no test gets to its end.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_copy_of_a_running_folder_is_refused_by_who_is_connected_to_the_first() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let mut two = Node::start(&rt, 2).await;
        let mut three = Node::start_with(&rt, member(3), ANYWHERE, config(), patient(LONG)).await;
        one.meet(&[(2, two.address()), (3, three.address())]);
        two.meet(&[(1, one.address()), (3, three.address())]);
        // At 2 it has dialled, at 3 it was dialled.
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        three.meet(&[(1, one.address())]);
        three.send_number(1, 1);
        until(&rt, || one.transport.stats().frames_in == 1).await;

        let twin = Node::start_with(&rt, rebooted(member(1)), ANYWHERE, config(), patient(LONG));
        let twin = twin.await;
        twin.meet(&[(2, two.address()), (3, three.address())]);
        for id in [2, 3] {
            twin.send_number(id, 2);
        }
        until(&rt, || two.transport.stats().twins > 0).await;
        until(&rt, || three.transport.stats().twins > 0).await;
        until(&rt, || twin.transport.stats().twins > 1).await;
        assert_eq!((twin.transport.stats().connects, twin.transport.stats().accepts), (0, 0));
        // The first goes on.
        one.send_number(2, 3);
        assert_eq!(two.number().await, 3);
        three.send_number(1, 4);
        until(&rt, || one.transport.stats().frames_in == 2).await;
        assert_eq!((two.inbox.try_recv().ok(), three.inbox.try_recv().ok()), (None, None));
    });
}

/// Two followers have nothing to say to each other, and would let copies of each other in.
#[test]
fn members_connect_before_they_have_anything_to_send() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let two = Node::start(&rt, 2).await;
        let members = BTreeMap::from([(replica(2), two.address())]);
        one.transport.set_peers(GROUP, &members);
        until(&rt, || two.transport.stats().accepts == 1).await;
        let twin = Node::start_as(&rt, rebooted(member(1))).await;
        twin.transport.set_peers(GROUP, &members);
        until(&rt, || two.transport.stats().twins > 0).await;
        assert_eq!((twin.transport.stats().connects, one.transport.stats().frames_out), (0, 0));
    });
}

#[test]
fn a_copy_that_is_dialled_is_refused_too() {
    run(async |rt| {
        let mut one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let two = Node::start(&rt, 2).await;
        let twin = Node::start_as(&rt, rebooted(member(2))).await;
        two.meet(&[(1, one.address())]);
        two.send_number(1, 1);
        assert_eq!(one.number().await, 1);
        // The list has the address of the copy.
        one.meet(&[(2, twin.address())]);
        one.send_number(2, 2);
        until(&rt, || one.transport.stats().twins == 1).await;
        until(&rt, || twin.transport.stats().twins == 1).await;
        assert_eq!((one.transport.stats().connects, twin.transport.stats().accepts), (0, 0));
        two.send_number(1, 3);
        assert_eq!(one.number().await, 3);
    });
}

#[test]
fn a_copy_that_meets_the_first_itself_is_refused() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let (_, code) = greet(&rt, &one, rebooted(member(1))).await;
        assert_eq!(code, Refusal::Twin.code());
        assert_eq!(one.transport.stats().twins, 1);
    });
}

#[test]
fn a_reboot_after_a_crash_is_served_at_once() {
    run(async |rt| {
        let mut one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let mut own = member(2);
        for life in 1..=5 {
            let mut two = Node::start_as(&rt, own).await;
            two.meet(&[(1, one.address())]);
            one.meet(&[(2, two.address())]);
            // Connected in both directions, and then gone, which the other may not have noticed.
            two.send_number(1, life);
            assert_eq!(one.number().await, life);
            one.send_number(2, life);
            assert_eq!(two.number().await, life);
            own = rebooted(own);
        }
        assert_eq!((one.transport.stats().refused_handshakes, one.transport.stats().twins), (0, 0));
    });
}

#[test]
fn a_reboot_after_a_power_failure_is_served_when_the_older_boot_does_not_answer() {
    run(async |rt| {
        let timing = patient(Duration::from_millis(50));
        let mut one = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        // Its connections stay open, and nobody reads them.
        let mut main = welcomed(&rt, &one, member(2)).await;
        let mut bulk = Wire::connect(&rt, &one).await;
        let hello = Hello { lane: Lane::Bulk, ..hello(2, 1) };
        bulk.shake_hands(&hello, Some(CLUSTER)).await;
        until(&rt, || one.transport.stats().accepts == 2).await;
        let mut two = welcomed(&rt, &one, rebooted(member(2))).await;
        main.until_closed().await;
        bulk.until_closed().await;
        for asked in [main, bulk] {
            assert_eq!(asked.buffer, u64::MAX.to_le_bytes()[..], "a ping, and nothing else");
        }
        two.send(frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 1 })))).await;
        assert_eq!(one.number().await, 1);
        assert_eq!(one.transport.stats().twins, 0);
    });
}

#[test]
fn an_outgoing_connection_to_the_boot_before_is_opened_anew() {
    run(async |rt| {
        let timing = patient(Duration::from_millis(50));
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        one.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        one.send_number(2, 1);
        let (mut before, _) = Wire::welcome(&mut listener, 2).await;
        before.expect(&message(1, 2, Body::ReadIndex { sequence: 1 })).await;
        let _two = welcomed(&rt, &one, rebooted(member(2))).await;
        before.until_closed().await;
        assert_eq!(before.buffer, frame(&[1]), "a ping, and nothing else");
        one.send_number(2, 2);
        let (mut after, ..) = Wire::welcome_as(&mut listener, rebooted(member(2))).await;
        after.expect(&message(1, 2, Body::ReadIndex { sequence: 2 })).await;
    });
}

#[test]
fn an_echo_shows_that_the_older_boot_lives() {
    run(async |rt| {
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let mut older = welcomed(&rt, &one, member(2)).await;
        until(&rt, || one.transport.stats().accepts == 1).await;
        let mut newer = Wire::connect(&rt, &one).await;
        newer.send(hello_by(rebooted(member(2)), replica(1)).encode()).await;
        while older.buffer.len() < 8 {
            assert!(older.more().await);
        }
        assert_eq!(older.buffer.split(), u64::MAX.to_le_bytes()[..]);
        older.send(frame(&[2])).await;
        assert_eq!(newer.answer().await.refused, Refusal::Twin.code());
        newer.until_closed().await;
    });
}

#[test]
fn pings_are_answered_and_never_pile_up() {
    run(async |rt| {
        let one = Node::start(&rt, 1).await;
        let mut wire = Wire::welcomed(&rt, &one, 2).await;
        let pings = frame(&[1]).repeat(10_000);
        wire.send(pings).await;
        // At least one echo, and no more than there were pings; then the connection works as
        // before.
        loop {
            assert!(wire.more().await);
            let mut reports = wire.buffer.chunks_exact(8);
            if reports.any(|report| report == (u64::MAX - 1).to_le_bytes()) {
                break;
            }
        }
        wire.send(frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 1 })))).await;
        until(&rt, || one.transport.stats().frames_in == 1).await;
        assert_eq!(one.transport.stats().bad_frames, 0);
    });
}

#[test]
fn another_connection_of_the_same_boot_is_no_twin() {
    run(async |rt| {
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let mut older = Wire::welcomed(&rt, &one, 2).await;
        let _newer = Wire::welcomed(&rt, &one, 2).await;
        older.until_closed().await;
        assert_eq!(one.transport.stats().refused_handshakes, 0);
    });
}

#[test]
fn a_second_group_of_a_running_node_leaves_its_connections_open() {
    run(async |rt| {
        let (one, mut two) = pair(&rt).await;
        one.send_number(2, 1);
        assert_eq!(two.number().await, 1);
        one.transport.attach(GROUP + 1, member(1), Inbox::new(drop));
        one.send(2, snapshot_chunk(0, 10));
        assert_eq!(two.inbox.recv().await.unwrap().body, snapshot_chunk(0, 10));
        one.send_number(2, 2);
        assert_eq!(two.number().await, 2);
        assert_eq!(one.transport.stats().connects, 2, "a lane each");
        // When all groups have ended, the node may start again.
        one.transport.detach(GROUP);
        one.transport.detach(GROUP + 1);
        one.transport.attach(GROUP, rebooted(member(1)), Inbox::new(drop));
        one.meet(&[(2, two.address())]);
        one.send_number(2, 3);
        assert_eq!(two.number().await, 3);
        assert_eq!(two.transport.stats().refused_handshakes, 0);
    });
}

/// Who doesn't know the cluster's id may connect first, under a member's name, and answer pings.
#[test]
fn a_stranger_who_answers_in_the_name_of_a_member_locks_that_member_out_of_nothing() {
    run(async |rt| {
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let mut listener = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        let claims = Credentials { cluster: None, ..rebooted(rebooted(member(2))) };
        let mut stranger = welcomed(&rt, &one, claims).await;
        until(&rt, || one.transport.stats().accepts == 1).await;
        // It needs not even be asked.
        stranger.send(frame(&[2])).await;

        let mut dials = welcomed(&rt, &one, member(2)).await;
        dials.send(frame(&encode(&message(2, 1, Body::ReadIndex { sequence: 1 })))).await;
        until(&rt, || one.transport.stats().frames_in == 1).await;
        drop(dials);

        let mut stranger = welcomed(&rt, &one, claims).await;
        until(&rt, || one.transport.stats().accepts == 3).await;
        one.meet(&[(2, listener.local_addr().unwrap().to_string())]);
        one.send_number(2, 2);
        let (mut is_dialled, _) = Wire::welcome(&mut listener, 2).await;
        is_dialled.expect(&message(1, 2, Body::ReadIndex { sequence: 2 })).await;
        stranger.until_closed().await;
        assert!(stranger.buffer.is_empty(), "nor is it asked: {:?}", stranger.buffer);
        assert_eq!(one.transport.stats().twins, 0);
    });
}

/// Of two who prove nothing, the one that is there and answers is taken for the first.
#[test]
fn a_copy_that_proves_nothing_is_refused_by_the_answer_of_another() {
    run(async |rt| {
        let one = Node::start_with(&rt, member(1), ANYWHERE, config(), patient(LONG)).await;
        let claims = Credentials { cluster: None, ..member(2) };
        let mut first = welcomed(&rt, &one, claims).await;
        until(&rt, || one.transport.stats().accepts == 1).await;
        let mut second = welcomed(&rt, &one, rebooted(claims)).await;
        while first.buffer.len() < 8 {
            assert!(first.more().await);
        }
        first.send(frame(&[2])).await;
        second.until_closed().await;
        assert_eq!((one.transport.stats().accepts, one.transport.stats().twins), (1, 1));
    });
}

/// A new disk founds one group, whose attempt is in vain, and is let into another: only by that it
/// can show that it belongs to its cluster.
#[test]
fn a_store_that_was_let_in_shows_that_and_not_a_claim() {
    run(async |rt| {
        let transport = TcpTransport::bind(&rt, ANYWHERE).await.unwrap();
        let let_in = Credentials { state: StoreState::Admitted, ..member(1) };
        let claims = |cluster| {
            let (state, cluster) = (StoreState::Claimed, Some(cluster));
            Credentials { state, cluster, ..member(1) }
        };
        for (group, credentials) in
            [(3, claims(OTHER_CLUSTER)), (4, let_in), (5, claims(OTHER_CLUSTER))]
        {
            transport.attach(group, credentials, Inbox::new(drop));
        }
        assert_eq!(transport.state().own.get(), Some(let_in));
    });
}
