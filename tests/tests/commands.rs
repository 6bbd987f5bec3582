//! Commands that can't be read back from their bytes: they get no place in any log, whoever
//! proposes them, and disturb nobody.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use quorate::{
    At, Command, Compact, Executor, LocalNetwork, LocalRaft, MemStore, NodeId, StateMachine,
    WriteError,
};
use quorate_tests::{Single, on_each_runtime, quick, wait_for};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    the_leader_refuses_what_it_cannot_read,
    a_follower_hears_which_of_its_writes_the_leader_cannot_read,
    a_leader_decodes_each_command_once,
    a_command_sees_its_place_which_is_the_same_on_each_node,
    tagged_commands_and_sparse_states_outlive_the_log,
    a_compact_command_that_serde_cannot_read_back_is_refused,
);

thread_local! {
    static DECODED: Cell<usize> = const { Cell::new(0) };
}

/// Its bytes are its text, and some can't be read.
#[derive(Debug)]
struct Line(String);

const UNREADABLE: &str = "unreadable";

impl Command for Line {
    fn encode(self) -> Result<Bytes, String> {
        Ok(Bytes::from(self.0))
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        DECODED.set(DECODED.get() + 1);
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())?;
        match text.starts_with(UNREADABLE) {
            true => Err(format!("{text:?} is no line")),
            false => Ok(Self(text)),
        }
    }
}

fn line(text: &str) -> Line {
    Line(text.to_owned())
}

#[derive(Default, Serialize, Deserialize)]
struct Lines(Vec<String>);

impl StateMachine for Lines {
    type Command = Line;
    type Response = usize;

    async fn apply(&mut self, Line(text): Line, _: At) -> usize {
        self.0.push(text);
        self.0.len()
    }
}

async fn start<R: Executor, SM: StateMachine + Default>(
    rt: &R,
    id: NodeId,
    network: &LocalNetwork,
    store: &MemStore,
) -> Single<SM> {
    Single::start(rt, id, quick(), store.clone(), network.transport(), SM::default())
        .await
        .expect("starts")
}

/// Nodes 1 to 3, formed into a cluster; the leader first.
async fn formed<R: Executor, SM: StateMachine + Default>(rt: &R) -> Vec<Single<SM>> {
    let network = LocalNetwork::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(rt, id, &network, &MemStore::new()).await);
    }
    let members: BTreeMap<NodeId, String> = (1..=3).map(|id| (id, format!("node-{id}"))).collect();
    nodes[0].local().initialize(members).await.expect("forms");
    for node in &nodes {
        node.local().read(|_| ()).await.expect("reads");
    }
    let leader = wait_for(&mut nodes[0].local().metrics(), |m| m.leader.is_some()).await.leader;
    nodes.sort_by_key(|node| Some(node.local().id()) != leader);
    nodes
}

async fn lines(raft: &LocalRaft<Lines>) -> Vec<String> {
    raft.read(|lines| lines.0.clone()).await.expect("reads")
}

fn reason<T>(write: Result<T, WriteError>) -> String {
    match write {
        Err(WriteError::Command(reason)) => reason,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was applied"),
    }
}

async fn the_leader_refuses_what_it_cannot_read<R: Executor>(rt: R) {
    let nodes = formed::<R, Lines>(&rt).await;
    let leader = nodes[0].local();
    let before = leader.metrics().borrow().last_log_id;
    // On the node's thread and from any.
    let refused = leader.write(line(UNREADABLE)).await;
    assert_eq!(reason(refused), "\"unreadable\" is no line");
    assert_eq!(reason(nodes[0].raft().write(line(UNREADABLE)).await), "\"unreadable\" is no line");
    assert_eq!(leader.metrics().borrow().last_log_id, before, "it has got no log id");
    // Between others, in one turn: these keep their order.
    let texts = ["a", UNREADABLE, UNREADABLE, "b", "c", UNREADABLE];
    let writes = join_all(texts.map(|text| leader.write(line(text)))).await;
    let answers: Vec<_> = writes.into_iter().map(Result::ok).collect();
    assert_eq!(answers, [Some(1), None, None, Some(2), Some(3), None]);
    for node in &nodes {
        assert_eq!(lines(&node.local()).await, ["a", "b", "c"]);
    }
}

async fn a_follower_hears_which_of_its_writes_the_leader_cannot_read<R: Executor>(rt: R) {
    let nodes = formed::<R, Lines>(&rt).await;
    let follower = nodes[1].local();
    let before = nodes[0].local().metrics().borrow().last_log_id;
    assert_eq!(reason(follower.write(line(UNREADABLE)).await), "\"unreadable\" is no line");
    assert_eq!(nodes[0].local().metrics().borrow().last_log_id, before, "it has got no log id");
    let texts = ["a", "unreadable 1", "b", "unreadable 2", "unreadable 3", "c"];
    let writes = join_all(texts.map(|text| follower.write(line(text)))).await;
    for (text, write) in texts.into_iter().zip(writes) {
        match text.strip_prefix(UNREADABLE) {
            Some(_) => assert_eq!(reason(write), format!("{text:?} is no line")),
            None => assert!(write.is_ok(), "{write:?}"),
        }
    }
    // However many there are, and however long their reasons: the answer stays small.
    let many = (0..100).map(|n| follower.write(line(&format!("{UNREADABLE} {n} {:600}", ""))));
    for write in join_all(many).await {
        let reason = reason(write);
        assert!(reason.len() <= 256, "{reason}");
    }
    for node in &nodes {
        assert_eq!(lines(&node.local()).await, ["a", "b", "c"]);
    }
}

async fn a_leader_decodes_each_command_once<R: Executor>(rt: R) {
    let (network, store) = (LocalNetwork::new(), MemStore::new());
    let node = start::<R, Lines>(&rt, 1, &network, &store).await;
    let raft = node.local();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    raft.write(line("first")).await.expect("writes");
    DECODED.set(0);
    for _ in 0..10 {
        let writes = join_all((0..100).map(|n| raft.write(line(&n.to_string())))).await;
        assert!(writes.iter().all(Result::is_ok));
    }
    assert_eq!(DECODED.get(), 1000);
    drop(node);
    // What it led with is gone: from the log all are decoded again, once.
    DECODED.set(0);
    let node = start::<R, Lines>(&rt, 1, &network, &store).await;
    assert_eq!(lines(&node.local()).await.len(), 1001);
    assert_eq!(DECODED.get(), 1001);
}

/// Notes where each command stands: term, leader, index and time.
#[derive(Default, Serialize, Deserialize)]
struct Places(Vec<(u64, NodeId, u64, u64)>);

impl StateMachine for Places {
    type Command = ();
    type Response = usize;

    async fn apply(&mut self, (): (), at: At) -> usize {
        let At { log_id, time, .. } = at;
        self.0.push((log_id.term.0, log_id.leader, log_id.index, time));
        self.0.len()
    }
}

async fn a_command_sees_its_place_which_is_the_same_on_each_node<R: Executor>(rt: R) {
    let nodes = formed::<R, Places>(&rt).await;
    let begun = rt.wall_clock();
    let mut told = Vec::new();
    for (position, node) in nodes.iter().enumerate() {
        let writes = join_all((0..5).map(|_| node.local().write_with_log_id(()))).await;
        told.extend(writes.into_iter().map(|write| write.expect("writes")));
        let shared = node.raft().write_with_log_id(()).await.expect("writes");
        assert_eq!(shared.1, 6 * (position + 1), "the response comes with it");
        told.push(shared);
    }
    told.sort();
    let places = nodes[0].local().read(|places| places.0.clone()).await.expect("reads");
    assert_eq!(places.len(), told.len());
    for ((log_id, _), (term, leader, index, _)) in told.iter().zip(&places) {
        assert_eq!((log_id.term.0, log_id.leader, log_id.index), (*term, *leader, *index));
    }
    assert!(places.iter().map(|place| place.3).is_sorted());
    let now = rt.wall_clock();
    assert!(places.iter().all(|place| (begun - 1..=now).contains(&place.3)), "{places:?}");
    for node in &nodes[1..] {
        let same = node.local().read(|places| places.0.clone()).await.expect("reads");
        assert_eq!(same, places);
    }
}

/// What postcard wrote and could not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tagged {
    Set { key: String, value: Option<u64> },
    Clear,
}

#[derive(Default, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, Option<u64>>,
    applied: u64,
}

impl StateMachine for Sparse {
    type Command = Tagged;
    type Response = u64;

    async fn apply(&mut self, command: Tagged, _: At) -> u64 {
        match command {
            Tagged::Set { key, value } => {
                self.values.insert(key, value);
            }
            Tagged::Clear => self.values.clear(),
        }
        self.applied += 1;
        self.applied
    }
}

async fn tagged_commands_and_sparse_states_outlive_the_log<R: Executor>(rt: R) {
    let (network, store) = (LocalNetwork::new(), MemStore::new());
    let node = start::<R, Sparse>(&rt, 1, &network, &store).await;
    let raft = node.local();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    let set = Tagged::Set { key: "a".to_owned(), value: None };
    assert_eq!(raft.write(set.clone()).await.expect("writes"), 1);
    assert_eq!(raft.write(Tagged::Clear).await.expect("writes"), 2);
    raft.snapshot().await.expect("is taken");
    raft.purge().await.expect("purges");
    node.shutdown().await.expect("stops");
    let node = start::<R, Sparse>(&rt, 1, &network, &store).await;
    assert_eq!(node.local().write(set).await.expect("writes"), 3);
    node.shutdown().await.expect("stops");
    let node = start::<R, Sparse>(&rt, 1, &network, &store).await;
    assert_eq!(node.local().read(|state| state.values.len()).await.expect("reads"), 1);
}

#[derive(Default, Serialize, Deserialize)]
struct Count(u64);

impl StateMachine for Count {
    type Command = Compact<Tagged>;
    type Response = u64;

    async fn apply(&mut self, _: Compact<Tagged>, _: At) -> u64 {
        self.0 += 1;
        self.0
    }
}

async fn a_compact_command_that_serde_cannot_read_back_is_refused<R: Executor>(rt: R) {
    let nodes = formed::<R, Count>(&rt).await;
    for node in &nodes {
        let write = node.local().write(Compact(Tagged::Clear)).await;
        assert!(matches!(write, Err(WriteError::Command(_))), "{write:?}");
    }
    for node in &nodes {
        assert_eq!(node.local().read(|count| count.0).await.expect("runs"), 0);
    }
}
