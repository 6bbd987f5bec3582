//! A cluster in the simulator: its hosts, and the processes on them, each a node as a service would
//! run it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::pin_mut;
use quorate::rt::Task;
use quorate::rt::channel::oneshot;
use quorate::sim::{
    Crash, DiskImage, Generator, Host, NameConfig, Names, Network, Sim, Simulation,
};
use quorate::{
    Executor, Fatal, FileStore, InitializeError, Metrics, Node, NodeId, Raft, StartError,
    StoreError, TcpConfig, TcpTransport,
};

use super::atlas::Atlas;
use super::faults::Fault;
use super::ledger::Ledger;
use super::model::Model;
use super::observed::Observed;
use super::observer::{DATA, Observer, now};
use super::plan::{Naming, Plan};
use super::quiet::{self, Quiet};
use super::workload::clients;

pub const PORT: u16 = 7000;

/// The id of a node that lists may name, and that is nowhere.
pub const NOBODY: NodeId = 1000;

/// How long it is waited before a node that was told another list than others is told it again.
const TELLS: Duration = Duration::from_millis(100);

/// How often it is looked at which processes should run and don't.
const LOOKS: Duration = Duration::from_millis(20);

/// After a run of faults all of them end, and those who cause them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Things go wrong.
    Faults,
    /// All goes well. Clients go on.
    Healed,
    /// All goes well, and clients rest.
    Lull,
    /// Clients end.
    Ending,
}

pub struct Cluster {
    pub plan: Plan,
    pub observer: Rc<Observer>,
    pub network: Network,
    pub names: Names,
    pub hosts: BTreeMap<NodeId, Host>,
    /// Where those live who make things go wrong.
    pub control: Host,
    /// Where clients live that are in no node's process.
    pub outside: Host,
    /// Where copies of nodes' folders are started.
    pub copies: Host,
    pub atlas: Atlas,
    /// What goes wrong, and when.
    pub faults: Rc<Generator>,
    /// The same for wall clocks.
    pub wall_clocks: Generator,
    /// What the clients do.
    pub workload: Generator,
    phase: Cell<Phase>,
    /// The groups that are looked at from outside only.
    pub quiet: Quiet,
    /// Nodes may be told lists that differ, and nobody writes.
    forming: Cell<bool>,
    /// Lists have differed; all are told the same from now on.
    settled: Cell<bool>,
    members: RefCell<BTreeMap<NodeId, Member>>,
    /// How many changes of the membership nodes were asked for, and have not answered.
    pub open_changes: Cell<u64>,
    /// The same of transfers of leadership and campaigns.
    pub open_transfers: Cell<u64>,
    /// How often which thing was done that is no fault of the simulator's own.
    counts: RefCell<BTreeMap<&'static str, u64>>,
}

#[derive(Default)]
struct Member {
    /// None while it does not run.
    raft: Option<Raft<Ledger>>,
    stop: Option<oneshot::Sender<()>>,
    /// It is not to be started before that time.
    rests_until: Duration,
    /// It is not to be started at all.
    stays_down: bool,
    /// It is not to be started, killed or stopped, as somebody is at its disk.
    is_held: bool,
    /// It has told that its disk is damaged.
    is_broken: bool,
    /// It is not to be stopped, in any way.
    is_protected: bool,
    /// The list that it is told when it starts.
    told: BTreeSet<NodeId>,
}

impl Member {
    /// A founder is told of all of them, and nobody else of anybody.
    fn told(plan: &Plan, id: NodeId) -> Self {
        let told = if id <= plan.nodes { (1..=plan.nodes).collect() } else { BTreeSet::new() };
        Self { told, ..Self::default() }
    }
}

impl Cluster {
    /// The hosts of a plan, on which nothing runs yet.
    pub fn new(simulation: &Simulation, plan: &Plan, observer: Rc<Observer>) -> Rc<Self> {
        let faults = Rc::new(Generator::new(plan.seed, "faults"));
        let offset = |draw: &Generator| Duration::from_secs(draw.below(1_000_000));
        let control = simulation.host("control");
        let outside = simulation.host("clients");
        let hosts: BTreeMap<NodeId, Host> = (1..=plan.nodes + plan.spares)
            .map(|id| {
                let host = simulation.host_whose_clock_shows(format!("node-{id}"), offset(&faults));
                host.disk().configure(plan.disk.clone());
                observer.set_host(id, host.clone());
                (id, host)
            })
            .collect();
        let network = simulation.network();
        network.configure(plan.network.clone());
        let cluster = Rc::new(Self {
            members: RefCell::new(hosts.keys().map(|id| (*id, Member::told(plan, *id))).collect()),
            plan: plan.clone(),
            observer,
            network,
            names: simulation.names(),
            hosts,
            control,
            outside,
            copies: simulation.host("copies"),
            forming: Cell::new(plan.has(Fault::Formation)),
            settled: Cell::new(false),
            atlas: Atlas::new(plan.nodes),
            faults,
            wall_clocks: Generator::new(plan.seed, "wall clocks"),
            workload: Generator::new(plan.seed, "workload"),
            phase: Cell::new(Phase::Faults),
            quiet: Quiet::default(),
            open_changes: Cell::default(),
            open_transfers: Cell::default(),
            counts: RefCell::default(),
        });
        cluster.heal_names();
        cluster
    }

    /// Whether these may go on without the others: the cluster is formed, and a quorum of its
    /// voters is among them.
    pub fn may_go_on(&self, ids: &[NodeId]) -> bool {
        self.observer.with_model(|model| model.is_formed() && model.is_quorum(ids))
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    pub fn host(&self, id: NodeId) -> &Host {
        &self.hosts[&id]
    }

    pub fn address(&self, id: NodeId) -> SocketAddr {
        SocketAddr::new(self.host(id).ip(), PORT)
    }

    /// Where a node is by the lists, and in what it says of itself.
    pub fn listed_address(&self, id: NodeId) -> String {
        match self.plan.names {
            Naming::Addresses => self.address(id).to_string(),
            Naming::Names | Naming::NamesThatSwallow => {
                format!("{}:{PORT}", self.host(id).name())
            }
        }
    }

    /// All names are right, and looked up soon.
    pub fn heal_names(&self) {
        self.names.configure(NameConfig::default());
        let first = (self.plan.names == Naming::NamesThatSwallow).then(|| swallows(0));
        for host in self.hosts.values() {
            self.names.set(host.name(), first.into_iter().chain([host.ip()]));
        }
    }

    /// Whether the disk of this node may be damaged, lost, or put back: as many as the cluster
    /// bears at a time, and not before its first entry is durable on a majority.
    pub fn may_damage(&self, id: NodeId) -> bool {
        !self.is_forming()
            && self.observer.with_model(|model| model.is_founded())
            && match self.plan.has(Fault::Memberships) {
                true => self.may_damage_member(id),
                false => self.atlas.may_damage(id),
            }
    }

    /// The same while memberships change: not before a change has ended, and only so many of the
    /// voters.
    fn may_damage_member(&self, id: NodeId) -> bool {
        let voters: Option<Vec<_>> = self.observer.with_model(|model| {
            let membership = model.settled_configuration()?;
            Some(membership.voters().iter().map(|voter| voter.id).collect())
        });
        voters.is_some_and(|voters| {
            let impaired = voters.iter().filter(|id| self.atlas.is_impaired(**id)).count();
            voters.contains(&id) && !self.atlas.is_impaired(id) && impaired < (voters.len() - 1) / 2
        })
    }

    /// Whether nodes may have been told lists that differ, so that nobody is to write.
    pub fn is_forming(&self) -> bool {
        self.forming.get()
    }

    pub fn set_formed(&self) {
        self.forming.set(false);
    }

    /// From now on all are told the same list.
    pub fn set_settled(&self) {
        self.settled.set(true);
    }

    /// A node is told this list when it starts the next time. Whether that is another one than
    /// before.
    pub fn tell_list(&self, id: NodeId, list: BTreeSet<NodeId>) -> bool {
        let mut members = self.members.borrow_mut();
        let Some(member) = members.get_mut(&id) else { return false };
        let changes = member.told != list;
        member.told = list;
        changes
    }

    /// Everybody begins anew, on empty disks.
    pub fn empty_all(&self) {
        for (id, host) in &self.hosts {
            self.kill(*id, Crash::Power, Duration::ZERO);
            host.disk().replace(&DiskImage::default());
            self.change(*id, |member| member.is_broken = false);
        }
        self.atlas.clear();
        self.observer.reset();
        self.tell(|| "all nodes get empty disks".to_owned());
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.borrow().clone()
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.observer.tell(now(), what);
    }

    /// A handle of a node, if that runs.
    pub fn raft(&self, id: NodeId) -> Option<Raft<Ledger>> {
        self.members.borrow()[&id].raft.clone()
    }

    /// What a node tells of itself, if it runs.
    pub fn metrics(&self, id: NodeId) -> Option<Arc<Metrics>> {
        Some(self.raft(id)?.metrics().borrow())
    }

    fn change(&self, id: NodeId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.borrow_mut().get_mut(&id) {
            change(member);
        }
    }

    /// Starts a node's process.
    pub fn start(self: &Rc<Self>, id: NodeId) {
        let cluster = Rc::clone(self);
        self.host(id).start(async move |rt| cluster.process(rt, id).await);
    }

    async fn process(self: Rc<Self>, rt: Sim, id: NodeId) {
        let outcome = self.serve(&rt, id).await;
        if let Err(error) = outcome {
            let damaged = matches!(error, StartError::Store(StoreError::Damaged { .. }));
            self.change(id, |member| member.is_broken |= damaged);
            self.observer.refused(id, &error);
        }
        self.change(id, |member| member.raft = None);
        self.quiet.closed(id);
    }

    /// What a service does: opens its store, listens, starts its node, forms the cluster, and stops
    /// when it is told to.
    async fn serve(self: &Rc<Self>, rt: &Sim, id: NodeId) -> Result<(), StartError> {
        let life = self.host(id).incarnation();
        let store = FileStore::open_with(rt, DATA, self.plan.file.clone()).await?;
        let (node, observer) = (id, Rc::clone(&self.observer));
        let store = Observed { inner: store, node, life, observer, rt: rt.clone() };
        let address = self.address(id).to_string();
        let advertise = match self.plan.names {
            Naming::Addresses => None,
            Naming::Names | Naming::NamesThatSwallow => Some(self.listed_address(id)),
        };
        let tcp = TcpConfig { advertise, ..self.plan.tcp.clone() };
        let transport = TcpTransport::bind_with(rt, &address, tcp).await;
        let transport = transport.expect("nobody else listens there");
        let observer = Rc::clone(&self.observer);
        let transport = Observed { inner: transport, node, life, observer, rt: rt.clone() };
        let node = Node::builder(id).log_store(store).transport(transport).start(rt).await?;
        let ledger = Ledger::new(rt.clone(), id, Some(Rc::clone(&self.observer)));
        let config = || self.plan.config.clone();
        let local = node.group(0).config(config()).open_local(ledger).await?;
        if quiet::has_groups(&self.plan) {
            for group in quiet::GROUPS {
                let raft = node.group(group).config(config()).open(quiet::Tally::default()).await?;
                self.quiet.opened(id, raft.clone());
                let members = self.hosts.keys().map(|id| (*id, self.listed_address(*id)));
                rt.spawn(quiet::form(rt.clone(), raft, members.collect())).detach();
            }
        }
        let raft = local.shared();
        let (stop, stopped) = oneshot::channel();
        self.observer.watch(id, raft.metrics());
        self.change(id, |member| {
            member.raft = Some(raft.clone());
            member.stop = Some(stop);
        });
        rt.spawn(self.clone().form(rt.clone(), raft)).detach();
        for number in 0..self.plan.load.local_clients {
            let (cluster, local) = (Rc::clone(self), local.clone());
            rt.spawn(clients::inside(cluster, rt.clone(), id, local, number)).detach();
        }
        let ended = local.stopped();
        pin_mut!(ended);
        let outcome = match select(stopped, ended).await {
            Either::Left((Ok(()), _)) => {
                self.tell(|| format!("node {id} is told to stop"));
                let (stopped, of_group) = (node.shutdown().await, local.stopped().await);
                of_group.and(stopped)
            }
            Either::Left((Err(_), ended)) => ended.await,
            Either::Right((outcome, _)) => outcome,
        };
        let is_useless = match &outcome {
            Err(Fatal::Store(error)) => is_damage(error),
            Err(Fatal::RolledBack { .. }) => true,
            _ => false,
        };
        self.change(id, |member| member.is_broken |= is_useless);
        self.observer.ended(id, &outcome);
        Ok(())
    }

    /// Every node is told to form the cluster each time it starts, as the reference service does.
    async fn form(self: Rc<Self>, rt: Sim, raft: Raft<Ledger>) {
        let id = raft.id();
        let told = self.members.borrow()[&id].told.clone();
        if told.is_empty() {
            return; // It waits until it is let in.
        }
        let address = |id: NodeId| match self.hosts.contains_key(&id) {
            true => self.listed_address(id),
            false => format!("{}:{PORT}", self.control.ip()),
        };
        let members: Vec<_> = told.iter().map(|id| (*id, address(*id))).collect();
        loop {
            match raft.initialize(members.clone()).await {
                Ok(()) | Err(InitializeError::Shutdown | InitializeError::Fatal(_)) => return,
                Err(
                    error @ (InitializeError::OtherList { .. }
                    | InitializeError::Promised { .. }
                    | InitializeError::Founded { .. }),
                ) if self.plan.has(Fault::Formation) => {
                    self.tell(|| format!("node {id} refuses to form: {error}"));
                    self.count("refused to form");
                    let promised = matches!(error, InitializeError::Promised { .. });
                    if promised && self.settled.get() {
                        // Nothing else helps it.
                        self.change(id, |member| member.is_broken = true);
                        self.stop(id, Duration::ZERO);
                        return;
                    }
                }
                Err(InitializeError::Spent) if self.plan.has(Fault::Memberships) => return,
                // All are told the same list, and nobody is removed.
                Err(error) => {
                    let verdict = Err(format!("node {id} refuses to form: {error}"));
                    self.observer.accuse("cluster", verdict, now());
                }
            }
            rt.sleep(TELLS).await;
        }
    }

    /// It is not to be stopped, in any way, until it may be again.
    pub fn protect(&self, id: NodeId, protected: bool) {
        self.change(id, |member| member.is_protected = protected);
    }

    pub fn is_protected(&self, id: NodeId) -> bool {
        let members = self.members.borrow();
        members[&id].is_protected || members[&id].is_held
    }

    /// Kills a node by a loss of power, and leaves it alone until it is released.
    pub fn hold(&self, id: NodeId) {
        self.kill(id, Crash::Power, Duration::ZERO);
        self.change(id, |member| member.is_held = true);
    }

    pub fn release(&self, id: NodeId) {
        self.change(id, |member| member.is_held = false);
        self.rest(id, Duration::ZERO);
    }

    /// Kills a node's process, if it runs. It is not started again before so long.
    pub fn kill(&self, id: NodeId, crash: Crash, rest: Duration) {
        if self.is_protected(id) {
            return;
        }
        self.rest(id, rest);
        if self.host(id).is_running() {
            self.observer.died(id, &format!("{crash:?}"));
            self.change(id, |member| member.raft = None);
            self.host(id).crash(crash);
        }
    }

    /// Kills it after so many polls of its tasks, wherever it is then.
    pub fn kill_soon(self: &Rc<Self>, id: NodeId, polls: u64, crash: Crash, rest: Duration) {
        if self.is_protected(id) {
            return;
        }
        self.rest(id, rest);
        self.tell(|| format!("node {id} will die by {crash:?} after {polls} polls"));
        self.host(id).crash_after(polls, crash);
    }

    fn rest(&self, id: NodeId, rest: Duration) {
        self.change(id, |member| member.rests_until = now() + rest);
    }

    /// Tells a node to stop in order.
    pub fn stop(&self, id: NodeId, rest: Duration) {
        if self.is_protected(id) {
            return;
        }
        self.rest(id, rest);
        self.change(id, |member| {
            member.raft = None;
            if let Some(stop) = member.stop.take() {
                let _it_may_have_ended = stop.send(());
            }
        });
    }

    /// It is not to be started any more.
    pub fn leave_down(&self, id: NodeId) {
        self.change(id, |member| member.stays_down = true);
    }

    /// Puts an empty disk in the place of a node's; its process is dead.
    pub fn replace_disk(&self, id: NodeId) {
        self.atlas.replaced(id);
        self.host(id).disk().replace(&DiskImage::default());
        let changes = self.plan.has(Fault::Memberships);
        self.change(id, |member| {
            member.is_broken = false;
            if changes {
                // The founders may all have left meanwhile, and not one of them may be a member.
                member.told.clear();
            }
        });
        self.observer.change_model(|model| model.replace_disk(id));
        self.tell(|| format!("node {id} gets an empty disk"));
    }

    /// Starts what should run and doesn't, for ever.
    pub async fn supervise(self: Rc<Self>, rt: Sim) {
        loop {
            rt.sleep(LOOKS).await;
            for id in self.ids() {
                let is_well = |model: &Model| model.has_its_vote(id) || model.has_left(id);
                let is_whole = self.atlas.is_impaired(id)
                    && self.atlas.look(id, self.observer.with_model(is_well));
                if is_whole {
                    self.tell(|| format!("node {id} is whole again"));
                }
                self.supervise_one(id);
            }
        }
    }

    fn supervise_one(self: &Rc<Self>, id: NodeId) {
        if self.host(id).is_running() {
            return;
        }
        let (due, broken) = {
            let members = self.members.borrow();
            let member = &members[&id];
            let due = !member.stays_down && !member.is_held && member.rests_until <= now();
            (due, member.is_broken)
        };
        if self.observer.is_up(id) {
            // It has died by itself, as it was told to; maybe while it stopped.
            self.observer.died(id, "soon, as was planned");
            self.change(id, |member| member.raft = None);
        }
        if due {
            if broken {
                self.replace_disk(id);
            }
            self.start(id);
        }
    }
}

/// An address that no host has: what is sent there is lost.
pub fn swallows(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 9, number).into()
}

fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged { .. } => true,
        StoreError::Poisoned(cause) => is_damage(cause),
        _ => false,
    }
}
