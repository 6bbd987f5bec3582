//! Liars: somebody who knows the cluster and speaks as one of its members, or as a node that is
//! none, and says what no honest node would.
//!
//! Only such lies are told as a correct node refuses, or as can cost no more than an election:
//! nodes must not end, nothing that was acknowledged may be lost meanwhile, and when the liar is
//! gone the cluster elects and commits. Whoever knows the cluster can do worse, and is trusted not
//! to (README). So nobody here forges
//!
//! * a granted vote, a request for a vote with a longer log than the candidate's, or an
//!   acknowledgement of what a leader has: elections and commits rest on these;
//! * entries behind the committed ones, or a commit index with them, as a leader sends both;
//! * answers to what was asked, or forwards in the name of a member that it could have sent;
//! * a snapshot in the name of the leader whose digest is right;
//! * what a member has made durable (as leader of a term, or in an append): its peers would
//!   remember that, and it would stop, as a disk that was put back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::sim::Generator;
use quorate::{
    AppendOutcome, Body, Claim, ClusterId, Command, Digest, Entry, ForwardOutcome,
    LeadershipTransfer, LogId, Membership, Message, NodeId, Payload, Replica, Situation,
    SnapshotMeta, Term,
};

use super::super::cluster::{Cluster, NOBODY};
use super::super::ledger::{Put, UNREADABLE_KEY};
use super::Calm;

/// No cluster here gets so far, in whatever is counted.
const FAR: u64 = 1 << 40;

pub(super) async fn liars(calm: Calm) {
    while calm.passes().await {
        let Some(id) = calm.any_running() else { continue };
        let many = *calm.draw.choose(&[1, 10, 50]);
        calm.cluster.tell(|| format!("somebody tells node {id} {many} lies"));
        for _ in 0..many {
            if let Some(ours) = Ours::of(&calm.cluster, &calm.draw, id)
                && calm.cluster.observer.forge(lie(&calm.draw, &ours))
            {
                calm.cluster.count("lie told");
            }
            if !calm.lasts(calm.draw.duration(&(Duration::ZERO..Duration::from_millis(20)))).await {
                return;
            }
        }
    }
}

/// What is known of the node that is lied to.
struct Ours {
    me: Replica,
    term: Term,
    last: LogId,
    /// The leader that it follows, or that it is, if that is known.
    leader: Option<Replica>,
    /// The other voters but for the leader.
    peers: Vec<Replica>,
    membership: Membership,
    membership_index: u64,
    /// An entry that is committed here, and the one before it.
    committed: LogId,
    before: LogId,
    keys: u64,
}

impl Ours {
    /// None where the node has nothing committed: whoever comes first is believed there.
    fn of(cluster: &Cluster, draw: &Generator, id: NodeId) -> Option<Self> {
        let metrics = cluster.metrics(id)?;
        let observer = &cluster.observer;
        observer.with_model(|model| {
            let replica = |id| model.replica(id);
            let (membership_index, membership) = model.committed_configuration()?;
            let leader = metrics.leader.and_then(replica);
            let is_other = |peer: &Replica| *peer != metrics.replica && Some(*peer) != leader;
            let voters = membership.voters().iter().filter(|voter| model.is_replica(*voter));
            let peers: Vec<_> = voters.filter(is_other).collect();
            // The last ones: few others are still in its log.
            let index = metrics.committed - draw.below(metrics.committed.clamp(1, 20));
            let at = |index: u64| match index.checked_sub(1) {
                Some(place) => Some(model.committed.get(place as usize)?.seal.log_id),
                None => Some(LogId::ZERO),
            };
            Some(Self {
                me: metrics.replica,
                term: metrics.term,
                last: metrics.last_log_id,
                leader,
                peers,
                membership: membership.clone(),
                membership_index,
                committed: at(index).filter(|log_id| *log_id != LogId::ZERO)?,
                before: at(index - 1)?,
                keys: cluster.plan.load.keys,
            })
        })
    }
}

/// One of all.
fn lie(draw: &Generator, ours: &Ours) -> Message {
    let stranger = Replica::new(NOBODY + draw.below(3), 1 + draw.below(2));
    let peer = if ours.peers.is_empty() { stranger } else { *draw.choose(&ours.peers) };
    let anybody = *draw.choose(&[stranger, peer]);
    let leader = ours.leader.filter(|leader| *leader != ours.me);
    // (An honest leader may be at the end of these as well.)
    let term =
        *draw.choose(&[ours.term, Term(ours.term.0.saturating_add(1)), far_term(draw, ours)]);
    let (from, term, body) = match draw.below(8) {
        0 | 1 => (anybody, *draw.choose(&[term, Term(0)]), of_no_consequence(draw, ours)),
        2 => (stranger, term, usurped(draw)),
        3 => match leader.filter(|_| draw.chance(0.5)) {
            Some(leader) => (leader, ours.term, contradiction(draw, ours, ours.term)),
            None => {
                let next = Term(ours.term.0.saturating_add(1));
                (stranger, next, contradiction(draw, ours, next))
            }
        },
        4 => snapshot(draw, ours, stranger, leader),
        5 => forward(draw, ours, stranger, peer),
        6 => (leader.unwrap_or(peer), ours.term, unasked(draw, ours)),
        _ => (stranger, ours.term, formation(draw, ours, stranger)),
    };
    let forms = matches!(
        body,
        Body::Who { .. } | Body::Situation { .. } | Body::Claim(_) | Body::Admit { .. }
    );
    let cluster = (!forms).then(|| ours.membership.cluster());
    Message { group: 0, cluster, from, to: ours.me, term, body }
}

/// A number that nobody here has given.
fn far(draw: &Generator) -> u64 {
    let steps = [FAR, 1 << 48, 1 << 61, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
    *draw.choose(&steps)
}

fn far_term(draw: &Generator, ours: &Ours) -> Term {
    let last = Term::LAST.0;
    let step = ours.term.0.saturating_add(1 << 32);
    let steps = [step, step.saturating_add(1), 1 << 48, last - 1, last, last + 1, u64::MAX];
    Term(*draw.choose(&steps))
}

fn far_log_id(draw: &Generator, ours: &Ours) -> LogId {
    let index = *draw.choose(&[ours.last.index, far(draw)]);
    LogId { term: *draw.choose(&[ours.term, far_term(draw, ours)]), leader: NOBODY, index }
}

/// What changes nothing but the receiver's term, whatever that is.
fn of_no_consequence(draw: &Generator, ours: &Ours) -> Body {
    let sequence = far(draw);
    match draw.below(9) {
        0 => Body::PreVote { last_log_id: far_log_id(draw, ours), attempt: sequence },
        1 => Body::PreVoteReply { granted: draw.chance(0.5), attempt: sequence },
        2 => Body::VoteReply { granted: false, attempt: sequence },
        3 => {
            let leader = *draw.choose(&[ours.me, ours.leader.unwrap_or_default()]);
            let transfer = Some(LeadershipTransfer { leader, term: ours.term, round: u64::MAX });
            // The log of who asks is empty.
            let transfer = transfer.filter(|_| draw.chance(0.5));
            Body::Vote { last_log_id: LogId::ZERO, transfer, attempt: sequence }
        }
        4 => Body::AppendReply {
            round: 0,
            outcome: AppendOutcome::Rejected { prev: 0, hint: far_log_id(draw, ours) },
        },
        5 => Body::ReadIndex { sequence },
        6 => Body::ReadIndexReply { sequence, index: Some(far(draw)), time: far(draw) },
        7 => Body::SnapshotReply { digest: Digest::of(b"a lie"), stored: far(draw) },
        _ => Body::TimeoutNow { last_log_id: far_log_id(draw, ours), round: far(draw) },
    }
}

/// The heartbeat of somebody who leads nobody, or an append that can't be.
fn usurped(draw: &Generator) -> Body {
    let number = far(draw);
    let at = LogId::new(1, NOBODY, number);
    let entry =
        |index| Entry { log_id: LogId { index, ..at }, time: number, payload: Payload::Blank };
    let (prev, entries) = match draw.below(4) {
        0 | 1 => (LogId::ZERO, Vec::new()),
        2 => (at, vec![entry(number.saturating_add(1))]),
        _ => (LogId::ZERO, vec![entry(number)]),
    };
    Body::Append { prev, committed: number, round: number, durable: 0, entries: entries.into() }
}

/// Another entry in the place of a committed one, from a leader of this term.
fn contradiction(draw: &Generator, ours: &Ours, term: Term) -> Body {
    let LogId { leader, index, .. } = ours.committed;
    let other = LogId { leader: leader.wrapping_add(NOBODY), ..ours.committed };
    let (prev, entries) = match term > ours.before.term && draw.chance(0.7) {
        true => {
            let log_id = LogId { term, leader: NOBODY, index };
            let payload = Payload::Command(readable(draw, ours));
            (ours.before, vec![Entry { log_id, time: 0, payload }])
        }
        false => (other, Vec::new()),
    };
    Body::Append { prev, committed: 0, round: 0, durable: 0, entries: entries.into() }
}

/// A command that nobody has given.
fn readable(draw: &Generator, ours: &Ours) -> Bytes {
    put(draw.below(ours.keys))
}

fn put(key: u64) -> Bytes {
    let put = Put { key, value: u64::MAX, padding: Bytes::new() };
    put.encode().unwrap_or_default()
}

/// A snapshot that no state machine can read, of somebody who does not lead; or one that can't be,
/// in the name of the leader.
fn snapshot(
    draw: &Generator,
    ours: &Ours,
    stranger: Replica,
    leader: Option<Replica>,
) -> (Replica, Term, Body) {
    let chunk = Bytes::from_static(b"a lie");
    let mut meta = SnapshotMeta {
        log_id: LogId { index: ours.last.index + 10, ..ours.last },
        time: 0,
        membership: ours.membership.clone(),
        membership_index: ours.membership_index,
        bytes: chunk.len() as u64,
        digest: Digest::of(&chunk),
    };
    let mut offset = 0;
    let from = match leader.filter(|_| draw.chance(0.5)) {
        Some(leader) => {
            match draw.below(5) {
                0 => meta.log_id.index = far(draw).max(1 << 49),
                1 => meta.log_id.term = Term(ours.term.0 + 1),
                2 => meta.membership_index = far(draw),
                3 => offset = far(draw),
                _ => meta.digest = Digest::of(b"another lie"),
            }
            leader
        }
        // One that does not send heartbeats: it would be taken for the leader.
        None => Replica { id: NOBODY + 3, ..stranger },
    };
    (from, ours.term, Body::Snapshot { meta: Box::new(meta), offset, chunk })
}

/// A forward of somebody who is no member; or one of a member, of what nobody can read.
fn forward(
    draw: &Generator,
    ours: &Ours,
    stranger: Replica,
    peer: Replica,
) -> (Replica, Term, Body) {
    let unreadable =
        [vec![], vec![Bytes::new()], vec![put(UNREADABLE_KEY)], vec![Bytes::new(); 100]];
    let (from, sequence, commands) = match draw.chance(0.5) {
        true => (stranger, 1 + draw.below(100), vec![readable(draw, ours)]),
        false => (peer, far(draw), draw.choose(&unreadable).clone()),
    };
    let boot = *draw.choose(&[1, 2, 3, far(draw)]);
    (from, ours.term, Body::Forward { boot, sequence, commands })
}

/// An answer to what was never asked.
fn unasked(draw: &Generator, ours: &Ours) -> Body {
    let (boot, sequence) = (1 + draw.below(3), far(draw));
    let first =
        LogId { term: ours.term, leader: ours.leader.map_or(0, |of| of.id), index: far(draw) };
    match draw.below(6) {
        0 => Body::ForwardReply { boot, sequence, outcome: ForwardOutcome::Appended(first) },
        1 => {
            let refused = vec![quorate::Refusal::new(u32::MAX, "a lie".to_owned())];
            let outcome = ForwardOutcome::Partly { first, refused };
            Body::ForwardReply { boot, sequence, outcome }
        }
        2 => Body::ReadIndexReply { sequence, index: Some(far(draw)), time: far(draw) },
        3 => {
            Body::AppendReply { round: 0, outcome: AppendOutcome::Accepted { matched: far(draw) } }
        }
        4 => Body::AppendReply {
            round: far(draw),
            outcome: AppendOutcome::Accepted { matched: ours.last.index },
        },
        _ => Body::AppendReply {
            round: 0,
            outcome: AppendOutcome::Rejected {
                prev: draw.below(ours.last.index + 1),
                hint: far_log_id(draw, ours),
            },
        },
    }
}

/// What is said while a cluster is formed, to a node that has one.
fn formation(draw: &Generator, ours: &Ours, stranger: Replica) -> Body {
    let ids = || [stranger.id, ours.me.id].into();
    match draw.below(6) {
        0 => Body::Who { listed: ids() },
        1 => Body::Admit { cluster: ClusterId(7), founders: ids() },
        2 => {
            let list = [stranger.id, ours.me.id].map(|id| (id, format!("node-{id}:1")));
            let list = Arc::new(list.into_iter().collect());
            let claim = Claim { cluster: ClusterId(7), ballot: far(draw), founder: stranger, list };
            Body::Claim(Box::new(claim))
        }
        3 => Body::Situation { situation: Situation::Spent, listed: ids() },
        4 => Body::Situation { situation: Situation::Elsewhere, listed: ids() },
        _ => Body::Situation { situation: Situation::Admitted, listed: ids() },
    }
}
