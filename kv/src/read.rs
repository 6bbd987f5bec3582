//! What is read from the keys and values, at once or in parts.
//!
//! A read that looks at few keys is answered in one go. A longer one is answered from a view of the
//! state, a part at a time, so that the node and all other clients have their turns in between; and
//! for all connections of a node it is one such read at a time ([`Queue`](crate::queue::Queue)).

use std::future::pending;

use bytes::Bytes;
use futures::FutureExt;

use crate::glob::Matching;
use crate::map::Map;
use crate::reply::{Bulks, Reply};
use crate::store::integer;

/// The longest answer to a read of many keys, in bytes. It is bounded by the values there are, not
/// by the request: one of 16 MiB could ask for the same value many thousand times.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The answers to a run of reads end once they hold this much, in bytes: then those are sent before
/// the rest are read. A SCAN ends with it, too.
const ANSWERS_BYTES: usize = 1 << 20;

/// What looking at a key takes, in the steps of a pattern: some 100 ns against a few.
const KEY_STEPS: usize = 16;

/// The steps of a run of reads that is answered at once, and of a part of a longer one: some 300
/// µs, in which the node's thread does nothing else.
const PART_STEPS: usize = 1 << 15;

/// A SCAN ends once it has taken so many steps: 65,536 keys.
const SCAN_STEPS: usize = 1 << 20;

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// GET.
    Get(Bytes),
    /// MGET.
    GetMany(Vec<Bytes>),
    /// EXISTS.
    Exists(Vec<Bytes>),
    /// DBSIZE.
    Count,
    /// STRLEN.
    Length(Bytes),
    /// TYPE.
    Type(Bytes),
    /// KEYS, with its pattern, if not all are wanted.
    Keys(Option<Bytes>),
    /// SCAN.
    Scan(Scan),
}

/// What a SCAN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The position to begin at; see [`Key`](crate::key::Key).
    pub(crate) cursor: u64,
    /// How many keys to look at.
    pub(crate) count: usize,
    pub(crate) pattern: Option<Bytes>,
    /// Whether strings are wanted, which all values are.
    pub(crate) strings: bool,
}

/// What reads have taken so far, and what happens between two parts of them.
struct Work<F> {
    /// Since the last pause.
    steps: usize,
    /// In all.
    all_steps: usize,
    /// What their answers hold.
    bytes: usize,
    pause: F,
}

impl<F: AsyncFnMut()> Work<F> {
    fn new(pause: F) -> Self {
        Self { steps: 0, all_steps: 0, bytes: 0, pause }
    }

    async fn take(&mut self, steps: usize) {
        self.steps += steps;
        self.all_steps += steps;
        if self.steps >= PART_STEPS {
            (self.pause)().await;
            self.steps = 0;
        }
    }

    async fn matches(&mut self, pattern: Option<&[u8]>, key: &[u8]) -> bool {
        self.take(KEY_STEPS).await;
        let Some(pattern) = pattern else { return true };
        let mut matching = Matching::new(pattern, key);
        loop {
            let room = PART_STEPS - self.steps;
            let mut left = room;
            let matched = matching.go_on(&mut left);
            self.take(room - left).await;
            if let Some(matched) = matched {
                return matched;
            }
        }
    }
}

/// The answers to the first reads, in order: to as many as make up [`ANSWERS_BYTES`] or
/// [`PART_STEPS`]. None: already the first takes longer, and is to be answered [in
/// parts](Read::in_parts).
pub(crate) fn at_once(reads: &[Read], values: &Map) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(reads.len());
    let mut work = Work::new(async || pending().await);
    for read in reads {
        if work.bytes >= ANSWERS_BYTES || read.least_steps(values) > PART_STEPS {
            break;
        }
        let Some(reply) = read.answer(values, &mut work).now_or_never() else { break };
        replies.push(reply);
    }
    replies
}

/// The value of a key.
pub(crate) fn get(values: &Map, key: &[u8]) -> Reply {
    values.get(key).map_or(Reply::Null, |value| Reply::Bulk(value.clone()))
}

impl Read {
    /// The answer. `pause` is awaited between two parts of some 300 µs.
    pub(crate) async fn in_parts(&self, values: &Map, pause: impl AsyncFnMut()) -> Reply {
        self.answer(values, &mut Work::new(pause)).await
    }

    /// The error for a client that has waited long enough for an answer in parts.
    pub(crate) fn takes_too_long(&self) -> Reply {
        Reply::error(match self {
            Self::Keys(_) => "ERR too many keys or too long a pattern for KEYS; use SCAN",
            Self::Scan(_) => "ERR too long a pattern for the keys at this cursor",
            _ => "ERR too many keys to be read in time",
        })
    }

    /// What it takes whatever the patterns and the keys are: no need to try it if that is too much.
    fn least_steps(&self, values: &Map) -> usize {
        let keys = match self {
            Self::GetMany(keys) | Self::Exists(keys) => keys.len(),
            Self::Keys(_) => values.len(),
            _ => 1,
        };
        keys.saturating_mul(KEY_STEPS)
    }

    async fn answer<F: AsyncFnMut()>(&self, values: &Map, work: &mut Work<F>) -> Reply {
        work.take(KEY_STEPS).await;
        match self {
            Self::Get(key) => {
                let reply = get(values, key);
                work.bytes += size(&reply);
                reply
            }
            Self::GetMany(keys) => {
                let mut replies = Vec::with_capacity(keys.len());
                let mut bytes = 0;
                for key in keys {
                    let reply = get(values, key);
                    bytes += size(&reply);
                    if bytes > MAX_ANSWER_BYTES {
                        return answer_too_long();
                    }
                    replies.push(reply);
                    work.take(KEY_STEPS).await;
                }
                work.bytes += bytes;
                Reply::Array(replies)
            }
            Self::Exists(keys) => {
                let mut there = 0;
                for key in keys {
                    there += usize::from(values.get(key).is_some());
                    work.take(KEY_STEPS).await;
                }
                integer(there)
            }
            Self::Count => integer(values.len()),
            Self::Length(key) => integer(values.get(key).map_or(0, Bytes::len)),
            Self::Type(key) => {
                let there = values.get(key).is_some();
                Reply::Status(if there { "string" } else { "none" })
            }
            Self::Keys(pattern) => {
                let mut found = Bulks::default();
                for (key, _) in values.range_from(0) {
                    if work.matches(pattern.as_deref(), &key.bytes).await {
                        found.push(&key.bytes);
                        if found.bytes() > MAX_ANSWER_BYTES {
                            return answer_too_long();
                        }
                    }
                }
                work.bytes += found.bytes();
                found.finish()
            }
            Self::Scan(scan) => scan.answer(values, work).await,
        }
    }
}

impl Scan {
    /// Keys from a position on, and the position of the first that was not looked at; 0 where there
    /// is none.
    async fn answer<F: AsyncFnMut()>(&self, values: &Map, work: &mut Work<F>) -> Reply {
        let begin = work.all_steps;
        let mut found = Bulks::default();
        let mut position = self.cursor;
        let mut next = 0;
        let keys = values.range_from(self.cursor).map(|(key, _)| key);
        for (looked_at, key) in keys.enumerate() {
            let is_enough = looked_at >= self.count
                || found.bytes() >= ANSWERS_BYTES
                || work.all_steps - begin >= SCAN_STEPS;
            // Between two keys of one position there is no place for a cursor.
            if key.position != position && is_enough {
                next = key.position;
                break;
            }
            position = key.position;
            if work.matches(self.pattern.as_deref(), &key.bytes).await && self.strings {
                found.push(&key.bytes);
            }
        }
        work.bytes += found.bytes();
        Reply::Array(vec![Reply::bulk(next.to_string()), found.finish()])
    }
}

fn answer_too_long() -> Reply {
    Reply::error("ERR answer exceeds 64 MiB")
}

/// What a reply costs: its value, and the reply itself.
fn size(reply: &Reply) -> usize {
    size_of::<Reply>() + if let Reply::Bulk(value) = reply { value.len() } else { 0 }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
