//! Operators that move leadership about: transfers to any node and with any deadline, campaigns,
//! and leaders that are told to step down.

use std::rc::Rc;
use std::time::Duration;

use quorate::rt::Task;
use quorate::sim::Sim;
use quorate::{Executor, Raft, TransferOptions};

use super::super::asked;
use super::super::checks::Verdict;
use super::super::cluster::Cluster;
use super::super::healing::comes_true;
use super::super::ledger::Ledger;
use super::super::model::Model;
use super::super::observer::now;
use super::{Calm, Fault};

pub(super) async fn transfers(calm: Calm) {
    let draw = &calm.draw;
    while calm.passes().await {
        let Some(raft) = calm.any_running().and_then(|id| calm.cluster.raft(id)) else { continue };
        if calm.cluster.is_forming() {
            continue;
        }
        match draw.below(8) {
            0..6 => transfer(&calm, &raft),
            6 => campaign(&calm, &raft),
            _ => step_down(&calm, &raft),
        }
    }
}

/// A transfer that is under way may take effect as long as it has no answer, which comes in time.
pub async fn settle(cluster: &Cluster, rt: &Sim) -> Verdict {
    let answered = || cluster.open_transfers.get() == 0;
    let what = "all know what came of their transfers of leadership";
    comes_true(cluster, rt, what, cluster.plan.patience(), answered).await
}

fn accuse(cluster: &Cluster, verdict: impl FnOnce(&Model) -> Verdict) {
    // Where somebody lies, a node may follow a leader that is none, and say so.
    if cluster.plan.has(Fault::Liars) {
        return;
    }
    let verdict = cluster.observer.with_model(verdict);
    cluster.observer.accuse("leadership", verdict, now());
}

fn transfer(calm: &Calm, raft: &Raft<Ledger>) {
    let draw = &calm.draw;
    let to = draw.chance(0.7).then(|| calm.any_node());
    let within = draw.chance(0.3).then(|| draw.duration(&(Duration::ZERO..3 * calm.some_time())));
    let (node, term) = (raft.id(), raft.metrics().borrow().term);
    let (cluster, transferred) =
        (Rc::clone(&calm.cluster), raft.transfer_leadership(TransferOptions { to, within }));
    cluster.tell(|| format!("node {node} is asked to transfer leadership to {to:?}"));
    cluster.open_transfers.update(|open| open + 1);
    let answered = async move {
        let told = transferred.await;
        cluster.open_transfers.update(|open| open - 1);
        cluster.tell(|| format!("node {node} says of a transfer: {told:?}"));
        cluster.count(if told.is_ok() { "leadership transferred" } else { "transfer failed" });
        accuse(&cluster, |model| asked::is_transferred(node, to, term, &told, model));
    };
    calm.rt.spawn(answered).detach();
}

fn campaign(calm: &Calm, raft: &Raft<Ledger>) {
    let (node, term) = (raft.id(), raft.metrics().borrow().term);
    let (cluster, campaign) = (Rc::clone(&calm.cluster), raft.campaign());
    cluster.open_transfers.update(|open| open + 1);
    let answered = async move {
        let told = campaign.await;
        cluster.open_transfers.update(|open| open - 1);
        cluster.tell(|| format!("node {node} says of a campaign: {told:?}"));
        cluster.count(if told.is_ok() { "campaign by hand won" } else { "campaign by hand lost" });
        accuse(&cluster, |model| asked::has_campaigned(node, term, &told, model));
    };
    calm.rt.spawn(answered).detach();
}

fn step_down(calm: &Calm, raft: &Raft<Ledger>) {
    let (node, term) = (raft.id(), raft.metrics().borrow().term);
    let (cluster, stepped_down) = (Rc::clone(&calm.cluster), raft.step_down());
    let answered = async move {
        let told = stepped_down.await;
        cluster.tell(|| format!("node {node} says of stepping down: {told:?}"));
        if told.is_ok() {
            cluster.count("stepped down by hand");
        }
        accuse(&cluster, |model| asked::has_stepped_down(node, term, &told, model));
    };
    calm.rt.spawn(answered).detach();
}
