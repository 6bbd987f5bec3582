//! Changes of the membership: samples of what is said of them, and what can't be.

use std::time::Duration;

use super::*;
use crate::error::ChangeRefusal;
use crate::membership::{
    Change, ChangeId, ChangeKind, ChangeOptions, ChangeReply, ChangeRequest, Ending, MAX_ENDED,
    Member, MemberRole, Parts, Target,
};

pub(super) const CHANGE: ChangeId = ChangeId(0x0304 << 112 | 9);

fn member(id: NodeId, role: MemberRole, priority: u8) -> (NodeId, Member) {
    (id, Member { address: address(id), role, priority })
}

/// Two voters, of which one has a priority, and a learner.
pub(super) fn target() -> Target {
    let [voter, learner] = [MemberRole::Voter, MemberRole::Learner];
    Target { members: [member(1, voter, 0), member(2, voter, 3), member(4, learner, 0)].into() }
}

/// One of each kind.
fn endings() -> Vec<(ChangeId, Ending)> {
    let endings = [
        Ending::Done,
        Ending::Cancelled,
        Ending::Late { waits_for: ids([2, 900]) },
        Ending::Superseded { by: ChangeId(u128::MAX) },
    ];
    (1..).map(ChangeId).zip(endings).collect()
}

/// Three voters and a learner with priorities, a change under way, and an ending of each kind.
pub(super) fn changing() -> Membership {
    let before = membership().target();
    let change = Change { id: CHANGE, target: target(), before, catch_up: 600_000 };
    Membership::assemble(Parts {
        priorities: [(1, 1), (900, u8::MAX)].into(),
        last_change: CHANGE,
        change: Some(change),
        ended: endings(),
        ..membership().parts().clone()
    })
    .expect("valid")
}

/// No change is under way, and some were.
pub(super) fn changed() -> Membership {
    let parts = Parts { change: None, ..changing().parts().clone() };
    Membership::assemble(parts).expect("valid")
}

/// The most members of a target, each with all that it may have.
fn largest_target() -> Target {
    let member = |(id, address)| (id, Member { address, role: MemberRole::Voter, priority: 1 });
    Target { members: largest().nodes().into_iter().map(member).collect() }
}

/// The largest configuration that there may be: all that it may have, as often and as long as may
/// be.
pub(super) fn largest_changing() -> Membership {
    let all: Vec<_> = largest().members().keys().copied().collect();
    let nodes = || all.iter().map(|replica| replica.id);
    let late = |id: u128| (ChangeId(id), Ending::Late { waits_for: nodes().collect() });
    let (target, before) = (largest_target(), largest_target());
    Membership::assemble(Parts {
        voters: Voters::joint(all.clone(), all.clone()),
        priorities: nodes().map(|id| (id, 1)).collect(),
        last_change: CHANGE,
        change: Some(Change { id: CHANGE, target, before, catch_up: u64::MAX }),
        ended: (1..=MAX_ENDED as u128).map(late).collect(),
        ..largest().parts().clone()
    })
    .expect("valid")
}

/// An entry of a configuration that is being changed.
pub(super) fn an_entry() -> Entry {
    entry(5, 84, u64::MAX, Payload::Membership(changing()))
}

pub(super) fn request(target: Target, options: ChangeOptions) -> Body {
    let kind = ChangeKind::Begin { target, options };
    Body::Change(Box::new(ChangeRequest { id: CHANGE, kind }))
}

pub(super) fn reply(reply: ChangeReply) -> Body {
    Body::ChangeReply { id: CHANGE, reply: Box::new(reply) }
}

fn refusal(refusal: ChangeRefusal) -> Body {
    reply(ChangeReply::Refused(refusal))
}

/// At least one of every kind, and of every answer.
pub(super) fn bodies() -> Vec<Body> {
    let options = ChangeOptions {
        follows: Some(ChangeId(u128::MAX)),
        catch_up: Duration::from_millis(u64::MAX),
        allow_lower_tolerance: true,
    };
    vec![
        request(target(), ChangeOptions::default()),
        request(target(), options),
        Body::Change(Box::new(ChangeRequest { id: CHANGE, kind: ChangeKind::Cancel })),
        reply(ChangeReply::Await(ChangeId(u128::MAX))),
        reply(ChangeReply::Nothing),
        reply(ChangeReply::Again),
        reply(ChangeReply::Noted),
        refusal(ChangeRefusal::Target("nobody would vote, wählt".to_owned())),
        refusal(ChangeRefusal::Target(String::new())),
        refusal(ChangeRefusal::UnderWay { membership: changing() }),
        refusal(ChangeRefusal::Conflict { membership: changed() }),
        refusal(ChangeRefusal::LowersTolerance { now: 2, lowest: u64::MAX }),
        refusal(ChangeRefusal::NotUnderWay),
        Body::Append {
            prev: LogId::new(4, 3, 83),
            committed: 1,
            round: 1,
            durable: 1,
            entries: vec![an_entry()].into(),
        },
        Body::Removed { log_id: LogId::new(4, 2, 77), membership: membership() },
        Body::Removed { log_id: LogId::ZERO, membership: changing() },
    ]
}

/// The largest message of each kind that a configuration or a target goes with.
pub(super) fn largest_bodies() -> Vec<Body> {
    let membership = largest_changing;
    let options = ChangeOptions { follows: Some(CHANGE), ..ChangeOptions::default() };
    vec![
        request(largest_target(), options),
        refusal(ChangeRefusal::Target("x".repeat(5000))),
        refusal(ChangeRefusal::UnderWay { membership: membership() }),
        refusal(ChangeRefusal::Conflict { membership: membership() }),
        Body::Removed { log_id: LogId::new(4, 2, 77), membership: membership() },
        Body::Append {
            prev: LogId::new(4, 3, 77),
            committed: 1,
            round: 1,
            durable: 1,
            entries: vec![entry(5, 78, 1, Payload::Membership(membership()))].into(),
        },
    ]
}

/// A reason that is too long is cut where a character ends.
#[test]
fn long_reasons_are_cut() {
    let sent = message(refusal(ChangeRefusal::Target("ä".repeat(1000))));
    let Ok(Message { body: Body::ChangeReply { reply, .. }, .. }) = decode_message(encode(&sent))
    else {
        panic!("not an answer");
    };
    let cut = ChangeReply::Refused(ChangeRefusal::Target("ä".repeat(512)));
    assert_eq!(*reply, cut);
}

/// Times beyond what there is room for are the longest that there is.
#[test]
fn the_longest_time_to_catch_up_is_kept() {
    let options = |catch_up| ChangeOptions { catch_up, ..ChangeOptions::default() };
    let sent = message(request(target(), options(Duration::MAX)));
    let heard = message(request(target(), options(Duration::from_millis(u64::MAX))));
    assert_eq!(decode_message(encode(&sent)), Ok(heard));
}

mod wrong {
    //! Built from bytes, as no value of ours has this form.

    use super::super::refused::{is_invalid, members, numbers, replicas, structure};
    use super::*;

    const ID: [u8; 16] = [7; 16];

    /// A member of a target.
    fn member(id: NodeId, address: &[u8], role: u8) -> Vec<u8> {
        structure(&[(1, &numbers([id])), (2, address), (3, &[role])]).to_vec()
    }

    fn two() -> Vec<u8> {
        [member(1, b"a", 1), member(2, b"b", 2)].concat()
    }

    /// The fields of a structure, as the value of a field.
    fn fields(values: &[(u8, &[u8])]) -> Vec<u8> {
        structure(values)[5..].to_vec()
    }

    fn change(target: &[u8], before: &[u8]) -> Vec<u8> {
        fields(&[(1, &ID), (2, target), (3, before), (4, &[1; 8])])
    }

    /// A configuration of two voters, with this field besides.
    fn with(number: u8, value: &[u8]) -> Result<Membership, DecodeError> {
        let of_two = members(&[(1, b"a"), (2, b"b")]);
        let (founders, voters) = (numbers([1, 2]), replicas([1, 2]));
        let first = [(1, &ID[..]), (2, &founders), (3, &of_two), (4, &voters), (number, value)];
        take_membership(&mut structure(&first))
    }

    /// The field of the priorities may be skipped, so its tag is another one.
    fn with_priorities(value: &[u8]) -> Result<Membership, DecodeError> {
        let of_two = members(&[(1, b"a"), (2, b"b")]);
        let (founders, voters) = (numbers([1, 2]), replicas([1, 2]));
        let mut bytes = encoded(|to| {
            fields::put_sized(to, |to| {
                for (number, value) in [(1, &ID[..]), (2, &founders), (3, &of_two), (4, &voters)] {
                    put_field(to, REFUSE | number, |to| to.put_slice(value));
                }
                put_field(to, 6, |to| to.put_slice(value));
            });
        });
        take_membership(&mut bytes)
    }

    fn sent(kind: u8, values: &[(u8, &[u8])]) -> Result<Message, DecodeError> {
        let header = encode(&message(Body::ReadIndex { sequence: 1 }));
        decode_message([&header[..64], &[kind], &fields(values)].concat().into())
    }

    /// A request with these fields.
    fn requested(values: &[(u8, &[u8])]) -> Result<Message, DecodeError> {
        sent(21, &[(1, &fields(values))])
    }

    /// An answer with these fields.
    fn answered(values: &[(u8, &[u8])]) -> Result<Message, DecodeError> {
        sent(22, &[(1, &ID), (2, &fields(values))])
    }

    fn ending(values: &[(u8, &[u8])]) -> Vec<u8> {
        structure(values).to_vec()
    }

    #[test]
    fn targets_that_can_not_be_are_refused() {
        assert!(with(8, &change(&two(), &two())).is_ok());
        let request = |target: &[u8]| requested(&[(1, &ID), (2, target), (4, &[1; 8]), (5, &[0])]);
        assert!(request(&two()).is_ok());
        let long = [b'a'; MAX_ADDRESS_BYTES + 1];
        let many = (1..=MAX_NODES as u64 + 1).map(|id| member(id, id.to_string().as_bytes(), 1));
        let many = many.collect::<Vec<_>>().concat();
        for (case, target) in [
            ("out of order", [member(2, b"b", 1), member(1, b"a", 1)].concat()),
            ("twice the same", [member(1, b"a", 1), member(1, b"b", 1)].concat()),
            ("an address that is too long", member(1, &long, 1)),
            ("an address that is not UTF-8", member(1, b"\xff", 1)),
            ("too many", many),
        ] {
            is_invalid(with(8, &change(&target, &two())), case);
            is_invalid(with(8, &change(&two(), &target)), case);
            is_invalid(request(&target), case);
        }
        // What a request asks for in vain is told whoever asks, and is in no configuration.
        for (case, target) in [
            ("nobody votes", member(1, b"a", 2)),
            ("nobody is in it", vec![]),
            ("node 0", member(0, b"a", 1)),
            ("one address twice", [member(1, b"a", 1), member(2, b"a", 1)].concat()),
            ("no address", member(1, b"", 1)),
        ] {
            is_invalid(with(8, &change(&target, &two())), case);
            is_invalid(with(8, &change(&two(), &target)), case);
            assert!(request(&target).is_ok(), "{case}");
        }
        for role in [0, 3, 255] {
            let target = member(1, b"a", role);
            let kind = DecodeError::Kind { what: "role", kind: role };
            assert_eq!(with(8, &change(&target, &two())), Err(kind.clone()));
            assert_eq!(request(&target), Err(kind));
        }
        is_invalid(with(7, &ID[1..]), "an id of 15 bytes");
    }

    #[test]
    fn priorities_that_can_not_be_are_refused() {
        let priority = |id: NodeId, priority: u8| [&numbers([id])[..], &[priority]].concat();
        let two = with_priorities(&[priority(1, 5), priority(2, 255)].concat()).expect("valid");
        assert_eq!([1, 2, 3].map(|id| two.priority(id)), [5, 255, 0]);
        let many = (1..=MAX_NODES as u64 + 1).map(|id| priority(id, 1)).collect::<Vec<_>>();
        for (case, priorities) in [
            ("half a priority", priority(1, 5)[..8].to_vec()),
            ("priority 0", priority(1, 0)),
            ("of node 0", priority(0, 1)),
            ("out of order", [priority(2, 1), priority(1, 1)].concat()),
            ("twice the same", [priority(1, 1), priority(1, 1)].concat()),
            ("too many", many.concat()),
        ] {
            is_invalid(with_priorities(&priorities), case);
        }
    }

    #[test]
    fn endings_that_can_not_be_are_refused() {
        let done = ending(&[(1, &ID), (2, &[1])]);
        assert_eq!(with(9, &done.repeat(MAX_ENDED)).expect("valid").endings().count(), MAX_ENDED);
        is_invalid(with(9, &done.repeat(MAX_ENDED + 1)), "too many");
        let late = |ids: &[u8]| ending(&[(1, &ID), (2, &[3]), (3, ids)]);
        assert!(with(9, &late(&numbers([1, 2]))).is_ok());
        is_invalid(with(9, &late(&numbers([2, 1]))), "ids out of order");
        is_invalid(with(9, &late(&numbers(1..=MAX_NODES as u64 + 1))), "too many ids");
        for kind in [0, 5, 255] {
            let unknown = ending(&[(1, &ID), (2, &[kind])]);
            assert_eq!(with(9, &unknown), Err(DecodeError::Kind { what: "ending", kind }));
        }
        let missing = |tag| DecodeError::Missing { what: "ending", tag: REFUSE | tag };
        assert_eq!(with(9, &ending(&[(1, &ID), (2, &[3])])), Err(missing(3)));
        assert_eq!(with(9, &ending(&[(1, &ID), (2, &[4])])), Err(missing(4)));
        let by = ending(&[(1, &ID), (2, &[1]), (4, &ID)]);
        let unknown = DecodeError::Field { what: "ending", tag: REFUSE | 4 };
        assert_eq!(with(9, &by), Err(unknown), "one that is done has nothing in its place");
    }

    #[test]
    fn requests_and_answers_that_can_not_be_are_refused() {
        assert!(requested(&[(1, &ID)]).is_ok(), "it is to be cancelled");
        let what = "request for a change";
        let missing = |tag| Err(DecodeError::Missing { what, tag: REFUSE | tag });
        assert_eq!(requested(&[]), missing(1));
        assert_eq!(requested(&[(1, &ID), (2, &two())]), missing(4));
        assert_eq!(requested(&[(1, &ID), (2, &two()), (4, &[1; 8])]), missing(5));
        let unknown = Err(DecodeError::Field { what, tag: REFUSE | 4 });
        assert_eq!(requested(&[(1, &ID), (4, &[1; 8])]), unknown, "a cancellation takes no time");
        let lower = requested(&[(1, &ID), (2, &two()), (4, &[1; 8]), (5, &[2])]);
        assert_eq!(lower, Err(DecodeError::Kind { what: "yes or no", kind: 2 }));

        assert!(answered(&[(1, &[1]), (2, &ID)]).is_ok());
        for kind in [0, 6, 255] {
            let unknown = Err(DecodeError::Kind { what: "answer to a request", kind });
            assert_eq!(answered(&[(1, &[kind])]), unknown);
            let unknown = Err(DecodeError::Kind { what: "refusal", kind });
            assert_eq!(answered(&[(1, &[4]), (3, &[kind])]), unknown);
        }
        let what = "answer to a request for a change";
        for (values, tag) in [
            (&[][..], 1),
            (&[(1, &[1][..])], 2),
            (&[(1, &[4])], 3),
            (&[(1, &[4]), (3, &[1])], 4),
            (&[(1, &[4]), (3, &[2])], 5),
            (&[(1, &[4]), (3, &[3])], 5),
            (&[(1, &[4]), (3, &[4])], 6),
            (&[(1, &[4]), (3, &[4]), (6, &[1; 8])], 7),
        ] {
            let missing = DecodeError::Missing { what, tag: REFUSE | tag };
            assert_eq!(answered(values), Err(missing));
        }
        let reason = |reason: &[u8]| answered(&[(1, &[4]), (3, &[1]), (4, reason)]);
        assert!(reason(&[b'a'; 1024]).is_ok());
        is_invalid(reason(&[b'a'; 1025]), "a reason that is too long");
        is_invalid(reason(b"\xff"), "a reason not in UTF-8");
    }

    #[test]
    fn no_word_of_a_removal_is_without_a_configuration() {
        let missing = |tag| Err(DecodeError::Missing { what: "message", tag: REFUSE | tag });
        assert_eq!(sent(23, &[]), missing(1));
        assert_eq!(sent(23, &[(1, &numbers([1, 2, 3]))]), missing(2));
    }
}
