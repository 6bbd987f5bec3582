//! Fields that a later version adds: those to be skipped change nothing, those to be refused are.

use super::*;
use crate::membership::{ChangeId, ChangeKind, ChangeOptions};

/// The way to a structure in another one.
#[derive(Clone, Copy)]
enum Step {
    /// Into the field with this number.
    Field(u8),
    /// Into this one of a list of structures.
    Item(usize),
}
use Step::{Field, Item};

/// Fields with a further one at the end of the structure at the end of the path.
fn grown(mut fields: Bytes, path: &[Step], extra: &[u8]) -> Bytes {
    let Some((step, path)) = path.split_first() else { return [&fields, extra].concat().into() };
    let mut at = 0;
    encoded(|to| {
        while !fields.is_empty() {
            let is_it = match *step {
                Field(number) => {
                    let tag = take_u8(&mut fields, "tag").expect("fields");
                    to.put_u8(tag);
                    tag & !REFUSE == number
                }
                Item(item) => at == item,
            };
            let value = fields::take_sized(&mut fields, "value").expect("fields");
            let value = if is_it { grown(value, path, extra) } else { value };
            fields::put_sized(to, |to| to.put_slice(&value));
            at += 1;
        }
    })
}

/// A field that nobody knows, which is the last of all.
fn extra(tag: u8) -> Vec<u8> {
    [&[tag, 3][..], b"new"].concat()
}

const SKIPPED: u8 = 0x7F;
const REFUSED: u8 = 0xFF;

/// The structure at the end of each of these paths may grow.
fn grows<T: Debug + PartialEq>(
    value: &T,
    put: impl Fn(&mut Gather, &T),
    take: impl Fn(&mut Bytes) -> Result<T, DecodeError>,
    paths: &[&[Step]],
) {
    let mut bytes = encoded(|to| put(to, value));
    let fields = fields::take_sized(&mut bytes, "structure").expect("it has a length");
    for path in paths {
        let with = |tag| {
            let fields = grown(fields.clone(), path, &extra(tag));
            take(&mut encoded(|to| fields::put_sized(to, |to| to.put_slice(&fields))))
        };
        assert_eq!(with(SKIPPED).as_ref(), Ok(value));
        let outcome = with(REFUSED);
        assert!(matches!(outcome, Err(DecodeError::Field { tag: REFUSED, .. })), "{outcome:?}");
    }
}

#[test]
fn what_a_store_keeps_may_grow() {
    let (whole, member) = (&[][..], &[Field(3), Item(1)][..]);
    grows(&membership(), put_membership, take_membership, &[whole, member]);
    let ending = &[Field(9), Item(2)][..];
    let (target, before) = (&[Field(8), Field(2), Item(0)][..], &[Field(8), Field(3), Item(3)][..]);
    let paths = [whole, member, &[Field(8)], target, before, ending];
    grows(&changing(), put_membership, take_membership, &paths);
    let hard_state = HardState { term: Term(9), voted_for: Some(replica(3)) };
    grows(&hard_state, put_hard_state, take_hard_state, &[whole]);
    let (claimed, listed) = (&[Field(1)][..], &[Field(1), Field(4), Item(0)][..]);
    for standing in standings() {
        grows(&standing, put_standing, take_standing, &[whole]);
    }
    grows(&standings()[1], put_standing, take_standing, &[claimed, listed]);
    grows(&marks(), put_marks, take_marks, &[whole, &[Field(2), Item(0)]]);
    let nested = [whole, &[Field(2)], &[Field(2), Field(3), Item(0)]];
    grows(&meta(), put_snapshot_meta, take_snapshot_meta, &nested);
}

#[test]
fn messages_may_grow() {
    for message in messages() {
        let whole: &[Step] = &[];
        let paths = match message.body {
            Body::Vote { transfer: Some(_), .. } | Body::Situation { .. } => {
                vec![whole, &[Field(1)]]
            }
            Body::Claim(_) => vec![whole, &[Field(1)], &[Field(1), Field(4), Item(2)]],
            Body::Snapshot { .. } => vec![whole, &[Field(1)], &[Field(1), Field(2)]],
            Body::Change(ref request) if request.kind != ChangeKind::Cancel => {
                vec![whole, &[Field(1)], &[Field(1), Field(2), Item(2)]]
            }
            Body::Change(_) => vec![whole, &[Field(1)]],
            Body::ChangeReply { .. } | Body::Removed { .. } => vec![whole, &[Field(2)]],
            _ => vec![whole],
        };
        let bytes = encode(&message);
        let (header, fields) = (bytes.slice(..65), bytes.slice(65..));
        for path in paths {
            let with = |tag| {
                let fields = grown(fields.clone(), path, &extra(tag));
                decode_message([header.clone(), fields].concat().into())
            };
            assert_eq!(with(SKIPPED).as_ref(), Ok(&message));
            let outcome = with(REFUSED);
            assert!(matches!(outcome, Err(DecodeError::Field { tag: REFUSED, .. })), "{outcome:?}");
        }
    }
}

#[test]
fn lengths_may_have_either_form() {
    for message in messages() {
        let bytes = encode(&message);
        for is_long in [false, true] {
            let mut fields = bytes.slice(65..);
            let rewritten = encoded(|to| {
                to.put_slice(&bytes[..65]);
                while !fields.is_empty() {
                    to.put_u8(take_u8(&mut fields, "tag").expect("fields"));
                    let value = fields::take_sized(&mut fields, "value").expect("fields");
                    match u8::try_from(value.len()) {
                        Ok(len) if len < 255 && !is_long => to.put_u8(len),
                        _ => {
                            to.put_u8(255);
                            to.put_u32(value.len() as u32);
                        }
                    }
                    to.put_slice(&value);
                }
            });
            assert_eq!(decode_message(rewritten).as_ref(), Ok(&message));
        }
    }
}

#[test]
fn entries_may_grow() {
    let entries = entries();
    for entry in &entries {
        let bytes = encoded(|to| put_entry(to, entry));
        let with = |tag| {
            let mut grown = bytes.to_vec();
            let extra = [&[5], &extra(tag)[..]].concat();
            let rest = u32::try_from(bytes.len() - ENTRY_HEADER_BYTES + extra.len()).unwrap();
            grown[0] |= 0x80;
            grown[ENTRY_HEADER_BYTES - 4..ENTRY_HEADER_BYTES].copy_from_slice(&rest.to_le_bytes());
            grown.splice(ENTRY_HEADER_BYTES..ENTRY_HEADER_BYTES, extra);
            assert_eq!(entry_bytes(&grown), Ok(grown.len()));
            take_entry(&mut grown.into())
        };
        assert_eq!(with(SKIPPED).as_ref(), Ok(entry));
        assert_eq!(with(REFUSED), Err(DecodeError::Field { what: "entry", tag: REFUSED }));
    }
}

#[test]
fn runs_and_their_entries_may_grow() {
    let prev = LogId::new(4, 3, 77);
    let entries = || Entries::from(vec![entry(4, 78, 5, Payload::Command("xy".into()))]);
    let append =
        message(Body::Append { prev, committed: 0, round: 0, durable: 0, entries: entries() });
    let bytes = encode(&append);
    let len = bytes.len();
    let (field, run, short) = (len - 7 - 37 - 8, len - 7 - 37, len - 7);
    for (flag, place) in [(run, short), (short, short + 5)] {
        let with = |tag| {
            let mut grown = bytes.to_vec();
            let extra = [&[5], &extra(tag)[..]].concat();
            grown[flag] |= 0x80;
            grown[field] += 6;
            if flag == short {
                grown[short + 1] += 6;
            }
            grown.splice(place..place, extra);
            decode_message(grown.into())
        };
        assert_eq!(with(SKIPPED).as_ref(), Ok(&append));
        let outcome = with(REFUSED);
        assert!(matches!(outcome, Err(DecodeError::Field { tag: REFUSED, .. })), "{outcome:?}");
    }
    let mut unknown = bytes.to_vec();
    unknown[run] = 1;
    let kind = DecodeError::Kind { what: "run of entries", kind: 1 };
    assert_eq!(decode_message(unknown.into()), Err(kind));
}

/// As a store's records may use them.
#[test]
fn fields_are_found_by_their_tags() {
    let fields = || {
        let bytes = encoded(|to| {
            put_field(to, 1, |to| to.put_u32(5));
            put_field(to, 2, |to| to.put_u64(6));
            put_field(to, REFUSE | 5, |to| put_log_id(to, LogId::new(1, 2, 3)));
        });
        Fields::new("record", bytes)
    };
    let mut all = fields();
    assert_eq!(all.value(1, |from| take_u32(from, "number")), Ok(5));
    assert_eq!(all.optional(2, Fields::number), Ok(Some(6)));
    assert_eq!(all.optional(3, Fields::number), Ok(None));
    assert_eq!(all.number(4), Err(DecodeError::Missing { what: "record", tag: 4 }));
    let value = |fields: &mut Fields, tag| fields.value(tag, take_log_id);
    assert_eq!(all.optional(REFUSE | 5, value), Ok(Some(LogId::new(1, 2, 3))));
    assert_eq!(all.finish(), Ok(()));

    let refused = DecodeError::Field { what: "record", tag: REFUSE | 5 };
    assert_eq!(fields().finish(), Err(refused.clone()));
    assert_eq!(fields().optional(6, Fields::bytes), Err(refused.clone()));
    // The same number with the other mark is another field.
    assert_eq!(fields().optional(5, Fields::bytes), Err(refused));
    assert_eq!(fields().value(2, |from| take_u32(from, "number")), Err(DecodeError::Long(4)));
    assert!(matches!(fields().number(1), Err(DecodeError::Invalid(_))));
}

#[test]
fn fields_out_of_order_or_repeated_are_refused() {
    for tags in [[2, 1], [1, 1], [1, REFUSE | 1], [REFUSE | 2, 1], [0, 1], [REFUSE, 1]] {
        let bytes = encoded(|to| tags.iter().for_each(|tag| put_field(to, *tag, |_| ())));
        let mut fields = Fields::new("record", bytes);
        let outcome = fields.optional(tags[0], Fields::bytes).and_then(|_| fields.finish());
        assert!(matches!(outcome, Err(DecodeError::Invalid(_))), "{tags:?}: {outcome:?}");
    }
}

/// Who does not know of priorities acts as if there were none; without anything else of a change,
/// there is none.
#[test]
fn what_a_configuration_lacks_of_changes_is_not_there() {
    let [simple, changing] = [membership(), changing()].map(|membership| {
        let mut bytes = encoded(|to| put_membership(to, &membership));
        fields::take_sized(&mut bytes, "structure").expect("it has a length")
    });
    assert_eq!(changing[..simple.len()], simple, "what was there before changes were");
    let plain = membership();
    assert_eq!((plain.change(), plain.last_change()), (None, ChangeId::default()));
    assert_eq!((plain.priority(1), plain.endings().count()), (0, 0));

    let mut rest = changing.slice(simple.len()..);
    assert_eq!(take_u8(&mut rest, "tag"), Ok(6), "priorities are skipped by who doesn't know them");
    let target = changes::target();
    let mut with = vec![];
    let without = encoded(|to| {
        put_message(to, &message(changes::request(target.clone(), ChangeOptions::default())))
    });
    with.extend_from_slice(&without);
    let place = with.windows(3).position(|bytes| bytes == [4, 1, 3]).expect("a priority");
    with[place] = 0x7F; // Another one, which is skipped.
    let mut lower = target;
    lower.members.get_mut(&2).expect("a member").priority = 0;
    let heard = message(changes::request(lower, ChangeOptions::default()));
    assert_eq!(decode_message(with.into()), Ok(heard));
}
