//! A full disk: entries wait, and what a node needs besides becomes durable. Cases for factories
//! that can fill their disk; for others they are skipped, with a line that says so.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use quorate_rt::Executor;
use quorate_rt::channel::oneshot;

use super::{NODE, StoreFactory, entries, hard_state, skipped};
use crate::{
    Appended, ClusterId, Completes, Completion, Entry, GroupId, Index, LogId, LogStore, LogWrite,
    Payload, Recovered, Standing, StoreError,
};

const GROUP: GroupId = 7;
const OTHER: GroupId = 8;

/// So much is written before a disk that is full must show it.
const MOST_WRITES: u64 = 40_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Delayed,
    Durable,
    Dropped,
}

/// What is told of writes, in order, and who waits for the next.
#[derive(Default)]
struct Teller {
    told: RefCell<VecDeque<(u64, Told)>>,
    waiting: RefCell<Option<oneshot::Sender<()>>>,
}

impl Teller {
    fn tell(&self, write: u64, told: Told) {
        self.told.borrow_mut().push_back((write, told));
        if let Some(waiting) = self.waiting.take() {
            let _it_may_wait_no_more = waiting.send(());
        }
    }

    async fn next(&self) -> (u64, Told) {
        loop {
            if let Some(next) = self.told.borrow_mut().pop_front() {
                return next;
            }
            let (sender, receiver) = oneshot::channel();
            self.waiting.replace(Some(sender));
            let _told = receiver.await;
        }
    }
}

impl Completes for Teller {
    fn completed(&self, write: u64, outcome: Result<(), StoreError>) {
        match outcome {
            Ok(()) => self.tell(write, Told::Durable),
            // Or the store was dropped; then nobody asks.
            Err(StoreError::Abandoned) => self.tell(write, Told::Dropped),
            Err(error) => panic!("a full disk is not a failed one: {error}"),
        }
    }

    fn delayed(&self, write: u64) {
        self.tell(write, Told::Delayed);
    }
}

/// A store on a disk that has just become full, and the entries that were written.
struct Full<S> {
    store: S,
    teller: Rc<Teller>,
    /// Up to here the entries of `GROUP` are durable; the next one waits.
    durable: Index,
    writes: u64,
}

fn large(index: Index) -> LogWrite {
    let payload = Payload::Command(Bytes::from(vec![index as u8; 4000]));
    let entry = Entry { log_id: LogId::new(1, 1, index), time: 1, payload };
    LogWrite { entries: vec![entry].into(), ..LogWrite::default() }
}

impl<S: LogStore> Full<S> {
    /// None if the factory can't fill the disk.
    async fn make<R: Executor, F: StoreFactory<R, Store = S>>(
        rt: &R,
        factory: &F,
        case: &str,
    ) -> Option<Self> {
        let store = factory.open(rt).await;
        store.identify(NODE).await.expect("the store is this node's");
        for group in [GROUP, OTHER] {
            store.recover(group).await.expect("the store recovers");
        }
        let mut full = Self { store, teller: Rc::default(), durable: 0, writes: 0 };
        if !factory.set_full(true) {
            skipped(case, "its disk can't be filled");
            return None;
        }
        loop {
            assert!(full.writes < MOST_WRITES, "the disk is full, and writes go on");
            let write = full.submit(GROUP, large(full.durable + 1));
            match full.teller.next().await {
                (told, Told::Delayed) => {
                    assert_eq!(told, write);
                    return Some(full);
                }
                (told, outcome) => assert_eq!((told, outcome), (write, Told::Durable)),
            }
            full.durable += 1;
        }
    }

    fn submit(&mut self, group: GroupId, write: LogWrite) -> u64 {
        self.writes += 1;
        let target: Rc<Teller> = Rc::clone(&self.teller);
        match self.store.append(group, write, Completion::to(target, self.writes)) {
            Appended::Durable => self.teller.tell(self.writes, Told::Durable),
            Appended::Pending => {}
        }
        self.writes
    }

    /// The next that is told is this.
    async fn hears(&self, write: u64, told: Told) {
        assert_eq!(self.teller.next().await, (write, told));
    }

    async fn reads(&self, end: Index) {
        for index in [1, self.durable, self.durable + 1, end] {
            let read = self.store.read(GROUP, index..index + 1, usize::MAX).await;
            assert_eq!(read.expect("it can be read"), large(index).entries);
        }
    }
}

async fn reopen<R: Executor, F: StoreFactory<R>>(
    rt: &R,
    factory: &F,
    full: Full<F::Store>,
) -> (F::Store, Recovered) {
    drop(full.store);
    factory.lose_power(rt).await;
    let store = factory.open(rt).await;
    store.identify(NODE).await.expect("a restart needs no space");
    let recovered = store.recover(GROUP).await.expect("the store recovers");
    (store, recovered)
}

/// Entries wait, can be read meanwhile, and become durable in order when there is space.
#[doc(hidden)]
pub async fn waits_for_space<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let Some(mut full) = Full::make(&rt, &factory, "waits_for_space").await else { return };
    let first = full.writes;
    for index in full.durable + 2..full.durable + 20 {
        let write = full.submit(GROUP, large(index));
        full.hears(write, Told::Delayed).await;
    }
    let last = full.submit(OTHER, entries(1, 1, 3));
    full.hears(last, Told::Delayed).await;
    let end = full.durable + 19;
    full.reads(end).await;
    factory.set_full(false);
    for write in first..=last {
        full.hears(write, Told::Durable).await;
    }
    full.reads(end).await;
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(recovered.log_meta.last().index, end);
        let other = store.recover(OTHER).await.expect("the store recovers");
        assert_eq!(other.log_meta.last().index, 3);
    }
}

/// Votes become durable while entries wait, of the same group and of another. After a crash they
/// are there, and of the entries none that was not reported. The node starts again on the full
/// disk.
#[doc(hidden)]
pub async fn votes_on_a_full_disk<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let Some(mut full) = Full::make(&rt, &factory, "votes_on_a_full_disk").await else { return };
    for term in 2..20 {
        for group in [GROUP, OTHER] {
            let write = full.submit(group, hard_state(term, Some(3)));
            full.hears(write, Told::Durable).await;
        }
    }
    full.reads(full.durable + 1).await;
    let durable = full.durable;
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(Some(recovered.hard_state), hard_state(19, Some(3)).hard_state);
        assert_eq!(recovered.log_meta.last().index, durable, "the rest was never durable");
        let other = store.recover(OTHER).await.expect("the store recovers");
        assert_eq!(Some(other.hard_state), hard_state(19, Some(3)).hard_state);
    }
}

/// Another leader has replaced entries that wait. What is there in the end is what was submitted
/// last.
#[doc(hidden)]
pub async fn replaces_what_waits_for_space<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let case = "replaces_what_waits_for_space";
    let Some(mut full) = Full::make(&rt, &factory, case).await else { return };
    let (first, begin) = (full.writes, full.durable + 1);
    let second = full.submit(GROUP, large(begin + 1));
    full.hears(second, Told::Delayed).await;
    let newer = LogWrite { ..entries(2, begin, begin + 4) };
    let third = full.submit(GROUP, newer.clone());
    full.hears(third, Told::Delayed).await;
    factory.set_full(false);
    for write in first..=third {
        full.hears(write, Told::Durable).await;
    }
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(
            recovered.log_meta.last(),
            LogId { index: begin + 4, ..newer.entries[0].log_id }
        );
        let read = store.read(GROUP, begin..begin + 5, usize::MAX).await;
        assert_eq!(read.expect("it can be read"), newer.entries);
    }
}

/// A group is removed while entries of it wait: they are dropped, the others wait on, and what the
/// group held is gone, also after a crash. It can begin anew.
#[doc(hidden)]
pub async fn removes_what_waits_for_space<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let case = "removes_what_waits_for_space";
    let Some(mut full) = Full::make(&rt, &factory, case).await else { return };
    let first = full.writes;
    let second = full.submit(GROUP, large(full.durable + 2));
    full.hears(second, Told::Delayed).await;
    let other = full.submit(OTHER, entries(1, 1, 3));
    full.hears(other, Told::Delayed).await;
    full.store.release(GROUP);
    full.store.remove(GROUP).await.expect("what waits is dropped");
    full.hears(first, Told::Dropped).await;
    full.hears(second, Told::Dropped).await;
    let recovered = full.store.recover(GROUP).await.expect("it is an empty one");
    assert_eq!(recovered, Recovered::default());
    let vote = full.submit(GROUP, hard_state(1, Some(3)));
    full.hears(vote, Told::Durable).await;
    let anew = full.submit(GROUP, large(1));
    // Removing it may have made room for more.
    match full.teller.next().await {
        told if told == (anew, Told::Delayed) => {
            factory.set_full(false);
            full.hears(other, Told::Durable).await;
            full.hears(anew, Told::Durable).await;
        }
        told => {
            assert_eq!(told, (other, Told::Durable));
            full.hears(anew, Told::Durable).await;
        }
    }
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(Some(recovered.hard_state), hard_state(1, Some(3)).hard_state);
        assert_eq!(recovered.log_meta.last().index, 1);
        let read = store.read(GROUP, 1..2, usize::MAX).await;
        assert_eq!(read.expect("it can be read"), large(1).entries);
        let other = store.recover(OTHER).await.expect("the store recovers");
        assert_eq!(other.log_meta.last().index, 3);
    }
}

/// What a group has become by committed entries goes ahead of others that wait, as marks and
/// snapshots do. Only what comes with the first entry of a log waits with it.
#[doc(hidden)]
pub async fn tells_standings_on_a_full_disk<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let case = "tells_standings_on_a_full_disk";
    let Some(mut full) = Full::make(&rt, &factory, case).await else { return };
    let standing = |standing| Some(Box::new(standing));
    let later = LogWrite { standing: standing(Standing::Spent), ..large(full.durable + 2) };
    let admitted = Standing::Admitted(ClusterId(7));
    let write = full
        .submit(OTHER, LogWrite { standing: standing(admitted.clone()), ..LogWrite::default() });
    full.hears(write, Told::Durable).await;
    let begins = LogWrite { standing: standing(Standing::Empty), ..large(1) };
    for (group, write) in [(GROUP, later), (OTHER, begins)] {
        let write = full.submit(group, write);
        full.hears(write, Told::Delayed).await;
    }
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(recovered.standing, Standing::Spent);
        assert_ne!(recovered.log_meta.last(), LogId::ZERO);
        let other = store.recover(OTHER).await.expect("the store recovers");
        assert_eq!((other.standing, other.log_meta.last()), (admitted, LogId::ZERO));
    }
}

/// That a group is spent waits with the first entry of its log when it is removed: it stays spent,
/// also after a crash before there is space.
#[doc(hidden)]
pub async fn removes_a_spent_group_whose_standing_waits<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    let case = "removes_a_spent_group_whose_standing_waits";
    let Some(mut full) = Full::make(&rt, &factory, case).await else { return };
    let write = full.submit(OTHER, spent(large(1)));
    full.hears(write, Told::Delayed).await;
    full.store.release(OTHER);
    full.store.remove(OTHER).await.expect("a removal needs no space");
    assert_eq!(full.store.recover(OTHER).await.expect("it is an empty one"), removed());
    let (store, _) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(store.recover(OTHER).await.expect("the store recovers"), removed());
    }
}

/// Groups are removed as soon as they have begun, and the disk becomes full in between: a removal
/// goes ahead, and what was to be written before it must not follow on it.
#[doc(hidden)]
pub async fn removes_groups_while_the_disk_becomes_full<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    let case = "removes_groups_while_the_disk_becomes_full";
    let store = factory.open(&rt).await;
    store.identify(NODE).await.expect("the store is this node's");
    store.recover(GROUP).await.expect("the store recovers");
    let mut full = Full { store, teller: Rc::default(), durable: 0, writes: 0 };
    if !factory.set_full(true) {
        return skipped(case, "its disk can't be filled");
    }
    let mut group = OTHER;
    loop {
        assert!(full.writes < MOST_WRITES, "the disk is full, and writes go on");
        group += 1;
        full.store.recover(group).await.expect("it is an empty one");
        full.submit(group, spent(large(1)));
        full.store.release(group);
        full.store.remove(group).await.expect("a removal needs no space");
        match full.teller.next().await {
            (_, Told::Durable) => {}
            (_, Told::Dropped) => break,
            (_, Told::Delayed) => panic!("nobody is to hear of a write that was dropped"),
        }
    }
    let waits = full.submit(GROUP, large(1));
    full.hears(waits, Told::Delayed).await;
    factory.set_full(false);
    full.hears(waits, Told::Durable).await;
    let (store, recovered) = reopen(&rt, &factory, full).await;
    if F::DURABLE {
        assert_eq!(recovered.log_meta.last().index, 1);
        for group in OTHER + 1..=group {
            assert_eq!(store.recover(group).await.expect("the store recovers"), removed());
        }
    }
}

fn spent(write: LogWrite) -> LogWrite {
    LogWrite { standing: Some(Box::new(Standing::Spent)), ..write }
}

/// What is left of a group that was spent.
fn removed() -> Recovered {
    Recovered { standing: Standing::Spent, ..Recovered::default() }
}
