//! More requests and events than a group takes in one turn (4,096 of each).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::join_all;
use quorate::rt::yield_now;
use quorate::{
    At, Body, Config, Executor, LocalNetwork, LocalRaft, MemStore, Message, Raft, Replica,
    Snapshot, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine, Term, WriteError,
};
use quorate_tests::{Single, on_each_runtime, quick};

on_each_runtime!(
    a_request_that_comes_between_two_turns_of_a_backlog_is_answered,
    a_slow_state_machine_is_not_lost_behind_a_backlog_of_events,
);

/// More than a turn takes.
const BACKLOG: u32 = 5000;

/// What a command makes the state machine do.
#[derive(Default)]
struct Does {
    /// Write this on its own, by this handle, and leave the outcome here.
    writes: Option<(u32, Raft<Puppet>)>,
    written: Option<Written>,
    /// Wait at these before it goes on with this command.
    gates: Vec<(u32, Gate)>,
}

/// A state machine that has come here says so, and waits.
struct Gate {
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

type Written = std::pin::Pin<Box<dyn Future<Output = Result<u32, WriteError>>>>;

impl Does {
    /// Where it waits.
    fn begin(&mut self, command: u32) -> Option<Gate> {
        if let Some((_, raft)) = self.writes.take_if(|(at, _)| *at == command) {
            self.written = Some(Box::pin(raft.write(BACKLOG)));
        }
        let gate = self.gates.iter().position(|(at, _)| *at == command)?;
        Some(self.gates.remove(gate).1)
    }

    /// A gate at this command: tells when it is reached, and opens it.
    fn gate(&mut self, command: u32) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((reached, is_reached), (open, opened)) = (oneshot::channel(), oneshot::channel());
        self.gates.push((command, Gate { reached, opened }));
        (is_reached, open)
    }
}

/// A state machine that does what a test says.
struct Puppet(Rc<RefCell<Does>>);

impl StateMachine for Puppet {
    type Command = u32;
    type Response = u32;

    async fn apply(&mut self, command: u32, _: At) -> u32 {
        let gate = self.0.borrow_mut().begin(command);
        if let Some(Gate { reached, opened }) = gate {
            let _ = reached.send(());
            let _ = opened.await;
        }
        command
    }
}

impl Snapshot for Puppet {
    type View = ();

    fn view(&self) -> Result<(), SnapshotError> {
        Ok(())
    }

    async fn write((): (), _: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        Ok(())
    }

    async fn check(_: &mut SnapshotReader) -> Result<(), SnapshotError> {
        Ok(())
    }

    async fn restore(&mut self, _: &mut SnapshotReader) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// A node that is its whole group, with a log in memory: nothing happens by itself.
async fn start<R: Executor>(rt: &R) -> (Single<Puppet>, Rc<RefCell<Does>>) {
    let does = Rc::<RefCell<Does>>::default();
    let (store, transport) = (MemStore::new(), LocalNetwork::new().transport());
    let puppet = Puppet(Rc::clone(&does));
    // What a turn brings is applied within it.
    let config = Config { max_apply_bytes: 16 << 20, ..quick() };
    let single = Single::start(rt, 1, config, store, transport, puppet).await.expect("starts");
    single.raft().initialize([(1, "1")]).await.expect("is formed");
    (single, does)
}

/// The outcome, which comes soon if it comes at all.
async fn soon<R: Executor, T>(rt: &R, outcome: impl Future<Output = T>) -> T {
    rt.timeout(Duration::from_secs(30), outcome).await.expect("nobody is left waiting")
}

/// Lets the node have as many turns as it has something to do for.
async fn some_turns() {
    for _ in 0..100 {
        yield_now().await;
    }
}

async fn a_request_that_comes_between_two_turns_of_a_backlog_is_answered<R: Executor>(rt: R) {
    let (single, does) = start(&rt).await;
    let raft = single.raft();
    // The first turn applies it, and leaves a part of the backlog to the second.
    does.borrow_mut().writes = Some((7, raft.clone()));
    let backlog: Vec<_> = (0..BACKLOG).map(|command| raft.write(command)).collect();
    let answers = soon(&rt, join_all(backlog)).await;
    assert!(answers.into_iter().map(Result::unwrap).eq(0..BACKLOG));
    // A timer that is still armed would bring a turn later, and hide that nothing else does.
    some_turns().await;
    let written = does.borrow_mut().written.take().expect("it was applied");
    assert_eq!(written.now_or_never().expect("is answered").expect("is written"), BACKLOG);
}

async fn a_slow_state_machine_is_not_lost_behind_a_backlog_of_events<R: Executor>(rt: R) {
    let (single, does) = start(&rt).await;
    let raft: LocalRaft<Puppet> = single.local();
    let (first_reached, open_first) = does.borrow_mut().gate(1);
    let (second_reached, open_second) = does.borrow_mut().gate(2);
    let first = raft.write(1);
    soon(&rt, first_reached).await.expect("a task applies it, and waits");
    // The task ends before the group's next turn, which is too short for the news of that.
    let _ = open_first.send(());
    let (from, to) = (Replica::new(8, 1), Replica::new(9, 1));
    let body = Body::ReadIndex { sequence: 1 };
    let stray = Message { group: 0, cluster: None, from, to, term: Term(1), body };
    (0..BACKLOG).for_each(|_| raft.deliver(stray.clone()));
    let second = raft.write(2);
    assert_eq!(soon(&rt, first).await.expect("is applied"), 1);
    soon(&rt, second_reached).await.expect("the next is begun");
    // Until the backlog is gone, and with it the news of the first task.
    some_turns().await;
    let _ = open_second.send(());
    assert_eq!(soon(&rt, second).await.expect("is applied"), 2);
}
