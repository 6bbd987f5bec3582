//! Clients that write and read, and note what they were told.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use quorate::sim::Sim;
use quorate::{Executor, LocalRaft, NodeId, Raft, ReadError, WriteError};

use crate::simulate::cluster::{Cluster, Phase};
use crate::simulate::history::{Answer, What};
use crate::simulate::ledger::{Ledger, Put, Register, UNREADABLE_KEY};
use crate::simulate::observer::now;

/// How long a client waits when there is no node to ask, or that is busy.
const RESTS: Duration = Duration::from_millis(50);

/// How often a client also writes what can't be read.
const UNREADABLE: f64 = 0.02;

/// The most writes of one client at once.
const BATCH: u64 = 8;

/// One of the two handles.
enum Handle {
    Shared(Raft<Ledger>),
    Local(LocalRaft<Ledger>),
}

impl Handle {
    async fn put(&self, put: Put) -> Result<Register, WriteError> {
        match self {
            Self::Shared(raft) => raft.write(put).await,
            Self::Local(raft) => raft.write(put).await,
        }
    }

    async fn get(&self, key: u64) -> Result<Register, ReadError> {
        match self {
            Self::Shared(raft) => raft.read(move |ledger| ledger.get(key)).await,
            Self::Local(raft) => raft.read(move |ledger| ledger.get(key)).await,
        }
    }
}

/// A question that was noted. If it is dropped, it has no answer.
struct Asked<'a> {
    cluster: &'a Cluster,
    number: usize,
    answer: Answer,
}

impl<'a> Asked<'a> {
    fn new(cluster: &'a Cluster, key: u64, what: What) -> Self {
        let number = cluster.observer.history.borrow_mut().ask(now(), key, what);
        Self { cluster, number, answer: Answer::Unknown }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.cluster.observer.history.borrow_mut().answer(now(), self.number, self.answer);
    }
}

/// A client outside of all nodes. It asks one for a while, and then another.
pub async fn outside(cluster: Rc<Cluster>, rt: Sim, _number: u64) {
    let draw = &cluster.workload;
    let ids = cluster.ids();
    let mut node = *draw.choose(&ids);
    while cluster.is_forming() {
        rt.sleep(RESTS).await;
    }
    while cluster.phase() != Phase::Ending {
        if draw.chance(0.2) {
            node = *draw.choose(&ids);
        }
        let went_well = match cluster.raft(node) {
            Some(raft) => ask(&cluster, &Handle::Shared(raft)).await,
            None => false,
        };
        pause(&cluster, &rt, went_well).await;
        if !went_well {
            node = *draw.choose(&ids);
        }
    }
}

/// A client in the process of a node.
pub async fn inside(
    cluster: Rc<Cluster>,
    rt: Sim,
    _node: NodeId,
    local: LocalRaft<Ledger>,
    _number: u64,
) {
    let handle = Handle::Local(local);
    while cluster.is_forming() {
        rt.sleep(RESTS).await;
    }
    while cluster.phase() != Phase::Ending {
        let went_well = ask(&cluster, &handle).await;
        pause(&cluster, &rt, went_well).await;
    }
}

async fn pause(cluster: &Cluster, rt: &Sim, went_well: bool) {
    let pause = cluster.workload.duration(&(Duration::ZERO..cluster.plan.load.pause));
    rt.sleep(if went_well { pause } else { pause.max(RESTS) }).await;
    while cluster.phase() == Phase::Lull {
        rt.sleep(RESTS).await;
    }
}

/// Whether there was an answer other than a refusal.
async fn ask(cluster: &Cluster, handle: &Handle) -> bool {
    let (draw, load) = (&cluster.workload, &cluster.plan.load);
    if draw.chance(UNREADABLE) {
        write_unreadable(cluster, handle).await;
    }
    if draw.chance(load.reads) {
        return read(cluster, handle, draw.below(load.keys)).await != Answer::Refused;
    }
    let count = if draw.chance(load.batches) { 2 + draw.below(BATCH - 1) } else { 1 };
    let writes = (0..count).map(|_| write(cluster, handle, draw.below(load.keys)));
    let answers = join_all(writes.collect::<Vec<_>>()).await;
    answers.into_iter().all(|answer| answer != Answer::Refused)
}

/// Writes a new value to a register, and notes what came of it.
async fn write(cluster: &Cluster, handle: &Handle, key: u64) -> Answer {
    write_padded(cluster, handle, key, padding_bytes(cluster)).await
}

async fn write_padded(cluster: &Cluster, handle: &Handle, key: u64, bytes: usize) -> Answer {
    let value = cluster.observer.history.borrow_mut().new_value();
    let put = Put { key, value, padding: Bytes::from(vec![value as u8; bytes]) };
    let mut asked = Asked::new(cluster, key, What::Write(value));
    asked.answer = match handle.put(put).await {
        Ok(register) => Answer::Done(register),
        Err(WriteError::Unknown) => Answer::Unknown,
        // In each of these it has had no effect and will have none.
        Err(
            WriteError::NotLeader { .. }
            | WriteError::Busy
            | WriteError::StorageFull
            | WriteError::Shutdown
            | WriteError::Fatal(_),
        ) => Answer::Refused,
        Err(error @ WriteError::Command(_)) => {
            let verdict = Err(format!("a command is refused: {error}"));
            cluster.observer.accuse("clients", verdict, now());
            Answer::Refused
        }
    };
    cluster.count(match asked.answer {
        Answer::Done(_) => "written",
        Answer::Unknown => "write of unknown outcome",
        Answer::Refused => "write refused",
    });
    asked.answer
}

/// Writes what no node can read. It must have no effect, and do no harm to what is written at the
/// same time.
async fn write_unreadable(cluster: &Cluster, handle: &Handle) {
    let value = cluster.observer.history.borrow_mut().new_value();
    let put = Put { key: UNREADABLE_KEY, value, padding: Bytes::new() };
    match handle.put(put).await {
        Err(WriteError::Command(_)) => cluster.count("unreadable write refused"),
        Err(_) => {}
        Ok(_) => {
            let verdict = Err("a write that nobody can read was applied".to_owned());
            cluster.observer.accuse("clients", verdict, now());
        }
    }
}

/// Reads a register, and notes what was seen.
async fn read(cluster: &Cluster, handle: &Handle, key: u64) -> Answer {
    let mut asked = Asked::new(cluster, key, What::Read);
    asked.answer = match handle.get(key).await {
        Ok(register) => Answer::Done(register),
        Err(_) => Answer::Refused,
    };
    cluster.count(if asked.answer == Answer::Refused { "read refused" } else { "read" });
    asked.answer
}

/// The size of a value's content, as the plan wants it.
fn padding_bytes(cluster: &Cluster) -> usize {
    let (draw, load) = (&cluster.workload, &cluster.plan.load);
    match draw.chance(load.large) {
        true => most_padding_bytes(cluster),
        false => (draw.within(&load.value_bytes) as usize).min(most_padding_bytes(cluster)),
    }
}

fn most_padding_bytes(cluster: &Cluster) -> usize {
    cluster.plan.config.max_command_bytes - 16
}

/// Writes so often through a node, all at once.
pub async fn write_many(cluster: &Cluster, node: NodeId, count: usize) {
    let Some(raft) = cluster.raft(node) else { return };
    let (handle, load) = (Handle::Shared(raft), &cluster.plan.load);
    let writes = (0..count).map(|_| write(cluster, &handle, cluster.workload.below(load.keys)));
    join_all(writes.collect::<Vec<_>>()).await;
}

/// Writes so often through a node, all at once, values that are as large as may be. Gives of how
/// many nobody knows what became of them.
pub async fn write_many_large(cluster: &Cluster, node: NodeId, count: usize) -> usize {
    let Some(raft) = cluster.raft(node) else { return 0 };
    let (handle, load) = (Handle::Shared(raft), &cluster.plan.load);
    let bytes = most_padding_bytes(cluster);
    let key = || cluster.workload.below(load.keys);
    let writes = (0..count).map(|_| write_padded(cluster, &handle, key(), bytes));
    let answers = join_all(writes.collect::<Vec<_>>()).await;
    answers.into_iter().filter(|answer| *answer == Answer::Unknown).count()
}

/// Writes so often through a node, one after the other, values that are as large as may be.
pub async fn write_large(cluster: &Cluster, node: NodeId, count: usize) {
    for _ in 0..count {
        let Some(raft) = cluster.raft(node) else { return };
        let (handle, key) = (Handle::Shared(raft), cluster.workload.below(cluster.plan.load.keys));
        write_padded(cluster, &handle, key, most_padding_bytes(cluster)).await;
    }
}

/// Writes through one node, and reads just that through another.
pub async fn write_and_read(cluster: &Cluster, writer: NodeId, reader: NodeId) {
    let key = cluster.workload.below(cluster.plan.load.keys);
    let (Some(writer), Some(reader)) = (cluster.raft(writer), cluster.raft(reader)) else { return };
    write(cluster, &Handle::Shared(writer), key).await;
    read(cluster, &Handle::Shared(reader), key).await;
}

/// Whether a node answers a write and a read.
pub async fn is_served_by(cluster: &Cluster, node: NodeId) -> bool {
    let Some(raft) = cluster.raft(node) else { return false };
    let (handle, key) = (Handle::Shared(raft), cluster.workload.below(cluster.plan.load.keys));
    let written = write(cluster, &handle, key).await;
    let seen = read(cluster, &handle, key).await;
    [written, seen].iter().all(|answer| matches!(answer, Answer::Done(_)))
}
