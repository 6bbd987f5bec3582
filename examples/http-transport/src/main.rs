//! A counter whose nodes and clients talk HTTP, on one port. Three nodes, each in a terminal:
//!
//! $ cargo run -p http-transport 1                                 # and 2, and 3
//! $ curl -X POST localhost:7261/add/5
//! $ curl localhost:7263/total

use std::fmt::Display;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_transport::HttpTransport;
use quorate::prelude::*;
use tokio::net::TcpListener;

const MEMBERS: [&str; 3] = ["127.0.0.1:7261", "127.0.0.1:7262", "127.0.0.1:7263"];

#[derive(Default, Serialize, Deserialize)]
struct Counter(i64);

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.0 = self.0.wrapping_add(add);
        self.0
    }
}

fn answer(total: Result<i64, impl Display>) -> Result<String, (StatusCode, String)> {
    // After `WriteError::Unknown` it may have been counted or not.
    let unavailable = |error| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}"));
    total.map(|total| total.to_string()).map_err(unavailable)
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    let id = std::env::args().nth(1).and_then(|id| id.parse().ok());
    let Some(id @ 1..=3) = id else { anyhow::bail!("which node: 1, 2 or 3?") };
    quorate::run(async move |rt: Tokio| {
        let (transport, raft_route) = HttpTransport::new(&rt);
        let node = Node::builder(id)
            .log_store(FileStore::open(&rt, format!("data/http-transport-{id}")).await?)
            .transport(transport)
            .start(&rt)
            .await?;
        let raft = node.group(0).open(Counter::default()).await?;
        let add = async |State(raft): State<Raft<_>>, Path(n)| answer(raft.write(n).await);
        let total = async |State(raft): State<Raft<Counter>>| answer(raft.read(|c| c.0).await);
        let service = axum::Router::new()
            .route("/add/{n}", post(add))
            .route("/total", get(total))
            .with_state(raft.clone())
            .merge(raft_route);
        let listener = TcpListener::bind(MEMBERS[id as usize - 1]).await?;
        let address = listener.local_addr()?;
        let _server = rt.spawn(async { axum::serve(listener, service).await });
        raft.initialize((1..).zip(MEMBERS)).await?; // The first time it waits until all are there.
        println!("node {id} serves http://{address}");
        race(StopSignal::listen()?.received(), raft.stopped()).await;
        node.shutdown().await?; // One that leads hands its leadership over first.
        Ok(())
    })
}
