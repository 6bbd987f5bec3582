//! A map in 16 shards, each of them a Raft group: all nodes share the work of leading. Three nodes,
//! each in a terminal, and a client of any of them:
//!
//! $ cargo run --example groups 1                                  # and 2, and 3
//! $ nc localhost 7281
//! set color blue
//! ok
//! get color
//! blue
//! leaders
//! 1 2 3 1 2 3 1 2 3 1 2 3 1 2 3 1

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use futures::future::try_join_all;
use quorate::prelude::*;
use quorate::rt::Stream;

const MEMBERS: [&str; 3] = ["127.0.0.1:7291", "127.0.0.1:7292", "127.0.0.1:7293"];
/// It stays as it is: with another number, most keys would be looked for in other shards.
const SHARDS: u64 = 16;
const MAX_LINE_BYTES: usize = 64 << 10;

#[derive(Default, Serialize, Deserialize)]
struct Shard(BTreeMap<String, String>);

impl StateMachine for Shard {
    type Command = (String, String);
    type Response = ();

    async fn apply(&mut self, (key, value): (String, String), _: At) {
        self.0.insert(key, value);
    }
}

struct Map {
    shards: Vec<Raft<Shard>>,
}

impl Map {
    fn shard(&self, key: &str) -> &Raft<Shard> {
        // FNV-1a: the same on all nodes and in all versions of the program. std's hasher is not.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        &self.shards[(hash % SHARDS) as usize]
    }

    async fn answer(&self, line: &str) -> quorate::Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            // Two keys may be in two shards: there is no write and no read over both at once.
            ["set", key, value] => {
                self.shard(key).write((key.to_owned(), value.to_owned())).await?;
                "ok".to_owned()
            }
            ["get", key] => {
                let wanted = key.to_owned();
                let value =
                    self.shard(key).read(move |shard| shard.0.get(&wanted).cloned()).await?;
                value.unwrap_or_else(|| "nothing".to_owned())
            }
            ["leaders"] => {
                let leader =
                    |raft: &Raft<Shard>| raft.metrics().borrow().leader.unwrap_or_default();
                let leaders = self.shards.iter().map(|raft| leader(raft).to_string());
                leaders.collect::<Vec<_>>().join(" ")
            }
            _ => "what? set KEY VALUE, get KEY, or leaders".to_owned(),
        })
    }

    /// Answers line after line.
    async fn serve(&self, stream: impl Stream) -> std::io::Result<()> {
        let (from, mut to) = stream.split();
        let mut lines = Lines::new(from, MAX_LINE_BYTES);
        while let Some(line) = lines.next().await? {
            let answer = self.answer(&line).await;
            let answer = answer.unwrap_or_else(|error| format!("error: {error}"));
            to.write_all(vec![Bytes::from(answer + "\n")]).await?;
        }
        Ok(())
    }
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

#[expect(clippy::disallowed_methods, reason = "which node this is, is said on the command line")]
fn serve_node() -> Result<(), Box<dyn std::error::Error>> {
    let id: usize = std::env::args().nth(1).ok_or("which node: 1, 2 or 3?")?.parse()?;
    let address = *MEMBERS.get(id.wrapping_sub(1)).ok_or("which node: 1, 2 or 3?")?;
    quorate::run(async move |rt: Tokio| {
        let node = Node::builder(id as u64)
            .log_store(FileStore::open(&rt, format!("data/groups-{id}")).await?)
            .transport(TcpTransport::bind(&rt, address).await?)
            .start(&rt)
            .await?;
        // What a node holds is the sum over its groups: they get a part each.
        let config = Config { max_retained_bytes: 64 << 20, ..Config::default() };
        let mut shards = Vec::new();
        for group in 0..SHARDS {
            shards.push(node.group(group).config(config.clone()).open(Shard::default()).await?);
        }
        // All at once: each returns when all nodes have formed its group, and another node may open
        // its groups in another order.
        try_join_all(shards.iter().map(|raft| raft.initialize((1..).zip(MEMBERS)))).await?;
        if id == 1 {
            // It has founded all groups, and leads them: most of them are for others to lead. An
            // error says that another node leads by now, or can't take over. Both are all right.
            for (shard, raft) in shards.iter().enumerate() {
                let _it_may_not_lead = raft.transfer_leadership(1 + shard as u64 % 3).await;
            }
        }
        let map = Rc::new(Map { shards });
        let mut listener = rt.listen((Ipv4Addr::LOCALHOST, 7280 + id as u16).into()).await?;
        println!("node {id} answers on {}", listener.local_addr()?);
        let spawner = rt;
        let _serves = rt.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let map = Rc::clone(&map);
                spawner.spawn(async move { map.serve(stream).await }).detach();
            }
        });
        // A node can also end by itself, say because its disk fails.
        race(StopSignal::listen()?.received(), node.stopped()).await;
        node.shutdown().await?; // What it leads is led by others before this returns.
        Ok(())
    })
}
