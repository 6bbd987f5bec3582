//! Real processes of `quorate-kv`, and real Redis clients of them.
#![allow(dead_code)] // Each test file uses a part of it.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

pub(crate) mod folders;
pub(crate) mod load;
pub(crate) mod namespace;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, Value};
use tempfile::TempDir;

/// Longer than anything here may take on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The runtimes of `quorate-kv`.
pub(crate) const RUNTIMES: [&str; 3] = ["tokio", "monoio", "compio"];

/// Runs a scenario on each runtime, side by side: what takes time in it is mostly waiting.
pub(crate) fn on_each_runtime(scenario: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        for runtime in RUNTIMES {
            scope.spawn(|| scenario(runtime));
        }
    });
}

pub(crate) fn kv() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quorate-kv"))
}

/// Where tests look for ports: below those that the kernel gives to outgoing connections, which
/// would take one that its node has not yet bound, or has let go when it was killed.
const PORTS: Range<u16> = 10_240..32_000;

/// Ports that are free now. No other test of this process gets them, and hardly one of another.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    /// Processes with ids that follow each other begin so far apart.
    const STRIDE: u32 = 607;
    let begin = process::id().wrapping_mul(STRIDE);
    let next = || begin.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
    let width = u32::from(PORTS.end - PORTS.start);
    let ports = iter::repeat_with(|| PORTS.start + u16::try_from(next() % width).expect("less"));
    ports
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect()
}

/// Asks again until there is an answer: another process gives no event to wait for.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn connect(port: u16) -> RedisResult<Connection> {
    connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

pub(crate) fn connect_to(address: SocketAddr) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://{address}/"))?;
    let connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
    // The server answers within 5 s, come what may.
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(connection)
}

/// `RAFT STATUS`, by field.
pub(crate) fn status(connection: &mut Connection) -> RedisResult<BTreeMap<String, Value>> {
    redis::cmd("RAFT").arg("STATUS").query(connection)
}

pub(crate) fn number(status: &BTreeMap<String, Value>, field: &str) -> Option<u64> {
    redis::from_redis_value(status.get(field)?.clone()).ok()
}

/// A process that is killed with its test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::of(command.spawn().expect("quorate-kv starts"))
    }

    pub(crate) fn of(child: Child) -> Self {
        Self(child)
    }

    /// SIGKILL: no destructor runs, nothing is flushed.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("ends");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success(), "can't send {name}");
    }

    /// The memory that it has in use, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> usize {
        let path = format!("/proc/{}/status", self.0.id());
        let status = fs::read_to_string(path).expect("a living process on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("has memory");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// The most memory that it has had in use at once, in bytes, since it began or was last asked.
    pub(crate) fn peak_resident_bytes(&self) -> usize {
        let peak = self.memory("VmHWM:");
        // "5" sets the peak back to what is in use now.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
        peak
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("waits").is_some()
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        until("the process ends", || self.0.try_wait().expect("waits")).code()
    }

    /// Its standard output, line by line.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.0.stdout.take().expect("piped");
        BufReader::new(stdout).lines().map_while(Result::ok)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command line of a `quorate-kv serve`.
#[derive(Clone)]
pub(crate) struct Serve {
    pub(crate) id: u64,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) list: BTreeMap<u64, String>,
    /// What follows on `--join`, where it is to join and not to form a cluster of the list.
    pub(crate) join: Option<String>,
    pub(crate) data: PathBuf,
    pub(crate) runtime: &'static str,
    pub(crate) flags: Vec<String>,
}

impl Serve {
    /// The same with these nodes of the list alone.
    pub(crate) fn told(mut self, ids: &[u64]) -> Self {
        self.list.retain(|id, _| ids.contains(id));
        self
    }

    /// The same, where it joins a cluster that is formed.
    pub(crate) fn joining(mut self) -> Self {
        self.join = Some(String::new());
        self
    }

    /// The same, where it lets itself in, by the member with this client address.
    pub(crate) fn asking(mut self, member: SocketAddr, token: &str) -> Self {
        self.join = Some(member.to_string());
        self.flags.extend(["--token".to_owned(), token.to_owned()]);
        self
    }

    /// The same on other ports, in the list, too.
    pub(crate) fn moved(mut self) -> Self {
        let ports = free_ports(2);
        self.client.set_port(ports[0]);
        self.peer.set_port(ports[1]);
        self.list.insert(self.id, self.peer.to_string());
        self
    }

    /// Starts it, in addition to its cluster. What it says goes to this file.
    pub(crate) fn start(&self, errors: &Path) -> Process {
        self.spawn(kv(), errors)
    }

    fn spawn(&self, mut command: Command, errors: &Path) -> Process {
        let list: Vec<_> =
            self.list.iter().map(|(id, address)| format!("{id}={address}")).collect();
        let errors = fs::File::options().create(true).append(true).open(errors);
        command.arg("serve");
        match &self.join {
            Some(members) if members.is_empty() => command.arg("--join"),
            Some(members) => command.args(["--join", members]),
            None => command.args(["--cluster", &list.join(",")]),
        };
        Process::spawn(
            command
                .args(["--id", &self.id.to_string()])
                .args(["--client", &self.client.to_string()])
                .args(["--peer", &self.peer.to_string()])
                .arg("--data")
                .arg(&self.data)
                .args(["--runtime", self.runtime])
                .args(&self.flags)
                .stderr(errors.expect("a file for what it says")),
        )
    }

    /// Runs it; it must end by itself, with an error. Gives what it has said.
    pub(crate) fn is_refused(&self) -> String {
        self.ends_with(1)
    }

    /// The same with this exit code.
    pub(crate) fn ends_with(&self, code: i32) -> String {
        let errors = tempfile::NamedTempFile::new().expect("a file for what it says");
        let ended = self.spawn(kv(), errors.path()).exit_code();
        let said = fs::read_to_string(errors.path()).expect("reads");
        assert_eq!(ended, Some(code), "{said}");
        said
    }
}

/// Some `quorate-kv serve` on this machine. Node i has the id i + 1.
pub(crate) struct Cluster {
    runtimes: Vec<&'static str>,
    clients: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    /// The network namespaces that they are in, if not that of the test.
    namespaces: Option<namespace::Network>,
    /// What they are started with besides.
    flags: Vec<String>,
    data: TempDir,
    processes: BTreeMap<usize, Process>,
    /// How much each node had said before it was started last, in bytes.
    said_before: BTreeMap<usize, usize>,
}

impl Cluster {
    /// Node i runs on `runtimes[i]`.
    pub(crate) fn start<const N: usize>(runtimes: [&'static str; N]) -> Self {
        Self::prepare(runtimes).started()
    }

    /// The same, with further flags on each command line.
    pub(crate) fn start_with<const N: usize>(runtimes: [&'static str; N], flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(runtimes);
        cluster.flags = flags.iter().map(ToString::to_string).collect();
        cluster.started()
    }

    /// The same as [`start`](Self::start), each in a network namespace of its own.
    pub(crate) fn start_within<const N: usize>(
        network: namespace::Network,
        runtimes: [&'static str; N],
    ) -> Self {
        let mut cluster = Self::prepare(runtimes);
        cluster.clients = (0..N).map(|node| network.client_address(node)).collect();
        cluster.peers = (0..N).map(|node| network.peer_address(node)).collect();
        cluster.namespaces = Some(network);
        cluster.started()
    }

    /// The same, before any node has started.
    pub(crate) fn prepare<const N: usize>(runtimes: [&'static str; N]) -> Self {
        let ports = free_ports(2 * N);
        let address = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        Self {
            runtimes: runtimes.to_vec(),
            clients: ports[..N].iter().map(address).collect(),
            peers: ports[N..].iter().map(address).collect(),
            namespaces: None,
            flags: Vec::new(),
            data: tempfile::tempdir().expect("a temporary folder"),
            processes: BTreeMap::new(),
            said_before: BTreeMap::new(),
        }
    }

    fn started(mut self) -> Self {
        for node in 0..self.runtimes.len() {
            self.start_node(node);
        }
        self
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        self.start_as(node, &self.line(node));
    }

    /// The command line of a node.
    pub(crate) fn line(&self, node: usize) -> Serve {
        Serve {
            id: id(node),
            client: self.clients[node],
            peer: self.peers[node],
            list: (1..).zip(self.peers.iter().map(SocketAddr::to_string)).collect(),
            join: None,
            data: self.data_of(node),
            runtime: self.runtimes[node],
            flags: self.flags.clone(),
        }
    }

    /// Starts a node by another command line than its own.
    pub(crate) fn start_as(&mut self, node: usize, line: &Serve) {
        let command = match &self.namespaces {
            Some(network) => network.within(node, kv()),
            None => kv(),
        };
        self.start_by(node, line, command);
    }

    /// The same by this command, which runs the program.
    pub(crate) fn start_by(&mut self, node: usize, line: &Serve, command: Command) {
        let errors = self.errors_path(node);
        let said = fs::read(&errors).map_or(0, |said| said.len());
        self.said_before.insert(node, said);
        self.processes.insert(node, line.spawn(command, &errors));
    }

    pub(crate) fn data_of(&self, node: usize) -> PathBuf {
        self.data.path().join((node + 1).to_string())
    }

    fn errors_path(&self, node: usize) -> PathBuf {
        self.data.path().join(format!("{}.err", node + 1))
    }

    /// What the lives of a node have said on their standard errors.
    pub(crate) fn errors(&self, node: usize) -> String {
        fs::read_to_string(self.errors_path(node)).expect("has said something")
    }

    /// What a node has said since it was started last.
    pub(crate) fn said(&self, node: usize) -> String {
        self.errors(node).split_off(self.said_before[&node])
    }

    /// Waits until a node says this.
    pub(crate) fn says(&self, node: usize, what: &str) {
        until(what, || self.said(node).contains(what).then_some(()));
    }

    /// Waits until a node has ended by itself, with an error. Gives what it has said.
    pub(crate) fn fails(&mut self, node: usize) -> String {
        let code = self.process(node).exit_code();
        self.processes.remove(&node);
        let said = self.said(node);
        assert_eq!(code, Some(1), "{said}");
        said
    }

    pub(crate) fn runs(&mut self, node: usize) -> bool {
        self.processes.get_mut(&node).is_some_and(|process| !process.has_ended())
    }

    /// Deletes the folder of a node that doesn't run.
    pub(crate) fn wipe(&self, node: usize) {
        fs::remove_dir_all(self.data_of(node)).expect("deletes a folder");
    }

    /// A field of a node's `RAFT STATUS`, if it runs and tells of it.
    pub(crate) fn fact(&self, node: usize, field: &str) -> Option<String> {
        let facts = status(&mut self.connect(node).ok()?).ok()?;
        redis::from_redis_value(facts.get(field)?.clone()).ok()
    }

    /// Why a node waits for another, as its `RAFT STATUS` says.
    pub(crate) fn waits_for(&self, node: usize, other: usize) -> Option<String> {
        self.fact(node, &format!("waits_for{}", id(other)))
    }

    /// Waits until a node has the first entry of its cluster.
    pub(crate) fn is_formed(&self, node: usize) {
        until("the node has the first entry", || {
            self.fact(node, "formed").filter(|formed| formed == "yes")
        });
    }

    /// Asks a node to stop, and waits until it has ended in order.
    pub(crate) fn stop_node(&mut self, node: usize) {
        self.process(node).signal("TERM");
        assert_eq!(self.process(node).exit_code(), Some(0), "{}", self.errors(node));
        self.processes.remove(&node);
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.processes.remove(&node).expect("runs").kill();
    }

    pub(crate) fn process(&mut self, node: usize) -> &mut Process {
        self.processes.get_mut(&node).expect("runs")
    }

    pub(crate) fn client_ports(&self) -> Vec<u16> {
        self.clients.iter().map(SocketAddr::port).collect()
    }

    pub(crate) fn client_addresses(&self) -> Vec<SocketAddr> {
        self.clients.clone()
    }

    pub(crate) fn peer_address(&self, node: usize) -> SocketAddr {
        self.peers[node]
    }

    /// The namespaces that the nodes are in.
    pub(crate) fn network(&self) -> &namespace::Network {
        self.namespaces.as_ref().expect("started within a network")
    }

    pub(crate) fn connect(&self, node: usize) -> RedisResult<Connection> {
        connect_to(self.clients[node])
    }

    /// The node that leads, once one says so of itself.
    pub(crate) fn leader(&self) -> usize {
        let running: Vec<_> = self.processes.keys().copied().collect();
        self.leader_among(&running)
    }

    /// The same, where only these are asked: others may be stopped, or think that they still lead.
    pub(crate) fn leader_among(&self, nodes: &[usize]) -> usize {
        until("a node leads", || {
            nodes.iter().copied().find(|node| {
                let role = self.connect(*node).and_then(|mut c| status(&mut c));
                let role = role.ok().and_then(|mut s| s.remove("role"));
                role.and_then(|r| redis::from_redis_value::<String>(r).ok()).as_deref()
                    == Some("leader")
            })
        })
    }

    /// The term that a node is in.
    pub(crate) fn term(&self, node: usize) -> u64 {
        until("the node tells its term", || {
            number(&status(&mut self.connect(node).ok()?).ok()?, "term")
        })
    }

    /// Waits until a node answers a linearizable read.
    pub(crate) fn serves(&self, node: usize) {
        until("the node serves", || {
            let mut connection = self.connect(node).ok()?;
            redis::cmd("DBSIZE").query::<u64>(&mut connection).ok()
        });
    }
}

impl Drop for Cluster {
    /// Where a test has failed, what the nodes have said is the best clue.
    fn drop(&mut self) {
        if thread::panicking() {
            for node in self.said_before.keys() {
                eprintln!("node {} has said:\n{}", id(*node), self.errors(*node));
            }
        }
    }
}

/// The id of a node.
pub(crate) fn id(node: usize) -> u64 {
    node as u64 + 1
}
