//! Clients that write and read through all nodes while a test does harm, and what they were told,
//! held against what is there afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Cmd, Connection, FromRedisValue, RedisResult};

use super::{Cluster, connect_to, until};

/// How long a client waits before it tries another node. The outcome is unknown then. A node that
/// runs answers within 5 s.
const CLIENT_PATIENCE: Duration = Duration::from_secs(6);

/// A counter that all clients increment and read: no answer may be older than one that was there
/// before its question.
const CLOCK: &str = "clock";

/// Clients, two at home on each node.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Account>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// How many commands have been answered as wished.
    answered: AtomicU64,
    /// The highest value of the clock that anybody was told of.
    clock: AtomicU64,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// It has had no effect, and will have none.
    Refused,
    Unknown,
}

/// What a client was told.
#[derive(Default)]
struct Account {
    sets: BTreeMap<u64, Fate>,
    incremented: u64,
    unknown: u64,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let shared = Arc::new(Shared::default());
        let addresses = cluster.client_addresses();
        let clients = (0..2 * addresses.len())
            .map(|client| {
                let (shared, addresses) = (Arc::clone(&shared), addresses.clone());
                thread::spawn(move || shared.run(client, &addresses))
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until so many more commands have been answered as wished.
    pub(crate) fn goes_on(&self, count: u64) {
        let answered = || self.shared.answered.load(Ordering::SeqCst);
        let before = answered();
        until("the clients are served", || {
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!ended, "a client has seen what must not be");
            (answered() >= before + count).then_some(())
        });
    }

    /// Ends the clients, and holds what they were told against every node.
    pub(crate) fn end_and_check(self, cluster: &Cluster, nodes: &[usize]) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let accounts: Vec<_> =
            self.clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        let told = |fate| {
            let sets = accounts.iter().flat_map(|account| account.sets.values());
            sets.filter(|told| **told == fate).count()
        };
        let (done, refused, unknown) = (told(Fate::Done), told(Fate::Refused), told(Fate::Unknown));
        eprintln!("of the SETs {done} were done, {refused} refused and {unknown} unknown");
        let incremented: u64 = accounts.iter().map(|account| account.incremented).sum();
        let perhaps: u64 = accounts.iter().map(|account| account.unknown).sum();
        for node in nodes {
            cluster.serves(*node);
            let mut connection = cluster.connect(*node).expect("connects");
            for (client, account) in accounts.iter().enumerate() {
                let sets: Vec<_> = account.sets.iter().collect();
                for chunk in sets.chunks(500) {
                    let keys: Vec<_> = chunk.iter().map(|(n, _)| key(client, **n)).collect();
                    let values: Vec<Option<u64>> =
                        redis::cmd("MGET").arg(keys).query(&mut connection).expect("reads");
                    for ((n, fate), value) in chunk.iter().zip(values) {
                        let honest = match fate {
                            Fate::Done => value == Some(**n),
                            Fate::Refused => value.is_none(),
                            Fate::Unknown => value.is_none_or(|value| value == **n),
                        };
                        let key = key(client, **n);
                        assert!(honest, "{key} on node {node} is {value:?}, and was {fate:?}");
                    }
                }
            }
            let clock: u64 =
                redis::cmd("GET").arg(CLOCK).query(&mut connection).expect("has begun");
            assert!(
                (incremented..=incremented + perhaps).contains(&clock),
                "the clock is {clock} on node {node}; {incremented} INCRs done, {perhaps} unknown"
            );
        }
    }
}

fn key(client: usize, n: u64) -> String {
    format!("key:{client}:{n}")
}

impl Shared {
    /// One client, until it is told to stop.
    fn run(&self, client: usize, addresses: &[SocketAddr]) -> Account {
        let mut account = Account::default();
        let mut connection = None;
        let mut node = client;
        for n in 0.. {
            while connection.is_none() && !self.stopped() {
                connection = connect_to(addresses[node % addresses.len()]).ok();
                if let Some(open) = &connection {
                    open.set_read_timeout(Some(CLIENT_PATIENCE)).expect("can be set");
                } else {
                    node += 1;
                }
            }
            let Some(open) = connection.as_mut().filter(|_| !self.stopped()) else { break };
            let mut ask = Ask { shared: self, open, lost: false };
            let (fate, _) = ask.ask::<()>(redis::cmd("SET").arg(key(client, n)).arg(n));
            account.sets.insert(n, fate);

            let seen = self.clock.load(Ordering::SeqCst);
            match ask.ask::<u64>(redis::cmd("INCR").arg(CLOCK)) {
                (_, Some(clock)) => {
                    assert!(clock > seen, "incremented to {clock} after it was {seen}");
                    self.clock.fetch_max(clock, Ordering::SeqCst);
                    account.incremented += 1;
                }
                (Fate::Unknown, None) => account.unknown += 1,
                (_, None) => {}
            }

            let seen = self.clock.load(Ordering::SeqCst);
            if let (_, Some(clock)) = ask.ask::<Option<u64>>(redis::cmd("GET").arg(CLOCK)) {
                let clock = clock.unwrap_or(0);
                assert!(clock >= seen, "reads {clock} after it was {seen}");
                self.clock.fetch_max(clock, Ordering::SeqCst);
            }
            if ask.lost {
                // On to the next node, and back home some time.
                connection = None;
                node += 1;
            }
        }
        account
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Asks on a connection until that is lost.
struct Ask<'a> {
    shared: &'a Shared,
    open: &'a mut Connection,
    lost: bool,
}

impl Ask<'_> {
    fn ask<T: FromRedisValue>(&mut self, command: &mut Cmd) -> (Fate, Option<T>) {
        if self.lost {
            return (Fate::Refused, None); // It was not sent.
        }
        let answer: RedisResult<T> = command.query(self.open);
        match answer {
            Ok(answer) => {
                self.shared.answered.fetch_add(1, Ordering::SeqCst);
                (Fate::Done, Some(answer))
            }
            Err(error) => {
                let said = error.code().is_some();
                self.lost |= !said;
                if said {
                    let is_known = matches!(error.code(), Some("CLUSTERDOWN" | "MISCONF"));
                    assert!(is_known, "{error}");
                }
                let refused = said && !error.to_string().contains("unknown");
                (if refused { Fate::Refused } else { Fate::Unknown }, None)
            }
        }
    }
}

/// Writes to few keys, so that the state stays small, until so many bytes are acknowledged.
pub(crate) fn overwrite(connection: &mut Connection, bytes: usize) {
    const VALUE: usize = 512 << 10;
    const PIPELINE: usize = 8;
    let value = vec![b'x'; VALUE];
    for _ in 0..bytes / (PIPELINE * VALUE) {
        let mut pipeline = redis::pipe();
        for key in 0..PIPELINE {
            pipeline.cmd("SET").arg(key).arg(&value);
        }
        let answers: Vec<String> = pipeline.query(connection).expect("writes");
        assert!(answers.len() == PIPELINE && answers.iter().all(|answer| answer == "OK"));
    }
}
