//! A turn of a group: take what has come, step the engine for all of it, then act once. That is one
//! write to the store, then the messages, then the answers and what is to be applied.

use std::mem;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate_rt::{Executor, Instant};

use super::super::LeaderChange;
use super::mailbox::{End, Event, LocalRequest, Request, refuse};
use super::{Group, snapshots};
use crate::engine::{Engine, Fetch, Input, Output, Proposal, Rare, ReadChunk, ReadOutcome, Ticket};
use crate::entries::Entries;
use crate::error::{Fatal, SnapshotError, StoreError, WriteError};
use crate::identity::{Boot, Replica, Standing};
use crate::log_store::{Appended, Completes, Completion, LogStore, LogWrite};
use crate::membership::Membership;
use crate::metrics::{Obstacle, Role, UnfitTiming};
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::state_machine::StateMachine;
use crate::transport::{Credentials, StoreState, Transport};
use crate::types::{Index, LogId, Term};

/// The wall clock is read again after so long: entries tell it in milliseconds, and a reading costs
/// as much as a hundredth of a lone write.
const WALL_RESOLUTION: Duration = Duration::from_millis(1);

/// How a group stops.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// Then it ends, whatever is left.
    until: Instant,
    /// It led when it was told.
    transfers: bool,
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    /// One turn; whether it is the last.
    pub(super) fn take_turn(
        &mut self,
        now: Instant,
        output: &mut Option<Box<Output>>,
    ) -> Result<bool, Fatal> {
        self.engine.lend(output);
        let due_for = self.wake_at.map_or(Duration::ZERO, |at| now - at);
        self.delays.turn_begins(now, due_for, self.engine.config().heartbeat_interval);
        if now >= self.wall_at {
            self.wall_at = now + WALL_RESOLUTION;
            self.engine.set_wall_clock(self.rt.wall_clock());
        }
        if self.engine.cluster().is_none()
            && let Some(cluster) = self.store.cluster()
        {
            self.engine.set_cluster(cluster);
        }
        for _ in 0..self.mailbox.begin_turn() {
            let Some(event) = self.mailbox.take_event() else { break };
            self.on_event(now, event)?;
        }
        if self.replies.borrow().keeps_requests() {
            self.release(now);
        }
        let (requests, committed) = (self.mailbox.waiting_requests(), self.engine.committed());
        for _ in 0..requests {
            let Some(request) = self.mailbox.take_request() else { break };
            self.on_request(now, request);
        }
        loop {
            let expired = self.replies.borrow_mut().leaderless.pop_expired(now);
            let Some(request) = expired else { break };
            // The engine refuses it, or knows of a leader since a moment ago.
            self.take(now, now, request);
        }
        self.propose(now);
        self.ask_for_changes(now);
        self.mailbox.end_turn();
        // Last, so that a node that was paused hears its leader before it gives it up.
        if self.wake_at.is_some_and(|at| at <= now) {
            self.engine.step(now, Input::Wake);
            if self.replies.borrow().keeps_requests() {
                // A transfer of leadership may have been given up, and they go on here.
                self.release(now);
                self.propose(now);
            }
        }
        self.act(now, output)?;
        self.mailbox.give_back();
        if self.wake_at.is_none() && requests == 0 && committed == self.engine.committed() {
            // The group may rest for long, and be one of many.
            self.mailbox.shrink();
            self.replies.borrow_mut().shrink();
            self.proposing.shrink_to_fit();
            self.applier.shrink()?;
            if self.fetches.is_empty() {
                self.fetches.clear(); // An empty tree may have kept a node.
            }
        }
        Ok(self.stopping.is_some_and(|stopping| self.may_stop(now, stopping)))
    }

    fn on_event(&mut self, now: Instant, event: Event<SM>) -> Result<(), Fatal> {
        match event {
            Event::Message(message) => self.hear(now, message),
            Event::Persisted { write, outcome } => {
                outcome?;
                self.engine.step(now, Input::Persisted { write });
            }
            Event::Delayed { write } => self.engine.step(now, Input::Delayed { write }),
            Event::Fetched { fetch, outcome } => self.fetched(now, fetch, outcome)?,
            Event::Viewed(view) => self.snapshots.build(view),
            Event::Built { log_id, outcome } => self.built(now, log_id, outcome),
            Event::ReceiveStepDone(input) => self.receive_step_done(now, input),
            Event::Restored(meta) => self.engine.step(now, Input::SnapshotReady(meta)),
            Event::Applied(outcome) => {
                self.applier.rests();
                outcome?;
            }
            Event::ChunkRead { wanted, outcome } => self.chunk_read(now, wanted, outcome)?,
            Event::Recall { replica, reply } => {
                let _ = reply.send(self.engine.memory_of(replica));
            }
            Event::Remembered { from, memory } => {
                self.engine.step(now, Input::Remembered { from, memory });
            }
            Event::Met { replica, boot } => self.engine.step(now, Input::Met { replica, boot }),
            Event::OfNode(input) => {
                self.engine.set_groups(self.liveness.groups());
                self.engine.step(now, input);
            }
            Event::Failed(fatal) => return Err(fatal),
            Event::Stop => self.begin_to_stop(now),
        }
        Ok(())
    }

    /// From now on nothing new is taken; what has begun is brought to its end, and leadership to
    /// another node.
    fn begin_to_stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return; // Its time is running.
        }
        self.engine.step(now, Input::Resign);
        let until = now + self.engine.config().request_timeout;
        let transfers = self.engine.is_resigning();
        tracing::info!(replica = %self.engine.replica(), group = self.group, transfers, "stops");
        self.stopping = Some(Stopping { until, transfers });
        let mut replies = self.replies.borrow_mut();
        let kept = replies.unsent.drain().chain(replies.leaderless.drain());
        drop(replies);
        kept.for_each(|(_, request)| refuse(request, &End::Shutdown));
        self.replies.borrow_mut().initializing.clear(); // A group may not be formed for long.
        self.changes.clear(); // Nor is a change made soon.
    }

    fn may_stop(&self, now: Instant, stopping: Stopping) -> bool {
        // It has transferred leadership when it knows of the next leader, not before: that one may
        // need its vote.
        let has_transferred =
            || self.engine.leader().is_some_and(|leader| leader != self.engine.replica());
        let leads_on = stopping.transfers && !has_transferred() && self.engine.is_resigning();
        let elects = stopping.transfers && !has_transferred() && self.engine.role() != Role::Leader;
        let answers = !self.replies.borrow().is_empty() || self.applying.has_reads();
        let succession = (leads_on || elects) && !self.is_alone();
        now >= stopping.until || !(succession || answers)
    }

    /// Whether none of the other voters can be reached, as when this is the last node of a cluster
    /// that stops.
    fn is_alone(&self) -> bool {
        let own = self.engine.replica();
        let is_gone =
            |voter| matches!(self.transport.obstacle(voter), Obstacle::Unreachable { .. });
        self.engine.membership().is_some_and(|membership| {
            membership.voters().iter().filter(|voter| *voter != own).all(is_gone)
        })
    }

    fn on_request(&mut self, now: Instant, request: LocalRequest<SM>) {
        let is_message = matches!(request, Request::Deliver(_));
        let waits = match request {
            Request::Write { .. } => self.engine.role() != Role::Leader || self.engine.hands_over(),
            Request::Read(_) => self.engine.role() != Role::Leader,
            Request::Admin(_) | Request::Deliver(_) => false,
        };
        let until = now + self.engine.config().request_timeout;
        if self.stopping.is_some() && !is_message {
            refuse(request, &End::Shutdown);
        } else if waits {
            self.pass_on(now, until, request);
        } else {
            self.take(now, until, request);
        }
    }

    /// Takes a request, which has an answer to wait for until then.
    pub(super) fn take(&mut self, now: Instant, until: Instant, request: LocalRequest<SM>) {
        match request {
            Request::Deliver(message) if message.group != self.group => {
                self.liveness.route(*message);
            }
            Request::Deliver(message) => {
                self.propose(now); // What came before it is looked at before it.
                self.hear(now, *message);
            }
            Request::Write { command, reply } => {
                self.replies.borrow_mut().proposed.push(reply);
                self.proposing.push(command);
            }
            Request::Read(read) => {
                let ticket = self.replies.borrow_mut().reads.push((until, read));
                self.engine.step(now, Input::Read { ticket });
            }
            Request::Admin(admin) => self.administer(now, *admin),
        }
    }

    /// Up to where the snapshot covers the log.
    pub(super) fn covered(&self) -> Index {
        self.engine.snapshot().map_or(0, |snapshot| snapshot.log_id.index)
    }

    /// The snapshot at `log_id` is written, or has failed.
    fn built(&mut self, now: Instant, log_id: LogId, outcome: Result<SnapshotMeta, SnapshotError>) {
        if !self.snapshots.built(log_id) {
            return; // A later one has come in meanwhile.
        }
        self.applying.view_is_done();
        let error = match outcome {
            Ok(meta) => {
                let (replica, bytes) = (self.engine.replica(), meta.bytes);
                tracing::info!(%replica, group = self.group, at = %log_id, bytes, "wrote a snapshot");
                self.engine.step(now, Input::SnapshotReady(meta));
                None
            }
            Err(error) => {
                tracing::warn!(replica = %self.engine.replica(), at = %log_id, %error, "no snapshot was written");
                self.replies.borrow_mut().answer_snapshots(log_id, &Err(error.clone()));
                Some(error)
            }
        };
        self.metrics.send_modify(|metrics| metrics.snapshot_error = error);
    }

    /// Something has become of the snapshot that comes in. When it is whole, the state machine is
    /// restored from it before the engine hears of it, and so before the write that puts it in the
    /// place of the log: if it can't be restored, the node stops, and its disk still has the log
    /// and the snapshot before (D9). Until then the engine is as it was, and no message leaves that
    /// says more; the store forgets the new one after a crash.
    fn receive_step_done(&mut self, now: Instant, input: Input) {
        plant!(D9, return self.engine.step(now, input));
        match input {
            Input::SnapshotReady(meta) if meta.log_id.index > self.engine.committed() => {
                self.restore(meta, true);
            }
            // Of a snapshot that the log has overtaken there is nothing to restore.
            input => self.engine.step(now, input),
        }
    }

    /// Makes the state that of a snapshot, if it is not yet.
    fn restore(&mut self, snapshot: SnapshotMeta, has_come: bool) {
        if self.snapshots.stop_building() {
            self.applying.view_is_done(); // What it was of is out of date.
        }
        // One that has come in is restored when the engine puts it in the place of the log, and
        // nothing behind it is applied yet.
        let (index, applied) = (snapshot.log_id.index, self.applying.applied());
        assert!(index >= applied, "a snapshot would set the state back (S2)");
        if index > applied {
            self.applying.restore(snapshot, has_come);
        }
    }

    fn chunk_read(
        &mut self,
        now: Instant,
        wanted: ReadChunk,
        outcome: Result<Bytes, StoreError>,
    ) -> Result<(), Fatal> {
        let ReadChunk { peer, meta, offset, .. } = wanted;
        let chunk = match outcome {
            Ok(chunk) => chunk,
            // Before it was opened, another has taken its place.
            Err(StoreError::Missing(_)) if self.engine.snapshot() != Some(&meta) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        self.engine.step(now, Input::ChunkRead { peer, digest: meta.digest, offset, chunk });
        Ok(())
    }

    /// Does what the engine wants done.
    fn act(&mut self, now: Instant, output: &mut Option<Box<Output>>) -> Result<(), Fatal> {
        if self.mailbox.has_ended() {
            return Ok(()); // The node was dropped in this turn, and the store may be another's.
        }
        if let Some((write, content)) = self.engine.take_write()
            && self.append(write, content) == Appended::Durable
        {
            self.engine.step(now, Input::Persisted { write });
        }
        let output = output.insert(self.engine.take_output());
        let mut rare = output.rare.take();
        if let Some(rare) = &mut rare {
            self.tell_nodes(rare)?;
        }
        let Output { write, messages, committed, proposals, reads, rare: _, wake_at } =
            &mut **output;
        let config = self.engine.config();
        self.waits.look(now, self.group, config, &self.engine, &*self.transport);
        if let Some((write, content)) = write.take()
            && self.append(write, content) == Appended::Durable
        {
            self.mailbox.event(Event::Persisted { write, outcome: Ok(()) });
        }
        self.send(messages);
        if let Some(rare) = &mut rare {
            rare.fetches.drain(..).for_each(|fetch| self.fetch(fetch));
            self.snapshots.receive(rare.receive_steps.drain(..));
            rare.chunks.drain(..).for_each(|wanted| self.snapshots.read(wanted));
        }
        let gets_snapshot =
            |id| self.engine.peers().any(|(peer, known)| peer == id && known.snapshot.is_some());
        self.snapshots.close_all_but(gets_snapshot);
        let (membership, mut refused, restore) = match rare {
            Some(rare) => {
                for (id, reply) in rare.changes {
                    self.on_change_reply(now, id, reply);
                }
                (rare.membership, rare.refused, rare.restore)
            }
            None => (None, Vec::new(), None),
        };
        self.publish(membership);
        self.answer_changes(now);
        self.answer(now, proposals, &mut refused, reads);
        // After the answers: a write must be known to be placed before it is applied.
        if let Some(snapshot) = restore {
            self.restore(snapshot, false);
        }
        if let Some(committed) = *committed {
            self.applying.commit(committed);
            let reads = self.replies.borrow_mut().take_committed(committed);
            reads.into_iter().for_each(|(index, read)| self.applying.read(index, read));
        }
        self.watch_commit(now, committed.is_some());
        let others_at =
            if self.replies.borrow().has_others() { self.answer_others(now) } else { None };
        // The last answers are the applying task's: look again soon whether they are given.
        let soon = || now + self.engine.config().heartbeat_interval;
        let stop_at = self.stopping.map(|stopping| stopping.until.min(soon()));
        let (waits_at, changes_at) = (self.waits.wake_at(), self.changes.wake_at());
        let times = [*wake_at, others_at, self.stalled_at, stop_at, waits_at, changes_at];
        // What a group at rest had put off is due, and not late: it was not waited for.
        self.wake_at = Instant::earliest(times).map(|at| at.max(now));
        self.applier.go_on()
    }

    /// Answers those who wait for something else than an entry or the leader's word, as far as it
    /// has come. When to look again.
    fn answer_others(&self, now: Instant) -> Option<Instant> {
        self.replies.borrow_mut().alarms.ring(now); // After what they wait for is published.
        self.answer_admins(now);
        let replies = self.replies.borrow();
        Instant::earliest([
            replies.leaderless.expires_at(),
            replies.leadership.wake_at(now),
            replies.alarms.wake_at(),
            self.forwarding_at(now),
            self.asks_again_at(now),
        ])
    }

    /// Nodes are told, and the transport, what has become of this replica and of its peers.
    ///
    /// # Errors
    /// This node's disk was put back: nothing of this turn leaves.
    fn tell_nodes(&mut self, rare: &mut Rare) -> Result<(), Fatal> {
        if let Some(what) = rare.rolled_back.take() {
            return Err(Fatal::RolledBack { what });
        }
        if rare.membership.is_some() || rare.addresses_changed {
            self.introduce();
        }
        if let Some(membership) = &rare.membership {
            self.follow_nodes(membership);
        }
        if let Some(term) = rare.left {
            self.liveness.departed(self.group, term);
        }
        if let Some(refusal) = &rare.cannot_form {
            tracing::error!(replica = %self.engine.replica(), %refusal, "the group can't be formed");
            for reply in self.replies.borrow_mut().initializing.drain(..) {
                let _ = reply.send(Err(refusal.clone()));
            }
        }
        Ok(())
    }

    /// Tells the transport where others are reached, and what this node can show them.
    fn introduce(&mut self) {
        let credentials = credentials(&self.engine, self.credentials.boot);
        if credentials != self.credentials {
            self.credentials = credentials;
            self.transport.set_credentials(self.group, credentials);
        }
        self.transport.set_peers(self.group, &self.engine.addresses());
    }

    fn append(&self, write: u64, content: LogWrite) -> Appended {
        let target = Rc::clone(&self.mailbox) as Rc<dyn Completes>;
        self.store.append(self.group, content, Completion::to(target, write))
    }

    /// Asks to be told what becomes of the nodes of the other members.
    fn follow_nodes(&self, membership: &Membership) {
        let own = self.engine.replica();
        let peers = membership.members().keys().copied().filter(|peer| *peer != own).collect();
        let (term, cluster) = (self.engine.hard_state().term, self.engine.cluster());
        self.liveness.set_peers(self.group, term, cluster, peers);
    }

    /// A leader may be heard, and yet nothing be committed, or nothing of it arrive here: disks
    /// that hang, an entry that the transport can't carry. Nobody waits for ever for that.
    fn watch_commit(&mut self, now: Instant, risen: bool) {
        let committed = self.engine.committed();
        if !self.replies.borrow().awaits_beyond(committed) {
            self.stalled_at = None;
        } else if risen || self.stalled_at.is_none() {
            self.stalled_at = Some(now + self.engine.config().request_timeout);
        } else if self.stalled_at.is_some_and(|at| at <= now) {
            self.stalled_at = None;
            let reads = self.replies.borrow_mut().give_up_beyond(committed);
            for read in reads {
                read(Err(self.refusals.of_read()));
            }
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        proposals: &mut Vec<(Range<Ticket>, Proposal)>,
        refused: &mut Vec<(Ticket, String)>,
        reads: &mut Vec<(Ticket, ReadOutcome)>,
    ) {
        if proposals.is_empty() && refused.is_empty() && reads.is_empty() {
            return;
        }
        let mut replies = self.replies.borrow_mut();
        for (tickets, proposal) in proposals.drain(..) {
            for (ticket, offset) in tickets.zip(0..) {
                let reply = replies.proposed.take(ticket);
                match proposal {
                    Proposal::Appended(first) => {
                        let log_id = LogId { index: first.index + offset, ..first };
                        let refusal = || self.refusals.of_write();
                        replies.place(log_id, reply, self.applying.last_applied(), refusal);
                    }
                    Proposal::NotLeader => {
                        reply.answer(Err(self.refusals.of_write()));
                    }
                    Proposal::Busy => reply.answer(Err(WriteError::Busy)),
                    Proposal::StorageFull => reply.answer(Err(WriteError::StorageFull)),
                    Proposal::Unknown => reply.answer(Err(WriteError::Unknown)),
                }
            }
        }
        for (ticket, reason) in refused.drain(..) {
            replies.proposed.take(ticket).answer(Err(WriteError::Command(reason)));
        }
        drop(replies); // A read runs code of whoever waits for it, if only to drop it.
        for (ticket, outcome) in reads.drain(..) {
            let (until, read) = self.replies.borrow_mut().reads.take(ticket);
            match outcome {
                ReadOutcome::At(index) if index > self.engine.committed() => {
                    self.replies.borrow_mut().await_commit(index, read);
                }
                ReadOutcome::At(index) => self.applying.read(index, read),
                ReadOutcome::NotLeader if now < until && self.stopping.is_none() => {
                    self.ask_again(now, until, read);
                }
                ReadOutcome::NotLeader => read(Err(self.refusals.of_read())),
            }
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let (peer, term) = (fetch.peer, fetch.term);
        let (store, group) = (Rc::clone(&self.store), self.group);
        let task = snapshots::spawn(&self.rt, &self.mailbox, async move {
            let outcome = store.read(group, fetch.range.clone(), fetch.max_bytes).await;
            Some(Event::Fetched { fetch, outcome })
        });
        // Within a term the engine asks again only after an answer. One of an earlier term may
        // still run: it is cancelled.
        self.fetches.insert(peer, (term, task));
    }

    fn fetched(
        &mut self,
        now: Instant,
        fetch: Fetch,
        outcome: Result<Entries, StoreError>,
    ) -> Result<(), Fatal> {
        let Fetch { peer, term, range, .. } = fetch;
        if self.fetches.get(&peer).is_some_and(|(of, _)| *of == term) {
            self.fetches.remove(&peer);
        }
        plant!(R11, outcome = outcome.or_else(|_| Ok(Entries::default())));
        let entries = match outcome {
            Ok(entries) => entries,
            // Meanwhile it was purged, or another leader has cut it.
            Err(StoreError::Missing(_))
                if range.start <= self.engine.purged().index || !self.leads_in(term) =>
            {
                Entries::default()
            }
            // A log that can't be read is not a shorter log (R11).
            Err(error) => return Err(error.into()),
        };
        self.engine.step(now, Input::Fetched { peer, term, entries });
        Ok(())
    }

    pub(super) fn leads_in(&self, term: Term) -> bool {
        self.engine.role() == Role::Leader && self.engine.hard_state().term == term
    }

    /// Tells of a disk that has become full, and of space on it.
    fn tell_of_space(&self, was_full: bool) {
        let (replica, group, is_full) =
            (self.engine.replica(), self.group, self.engine.waits_for_space());
        if is_full && !was_full {
            tracing::error!(
                %replica,
                group,
                "the disk is full: entries of the group wait for space. Nothing is lost. While this \
                 node leads, writes are refused; reads go on, and so does the cluster where a \
                 majority of the nodes has space. Make space on the disk: the node then goes on by \
                 itself"
            );
        } else if was_full && !is_full {
            tracing::info!(%replica, group, "there is space on the disk: the group goes on");
        }
    }

    fn publish(&self, membership: Option<Membership>) {
        let engine = &self.engine;
        // What the transport is asked is asked before, as its code must not run under the lock.
        let dropped_messages = self.transport.dropped_messages();
        let change = engine.change_progress(|id| self.transport.obstacle(Replica::any(id)));
        let leader = LeaderChange {
            term: engine.hard_state().term,
            leader: engine.leader().map(|leader| leader.id),
        };
        let (mut was_full, mut before) = (false, leader);
        self.metrics.send_modify(|metrics| {
            metrics.role = engine.role();
            before = LeaderChange { term: metrics.term, leader: metrics.leader };
            LeaderChange { term: metrics.term, leader: metrics.leader } = leader;
            metrics.passive = !engine.config().elections;
            metrics.cluster = engine.cluster();
            metrics.removed = *engine.standing() == Standing::Spent;
            if metrics.waits_for != *self.waits.obstacles() {
                metrics.waits_for.clone_from(self.waits.obstacles());
            }
            metrics.round_trip = engine.round_trip();
            let config = engine.config();
            metrics.unfit_timing = metrics.round_trip.and_then(|t| UnfitTiming::of(t, config));
            metrics.last_log_id = engine.last_log_id();
            was_full = mem::replace(&mut metrics.storage_full, engine.waits_for_space());
            metrics.durable = engine.durable();
            metrics.committed = engine.committed();
            metrics.contradictions = engine.contradictions();
            metrics.applied = self.applying.applied().min(engine.committed());
            metrics.snapshot = engine.snapshot().map_or(LogId::ZERO, |snapshot| snapshot.log_id);
            metrics.purged = engine.purged();
            metrics.dropped_messages = dropped_messages;
            if membership.is_some() || engine.role() != Role::Leader {
                metrics.peers.clear(); // They may be others now.
            }
            metrics.peers.extend(engine.peers());
            metrics.change = change;
            if membership.is_some() {
                metrics.membership = membership;
            }
        });
        if leader != before {
            self.status.send_modify(|status| status.leader = leader);
        }
        self.tell_of_space(was_full);
    }
}

/// What a node shows to others.
pub(super) fn credentials(engine: &Engine, boot: Boot) -> Credentials {
    let promised = engine.standing().cluster();
    let state = if *engine.standing() == Standing::Spent {
        StoreState::Spent
    } else if engine.last_log_id() != LogId::ZERO {
        StoreState::Member
    } else {
        match engine.standing() {
            Standing::Admitted(_) => StoreState::Admitted,
            _ if promised.is_some() => StoreState::Claimed,
            _ => StoreState::Empty,
        }
    };
    let cluster = engine.cluster().or(promised);
    Credentials { replica: engine.replica(), boot, state, cluster }
}
