//! Programs of two versions: which changes of a command's or a state's type a cluster takes while
//! it runs, and what becomes of the others. All of it is by the default encoding.

use std::fmt::Debug;
use std::marker::PhantomData;

use quorate::{
    At, Command, Compact, Config, Executor, Fatal, LocalNetwork, LocalRaft, LogId, MemStore,
    NodeId, StateMachine, WriteError,
};
use quorate_tests::{Single, calm, on_each_runtime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

on_each_runtime!(
    a_new_program_reads_the_log_of_the_old_one,
    a_log_that_a_new_program_cannot_read_ends_its_group_and_stays_whole,
    a_new_program_reads_the_snapshot_of_the_old_one,
    a_snapshot_that_a_new_program_cannot_read_ends_its_group_and_stays_whole,
    compact_commands_may_not_change,
    programs_of_two_versions_serve_together,
    an_old_leader_refuses_what_only_new_programs_know,
    an_old_follower_stops_at_what_only_new_programs_know,
    an_old_follower_takes_a_snapshot_with_fields_that_it_does_not_know,
    an_old_follower_stops_at_a_snapshot_that_it_cannot_read,
);

/// What a state is.
trait Data: Serialize + DeserializeOwned + Debug + 'static {}

impl<T: Serialize + DeserializeOwned + Debug + 'static> Data for T {}

/// Keeps what it has read of each command.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Reader<C> {
    read: Vec<String>,
    #[serde(skip)]
    command: PhantomData<C>,
}

impl<C> Default for Reader<C> {
    fn default() -> Self {
        Self { read: Vec::new(), command: PhantomData }
    }
}

impl<C: Command + Debug> StateMachine for Reader<C> {
    type Command = C;
    type Response = usize;

    async fn apply(&mut self, command: C, _: At) -> usize {
        self.read.push(format!("{command:?}"));
        self.read.len()
    }
}

/// Keeps its state as it is.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Keeper<S: Data>(S);

impl<S: Data> StateMachine for Keeper<S> {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
}

/// The only node of its cluster.
async fn alone<R: Executor, SM: StateMachine>(rt: &R, store: &MemStore, state: SM) -> Single<SM> {
    let transport = LocalNetwork::new().transport();
    Single::start(rt, 1, calm(), store.clone(), transport, state).await.expect("starts")
}

async fn formed_alone<R: Executor, SM: StateMachine>(
    rt: &R,
    store: &MemStore,
    state: SM,
) -> Single<SM> {
    let node = alone(rt, store, state).await;
    node.local().initialize([(1, "node-1")]).await.expect("forms");
    node
}

/// What is read of it, or why the group has ended.
async fn seen<SM: StateMachine>(
    node: &Single<SM>,
    read: impl FnOnce(&SM) -> Vec<String> + 'static,
) -> Result<Vec<String>, Fatal> {
    match node.local().read(read).await {
        Ok(seen) => Ok(seen),
        Err(_) => Err(node.stopped().await.expect_err("it has ended")),
    }
}

/// What a program with the command `New` reads of a log that one with `Old` has written.
async fn log_read<R: Executor, Old: Command + Debug, New: Command + Debug>(
    rt: &R,
    commands: impl IntoIterator<Item = Old>,
) -> Result<Vec<String>, Fatal> {
    let store = MemStore::new();
    let old = formed_alone(rt, &store, Reader::default()).await;
    let mut count = 0;
    for command in commands {
        old.local().write(command).await.expect("writes");
        count += 1;
    }
    old.shutdown().await.expect("stops");
    let new = alone(rt, &store, Reader::<New>::default()).await;
    let read = seen(&new, |reader| reader.read.clone()).await;
    if read.is_err() {
        // The log is as it was: the old program goes on with it.
        drop(new);
        let old = alone(rt, &store, Reader::<Old>::default()).await;
        assert_eq!(seen(&old, |reader| reader.read.clone()).await.expect("reads").len(), count);
    }
    read
}

/// What a program with the state `New` restores of a snapshot that one with `Old` has written.
async fn snapshot_read<R: Executor, Old: Data + Clone, New: Data + Default>(
    rt: &R,
    state: Old,
) -> Result<String, Fatal> {
    let store = MemStore::new();
    let old = formed_alone(rt, &store, Keeper(state.clone())).await;
    old.local().write(()).await.expect("writes");
    old.local().snapshot().await.expect("is taken");
    old.local().purge().await.expect("purges");
    old.shutdown().await.expect("stops");
    let shown = |keeper: &Keeper<New>| vec![format!("{:?}", keeper.0)];
    let new = alone(rt, &store, Keeper(New::default())).await;
    let read = seen(&new, shown).await;
    if read.is_err() {
        drop(new);
        let old = alone(rt, &store, Keeper(state.clone())).await;
        let shown = |keeper: &Keeper<Old>| vec![format!("{:?}", keeper.0)];
        assert_eq!(seen(&old, shown).await.expect("restores"), [format!("{state:?}")]);
    }
    read.map(|shown| shown.concat())
}

/// The first version of the commands.
mod old {
    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(super) enum Command {
        Add { key: String, by: u8 },
        Clear,
    }

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub(super) struct State {
        pub(super) keys: Vec<String>,
        pub(super) total: u8,
    }
}

/// A later one, with all changes that are possible beside the first one.
mod new {
    use super::*;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(super) enum Command {
        /// A new variant, in front.
        Double,
        /// A renamed one.
        #[serde(rename = "Clear")]
        Reset,
        Add {
            /// A new field, in front.
            #[serde(default)]
            note: Option<String>,
            /// A renamed one of a wider type.
            #[serde(rename = "by")]
            amount: u64,
            key: String,
        },
    }

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub(super) struct State {
        #[serde(default)]
        pub(super) doubled: u64,
        #[serde(rename = "total")]
        pub(super) sum: u64,
        pub(super) keys: Vec<String>,
    }
}

fn add(by: u8) -> old::Command {
    old::Command::Add { key: "k".to_owned(), by }
}

async fn a_new_program_reads_the_log_of_the_old_one<R: Executor>(rt: R) {
    let read = log_read::<_, _, new::Command>(&rt, [add(1), old::Command::Clear]).await;
    assert_eq!(read.expect("reads"), [r#"Add { note: None, amount: 1, key: "k" }"#, "Reset"]);

    // After all nodes are updated, an alias does as well, and a field may go.
    #[derive(Debug, Serialize, Deserialize)]
    enum Later {
        Add {
            #[serde(alias = "by")]
            amount: u64,
        },
        #[serde(alias = "Clear")]
        Reset,
    }
    let read = log_read::<_, _, Later>(&rt, [add(1), old::Command::Clear]).await;
    assert_eq!(read.expect("reads"), ["Add { amount: 1 }", "Reset"]);
}

/// The reason why a program with the command `New` does not read an old one.
async fn refused<R: Executor, New: Command + Debug>(rt: &R) -> String {
    match log_read::<_, _, New>(rt, [add(1), old::Command::Clear]).await {
        Err(Fatal::Command { index, reason }) => {
            assert!(index > 1, "{index}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

async fn a_log_that_a_new_program_cannot_read_ends_its_group_and_stays_whole<R: Executor>(rt: R) {
    #[derive(Debug, Serialize, Deserialize)]
    enum NewField {
        Add { key: String, by: u8, note: String },
        Clear,
    }
    assert_eq!(refused::<_, NewField>(&rt).await, "missing field `note`");

    #[derive(Debug, Serialize, Deserialize)]
    enum RenamedField {
        Add { key: String, amount: u8 },
        Clear,
    }
    assert_eq!(refused::<_, RenamedField>(&rt).await, "missing field `amount`");

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    enum StrictWithoutField {
        Add { by: u8 },
        Clear,
    }
    let reason = refused::<_, StrictWithoutField>(&rt).await;
    assert_eq!(reason, "unknown field `key`, expected `by`");

    #[derive(Debug, Serialize, Deserialize)]
    enum WithoutVariant {
        Add { key: String, by: u8 },
    }
    let reason = refused::<_, WithoutVariant>(&rt).await;
    assert_eq!(reason, "unknown variant `Clear`, expected `Add`");

    #[derive(Debug, Serialize, Deserialize)]
    enum OtherType {
        Add { key: String, by: String },
        Clear,
    }
    let reason = refused::<_, OtherType>(&rt).await;
    assert_eq!(reason, "invalid type: integer `1`, expected a string");
}

async fn a_new_program_reads_the_snapshot_of_the_old_one<R: Executor>(rt: R) {
    let state = old::State { keys: vec!["k".to_owned()], total: 7 };
    let read = snapshot_read::<_, _, new::State>(&rt, state).await.expect("restores");
    assert_eq!(read, r#"State { doubled: 0, sum: 7, keys: ["k"] }"#);

    // After all nodes are updated.
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Later {
        #[serde(alias = "total")]
        sum: u64,
    }
    let state = old::State { keys: vec!["k".to_owned()], total: 7 };
    let read = snapshot_read::<_, _, Later>(&rt, state).await.expect("restores");
    assert_eq!(read, "Later { sum: 7 }");
}

async fn a_snapshot_that_a_new_program_cannot_read_ends_its_group_and_stays_whole<R: Executor>(
    rt: R,
) {
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct NewField {
        keys: Vec<String>,
        total: u8,
        doubled: u64,
    }
    let read = snapshot_read::<_, _, NewField>(&rt, old::State::default()).await;
    let Err(Fatal::Snapshot { reason, .. }) = read else { panic!("{read:?}") };
    assert!(reason.ends_with("missing field `doubled`"), "{reason}");

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct OtherType {
        keys: String,
        total: u8,
    }
    let read = snapshot_read::<_, _, OtherType>(&rt, old::State::default()).await;
    let Err(Fatal::Snapshot { reason, .. }) = read else { panic!("{read:?}") };
    assert!(reason.ends_with("invalid type: sequence, expected a string"), "{reason}");
}

async fn compact_commands_may_not_change<R: Executor>(rt: R) {
    #[derive(Debug, Serialize, Deserialize)]
    struct Old {
        by: u8,
        times: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Longer {
        by: u8,
        times: u8,
        #[serde(default)]
        note: Option<String>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Reordered {
        times: u8,
        by: u8,
    }
    let old = || [Compact(Old { by: 1, times: 2 })];
    let read = log_read::<_, _, Compact<Longer>>(&rt, old()).await;
    assert!(matches!(read, Err(Fatal::Command { .. })), "a default is of no use: {read:?}");
    let read = log_read::<_, _, Compact<Reordered>>(&rt, old()).await.expect("reads");
    assert_eq!(read, ["Compact(Reordered { times: 1, by: 2 })"], "the wrong command, silently");
}

/// A cluster of three nodes, of which only the first one campaigns, and so leads.
struct Three {
    network: LocalNetwork,
    stores: [MemStore; 3],
}

impl Three {
    fn new() -> Self {
        Self { network: LocalNetwork::new(), stores: Default::default() }
    }

    async fn start<R: Executor, SM: StateMachine>(
        &self,
        rt: &R,
        id: NodeId,
        state: SM,
    ) -> Single<SM> {
        let elections = id == 1;
        let config = Config { elections, retained_bytes: 0, max_retained_bytes: 0, ..calm() };
        let store = self.stores[id as usize - 1].clone();
        Single::start(rt, id, config, store, self.network.transport(), state).await.expect("starts")
    }

    /// Forms the cluster, with the node 1.
    async fn form<SM: StateMachine>(&self, raft: LocalRaft<SM>) {
        let members = [1, 2, 3].map(|id| (id, format!("node-{id}")));
        raft.initialize(members).await.expect("forms");
    }
}

async fn programs_of_two_versions_serve_together<R: Executor>(rt: R) {
    let cluster = Three::new();
    let leader = cluster.start(&rt, 1, Reader::<old::Command>::default()).await;
    let _second = cluster.start(&rt, 2, Reader::<old::Command>::default()).await;
    let updated = cluster.start(&rt, 3, Reader::<new::Command>::default()).await;
    cluster.form(leader.local()).await;
    leader.local().write(add(1)).await.expect("the old one writes");
    let key = "n".to_owned();
    let with_note = new::Command::Add { note: Some("a note".to_owned()), amount: 2, key };
    updated.local().write(with_note).await.expect("the new one writes");
    updated.local().write(new::Command::Reset).await.expect("the new one writes");
    let read = seen(&leader, |reader| reader.read.clone()).await.expect("reads");
    assert_eq!(read, [r#"Add { key: "k", by: 1 }"#, r#"Add { key: "n", by: 2 }"#, "Clear"]);
    let read = seen(&updated, |reader| reader.read.clone()).await.expect("reads");
    let expected = [
        r#"Add { note: None, amount: 1, key: "k" }"#,
        r#"Add { note: Some("a note"), amount: 2, key: "n" }"#,
        "Reset",
    ];
    assert_eq!(read, expected);
}

async fn an_old_leader_refuses_what_only_new_programs_know<R: Executor>(rt: R) {
    let cluster = Three::new();
    let leader = cluster.start(&rt, 1, Reader::<old::Command>::default()).await;
    let _second = cluster.start(&rt, 2, Reader::<old::Command>::default()).await;
    let updated = cluster.start(&rt, 3, Reader::<new::Command>::default()).await;
    cluster.form(leader.local()).await;
    let key = "k".to_owned();
    let too_wide = new::Command::Add { note: None, amount: 256, key };
    for (command, reason) in [
        (new::Command::Double, "unknown variant `Double`, expected `Add` or `Clear`"),
        (too_wide, "invalid value: integer `256`, expected u8"),
    ] {
        let refused = updated.local().write(command).await;
        let Err(WriteError::Command(told)) = refused else { panic!("{refused:?}") };
        assert_eq!(told, reason);
    }
    updated.local().write(new::Command::Reset).await.expect("all go on");
}

async fn an_old_follower_stops_at_what_only_new_programs_know<R: Executor>(rt: R) {
    let cluster = Three::new();
    let leader = cluster.start(&rt, 1, Reader::<new::Command>::default()).await;
    let _second = cluster.start(&rt, 2, Reader::<new::Command>::default()).await;
    let outdated = cluster.start(&rt, 3, Reader::<old::Command>::default()).await;
    cluster.form(leader.local()).await;
    leader.local().write(new::Command::Reset).await.expect("writes");
    let write = leader.local().write_with_log_id(new::Command::Double).await;
    let (LogId { index, .. }, _) = write.expect("the updated majority goes on");
    let ended = outdated.stopped().await;
    let Err(Fatal::Command { index: stopped_at, reason }) = ended else { panic!("{ended:?}") };
    assert_eq!(stopped_at, index);
    assert_eq!(reason, "unknown variant `Double`, expected `Add` or `Clear`");
    // Once it is updated it goes on from its own log.
    drop(outdated);
    let updated = cluster.start(&rt, 3, Reader::<new::Command>::default()).await;
    let read = seen(&updated, |reader| reader.read.clone()).await.expect("reads");
    assert_eq!(read, ["Reset", "Double"]);
}

/// Node 3 runs a program with the state `Old`, and needs the snapshot of a leader with this state.
async fn sent<R: Executor, New: Data + Clone, Old: Data + Default>(
    rt: &R,
    state: New,
) -> Result<Vec<String>, Fatal> {
    let cluster = Three::new();
    let leader = cluster.start(rt, 1, Keeper(state.clone())).await;
    let _second = cluster.start(rt, 2, Keeper(state)).await;
    let outdated = cluster.start(rt, 3, Keeper(Old::default())).await;
    cluster.form(leader.local()).await;
    outdated.local().read(|_| ()).await.expect("has its first entries");
    drop(outdated);
    leader.local().write(()).await.expect("writes");
    leader.local().snapshot().await.expect("is taken");
    leader.local().purge().await.expect("purges");
    let outdated = cluster.start(rt, 3, Keeper(Old::default())).await;
    let read = seen(&outdated, |keeper| vec![format!("{:?}", keeper.0)]).await;
    leader.local().write(()).await.expect("the others go on");
    read
}

async fn an_old_follower_takes_a_snapshot_with_fields_that_it_does_not_know<R: Executor>(rt: R) {
    // It drops these fields. So only commands that all nodes know may have changed them.
    let state = new::State { doubled: 3, sum: 7, keys: vec!["k".to_owned()] };
    let read = sent::<_, _, old::State>(&rt, state).await.expect("restores");
    assert_eq!(read, [r#"State { keys: ["k"], total: 7 }"#]);
}

async fn an_old_follower_stops_at_a_snapshot_that_it_cannot_read<R: Executor>(rt: R) {
    let state = new::State { sum: 256, ..new::State::default() };
    let read = sent::<_, _, old::State>(&rt, state).await;
    let Err(Fatal::Snapshot { reason, .. }) = read else { panic!("{read:?}") };
    assert!(reason.ends_with("invalid value: integer `256`, expected u8"), "{reason}");
}
