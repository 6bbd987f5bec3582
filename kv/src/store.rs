//! The replicated state machine: keys and their values.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate::rt::yield_now;
use quorate::{At, StateMachine};

use crate::key::KeyRef;
use crate::map::Map;
use crate::read::{self, Read};
use crate::reply::Reply;
use crate::request::{MAX_VALUE_BYTES, parse_integer};
use crate::write::{SetAnswer, When, Write, Writes};

/// After so much has been written, others get their turn: some 300 µs. A key counts 1, and so does
/// each [`COUNTED_BYTES`] of a value.
const WRITTEN_PER_TURN: usize = 1024;
const COUNTED_BYTES: usize = 4 << 10;

/// The keys and values.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) values: Map,
    /// How many keys there are, for INFO, which must answer without a quorum, too.
    pub(crate) count: Rc<Cell<usize>>,
    /// What was written since others had their turn; see [`WRITTEN_PER_TURN`].
    written: usize,
}

impl StateMachine for Store {
    type Command = Writes;
    type Response = Vec<Reply>;

    async fn apply(&mut self, writes: Writes, _: At) -> Vec<Reply> {
        let mut replies = Vec::new();
        for write in writes.into_iter() {
            replies.push(self.write(write).await);
            self.has_written(0).await;
        }
        self.count.set(self.values.len());
        replies
    }
}

impl Store {
    /// Tells how many keys there are, at any time.
    pub(crate) fn count(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.count)
    }

    /// The answers to reads, in order: to the first ones, as many as don't keep others waiting.
    /// None: the first is to be answered from a view, in parts.
    pub(crate) fn read(&self, reads: &[Read]) -> Vec<Reply> {
        read::at_once(reads, &self.values)
    }

    async fn write(&mut self, write: Write) -> Reply {
        match write {
            Write::Set { key, value, when, answer } => {
                let old = if answer == SetAnswer::Old {
                    read::get(&self.values, &key)
                } else {
                    Reply::Null
                };
                let set = match when {
                    When::Always => true,
                    When::Missing => self.values.get(&key).is_none(),
                    When::Present => self.values.get(&key).is_some(),
                };
                if set {
                    self.set(&key, &value);
                }
                match answer {
                    SetAnswer::Status if set => Reply::OK,
                    SetAnswer::Status | SetAnswer::Old => old,
                    SetAnswer::Number => Reply::Integer(i64::from(set)),
                }
            }
            Write::SetMany(pairs) => {
                for (key, value) in pairs {
                    self.set(&key, &value);
                    self.has_written(value.len()).await;
                }
                Reply::OK
            }
            Write::Delete(keys) => {
                let mut deleted = 0;
                for key in keys {
                    deleted += usize::from(self.values.remove(&key).is_some());
                    self.has_written(0).await;
                }
                integer(deleted)
            }
            Write::GetDelete(key) => self.values.remove(&key).map_or(Reply::Null, Reply::Bulk),
            Write::Append { key, value } => self.append(&key, &value),
            Write::Rename { from, to } => {
                // Renaming a key to itself needs the key to be there, too, and ends as it began.
                let Some(value) = self.values.remove(&from) else {
                    return Reply::error("ERR no such key");
                };
                self.values.insert(KeyRef::new(&to), value);
                Reply::OK
            }
            Write::Add { key, delta } => {
                let old = match self.values.get(&key) {
                    None => 0,
                    Some(value) => match parse_integer(value) {
                        Some(number) => number,
                        None => return Reply::error("ERR value is not an integer or out of range"),
                    },
                };
                let Some(new) = old.checked_add(delta) else {
                    return Reply::error("ERR increment or decrement would overflow");
                };
                self.set(&key, new.to_string().as_bytes());
                Reply::Integer(new)
            }
            Write::Clear => {
                self.values.clear().await;
                Reply::OK
            }
        }
    }

    /// A key was written, with a value of this length. Nobody sees the state between two writes of
    /// a command, as reads and snapshots wait until it is applied.
    async fn has_written(&mut self, bytes: usize) {
        self.written += 1 + bytes / COUNTED_BYTES;
        if self.written >= WRITTEN_PER_TURN {
            self.written = 0;
            yield_now().await;
        }
    }

    /// The value is copied: as a slice it would keep alive the whole buffer that it was read into.
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.values.insert(KeyRef::new(key), Bytes::copy_from_slice(value));
    }

    /// The limit decides what the state becomes: a build with another one would differ from its
    /// peers.
    fn append(&mut self, key: &[u8], more: &[u8]) -> Reply {
        let Some(value) = self.values.get_mut(key) else {
            self.set(key, more);
            return integer(more.len());
        };
        if value.len() + more.len() > MAX_VALUE_BYTES {
            return Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
        }
        // In place, with room to spare for the next; a copy only where an answer or a view still
        // holds the value. Otherwise a long value that grows by a byte at a time would be copied
        // for each.
        let mut longer = mem::take(value).try_into_mut().unwrap_or_else(BytesMut::from);
        longer.extend_from_slice(more);
        *value = longer.freeze();
        integer(value.len())
    }
}

pub(crate) fn integer(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).expect("a count in memory is below 2^63"))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
