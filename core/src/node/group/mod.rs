//! One group of a node: an engine, a state machine, and those who wait for them.
//!
//! The node's loop gives it turns ([`turn`]). What a turn wants to have done and can't do at once
//! (reading the log, writing a snapshot, a slow state machine) is a task, which tells what has come
//! of it by an event.
//!
//! | file | concern |
//! | --- | --- |
//! | `turn.rs` | a turn: events and requests in, then one write, the messages and the answers |
//! | `mailbox.rs`, `shared.rs` | where everything arrives: from the node's thread, and from others |
//! | `quota.rs`, `room.rs` | bounds on what handles have under way; waiting for room there |
//! | `commands.rs`, `command_cache.rs` | decoding commands on the leader, once |
//! | `forwarding.rs`, `deadline_queue.rs` | writes on their way to the leader |
//! | `replies.rs`, `refusals.rs` | who waits for what, and the errors of those without a leader |
//! | `apply.rs` | the state machine's side: applying, reads, views and restoring |
//! | `snapshots.rs` | writing, receiving and reading snapshots |
//! | `admin.rs`, `leadership.rs` | administrative requests; those about who leads |
//! | `alarms.rs` | the deadlines of those who wait for what the metrics tell |
//! | `changes.rs` | changes of the membership that somebody waits for |
//! | `waits.rs` | why the node can't take part in the group, for metrics and the log |

mod admin;
mod alarms;
mod apply;
mod changes;
mod command_cache;
mod commands;
mod deadline_queue;
mod forwarding;
mod leadership;
pub(super) mod mailbox;
pub(super) mod quota;
mod refusals;
mod replies;
pub(super) mod room;
pub(super) mod shared;
mod snapshots;
mod turn;
mod waits;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use quorate_rt::channel::watch;
use quorate_rt::{Executor, Instant, TaskError};

use self::apply::{Applied, Applier, Apply, Applying};
use self::changes::Changes;
use self::mailbox::{End, Event, Known, Mailbox, Status};
use self::refusals::Refusals;
use self::replies::Replies;
use self::snapshots::Snapshots;
use self::turn::Stopping;
use self::waits::Waits;
use super::NodeOutcome;
use super::delays::Delays;
use super::liveness::{self, Liveness, OpenGroup};
use super::ready::{Ready, Slot};
use crate::config::Config;
use crate::engine::{Engine, Local, Output};
use crate::error::Fatal;
use crate::identity::{Replica, Standing};
use crate::log_store::{LogStore, Recovered};
use crate::message::NODE_GROUP;
use crate::metrics::{GroupState, Metrics};
use crate::state_machine::StateMachine;
use crate::transport::{Credentials, Inbox, Receiver, Transport};
use crate::types::{GroupId, Term};

pub(super) use self::admin::{Admin, Answer, answered};
pub(super) use self::commands::too_large;

/// What a group's turns work with.
pub(super) struct Group<R: Executor, SM: StateMachine, S, T> {
    rt: R,
    group: GroupId,
    engine: Engine,
    /// As the transport knows them.
    credentials: Credentials,
    store: Rc<S>,
    transport: Rc<T>,
    liveness: Rc<Liveness>,
    mailbox: Rc<Mailbox<SM>>,
    applying: Rc<Applying<SM>>,
    applier: Applier<R, SM, S>,
    replies: Rc<RefCell<Replies<SM>>>,
    refusals: Rc<Refusals>,
    metrics: Rc<watch::Sender<Metrics>>,
    status: Rc<watch::Sender<Status>>,
    delays: Rc<Delays>,
    /// When there is to be a turn even if nothing comes.
    wake_at: Option<Instant>,
    /// The last writes of those that wait for the engine's word, in order: it has not got them yet.
    proposing: Vec<Bytes>,
    /// Reads of the log under way, at most one for each peer, and the term of each.
    fetches: BTreeMap<Replica, (Term, R::Task<()>)>,
    snapshots: Snapshots<R, SM, S>,
    waits: Waits,
    changes: Changes,
    /// When the wall clock is to be read again.
    wall_at: Instant,
    /// Until when the commit index must have risen, as long as somebody waits for that.
    stalled_at: Option<Instant>,
    /// The leader of this term has refused a read, and is not asked before then.
    refused: Option<(Term, Instant)>,
    /// It was told to stop.
    stopping: Option<Stopping>,
}

/// A group, as the node's loop sees it.
pub(super) trait Turns {
    /// One turn; whether it is the last. `output` is memory, for the engine's.
    ///
    /// # Errors
    /// The group has failed, or the node: see [`Fatal::is_of_node`].
    fn turn(&mut self, now: Instant, output: &mut Option<Box<Output>>) -> Result<bool, Fatal>;

    /// When there is to be another turn even if nothing comes.
    fn wake_at(&self) -> Option<Instant>;

    /// Which group it is.
    fn group(&self) -> GroupId;
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Turns for Group<R, SM, S, T> {
    fn turn(&mut self, now: Instant, output: &mut Option<Box<Output>>) -> Result<bool, Fatal> {
        self.take_turn(now, output)
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    fn group(&self) -> GroupId {
        self.group
    }
}

/// The store's word that a group is open for this node and for nobody else. Dropping it releases
/// the group, so nothing of the group may use the store any more by then.
pub(super) struct Lease<S: LogStore> {
    store: Rc<S>,
    group: GroupId,
}

impl<S: LogStore> Lease<S> {
    /// The group has just been recovered.
    pub(super) fn new(store: &Rc<S>, group: GroupId) -> Self {
        Self { store: Rc::clone(store), group }
    }
}

impl<S: LogStore> Drop for Lease<S> {
    fn drop(&mut self) {
        self.store.release(self.group);
    }
}

/// What a node gives a group that is opened.
pub(super) struct Parts<R, S: LogStore, T> {
    pub(super) rt: R,
    pub(super) store: Rc<S>,
    pub(super) lease: Lease<S>,
    pub(super) transport: Rc<T>,
    pub(super) ready: Rc<Ready>,
    pub(super) liveness: Rc<Liveness>,
    pub(super) delays: Rc<Delays>,
    pub(super) local: Local,
    pub(super) outcome: NodeOutcome,
}

/// A group that is open, for those outside of its turns.
pub(super) struct Opened<SM: StateMachine> {
    pub(super) mailbox: Rc<Mailbox<SM>>,
    pub(super) turns: Box<dyn Turns>,
    pub(super) ends: Rc<dyn Ends>,
}

/// Opens a group on what the store has of it.
pub(super) fn open<R: Executor, SM: StateMachine, S: LogStore, T: Transport>(
    parts: Parts<R, S, T>,
    (group, slot): (GroupId, Slot),
    config: Arc<Config>,
    recovered: Recovered,
    state_machine: SM,
) -> Opened<SM> {
    let Parts { rt, store, lease, transport, ready, liveness, delays, local, outcome } = parts;
    let Local { replica, boot, cluster } = local;
    let engine = Engine::new(local, group, Arc::clone(&config), recovered, rt.random(), rt.now());
    let credentials = turn::credentials(&engine, boot);
    tracing::info!(%replica, group, state = ?credentials.state, "a group is opened");

    // What a service decides by before the group's first turn.
    let known = Metrics {
        id: replica.id,
        replica,
        boot: boot.number,
        cluster,
        membership: engine.membership().cloned(),
        removed: *engine.standing() == Standing::Spent,
        ..Metrics::default()
    };
    let (metrics, receiver) = watch::channel(known);
    let metrics = Rc::new(metrics);
    let (status, running) = watch::channel(Status::default());
    let status = Rc::new(status);
    let known = Known { id: replica.id, group, metrics: receiver, status: running, node: outcome };
    let mailbox = Rc::new(Mailbox::new(known, config, ready, slot, Rc::clone(&liveness)));
    // Before the group: a transport that knows one inbox only keeps the last, and a group's takes
    // what is for the node and for other groups as well.
    let open = Rc::clone(&mailbox) as Rc<dyn OpenGroup>;
    if liveness.open(group, &mailbox.config(), open) {
        let credentials = liveness::credentials(replica, boot);
        transport.attach(NODE_GROUP, credentials, liveness::inbox(&liveness));
    }
    let applying = Rc::new(Applying::new());
    let replies = Rc::new(RefCell::new(Replies::default()));
    let refusals = Rc::new(Refusals::new(Rc::clone(&metrics)));
    let ends = Rc::new(Ending {
        group,
        replica,
        mailbox: Rc::clone(&mailbox),
        applying: Rc::clone(&applying),
        replies: Rc::clone(&replies),
        transport: Rc::clone(&transport),
        liveness: Rc::clone(&liveness),
        metrics: Rc::clone(&metrics),
        status: Rc::clone(&status),
        lease: Cell::new(Some(lease)),
    });
    transport.attach(group, credentials, Inbox::of(Rc::clone(&mailbox) as Rc<dyn Receiver>));
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
    let snapshots = Snapshots::new(rt.clone(), group, Rc::clone(&store), Rc::clone(&mailbox));
    let turns = Group {
        applier: Applier::new(rt.clone(), apply),
        wall_at: rt.now(),
        rt,
        group,
        engine,
        credentials,
        store,
        transport,
        liveness,
        mailbox: Rc::clone(&mailbox),
        applying,
        replies,
        refusals,
        metrics,
        status,
        delays,
        wake_at: None,
        proposing: Vec::new(),
        fetches: BTreeMap::new(),
        snapshots,
        waits: Waits::default(),
        changes: Changes::default(),
        stalled_at: None,
        refused: None,
        stopping: None,
    };
    mailbox.raise(); // Its first turn arms its timer.
    Opened { mailbox, turns: Box::new(turns), ends }
}

/// Whom a group leaves behind, for the node, which does not know its kind. Its turns, and with them
/// its tasks, must have been dropped before it ends: the store may be another node's from then on.
pub(super) trait Ends {
    /// Tells the group to stop in order.
    fn stop(&self);

    /// The group has come to this, of which all who wait for it are told. Only the first call has
    /// an effect.
    fn end(&self, outcome: Result<(), Fatal>);
}

/// Leaves nobody waiting and nothing attached, however the group ends.
struct Ending<SM: StateMachine, S: LogStore, T: Transport> {
    group: GroupId,
    replica: Replica,
    mailbox: Rc<Mailbox<SM>>,
    applying: Rc<Applying<SM>>,
    replies: Rc<RefCell<Replies<SM>>>,
    transport: Rc<T>,
    liveness: Rc<Liveness>,
    metrics: Rc<watch::Sender<Metrics>>,
    status: Rc<watch::Sender<Status>>,
    /// Given up before anybody hears of the end: whoever does may open the group again. None once
    /// it has ended.
    lease: Cell<Option<Lease<S>>>,
}

impl<SM: StateMachine, S: LogStore, T: Transport> Ending<SM, S, T> {
    fn close(&self, end: &End) {
        self.mailbox.close(end);
        let reads = self.applying.take_reads();
        // Taken out first: an answer may run code of whoever waits for it.
        let replies = self.replies.take();
        reads.into_iter().for_each(|(_, read)| read(Err(end.into())));
        replies.abandon(end);
        let term = self.metrics.borrow().term;
        if self.liveness.forget(self.group, term) {
            self.transport.detach(NODE_GROUP);
        }
        self.transport.detach(self.group);
    }
}

impl<SM: StateMachine, S: LogStore, T: Transport> Ends for Ending<SM, S, T> {
    fn stop(&self) {
        self.mailbox.event(Event::Stop);
    }

    fn end(&self, outcome: Result<(), Fatal>) {
        let Some(lease) = self.lease.take() else { return };
        drop(lease);
        let (replica, group) = (self.replica, self.group);
        match &outcome {
            Ok(()) => tracing::info!(%replica, group, "the group has stopped"),
            Err(Fatal::Dropped) => {} // A crash that is meant. Its process may be ending.
            Err(fatal) => tracing::error!(%replica, group, %fatal, "the group has stopped"),
        }
        let state = GroupState::from(outcome.clone());
        self.metrics.send_modify(|metrics| metrics.end(state.clone()));
        self.close(&outcome.into());
        self.status.send_modify(|status| status.state = state);
    }
}

/// A task of the node, or what it has called, has panicked.
pub(super) fn bug(error: TaskError) -> Fatal {
    Fatal::Bug(error.to_string())
}
