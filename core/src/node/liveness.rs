//! What nodes say to each other for all of their groups: that they are alive, in which boot, and
//! what their replicas are no more. It is one message for each pair of nodes and heartbeat
//! interval. What follows from it is told to the groups, only when it changes; the rules by which
//! they count on it are in [`engine::liveness`](crate::engine).
//!
//! To the node's loop it is a group of its own, without a log.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use quorate_rt::Instant;

use super::group::Turns;
use super::ready::{Ready, Slot};
use crate::config::Config;
use crate::engine::{Input, Output, least_heard};
use crate::error::Fatal;
use crate::identity::{Boot, ClusterId, Memory, Replica};
use crate::message::{Alive, Body, Departure, Message, NODE_GROUP};
use crate::transport::{Credentials, Inbox, Receiver, StoreState, Transport};
use crate::types::{GroupId, Term};

/// So many messages wait for a turn, of at most 64 KiB each. Each peer sends one in a heartbeat
/// interval; what is beyond is repeated.
const MAX_WAITING: usize = 1024;

/// The part that groups and the transport reach.
pub(super) struct Liveness {
    own: Replica,
    boot: Boot,
    ready: Rc<Ready>,
    slot: Slot,
    state: RefCell<State>,
    inbox: RefCell<VecDeque<Message>>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<GroupId, Group>,
    peers: BTreeMap<Replica, Peer>,
    /// Groups that have been opened in this boot, once or more.
    opened: BTreeSet<GroupId>,
    cluster: Option<ClusterId>,
    /// The shortest heartbeat interval of a group, and the longest election timeout; and whether
    /// groups have come or gone since.
    interval: Duration,
    timeout: Duration,
    is_outdated: bool,
    /// The number of the last departure.
    departed: u64,
    /// When the next messages are due; none while there is nobody to send them to.
    beat_at: Option<Instant>,
    /// The last turn came late, and did not look for silent nodes.
    was_late: bool,
}

/// A group that is told what becomes of its peers' nodes.
struct Group {
    peers: Vec<Replica>,
    /// It was open before, in this boot, and peers may take it for what it was then.
    begins_anew: bool,
    interval: Duration,
    timeout: Duration,
    open: Rc<dyn OpenGroup>,
}

/// A group that is open, of whatever state machine.
pub(super) trait OpenGroup {
    /// Something has become of the node of a member.
    fn hear_of_node(&self, input: Input);

    /// A message for the group has come.
    fn deliver(&self, message: Message);
}

/// The node of a replica.
#[derive(Default)]
struct Peer {
    /// How many groups name it.
    groups: usize,
    /// In which boot it was heard last, and when.
    heard: Option<(Boot, Instant)>,
    /// As the groups know it.
    is_alive: bool,
    /// The number of the last of its departures that was heard, in that boot.
    departed: u64,
    /// Departures of this node of which it may not have heard: the last one of each group, with its
    /// number.
    departures: BTreeMap<GroupId, (u64, Term)>,
    /// Some of them have not been sent yet.
    is_urgent: bool,
}

impl Liveness {
    pub(super) fn new(own: Replica, boot: Boot, ready: Rc<Ready>, slot: Slot) -> Self {
        let (state, inbox) = (RefCell::default(), RefCell::default());
        Self { own, boot, ready, slot, state, inbox }
    }

    /// A group is opened. It has no peers yet. Returns whether it is the only one.
    pub(super) fn open(&self, group: GroupId, config: &Config, open: Rc<dyn OpenGroup>) -> bool {
        let (interval, timeout) = (config.heartbeat_interval, config.election_timeout);
        let state = &mut *self.state.borrow_mut();
        let (peers, begins_anew) = (Vec::new(), !state.opened.insert(group));
        state.groups.insert(group, Group { peers, begins_anew, interval, timeout, open });
        state.is_outdated = true;
        state.groups.len() == 1
    }

    /// An open group has other timeouts from now on.
    pub(super) fn set_times(&self, group: GroupId, config: &Config) {
        let state = &mut *self.state.borrow_mut();
        let Some(of) = state.groups.get_mut(&group) else { return };
        (of.interval, of.timeout) = (config.heartbeat_interval, config.election_timeout);
        state.is_outdated = true;
        self.ready.add(self.slot);
    }

    /// The peers of an open group, whose replica is in this term, are these from now on.
    pub(super) fn set_peers(
        &self,
        group: GroupId,
        term: Term,
        cluster: Option<ClusterId>,
        peers: Vec<Replica>,
    ) {
        let state = &mut *self.state.borrow_mut();
        state.cluster = state.cluster.or(cluster);
        let Some(of) = state.groups.get_mut(&group) else { return };
        for replica in &peers {
            let peer = state.peers.entry(*replica).or_default();
            peer.groups += 1;
            if let Some((boot, _)) = peer.heard.filter(|_| peer.is_alive) {
                of.open.hear_of_node(Input::NodeIsAlive { replica: *replica, boot });
            }
        }
        let before = mem::replace(&mut of.peers, peers);
        let begins_anew = mem::take(&mut of.begins_anew);
        state.release(&before);
        if begins_anew {
            state.depart(group, term);
        }
        self.ready.add(self.slot);
    }

    /// A group has ended, whose replica was in this term. Returns whether it was the last one.
    pub(super) fn forget(&self, group: GroupId, term: Term) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.depart(group, term);
        let Some(of) = state.groups.remove(&group) else { return false };
        state.release(&of.peers);
        state.is_outdated = true;
        self.ready.add(self.slot);
        state.groups.is_empty()
    }

    /// Brings a message to its group, from an inbox of whichever group. That of a group that is not
    /// open is dropped.
    pub(super) fn route(&self, message: Message) {
        if message.group == NODE_GROUP {
            let mut inbox = self.inbox.borrow_mut();
            if inbox.len() < MAX_WAITING {
                inbox.push_back(message);
                self.ready.add(self.slot);
            }
            return;
        }
        let open = self.state.borrow().groups.get(&message.group).map(|of| Rc::clone(&of.open));
        match open {
            Some(open) => open.deliver(message),
            None => tracing::debug!(group = message.group, "dropped a message: no such group"),
        }
    }

    /// How many groups are open.
    pub(super) fn groups(&self) -> usize {
        self.state.borrow().groups.len()
    }

    /// What this node's replica of a group was in this term, it is no more.
    pub(super) fn departed(&self, group: GroupId, term: Term) {
        self.state.borrow_mut().depart(group, term);
        self.ready.add(self.slot);
    }
}

impl State {
    fn depart(&mut self, group: GroupId, term: Term) {
        self.departed += 1;
        let Some(of) = self.groups.get(&group) else { return };
        for replica in &of.peers {
            if let Some(peer) = self.peers.get_mut(replica) {
                peer.departures.insert(group, (self.departed, term));
                peer.is_urgent = true;
            }
        }
    }

    fn look_at_times(&mut self, now: Instant) {
        if !mem::take(&mut self.is_outdated) {
            return;
        }
        let before = self.timeout;
        self.interval = self.groups.values().map(|group| group.interval).min().unwrap_or_default();
        self.timeout = self.groups.values().map(|group| group.timeout).max().unwrap_or_default();
        self.beat_at = self.beat_at.map(|at| at.min(now + self.interval));
        if self.timeout < before {
            let least = least_heard(now, self.interval, self.timeout);
            let alive = self.peers.values_mut().filter(|peer| peer.is_alive);
            alive.filter_map(|peer| peer.heard.as_mut()).for_each(|(_, at)| *at = least.max(*at));
        }
    }

    /// A group names these no more.
    fn release(&mut self, peers: &[Replica]) {
        for replica in peers {
            if let Some(peer) = self.peers.get_mut(replica) {
                peer.groups -= 1;
            }
        }
        self.peers.retain(|_, peer| peer.groups > 0);
    }

    /// Tells all groups that name a replica.
    fn tell(&self, replica: Replica, input: &Input) {
        let naming = self.groups.values().filter(|group| group.peers.contains(&replica));
        naming.for_each(|group| group.open.hear_of_node(input.clone()));
    }

    fn on_message(&mut self, now: Instant, boot: Boot, message: Message) {
        let Message { from, cluster, body: Body::Alive(alive), .. } = message else { return };
        let is_foreign = matches!((cluster, self.cluster), (Some(a), Some(b)) if a != b);
        let Some(peer) = self.peers.get_mut(&from).filter(|_| !is_foreign) else { return };
        let Alive { boot: of, heard: (in_boot, number), last, departures } = *alive;
        if peer.heard.is_some_and(|(before, _)| before.number > of.number) {
            return; // It comes late.
        }
        if in_boot == boot.number {
            peer.departures.retain(|_, (departure, _)| *departure > number);
        }
        let is_same = peer.heard.is_some_and(|(before, _)| before == of);
        if !is_same {
            peer.departed = 0;
        }
        peer.heard = Some((of, now));
        let is_news = !mem::replace(&mut peer.is_alive, true) || !is_same;
        let has_departures = last > peer.departed;
        peer.departed = peer.departed.max(last);
        if is_news {
            self.tell(from, &Input::NodeIsAlive { replica: from, boot: of });
        }
        for Departure { group, term } in departures.into_iter().filter(|_| has_departures) {
            if let Some(group) = self.groups.get(&group).filter(|g| g.peers.contains(&from)) {
                group.open.hear_of_node(Input::PeerHasLeft { replica: from, term });
            }
        }
    }

    /// Finds the nodes that have been silent for too long.
    fn look(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for (replica, peer) in &mut self.peers {
            if let Some((_, heard)) = peer.heard
                && peer.is_alive
                && heard + self.timeout <= now
            {
                peer.is_alive = false;
                silent.push((*replica, heard));
            }
        }
        for (replica, heard) in silent {
            self.tell(replica, &Input::NodeIsSilent { replica, heard });
        }
    }
}

impl Peer {
    /// What it is to be told.
    fn message(&mut self, boot: Boot) -> Alive {
        self.is_urgent = false;
        let mut pending: Vec<_> = self.departures.iter().collect();
        pending.sort_unstable_by_key(|(_, (number, _))| *number);
        pending.truncate(Alive::MAX_DEPARTURES);
        let last = pending.last().map_or(0, |(_, (number, _))| *number);
        let departure =
            |(group, (_, term)): (&GroupId, &(u64, Term))| Departure { group: *group, term: *term };
        let departures = pending.into_iter().map(departure).collect();
        let heard = (self.heard.map_or(0, |(boot, _)| boot.number), self.departed);
        Alive { boot, heard, last, departures }
    }
}

impl Receiver for Liveness {
    fn deliver(&self, message: Message) {
        self.route(message);
    }

    fn recall(&self, _: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
        Box::pin(async { None }) // It remembers nothing of its own.
    }

    fn remembered(&self, _: Replica, _: Memory) {}

    fn met(&self, _: Replica, _: Boot) {}

    fn failed(&self, _: String) {} // The groups are told, too.
}

/// The part that has turns.
pub(super) struct Beats<T> {
    pub(super) liveness: Rc<Liveness>,
    pub(super) transport: Rc<T>,
}

impl<T: Transport> Turns for Beats<T> {
    fn turn(&mut self, now: Instant, _: &mut Option<Box<Output>>) -> Result<bool, Fatal> {
        let Liveness { own, boot, ref state, ref inbox, .. } = *self.liveness;
        let state = &mut *state.borrow_mut();
        state.look_at_times(now);
        let messages = inbox.take();
        messages.into_iter().for_each(|message| state.on_message(now, boot, message));
        let is_due = state.beat_at.is_none_or(|at| at <= now);
        if is_due {
            // A node that was paused has not read yet what was sent to it meanwhile. One that is
            // always late must look all the same.
            let is_late = state.beat_at.is_some_and(|at| at + state.interval <= now);
            state.was_late = is_late && !state.was_late;
            if !state.was_late {
                state.look(now);
            }
        }
        for (replica, peer) in &mut state.peers {
            if is_due || peer.is_urgent {
                let body = Body::Alive(Box::new(peer.message(boot)));
                let (cluster, to, term) = (state.cluster, *replica, Term(0));
                let message = Message { group: NODE_GROUP, cluster, from: own, to, term, body };
                let _lost_and_repeated = self.transport.send(message);
            }
        }
        if state.peers.is_empty() {
            state.beat_at = None;
        } else if is_due {
            state.beat_at = Some(now + state.interval);
        }
        Ok(false)
    }

    fn wake_at(&self) -> Option<Instant> {
        self.liveness.state.borrow().beat_at
    }

    fn group(&self) -> GroupId {
        NODE_GROUP
    }
}

/// What a node shows of itself beside its groups: nothing, so that theirs count.
pub(super) fn credentials(own: Replica, boot: Boot) -> Credentials {
    Credentials { replica: own, boot, state: StoreState::Empty, cluster: None }
}

/// The inbox for the messages between nodes.
pub(super) fn inbox(liveness: &Rc<Liveness>) -> Inbox {
    Inbox::of(Rc::clone(liveness) as Rc<dyn Receiver>)
}

#[cfg(test)]
mod tests;
