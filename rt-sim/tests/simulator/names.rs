//! Names that are slow, wrong, changing, or not known.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quorate_rt::Network;
use quorate_rt_sim::NameConfig;

use crate::common::*;

impl Pair {
    fn names(&self, config: NameConfig) {
        self.simulation.names().configure(config);
    }

    /// What `a` finds, or of which kind the error is.
    fn look_up(&self, name: &str) -> Result<Vec<SocketAddr>, ErrorKind> {
        self.wait(self.on_a.resolve(&format!("{name}:{PORT}"))).map_err(|error| error.kind())
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 1, 1, last])
}

fn found(ips: &[IpAddr]) -> Result<Vec<SocketAddr>, ErrorKind> {
    Ok(ips.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect())
}

#[test]
fn hosts_have_their_names() {
    let pair = Pair::new(1);
    assert_eq!(pair.look_up("a"), found(&[pair.a.ip()]));
    assert_eq!(pair.look_up("b"), found(&[pair.b.ip()]));
    assert_eq!(pair.look_up("B."), found(&[pair.b.ip()]));
    assert_eq!(pair.look_up("c"), Err(ErrorKind::NotFound));
}

#[test]
fn names_change_and_are_forgotten() {
    let pair = Pair::new(1);
    let names = pair.simulation.names();
    names.set("n", [ip(1), ip(2)]);
    assert_eq!(pair.look_up("n"), found(&[ip(1), ip(2)]));
    names.set("n", [ip(3)]);
    assert_eq!(pair.look_up("n"), found(&[ip(3)]));
    names.set("n", []);
    assert_eq!(pair.look_up("n"), Err(ErrorKind::NotFound));
}

#[test]
fn look_ups_take_their_time() {
    let pair = Pair::new(1);
    pair.names(NameConfig { takes: SECOND..SECOND, ..NameConfig::default() });
    assert_eq!(pair.time(pair.on_a.resolve("b:1")).1, SECOND);
    assert_eq!(pair.time(pair.on_a.resolve("10.0.0.2:1")).1, Duration::ZERO, "that is no name");
    assert_eq!(pair.time(pair.on_a.resolve("localhost:1")).1, Duration::ZERO, "that is a file's");
}

#[test]
fn look_ups_hang_are_refused_or_tell_what_was() {
    let pair = Pair::new(1);
    pair.names(NameConfig { hang: 1.0, ..NameConfig::default() });
    let hung: Vec<_> = (0..20).map(|_| pair.time(pair.on_a.resolve("b:1"))).collect();
    assert!(hung.iter().all(|(_, took)| *took >= 5 * SECOND));
    assert!(hung.iter().any(|(result, _)| result.is_ok()));
    assert!(hung.iter().any(|(result, _)| result.is_err()));

    pair.names(NameConfig { refusal: 1.0, ..NameConfig::default() });
    assert_eq!(pair.look_up("b"), Err(ErrorKind::Other));

    pair.names(NameConfig { stale: 1.0, ..NameConfig::default() });
    let names = pair.simulation.names();
    names.set("n", [ip(1)]);
    assert_eq!(pair.look_up("n"), found(&[ip(1)]), "there is nothing older");
    names.set("n", [ip(2)]);
    assert_eq!(pair.look_up("n"), found(&[ip(1)]));

    pair.names(NameConfig { wrong: 1.0, ..NameConfig::default() });
    let any: Vec<_> = (0..20).map(|_| pair.look_up("n")).collect();
    assert!(any.contains(&found(&[pair.a.ip()])) && any.contains(&found(&[pair.b.ip()])));

    let counts = pair.simulation.counts();
    let kinds = ["look-up hangs", "look-up refused", "look-up stale", "look-up wrong"];
    assert_eq!(kinds.map(|kind| counts[kind]), [20, 1, 1, 20]);
}

#[test]
fn the_same_seed_finds_the_same() {
    let config =
        NameConfig { hang: 0.1, refusal: 0.1, stale: 0.2, wrong: 0.2, ..NameConfig::default() };
    let run = |seed| {
        let pair = Pair::new(seed);
        pair.names(config.clone());
        let all: Vec<_> = (0..100).map(|_| pair.look_up("b")).collect();
        (all, pair.simulation.hash())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
