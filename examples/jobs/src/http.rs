//! The queue over HTTP, the same on every runtime. Every node takes every request: one that does
//! not lead passes writes on to the leader, and asks it to confirm reads.

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::{delete, get, post, put};
use quorate::prelude::*;

use crate::queue::{Command, Queue, Response};

type Node = State<Raft<Queue>>;

pub(crate) fn router(raft: Raft<Queue>) -> Router {
    let list = async |State(raft): Node| {
        let names = raft.read(|queue| queue.0.keys().cloned().collect::<Vec<_>>()).await;
        names.map(Json).map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))
    };
    let enqueue = async |State(raft): Node, Path(name): Path<String>, payload: String| {
        answer(raft.write(Command::Enqueue { name, payload }).await)
    };
    let claim = async |State(raft): Node, Path(lease_ms): Path<u64>| {
        answer(raft.write(Command::Claim { lease_ms }).await)
    };
    let complete = async |State(raft): Node, Path((name, lease)): Path<(String, u64)>| {
        answer(raft.write(Command::Complete { name, lease }).await)
    };
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{name}", put(enqueue))
        .route("/jobs/{name}/{lease}", delete(complete))
        .route("/claims/{lease_ms}", post(claim))
        .with_state(raft)
}

fn answer(written: Result<Response, WriteError>) -> Answer {
    let error = match written {
        Ok(Response::Done | Response::NoJob) => return StatusCode::NO_CONTENT.into_response(),
        Ok(Response::LeaseLost) => return StatusCode::CONFLICT.into_response(),
        Ok(job) => return Json(job).into_response(),
        Err(error) => error,
    };
    let status = match error {
        // It may have had an effect or not. Here every request may simply be repeated.
        WriteError::Unknown => StatusCode::GATEWAY_TIMEOUT,
        // After all others it has had none.
        WriteError::NotLeader { .. } | WriteError::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        WriteError::Busy => StatusCode::TOO_MANY_REQUESTS,
        WriteError::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        WriteError::Command(_) => StatusCode::UNPROCESSABLE_ENTITY,
        WriteError::Fatal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, [("retry-after", "1")], error.to_string()).into_response()
}
