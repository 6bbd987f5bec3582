//! What a node does about snapshots beside its turns: it writes one of its own state, takes one in
//! from the leader, and reads chunks of them for its peers. The I/O of each is a task's, and what
//! has come of it goes to the mailbox.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use bytes::Bytes;
use futures::FutureExt;
use quorate_rt::channel::Signal;
use quorate_rt::{Executor, TaskError, yield_now};

use super::bug;
use super::mailbox::{Event, Mailbox};
use crate::engine::{Input, ReadChunk, ReceiveStep};
use crate::error::{SnapshotError, StoreError};
use crate::identity::Replica;
use crate::log_store::{LogStore, SnapshotContent, SnapshotDraft};
use crate::membership::Membership;
use crate::plant;
use crate::snapshot::{
    Digest, Digester, SnapshotMeta, SnapshotReader, SnapshotWriter, read_exactly,
};
use crate::state_machine::StateMachine;
use crate::types::{GroupId, Index, LogId};

/// A view of the state, and what it is of.
pub(crate) struct View<SM: StateMachine> {
    pub(crate) log_id: LogId,
    /// The largest time of an entry up to there.
    pub(crate) time: u64,
    pub(crate) membership: Membership,
    pub(crate) membership_index: Index,
    /// The state machine may have none to give.
    pub(crate) state: Result<SM::View, SnapshotError>,
}

/// The tasks of a node that have to do with snapshots. Dropping it ends them, and discards what is
/// half-written.
pub(super) struct Snapshots<R: Executor, SM: StateMachine, S> {
    rt: R,
    group: GroupId,
    store: Rc<S>,
    mailbox: Rc<Mailbox<SM>>,
    /// The one that is being written, up to where it covers the log, and its task.
    building: Option<(LogId, R::Task<()>)>,
    receiving: Option<(Rc<ReceiveQueue>, R::Task<()>)>,
    sending: BTreeMap<Replica, OpenSnapshot<R>>,
}

/// What is open for a peer.
struct OpenSnapshot<R: Executor> {
    digest: Digest,
    content: Rc<OnceCell<Box<dyn SnapshotContent>>>,
    _reading: R::Task<()>,
}

impl<R: Executor, SM: StateMachine, S: LogStore> Snapshots<R, SM, S> {
    pub(super) fn new(rt: R, group: GroupId, store: Rc<S>, mailbox: Rc<Mailbox<SM>>) -> Self {
        Self {
            rt,
            group,
            store,
            mailbox,
            building: None,
            receiving: None,
            sending: BTreeMap::new(),
        }
    }

    /// Begins to write what a view shows.
    pub(super) fn build(&mut self, view: View<SM>) {
        assert!(self.building.is_none(), "one snapshot is written at a time");
        let log_id = view.log_id;
        let (store, group) = (Rc::clone(&self.store), self.group);
        let task = spawn(&self.rt, &self.mailbox, async move {
            Some(Event::Built { log_id, outcome: build(&*store, group, view).await })
        });
        self.building = Some((log_id, task));
    }

    pub(super) fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// The one at `log_id` has come to its end. Whether it was still wanted.
    pub(super) fn built(&mut self, log_id: LogId) -> bool {
        self.building.take_if(|(building, _)| *building == log_id).is_some()
    }

    /// Gives up the one that is being written; whether there was one.
    pub(super) fn stop_building(&mut self) -> bool {
        self.building.take().is_some()
    }

    /// Does what is to be done about the one that comes in, in order and after what was asked for
    /// before. There is a task for it as long as there is a draft.
    pub(super) fn receive(&mut self, steps: impl ExactSizeIterator<Item = ReceiveStep>) {
        if steps.len() == 0 {
            return;
        }
        self.receiving.take_if(|(receive_queue, _)| receive_queue.has_ended.get());
        let (receive_queue, _) = self.receiving.get_or_insert_with(|| {
            let receive_queue = Rc::new(ReceiveQueue::default());
            let mut receiver = Receiver {
                group: self.group,
                store: Rc::clone(&self.store),
                mailbox: Rc::clone(&self.mailbox),
                draft: None,
            };
            let steps = Rc::clone(&receive_queue);
            let task = spawn(&self.rt, &self.mailbox, async move {
                receiver.run(&steps).await;
                None
            });
            (receive_queue, task)
        });
        let mut queue = receive_queue.steps.borrow_mut();
        for step in steps {
            if let ReceiveStep::Begin(_) = step {
                queue.clear(); // What comes before it is not wanted any more.
            }
            queue.push_back(step);
        }
        receive_queue.signal.raise();
    }

    /// Reads a chunk for a peer, from what is open for it if that is the one.
    pub(super) fn read(&mut self, wanted: ReadChunk) {
        let (peer, digest) = (wanted.peer, wanted.meta.digest);
        let content = match self.sending.get(&peer) {
            Some(open) if open.digest == digest => Rc::clone(&open.content),
            _ => Rc::default(),
        };
        let (store, group, open) = (Rc::clone(&self.store), self.group, Rc::clone(&content));
        let reading = spawn(&self.rt, &self.mailbox, async move {
            let outcome = read(&*store, group, &open, &wanted).await;
            Some(Event::ChunkRead { wanted, outcome })
        });
        // A read under way is cancelled: nobody waits for it any more.
        self.sending.insert(peer, OpenSnapshot { digest, content, _reading: reading });
    }

    /// Closes what is open for peers that need no snapshot.
    pub(super) fn close_all_but(&mut self, is_needed: impl Fn(Replica) -> bool) {
        self.sending.retain(|peer, _| is_needed(*peer));
    }
}

/// Starts a task that may tell the group of an event, if only that something it has called has
/// panicked.
pub(super) fn spawn<R: Executor, SM: StateMachine>(
    rt: &R,
    mailbox: &Rc<Mailbox<SM>>,
    task: impl Future<Output = Option<Event<SM>>> + 'static,
) -> R::Task<()> {
    let mailbox = Rc::clone(mailbox);
    rt.spawn(async move {
        let outcome = AssertUnwindSafe(task).catch_unwind().await;
        let failed = |panic| Some(Event::Failed(bug(TaskError::from_panic(panic))));
        if let Some(event) = outcome.unwrap_or_else(failed) {
            mailbox.event(event);
        }
    })
}

async fn build<SM: StateMachine, S: LogStore>(
    store: &S,
    group: GroupId,
    view: View<SM>,
) -> Result<SnapshotMeta, SnapshotError> {
    let View { log_id, time, membership, membership_index, state } = view;
    let mut writer = SnapshotWriter::new(store.draft(group).await?);
    SM::write(state?, &mut writer).await?;
    let (draft, bytes, digest) = writer.end().await?;
    let meta = SnapshotMeta { log_id, time, membership, membership_index, bytes, digest };
    draft.finish(&meta).await?;
    plant!(D9, return Ok(meta));
    check::<SM, S>(store, group, &meta).await?;
    Ok(meta)
}

/// Checks, from what the store has, that a snapshot can be restored. Until it is named, the log
/// stands for the same state (D9).
async fn check<SM: StateMachine, S: LogStore>(
    store: &S,
    group: GroupId,
    meta: &SnapshotMeta,
) -> Result<(), SnapshotError> {
    let mut reader = SnapshotReader::new(store.snapshot(group, meta).await?, meta.bytes);
    SM::check(&mut reader).await?;
    reader.end_as(meta.digest)
}

async fn read<S: LogStore>(
    store: &S,
    group: GroupId,
    open: &OnceCell<Box<dyn SnapshotContent>>,
    wanted: &ReadChunk,
) -> Result<Bytes, StoreError> {
    let content = match open.get() {
        Some(content) => content,
        None => {
            let content = store.snapshot(group, &wanted.meta).await?;
            open.get_or_init(|| content)
        }
    };
    read_exactly(&**content, wanted.offset, wanted.len).await
}

/// What the receiving task has yet to do. The engine bounds it: it takes no chunk when too much is
/// unwritten.
#[derive(Default)]
struct ReceiveQueue {
    steps: RefCell<VecDeque<ReceiveStep>>,
    signal: Signal,
    /// The task has nothing more to do, and looks at no more.
    has_ended: Cell<bool>,
}

/// The task that takes a snapshot in. What goes wrong with it is said to the engine, and is no
/// reason to stop: the leader will try again.
struct Receiver<SM: StateMachine, S> {
    group: GroupId,
    store: Rc<S>,
    mailbox: Rc<Mailbox<SM>>,
    draft: Option<Draft>,
}

struct Draft {
    /// What it is to become.
    digest: Digest,
    digester: Digester,
    inner: Box<dyn SnapshotDraft>,
}

impl<SM: StateMachine, S: LogStore> Receiver<SM, S> {
    async fn run(&mut self, receive_queue: &ReceiveQueue) {
        loop {
            let next = receive_queue.steps.borrow_mut().pop_front();
            match next {
                Some(step) => {
                    if let Some(input) = self.take(step).await {
                        self.mailbox.event(Event::ReceiveStepDone(input));
                    }
                    // A store in memory never waits, and the node must not wait for a whole window
                    // of chunks.
                    yield_now().await;
                }
                None if self.draft.is_some() => receive_queue.signal.wait().await,
                None => return receive_queue.has_ended.set(true),
            }
        }
    }

    async fn take(&mut self, step: ReceiveStep) -> Option<Input> {
        match step {
            ReceiveStep::Begin(digest) => {
                self.draft = None; // Before the next is begun, so that there is its space.
                match self.store.draft(self.group).await {
                    Ok(inner) => {
                        self.draft = Some(Draft { digest, digester: Digester::default(), inner });
                        None
                    }
                    Err(error) => Some(lost(digest, &error)),
                }
            }
            // Without a draft it is lost, and that was said.
            ReceiveStep::Chunk(chunk) => {
                let Draft { digest, digester, inner } = self.draft.as_mut()?;
                let digest = *digest;
                digester.update(&chunk);
                match inner.write(chunk).await {
                    Ok(()) => Some(Input::ChunkStored { digest, stored: digester.bytes() }),
                    Err(error) => {
                        self.draft = None;
                        Some(lost(digest, &error))
                    }
                }
            }
            ReceiveStep::End(meta) => {
                let Draft { digest, digester, inner } = self.draft.take()?;
                if (digester.bytes(), digester.digest()) != (meta.bytes, meta.digest) {
                    return Some(lost(digest, &"what has come is not what was sent"));
                }
                match inner.finish(&meta).await {
                    Ok(()) => Some(Input::SnapshotReady(meta)),
                    Err(error) => Some(lost(digest, &error)),
                }
            }
        }
    }
}

fn lost(digest: Digest, reason: &dyn std::fmt::Display) -> Input {
    tracing::warn!(%digest, %reason, "the snapshot that came in is lost");
    Input::SnapshotLost { digest }
}
