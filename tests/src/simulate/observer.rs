//! Sees what the nodes do, keeps the model of it, and has the checks look at it. The first thing
//! that does not hold ends the run.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use quorate::Executor;
use quorate::rt::channel::watch;
use quorate::sim::{Disk, DiskImage, Generator, Host, Sim, current};
use quorate::{
    Body, Boot, Credentials, Fatal, Identity, Inbox, LogWrite, Memory, Message, Metrics, NodeId,
    Payload, Recovered, Replica, Role, SnapshotMeta, StartError,
};

use super::asked::Changes;
use super::checks::{self, Check, Observation, Verdict};
use super::faults::Fault;
use super::history::History;
use super::model::{Committed, Model, NodeModel, Seal, Written};
use super::plan::Plan;

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that says so.
    pub check: &'static str,
    pub what: String,
    /// When, from the begin of the simulation.
    pub at: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {:?}): {}", self.check, self.at, self.what)
    }
}

type AtTransfer = Box<dyn FnOnce(NodeId)>;
type Filter = Box<dyn FnMut(&Message) -> bool>;

pub struct Observer {
    plan: Plan,
    inner: RefCell<Inner>,
    violation: RefCell<Option<Violation>>,
    metrics: RefCell<BTreeMap<NodeId, watch::Receiver<Metrics>>>,
    hosts: RefCell<BTreeMap<NodeId, Host>>,
    draw: Generator,
    /// What happens as the next node is told to campaign.
    at_transfer: RefCell<Option<AtTransfer>>,
    /// Which messages reach the network, if not all do.
    filter: RefCell<Option<Filter>>,
    /// Whose next snapshot takes how long to become durable.
    draft_rests: Cell<Option<(NodeId, Duration)>>,
    /// Where messages for each node are delivered.
    inboxes: RefCell<BTreeMap<NodeId, Inbox>>,
    /// No check looks any more.
    looks_away: Cell<bool>,
    /// The nodes that have stopped because somebody has forgotten something.
    noticed: RefCell<BTreeSet<NodeId>>,
    /// The latest boot of each replica.
    boots: RefCell<BTreeMap<Replica, Boot>>,
    /// Some of what was sent, and in which boot, to come once more.
    sent: RefCell<Vec<(Message, Boot)>>,
    late: Generator,
    pub history: RefCell<History>,
    pub changes: RefCell<Changes>,
    /// What was seen, told in words, if that is wanted.
    story: RefCell<Option<Vec<String>>>,
    looks: Cell<u64>,
    /// How many writes were handed to stores.
    writes: Cell<u64>,
}

struct Inner {
    model: Model,
    checks: Vec<Box<dyn Check>>,
}

/// The time of the simulation.
pub fn now() -> Duration {
    current().map_or(Duration::ZERO, |(now, _)| now)
}

impl Observer {
    pub fn new(plan: &Plan, tells: bool) -> Rc<Self> {
        Rc::new(Self {
            plan: plan.clone(),
            inner: RefCell::new(Inner {
                model: Model::new(plan.nodes + plan.spares),
                checks: checks::all(plan),
            }),
            violation: RefCell::default(),
            metrics: RefCell::default(),
            hosts: RefCell::default(),
            draw: Generator::new(plan.seed, "observer"),
            at_transfer: RefCell::default(),
            filter: RefCell::default(),
            draft_rests: Cell::new(None),
            inboxes: RefCell::default(),
            looks_away: Cell::new(false),
            noticed: RefCell::default(),
            boots: RefCell::default(),
            sent: RefCell::default(),
            late: Generator::new(plan.seed, "late messages"),
            history: RefCell::default(),
            changes: RefCell::default(),
            story: RefCell::new(tells.then(Vec::new)),
            looks: Cell::new(0),
            writes: Cell::new(0),
        })
    }

    pub fn set_host(&self, node: NodeId, host: Host) {
        self.hosts.borrow_mut().insert(node, host);
    }

    /// What does not hold, if anything doesn't.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    pub fn has_violation(&self) -> bool {
        self.violation.borrow().is_some()
    }

    /// How often a check has looked at something.
    pub fn looks(&self) -> u64 {
        self.looks.get()
    }

    /// Checks what the clients have been answered so far.
    pub fn look_at_history(&self) {
        let verdict = checks::linearizable::check(self.history.borrow().operations());
        self.accuse("linearizable", verdict, now());
    }

    /// Checks what those who have asked for changes of the membership were answered.
    pub fn look_at_changes(&self) {
        let verdict = self.with_model(|model| self.changes.borrow().check(model));
        self.accuse("changes", verdict, now());
    }

    /// From now on no check looks, as a disk has broken its promises. What the run itself waits for
    /// is all that still counts.
    pub fn look_away(&self) {
        self.noticed.borrow_mut().clear(); // A lie may have been taken for that.
        self.looks_away.set(true);
    }

    pub fn looks_away(&self) -> bool {
        self.looks_away.get()
    }

    /// Whether a node has stopped because it, or others, have forgotten something.
    pub fn has_noticed(&self, node: NodeId) -> bool {
        self.noticed.borrow().contains(&node)
    }

    /// Notes what does not hold, unless something else didn't before.
    pub fn accuse(&self, check: &'static str, verdict: Verdict, at: Duration) {
        if self.looks_away() && check != "liveness" {
            return;
        }
        if let Err(what) = verdict {
            self.tell(at, || format!("VIOLATION of {check}: {what}"));
            self.violation.borrow_mut().get_or_insert(Violation { check, what, at });
        }
    }

    /// Adds to the story, if there is one.
    pub fn tell(&self, at: Duration, what: impl FnOnce() -> String) {
        if let Some(story) = &mut *self.story.borrow_mut() {
            story.push(format!("{:>12.6} {}", at.as_secs_f64(), what()));
        }
    }

    pub fn take_story(&self) -> Vec<String> {
        self.story.borrow_mut().take().unwrap_or_default()
    }

    pub fn with_model<T>(&self, look: impl FnOnce(&Model) -> T) -> T {
        look(&self.inner.borrow().model)
    }

    pub fn change_model(&self, change: impl FnOnce(&mut Model)) {
        if self.looks_away() {
            return;
        }
        change(&mut self.inner.borrow_mut().model);
    }

    fn observe(&self, seen: &Observation<'_>) {
        if self.looks_away() {
            return;
        }
        let Inner { model, checks } = &mut *self.inner.borrow_mut();
        self.show(seen, model, checks, now);
    }

    /// (That is most of what a run does: the time is told only where there is something to say.)
    fn show(
        &self,
        seen: &Observation<'_>,
        model: &Model,
        checks: &mut [Box<dyn Check>],
        at: impl Fn() -> Duration,
    ) {
        self.looks.update(|looks| looks + checks.len() as u64);
        for check in checks {
            if let verdict @ Err(_) = check.observe(seen, model) {
                self.accuse(check.name(), verdict, at());
            }
        }
    }

    // What the nodes do.

    pub fn identified(&self, node: NodeId, identity: &Identity) {
        self.tell(now(), || format!("node {node} has the store {identity:?}"));
        self.observe(&Observation::Identified { node, identity });
        self.change_model(|model| {
            if let Some(of) = model.nodes.get_mut(&node) {
                of.identity = Some(*identity);
            }
        });
    }

    pub fn recovered(&self, node: NodeId, life: u32, recovered: &Recovered) {
        self.tell(now(), || {
            let Recovered { hard_state, standing, marks, snapshot, log_meta } = recovered;
            let snapshot = snapshot.as_ref().map(|meta| meta.log_id);
            let (purged, last) = (log_meta.purged(), log_meta.last());
            let committed = marks.committed;
            format!(
                "node {node} starts: {hard_state:?}, {standing:?}, snapshot {snapshot:?}, \
                 log {purged} to {last}, committed to {committed} at least"
            )
        });
        self.observe(&Observation::Recovered { node, recovered });
        self.change_model(|model| {
            model.copied.remove(&node);
            let replicas: BTreeMap<_, _> =
                model.remembering.keys().map(|of| (*of, model.replica(*of))).collect();
            let Model { nodes, entries, .. } = model;
            if let Some(of) = nodes.get_mut(&node) {
                of.start(life, recovered, entries);
            }
            // What it has not noted durably it does not remember any more.
            for (of, remembering) in &mut model.remembering {
                let known = replicas[of].and_then(|replica| recovered.marks.memories.get(&replica));
                let forgets = nodes
                    .get(of)
                    .zip(known)
                    .is_none_or(|(of, memory)| !of.durable.lacks(node, memory));
                if forgets {
                    remembering.remove(&node);
                }
            }
        });
        // What a store has found is as durable as what it has written.
        self.look_for_durable(node, |disk| disk.durable());
    }

    /// A write is handed to a store. Returns its number.
    pub fn submits(&self, node: NodeId, write: &LogWrite) -> u64 {
        if self.tries_a_recovery(node) {
            self.look_for_durable(node, |disk| disk.torn(&self.draw));
        }
        self.observe(&Observation::Submits { node, write });
        let number = self.writes.get() + 1;
        self.writes.set(number);
        let written = Written::of(number, write);
        self.change_model(|model| {
            for entry in &write.entries {
                if let Payload::Membership(membership) = &entry.payload {
                    model.configurations.insert(entry.log_id, membership.clone());
                }
            }
            for seal in &written.entries {
                model.entries.insert(seal.log_id, *seal);
            }
            if let Some(of) = model.nodes.get_mut(&node) {
                of.submit(written);
            }
        });
        number
    }

    /// A store has called this write durable.
    pub fn durable(&self, node: NodeId, number: u64) {
        self.change_model(|model| {
            if let Some(of) = model.nodes.get_mut(&node) {
                of.complete(number);
            }
        });
        self.observe(&Observation::Durable { node });
        if self.tries_a_recovery(node) {
            self.look_for_durable(node, |disk| disk.durable());
        }
    }

    fn tries_a_recovery(&self, node: NodeId) -> bool {
        // (The first of both says no nearly always, and costs nothing.)
        self.draw.chance(self.plan.recoveries)
            && self.hosts.borrow().get(&node).is_some_and(|host| {
                let used = host.disk().used().max(1);
                self.draw.chance(RECOVERED_BYTES / used as f64)
            })
    }

    /// Looks whether all that is called durable would be found if the power went now, and left this
    /// on the disk.
    fn look_for_durable(&self, node: NodeId, image: impl FnOnce(&Disk) -> DiskImage) {
        let Some(host) = self.hosts.borrow().get(&node).cloned() else { return };
        let image = image(&host.disk());
        let file = self.plan.file.clone();
        let recovered = checks::recoverable::recover(&image, DATA, file, node);
        let verdict = self.with_model(|model| match recovered {
            // A disk that is known to be bad is another matter.
            _ if model.nodes[&node].is_bad => Ok(()),
            Ok((identity, recovered)) => {
                checks::recoverable::holds(&model.nodes[&node], &identity, &recovered)
            }
            Err(error) => Err(error),
        });
        let verdict = verdict.map_err(|reason| format!("on the disk of node {node}: {reason}"));
        self.accuse("recoverable", verdict, now());
    }

    pub fn finished(&self, node: NodeId, meta: &SnapshotMeta) {
        self.tell(now(), || format!("node {node} has finished a snapshot at {}", meta.log_id));
        self.observe(&Observation::Finished { node, meta });
    }

    /// The next snapshot of a node takes so long to become durable, though the rest of its disk is
    /// as fast as ever.
    pub fn next_draft_rests(&self, node: NodeId, pause: Duration) {
        self.draft_rests.set(Some((node, pause)));
    }

    /// What it takes a snapshot to become durable, beyond the usual.
    pub async fn while_finishing(&self, rt: &Sim, node: NodeId) {
        if let Some((of, pause)) = self.draft_rests.get()
            && of == node
        {
            self.draft_rests.set(None);
            rt.sleep(pause).await;
        }
    }

    pub fn receives(&self, node: NodeId, message: &Message) {
        self.observe(&Observation::Receives { node, message });
    }

    pub fn attached(&self, node: NodeId, credentials: &Credentials, inbox: Inbox) {
        self.boots.borrow_mut().insert(credentials.replica, credentials.boot);
        self.inboxes.borrow_mut().insert(node, inbox);
    }

    /// What a node remembers of a replica; none if it doesn't run, or does not answer in a moment.
    pub async fn recall(&self, rt: &Sim, node: NodeId, of: Replica) -> Option<Memory> {
        let inbox = self.inboxes.borrow().get(&node).cloned()?;
        rt.timeout(Duration::from_millis(20), inbox.recall(of)).await.unwrap_or(None)
    }

    /// Whether what a node sends to this one is lost: its disk was put back, and that one does not
    /// remember what it has forgotten.
    pub fn is_muted(&self, node: NodeId, to: NodeId) -> bool {
        self.with_model(|model| {
            model.remembering.get(&node).is_some_and(|remembering| !remembering.contains_key(&to))
        })
    }

    /// The disk of a node, which is down, was put back to what it was then. These peers remember
    /// what it has forgotten.
    pub fn put_back(
        &self,
        node: NodeId,
        earlier: &NodeModel,
        boot: u64,
        remembering: BTreeMap<NodeId, Memory>,
    ) {
        self.change_model(|model| {
            model.put_back(node, earlier, !remembering.is_empty());
            if !remembering.is_empty() {
                model.remembering.insert(node, remembering);
            }
        });
        self.observe(&Observation::PutBack { node, boot });
    }

    /// Whether the next message is to be kept.
    pub fn is_to_keep(&self) -> bool {
        self.plan.has(Fault::LateMessages) && self.late.chance(KEEPS)
    }

    /// Keeps what was sent, to be sent again.
    pub fn keep(&self, message: Message) {
        let mut sent = self.sent.borrow_mut();
        let boot = self.boot_of(message.from);
        let kept = (message, boot);
        match sent.len() < MAX_KEPT {
            true => sent.push(kept),
            false => {
                let place = self.late.index(MAX_KEPT);
                sent[place] = kept;
            }
        }
    }

    pub fn boot_of(&self, replica: Replica) -> Boot {
        self.boots.borrow().get(&replica).copied().unwrap_or_default()
    }

    /// Delivers a message once more that was sent at any time, to whatever store its node has now.
    /// Whether there was one.
    pub fn deliver_late(&self) -> bool {
        let (message, boot) = {
            let sent = self.sent.borrow();
            if sent.is_empty() {
                return false;
            }
            self.late.choose(&sent).clone()
        };
        let is_put_back = self.is_put_back(message.to.id);
        // A leader takes an answer of this kind for a sign of life of a disk that it exchanges,
        // gives that up, and can't let the new disk in later, which is not empty any more.
        let is_sign_of_life =
            matches!(message.body, Body::AppendReply { .. } | Body::SnapshotReply { .. })
                && self.with_model(|model| model.replica(message.from.id) != Some(message.from));
        !is_put_back && !is_sign_of_life && self.deliver(message, boot)
    }

    /// Delivers a message that nobody has sent. Whether there was a node for it.
    pub fn forge(&self, message: Message) -> bool {
        if self.is_put_back(message.to.id) || self.looks_away() {
            return false;
        }
        let boot = self.boot_of(message.from);
        self.deliver(message, boot)
    }

    /// A disk that was put back may hear of a peer only after that has told what it remembers.
    fn is_put_back(&self, node: NodeId) -> bool {
        self.with_model(|model| {
            model.nodes.get(&node).is_none_or(|of| of.is_put_back)
                || model.remembering.contains_key(&node)
        })
    }

    /// Delivers a message that was sent in that boot, to whatever store its node has now. Whether
    /// there was one.
    pub fn deliver(&self, message: Message, boot: Boot) -> bool {
        let node = message.to.id;
        let inbox = self.inboxes.borrow().get(&node).cloned();
        let runs = self.hosts.borrow().get(&node).is_some_and(Host::is_running);
        let Some(inbox) = inbox.filter(|_| runs) else { return false };
        self.tell(now(), || format!("node {node} is told {message:?}"));
        let from = message.from;
        inbox.met(from, boot);
        inbox.deliver(message);
        inbox.met(from, self.boot_of(from));
        true
    }

    /// The only disk that knew of the cluster is lost, and with it all that was known of that.
    pub fn forget_cluster(&self) {
        let Inner { model, checks } = &mut *self.inner.borrow_mut();
        model.lost.clear();
        model.configurations.clear();
        model.entries.clear();
        model.committed.clear();
        model.was_founded = false;
        for (check, new) in checks.iter_mut().zip(checks::all(&self.plan)) {
            if !check.is_of_stores() {
                *check = new;
            }
        }
    }

    /// Everything begins anew: all disks are empty.
    pub fn reset(&self) {
        let mut inner = self.inner.borrow_mut();
        let mut model = Model::new(self.plan.nodes);
        // The content is another, and not the disk.
        for (id, of) in &mut model.nodes {
            of.may_fail = inner.model.nodes[id].may_fail;
        }
        *inner = Inner { model, checks: checks::all(&self.plan) };
        self.sent.borrow_mut().clear();
        self.inboxes.borrow_mut().clear();
        self.metrics.borrow_mut().clear();
    }

    pub fn sends(&self, node: NodeId, message: &Message) {
        self.tell(now(), || format!("node {node} sends {message:?}"));
        self.observe(&Observation::Sends { node, message });
        // Who stops in the turn in which it was elected is never seen as the leader.
        if matches!(message.body, Body::Append { .. }) && !self.looks_away() {
            let model = &mut self.inner.borrow_mut().model;
            model.led.entry((message.cluster, message.term)).or_insert(node);
        }
        if matches!(message.body, Body::TimeoutNow { .. })
            && let Some(act) = self.at_transfer.take()
        {
            act(message.to.id);
        }
    }

    /// Does that when the next node is told to take over, before it hears of it.
    pub fn at_next_transfer(&self, act: impl FnOnce(NodeId) + 'static) {
        self.at_transfer.replace(Some(Box::new(act)));
    }

    /// From now on only those messages reach the network for which this says yes. What it keeps of
    /// the others it may have delivered later.
    pub fn filter(&self, passes: impl FnMut(&Message) -> bool + 'static) {
        self.filter.replace(Some(Box::new(passes)));
    }

    /// All messages reach the network again.
    pub fn unfilter(&self) {
        self.filter.replace(None);
    }

    /// Forgets what it was asked to do: that may hold the cluster, which holds the observer. (A
    /// leadership transfer that is waited for may never come.)
    pub fn release(&self) {
        self.unfilter();
        self.at_transfer.replace(None);
    }

    pub fn passes(&self, message: &Message) -> bool {
        self.filter.borrow_mut().as_mut().is_none_or(|passes| passes(message))
    }

    pub fn applied(&self, node: NodeId, count: u64, chain: u32) {
        self.observe(&Observation::Applied { node, count, chain });
    }

    /// What a state machine takes for a command.
    pub async fn while_applying(&self, rt: &Sim) {
        if self.draw.chance(self.plan.slow_applying) {
            rt.sleep(self.draw.duration(&SLOWLY)).await;
        }
    }

    pub fn restored(&self, node: NodeId, count: u64, chain: u32) {
        self.tell(now(), || format!("node {node} restores a snapshot of {count} commands"));
        self.observe(&Observation::Restored { node, count, chain });
    }

    pub fn refused(&self, node: NodeId, error: &StartError) {
        self.tell(now(), || format!("node {node} does not start: {error}"));
        self.observe(&Observation::Refused { node, error });
    }

    pub fn ended(&self, node: NodeId, outcome: &Result<(), Fatal>) {
        self.tell(now(), || format!("node {node} ends: {outcome:?}"));
        if matches!(outcome, Err(Fatal::RolledBack { .. })) {
            self.noticed.borrow_mut().insert(node);
        }
        self.observe(&Observation::Ended { node, outcome });
        self.is_down(node);
    }

    /// A process was killed.
    pub fn died(&self, node: NodeId, how: &str) {
        self.tell(now(), || format!("node {node} dies: {how}"));
        self.observe(&Observation::Died { node });
        self.is_down(node);
    }

    /// Whether the node of a process was started, and nothing was seen of its end.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.metrics.borrow().contains_key(&node)
    }

    fn is_down(&self, node: NodeId) {
        self.metrics.borrow_mut().remove(&node);
        self.inboxes.borrow_mut().remove(&node);
        self.change_model(|model| {
            if let Some(of) = model.nodes.get_mut(&node) {
                of.life = None;
            }
        });
    }

    pub fn watch(&self, node: NodeId, metrics: watch::Receiver<Metrics>) {
        self.metrics.borrow_mut().insert(node, metrics);
    }

    /// A node's process has had its turn: looks whether it tells something new.
    pub fn look(&self, node: NodeId, at: Duration) {
        let now = {
            let metrics = self.metrics.borrow();
            let Some(metrics) = metrics.get(&node).map(watch::Receiver::borrow) else { return };
            let known = &self.inner.borrow().model.nodes[&node].metrics;
            if metrics.contradictions > 0 {
                self.noticed.borrow_mut().insert(node);
            }
            if is_same(known, &metrics) {
                return;
            }
            Metrics::clone(&metrics)
        };
        self.turned(node, now, at);
    }

    fn turned(&self, node: NodeId, now: Metrics, at: Duration) {
        let (role, term, leader, cluster) = (now.role, now.term, now.leader, now.cluster);
        let (before, new) = {
            let model = &mut self.inner.borrow_mut().model;
            let Some(of) = model.nodes.get_mut(&node) else { return };
            let committed = now.committed;
            let before = std::mem::replace(&mut of.metrics, now);
            if role == Role::Leader {
                model.led.entry((cluster, term)).or_insert(node);
            }
            let first = model.committed.len() as u64 + 1;
            let seals = (first..=committed).map(|index| {
                let covered = Seal { log_id: of.submitted.purged, ..Seal::NONE };
                of.submitted.get(index).copied().unwrap_or(covered)
            });
            let new: Vec<_> = seals.map(|seal| Committed { seal, term }).collect();
            model.committed.extend(&new);
            (before, new)
        };
        if (before.role, before.term, before.leader) != (role, term, leader) {
            self.tell(at, || {
                format!("node {node} is a {role} in term {term}, of leader {leader:?}")
            });
        }
        let Inner { model, checks } = &mut *self.inner.borrow_mut();
        let now = &model.nodes[&node].metrics;
        self.show(&Observation::Turned { node, before: &before, now }, model, checks, || at);
        if !new.is_empty() {
            self.show(&Observation::Committed { node, entries: &new }, model, checks, || at);
        }
    }
}

/// How likely a message is kept to come again, and how many are.
const KEEPS: f64 = 0.05;
const MAX_KEPT: usize = 200;

/// A recovery reads all that a disk holds: the more that is, the rarer it is tried, so that each
/// chance reads no more than this on the average. (Otherwise most of the time goes into a few disks
/// that are large.)
const RECOVERED_BYTES: f64 = 64.0 * 1024.0;

/// How long a state machine is at a command that takes it a while.
const SLOWLY: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(50);

/// The directory of a node's store, on its own disk.
pub const DATA: &str = "/data";

/// Whether nothing that the checks look at has changed.
fn is_same(one: &Metrics, other: &Metrics) -> bool {
    one.id == other.id
        && one.role == other.role
        && one.term == other.term
        && one.leader == other.leader
        && one.last_log_id == other.last_log_id
        && one.durable == other.durable
        && one.committed == other.committed
        && one.applied == other.applied
        && one.snapshot == other.snapshot
        && one.purged == other.purged
        && one.peers == other.peers
}
