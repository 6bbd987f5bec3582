//! Clients write and read through every node while leaders change and messages are lost, repeated
//! and late; then what they were told is held against the journals.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use quorate::{Body, Executor, Fatal, LocalRaft, NodeId, WriteError};
use quorate_tests::{Cluster, Fate, Journal, on_each_runtime, quick, wait_for};

on_each_runtime!(
    what_clients_were_told_holds_while_leaders_change,
    a_forward_takes_effect_once_however_often_it_comes,
);

const CLIENTS_PER_NODE: u64 = 3;

/// What the clients share.
#[derive(Default)]
struct History {
    handles: RefCell<BTreeMap<NodeId, LocalRaft<Journal>>>,
    /// What became of each line that was written.
    outcomes: RefCell<BTreeMap<String, Outcome>>,
    /// The longest journal that anybody was told of.
    longest: Cell<usize>,
    reads: Cell<u64>,
    stopped: Cell<bool>,
}

#[derive(Debug)]
enum Outcome {
    /// It is the line at this position, counted from 1.
    Written(usize),
    Refused,
    Unknown,
}

impl History {
    fn tell(&self, len: usize) {
        self.longest.set(self.longest.get().max(len));
    }

    fn written(&self) -> usize {
        let outcomes = self.outcomes.borrow();
        outcomes.values().filter(|outcome| matches!(outcome, Outcome::Written(_))).count()
    }
}

async fn client<R: Executor>(rt: R, history: Rc<History>, node: NodeId, name: u64) {
    let mut number = 0;
    while !history.stopped.get() {
        let raft = history.handles.borrow()[&node].clone();
        number += 1;
        let line = format!("{name}: {number}");
        let outcome = match raft.write(line.clone()).await {
            Ok(position) => {
                history.tell(position);
                Outcome::Written(position)
            }
            Err(WriteError::Unknown) => Outcome::Unknown,
            Err(WriteError::NotLeader { .. } | WriteError::Fatal(Fatal::Dropped)) => {
                Outcome::Refused
            }
            Err(error) => panic!("{error}"),
        };
        let failed = !matches!(outcome, Outcome::Written(_));
        history.outcomes.borrow_mut().insert(line, outcome);
        if failed {
            rt.sleep(quick().heartbeat_interval).await;
        }
        let before = history.longest.get();
        if let Ok(len) = raft.read(|journal| journal.entries.len()).await {
            assert!(len >= before, "a read saw {len} lines after an answer told of {before}");
            history.tell(len);
            history.reads.set(history.reads.get() + 1);
        }
    }
}

async fn what_clients_were_told_holds_while_leaders_change<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 3, quick()).await;
    let history = Rc::new(History::default());
    for id in 1..=3 {
        history.handles.borrow_mut().insert(id, cluster.raft(id));
    }
    let mut clients = Vec::new();
    for name in 0..3 * CLIENTS_PER_NODE {
        clients.push(rt.spawn(client(rt.clone(), Rc::clone(&history), name % 3 + 1, name)));
    }
    for round in 0..6 {
        let leader = cluster.leader().await;
        let term = cluster.raft(leader).metrics().borrow().term;
        let other = leader % 3 + 1;
        match round % 3 {
            0 => cluster.network.isolate(leader),
            1 => cluster.crash(leader),
            _ => {
                // Its words are lost, and it goes on hearing the others.
                cluster.network.disconnect(leader, other);
                cluster.network.disconnect(leader, other % 3 + 1);
            }
        }
        let mut metrics = cluster.raft(other).metrics();
        wait_for(&mut metrics, |m| m.term > term && m.leader.is_some_and(|new| new != leader))
            .await;
        // The new one serves: with a majority, in bad weather.
        let messages = Cell::new(0u32);
        cluster.faults.set(move |_| {
            messages.set(messages.get().wrapping_add(1));
            match messages.get() {
                n if n.is_multiple_of(23) => Fate::Lost,
                n if n.is_multiple_of(7) => Fate::ArrivesTwice,
                n if n.is_multiple_of(5) => Fate::Late(3),
                _ => Fate::Arrives,
            }
        });
        let enough = history.written() + 20;
        while history.written() < enough {
            rt.sleep(cluster.config.heartbeat_interval).await;
        }
        cluster.faults.heal();
        cluster.network.heal();
        if round % 3 == 1 {
            cluster.restart(leader).await;
            history.handles.borrow_mut().insert(leader, cluster.raft(leader));
        }
    }
    history.stopped.set(true);
    for client in clients {
        client.await.expect("what it was told holds");
    }
    cluster.leader().await;
    let journal = cluster.journal(1).await;
    for id in 2..=3 {
        assert!(cluster.journal(id).await == journal, "the journals of 1 and {id} differ");
    }
    let outcomes = history.outcomes.borrow();
    for (line, outcome) in &*outcomes {
        let mut positions = (1..).zip(&journal).filter(|(_, other)| *other == line);
        let positions: Vec<usize> = positions.by_ref().map(|(position, _)| position).collect();
        let holds = match outcome {
            Outcome::Written(position) => positions == [*position],
            Outcome::Refused => positions.is_empty(),
            Outcome::Unknown => positions.len() <= 1,
        };
        assert!(holds, "{line} was {outcome:?} and is at {positions:?}");
    }
    assert!(journal.iter().all(|line| outcomes.contains_key(line)));
    assert!(history.reads.get() > 0);
}

/// Each comes twice, and once more when others have overtaken it.
async fn a_forward_takes_effect_once_however_often_it_comes<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader % 3 + 1);
    let forwards = Cell::new(0u32);
    cluster.faults.set(move |message| match message.body {
        Body::Forward { .. } => {
            forwards.set(forwards.get() + 1);
            if forwards.get().is_multiple_of(2) { Fate::Late(2) } else { Fate::ArrivesTwice }
        }
        Body::ForwardReply { .. } => Fate::ArrivesTwice,
        _ => Fate::Arrives,
    });
    let mut written = Vec::new();
    for n in 0..50 {
        let line = format!("{n}");
        match raft.write(line.clone()).await {
            Ok(_) => written.push(line),
            Err(WriteError::Unknown | WriteError::NotLeader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!written.is_empty());
    cluster.faults.heal();
    cluster.leader().await;
    let mut journal = cluster.journal(leader).await;
    assert!(written.iter().all(|line| journal.contains(line)), "an acknowledged write is lost");
    let all = journal.len();
    journal.sort();
    journal.dedup();
    assert_eq!(journal.len(), all, "one took effect twice");
}
