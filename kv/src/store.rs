//! The replicated state machine: keys and their values.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate::StateMachine;

use crate::reply::Reply;
use crate::request::parse_integer;
use crate::write::{When, Write, Writes};

/// The longest answer to a read of many keys, in bytes. It is bounded by the values there are, not by the request: one of
/// 16 MiB could ask for the same value a million times.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The answers to a run of reads end once they hold this much, in bytes: then those are sent before the rest are read.
const ANSWERS_BYTES: usize = 1 << 20;

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
}

/// The keys and values.
#[derive(Debug, Default)]
pub(crate) struct Store {
    values: BTreeMap<Box<[u8]>, Bytes>,
    /// How many keys there are, for INFO, which must answer without a quorum, too.
    count: Rc<Cell<usize>>,
}

impl StateMachine for Store {
    type Command = Writes;
    type Response = Vec<Reply>;

    async fn apply(&mut self, writes: Writes) -> Vec<Reply> {
        let replies = writes.into_iter().map(|write| self.write(write)).collect();
        self.count.set(self.values.len());
        replies
    }
}

impl Store {
    /// Tells how many keys there are, at any time.
    pub(crate) fn count(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.count)
    }

    /// The answers to reads, in order: to the first at least, and to as many as make up [`ANSWERS_BYTES`].
    pub(crate) fn read(&self, reads: &[Read]) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(reads.len());
        let mut bytes = 0;
        for read in reads {
            if bytes >= ANSWERS_BYTES {
                break;
            }
            replies.push(self.read_one(read, &mut bytes));
        }
        replies
    }

    fn read_one(&self, read: &Read, bytes: &mut usize) -> Reply {
        match read {
            Read::Get(key) => {
                let reply = self.get(key);
                *bytes += size(&reply);
                reply
            }
            Read::GetMany(keys) => {
                let mut replies = Vec::with_capacity(keys.len());
                let mut answer = 0;
                for key in keys {
                    let reply = self.get(key);
                    answer += size(&reply);
                    if answer > MAX_ANSWER_BYTES {
                        return Reply::error("ERR answer exceeds 64 MiB");
                    }
                    replies.push(reply);
                }
                *bytes += answer;
                Reply::Array(replies)
            }
            Read::Exists(keys) => {
                integer(keys.iter().filter(|key| self.values.contains_key(&key[..])).count())
            }
            Read::Count => integer(self.values.len()),
        }
    }

    fn get(&self, key: &[u8]) -> Reply {
        self.values.get(key).map_or(Reply::Null, |value| Reply::Bulk(value.clone()))
    }

    fn write(&mut self, write: Write) -> Reply {
        match write {
            Write::Set { key, value, when, get } => {
                let there = self.values.contains_key(&key[..]);
                let old = if get { self.get(&key) } else { Reply::Null };
                let set = match when {
                    When::Always => true,
                    When::Missing => !there,
                    When::Present => there,
                };
                if set {
                    self.set(&key, &value);
                }
                if set && !get { Reply::OK } else { old }
            }
            Write::SetMany(pairs) => {
                pairs.iter().for_each(|(key, value)| self.set(key, value));
                Reply::OK
            }
            Write::Delete(keys) => {
                integer(keys.iter().filter(|key| self.values.remove(&key[..]).is_some()).count())
            }
            Write::Add { key, delta } => {
                let old = match self.values.get(&key[..]) {
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
                self.values.clear();
                Reply::OK
            }
        }
    }

    /// Key and value are copied: as slices they would keep alive the whole buffer that they were read into.
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let value = Bytes::copy_from_slice(value);
        match self.values.get_mut(key) {
            Some(old) => *old = value,
            None => {
                self.values.insert(key.into(), value);
            }
        }
    }
}

/// What a reply costs: its value, and the reply itself.
fn size(reply: &Reply) -> usize {
    size_of::<Reply>() + if let Reply::Bulk(value) = reply { value.len() } else { 0 }
}

fn integer(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).expect("a count in memory is below 2^63"))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::write::Batch;

    fn apply<const N: usize>(store: &mut Store, writes: [Write; N]) -> [Reply; N] {
        let mut batch = Batch::default();
        writes.iter().for_each(|write| batch.push(write));
        let replies = store.apply(batch.finish()).now_or_never().expect("applying doesn't wait");
        replies.try_into().expect("one reply for each write")
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn set(key: &str, value: &str, when: When, get: bool) -> Write {
        Write::Set { key: bytes(key), value: bytes(value), when, get }
    }

    fn add(key: &str, delta: i64) -> Write {
        Write::Add { key: bytes(key), delta }
    }

    fn value(store: &Store, key: &str) -> Reply {
        store.read(&[Read::Get(bytes(key))]).remove(0)
    }

    #[test]
    fn set_obeys_its_conditions_and_gives_the_old_value() {
        use When::{Always, Missing, Present};
        let store = &mut Store::default();
        let replies = apply(
            store,
            [
                set("a", "1", Present, false),
                set("a", "2", Present, true),
                set("a", "3", Missing, false),
                set("a", "4", Missing, false),
                set("a", "5", Missing, true),
                set("a", "6", Present, false),
                set("a", "7", Present, true),
                set("a", "8", Always, true),
                set("b", "9", Always, true),
                set("c", "0", Missing, true),
            ],
        );
        assert_eq!(
            replies,
            [
                Reply::Null,
                Reply::Null,
                Reply::OK,
                Reply::Null,
                Reply::bulk("3"),
                Reply::OK,
                Reply::bulk("6"),
                Reply::bulk("7"),
                Reply::Null,
                Reply::Null,
            ]
        );
        for (key, expected) in [("a", "8"), ("b", "9"), ("c", "0")] {
            assert_eq!(value(store, key), Reply::bulk(expected));
        }
        assert_eq!(store.count().get(), 3);
    }

    #[test]
    fn numbers_are_counted_and_other_values_refused() {
        let store = &mut Store::default();
        let not_an_integer = Reply::error("ERR value is not an integer or out of range");
        let overflow = Reply::error("ERR increment or decrement would overflow");
        let replies = apply(
            store,
            [
                add("n", 1),
                add("n", -3),
                add("n", i64::MAX),
                add("n", 2),
                add("n", 1),
                set("n", "01", When::Always, false),
                add("n", 1),
                set("n", "", When::Always, false),
                add("n", 1),
                set("n", "-9223372036854775808", When::Always, false),
                add("n", -1),
            ],
        );
        assert_eq!(
            replies,
            [
                Reply::Integer(1),
                Reply::Integer(-2),
                Reply::Integer(i64::MAX - 2),
                Reply::Integer(i64::MAX),
                overflow.clone(),
                Reply::OK,
                not_an_integer.clone(),
                Reply::OK,
                not_an_integer,
                Reply::OK,
                overflow,
            ]
        );
        assert_eq!(value(store, "n"), Reply::bulk("-9223372036854775808"));
    }

    #[test]
    fn many_keys_at_once() {
        let store = &mut Store::default();
        let pairs = ["a", "b", "a"].into_iter().zip(["1", "2", "3"]);
        let pairs = pairs.map(|(key, value)| (bytes(key), bytes(value))).collect();
        assert_eq!(apply(store, [Write::SetMany(pairs)]), [Reply::OK]);
        let keys = ["a", "x", "b", "a"].map(bytes).to_vec();
        let reads = [Read::GetMany(keys.clone()), Read::Exists(keys.clone()), Read::Count];
        let many =
            ["3", "", "2", "3"].map(|v| if v.is_empty() { Reply::Null } else { Reply::bulk(v) });
        assert_eq!(
            store.read(&reads),
            [Reply::Array(many.to_vec()), Reply::Integer(3), Reply::Integer(2)]
        );
        assert_eq!(
            apply(store, [Write::Delete(keys), Write::Clear]),
            [Reply::Integer(2), Reply::OK]
        );
        assert_eq!(store.read(&reads[1..]), [Reply::Integer(0), Reply::Integer(0)]);
    }

    #[test]
    fn the_state_keeps_no_buffer_of_a_command_alive() {
        let store = &mut Store::default();
        let mut batch = Batch::default();
        batch.push(&set("key", "value", When::Always, false));
        let buffer = quorate::Command::encode(batch.finish()).unwrap();
        let writes = <Writes as quorate::Command>::decode(buffer.clone()).unwrap();
        store.apply(writes).now_or_never().unwrap();
        assert!(buffer.is_unique());
    }

    #[test]
    fn answers_are_bounded() {
        let store = &mut Store::default();
        let large = "x".repeat(ANSWERS_BYTES);
        apply(store, [set("large", &large, When::Always, false)]);
        let reads = vec![Read::Get(bytes("large")); 3];
        assert_eq!(store.read(&reads).len(), 1, "the rest are to be read later");
        let many = Read::GetMany(vec![bytes("large"); 65]);
        assert_eq!(store.read(&[many]), [Reply::error("ERR answer exceeds 64 MiB")]);
    }
}
