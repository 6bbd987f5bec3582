//! Names and addresses that are slow, wrong, or lead nowhere, in virtual time.

use std::cell::RefCell;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use quorate_rt_sim::{Crash, Host, NameConfig, Sim, Simulation};

use super::*;
use crate::config::Stats;

const SECOND: Duration = Duration::from_secs(1);
/// Packets to it get no answer.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
/// What the peer is called, and where it listens.
const PEER: &str = "peer.example";
const PORT: u16 = 7000;

/// The transport of a process, once it has one.
type Shared = Rc<RefCell<Option<TcpTransport<Sim>>>>;

/// A node that connects to a peer by its name, and that peer.
struct Hosts {
    simulation: Simulation,
    dialler: Host,
    peer: Host,
    transport: Shared,
}

/// Starts a node that stays until its process ends.
fn start(host: &Host, own: Credentials, peers: BTreeMap<Replica, String>) -> Shared {
    let shared = Shared::default();
    let listed = Rc::clone(&shared);
    host.start(async move |rt| {
        let transport = TcpTransport::bind(&rt, &format!("0.0.0.0:{PORT}")).await.unwrap();
        transport.attach(GROUP, own, Inbox::new(|_| {}));
        transport.set_peers(GROUP, &peers);
        listed.replace(Some(transport));
        pending().await
    });
    shared
}

impl Hosts {
    /// Nobody listens yet.
    fn new() -> Self {
        let simulation = Simulation::new(7);
        let (dialler, peer) = (simulation.host("a"), simulation.host("b"));
        simulation.names().set(PEER, [peer.ip()]);
        Self { simulation, dialler, peer, transport: Rc::default() }
    }

    fn start(&mut self) {
        start(&self.peer, member(2), BTreeMap::new());
        let peers = BTreeMap::from([(replica(2), format!("{PEER}:{PORT}"))]);
        self.transport = start(&self.dialler, member(1), peers);
    }

    fn stats(&self) -> Stats {
        self.transport.borrow().as_ref().map(TcpTransport::stats).unwrap_or_default()
    }

    /// Whether there have been so many connections within a time.
    fn connects(&self, times: u64, within: Duration) -> bool {
        self.simulation.run_until(within, || self.stats().connects >= times)
    }

    fn names(&self, config: NameConfig) {
        self.simulation.names().configure(config);
    }

    fn lose_the_connection(&self) {
        assert!(self.simulation.network().reset(self.dialler.id(), self.peer.id()) > 0);
    }
}

fn taking(duration: Duration) -> NameConfig {
    NameConfig { takes: duration..duration, ..NameConfig::default() }
}

#[test]
fn a_first_address_that_swallows_packets_hides_no_other() {
    let mut hosts = Hosts::new();
    hosts.simulation.names().set(PEER, [NOWHERE, NOWHERE, hosts.peer.ip()]);
    hosts.start();
    assert!(hosts.connects(1, SECOND));
    assert_eq!(hosts.stats().connects, 1, "the others are dropped");
    let open = hosts.simulation.network().connections(hosts.dialler.id());
    assert_eq!(open, 1);
}

#[test]
fn an_address_at_which_another_node_answers_hides_no_other() {
    let mut hosts = Hosts::new();
    let other = hosts.simulation.host("c");
    start(&other, member(3), BTreeMap::new());
    hosts.simulation.names().set(PEER, [other.ip(), hosts.peer.ip()]);
    hosts.start();
    assert!(hosts.connects(1, SECOND));
    assert_eq!(hosts.stats().refused_handshakes, 1);
}

#[test]
fn a_dead_name_server_before_one_that_answers_costs_time_only() {
    let mut hosts = Hosts::new();
    hosts.names(taking(20 * SECOND));
    hosts.start();
    assert!(hosts.connects(1, 21 * SECOND));
}

#[test]
fn a_slow_handshake_has_its_time_after_a_slow_look_up() {
    let mut hosts = Hosts::new();
    hosts.names(taking(20 * SECOND));
    hosts.simulation.names().set(PEER, [NOWHERE, hosts.peer.ip()]);
    hosts.start();
    let (from, to) = (hosts.peer.id(), hosts.dialler.id());
    assert!(
        hosts
            .simulation
            .run_until(30 * SECOND, || { hosts.simulation.network().connections(to) > 0 })
    );
    hosts.simulation.network().stall(from, to, 3 * SECOND);
    assert!(hosts.connects(1, 5 * SECOND));
}

#[test]
fn while_a_look_up_hangs_the_last_known_addresses_are_tried() {
    let mut hosts = Hosts::new();
    hosts.start();
    assert!(hosts.connects(1, SECOND));
    hosts.names(taking(3600 * SECOND));
    for times in 2..5 {
        hosts.lose_the_connection();
        assert!(hosts.connects(times, 3 * SECOND), "{times}");
    }
}

#[test]
fn where_look_ups_fail_the_last_known_addresses_are_tried() {
    let mut hosts = Hosts::new();
    hosts.start();
    assert!(hosts.connects(1, SECOND));
    hosts.names(NameConfig { refusal: 1.0, ..NameConfig::default() });
    hosts.lose_the_connection();
    assert!(hosts.connects(2, 3 * SECOND));
    hosts.names(NameConfig::default());
    hosts.simulation.names().set(PEER, []);
    hosts.lose_the_connection();
    assert!(hosts.connects(3, 3 * SECOND), "its name is not known any more");
}

#[test]
fn a_peer_is_followed_to_where_its_name_moves_though_look_ups_are_slow() {
    let mut hosts = Hosts::new();
    hosts.start();
    assert!(hosts.connects(1, SECOND));
    let moved = hosts.simulation.host("c");
    hosts.lose_the_connection();
    hosts.peer.crash(Crash::Power); // The last known address swallows packets.
    start(&moved, rebooted(member(2)), BTreeMap::new());
    hosts.simulation.names().set(PEER, [moved.ip()]);
    hosts.names(taking(8 * SECOND));
    assert!(hosts.connects(2, 60 * SECOND));
    assert!(hosts.simulation.network().connections(moved.id()) > 0);
}

/// As when a node is moved to another machine, and the old one is switched off: whatever is being
/// tried when the node starts again.
#[test]
fn a_moved_peer_is_reached_soon_though_its_old_address_swallows_packets() {
    for step in 0..20 {
        let mut hosts = Hosts::new();
        let moved = hosts.simulation.host("c");
        let at = |host: &Host| BTreeMap::from([(replica(2), format!("{}:{PORT}", host.ip()))]);
        start(&hosts.peer, member(2), BTreeMap::new());
        hosts.transport = start(&hosts.dialler, member(1), at(&hosts.peer));
        assert!(hosts.connects(1, SECOND));
        hosts.transport.borrow().as_ref().expect("it is bound").set_peers(GROUP, &at(&moved));
        hosts.lose_the_connection();
        hosts.peer.crash(Crash::Power);
        hosts.simulation.run_for(2 * SECOND + step * SECOND / 2);
        start(&moved, rebooted(member(2)), BTreeMap::new());
        assert!(hosts.connects(2, 3 * SECOND), "step {step}");
    }
}

#[test]
fn what_keeps_a_peer_from_being_reached_is_told_while_its_name_is_looked_up() {
    let mut hosts = Hosts::new();
    hosts.names(taking(3600 * SECOND));
    hosts.start();
    let obstacle = || match hosts.transport.borrow().as_ref().map(|one| one.obstacle(replica(2))) {
        Some(Obstacle::Unreachable { address, reason }) => format!("{address}: {reason}"),
        _ => String::new(),
    };
    hosts.simulation.run_for(2 * SECOND);
    assert_eq!(obstacle(), "peer.example:7000: its name is still being looked up");
    hosts.simulation.run_for(30 * SECOND);
    assert!(obstacle().contains("timed out (after 30s)"), "{}", obstacle());
}
