//! The plain values of the public API: their bounds, their sizes, and what people read of them.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;

use bytes::Bytes;
use quorate_core::quorum::{VoteResult, vote_result};
use quorate_core::{
    Body, Digest, Entry, Fatal, Leader, LogId, MAX_ADDRESS_BYTES, MAX_NODES, Membership, Message,
    NodeId, Payload, ReadError, Role, SnapshotError, SnapshotMeta, StoreError, Term, WriteError,
};

fn voters(count: usize) -> BTreeMap<NodeId, String> {
    (1..=count as NodeId).map(|id| (id, format!("host-{id}:7000"))).collect()
}

#[test]
fn a_membership_keeps_within_its_bounds() {
    assert!(Membership::new(voters(0)).unwrap_err().contains("at least one voter"));
    assert!(Membership::new(voters(MAX_NODES)).is_ok());
    assert!(Membership::new(voters(MAX_NODES + 1)).unwrap_err().contains("more than"));
    let addressed = |id, len| Membership::new([(id, "a".repeat(len))].into());
    assert!(addressed(0, 1).unwrap_err().contains("must not be 0"));
    assert!(addressed(5, MAX_ADDRESS_BYTES).is_ok());
    assert!(addressed(5, MAX_ADDRESS_BYTES + 1).unwrap_err().contains("node 5"));

    let membership = Membership::new(voters(3)).unwrap();
    assert!(membership.is_voter(3) && !membership.is_voter(4));
    assert_eq!(membership.address(2), Some("host-2:7000"));
    assert_eq!(membership.address(4), None);
}

#[test]
fn a_message_is_counted_with_all_that_it_carries() {
    let message = |body| Message { group: 1, from: 1, to: 2, term: Term(1), body }.bytes();
    let least = message(Body::TimeoutNow);
    let command = Bytes::from(vec![1; 1000]);
    let entry = |index, payload| Entry { log_id: LogId::new(1, 1, index), payload };
    let entries = vec![entry(1, Payload::Blank), entry(2, Payload::Command(command.clone()))];
    let append =
        Body::Append { prev: LogId::ZERO, committed: 0, round: 0, entries: entries.into() };
    assert_eq!(message(append), least + 2 * Entry::OVERHEAD_BYTES + 1000);
    let forward = Body::Forward { session: 1, sequence: 1, commands: vec![command.clone(); 3] };
    assert_eq!(message(forward), least + 3 * (Entry::OVERHEAD_BYTES + 1000));
    let meta = SnapshotMeta {
        log_id: LogId::new(1, 1, 1),
        membership: Membership::new([(1, "abc".to_owned())].into()).unwrap(),
        membership_index: 1,
        bytes: 1 << 40,
        digest: Digest::of(b""),
    };
    let piece = Body::Snapshot { meta, offset: 0, chunk: command };
    assert_eq!(message(piece), least + (5 + 12 + 3) + 1000);
}

#[test]
fn a_vote_is_lost_where_any_majority_is_and_won_where_all_are() {
    let (old, new): (&[NodeId], &[NodeId]) = (&[1, 2, 3], &[3, 4, 5]);
    let vote = |yes: &[NodeId], no: &[NodeId]| {
        vote_result(&[old, new], |id| {
            let answered = yes.contains(&id) || no.contains(&id);
            answered.then_some(yes.contains(&id))
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
        StoreError::Damaged { file: "d/2.wal".into(), offset: 4096, reason: "why".to_owned() };
    assert_eq!(damaged.to_string(), "d/2.wal: damaged at offset 4096: why");
    assert_eq!(StoreError::Locked("d".into()).to_string(), "d: in use by another process");
    assert_eq!(
        SnapshotError::state_machine("why").to_string(),
        "the state machine's snapshot: why"
    );

    let leader = Some(Leader { id: 3, address: "host:1".to_owned() });
    let hint = "; node 3 at host:1 may lead";
    let write = |leader| WriteError::NotLeader { leader }.to_string();
    assert_eq!(write(leader.clone()), format!("no leader took the write{hint}"));
    assert_eq!(write(None), "no leader took the write");
    let read = |leader| ReadError::NotLeader { leader }.to_string();
    assert_eq!(read(leader), format!("no leader confirmed the read{hint}"));
    assert_eq!(read(None), "no leader confirmed the read");
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
