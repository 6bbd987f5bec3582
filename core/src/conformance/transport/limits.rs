//! A send is never waited for, and what waits for a peer is bounded.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_rt::Executor;

use super::super::replica;
use super::messages::{append_one, snapshot_chunk};
use super::{GROUP, Node, TransportFactory, join, pair};
use crate::{Body, Inbox, Message, NodeId, Replica, Transport};

/// What may wait for one peer, in bytes: more than any transport needs, and less than would hurt.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// The content of a command, which tells how many of them exist.
struct Counted(Arc<AtomicUsize>);

static CONTENT: [u8; 64 << 10] = [7; 64 << 10];

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &CONTENT
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends far more to node `to` than may wait, entries or chunks of a snapshot, `pause` after some
/// of it, and looks at how much does.
async fn flood<T: Transport>(from: &Node<T>, to: NodeId, chunks: bool, pause: impl AsyncFn()) {
    let waiting = Arc::new(AtomicUsize::new(0));
    for index in 1..=(4 * MAX_WAITING_BYTES / CONTENT.len()) as u64 {
        waiting.fetch_add(1, Ordering::Relaxed);
        let content = Bytes::from_owner(Counted(Arc::clone(&waiting)));
        let body = if chunks { snapshot_chunk(index, content) } else { append_one(index, content) };
        from.transport.send(from.message(GROUP, to, body));
        let bytes = waiting.load(Ordering::Relaxed) * CONTENT.len();
        assert!(bytes <= MAX_WAITING_BYTES, "{bytes} bytes wait for one peer");
        if index % 1024 == 0 {
            pause().await;
        }
    }
}

/// A peer that has been here, and one that never was, though its address is known. Meanwhile the
/// others are reached.
#[doc(hidden)]
pub async fn never_waits_for_who_is_away<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, two) = pair(&rt, &factory, &[GROUP]).await;
    let mut three = Node::start(&rt, &factory, 3, 1, &[GROUP]).await;
    let (gone, address) = factory.transport(&rt).await;
    drop(gone);
    let four = [(replica(4), address.clone()), (Replica::any(4), address)];
    let places = [two.places(), three.places(), four].into_iter().flatten();
    one.transport.set_peers(GROUP, &places.collect());
    drop(two);
    for (away, chunks) in [(2, false), (4, true), (2, true), (4, false)] {
        flood(&one, away, chunks, async || rt.sleep(Duration::from_millis(1)).await).await;
        one.reach(&rt, &mut three, one.number(GROUP, 3, away)).await;
    }
}

/// A peer that does not get to run while it is sent to.
#[doc(hidden)]
pub async fn never_waits_for_who_is_slow<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP + 1]).await;
    // What is delivered waits no longer.
    join(&one, &two, Inbox::new(drop));
    for chunks in [false, true] {
        flood(&one, 2, chunks, async || ()).await;
        one.reach(&rt, &mut two, one.number(GROUP + 1, 2, 1)).await;
    }
}

/// A write whose forward was not taken is answered as refused, and its client repeats it: were it
/// carried all the same, it would take effect twice.
#[doc(hidden)]
pub async fn carries_nothing_that_it_has_refused<R: Executor, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, two) = pair(&rt, &factory, &[GROUP + 1]).await;
    let arrived = Rc::<RefCell<BTreeSet<u64>>>::default();
    let notes = Rc::clone(&arrived);
    let note = move |message: Message| {
        if let Body::Forward { sequence, .. } = message.body {
            notes.borrow_mut().insert(sequence);
        }
    };
    join(&one, &two, Inbox::new(note));
    let mut refused = BTreeSet::new();
    let mut sequence = 0;
    let mut send = |command: &'static [u8]| {
        sequence += 1;
        let commands = vec![Bytes::from_static(command)];
        let forward = Body::Forward { boot: 1, sequence, commands };
        if !one.transport.send(one.message(GROUP, 2, forward)) {
            refused.insert(sequence);
        }
        (sequence, refused.len())
    };
    for _ in 0..10 {
        send(b"into an empty queue");
        rt.sleep(Duration::from_millis(1)).await;
    }
    // Until it is full.
    let most = MAX_WAITING_BYTES / CONTENT.len();
    let last = (0..most).map(|_| send(&CONTENT)).find(|(_, refused)| *refused > 100);
    // When one that is sent now is there, the others are, too, or are lost.
    let (last, _) = last.unwrap_or_else(|| send(b"behind all"));
    while arrived.borrow().last().is_none_or(|arrived| *arrived <= last) {
        send(b"behind all");
        rt.sleep(Duration::from_millis(1)).await;
    }
    let both: Vec<_> = arrived.borrow().intersection(&refused).copied().collect();
    assert!(both.is_empty(), "refused, and carried all the same: {both:?}");
}
