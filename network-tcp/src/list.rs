//! Checks of a list of nodes before a cluster is formed of it. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use quorate_core::NodeId;

/// An address as users write it: `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort<'a> {
    /// A name or an IP address, without brackets.
    host: &'a str,
    port: u16,
}

impl<'a> HostPort<'a> {
    /// Errors: what is wrong with it.
    pub(crate) fn parse(address: &'a str) -> Result<Self, String> {
        let wrong = |reason: &str| Err(format!("{address:?} is no address host:port: {reason}"));
        let Some((host, port)) = address.rsplit_once(':') else { return wrong("it has no port") };
        let port = match port.parse::<u16>() {
            // `parse` takes a sign, too.
            Ok(number) if number != 0 && !port.starts_with('+') => number,
            _ => return wrong("the port must be a number from 1 to 65535"),
        };
        if host.is_empty() {
            return wrong("it has no host");
        }
        if let Some(literal) = host.strip_prefix('[') {
            return match literal.strip_suffix(']') {
                Some(literal) if literal.parse::<Ipv6Addr>().is_ok() => {
                    Ok(Self { host: literal, port })
                }
                _ => wrong("between brackets there must be an IPv6 address"),
            };
        }
        if host.contains(':') {
            return wrong("an IPv6 address must be in brackets");
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/[]@".contains(c)) {
            return wrong("the host is no name");
        }
        Ok(Self { host, port })
    }

    /// An IPv4 address that is written as one of IPv6 (`::ffff:10.0.0.1`) is one of IPv4.
    fn ip(self) -> Option<IpAddr> {
        Some(self.host.parse::<IpAddr>().ok()?.to_canonical())
    }

    /// Whether both are the same host: IP addresses may be written in several ways, names are so
    /// without regard to case, and may end with a dot.
    fn is_same_host(self, other: Self) -> bool {
        let name = |host: &'a str| host.strip_suffix('.').unwrap_or(host);
        match (self.ip(), other.ip()) {
            (None, None) => name(self.host).eq_ignore_ascii_case(name(other.host)),
            (one, other) => one == other,
        }
    }
}

/// Whether a machine may have this address.
fn is_of_a_machine(ip: IpAddr) -> bool {
    let is_broadcast = match ip {
        IpAddr::V4(ip) => ip.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

/// Whether what listens on `on` is reached at `ip`. On `[::]` it is so at addresses of both
/// families, and on `0.0.0.0` at those of IPv4.
fn is_reached_on(ip: IpAddr, on: IpAddr) -> bool {
    ip == on || on.is_unspecified() && (on.is_ipv6() || ip.is_ipv4())
}

/// Checks an address at which a node is to be reached, as those of the list are that a cluster is
/// formed of: `host:port`, with an IPv6 address in brackets, and none that no machine has.
///
/// # Errors
/// A sentence that says what is wrong.
///
/// ```
/// use quorate_network_tcp::check_address;
///
/// assert_eq!(check_address("raft-4.example:7101"), Ok(()));
/// let error = check_address("0.0.0.0:7101").unwrap_err();
/// assert_eq!(error, "0.0.0.0:7101 is no address that others could connect to");
/// ```
pub fn check_address(address: &str) -> Result<(), String> {
    match HostPort::parse(address)?.ip() {
        Some(ip) if !is_of_a_machine(ip) => {
            Err(format!("{address} is no address that others could connect to"))
        }
        _ => Ok(()),
    }
}

/// Checks that all addresses can be ones, and that the entry of node `me` is where it is reached.
/// Gives what may be right, but is worth a warning.
///
/// Errors: a sentence that says what is wrong.
pub(crate) fn check(
    me: NodeId,
    list: &BTreeMap<NodeId, String>,
    listens: SocketAddr,
    advertise: Option<&str>,
) -> Result<Option<String>, String> {
    for (id, address) in list {
        check_address(address).map_err(|reason| format!("node {id}: {reason}"))?;
    }
    let Some(own) = list.get(&me) else { return Ok(None) };
    if advertise == Some(own) {
        return Ok(None);
    }
    let entry = HostPort::parse(own)?;
    let advertised = advertise.and_then(|address| HostPort::parse(address).ok());
    let ports = [Some(listens.port()), advertised.map(|address| address.port)];
    if !ports.contains(&Some(entry.port)) {
        return Err(format!(
            "node {me} is listed at {own}, but this process, which is node {me}, listens on {listens}: the ports \
             differ. Correct the list, or start the node with the id that the list has for it{}",
            match advertise {
                Some(advertise) => format!(" (it advertises {advertise})"),
                None => String::new(),
            }
        ));
    }
    if let Some(advertised) = advertised {
        let same = advertised.is_same_host(entry);
        return Ok((!same).then(|| {
            format!("it advertises {}, and is listed at {own}", advertise.unwrap_or_default())
        }));
    }
    let on = listens.ip().to_canonical();
    match entry.ip() {
        Some(ip) if !is_reached_on(ip, on) => Err(format!(
            "node {me} is listed at {own}, but this process, which is node {me}, listens on {listens} only: nobody \
             reaches it there. Correct the list, or listen on that address"
        )),
        Some(ip) if ip.is_loopback() && list.len() > 1 && !on.is_loopback() => {
            Ok(Some(format!("it is listed at {own}, which only this machine reaches")))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(own: &str, listens: &str, advertise: Option<&str>) -> Result<Option<String>, String> {
        let list = BTreeMap::from([(1, own.to_owned()), (2, "10.0.0.9:7001".to_owned())]);
        check(1, &list, listens.parse().unwrap(), advertise)
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = ["raft-1:7001", "10.0.0.1:1", "[::1]:7001", "[fe80::7]:65535", "a.b.example:80"];
        for address in good {
            assert!(HostPort::parse(address).is_ok(), "{address}");
        }
        let bad = [
            ("", "no port"),
            ("raft-1", "no port"),
            (":7001", "no host"),
            ("raft-1:", "from 1 to 65535"),
            ("raft-1:0", "from 1 to 65535"),
            ("raft-1:65536", "from 1 to 65535"),
            ("raft-1:+80", "from 1 to 65535"),
            ("raft-1:http", "from 1 to 65535"),
            ("raft-1:80 ", "from 1 to 65535"),
            ("::1:7001", "in brackets"),
            ("[raft-1]:7001", "between brackets"),
            ("[::1:7001", "between brackets"),
            ("http://raft-1:7001", "in brackets"),
            ("raft 1:7001", "no name"),
            ("user@raft-1:7001", "no name"),
        ];
        for (address, reason) in bad {
            let error = HostPort::parse(address).unwrap_err();
            assert!(error.contains(reason), "{error}");
            let list = BTreeMap::from([(2, address.to_owned())]);
            let error = check(1, &list, "10.0.0.1:1".parse().unwrap(), None).unwrap_err();
            assert!(error.starts_with("node 2: "), "{error}");
        }
    }

    #[test]
    fn an_address_is_one_that_a_machine_may_have() {
        let bad = ["0.0.0.0", "[::]", "255.255.255.255", "224.0.0.1", "[ff02::1]"];
        for host in bad {
            let list = BTreeMap::from([(2, format!("{host}:7001"))]);
            let error = check(1, &list, "10.0.0.1:1".parse().unwrap(), None).unwrap_err();
            assert!(
                error.contains("node 2") && error.contains("no address that others"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_own_entry_is_where_the_node_listens() {
        let fine = [
            ("10.0.0.1:7001", "10.0.0.1:7001"),
            ("10.0.0.1:7001", "0.0.0.0:7001"),
            ("10.0.0.1:7001", "[::]:7001"),
            ("raft-1:7001", "10.0.0.1:7001"),
            ("[::1]:7001", "[::1]:7001"),
            ("[0:0:0:0:0:0:0:1]:7001", "[::1]:7001"),
            ("[::ffff:10.0.0.1]:7001", "10.0.0.1:7001"),
            ("10.0.0.1:7001", "[::ffff:10.0.0.1]:7001"),
            ("[2001:db8::7]:7001", "[::]:7001"),
            ("localhost:7001", "127.0.0.1:7001"),
            ("localhost:7001", "[::1]:7001"),
        ];
        for (own, listens) in fine {
            assert_eq!(at(own, listens, None), Ok(None), "{own} on {listens}");
        }
        let wrong = [
            ("10.0.0.1:7002", "10.0.0.1:7001", "the ports differ"),
            ("raft-1:7002", "0.0.0.0:7001", "the ports differ"),
            ("10.0.0.2:7001", "10.0.0.1:7001", "nobody reaches it there"),
            ("10.0.0.2:7001", "127.0.0.1:7001", "nobody reaches it there"),
            ("[::1]:7001", "127.0.0.1:7001", "nobody reaches it there"),
            ("[2001:db8::7]:7001", "0.0.0.0:7001", "nobody reaches it there"),
            ("0.0.0.0:7001", "0.0.0.0:7001", "no address that others"),
            ("[::ffff:0.0.0.0]:7001", "0.0.0.0:7001", "no address that others"),
        ];
        for (own, listens, reason) in wrong {
            let error = at(own, listens, None).unwrap_err();
            assert!(error.contains(reason) && error.contains("node 1"), "{error}");
        }
        assert!(at("127.0.0.1:7001", "0.0.0.0:7001", None).unwrap().is_some(), "a warning");
    }

    #[test]
    fn the_own_entry_may_be_what_the_node_advertises() {
        let advertised = |own| at(own, "10.0.0.1:7001", Some("nat.example:9001"));
        assert_eq!(advertised("nat.example:9001"), Ok(None));
        assert!(advertised("other.example:9001").unwrap().is_some(), "a warning");
        assert!(advertised("10.0.0.1:7001").unwrap().is_some(), "a warning");
        assert!(advertised("nat.example:9002").unwrap_err().contains("the ports differ"));
        assert_eq!(advertised("NAT.example.:9001"), Ok(None));
        let six = |own| at(own, "[::]:7001", Some("[2001:db8::7]:9001"));
        assert_eq!(six("[2001:DB8:0:0:0:0:0:7]:9001"), Ok(None));
        assert!(six("nat.example:9001").unwrap().is_some(), "a warning");
    }

    #[test]
    fn a_list_without_this_node_is_not_judged_by_its_address() {
        let list = BTreeMap::from([(2, "10.0.0.9:7001".to_owned())]);
        assert_eq!(check(1, &list, "10.0.0.1:1".parse().unwrap(), None), Ok(None));
    }
}
