//! What the cases of a transport send: each kind of message, and the few that are sent often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::changes::changing;
use super::super::{CLUSTER, replica};
use crate::{
    AppendOutcome, Body, ChangeId, ChangeKind, ChangeOptions, ChangeRefusal, ChangeReply,
    ChangeRequest, Claim, ClusterId, Digest, Entries, Entry, ForwardOutcome, LeadershipTransfer,
    LogId, MAX_ADDRESS_BYTES, MAX_NODES, Membership, NodeId, Payload, Replica, Situation,
    SnapshotMeta, Term,
};

/// The ids of a list.
pub(super) fn founders(count: u64) -> BTreeSet<NodeId> {
    (1..=count).collect()
}

/// A claim of node 1 on so many nodes.
pub(super) fn claim(ballot: u64, count: u64) -> Claim {
    let list = (1..=count).map(|id| (id, format!("node-{id}.example:7001"))).collect();
    Claim { cluster: CLUSTER, ballot, founder: replica(1), list: Arc::new(list) }
}

/// One that is as large as may be.
fn large_claim() -> Claim {
    let address = |id: u64| format!("{id:-^MAX_ADDRESS_BYTES$}");
    let list = (0..MAX_NODES as u64).map(|nth| (u64::MAX - nth, address(nth))).collect();
    let founder = Replica::new(u64::MAX - MAX_NODES as u64 + 1, u64::MAX);
    Claim { cluster: ClusterId(u128::MAX), ballot: u64::MAX, founder, list: Arc::new(list) }
}

fn entry(log_id: LogId, payload: Payload) -> Entry {
    Entry { log_id, time: 1_700_000_000_000 + log_id.index / 100, payload }
}

/// The entry at this index, a command of so many bytes.
pub(super) fn command(index: u64, bytes: usize) -> Entry {
    let content: Vec<u8> = (0..bytes).map(|n| (n as u64 * 7 + index) as u8).collect();
    entry(LogId::new(2, 1, index), Payload::Command(content.into()))
}

pub(super) fn append(entries: Vec<Entry>) -> Body {
    Body::Append {
        prev: LogId::new(2, 1, 10),
        committed: 9,
        round: 77,
        durable: 8,
        entries: entries.into(),
    }
}

/// An append of one command. Peers can read it: it follows on the entry before, and is not the
/// first one of a log.
pub(super) fn append_one(number: u64, command: Bytes) -> Body {
    let log_id = LogId::new(2, 1, 10 + number);
    let mut body = append(vec![entry(log_id, Payload::Command(command))]);
    if let Body::Append { prev, .. } = &mut body {
        prev.index = log_id.index - 1;
    }
    body
}

fn membership() -> Membership {
    let (one, two) = (replica(1), Replica::new(u64::MAX, 1));
    let members = BTreeMap::from([(one, "a:1".to_owned()), (two, String::new())]);
    Membership::founding(CLUSTER, members).expect("a possible one")
}

/// A chunk of a snapshot.
pub(super) fn snapshot_chunk(offset: u64, chunk: Bytes) -> Body {
    let meta = SnapshotMeta {
        log_id: LogId::new(2, 1, 10),
        time: 1_700_000_000_000,
        membership: changing(&membership(), 8),
        membership_index: 10,
        bytes: u64::MAX,
        digest: Digest::of(b"a snapshot"),
    };
    Body::Snapshot { meta: Box::new(meta), offset, chunk }
}

/// Each kind of message, with each outcome, each kind of entry, and numbers at their limits.
pub(super) fn all_kinds() -> Vec<Body> {
    [elections(), replication(), requests(), snapshots(), formation(), changes()].concat()
}

fn elections() -> Vec<Body> {
    let (log_id, largest) = (LogId::new(2, 1, 10), LogId::new(u64::MAX, u64::MAX, u64::MAX));
    let (term, round) = (Term(u64::MAX), u64::MAX);
    let transfer = Some(LeadershipTransfer { leader: replica(3), term, round });
    vec![
        Body::PreVote { last_log_id: log_id, attempt: 0 },
        Body::PreVote { last_log_id: largest, attempt: u64::MAX },
        Body::PreVoteReply { granted: true, attempt: 0 },
        Body::PreVoteReply { granted: false, attempt: u64::MAX },
        Body::Vote { last_log_id: LogId::ZERO, transfer: None, attempt: 0 },
        Body::Vote { last_log_id: log_id, transfer, attempt: u64::MAX },
        Body::VoteReply { granted: true, attempt: 0 },
        Body::VoteReply { granted: false, attempt: u64::MAX },
        Body::TimeoutNow { last_log_id: log_id, round: 77 },
        Body::TimeoutNow { last_log_id: largest, round },
    ]
}

fn replication() -> Vec<Body> {
    let with_learner = membership().with_learner(Replica::new(1, 99)).expect("a possible one");
    let joint = with_learner.exchanging(replica(1), Replica::new(1, 99)).expect("a possible one");
    let configuration = |membership| Payload::Membership(membership);
    let entries = vec![
        entry(LogId::new(2, 1, 11), Payload::Blank),
        command(12, 0),
        command(13, 100),
        command(14, 70_000),
        entry(LogId::new(3, 2, 15), configuration(with_learner)),
        entry(LogId::new(3, 2, 16), configuration(changing(&joint, 7))),
        entry(LogId::new(3, 2, 17), configuration(joint)),
    ];
    // Of three times, which are told for a whole run of entries at once.
    let runs = (11..300).map(|index| command(index, 10)).collect();
    let (prev, entries_of_none) = (LogId::ZERO, Entries::default());
    let accepted = AppendOutcome::Accepted { matched: u64::MAX };
    let rejected = AppendOutcome::Rejected { prev: 10, hint: LogId::new(2, 1, 10) };
    vec![
        append(entries),
        append(runs),
        Body::Append { prev, committed: 0, round: u64::MAX, durable: 0, entries: entries_of_none },
        Body::AppendReply { round: 77, outcome: accepted },
        Body::AppendReply { round: 78, outcome: rejected },
    ]
}

fn requests() -> Vec<Body> {
    let commands = vec![Bytes::new(), Bytes::from_static(b"set"), Bytes::from(vec![1; 30_000])];
    let answer = |outcome| Body::ForwardReply { boot: 5, sequence: 6, outcome };
    vec![
        Body::Forward { boot: 5, sequence: 6, commands },
        Body::Forward { boot: u64::MAX, sequence: u64::MAX, commands: vec![] },
        answer(ForwardOutcome::Appended(LogId::new(2, 1, 10))),
        answer(ForwardOutcome::NotLeader),
        answer(ForwardOutcome::Busy),
        answer(ForwardOutcome::StorageFull),
        Body::ReadIndex { sequence: 8 },
        Body::ReadIndexReply { sequence: 8, index: Some(u64::MAX), time: u64::MAX },
        Body::ReadIndexReply { sequence: 9, index: None, time: 0 },
    ]
}

fn snapshots() -> Vec<Body> {
    vec![
        snapshot_chunk(0, Bytes::new()),
        snapshot_chunk(u64::MAX, Bytes::from_static(b"a chunk")),
        snapshot_chunk(7, Bytes::from(vec![1; 70_000])),
        Body::SnapshotReply { digest: Digest::of(b"a snapshot"), stored: 0 },
        Body::SnapshotReply { digest: Digest::of(b""), stored: u64::MAX },
    ]
}

fn formation() -> Vec<Body> {
    let largest = || large_claim().ids();
    let situation = |situation| Body::Situation { situation, listed: founders(3) };
    let (ballot, founder) = (u64::MAX, replica(1));
    vec![
        Body::Who { listed: founders(0) },
        Body::Who { listed: founders(3) },
        Body::Who { listed: largest() },
        situation(Situation::Empty),
        situation(Situation::Claimed { ballot, founder, ids: founders(3) }),
        situation(Situation::Admitted),
        situation(Situation::Member { founders: largest(), voter: true }),
        situation(Situation::Spent),
        situation(Situation::Elsewhere),
        Body::Situation { situation: Situation::Empty, listed: founders(0) },
        Body::Claim(Box::new(claim(1, 3))),
        Body::Claim(Box::new(large_claim())),
        Body::Admit { cluster: CLUSTER, founders: founders(3) },
        Body::Admit { cluster: ClusterId(u128::MAX), founders: largest() },
    ]
}

fn changes() -> Vec<Body> {
    let id = ChangeId(u128::MAX);
    let under_way = || changing(&membership(), 8);
    let target = || under_way().target();
    let request = |kind| Body::Change(Box::new(ChangeRequest { id, kind }));
    let begin = |options| request(ChangeKind::Begin { target: target(), options });
    let answer = |reply| Body::ChangeReply { id, reply: Box::new(reply) };
    let refused = |refusal| answer(ChangeReply::Refused(refusal));
    let catch_up = Duration::from_millis(u64::MAX);
    vec![
        begin(ChangeOptions::default()),
        begin(ChangeOptions { follows: Some(id), catch_up, allow_lower_tolerance: true }),
        request(ChangeKind::Cancel),
        answer(ChangeReply::Await(id)),
        answer(ChangeReply::Nothing),
        answer(ChangeReply::Noted),
        answer(ChangeReply::Again),
        refused(ChangeRefusal::Target("node 4 is a member already, at höst:1".to_owned())),
        refused(ChangeRefusal::UnderWay { membership: under_way() }),
        refused(ChangeRefusal::Conflict { membership: membership() }),
        refused(ChangeRefusal::LowersTolerance { now: u64::MAX, lowest: 0 }),
        refused(ChangeRefusal::NotUnderWay),
        Body::Removed { log_id: LogId::new(2, 1, 10), membership: membership() },
        Body::Removed { log_id: LogId::new(u64::MAX, u64::MAX, u64::MAX), membership: under_way() },
    ]
}
