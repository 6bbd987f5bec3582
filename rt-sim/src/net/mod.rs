//! What lies between the hosts: links, and what can go wrong with them.
//!
//! A link is one direction from one host to another. What is sent over a link that is cut, is lost;
//! TCP repeats it until it arrives or the connection is given up, so to a stream a short cut is a
//! delay, and a long one an error. Acknowledgements go over the opposite link, without which a
//! sender's window stays full.

mod connect;
mod connection;
mod listener;
mod stream;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::time::Duration;

use self::connection::{Connection, Side};
use self::listener::Listening;
pub use self::listener::SimListener;
pub use self::stream::{SimReadHalf, SimStream, SimWriteHalf};
use crate::events::{Action, Event};
use crate::generator::nanos;
use crate::host::{Host, HostId, HostState};
use crate::world::World;

/// How links are when nothing is wrong with them in particular.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// How long a segment is under way.
    pub latency: Range<Duration>,
    /// How likely a segment is much later than that, by up to ten times the longest latency.
    pub jitter: f64,
    /// How likely a segment is lost and comes with its repetition, some 200 ms later, and all that
    /// follow it, too.
    pub loss: f64,
    /// How many bytes a link carries in a second, for all connections together. A host's link to
    /// itself has no limit.
    pub bandwidth: u64,
    /// How many bytes of one direction of a connection may be under way, or have arrived and not
    /// been read. Drawn for each connection.
    pub window: Range<u64>,
    /// How large segments are, in bytes. Drawn for each; so a write is cut anywhere.
    pub segment: Range<u64>,
    /// How likely a connection is refused though somebody listens.
    pub refusal: f64,
    /// How likely an attempt to connect gets no answer at all.
    pub hang: f64,
}

impl Default for NetworkConfig {
    /// A good local network.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(50)..Duration::from_micros(500),
            jitter: 0.001,
            loss: 0.0,
            bandwidth: 1 << 30,
            window: 64 << 10..1 << 20,
            segment: 1..64 << 10,
            refusal: 0.0,
            hang: 0.0,
        }
    }
}

/// How long TCP waits before it repeats what was not acknowledged, at first and at most.
const REPEATS: Range<Duration> = Duration::from_millis(200)..Duration::from_secs(3);

/// How long it repeats before it gives a connection up. (Linux: a quarter of an hour. The shorter,
/// the more of it is seen.)
const GIVES_UP: Range<Duration> = Duration::from_secs(5)..Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Net {
    config: RefCell<NetworkConfig>,
    cut: RefCell<BTreeSet<(HostId, HostId)>>,
    /// Until when these carry what was sent last.
    busy: RefCell<BTreeMap<(HostId, HostId), u64>>,
    /// Nothing arrives over these for a while.
    stalled: RefCell<BTreeMap<(HostId, HostId), Stall>>,
    listening: RefCell<BTreeMap<(HostId, u16), Rc<Listening>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
}

/// What a stall holds up.
struct Stall {
    until: u64,
    stalled: Vec<Action>,
}

impl Net {
    fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cut.borrow().contains(&(from, to))
    }

    /// How long something is under way from here to there.
    fn delay(&self, world: &World, from: HostId, to: HostId) -> u64 {
        let config = self.config.borrow();
        if from == to {
            return world.networking.within(&(1_000..20_000));
        }
        let usual = nanos(world.networking.duration(&config.latency));
        match world.networking.chance(config.jitter) {
            true => usual + world.networking.below(10 * nanos(config.latency.end).max(1)),
            false => usual,
        }
    }

    /// When a link has carried so much more, after what it carries already.
    fn carried(&self, world: &World, from: HostId, to: HostId, bytes: u64) -> u64 {
        if from == to {
            return world.now();
        }
        let takes = bytes.saturating_mul(1_000_000_000) / self.config.borrow().bandwidth.max(1);
        let mut busy = self.busy.borrow_mut();
        let until = busy.entry((from, to)).or_default();
        *until = (*until).max(world.now()).saturating_add(takes);
        *until
    }

    /// Does something now, or when the link does not stall any more.
    fn unless_stalled(
        &self,
        world: &Rc<World>,
        (from, to): (HostId, HostId),
        action: impl FnOnce(&Rc<World>) + 'static,
    ) {
        if let Some(stall) = self.stalled.borrow_mut().get_mut(&(from, to)) {
            return stall.stalled.push(Box::new(action));
        }
        action(world);
    }

    /// Does something at a time, which is when it arrives, if the link does not stall then.
    fn when_it_arrives(
        world: &World,
        at: u64,
        link: (HostId, HostId),
        action: impl FnOnce(&Rc<World>) + 'static,
    ) {
        world.at(at, move |world| world.net.unless_stalled(world, link, action));
    }

    /// What was held up arrives, of the links of which that is so.
    fn release(&self, world: &World, is_over: impl Fn(&Stall) -> bool) {
        let mut stalled = self.stalled.borrow_mut();
        for (_, stall) in stalled.extract_if(.., |_, stall| is_over(stall)) {
            for action in stall.stalled {
                world.plan(world.now(), Event::Action(action));
            }
        }
    }

    /// Takes note of a new connection.
    fn add(&self, connection: &Rc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        // Doubling between two sweeps keeps that linear.
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Rc::downgrade(connection));
    }

    fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// A process is gone: the kernel closes what it has left open, unless it has lost its power,
    /// too.
    pub(crate) fn close_all_of(&self, world: &Rc<World>, host: HostId) {
        let listening: Vec<_> = {
            let mut all = self.listening.borrow_mut();
            all.extract_if((host, 0)..=(host, u16::MAX), |_, _| true).collect()
        };
        for (_, listening) in listening {
            listening.close(world);
        }
        for connection in self.connections() {
            for side in [Side::Connector, Side::Acceptor] {
                if connection.host(side).id == host {
                    connection.close(world, side);
                }
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.listening.take();
        self.connections.take();
        drop(self.stalled.take());
    }
}

/// The network of a simulation. A clone is the same network. Its methods may be called from
/// anywhere in the simulation.
#[derive(Clone)]
pub struct Network {
    pub(crate) world: Rc<World>,
}

impl Network {
    /// How its links are, from now on. Connections keep the windows that they have.
    pub fn configure(&self, config: NetworkConfig) {
        self.world.net.config.replace(config);
    }

    /// How its links are.
    pub fn config(&self) -> NetworkConfig {
        self.world.net.config.borrow().clone()
    }

    /// Nothing gets from one host to another any more.
    pub fn cut(&self, from: HostId, to: HostId) {
        if from != to && self.world.net.cut.borrow_mut().insert((from, to)) {
            self.world.note(from, "link cut", to.0 as u64, 0);
        }
    }

    /// Things get there again.
    pub fn heal(&self, from: HostId, to: HostId) {
        if self.world.net.cut.borrow_mut().remove(&(from, to)) {
            self.world.note(from, "link healed", to.0 as u64, 0);
            for connection in self.world.net.connections() {
                connection.healed(&self.world);
            }
        }
    }

    /// All links are as they should be.
    pub fn heal_all(&self) {
        let cut = self.world.net.cut.borrow().clone();
        for (from, to) in cut {
            self.heal(from, to);
        }
        self.world.net.release(&self.world, |_| true);
    }

    /// Whether nothing gets from one host to another.
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.world.net.is_cut(from, to)
    }

    /// What is under way from one host to another, or begins to be, arrives only after so long.
    pub fn stall(&self, from: HostId, to: HostId, duration: Duration) {
        if from == to {
            return;
        }
        let until = self.world.now().saturating_add(nanos(duration));
        let mut stalled = self.world.net.stalled.borrow_mut();
        let stall = stalled.entry((from, to)).or_insert(Stall { until, stalled: Vec::new() });
        stall.until = stall.until.max(until);
        self.world.at(until, |world| {
            let now = world.now();
            world.net.release(world, |stall| stall.until <= now);
        });
        self.world.note(from, "link stalls", to.0 as u64, nanos(duration));
    }

    /// How many connections a host has open, at either side.
    pub fn connections(&self, host: HostId) -> usize {
        let open = |connection: &Rc<Connection>, side| {
            connection.host(side).id == host && connection.is_open_at(side)
        };
        let all = self.world.net.connections();
        let sides = [Side::Connector, Side::Acceptor];
        sides.iter().map(|side| all.iter().filter(|one| open(one, *side)).count()).sum()
    }

    /// Breaks all connections between two hosts, wherever in a message they are. Gives how many.
    pub fn reset(&self, one: HostId, other: HostId) -> usize {
        let mut broken = 0;
        for connection in self.world.net.connections() {
            let ends = [Side::Connector, Side::Acceptor].map(|side| connection.host(side).id);
            if (ends == [one, other] || ends == [other, one]) && connection.is_open() {
                connection.break_off(&self.world);
                broken += 1;
            }
        }
        broken
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("config", &self.config()).finish_non_exhaustive()
    }
}

/// The host that has this address, as seen from another one.
fn host_at(world: &World, from: &Rc<HostState>, ip: IpAddr) -> Option<Rc<HostState>> {
    if from.has(ip) {
        return Some(Rc::clone(from));
    }
    world.hosts.borrow().iter().find(|host| host.address == ip).cloned()
}

/// The address of one end of a connection, in the family by which it was made.
fn address_of(host: &HostState, peer: IpAddr, port: u16) -> SocketAddr {
    let ip = if peer.is_loopback() { crate::host::loopback_like(peer) } else { host.address };
    SocketAddr::new(ip, port)
}

impl Host {
    /// Whether a packet can get from here to there: the link is not cut, and both have power.
    pub fn reaches(&self, other: &Self) -> bool {
        let powered = self.state.is_powered() && other.state.is_powered();
        powered && !self.world.net.is_cut(self.id(), other.id())
    }
}
