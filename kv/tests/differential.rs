//! The commands of `quorate-kv` beside those of a real `redis-server`: random ones, with odd
//! arguments, to both, and their replies byte for byte. Skipped, with a word, where there is no
//! `redis-server`.
//!
//! `QUORATE_SEED=7 cargo test -p quorate-kv --test differential` repeats a run.
//!
//! What differs on purpose is not sent, or is in [`refused_on_purpose`]:
//!
//! * Commands and options that Quorate has not got: expiry, transactions, other types than strings,
//!   databases but 0, `COMMAND LIST FILTERBY`.
//! * `AUTH`, and `HELLO` with it: Redis takes any password of `default` as long as none is set.
//! * Limits: 8 MiB for a value, 16 MiB and 32,768 arguments for a request, 64 KiB for a pattern, 4
//!   KiB for the arguments of CONFIG, COMMAND and INFO. Redis' are wider.
//! * What a server tells of itself: `HELLO`'s fields, `INFO`, settings, a client's number, which
//!   commands there are.
//! * Names of commands and subcommands with a NUL, which Redis finds or doesn't, as the hash of its
//!   tables, a random one, will have it.
//! * Orders that Redis leaves open: of KEYS, and of SCAN, whose cursors are opaque.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;
#[path = "differential/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use common::namespace::skipped;
use common::{Cluster, PATIENCE, Process, free_ports, until};
use fastrand::Rng;
use random::{KEYS, is_known_to_differ, random_command};
use tempfile::TempDir;

const ROUNDS: usize = 2500;

/// A reply, or a part of one, with its kind in front as on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Line(String),
    Bulk(String),
    List(char, Vec<Reply>),
}

/// A connection to either server.
struct Client {
    port: u16,
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16, protocol: u8) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
        let mut client = Self { port, stream: BufReader::new(stream) };
        let hello = client.ask(&words(&["HELLO", &protocol.to_string()]));
        assert!(matches!(hello, Some(Reply::List(..))), "{hello:?}");
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server that has hung up says so where the answer is read.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    fn ask(&mut self, command: &[Vec<u8>]) -> Option<Reply> {
        self.send(&encoded(command));
        self.reply()
    }

    /// The next reply; none where the connection has ended.
    fn reply(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("port {}: {error}", self.port),
        }
        let text = line.strip_suffix(b"\r\n").expect("a whole line").escape_ascii().to_string();
        let text = text.replace("\\'", "'");
        let kind = text.chars().next().expect("has a kind");
        let number = text[1..].parse::<i64>();
        Some(match (kind, number) {
            ('$' | '=', Ok(len @ 0..)) => {
                let mut bytes = vec![0; usize::try_from(len).expect("fits") + 2];
                self.stream.read_exact(&mut bytes).expect("is whole");
                let bytes = bytes.strip_suffix(b"\r\n").expect("has an end");
                Reply::Bulk(format!("{kind}{}", bytes.escape_ascii()))
            }
            ('*' | '~' | '%', Ok(count @ 0..)) => {
                let count = if kind == '%' { 2 * count } else { count };
                Reply::List(kind, (0..count).map(|_| self.reply().expect("is whole")).collect())
            }
            _ => Reply::Line(text),
        })
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn encoded(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn shown(command: &[Vec<u8>]) -> String {
    let shown = command.iter().map(|word| format!("\"{}\"", word.escape_ascii()));
    shown.collect::<Vec<_>>().join(" ")
}

/// Both servers, a client of each, and what was random.
struct Both {
    _cluster: Cluster,
    _redis: Process,
    _folder: TempDir,
    ours: Client,
    theirs: Client,
    protocol: u8,
    rng: Rng,
    done: usize,
}

impl Both {
    /// None: there is no `redis-server`.
    fn start(test: &str, protocol: u8) -> Option<Self> {
        let seed = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_ports(1)[0];
        let redis = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(redis) = redis else {
            skipped(test, "there is no redis-server");
            return None;
        };
        let redis = Process::of(redis);
        println!("{test}: QUORATE_SEED={seed}");
        let cluster = Cluster::start(["tokio"]);
        cluster.serves(0);
        let listens = || TcpStream::connect(("127.0.0.1", port)).ok();
        until("redis-server listens", listens);
        let ours = Client::connect(cluster.client_ports()[0], protocol);
        let theirs = Client::connect(port, protocol);
        let rng = Rng::with_seed(seed);
        let (_cluster, _redis, _folder) = (cluster, redis, folder);
        Some(Self { _cluster, _redis, _folder, ours, theirs, protocol, rng, done: 0 })
    }

    /// Both answer the same.
    fn agree(&mut self, command: &[Vec<u8>]) -> Option<Reply> {
        self.done += 1;
        let what = shown(command);
        let mut ours = self.ours.ask(command);
        let mut theirs = self.theirs.ask(command);
        let name = command[0].to_ascii_lowercase();
        if [&ours, &theirs].iter().any(|reply| scans_on(&name, reply)) {
            return None; // Each has its own order.
        }
        for reply in [&mut ours, &mut theirs].into_iter().flatten() {
            normalize(&name, reply);
        }
        assert_eq!(ours, theirs, "command {} over RESP{}: {what}", self.done, self.protocol);
        if ours.is_none() {
            self.ours = Client::connect(self.ours.port, self.protocol);
            self.theirs = Client::connect(self.theirs.port, self.protocol);
        }
        ours
    }

    /// Both hold the same.
    fn hold_the_same(&mut self) {
        let keys = self.agree(&words(&["KEYS", "*"]));
        let Some(Reply::List(_, keys)) = keys else { panic!("{keys:?}") };
        self.agree(&words(&["DBSIZE"]));
        for key in KEYS {
            self.agree(&[b"GET".to_vec(), key.to_vec()]);
            self.agree(&[b"TYPE".to_vec(), key.to_vec()]);
        }
        assert!(keys.len() <= KEYS.len(), "nobody has made others");
    }
}

/// Whether it is the answer to a SCAN that is to go on.
fn scans_on(name: &[u8], reply: &Option<Reply>) -> bool {
    match reply {
        Some(Reply::List(_, parts)) => name == b"scan" && parts[0] != Reply::Bulk("$0".to_owned()),
        _ => false,
    }
}

/// Orders that are left open.
fn normalize(name: &[u8], reply: &mut Reply) {
    match (name, reply) {
        (b"keys", Reply::List(_, keys)) => keys.sort(),
        (b"scan", Reply::List(_, parts)) => {
            if let Some(Reply::List(_, keys)) = parts.get_mut(1) {
                keys.sort();
            }
        }
        _ => {}
    }
}

fn random_commands(test: &str, protocol: u8) {
    let Some(mut both) = Both::start(test, protocol) else { return };
    for round in 0..ROUNDS {
        let command = random_command(&mut both.rng);
        if is_known_to_differ(&command) {
            continue;
        }
        both.agree(&command);
        // After QUIT each hangs up.
        if command.len() == 1 && command[0].eq_ignore_ascii_case(b"quit") {
            both.agree(&words(&["PING"]));
        }
        if round % 500 == 499 {
            both.hold_the_same();
        }
    }
}

#[test]
fn random_commands_are_answered_as_by_redis_over_resp2() {
    random_commands("random_commands_are_answered_as_by_redis_over_resp2", 2);
}

#[test]
fn random_commands_are_answered_as_by_redis_over_resp3() {
    random_commands("random_commands_are_answered_as_by_redis_over_resp3", 3);
}

#[test]
fn inline_commands_are_taken_apart_as_by_redis() {
    let Some(mut both) = Both::start("inline_commands_are_taken_apart_as_by_redis", 2) else {
        return;
    };
    const ITEMS: &[&str] = &[
        " ", " ", "\t", "a", "b", "\"", "\"", "'", "'", "\\", "\\x41", "\\xg", "\\n", "\\'",
        "\\\"", "\u{ff}",
    ];
    for round in 0..2000 {
        let mut line = "echo ".to_owned();
        for _ in 0..both.rng.usize(..8) {
            line.push_str(ITEMS[both.rng.usize(..ITEMS.len())]);
        }
        let end = if both.rng.bool() { "\r\n" } else { "\n" };
        // So that something comes even if the line is empty.
        let bytes = format!("{line}{end}");
        both.ours.send(bytes.as_bytes());
        both.theirs.send(bytes.as_bytes());
        let (ours, theirs) = (both.ours.reply(), both.theirs.reply());
        assert_eq!(ours, theirs, "line {round}: {}", line.escape_debug());
        let hangs_up = |reply: &Option<Reply>| matches!(reply, Some(Reply::Line(text)) if text.contains("Protocol error"));
        if hangs_up(&ours) {
            assert_eq!((both.ours.reply(), both.theirs.reply()), (None, None));
            both.ours = Client::connect(both.ours.port, 2);
            both.theirs = Client::connect(both.theirs.port, 2);
        }
    }
}

#[test]
fn what_command_tells_is_what_redis_tells() {
    for protocol in [2, 3] {
        let test = "what_command_tells_is_what_redis_tells";
        let Some(mut both) = Both::start(test, protocol) else { return };
        let Some(Reply::List(_, names)) = both.ours.ask(&words(&["COMMAND", "LIST"])) else {
            panic!("a list")
        };
        let mut compared = 0;
        for name in names {
            let Reply::Bulk(name) = name else { panic!("{name:?}") };
            let name = name.trim_start_matches('$').to_owned();
            // Of these Quorate has some subcommands only.
            let parts: &[&str] = match &name[..] {
                "raft" => continue,
                "client" => &["id", "getname", "setname", "help"],
                "config" => &["get", "help"],
                "command" => &["count", "list", "info", "docs", "help"],
                _ => &[],
            };
            let of = |what: &str| words(&["COMMAND", "INFO", what]);
            for part in parts {
                both.agree(&of(&format!("{name}|{part}")));
            }
            let (ours, theirs) = (both.ours.ask(&of(&name)), both.theirs.ask(&of(&name)));
            let without_parts = |reply: Option<Reply>| {
                let Some(Reply::List(_, mut one)) = reply else { panic!("{name}") };
                let Some(Reply::List(_, mut facts)) = one.pop() else { panic!("{name}") };
                if !parts.is_empty() {
                    facts.pop();
                }
                facts
            };
            assert_eq!(without_parts(ours), without_parts(theirs), "{name}");
            compared += 1;
        }
        assert!(compared > 30);
    }
}

/// What Quorate refuses and Redis doesn't, and by which error.
fn refused_on_purpose() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        (
            "ERR expiry is not supported",
            &[
                "SET a 1 EX 10",
                "SET a 1 px 10",
                "SET a 1 NX EXAT 1",
                "SET a 1 PXAT 1",
                "SET a 1 KEEPTTL",
                "SETEX a 10 1",
                "PSETEX a 10 1",
                "GETEX a",
                "EXPIRE a 10",
                "TTL a",
                "PERSIST a",
            ][..],
        ),
        (
            "ERR AUTH <password> called without any password",
            &["AUTH default x", "HELLO 3 AUTH default x"],
        ),
        ("ERR DB index is out of range", &["SELECT 1"]),
        ("ERR WATCH is not supported", &["WATCH a", "UNWATCH"]),
        ("ERR COMMAND LIST takes no filter here", &["COMMAND LIST FILTERBY PATTERN a*"]),
        ("ERR unknown command 'LPUSH'", &["LPUSH a 1"]),
        ("ERR unknown subcommand 'SET'", &["CONFIG SET save x"]),
    ])
}

#[test]
fn what_is_refused_on_purpose_says_so_and_changes_nothing() {
    let cluster = Cluster::start(["tokio"]);
    cluster.serves(0);
    let mut client = Client::connect(cluster.client_ports()[0], 2);
    client.ask(&words(&["FLUSHALL"]));
    for (error, lines) in refused_on_purpose() {
        for line in lines {
            let reply = client.ask(&words(&line.split(' ').collect::<Vec<_>>()));
            let Some(Reply::Line(text)) = reply else { panic!("{line}: {reply:?}") };
            assert!(text.starts_with(&format!("-{error}")), "{line}: {text}");
        }
    }
    assert_eq!(client.ask(&words(&["DBSIZE"])), Some(Reply::Line(":0".to_owned())));
    // A whole pipeline, as clients send it.
    let pipeline = [&["MULTI"][..], &["SET", "a", "1"], &["EXEC"]];
    client.send(&pipeline.map(|line| encoded(&words(line))).concat());
    let reply = client.reply();
    let Some(Reply::Line(text)) = &reply else { panic!("{reply:?}") };
    assert!(text.starts_with("-ERR MULTI is not supported"), "{text}");
    assert_eq!(client.reply(), None);
    let mut client = Client::connect(cluster.client_ports()[0], 2);
    assert_eq!(client.ask(&words(&["DBSIZE"])), Some(Reply::Line(":0".to_owned())));
}
