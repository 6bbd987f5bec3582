//! The replicated state machine: what enqueueing, claiming and completing a job do. It depends on
//! nothing but the commands and their places in the log, so it is the same on every node.

use std::collections::BTreeMap;

use quorate::prelude::*;

/// The jobs that are not completed, by the names that clients gave them.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Queue(pub(crate) BTreeMap<String, Job>);

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    payload: String,
    enqueued: u64, // Its place in the queue.
    lease: Option<u64>,
    leased_until: u64, // In milliseconds since the Unix epoch.
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Command {
    Enqueue { name: String, payload: String },
    Claim { lease_ms: u64 },
    Complete { name: String, lease: u64 },
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Response {
    Done,
    Job {
        name: String,
        payload: String,
        lease: u64,
    },
    NoJob,
    /// The lease has ended, and somebody else has claimed the job since.
    LeaseLost,
}

impl StateMachine for Queue {
    type Command = Command;
    type Response = Response;

    async fn apply(&mut self, command: Command, at: At) -> Response {
        // Never ask a clock here: the replicas would differ. `at.time` is the clock of the leader
        // that took the command, and never goes back. The index is another one for each command.
        let (now, index) = (at.time, at.log_id.index);
        match command {
            Command::Enqueue { name, payload } => {
                // A client may repeat it: the name is there already, and nothing changes.
                let job = Job { payload, enqueued: index, lease: None, leased_until: 0 };
                self.0.entry(name).or_insert(job);
                Response::Done
            }
            Command::Claim { lease_ms } => {
                let free = self.0.iter_mut().filter(|(_, job)| job.leased_until <= now);
                let Some((name, job)) = free.min_by_key(|(_, job)| job.enqueued) else {
                    return Response::NoJob;
                };
                (job.lease, job.leased_until) = (Some(index), now.saturating_add(lease_ms));
                let (name, payload) = (name.clone(), job.payload.clone());
                Response::Job { name, payload, lease: index }
            }
            Command::Complete { name, lease } => match self.0.get(&name) {
                Some(job) if job.lease != Some(lease) => Response::LeaseLost,
                Some(_) => {
                    self.0.remove(&name);
                    Response::Done
                }
                None => Response::Done, // It was completed before: the request is a repeated one.
            },
        }
    }
}
