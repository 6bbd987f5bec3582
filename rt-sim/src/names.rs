//! Names, and what looking them up may do: take long, fail, or tell what is not so (any more).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use quorate_rt::names::split;

use crate::generator::nanos;
use crate::host::HostState;
use crate::timers::SimSleep;
use crate::world::World;

/// What a look-up takes whose first name servers don't answer.
const HANGS: Range<Duration> = Duration::from_secs(5)..Duration::from_secs(60);

/// How look-ups are when nothing is wrong with a name in particular.
#[derive(Clone, Debug, PartialEq)]
pub struct NameConfig {
    /// How long a look-up takes.
    pub takes: Range<Duration>,
    /// How likely it takes from 5 s to a minute longer than that. Half of those fail then.
    pub hang: f64,
    /// How likely it is refused.
    pub refusal: f64,
    /// How likely it tells what the name was before it was last [set](Names::set).
    pub stale: f64,
    /// How likely it tells the addresses of any name.
    pub wrong: f64,
}

impl Default for NameConfig {
    /// A good name server nearby.
    fn default() -> Self {
        let takes = Duration::from_micros(100)..Duration::from_millis(5);
        Self { takes, hang: 0.0, refusal: 0.0, stale: 0.0, wrong: 0.0 }
    }
}

#[derive(Default)]
pub(crate) struct NameTable {
    config: RefCell<NameConfig>,
    names: RefCell<BTreeMap<String, Entry>>,
}

#[derive(Clone, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    before: Vec<IpAddr>,
}

impl NameTable {
    /// Gives a name these addresses; none: it is not known any more.
    pub(crate) fn set(&self, name: &str, addresses: Vec<IpAddr>) {
        let mut names = self.names.borrow_mut();
        let entry = names.entry(canonical(name)).or_default();
        entry.before = std::mem::replace(&mut entry.addresses, addresses);
    }

    /// What a name server says now.
    fn answer(&self, world: &World, host: &str) -> Vec<IpAddr> {
        let config = self.config.borrow();
        let names = self.names.borrow();
        if world.naming.chance(config.wrong) && !names.is_empty() {
            world.trace.count("look-up wrong");
            let any = names.values().nth(world.naming.index(names.len()));
            return any.map(|entry| entry.addresses.clone()).unwrap_or_default();
        }
        let is_stale = world.naming.chance(config.stale);
        match names.get(&canonical(host)) {
            Some(entry) if is_stale && !entry.before.is_empty() => {
                world.trace.count("look-up stale");
                entry.before.clone()
            }
            Some(entry) => entry.addresses.clone(),
            None => Vec::new(),
        }
    }
}

/// Names are so without regard to case, and may end with a dot.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

pub(crate) async fn resolve(
    world: &Rc<World>,
    from: &Rc<HostState>,
    host_and_port: &str,
) -> io::Result<Vec<SocketAddr>> {
    if let Ok(literal) = host_and_port.parse() {
        return Ok(vec![literal]);
    }
    let (host, port) = split(host_and_port)?;
    let with_port = |ips: Vec<IpAddr>| ips.into_iter().map(|ip| SocketAddr::new(ip, port));
    if canonical(host) == "localhost" {
        let loopback = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        return Ok(with_port(loopback).collect());
    }
    let NameConfig { takes, hang, refusal, .. } = world.names.config.borrow().clone();
    let mut takes = nanos(world.naming.duration(&takes));
    let hangs = world.naming.chance(hang);
    if hangs {
        world.trace.count("look-up hangs");
        takes += nanos(world.naming.duration(&HANGS));
    }
    let deadline = from.now(world) + Duration::from_nanos(takes);
    SimSleep::new(Rc::clone(world), Rc::clone(from), deadline).await;
    let failed = |kind, reason| io::Error::new(kind, format!("looking {host} up: {reason}"));
    if hangs && world.naming.chance(0.5) {
        return Err(failed(ErrorKind::TimedOut, "no name server answers"));
    }
    if world.naming.chance(refusal) {
        world.trace.count("look-up refused");
        return Err(failed(ErrorKind::Other, "the name server refuses"));
    }
    let found = world.names.answer(world, host);
    world.note(from.id, "looks a name up", u64::from(port), found.len() as u64);
    if found.is_empty() {
        return Err(failed(ErrorKind::NotFound, "the name is not known"));
    }
    Ok(with_port(found).collect())
}

/// The names of a simulation. A clone is the same. Each host has its own from the beginning, and
/// `localhost` is both loopback addresses.
#[derive(Clone)]
pub struct Names {
    pub(crate) world: Rc<World>,
}

impl Names {
    /// How look-ups are, from now on.
    pub fn configure(&self, config: NameConfig) {
        self.world.names.config.replace(config);
    }

    /// How look-ups are.
    pub fn config(&self) -> NameConfig {
        self.world.names.config.borrow().clone()
    }

    /// Gives a name these addresses, in this order, from now on. One that no host has swallows
    /// packets. Without any, the name is not known any more.
    pub fn set(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.world.names.set(name, addresses.into_iter().collect());
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("config", &self.config()).finish_non_exhaustive()
    }
}
