//! Several engines in one process: their clock, network and disks are in the caller's hand.
//! Everything that happens is told as an [`Event`] and checked by [`Safety`].

mod disks;
mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::engine::{
    Engine, Fetch, Input, Output, Proposal, ReadChunk, ReadOutcome, ReceiveStep, Ticket,
};
use quorate_core::quorum::Voters;
use quorate_core::{
    Body, Boot, ChangeId, ChangeReply, ChangeRequest, ClusterId, Config, Digest, Entry, Index,
    InitializeError, LogId, Membership, Message, NodeId, Payload, Replica, Role, SnapshotMeta,
    Term, TransferOptions,
};
use quorate_rt::Instant;

use crate::disk::Disk;
use crate::safety::{Before, Safety};
use crate::show;

/// Something that has happened, as a scenario shows it.
pub(crate) struct Event {
    /// Of interest only where a single step is looked at: a message, a write, a fetch.
    pub(crate) detail: bool,
    /// It follows from the arrival of a message.
    pub(crate) effect: bool,
    pub(crate) text: String,
}

pub(crate) struct Cluster {
    pub(crate) now: Instant,
    config: Config,
    /// What `initialize` tells, unless a scenario says otherwise.
    pub(crate) list: BTreeMap<NodeId, String>,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Flying>>,
    /// Groups of nodes that reach each other; empty while all do.
    partition: Vec<BTreeSet<NodeId>>,
    /// Links on which everything is lost, in this direction.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Orders to take over are lost.
    pub(crate) loses_orders: bool,
    /// Fetches, and what is done about snapshots, wait for the script.
    pub(crate) manual_fetches: bool,
    /// No snapshot can be written.
    pub(crate) drafts_fail: bool,
    /// How many snapshots have come in and taken the place of a log.
    pub(crate) installed: u64,
    pub(crate) safety: Safety,
    pub(crate) events: Vec<Event>,
    /// The names of clients' requests.
    requests: Vec<Request>,
    /// Small names for the numbers of forwards and questions, by whoever drew them.
    numbers: BTreeMap<NodeId, Vec<u64>>,
    /// The disks that were lost, as they were then.
    lost: BTreeMap<Replica, Disk>,
}

struct Node {
    engine: Option<Engine>,
    /// The list that it is told at each start, if any.
    told: Option<BTreeMap<NodeId, String>>,
    disk: Disk,
    wake_at: Option<Instant>,
    runs: u64,
    /// The present run, or the last.
    boot: Boot,
    seed: u64,
    fetches: Vec<Fetch>,
    chunks: Vec<ReadChunk>,
    receive_steps: VecDeque<ReceiveStep>,
    /// What has come in of a snapshot.
    draft: Option<(Digest, BytesMut)>,
    /// Snapshots that it has taken itself, and not yet heard of.
    built: VecDeque<SnapshotMeta>,
    applied: Index,
    /// Writes of this node's clients that have a place in the log, by index.
    placed: BTreeMap<(Index, Term), (LogId, Ticket)>,
    /// Requests that the engine has not answered.
    open: BTreeSet<Ticket>,
}

struct Flying {
    since: Instant,
    message: Message,
}

enum Request {
    Write(Bytes),
    /// What was committed when it began.
    Read {
        floor: Index,
    },
}

/// Where seeds begin: with these the scenarios show the elections that they are about.
const SEEDS: u64 = 0x2d35_8dcc_aa6c_78a5;

/// How long a message takes where the network runs by itself.
const LATENCY: Duration = Duration::from_millis(10);

/// The cluster of nodes that a scenario does not form itself.
pub(crate) const CLUSTER: ClusterId = ClusterId(1);

/// The list of these nodes.
pub(crate) fn list(ids: &[NodeId]) -> BTreeMap<NodeId, String> {
    ids.iter().map(|id| (*id, format!("node-{id}"))).collect()
}

/// The first configuration of nodes with their first disks.
pub(crate) fn members(ids: &[NodeId]) -> Membership {
    let member = |(id, address)| (Replica::new(id, 1), address);
    let members = list(ids).into_iter().map(member).collect();
    Membership::founding(CLUSTER, members).expect("valid ids")
}

impl Cluster {
    /// Nodes with empty disks, in no cluster yet.
    /// Nodes that know of nothing.
    pub(crate) fn new(config: Config, ids: &[NodeId], seeds: &[u64]) -> Self {
        Self::on_disks(config, ids, seeds, |_| Disk::new(1))
    }

    /// Nodes that have got no further than to form a cluster.
    pub(crate) fn formed(config: Config, ids: &[NodeId], seeds: &[u64]) -> Self {
        Self::with_membership(config, ids, seeds, members(ids))
    }

    /// Nodes that have got no further than to form a cluster, in this configuration. Those that it
    /// does not name have empty disks.
    pub(crate) fn with_membership(
        config: Config,
        ids: &[NodeId],
        seeds: &[u64],
        membership: Membership,
    ) -> Self {
        let named: Vec<_> = membership.members().keys().map(|member| member.id).collect();
        let payload = Payload::Membership(membership);
        let disk = Disk::formed(Entry { log_id: LogId::FIRST, time: 0, payload }, CLUSTER);
        let of = |id| if named.contains(&id) { disk.clone() } else { Disk::new(1) };
        Self::on_disks(config, ids, seeds, of)
    }

    fn on_disks(
        config: Config,
        ids: &[NodeId],
        seeds: &[u64],
        disk: impl Fn(NodeId) -> Disk,
    ) -> Self {
        config.validate().expect("a scenario's config is valid");
        let mut cluster = Self {
            now: Instant::from_nanos(0),
            config,
            list: list(ids),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            partition: Vec::new(),
            blocked: BTreeSet::new(),
            loses_orders: false,
            manual_fetches: false,
            drafts_fail: false,
            installed: 0,
            safety: Safety::default(),
            events: Vec::new(),
            requests: Vec::new(),
            numbers: BTreeMap::new(),
            lost: BTreeMap::new(),
        };
        for (id, seed) in ids.iter().zip(seeds) {
            let node = Node {
                engine: None,
                told: None,
                disk: disk(*id),
                wake_at: None,
                runs: 0,
                boot: Boot::default(),
                seed: *seed,
                fetches: Vec::new(),
                chunks: Vec::new(),
                receive_steps: VecDeque::new(),
                draft: None,
                built: VecDeque::new(),
                applied: 0,
                placed: BTreeMap::new(),
                open: BTreeSet::new(),
            };
            cluster.nodes.insert(*id, node);
            cluster.start(*id);
        }
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub(crate) fn engine(&self, id: NodeId) -> Option<&Engine> {
        self.nodes.get(&id).unwrap_or_else(|| panic!("there is no node {id}")).engine.as_ref()
    }

    /// Whether the log of a node holds this entry, or has purged one there.
    pub(crate) fn holds(&self, id: NodeId, log_id: LogId) -> bool {
        let log = self.nodes[&id].disk.submitted();
        log.log_id(log_id.index) == Some(log_id)
    }

    /// The log of a node, as it was handed to its disk.
    pub(crate) fn entries(&self, id: NodeId) -> &[Entry] {
        &self.nodes[&id].disk.submitted().entries
    }

    fn running(&mut self, id: NodeId) -> &mut Engine {
        self.node(id).engine.as_mut().unwrap_or_else(|| panic!("node {id} is down"))
    }

    pub(crate) fn disk(&mut self, id: NodeId) -> &mut Disk {
        &mut self.node(id).disk
    }

    fn tell(&mut self, detail: bool, text: String) {
        self.events.push(Event { detail, effect: false, text });
    }

    // Starting and stopping.

    pub(crate) fn start(&mut self, id: NodeId) {
        let (config, now) = (self.config.clone(), self.now);
        let node = self.node(id);
        assert!(node.engine.is_none(), "node {id} runs");
        node.runs += 1;
        // No two runs have the same seed, unless a scenario gives two nodes the same one on
        // purpose.
        let seed = node.seed.wrapping_mul(1000).wrapping_add(node.runs).wrapping_add(SEEDS);
        let local = node.disk.identify(id, seed);
        node.boot = local.boot;
        node.engine = Some(Engine::new(local, 1, config, node.disk.recover(), seed, now));
        let told = node.told.clone();
        self.act(id);
        self.remind(id);
        if let (Some(told), Some(_)) = (told, self.engine(id)) {
            let _ = self.running(id).initialize(now, told);
            self.act(id);
        }
    }

    /// As connections are made: a node and the others tell each other what they remember, before
    /// anything else.
    pub(crate) fn remind(&mut self, id: NodeId) {
        for other in self.ids() {
            let Some(of) = self.engine(id).map(Engine::replica) else { return };
            if other == id || self.engine(other).is_none() {
                continue;
            }
            let from = self.running(other).replica();
            // No message comes over a connection before its handshake.
            let (now, boot, theirs) = (self.now, self.node(id).boot, self.node(other).boot);
            self.running(other).step(now, Input::Met { replica: of, boot });
            self.running(id).step(now, Input::Met { replica: from, boot: theirs });
            if !self.connected(other, id) {
                continue;
            }
            if let Some(memory) = self.running(other).memory_of(of) {
                self.step(id, vec![Input::Remembered { from, memory }]);
            }
            let memory = self.engine(id).is_some().then(|| self.running(id).memory_of(from));
            if let Some(memory) = memory.flatten() {
                self.step(other, vec![Input::Remembered { from: of, memory }]);
            }
        }
    }

    pub(crate) fn lost_disks(&self) -> usize {
        self.lost.len()
    }

    /// A node loses its disk and is started again on an empty one, with the list that it was told
    /// before.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        if self.engine(id).is_some() {
            self.crash(id, 0);
        }
        let list = self.list.clone();
        let lost = self.lost.keys().filter(|replica| replica.id == id);
        let latest = lost.map(|replica| replica.incarnation).max().unwrap_or(0);
        let node = self.node(id);
        node.told.get_or_insert(list);
        let next = node.disk.incarnation.max(latest) + 1;
        self.put(id, Disk::new(next));
        self.start(id);
    }

    /// A disk takes the place of that of a node which is down.
    pub(crate) fn put(&mut self, id: NodeId, mut disk: Disk) {
        disk.crash(0);
        let before = std::mem::replace(&mut self.node(id).disk, disk);
        let replica = Replica::new(id, before.incarnation);
        if self.node(id).disk.incarnation != before.incarnation {
            self.lost.insert(replica, before);
        }
    }

    /// Stops a node at once. The oldest `survivors` of its pending writes have reached the disk
    /// unnoticed.
    pub(crate) fn crash(&mut self, id: NodeId, survivors: usize) {
        let node = self.node(id);
        assert!(node.engine.take().is_some(), "node {id} is down already");
        node.disk.crash(survivors);
        node.wake_at = None;
        node.fetches.clear();
        node.chunks.clear();
        node.receive_steps.clear();
        node.draft = None;
        node.built.clear();
        node.applied = 0;
        node.placed.clear();
        node.open.clear();
    }

    /// A node is told a list, now and at each later start.
    pub(crate) fn initialize(
        &mut self,
        id: NodeId,
        list: BTreeMap<NodeId, String>,
    ) -> Result<(), InitializeError> {
        let now = self.now;
        self.node(id).told = Some(list.clone());
        let begun = self.running(id).initialize(now, list);
        self.act(id);
        begun
    }

    /// All nodes are told to form a group, and nothing else happens until it is formed.
    pub(crate) fn form(&mut self) {
        for id in self.ids() {
            let begun = self.initialize(id, self.list.clone());
            assert!(begun.is_ok(), "{begun:?}");
        }
        let formed = |cluster: &Self| {
            let engines = cluster.nodes.values().filter_map(|node| node.engine.as_ref());
            engines.into_iter().all(|engine| engine.membership().is_some())
        };
        self.run_until(self.now + Duration::from_secs(20), formed);
        assert!(formed(self), "not formed");
    }

    pub(crate) fn purge(&mut self, id: NodeId) {
        self.step(id, vec![Input::Purge]);
    }

    pub(crate) fn resign(&mut self, id: NodeId) {
        let now = self.now;
        self.running(id).step(now, Input::Resign);
        self.act(id);
    }

    /// A node goes on with other settings.
    pub(crate) fn configure(&mut self, id: NodeId, change: impl FnOnce(&mut Config)) {
        let now = self.now;
        let engine = self.running(id);
        let mut config = Config::clone(engine.config());
        change(&mut config);
        assert_eq!(config.validate(), Ok(()));
        engine.configure(now, config.into());
        self.act(id);
    }

    /// A change of the membership is wanted, or that one is cancelled.
    pub(crate) fn change(&mut self, id: NodeId, request: ChangeRequest) {
        self.step(id, vec![Input::Change(Box::new(request))]);
    }

    /// What a node says to a transfer, a campaign or stepping down, as a scenario shows it.
    fn told<E: Display>(
        &mut self,
        id: NodeId,
        tell: impl FnOnce(&mut Engine, Instant) -> Result<(), E>,
    ) -> String {
        let now = self.now;
        let outcome = tell(self.running(id), now);
        self.act(id);
        outcome.map_or_else(|error| format!("{id} refuses: {error}"), |()| format!("{id} does so"))
    }

    pub(crate) fn transfer(&mut self, id: NodeId, options: TransferOptions) -> String {
        self.told(id, |engine, now| engine.transfer_leadership(now, options))
    }

    pub(crate) fn stand(&mut self, id: NodeId) -> String {
        self.told(id, Engine::campaign_by_hand)
    }

    pub(crate) fn step_down(&mut self, id: NodeId) -> String {
        self.told(id, Engine::step_down)
    }

    // Time.

    pub(crate) fn wake_at(&self, id: NodeId) -> Option<Instant> {
        self.nodes.get(&id).and_then(|node| node.wake_at)
    }

    /// The next time at which a node wants to be woken.
    fn next_wake(&self) -> Option<Instant> {
        self.nodes.values().filter_map(|node| node.wake_at).min()
    }

    pub(crate) fn wake(&mut self, id: NodeId) {
        self.step(id, vec![Input::Wake]);
    }

    fn wake_all_due(&mut self) {
        for id in self.ids() {
            if self.wake_at(id).is_some_and(|at| at <= self.now) {
                self.wake(id);
            }
        }
    }

    /// Time passes, and nothing else happens but that timers go off.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.next_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.wake_all_due();
        }
        self.now = end;
    }

    /// Time passes, and the network and the disks that are not stalled do their work.
    pub(crate) fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration, |_| false);
    }

    /// Like [`run`](Self::run), but no longer than until `done`.
    pub(crate) fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) {
        loop {
            while self.complete_writes() {}
            if done(self) {
                return;
            }
            let arrival = |link: &VecDeque<Flying>| link.front().map(|first| first.since + LATENCY);
            let arrival = self.links.values().filter_map(arrival).min();
            let next = [arrival, self.next_wake()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for (from, to) in self.busy_links() {
                let due = |flying: &Flying, now| flying.since + LATENCY <= now;
                while self.links[&(from, to)].front().is_some_and(|first| due(first, self.now)) {
                    let message = self.take_message(from, to);
                    self.arrive(message);
                }
            }
            self.wake_all_due();
        }
        self.now = end;
    }

    /// Delivers and persists until nothing happens any more, while time stands still.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = !self.complete_writes();
            for (from, to) in self.busy_links() {
                quiet = false;
                let message = self.take_message(from, to);
                self.arrive(message);
            }
            if quiet {
                return;
            }
        }
        panic!("it does not settle");
    }

    // Clients.

    pub(crate) fn propose(&mut self, id: NodeId, commands: &[Bytes]) {
        let first = self.requests.len() as Ticket;
        for (ticket, command) in (first..).zip(commands) {
            self.requests.push(Request::Write(command.clone()));
            self.node(id).open.insert(ticket);
        }
        let now = self.now;
        let engine = self.running(id);
        let before = Before::of(engine);
        engine.propose(now, first, commands.iter().cloned());
        self.act_after(id, before);
    }

    pub(crate) fn read(&mut self, id: NodeId) {
        let ticket = self.requests.len() as Ticket;
        self.requests.push(Request::Read { floor: self.safety.last_committed() });
        self.node(id).open.insert(ticket);
        self.step(id, vec![Input::Read { ticket }]);
    }

    fn request(&self, ticket: Ticket) -> String {
        let reads = |requests: &[Request]| {
            requests.iter().filter(|request| matches!(request, Request::Read { .. })).count()
        };
        match &self.requests[ticket as usize] {
            Request::Write(command) => show::command(command),
            Request::Read { .. } => format!("read {}", reads(&self.requests[..=ticket as usize])),
        }
    }

    // What a node does in one turn.

    pub(crate) fn step(&mut self, id: NodeId, inputs: Vec<Input>) {
        let now = self.now;
        let engine = self.running(id);
        let before = Before::of(engine);
        engine.set_wall_clock(now.as_nanos() / 1_000_000);
        for input in inputs {
            engine.step(now, input);
        }
        self.act_after(id, before);
    }

    fn act(&mut self, id: NodeId) {
        let before = Before::of(self.running(id));
        self.act_after(id, before);
    }

    fn act_after(&mut self, id: NodeId, before: Before) {
        let mut output = self.running(id).take_output();
        let mut rare = output.rare.take().unwrap_or_default();
        self.node(id).wake_at = output.wake_at;
        if let Some(what) = rare.rolled_back.take() {
            self.tell(false, format!("{id} stops: {}", what.replace("/0000", "")));
            self.crash(id, 0);
            return;
        }
        if let Some(error) = rare.cannot_form.take() {
            self.tell(false, format!("{id} can't form: {error}"));
        }
        self.tell_role(id, &before);
        if let Some((number, write)) = output.write.take() {
            let truncates = write.entries.first().is_some_and(|first| {
                first.log_id.index <= self.nodes[&id].disk.submitted().last().index
            });
            let replaces = if truncates { " (replaces)" } else { "" };
            self.tell(true, format!("{id} writes #{number}{replaces}: {}", show::write(&write)));
            let node = self.nodes.get_mut(&id).expect("it runs");
            node.disk.submit(number, write.clone(), before.committed);
            self.safety.on_write(&node.disk, &write);
        }
        let engine = self.nodes[&id].engine.as_ref().expect("it runs");
        if engine.role() == Role::Leader && before.role != Role::Leader {
            let (term, replica) = (engine.hard_state().term, engine.replica());
            self.safety.on_leader(replica, term, &self.nodes[&id].disk);
        }
        if let Some(meta) = &rare.restore {
            self.restore(id, meta);
        }
        self.apply(id, output.committed, before.voters.as_ref());
        self.answer(id, &mut output, rare.changes);
        for message in std::mem::take(&mut output.messages) {
            self.send(id, message);
        }
        for fetch in rare.fetches {
            let Fetch { peer, range, .. } = &fetch;
            let peer = show::replica(*peer);
            self.tell(true, format!("{id} fetches from {} for {peer}", range.start));
            self.node(id).fetches.push(fetch);
        }
        for chunk in rare.chunks {
            let ReadChunk { peer, meta, offset, .. } = &chunk;
            self.tell(
                true,
                format!(
                    "{id} reads its snapshot {} from {offset} for {}",
                    meta.log_id,
                    show::replica(*peer)
                ),
            );
            self.node(id).chunks.push(chunk);
        }
        self.node(id).receive_steps.extend(rare.receive_steps);
        let node = &self.nodes[&id];
        let replica = Replica::new(id, node.disk.incarnation);
        self.safety.on_step(replica, node.engine.as_ref().expect("it runs"), &node.disk, &before);
        if !self.manual_fetches {
            self.fetch(id);
            while self.draft(id) {}
        }
    }

    fn tell_role(&mut self, id: NodeId, before: &Before) {
        let engine = self.nodes[&id].engine.as_ref().expect("it runs");
        let after = Before::of(engine);
        if (after.role, after.leader, after.hard_state.term)
            != (before.role, before.leader, before.hard_state.term)
        {
            let text = format!("{id} {}", show::role(engine));
            self.tell(false, text);
        }
    }

    fn send(&mut self, id: NodeId, message: Message) {
        let node = &self.nodes[&id];
        let engine = node.engine.as_ref().expect("it runs");
        let leads = |node: &&Node| {
            let engine = node.engine.as_ref();
            engine.is_some_and(|engine| {
                engine.role() == Role::Leader && engine.hard_state().term == message.term
            })
        };
        let leader_log = self.nodes.get(&message.to.id).filter(leads).map(|node| &node.disk);
        self.safety.on_send(&message, engine, &node.disk, leader_log);
        let text = self.show(&message);
        let is_lost_order = self.loses_orders && matches!(message.body, Body::TimeoutNow { .. });
        if self.connected(message.from.id, message.to.id) && !is_lost_order {
            self.tell(true, text);
            self.put_message(message, false);
        } else {
            self.tell(true, format!("{text} (lost)"));
        }
    }

    fn restore(&mut self, id: NodeId, meta: &SnapshotMeta) {
        self.tell(false, format!("{id} restores its snapshot at {}", meta.log_id));
        let content = self.nodes[&id].disk.finished.get(&meta.digest).expect("it is finished");
        self.safety.on_snapshot(meta, content);
        let node = self.node(id);
        assert!(meta.log_id.index > node.applied, "the state goes back (S2)");
        node.applied = meta.log_id.index;
        let rest = node.placed.split_off(&(meta.log_id.index + 1, Term::default()));
        for (_, ticket) in std::mem::replace(&mut node.placed, rest).into_values() {
            self.tell(false, format!("{id} answers {}: unknown", self.request(ticket)));
        }
        self.decide(id, meta.log_id);
    }

    /// Applies what is committed, as these voters have agreed; those of the present configuration,
    /// where there was none before. (What is committed may lead to another one in the same step.)
    fn apply(&mut self, id: NodeId, committed: Option<Index>, voters: Option<&Voters>) {
        let Some(committed) = committed else { return };
        self.tell(false, format!("{id} commits {committed}"));
        let live = self.nodes.iter();
        let live = live.map(|(id, node)| (Replica::new(*id, node.disk.incarnation), &node.disk));
        let disks = self.lost.iter().map(|(id, disk)| (*id, disk)).chain(live).collect();
        let node = &self.nodes[&id];
        let engine = node.engine.as_ref().expect("it runs");
        let term = engine.hard_state().term;
        let voters = voters.unwrap_or(engine.membership().expect("it has a log").voters());
        for index in node.applied + 1..=committed {
            let entry = node.disk.submitted().entry(index).expect("it is in the log");
            self.safety.on_commit(entry, term, voters, &disks);
        }
        let node = self.node(id);
        node.applied = committed;
        let last = node.disk.submitted().log_id(committed).expect("it is in the log");
        self.decide(id, last);
    }

    /// Answers the writes of which it is known what became of them once this entry is committed:
    /// nothing of an earlier term can follow on it.
    fn decide(&mut self, id: NodeId, committed: LogId) {
        let decided = self.node(id).placed.extract_if(.., |_, (placed, _)| {
            placed.index <= committed.index || placed.term < committed.term
        });
        for (_, (log_id, ticket)) in decided.collect::<Vec<_>>() {
            self.done(id, log_id, ticket);
        }
    }

    fn done(&mut self, id: NodeId, log_id: LogId, ticket: Ticket) {
        let node = &self.nodes[&id];
        let entry = node.disk.submitted().entry(log_id.index);
        let entry = entry.filter(|entry| entry.log_id == log_id && log_id.index <= node.applied);
        let Request::Write(command) = &self.requests[ticket as usize] else {
            panic!("a read has a place in the log")
        };
        let what = match entry {
            Some(entry) => {
                assert!(entry.payload == Payload::Command(command.clone()), "{log_id}: not its");
                "done"
            }
            None => {
                self.safety.on_refused(command);
                "void"
            }
        };
        self.tell(false, format!("{id} answers {}: {what}", self.request(ticket)));
    }

    fn answer(&mut self, id: NodeId, output: &mut Output, changes: Vec<(ChangeId, ChangeReply)>) {
        let proposals = output.proposals.drain(..).flat_map(|(tickets, proposal)| {
            tickets.zip(0..).map(move |(ticket, offset)| match proposal {
                Proposal::Appended(first) => {
                    (ticket, Proposal::Appended(LogId { index: first.index + offset, ..first }))
                }
                other => (ticket, other),
            })
        });
        for (ticket, proposal) in proposals.collect::<Vec<_>>() {
            assert!(self.node(id).open.remove(&ticket), "a second answer (R16)");
            let name = self.request(ticket);
            match proposal {
                Proposal::Appended(log_id) => {
                    self.tell(false, format!("{id} places {name} at {log_id}"));
                    let node = self.node(id);
                    if log_id.index > node.applied {
                        let place = (log_id.index, log_id.term);
                        let before = node.placed.insert(place, (log_id, ticket));
                        assert!(before.is_none(), "two writes have one place");
                    } else {
                        self.done(id, log_id, ticket);
                    }
                }
                Proposal::NotLeader | Proposal::Busy | Proposal::StorageFull => {
                    let Request::Write(command) = &self.requests[ticket as usize] else {
                        panic!("a read is answered as a write")
                    };
                    self.safety.on_refused(command);
                    let why = match proposal {
                        Proposal::Busy => "busy",
                        Proposal::StorageFull => "storage full",
                        _ => "not leader",
                    };
                    self.tell(false, format!("{id} answers {name}: {why}"));
                }
                Proposal::Unknown => self.tell(false, format!("{id} answers {name}: unknown")),
            }
        }
        for (change, reply) in changes {
            let text = show::change_reply(&reply);
            self.tell(false, format!("{id} hears of change {}: {text}", show::change(change)));
        }
        for (ticket, outcome) in output.reads.drain(..) {
            assert!(self.node(id).open.remove(&ticket), "a second answer (R16)");
            let Request::Read { floor } = self.requests[ticket as usize] else {
                panic!("a write is answered as a read")
            };
            let name = self.request(ticket);
            match outcome {
                ReadOutcome::At(index) => {
                    self.safety.on_read(floor, index);
                    self.tell(false, format!("{id} answers {name}: at {index}"));
                }
                ReadOutcome::NotLeader => {
                    self.tell(false, format!("{id} answers {name}: not leader"));
                }
            }
        }
    }
}
