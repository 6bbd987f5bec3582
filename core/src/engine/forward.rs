//! Writes that a follower's clients bring, passed on to the leader: both ends of it.
//!
//! A forward is sent once, to the leader of one term, which takes it in that term or never, and at
//! most once. So whatever gets lost or repeated on the way, no command takes effect twice. Its
//! answer counts whoever leads by then; where none comes back, the outcome is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use quorate_rt::Instant;

use super::messages::LAST_INDEX;
use super::{Common, Proposal, Ticket};
use crate::config::Config;
use crate::identity::Replica;
use crate::membership::MAX_NODES;
use crate::message::{Body, ForwardOutcome};
use crate::plant;
use crate::types::{Entry, Term};

/// The follower's end.
///
/// What is on its way to the leader is bounded by a window, so that no burst is more than a
/// transport takes: what would be dropped would have an unknown outcome, though nothing has failed
/// (R20). Whatever exceeds the window is not taken at all, and its outcome stays certain.
#[derive(Default)]
pub(super) struct Forwards {
    /// Not yet sent: what this turn has brought.
    fresh: Vec<(Ticket, Bytes)>,
    /// Sent, by the number of the forward.
    sent: BTreeMap<u64, Sent>,
    /// What is in the window, in bytes: what is fresh, and what was sent not long ago.
    under_way: usize,
    /// Forwards with lower numbers are not in the window any more.
    window_begin: u64,
}

struct Sent {
    to: Replica,
    /// That in which it leads.
    term: Term,
    tickets: Vec<Ticket>,
    bytes: usize,
    /// Then it leaves the window: it was most likely lost, and a connection that has broken while
    /// the window was full must not keep all others waiting until the deadline.
    leaves_at: Instant,
    deadline: Instant,
}

impl Sent {
    /// Whether it can have been given such a place, if any. Other answers say nothing: the outcome
    /// stays unknown.
    fn may_have(&self, outcome: &ForwardOutcome) -> bool {
        match outcome {
            ForwardOutcome::Appended(first) | ForwardOutcome::Partly { first, .. } => {
                (first.term, first.leader) == (self.term, self.to.id) && first.index <= LAST_INDEX
            }
            ForwardOutcome::NotLeader | ForwardOutcome::Busy | ForwardOutcome::StorageFull => true,
        }
    }
}

impl Forwards {
    /// Whether so many bytes have room in the window. One command may always go.
    pub(super) fn has_room(&self, config: &Config, bytes: usize) -> bool {
        let bytes = bytes + Entry::OVERHEAD_BYTES;
        plant!(R20, return true);
        self.under_way == 0 || self.under_way + bytes <= config.max_inflight_bytes
    }

    fn take(&mut self, sequence: u64) -> Option<Sent> {
        let sent = self.sent.remove(&sequence)?;
        if sequence >= self.window_begin {
            self.under_way -= sent.bytes;
        }
        Some(sent)
    }

    /// The transport has not taken a forward: gives the writes in it.
    pub(super) fn not_taken(&mut self, sequence: u64) -> Vec<Ticket> {
        self.take(sequence).map_or_else(Vec::new, |sent| sent.tickets)
    }

    /// The request timeout is `timeout` from now on. None waits longer than that, so that the
    /// first is still the oldest.
    pub(super) fn set_timeout(&mut self, now: Instant, timeout: Duration) {
        for sent in self.sent.values_mut() {
            sent.leaves_at = sent.leaves_at.min(now + timeout / 2);
            sent.deadline = sent.deadline.min(now + timeout);
        }
    }

    /// Another leader is followed, of this later term. Who led before has answered by then what it
    /// has received, unless it has failed. The terms of forwards rise with their numbers, so that
    /// the first is still the oldest.
    pub(super) fn led_anew(&mut self, term: Term, config: &Config, now: Instant) {
        let deadline = now + config.election_timeout / 2;
        for sent in self.sent.values_mut().take_while(|sent| sent.term < term) {
            sent.deadline = sent.deadline.min(deadline);
        }
    }

    /// When the oldest has waited long enough. Numbers rise with time, so the first is the oldest.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.sent.first_key_value().map(|(_, sent)| sent.deadline)
    }
}

impl Common {
    /// Passes a command on to the leader, at the end of the turn.
    pub(super) fn forward(&mut self, ticket: Ticket, command: Bytes) {
        let Self { forwards, config, out, .. } = self;
        if forwards.has_room(config, command.len()) {
            forwards.under_way += command.len() + Entry::OVERHEAD_BYTES;
            forwards.fresh.push((ticket, command));
        } else {
            out.get().answer(ticket, Proposal::Busy);
        }
    }

    /// Sends what this turn has brought, in messages of limited size.
    pub(super) fn send_forwards(&mut self, to: Replica) {
        if self.forwards.fresh.is_empty() {
            return;
        }
        let timeout = self.config.request_timeout;
        let (leaves_at, deadline) = (self.now + timeout / 2, self.now + timeout);
        // A leader takes a forward as a whole.
        let uncommitted = self.config.max_uncommitted_bytes.saturating_sub(Entry::OVERHEAD_BYTES);
        let most = self.config.max_append_bytes.min(uncommitted);
        let mut fresh = mem::take(&mut self.forwards.fresh).into_iter().peekable();
        while fresh.peek().is_some() {
            let (mut tickets, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((ticket, command)) =
                fresh.next_if(|(_, command)| bytes == 0 || bytes + command.len() <= most)
            {
                bytes += command.len() + Entry::OVERHEAD_BYTES;
                tickets.push(ticket);
                commands.push(command);
            }
            self.sequence += 1;
            let (boot, sequence, term) = (self.boot.number, self.sequence, self.hard_state.term);
            self.send(to, Body::Forward { boot, sequence, commands });
            let sent = Sent { to, term, tickets, bytes, leaves_at, deadline };
            self.forwards.sent.insert(sequence, sent);
        }
    }

    pub(super) fn on_forward_reply(
        &mut self,
        from: Replica,
        boot: u64,
        sequence: u64,
        outcome: ForwardOutcome,
    ) {
        let forwards = &mut self.forwards;
        let sent = forwards.sent.get(&sequence);
        let answers = sent.is_some_and(|sent| sent.to == from && sent.may_have(&outcome));
        if boot != self.boot.number || !answers {
            return;
        }
        // A second answer, or one that came too late, finds nobody who waits (R16).
        let Some(sent) = forwards.take(sequence) else { return };
        let (first, refused) = match outcome {
            ForwardOutcome::Appended(first) => (Proposal::Appended(first), Vec::new()),
            ForwardOutcome::NotLeader => (Proposal::NotLeader, Vec::new()),
            ForwardOutcome::Busy => (Proposal::Busy, Vec::new()),
            ForwardOutcome::StorageFull => (Proposal::StorageFull, Vec::new()),
            ForwardOutcome::Partly { first, refused } => (Proposal::Appended(first), refused),
        };
        let (mut next, mut refused) = (first, refused.into_iter().peekable());
        for (ticket, place) in sent.tickets.into_iter().zip(0..) {
            if let Some(refusal) = refused.next_if(|refusal| refusal.place == place) {
                self.out.rare().refused.push((ticket, refusal.reason));
                continue;
            }
            self.out.get().answer(ticket, next);
            if let Proposal::Appended(placed) = &mut next {
                placed.index = placed.index.saturating_add(1);
            }
        }
    }

    /// A peer is in another boot than before: it can't answer for what it was sent in that one.
    pub(super) fn lose_forwards_to(&mut self, peer: Replica) {
        let sent = self.forwards.sent.iter().filter(|(_, sent)| sent.to == peer);
        for sequence in sent.map(|(sequence, _)| *sequence).collect::<Vec<_>>() {
            for ticket in self.forwards.not_taken(sequence) {
                self.out.get().answer(ticket, Proposal::Unknown);
            }
        }
    }

    /// Whether a forward can come from this boot of a peer: the one in which the peer was met, or
    /// an earlier one, if it comes late. A higher number would drive others out of what has been
    /// seen.
    pub(super) fn may_be_of(&self, peer: Replica, boot: u64) -> bool {
        self.met(peer).is_none_or(|met| boot <= met.number)
    }

    /// Answers a forward to the leader of a term in which this replica leads no more. Where another
    /// copy may have been taken, only silence is true.
    pub(super) fn refuse_missed(&mut self, term: Term, from: Replica, boot: u64, sequence: u64) {
        let has_led = term == self.dedup.term;
        let is_member = self.membership().is_some_and(|membership| membership.is_member(from));
        if has_led
            && is_member
            && self.may_be_of(from, boot)
            && self.dedup.is_first(from, boot, sequence)
        {
            let outcome = ForwardOutcome::NotLeader;
            self.send(from, Body::ForwardReply { boot, sequence, outcome });
        }
    }

    /// Gives up what has waited for too long, whoever leads by now.
    pub(super) fn give_up_forwards(&mut self) {
        let Self { forwards, out, now, .. } = self;
        for (sequence, sent) in forwards.sent.range(forwards.window_begin..) {
            if sent.leaves_at > *now {
                break;
            }
            forwards.under_way -= sent.bytes;
            forwards.window_begin = sequence + 1;
        }
        while let Some(first) = forwards.sent.first_entry()
            && first.get().deadline <= *now
        {
            for ticket in first.remove().tickets {
                out.get().answer(ticket, Proposal::Unknown);
            }
        }
    }

    /// The leader is followed no more. What was not sent has no effect; what was is answered by it
    /// even so, unless it has failed. The way to the next leader is free.
    pub(super) fn leave_forwards(&mut self) {
        let Self { forwards, out, sequence, .. } = self;
        for (ticket, _) in forwards.fresh.drain(..) {
            out.get().answer(ticket, Proposal::NotLeader);
        }
        forwards.under_way = 0;
        forwards.window_begin = *sequence + 1;
        plant!(R16, forwards.sent.clear());
        plant!(
            X1,
            for ticket in mem::take(&mut forwards.sent).into_values().flat_map(|s| s.tickets) {
                out.get().answer(ticket, Proposal::NotLeader);
            }
        );
    }
}

/// The leader's end: which forwards it has seen in the term in which it led last. It is kept when
/// it leads no more: of a forward that comes too late it then knows whether another copy was taken.
#[derive(Default)]
pub(super) struct ForwardDedup {
    term: Term,
    /// By the number of the boot.
    windows: BTreeMap<Replica, BTreeMap<u64, Window>>,
}

/// The forwards of one boot that have been seen: all up to `below`, and those in `above`.
#[derive(Default)]
struct Window {
    below: u64,
    above: BTreeSet<u64>,
}

impl ForwardDedup {
    pub(super) fn of_term(term: Term) -> Self {
        Self { term, windows: BTreeMap::new() }
    }

    /// How many boots of a peer are remembered, the latest ones. A forward of an earlier one is
    /// taken for a repetition.
    const BOOTS: usize = 8;
    /// How far behind the latest a forward may come. One that comes later is taken for a
    /// repetition.
    const NUMBERS: usize = 1024;
    /// The numbers of one boot lie together: no run sends so many forwards that come out of order.
    /// What lies further off says nothing of what was seen here, or else a few forged numbers would
    /// make repetitions of all that follow.
    const SPAN: u64 = 1 << 32;
    /// So many peers are known, though some may have left: twice the members of a configuration, as
    /// one may follow on another.
    const PEERS: usize = 2 * MAX_NODES;

    /// Forgets the other peers, once there are many. (Those who have left may have had forwards
    /// taken.)
    pub(super) fn tidy(&mut self, keep: impl Fn(Replica) -> bool) {
        if self.windows.len() > Self::PEERS {
            self.windows.retain(|peer, _| keep(*peer));
        }
    }

    /// Whether forwards of this peer may have been taken.
    pub(super) fn knows(&self, peer: Replica) -> bool {
        self.windows.contains_key(&peer)
    }

    /// Whether this is the first time, which it is not again.
    pub(super) fn is_first(&mut self, peer: Replica, boot: u64, sequence: u64) -> bool {
        let windows = self.windows.entry(peer).or_default();
        windows.entry(boot).or_default();
        if windows.len() > Self::BOOTS {
            windows.pop_first();
        }
        let Some(window) = windows.get_mut(&boot) else { return false };
        let is_below = sequence <= window.below && window.below - sequence < Self::SPAN;
        if is_below || !window.above.insert(sequence) {
            return false;
        }
        if window.above.len() > Self::NUMBERS {
            let last = window.above.last().copied().unwrap_or(sequence);
            if last - sequence >= Self::SPAN {
                window.above.pop_last();
            } else if let Some(oldest) = window.above.pop_first() {
                window.below = oldest;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_taken_once() {
        let mut dedup = ForwardDedup::default();
        assert!(dedup.is_first(Replica::new(2, 7), 9, 100));
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 100));
        assert!(dedup.is_first(Replica::new(2, 7), 9, 102), "a gap: 101 may still come");
        assert!(dedup.is_first(Replica::new(2, 7), 9, 101));
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 101));
        assert!(dedup.is_first(Replica::new(3, 7), 9, 100), "another node's");
        assert!(dedup.is_first(Replica::new(2, 7), 8, 100), "another run's");
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 100), "the run before is remembered");
    }

    #[test]
    fn what_is_forgotten_is_taken_for_a_repetition() {
        let mut dedup = ForwardDedup::default();
        let window = ForwardDedup::NUMBERS as u64;
        for sequence in 10..=10 + window {
            assert!(dedup.is_first(Replica::new(2, 7), 9, sequence));
        }
        // 10 was pushed out, and whatever lies before it counts as seen.
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 10));
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 1));
        assert!(!dedup.is_first(Replica::new(2, 7), 9, 11));
        assert!(dedup.is_first(Replica::new(2, 7), 9, 11 + window));
        assert_eq!(
            dedup.windows[&Replica::new(2, 7)][&9].above.len(),
            ForwardDedup::NUMBERS,
            "memory is bounded"
        );
    }

    /// Numbers that no run counts to may be forged. They must not make repetitions of what follows.
    #[test]
    fn numbers_from_elsewhere_stop_nobody() {
        for forged in [1 << 48, u64::MAX - 5000] {
            let mut dedup = ForwardDedup::default();
            let peer = Replica::new(2, 7);
            assert!(dedup.is_first(peer, 9, 100));
            for sequence in forged..forged + 5000 {
                dedup.is_first(peer, 9, sequence);
            }
            for sequence in 101..5000 {
                assert!(dedup.is_first(peer, 9, sequence), "{sequence}");
                assert!(!dedup.is_first(peer, 9, sequence), "{sequence}");
            }
            assert!(!dedup.is_first(peer, 9, 102));
            assert!(dedup.windows[&peer][&9].above.len() <= ForwardDedup::NUMBERS);
        }
    }

    #[test]
    fn so_many_runs_are_remembered() {
        let mut dedup = ForwardDedup::default();
        for boot in 0..=ForwardDedup::BOOTS as u64 {
            assert!(dedup.is_first(Replica::new(2, 7), boot, 1));
        }
        assert_eq!(dedup.windows[&Replica::new(2, 7)].len(), ForwardDedup::BOOTS);
        assert!(!dedup.is_first(Replica::new(2, 7), 1, 1));
        assert!(!dedup.is_first(Replica::new(2, 7), 0, 1), "it may have been taken");
        assert!(dedup.is_first(Replica::new(2, 7), 1, 2), "what came later forgets nothing");
    }
}
