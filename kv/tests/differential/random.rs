//! Random commands of every supported kind, with odd arguments.

use fastrand::Rng;

/// The keys that there may be.
pub(crate) const KEYS: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"ab",
    b"abc",
    b"aab",
    b"a b",
    b"\0",
    b"a\0b",
    b"*",
    b"**",
    b"[a]",
    b"a-b",
    b"]",
    b"^",
    b"\\",
    b"\\*",
    b"\r\n",
    b"\xff\xfe",
    b"{a}b",
    b"1",
    b"-1",
    b"nx",
    b"GET",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"0",
    b"-0",
    b"1",
    b"-1",
    b"01",
    b" 1",
    b"1 ",
    b"+1",
    b"1.0",
    b"1e3",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"99999999999999999999999",
    b"x",
    b"\0",
    b"1\0",
    b"\r\n",
    b"\xff",
    b"NX",
    b"XX",
    b"GET",
    b"*",
    b"10",
    b"2147483648",
    b"-2147483649",
];

/// The commands, with the kinds of their arguments: a key, a value, a number, a pattern; some
/// options of it; many of either.
#[derive(Clone, Copy)]
enum Kind {
    Key,
    Value,
    Pattern,
    Word(&'static [&'static str]),
    Many(&'static [Kind]),
}

use Kind::{Key, Many, Pattern, Value, Word};

const COMMANDS: &[(&str, &[Kind])] = &[
    ("get", &[Key]),
    ("set", &[Key, Value]),
    ("set", &[Key, Value, Word(&["nx", "xx", "get", "NX", "XX", "Get", "", "nxx", "nx\0"])]),
    ("set", &[Key, Value, Many(&[Word(&["nx", "xx", "get", "nx", "xx"])])]),
    ("incr", &[Key]),
    ("decr", &[Key]),
    ("incrby", &[Key, Value]),
    ("decrby", &[Key, Value]),
    ("del", &[Many(&[Key])]),
    ("exists", &[Many(&[Key])]),
    ("mget", &[Many(&[Key])]),
    ("mset", &[Many(&[Key, Value])]),
    ("mset", &[Key, Value, Key]),
    ("dbsize", &[]),
    ("setnx", &[Key, Value]),
    ("getset", &[Key, Value]),
    ("getdel", &[Key]),
    ("append", &[Key, Value]),
    ("rename", &[Key, Key]),
    ("strlen", &[Key]),
    ("type", &[Key]),
    ("keys", &[Pattern]),
    ("keys", &[Key]),
    (
        "scan",
        &[
            Word(&["0", "", "+0", "-0", "00", "x", "1x", "18446744073709551616", "-", " 0", "0 "]),
            Word(&["count"]),
            Word(&["1000"]),
        ],
    ),
    (
        "scan",
        &[Word(&["0"]), Word(&["COUNT"]), Word(&["1000"]), Word(&["match", "MATCH"]), Pattern],
    ),
    (
        "scan",
        &[
            Word(&["0"]),
            Word(&["match"]),
            Key,
            Word(&["count"]),
            Word(&["100"]),
            Word(&["type"]),
            Word(&["string", "STRING", "list", ""]),
        ],
    ),
    (
        "scan",
        &[
            Word(&["0"]),
            Word(&["count", "match", "type", "", "nocount"]),
            Word(&["1000"]),
            Word(&["count"]),
            Word(&["0", "-1", "", "x", "99", "9223372036854775808"]),
        ],
    ),
    ("ping", &[]),
    ("ping", &[Value]),
    ("echo", &[Value]),
    (
        "select",
        &[Word(&[
            "0",
            "-1",
            "16",
            "x",
            "",
            "2147483648",
            "99999999999999999999",
            "00",
            "+0",
            "0\0",
        ])],
    ),
    ("client", &[Word(&["id", "getname", "setname", "nope", "", "id\0", "ID\0x"]), Value, Value]),
    ("client", &[Word(&["setname", "SetName"]), Value]),
    ("client", &[Word(&["getname"])]),
    ("client", &[Word(&["nope", "", "getname\0", "\r\n", "na me"])]),
    ("command", &[Word(&["nope", "", "count\0"])]),
    ("command", &[Word(&["docs", "info"]), Word(UNKNOWN_COMMANDS)]),
    ("config", &[Word(&["nope", "", "get\0"])]),
    ("config", &[Word(&["get"]), Word(&["nope", "", "sav", "\0", "nope[*"])]),
    ("config", &[Word(&["get"])]),
    ("hello", &[Word(&["1", "4", "x", "", "-3", "99999999999999999999", "3.0"])]),
    ("hello", &[Word(&["2", "3"]), Word(&["auth", "setname", "nope", "", "AUTH"])]),
    ("hello", &[Word(&["2", "3"]), Word(&["setname"]), Word(&["a b", "\n", "\u{ff}"])]),
    ("flushall", &[Word(&["now", "", "sync\0"])]),
    ("flushall", &[Word(&["sync", "ASYNC"]), Word(&["sync", ""])]),
    ("auth", &[Value, Value, Value]),
    ("exec", &[]),
    ("discard", &[]),
    ("multi", &[Value]),
    ("nope", &[Value, Value]),
    ("", &[Value]),
    ("get\0", &[Key]),
];

/// Names of which neither can tell anything.
const UNKNOWN_COMMANDS: &[&str] = &["nope", "get|x", "client|nope", ""];

/// Sent seldom: they leave little to compare.
const SELDOM: &[(&str, &[Kind])] =
    &[("flushall", &[]), ("flushall", &[Word(&["sync", "ASYNC", "Sync"])]), ("quit", &[])];

fn argument(rng: &mut Rng, kind: Kind, to: &mut Vec<Vec<u8>>) {
    let any = |rng: &mut Rng, from: &[&[u8]]| from[rng.usize(..from.len())].to_vec();
    match kind {
        Key => to.push(any(rng, KEYS)),
        Value if rng.u8(..16) == 0 => to.push(vec![rng.u8(..); rng.usize(..20_000)]),
        Value => to.push(any(rng, VALUES)),
        Pattern => {
            const ITEMS: &[u8] = b"****??[[]]^^--\\\\ab1c\0";
            to.push((0..rng.usize(..8)).map(|_| ITEMS[rng.usize(..ITEMS.len())]).collect());
        }
        Word(words) => to.push(words[rng.usize(..words.len())].as_bytes().to_vec()),
        Many(kinds) => {
            for _ in 0..rng.usize(1..6) {
                kinds.iter().for_each(|kind| argument(rng, *kind, to));
            }
        }
    }
}

pub(crate) fn random_command(rng: &mut Rng) -> Vec<Vec<u8>> {
    let from = if rng.u8(..250) == 0 { SELDOM } else { COMMANDS };
    let (name, kinds) = from[rng.usize(..from.len())];
    let name: String = match rng.u8(..3) {
        0 => name.to_owned(),
        1 => name.to_uppercase(),
        _ => name.chars().map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c }).collect(),
    };
    let mut command = vec![name.into_bytes()];
    kinds.iter().for_each(|kind| argument(rng, *kind, &mut command));
    let seldom = from.len() == SELDOM.len();
    match rng.u8(..40) {
        0 if !seldom => command.truncate(rng.usize(1..=command.len())),
        1 => argument(rng, Value, &mut command),
        2 => argument(rng, Key, &mut command),
        _ => {}
    }
    command
}

/// What the two do differently on purpose, if a random command comes to it.
pub(crate) fn is_known_to_differ(command: &[Vec<u8>]) -> bool {
    let lower: Vec<_> = command.iter().map(|word| word.to_ascii_lowercase()).collect();
    let words: Vec<&[u8]> = lower.iter().map(Vec::as_slice).collect();
    match &words[..] {
        // Redis finds them by chance.
        [name, ..] if name.contains(&0) => true,
        [b"client" | b"config" | b"command", name, ..] if name.contains(&0) => true,
        // What a server tells of itself.
        [b"hello"] | [b"hello", b"2" | b"3"] | [b"hello", _, b"setname", _] => true,
        [b"client", b"id"] | [b"command"] | [b"command", b"docs" | b"info"] => true,
        // Each has its own texts; what `COMMAND INFO` tells has a test of its own.
        [b"command", b"docs" | b"info", names @ ..] => names
            .iter()
            .any(|name| !UNKNOWN_COMMANDS.iter().any(|unknown| unknown.as_bytes() == *name)),
        // Quorate hangs up.
        [b"multi"] => true,
        // Each has its own settings, and limits.
        [b"config", b"get", names @ ..] if names.iter().any(|name| b"**".starts_with(name)) => true,
        [b"config" | b"command", names @ ..] => {
            names.iter().map(|name| name.len()).sum::<usize>() > 2048
        }
        // Redis takes any password of `default`, and knows of no other user.
        [b"auth", _, _] | [b"hello", _, b"auth", _, _, ..] => true,
        // Redis has more databases.
        [b"select", number] => (1..16).any(|n| number == &n.to_string().as_bytes()),
        _ => false,
    }
}
