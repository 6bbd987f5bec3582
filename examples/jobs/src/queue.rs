//! The queue: what its commands do, the same on every replica, and its HTTP interface, the same on
//! every runtime. Every node takes every request, and passes it on to the leader where needed.

use std::collections::BTreeMap;

use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::{Router, delete, get, post, put};
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
    Job { name: String, payload: String, lease: u64 },
    NoJob,
    LeaseLost, // It has ended, and somebody else has claimed the job since.
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
                // Repeated, it changes nothing; or, after the job was done, has it done once more.
                let job = Job { payload, enqueued: index, lease: None, leased_until: 0 };
                self.0.entry(name).or_insert(job);
                Response::Done
            }
            Command::Claim { lease_ms } => {
                let free = self.0.iter_mut().filter(|(_, job)| job.leased_until <= now);
                let first = free.min_by_key(|(_, job)| job.enqueued);
                let Some((name, job)) = first else { return Response::NoJob };
                (job.lease, job.leased_until) = (Some(index), now.saturating_add(lease_ms));
                Response::Job { name: name.clone(), payload: job.payload.clone(), lease: index }
            }
            Command::Complete { name, lease } => {
                if self.0.get(&name).is_some_and(|job| job.lease != Some(lease)) {
                    return Response::LeaseLost;
                }
                self.0.remove(&name); // A client may repeat this, too: then the job is gone.
                Response::Done
            }
        }
    }
}

pub(crate) fn router(raft: Raft<Queue>) -> Router {
    let list = async |State(raft): State<Raft<Queue>>| {
        let names = raft.read(|queue| queue.0.keys().cloned().collect::<Vec<_>>()).await;
        names.map(Json).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
    };
    let enqueue = async |State(raft), Path(name), payload| {
        answer(raft, Command::Enqueue { name, payload }).await
    };
    let claim = async |State(raft), Path(lease_ms)| answer(raft, Command::Claim { lease_ms }).await;
    let complete = async |State(raft), Path((name, lease))| {
        answer(raft, Command::Complete { name, lease }).await
    };
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{name}", put(enqueue))
        .route("/jobs/{name}/{lease}", delete(complete))
        .route("/claims/{lease_ms}", post(claim))
        .with_state(raft)
}

async fn answer(raft: Raft<Queue>, command: Command) -> Answer {
    let failed = |status, error: WriteError| (status, error.to_string()).into_response();
    match raft.write(command).await {
        Ok(Response::Done | Response::NoJob) => StatusCode::NO_CONTENT.into_response(),
        Ok(Response::LeaseLost) => StatusCode::CONFLICT.into_response(),
        Ok(job) => Json(job).into_response(),
        // It may have had an effect or not: the client repeats it. Jobs are done at least once.
        Err(error @ WriteError::Unknown) => failed(StatusCode::GATEWAY_TIMEOUT, error),
        // After all others it has had none.
        Err(error @ WriteError::Command(_)) => failed(StatusCode::UNPROCESSABLE_ENTITY, error),
        Err(error) => failed(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}
