//! How long a client's command is tried, and which refusals are worth another try.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use quorate::rt::Instant;
use quorate::rt::channel::watch;
use quorate::{AsyncRuntime, LocalRaft, Metrics, ReadError, WriteError};

use crate::map::drop_in_turns;
use crate::read::Read;
use crate::reply::Reply;
use crate::store::Store;
use crate::walks::Walks;
use crate::write::Writes;

/// How long a command is tried before it is answered with an error. An election takes less, usually, and clients
/// are promised an answer within 5 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// The pause before a refused command is tried again, and the longest that it doubles to.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// From one part of a long read to the next. A pause and not only a turn for others: some runtimes
/// look for what has arrived from the network when nothing is runnable, or after many turns.
const WALK_PAUSE: Duration = Duration::from_millis(1);

/// Tries commands, one at a time, for one connection.
pub(crate) struct Attempts<R: AsyncRuntime> {
    rt: R,
    raft: LocalRaft<Store>,
    metrics: watch::Receiver<Metrics>,
    walks: Rc<Walks>,
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
    pub(crate) fn new(rt: R, raft: LocalRaft<Store>, walks: Rc<Walks>) -> Self {
        let metrics = raft.metrics();
        Self { deadline: rt.now(), rt, raft, metrics, walks, alarm: None }
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
        let result = match (result, reads.first()) {
            (Ok(replies), Some(first)) if replies.is_empty() => {
                // An error of it is no error of the others.
                Ok(vec![self.walk(first).await.unwrap_or_else(|error| error)])
            }
            (result, _) => result,
        };
        if let Ok(replies) = &result {
            reads.drain(..replies.len());
        }
        (reads, result)
    }

    /// Answers a long read: when it is its turn, from a view of the state.
    async fn walk(&mut self, read: &Read) -> Result<Reply, Reply> {
        let deadline = self.deadline;
        let walks = Rc::clone(&self.walks);
        let turn = self.until_deadline(walks.turn()).await;
        // It may have come together with the deadline.
        let Some(turn) = turn.filter(|_| self.rt.now() < deadline) else {
            return Err(Reply::error(
                "BUSY too many long reads wait on this node (KEYS, SCAN, MGET, EXISTS), try again later",
            ));
        };
        let late = "CLUSTERDOWN no leader confirmed the read in time";
        let view = self.attempt(late, |raft| raft.read(|store| store.values.clone())).await?;
        // That the view was had is no answer yet.
        self.deadline = deadline;
        let rt = self.rt.clone();
        let answer = read.in_parts(&view, async || rt.sleep(WALK_PAUSE).await);
        let answer = self.until_deadline(answer).await;
        drop_in_turns(view.into_parts()).await;
        drop(turn);
        self.begin();
        Ok(answer.unwrap_or_else(|| read.takes_too_long()))
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
            // What is not proposed before there is a leader is refused with certainty.
            if !self.has_leader().await {
                let why = self.metrics.borrow().hindrance();
                let text = format!("CLUSTERDOWN no leader, nothing was executed: {why}");
                return Err(Reply::error(text));
            }
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

    /// Waits until a leader is known, or until the node can say itself why there will be none.
    /// False: not before the deadline.
    async fn has_leader(&mut self) -> bool {
        let is_known = |metrics: &Metrics| metrics.leader.is_some() || metrics.fatal.is_some();
        if is_known(&self.metrics.borrow()) {
            return true;
        }
        let mut metrics = self.metrics.clone();
        // It is an error where the node has ended.
        self.until_deadline(metrics.wait_for(is_known)).await.is_some()
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
