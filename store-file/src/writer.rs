//! The task that writes: one batch after the other, each written, synced, and only then reported.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quorate_core::StoreError;
use quorate_rt::channel::oneshot;
use quorate_rt::planted::{Bug, planted};
use quorate_rt::{AsyncRuntime, File, Task};
use tracing::warn;

use crate::batch::Batch;
use crate::format::Position;
use crate::record;
use crate::recovery::Found;
use crate::segment::failed;
use crate::store::Shared;
use crate::trash::sweep;

/// How long nothing must be written before the last batch gets its witness. Under load there are no
/// witnesses, and they cost nothing; but it is short beside the seconds after which the system
/// writes out what it keeps in memory.
const WITNESS_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Writer<R: AsyncRuntime> {
    shared: Rc<Shared<R>>,
    segment: u32,
    file: Rc<R::File>,
    /// The segment after it.
    next: oneshot::Receiver<Result<Rc<R::File>, StoreError>>,
    /// The end of the last batch, if that is durable and still without a witness. The lock is not
    /// free until it has one.
    unwitnessed: Option<(Position, Rc<R::FileLock>)>,
}

/// What the writer is to do.
enum Turn<L> {
    /// Writing; the lock is not free meanwhile.
    Write(Batch, L),
    /// Removing what is not needed any more.
    Sweep(L),
    /// Nothing has come for a while.
    Idle,
    /// The store is closed.
    Closed,
}

impl<R: AsyncRuntime> Writer<R> {
    /// Starts it, at the end of the log. It ends by itself when the store is closed or has failed.
    pub(crate) fn start(shared: Rc<Shared<R>>, found: Found<R::File>) {
        let Some(lock) = shared.lock.borrow().clone() else { return };
        let Found { end, file, witness, .. } = found;
        let segment = end.segment;
        let next = prepare(&shared, segment + 1, Rc::clone(&lock));
        let rt = shared.segments.rt.clone();
        let unwitnessed = (!witness).then_some((end, lock));
        let writer = Self { shared, segment, file, next, unwitnessed };
        // An operation that has begun ends, whatever becomes of the store; until then the task
        // holds the lock.
        rt.spawn(writer.run()).detach();
    }

    async fn run(mut self) {
        loop {
            let (batch, lock) = match self.turn().await {
                Turn::Write(batch, lock) => (batch, lock),
                Turn::Sweep(lock) => {
                    sweep(&self.shared, lock);
                    continue;
                }
                Turn::Idle => {
                    let settling = mem::take(&mut self.shared.state.borrow_mut().settling);
                    self.testify().await;
                    for waits in settling {
                        let _it_may_wait_no_more = waits.send(());
                    }
                    continue;
                }
                Turn::Closed => return self.testify().await,
            };
            let Batch { start, end, chunks, mut done } = batch;
            let written = self.write(start, end, chunks, &lock).await;
            self.unwitnessed = written.is_ok().then_some((end, lock));
            match written {
                Ok(()) => {
                    self.shared.state.borrow_mut().wrote(end);
                    if planted(Bug::R10) {
                        done.reverse();
                    }
                    for done in done {
                        done.complete(Ok(()));
                    }
                }
                Err(cause) => {
                    for done in done {
                        done.complete(Err(cause.clone()));
                    }
                    return self.shared.fail(&cause);
                }
            }
        }
    }

    /// Waits for something to do.
    async fn turn(&self) -> Turn<Rc<R::FileLock>> {
        let pause = self.unwitnessed.as_ref().map(|_| self.shared.segments.rt.sleep(WITNESS_PAUSE));
        let mut pause = pin!(pause);
        poll_fn(|context| {
            let Some(lock) = self.shared.lock.borrow().clone() else {
                return Poll::Ready(Turn::Closed);
            };
            let mut state = self.shared.state.borrow_mut();
            if state.trash.is_due(state.durable) {
                return Poll::Ready(Turn::Sweep(lock));
            }
            if let Some(batch) = state.batches.take() {
                return Poll::Ready(Turn::Write(batch, lock));
            }
            if !state.settling.is_empty() {
                return Poll::Ready(Turn::Idle);
            }
            state.writer = Some(context.waker().clone());
            match pause.as_mut().as_pin_mut() {
                Some(pause) => pause.poll(context).map(|()| Turn::Idle),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Writes a witness of the last batch; see the format. Where that fails nothing is lost: nobody
    /// was told of it, and what is written next covers it.
    async fn testify(&mut self) {
        let Some((end, lock)) = self.unwitnessed.take() else { return };
        assert_eq!(end.segment, self.segment);
        let record = record::witness(self.shared.store, end);
        if let Err(error) = self.file.write_all_at(vec![record], end.offset).await {
            warn!(%error, "the last batch of the log has no witness");
        }
        drop(lock);
    }

    async fn write(
        &mut self,
        start: Position,
        end: Position,
        chunks: Vec<bytes::Bytes>,
        lock: &Rc<R::FileLock>,
    ) -> Result<(), StoreError> {
        let Position { segment, offset } = start;
        if segment != self.segment {
            assert_eq!(segment, self.segment + 1);
            let Shared { segments, store, config, .. } = &*self.shared;
            self.file = match (&mut self.next).await {
                Ok(Ok(file)) if end.offset <= config.segment_bytes => file,
                // What has been removed since may have made room; or the record needs a larger one
                // in its place.
                _ => segments.create(*store, segment, config.segment_bytes.max(end.offset)).await?,
            };
            self.segment = segment;
            self.next = prepare(&self.shared, segment + 1, Rc::clone(lock));
        }
        let mut written = if planted(Bug::D5) {
            let _ = self.file.write_all_at(chunks, offset).await;
            self.file.sync_data().await
        } else {
            self.file.write_durably_at(chunks, offset).await
        };
        if planted(Bug::D3) && written.is_err() {
            written = self.file.sync_data().await;
        }
        written.map_err(|error| failed("writing", &self.shared.segments.path(segment), error))
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
        if let Err(cause) = &made
            && !task.fail_without_folder()
        {
            warn!(
                %cause,
                "the next segment of the log can't be made; if it still can't when this one is \
                 full, the log fails"
            );
        }
        let _ = sender.send(made); // Nobody waits for it where the store was closed.
    };
    shared.segments.rt.spawn(made).detach();
    receiver
}
