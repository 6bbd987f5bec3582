//! A counter whose nodes talk HTTP: one port for clients and for Raft. Three nodes, each in a
//! terminal:
//!
//! $ cargo run -p http-transport 1                                 # and 2, and 3
//! $ curl -X POST localhost:7261/add/5
//! 5
//! $ curl localhost:7263/total
//! 5

use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_transport::HttpTransport;
use quorate::prelude::*;
use tokio::net::TcpListener;

const MEMBERS: [&str; 3] = ["127.0.0.1:7261", "127.0.0.1:7262", "127.0.0.1:7263"];

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total = self.total.wrapping_add(add);
        self.total
    }
}

type Answer = Result<String, (StatusCode, String)>;

async fn add(State(raft): State<Raft<Counter>>, Path(add): Path<i64>) -> Answer {
    let unavailable = |error: WriteError| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    raft.write(add).await.map(|total| total.to_string()).map_err(unavailable)
}

async fn total(State(raft): State<Raft<Counter>>) -> Answer {
    let unavailable = |error: ReadError| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    raft.read(|counter| counter.total.to_string()).await.map_err(unavailable)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    match serve_node() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}"); // As text. `main` would print it for programmers, by `Debug`.
            ExitCode::FAILURE
        }
    }
}

fn serve_node() -> Result<(), Box<dyn std::error::Error>> {
    let id: usize = std::env::args().nth(1).ok_or("which node: 1, 2 or 3?")?.parse()?;
    let address = *MEMBERS.get(id.wrapping_sub(1)).ok_or("which node: 1, 2 or 3?")?;
    quorate::run(async move |rt: Tokio| {
        let (transport, raft_route) = HttpTransport::new(&rt);
        let node = Node::builder(id as u64)
            .log_store(FileStore::open(&rt, format!("data/http-transport-{id}")).await?)
            .transport(transport)
            .start(&rt)
            .await?;
        let raft = node.group(0).open(Counter::default()).await?;
        let service = axum::Router::new()
            .route("/add/{n}", post(add))
            .route("/total", get(total))
            .with_state(raft.clone())
            .merge(raft_route);
        let listener = TcpListener::bind(address).await?;
        let _server = rt.spawn(async { axum::serve(listener, service).await });
        raft.initialize((1..).zip(MEMBERS)).await?;
        println!("node {id} serves http://{address}");
        race(StopSignal::listen()?.received(), raft.stopped()).await;
        node.shutdown().await?; // One that leads hands its leadership over first.
        Ok(())
    })
}
