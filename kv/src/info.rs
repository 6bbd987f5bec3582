//! What a node tells of itself: INFO, RAFT STATUS, SNAPSHOT and PURGE, HELLO and CONFIG GET.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use quorate::{LogId, Metrics, Network, Replica, SnapshotError};

use crate::glob::Matching;
use crate::members;
use crate::reply::{Protocol, Reply};
use crate::request::MAX_VALUE_BYTES;
use crate::server::Server;

/// The version of Redis whose commands these are. Client libraries look at it.
const REDIS_VERSION: &str = "7.0.0";

/// The answer to HELLO.
pub(crate) fn hello(id: u64, protocol: Protocol) -> Reply {
    let version = match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let fields = [
        ("server", Reply::bulk("quorate-kv")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(version)),
        ("id", Reply::Integer(id.cast_signed())),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(fields.map(|(name, value)| (Reply::bulk(name), value)).to_vec())
}

/// The most steps that a pattern of CONFIG GET may take for a name. (The patterns of one request
/// are short: they are bounded where it is read.)
const MAX_PATTERN_STEPS: usize = 1 << 16;

/// The answer to CONFIG GET: the settings that clients look at and whose names match a pattern.
pub(crate) fn config<R: Network>(server: &Server<R>, patterns: &[Bytes]) -> Reply {
    settings(server.max_clients, server.limits.client_timeout, patterns)
}

fn settings(max_clients: usize, timeout: Duration, patterns: &[Bytes]) -> Reply {
    let settings = [
        // Nothing is kept in snapshots of Redis' kind, and every write is in a log before it is
        // answered.
        ("save", String::new()),
        ("appendonly", "yes".to_owned()),
        ("appendfsync", "always".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", max_clients.to_string()),
        ("proto-max-bulk-len", MAX_VALUE_BYTES.to_string()),
        ("timeout", timeout.as_millis().div_ceil(1000).to_string()),
    ];
    let wanted = |name: &str| {
        patterns.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            if !pattern.iter().any(|byte| b"[*?".contains(byte)) {
                return pattern == name.as_bytes(); // As in Redis, where no `\\` is looked at then.
            }
            let mut steps = MAX_PATTERN_STEPS;
            Matching::new(&pattern, name.as_bytes()).go_on(&mut steps) == Some(true)
        })
    };
    let settings = settings.into_iter().filter(|(name, _)| wanted(name));
    Reply::Map(settings.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

/// The answer to RAFT STATUS.
pub(crate) fn raft_status<R: Network>(server: &Server<R>) -> Reply {
    let facts = facts(server).into_iter();
    Reply::Map(facts.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

/// The answer to RAFT SNAPSHOT and RAFT PURGE: the index up to which there is a snapshot now, or
/// the log is purged.
pub(crate) fn compacted(result: Result<LogId, SnapshotError>) -> Reply {
    match result {
        Ok(log_id) => Reply::Integer(log_id.index.cast_signed()),
        Err(error @ (SnapshotError::Shutdown | SnapshotError::Fatal(_))) => {
            Reply::error(format!("CLUSTERDOWN {error}"))
        }
        Err(error) => Reply::error(format!("ERR {error}")),
    }
}

fn facts<R: Network>(server: &Server<R>) -> Vec<(String, String)> {
    let mut facts = raft(&server.metrics.borrow());
    let waits = server.waits_to_join.borrow().clone();
    facts.extend(waits.map(|waits| ("joining".to_owned(), waits)));
    facts
}

/// The facts of a node's place in its cluster, for RAFT STATUS and INFO. A leader adds its peers.
fn raft(metrics: &Metrics) -> Vec<(String, String)> {
    let leader = metrics.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    let mut facts = vec![
        ("id".to_owned(), metrics.id.to_string()),
        ("incarnation".to_owned(), format!("{:016x}", metrics.replica.incarnation)),
        ("boot".to_owned(), metrics.boot.to_string()),
        ("formed".to_owned(), if metrics.membership.is_some() { "yes" } else { "no" }.to_owned()),
        ("role".to_owned(), metrics.role.to_string()),
        ("term".to_owned(), metrics.term.to_string()),
        ("leader".to_owned(), leader),
        ("committed".to_owned(), metrics.committed.to_string()),
        ("applied".to_owned(), metrics.applied.to_string()),
        ("snapshot".to_owned(), metrics.snapshot.index.to_string()),
        ("purged".to_owned(), metrics.purged.index.to_string()),
        ("storage_full".to_owned(), if metrics.storage_full { "yes" } else { "no" }.to_owned()),
        ("dropped_messages".to_owned(), metrics.dropped_messages.to_string()),
        ("contradictions".to_owned(), metrics.contradictions.to_string()),
    ];
    if let Some(time) = metrics.round_trip {
        facts.push(("round_trip_ms".to_owned(), time.as_millis().to_string()));
    }
    if let Some(unfit) = &metrics.unfit_timing {
        facts.push(("unfit_timing".to_owned(), unfit.to_string()));
    }
    let role = match &metrics.membership {
        _ if metrics.removed => "removed",
        Some(membership) => members::role(membership, metrics.replica),
        None => "not a member",
    };
    facts.push(("membership".to_owned(), role.to_owned()));
    if let Some(membership) = &metrics.membership {
        let member = |replica: &Replica| {
            format!("{}={}", members::name(*replica), members::role(membership, *replica))
        };
        let all: Vec<_> = membership.members().keys().map(member).collect();
        facts.push(("members".to_owned(), all.join(",")));
    }
    if let Some(error) = &metrics.snapshot_error {
        facts.push(("snapshot_error".to_owned(), error.to_string()));
    }
    for (node, obstacle) in &metrics.waits_for {
        facts.push((format!("waits_for{node}"), obstacle.to_string()));
    }
    for (replica, peer) in &metrics.peers {
        let contact =
            peer.last_contact.map_or_else(|| "none".to_owned(), |d| d.as_millis().to_string());
        let mut facts_of_peer = format!("match={},last_contact_ms={contact}", peer.matched);
        if let Some((stored, whole)) = peer.snapshot {
            let _ = write!(facts_of_peer, ",snapshot_bytes={stored}/{whole}");
        }
        // While a lost disk is exchanged, a node has two replicas.
        let votes = metrics.membership.as_ref().is_none_or(|m| m.is_voter(*replica));
        let name = if votes { "peer" } else { "learner" };
        facts.push((format!("{name}{}", replica.id), facts_of_peer));
    }
    facts
}

/// The text of INFO: all sections, or those named.
#[expect(clippy::disallowed_methods, reason = "an operator wants to know it")]
pub(crate) fn info<R: Network>(server: &Server<R>, wanted: &[Bytes]) -> String {
    let pairs = |pairs: &[(&str, String)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let uptime = server.rt.now() - server.started;
    let keys = server.keys.get();
    let sections = [
        (
            "Server",
            pairs(&[
                ("redis_version", REDIS_VERSION.to_owned()),
                ("quorate_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("redis_mode", "standalone".to_owned()),
                ("os", std::env::consts::OS.to_owned()),
                ("process_id", std::process::id().to_string()),
                ("tcp_port", server.port.to_string()),
                ("uptime_in_seconds", uptime.as_secs().to_string()),
            ]),
        ),
        (
            "Clients",
            pairs(&[
                ("connected_clients", server.clients.get().to_string()),
                ("maxclients", server.max_clients.to_string()),
                ("unread_answers_bytes", server.unread.used().to_string()),
                ("unfinished_requests_bytes", server.unfinished.used().to_string()),
            ]),
        ),
        (
            "Stats",
            pairs(&[
                ("total_connections_received", server.accepted.get().to_string()),
                ("total_commands_processed", server.commands.get().to_string()),
            ]),
        ),
        ("Raft", facts(server)),
        (
            "Keyspace",
            if keys == 0 {
                Vec::new()
            } else {
                pairs(&[("db0", format!("keys={keys},expires=0,avg_ttl=0"))])
            },
        ),
    ];
    let all = |name: &Bytes| {
        ["all", "default", "everything"].iter().any(|all| name.eq_ignore_ascii_case(all.as_bytes()))
    };
    let mut text = String::new();
    for (name, lines) in sections {
        let named = |wanted: &Bytes| wanted.eq_ignore_ascii_case(name.as_bytes()) || all(wanted);
        if !wanted.is_empty() && !wanted.iter().any(named) {
            continue;
        }
        let separator = if text.is_empty() { "" } else { "\r\n" };
        let _ = write!(text, "{separator}# {name}\r\n");
        for (name, value) in lines {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate::{
        ClusterId, Config, Membership, Obstacle, PeerMetrics, Role, StoreError, Term, UnfitTiming,
    };

    use super::*;

    #[test]
    fn a_leader_tells_of_its_peers() {
        let heard = PeerMetrics {
            matched: 9,
            last_contact: Some(Duration::from_millis(12)),
            ..PeerMetrics::default()
        };
        let behind = PeerMetrics { snapshot: Some((4, 1000)), ..PeerMetrics::default() };
        let mut metrics = Metrics {
            id: 2,
            role: Role::Leader,
            term: Term(3),
            leader: Some(2),
            committed: 9,
            applied: 8,
            snapshot: LogId { index: 7, ..LogId::ZERO },
            purged: LogId { index: 6, ..LogId::ZERO },
            replica: Replica::new(2, 0xfe << 56),
            boot: 4,
            dropped_messages: 5,
            contradictions: 1,
            waits_for: BTreeMap::from([(4, Obstacle::Silent)]),
            peers: BTreeMap::from([(Replica::new(1, 7), heard), (Replica::new(3, 8), behind)]),
            ..Metrics::default()
        };
        let told = |metrics: &Metrics| -> Vec<String> {
            raft(metrics).into_iter().map(|(name, value)| format!("{name}:{value}")).collect()
        };
        assert_eq!(
            told(&metrics),
            [
                "id:2",
                "incarnation:fe00000000000000",
                "boot:4",
                "formed:no",
                "role:leader",
                "term:3",
                "leader:2",
                "committed:9",
                "applied:8",
                "snapshot:7",
                "purged:6",
                "storage_full:no",
                "dropped_messages:5",
                "contradictions:1",
                "membership:not a member",
                "waits_for4:nothing is heard of it",
                "peer1:match=9,last_contact_ms=12",
                "peer3:match=0,last_contact_ms=none,snapshot_bytes=4/1000",
            ]
        );
        metrics.snapshot_error = Some(SnapshotError::Store(StoreError::Abandoned));
        let trip = Duration::from_millis(1400);
        metrics.round_trip = Some(trip);
        metrics.unfit_timing = UnfitTiming::of(trip, &Config::default());
        assert!(told(&metrics).iter().any(|fact| fact == "round_trip_ms:1400"));
        let unfit = "unfit_timing:a quorum of the voters answers after 1400 ms, but ";
        assert!(told(&metrics).iter().any(|fact| fact.starts_with(unfit)));
        let error = "snapshot_error:the store dropped a write without an answer";
        assert!(told(&metrics).iter().any(|fact| fact == error));
    }

    #[test]
    fn the_members_and_the_nodes_own_part_among_them_are_told() {
        let mine = Replica::new(2, 0xfe << 56);
        let members = [Replica::new(1, 7), mine].map(|member| (member, member.to_string()));
        let membership = Membership::founding(ClusterId(5), members.into()).unwrap();
        let mut metrics =
            Metrics { id: 2, replica: mine, membership: Some(membership), ..Metrics::default() };
        let fact = |metrics: &Metrics, wanted: &str| {
            let mut facts = raft(metrics).into_iter();
            facts.find_map(|(name, value)| (name == wanted).then_some(value)).unwrap()
        };
        let all = "1/0000000000000007=voter,2/fe00000000000000=voter";
        assert_eq!(fact(&metrics, "members"), all);
        assert_eq!(fact(&metrics, "membership"), "voter");
        // Its disk was lost.
        metrics.replica = Replica::new(2, 1);
        assert_eq!(fact(&metrics, "membership"), "not a member");
        assert_eq!(fact(&metrics, "members"), all);
        assert_eq!(fact(&Metrics::default(), "membership"), "not a member", "of no cluster yet");
    }

    #[test]
    fn settings_are_found_by_name_and_by_pattern() {
        let found = |pattern: &'static str| match settings(
            16,
            Duration::ZERO,
            &[Bytes::from_static(pattern.as_bytes())],
        ) {
            Reply::Map(settings) => settings.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found("SAVE"), 1);
        assert_eq!(found("append*"), 2);
        assert_eq!(found("*SYNC"), 1);
        assert_eq!(found("*"), 7);
        assert_eq!(found("sav"), 0);
    }
}
