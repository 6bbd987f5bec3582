//! A run, from its seed to its report.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use quorate::Executor;
use quorate::planted::{Bug, planted};
use quorate::rt::{Task, TaskError};
use quorate::sim::{Happened, HostId, Sim, Simulation, Step};

use super::checks::{self, Verdict};
use super::cluster::{Cluster, Phase};
use super::faults::Fault;
use super::observer::{Observer, Violation, now};
use super::plan::Plan;
use super::{epilogue, faults, healing, quiet, workload};

/// No run has so many events, unless something goes round in a circle.
const MAX_EVENTS: u64 = 50_000_000;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub violation: Option<Violation>,
    /// Of all that has happened in the simulation.
    pub hash: u64,
    /// How long it was, on its own clock.
    pub virtual_time: Duration,
    pub events: u64,
    /// How many questions of clients were answered.
    pub operations: u64,
    /// How often a check has looked at something.
    pub looks: u64,
    /// How often what has gone wrong or was done.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What was seen in a run, in words, and the last of what has happened in its simulation.
pub struct Story {
    pub lines: Vec<String>,
    pub recent: Vec<(String, Happened)>,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    perform_safely(plan, false).0
}

/// Runs it, and tells of it.
pub fn tell(plan: &Plan) -> (Report, Story) {
    perform_safely(plan, true)
}

/// What panics in the simulation itself, or in a check, is a violation as well.
fn perform_safely(plan: &Plan, tells: bool) -> (Report, Story) {
    catch_unwind(AssertUnwindSafe(|| perform(plan, tells))).unwrap_or_else(|panic| {
        let what = TaskError::from_panic(panic).to_string();
        let violation = Violation { check: "run", what, at: now() };
        let report = Report { violation: Some(violation), ..Report::default() };
        (report, Story { lines: Vec::new(), recent: Vec::new() })
    })
}

fn perform(plan: &Plan, tells: bool) -> (Report, Story) {
    let mut plan = plan.clone();
    plan.disk.durable_renames = !planted(Bug::D4);
    let plan = &plan;
    let simulation = Simulation::new(plan.seed);
    if tells {
        simulation.keep_recent();
    }
    let observer = Observer::new(plan, tells);
    let cluster = Cluster::new(&simulation, plan, Rc::clone(&observer));
    let ended: Rc<RefCell<Option<Verdict>>> = Rc::default();
    cluster.control.start({
        let (cluster, ended) = (Rc::clone(&cluster), Rc::clone(&ended));
        async move |rt| {
            let verdict = conduct(cluster, rt).await;
            ended.replace(Some(verdict));
        }
    });
    let nodes: BTreeMap<HostId, u64> =
        cluster.hosts.iter().map(|(id, host)| (host.id(), *id)).collect();
    while !observer.has_violation() && ended.borrow().is_none() {
        match simulation.step() {
            Step::Ran(host) => {
                if let Some(node) = nodes.get(&host) {
                    observer.look(*node, simulation.now());
                }
            }
            Step::Other => {}
            Step::Nothing => {
                let verdict = Err("nothing happens any more".to_owned());
                observer.accuse("progress", verdict, simulation.now());
            }
        }
        if simulation.events() > MAX_EVENTS {
            let verdict = Err("there is no end to what happens".to_owned());
            observer.accuse("progress", verdict, simulation.now());
        }
    }
    let at = simulation.now();
    if let Some(verdict) = ended.take() {
        observer.accuse("liveness", verdict, at);
    }
    if !observer.has_violation() && !observer.looks_away() {
        observer.look_at_history();
        observer.look_at_changes();
    }
    let mut counts = simulation.counts();
    counts.extend(cluster.counts());
    let operations = observer.history.borrow().operations().len() as u64;
    let report = Report {
        violation: observer.violation(),
        hash: simulation.hash(),
        virtual_time: at,
        events: simulation.events(),
        operations,
        looks: observer.looks(),
        counts,
    };
    let name = |host: HostId| match nodes.get(&host) {
        Some(node) => format!("node {node}"),
        None => "others".to_owned(),
    };
    let recent = simulation.recent().into_iter();
    let recent = recent.filter_map(|happened| Some((name(happened.host?), happened))).collect();
    drop((simulation, cluster));
    observer.release();
    assert_eq!(Rc::strong_count(&observer), 1, "the run leaves something behind");
    (report, Story { lines: observer.take_story(), recent })
}

/// What happens in a run. It ends early where a check has something to say.
async fn conduct(cluster: Rc<Cluster>, rt: Sim) -> Verdict {
    rt.spawn(Rc::clone(&cluster).supervise(rt.clone())).detach();
    let tasks = Rc::clone(&cluster);
    let (started, clients) = quorate::rt::channel::oneshot::channel();
    cluster.outside.start(async move |rt| {
        let clients = workload::start(&tasks, &rt);
        let _nobody_is_gone = started.send(clients);
        std::future::pending().await
    });
    let clients = clients.await.map_err(|_| "no clients were started".to_owned())?;
    let faults = faults::start(&cluster, &rt);
    rt.sleep(cluster.plan.duration).await;

    cluster.tell(|| "the time of faults is over".to_owned());
    cluster.set_phase(Phase::Healed);
    for fault in faults {
        fault.await.map_err(|error| format!("a fault: {error}"))?;
    }
    faults::transfers::settle(&cluster, &rt).await?;
    let mut core = healing::heal(&cluster);
    if cluster.plan.has(Fault::Memberships) {
        core = faults::memberships::settles(&cluster, &rt).await?;
    }
    healing::converges(&cluster, &rt, &core).await?;
    quiet::serves(&cluster, &rt, &core).await?;
    epilogue::perform(&cluster, &rt, &core).await?;
    if cluster.observer.looks_away() {
        return Ok(()); // What clients were told before may not be so any more.
    }

    cluster.tell(|| "the clients end".to_owned());
    cluster.set_phase(Phase::Ending);
    healing::kill_paused(&cluster, &core);
    let patience = cluster.plan.patience();
    healing::ends(&rt, clients, patience).await?;
    checks::answers::check(cluster.observer.history.borrow().operations(), now(), patience)?;
    healing::agrees(&cluster, &rt, &core).await?;
    healing::is_tidy(&cluster, &rt, &core).await
}
