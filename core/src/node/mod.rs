//! A node: it has a log store, a transport and an identity, and hosts groups, for each of which it
//! drives an engine on a runtime.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `groups` | the table of the groups: opening, finding, stopping, ending |
//! | `turns` | the loop, which gives them their turns |
//! | `liveness` | what nodes say to each other for all of their groups |
//! | `ready`, `timers` | which groups have something to do, and when others will |
//! | `wakes` | answers to callers on other threads, given by one wake |
//! | `delays` | what has kept the node's thread, where turns come late |
//! | `open` | the description of a group that is to be opened |
//! | `group/` | one group: its turns, its state machine's side, and those who wait for it |
//! | `group/admin` | administrative requests |
//! | `raft`, `local` | the handles of a group |
//! | `watching` | waiting for what a group's metrics tell, and following who leads |

mod delays;
mod group;
mod groups;
mod liveness;
mod local;
mod open;
mod raft;
mod ready;
mod timers;
mod turns;
mod wakes;
mod watching;

pub use self::local::LocalRaft;
pub use self::open::GroupBuilder;
pub use self::raft::Raft;
pub use self::watching::{LeaderChange, LeaderChanges, WaitError};

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{self, Shared};
use quorate_rt::{Executor, TaskError, yield_now};

use self::delays::Delays;
use self::group::mailbox::Mailbox;
use self::group::{Lease, bug};
use self::groups::{Groups, OF_LIVENESS};
use self::liveness::{Beats, Liveness};
use self::turns::Loop;
use crate::error::{Fatal, StartError, StoreError};
use crate::identity::{Boot, Identity, Replica, Standing};
use crate::log_store::{Appended, Completion, LogStore, LogWrite, Recovered};
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{GroupId, HardState, LogId, NodeId};

/// A running node, which hosts any number of Raft groups on one log store and one transport. It
/// lives on the thread that started it.
///
/// A group that is [opened](Node::group) runs until it is [stopped](Node::stop), it fails, or the
/// node ends. What becomes of its handles makes no difference.
///
/// A group that fails, as its state machine has panicked, ends alone. A store or a transport that
/// fails ends the node.
///
/// Dropping the node is a crash, by design: its tasks are cancelled at once, and those who wait for
/// a write get [`Unknown`](crate::WriteError::Unknown). Whatever is asked of a handle later is
/// refused with [`Fatal::Dropped`]. No acknowledged write is lost by it. To end it in order, use
/// [`shutdown`](Node::shutdown).
#[must_use = "a node that is dropped has crashed"]
pub struct Node<R, S, T> {
    parts: Rc<NodeParts<R, S, T>>,
    /// The handle of its task, of whatever runtime: dropping it cancels the task.
    _task: Box<dyn Any>,
}

/// What a node consists of. Its task has it, too.
struct NodeParts<R, S, T> {
    rt: R,
    replica: Replica,
    boot: Boot,
    /// The store and the transport; none once the node has ended, as those who hear of that may
    /// open the store again.
    shared: RefCell<Option<(Rc<S>, Rc<T>)>>,
    groups: Rc<Groups>,
    liveness: Rc<Liveness>,
    outcome: NodeOutcome,
}

/// What a node comes to; nothing where it is dropped. Any number may wait for it, on any thread.
type NodeOutcome = Shared<oneshot::Receiver<Result<(), Fatal>>>;

/// Waits for what a node comes to.
async fn node_ended(outcome: NodeOutcome) -> Result<(), Fatal> {
    outcome.await.unwrap_or(Err(Fatal::Dropped))
}

impl<R, S, T> NodeParts<R, S, T> {
    fn store_and_transport(&self) -> Option<(Rc<S>, Rc<T>)> {
        self.shared.borrow().clone()
    }
}

/// Describes a node that is to be started. It needs a log store and a transport.
#[derive(Clone, Debug)]
#[must_use = "a node does nothing before it is started"]
pub struct NodeBuilder<S, T> {
    id: NodeId,
    log_store: S,
    transport: T,
}

impl Node<(), (), ()> {
    /// Begins to describe the node `id`, which must not be 0.
    pub fn builder(id: NodeId) -> NodeBuilder<(), ()> {
        NodeBuilder { id, log_store: (), transport: () }
    }
}

impl<S, T> NodeBuilder<S, T> {
    /// Where its logs are kept.
    pub fn log_store<S2: LogStore>(self, log_store: S2) -> NodeBuilder<S2, T> {
        let Self { id, transport, .. } = self;
        NodeBuilder { id, log_store, transport }
    }

    /// How it reaches its peers.
    pub fn transport<T2: Transport>(self, transport: T2) -> NodeBuilder<S, T2> {
        let Self { id, log_store, .. } = self;
        NodeBuilder { id, log_store, transport }
    }
}

impl<S: LogStore, T: Transport> NodeBuilder<S, T> {
    /// Starts the node on this thread's runtime, without a group yet.
    ///
    /// # Errors
    /// The id is 0, the store is another node's, or it can't be written.
    ///
    /// # Cancellation
    /// Nothing is started.
    pub async fn start<R: Executor>(self, rt: &R) -> Result<Node<R, S, T>, StartError> {
        let Self { id, log_store, transport } = self;
        if id == 0 {
            return Err(StartError::NodeId);
        }
        let Identity { incarnation, boot, .. } = log_store.identify(id).await?;
        let replica = Replica::new(id, incarnation);
        let boot = Boot { number: boot, tag: rt.random() };
        tracing::info!(%replica, boot = boot.number, "a node starts on its store");
        let clock = rt.clone();
        let groups = Rc::new(Groups::new(Delays::new(move || clock.coarse_now())));
        let ready = Rc::clone(&groups.ready);
        let liveness = Rc::new(Liveness::new(replica, boot, ready, OF_LIVENESS));
        let transport = Rc::new(transport);
        let beats = Beats { liveness: Rc::clone(&liveness), transport: Rc::clone(&transport) };
        groups.put_back(OF_LIVENESS, Box::new(beats));
        let (ended, outcome) = oneshot::channel();
        let parts = Rc::new(NodeParts {
            rt: rt.clone(),
            replica,
            boot,
            shared: RefCell::new(Some((Rc::new(log_store), transport))),
            groups,
            liveness,
            outcome: outcome.shared(),
        });
        let task = rt.spawn(run(Rc::clone(&parts), ended));
        Ok(Node { parts, _task: Box::new(task) })
    }
}

/// The node's task.
async fn run<R: Executor, S: LogStore, T: Transport>(
    parts: Rc<NodeParts<R, S, T>>,
    ended: oneshot::Sender<Result<(), Fatal>>,
) {
    // However this task ends, the runtime being dropped, too.
    let crash = AbandonOnDrop(Rc::clone(&parts.groups));
    let turns = Loop::new(parts.rt.clone(), Rc::clone(&parts.groups)).run();
    let turned = AssertUnwindSafe(turns).catch_unwind().await;
    let outcome = turned.unwrap_or_else(|panic| Err(bug(TaskError::from_panic(panic))));
    let replica = parts.replica;
    match &outcome {
        Ok(()) => tracing::info!(%replica, "the node has stopped"),
        Err(fatal) => tracing::error!(%replica, %fatal, "the node has stopped"),
    }
    let mut closed = crash.0.end(&outcome);
    let shared = parts.shared.take();
    if outcome.is_ok()
        && let Some((store, _)) = &shared
    {
        let (settled, late) = (pin!(store.settle()), pin!(parts.rt.sleep(SETTLES_WITHIN)));
        // The store is not the node's own.
        let settled = AssertUnwindSafe(future::select(settled, late)).catch_unwind().await;
        closed = closed.and(settled.map(drop).map_err(|panic| bug(TaskError::from_panic(panic))));
    }
    if let Err(fatal) = &closed {
        tracing::error!(%replica, %fatal, "the node has not stopped in order");
    }
    drop(shared); // Those who hear of the end may open the store again.
    let _ = ended.send(outcome.and(closed));
}

/// How long a node that ends in order waits for its store: a disk that hangs must not keep the
/// process from ending.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

impl<R: Executor, S: LogStore, T: Transport> Node<R, S, T> {
    /// Begins to describe a group that is to be opened on this node. A node may have any number of
    /// groups, each with a state machine, settings and members of its own, all within one cluster.
    /// Any number but `u64::MAX` may be the id of a group.
    ///
    /// A node opens no group by itself. One that is not opened after a restart keeps its data, and
    /// this node counts as down for the group's other members.
    ///
    /// ```no_run
    /// # use quorate_core::{Config, LogStore, Node, StartError, StateMachine, Transport};
    /// # use quorate_rt::Executor;
    /// # async fn example<R: Executor, S: LogStore, T: Transport, SM>(
    /// #     node: Node<R, S, T>, config: Config,
    /// # ) -> Result<(), StartError>
    /// # where
    /// #     SM: StateMachine<Response: Send> + Default,
    /// # {
    /// let raft = node.group(7).config(config).open(SM::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn group(&self, group: GroupId) -> GroupBuilder<'_, R, S, T> {
        GroupBuilder::new(&self.parts, group)
    }

    /// Stops a group and waits until it has ended, as [`shutdown`](Self::shutdown) does with all of
    /// them. Its data stays, and it can be opened again. A group that is not open is stopped
    /// already. [`Raft::stopped`] tells how the group has ended.
    ///
    /// # Cancellation
    /// The group stops all the same.
    pub async fn stop(&self, group: GroupId) {
        self.parts.groups.stop_group(group);
        self.parts.groups.until_gone(group).await;
    }

    /// Removes a group from this node's store: its log, its votes and its snapshots. If it is open,
    /// it is stopped first, as [`stop`](Self::stop) does. Nobody can open it meanwhile. The removal
    /// is durable when this returns, and the group is empty when it is opened again. Other groups
    /// keep their data. A group that the store does not hold is removed already.
    ///
    /// Only the data of this node is removed. The group's other members are not told, and still
    /// count this node as a member: [`Raft::change_membership`] changes that.
    ///
    /// Remove a group from a node that is no longer a member of it, or from all of its nodes.
    ///
    /// A group that has begun on this node, or has been promised to somebody, is *spent* on this
    /// store from then on: opened again it is empty, says that it was
    /// [removed](crate::Metrics::removed), and takes part in nothing, as it has forgotten entries
    /// that it acknowledged and votes that it gave. So give a new group a new number. The store
    /// keeps a few bytes for each group that was removed.
    ///
    /// # Errors
    /// [`StartError::GroupIsOpen`] if the group is being opened or removed by somebody else.
    /// [`StoreError::GroupInUse`] if another node has it open on the same store. In both cases
    /// its data stays; it may be spent by then, and is to be removed again. Otherwise the node is
    /// stopping or has ended, or the store can't be written.
    ///
    /// # Cancellation
    /// A group that is open stops all the same. It may be removed or not.
    pub async fn remove(&self, group: GroupId) -> Result<(), StartError> {
        let groups = &self.parts.groups;
        if groups.is_open(group) {
            self.stop(group).await;
        }
        let _reservation = groups.reserve(group)?;
        let Some((store, _)) = self.parts.store_and_transport() else {
            return Err(StartError::Shutdown);
        };
        spend(&store, group).await?;
        // A snapshot that the group was writing goes when the runtime gets to its cancelled task.
        for _ in 0..GOES_WITHIN {
            match store.remove(group).await {
                Err(StoreError::GroupInUse(_)) => yield_now().await,
                removed => return Ok(removed?),
            }
        }
        Ok(store.remove(group).await?)
    }
}

/// Has a store remember that a group is out of use, if it has ever been in use.
async fn spend<S: LogStore>(store: &Rc<S>, group: GroupId) -> Result<(), StoreError> {
    let Recovered { hard_state, standing, snapshot, log_meta, .. } = store.recover(group).await?;
    let _lease = Lease::new(store, group);
    let is_unused = hard_state == HardState::default()
        && standing == Standing::Empty
        && snapshot.is_none()
        && log_meta.last() == LogId::ZERO;
    if is_unused || standing == Standing::Spent {
        return Ok(());
    }
    let (sender, outcome) = oneshot::channel();
    let done = Completion::new(move |outcome| drop(sender.send(outcome)));
    let standing = Some(Box::new(Standing::Spent));
    match store.append(group, LogWrite { standing, ..LogWrite::default() }, done) {
        Appended::Durable => Ok(()),
        Appended::Pending => outcome.await.unwrap_or(Err(StoreError::Abandoned)),
    }
}

/// So many rounds of the runtime are left to the tasks of a group that was stopped. They need one.
const GOES_WITHIN: usize = 100;

impl<R, S, T> Node<R, S, T> {
    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.parts.replica.id
    }

    /// The node and its store.
    pub fn replica(&self) -> Replica {
        self.parts.replica
    }

    /// The groups that are open, in the order of their ids. Groups that are only in the store are
    /// not listed.
    pub fn groups(&self) -> Vec<GroupId> {
        self.parts.groups.ids()
    }

    /// Finds a group that is open, and returns a handle of it for this thread; none where there is
    /// no such group, or its state machine is another than `SM`. [`LocalRaft::shared`] makes one
    /// for other threads of it.
    pub fn find<SM: StateMachine>(&self, group: GroupId) -> Option<LocalRaft<SM>> {
        let mailbox = self.parts.groups.mailbox(group)?;
        Some(LocalRaft::new(mailbox.downcast::<Mailbox<SM>>().ok()?))
    }

    /// Stops the node and waits until it has ended. New requests are refused with `Shutdown`. Those
    /// that have begun are completed, and a group that leads transfers its leadership to the peer
    /// that is furthest, so that its cluster needs no election. It takes at most a
    /// [`request_timeout`](crate::Config::request_timeout); what is left then has an unknown
    /// outcome.
    ///
    /// # Errors
    /// The node had failed before, with this cause; or it, or one of its groups, failed on the way.
    ///
    /// # Cancellation
    /// Dropping the future crashes the node.
    pub async fn shutdown(self) -> Result<(), Fatal> {
        self.parts.groups.stop();
        self.stopped().await
    }

    /// Waits until the node has ended: by itself, by [`shutdown`](Node::shutdown), or by
    /// [`Raft::shutdown`]. A group that
    /// fails alone doesn't end the node: [`Raft::stopped`] tells of it.
    ///
    /// # Errors
    /// The cause, if it has failed; [`Fatal::Dropped`] if it was dropped.
    pub fn stopped(&self) -> impl Future<Output = Result<(), Fatal>> + use<R, S, T> {
        node_ended(self.parts.outcome.clone())
    }
}

impl<R, S, T> Drop for Node<R, S, T> {
    /// Its groups end within the drop: cancelling the task takes effect only when the runtime gets
    /// to it, and by then the next node may have begun on the same store and transport.
    fn drop(&mut self) {
        self.parts.groups.abandon();
        drop(self.parts.shared.take());
    }
}

/// Held by the node's task.
struct AbandonOnDrop(Rc<Groups>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl<R, S, T> fmt::Debug for Node<R, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (replica, groups) = (self.parts.replica, self.groups());
        f.debug_struct("Node").field("replica", &replica).field("groups", &groups).finish()
    }
}
