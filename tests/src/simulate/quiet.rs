//! Groups beside the one that all checks look at: on the same nodes, stores and transports, and
//! mostly at rest. Whatever becomes of the nodes, nothing that they have acknowledged is lost, no
//! write takes effect twice, and when all is well each node serves them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use quorate::sim::Sim;
use quorate::{At, Executor, GroupId, InitializeError, NodeId, Raft, StateMachine, WriteError};
use serde::{Deserialize, Serialize};

use super::SimTask;
use super::checks::Verdict;
use super::cluster::{Cluster, Phase};
use super::faults::Fault;
use super::healing::comes_true;
use super::observer::now;
use super::plan::Plan;

/// Their ids.
pub const GROUPS: [GroupId; 2] = [1, 2];

/// How long nothing happens in them, at most: long enough for all of their members to rest.
const PAUSE: Duration = Duration::from_secs(4);

/// How long a request that was refused waits for another try.
const RESTS: Duration = Duration::from_millis(50);

/// Counts each number that is written.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally(BTreeMap<u64, u64>);

impl StateMachine for Tally {
    type Command = u64;
    type Response = u64;

    async fn apply(&mut self, number: u64, _: At) -> u64 {
        let count = self.0.entry(number).or_default();
        *count += 1;
        *count
    }
}

/// What is known of them.
#[derive(Default)]
pub struct Quiet {
    handles: RefCell<BTreeMap<(NodeId, GroupId), Raft<Tally>>>,
    /// Numbers that were acknowledged, and those whose outcome is not known.
    acknowledged: RefCell<BTreeMap<GroupId, Vec<u64>>>,
    unknown: RefCell<BTreeMap<GroupId, Vec<u64>>>,
    next: Cell<u64>,
}

/// Whether a plan has such groups: not where disks are lost, damaged or put back, or lists differ,
/// as who may forget what is only known of the group that is looked at.
pub fn has_groups(plan: &Plan) -> bool {
    const NOT_WITH: [Fault; 11] = [
        Fault::Memberships,
        Fault::Rot,
        Fault::Misdirections,
        Fault::Wipes,
        Fault::Upheavals,
        Fault::Shortenings,
        Fault::PutBacks,
        Fault::Copies,
        Fault::Swaps,
        Fault::Formation,
        Fault::Liars,
    ];
    !NOT_WITH.into_iter().any(|fault| plan.has(fault))
}

impl Quiet {
    /// A node has opened a group.
    pub fn opened(&self, id: NodeId, raft: Raft<Tally>) {
        self.handles.borrow_mut().insert((id, raft.group()), raft);
    }

    /// A node has ended.
    pub fn closed(&self, id: NodeId) {
        self.handles.borrow_mut().retain(|(of, _), _| *of != id);
    }

    fn handle(&self, id: NodeId, group: GroupId) -> Option<Raft<Tally>> {
        self.handles.borrow().get(&(id, group)).cloned()
    }

    /// What the nodes tell of a group.
    fn told(&self, group: GroupId) -> String {
        let handles = self.handles.borrow();
        let of_group = handles.iter().filter(|((_, of), _)| *of == group);
        let told = of_group.map(|((id, _), raft)| {
            let m = raft.metrics().borrow();
            let (role, term, leader) = (m.role, m.term, m.leader);
            let (last, committed, waits) = (m.last_log_id, m.committed, &m.waits_for);
            format!("node {id} is a {role} in term {term} of {leader:?}, log to {last}, committed {committed}, applied {}, waits for {waits:?}", m.applied)
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Writes the next number. Whether there was an answer.
    async fn write(&self, id: NodeId, group: GroupId) -> Result<bool, String> {
        let Some(raft) = self.handle(id, group) else { return Ok(false) };
        let number = self.next.replace(self.next.get() + 1);
        match raft.write(number).await {
            Ok(1) => {
                self.acknowledged.borrow_mut().entry(group).or_default().push(number);
                Ok(true)
            }
            Ok(count) => Err(format!("group {group}: {number} has been applied {count} times")),
            Err(WriteError::Unknown) => {
                self.unknown.borrow_mut().entry(group).or_default().push(number);
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }

    /// Compares what a node has with what was answered.
    async fn check(&self, id: NodeId, group: GroupId) -> Result<bool, String> {
        let Some(raft) = self.handle(id, group) else { return Ok(false) };
        // What is acknowledged before the read begins must be seen by it.
        let acknowledged = self.acknowledged.borrow().get(&group).cloned().unwrap_or_default();
        let Ok(seen) = raft.read(|tally| tally.0.clone()).await else { return Ok(false) };
        if let Some(lost) = acknowledged.iter().find(|number| !seen.contains_key(number)) {
            return Err(format!("group {group}: node {id} does not have {lost}"));
        }
        if let Some((number, count)) = seen.iter().find(|(_, count)| **count != 1) {
            return Err(format!("group {group}: node {id} has {number} {count} times"));
        }
        Ok(true)
    }
}

/// Forms a group, as the reference service does at each start.
pub async fn form(rt: Sim, raft: Raft<Tally>, members: Vec<(NodeId, String)>) {
    loop {
        match raft.initialize(members.clone()).await {
            Ok(()) | Err(InitializeError::Shutdown | InitializeError::Fatal(_)) => return,
            Err(_) => rt.sleep(RESTS).await,
        }
    }
}

/// Writes and reads now and then.
pub fn start(cluster: &Rc<Cluster>, rt: &Sim) -> Option<SimTask> {
    if !has_groups(&cluster.plan) {
        return None;
    }
    let (cluster, rt) = (Rc::clone(cluster), rt.clone());
    Some(rt.clone().spawn(async move {
        let ids = cluster.ids();
        while cluster.phase() != Phase::Ending {
            let draw = &cluster.workload;
            rt.sleep(draw.duration(&(Duration::ZERO..PAUSE))).await;
            let (id, group) = (*draw.choose(&ids), *draw.choose(&GROUPS));
            let verdict = match draw.chance(0.5) {
                true => cluster.quiet.write(id, group).await,
                false => cluster.quiet.check(id, group).await,
            };
            match verdict {
                Ok(true) => cluster.count("quiet group answered"),
                Ok(false) => {}
                Err(violation) => {
                    cluster.observer.accuse("quiet groups", Err(violation), now());
                }
            }
        }
    }))
}

/// Each of these nodes serves the groups.
pub async fn serves(cluster: &Rc<Cluster>, rt: &Sim, core: &[NodeId]) -> Verdict {
    if !has_groups(&cluster.plan) {
        return Ok(());
    }
    let limit = cluster.plan.patience();
    // Where a group is not formed yet, it takes all nodes, and some may be gone for good.
    let is_formed = |group: &GroupId| {
        let handles = core.iter().filter_map(|id| cluster.quiet.handle(*id, *group));
        let members = handles.filter(|raft| raft.metrics().borrow().membership.is_some()).count();
        2 * members > cluster.hosts.len()
    };
    let formed: Vec<_> = GROUPS.into_iter().filter(is_formed).collect();
    for (id, group) in core.iter().flat_map(|id| formed.iter().map(|group| (*id, *group))) {
        let (done, outcome) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Ok(()))));
        let (of_task, its_outcome) = (Rc::clone(&done), Rc::clone(&outcome));
        let (own, clock) = (Rc::clone(cluster), rt.clone());
        let _asks = rt.spawn(async move {
            loop {
                match own.quiet.write(id, group).await {
                    Ok(true) => break,
                    Ok(false) => clock.sleep(RESTS).await,
                    Err(violation) => {
                        drop(its_outcome.replace(Err(violation)));
                        break;
                    }
                }
            }
            loop {
                match own.quiet.check(id, group).await {
                    Ok(true) => break,
                    Ok(false) => clock.sleep(RESTS).await,
                    Err(violation) => {
                        drop(its_outcome.replace(Err(violation)));
                        break;
                    }
                }
            }
            of_task.set(true);
        });
        let what = format!("node {id} serves group {group}");
        let served = comes_true(cluster, rt, &what, limit, || done.get()).await;
        served.map_err(|error| format!("{error}: {}", cluster.quiet.told(group)))?;
        outcome.replace(Ok(()))?;
    }
    Ok(())
}
