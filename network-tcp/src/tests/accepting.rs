//! What strangers and slow peers can take of a node that accepts their connections: places, memory,
//! lines of the log, descriptors.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use futures::FutureExt;
use quorate_core::Node as RaftNode;
use quorate_store_mem::MemStore;

use super::*;
use crate::connection_slots::Class;
use crate::frame::FrameReader;
use crate::incoming::accept;

/// A member whose hello is answered, and who has not confirmed.
async fn half_way(rt: &Tokio, node: &Node, id: NodeId) -> (Wire, Confirm) {
    let mut wire = Wire::connect(rt, node).await;
    let hello = hello(id, node.own.replica.id);
    let there = wire.greet(&hello).await.node.unwrap();
    let mac = Some(mac(CLUSTER, Role::Dialler, &hello.from, &there));
    (wire, Confirm { mac, ..Confirm::default() })
}

/// P10.
#[test]
fn a_stranger_too_many_costs_the_oldest_of_its_kind_and_no_member() {
    run(async |rt| {
        let mut node = Node::start(&rt, 1).await;
        node.meet(&[(3, "127.0.0.1:1".to_owned())]);
        let mut member = Wire::welcomed(&rt, &node, 2).await;
        let (mut slow, confirm) = half_way(&rt, &node, 3).await;
        let mut silent = Vec::new();
        for _ in 0..Class::Nothing.slots() + 20 {
            silent.push(Wire::connect(&rt, &node).await);
        }
        // The oldest are closed, and the others stay.
        for wire in &mut silent[..20] {
            wire.until_closed().await;
        }
        until(&rt, || node.transport.stats().refused_handshakes == 20).await;
        let greeting = hello(4, 1);
        let answer = silent[20].greet(&greeting).await;
        assert_eq!(answer.refused, 0);
        // Strangers that know how to say hello are no danger to who is listed.
        let mut polite = Vec::new();
        for id in 100..100 + Class::Hello.slots() as u64 + 20 {
            let mut wire = Wire::connect(&rt, &node).await;
            wire.greet(&hello_by(empty(id), replica(1))).await;
            polite.push(wire);
        }
        polite[0].until_closed().await;
        slow.send(confirm.encode()).await;
        for (wire, id) in [(&mut member, 2), (&mut slow, 3)] {
            wire.send(frame(&encode(&message(id, 1, Body::ReadIndex { sequence: id })))).await;
            assert_eq!(node.number().await, id);
        }
    });
}

#[test]
fn a_handshake_that_drips_ends_in_time_as_a_whole() {
    run(async |rt| {
        let timing = Timing { handshake: Duration::from_millis(100), ..Timing::DEFAULT };
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), timing).await;
        let mut wire = Wire::connect(&rt, &node).await;
        let hello = hello(2, 1).encode();
        // Each byte comes long before the deadline. Without one, this would be a whole hello.
        for at in 0..hello.len() {
            if wire.write.write_all(vec![hello.slice(at..=at)]).await.is_err() {
                break;
            }
            rt.sleep(Duration::from_millis(10)).await;
        }
        wire.until_closed().await;
        assert_eq!(node.transport.stats().refused_handshakes, 1);
    });
}

/// So short that a test can wait for it twice, and so long that what is sent at once arrives.
const SWEEP: Timing = Timing { sweep: Duration::from_millis(500), ..Timing::DEFAULT };

fn forward(bytes: usize) -> Body {
    Body::Forward { boot: 1, sequence: 1, commands: vec![Bytes::from(vec![1; bytes])] }
}

#[test]
fn part_of_a_frame_with_nothing_following_is_closed() {
    run(async |rt| {
        let node = Node::start_with(&rt, member(1), ANYWHERE, config(), SWEEP).await;
        let whole = frame(&encode(&message(2, 1, forward(100_000))));
        for (count, part) in [1, 8, 20, 70_000, whole.len() - 1].into_iter().enumerate() {
            let mut wire = Wire::welcomed(&rt, &node, 2).await;
            wire.send(whole[..part].to_vec()).await;
            wire.until_closed().await;
            let stats = node.transport.stats();
            assert_eq!((stats.stalled, stats.bad_frames), (count as u64 + 1, 0));
        }
    });
}

#[test]
fn frames_that_stall_hold_up_others_only_until_they_are_closed() {
    run(async |rt| {
        const MIB: usize = 1 << 20;
        let limits =
            TcpConfig { max_frame_bytes: MIB, max_arriving_bytes: 3 * MIB / 2, ..config() };
        let mut node = Node::start_with(&rt, member(1), ANYWHERE, limits, SWEEP).await;
        let (large, small) = (forward(900_000), Body::ReadIndex { sequence: 5 });
        let bytes = |from, body: &Body| frame(&encode(&message(from, 1, body.clone())));
        let mut stalled = Wire::welcomed(&rt, &node, 2).await;
        stalled.send(bytes(2, &large)[..10_000].to_vec()).await;
        let mut next = Wire::welcomed(&rt, &node, 3).await;
        until(&rt, || node.transport.state().arriving.free() < MIB).await;
        // Large ones wait, while small ones get through.
        let sent = bytes(3, &large);
        next.send(sent[..80_000].to_vec()).await;
        until(&rt, || node.transport.stats().arrival_waits == 1).await;
        let rest = rt.spawn(async move {
            next.send(sent[80_000..].to_vec()).await;
            next
        });
        let mut other = Wire::welcomed(&rt, &node, 4).await;
        other.send(bytes(4, &small)).await;
        assert_eq!(node.number().await, 5);
        assert_eq!(node.transport.stats().stalled, 0);
        stalled.until_closed().await;
        assert_eq!(node.inbox.recv().await.unwrap().body, large);
        let _next = rest.await.unwrap();
        until(&rt, || node.transport.state().arriving.free() == 3 * MIB / 2).await;
        assert_eq!(node.transport.stats().stalled, 1);
    });
}

#[test]
fn where_nothing_is_proven_no_large_message_arrives() {
    run(async |rt| {
        let node = Node::start_as(&rt, empty(1)).await;
        let mut wire = Wire::connect(&rt, &node).await;
        wire.shake_hands(&hello_by(empty(2), replica(1)), None).await;
        let claimed = u32::try_from(FrameReader::CHUNK_BYTES).unwrap();
        wire.send([claimed.to_le_bytes(), [0; 4]].concat()).await;
        wire.until_closed().await;
        until(&rt, || node.transport.stats().bad_frames == 1).await;
        assert_eq!(node.transport.state().arriving.free(), config().max_arriving_bytes);
    });
}

/// A listener that fails some times before it accepts.
struct Failing {
    errors: Vec<io::Error>,
    inner: TokioListener,
}

impl Listener for Failing {
    type Stream = TokioStream;

    async fn accept(&mut self) -> io::Result<(TokioStream, SocketAddr)> {
        match self.errors.pop() {
            Some(error) => Err(error),
            None => self.inner.accept().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

#[test]
fn accepting_goes_on_after_errors() {
    const ECONNABORTED: i32 = 103;
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    run(async |rt| {
        let node = Node::start(&rt, 1).await;
        let errors = [ECONNABORTED, EMFILE, ENFILE].map(io::Error::from_raw_os_error);
        let inner = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        let at = inner.local_addr().unwrap();
        let listener = Failing { errors: errors.into(), inner };
        let _accepting = rt.spawn(accept(Rc::clone(node.transport.state()), listener));
        let mut wire = Wire::new(rt.connect(at).await.unwrap());
        assert_eq!(wire.greet(&hello(2, 1)).await.refused, 0);
        assert_eq!(node.transport.stats().accept_errors, 3);
    });
}

/// What a stranger says makes a node dial the address at which the stranger says that it is
/// reached, and none that it names otherwise.
#[test]
fn a_stranger_makes_a_node_dial_nobody_but_itself() {
    run(async |rt| {
        let transport = TcpTransport::bind(&rt, ANYWHERE).await.unwrap();
        let at = transport.local_addr();
        let node = RaftNode::builder(2)
            .log_store(MemStore::new())
            .transport(transport)
            .start(&rt)
            .await
            .unwrap();
        let _raft = node.group(GROUP).open_local(()).await.unwrap();
        let own = node.replica();
        let mut here = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        let mut victim = rt.listen(ANYWHERE.parse().unwrap()).await.unwrap();
        let its_address = victim.local_addr().unwrap().to_string();
        let stranger = empty(1);
        let list = LiteMap::from_iter([(1, its_address), (2, at.to_string())]);
        let listed: BTreeSet<_> = list.keys().copied().collect();
        let claim =
            Claim { cluster: CLUSTER, ballot: 4, founder: stranger.replica, list: list.into() };
        let address = here.local_addr().unwrap().to_string();
        let greeting = Hello { address, ..hello_by(stranger, own) };
        // The first of these gets an answer. So does the second, which the node accepts: as it is
        // another from then on, over another connection.
        let situation = Body::Situation { situation: Situation::Empty, listed: listed.clone() };
        let mut open = Vec::new();
        for bodies in [vec![situation, Body::Who { listed }], vec![Body::Claim(Box::new(claim))]] {
            let mut wire = Wire::new(rt.connect(at).await.unwrap());
            wire.shake_hands(&greeting, None).await;
            for body in bodies {
                let message = message_between(stranger.replica, own, body);
                wire.send(frame(&encode(&message))).await;
            }
            let (mut answered, hello, _) = Wire::welcome_as(&mut here, stranger).await;
            assert_eq!(hello.from.replica, own);
            assert!(!answered.buffer.is_empty() || answered.more().await);
            open.push(answered); // What is written to one that closes is lost.
        }
        assert!(victim.accept().now_or_never().is_none());
    });
}
