//! The replicated state machine: keys and their values.

use std::cell::Cell;
use std::mem;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate::StateMachine;

use crate::glob;
use crate::key::KeyRef;
use crate::map::Map;
use crate::reply::Reply;
use crate::request::{MAX_VALUE_BYTES, parse_integer};
use crate::write::{SetAnswer, When, Write, Writes};

/// The longest answer to a read of many keys, in bytes. It is bounded by the values there are, not by the request: one of
/// 16 MiB could ask for the same value a million times.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The answers to a run of reads end once they hold this much, in bytes: then those are sent before the rest are read. A SCAN ends with it,
/// too.
const ANSWERS_BYTES: usize = 1 << 20;

/// What looking at a key takes, in the steps of a pattern: some 100 ns against a few.
const KEY_STEPS: usize = 16;

/// A run of reads ends once it has taken so many steps, and so does a SCAN: some 10 ms, in which nothing else is applied or read.
const RUN_STEPS: usize = 1 << 20;

/// The most steps of a KEYS, or for one key of a SCAN: a million keys, some 200 ms. Much less than an election timeout, because the node's
/// thread does nothing else meanwhile.
const MAX_STEPS: usize = 1 << 24;

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
    /// KEYS, with its pattern.
    Keys(Bytes),
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

/// What reads have cost so far.
#[derive(Debug, Default)]
struct Cost {
    /// What their answers hold.
    bytes: usize,
    /// How much they have looked at.
    steps: usize,
}

impl Cost {
    /// Whether the reads so far are enough for one look at the state.
    fn is_enough(&self) -> bool {
        self.bytes >= ANSWERS_BYTES || self.steps >= RUN_STEPS
    }
}

/// The keys and values.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) values: Map,
    /// How many keys there are, for INFO, which must answer without a quorum, too.
    pub(crate) count: Rc<Cell<usize>>,
}

impl StateMachine for Store {
    type Command = Writes;
    type Response = Vec<Reply>;

    async fn apply(&mut self, writes: Writes) -> Vec<Reply> {
        let mut replies = Vec::new();
        for write in writes.into_iter() {
            replies.push(self.write(write).await);
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

    /// The answers to reads, in order: to the first at least, and to as many as make up [`ANSWERS_BYTES`] or [`RUN_STEPS`].
    pub(crate) fn read(&self, reads: &[Read]) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(reads.len());
        let mut cost = Cost::default();
        for read in reads {
            if cost.is_enough() {
                break;
            }
            replies.push(self.read_one(read, &mut cost));
        }
        replies
    }

    fn read_one(&self, read: &Read, cost: &mut Cost) -> Reply {
        cost.steps += KEY_STEPS;
        match read {
            Read::Get(key) => {
                let reply = self.get(key);
                cost.bytes += size(&reply);
                reply
            }
            Read::GetMany(keys) => {
                let mut replies = Vec::with_capacity(keys.len());
                let mut answer = 0;
                for key in keys {
                    let reply = self.get(key);
                    answer += size(&reply);
                    if answer > MAX_ANSWER_BYTES {
                        return answer_too_long();
                    }
                    replies.push(reply);
                }
                cost.bytes += answer;
                cost.steps += keys.len() * KEY_STEPS;
                Reply::Array(replies)
            }
            Read::Exists(keys) => {
                cost.steps += keys.len() * KEY_STEPS;
                integer(keys.iter().filter(|key| self.values.get(key).is_some()).count())
            }
            Read::Count => integer(self.values.len()),
            Read::Length(key) => integer(self.values.get(key).map_or(0, Bytes::len)),
            Read::Type(key) => {
                let there = self.values.get(key).is_some();
                Reply::Status(if there { "string" } else { "none" })
            }
            Read::Keys(pattern) => self.keys(pattern, cost),
            Read::Scan(scan) => self.scan(scan, cost),
        }
    }

    fn get(&self, key: &[u8]) -> Reply {
        self.values.get(key).map_or(Reply::Null, |value| Reply::Bulk(value.clone()))
    }

    fn keys(&self, pattern: &[u8], cost: &mut Cost) -> Reply {
        let (mut steps, mut answer) = (0, 0);
        let mut found = Vec::new();
        for (key, _) in self.values.range_from(0) {
            steps += KEY_STEPS;
            match glob::matches(pattern, &key.bytes, &mut steps, MAX_STEPS) {
                Some(true) => {
                    let reply = Reply::Bulk(Bytes::copy_from_slice(&key.bytes));
                    answer += size(&reply);
                    if answer > MAX_ANSWER_BYTES {
                        return answer_too_long();
                    }
                    found.push(reply);
                }
                Some(false) => {}
                None => {
                    cost.steps += steps;
                    return Reply::error(
                        "ERR too many keys or too long a pattern for KEYS; use SCAN",
                    );
                }
            }
        }
        cost.bytes += answer;
        cost.steps += steps;
        Reply::Array(found)
    }

    /// Keys from a position on, and the position of the first that was not looked at; 0 where there is none.
    fn scan(&self, scan: &Scan, cost: &mut Cost) -> Reply {
        let mut own = Cost::default();
        let mut found = Vec::new();
        let mut position = scan.cursor;
        let mut next = 0;
        let keys = self.values.range_from(scan.cursor).map(|(key, _)| key);
        for (looked_at, key) in keys.enumerate() {
            // Between two keys of one position there is no place for a cursor.
            if key.position != position && (looked_at >= scan.count || own.is_enough()) {
                next = key.position;
                break;
            }
            position = key.position;
            own.steps += KEY_STEPS;
            let matched = match &scan.pattern {
                None => Some(true),
                Some(pattern) => glob::matches(pattern, &key.bytes, &mut own.steps, MAX_STEPS),
            };
            match matched {
                Some(true) if scan.strings => {
                    let reply = Reply::Bulk(Bytes::copy_from_slice(&key.bytes));
                    own.bytes += size(&reply);
                    found.push(reply);
                }
                Some(_) => {}
                None => {
                    cost.steps += own.steps;
                    return Reply::error("ERR too long a pattern for the keys at this cursor");
                }
            }
        }
        cost.bytes += own.bytes;
        cost.steps += own.steps;
        Reply::Array(vec![Reply::bulk(next.to_string()), Reply::Array(found)])
    }

    async fn write(&mut self, write: Write) -> Reply {
        match write {
            Write::Set { key, value, when, answer } => {
                let old = if answer == SetAnswer::Old { self.get(&key) } else { Reply::Null };
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
                pairs.iter().for_each(|(key, value)| self.set(key, value));
                Reply::OK
            }
            Write::Delete(keys) => {
                integer(keys.iter().filter(|key| self.values.remove(key).is_some()).count())
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

    /// The value is copied: as a slice it would keep alive the whole buffer that it was read into.
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.values.insert(KeyRef::new(key), Bytes::copy_from_slice(value));
    }

    /// The limit decides what the state becomes: a build with another one would differ from its peers.
    fn append(&mut self, key: &[u8], more: &[u8]) -> Reply {
        let Some(value) = self.values.get_mut(key) else {
            self.set(key, more);
            return integer(more.len());
        };
        if value.len() + more.len() > MAX_VALUE_BYTES {
            return Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
        }
        // In place, with room to spare for the next; a copy only where an answer or a view still holds the value. Otherwise a long value that grows
        // by a byte at a time would be copied for each.
        let mut longer = mem::take(value).try_into_mut().unwrap_or_else(BytesMut::from);
        longer.extend_from_slice(more);
        *value = longer.freeze();
        integer(value.len())
    }
}

fn answer_too_long() -> Reply {
    Reply::error("ERR answer exceeds 64 MiB")
}

/// What a reply costs: its value, and the reply itself.
fn size(reply: &Reply) -> usize {
    size_of::<Reply>() + if let Reply::Bulk(value) = reply { value.len() } else { 0 }
}

fn integer(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).expect("a count in memory is below 2^63"))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
