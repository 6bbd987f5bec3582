//! The node's loop: take what has come, step the engine for all of it, then act once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;

use futures::FutureExt;
use quorate_rt::channel::watch;
use quorate_rt::{AsyncRuntime, Instant, Task, TaskError};

use super::apply::{self, Applying};
use super::bug;
use super::mailbox::{End, Event, InitializeReply, LocalRequest, Mailbox, Request, refuse};
use super::replies::Replies;
use super::timer::Timer;
use crate::engine::{Engine, Fetch, Input, Output, Proposal, ReadOutcome};
use crate::error::{Fatal, InitializeError, ReadError, StoreError, WriteError};
use crate::log_store::{Completion, LogStore};
use crate::membership::Membership;
use crate::metrics::{Metrics, Role};
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{GroupId, NodeId, Term};

/// Everything a node's loop works with.
pub(super) struct Turns<R: AsyncRuntime, SM: StateMachine, S, T> {
    pub(super) rt: R,
    pub(super) id: NodeId,
    pub(super) group: GroupId,
    pub(super) engine: Engine,
    pub(super) store: Rc<S>,
    pub(super) transport: Rc<T>,
    pub(super) mailbox: Rc<Mailbox<SM>>,
    pub(super) applying: Rc<Applying<SM>>,
    pub(super) replies: Rc<RefCell<Replies<SM>>>,
    pub(super) metrics: Rc<watch::Sender<Metrics>>,
    pub(super) timer: Timer<R>,
    /// Reads of the log under way, at most one for each peer.
    pub(super) fetches: BTreeMap<NodeId, R::Task<()>>,
    /// Until when the commit index must have risen, as long as somebody waits for that.
    pub(super) stalled_at: Option<Instant>,
    /// It was told to stop.
    pub(super) stopping: Option<Stopping>,
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
        self.act(self.rt.now());
        loop {
            poll_fn(|context| {
                let mail = self.mailbox.poll(context);
                let time = self.timer.poll(context);
                if mail.is_ready() || time.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            if self.mailbox.has_ended() {
                // It was dropped or has failed, and will be cancelled. Its store may be another node's by now.
                return pending().await;
            }
            if self.turn()? {
                return Ok(());
            }
        }
    }

    /// One turn; whether it is the last.
    fn turn(&mut self) -> Result<bool, Fatal> {
        let now = self.rt.now();
        for event in self.mailbox.take_events() {
            match event {
                Event::Message(message) => self.engine.step(now, Input::Message(message)),
                Event::Persisted { write, outcome } => {
                    outcome?;
                    self.engine.step(now, Input::Persisted { write });
                }
                Event::Fetched { peer, term, outcome } => match outcome {
                    Ok(entries) => self.engine.step(now, Input::Fetched { peer, term, entries }),
                    // Meanwhile another leader has cut what was asked for.
                    Err(StoreError::Missing(_)) if !self.leads_in(term) => {}
                    // A log that can't be read is not a shorter log (R11).
                    Err(error) => return Err(error.into()),
                },
                Event::Failed(fatal) => return Err(fatal),
                Event::Shutdown => self.begin_to_stop(now),
            }
        }
        if self.engine.leader().is_some() {
            let parked = self.replies.borrow_mut().parked.drain();
            for request in parked {
                self.on_request(now, request);
            }
        }
        for request in self.mailbox.take_requests() {
            self.on_request(now, request);
        }
        loop {
            let expired = self.replies.borrow_mut().parked.pop_expired(now);
            let Some(request) = expired else { break };
            self.propose_or_read(now, request);
        }
        // Last, so that a node that was paused hears its leader before it gives it up.
        if self.timer.is_due(now) {
            self.engine.step(now, Input::Wake);
        }
        self.act(now);
        Ok(self.stopping.is_some_and(|stopping| self.may_stop(now, stopping)))
    }

    /// From now on nothing new is taken; what has begun is brought to its end, and leadership to another node.
    fn begin_to_stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.engine.step(now, Input::Resign);
        let until = now + self.mailbox.card.config.request_timeout;
        self.stopping = Some(Stopping { until, hands_over: self.engine.is_resigning() });
        let parked = self.replies.borrow_mut().parked.drain();
        parked.for_each(|request| refuse(request, &End::Shutdown));
    }

    fn may_stop(&self, now: Instant, stopping: Stopping) -> bool {
        // It has handed over when it knows of the next leader, not before: that one may need its vote.
        let handed_over = || self.engine.leader().is_some_and(|leader| leader != self.id);
        let leads_on = stopping.hands_over && !handed_over() && self.engine.is_resigning();
        let elects = stopping.hands_over && !handed_over() && self.engine.role() != Role::Leader;
        let answers = !self.replies.borrow().is_empty() || self.applying.has_reads();
        now >= stopping.until || !(leads_on || elects || answers)
    }

    fn on_request(&mut self, now: Instant, request: LocalRequest<SM>) {
        match request {
            Request::Deliver(message) => self.engine.step(now, Input::Message(message)),
            request if self.stopping.is_some() => refuse(request, &End::Shutdown),
            Request::Write { .. } | Request::Read(_) if self.engine.leader().is_none() => {
                let until = now + self.mailbox.card.config.request_timeout;
                self.replies.borrow_mut().parked.push(until, request);
            }
            Request::Write { .. } | Request::Read(_) => self.propose_or_read(now, request),
            Request::Initialize { membership, reply } => self.initialize(now, membership, reply),
        }
    }

    /// The engine answers it, if only to say that there is no leader.
    fn propose_or_read(&mut self, now: Instant, request: LocalRequest<SM>) {
        match request {
            Request::Write { command, reply } => {
                let ticket = self.replies.borrow_mut().proposed.push(reply);
                self.engine.step(now, Input::Propose { ticket, command });
            }
            Request::Read(read) => {
                let ticket = self.replies.borrow_mut().reads.push(read);
                self.engine.step(now, Input::Read { ticket });
            }
            Request::Initialize { .. } | Request::Deliver(_) => {
                unreachable!("only writes and reads are parked")
            }
        }
    }

    fn initialize(&mut self, now: Instant, membership: Membership, reply: InitializeReply) {
        let refusal = if !membership.is_voter(self.id) {
            InitializeError::Membership(format!("node {} is not in it", self.id))
        } else if !self.engine.initialize(now, membership) {
            InitializeError::AlreadyInitialized
        } else {
            self.replies.borrow_mut().initializing.push(reply);
            return;
        };
        let _ = reply.send(Err(refusal));
    }

    /// Does what the engine wants done.
    fn act(&mut self, now: Instant) {
        let output = self.engine.take_output();
        let Output {
            write,
            messages,
            fetches,
            pieces: _,
            incoming: _,
            restore: _,
            committed,
            proposals,
            placed_are_lost,
            reads,
            membership,
            wake_at,
        } = output;
        if let Some(membership) = &membership {
            self.transport.set_peers(self.group, membership.voters());
        }
        if let Some((write, content)) = write {
            let mailbox = Rc::clone(&self.mailbox);
            let done = move |outcome| mailbox.event(Event::Persisted { write, outcome });
            self.store.append(self.group, content, Completion::new(done));
        }
        for message in messages {
            self.transport.send(message);
        }
        for fetch in fetches {
            self.fetch(fetch);
        }
        self.publish(membership);
        self.answer(placed_are_lost, proposals, reads);
        // After the answers: a write must be known to be placed before it is applied.
        if let Some(committed) = committed {
            self.applying.commit(committed);
            let reads = self.replies.borrow_mut().take_committed(committed);
            reads.for_each(|(index, read)| self.applying.read(index, read));
        }
        self.watch_commit(now, committed.is_some());
        let expires_at = self.replies.borrow().parked.expires_at();
        // The last answers are the applying task's: look again soon whether they are given.
        let soon = now + self.mailbox.card.config.heartbeat_interval;
        let stop_at = self.stopping.map(|stopping| stopping.until.min(soon));
        let times = [wake_at, expires_at, self.stalled_at, stop_at];
        self.timer.set(times.into_iter().flatten().min());
        if self.engine.durable() > 0 {
            for reply in self.replies.borrow_mut().initializing.drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
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
                read(Err(ReadError::NotLeader { leader: apply::leader(&self.metrics) }));
            }
        }
    }

    fn answer(
        &mut self,
        placed_are_lost: bool,
        proposals: Vec<(u64, Proposal)>,
        reads: Vec<(u64, ReadOutcome)>,
    ) {
        let leader = || apply::leader(&self.metrics);
        let mut replies = self.replies.borrow_mut();
        if placed_are_lost {
            replies.lose_beyond(self.engine.committed());
        }
        for (ticket, proposal) in proposals {
            let reply = replies.proposed.take(ticket);
            match proposal {
                Proposal::Placed(log_id) => replies.place(log_id, reply, self.applying.applied()),
                Proposal::NotLeader => {
                    reply.answer(Err(WriteError::NotLeader { leader: leader() }));
                }
                Proposal::Busy => reply.answer(Err(WriteError::Busy)),
                Proposal::Unknown => reply.answer(Err(WriteError::Unknown)),
            }
        }
        drop(replies); // A read runs code of whoever waits for it, if only to drop it.
        for (ticket, outcome) in reads {
            let read = self.replies.borrow_mut().reads.take(ticket);
            match outcome {
                ReadOutcome::At(index) if index > self.engine.committed() => {
                    self.replies.borrow_mut().await_commit(index, read);
                }
                ReadOutcome::At(index) => self.applying.read(index, read),
                ReadOutcome::NotLeader => read(Err(ReadError::NotLeader { leader: leader() })),
            }
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let Fetch { peer, term, range, max_bytes } = fetch;
        let (store, mailbox, group) =
            (Rc::clone(&self.store), Rc::clone(&self.mailbox), self.group);
        let task = self.rt.spawn(async move {
            let read = AssertUnwindSafe(store.read(group, range, max_bytes));
            mailbox.event(match read.catch_unwind().await {
                Ok(outcome) => Event::Fetched { peer, term, outcome },
                Err(panic) => Event::Failed(bug(TaskError::from_panic(panic))),
            });
        });
        // Within a term the engine asks again only after an answer. One of an earlier term may still run: it is let go to its end.
        if let Some(before) = self.fetches.insert(peer, task) {
            before.detach();
        }
    }

    fn leads_in(&self, term: Term) -> bool {
        self.engine.role() == Role::Leader && self.engine.hard_state().term == term
    }

    fn publish(&self, membership: Option<Membership>) {
        let engine = &self.engine;
        self.metrics.send_modify(|metrics| {
            metrics.role = engine.role();
            metrics.term = engine.hard_state().term;
            metrics.leader = engine.leader();
            metrics.last_log_id = engine.last_log_id();
            metrics.durable = engine.durable();
            metrics.committed = engine.committed();
            metrics.peers = engine.peers();
            if membership.is_some() {
                metrics.membership = membership;
            }
        });
    }
}
