//! Tests of reads: their answers, and that none of them keeps others waiting.

use std::cell::Cell;
use std::slice;

use super::*;
use crate::key::KeyRef;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(values: &mut Map, key: &str, value: &str) {
    values.insert(KeyRef::new(key.as_bytes()), bytes(value));
}

fn with_keys(count: usize) -> Map {
    let mut values = Map::default();
    (0..count).for_each(|n| set(&mut values, &n.to_string(), ""));
    values
}

/// The answer, and in how many parts.
fn in_parts(values: &Map, read: &Read) -> (Reply, usize) {
    let parts = Cell::new(1);
    let pause = async || parts.set(parts.get() + 1);
    let reply = read.in_parts(values, pause).now_or_never().expect("it has not to wait");
    (reply, parts.get())
}

fn scan(cursor: u64, count: usize, pattern: Option<&str>) -> Read {
    Read::Scan(Scan { cursor, count, pattern: pattern.map(bytes), strings: true })
}

/// The next cursor and the keys.
fn scanned(values: &Map, read: &Read) -> (u64, Vec<String>) {
    let (reply, _) = in_parts(values, read);
    let Reply::Array(parts) = reply else { panic!("{reply:?}") };
    let [Reply::Bulk(cursor), keys] = &parts[..] else { panic!("{parts:?}") };
    (str::from_utf8(cursor).unwrap().parse().unwrap(), texts(keys))
}

fn texts(reply: &Reply) -> Vec<String> {
    let Reply::Bulks { count, encoded } = reply else { panic!("{reply:?}") };
    let lines = str::from_utf8(encoded).unwrap().split_terminator("\r\n");
    let texts: Vec<_> = lines.skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(texts.len(), *count);
    texts
}

#[test]
fn answers_are_bounded() {
    let mut values = Map::default();
    set(&mut values, "large", &"x".repeat(ANSWERS_BYTES));
    let reads = vec![Read::Get(bytes("large")); 3];
    assert_eq!(at_once(&reads, &values).len(), 1, "the rest are to be read later");
    let many = Read::GetMany(vec![bytes("large"); 65]);
    assert_eq!(at_once(&[many], &values), [Reply::error("ERR answer exceeds 64 MiB")]);
}

#[test]
fn a_scan_gives_every_key_that_stays_exactly_once_whatever_comes_and_goes() {
    let values = &mut Map::default();
    for n in 0..500 {
        set(values, &format!("stays:{n}"), "");
        set(values, &format!("goes:{n}"), "");
    }
    let mut seen = Vec::new();
    let mut cursor = 0;
    for round in 0.. {
        let (next, keys) = scanned(values, &scan(cursor, 7, None));
        assert!(next == 0 || keys.len() == 7);
        seen.extend(keys);
        if next == 0 {
            break;
        }
        cursor = next;
        // The key that the cursor stands for may be among those that go.
        let next_key = values.range_from(cursor).next().unwrap().0.bytes.to_vec();
        let gone = if next_key.starts_with(b"goes") {
            next_key
        } else {
            format!("goes:{round}").into_bytes()
        };
        values.remove(&gone);
        set(values, &format!("comes:{round}"), "");
    }
    seen.sort();
    let all = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), all, "a key came twice");
    assert_eq!(seen.iter().filter(|key| key.starts_with("stays")).count(), 500);
}

#[test]
fn keys_of_one_position_are_never_parted() {
    let values = &mut Map::default();
    for (position, name) in [(0, "a"), (0, "b"), (5, "c"), (5, "d"), (5, "e"), (9, "f")] {
        values.insert(KeyRef { position, bytes: name.as_bytes() }, Bytes::new());
    }
    assert_eq!(scanned(values, &scan(0, 1, None)), (5, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(scanned(values, &scan(5, 1, None)).0, 9);
    assert_eq!(scanned(values, &scan(6, 1, None)), (0, vec!["f".to_owned()]));
    assert_eq!(scanned(values, &scan(10, 1, None)), (0, vec![]));
}

#[test]
fn keys_and_scans_filter() {
    let values = &mut Map::default();
    ["a1", "a2", "b1"].iter().for_each(|key| set(values, key, ""));
    let mut keys = texts(&at_once(&[Read::Keys(Some(bytes("a*")))], values)[0]);
    keys.sort();
    assert_eq!(keys, ["a1", "a2"]);
    assert_eq!(texts(&at_once(&[Read::Keys(None)], values)[0]).len(), 3);
    assert_eq!(scanned(values, &scan(0, 10, Some("b?"))), (0, vec!["b1".to_owned()]));
    let no_strings = Scan { cursor: 0, count: 10, pattern: None, strings: false };
    assert_eq!(scanned(values, &Read::Scan(no_strings)), (0, vec![]));
}

#[test]
fn a_scan_ends_when_it_has_looked_at_enough() {
    let all = SCAN_STEPS / KEY_STEPS + 10;
    let values = with_keys(all);
    let (next, none) = scanned(&values, &scan(0, usize::MAX, Some("x*")));
    assert!(next > 0 && none.is_empty());
    let (next, some) = scanned(&values, &scan(0, usize::MAX, None));
    assert!(next > 0 && some.len() < all);
}

/// What must be so of a reply.
type Holds = Box<dyn Fn(&Reply) -> bool>;

#[test]
fn a_read_that_takes_long_is_answered_in_parts() {
    const PARTS: usize = 5;
    let keys = PARTS * PART_STEPS / KEY_STEPS;
    let values = with_keys(keys);
    let names: Vec<_> = (0..keys).map(|n| bytes(&n.to_string())).collect();
    let count = i64::try_from(keys).unwrap();
    let all = names.iter().map(|_| Reply::bulk("")).collect();
    let of_keys = move |reply: &Reply| texts(reply).len() == keys;
    let is = |expected: Reply| move |reply: &Reply| *reply == expected;
    let reads: [(Read, Holds); 4] = [
        (Read::Keys(None), Box::new(of_keys)),
        (Read::GetMany(names.clone()), Box::new(is(Reply::Array(all)))),
        (Read::Exists(names), Box::new(is(Reply::Integer(count)))),
        (scan(0, usize::MAX, None), Box::new(|reply| matches!(reply, Reply::Array(_)))),
    ];
    for (read, check) in reads {
        assert!(at_once(&[read.clone(), Read::Count], &values).is_empty(), "{read:?}");
        let (reply, parts) = in_parts(&values, &read);
        assert!(check(&reply), "{read:?}");
        assert!((PARTS..=PARTS + 2).contains(&parts), "{parts}");
        // What comes before it is answered at once.
        assert_eq!(at_once(&[Read::Count, read], &values), [Reply::Integer(count)]);
    }
    let many = vec![Read::Count; 2 * PART_STEPS / KEY_STEPS];
    assert!(at_once(&many, &values).len() <= PART_STEPS / KEY_STEPS);
}

#[test]
fn a_single_key_may_take_many_parts() {
    let values = &mut Map::default();
    set(values, &("a".repeat(1 << 16)), "");
    let costly = format!("*{}b", "a".repeat(100));
    for read in [Read::Keys(Some(bytes(&costly))), scan(0, 1, Some(&costly))] {
        assert!(at_once(slice::from_ref(&read), values).is_empty());
        let (_, parts) = in_parts(values, &read);
        assert!(parts > 100, "{parts}");
    }
}
