//! The node's loop: take what has come, step the engine for all of it, then act once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use quorate_rt::channel::watch;
use quorate_rt::{AsyncRuntime, Instant, Task};

use super::apply::{self, Applying};
use super::mailbox::{Event, InitializeReply, LocalRequest, Mailbox, Request};
use super::parked::Parked;
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
    pub(super) parked: Parked<SM>,
    /// Reads of the log under way, at most one for each peer.
    pub(super) fetches: BTreeMap<NodeId, R::Task<()>>,
    /// Those who have formed the cluster and wait until that is durable.
    pub(super) initializing: Vec<InitializeReply>,
}

impl<R: AsyncRuntime, SM: StateMachine, S: LogStore, T: Transport> Turns<R, SM, S, T> {
    /// Turns until the node is told to stop.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        self.act();
        loop {
            poll_fn(|context| {
                let mail = self.mailbox.poll(context);
                let time = self.timer.poll(context);
                if mail.is_ready() || time.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
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
                Event::Shutdown => return Ok(true),
            }
        }
        if self.engine.leader().is_some() {
            for request in self.parked.drain() {
                self.on_request(now, request);
            }
        }
        for request in self.mailbox.take_requests() {
            self.on_request(now, request);
        }
        while let Some(request) = self.parked.pop_expired(now) {
            self.propose_or_read(now, request);
        }
        // Last, so that a node that was paused hears its leader before it gives it up.
        if self.timer.is_due(now) {
            self.engine.step(now, Input::Wake);
        }
        self.act();
        Ok(false)
    }

    fn on_request(&mut self, now: Instant, request: LocalRequest<SM>) {
        match request {
            Request::Write { .. } | Request::Read(_) if self.engine.leader().is_none() => {
                self.parked.push(now + self.mailbox.card.config.request_timeout, request);
            }
            Request::Write { .. } | Request::Read(_) => self.propose_or_read(now, request),
            Request::Initialize { membership, reply } => self.initialize(now, membership, reply),
            Request::Deliver(message) => self.engine.step(now, Input::Message(message)),
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
            self.initializing.push(reply);
            return;
        };
        let _ = reply.send(Err(refusal));
    }

    /// Does what the engine wants done.
    fn act(&mut self) {
        let output = self.engine.take_output();
        let Output {
            write,
            messages,
            fetches,
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
        }
        self.timer.set([wake_at, self.parked.expires_at()].into_iter().flatten().min());
        if self.engine.durable() > 0 {
            for reply in self.initializing.drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn answer(
        &mut self,
        placed_are_lost: bool,
        proposals: Vec<(u64, Proposal)>,
        reads: Vec<(u64, ReadOutcome)>,
    ) {
        let mut replies = self.replies.borrow_mut();
        let leader = || apply::leader(&self.metrics);
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
        for (ticket, outcome) in reads {
            let read = replies.reads.take(ticket);
            match outcome {
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
            let outcome = store.read(group, range, max_bytes).await;
            mailbox.event(Event::Fetched { peer, term, outcome });
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
