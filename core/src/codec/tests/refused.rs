//! Values that can't be: each is an error that says what is wrong, whatever checksums say.

use super::*;

fn refused(bytes: Bytes) {
    let outcome = decode_message(bytes);
    assert!(matches!(outcome, Err(DecodeError::Invalid(_))), "{outcome:?}");
}

#[test]
fn messages_from_or_to_nobody_are_refused() {
    let heard = message(Body::ReadIndex { sequence: 1 });
    refused(encode(&Message { from: Replica::new(0, 1), ..heard.clone() }));
    refused(encode(&Message { from: Replica::any(1), ..heard.clone() }));
    refused(encode(&Message { to: Replica::new(0, 1), ..heard.clone() }));
    refused(encode(&Message { to: Replica::any(1), ..heard }));
    let who = message(Body::Who { listed: ids([]) });
    refused(encode(&Message { from: Replica::any(1), ..who }));
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let append = |entries: Vec<Entry>| {
        let prev = LogId::new(4, 2, 77);
        encode(&message(Body::Append {
            prev,
            committed: 0,
            round: 0,
            durable: 0,
            entries: entries.into(),
        }))
    };
    let blank = |term, index, time| entry(term, index, time, Payload::Blank);
    refused(append(vec![blank(4, 79, 0)]));
    refused(append(vec![blank(3, 78, 0)]));
    refused(append(vec![blank(4, 0, 0)]));
    refused(append(vec![blank(5, 78, 0), blank(4, 79, 0)]));
    refused(append(vec![blank(4, 78, 1000), blank(4, 79, 999)]));

    // The same index twice, which no run can have here.
    let twice = append(vec![blank(4, 78, 0), blank(5, 79, 0)]);
    let mut twice = twice.to_vec();
    let index = twice.len() - 5 - 4 - 8 - 8;
    assert_eq!(twice[index], 79);
    twice[index] = 78;
    refused(twice.into());

    // More entries than the runs have, and fewer.
    for (number, at) in [(0, 46), (2, 46), (2, 9)] {
        let mut bytes = append(vec![blank(4, 78, 0)]).to_vec();
        let at = bytes.len() - at;
        assert_eq!(bytes[at..at + 4], [1, 0, 0, 0]);
        bytes[at] = number;
        assert!(decode_message(bytes.into()).is_err());
    }

    // A run without entries, and one that goes on beyond the last index.
    for (index, count) in [(78, 0), (u64::MAX, 2)] {
        let mut bytes = append(vec![blank(4, 78, 0)]).to_vec();
        let len = bytes.len();
        bytes[len - 9..len - 5].copy_from_slice(&u32::to_le_bytes(count));
        bytes[len - 25..len - 17].copy_from_slice(&u64::to_le_bytes(index));
        let before = len - 42 - 4 - 6 - 10 - 10 - 10 - 8;
        assert_eq!(bytes[before], 77);
        bytes[before..before + 8].copy_from_slice(&(index - 1).to_le_bytes());
        refused(bytes.into());
    }
}

#[test]
fn entries_of_unknown_kinds_are_refused() {
    let bytes = encoded(|to| put_entry(to, &entry(1, 2, 3, Payload::Blank)));
    for kind in [3, 0x7F] {
        let mut bytes = BytesMut::from(&bytes[..]);
        bytes[0] = kind;
        let outcome = take_entry(&mut bytes.freeze());
        assert_eq!(outcome, Err(DecodeError::Kind { what: "entry", kind }));
    }
    let mut blank = bytes.to_vec();
    let len = blank.len();
    blank[len - 4] = 1;
    blank.push(0);
    assert_eq!(take_entry(&mut blank.into()), Err(DecodeError::Long(1)));
    let first = encoded(|to| put_entry(to, &entry(1, 0, 3, Payload::Blank)));
    assert!(matches!(take_entry(&mut first.clone()), Err(DecodeError::Invalid(_))));
}

#[test]
fn messages_of_unknown_kinds_are_refused() {
    let mut bytes = encode(&message(Body::ReadIndex { sequence: 1 })).to_vec();
    for kind in [0, 24, 255] {
        bytes[64] = kind;
        let outcome = decode_message(bytes.clone().into());
        assert_eq!(outcome, Err(DecodeError::Kind { what: "message", kind }));
    }
    let last_bytes = [
        (Body::PreVoteReply { granted: true, attempt: 0 }, "yes or no"),
        (
            Body::ForwardReply { boot: 1, sequence: 1, outcome: ForwardOutcome::Busy },
            "forward reply",
        ),
    ];
    for (body, what) in last_bytes {
        let mut bytes = encode(&message(body)).to_vec();
        *bytes.last_mut().unwrap() = 7;
        assert_eq!(decode_message(bytes.into()), Err(DecodeError::Kind { what, kind: 7 }));
    }
    let situation = Situation::Spent;
    let mut bytes = encode(&message(Body::Situation { situation, listed: ids([]) })).to_vec();
    let at = bytes.len() - 3;
    assert_eq!(bytes[at], 5);
    bytes[at] = 7;
    let kind = DecodeError::Kind { what: "situation", kind: 7 };
    assert_eq!(decode_message(bytes.into()), Err(kind));
}

/// A structure of these fields, given by their numbers and values.
pub(super) fn structure(values: &[(u8, &[u8])]) -> Bytes {
    encoded(|to| {
        fields::put_sized(to, |to| {
            for (number, value) in values {
                put_field(to, REFUSE | number, |to| to.put_slice(value));
            }
        });
    })
}

pub(super) fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

pub(super) fn replicas(ids: impl IntoIterator<Item = NodeId>) -> Vec<u8> {
    numbers(ids.into_iter().flat_map(|id| [id, 1000 + id]))
}

/// The members with these ids and addresses.
pub(super) fn members(members: &[(NodeId, &[u8])]) -> Vec<u8> {
    let member = |&(id, address)| structure(&[(1, &replicas([id])), (2, address)]);
    members.iter().map(member).collect::<Vec<_>>().concat()
}

pub(super) fn is_invalid<T: Debug>(outcome: Result<T, DecodeError>, case: &str) {
    assert!(matches!(outcome, Err(DecodeError::Invalid(_))), "{case}: {outcome:?}");
}

#[test]
fn configurations_that_can_not_be_are_refused() {
    let take = |founders: &[u8], members: &[u8], incoming: &[u8], outgoing: &[u8]| {
        let fields = [(1, &[7; 16][..]), (2, founders), (3, members), (4, incoming), (5, outgoing)];
        take_membership(&mut structure(&fields))
    };
    let (two, of_two) = (replicas([1, 2]), members(&[(1, b"a"), (2, b"b")]));
    let founders = numbers([1, 2]);
    assert!(take(&founders, &of_two, &two, &[]).is_ok());
    assert!(take(&founders, &of_two, &two, &replicas([1])).is_ok());

    for (case, founders) in [
        ("no founder", vec![]),
        ("half an id", vec![1; 4]),
        ("ids out of order", numbers([2, 1])),
        ("an id twice", numbers([1, 1])),
        ("node 0", numbers([0, 1])),
        ("too many", numbers(1..=MAX_NODES as u64 + 1)),
    ] {
        is_invalid(take(&founders, &of_two, &two, &[]), case);
    }
    let long = [b'a'; MAX_ADDRESS_BYTES + 1];
    let many: Vec<_> = (1..=MAX_NODES as u64 + 1).map(|id| (id, &b"a"[..])).collect();
    for (case, members) in [
        ("out of order", members(&[(2, b"b"), (1, b"a")])),
        ("twice the same", members(&[(1, b"a"), (1, b"a"), (2, b"b")])),
        ("node 0", members(&[(0, b"a"), (1, b"a"), (2, b"b")])),
        ("a voter that is no member", members(&[(1, b"a")])),
        ("an address that is too long", members(&[(1, b"a"), (2, &long)])),
        ("an address that is not UTF-8", members(&[(1, b"a"), (2, b"\xff")])),
        ("too many", members(&many)),
    ] {
        is_invalid(take(&founders, &members, &two, &[]), case);
    }
    for (case, voters) in [
        ("no voter", vec![]),
        ("half a voter", replicas([1])[..8].to_vec()),
        ("voters out of order", replicas([2, 1])),
        ("a voter twice", replicas([1, 1])),
        ("incarnation 0", numbers([1, 0])),
        ("too many", replicas(1..=MAX_NODES as u64 + 1)),
    ] {
        is_invalid(take(&founders, &of_two, &voters, &[]), case);
        if !voters.is_empty() {
            is_invalid(take(&founders, &of_two, &two, &voters), case);
        }
    }
}

#[test]
fn claims_and_promises_that_can_not_be_are_refused() {
    let node = |(id, address): &(u64, &[u8])| structure(&[(1, &id.to_le_bytes()), (2, address)]);
    let claim = |founder: &[u8], nodes: &[(u64, &[u8])]| {
        let list = nodes.iter().map(node).collect::<Vec<_>>().concat();
        let fields = [(1, &[7; 16][..]), (2, &[1; 8]), (3, founder), (4, &list)];
        take_claim(&mut structure(&fields))
    };
    assert!(claim(&replicas([1]), &[(1, b"a"), (2, b"b")]).is_ok());
    is_invalid(claim(&numbers([1, 0]), &[(1, b"a")]), "a founder that is not known");
    is_invalid(claim(&replicas([1]), &[]), "no node");
    is_invalid(claim(&replicas([1]), &[(2, b"b"), (1, b"a")]), "out of order");
    is_invalid(claim(&replicas([1]), &[(1, b"a"), (1, b"b")]), "a node twice");
    is_invalid(claim(&replicas([1]), &[(0, b"a"), (1, b"b")]), "node 0");
    is_invalid(claim(&replicas([1]), &[(1, b"a"), (2, b"a")]), "an address twice");

    let two = structure(&[(2, &[7; 16]), (3, &[])]);
    is_invalid(take_standing(&mut two.clone()), "two standings");
    let nobody = structure(&[(1, &[1; 8]), (2, &numbers([0, 1]))]);
    is_invalid(take_hard_state(&mut nobody.clone()), "a vote for node 0");
    let any = structure(&[(1, &[1; 8]), (2, &numbers([1, 0]))]);
    is_invalid(take_hard_state(&mut any.clone()), "a vote for an unknown incarnation");
    let short = structure(&[(1, &[1; 7])]);
    is_invalid(take_hard_state(&mut short.clone()), "a term of 7 bytes");
    let none = DecodeError::Missing { what: "hard state", tag: REFUSE | 1 };
    assert_eq!(take_hard_state(&mut structure(&[])), Err(none));
}

#[test]
fn memories_are_bounded_and_in_order() {
    let memory = |id: u64| {
        let (replica, log_id) = (replicas([id]), numbers([1, 1, 1]));
        let number = 1_u64.to_le_bytes();
        structure(&[(1, &replica), (2, &number), (3, &number), (4, &log_id), (5, &log_id)])
    };
    let marks = |ids: &mut dyn Iterator<Item = u64>| {
        let memories = ids.map(memory).collect::<Vec<_>>().concat();
        take_marks(&mut structure(&[(1, &numbers([1, 1, 1])), (2, &memories)]))
    };
    let most = MAX_MEMORIES as u64;
    assert_eq!(marks(&mut (1..=most)).unwrap().memories.len(), MAX_MEMORIES);
    is_invalid(marks(&mut (1..=most + 1)), "too many");
    is_invalid(marks(&mut [2, 1].into_iter()), "out of order");
    is_invalid(marks(&mut [1, 1].into_iter()), "twice");
    let starts = |starts: &[u8]| {
        take_marks(&mut structure(&[(1, &numbers([1, 1, 1])), (2, &[]), (3, starts)]))
    };
    let numbered = |at| [numbers([at, 7, 1]), numbers([1, 2, 3])].concat();
    let most = |count: u64| (1..=count).flat_map(numbered).collect::<Vec<_>>();
    assert_eq!(starts(&most(MAX_STARTS as u64)).unwrap().starts.len(), MAX_STARTS);
    is_invalid(starts(&most(MAX_STARTS as u64 + 1)), "too many");
    is_invalid(starts(&[numbered(2), numbered(1)].concat()), "out of order");
    is_invalid(starts(&numbered(1)[1..]), "not of 48 bytes");
}

#[test]
fn a_snapshot_holds_the_entry_of_its_configuration() {
    for membership_index in [0, 78] {
        let meta = SnapshotMeta { membership_index, ..meta() };
        let bytes = encoded(|to| put_snapshot_meta(to, &meta));
        is_invalid(take_snapshot_meta(&mut bytes.clone()), "outside of the snapshot");
    }
}

/// The smallest entry has 5 bytes in a message, and many times that in memory.
#[test]
fn more_entries_or_commands_than_the_limit_counts_are_refused() {
    let entries = |count: u64| {
        let blank = |index| entry(4, index, 0, Payload::Blank);
        let entries: Vec<_> = (78..78 + count).map(blank).collect();
        let (prev, entries) = (LogId::new(4, 2, 77), entries.into());
        Body::Append { prev, committed: 0, round: 0, durable: 0, entries }
    };
    let commands = |count: u64| {
        let commands = vec![Bytes::new(); count as usize];
        Body::Forward { boot: 1, sequence: 2, commands }
    };
    let refusals = |count: u64| {
        let refused = (0..count as u32).map(|place| Refusal::new(place, String::new())).collect();
        let outcome = ForwardOutcome::Partly { first: LogId::new(4, 2, 77), refused };
        Body::ForwardReply { boot: 1, sequence: 2, outcome }
    };
    let limit = 10 * Entry::OVERHEAD_BYTES;
    for of_so_many in [entries as fn(u64) -> Body, commands, refusals] {
        let most = message(of_so_many(10));
        assert_eq!(decode_message_within(encode(&most), limit), Ok(most));
        let more = decode_message_within(encode(&message(of_so_many(11))), limit);
        assert!(matches!(more, Err(DecodeError::Invalid(_))), "{more:?}");
    }
}
