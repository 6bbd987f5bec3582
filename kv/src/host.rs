//! Runs nodes, each on a thread of its own, until a signal comes or one of them fails.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use quorate::rt::TaskError;
use quorate::rt::channel::watch;
use quorate::{AsyncRuntime, Compio, Launch, Monoio, NodeId, Tokio};
use tracing::info;

use crate::log::Log;
use crate::node::{self, Plan};
use crate::signals;
use crate::{Engine, Runtime};

/// The nodes of this process.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Plan>,
    pub(crate) engine: Engine,
}

/// What the threads tell the main one.
enum Event {
    /// A node has answered a linearizable read under this leader.
    Ready(NodeId),
    /// A node's thread ends.
    Ended,
    /// The process was asked to stop.
    Signal,
}

/// Tells of a thread's end even where its runtime could not be built, or where it panics.
struct Ending(mpsc::Sender<Event>);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Ended);
    }
}

type NodeThread = JoinHandle<io::Result<Result<(), String>>>;

/// Runs the nodes. `on_ready` is called once, with the leader, when each of them serves.
///
/// Errors: what went wrong with the nodes that could not start or that failed.
pub(crate) fn run(
    cluster: Cluster,
    log: &Log,
    on_ready: impl FnOnce(NodeId),
) -> Result<(), String> {
    let (events, inbox) = mpsc::channel();
    let (stop, stopped) = watch::channel(false);
    let of_signals = events.clone();
    signals::hear(log.file(), move || {
        let _ = of_signals.send(Event::Signal);
    })?;

    let mut missing = cluster.nodes.len();
    let mut threads = Vec::new();
    let mut errors = Vec::new();
    for plan in cluster.nodes {
        let id = plan.id;
        let launched = match cluster.engine.runtime {
            Runtime::Tokio => launch::<Tokio>(plan, cluster.engine, &stopped, &events),
            Runtime::Monoio => launch::<Monoio>(plan, cluster.engine, &stopped, &events),
            Runtime::Compio => launch::<Compio>(plan, cluster.engine, &stopped, &events),
        };
        match launched {
            Ok(thread) => threads.push((id, thread)),
            Err(error) => errors.push(format!("node {id}: can't start a thread: {error}")),
        }
    }
    drop(events);
    let mut on_ready = Some(on_ready);
    while errors.is_empty() {
        match inbox.recv() {
            Ok(Event::Ready(leader)) => {
                missing -= 1;
                if missing == 0
                    && let Some(on_ready) = on_ready.take()
                {
                    on_ready(leader);
                }
            }
            Ok(Event::Ended | Event::Signal) | Err(_) => break,
        }
    }
    stop.send(true);
    errors.extend(
        threads.into_iter().filter_map(|(id, thread)| {
            join(thread).err().map(|error| format!("node {id}: {error}"))
        }),
    );
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    info!("stopped");
    Ok(())
}

fn launch<R: AsyncRuntime>(
    plan: Plan,
    engine: Engine,
    stopped: &watch::Receiver<bool>,
    events: &mpsc::Sender<Event>,
) -> io::Result<NodeThread> {
    let options =
        Launch { name: format!("node-{}", plan.id), core: None, driver: engine.driver.into() };
    let ending = Ending(events.clone());
    let stopped = stopped.clone();
    R::launch(options, async move |rt: R| {
        let Ending(events) = &ending;
        let ready = events.clone();
        node::run(&rt, plan, stopped, move |leader| {
            let _ = ready.send(Event::Ready(leader));
        })
        .await
    })
}

fn join(thread: NodeThread) -> Result<(), String> {
    match thread.join() {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(format!("the runtime could not be started: {error}")),
        Err(panic) => Err(TaskError::from_panic(panic).to_string()),
    }
}
