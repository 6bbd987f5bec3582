//! A node: it drives an engine on a runtime, between a log store, a transport and a state machine.

mod admin;
mod apply;
mod commands;
mod delays;
mod kept;
mod local;
mod mailbox;
mod parked;
mod passing;
mod quota;
mod raft;
mod refusals;
mod replies;
mod snapshots;
mod timer;
mod turn;
mod waits;

pub use self::local::LocalRaft;
pub use self::raft::Raft;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{self, Either};
use quorate_rt::channel::watch;
use quorate_rt::{AsyncRuntime, TaskError};

use self::apply::{Applied, Apply, Applying};
use self::delays::Delays;
use self::mailbox::{Card, End, Event, Mailbox};
use self::refusals::Refusals;
use self::replies::Replies;
use self::snapshots::Snapshots;
use self::timer::Timer;
use self::turn::Turns;
use self::waits::Waits;
use crate::config::Config;
use crate::engine::{Engine, Local};
use crate::error::{Fatal, StartError};
use crate::identity::{Boot, Identity, Replica};
use crate::log_store::LogStore;
use crate::metrics::{Metrics, Role};
use crate::state_machine::{At, StateMachine};
use crate::transport::{Inbox, Receiver, Transport};
use crate::types::{GroupId, NodeId};

/// A running node of a Raft group. It lives on the thread that started it.
///
/// Dropping it is a crash, by design: its tasks are cancelled at once, and whoever waits for a write gets
/// [`Unknown`](crate::WriteError::Unknown). Nothing acknowledged is lost by it. To end it in order, use [`shutdown`](Node::shutdown).
pub struct Node<SM: StateMachine> {
    mailbox: Rc<Mailbox<SM>>,
    outcome: future::Shared<oneshot::Receiver<Result<(), Fatal>>>,
    /// Ends it within the drop itself: cancelling takes effect only when the runtime gets to it, and by then the next
    /// node may have begun on the same store and transport.
    _crash: Box<dyn Any>,
    /// The handle of its outermost task, of whatever runtime: dropping it cancels all of them.
    _task: Box<dyn Any>,
}

impl Node<()> {
    /// Begins to describe the node `id`, which must not be 0.
    pub fn builder(id: NodeId) -> NodeBuilder<(), (), ()> {
        NodeBuilder {
            id,
            group: 0,
            config: Config::default(),
            log_store: (),
            transport: (),
            state_machine: (),
        }
    }
}

/// Nobody's state machine: it stands for "not yet given".
impl StateMachine for () {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
}

/// What a node will be made of. It needs a log store, a transport and a state machine.
#[derive(Clone, Debug)]
pub struct NodeBuilder<S, T, SM> {
    id: NodeId,
    group: GroupId,
    config: Config,
    log_store: S,
    transport: T,
    state_machine: SM,
}

impl<S, T, SM> NodeBuilder<S, T, SM> {
    /// The group it belongs to; 0 by default.
    #[must_use]
    pub fn group(self, group: GroupId) -> Self {
        Self { group, ..self }
    }

    /// Its settings; see [`Config`] for the defaults.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// Where its log is kept.
    pub fn log_store<S2: LogStore>(self, log_store: S2) -> NodeBuilder<S2, T, SM> {
        let Self { id, group, config, transport, state_machine, .. } = self;
        NodeBuilder { id, group, config, log_store, transport, state_machine }
    }

    /// How it reaches its peers.
    pub fn transport<T2: Transport>(self, transport: T2) -> NodeBuilder<S, T2, SM> {
        let Self { id, group, config, log_store, state_machine, .. } = self;
        NodeBuilder { id, group, config, log_store, transport, state_machine }
    }

    /// What it replicates.
    pub fn state_machine<SM2: StateMachine>(self, state_machine: SM2) -> NodeBuilder<S, T, SM2> {
        let Self { id, group, config, log_store, transport, .. } = self;
        NodeBuilder { id, group, config, log_store, transport, state_machine }
    }
}

impl<S: LogStore, T: Transport, SM: StateMachine> NodeBuilder<S, T, SM> {
    /// Starts the node on this thread's runtime: it goes on from what its log holds, and waits for
    /// [`initialize`](Raft::initialize) or a leader if that is empty.
    ///
    /// Errors: the configuration can't work, by itself or with what the transport carries; the id
    /// is 0, the store is another node's, or the log can't be read. Dropping the future starts
    /// nothing.
    pub async fn start<R: AsyncRuntime>(self, rt: &R) -> Result<Node<SM>, StartError> {
        let Self { id, group, config, log_store, transport, state_machine } = self;
        config.validate()?;
        if let Some(limit) = transport.message_limit() {
            config.check_carried(limit)?;
        }
        if id == 0 {
            return Err(StartError::NodeId);
        }
        let Identity { incarnation, cluster, boot } = log_store.identify(id).await?;
        let replica = Replica::new(id, incarnation);
        let recovered = log_store.recover(group).await?;
        let boot = Boot { number: boot, tag: rt.random() };
        let local = Local { replica, boot, cluster };
        let engine = Engine::new(local, group, config.clone(), recovered, rt.random(), rt.now());
        let credentials = turn::credentials(&engine, boot);
        tracing::info!(
            %replica, boot = boot.number, group, state = ?credentials.state,
            "a node starts on its store"
        );

        let known = Metrics { id, replica, boot: boot.number, cluster, ..Metrics::default() };
        let (metrics, receiver) = watch::channel(known);
        let metrics = Rc::new(metrics);
        let mailbox = Rc::new(Mailbox::new(Card { id, config, metrics: receiver }));
        let applying = Rc::new(Applying::new());
        let replies = Rc::new(RefCell::new(Replies::default()));
        let refusals = Rc::new(Refusals::new(Rc::clone(&metrics)));
        let store = Rc::new(log_store);
        let transport = Rc::new(transport);
        let inbox = Inbox::of(Rc::clone(&mailbox) as Rc<dyn Receiver>);
        let closing = Rc::new(Closing {
            group,
            mailbox: Rc::clone(&mailbox),
            applying: Rc::clone(&applying),
            replies: Rc::clone(&replies),
            transport: Rc::clone(&transport),
            closed: Cell::new(false),
        });
        let (crash, closing) = (CloseOnDrop(Rc::clone(&closing)), CloseOnDrop(closing));
        transport.attach(group, credentials, inbox);
        let clock = rt.clone();
        let delays = Rc::new(Delays::new(move || clock.coarse_now()));
        let apply = Apply {
            group,
            delays: Rc::clone(&delays),
            state_machine,
            store: Rc::clone(&store),
            mailbox: Rc::clone(&mailbox),
            applying: Rc::clone(&applying),
            replies: Rc::clone(&replies),
            refusals: Rc::clone(&refusals),
            metrics: Rc::clone(&metrics),
            membership: None,
            time: 0,
            since_view: Applied::default(),
        };
        let apply = rt.spawn(apply.run());
        let settling = Rc::clone(&store);
        let snapshots = Snapshots::new(rt.clone(), group, Rc::clone(&store), Rc::clone(&mailbox));
        let turns = Turns {
            rt: rt.clone(),
            group,
            engine,
            credentials,
            store,
            transport,
            mailbox: Rc::clone(&mailbox),
            applying,
            replies,
            refusals,
            metrics: Rc::clone(&metrics),
            timer: Timer::new(rt.clone()),
            delays,
            proposing: Vec::new(),
            fetches: BTreeMap::new(),
            snapshots,
            waits: Waits::default(),
            wall_at: rt.now(),
            stalled_at: None,
            stopping: None,
        };
        let turns = rt.spawn(turns.run());
        let clock = rt.clone();
        let (ended, outcome) = oneshot::channel();
        // Both are watched by a third, which outlives their panics.
        let task = rt.spawn(async move {
            let outcome = match future::select(turns, apply).await {
                Either::Left((turns, _)) => turns.unwrap_or_else(|error| Err(bug(error))),
                Either::Right((apply, _)) => Err(apply.unwrap_or_else(bug)),
            };
            match &outcome {
                Ok(()) => tracing::info!(id, group, "the node has stopped"),
                Err(fatal) => tracing::error!(id, group, %fatal, "the node has stopped"),
            }
            metrics.send_modify(|metrics| {
                if metrics.role == Role::Leader {
                    metrics.leader = None;
                }
                metrics.role = Role::Follower;
                metrics.fatal = outcome.clone().err();
            });
            let end = outcome.clone().err().map_or(End::Shutdown, End::Fatal);
            // What is called here is not the node's own, and nobody watches this task.
            let closed = AssertUnwindSafe(async {
                closing.0.close(&end);
                if outcome.is_ok() {
                    let (settled, late) =
                        (pin!(settling.settle()), pin!(clock.sleep(SETTLES_WITHIN)));
                    future::select(settled, late).await;
                }
            });
            let closed = closed.catch_unwind().await.map_err(TaskError::from_panic).map_err(bug);
            if let Err(fatal) = &closed {
                tracing::error!(id, group, %fatal, "the node has not stopped in order");
            }
            drop(settling); // Whoever hears of the end may open the store again.
            let outcome = outcome.and(closed);
            let _ = ended.send(outcome);
        });
        let outcome = outcome.shared();
        Ok(Node { mailbox, outcome, _crash: Box::new(crash), _task: Box::new(task) })
    }
}

/// How long a node that ends in order waits for its store: a disk that hangs must not keep the
/// process from ending.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// A task of the node, or what it has called, has panicked.
fn bug(error: TaskError) -> Fatal {
    Fatal::Bug(error.to_string())
}

impl<SM: StateMachine> Node<SM> {
    /// A handle for any thread and any executor.
    pub fn raft(&self) -> Raft<SM> {
        Raft::new(self.mailbox.shared())
    }

    /// A handle for this thread, which pays for no atomics and no wake-up of another thread.
    pub fn local(&self) -> LocalRaft<SM> {
        LocalRaft::new(Rc::clone(&self.mailbox))
    }

    /// Stops the node and waits until it has ended. What is new is refused with `Shutdown`; what has begun is brought to its end, and a node
    /// that leads hands over to the peer that is furthest, so that the cluster needs no election. It takes at most a
    /// [`request_timeout`](Config::request_timeout); what is left then has an unknown outcome.
    ///
    /// Errors: it had failed before, with this cause, or failed on the way. Dropping the future crashes the node.
    pub async fn shutdown(self) -> Result<(), Fatal> {
        self.mailbox.event(Event::Shutdown);
        self.stopped().await
    }

    /// Waits until the node has ended, by itself or by [`shutdown`](Node::shutdown).
    ///
    /// Errors: the cause, if it has failed; [`Fatal::Dropped`] if it was dropped.
    pub fn stopped(&self) -> impl Future<Output = Result<(), Fatal>> + use<SM> {
        let outcome = self.outcome.clone();
        async move { outcome.await.unwrap_or(Err(Fatal::Dropped)) }
    }
}

/// Leaves nobody waiting and nothing attached, however the node ends: in order, by a failure, or dropped half-way.
struct Closing<SM: StateMachine, T: Transport> {
    group: GroupId,
    mailbox: Rc<Mailbox<SM>>,
    applying: Rc<Applying<SM>>,
    replies: Rc<RefCell<Replies<SM>>>,
    transport: Rc<T>,
    closed: Cell<bool>,
}

impl<SM: StateMachine, T: Transport> Closing<SM, T> {
    fn close(&self, end: &End) {
        if self.closed.replace(true) {
            return;
        }
        self.mailbox.close(end);
        let reads = self.applying.take_reads();
        // Taken out first: an answer may run code of whoever waits for it.
        let replies = self.replies.take();
        reads.into_iter().for_each(|(_, read)| read(Err(end.into())));
        replies.abandon(end);
        self.transport.detach(self.group);
    }
}

/// Held by the node and by its outermost task: whichever is dropped first, the runtime being dropped, too.
struct CloseOnDrop<SM: StateMachine, T: Transport>(Rc<Closing<SM, T>>);

impl<SM: StateMachine, T: Transport> Drop for CloseOnDrop<SM, T> {
    fn drop(&mut self) {
        self.0.close(&End::Shutdown);
    }
}
