//! Every kind of message with every field at its extremes. What follows does not compile, or fails,
//! when a kind or a field is added and not varied here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::quorum::Voters;
use quorate_core::{
    AppendOutcome, Body, Boot, ChangeId, ChangeKind, ChangeOptions, ChangeRefusal, ChangeReply,
    ChangeRequest, Claim, ClusterId, Digest, Entry, ForwardOutcome, LeadershipTransfer, LogId,
    MAX_ADDRESS_BYTES, MAX_NODES, Member, MemberRole, Membership, NodeId, Payload, Refusal,
    Replica, Situation, SnapshotMeta, Target, Term,
};

use crate::cluster::CLUSTER;

/// What the receiver of a message has, as far as the fields are about that.
#[derive(Clone, Copy)]
pub(super) struct Ours {
    pub(super) me: Replica,
    pub(super) leader: Replica,
    pub(super) term: Term,
    pub(super) last: LogId,
    pub(super) committed: u64,
}

/// A number at its extremes, and around what it should be.
pub(super) fn numbers(ours: u64) -> BTreeSet<u64> {
    let around = [ours.saturating_sub(1), ours, ours.saturating_add(1)];
    let steps = [32, 48, 62, 63].map(|bits| 1 << bits);
    let beside = steps.map(|step: u64| step - 1);
    [0, 1, u64::MAX].into_iter().chain(around).chain(steps).chain(beside).collect()
}

fn log_ids(ours: LogId) -> Vec<LogId> {
    let LogId { term: Term(term), leader, index } = ours;
    let terms = numbers(term).into_iter().map(|term| LogId { term: Term(term), ..ours });
    let leaders = numbers(leader).into_iter().map(|leader| LogId { leader, ..ours });
    let indexes = numbers(index).into_iter().map(|index| LogId { index, ..ours });
    let all = numbers(0).into_iter().map(|number| LogId::new(number, number, number));
    terms.chain(leaders).chain(indexes).chain(all).chain([LogId::ZERO, LogId::FIRST]).collect()
}

fn replicas(ours: Ours) -> Vec<Replica> {
    let strangers = [Replica::new(9, 9), Replica::new(u64::MAX, u64::MAX), Replica::default()];
    [ours.me, ours.leader, Replica::any(ours.me.id)].into_iter().chain(strangers).collect()
}

fn id_sets() -> Vec<BTreeSet<NodeId>> {
    let huge = 1..=MAX_NODES as u64;
    vec![
        [].into(),
        [1, 2, 3].into(),
        [1, 2, 3, 4].into(),
        [9].into(),
        [0, u64::MAX].into(),
        huge.collect(),
    ]
}

fn lists() -> Vec<BTreeMap<NodeId, String>> {
    let long = |id: &u64| (*id, format!("{id:0>MAX_ADDRESS_BYTES$}"));
    id_sets().iter().map(|ids| ids.iter().map(long).collect()).collect()
}

fn membership(cluster: ClusterId, voters: &Voters, learners: &[u64]) -> Option<Membership> {
    let learners = learners.iter().map(|id| Replica::new(*id, 1));
    let members = voters.iter().chain(learners).map(|member| (member, String::new())).collect();
    Membership::new(cluster, [1, 2, 3].into(), members, voters.clone()).ok()
}

pub(super) fn memberships() -> Vec<Membership> {
    let voters = |ids: &[u64]| ids.iter().map(|id| Replica::new(*id, 1)).collect::<Vec<_>>();
    let simple = |ids: &[u64]| Voters::simple(voters(ids));
    let joint = |incoming: &[u64], outgoing| Voters::joint(voters(incoming), voters(outgoing));
    let many: Vec<_> = (1..=MAX_NODES as u64).collect();
    let all = [
        membership(CLUSTER, &simple(&[1, 2, 3]), &[]),
        membership(CLUSTER, &simple(&[1, 2, 3]), &[4, 5]),
        membership(CLUSTER, &simple(&[1]), &[]),
        membership(CLUSTER, &simple(&[2]), &[1, 3]),
        membership(CLUSTER, &simple(&[7, 8, 9]), &[]),
        membership(CLUSTER, &simple(&[7]), &[1, 2, 3]),
        membership(CLUSTER, &joint(&[7, 8, 9], &[1, 2, 3]), &[]),
        membership(CLUSTER, &joint(&[1, 2, 3], &[7, 8, 9]), &[4]),
        membership(CLUSTER, &joint(&[7, 8], &[8, 9]), &[]),
        membership(CLUSTER, &simple(&many), &[]),
        membership(CLUSTER, &simple(&[u64::MAX]), &[]),
        membership(ClusterId(u128::MAX), &simple(&[1, 2, 3]), &[]),
    ];
    all.into_iter().map(|membership| membership.expect("a valid configuration")).collect()
}

/// Entries that follow `prev`.
fn runs(prev: LogId, ours: Ours) -> Vec<Vec<Entry>> {
    let next = LogId { index: prev.index.saturating_add(1), ..prev };
    let blank = |log_id| Entry { log_id, time: 0, payload: Payload::Blank };
    let at = |log_id: LogId, payload| vec![Entry { log_id, time: u64::MAX, payload }];
    let mut runs = vec![Vec::new()];
    runs.extend(log_ids(next).into_iter().map(|log_id| vec![blank(log_id)]));
    let terms = numbers(ours.term.0).into_iter().map(Term);
    runs.extend(terms.map(|term| vec![blank(LogId { term, ..next })]));
    runs.push(at(next, Payload::Command(Bytes::from_static(&[0xff; 70_000]))));
    runs.push((0..5000).map(|at| blank(LogId { index: (next.index >> 1) + at, ..next })).collect());
    let many = (0..5000).map(|at| LogId { index: next.index.saturating_add(at), ..next });
    if next.index < u64::MAX - 5000 {
        runs.push(many.map(blank).collect());
    }
    runs.extend(memberships().into_iter().map(|with| at(next, Payload::Membership(with.clone()))));
    runs.extend(memberships().into_iter().map(|with| at(LogId::FIRST, Payload::Membership(with))));
    runs
}

fn metas(meta: &SnapshotMeta) -> Vec<SnapshotMeta> {
    let SnapshotMeta { log_id, time: _, membership: _, membership_index, bytes, digest: _ } = *meta;
    let with = |change: &dyn Fn(&mut SnapshotMeta)| {
        let mut meta = meta.clone();
        change(&mut meta);
        meta
    };
    let mut all = vec![with(&|meta| meta.digest = Digest([0; Digest::BYTES]))];
    all.extend(log_ids(log_id).into_iter().map(|log_id| with(&|meta| meta.log_id = log_id)));
    for number in numbers(membership_index) {
        all.push(with(&|meta| meta.membership_index = number));
        all.push(with(&|meta| meta.time = number));
    }
    all.extend(numbers(bytes).into_iter().map(|bytes| with(&|meta| meta.bytes = bytes)));
    for membership in memberships() {
        all.push(with(&|meta| meta.membership = membership.clone()));
    }
    all
}

/// A message of each kind that can well be.
pub(super) fn bases(ours: Ours) -> Vec<Body> {
    let Ours { me, leader, term, last, committed } = ours;
    let claim = Claim {
        cluster: ClusterId(5),
        ballot: 1,
        founder: leader,
        list: Arc::new([1, 2, 3].map(|id| (id, format!("node-{id}"))).into_iter().collect()),
    };
    let content = b"a snapshot";
    let meta = SnapshotMeta {
        log_id: LogId { index: last.index + 10, ..last },
        time: 0,
        membership: memberships().swap_remove(0),
        membership_index: 1,
        bytes: content.len() as u64,
        digest: Digest::of(content),
    };
    let transfer = Some(LeadershipTransfer { leader, term, round: 0 });
    let (sequence, boot, round) = (1, 1, 0);
    let outcome = AppendOutcome::Accepted { matched: committed };
    let bases = vec![
        Body::PreVote { last_log_id: last, attempt: 0 },
        Body::PreVoteReply { granted: true, attempt: 0 },
        Body::Vote { last_log_id: last, transfer, attempt: 0 },
        Body::VoteReply { granted: true, attempt: 0 },
        Body::Append {
            prev: last,
            committed,
            round,
            durable: 0,
            entries: [].into_iter().collect(),
        },
        Body::AppendReply { round, outcome },
        Body::Forward { boot, sequence, commands: vec![Bytes::from_static(b"command")] },
        Body::ForwardReply { boot, sequence, outcome: ForwardOutcome::Appended(last) },
        Body::ReadIndex { sequence },
        Body::ReadIndexReply { sequence, index: Some(committed), time: 0 },
        Body::Snapshot { meta: Box::new(meta), offset: 0, chunk: Bytes::from_static(content) },
        Body::SnapshotReply { digest: Digest::of(content), stored: 0 },
        Body::TimeoutNow { last_log_id: last, round },
        Body::Who { listed: [1, 2, 3].into() },
        Body::Situation { situation: Situation::Empty, listed: [1, 2, 3].into() },
        Body::Claim(Box::new(claim)),
        Body::Admit { cluster: CLUSTER, founders: [1, 2, 3].into() },
        Body::Rest { last_log_id: ours.last, round: 1, boot: Boot { number: 1, tag: 1 } },
        Body::Rests { last_log_id: ours.last },
        Body::Alive(Box::default()),
        Body::Change(Box::new(request(target(&[1, 2, 3, 9]), Duration::from_secs(1)))),
        Body::ChangeReply { id: ChangeId(1), reply: Box::new(ChangeReply::Nothing) },
        Body::Removed { log_id: ours.last, membership: memberships().swap_remove(4) },
    ];
    let kinds: BTreeSet<_> = bases.iter().map(kind).collect();
    assert_eq!(kinds, (0..KINDS).collect(), "a kind of message is not tried on {me}");
    bases
}

const KINDS: usize = 23;

fn kind(body: &Body) -> usize {
    match body {
        Body::PreVote { .. } => 0,
        Body::PreVoteReply { .. } => 1,
        Body::Vote { .. } => 2,
        Body::VoteReply { .. } => 3,
        Body::Append { .. } => 4,
        Body::AppendReply { .. } => 5,
        Body::Forward { .. } => 6,
        Body::ForwardReply { .. } => 7,
        Body::ReadIndex { .. } => 8,
        Body::ReadIndexReply { .. } => 9,
        Body::Snapshot { .. } => 10,
        Body::SnapshotReply { .. } => 11,
        Body::TimeoutNow { .. } => 12,
        Body::Who { .. } => 13,
        Body::Situation { .. } => 14,
        Body::Claim(_) => 15,
        Body::Admit { .. } => 16,
        Body::Rest { .. } => 17,
        Body::Rests { .. } => 18,
        Body::Alive(_) => 19,
        Body::Change(_) => 20,
        Body::ChangeReply { .. } => 21,
        Body::Removed { .. } => 22,
    }
}

/// This message, and with each of its fields at each of its extremes, one at a time.
pub(super) fn variations(base: &Body, ours: Ours) -> Vec<Body> {
    let mut all = vec![base.clone()];
    let mut add = |body| all.push(body);
    match base.clone() {
        Body::PreVote { last_log_id, attempt } => {
            for last_log_id in log_ids(last_log_id) {
                add(Body::PreVote { last_log_id, attempt });
            }
            for attempt in numbers(attempt) {
                add(Body::PreVote { last_log_id, attempt });
            }
        }
        Body::PreVoteReply { granted, attempt } => {
            add(Body::PreVoteReply { granted: !granted, attempt });
            for attempt in numbers(attempt) {
                add(Body::PreVoteReply { granted, attempt });
            }
        }
        Body::Vote { last_log_id, transfer, attempt } => {
            for attempt in numbers(attempt) {
                add(Body::Vote { last_log_id, transfer, attempt });
            }
            for last_log_id in log_ids(last_log_id) {
                add(Body::Vote { last_log_id, transfer: None, attempt });
                add(Body::Vote { last_log_id, transfer, attempt });
            }
            let LeadershipTransfer { leader, term, round } = transfer.expect("the base has one");
            let with = |leader, term, round| {
                let transfer = Some(LeadershipTransfer { leader, term, round });
                Body::Vote { last_log_id, transfer, attempt }
            };
            replicas(ours).into_iter().for_each(|leader| add(with(leader, term, round)));
            for number in numbers(term.0) {
                add(with(leader, Term(number), round));
                add(with(leader, term, number));
            }
        }
        Body::VoteReply { granted, attempt } => {
            add(Body::VoteReply { granted: !granted, attempt });
            for attempt in numbers(attempt) {
                add(Body::VoteReply { granted, attempt });
            }
        }
        Body::Append { prev, committed, round, durable, entries } => {
            for run in runs(prev, ours) {
                let entries = run.into();
                add(Body::Append { prev, committed: u64::MAX, round, durable, entries });
            }
            for prev in log_ids(prev) {
                let entries = entries.clone();
                add(Body::Append { prev, committed, round, durable, entries });
                for entries in [1, 3].map(|len| blanks(prev, len)) {
                    add(Body::Append { prev, committed, round, durable, entries: entries.into() });
                }
            }
            for number in numbers(committed) {
                let with = |committed, round, durable| {
                    let entries = entries.clone();
                    Body::Append { prev, committed, round, durable, entries }
                };
                add(with(number, round, durable));
                add(with(committed, number, durable));
                add(with(committed, round, number));
                add(with(number, number, number));
            }
        }
        Body::Rest { last_log_id, round, boot } => {
            for last_log_id in log_ids(last_log_id) {
                add(Body::Rest { last_log_id, round, boot });
            }
            for number in numbers(round) {
                add(Body::Rest { last_log_id, round: number, boot });
                add(Body::Rest { last_log_id, round, boot: Boot { number, tag: number } });
            }
        }
        Body::Rests { last_log_id } => {
            for last_log_id in log_ids(last_log_id) {
                add(Body::Rests { last_log_id });
            }
        }
        Body::Alive(_) => {}
        Body::AppendReply { round, outcome } => {
            let matched = match outcome {
                AppendOutcome::Accepted { matched } => matched,
                AppendOutcome::Rejected { prev, hint: _ } => prev,
            };
            for number in numbers(matched) {
                add(Body::AppendReply { round: number, outcome });
                let outcome = AppendOutcome::Accepted { matched: number };
                add(Body::AppendReply { round, outcome });
                for hint in [LogId::ZERO, ours.last, LogId::new(number, number, number)] {
                    let outcome = AppendOutcome::Rejected { prev: number, hint };
                    add(Body::AppendReply { round, outcome });
                }
            }
            for hint in log_ids(ours.last) {
                let outcome = AppendOutcome::Rejected { prev: ours.last.index, hint };
                add(Body::AppendReply { round, outcome });
            }
        }
        Body::Forward { boot, sequence, commands } => {
            for number in numbers(sequence) {
                add(Body::Forward { boot: number, sequence, commands: commands.clone() });
                add(Body::Forward { boot, sequence: number, commands: commands.clone() });
            }
            let huge = Bytes::from_static(&[0xff; 70_000]);
            for commands in [vec![], vec![Bytes::new()], vec![Bytes::new(); 5000], vec![huge]] {
                add(Body::Forward { boot, sequence, commands });
            }
        }
        Body::ForwardReply { boot, sequence, outcome } => {
            for number in numbers(sequence) {
                let outcome = outcome.clone();
                add(Body::ForwardReply { boot: number, sequence, outcome: outcome.clone() });
                add(Body::ForwardReply { boot, sequence: number, outcome });
            }
            for outcome in outcomes(&outcome, ours.last) {
                add(Body::ForwardReply { boot, sequence, outcome });
            }
        }
        Body::ReadIndex { sequence } => {
            numbers(sequence).into_iter().for_each(|sequence| add(Body::ReadIndex { sequence }));
        }
        Body::ReadIndexReply { sequence, index, time } => {
            add(Body::ReadIndexReply { sequence, index: None, time });
            for number in numbers(sequence) {
                add(Body::ReadIndexReply { sequence: number, index, time });
                add(Body::ReadIndexReply { sequence, index: Some(number), time });
                add(Body::ReadIndexReply { sequence, index, time: number });
            }
        }
        Body::Snapshot { meta, offset, chunk } => {
            for meta in metas(&meta) {
                for chunk in [chunk.clone(), Bytes::new()] {
                    let meta = Box::new(meta.clone());
                    add(Body::Snapshot { meta, offset: 0, chunk });
                }
            }
            for offset in numbers(offset) {
                add(Body::Snapshot { meta: meta.clone(), offset, chunk: chunk.clone() });
                add(Body::Snapshot { meta: meta.clone(), offset, chunk: Bytes::new() });
            }
            // One of nothing, whose digest is right.
            let nothing = SnapshotMeta { bytes: 0, digest: Digest::of(b""), ..*meta.clone() };
            let meta = Box::new(nothing);
            add(Body::Snapshot { meta, offset: 0, chunk: Bytes::new() });
        }
        Body::SnapshotReply { digest, stored } => {
            for stored in numbers(stored) {
                add(Body::SnapshotReply { digest, stored });
                add(Body::SnapshotReply { digest: Digest([0; Digest::BYTES]), stored });
            }
        }
        Body::TimeoutNow { last_log_id, round } => {
            for last_log_id in log_ids(last_log_id) {
                add(Body::TimeoutNow { last_log_id, round });
            }
            numbers(round)
                .into_iter()
                .for_each(|round| add(Body::TimeoutNow { last_log_id, round }));
        }
        Body::Who { listed: _ } => {
            id_sets().into_iter().for_each(|listed| add(Body::Who { listed }))
        }
        Body::Situation { situation: _, listed } => {
            for situation in situations(ours) {
                add(Body::Situation { situation, listed: listed.clone() });
            }
            for listed in id_sets() {
                add(Body::Situation { situation: Situation::Empty, listed });
            }
        }
        Body::Claim(claim) => {
            let Claim { cluster, ballot, founder, list } = *claim;
            let with = |cluster, ballot, founder, list| {
                Body::Claim(Box::new(Claim { cluster, ballot, founder, list }))
            };
            add(with(ClusterId(u128::MAX), ballot, founder, list.clone()));
            numbers(ballot).into_iter().for_each(|n| add(with(cluster, n, founder, list.clone())));
            replicas(ours).into_iter().for_each(|f| add(with(cluster, ballot, f, list.clone())));
            lists().into_iter().for_each(|list| {
                add(with(cluster, ballot, founder, Arc::new(list.into_iter().collect())))
            });
        }
        Body::Admit { cluster, founders } => {
            for cluster in [cluster, ClusterId(0), ClusterId(u128::MAX)] {
                add(Body::Admit { cluster, founders: founders.clone() });
            }
            id_sets().into_iter().for_each(|founders| add(Body::Admit { cluster, founders }));
        }
        Body::Change(_) => requests().into_iter().for_each(|of| add(Body::Change(Box::new(of)))),
        Body::ChangeReply { id, reply: _ } => {
            for reply in change_replies() {
                add(Body::ChangeReply { id, reply: Box::new(reply.clone()) });
                add(Body::ChangeReply { id: ChangeId(u128::MAX), reply: Box::new(reply) });
            }
        }
        Body::Removed { log_id, membership: with } => {
            for log_id in log_ids(log_id) {
                add(Body::Removed { log_id, membership: with.clone() });
            }
            for membership in memberships() {
                add(Body::Removed { log_id, membership });
            }
        }
    }
    all
}

fn target(ids: &[NodeId]) -> Target {
    let member = |id: &NodeId| {
        let address = format!("node-{id}");
        (*id, Member { address, role: MemberRole::Voter, priority: 0 })
    };
    Target { members: ids.iter().map(member).collect() }
}

fn request(target: Target, catch_up: Duration) -> ChangeRequest {
    let options = ChangeOptions { catch_up, allow_lower_tolerance: true, follows: None };
    ChangeRequest { id: ChangeId(1), kind: ChangeKind::Begin { target, options } }
}

/// Requests that would take votes away are as good as their sender, who is a member: here all have
/// nodes in them that never answer.
fn requests() -> Vec<ChangeRequest> {
    let (second, most) = (Duration::from_secs(1), Duration::from_millis(u64::MAX));
    let huge = |role| {
        let member = |id| {
            let address = format!("{id:0>MAX_ADDRESS_BYTES$}");
            (id, Member { address, role, priority: u8::MAX })
        };
        Target { members: (1..=MAX_NODES as u64 + 1).map(member).collect() }
    };
    let mut all = vec![
        request(target(&[]), second),
        request(target(&[0, 1]), second),
        request(target(&[1, 2, 3, u64::MAX]), Duration::ZERO),
        request(target(&[9]), most),
        request(huge(MemberRole::Voter), second),
        request(huge(MemberRole::Learner), second),
        ChangeRequest { id: ChangeId(0), kind: ChangeKind::Cancel },
        ChangeRequest { id: ChangeId(u128::MAX), kind: ChangeKind::Cancel },
    ];
    for follows in [ChangeId(0), ChangeId(1), ChangeId(u128::MAX)] {
        let mut of = request(target(&[1, 2, 3, 8]), most);
        let ChangeKind::Begin { options, .. } = &mut of.kind else { unreachable!("it begins") };
        options.follows = Some(follows);
        all.push(ChangeRequest { id: ChangeId(2), ..of });
    }
    all
}

fn change_replies() -> Vec<ChangeReply> {
    let membership = memberships().swap_remove(9);
    let refusals = [
        ChangeRefusal::Target("x".repeat(1000)),
        ChangeRefusal::UnderWay { membership: membership.clone() },
        ChangeRefusal::Conflict { membership },
        ChangeRefusal::LowersTolerance { now: u64::MAX, lowest: 0 },
        ChangeRefusal::NotUnderWay,
    ];
    let refused = refusals.into_iter().map(ChangeReply::Refused);
    let others = [ChangeReply::Again, ChangeReply::Noted, ChangeReply::Await(ChangeId(u128::MAX))];
    refused.chain(others).collect()
}

fn blanks(prev: LogId, len: u64) -> Vec<Entry> {
    let indexes = prev.index.saturating_add(1)..prev.index.saturating_add(1).saturating_add(len);
    let blank = |index| Entry { log_id: LogId { index, ..prev }, time: 0, payload: Payload::Blank };
    indexes.map(blank).collect()
}

fn outcomes(base: &ForwardOutcome, last: LogId) -> Vec<ForwardOutcome> {
    // A further one must be among these.
    match base {
        ForwardOutcome::Appended(_)
        | ForwardOutcome::NotLeader
        | ForwardOutcome::Busy
        | ForwardOutcome::StorageFull
        | ForwardOutcome::Partly { .. } => {}
    }
    let mut all =
        vec![ForwardOutcome::NotLeader, ForwardOutcome::Busy, ForwardOutcome::StorageFull];
    let places = [0, 1, u32::MAX].map(|place| Refusal::new(place, "x".repeat(10_000)));
    for first in log_ids(last) {
        all.push(ForwardOutcome::Appended(first));
        all.push(ForwardOutcome::Partly { first, refused: Vec::new() });
        all.push(ForwardOutcome::Partly { first, refused: places.to_vec() });
    }
    all
}

fn situations(ours: Ours) -> Vec<Situation> {
    // A further one must be among these.
    match Situation::Empty {
        Situation::Empty
        | Situation::Claimed { .. }
        | Situation::Admitted
        | Situation::Member { .. }
        | Situation::Spent
        | Situation::Elsewhere => {}
    }
    let mut all =
        vec![Situation::Empty, Situation::Admitted, Situation::Spent, Situation::Elsewhere];
    for ids in id_sets() {
        all.extend([false, true].map(|voter| Situation::Member { founders: ids.clone(), voter }));
        for founder in replicas(ours) {
            let claimed = |ballot| Situation::Claimed { ballot, founder, ids: ids.clone() };
            all.extend([0, 1, 1 << 32, u64::MAX].map(claimed));
        }
    }
    all
}
