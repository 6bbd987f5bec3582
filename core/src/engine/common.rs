//! What every role needs: who this replica is, its log and hard state, and what is to come out of
//! the turn.

use std::cell::OnceCell;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use litemap::LiteMap;
use quorate_rt::Instant;

use super::Local;
use super::forward::{ForwardDedup, Forwards};
use super::lines::Lines;
use super::liveness::NodeStates;
use super::log::{Beside, Log};
use super::output::Pending;
use super::round_trips::RoundTrips;
use super::snapshot::IncomingSnapshot;
use crate::config::Config;
use crate::entries::Entries;
use crate::identity::{Boot, ClusterId, MAX_STARTS, Marks, Memory, Replica, Standing, Start};
use crate::log_store::{LogWrite, Recovered};
use crate::membership::Membership;
use crate::message::{Body, Message, Refusal};
use crate::plant;
use crate::quorum::Voters;
use crate::types::{Entry, GroupId, HardState, Index, LogId, Payload, Term};

/// What every role needs.
pub(super) struct Common {
    pub(super) me: Replica,
    /// Distinguishes this run of the node from earlier ones, for those to whom it passes on writes.
    pub(super) boot: Boot,
    pub(super) group: GroupId,
    pub(super) config: Arc<Config>,
    /// How many groups the node hosts.
    pub(super) groups: u32,
    pub(super) random: fastrand::Rng,
    pub(super) now: Instant,
    /// The wall clock, in milliseconds since the Unix epoch, as it was told last.
    pub(super) wall: u64,
    pub(super) log: Log,
    pub(super) hard_state: HardState,
    /// What of it the disk is known to have.
    pub(super) durable_hard_state: HardState,
    standing: Standing,
    /// How often the standing has changed, and which of these changes is durable.
    standings: u64,
    durable_standing: u64,
    /// The cluster that the store belongs to.
    pub(super) cluster: Option<ClusterId>,
    unsaved: Unsaved,
    pub(super) committed: Index,
    /// The voters of the membership in force, the entry that brought it, and whether it is to be
    /// followed by another: it has a change that is under way, is joint, or has the new disk of a
    /// voter. They are asked for in every turn.
    pub(super) voters: Voters,
    pub(super) membership_index: Index,
    pub(super) is_changing: bool,
    pub(super) has_change: bool,
    /// A configuration that is committed names this replica as a voter.
    named: bool,
    /// What is remembered of others.
    pub(super) memories: LiteMap<Replica, Memory>,
    /// In which boot others are now, as far as they have been met.
    pub(super) met: LiteMap<Replica, Boot>,
    /// How the runs of this replica began, the present one included.
    pub(super) starts: LiteMap<u64, Start>,
    /// The marks as they were written last, and when they may be written again.
    pub(super) written_marks: Marks,
    pub(super) marks_at: Instant,
    /// The term that the store knew when this run began, and the latest end of the log that was
    /// replaced since then.
    pub(super) started_in: Term,
    pub(super) replaced: LogId,
    /// Answers that wait until what they promise is durable.
    deferred: Vec<(Promise, Message)>,
    /// The snapshot that is coming in.
    pub(super) receiving: Option<Box<IncomingSnapshot>>,
    /// How often a leader has contradicted what is committed.
    pub(super) contradictions: u64,
    /// Made with the first line: most groups have none.
    pub(super) lines: OnceCell<Box<Lines>>,
    /// The last number given to a forward, a question or an attempt to be elected.
    pub(super) sequence: u64,
    /// How long voters take to answer this replica as a candidate.
    pub(super) round_trips: RoundTrips,
    /// What was passed on to leaders, and the forwards that this replica has seen as one.
    pub(super) forwards: Forwards,
    pub(super) dedup: ForwardDedup,
    /// What is known of the nodes of the other members.
    pub(super) node_states: NodeStates,
    /// Of the forward that is being looked at: the commands that can't be read.
    pub(super) refused: Vec<Refusal>,
    pub(super) out: Pending,
}

/// What has changed, and was not handed to the store yet.
#[derive(Clone, Copy, Default)]
struct Unsaved {
    hard_state: bool,
    standing: bool,
    cluster: bool,
}

/// What must be durable before a message goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Promise {
    hard_state: HardState,
    standing: u64,
}

impl Common {
    pub(super) fn new(
        local: Local,
        group: GroupId,
        config: Arc<Config>,
        recovered: Recovered,
        seed: u64,
        now: Instant,
    ) -> Self {
        let Local { replica, boot, cluster } = local;
        assert!(replica.id != 0 && replica.is_known(), "a replica has an id and an incarnation");
        let Recovered { hard_state, standing, marks, log_meta, snapshot } = recovered;
        assert!(
            log_meta.last().term <= hard_state.term,
            "the log ends in term {}, but the hard state knows of term {} only",
            log_meta.last().term,
            hard_state.term
        );
        let mut starts = marks.starts.clone();
        let (term, last) = (hard_state.term, log_meta.last());
        starts.insert(boot.number, Start { tag: boot.tag, term, last });
        let excess = starts.len().saturating_sub(MAX_STARTS);
        let starts = starts.into_iter().skip(excess).collect();
        let mut random = fastrand::Rng::with_seed(seed);
        // Not from 0: an answer to a question of an earlier run must not pass for one to a later
        // question (L3).
        let sequence = random.u64(..) >> 1;
        let mut common = Self {
            me: replica,
            boot,
            group,
            config,
            groups: u32::MAX,
            random,
            now,
            wall: 0,
            log: Log::new(log_meta, snapshot.clone()),
            hard_state,
            durable_hard_state: hard_state,
            standing,
            standings: 0,
            durable_standing: 0,
            cluster,
            unsaved: Unsaved::default(),
            committed: 0,
            voters: Voters::default(),
            membership_index: 0,
            is_changing: false,
            has_change: false,
            named: false,
            memories: marks.memories.clone(),
            met: LiteMap::new(),
            starts,
            written_marks: marks.clone(),
            marks_at: now,
            started_in: hard_state.term,
            replaced: LogId::ZERO,
            deferred: Vec::new(),
            receiving: None,
            contradictions: 0,
            lines: OnceCell::new(),
            sequence,
            round_trips: RoundTrips::default(),
            forwards: Forwards::default(),
            dedup: ForwardDedup::default(),
            node_states: NodeStates::default(),
            refused: Vec::new(),
            out: Pending::default(),
        };
        common.membership_changed();
        if let Some(snapshot) = snapshot {
            common.named = snapshot.membership.is_voter(replica);
            common.recommit_to(snapshot.log_id.index);
            common.out.rare().restore = Some(snapshot);
        }
        // What was committed in an earlier run still is. A leader that does not hold it would
        // otherwise have it replaced here without a word, if a voter's disk was put back.
        if common.log.contains(marks.committed) {
            common.recommit_to(marks.committed.index);
        }
        common
    }

    pub(super) fn send(&mut self, to: Replica, body: Body) {
        self.send_in_term(to, self.hard_state.term, body);
    }

    pub(super) fn send_in_term(&mut self, to: Replica, term: Term, body: Body) {
        let cluster = self.cluster_for(&body);
        let (group, from) = (self.group, self.me);
        self.out.get().messages.push(Message { group, cluster, from, to, term, body });
    }

    fn message(&self, to: Replica, term: Term, body: Body) -> Message {
        let cluster = self.cluster_for(&body);
        Message { group: self.group, cluster, from: self.me, to, term, body }
    }

    /// Who forms a cluster or lets others in, tells its id where it must be known, and to nobody
    /// else.
    fn cluster_for(&self, body: &Body) -> Option<ClusterId> {
        let tells = !matches!(
            body,
            Body::Who { .. } | Body::Situation { .. } | Body::Claim(_) | Body::Admit { .. }
        );
        self.cluster.filter(|_| tells)
    }

    /// Sends what must not be said before this replica's term, vote and standing are durable.
    pub(super) fn promise(&mut self, to: Replica, body: Body) {
        let at_once = self.promises_are_durable();
        plant!(E2, at_once = at_once || matches!(body, Body::VoteReply { .. }));
        plant!(F1, at_once = at_once || matches!(body, Body::Situation { .. }));
        if at_once {
            self.send(to, body);
        } else {
            let term = self.hard_state.term;
            let message = self.message(to, term, body);
            // What it would have said of this kind before is out of date, and what a slow disk
            // holds back stays bounded.
            let kind = mem::discriminant(&message.body);
            self.deferred
                .retain(|(_, other)| other.to != to || mem::discriminant(&other.body) != kind);
            // Strangers leave room for the members.
            let is_member = self.membership().is_none_or(|membership| membership.is_member(to));
            let max = if is_member { MAX_DEFERRED } else { MAX_DEFERRED / 2 };
            if self.deferred.len() < max {
                let promise = Promise { hard_state: self.hard_state, standing: self.standings };
                self.deferred.push((promise, message));
            }
        }
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.deferred.shrink_to_fit();
        self.log.shrink();
        self.node_states.shrink();
        self.round_trips.shrink();
        shrink_map(&mut self.met);
        shrink_map(&mut self.memories);
        shrink_map(&mut self.starts);
        shrink_map(&mut self.written_marks.memories);
        shrink_map(&mut self.written_marks.starts);
    }

    fn promises_are_durable(&self) -> bool {
        self.hard_state == self.durable_hard_state && self.standing_is_durable()
    }

    pub(super) fn persisted(&mut self, write: u64) {
        let (hard_state, standing) = self.log.persisted(write);
        self.durable_standing = self.durable_standing.max(standing);
        if let Some(hard_state) = hard_state {
            // A later one may be durable already: it went ahead of entries that waited for space.
            self.durable_hard_state = self.durable_hard_state.max(hard_state);
        }
        if self.deferred.is_empty() {
            return;
        }
        plant!(X2, return self.out.get().messages.extend(self.deferred.drain(..).map(|(_, m)| m)));
        let (hard_state, standing) = (self.durable_hard_state, self.durable_standing);
        // One that was overtaken before it was written is kept just as well by its successor: a
        // later term rules out the earlier.
        let is_kept =
            |needs: &Promise| needs.hard_state <= hard_state && needs.standing <= standing;
        let kept = self.deferred.extract_if(.., |(needs, _)| is_kept(needs)).map(|(_, m)| m);
        self.out.get().messages.extend(kept);
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.unsaved.hard_state |= hard_state != self.hard_state;
        if hard_state.term > self.hard_state.term
            && self.out.get().rare.as_ref().is_some_and(|rare| !rare.changes.is_empty())
        {
            self.forget_old_answers();
        }
        self.hard_state = hard_state;
    }

    /// Whether there may be something to write: of most turns, once it is taken, there is not.
    pub(super) fn is_unsaved(&self) -> bool {
        let Unsaved { hard_state, standing, cluster } = self.unsaved;
        hard_state || standing || cluster || self.log.is_unhanded() || self.marks_are_due()
    }

    /// What of all that has changed is to be made durable now.
    pub(super) fn take_write(&mut self) -> Option<(u64, LogWrite)> {
        let Unsaved { hard_state, standing, cluster } = self.unsaved;
        let writes = hard_state || standing || cluster || self.log.is_unhanded();
        let due = self.marks_are_due();
        // A start is written at once: a copy of the store that is made from then on shows that it
        // is of this run or an earlier one.
        let alone = due && (self.starts != self.written_marks.starts || self.marks_are_lonely());
        let marks = if due && writes || alone { self.changed_marks() } else { None };
        if !writes && marks.is_none() {
            return None;
        }
        self.unsaved = Unsaved::default();
        let beside = Beside {
            hard_state: hard_state.then_some(self.hard_state),
            cluster: self.cluster.filter(|_| cluster),
            standing: standing.then(|| Box::new(self.standing.clone())),
            marks,
            standings: self.standings,
        };
        Some(self.log.take_write(beside, self.now))
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.standings += 1;
        self.unsaved.standing = true;
        self.out.rare().addresses_changed = true;
    }

    pub(super) fn standing_is_durable(&self) -> bool {
        self.durable_standing == self.standings
    }

    pub(super) fn append(&mut self, entry: Entry) {
        let reconfigures = matches!(entry.payload, Payload::Membership(_));
        self.log.push(entry);
        if reconfigures {
            self.membership_changed();
        }
    }

    pub(super) fn extend(&mut self, run: Entries) {
        let brings = |entry: &Entry| matches!(entry.payload, Payload::Membership(_));
        let reconfigures = !run.is_plain() && run.iter().any(brings);
        self.log.extend(run);
        if reconfigures {
            self.membership_changed();
        }
    }

    pub(super) fn truncate(&mut self, from: Index) {
        let committed = self.committed;
        plant!(R2, committed = 0);
        assert!(
            from > committed,
            "entry {from} is to be replaced, but {committed} are committed (R2)"
        );
        self.note_replaced();
        self.log.truncate(from);
        self.membership_changed();
    }

    pub(super) fn membership_changed(&mut self) {
        let membership = self.log.membership();
        let voters = membership.map(|m| m.voters().clone()).unwrap_or_default();
        plant!(
            R6,
            voters = membership.map_or(voters, |m| Voters::simple(m.members().keys().copied()))
        );
        self.voters = voters;
        self.membership_index = self.log.membership_index();
        let takes_a_place = |learner: Replica| self.voters.iter().any(|v| v.id == learner.id);
        self.has_change = membership.is_some_and(|membership| membership.change().is_some());
        self.is_changing = self.has_change
            || self.voters.is_joint()
            || membership.is_some_and(|membership| membership.learners().any(takes_a_place));
        self.out.rare().membership = membership.cloned();
        if self.cluster.is_none()
            && let Some(membership) = membership
        {
            self.cluster = Some(membership.cluster());
            self.unsaved.cluster = true;
        }
    }

    pub(super) fn membership(&self) -> Option<&Membership> {
        self.log.membership()
    }

    /// Whether this replica may campaign. A configuration that is not committed counts: the
    /// candidate's own decides.
    pub(super) fn is_voter(&self) -> bool {
        plant!(E4, return self.named || self.voters.contains(self.me));
        plant!(E5, return self.membership().is_some_and(|m| m.is_member(self.me)));
        self.voters.contains(self.me) && self.standing != Standing::Spent
    }

    /// Whether the group was [removed](crate::Node::remove) from the store. It has forgotten what
    /// it promised and acknowledged, and must not vote, acknowledge or confirm anything any more.
    pub(super) fn is_void(&self) -> bool {
        self.standing == Standing::Spent && self.log.last() == LogId::ZERO
    }

    /// Whether it campaigns by itself. The founder does until the group is formed: nobody else can.
    pub(super) fn campaigns(&self) -> bool {
        let forms = || {
            let founds = |group: &Membership| group.founders().first() == Some(&self.me.id);
            self.committed == 0 && self.membership().is_some_and(founds)
        };
        self.may_campaign() && (self.config.elections || forms())
    }

    /// Whether it may campaign when it is told to.
    pub(super) fn may_campaign(&self) -> bool {
        self.is_voter() || self.is_still_needed()
    }

    /// Whether a configuration leaves this replica without a vote that is not committed yet, as far
    /// as it knows. Until it is, this replica may be the only one that has it, and that the others
    /// can follow (4.2.2): their logs are shorter, and they may need its vote. (The configuration
    /// before it is committed: otherwise it would not be there.)
    fn is_still_needed(&self) -> bool {
        let before = || self.log.memberships(0, self.membership_index - 1).last();
        self.membership_index > self.committed
            && self.standing != Standing::Spent
            && before().is_some_and(|before| before.is_voter(self.me))
    }

    /// Whether a configuration that is committed, or in force, has named this replica as a voter.
    pub(super) fn has_been_voter(&self) -> bool {
        self.named || self.may_campaign()
    }

    /// The other voters.
    pub(super) fn other_voters(&self) -> Vec<Replica> {
        self.voters.iter().filter(|voter| *voter != self.me).collect()
    }

    /// So much was committed in an earlier run, in which what follows from its configurations was
    /// noted: it is in the standing.
    fn recommit_to(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "committed beyond the end of the log");
        if index > self.committed {
            let before = mem::replace(&mut self.committed, index);
            self.out.get().committed = Some(index);
            let me = self.me;
            self.named |= self.log.memberships(before, index).any(|of| of.is_voter(me));
        }
    }

    pub(super) fn commit_to(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "committed beyond the end of the log");
        if index > self.committed {
            let before = mem::replace(&mut self.committed, index);
            self.out.get().committed = Some(index);
            if self.membership_index > before {
                self.note_committed_memberships(before);
            }
        }
    }

    /// A voter that has committed a configuration without itself is spent. (That it is in none is
    /// not enough: one that joins replays those of the time before.) If one that is committed later
    /// names it, it is a member again: a founder that had no log when it was removed, and was added
    /// before it had one, replays both. It has its votes and its log, so it is as good as any.
    fn note_committed_memberships(&mut self, before: Index) {
        let was_spent = self.standing == Standing::Spent;
        let mut spent = was_spent;
        for membership in self.log.memberships(before, self.committed) {
            self.named |= membership.is_voter(self.me);
            spent = (spent || self.named) && !membership.is_member(self.me);
            plant!(
                M10,
                if !membership.is_member(self.me) {
                    spent = true;
                    break;
                }
            );
        }
        // Those who have left say nothing any more.
        let membership = self.log.membership();
        let is_member = |replica: Replica| membership.is_some_and(|m| m.is_member(replica));
        self.memories.retain(|replica, _| is_member(*replica));
        let is_back = was_spent && !spent;
        plant!(M10, is_back = false);
        if spent && !was_spent {
            self.is_spent();
        } else if is_back {
            tracing::info!(me = %self.me, "this replica is a member of the group again");
            self.set_standing(Standing::Empty);
        }
    }

    /// This replica was removed from the group.
    pub(super) fn is_spent(&mut self) {
        tracing::warn!(
            me = %self.me,
            "this replica was removed from the group, and campaigns in it no more; its data is kept"
        );
        self.set_standing(Standing::Spent);
    }

    /// The term in which this replica may campaign now, if it may.
    pub(super) fn next_term(&self) -> Option<Term> {
        // A snapshot that is being put in the place of the log must not meet a leader. (What covers
        // more than this log is committed elsewhere, so this replica could not be elected.)
        if self.receiving.as_ref().is_some_and(|receiving| receiving.is_ending()) {
            return None;
        }
        let next = self.hard_state.term.next();
        if next.is_none() {
            tracing::error!(me = %self.me, "there is no term left to campaign in");
        }
        next
    }

    /// A time from an election timeout from now to [a tenth](ELECTION_SPREAD) later, so that rarely
    /// two nodes campaign at once (3.4).
    pub(super) fn election_at(&mut self) -> Instant {
        let timeout = self.config.election_timeout;
        let spread = timeout / ELECTION_SPREAD;
        plant!(E9, spread = Duration::ZERO);
        plant!(X14, spread = Duration::ZERO);
        self.now + timeout + self.random_up_to(spread)
    }

    /// When to campaign if the leader's node is gone, which many groups may learn at once.
    pub(super) fn spread_election_at(&mut self) -> Instant {
        let timeout = self.config.election_timeout;
        let spread = ELECTION_APART.saturating_mul(self.groups);
        self.now + self.random_up_to(spread.clamp(timeout / ELECTION_SPREAD, timeout))
    }

    /// A time from none to this long.
    fn random_up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.u64(..=nanos))
    }
}

/// Lets go of a map's memory that is not in use: it has room for four from the first on.
pub(super) fn shrink_map<K: Ord, V>(map: &mut LiteMap<K, V>) {
    let mut pairs = mem::take(map).into_tuple_vec();
    pairs.shrink_to_fit();
    *map = LiteMap::from_sorted_store_unchecked(pairs);
}

/// Election timeouts are drawn from one to so small a part of one more. The thesis recommends the
/// whole of one, as candidates that collide there may all fail. Here one of them yields (see
/// `candidate.rs`), and what a wider spread adds is only a longer time without a leader.
const ELECTION_SPREAD: u32 = 10;

/// How far the elections of groups that lose their leader together are apart, on average. One takes
/// about a tenth of that of a processor.
const ELECTION_APART: Duration = Duration::from_millis(1);

/// Messages that may wait for the disk: several for each member of a configuration. Others are
/// repeated by who asks.
const MAX_DEFERRED: usize = 4 * crate::membership::MAX_NODES;
