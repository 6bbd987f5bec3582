//! A node on a thread of its own beside a program that has a runtime already, and programs with
//! errors of their own.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use futures::executor::block_on;
use futures::poll;
use quorate::prelude::*;
use quorate::rt::TaskError;
use quorate::{Driver, Error, Fatal, Launch, LogStore, NodeId, Transport};
use quorate_tests::calm;

macro_rules! on_each_runtime {
    ($($name:ident),* $(,)?) => {
        mod on_tokio { $( #[test] fn $name() { super::$name::<quorate::Tokio>(); } )* }
        mod on_monoio { $( #[test] fn $name() { super::$name::<quorate::Monoio>(); } )* }
        mod on_compio { $( #[test] fn $name() { super::$name::<quorate::Compio>(); } )* }
    };
}

on_each_runtime!(
    a_node_serves_a_multi_threaded_program,
    tasks_of_the_thread_open_more_groups,
    a_failed_start_gives_its_own_error,
    a_panic_in_a_start_is_an_error_with_its_message,
    a_thread_that_cannot_run_is_an_error,
    a_start_that_nobody_waits_for_leaves_no_node,
    a_start_whose_end_nobody_hears_of_leaves_no_node,
    a_program_has_errors_of_its_own,
);

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

async fn started<R: AsyncRuntime>(
    rt: &R,
    folder: &Path,
) -> quorate::Result<Node<R, impl LogStore + use<R>, impl Transport + use<R>>> {
    Ok(Node::builder(1)
        .log_store(FileStore::open(rt, folder).await?)
        .transport(SharedNetwork::new().transport(rt))
        .start(rt)
        .await?)
}

const MEMBERS: [(NodeId, &str); 1] = [(1, "node-1")];

fn a_node_serves_a_multi_threaded_program<R: AsyncRuntime>() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime").block_on(async {
        for run in 1..=3 {
            let path = folder.path().to_owned();
            let launching =
                quorate::launch(Launch::named("node"), async move |rt: R| -> quorate::Result<_> {
                    let node = started(&rt, &path).await?;
                    let raft = node.group(0).config(calm()).open(Counter::default()).await?;
                    Ok((node, raft))
                });
            let raft = tokio::spawn(launching).await.expect("no panic").expect("starts");
            raft.initialize(MEMBERS).await.expect("forms");
            let write = |_| {
                let raft = raft.clone();
                tokio::spawn(async move { raft.write(1).await })
            };
            for written in (0..10).map(write).collect::<Vec<_>>() {
                written.await.expect("no panic").expect("writes");
            }
            let total = raft.read(|counter| counter.total).await.expect("reads");
            assert_eq!(total, 10 * run, "what the runs before have written is there");
            // The folder is free once that has returned.
            raft.shutdown().await.expect("stops");
        }
    });
}

/// Opens a group of this number, and answers with its handle.
type Open = (u64, oneshot::Sender<Raft<Counter>>);

fn tasks_of_the_thread_open_more_groups<R: AsyncRuntime>() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    block_on(async {
        let starting = async move |rt: R| -> quorate::Result<_> {
            let node = Rc::new(started(&rt, &path).await?);
            let (open, mut to_open) = mpsc::channel::<Open>(8);
            let (alive, ended) = oneshot::channel::<()>();
            let opening = Rc::clone(&node);
            let task = async move {
                let _alive = alive;
                while let Some((group, answer)) = to_open.next().await {
                    let group = opening.group(group).config(calm());
                    let _ = answer.send(group.open(Counter::default()).await.expect("opens"));
                }
            };
            rt.spawn(task).detach();
            Ok((node, (open, ended)))
        };
        let launched = quorate::launch(Launch::named("node"), starting).await;
        let (mut open, ended) = launched.expect("starts");
        let mut groups = Vec::new();
        for group in 1..=3 {
            let (answer, opened) = oneshot::channel();
            open.try_send((group, answer)).expect("has room");
            let raft = opened.await.expect("is opened");
            raft.initialize(MEMBERS).await.expect("forms");
            assert_eq!(raft.write(5).await.expect("writes"), 5);
            groups.push(raft);
        }
        groups[1].shutdown().await.expect("stops");
        groups[2].stopped().await.expect("has stopped with the node");
        assert_eq!(ended.await, Err(oneshot::Canceled), "the thread drops its tasks");
    });
}

/// An error of the program's own.
#[derive(Debug)]
enum OwnError {
    Own(&'static str),
    Quorate(Error),
}

impl<E: Into<Error>> From<E> for OwnError {
    fn from(error: E) -> Self {
        Self::Quorate(error.into())
    }
}

fn a_failed_start_gives_its_own_error<R: AsyncRuntime>() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let fails = async move |rt: R| {
        let node = started(&rt, &path).await?;
        if node.id() == 1 {
            return Err(OwnError::Own("not today"));
        }
        Ok((node, ()))
    };
    let failed = block_on(quorate::launch(Launch::named("node"), fails));
    assert!(matches!(failed, Err(OwnError::Own("not today"))), "{failed:?}");
    // And any that is made from one of the framework; the folder is free again.
    let path = folder.path().to_owned();
    let fails = async move |rt: R| {
        let Ok(_holds_the_lock) = started(&rt, &path).await else {
            return Err("the node of before holds the lock".into());
        };
        let node = started(&rt, &path).await?;
        Ok::<_, Box<dyn StdError + Send + Sync>>((node, ()))
    };
    let failed = block_on(quorate::launch(Launch::named("node"), fails));
    let error = failed.expect_err("it is locked").to_string();
    assert!(error.ends_with("in use by another process"), "{error}");
}

fn a_panic_in_a_start_is_an_error_with_its_message<R: AsyncRuntime>() {
    let panics = async |rt: R| {
        let node = started(&rt, Path::new("/nowhere")).await?;
        Ok((node, ()))
    };
    let panics = async move |rt: R| {
        assert!(rt.now() < quorate::rt::Instant::default(), "expected by the test");
        panics(rt).await
    };
    let failed: quorate::Result<()> = block_on(quorate::launch(Launch::named("node"), panics));
    let Err(Error::Task(TaskError::Panicked(message))) = failed else { panic!("{failed:?}") };
    assert_eq!(message, "expected by the test");
}

fn a_thread_that_cannot_run_is_an_error<R: AsyncRuntime>() {
    let never = async |rt: R| {
        let node = started(&rt, Path::new("/nowhere")).await?;
        Ok((node, ()))
    };
    let options = Launch { core: Some(usize::MAX), ..Launch::named("node") };
    let failed: quorate::Result<()> = block_on(quorate::launch(options, never));
    let Err(Error::Io(error)) = failed else { panic!("{failed:?}") };
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_runtime_that_cannot_be_built_is_an_error() {
    let never = async |rt: Tokio| {
        let node = started(&rt, Path::new("/nowhere")).await?;
        Ok((node, ()))
    };
    let options = Launch { driver: Driver::Uring, ..Launch::named("node") };
    let failed: quorate::Result<()> = block_on(quorate::launch(options, never));
    let Err(Error::Io(error)) = failed else { panic!("{failed:?}") };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

fn a_start_that_nobody_waits_for_leaves_no_node<R: AsyncRuntime>() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    block_on(async {
        let (tell, told) = oneshot::channel();
        let (go, gone) = oneshot::channel::<()>();
        let mut launching = Box::pin(quorate::launch(
            Launch::named("node"),
            async move |rt: R| -> quorate::Result<_> {
                let node = started(&rt, &path).await?;
                let raft = node.group(0).open(Counter::default()).await?;
                let _ = tell.send(raft);
                let _ = gone.await;
                Ok((node, ()))
            },
        ));
        assert!(poll!(&mut launching).is_pending());
        let raft = told.await.expect("starts");
        drop(launching);
        go.send(()).expect("waits");
        let ended = raft.stopped().await;
        assert!(matches!(ended, Err(Fatal::Dropped)), "{ended:?}");
    });
}

fn a_start_whose_end_nobody_hears_of_leaves_no_node<R: AsyncRuntime>() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    block_on(async {
        let (tell, told) = oneshot::channel();
        let (gone, is_gone) = oneshot::channel::<()>();
        let mut launching = Box::pin(quorate::launch(
            Launch::named("node"),
            async move |rt: R| -> quorate::Result<_> {
                let node = started(&rt, &path).await?;
                let raft = node.group(0).open(Counter::default()).await?;
                let _ = tell.send(raft);
                Ok((node, gone))
            },
        ));
        assert!(poll!(&mut launching).is_pending());
        let raft = told.await.expect("starts");
        // The node answers, so its thread has gone on, and has sent what nobody receives.
        raft.initialize([(1, "node-1")]).await.expect("is formed");
        drop(launching);
        assert!(is_gone.await.is_err(), "what was sent is dropped");
        let ended = raft.stopped().await;
        assert!(matches!(ended, Err(Fatal::Dropped)), "{ended:?}");
    });
}

fn a_program_has_errors_of_its_own<R: AsyncRuntime>() {
    let own: Result<(), OwnError> = quorate::run(async |_: R| Err(OwnError::Own("not today")));
    assert!(matches!(own, Err(OwnError::Own("not today"))), "{own:?}");
    let other: Result<(), OwnError> = quorate::run(async |rt: R| {
        let waits = rt.spawn(std::future::pending::<()>());
        Ok(rt.timeout(Duration::ZERO, waits).await??)
    });
    assert!(matches!(other, Err(OwnError::Quorate(Error::Elapsed(_)))), "{other:?}");
    let boxed: Result<u16, Box<dyn StdError>> = quorate::run(async |rt: R| {
        rt.resolve("127.0.0.1:7001").await?;
        Ok("port".parse::<u16>()?)
    });
    assert_eq!(boxed.expect_err("no number").to_string(), "invalid digit found in string");
    // Where a runtime runs on the thread already, none can be built.
    let nested: quorate::Result<()> = quorate::run(async |_: R| quorate::run(async |_: R| Ok(())));
    assert!(matches!(nested, Err(Error::Io(_))), "{nested:?}");
}
