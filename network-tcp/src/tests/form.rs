//! The bytes of a handshake, and what they prove.

use quorate_core::codec::{REFUSE, put_field};

use super::*;
use crate::handshake::{MAX_CONFIRM_BYTES, MAX_MEMORIES, Refusal, Versions, judge};

/// It is taken only whole, and what comes after it stays.
fn comes_out_as_it_went_in<T: Clone + std::fmt::Debug + PartialEq>(
    value: &T,
    encode: impl Fn(&T) -> Bytes,
    take: impl Fn(&mut BytesMut) -> Result<Option<T>, Refusal>,
) {
    let bytes = encode(value);
    for len in 0..bytes.len() {
        assert_eq!(take(&mut BytesMut::from(&bytes[..len])), Ok(None), "{len} bytes of {value:?}");
    }
    let mut stream = BytesMut::from(&[&bytes[..], b"more"].concat()[..]);
    assert_eq!(take(&mut stream), Ok(Some(value.clone())));
    assert_eq!(stream, "more");
}

fn memory(term: u64) -> Memory {
    let (acknowledged, committed) = (LogId::new(term, 1, 9), LogId::new(term, 1, 8));
    let boot = Boot { number: term / 2, tag: term };
    Memory { term: Term(term), voted: Term(term - 1), acknowledged, committed, boot }
}

#[test]
fn each_part_comes_out_as_it_went_in_and_only_whole() {
    let states = [
        StoreState::Empty,
        StoreState::Claimed,
        StoreState::Admitted,
        StoreState::Member,
        StoreState::Spent,
    ];
    let hellos = states.map(|state| hello_by(Credentials { state, ..member(1) }, replica(2)));
    let more = [
        Hello { lane: Lane::Bulk, address: "é".repeat(256), ..hello(1, 2) },
        Hello { to: Replica::any(2), address: String::new(), ..hello(1, 2) },
        Hello { versions: Versions { min: 1, max: u32::MAX }, ..hello(1, 2) },
    ];
    for hello in hellos.into_iter().chain(more) {
        comes_out_as_it_went_in(&hello, Hello::encode, Hello::take);
    }
    let welcome = welcome_by(member(2), &hello(1, 2));
    let answers = [
        welcome.clone(),
        welcome_by(empty(2), &hello(1, 2)),
        Answer::refuse(Refusal::Twin, welcome.node),
        Answer::refuse(Refusal::Malformed, None),
    ];
    for answer in answers {
        comes_out_as_it_went_in(&answer, Answer::encode, Answer::take);
    }
    let confirms = [
        Confirm::default(),
        Confirm { refused: 8, ..Confirm::default() },
        Confirm { mac: welcome.mac, ..Confirm::default() },
        Confirm { mac: welcome.mac, remember: vec![(0, memory(1)), (7, memory(9))], refused: 0 },
    ];
    for confirm in confirms {
        comes_out_as_it_went_in(&confirm, Confirm::encode, Confirm::take);
    }
}

#[test]
fn the_largest_parts_are_within_their_bounds() {
    let remember = vec![(u64::MAX, memory(u64::MAX)); MAX_MEMORIES];
    let mut bytes = BytesMut::from(
        &Confirm { mac: Some([1; 32]), remember: remember.clone(), refused: 0 }.encode()[..],
    );
    assert!(bytes.len() < MAX_CONFIRM_BYTES);
    assert_eq!(Confirm::take(&mut bytes).unwrap().unwrap().remember, remember);
    // More is refused by its length alone.
    for (take, at) in
        [(take_hello as fn(&mut BytesMut) -> _, 16), (take_answer, 21), (take_confirm, 0)]
    {
        let mut head = match at {
            16 => hello(1, 2).encode().to_vec(),
            21 => welcome_by(member(2), &hello(1, 2)).encode().to_vec(),
            _ => vec![0; 4],
        };
        head.truncate(at + 4);
        head[at..].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        assert_eq!(take(&mut BytesMut::from(&head[..])), Err(Refusal::Malformed));
    }
}

fn take_hello(from: &mut BytesMut) -> Result<(), Refusal> {
    Hello::take(from).map(drop)
}

fn take_answer(from: &mut BytesMut) -> Result<(), Refusal> {
    Answer::take(from).map(drop)
}

fn take_confirm(from: &mut BytesMut) -> Result<(), Refusal> {
    Confirm::take(from).map(drop)
}

/// With one more field at its end. The length before the fields begins `at` this byte.
fn grown(bytes: &Bytes, at: usize, tag: u8) -> BytesMut {
    let mut field = Gather::new();
    put_field(&mut field, tag, |to| to.put_slice(b"of a later version"));
    let field = field.take().concat();
    let mut grown = [&bytes[..], &field].concat();
    let len = (grown.len() - at - 4) as u32;
    grown[at..at + 4].copy_from_slice(&len.to_le_bytes());
    BytesMut::from(&grown[..])
}

#[test]
fn a_field_of_a_later_version_is_skipped_or_refused_as_its_tag_says() {
    let hello = hello(1, 2);
    let answer = welcome_by(member(2), &hello);
    let confirm = Confirm { mac: answer.mac, ..Confirm::default() };
    for tag in [20, 20 | REFUSE] {
        let took = Hello::take(&mut grown(&hello.encode(), 16, tag));
        let expect = |is_skipped: bool| tag & REFUSE == 0 && is_skipped;
        assert_eq!(took.is_ok(), expect(took == Ok(Some(hello.clone()))));
        let took = Answer::take(&mut grown(&answer.encode(), 21, tag));
        assert_eq!(took.is_ok(), expect(took == Ok(Some(answer.clone()))));
        let took = Confirm::take(&mut grown(&confirm.encode(), 0, tag));
        assert_eq!(took.is_ok(), expect(took == Ok(Some(confirm.clone()))));
    }
}

#[test]
fn what_all_versions_have_in_common_stays_where_it_is() {
    let hello = hello(1, 2).encode();
    assert_eq!(hello[..16], *b"quorate\n\x03\0\0\0\x03\0\0\0");
    assert_eq!(hello[16..20], (hello.len() as u32 - 20).to_le_bytes());
    let answer = Answer::refuse(Refusal::Twin, None).encode();
    assert_eq!(answer[..], *b"quorate\n\0\0\0\0\x03\0\0\0\x03\0\0\0\x07\0\0\0\0");
    // A refusal whose fields are of another version is understood.
    let mut strange = answer.to_vec();
    strange[21] = 3;
    strange.extend([0xFF; 3]);
    let answer = Answer::take(&mut BytesMut::from(&strange[..])).unwrap().unwrap();
    assert_eq!(answer.check(&self::hello(1, 2)), Err(Refusal::Twin));
}

#[test]
fn a_hello_is_refused_for_what_is_wrong_with_it() {
    let own = member(2);
    let check = |hello: Hello| hello.check(&own);
    assert_eq!(check(hello(1, 2)), Ok(()));
    let any = Hello { to: Replica::any(2), ..hello(1, 2) };
    assert_eq!(check(any), Ok(()));
    let lives = replica(2);
    let asked = replica(3);
    assert_eq!(check(hello(1, 3)), Err(Refusal::Node { asked, lives }));
    let asked = Replica::new(2, 5);
    assert_eq!(
        check(hello_by(member(1), asked)),
        Err(Refusal::Replica { asked, lives, is_empty: false })
    );
    let wiped = hello_by(member(1), asked).check(&empty(2));
    assert_eq!(wiped, Err(Refusal::Replica { asked, lives, is_empty: true }));
    assert_eq!(check(hello(2, 2)), Err(Refusal::Malformed), "from itself");
    assert_eq!(check(hello_by(rebooted(own), lives)), Err(Refusal::Twin));
    // The old disk of the same node is another replica, and may have something to say.
    let old = Credentials { replica: Replica::new(2, 5), ..own };
    assert_eq!(check(hello_by(old, lives)), Ok(()));
    assert_eq!(Hello::take(&mut BytesMut::from("PING\r\n")), Err(Refusal::Magic));
    let nobody = hello_by(member(1), Replica::any(0)).encode();
    assert_eq!(Hello::take(&mut BytesMut::from(&nobody[..])), Err(Refusal::Malformed));
    let unknown = hello_by(Credentials { replica: Replica::any(1), ..own }, lives).encode();
    assert_eq!(Hello::take(&mut BytesMut::from(&unknown[..])), Err(Refusal::Malformed));
}

#[test]
fn an_answer_is_refused_for_what_is_wrong_with_it() {
    assert_eq!(Answer::take(&mut BytesMut::from("HTTP/1.1")), Err(Refusal::Magic));
    let hello = hello(1, 2);
    let welcome = welcome_by(member(2), &hello);
    assert_eq!(welcome.check(&hello), Ok(welcome.node.unwrap()));
    let (lives, asked) = (replica(2), replica(3));
    assert_eq!(welcome.check(&self::hello(1, 3)), Err(Refusal::Node { asked, lives }));
    let asked = Replica::new(2, 5);
    let other_store = hello_by(member(1), asked);
    assert_eq!(
        welcome.check(&other_store),
        Err(Refusal::Replica { asked, lives, is_empty: false })
    );
    let refusals = [
        Refusal::Cluster,
        Refusal::Malformed,
        Refusal::Twin,
        Refusal::OlderBoot,
        Refusal::Unknown(77),
    ];
    for refusal in refusals {
        let answer = Answer::refuse(refusal, welcome.node);
        assert_eq!(answer.check(&hello), Err(refusal));
        assert_eq!(Refusal::from_code(refusal.code()), refusal);
    }
    let mut later = BytesMut::from(&welcome.encode()[..]);
    later[8] = 4;
    assert_eq!(Answer::take(&mut later), Err(Refusal::Versions { theirs: VERSIONS }));
}

/// The same line is in the log of both sides.
#[test]
fn a_refusal_names_who_it_is_about() {
    let (asked, lives) = (Replica::new(2, 5), replica(2));
    let text = |is_empty| Refusal::Replica { asked, lives, is_empty }.to_string();
    let wiped = text(true);
    assert!(wiped.starts_with("node 2 runs on an empty store, 2/d15c, and the"), "{wiped}");
    let other = text(false);
    assert!(other.starts_with("node 2 runs on another store, 2/d15c, and the"), "{other}");
    assert!(!other.contains("lost"), "it may be the other side that is wrong: {other}");
    let twin = Refusal::Twin.to_string();
    assert!(twin.contains("Stop one of them") && !twin.contains("later"), "{twin}");
}

#[test]
fn a_mac_depends_on_all_that_it_is_made_of() {
    let one = Party::new(&member(1), [1; 16]);
    let two = Party::new(&member(2), [2; 16]);
    let number = |number| Boot { number, ..one.boot };
    let macs = [
        mac(CLUSTER, Role::Dialler, &one, &two),
        mac(CLUSTER, Role::Acceptor, &one, &two),
        mac(OTHER_CLUSTER, Role::Dialler, &one, &two),
        mac(CLUSTER, Role::Dialler, &two, &one),
        mac(CLUSTER, Role::Dialler, &Party { nonce: [3; 16], ..one }, &two),
        mac(CLUSTER, Role::Dialler, &one, &Party { nonce: [3; 16], ..two }),
        mac(CLUSTER, Role::Dialler, &Party { boot: number(9), ..one }, &two),
        mac(CLUSTER, Role::Dialler, &Party { boot: rebooted(member(1)).boot, ..one }, &two),
        mac(CLUSTER, Role::Dialler, &Party { replica: Replica::new(1, 5), ..one }, &two),
        mac(CLUSTER, Role::Dialler, &one, &Party { replica: Replica::new(2, 5), ..two }),
    ];
    assert_eq!(BTreeSet::from(macs).len(), macs.len());
}

#[test]
fn two_members_are_of_one_cluster_or_refused_and_others_may_prove_nothing() {
    use StoreState::{Claimed, Empty, Member, Spent};
    let states = [Empty, Claimed, Member, Spent];
    let (ours, theirs) = (Some([1; 32]), Some([2; 32]));
    for own in states {
        for peer in states {
            assert_eq!(judge(own, peer, ours, ours), Ok(true));
            for (expected, sent) in [(None, None), (ours, None), (None, theirs)] {
                assert_eq!(judge(own, peer, expected, sent), Ok(false));
            }
            let are_bound = [own, peer].iter().all(|state| matches!(state, Member | Spent));
            let expected = if are_bound { Err(Refusal::Cluster) } else { Ok(false) };
            assert_eq!(judge(own, peer, ours, theirs), expected, "{own:?} and {peer:?}");
        }
    }
}
