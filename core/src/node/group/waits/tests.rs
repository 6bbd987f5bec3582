use std::collections::BTreeSet;

use super::*;
use crate::engine::{Input, Local};
use crate::identity::{Boot, ClusterId};
use crate::log_meta::LogMeta;
use crate::log_store::Recovered;
use crate::membership::Membership;
use crate::message::{Body, Message, Situation};
use crate::types::{Entry, HardState, LogId, Payload, Term};

const CLUSTER: ClusterId = ClusterId(7);
const GROUP: GroupId = 1;

fn node(id: NodeId) -> Replica {
    Replica::new(id, 1)
}

fn list() -> BTreeMap<NodeId, String> {
    (1..=3).map(|id| (id, format!("node-{id}"))).collect()
}

/// What the transport knows of the others.
#[derive(Default)]
struct Links(BTreeMap<NodeId, Obstacle>);

impl Transport for Links {
    fn send(&self, _: Message) -> bool {
        true
    }

    fn obstacle(&self, to: Replica) -> Obstacle {
        self.0.get(&to.id).cloned().unwrap_or(Obstacle::Silent)
    }
}

fn refused_at(address: &str) -> Obstacle {
    let reason = "connection refused".to_owned();
    Obstacle::Unreachable { address: address.to_owned(), reason }
}

fn empty_store(id: NodeId) -> Obstacle {
    Obstacle::OtherStore { lives: Replica::new(id, 0xe << 60), is_empty: true }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn engine(recovered: Recovered) -> Engine {
    let local = Local { replica: node(1), boot: Boot { number: 1, tag: 1 }, cluster: None };
    Engine::new(local, GROUP, Config::default(), recovered, 1, at(0))
}

/// Node 1 of three, which has a log.
fn member() -> Engine {
    let members = list().into_iter().map(|(id, address)| (node(id), address)).collect();
    let membership = Membership::founding(CLUSTER, members).expect("valid");
    let payload = Payload::Membership(membership);
    let mut log_meta = LogMeta::default();
    log_meta.push(&Entry { log_id: LogId::FIRST, time: 0, payload });
    let hard_state = HardState { term: Term(1), voted_for: None };
    engine(Recovered { hard_state, log_meta, ..Recovered::default() })
}

/// Node 1 of a list of three, whose store is empty.
fn forming() -> Engine {
    let mut engine = engine(Recovered::default());
    engine.initialize(at(0), list()).expect("may begin");
    engine
}

fn hears(engine: &mut Engine, millis: u64, from: NodeId, body: Body) {
    let message =
        Message { group: GROUP, cluster: None, from: node(from), to: node(1), term: Term(1), body };
    engine.step(at(millis), Input::Message(message));
    engine.take_output();
}

fn look(waits: &mut Waits, engine: &Engine, millis: u64, links: &Links) {
    waits.look(at(millis), GROUP, &Config::default(), engine, links);
}

/// Lets it ask for votes, and gives the number of the attempt.
fn asks(engine: &mut Engine, millis: u64) -> u64 {
    engine.step(at(millis), Input::Wake);
    let output = engine.take_output();
    let attempts = output.messages.iter().find_map(|message| match message.body {
        Body::PreVote { attempt, .. } => Some(attempt),
        _ => None,
    });
    attempts.expect("it asks")
}

/// With what a member says when it has waited for so long.
fn sentence(engine: &Engine, links: &Links, seconds: u64) -> String {
    leader_is_missing(engine, &without_leader(engine, links), Duration::from_secs(seconds))
}

#[test]
fn a_member_without_a_leader_says_why_after_some_elections_and_until_it_has_one() {
    let (mut engine, mut waits) = (member(), Waits::default());
    let links = Links(BTreeMap::from([(2, refused_at("node-2"))]));
    look(&mut waits, &engine, 0, &links);
    look(&mut waits, &engine, 2_999, &links);
    assert!(waits.obstacles().is_empty());
    look(&mut waits, &engine, 3_000, &links);
    assert_eq!(waits.obstacles()[&2], refused_at("node-2"), "requests are refused now");
    assert_eq!(waits.wake_at(), Some(at(5_000)), "the first line of the log");
    look(&mut waits, &engine, 5_000, &links);
    let expected = BTreeMap::from([(2, refused_at("node-2")), (3, Obstacle::Silent)]);
    assert_eq!(*waits.obstacles(), expected);
    assert_eq!(waits.wake_at(), Some(at(8_000)), "the next line of the log");
    look(&mut waits, &engine, 5_050, &Links::default());
    assert_eq!(*waits.obstacles(), expected, "looked at once in a heartbeat interval");
    look(&mut waits, &engine, 5_100, &Links::default());
    assert_eq!(waits.obstacles()[&2], Obstacle::Silent);
    look(&mut waits, &engine, 7_950, &links);
    look(&mut waits, &engine, 8_000, &links);
    assert_eq!(waits.wake_at(), Some(at(8_050)), "when it looks again");

    let entries = Vec::new().into();
    let heartbeat = Body::Append { prev: LogId::ZERO, committed: 0, round: 1, durable: 0, entries };
    hears(&mut engine, 6_000, 2, heartbeat);
    assert_eq!(engine.leader(), Some(node(2)));
    look(&mut waits, &engine, 6_000, &links);
    assert!(waits.obstacles().is_empty());
    assert_eq!(waits.wake_at(), None);
}

#[test]
fn a_round_trip_that_is_too_long_is_told_once_in_a_while() {
    let mut engine = member();
    let looked_at = |engine: &Engine, millis| {
        let mut waits = Waits::default();
        look(&mut waits, engine, millis, &Links::default());
        waits
    };
    let is_told = |waits: &Waits, millis| waits.unfit_lines.pass(at(millis)).is_none();
    let first = asks(&mut engine, 2_000);
    hears(&mut engine, 3_400, 2, Body::PreVoteReply { granted: false, attempt: first });
    assert_eq!(engine.round_trip(), None, "one answer may be late by chance");
    assert!(!is_told(&looked_at(&engine, 3_400), 3_400));
    let second = asks(&mut engine, 4_000);
    let third = asks(&mut engine, 6_000);
    hears(&mut engine, 6_000, 2, Body::PreVoteReply { granted: false, attempt: second });
    assert_eq!(engine.round_trip(), Some(Duration::from_millis(1400)));
    let waits = looked_at(&engine, 6_000);
    assert!(is_told(&waits, 6_000) && is_told(&waits, 35_999) && !is_told(&waits, 36_000));

    hears(&mut engine, 6_100, 2, Body::PreVoteReply { granted: false, attempt: third });
    assert_eq!(engine.round_trip(), Some(Duration::from_millis(100)));
    assert!(!is_told(&looked_at(&engine, 6_100), 6_100), "the network is fast again");
}

#[test]
fn what_was_measured_before_a_leader_was_heard_is_not_told_of_the_next_election() {
    let mut engine = member();
    for millis in [2_000, 4_000] {
        let attempt = asks(&mut engine, millis);
        let answer = Body::PreVoteReply { granted: false, attempt };
        hears(&mut engine, millis + 1_200, 2, answer);
    }
    assert_eq!(engine.round_trip(), Some(Duration::from_millis(1200)));
    let entries = Vec::new().into();
    let heartbeat = Body::Append { prev: LogId::ZERO, committed: 0, round: 1, durable: 0, entries };
    hears(&mut engine, 6_000, 2, heartbeat);
    let mut waits = Waits::default();
    look(&mut waits, &engine, 6_000, &Links::default());
    assert_eq!(waits.unfit_lines.pass(at(6_000)), Some(0), "there is a leader");
    asks(&mut engine, 9_000);
    assert_eq!(engine.round_trip(), None);
}

#[test]
fn a_voter_that_is_reached_is_judged_by_its_vote() {
    let mut engine = member();
    let unheard = Obstacle::Unheard { address: "node-1".to_owned() };
    let links = Links(BTreeMap::from([(2, unheard.clone()), (3, unheard.clone())]));
    assert_eq!(without_leader(&engine, &links)[&node(2)], unheard);
    engine.step(at(2_000), Input::Wake);
    hears(&mut engine, 2_001, 2, Body::PreVoteReply { granted: false, attempt: 0 });
    assert_eq!(without_leader(&engine, &links)[&node(2)], Obstacle::NoVote);
    assert_eq!(without_leader(&engine, &links)[&node(3)], unheard);
    // It was reached then.
    let links = Links(BTreeMap::from([(2, refused_at("node-2"))]));
    assert_eq!(without_leader(&engine, &links)[&node(2)], refused_at("node-2"));
    // A stranger's answer is none.
    hears(&mut engine, 2_002, 9, Body::PreVoteReply { granted: false, attempt: 0 });
    assert_eq!(engine.answer_of(node(9)), None);
}

#[test]
fn a_voter_that_grants_its_vote_is_not_in_the_way() {
    let mut engine = member();
    engine.step(at(2_000), Input::Wake);
    hears(&mut engine, 2_001, 3, Body::VoteReply { granted: true, attempt: 0 });
    let obstacles = without_leader(&engine, &Links::default());
    assert_eq!(obstacles, BTreeMap::from([(node(2), Obstacle::Silent)]));
}

#[test]
fn one_line_names_each_voter_and_a_majority_of_lost_disks() {
    let engine = member();
    let one = Links(BTreeMap::from([(2, refused_at("node-2")), (3, empty_store(3))]));
    let said = sentence(&engine, &one, 6);
    let expected = "no leader for 6 s; node 2: it can't be reached at node-2: connection refused; \
                    node 3: it answers with an empty disk, 3/e000";
    assert!(said.starts_with(expected), "{said}");
    assert!(!said.contains("majority"), "node 2 may have its disk: {said}");
    let two = Links(BTreeMap::from([(2, empty_store(2)), (3, empty_store(3))]));
    let said = sentence(&engine, &two, 6);
    assert!(said.contains("a majority of the disks of this cluster is lost"), "{said}");
    let same = Links(BTreeMap::from([2, 3].map(|id| (id, Obstacle::NoVote))));
    let said = sentence(&engine, &same, 6);
    assert!(
        said.starts_with("no leader for 6 s; node 2, node 3: it is reached and does"),
        "{said}"
    );
}

#[test]
fn an_empty_node_tells_who_is_not_reached_from_who_does_not_answer() {
    let (mut engine, mut waits) = (forming(), Waits::default());
    let unheard = Obstacle::Unheard { address: "node-1".to_owned() };
    let links = Links(BTreeMap::from([(2, refused_at("node-2")), (3, unheard.clone())]));
    look(&mut waits, &engine, 0, &links);
    assert_eq!(*waits.obstacles(), links.0);
    let situation = Situation::Empty;
    hears(&mut engine, 50, 3, Body::Situation { situation, listed: BTreeSet::new() });
    look(&mut waits, &engine, 100, &links);
    assert_eq!(waits.obstacles()[&3], Obstacle::Forming);
    let gone = Links(BTreeMap::from([(3, refused_at("node-3"))]));
    look(&mut waits, &engine, 200, &gone);
    assert_eq!(
        *waits.obstacles(),
        BTreeMap::from([(2, Obstacle::Silent), (3, refused_at("node-3"))])
    );
}

#[test]
fn an_empty_node_that_meets_a_minority_of_members_says_that_nobody_lets_it_in() {
    let mut engine = forming();
    let formed = |engine: &mut Engine, from| {
        let situation = Situation::Member { founders: list().into_keys().collect(), voter: true };
        hears(engine, 50, from, Body::Situation { situation, listed: BTreeSet::new() });
        members_are_missing(&while_forming(engine, &Links::default()))
    };
    assert_eq!(members_are_missing(&while_forming(&engine, &Links::default())), None);
    let said = formed(&mut engine, 3).expect("a minority");
    assert!(said.contains("it hears 1 with a disk of it"), "{said}");
    assert_eq!(formed(&mut engine, 2), None);
}

#[test]
fn a_follower_that_can_t_answer_its_leader_says_so() {
    let (mut engine, mut waits) = (member(), Waits::default());
    let heartbeat = Body::Append {
        prev: LogId::ZERO,
        committed: 0,
        round: 1,
        durable: 0,
        entries: Vec::new().into(),
    };
    hears(&mut engine, 10, 2, heartbeat);
    let barred = Links(BTreeMap::from([(2, refused_at("node-2"))]));
    look(&mut waits, &engine, 10, &barred);
    look(&mut waits, &engine, 3_010, &barred);
    assert!(waits.obstacles().is_empty(), "it may be a reconnection");
    look(&mut waits, &engine, 6_010, &barred);
    assert_eq!(*waits.obstacles(), barred.0);
    look(&mut waits, &engine, 9_010, &Links::default());
    assert!(waits.obstacles().is_empty());
}
