//! openraft, with a store, a network and a state machine that cost it as little as they can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{Stream, TryStreamExt};
use openraft::alias::{
    CommittedLeaderIdOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::OneshotResponder;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::{Config, EmptyNode, EntryPayload, Snapshot, SnapshotMeta, StoredMembership};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;

use super::Work;
use super::clients;
use crate::closed_loop::Client;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Command;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Response;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Command;
    type R = Response;
    type NodeId = u64;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, EmptyNode>;
    type Entry = openraft::Entry<CommittedLeaderIdOf<Self>, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type Raft = openraft::Raft<Types, Nothing>;
type Entry = openraft::alias::EntryOf<Types>;

/// Three nodes on a runtime of so many threads, the clients on another.
pub(super) fn run(workers: usize, work: Work) -> Result<Vec<f64>> {
    let server = Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let network = Network::default();
    let leader = server.block_on(start(&network))?;
    let figures = clients::shared(work, |runtime, load, number| {
        runtime.spawn(load.client(number, Writer { raft: leader.clone(), batch: work.batch }))
    });
    server.block_on(network.stop());
    figures
}

async fn start(network: &Network) -> Result<Raft> {
    // As in openraft's own benchmark of this workload, but for the timeouts (200 and 2000 there): a
    // machine that is busy for a moment is no reason to elect another leader, whom the clients
    // would have to look for.
    let config = Config {
        election_timeout_min: 5_000,
        election_timeout_max: 10_000,
        purge_batch_size: 1024,
        max_payload_entries: 1024,
        ..Config::default()
    };
    let config = Arc::new(config.validate()?);
    for id in NODES {
        let (log, state) = (Log::default(), Nothing::default());
        let raft = Raft::new(id, Arc::clone(&config), network.clone(), log, state).await?;
        lock(&network.nodes).insert(id, raft);
    }
    let leader = network.node(NODES[0]).context("it has just been added")?;
    leader.initialize(BTreeSet::from(NODES)).await?;
    let time = Some(Duration::from_secs(10));
    leader.wait(time).current_leader(NODES[0], "it has formed the cluster").await?;
    Ok(leader)
}

const NODES: [u64; 3] = [1, 2, 3];

struct Writer {
    raft: Raft,
    batch: usize,
}

impl Client for Writer {
    async fn request(&mut self) -> Result<u64> {
        if self.batch == 1 {
            self.raft.client_write(Command).await?;
            return Ok(1);
        }
        let commands = (0..self.batch).map(|_| Command);
        let mut answers = self.raft.client_write_many(commands).await?;
        let mut answered = 0;
        while let Some(answer) = answers.try_next().await? {
            answer?;
            answered += 1;
        }
        Ok(answered)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls the nodes by name.
#[derive(Clone, Default)]
struct Network {
    nodes: Arc<Mutex<BTreeMap<u64, Raft>>>,
}

impl Network {
    fn node(&self, id: u64) -> Option<Raft> {
        lock(&self.nodes).get(&id).cloned()
    }

    async fn stop(&self) {
        let nodes = std::mem::take(&mut *lock(&self.nodes));
        for raft in nodes.into_values() {
            let _ = raft.shutdown().await;
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Connection {
        Connection { to: self.node(target) }
    }
}

struct Connection {
    to: Option<Raft>,
}

impl Connection {
    fn to(&self) -> Result<&Raft, RPCError<Types>> {
        self.to.as_ref().ok_or_else(|| unreachable(&"it is not there"))
    }
}

fn unreachable(error: &impl fmt::Display) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&io::Error::other(error.to_string())))
}

impl RaftNetworkV2<Types> for Connection {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.to()?.append_entries(request).await.map_err(|error| unreachable(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.to()?.vote(request).await.map_err(|error| unreachable(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let installed = self.to()?.install_full_snapshot(vote, snapshot).await;
        Ok(installed.map_err(|error| unreachable(&error))?)
    }
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    vote: Option<VoteOf<Types>>,
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogIdOf<Types>>,
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + fmt::Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(lock(&self.0).entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(lock(&self.0).vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let stored = lock(&self.0);
        let last = stored.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: stored.purged, last_log_id: last.or(stored.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries.into_iter().map(|entry| (entry.log_id.index, entry));
        lock(&self.0).entries.extend(entries);
        done.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        lock(&self.0).entries.split_off(&last.map_or(0, |last| last.index + 1));
        Ok(())
    }

    async fn purge(&mut self, to: LogIdOf<Types>) -> io::Result<()> {
        let mut stored = lock(&self.0);
        stored.entries = stored.entries.split_off(&(to.index + 1));
        stored.purged = Some(to);
        Ok(())
    }
}

/// A state machine without state.
#[derive(Clone, Default)]
struct Nothing {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Nothing {
    fn meta(&self) -> SnapshotMetaOf<Types> {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

impl RaftSnapshotBuilder<Types> for Nothing {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, ()>> {
        Ok(Snapshot { meta: self.meta(), snapshot: () })
    }
}

impl RaftStateMachine<Types> for Nothing {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, (): ()) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, ()>>> {
        Ok(self.applied.is_some().then(|| Snapshot { meta: self.meta(), snapshot: () }))
    }
}
