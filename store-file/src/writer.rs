//! The task that writes: one batch after the other, each written, synced, and only then reported.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use quorate_core::StoreError;
use quorate_rt::channel::oneshot;
use quorate_rt::{AsyncRuntime, File, Task};
use tracing::{error, warn};

use crate::batch::Batch;
use crate::segment::failed;
use crate::store::Shared;

pub(crate) struct Writer<R: AsyncRuntime> {
    shared: Rc<Shared<R>>,
    segment: u32,
    file: Rc<R::File>,
    /// The segment after it.
    next: oneshot::Receiver<Result<Rc<R::File>, StoreError>>,
}

impl<R: AsyncRuntime> Writer<R> {
    /// Starts it, at the end of the log in this segment. It ends by itself when the store is closed or has failed.
    pub(crate) fn start(shared: Rc<Shared<R>>, segment: u32, file: Rc<R::File>) {
        let Some(lock) = shared.lock.borrow().clone() else { return };
        let next = prepare(&shared, segment + 1, lock);
        let rt = shared.segments.rt.clone();
        let writer = Self { shared, segment, file, next };
        // An operation that has begun ends, whatever becomes of the store; until then the task holds the lock.
        rt.spawn(writer.run()).detach();
    }

    async fn run(mut self) {
        while let Some((batch, lock)) = self.next_batch().await {
            let Batch { start, end, chunks, done } = batch;
            let written = self.write(start.segment, start.offset, chunks, &lock).await;
            drop(lock);
            match written {
                Ok(()) => {
                    self.shared.state.borrow_mut().wrote(end);
                    for done in done {
                        done.complete(Ok(()));
                    }
                }
                Err(cause) => {
                    error!(%cause, "the log has failed and does nothing any more");
                    for done in done {
                        done.complete(Err(cause.clone()));
                    }
                    return self.poison(cause);
                }
            }
        }
    }

    /// Waits for something to write; none when the store is closed. The lock is not free until it is dropped.
    async fn next_batch(&self) -> Option<(Batch, Rc<R::FileLock>)> {
        poll_fn(|context| {
            let Some(lock) = self.shared.lock.borrow().clone() else { return Poll::Ready(None) };
            let mut state = self.shared.state.borrow_mut();
            match state.batches.take() {
                Some(batch) => Poll::Ready(Some((batch, lock))),
                None => {
                    state.writer = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    async fn write(
        &mut self,
        segment: u32,
        offset: u64,
        chunks: Vec<bytes::Bytes>,
        lock: &Rc<R::FileLock>,
    ) -> Result<(), StoreError> {
        if segment != self.segment {
            assert_eq!(segment, self.segment + 1);
            self.file = (&mut self.next).await.unwrap_or(Err(StoreError::Abandoned))?;
            self.segment = segment;
            self.next = prepare(&self.shared, segment + 1, Rc::clone(lock));
        }
        let failed = |what, error| failed(what, &self.shared.segments.path(segment), error);
        self.file.write_all_at(chunks, offset).await.map_err(|error| failed("writing", error))?;
        self.file.sync_data().await.map_err(|error| failed("syncing", error))
    }

    /// Fails what waits. What a completion submits meanwhile fails in its turn.
    fn poison(&self, cause: StoreError) {
        let poisoned = StoreError::Poisoned(Arc::new(cause));
        loop {
            let mut state = self.shared.state.borrow_mut();
            let Some(batch) = state.batches.take() else {
                state.failed = Some(poisoned);
                return;
            };
            drop(state);
            for done in batch.done {
                done.complete(Err(poisoned.clone()));
            }
        }
    }
}

/// Makes a segment in the background, so that it is there before the one before it is full.
fn prepare<R: AsyncRuntime>(
    shared: &Rc<Shared<R>>,
    segment: u32,
    lock: Rc<R::FileLock>,
) -> oneshot::Receiver<Result<Rc<R::File>, StoreError>> {
    let (sender, receiver) = oneshot::channel();
    let task = Rc::clone(shared);
    let made = async move {
        let made = task.segments.create(task.store, segment, task.config.segment_bytes).await;
        drop(lock);
        if let Err(cause) = &made {
            warn!(%cause, "the next segment of the log can't be made; the log fails when this one is full");
        }
        let _ = sender.send(made); // Nobody waits for it where the store was closed.
    };
    shared.segments.rt.spawn(made).detach();
    receiver
}
