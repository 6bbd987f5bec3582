//! A server with a node of its own, spoken to through real sockets.

use std::net::SocketAddr;

use bytes::BytesMut;
use clap::Parser;
use quorate::rt::ReadHalf;
use quorate::{Config, Executor, Launch, LocalNetwork, LocalTransport, MemStore, Node, Tokio};

use super::*;
use crate::connection::NO_ROOM;

/// A cluster of one, in memory, and its server.
struct Running {
    server: Rc<Server<Tokio>>,
    address: SocketAddr,
    accepting: RefCell<Option<<Tokio as Executor>::Task<()>>>,
    _node: Node<Tokio, MemStore, LocalTransport>,
}

const MAX_CLIENTS: usize = 100;

/// The limits of this command line.
fn limits(options: &str) -> Limits {
    #[derive(clap::Parser)]
    struct Options {
        #[command(flatten)]
        limits: Limits,
    }
    Options::parse_from(["kv"].into_iter().chain(options.split_whitespace())).limits
}

async fn start(rt: &Tokio, limits: Limits) -> Running {
    let store = Store::default();
    let keys = store.count();
    let node = Node::builder(1)
        .log_store(MemStore::new())
        .transport(LocalNetwork::new().transport())
        .start(rt)
        .await
        .unwrap();
    let raft = node.group(0).open_local(store).await.unwrap();
    raft.initialize([(1, "here")]).await.unwrap();
    raft.read(|_| ()).await.unwrap();
    let listener = rt.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let patience = Config::default().request_timeout;
    let server = Server::new(*rt, raft, keys, address.port(), MAX_CLIENTS, limits, patience);
    let server = Rc::new(server);
    let accepting = RefCell::new(Some(rt.spawn(Rc::clone(&server).accept(listener))));
    Running { server, address, accepting, _node: node }
}

fn with_server(test: impl AsyncFnOnce(&Tokio, &Running)) {
    with_limits("", test);
}

fn with_limits(options: &str, test: impl AsyncFnOnce(&Tokio, &Running)) {
    Tokio::run(&Launch::default(), async |rt: Tokio| {
        let running = start(&rt, limits(options)).await;
        test(&rt, &running).await;
    })
    .unwrap();
}

struct Client<R: Network> {
    reader: <R::Stream as Stream>::ReadHalf,
    writer: <R::Stream as Stream>::WriteHalf,
    received: BytesMut,
}

impl Client<Tokio> {
    async fn connect(rt: &Tokio, running: &Running) -> Self {
        let (reader, writer) = rt.connect(running.address).await.unwrap().split();
        Self { reader, writer, received: BytesMut::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(vec![Bytes::copy_from_slice(bytes.as_ref())]).await.unwrap();
    }

    /// Reads exactly this.
    async fn expect(&mut self, answer: &str) {
        while self.received.len() < answer.len() {
            assert!(self.read().await > 0, "closed after {:?}", self.received);
        }
        let received = self.received.split_to(answer.len());
        assert_eq!(
            received.escape_ascii().to_string(),
            answer.as_bytes().escape_ascii().to_string()
        );
    }

    /// Reads so many bytes, whatever they are.
    async fn received_exactly(&mut self, len: usize) {
        while self.received.len() < len {
            assert!(self.read().await > 0, "closed");
        }
        let _ = self.received.split_to(len);
    }

    async fn expect_end(&mut self) {
        assert!(self.received.is_empty(), "{:?}", self.received);
        assert_eq!(self.read().await, 0);
    }

    async fn read(&mut self) -> usize {
        let mut into = std::mem::take(&mut self.received);
        into.reserve(4096);
        let (result, into) = self.reader.read(into).await;
        self.received = into;
        result.unwrap()
    }
}

#[test]
fn a_pipeline_of_all_kinds_is_answered_in_order() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let pipeline = "SET a 1\r\nGET a\r\nINCR a\r\nINCR a\r\nPING\r\nGET a\r\nMGET a b\r\nNOPE x\r\n\
             SET a\r\nSET a x GET\r\nINCR a\r\nDEL a b\r\nEXISTS a\r\nDBSIZE\r\nECHO hi\r\n";
        client.send(pipeline).await;
        client
            .expect("+OK\r\n$1\r\n1\r\n:2\r\n:3\r\n+PONG\r\n$1\r\n3\r\n*2\r\n$1\r\n3\r\n$-1\r\n")
            .await;
        client.expect("-ERR unknown command 'NOPE', with args beginning with: 'x' \r\n").await;
        client.expect("-ERR wrong number of arguments for 'set' command\r\n").await;
        client.expect("$1\r\n3\r\n-ERR value is not an integer or out of range\r\n").await;
        client.expect(":1\r\n:0\r\n:0\r\n$2\r\nhi\r\n").await;
    });
}

#[test]
fn values_grow_move_and_are_taken_and_keys_are_found() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("SETNX a 1\r\nSETNX a 2\r\nAPPEND a 23\r\nSTRLEN a\r\nGETSET a x\r\n").await;
        client.expect(":1\r\n:0\r\n:3\r\n:3\r\n$3\r\n123\r\n").await;
        client.send("RENAME a b\r\nRENAME a b\r\nTYPE a\r\nTYPE b\r\nKEYS ?\r\n").await;
        client.expect("+OK\r\n-ERR no such key\r\n+none\r\n+string\r\n*1\r\n$1\r\nb\r\n").await;
        client.send("SCAN 0 MATCH b*\r\nGETDEL b\r\nGETDEL b\r\nSCAN 0\r\n").await;
        client.expect("*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n$1\r\nx\r\n$-1\r\n").await;
        client.expect("*2\r\n$1\r\n0\r\n*0\r\n").await;
    });
}

#[test]
fn consecutive_writes_become_one_entry_of_the_log() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let last = || running.server.metrics.borrow().last_log_id.index;
        let before = last();
        client.send("INCR n\r\n".repeat(100)).await;
        for n in 1..=100 {
            client.expect(&format!(":{n}\r\n")).await;
        }
        assert_eq!(last(), before + 1);
    });
}

#[test]
fn a_long_pipeline_is_cut_into_several_commands() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("INCR n\r\n".repeat(3000)).await;
        for n in 1..=3000 {
            client.expect(&format!(":{n}\r\n")).await;
        }
    });
}

#[test]
fn a_request_may_arrive_in_pieces() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        for piece in [
            "*3\r\n$3\r\nSE",
            "T\r\n$1\r\na\r\n$5\r\n12",
            "345\r\n*2\r\n$3\r\nGET\r",
            "\n$1\r\na\r\n",
        ] {
            client.send(piece).await;
        }
        client.expect("+OK\r\n$5\r\n12345\r\n").await;
    });
}

#[test]
fn a_malformed_frame_is_answered_after_what_came_before_and_ends_the_connection() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("SET a 1\r\n*1\r\n:1\r\n").await;
        client.expect("+OK\r\n-ERR Protocol error: expected '$', got ':'\r\n").await;
        client.expect_end().await;
    });
}

#[test]
fn a_value_that_is_too_large_is_refused_and_the_connection_goes_on() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let large =
            |len: usize| format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${len}\r\n{}\r\n", "x".repeat(len));
        client.send(large((8 << 20) + 1)).await;
        client.expect("-ERR value exceeds 8 MiB\r\n").await;
        client.send(large(8 << 20)).await;
        client.expect("+OK\r\n").await;
        client.send("GET a\r\nDEL a\r\nPING\r\n").await;
        client.expect(&format!("$8388608\r\n{}\r\n:1\r\n+PONG\r\n", "x".repeat(8 << 20))).await;
    });
}

#[test]
fn reads_that_are_more_than_one_answer_holds_are_all_answered() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let value = "x".repeat(600 << 10);
        client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len())).await;
        client.expect("+OK\r\n").await;
        client.send("GET a\r\nGET b\r\n".repeat(5)).await;
        for _ in 0..5 {
            client.expect(&format!("${}\r\n{value}\r\n$-1\r\n", value.len())).await;
        }
    });
}

#[test]
fn hello_and_client_concern_one_connection() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client
            .send("GET a\r\nHELLO 3 SETNAME me\r\nGET a\r\nCLIENT GETNAME\r\nCLIENT ID\r\n")
            .await;
        client.expect("$-1\r\n%7\r\n$6\r\nserver\r\n$10\r\nquorate-kv\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n").await;
        client
            .expect("$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n")
            .await;
        client
            .expect("$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n_\r\n$2\r\nme\r\n:1\r\n")
            .await;
        let mut other = Client::connect(rt, running).await;
        other.send("CLIENT GETNAME\r\nCLIENT ID\r\nQUIT\r\nPING\r\n").await;
        other.expect("$-1\r\n:2\r\n+OK\r\n").await;
        other.expect_end().await;
    });
}

#[test]
fn behind_a_refused_transaction_nothing_is_executed() {
    with_server(async |rt, running| {
        for multi in ["MULTI\r\n", "*1\r\n$5\r\nmulti\r\n"] {
            let mut client = Client::connect(rt, running).await;
            client.send(format!("INCR n\r\n{multi}INCR n\r\nEXEC\r\n")).await;
            client.expect(if multi.starts_with('M') { ":1\r\n" } else { ":2\r\n" }).await;
            client
                .expect("-ERR MULTI is not supported: the connection is closed, and nothing behind it is executed\r\n")
                .await;
            client.expect_end().await;
        }
        let mut client = Client::connect(rt, running).await;
        client.send("GET n\r\n").await;
        client.expect("$1\r\n2\r\n").await;
    });
}

#[test]
fn long_reads_are_answered_and_in_order() {
    const KEYS: usize = 5000;
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let key = |n: usize| format!("k{n:04}");
        let names: String = (0..KEYS).map(|n| format!(" {}", key(n))).collect();
        let pairs: String = (0..KEYS).map(|n| format!(" {} {n}", key(n))).collect();
        client.send(format!("MSET{pairs}\r\nSET x 1\r\nGET x\r\nEXISTS{names}\r\nGET x\r\n")).await;
        client.expect("+OK\r\n+OK\r\n$1\r\n1\r\n:5000\r\n$1\r\n1\r\n").await;
        client.send(format!("KEYS *k*\r\nDEL{names}\r\nKEYS *\r\n")).await;
        client.expect(&format!("*{KEYS}\r\n")).await;
        for _ in 0..KEYS {
            client.expect("$5\r\n").await;
            client.received_exactly(7).await;
        }
        client.expect(":5000\r\n*1\r\n$1\r\nx\r\n").await;
    });
}

#[test]
fn a_long_read_that_waits_too_long_for_the_others_is_refused() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        let pairs: String = (0..3000).map(|n| format!(" k{n} {n}")).collect();
        client.send(format!("MSET{pairs}\r\n")).await;
        client.expect("+OK\r\n").await;
        let turn = running.server.long_reads.turn().await;
        client.send("KEYS x\r\nGET k1\r\n").await;
        client.expect("-BUSY too many long reads wait on this node (KEYS, SCAN, MGET, EXISTS), try again later\r\n").await;
        drop(turn);
        client.send("KEYS x\r\nGET k1\r\n").await;
        client.expect("-CLUSTERDOWN a command before this one was not answered in time\r\n").await;
        client.expect("*0\r\n$1\r\n1\r\n").await;
    });
}

#[test]
fn a_snapshot_and_a_purge_by_hand_tell_how_far_they_reach() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("RAFT PURGE\r\nSET a 1\r\nRAFT SNAPSHOT\r\nRAFT PURGE\r\n").await;
        let reached = |running: &Running| running.server.metrics.borrow().applied;
        client.expect(":0\r\n+OK\r\n").await;
        let index = reached(running);
        client.expect(&format!(":{index}\r\n:{index}\r\n")).await;
        // Nothing has been applied since.
        client.send("RAFT SNAPSHOT\r\nSET a 2\r\nRAFT SNAPSHOT\r\nRAFT PURGE\r\n").await;
        client.expect(&format!(":{index}\r\n+OK\r\n")).await;
        let next = index + 1;
        client.expect(&format!(":{next}\r\n:{next}\r\n")).await;
        let metrics = running.server.metrics.borrow().clone();
        assert_eq!((metrics.snapshot.index, metrics.purged.index), (next, next));
    });
}

#[test]
fn a_node_alone_leads_and_has_nobody_to_transfer_leadership_to() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("RAFT TRANSFER 1\r\nRAFT CAMPAIGN\r\nRAFT TRANSFER\r\n").await;
        client.expect(":1\r\n:1\r\n-ERR there is no other voter that could lead\r\n").await;
        client.send("RAFT TRANSFER 2\r\nSET a 1\r\n").await;
        client.expect("-ERR node 2 is not a voter of the group\r\n+OK\r\n").await;
    });
}

#[test]
fn settings_are_changed_while_the_node_runs() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("RAFT CONFIG election-timeout 2s ELECTIONS no\r\n").await;
        client.expect("+OK\r\n").await;
        let config = running.server.raft.config();
        assert_eq!((config.election_timeout, config.elections), (Duration::from_secs(2), false));
        // They are checked as a whole.
        client.send("RAFT CONFIG elections yes request-timeout 100ms\r\n").await;
        client.expect("-ERR request-timeout must be at least one election timeout\r\n").await;
        assert_eq!(running.server.raft.config(), config, "nothing has changed");
        client.send("RAFT CONFIG election-timeout 4s\r\n").await;
        client.expect("+OK\r\n").await;
        let patience = Duration::from_secs(8);
        assert_eq!(running.server.raft.config().request_timeout, patience);
        assert_eq!(running.server.patience.get(), patience);
        client.send("RAFT CONFIG election-timeout 2s\r\nRAFT CONFIG elections\r\n").await;
        client.expect("+OK\r\n-ERR a setting has no value\r\n").await;
        client.send("RAFT CONFIG\r\n").await;
        client.expect("*22\r\n$9\r\nheartbeat\r\n$5\r\n100ms\r\n").await;
        client.expect("$16\r\nelection-timeout\r\n$6\r\n2000ms\r\n").await;
    });
}

#[test]
fn raft_status_and_info_tell_the_same() {
    with_server(async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("SET a 1\r\nINFO raft keyspace\r\nRAFT STATUS\r\n").await;
        client.expect("+OK\r\n").await;
        let metrics = running.server.metrics.borrow().clone();
        let (index, incarnation) = (metrics.applied, metrics.replica.incarnation);
        let identity =
            format!("id:1\r\nincarnation:{incarnation:016x}\r\nboot:1\r\nformed:yes\r\n");
        let raft = "role:leader\r\nterm:1\r\nleader:1\r\n";
        let members = format!("membership:voter\r\nmembers:1/{incarnation:016x}=voter\r\n");
        let counts = "dropped_messages:0\r\ncontradictions:0\r\n";
        let raft = format!(
            "# Raft\r\n{identity}{raft}committed:{index}\r\napplied:{index}\r\nsnapshot:0\r\npurged:0\r\nstorage_full:no\r\n{counts}{members}"
        );
        let info = format!("{raft}\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n");
        client.expect(&format!("${}\r\n{info}\r\n", info.len())).await;
        client.expect("*32\r\n$2\r\nid\r\n$1\r\n1\r\n").await;
        client.expect(&format!("$11\r\nincarnation\r\n$16\r\n{incarnation:016x}\r\n")).await;
    });
}

#[test]
fn beyond_the_limit_clients_are_refused() {
    with_server(async |rt, running| {
        let clients = &running.server.clients;
        clients.set(MAX_CLIENTS);
        let mut client = Client::connect(rt, running).await;
        client.expect("-ERR max number of clients reached\r\n").await;
        client.expect_end().await;
        clients.set(MAX_CLIENTS - 1);
        let mut client = Client::connect(rt, running).await;
        client.send("PING\r\n").await;
        client.expect("+PONG\r\n").await;
        assert_eq!(clients.get(), MAX_CLIENTS);
        client.send("QUIT\r\n").await;
        client.expect("+OK\r\n").await;
        client.expect_end().await;
        drop(client);
        while clients.get() > MAX_CLIENTS - 1 {
            rt.sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Waits until the connections are gone.
async fn no_client_is_left(rt: &Tokio, running: &Running) {
    while running.server.clients.get() > 0 {
        rt.sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_client_that_says_nothing_is_closed_if_that_is_wished() {
    with_limits("--client-timeout 100ms", async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        client.send("CONFIG GET timeout\r\n").await;
        client.expect("*2\r\n$7\r\ntimeout\r\n$1\r\n1\r\n").await;
        client.expect_end().await;
        drop(client);
        no_client_is_left(rt, running).await;
    });
}

#[test]
fn a_request_that_is_never_finished_is_refused_in_the_end() {
    with_limits("--stall-timeout 100ms", async |rt, running| {
        for begun in ["*2\r\n$3\r\nGET", "PIN", "PING\r\nPIN", "*2\r\n$600000000\r\nx"] {
            let mut client = Client::connect(rt, running).await;
            client.send(begun).await;
            match begun {
                "PING\r\nPIN" => client.expect("+PONG\r\n").await,
                "*2\r\n$600000000\r\nx" => {
                    client.expect("-ERR Protocol error: invalid bulk length\r\n").await;
                    client.expect_end().await;
                    continue;
                }
                _ => {}
            }
            client.expect("-ERR the request was not whole in time\r\n").await;
            client.expect_end().await;
        }
        // A byte now and then is not enough, but whole requests are.
        let mut client = Client::connect(rt, running).await;
        for _ in 0..10 {
            client.send("PING\r\nPI").await;
            client.expect("+PONG\r\n").await;
            rt.sleep(Duration::from_millis(30)).await;
            client.send("NG\r\n").await;
            client.expect("+PONG\r\n").await;
        }
        client.send("*1\r\n$100\r\n").await;
        while running.server.clients.get() > 0 {
            let byte = Bytes::from_static(b"x");
            if client.writer.write_all(vec![byte]).await.is_err() {
                break;
            }
            rt.sleep(Duration::from_millis(20)).await;
        }
        client.expect("-ERR the request was not whole in time\r\n").await;
    });
}

/// Sets `key` to a value as long as can be.
async fn set_large(client: &mut Client<Tokio>, key: &str) {
    let value = "x".repeat(8 << 20);
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${}\r\n{value}\r\n", value.len())).await;
    client.expect("+OK\r\n").await;
}

#[test]
fn a_client_that_does_not_read_is_closed_in_the_end() {
    with_limits("--stall-timeout 100ms", async |rt, running| {
        let mut client = Client::connect(rt, running).await;
        set_large(&mut client, "a").await;
        // More than the sockets hold.
        client.send("GET a\r\n".repeat(10)).await;
        no_client_is_left(rt, running).await;
        assert_eq!(running.server.unread.used(), 0);
    });
}

#[test]
fn answers_that_are_not_read_leave_others_room_for_short_ones_alone() {
    with_limits("--max-unread-bytes 12000000", async |rt, running| {
        let unread = &running.server.unread;
        let mut silent = Client::connect(rt, running).await;
        set_large(&mut silent, "a").await;
        silent.send("GET a\r\n".repeat(10)).await;
        while unread.used() == 0 {
            rt.sleep(Duration::from_millis(5)).await;
        }
        let large = format!("${}\r\n{}\r\n", 8 << 20, "x".repeat(8 << 20));
        for _ in 0..10 {
            silent.expect(&large).await;
        }
        while unread.used() > 0 {
            rt.sleep(Duration::from_millis(5)).await;
        }
        // Another one reads nothing for longer.
        let held = Share::of(unread);
        held.take(11_000_000);
        let mut other = Client::connect(rt, running).await;
        let refusal = format!("-{NO_ROOM}\r\n");
        // What is refused has no effect.
        other.send("GET a\r\nGETDEL a\r\nSTRLEN a\r\nMGET b c\r\n").await;
        other.expect(&refusal).await;
        other.expect(&refusal).await;
        other.expect(":8388608\r\n*2\r\n$-1\r\n$-1\r\n").await;
        drop(held);
        other.send("GET a\r\nGETDEL a\r\n").await;
        other.expect(&large).await;
        other.expect(&large).await;
    });
}

#[test]
fn connections_end_after_what_they_do_when_the_server_stops() {
    with_server(async |rt, running| {
        let mut idle = Client::connect(rt, running).await;
        let mut busy = Client::connect(rt, running).await;
        idle.send("PING\r\n").await;
        idle.expect("+PONG\r\n").await;
        busy.send("INCR n\r\n".repeat(3000)).await;
        busy.expect(":1\r\n").await;
        let reading = async {
            // Each answer is whole, and no reset follows.
            while busy.read().await > 0 {}
            let answers = String::from_utf8(busy.received.to_vec()).unwrap();
            assert!(answers.ends_with("\r\n"));
            for (n, answer) in (2..).zip(answers.lines()) {
                assert_eq!(answer, format!(":{n}"));
            }
            drop(busy);
        };
        let leaving = async {
            idle.expect_end().await;
            // It comes too late, and does no harm.
            idle.send("PING\r\n").await;
            drop(idle);
        };
        let stopping = running.server.stop(running.accepting.take().unwrap());
        futures::join!(reading, leaving, stopping);
        assert_eq!(running.server.clients.get(), 0);
    });
}
