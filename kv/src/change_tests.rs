//! The commands about the membership: what they are read as, and what they answer.

use std::collections::{BTreeMap, BTreeSet};

use quorate::Obstacle;
use quorate::quorum::Voters;

use super::*;
use crate::command::parse;

fn run(line: &str) -> Result<Request, String> {
    let arguments = line.split(' ').map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    match parse(arguments) {
        Ok(Command::Local(Local::Membership(request))) => Ok(*request),
        Ok(other) => panic!("{line}: {other:?}"),
        Err(Reply::Error(text)) => Err(String::from_utf8_lossy(&text).into_owned()),
        Err(other) => panic!("{line}: {other:?}"),
    }
}

fn made(line: &str) -> Change {
    match run(line) {
        Ok(Request::Make(change)) => change,
        other => panic!("{line}: {other:?}"),
    }
}

fn text(reply: Result<Reply, Reply>) -> String {
    match reply.unwrap_or_else(|error| error) {
        Reply::Error(text) | Reply::Bulk(text) => String::from_utf8_lossy(&text).into_owned(),
        other => panic!("{other:?}"),
    }
}

fn metrics(ids: &[NodeId]) -> Metrics {
    let members = ids.iter().map(|id| (quorate::Replica::new(*id, 7), format!("host:{id}")));
    let membership = Membership::founding(ClusterId(0xab), members.collect()).unwrap();
    let (cluster, membership) = (Some(ClusterId(0xab)), Some(membership));
    Metrics { id: 1, leader: Some(1), cluster, membership, ..Metrics::default() }
}

#[test]
fn each_command_is_read_with_its_options_in_any_order() {
    let add = made("raft add 4 host:7101");
    let verb = Verb::Add { id: 4, address: "host:7101".to_owned(), learns: false };
    let plain =
        Change { verb, follows: None, allow_lower_tolerance: false, catch_up: None, token: None };
    assert_eq!(add, plain);
    for line in [
        "RAFT ADD 4 [::1]:7101 learner ALLOWLOWER timeout 1500 FOLLOWS 1f token ab",
        "RAFT ADD 4 [::1]:7101 TOKEN ab FOLLOWS 1f TIMEOUT 1500 ALLOWLOWER LEARNER",
    ] {
        let Change { verb, follows, allow_lower_tolerance, catch_up, token } = made(line);
        assert_eq!(verb, Verb::Add { id: 4, address: "[::1]:7101".to_owned(), learns: true });
        assert_eq!((follows, allow_lower_tolerance), (Some(ChangeId(0x1f)), true));
        assert_eq!(catch_up, Some(Duration::from_millis(1500)));
        assert_eq!(token.as_deref(), Some(&b"ab"[..]));
    }
    for (line, verb) in [
        ("RAFT PROMOTE 4", Verb::Promote(4)),
        ("RAFT DEMOTE 4", Verb::Demote(4)),
        ("RAFT REMOVE 4", Verb::Remove(4)),
        ("RAFT REPLACE 4 5 a:1", Verb::Replace { old: 4, new: 5, address: "a:1".to_owned() }),
        ("RAFT MOVE 4 a:1", Verb::Move { id: 4, address: "a:1".to_owned() }),
        ("RAFT PREFER 4 255", Verb::Prefer { id: 4, priority: 255 }),
    ] {
        assert_eq!(made(line), Change { verb, ..plain.clone() });
        let planned = run(&line.replace("RAFT", "RAFT plan"));
        assert_eq!(planned, Ok(Request::Plan(made(line))));
    }
    assert_eq!(run("RAFT MEMBERS"), Ok(Request::Members));
    assert_eq!(run("RAFT TOKEN"), Ok(Request::Token));
    assert_eq!(run("RAFT CANCEL"), Ok(Request::Cancel(None)));
    assert_eq!(run("RAFT CANCEL 1f"), Ok(Request::Cancel(Some(ChangeId(0x1f)))));
    assert_eq!(run("RAFT AWAIT 1f"), Ok(Request::Await(ChangeId(0x1f))));
}

#[test]
fn what_can_not_be_read_is_refused_with_the_reason() {
    for (line, error) in [
        ("RAFT ADD 4", "ERR wrong number of arguments for 'raft|add' command"),
        ("RAFT PLAN ADD 4", "ERR wrong number of arguments for 'raft|add' command"),
        ("RAFT PLAN REPLACE 4 5", "ERR wrong number of arguments for 'raft|replace' command"),
        (
            "RAFT PLAN CANCEL 4",
            "ERR RAFT PLAN takes one of ADD, PROMOTE, DEMOTE, REMOVE, REPLACE, MOVE, PREFER and its arguments",
        ),
        ("RAFT REMOVE 0", "ERR a node id is a number from 1 on"),
        ("RAFT REMOVE x", "ERR a node id is a number from 1 on"),
        ("RAFT REMOVE 4 LEARNER", "ERR syntax error"),
        ("RAFT REMOVE 4 NOW", "ERR syntax error"),
        ("RAFT REMOVE 4 TIMEOUT", "ERR syntax error"),
        ("RAFT REMOVE 4 TIMEOUT 0", "ERR TIMEOUT takes milliseconds, from 1 to a year"),
        ("RAFT REMOVE 4 TIMEOUT -5", "ERR TIMEOUT takes milliseconds, from 1 to a year"),
        ("RAFT PREFER 4 256", "ERR a priority is a number from 0 to 255"),
        ("RAFT ADD 4 host", "ERR node 4: \"host\" is no address host:port: it has no port"),
        (
            "RAFT MOVE 4 0.0.0.0:7101",
            "ERR node 4: 0.0.0.0:7101 is no address that others could connect to",
        ),
        ("RAFT AWAIT x", "ERR a change is named by the number that RAFT MEMBERS shows"),
        ("RAFT CANCEL 1 2", "ERR wrong number of arguments for 'raft|cancel' command"),
    ] {
        assert_eq!(run(line), Err(error.to_owned()), "{line}");
    }
    let long = format!("RAFT ADD 4 {}:1", "a".repeat(600));
    assert!(run(&long).unwrap_err().contains("longer than 512 bytes"));
}

#[test]
fn a_change_is_made_to_the_membership_that_is_known_and_to_no_other() {
    let metrics = metrics(&[1, 2, 3]);
    let membership = metrics.membership.unwrap();
    let (target, options) = made("RAFT REMOVE 3 ALLOWLOWER").on(&membership).unwrap();
    assert_eq!(target.to_string(), "1, 2");
    assert_eq!(options.follows, Some(membership.last_change()));
    assert!(options.allow_lower_tolerance);
    let error = made("RAFT ADD 3 a:1").on(&membership).unwrap_err();
    let known = "the membership can't become that: node 3 is a member already, at host:3";
    assert_eq!(error.to_string(), known);
    let error = made("RAFT REMOVE 3 FOLLOWS 1f").on(&membership).unwrap_err();
    assert!(matches!(error, ChangeRefusal::Conflict { .. }), "{error}");
}

#[test]
fn a_token_of_another_cluster_and_a_node_without_one_are_refused() {
    let inside = metrics(&[1, 2, 3]);
    let with = |token: &str| made(&format!("RAFT ADD 4 a:1 TOKEN {token}"));
    assert!(base(&inside, &with("ab")).is_ok());
    assert!(base(&inside, &with(&format!("{:032x}", 0xab))).is_ok());
    for token in ["ac", "", "x"] {
        let error = text(base(&inside, &with(token)).map(|_| Reply::OK));
        assert!(error.starts_with("WRONGTOKEN the token is not that of this cluster"), "{error}");
    }
    let outside = Metrics { id: 4, ..Metrics::default() };
    let error = text(base(&outside, &with("ab")).map(|_| Reply::OK));
    assert_eq!(error, "CLUSTERDOWN this node belongs to no cluster yet: ask a member of one");
    let removed = Metrics { removed: true, ..inside };
    let error = text(base(&removed, &with("ab")).map(|_| Reply::OK));
    assert!(error.starts_with("CLUSTERDOWN node 1 was removed from the group"), "{error}");
}

#[test]
fn a_plan_names_the_steps_and_what_it_would_take_to_be_let() {
    let metrics = metrics(&[1, 2, 3]);
    let plan = |line: &str| match planned(&metrics, &made(line)) {
        Ok(Reply::Array(lines)) => lines.into_iter().map(|line| text(Ok(line))).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        plan("RAFT REPLACE 1 4 a:1"),
        [
            "tolerates_now=1 tolerates_at_least=1",
            "1. add node 4 as a learner, when it answers",
            "2. wait until node 4 has caught up",
            "3. voters 2, 3, 4 joint with 1, 2, 3",
            "4. transfer leadership to one of 2, 3, 4",
            "5. voters 2, 3, 4",
        ]
    );
    let lowers = "tolerates_now=1 tolerates_at_least=0 refused=needs ALLOWLOWER";
    assert_eq!(plan("RAFT REMOVE 3")[0], lowers);
    assert_eq!(plan("RAFT REMOVE 3 ALLOWLOWER")[0], "tolerates_now=1 tolerates_at_least=0");
    assert_eq!(plan("RAFT PROMOTE 3")[1], "nothing is to be done");
}

#[test]
fn errors_say_what_to_do() {
    let waits_for = BTreeSet::from([4]);
    let change = ChangeId(0x1f);
    for (error, begins, contains) in [
        (ChangeError::Late { waits_for }, "ERR ", "node 4 had not caught up"),
        (
            ChangeError::Unknown { change },
            "CLUSTERDOWN ",
            "RAFT AWAIT 0000000000000000000000000000001f",
        ),
        (ChangeError::Cancelled, "ERR ", "was cancelled"),
        (ChangeRefusal::NotUnderWay.into(), "ERR ", "RAFT MEMBERS"),
        (ChangeRefusal::LowersTolerance { now: 1, lowest: 0 }.into(), "ERR ", "ALLOWLOWER"),
        (ChangeError::Shutdown, "CLUSTERDOWN ", "stopping"),
    ] {
        let text = text(Err(refusal(&error)));
        assert!(text.starts_with(begins) && text.contains(contains), "{text}");
    }
}

#[test]
fn the_members_are_listed_with_what_the_leader_knows_of_them() {
    let mut metrics = metrics(&[1, 2]);
    let peer = quorate::PeerMetrics {
        matched: 7,
        last_contact: Some(Duration::from_millis(12)),
        snapshot: Some((5, 10)),
        ..quorate::PeerMetrics::default()
    };
    let replica = |id| quorate::Replica::new(id, 7);
    metrics.replica = replica(1);
    metrics.committed = 9;
    metrics.peers = BTreeMap::from([(replica(2), peer)]);
    let listed = |metrics: &Metrics| match members::list(metrics) {
        Reply::Array(lines) => lines.into_iter().map(|line| text(Ok(line))).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let leader =
        "id=1 address=host:1 role=voter leader=yes incarnation=0000000000000007 this_node=yes";
    let follower = "id=2 address=host:2 role=voter leader=no incarnation=0000000000000007 matched=7 \
         behind=2 last_contact_ms=12 snapshot_bytes=5/10";
    assert_eq!(listed(&metrics), [leader, follower]);
    let (voters, members) =
        (Voters::simple([replica(1)]), [1, 2].map(|id| (replica(id), "h:1".to_owned())));
    let learner = Membership::new(ClusterId(1), [1].into(), members.into(), voters).unwrap();
    metrics.membership = Some(learner);
    assert!(listed(&metrics)[1].starts_with("id=2 address=h:1 role=learner leader=no "));
    metrics.waits_for = BTreeMap::from([(2, Obstacle::Silent)]);
    metrics.membership = None;
    assert_eq!(listed(&metrics), [""; 0]);
}
