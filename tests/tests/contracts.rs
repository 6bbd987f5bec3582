//! What a node does about a store or a state machine that doesn't do what it must: it stops, and
//! says of nothing that it is applied.

use bytes::Bytes;
use quorate::{
    At, Command, Config, ConfigError, Executor, Fatal, LocalNetwork, MemStore, NodeId, Role,
    StartError, StateMachine, StoreError, WriteError,
};
use quorate_tests::{
    Cluster, Disk, FaultyStore, Journal, Single, on_each_runtime, quick, wait_for,
};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    what_cannot_work_is_not_started,
    a_log_that_cannot_be_read_stops_its_node,
    a_log_that_answers_nothing_or_something_else_stops_its_node,
    a_state_machine_that_leaves_a_command_unanswered_stops_its_node,
);

async fn what_cannot_work_is_not_started<R: Executor>(rt: R) {
    let start = async |id: NodeId, config: Config| {
        Single::start(
            &rt,
            id,
            config,
            MemStore::new(),
            LocalNetwork::new().transport(),
            Journal::default(),
        )
        .await
        .map(|_| ())
    };
    let nobody = start(0, quick()).await;
    assert!(matches!(nobody, Err(StartError::NodeId)), "{nobody:?}");
    let useless = Config { max_command_bytes: 0, ..quick() };
    let useless = start(1, useless).await;
    let field = |error: &_| match error {
        StartError::Config(ConfigError { field, .. }) => Some(*field),
        _ => None,
    };
    assert_eq!(useless.as_ref().err().and_then(field), Some("max_command_bytes"), "{useless:?}");
}

/// The cause of the end of a node that finds its log like this when something is to be applied.
async fn end_with<R: Executor>(rt: &R, disk: Disk) -> Fatal {
    let cluster = Cluster::<R, FaultyStore>::formed_on(rt, 1, quick()).await;
    let raft = cluster.raft(1);
    raft.write("a".to_owned()).await.expect("writes");
    let before = raft.metrics().borrow().applied;
    cluster.stores[&1].set(disk);
    let write = raft.write("b".to_owned()).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{disk:?}: {write:?}");
    let cause = cluster.node(1).stopped().await.expect_err("it can't go on");
    assert_eq!(raft.metrics().borrow().applied, before, "{disk:?}");
    cause
}

async fn a_log_that_cannot_be_read_stops_its_node<R: Executor>(rt: R) {
    let cause = end_with(&rt, Disk::FailsReads).await;
    assert!(matches!(cause, Fatal::Store(StoreError::Io { .. })), "{cause:?}");
}

async fn a_log_that_answers_nothing_or_something_else_stops_its_node<R: Executor>(rt: R) {
    let cause = end_with(&rt, Disk::AnswersNothing).await;
    assert!(matches!(&cause, Fatal::Bug(bug) if bug.contains("no entry and no error")), "{cause}");
    let cause = end_with(&rt, Disk::ReadsTooEarly).await;
    assert!(matches!(&cause, Fatal::Bug(bug) if bug.contains("another entry")), "{cause}");
}

/// A line that may be left unanswered.
struct Line(&'static str);

const UNANSWERED: &str = "unanswered";

impl Command for Line {
    fn encode(self) -> Result<Bytes, String> {
        Ok(Bytes::from_static(self.0.as_bytes()))
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        match &bytes[..] {
            b"unanswered" => Ok(Self(UNANSWERED)),
            _ => Ok(Self("another")),
        }
    }
}

/// Counts commands, and leaves some unanswered.
#[derive(Default, Serialize, Deserialize)]
struct Counter(usize);

impl StateMachine for Counter {
    type Command = Line;
    type Response = usize;

    async fn apply(&mut self, _: Line, _: At) -> usize {
        self.0 += 1;
        self.0
    }

    async fn apply_batch(&mut self, commands: Vec<(Line, At)>) -> Vec<usize> {
        let mut responses = Vec::new();
        for (command, at) in commands {
            if command.0 != UNANSWERED {
                responses.push(self.apply(command, at).await);
            }
        }
        responses
    }
}

async fn a_state_machine_that_leaves_a_command_unanswered_stops_its_node<R: Executor>(rt: R) {
    let node = Single::start(
        &rt,
        1,
        quick(),
        MemStore::new(),
        LocalNetwork::new().transport(),
        Counter::default(),
    )
    .await
    .expect("starts");
    let raft = node.raft();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    wait_for(&mut raft.metrics(), |metrics| metrics.role == Role::Leader).await;
    assert_eq!(raft.write(Line("readable")).await.expect("writes"), 1);
    let write = raft.write(Line(UNANSWERED)).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "it is committed: {write:?}");
    let cause = node.stopped().await.expect_err("it can't go on");
    assert_eq!(raft.metrics().borrow().applied, 3);
    let Fatal::Bug(bug) = cause else { panic!("{cause}") };
    assert_eq!(bug, "1 commands were applied, 0 answered");
}
