//! The node's loop: take what has come, step the engine for all of it, then act once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use quorate_rt::channel::watch;
use quorate_rt::planted::{Bug, planted};
use quorate_rt::{AsyncRuntime, Instant, Task};

use super::apply::Applying;
use super::delays::Delays;
use super::mailbox::{End, Event, KEPT_PLACES, LocalRequest, Mailbox, Request, refuse};
use super::refusals::Refusals;
use super::replies::Replies;
use super::snapshots::{self, Snapshots};
use super::timer::Timer;
use super::waits::Waits;
use crate::engine::{Engine, Fetch, Input, Output, PieceRead, Proposal, ReadOutcome, Ticket};
use crate::entries::Entries;
use crate::error::{Fatal, SnapshotError, StoreError, WriteError};
use crate::identity::{Boot, Replica, Standing};
use crate::log_store::{Completion, LogStore, LogWrite};
use crate::membership::Membership;
use crate::metrics::{Metrics, Obstacle, Role, UnfitTiming};
use crate::snapshot::SnapshotMeta;
use crate::state_machine::StateMachine;
use crate::transport::{Credentials, StoreState, Transport};
use crate::types::{GroupId, Index, LogId, Term};

/// The wall clock is read again after so long: entries tell it in milliseconds, and a reading costs
/// as much as a hundredth of a lone write.
const WALL_RESOLUTION: Duration = Duration::from_millis(1);

/// Everything a node's loop works with.
pub(super) struct Turns<R: AsyncRuntime, SM: StateMachine, S, T> {
    pub(super) rt: R,
    pub(super) group: GroupId,
    pub(super) engine: Engine,
    /// As the transport knows them.
    pub(super) credentials: Credentials,
    pub(super) store: Rc<S>,
    pub(super) transport: Rc<T>,
    pub(super) mailbox: Rc<Mailbox<SM>>,
    pub(super) applying: Rc<Applying<SM>>,
    pub(super) replies: Rc<RefCell<Replies<SM>>>,
    pub(super) refusals: Rc<Refusals>,
    pub(super) metrics: Rc<watch::Sender<Metrics>>,
    pub(super) timer: Timer<R>,
    pub(super) delays: Rc<Delays>,
    /// The last writes of those that wait for the engine's word, in order: it has not got them yet.
    pub(super) proposing: Vec<Bytes>,
    /// Reads of the log under way, at most one for each peer.
    pub(super) fetches: BTreeMap<Replica, R::Task<()>>,
    pub(super) snapshots: Snapshots<R, SM, S>,
    pub(super) waits: Waits,
    /// When the wall clock is to be read again.
    pub(super) wall_at: Instant,
    /// Until when the commit index must have risen, as long as somebody waits for that.
    pub(super) stalled_at: Option<Instant>,
    /// It was told to stop.
    pub(super) stopping: Option<Stopping>,
}

/// What a turn takes out, to be looked at. The next one uses its memory again.
struct Taken<SM: StateMachine> {
    events: Vec<Event<SM>>,
    requests: Vec<LocalRequest<SM>>,
    output: Box<Output>,
}

impl<SM: StateMachine> Default for Taken<SM> {
    fn default() -> Self {
        Self { events: Vec::new(), requests: Vec::new(), output: Box::default() }
    }
}

/// How a node stops.
#[derive(Clone, Copy)]
pub(super) struct Stopping {
    /// Then it ends, whatever is left.
    until: Instant,
    /// It led when it was told.
    hands_over: bool,
}

impl<R: AsyncRuntime, SM: StateMachine, S: LogStore, T: Transport> Turns<R, SM, S, T> {
    /// Turns until the node is told to stop.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        let mut taken = Taken::default();
        self.act(self.rt.now(), &mut taken.output);
        loop {
            poll_fn(|context| {
                // A turn looks at the time anyway: the timer has to be told only of who waits for nothing else.
                match self.mailbox.poll(context) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => self.timer.poll(context),
                }
            })
            .await;
            if self.mailbox.has_ended() {
                // It was dropped or has failed, and will be cancelled. Its store may be another node's by now.
                return pending().await;
            }
            if self.turn(&mut taken)? {
                return Ok(());
            }
        }
    }

    /// One turn; whether it is the last.
    fn turn(&mut self, taken: &mut Taken<SM>) -> Result<bool, Fatal> {
        let now = self.rt.now();
        let limit = self.mailbox.card.config.heartbeat_interval;
        self.delays.turn_begins(now, self.timer.due_for(now), limit);
        if now >= self.wall_at {
            self.wall_at = now + WALL_RESOLUTION;
            self.engine.set_wall_clock(self.rt.wall_clock());
        }
        if self.engine.cluster().is_none()
            && let Some(cluster) = self.store.cluster()
        {
            self.engine.set_cluster(cluster);
        }
        self.mailbox.take_events(&mut taken.events);
        for event in taken.events.drain(..) {
            match event {
                Event::Message(message) => self.hear(now, message),
                Event::Persisted { write, outcome } => {
                    outcome?;
                    self.engine.step(now, Input::Persisted { write });
                }
                Event::Fetched { fetch, outcome } => self.fetched(now, fetch, outcome)?,
                Event::Viewed(view) => self.snapshots.build(view),
                Event::Built { log_id, outcome } => self.built(now, log_id, outcome),
                Event::Incoming(input) => self.incoming(now, input),
                Event::Restored(meta) => self.engine.step(now, Input::SnapshotReady(meta)),
                Event::PieceRead { piece, outcome } => self.piece_read(now, piece, outcome)?,
                Event::Recall { replica, reply } => {
                    let _ = reply.send(self.engine.memory_of(replica));
                }
                Event::Remembered { from, memory } => {
                    self.engine.step(now, Input::Remembered { from, memory });
                }
                Event::Met { replica, boot } => {
                    self.engine.step(now, Input::Met { replica, boot });
                }
                Event::Failed(fatal) => return Err(fatal),
                Event::Shutdown => self.begin_to_stop(now),
            }
        }
        if self.replies.borrow().keeps_requests() {
            self.release(now);
        }
        self.mailbox.take_requests(&mut taken.requests);
        for request in taken.requests.drain(..) {
            self.on_request(now, request);
        }
        loop {
            let expired = self.replies.borrow_mut().parked.pop_expired(now);
            let Some(request) = expired else { break };
            // The engine refuses it, or knows of a leader since a moment ago.
            self.take(now, request);
        }
        self.propose(now);
        taken.events.shrink_to(KEPT_PLACES);
        taken.requests.shrink_to(KEPT_PLACES);
        // Last, so that a node that was paused hears its leader before it gives it up.
        if self.timer.is_due(now) {
            self.engine.step(now, Input::Wake);
        }
        self.act(now, &mut taken.output);
        if let Some(what) = taken.output.rolled_back.take() {
            return Err(Fatal::RolledBack { what });
        }
        Ok(self.stopping.is_some_and(|stopping| self.may_stop(now, stopping)))
    }

    /// From now on nothing new is taken; what has begun is brought to its end, and leadership to another node.
    fn begin_to_stop(&mut self, now: Instant) {
        self.engine.step(now, Input::Resign);
        let until = now + self.mailbox.card.config.request_timeout;
        let hands_over = self.engine.is_resigning();
        tracing::info!(replica = %self.engine.replica(), group = self.group, hands_over, "stops");
        self.stopping = Some(Stopping { until, hands_over });
        let mut replies = self.replies.borrow_mut();
        let kept = replies.unsent.drain().chain(replies.parked.drain());
        drop(replies);
        kept.for_each(|(_, request)| refuse(request, &End::Shutdown));
        self.replies.borrow_mut().initializing.clear(); // A group may not be formed for long.
    }

    fn may_stop(&self, now: Instant, stopping: Stopping) -> bool {
        // It has handed over when it knows of the next leader, not before: that one may need its vote.
        let handed_over =
            || self.engine.leader().is_some_and(|leader| leader != self.engine.replica());
        let leads_on = stopping.hands_over && !handed_over() && self.engine.is_resigning();
        let elects = stopping.hands_over && !handed_over() && self.engine.role() != Role::Leader;
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
        let needs_leader = matches!(request, Request::Write { .. } | Request::Read(_));
        if self.stopping.is_some() && !is_message {
            refuse(request, &End::Shutdown);
        } else if needs_leader && self.engine.role() != Role::Leader {
            let until = now + self.mailbox.card.config.request_timeout;
            self.pass_on(now, until, request);
        } else {
            self.take(now, request);
        }
    }

    pub(super) fn take(&mut self, now: Instant, request: LocalRequest<SM>) {
        match request {
            Request::Deliver(message) => {
                self.propose(now); // What came before it is looked at before it.
                self.hear(now, *message);
            }
            Request::Write { command, reply } => {
                self.replies.borrow_mut().proposed.push(reply);
                self.proposing.push(command);
            }
            Request::Read(read) => {
                let ticket = self.replies.borrow_mut().reads.push(read);
                self.engine.step(now, Input::Read { ticket });
            }
            Request::Admin(admin) => self.administer(now, admin),
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
    fn incoming(&mut self, now: Instant, input: Input) {
        match input {
            Input::SnapshotReady(meta)
                if meta.log_id.index > self.engine.committed() && !planted(Bug::D9) =>
            {
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

    fn piece_read(
        &mut self,
        now: Instant,
        piece: PieceRead,
        outcome: Result<Bytes, StoreError>,
    ) -> Result<(), Fatal> {
        let PieceRead { peer, meta, offset, .. } = piece;
        let chunk = match outcome {
            Ok(chunk) => chunk,
            // Before it was opened, another has taken its place.
            Err(StoreError::Missing(_)) if self.engine.snapshot() != Some(&meta) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        self.engine.step(now, Input::PieceRead { peer, digest: meta.digest, offset, chunk });
        Ok(())
    }

    /// Does what the engine wants done.
    fn act(&mut self, now: Instant, output: &mut Box<Output>) {
        if let Some((write, content)) = self.engine.take_write()
            && self.mailbox.submit(write, || self.append(write, content))
        {
            self.engine.step(now, Input::Persisted { write });
        }
        self.engine.take_output(output);
        if output.rolled_back.is_some() {
            return; // This node's disk was put back: nothing of this turn leaves.
        }
        let Output {
            write,
            messages,
            fetches,
            pieces,
            incoming,
            restore,
            committed,
            proposals,
            refused,
            reads,
            membership,
            addresses_changed,
            cannot_form,
            rolled_back: _,
            wake_at,
        } = &mut **output;
        if membership.is_some() || *addresses_changed {
            self.introduce();
        }
        if let Some(refusal) = cannot_form.take() {
            tracing::error!(replica = %self.engine.replica(), %refusal, "the group can't be formed");
            for reply in self.replies.borrow_mut().initializing.drain(..) {
                let _ = reply.send(Err(refusal.clone()));
            }
        }
        let config = &self.mailbox.card.config;
        self.waits.look(now, self.group, config, &self.engine, &*self.transport);
        if let Some((write, content)) = write.take() {
            self.append(write, content);
        }
        self.send(messages);
        for fetch in fetches.drain(..) {
            self.fetch(fetch);
        }
        self.snapshots.receive(incoming.drain(..));
        for piece in pieces.drain(..) {
            self.snapshots.read(piece);
        }
        let gets_snapshot =
            |id| self.engine.peers().any(|(peer, known)| peer == id && known.snapshot.is_some());
        self.snapshots.close_all_but(gets_snapshot);
        self.publish(membership.take());
        self.answer(proposals, refused, reads);
        // After the answers: a write must be known to be placed before it is applied.
        if let Some(snapshot) = restore.take() {
            self.restore(snapshot, false);
        }
        if let Some(committed) = *committed {
            self.applying.commit(committed);
            let reads = self.replies.borrow_mut().take_committed(committed);
            reads.into_iter().for_each(|(index, read)| self.applying.read(index, read));
        }
        self.watch_commit(now, committed.is_some());
        let expires_at = self.replies.borrow().parked.expires_at();
        // The last answers are the applying task's: look again soon whether they are given.
        let soon = now + self.mailbox.card.config.heartbeat_interval;
        let stop_at = self.stopping.map(|stopping| stopping.until.min(soon));
        let passing_at = self.passing_at(now);
        let waits_at = self.waits.wake_at();
        let times = [*wake_at, expires_at, passing_at, self.stalled_at, stop_at, waits_at];
        self.timer.set(times.into_iter().flatten().min());
        self.answer_admins();
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

    fn append(&self, write: u64, content: LogWrite) {
        let mailbox = Rc::clone(&self.mailbox);
        let done = move |outcome| mailbox.persisted(write, outcome);
        self.store.append(self.group, content, Completion::new(done));
    }

    /// A leader may be heard, and yet nothing be committed, or nothing of it arrive here: disks that hang, an entry that the transport
    /// can't carry. Nobody waits for ever for that.
    fn watch_commit(&mut self, now: Instant, risen: bool) {
        let committed = self.engine.committed();
        if !self.replies.borrow().awaits_beyond(committed) {
            self.stalled_at = None;
        } else if risen || self.stalled_at.is_none() {
            self.stalled_at = Some(now + self.mailbox.card.config.request_timeout);
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
        proposals: &mut Vec<(Range<Ticket>, Proposal)>,
        refused: &mut Vec<(Ticket, String)>,
        reads: &mut Vec<(Ticket, ReadOutcome)>,
    ) {
        let mut replies = self.replies.borrow_mut();
        for (tickets, proposal) in proposals.drain(..) {
            for (ticket, offset) in tickets.zip(0..) {
                let reply = replies.proposed.take(ticket);
                match proposal {
                    Proposal::Placed(first) => {
                        let log_id = LogId { index: first.index + offset, ..first };
                        let refusal = || self.refusals.of_write();
                        replies.place(log_id, reply, self.applying.last_applied(), refusal);
                    }
                    Proposal::NotLeader => {
                        reply.answer(Err(self.refusals.of_write()));
                    }
                    Proposal::Busy => reply.answer(Err(WriteError::Busy)),
                    Proposal::Unknown => reply.answer(Err(WriteError::Unknown)),
                }
            }
        }
        for (ticket, reason) in refused.drain(..) {
            replies.proposed.take(ticket).answer(Err(WriteError::Command(reason)));
        }
        drop(replies); // A read runs code of whoever waits for it, if only to drop it.
        for (ticket, outcome) in reads.drain(..) {
            let read = self.replies.borrow_mut().reads.take(ticket);
            match outcome {
                ReadOutcome::At(index) if index > self.engine.committed() => {
                    self.replies.borrow_mut().await_commit(index, read);
                }
                ReadOutcome::At(index) => self.applying.read(index, read),
                ReadOutcome::NotLeader => read(Err(self.refusals.of_read())),
            }
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let peer = fetch.peer;
        let (store, group) = (Rc::clone(&self.store), self.group);
        let task = snapshots::spawn(&self.rt, &self.mailbox, async move {
            let outcome = store.read(group, fetch.range.clone(), fetch.max_bytes).await;
            Event::Fetched { fetch, outcome }
        });
        // Within a term the engine asks again only after an answer. One of an earlier term may still run: it is let go to its end.
        if let Some(before) = self.fetches.insert(peer, task) {
            before.detach();
        }
    }

    fn fetched(
        &mut self,
        now: Instant,
        fetch: Fetch,
        outcome: Result<Entries, StoreError>,
    ) -> Result<(), Fatal> {
        let Fetch { peer, term, range, .. } = fetch;
        let entries = match outcome {
            Ok(entries) => entries,
            // Meanwhile it was purged, or another leader has cut it.
            Err(StoreError::Missing(_))
                if range.start <= self.engine.purged().index || !self.leads_in(term) =>
            {
                Entries::default()
            }
            Err(_) if planted(Bug::R11) => Entries::default(),
            // A log that can't be read is not a shorter log (R11).
            Err(error) => return Err(error.into()),
        };
        self.engine.step(now, Input::Fetched { peer, term, entries });
        Ok(())
    }

    pub(super) fn leads_in(&self, term: Term) -> bool {
        self.engine.role() == Role::Leader && self.engine.hard_state().term == term
    }

    fn publish(&self, membership: Option<Membership>) {
        let engine = &self.engine;
        self.metrics.send_modify(|metrics| {
            metrics.role = engine.role();
            metrics.term = engine.hard_state().term;
            metrics.leader = engine.leader().map(|leader| leader.id);
            metrics.cluster = engine.cluster();
            if metrics.waits_for != *self.waits.obstacles() {
                metrics.waits_for.clone_from(self.waits.obstacles());
            }
            metrics.round_trip = engine.round_trip();
            let config = &self.mailbox.card.config;
            metrics.unfit_timing = metrics.round_trip.and_then(|t| UnfitTiming::of(t, config));
            metrics.last_log_id = engine.last_log_id();
            metrics.durable = engine.durable();
            metrics.committed = engine.committed();
            metrics.contradictions = engine.contradictions();
            metrics.applied = self.applying.applied().min(engine.committed());
            metrics.snapshot = engine.snapshot().map_or(LogId::ZERO, |snapshot| snapshot.log_id);
            metrics.purged = engine.purged();
            metrics.dropped_messages = self.transport.dropped_messages();
            if membership.is_some() || engine.role() != Role::Leader {
                metrics.peers.clear(); // They may be others now.
            }
            metrics.peers.extend(engine.peers());
            if membership.is_some() {
                metrics.membership = membership;
            }
        });
    }
}

/// What a node shows to others.
pub(super) fn credentials(engine: &Engine, boot: Boot) -> Credentials {
    let promised = engine.standing().cluster();
    let state = if *engine.standing() == Standing::Spent {
        StoreState::Spent
    } else if engine.last_log_id() != LogId::ZERO {
        StoreState::Member
    } else if promised.is_some() {
        StoreState::Claimed
    } else {
        StoreState::Empty
    };
    let cluster = engine.cluster().or(promised);
    Credentials { replica: engine.replica(), boot, state, cluster }
}
