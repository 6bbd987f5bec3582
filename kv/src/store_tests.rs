//! Tests of the state machine: what each write and read does, and its bounds.

use std::pin::pin;

use futures::FutureExt;

use super::*;
use crate::write::Batch;

fn apply<const N: usize>(store: &mut Store, writes: [Write; N]) -> [Reply; N] {
    let mut batch = Batch::default();
    writes.iter().for_each(|write| batch.push(write));
    let (replies, _) = in_turns(store.apply(batch.finish(), At::default()));
    replies.try_into().expect("one reply for each write")
}

/// The result, and how many turns it has taken.
fn in_turns<T>(work: impl Future<Output = T>) -> (T, usize) {
    let mut work = pin!(work);
    for turn in 1.. {
        if let Some(result) = work.as_mut().now_or_never() {
            return (result, turn);
        }
    }
    unreachable!("it ends")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(key: &str, value: &str, when: When, get: bool) -> Write {
    let answer = if get { SetAnswer::Old } else { SetAnswer::Status };
    Write::Set { key: bytes(key), value: bytes(value), when, answer }
}

fn append(key: &str, value: &str) -> Write {
    Write::Append { key: bytes(key), value: bytes(value) }
}

fn rename(from: &str, to: &str) -> Write {
    Write::Rename { from: bytes(from), to: bytes(to) }
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
    let many = ["3", "", "2", "3"].map(|v| if v.is_empty() { Reply::Null } else { Reply::bulk(v) });
    assert_eq!(
        store.read(&reads),
        [Reply::Array(many.to_vec()), Reply::Integer(3), Reply::Integer(2)]
    );
    assert_eq!(apply(store, [Write::Delete(keys), Write::Clear]), [Reply::Integer(2), Reply::OK]);
    assert_eq!(store.read(&reads[1..]), [Reply::Integer(0), Reply::Integer(0)]);
}

#[test]
fn others_have_their_turn_while_much_is_written() {
    const KEYS: usize = 10 * WRITTEN_PER_TURN;
    let keys: Vec<_> = (0..KEYS).map(|n| bytes(&n.to_string())).collect();
    let store = &mut Store::default();
    let mut turns = |write: &Write, times: usize| {
        let mut batch = Batch::default();
        (0..times).for_each(|_| batch.push(write));
        in_turns(store.apply(batch.finish(), At::default())).1
    };
    let pairs = keys.iter().map(|key| (key.clone(), Bytes::new())).collect();
    assert_eq!(turns(&Write::SetMany(pairs), 1), 11);
    let flushed = turns(&Write::Clear, 1);
    assert!((4..8).contains(&flushed), "{flushed}");
    assert_eq!(turns(&Write::Delete(keys), 1), 11);
    assert_eq!(turns(&add("n", 1), KEYS), 11);
    let large = "x".repeat(COUNTED_BYTES * WRITTEN_PER_TURN / 2);
    assert_eq!(turns(&Write::SetMany(vec![(bytes("k"), bytes(&large)); 4]), 1), 3);
}

#[test]
fn the_state_keeps_no_buffer_of_a_command_alive() {
    let store = &mut Store::default();
    let mut batch = Batch::default();
    batch.push(&set("key", "value", When::Always, false));
    let buffer = quorate::Command::encode(batch.finish()).unwrap();
    let writes = <Writes as quorate::Command>::decode(&buffer).unwrap();
    store.apply(writes, At::default()).now_or_never().unwrap();
    assert!(buffer.is_unique());
}

#[test]
fn the_other_ways_to_set_and_delete() {
    let store = &mut Store::default();
    let set_missing = |value: &str| Write::Set {
        key: bytes("a"),
        value: bytes(value),
        when: When::Missing,
        answer: SetAnswer::Number,
    };
    let take = || Write::GetDelete(bytes("a"));
    let replies = apply(store, [set_missing("1"), set_missing("2"), take(), take()]);
    assert_eq!(replies, [Reply::Integer(1), Reply::Integer(0), Reply::bulk("1"), Reply::Null]);
    assert_eq!(store.count().get(), 0);
}

#[test]
fn a_rename_moves_the_value_over_what_was_there() {
    let store = &mut Store::default();
    let missing = Reply::error("ERR no such key");
    let replies = apply(
        store,
        [
            rename("a", "b"),
            rename("a", "a"),
            set("a", "1", When::Always, false),
            rename("a", "a"),
            set("b", "2", When::Always, false),
            rename("a", "b"),
            rename("b", "c"),
        ],
    );
    assert_eq!(
        replies,
        [missing.clone(), missing, Reply::OK, Reply::OK, Reply::OK, Reply::OK, Reply::OK]
    );
    assert_eq!(value(store, "c"), Reply::bulk("1"));
    assert_eq!(store.count().get(), 1);
}

#[test]
fn a_value_grows_up_to_the_limit() {
    let store = &mut Store::default();
    let half = "x".repeat(MAX_VALUE_BYTES / 2);
    let limit = MAX_VALUE_BYTES as i64;
    let too_long = Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    let replies = apply(
        store,
        [
            append("a", ""),
            append("a", &half),
            append("a", &half),
            append("a", "x"),
            append("a", ""),
        ],
    );
    let lengths = [0, limit / 2, limit].map(Reply::Integer);
    assert_eq!(replies[..3], lengths);
    assert_eq!(replies[3..], [too_long, Reply::Integer(limit)]);
    let reads = [Read::Length(bytes("a")), Read::Length(bytes("b"))];
    assert_eq!(store.read(&reads), [Reply::Integer(limit), Reply::Integer(0)]);
    let reads = [Read::Type(bytes("a")), Read::Type(bytes("b"))];
    assert_eq!(store.read(&reads), [Reply::Status("string"), Reply::Status("none")]);
}

#[test]
fn an_answer_stays_what_it_was_while_its_value_grows() {
    let store = &mut Store::default();
    apply(store, [append("a", "1")]);
    let before = value(store, "a");
    apply(store, [append("a", "2"), append("a", "3")]);
    assert_eq!(before, Reply::bulk("1"));
    assert_eq!(value(store, "a"), Reply::bulk("123"));
}

#[test]
fn a_value_that_grows_by_little_is_not_copied_each_time() {
    let store = &mut Store::default();
    apply(store, [append("a", &"x".repeat(1000))]);
    let place = |store: &Store| store.values.get(b"a").unwrap().as_ptr();
    let mut moves = 0;
    for _ in 0..1000 {
        let before = place(store);
        apply(store, [append("a", "y")]);
        moves += usize::from(place(store) != before);
    }
    assert!(moves < 10, "{moves}");
}
