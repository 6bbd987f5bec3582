//! How long a client's command is tried, and which refusals are worth another try.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use quorate::rt::Instant;
use quorate::{LocalRaft, Metrics, Network, ReadError, WriteError};

use crate::alarm::Alarm;
use crate::map::drop_in_turns;
use crate::read::Read;
use crate::reply::Reply;
use crate::server::Server;
use crate::store::Store;
use crate::write::Writes;

/// The pause before a refused command is tried again, and the longest that it doubles to.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a long read may take, once it is its turn: others wait for theirs.
const WALKS_FOR: Duration = Duration::from_secs(4);

/// From one part of a long read to the next. A pause and not only a turn for others: some runtimes
/// look for what has arrived from the network when nothing is runnable, or after many turns.
const WALK_PAUSE: Duration = Duration::from_millis(1);

/// Tries commands, one at a time, for one connection.
///
/// A command waits for a leader, and for another attempt after one that had no effect, until its
/// patience is over: a request timeout of the node. Then it is refused, with certainty. An attempt
/// that has begun is awaited to its end: the node answers each within a request timeout, unless it
/// gets on with what came before, and knows which writes have certainly had no effect.
pub(crate) struct Attempts<R: Network> {
    server: Rc<Server<R>>,
    deadline: Instant,
    alarm: Alarm<R>,
}

/// Why an attempt failed, and whether another may be made: only where this one has had no effect.
struct Failure {
    again: bool,
    text: String,
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let again = matches!(error, WriteError::NotLeader { .. } | WriteError::Busy);
        let word = match error {
            WriteError::Command(_) => "ERR",
            // The word of Redis where it takes no writes because it can't persist them.
            WriteError::StorageFull => "MISCONF",
            _ => "CLUSTERDOWN",
        };
        Self { again, text: format!("{word} {error}") }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let again = matches!(error, ReadError::NotLeader { .. } | ReadError::Busy);
        Self { again, text: format!("CLUSTERDOWN {error}") }
    }
}

impl<R: Network> Attempts<R> {
    pub(crate) fn new(server: &Rc<Server<R>>) -> Self {
        let server = Rc::clone(server);
        Self { deadline: server.rt.now(), alarm: Alarm::new(server.rt.clone()), server }
    }

    /// Commands have arrived: they have a patience from now, and again from each success. So a long
    /// pipeline may take its time while it gets on, and is answered soon when it doesn't.
    pub(crate) fn begin(&mut self) {
        self.deadline = self.now() + self.server.patience.get();
    }

    fn now(&self) -> Instant {
        self.server.rt.now()
    }

    /// Replicates writes and gives a reply for each, or an error that answers all of them.
    pub(crate) async fn write(&mut self, writes: Writes) -> Result<Vec<Reply>, Reply> {
        self.attempt(|raft| raft.write(writes.clone())).await
    }

    /// Gives a reply for each of the first reads, or an error that answers all of them; and the
    /// reads that are left.
    pub(crate) async fn read(
        &mut self,
        reads: Vec<Read>,
    ) -> (Vec<Read>, Result<Vec<Reply>, Reply>) {
        let shared = Rc::new(reads);
        let time = Rc::clone(&self.server.thread_time);
        let result = self
            .attempt(|raft| {
                let (reads, time) = (Rc::clone(&shared), Rc::clone(&time));
                raft.read(move |store| time.measure(|| store.read(&reads)))
            })
            .await;
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
        let turn = self.alarm.until(self.deadline, self.server.long_reads.turn()).await;
        // It may have come together with the deadline.
        let Some(turn) = turn.filter(|_| self.now() < self.deadline) else {
            return Err(Reply::error(
                "BUSY too many long reads wait on this node (KEYS, SCAN, MGET, EXISTS), try again later",
            ));
        };
        // What it has waited for the others is not taken from its own time.
        self.begin();
        let view = self.attempt(|raft| raft.read(|store| store.values.clone())).await?;
        let rt = self.server.rt.clone();
        let answer = read.in_parts(&view, async || rt.sleep(WALK_PAUSE).await);
        let answer = self.alarm.within(WALKS_FOR, answer).await;
        drop_in_turns(view.into_parts()).await;
        drop(turn);
        self.begin();
        Ok(answer.unwrap_or_else(|| read.takes_too_long()))
    }

    async fn attempt<T, E, F>(&mut self, start: impl Fn(&LocalRaft<Store>) -> F) -> Result<T, Reply>
    where
        F: Future<Output = Result<T, E>>,
        Failure: From<E>,
    {
        if self.now() >= self.deadline {
            return Err(Reply::error(
                "CLUSTERDOWN a command before this one was not answered in time",
            ));
        }
        let mut pause = FIRST_PAUSE;
        loop {
            // What is not proposed before there is a leader is refused with certainty.
            if self.is_outside() || !self.has_leader().await {
                let why = match &*self.server.waits_to_join.borrow() {
                    Some(waits) => waits.clone(),
                    None => self.server.metrics.borrow().hindrance().to_string(),
                };
                let text = format!("CLUSTERDOWN no leader, nothing was executed: {why}");
                return Err(Reply::error(text));
            }
            let failure = match start(&self.server.raft).await {
                Ok(value) => {
                    self.begin();
                    return Ok(value);
                }
                Err(error) => Failure::from(error),
            };
            if !failure.again || self.now() + pause >= self.deadline {
                return Err(Reply::error(failure.text));
            }
            self.server.rt.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether this node takes part in no cluster, so that it is of no use to wait.
    fn is_outside(&self) -> bool {
        self.server.metrics.borrow().removed || self.server.waits_to_join.borrow().is_some()
    }

    /// Waits until a leader is known, or until the node can say itself why there will be none.
    /// False: not before the deadline.
    async fn has_leader(&mut self) -> bool {
        let is_known = |metrics: &Metrics| metrics.leader.is_some() || !metrics.state.is_running();
        if is_known(&self.server.metrics.borrow()) {
            return true;
        }
        let mut metrics = self.server.metrics.clone();
        // It is an error where the node has ended.
        self.alarm.until(self.deadline, metrics.wait_for(is_known)).await.is_some()
    }
}
