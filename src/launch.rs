//! Running a program on a runtime, and a node on a thread of its own for a program that has a
//! runtime already.

use std::borrow::Borrow;

use futures::channel::oneshot;
use quorate_core::{Error, Node};
use quorate_rt::{Executor, Launch, TaskError};

/// Runs `main` on this thread until it ends, on a runtime of the kind that `main` takes, with its
/// best driver.
///
/// `main` may return any error that is made from [`quorate::Error`](Error): `anyhow::Error`,
/// `Box<dyn std::error::Error>`, or an enum of the program's own.
///
/// ```
/// use quorate::prelude::*;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     quorate::run(async |rt: Tokio| {
///         let port: u16 = "7001".parse()?;
///         let addresses = rt.resolve(&format!("127.0.0.1:{port}")).await?;
///         assert_eq!(addresses.len(), 1);
///         Ok(())
///     })
/// }
/// ```
///
/// In a program that has a runtime on this thread already, use [`launch()`].
///
/// # Errors
/// Those of `main`, and [`Error::Io`] if the runtime can't be built, as on a thread that runs one
/// already.
///
/// # Panics
/// A panic in `main` goes on here.
pub fn run<R, T, E>(main: impl AsyncFnOnce(R) -> Result<T, E>) -> Result<T, E>
where
    R: Executor,
    T: 'static,
    E: From<Error> + 'static,
{
    R::run(&Launch::default(), main).map_err(Error::Io)?
}

/// Starts a node on a thread of its own, and returns what `start` gives for other threads: the
/// handles of its groups. It is for programs that have a runtime already, such as multi-threaded
/// tokio. The future is `Send`, and may be awaited on any executor.
///
/// `start` runs on the new thread, on a runtime of the kind that it takes, which need not be that
/// of the caller. It returns the node and the handles. The node is a [`Node`], or an `Rc<Node>` if
/// tasks that `start` has spawned open more groups. The thread keeps the node until it has
/// [ended](Node::stopped), and then ends itself, with all of its tasks. Any handle ends the node in
/// order, by [`Raft::shutdown`](crate::Raft::shutdown). When that has returned, the node's store is
/// closed and can be opened again; the thread may still be ending.
///
/// The closure names its result, as in the example, because `?` behind `launch` would leave the
/// type of the error open.
///
/// ```no_run
/// use quorate::prelude::*;
/// use quorate::Launch;
/// # #[derive(Default, Serialize, Deserialize)]
/// # struct Counter { total: i64 }
/// # impl StateMachine for Counter {
/// #     type Command = i64;
/// #     type Response = i64;
/// #     async fn apply(&mut self, add: i64, _: At) -> i64 {
/// #         self.total += add;
/// #         self.total
/// #     }
/// # }
///
/// #[tokio::main]
/// async fn main() -> quorate::Result<()> {
///     let raft = quorate::launch(Launch::named("raft"), async |rt: Tokio| -> quorate::Result<_> {
///         let node = Node::builder(1)
///             .log_store(FileStore::open(&rt, "data/1").await?)
///             .transport(TcpTransport::bind(&rt, "127.0.0.1:7001").await?)
///             .start(&rt)
///             .await?;
///         let raft = node.group(0).open(Counter::default()).await?;
///         Ok((node, raft))
///     })
///     .await?;
///     raft.initialize([(1, "127.0.0.1:7001")]).await?;
///     let writer = raft.clone();
///     let total = tokio::spawn(async move { writer.write(5).await }).await.expect("no panic")?;
///     assert_eq!(total, raft.read(|counter| counter.total).await?);
///     raft.shutdown().await?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// Those of `start`. [`Error::Io`]: the thread could not be started, or its runtime not be built,
/// or the core that `options` name does not exist. [`Error::Task`]: `start` panicked, with its
/// message. In all of these cases no node runs; the thread may still be ending. What becomes of the
/// node later is told by the handles: see [`Raft::stopped`](crate::Raft::stopped).
///
/// # Cancellation
/// Nothing begins before the future is polled. If it is dropped later, the thread drops the node as
/// soon as `start` has returned, which is a crash, and ends.
pub async fn launch<R, S, Tr, N, T, E>(
    options: Launch,
    start: impl AsyncFnOnce(R) -> Result<(N, T), E> + Send + 'static,
) -> Result<T, E>
where
    R: Executor,
    N: Borrow<Node<R, S, Tr>> + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (started, handles) = oneshot::channel();
    let (taken, are_taken) = oneshot::channel();
    let main = async move |rt: R| {
        // In a task, so that a panic becomes an error.
        let task = rt.spawn({
            let rt = rt.clone();
            async move { start(rt).await }
        });
        let result = task.await.unwrap_or_else(|failed| Err(E::from(Error::Task(failed))));
        let (node, result) = match result {
            Ok((node, handles)) => (Some(node), Ok(handles)),
            Err(error) => (None, Err(error)),
        };
        if started.send(result).is_ok()
            && let Some(node) = node
            // Sent is not received: nobody may be left who could end the node.
            && are_taken.await.is_ok()
        {
            // Its handles and the log tell how it has ended.
            let _ = node.borrow().stopped().await;
        }
    };
    let thread = R::launch(options, main).map_err(Error::Io)?;
    match handles.await {
        Ok(result) => {
            let _ = taken.send(());
            result
        }
        // There is no runtime, so the thread is at its end, and the join waits for nothing.
        Err(oneshot::Canceled) => Err(E::from(match thread.join() {
            Ok(Ok(())) => Error::Task(TaskError::Cancelled),
            Ok(Err(error)) => Error::Io(error),
            Err(panic) => Error::Task(TaskError::from_panic(panic)),
        })),
    }
}
