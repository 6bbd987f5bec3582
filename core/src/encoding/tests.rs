use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::Bound;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_bytes::ByteBuf;
use serde_json::{Value, json};

use super::*;

type Map<K, V> = BTreeMap<K, V>;

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Unit;

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Empty {}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64);

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    Nothing,
    One(i32),
    Two(i32, String),
    Fields { a: u8, b: Option<bool> },
    OfUnit(()),
    OfUnitStruct(Unit),
}

fn plain() -> Vec<Plain> {
    vec![
        Plain::Nothing,
        Plain::One(-1),
        Plain::Two(1, "two".to_owned()),
        Plain::Fields { a: 1, b: None },
        Plain::OfUnit(()),
        Plain::OfUnitStruct(Unit),
    ]
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(tag = "type")]
#[expect(clippy::large_enum_variant, reason = "one that has everything")]
enum Tagged {
    Nothing,
    Empty {},
    Of(Point),
    OfUnitStruct(Unit),
    OfEnum(Box<Tagged2>),
    Fields {
        big: u64,
        small: i64,
        float: f32,
        double: f64,
        letter: char,
        text: String,
        list: Vec<u8>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        some: Option<i8>,
        none: Option<i8>,
        nested: Option<Option<u8>>,
        map: Map<u64, i8>,
        by_pair: Map<(u8, String), Id>,
        address: SocketAddr,
        plain: Vec<Plain>,
        tuple: (u8, f64, Unit),
        empty: Empty,
        value: Value,
        duration: Duration,
    },
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(tag = "kind", content = "of")]
enum Tagged2 {
    Nothing,
    One(IpAddr),
    Two(i32, Option<Unit>),
    Fields { a: Option<u8> },
    Maybe(Option<u8>),
}

fn tagged() -> Vec<Tagged> {
    let adjacent = [
        Tagged2::Nothing,
        Tagged2::One(Ipv6Addr::LOCALHOST.into()),
        Tagged2::Two(1, None),
        Tagged2::Fields { a: Some(1) },
        Tagged2::Maybe(None),
        Tagged2::Maybe(Some(1)),
    ];
    let mut all: Vec<_> = adjacent.map(|a| Tagged::OfEnum(Box::new(a))).into();
    all.extend([
        Tagged::Nothing,
        Tagged::Empty {},
        Tagged::Of(Point { x: 1, y: -1 }),
        Tagged::OfUnitStruct(Unit),
        Tagged::Fields {
            big: u64::MAX,
            small: i64::MIN,
            float: 0.1,
            double: f64::NAN,
            letter: 'ß',
            text: "\u{1F600}".to_owned(),
            list: vec![0, 127, 128, 255],
            bytes: vec![0, 127, 128, 255],
            some: Some(-1),
            none: None,
            nested: Some(Some(1)),
            map: [(u64::MAX, -1), (0, 1)].into(),
            by_pair: [((1, "one".to_owned()), Id(1))].into(),
            address: ([127, 0, 0, 1], 80).into(),
            plain: plain(),
            tuple: (1, 1.0, Unit),
            empty: Empty {},
            value: value(),
            duration: Duration::from_millis(1500),
        },
    ]);
    all
}

#[derive(Serialize, Deserialize, Debug, Clone)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "one that has everything")]
enum Untagged {
    Whole(i64),
    Broken(f64),
    Text(String),
    Bytes(ByteBuf),
    Point(Point),
    Many(Vec<Untagged>),
    ByNumber(Map<i32, i32>),
    Address { address: SocketAddr },
    Plain { plain: Plain },
    Tagged { tagged: Tagged },
    Unit(Unit),
}

fn untagged() -> Vec<Untagged> {
    let mut all = vec![
        Untagged::Whole(i64::MIN),
        Untagged::Whole(7),
        Untagged::Broken(7.0),
        Untagged::Broken(f64::NEG_INFINITY),
        Untagged::Text("text".to_owned()),
        Untagged::Bytes(ByteBuf::from([1, 255])),
        Untagged::Point(Point { x: 1, y: 2 }),
        Untagged::Many(vec![Untagged::Whole(1), Untagged::Broken(1.0)]),
        Untagged::ByNumber([(1, 2)].into()),
        Untagged::Address { address: (Ipv6Addr::LOCALHOST, 80).into() },
        Untagged::Unit(Unit),
    ];
    all.extend(plain().into_iter().map(|plain| Untagged::Plain { plain }));
    all.extend(tagged().into_iter().map(|tagged| Untagged::Tagged { tagged }));
    all
}

#[derive(Serialize, Deserialize, Debug)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    point: Point,
    #[serde(flatten)]
    maybe: Option<Named>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Not with a map: that would take in the fields of the enum as well, whatever the encoding.
#[derive(Serialize, Deserialize, Debug)]
struct FlatTagged {
    a: u8,
    #[serde(flatten)]
    tagged: Tagged,
    #[serde(flatten)]
    maybe: Option<Named>,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Named {
    id: Id,
}

#[derive(Serialize, Deserialize, Debug)]
struct FlatPlain {
    a: u8,
    #[serde(flatten)]
    plain: Plain,
}

#[derive(Serialize, Deserialize, Debug)]
struct FlatNumbers {
    a: u8,
    #[serde(flatten)]
    rest: Map<u32, String>,
}

#[derive(Serialize, Deserialize, Debug)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<i32>,
    always: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    many: Vec<i32>,
}

fn value() -> Value {
    json!({
        "null": null, "yes": true, "small": i64::MIN, "big": u64::MAX, "float": 1.5, "whole": 1.0,
        "text": "ü", "list": [1, [], {"deep": {}}],
    })
}

/// It is read back as it was, alone and as part of others.
fn holds<T: Serialize + DeserializeOwned + Debug + Clone>(value: T) {
    is_read_back(&value);
    is_read_back(&vec![(value.clone(), 1), (value, 2)]);
}

fn is_read_back<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let bytes = encode(value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    let read: T = decode(&bytes).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    // Compared as text, in which one NaN is as good as another.
    assert_eq!(format!("{read:?}"), format!("{value:?}"));
    assert_eq!(encode(&read), Ok(bytes), "{value:?}");
}

#[test]
fn it_holds_enums_and_structs_of_every_form() {
    plain().into_iter().for_each(holds);
    tagged().into_iter().for_each(holds);
    untagged().into_iter().for_each(holds);
    plain().into_iter().for_each(|plain| is_read_back(&FlatPlain { a: 1, plain }));
    for maybe in [None, Some(Named { id: Id(7) })] {
        // Serde takes the other fields for those of the unit struct.
        for tagged in tagged().into_iter().filter(|t| !matches!(t, Tagged::OfUnitStruct(_))) {
            is_read_back(&FlatTagged { a: 1, tagged, maybe: maybe.clone() });
        }
        let rest = [("more".to_owned(), value())].into();
        is_read_back(&Flat { a: 1, point: Point { x: 1, y: 2 }, maybe, rest });
    }
    is_read_back(&FlatNumbers { a: 1, rest: [(7, "seven".to_owned())].into() });
    is_read_back(&Sparse { maybe: None, always: 1, many: vec![] });
    is_read_back(&Sparse { maybe: Some(1), always: 1, many: vec![1] });
}

#[test]
fn it_holds_nil_alone_whatever_it_stands_for() {
    #[derive(Serialize, Deserialize, Debug, Clone)]
    struct Newtype<T>(T);

    #[derive(Serialize, Deserialize, Debug, Clone)]
    #[serde(transparent)]
    struct Transparent<T> {
        inner: T,
    }

    #[derive(Serialize, Deserialize, Debug, Clone)]
    #[serde(untagged)]
    enum Untagged {
        Named { a: u8 },
        Nothing,
    }

    holds(());
    holds(None::<u8>);
    holds(Value::Null);
    holds(Newtype(()));
    holds(Newtype(Newtype(None::<u8>)));
    holds(Newtype(Value::Null));
    holds(Transparent { inner: None::<u8> });
    holds(Untagged::Nothing);
    holds(Untagged::Named { a: 1 });
    let not_nil = decode::<u8>(&encode(&()).unwrap()).unwrap_err();
    assert!(not_nil.contains("unit value, expected u8"), "{not_nil}");
    decode::<()>(&[NIL, NIL]).unwrap_err();
}

#[test]
fn it_holds_scalars_and_what_the_standard_library_has() {
    holds(());
    holds(Unit);
    holds(Empty {});
    holds(PhantomData::<u8>);
    holds(true);
    holds((i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
    holds((u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
    holds((0u128, 1i128, -1i128, i128::MAX));
    holds([0.1f32, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN, -0.0]);
    holds([0.1f64, f64::MIN_POSITIVE, f64::NEG_INFINITY, f64::NAN, -0.0]);
    holds(['x', '\0', '\u{10FFFF}']);
    holds(["".to_owned(), "x".repeat(31), "x".repeat(32), "x".repeat(256), "x".repeat(1 << 16)]);
    holds(Cow::<'static, str>::Borrowed("borrowed"));
    holds(ByteBuf::from([0, 200].repeat(1 << 15)));
    holds(vec![0u8, 200]);
    holds([0u8; 32]);
    holds(Box::<[u16]>::from([0, 200]));
    holds((1, "two".to_owned(), [3.0], Id(4), ((), Unit)));
    holds(vec![Some(Id(1)), None]);
    holds(None::<Option<Option<()>>>);
    holds(Some(Some(Some(1))));
    holds(Some(vec![()]));
    holds(Some(Empty {}));
    holds(Some(Plain::Nothing));
    holds(Err::<u8, String>("error".to_owned()));
    holds(Ok::<(), String>(()));
    holds(NonZeroU64::new(1));
    holds(Duration::MAX);
    holds(SystemTime::UNIX_EPOCH + Duration::from_nanos(1));
    holds(IpAddr::from([127, 0, 0, 1]));
    holds(PathBuf::from("a/path"));
    holds(OsString::from("os"));
    holds(Bound::Excluded(1));
    holds(1..5);
    holds(BTreeSet::from([1, 2]));
    holds(value());
    holds(Value::Null);
}

#[test]
fn it_holds_maps_whatever_their_keys_are() {
    holds(Map::from([(-1, 1), (i64::MIN, 2), (i64::MAX, 3)]));
    holds(Map::from([(u64::MAX, Map::from([(1u8, 2)]))]));
    holds(Map::from([(true, 1)]));
    holds(Map::from([('x', 1)]));
    holds(Map::from([((), 1)]));
    holds(Map::from([(Unit, 1)]));
    holds(Map::from([(Id(1), 1)]));
    holds(Map::from([((1, "two".to_owned()), 1)]));
    holds(Map::from([(vec![1, 2], 1)]));
    holds(Map::from([(ByteBuf::from([1]), 1)]));
    holds(Map::from([(None, 1), (Some(1), 2)]));
    holds(Map::from([(Point { x: 1, y: 2 }, 1)]));
    holds(Map::from([(IpAddr::from([127, 0, 0, 1]), 1)]));
    holds(plain().into_iter().map(|key| (key, 1)).collect::<Map<_, _>>());
}

#[test]
fn types_may_grow() {
    #[derive(Serialize)]
    enum Old {
        Put { key: String, value: u32, gone: Vec<u8> },
        Get(u8),
    }
    #[derive(Deserialize, Debug, PartialEq)]
    enum New {
        Added,
        Get(u8),
        Put {
            #[serde(default)]
            added: Option<u32>,
            value: u64,
            #[serde(default = "seven")]
            more: u8,
            key: String,
        },
    }
    fn seven() -> u8 {
        7
    }
    let old = Old::Put { key: "k".to_owned(), value: 1, gone: vec![1, 2] };
    let new = New::Put { added: None, value: 1, more: 7, key: "k".to_owned() };
    assert_eq!(decode(&encode(&old).unwrap()), Ok(new));
    assert_eq!(decode(&encode(&Old::Get(1)).unwrap()), Ok(New::Get(1)));
    assert_eq!(decode(&encode(&"Added").unwrap()), Ok(New::Added), "a unit variant is its name");
}

/// Why it is refused where it is proposed, before it is sent to anybody.
fn refused<T: Serialize>(value: T) -> String {
    encode(&value).expect_err("it can't be read back")
}

#[test]
fn what_would_be_read_as_none_is_refused() {
    #[derive(Serialize)]
    struct Wrapper<T>(T);
    const WHY: &str = "a `Some` of `None`, of a unit or of null is read as `None`";
    assert_eq!(refused(Some(None::<u8>)), WHY);
    assert_eq!(refused(Some(Some(None::<u8>))), WHY);
    assert_eq!(refused(Some(())), WHY);
    assert_eq!(refused(Some(Unit)), WHY);
    assert_eq!(refused(Some(Wrapper(None::<u8>))), WHY);
    assert_eq!(refused(Some(Value::Null)), WHY);
    assert_eq!(refused(Some(Untagged::Unit(Unit))), WHY);
    assert_eq!(refused(Map::from([(1, vec![Some(())])])), WHY);
}

/// Why the leader refuses it: its bytes can't be read.
fn unreadable<T: Serialize + DeserializeOwned + Debug>(value: &T) -> String {
    decode::<T>(&encode(value).expect("it can be written")).expect_err("it can't be read")
}

#[test]
fn what_serde_cannot_read_back_is_an_error_and_nothing_else() {
    #[derive(Serialize, Deserialize, Debug)]
    #[serde(tag = "type")]
    enum Wide {
        Number { number: u128 },
    }
    assert_eq!(unreadable(&Wide::Number { number: 1 << 100 }), "u128 is not supported");
    #[derive(Serialize, Deserialize, Debug)]
    struct Twice {
        a: u8,
        #[serde(flatten)]
        rest: Map<String, u8>,
    }
    let twice = Twice { a: 1, rest: [("a".to_owned(), 2)].into() };
    assert_eq!(unreadable(&twice), "duplicate field `a`");
    #[derive(Serialize, Deserialize, Debug)]
    struct LeftOut {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        without_default: Vec<u8>,
    }
    assert_eq!(unreadable(&LeftOut { without_default: vec![] }), "missing field `without_default`");
}

#[test]
fn bytes_that_are_no_value_are_refused() {
    let read = |bytes: &[u8]| decode::<Vec<Point>>(bytes).unwrap_err();
    let good = encode(&vec![Point { x: 1, y: 300 }]).unwrap();
    for len in 0..good.len() {
        read(&good[..len]);
    }
    for after in [&[0xc0][..], &[0x91], &[0xc1], &good] {
        assert_eq!(read(&[&good, after].concat()), "there are bytes after its end");
    }
    // So many elements are claimed that there can't be memory for them.
    read(&[0xdd, 0xff, 0xff, 0xff, 0xff]);
    decode::<String>(&[0xdb, 0xff, 0xff, 0xff, 0xff]).unwrap_err();
    decode::<String>(&[0xa1, 0xff]).unwrap_err();
    decode::<Point>(&encode(&Id(1)).unwrap()).unwrap_err();
}

/// Types that contain themselves, in every way that they can.
#[derive(Serialize, Deserialize, Debug)]
enum Chain {
    Newtype(Box<Chain>),
    Fields { next: Option<Box<Chain>> },
    Tuple(u8, Vec<Chain>),
    End,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "type")]
enum TaggedChain {
    Link { next: Box<TaggedChain> },
    End,
}

/// What is more is more of the same: a level of its own.
#[derive(Serialize, Deserialize, Debug)]
struct Peano(Option<Box<Peano>>);

#[test]
fn what_is_nested_too_deeply_is_neither_written_nor_read() {
    const TOO_DEEP: &str = "it is nested in more than 128 levels";
    fn nest<T>(times: usize, end: T, link: impl Fn(T) -> T) -> T {
        (0..times).fold(end, |inner, _| link(inner))
    }
    let lists = |times| nest(times, json!([]), |inner| json!([inner]));
    is_read_back(&lists(MAX_DEPTH - 1));
    assert_eq!(refused(lists(MAX_DEPTH)), TOO_DEEP);
    let newtypes = |times| nest(times, Chain::End, |inner| Chain::Newtype(Box::new(inner)));
    is_read_back(&newtypes(MAX_DEPTH - 1));
    assert_eq!(refused(newtypes(MAX_DEPTH + 1)), TOO_DEEP);
    let fields = |inner| Chain::Fields { next: Some(Box::new(inner)) };
    is_read_back(&nest(40, Chain::End, fields));
    assert_eq!(refused(nest(1000, Chain::End, fields)), TOO_DEEP);
    let tuples = |inner| Chain::Tuple(1, vec![inner]);
    is_read_back(&nest(40, Chain::End, tuples));
    assert_eq!(refused(nest(1000, Chain::End, tuples)), TOO_DEEP);
    let tagged = |inner| TaggedChain::Link { next: Box::new(inner) };
    is_read_back(&nest(MAX_DEPTH - 2, TaggedChain::End, tagged));
    assert_eq!(refused(nest(MAX_DEPTH, TaggedChain::End, tagged)), TOO_DEEP);

    // From a peer that does not check.
    let bomb = |prefix: &[u8]| prefix.repeat(1 << 20);
    fn error<T: DeserializeOwned + Debug>(bytes: &[u8]) -> String {
        decode::<T>(bytes).unwrap_err()
    }
    assert_eq!(error::<Value>(&bomb(&[0x91])), TOO_DEEP);
    assert_eq!(error::<Value>(&bomb(b"\x81\xa0")), TOO_DEEP);
    assert_eq!(error::<Untagged>(&bomb(&[0x91])), TOO_DEEP);
    assert_eq!(error::<Chain>(&bomb(b"\x81\xa7Newtype")), TOO_DEEP);
    assert_eq!(error::<TaggedChain>(&bomb(b"\x82\xa4type\xa4Link\xa4next")), TOO_DEEP);
    assert_eq!(error::<serde::de::IgnoredAny>(&bomb(&[0x91])), TOO_DEEP);
    assert_eq!(error::<Peano>(&[5]), TOO_DEEP);
    let compact = Compact::<Chain>::decode(&Bytes::from(bomb(&[0])));
    compact.expect_err("it is nested too deeply");
}

#[test]
fn the_compact_encoding_holds_less() {
    fn compact<T: Serialize + DeserializeOwned + Debug + 'static>(value: T) -> Result<T, String> {
        Ok(Compact::<T>::decode(&Compact(value).encode()?)?.0)
    }
    plain().into_iter().for_each(|plain| assert_eq!(compact(plain.clone()), Ok(plain)));
    assert_eq!(compact(Some(None::<u8>)), Ok(Some(None)));
    assert_eq!(compact(Map::from([(Id(1), u128::MAX)])), Ok(Map::from([(Id(1), u128::MAX)])));
    compact(tagged()).unwrap_err();
    compact(untagged()).unwrap_err();
    compact(value()).unwrap_err();
    compact(Sparse { maybe: None, always: 1, many: vec![] }).unwrap_err();
    compact(FlatNumbers { a: 1, rest: Map::new() }).unwrap_err();
    let bytes = Compact(Id(1)).encode().unwrap();
    assert_eq!(bytes.len(), 1);
    let longer = Bytes::from([&bytes[..], b"x"].concat());
    let error = Compact::<Id>::decode(&longer).unwrap_err();
    assert_eq!(error, "there are 1 bytes after its end");
}
