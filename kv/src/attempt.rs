//! How long a client's command is tried, and which refusals are worth another try.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use quorate::rt::Instant;
use quorate::{AsyncRuntime, LocalRaft, ReadError, WriteError};

use crate::reply::Reply;
use crate::store::{Read, Store};
use crate::write::Writes;

/// How long a command is tried before it is answered with an error. An election takes less, usually, and clients
/// are promised an answer within 5 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// The pause before a refused command is tried again, and the longest that it doubles to.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Tries commands, one at a time, for one connection.
pub(crate) struct Attempts<R: AsyncRuntime> {
    rt: R,
    raft: LocalRaft<Store>,
    deadline: Instant,
    /// Ends at some deadline, perhaps an earlier command's. A busy connection arms one each [`PATIENCE`], not one a command.
    alarm: Option<Pin<Box<R::Sleep>>>,
}

/// Why an attempt failed, and whether another may be made: only where this one has had no effect.
struct Failure {
    again: bool,
    text: String,
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let again = matches!(error, WriteError::NotLeader { .. } | WriteError::Busy);
        let word = if matches!(error, WriteError::Command(_)) { "ERR" } else { "CLUSTERDOWN" };
        Self { again, text: format!("{word} {error}") }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let again = matches!(error, ReadError::NotLeader { .. } | ReadError::Busy);
        Self { again, text: format!("CLUSTERDOWN {error}") }
    }
}

impl<R: AsyncRuntime> Attempts<R> {
    pub(crate) fn new(rt: R, raft: LocalRaft<Store>) -> Self {
        Self { deadline: rt.now(), rt, raft, alarm: None }
    }

    /// Commands have arrived: they have [`PATIENCE`] from now, and again from each success. So a long pipeline may take its
    /// time while it gets on, and is answered soon when it doesn't.
    pub(crate) fn begin(&mut self) {
        self.deadline = self.rt.now() + PATIENCE;
    }

    /// Replicates writes and gives a reply for each, or an error that answers all of them.
    pub(crate) async fn write(&mut self, writes: Writes) -> Result<Vec<Reply>, Reply> {
        let late = "CLUSTERDOWN the outcome of the write is unknown: no answer in time";
        self.attempt(late, |raft| raft.write(writes.clone())).await
    }

    /// Gives a reply for each of the first reads, or an error that answers all of them; and the reads that are left.
    pub(crate) async fn read(
        &mut self,
        reads: Vec<Read>,
    ) -> (Vec<Read>, Result<Vec<Reply>, Reply>) {
        let shared = Rc::new(reads);
        let result = self
            .attempt("CLUSTERDOWN no leader confirmed the read in time", |raft| {
                let reads = Rc::clone(&shared);
                raft.read(move |store| store.read(&reads))
            })
            .await;
        // An attempt that was given up may still hold them.
        let mut reads = Rc::try_unwrap(shared).unwrap_or_else(|shared| shared.to_vec());
        if let Ok(replies) = &result {
            reads.drain(..replies.len());
        }
        (reads, result)
    }

    async fn attempt<T, E, F>(
        &mut self,
        late: &'static str,
        start: impl Fn(&LocalRaft<Store>) -> F,
    ) -> Result<T, Reply>
    where
        F: Future<Output = Result<T, E>>,
        Failure: From<E>,
    {
        if self.rt.now() >= self.deadline {
            return Err(Reply::error(
                "CLUSTERDOWN a command before this one was not answered in time",
            ));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let outcome = start(&self.raft);
            let failure = match self.until_deadline(outcome).await {
                Some(Ok(value)) => {
                    self.begin();
                    return Ok(value);
                }
                Some(Err(error)) => Failure::from(error),
                None => return Err(Reply::error(late)),
            };
            if !failure.again || self.rt.now() + pause >= self.deadline {
                return Err(Reply::error(failure.text));
            }
            self.rt.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The future's result, or none once the deadline has passed. (The future is no I/O: it waits for a reply within this thread.)
    async fn until_deadline<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            let (rt, deadline) = (&self.rt, self.deadline);
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(rt.sleep_until(deadline)));
            match select(future.as_mut(), alarm.as_mut()).await {
                Either::Left((output, _)) => return Some(output),
                Either::Right(_) => self.alarm = None,
            }
            if self.rt.now() >= self.deadline {
                return None;
            }
        }
    }
}
