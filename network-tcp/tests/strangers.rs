//! Whole nodes on the simulated runtime, and strangers at their ports, or peers that are gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::Node;
use quorate_network_tcp::TcpTransport;
use quorate_rt::{Executor, Network, ReadHalf, Stream, WriteHalf};
use quorate_rt_sim::{Crash, Host, Sim, Simulation};
use quorate_store_mem::MemStore;

const PORT: u16 = 7000;
const MINUTE: Duration = Duration::from_secs(60);

/// More than any class of connections has places, for each node.
const STRANGERS: usize = 300;

/// How long a stranger rests before it connects again.
const REST: Duration = Duration::from_millis(200);

struct Cluster {
    simulation: Simulation,
    members: Vec<Member>,
    list: BTreeMap<u64, String>,
}

struct Member {
    host: Host,
    store: MemStore,
    /// Of this run.
    writes: Rc<Cell<u64>>,
    transport: Rc<RefCell<Option<TcpTransport<Sim>>>>,
}

impl Cluster {
    /// A cluster of three that has formed.
    fn formed(seed: u64) -> Self {
        let simulation = Simulation::new(seed);
        let members = ["a", "b", "c"].map(|name| Member {
            host: simulation.host(name),
            store: MemStore::new(),
            writes: Rc::default(),
            transport: Rc::default(),
        });
        let address = |(id, member): (u64, &Member)| (id, format!("{}:{PORT}", member.host.ip()));
        let list = (1..).zip(&members).map(address).collect();
        let cluster = Self { simulation, members: members.into(), list };
        (1..=3).for_each(|id| cluster.start(id, false));
        assert!(cluster.serves(MINUTE), "it forms");
        cluster
    }

    fn member(&self, id: u64) -> &Member {
        &self.members[id as usize - 1]
    }

    fn port(&self, id: u64) -> SocketAddr {
        (self.member(id).host.ip(), PORT).into()
    }

    /// Starts a node, which writes now and then; with strangers on its machine, if wanted, who
    /// connect to the others.
    fn start(&self, id: u64, with_strangers: bool) {
        let Member { host, store, writes, transport } = self.member(id);
        writes.set(0);
        let (store, writes) = (store.clone(), Rc::clone(writes));
        let (list, kept) = (self.list.clone(), Rc::clone(transport));
        let at = list[&id].clone();
        let others = (1..=3).filter(|other| *other != id).map(|other| self.port(other));
        let visited: Vec<_> = if with_strangers { others.collect() } else { Vec::new() };
        host.start(async move |rt: Sim| {
            let transport = TcpTransport::bind(&rt, &at).await.expect("a free port");
            kept.replace(Some(transport.clone()));
            let node = Node::builder(id)
                .log_store(store)
                .transport(transport)
                .start(&rt)
                .await
                .expect("starts");
            let _strangers = strangers(&rt, &visited);
            let raft = node.group(0).open_local(()).await.expect("opens");
            raft.initialize(list).await.expect("forms, or goes on");
            loop {
                let rest = match raft.write(()).await {
                    Ok(()) => Duration::from_secs(1),
                    Err(_) => Duration::from_millis(50),
                };
                writes.set(writes.get() + u64::from(rest >= Duration::from_secs(1)));
                rt.sleep(rest).await;
            }
        });
    }

    /// Whether each node gets a write through within so long.
    fn serves(&self, limit: Duration) -> bool {
        self.members.iter().for_each(|member| member.writes.set(0));
        let all = || self.members.iter().all(|member| member.writes.get() > 0);
        self.simulation.run_until(limit, all)
    }

    fn stats(&self, id: u64) -> quorate_network_tcp::Stats {
        self.member(id).transport.borrow().as_ref().expect("it runs").stats()
    }

    fn kill_all(&self) {
        for Member { host, transport, .. } in &self.members {
            transport.take();
            host.crash(Crash::Process);
        }
    }
}

/// So many strangers at each of the ports, one after the other of each kind.
fn strangers(rt: &Sim, ports: &[SocketAddr]) -> Vec<<Sim as Executor>::Task<()>> {
    let says: [&'static [u8]; 4] =
        [b"", b"quorate\n\x03", b"GET / HTTP/1.1\r\n\r\n", &[0xFF; 5000]];
    let each = ports.iter().flat_map(|port| (0..STRANGERS).map(move |number| (*port, number)));
    let come = |(port, number)| rt.spawn(come_again(rt.clone(), port, says[number % says.len()]));
    each.map(come).collect()
}

/// Connects, says that, waits until it is closed, and comes again.
async fn come_again(rt: Sim, port: SocketAddr, says: &'static [u8]) {
    loop {
        if let Ok(stream) = rt.connect(port).await {
            let (mut read, mut write) = stream.split();
            let said = match says {
                [] => Ok(()),
                says => write.write_all(vec![Bytes::from_static(says)]).await,
            };
            let mut buffer = BytesMut::with_capacity(4096);
            while said.is_ok() {
                buffer.clear();
                buffer.reserve(4096);
                let (count, back) = read.read(buffer).await;
                buffer = back;
                if !matches!(count, Ok(1..)) {
                    break;
                }
            }
        }
        rt.sleep(REST).await;
    }
}

/// P10.
#[test]
fn strangers_keep_no_member_out_and_a_full_restart_elects() {
    let cluster = Cluster::formed(1);
    let outside = cluster.simulation.host("outside");
    let ports: Vec<_> = (1..=3).map(|id| cluster.port(id)).collect();
    outside.start(async move |rt: Sim| {
        let strangers = strangers(&rt, &ports);
        for stranger in strangers {
            let _ = stranger.await;
        }
    });
    cluster.simulation.run_for(Duration::from_secs(2));
    assert!(cluster.serves(MINUTE), "who is connected stays so");
    cluster.kill_all();
    // The strangers are at the ports again before the members are.
    (1..=3).for_each(|id| cluster.start(id, false));
    assert!(cluster.serves(MINUTE), "a full restart elects");
    for id in 1..=3 {
        let stats = cluster.stats(id);
        assert!(stats.refused_handshakes > 500, "{stats:?}");
    }
}

/// They are not told from a member by their address: here they are on its machine.
#[test]
fn strangers_on_the_machine_of_a_member_keep_it_out_of_nothing() {
    let cluster = Cluster::formed(2);
    cluster.kill_all();
    (1..=3).for_each(|id| cluster.start(id, id == 1));
    assert!(cluster.serves(MINUTE), "node 1 as well");
    assert!(cluster.stats(2).refused_handshakes > 100, "{:?}", cluster.stats(2));
}

/// P6. Of what two members have opened to each other, each holds one connection and has accepted
/// one.
#[test]
fn a_peer_that_has_lost_its_power_is_noticed_within_fifty_seconds() {
    let cluster = Cluster::formed(3);
    let network = cluster.simulation.network();
    let connections = || [1, 2].map(|id| network.connections(cluster.member(id).host.id()));
    cluster.simulation.run_for(2 * MINUTE); // Those over which it was formed are closed by then.
    assert_eq!(connections(), [4, 4]);
    cluster.member(3).transport.take();
    cluster.member(3).host.crash(Crash::Power);
    cluster.simulation.run_for(Duration::from_secs(50));
    assert_eq!(connections(), [2, 2]);
}

#[test]
fn members_with_nothing_to_say_to_each_other_stay_connected() {
    let cluster = Cluster::formed(4);
    let connects = || [1, 2, 3].map(|id| cluster.stats(id).connects);
    cluster.simulation.run_for(Duration::from_secs(10));
    let before = connects();
    cluster.simulation.run_for(2 * MINUTE);
    assert_eq!(connects(), before);
    for id in 1..=3 {
        let stats = cluster.stats(id);
        assert_eq!((stats.vanished, stats.stalled), (0, 0), "node {id}");
    }
}
