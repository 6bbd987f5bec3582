//! The plain values of the public API: their bounds, their sizes, and what people read of them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use litemap::LiteMap;
use quorate_core::quorum::{VoteResult, Voters};
use quorate_core::{
    Body, Claim, ClusterId, Digest, Entry, Fatal, InitializeError, Leader, LogId, Membership,
    Message, Metrics, NodeId, Obstacle, Payload, ReadError, Replica, Role, SnapshotError,
    SnapshotMeta, StoreError, Term, WriteError,
};

fn replica(id: NodeId) -> Replica {
    Replica::new(id, 1)
}

#[test]
fn a_message_is_counted_with_all_that_it_carries() {
    let message = |body| {
        let (from, to) = (replica(1), replica(2));
        Message { group: 1, cluster: None, from, to, term: Term(1), body }.bytes()
    };
    let least = message(Body::ReadIndex { sequence: 1 });
    let command = Bytes::from(vec![1; 1000]);
    let entry = |index, payload| Entry { log_id: LogId::new(1, 1, index), time: 0, payload };
    let entries = vec![entry(1, Payload::Blank), entry(2, Payload::Command(command.clone()))];
    let append = Body::Append {
        prev: LogId::ZERO,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    assert_eq!(message(append), least + 2 * Entry::OVERHEAD_BYTES + 1000);
    let forward = Body::Forward { boot: 1, sequence: 1, commands: vec![command.clone(); 3] };
    assert_eq!(message(forward), least + 3 * (Entry::OVERHEAD_BYTES + 1000));
    let of = |address: &str| {
        let members = BTreeMap::from([(replica(1), address.to_owned())]);
        let membership = Membership::founding(ClusterId(1), members).unwrap();
        let log_id = LogId::new(1, 1, 1);
        let digest = Digest::of(b"");
        SnapshotMeta { log_id, time: 0, membership, membership_index: 1, bytes: 1 << 40, digest }
    };
    let snapshot_chunk =
        |meta, chunk| message(Body::Snapshot { meta: Box::new(meta), offset: 0, chunk });
    let shortest = snapshot_chunk(of(""), Bytes::new());
    assert!(shortest > least, "a configuration counts, too");
    assert_eq!(snapshot_chunk(of("host:1"), command), shortest + 6 + 1000);
    let list = Arc::new(LiteMap::from_iter([(1, "host:1".to_owned()), (2, "h:2".to_owned())]));
    let claim = Claim { cluster: ClusterId(1), ballot: 1, founder: replica(1), list };
    assert_eq!(message(Body::Claim(Box::new(claim))), least + 2 * 16 + 9);
}

#[test]
fn a_vote_is_lost_where_any_majority_is_and_won_where_all_are() {
    let voters = Voters::joint([1, 2, 3].map(replica), [3, 4, 5].map(replica));
    let vote = |yes: &[NodeId], no: &[NodeId]| {
        voters.vote_result(|voter| {
            let answered = yes.contains(&voter.id) || no.contains(&voter.id);
            answered.then_some(yes.contains(&voter.id))
        })
    };
    assert_eq!(vote(&[1, 2, 4, 5], &[]), VoteResult::Won);
    assert_eq!(vote(&[1, 2, 3], &[]), VoteResult::Pending);
    assert_eq!(vote(&[3, 4], &[]), VoteResult::Pending);
    assert_eq!(vote(&[1, 2, 3], &[4, 5]), VoteResult::Lost);
    assert_eq!(vote(&[4, 5], &[1, 2]), VoteResult::Lost);
}

#[test]
fn an_error_says_what_where_and_why() {
    let full = StoreError::io("writing d/1.wal", io::ErrorKind::StorageFull.into());
    assert_eq!(full.to_string(), "writing d/1.wal: no storage space");
    assert!(full.source().is_some());
    let fatal = Fatal::from(full.clone());
    assert_eq!(fatal.to_string(), "the log store failed: writing d/1.wal: no storage space");
    let poisoned = StoreError::Poisoned(full.into());
    assert_eq!(
        poisoned.to_string(),
        "the store has failed before: writing d/1.wal: no storage space"
    );
    let damaged =
        StoreError::Damaged { file: "d/2.wal".into(), offset: 4096, reason: "why".into() };
    assert_eq!(damaged.to_string(), "d/2.wal: damaged at offset 4096: why");
    assert_eq!(StoreError::Locked("d".into()).to_string(), "d: in use by another process");
    let other = StoreError::OtherNode { place: "d".to_owned(), holds: 2, wanted: 3 };
    assert!(other.to_string().starts_with("d belongs to node 2, and node 3 was to start on it"));
    assert_eq!(
        SnapshotError::state_machine("why").to_string(),
        "the state machine's snapshot: why"
    );

    let leader = Some(Leader { id: 3, address: "host:1".to_owned() });
    let hint = "; node 3 at host:1 may lead";
    let why = Arc::new(Metrics { id: 2, ..Metrics::default() }.hindrance());
    let told = ": the cluster of node 2 is not formed yet";
    let write = |leader| WriteError::NotLeader { leader, why: Arc::clone(&why) }.to_string();
    assert_eq!(write(leader.clone()), format!("no leader took the write{hint}{told}"));
    assert_eq!(write(None), format!("no leader took the write{told}"));
    let read = |leader| ReadError::NotLeader { leader, why: Arc::clone(&why) }.to_string();
    assert_eq!(read(leader), format!("no leader confirmed the read{hint}{told}"));
    assert_eq!(read(None), format!("no leader confirmed the read{told}"));
}

#[test]
fn what_appears_in_logs_is_short() {
    let roles = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader];
    let names = roles.map(|role| role.to_string());
    assert_eq!(names, ["follower", "pre-candidate", "candidate", "leader"]);
    assert_eq!(Role::default(), Role::Follower);
    let log_id = LogId::new(5, 2, 77);
    assert_eq!((log_id.to_string(), format!("{log_id:?}")), ("5.2-77".to_owned(), "5.2-77".into()));
    // The BLAKE3 hash of nothing.
    let digest = Digest::of(b"");
    assert_eq!(
        (digest.to_string(), format!("{digest:?}")),
        ("af1349b9".to_owned(), "af1349b9".into())
    );
}

/// Each names the ids that contradict each other.
#[test]
fn a_cluster_that_is_not_formed_says_whose_list_differs() {
    let ids = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<_>>();
    let (listed, theirs) = (ids(&[1, 2, 3]), ids(&[1, 2, 4]));
    let founded = InitializeError::Founded { founders: theirs.clone(), listed: listed.clone() };
    let text = founded.to_string();
    assert!(text.contains("founded by the nodes 1, 2, 4, and the list has 1, 2, 3"), "{text}");
    let other =
        InitializeError::OtherList { node: 2, theirs: theirs.clone(), listed: listed.clone() };
    let text = other.to_string();
    assert!(text.contains("node 2 goes by the list 1, 2, 4, this node by 1, 2, 3"), "{text}");
    let founder = Replica::new(7, 1);
    let promised = InitializeError::Promised { founder, promised: theirs.clone(), listed };
    let text = promised.to_string();
    assert!(text.contains("the claim of node 7 for the list 1, 2, 4"), "{text}");
    assert!(text.contains("only if no node of that list is a member"), "{text}");
    let promised = Obstacle::Promised { founder: 7, ids: theirs }.to_string();
    assert!(promised.contains("promised node 7") && promised.contains("1, 2, 4"), "{promised}");
    // Other groups of a node may need its store.
    for advice in [founded.to_string(), text, promised] {
        assert!(advice.contains("`Node::remove`"), "{advice}");
    }
}
