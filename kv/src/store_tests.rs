//! Tests of the state machine: what each write and read does, and its bounds.

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
fn the_state_keeps_no_buffer_of_a_command_alive() {
    let store = &mut Store::default();
    let mut batch = Batch::default();
    batch.push(&set("key", "value", When::Always, false));
    let buffer = quorate::Command::encode(batch.finish()).unwrap();
    let writes = <Writes as quorate::Command>::decode(&buffer).unwrap();
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

fn scan(cursor: u64, count: usize, pattern: Option<&str>) -> Read {
    Read::Scan(Scan { cursor, count, pattern: pattern.map(bytes), strings: true })
}

/// The next cursor and the keys.
fn scanned(store: &Store, read: Read) -> (u64, Vec<String>) {
    let reply = store.read(&[read]).remove(0);
    let Reply::Array(parts) = reply else { panic!("{reply:?}") };
    let [Reply::Bulk(cursor), Reply::Array(keys)] = &parts[..] else { panic!("{parts:?}") };
    (str::from_utf8(cursor).unwrap().parse().unwrap(), texts(keys))
}

fn texts(replies: &[Reply]) -> Vec<String> {
    let text = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    replies.iter().map(text).collect()
}

#[test]
fn a_scan_gives_every_key_that_stays_exactly_once_whatever_comes_and_goes() {
    let store = &mut Store::default();
    for n in 0..500 {
        apply(store, [append(&format!("stays:{n}"), ""), append(&format!("goes:{n}"), "")]);
    }
    let mut seen = Vec::new();
    let mut cursor = 0;
    for round in 0.. {
        let (next, keys) = scanned(store, scan(cursor, 7, None));
        assert!(next == 0 || keys.len() == 7);
        seen.extend(keys);
        if next == 0 {
            break;
        }
        cursor = next;
        // The key that the cursor stands for may be among those that go.
        let next_key = store.values.range_from(cursor).next().unwrap().0.bytes.to_vec();
        let gone = if next_key.starts_with(b"goes") {
            next_key.into()
        } else {
            bytes(&format!("goes:{round}"))
        };
        apply(store, [Write::Delete(vec![gone]), append(&format!("comes:{round}"), "")]);
    }
    seen.sort();
    let all = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all, "a key came twice");
    assert_eq!(seen.iter().filter(|key| key.starts_with("stays")).count(), 500);
}

#[test]
fn keys_of_one_position_are_never_parted() {
    let store = &mut Store::default();
    for (position, name) in [(0, "a"), (0, "b"), (5, "c"), (5, "d"), (5, "e"), (9, "f")] {
        store.values.insert(KeyRef { position, bytes: name.as_bytes() }, Bytes::new());
    }
    assert_eq!(scanned(store, scan(0, 1, None)), (5, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(scanned(store, scan(5, 1, None)).0, 9);
    assert_eq!(scanned(store, scan(6, 1, None)), (0, vec!["f".to_owned()]));
    assert_eq!(scanned(store, scan(10, 1, None)), (0, vec![]));
}

#[test]
fn keys_and_scans_filter() {
    let store = &mut Store::default();
    apply(store, [append("a1", ""), append("a2", ""), append("b1", "")]);
    let Reply::Array(keys) = store.read(&[Read::Keys(bytes("a*"))]).remove(0) else { panic!() };
    let mut keys = texts(&keys);
    keys.sort();
    assert_eq!(keys, ["a1", "a2"]);
    let (next, found) = scanned(store, scan(0, 10, Some("b?")));
    assert_eq!((next, found), (0, vec!["b1".to_owned()]));
    let no_strings = Scan { cursor: 0, count: 10, pattern: None, strings: false };
    assert_eq!(scanned(store, Read::Scan(no_strings)), (0, vec![]));
}

#[test]
fn a_scan_ends_when_it_has_looked_at_enough() {
    let store = &mut Store::default();
    for n in 0..RUN_STEPS / KEY_STEPS + 10 {
        store.set(n.to_string().as_bytes(), b"");
    }
    let all = store.values.len();
    let (next, none) = scanned(store, scan(0, usize::MAX, Some("x*")));
    assert!(next > 0 && none.is_empty());
    let (next, some) = scanned(store, scan(0, usize::MAX, None));
    assert!(next > 0 && some.len() < all);
    assert!(some.len() * size_of::<Reply>() < 2 * ANSWERS_BYTES);
    let two = [scan(0, usize::MAX, Some("x*")), Read::Count];
    assert_eq!(store.read(&two).len(), 1, "the rest is to be read later");
}

#[test]
fn what_takes_too_long_is_an_error() {
    let store = &mut Store::default();
    apply(store, [append(&"a".repeat(1 << 20), "")]);
    let costly = format!("*{}b", "a".repeat(100));
    let error = Reply::error("ERR too many keys or too long a pattern for KEYS; use SCAN");
    assert_eq!(store.read(&[Read::Keys(bytes(&costly))]), [error]);
    let error = Reply::error("ERR too long a pattern for the keys at this cursor");
    assert_eq!(store.read(&[scan(0, 1, Some(&costly))]), [error]);
}
