//! What other threads share with a group: the part of its mailbox that they reach, and what the
//! answers to them go through.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::super::groups::OF_SHUTDOWN;
use super::super::ready::{SharedReady, Slot};
use super::super::wakes::{self, Wakes};
use super::mailbox::{End, InboxLoad, Known, Request, WriteResult};
use super::room::{Line, Queue, Queued};
use crate::config::Config;
use crate::error::ReadError;
use crate::message::Message;
use crate::state_machine::StateMachine;

pub(crate) type SharedRead<SM> = Box<dyn FnOnce(Result<&SM, ReadError>, &Crossing) + Send>;
pub(crate) type SharedRequest<SM> = Request<SharedReply<SM>, SharedRead<SM>>;

pub(crate) struct SharedReply<SM: StateMachine> {
    pub(crate) to: wakes::Sender<WriteResult<SM>>,
    /// What it takes of the limit.
    pub(crate) bytes: usize,
}

/// What answers to other threads go through.
pub(crate) struct Crossing {
    /// The tasks that were answered.
    pub(super) wakes: Rc<Wakes>,
    /// What the requests have held that were answered, to be given back at the end of the turn.
    pub(super) returned: Cell<Load>,
}

impl Crossing {
    /// Answers a read.
    pub(crate) fn answer_read<T>(&self, to: wakes::Sender<T>, answer: T) {
        self.returned.update(|load| Load { reads: load.reads + 1, ..load });
        to.send(answer, &self.wakes);
    }
}

/// What the requests of other threads hold of the group's limits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    /// See [`Config::max_queued_bytes`].
    pub(crate) bytes: usize,
    /// See [`Config::max_pending_reads`].
    pub(crate) reads: usize,
}

/// Why a request of another thread is not taken.
pub(crate) enum Refused {
    /// Those that are under way hold too much.
    Busy,
    /// The group has ended.
    End(End),
}

/// The part that other threads reach.
pub(crate) struct SharedMailbox<SM: StateMachine> {
    pub(crate) known: Known,
    /// That of the settings, to be looked at without the lock.
    pub(super) max_command_bytes: AtomicUsize,
    pub(super) ready: Arc<SharedReady>,
    pub(super) slot: Slot,
    pub(super) state: Mutex<SharedState<SM>>,
}

pub(super) struct SharedState<SM: StateMachine> {
    pub(super) config: Arc<Config>,
    pub(super) requests: VecDeque<SharedRequest<SM>>,
    pub(super) load: Load,
    /// Those who wait for room among `load.bytes`.
    pub(super) line: Line,
    pub(super) inbox: InboxLoad,
    pub(super) ended: Option<End>,
}

impl<SM: StateMachine> SharedMailbox<SM> {
    pub(super) fn lock(&self) -> MutexGuard<'_, SharedState<SM>> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of the group.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.lock().config)
    }

    pub(crate) fn max_command_bytes(&self) -> usize {
        self.max_command_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn configure(&self, config: Arc<Config>) {
        self.max_command_bytes.store(config.max_command_bytes, Ordering::Relaxed);
        let admitted = {
            let state = &mut *self.lock();
            state.config = config;
            state.queued().admit()
        };
        admitted.into_iter().for_each(Waker::wake);
    }

    /// Stops the node, also if the group has ended.
    pub(crate) fn shut_down(&self) {
        self.ready.add(OF_SHUTDOWN);
    }

    /// Takes a request that holds nothing. Errors: the group has ended.
    pub(crate) fn request(&self, request: SharedRequest<SM>) -> Result<(), End> {
        self.add(self.open()?, request);
        Ok(())
    }

    /// Gives back what requests have held, and what has become free to those who wait for it.
    pub(super) fn give_back(&self, bytes: usize, reads: usize) {
        let admitted = {
            let state = &mut *self.lock();
            state.load.bytes -= bytes;
            state.load.reads -= reads;
            if state.line.is_empty() { Vec::new() } else { state.queued().admit() }
        };
        admitted.into_iter().for_each(Waker::wake);
    }

    /// Takes a request that holds so much until it is answered. A write is refused while others
    /// wait for room.
    pub(crate) fn limited(&self, request: SharedRequest<SM>, load: Load) -> Result<(), Refused> {
        let mut state = self.open().map_err(Refused::End)?;
        let Config { max_queued_bytes, max_pending_reads, .. } = *state.config;
        let bytes = state.load.bytes.saturating_add(load.bytes);
        let reads = state.load.reads.saturating_add(load.reads);
        let is_full = bytes > max_queued_bytes || !state.line.is_empty();
        if load.bytes > 0 && is_full || load.reads > 0 && reads > max_pending_reads {
            return Err(Refused::Busy);
        }
        state.load = Load { bytes, reads };
        self.add(state, request);
        Ok(())
    }

    /// The state, unless the group has ended.
    fn open(&self) -> Result<MutexGuard<'_, SharedState<SM>>, End> {
        let state = self.lock();
        match &state.ended {
            Some(end) => Err(end.clone()),
            None => Ok(state),
        }
    }

    fn add(&self, mut state: MutexGuard<'_, SharedState<SM>>, request: SharedRequest<SM>) {
        let is_first = state.requests.is_empty();
        state.requests.push_back(request);
        drop(state);
        // Those that come before it is taken are seen with it.
        if is_first {
            self.ready.add(self.slot);
        }
    }

    pub(crate) fn deliver(&self, message: Message) {
        let takes = self.lock().inbox.takes(&message);
        match takes {
            Ok(()) => drop(self.request(Request::Deliver(Box::new(message)))),
            Err(dropped) => dropped.tell(&message),
        }
    }
}

impl<SM: StateMachine> Queue for SharedMailbox<SM> {
    fn look<T>(&self, look: impl FnOnce(Queued<'_>) -> T) -> Result<T, End> {
        Ok(look(self.open()?.queued()))
    }
}

impl<SM: StateMachine> SharedState<SM> {
    /// The commands that are queued.
    fn queued(&mut self) -> Queued<'_> {
        let Self { line, load, config, .. } = self;
        Queued { line, used: &mut load.bytes, max: config.max_queued_bytes }
    }

    /// Takes what has come into `requests`, which are none so far.
    pub(super) fn take(&mut self, requests: &mut VecDeque<SharedRequest<SM>>) {
        self.inbox = InboxLoad::default();
        mem::swap(&mut self.requests, requests);
    }
}
