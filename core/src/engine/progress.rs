//! A leader's view of one peer: where its log agrees, what to send next, and when it was heard
//! from.
//!
//! A peer is *probed*, with one append at a time, until it has accepted one; then entries are
//! *pipelined* to it until it rejects one. Where what it needs is purged, it gets the *snapshot*.

use std::time::Duration;

use quorate_rt::Instant;

use super::inflight::Inflight;
use super::log::Log;
use super::snapshot::OutgoingSnapshot;
use crate::plant;
use crate::types::{Index, LogId};

#[derive(Debug)]
pub(super) struct Progress {
    /// Up to here the peer's log is the leader's, and durable. Falls within a term only if the peer
    /// has lost its disk.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    pub(super) mode: Mode,
    pub(super) inflight: Inflight,
    /// When it was last heard from; at first, when the leader was elected.
    pub(super) last_contact: Instant,
    /// Whether it was heard from in this term.
    pub(super) heard_from: bool,
    /// Whether it has acknowledged something in its present boot.
    pub(super) acted: bool,
    /// The largest round it has echoed.
    pub(super) round: u64,
    /// Its clients wait for this index to be committed, so it shall hear of that without delay.
    pub(super) awaits_commit: Index,
    /// A fetch of entries for it is under way.
    pub(super) fetching: bool,
    /// It is to get an append in this turn, if only an empty one.
    pub(super) due: bool,
    /// It is to be asked to rest, in place of that.
    pub(super) may_rest: bool,
    /// It was asked to rest, and nothing was sent to it since.
    pub(super) asked_to_rest: bool,
    /// It rests: see [`liveness`](super::liveness).
    pub(super) rests: bool,
    /// Since when it has kept up, as of the last judgement.
    pub(super) keeps_up_since: Option<Instant>,
    /// What was committed at two earlier judgements, the latest one last, and when that was.
    goals: [(Instant, Index); 2],
    /// What it has come nearer by, and lacks, as of the last judgement: see [`Self::left`].
    pace: Pace,
    /// It is no member any more. It still hears that, until then.
    pub(super) leaves_at: Option<Instant>,
}

/// How fast something is made up for. What is lacking is counted in bytes while a snapshot is sent,
/// and in entries afterwards; the first sample after it begins anew.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, u64)>,
    /// What was made up for in a second, over the last seconds.
    per_second: f64,
}

impl Pace {
    fn sample(&mut self, now: Instant, lacks: u64) {
        let Some((at, before)) = self.last.replace((now, lacks)) else { return };
        let seconds = (now - at).as_secs_f64();
        if lacks > before || seconds <= 0.0 {
            self.per_second = 0.0;
            return;
        }
        let rate = (before - lacks) as f64 / seconds;
        // An average in which the last two seconds count for most.
        let weight = if self.per_second == 0.0 { 1.0 } else { (seconds / 2.0).min(1.0) };
        self.per_second += weight * (rate - self.per_second);
    }

    fn left(&self) -> Option<Duration> {
        let (_, lacks) = self.last?;
        let seconds = (self.per_second > 0.0).then(|| lacks as f64 / self.per_second)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[derive(Debug)]
pub(super) enum Mode {
    /// Where the logs part is not known. `awaiting` an answer, nothing but heartbeats is sent.
    Probe { awaiting: bool },
    /// Appends are sent without waiting for answers.
    Pipeline,
    /// The snapshot is sent, and heartbeats.
    Snapshot(Box<OutgoingSnapshot>),
}

impl Progress {
    pub(super) fn new(next: Index, now: Instant) -> Self {
        Self {
            matched: 0,
            next,
            mode: Mode::Probe { awaiting: false },
            inflight: Inflight::default(),
            last_contact: now,
            heard_from: false,
            acted: false,
            round: 0,
            awaits_commit: 0,
            fetching: false,
            due: true,
            may_rest: false,
            asked_to_rest: false,
            rests: false,
            keeps_up_since: None,
            goals: [(now, next - 1); 2],
            pace: Pace::default(),
            leaves_at: None,
        }
    }

    /// Judges, once in a heartbeat interval, whether it keeps up: it has what was committed half of
    /// this silence before, or up to as much earlier. (Who is far away can't have the latest.)
    pub(super) fn judge(&mut self, now: Instant, silence: Duration, committed: Index) {
        let lacks = match self.sending() {
            Some(sending) => sending.meta.bytes.saturating_sub(sending.stored),
            None => committed.saturating_sub(self.matched),
        };
        self.pace.sample(now, lacks);
        let is_heard = self.heard_from && self.last_contact(now) + silence > now;
        let [(_, wanted), latest] = self.goals;
        let keeps_up = is_heard && self.matched >= wanted;
        if latest.0 + silence / 2 <= now {
            self.goals = [latest, (now, committed)];
        }
        self.keeps_up_since = keeps_up.then(|| self.keeps_up_since.unwrap_or(now));
    }

    /// When it will have caught up, at its present pace; none if it comes no nearer.
    pub(super) fn left(&self) -> Option<Duration> {
        self.pace.left()
    }

    /// When it was last heard from, itself or, while it rests, its node.
    pub(super) fn last_contact(&self, now: Instant) -> Instant {
        if self.rests { now } else { self.last_contact }
    }

    /// It rests no more.
    pub(super) fn rouse(&mut self, now: Instant) {
        self.last_contact = self.last_contact(now);
        self.rests = false;
    }

    /// How many bytes of entries may be sent now; none if not even one entry may.
    pub(super) fn room(&self, max_inflight_bytes: usize) -> Option<usize> {
        match &self.mode {
            Mode::Snapshot(_) => None,
            Mode::Probe { awaiting } => (!awaiting).then_some(usize::MAX),
            Mode::Pipeline => {
                max_inflight_bytes.checked_sub(self.inflight.bytes()).filter(|room| *room > 0)
            }
        }
    }

    /// An append up to `last` has been sent.
    pub(super) fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.mode {
            // What was sent may be sent again once the probe is answered, for the answer may come
            // before the entries are durable.
            Mode::Probe { awaiting } => *awaiting = true,
            Mode::Pipeline => {
                self.next = last + 1;
                self.inflight.push(last, bytes);
            }
            Mode::Snapshot(_) => unreachable!("a peer that gets the snapshot has no room"),
        }
    }

    /// The peer's log agrees with ours up to `matched`, and at the place of the last probe.
    pub(super) fn accepted(&mut self, matched: Index, log: &Log) {
        self.matched = self.matched.max(matched);
        self.next = self.next.max(self.matched + 1);
        self.inflight.free_to(self.matched);
        // While it gets the snapshot, it may accept a heartbeat, which says nothing of its log.
        if self.next > log.purged().index {
            self.mode = Mode::Pipeline;
        } else if self.sending().is_none_or(|sending| sending.meta.log_id.index <= self.matched) {
            // It has the snapshot, but the log does not reach back to that any more: it gets
            // another.
            self.mode = Mode::Probe { awaiting: false };
        }
    }

    /// What it needs next is purged.
    pub(super) fn needs_snapshot(&mut self, sending: OutgoingSnapshot) {
        self.inflight.clear();
        self.mode = Mode::Snapshot(Box::new(sending));
    }

    pub(super) fn sending(&self) -> Option<&OutgoingSnapshot> {
        match &self.mode {
            Mode::Snapshot(sending) => Some(sending),
            Mode::Probe { .. } | Mode::Pipeline => None,
        }
    }

    /// The peer does not hold the entry before the one at `prev + 1`; `hint` is the last of its log
    /// that ours could hold.
    pub(super) fn rejected(&mut self, prev: Index, hint: LogId, log: &Log) {
        let stale = match &self.mode {
            // It was sent nothing that it could reject.
            Mode::Snapshot(_) => true,
            // Only the answer to the probe under way says something.
            Mode::Probe { .. } => prev + 1 != self.next,
            // It has been accepted since, unless it is about the very end of what was sent.
            Mode::Pipeline => prev <= self.matched && prev + 1 != self.next,
        };
        if stale {
            return;
        }
        if prev <= self.matched {
            // It has lost what it had acknowledged; or the answer is an old one, and then the next
            // tells better. Either way it must not be counted for that any more (R15).
            tracing::warn!(at = prev, "a peer has no longer what it had acknowledged");
            self.matched = 0;
        }
        // Both sides skip whole terms, so that the number of probes is bounded by the number of
        // terms and not of entries (R4).
        let common = log.last_at_most(hint.index, hint.term).index;
        // What is purged is committed, so a log that reaches there may well agree: that is one more
        // probe, against a whole snapshot.
        let purged = log.purged().index;
        let common = if hint.index >= purged { common.max(purged) } else { common };
        let next = (common + 1).min(prev).max(self.matched + 1);
        plant!(R4, next = if common + 8 < prev { self.next } else { next });
        self.next = next;
        self.mode = Mode::Probe { awaiting: false };
        self.inflight.clear();
    }
}
