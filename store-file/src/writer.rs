//! The task that writes: one batch after the other, each written, synced, and only then reported.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quorate_core::plant;
use quorate_core::{Completion, StoreError};
use quorate_rt::channel::oneshot;
use quorate_rt::{File, Files, Instant, Task};
use tracing::{info, warn};

use crate::batch::Batch;
use crate::cleaning::clean;
use crate::format::Position;
use crate::record;
use crate::recovery::Found;
use crate::segment::failed;
use crate::store::Shared;
use crate::trash::sweep;
use crate::waiting::{RESERVE_BYTES, Unreported, is_full};

/// How long nothing must be written before the last batch gets its sync marker. Under load there
/// are no sync markers, and they cost nothing; but it is short beside the seconds after which the
/// system writes out what it keeps in memory.
const SYNC_MARKER_PAUSE: Duration = Duration::from_millis(10);

/// How long the writer waits before it tries again to find space: short beside what an operator
/// takes to make some, long beside the system calls.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Writer<R: Files> {
    shared: Rc<Shared<R>>,
    segment: u32,
    file: Rc<R::File>,
    /// The length that the segment was made with.
    room: u64,
    /// The segment after it. None while the disk is full: then it is made when there is space.
    next: Option<Next<R::File>>,
    /// When it is tried again to make that.
    retry_at: Instant,
    /// The end of the last batch, if that is durable and still without a sync marker. The lock is
    /// not free until it has one.
    unmarked: Option<(Position, Rc<R::FileLock>)>,
}

/// A segment that is made in the background, and its length.
type Next<F> = oneshot::Receiver<Result<(Rc<F>, u64), StoreError>>;

/// Why a batch was not written.
enum Unwritten {
    /// There is no space for its segment. Nothing of it was written.
    NoSpace(StoreError, Batch),
    Failed(StoreError, Vec<Completion>),
}

/// What the writer is to do.
enum Turn<L> {
    /// Writing; the lock is not free meanwhile.
    Write(Batch, L),
    /// Telling those who wait for space, before anything goes ahead of them.
    Report(Unreported),
    /// Looking whether there is space again; the lock is not free meanwhile.
    Retry(L),
    /// Removing what is not needed any more.
    Sweep(L),
    /// Copying what is needed in old segments, so that these can go.
    Clean,
    /// Nothing has come for a while.
    Idle,
    /// The store is closed.
    Closed,
}

impl<R: Files> Writer<R> {
    /// Starts it, at the end of the log. It ends by itself when the store is closed or has failed.
    pub(crate) fn start(shared: Rc<Shared<R>>, found: Found<R::File>) {
        let Some(lock) = shared.lock.borrow().clone() else { return };
        let room = found.room();
        let Found { end, file, sync_marker, .. } = found;
        let segment = end.segment;
        let is_full = shared.state.borrow().waiting.is_some();
        let next = (!is_full).then(|| prepare(&shared, segment + 1, Rc::clone(&lock)));
        let rt = shared.segments.rt.clone();
        let retry_at = rt.now() + SPACE_PAUSE;
        let unmarked = (!sync_marker).then_some((end, lock));
        let writer = Self { shared, segment, file, room, next, retry_at, unmarked };
        // An operation that has begun ends, whatever becomes of the store; until then the task
        // holds the lock.
        rt.spawn(writer.run()).detach();
    }

    async fn run(mut self) {
        loop {
            let (batch, lock) = match self.turn().await {
                Turn::Write(batch, lock) => (batch, lock),
                Turn::Report(unreported) => {
                    unreported.iter().for_each(|(_, done)| done.delayed());
                    let mut state = self.shared.state.borrow_mut();
                    let dropped = match &mut state.waiting {
                        Some(waiting) => waiting.put_back(unreported),
                        None => unreported,
                    };
                    drop(state);
                    drop(dropped); // Their completions tell; not while something is borrowed.
                    continue;
                }
                Turn::Retry(lock) => match self.retry(lock).await {
                    Ok(()) => continue,
                    Err(cause) => return self.shared.fail(&cause),
                },
                Turn::Sweep(lock) => {
                    sweep(&self.shared, lock);
                    continue;
                }
                Turn::Clean => {
                    clean(&self.shared);
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
            let end = batch.end;
            match self.write(batch, &lock).await {
                Ok(done) => {
                    self.unmarked = Some((end, lock));
                    self.shared.state.borrow_mut().wrote(end);
                    plant!(R10, done = done.into_iter().rev().collect::<Vec<_>>());
                    for done in done {
                        done.complete(Ok(()));
                    }
                }
                Err(Unwritten::NoSpace(cause, batch)) => {
                    warn!(%cause, "the disk is full: entries of the log wait until there is space");
                    self.retry_at = self.shared.segments.rt.now() + SPACE_PAUSE;
                    let dropped = self.shared.state.borrow_mut().begin_to_wait(batch, self.room);
                    drop(dropped); // Their completions tell; not while something is borrowed.
                }
                Err(Unwritten::Failed(cause, done)) => {
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
        let pause =
            self.unmarked.as_ref().map(|_| self.shared.segments.rt.sleep(SYNC_MARKER_PAUSE));
        let mut pause = pin!(pause);
        let is_full = self.shared.state.borrow().waiting.is_some();
        let retry = is_full.then(|| self.shared.segments.rt.sleep_until(self.retry_at));
        let mut retry = pin!(retry);
        let mut again = pin!(None);
        poll_fn(|context| {
            let Some(lock) = self.shared.lock.borrow().clone() else {
                return Poll::Ready(Turn::Closed);
            };
            let mut state = self.shared.state.borrow_mut();
            let rt = &self.shared.segments.rt;
            if state.trash.is_due(state.durable, rt.now()) {
                return Poll::Ready(Turn::Sweep(lock));
            }
            if state.cleaning.is_due() {
                return Poll::Ready(Turn::Clean);
            }
            if let Some(waiting) = &mut state.waiting
                && waiting.has_untold()
            {
                return Poll::Ready(Turn::Report(waiting.take_unreported()));
            }
            if let Some(batch) = state.batches.take() {
                return Poll::Ready(Turn::Write(batch, lock));
            }
            if !state.settling.is_empty() {
                return Poll::Ready(Turn::Idle);
            }
            state.writer = Some(context.waker().clone());
            if let Some(waiting) = &mut state.waiting {
                let due = retry.as_mut().as_pin_mut().is_some_and(|at| at.poll(context).is_ready());
                if mem::take(&mut waiting.freed) || due {
                    return Poll::Ready(Turn::Retry(lock));
                }
            }
            if let Some(at) = state.trash.again_at() {
                if again.is_none() {
                    again.set(Some(rt.sleep_until(at)));
                }
                if again.as_mut().as_pin_mut().is_some_and(|at| at.poll(context).is_ready()) {
                    return Poll::Ready(Turn::Sweep(lock));
                }
            }
            match pause.as_mut().as_pin_mut() {
                Some(pause) => pause.poll(context).map(|()| Turn::Idle),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Writes a sync marker of the last batch; see the format. Where that fails nothing is lost:
    /// nobody was told of it, and what is written next covers it.
    async fn testify(&mut self) {
        let Some((end, lock)) = self.unmarked.take() else { return };
        assert_eq!(end.segment, self.segment);
        let record = record::sync_marker(self.shared.store, end);
        if let Err(error) = self.file.write_all_at(vec![record], end.offset).await {
            warn!(%error, "the last batch of the log has no sync marker");
        }
        drop(lock);
    }

    async fn write(
        &mut self,
        batch: Batch,
        lock: &Rc<R::FileLock>,
    ) -> Result<Vec<Completion>, Unwritten> {
        let Position { segment, offset } = batch.start;
        if segment != self.segment {
            assert_eq!(segment, self.segment + 1);
            match self.next_segment(segment, batch.end, lock).await {
                Ok(()) => {}
                // What goes into the reserve takes no space.
                Err(cause) if is_full(&cause) && !self.is_waiting() => {
                    return Err(Unwritten::NoSpace(cause, batch));
                }
                Err(cause) => return Err(Unwritten::Failed(cause, batch.done)),
            }
        }
        let Batch { chunks, done, .. } = batch;
        plant!(
            D5,
            chunks = {
                let _ = self.file.write_all_at(chunks, offset).await;
                Vec::new()
            }
        );
        let written = self.file.write_durably_at(chunks, offset).await;
        plant!(D3, written = if written.is_ok() { written } else { self.file.sync_data().await });
        // Also for lack of space; see `FileStore`.
        match written {
            Ok(()) => Ok(done),
            Err(error) => {
                let path = self.shared.segments.path(segment);
                Err(Unwritten::Failed(failed("writing", &path, error), done))
            }
        }
    }

    /// Goes on to a segment whose first batch ends at `end`.
    async fn next_segment(
        &mut self,
        segment: u32,
        end: Position,
        lock: &Rc<R::FileLock>,
    ) -> Result<(), StoreError> {
        let Shared { segments, store, config, state, .. } = &*self.shared;
        if state.borrow().waiting.is_some() {
            // What goes ahead while the disk is full goes into the reserve.
            let (file, bytes) = segments.use_reserve(*store, segment).await?;
            (self.file, self.segment, self.room, self.next) = (file, segment, bytes, None);
            state.borrow_mut().begins_segment(segment, bytes);
            return Ok(());
        }
        let made = match self.next.take() {
            Some(next) => next.await.ok().and_then(Result::ok),
            None => None,
        };
        let (file, bytes) = match made {
            Some((file, bytes)) if end.offset <= bytes => (file, bytes),
            // What has been removed since may have made room; or the record needs a larger one in
            // its place.
            too_short => {
                let bytes = config.segment_bytes.max(end.offset);
                let created = segments.create(*store, segment, bytes).await;
                if created.is_err() && too_short.is_some() {
                    // The larger one may need its space. If it stays, an opening removes it.
                    drop(segments.remove(segment).await);
                }
                (created?, bytes)
            }
        };
        (self.file, self.segment, self.room) = (file, segment, bytes);
        state.borrow_mut().begins_segment(segment, bytes);
        self.next = Some(prepare(&self.shared, segment + 1, Rc::clone(lock)));
        Ok(())
    }

    fn is_waiting(&self) -> bool {
        self.shared.state.borrow().waiting.is_some()
    }

    /// Looks whether there is space again: for the reserve, if that was used, and for the next
    /// segment. If there is, all that waits goes on.
    ///
    /// Errors: something else is wrong with the disk.
    async fn retry(&mut self, lock: Rc<R::FileLock>) -> Result<(), StoreError> {
        let Shared { segments, store, config, state, .. } = &*self.shared;
        self.retry_at = segments.rt.now() + SPACE_PAUSE;
        let reserve = state.borrow().reserve;
        if reserve.is_none() {
            let bytes = RESERVE_BYTES.min(config.segment_bytes);
            match segments.make_reserve(bytes).await {
                Ok(()) => state.borrow_mut().reserve = Some(bytes),
                Err(cause) if is_full(&cause) => return Ok(()),
                Err(cause) => return Err(cause),
            }
        }
        let reserve = state.borrow().reserve;
        let bytes = state.borrow_mut().first_bytes().max(config.segment_bytes);
        let file = match segments.create(*store, self.segment + 1, bytes).await {
            Ok(file) => file,
            Err(cause) if is_full(&cause) => return Ok(()),
            Err(cause) => return Err(cause),
        };
        let (sender, next) = oneshot::channel();
        let _it_is_received = sender.send(Ok((file, bytes)));
        self.next = Some(next);
        let mut state = state.borrow_mut();
        // What was to make a segment of it meanwhile goes into this one.
        state.reserve = reserve;
        state.end_to_wait();
        drop(state);
        drop(lock);
        info!("there is space on the disk again: the log goes on");
        Ok(())
    }
}

/// Makes a segment in the background, so that it is there before the one before it is full.
fn prepare<R: Files>(shared: &Rc<Shared<R>>, segment: u32, lock: Rc<R::FileLock>) -> Next<R::File> {
    let (sender, receiver) = oneshot::channel();
    let task = Rc::clone(shared);
    let made = async move {
        let made = task.segments.create(task.store, segment, task.config.segment_bytes).await;
        drop(lock);
        let made = made.map(|file| (file, task.config.segment_bytes));
        if let Err(cause) = &made
            && !task.fail_without_folder()
        {
            warn!(
                %cause,
                "the next segment of the log can't be made; if it still can't when this one is \
                 full, entries wait until there is space"
            );
        }
        let _ = sender.send(made); // Nobody waits for it where the store was closed.
    };
    shared.segments.rt.spawn(made).detach();
    receiver
}
