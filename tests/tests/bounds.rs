//! Disks and state machines that are slow, peers that send too much: what is refused is refused,
//! and what is held stays within the limits, counted byte by byte.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use quorate::rt::channel::watch;
use quorate::{
    At, Body, Config, Executor, LocalNetwork, LocalRaft, Message, NodeId, Raw, StateMachine, Term,
    WriteError,
};
use quorate_tests::{
    Disk, Fate, Faults, FaultyStore, Lossy, Single, on_each_runtime, quick, wait_for,
};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    slow_disks_make_writes_busy_and_no_memory_full,
    a_slow_state_machine_of_the_leader_makes_writes_busy_and_keeps_no_heartbeat_waiting,
    a_slow_state_machine_of_a_follower_gets_its_entries_a_batch_at_a_time,
    messages_beyond_what_an_inbox_holds_are_dropped,
);

const LINE: usize = 1000;

/// Limits of a few lines. Nobody gives up before the test lets them, unless that has failed.
fn narrow() -> Config {
    Config {
        max_command_bytes: 2 * LINE,
        max_uncommitted_bytes: 20 * LINE,
        max_queued_bytes: 50 * LINE,
        max_apply_bytes: 5 * LINE,
        request_timeout: Duration::from_secs(30),
        // A pause of the machine must not cost an election here.
        election_timeout: Duration::from_millis(500),
        ..quick()
    }
}

/// Counts the bytes of commands that anybody still holds.
#[derive(Clone, Default)]
struct Live(Arc<AtomicUsize>);

impl Live {
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn line(&self) -> Raw {
        Raw(self.counted(Bytes::from_static(&[b'x'; LINE])))
    }

    fn counted(&self, content: Bytes) -> Bytes {
        self.0.fetch_add(content.len(), Ordering::Relaxed);
        Bytes::from_owner(Counted { content, live: self.clone() })
    }
}

struct Counted {
    content: Bytes,
    live: Live,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.0.fetch_sub(self.content.len(), Ordering::Relaxed);
    }
}

/// A state machine that waits for its gate, and sees what its node holds meanwhile.
#[derive(Default, Serialize, Deserialize)]
struct Gated {
    applied: usize,
    #[serde(skip)]
    gate: Option<watch::Receiver<bool>>,
    #[serde(skip)]
    store: FaultyStore,
    #[serde(skip)]
    most_held: Rc<Cell<usize>>,
}

impl StateMachine for Gated {
    type Command = Raw;
    type Response = ();

    async fn apply(&mut self, _: Raw, _: At) {
        if let Some(gate) = &mut self.gate {
            gate.wait_for(|open| *open).await.expect("the test holds it");
        }
        self.most_held.set(self.most_held.get().max(self.store.read_bytes()));
        self.applied += 1;
    }
}

/// A node, and what the test does to it.
struct Part {
    node: Single<Gated>,
    store: FaultyStore,
    gate: watch::Sender<bool>,
    /// The most bytes of entries from the log that the node held while it applied.
    most_held: Rc<Cell<usize>>,
}

struct Three {
    parts: BTreeMap<NodeId, Part>,
    leader: NodeId,
    /// How often a node has told another that it is alive: six times in a heartbeat interval.
    heartbeats: Rc<Cell<usize>>,
}

impl Three {
    async fn form<R: Executor>(rt: &R, config: &Config) -> Self {
        let network = LocalNetwork::new();
        let heartbeats = Rc::new(Cell::new(0));
        let faults = Faults::default();
        let count = Rc::clone(&heartbeats);
        faults.set(move |message| {
            if let Body::Alive(_) = &message.body {
                count.set(count.get() + 1);
            }
            Fate::Arrives
        });
        let mut parts = BTreeMap::new();
        for id in 1..=3 {
            let store = FaultyStore::default();
            let (gate, open) = watch::channel(true);
            let most_held = Rc::default();
            let state_machine = Gated {
                applied: 0,
                gate: Some(open),
                store: store.clone(),
                most_held: Rc::clone(&most_held),
            };
            let node = Single::start(
                rt,
                id,
                config.clone(),
                store.clone(),
                Lossy::new(network.transport(), faults.clone()),
                state_machine,
            )
            .await
            .expect("starts");
            parts.insert(id, Part { node, store, gate, most_held });
        }
        let raft = parts[&1].node.local();
        raft.initialize([1, 2, 3].map(|id| (id, format!("node-{id}")))).await.expect("forms");
        raft.read(|_| ()).await.expect("somebody leads");
        let leader = raft.metrics().borrow().leader.expect("it is known");
        Self { parts, leader, heartbeats }
    }

    fn raft(&self, id: NodeId) -> LocalRaft<Gated> {
        self.parts[&id].node.local()
    }

    fn others(&self) -> impl Iterator<Item = NodeId> + use<'_> {
        self.parts.keys().copied().filter(|id| *id != self.leader)
    }

    /// Waits for two election timeouts, counted in heartbeats. The leader is still the leader.
    async fn stays<R: Executor>(&self, rt: &R) {
        let before = self.heartbeats.get();
        while self.heartbeats.get() < before + 300 {
            rt.sleep(quick().heartbeat_interval).await;
        }
        for part in self.parts.values() {
            let metrics = part.node.local().metrics();
            assert_eq!(metrics.borrow().leader, Some(self.leader));
        }
    }
}

type Pending = Pin<Box<dyn Future<Output = Result<(), WriteError>>>>;

/// Those of so many writes that are not refused right away.
fn try_to_write(raft: &LocalRaft<Gated>, live: &Live, count: usize) -> Vec<Pending> {
    let writes = (0..count).map(|_| -> Pending { Box::pin(raft.write(live.line())) });
    still_waiting(writes.collect())
}

/// Without those that have been refused.
fn still_waiting(mut writes: Vec<Pending>) -> Vec<Pending> {
    writes.retain_mut(|write| match write.now_or_never() {
        Some(Err(WriteError::Busy)) => false,
        Some(answer) => panic!("{answer:?}"),
        None => true,
    });
    writes
}

async fn slow_disks_make_writes_busy_and_no_memory_full<R: Executor>(rt: R) {
    // The queue lets everything through.
    let config = Config { max_queued_bytes: 1 << 30, ..narrow() };
    let three = Three::form(&rt, &config).await;
    let raft = three.raft(three.leader);
    let live = Live::default();
    let disks = |disk| three.others().for_each(|id| three.parts[&id].store.set(disk));
    let mut written = 0;
    for round in 1..=10 {
        disks(Disk::Hangs);
        let mut taken = Vec::new();
        for _ in 0..20 {
            let mut writes = try_to_write(&raft, &live, 100);
            // They are looked at in order.
            let last = writes.pop().expect("the queue has room").await;
            assert!(matches!(last, Err(WriteError::Busy)), "{last:?}");
            taken.extend(still_waiting(writes));
            let held = live.bytes() - written * LINE;
            assert!(held <= config.max_uncommitted_bytes, "{held} bytes in round {round}");
        }
        disks(Disk::Works);
        assert!((10..=20).contains(&taken.len()), "{} lines in round {round}", taken.len());
        written += taken.len();
        for write in taken {
            write.await.expect("is durable");
        }
    }
    raft.write(live.line()).await.expect("there is room again");
    assert_eq!(raft.read(|state| state.applied).await.expect("reads"), written + 1);
}

async fn a_slow_state_machine_of_the_leader_makes_writes_busy_and_keeps_no_heartbeat_waiting<
    R: Executor,
>(
    rt: R,
) {
    let config = Config { max_uncommitted_bytes: 1 << 20, ..narrow() };
    let three = Three::form(&rt, &config).await;
    let leader = &three.parts[&three.leader];
    let raft = leader.node.local();
    let live = Live::default();
    leader.gate.send(false);
    let before = raft.metrics().borrow().applied;
    let taken = try_to_write(&raft, &live, 1000);
    // Each counts a little more than its bytes.
    assert!((40..=50).contains(&taken.len()), "{} lines", taken.len());
    assert_eq!(live.bytes(), taken.len() * LINE);
    // All of them are committed, and not one is applied.
    let all = before + taken.len() as u64;
    wait_for(&mut raft.metrics(), |m| m.committed == all).await;
    three.stays(&rt).await;
    assert_eq!(raft.metrics().borrow().applied, before);
    assert!((LINE..=config.max_apply_bytes).contains(&leader.store.read_bytes()));
    assert!(matches!(raft.write(live.line()).await, Err(WriteError::Busy)));
    leader.gate.send(true);
    for write in taken {
        write.await.expect("is applied");
    }
    raft.write(live.line()).await.expect("there is room again");
}

async fn a_slow_state_machine_of_a_follower_gets_its_entries_a_batch_at_a_time<R: Executor>(rt: R) {
    const LINES: usize = 1000;
    let config = narrow();
    let three = Three::form(&rt, &config).await;
    let raft = three.raft(three.leader);
    let slow = &three.parts[&three.others().next().expect("there are others")];
    let live = Live::default();
    slow.gate.send(false);
    for _ in 0..LINES {
        raft.write(live.line()).await.expect("two of three are fast");
    }
    let committed = raft.metrics().borrow().committed;
    let mut metrics = slow.node.local().metrics();
    wait_for(&mut metrics, |m| m.committed >= committed).await;
    three.stays(&rt).await;
    assert!(metrics.borrow().applied + 900 < committed);
    assert!(slow.store.read_bytes() > 0, "it has begun");
    slow.gate.send(true);
    wait_for(&mut metrics, |m| m.applied >= committed).await;
    assert!(slow.most_held.get() <= config.max_apply_bytes, "{} bytes", slow.most_held.get());
    let applied = slow.node.local().read(|state| state.applied).await.expect("reads");
    assert_eq!(applied, LINES);
}

async fn messages_beyond_what_an_inbox_holds_are_dropped<R: Executor>(rt: R) {
    const MIB: usize = 1 << 20;
    const INBOX_BYTES: usize = 256 * MIB;
    let three = Three::form(&rt, &narrow()).await;
    let to = three.others().next().expect("there are others");
    let (local, shared) = (three.raft(to), three.parts[&to].node.raft());
    let [from, to] = [three.leader, to].map(|id| three.raft(id).metrics().borrow().replica);
    let content = Bytes::from(vec![0; MIB]);
    let live = Live::default();
    let flood = |deliver: &dyn Fn(Message)| {
        // It gets no turn in between.
        for sequence in 0..300 {
            let commands = vec![live.counted(content.clone())];
            let body = Body::Forward { boot: 1, sequence, commands };
            deliver(Message { group: 0, cluster: None, from, to, term: Term(0), body });
        }
    };
    for deliver in [&|m| local.deliver(m), &|m| shared.deliver(m)] as [&dyn Fn(Message); 2] {
        flood(deliver);
        let held = live.bytes();
        assert!((INBOX_BYTES - 2 * MIB..=INBOX_BYTES).contains(&held), "{held} bytes");
        while live.bytes() > 0 {
            rt.sleep(Duration::from_millis(1)).await;
        }
    }
    local.write(live.line()).await.expect("there is room again");
}
