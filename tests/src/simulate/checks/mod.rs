//! What must hold, whatever happens. Each check is a file, whose header tells the property and
//! where it comes from.

mod addressees;
pub mod answers;
mod bounds;
mod campaigns;
mod claims;
mod committed_stays;
mod configurations;
mod counting;
mod durable_quorum;
mod health;
mod identities;
mod leader_completeness;
mod leaders;
pub mod linearizable;
mod log_matching;
mod monotonic;
mod nothing_cut;
mod order;
mod promises;
pub mod recoverable;
mod retention;
mod rolled_back;
mod snapshots;
mod state_machine_safety;
mod targets;
mod transfers;
mod votes;

use quorate::{
    Fatal, Identity, LogWrite, Message, Metrics, NodeId, Recovered, SnapshotMeta, StartError,
};

use super::model::{Committed, Model, NodeModel};
use super::plan::Plan;

/// Something that was seen, after the model has taken note of it.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A node starts on a store, which says who it is. The model still has what it said before.
    Identified { node: NodeId, identity: &'a Identity },
    /// A node begins a life with what its store has found. The model still has what was known of it
    /// before.
    Recovered { node: NodeId, recovered: &'a Recovered },
    /// A node hands a write to its store. The model still has what was there before it.
    Submits { node: NodeId, write: &'a LogWrite },
    /// Its store says that the oldest write is durable.
    Durable { node: NodeId },
    /// A snapshot was finished.
    Finished { node: NodeId, meta: &'a SnapshotMeta },
    /// A node sends a message.
    Sends { node: NodeId, message: &'a Message },
    /// A message has come for a node, which may not look at it any more.
    Receives { node: NodeId, message: &'a Message },
    /// A node's state machine has applied its command of this number; the hash over all of them.
    Applied { node: NodeId, count: u64, chain: u32 },
    /// A node's state machine was restored, and has applied so many commands in all.
    Restored { node: NodeId, count: u64, chain: u32 },
    /// A node knows entries to be committed that nobody knew to be.
    Committed { node: NodeId, entries: &'a [Committed] },
    /// A node has had a turn in which its metrics have changed.
    Turned { node: NodeId, before: &'a Metrics, now: &'a Metrics },
    /// A node could not be started.
    Refused { node: NodeId, error: &'a StartError },
    /// A node has ended by itself.
    Ended { node: NodeId, outcome: &'a Result<(), Fatal> },
    /// A process was killed, or its machine has lost its power.
    Died { node: NodeId },
    /// A node's disk was put back to what it was in this boot.
    PutBack { node: NodeId, boot: u64 },
}

/// What a check says: nothing, or what does not hold.
pub type Verdict = Result<(), String>;

/// A check, and what it remembers.
pub trait Check {
    /// The name of its file.
    fn name(&self) -> &'static str;

    /// Whether it is about single stores, so that what it remembers is still so when a cluster is
    /// lost and another is formed.
    fn is_of_stores(&self) -> bool {
        false
    }

    /// Looks at what was seen.
    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict;
}

/// All checks that look at each thing that is seen.
pub fn all(plan: &Plan) -> Vec<Box<dyn Check>> {
    vec![
        Box::new(leaders::Leaders::default()),
        Box::new(log_matching::LogMatching::default()),
        Box::new(leader_completeness::LeaderCompleteness),
        Box::new(state_machine_safety::StateMachineSafety::default()),
        Box::new(durable_quorum::DurableQuorum::default()),
        Box::new(committed_stays::CommittedStays),
        Box::new(order::Order::default()),
        Box::new(monotonic::Monotonic),
        Box::new(configurations::Configurations),
        Box::new(campaigns::Campaigns),
        Box::new(targets::Targets::default()),
        Box::new(counting::Counting),
        Box::new(nothing_cut::NothingCut),
        Box::new(promises::Promises),
        Box::new(votes::Votes::default()),
        Box::new(addressees::Addressees::default()),
        Box::new(claims::Claims::default()),
        Box::new(identities::Identities::default()),
        Box::new(rolled_back::RolledBack::default()),
        Box::new(snapshots::Snapshots::default()),
        Box::new(transfers::Transfers::default()),
        Box::new(bounds::Bounds::new(plan)),
        Box::new(retention::Retention::new(plan)),
        Box::new(health::Health),
    ]
}

/// Says what does not hold, if it doesn't.
fn demand(holds: bool, violation: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(violation()) }
}

fn node_of(model: &Model, node: NodeId) -> &NodeModel {
    &model.nodes[&node]
}
