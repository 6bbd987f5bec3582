//! The commands: their table, and what becomes of a request.

use bytes::Bytes;

use crate::reply::{Protocol, Reply};
use crate::request::parse_integer;
use crate::store::{Read, Scan};
use crate::write::{SetAnswer, When, Write};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// To be replicated.
    Write(Write),
    /// To be read from the state machine.
    Read(Read),
    /// To be answered by this server alone.
    Local(Local),
}

/// What neither reads nor changes the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// The answer is known.
    Answer(Reply),
    /// HELLO: changes the protocol and the client's name, where given.
    Hello { protocol: Option<Protocol>, name: Option<Bytes> },
    /// CLIENT ID.
    ClientId,
    /// CLIENT GETNAME.
    ClientName,
    /// CLIENT SETNAME.
    SetClientName(Bytes),
    /// CONFIG GET, with patterns of names.
    Config(Vec<Bytes>),
    /// INFO, with names of sections.
    Info(Vec<Bytes>),
    /// RAFT STATUS.
    RaftStatus,
    /// RAFT SNAPSHOT.
    RaftSnapshot,
    /// RAFT PURGE.
    RaftPurge,
    /// QUIT: answer, then close.
    Quit,
}

/// The arguments after the name. Their number was checked against the table before.
type Arguments = std::vec::IntoIter<Bytes>;

struct Entry {
    name: &'static str,
    /// The number of arguments with the name; a negative one is the least number.
    arity: i64,
    flags: &'static [&'static str],
    /// The first key, the last (negative: from the end) and the step between them, for client libraries that route by keys.
    keys: (i64, i64, i64),
    summary: &'static str,
    parse: fn(Arguments) -> Result<Command, Reply>,
}

const WRITE: &[&str] = &["write", "denyoom"];
const SHRINK: &[&str] = &["write"];
const READ: &[&str] = &["readonly", "fast"];
const WALK: &[&str] = &["readonly"];
const LOCAL: &[&str] = &["loading", "stale", "fast"];
/// How many keys a SCAN without COUNT looks at, as in Redis.
const DEFAULT_SCAN_COUNT: usize = 10;
const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const ALL_KEYS: (i64, i64, i64) = (1, -1, 1);

/// All commands, the most frequent first.
#[rustfmt::skip]
static TABLE: &[Entry] = &[
    Entry { name: "get", arity: 2, flags: READ, keys: ONE_KEY, summary: "The value of a key", parse: get },
    Entry { name: "set", arity: -3, flags: WRITE, keys: ONE_KEY, summary: "Sets a key; NX: only if it is missing, XX: only if it is there, GET: answers the old value", parse: set },
    Entry { name: "incr", arity: 2, flags: WRITE, keys: ONE_KEY, summary: "Adds 1 to a number", parse: |args| add(args, 1) },
    Entry { name: "decr", arity: 2, flags: WRITE, keys: ONE_KEY, summary: "Subtracts 1 from a number", parse: |args| add(args, -1) },
    Entry { name: "incrby", arity: 3, flags: WRITE, keys: ONE_KEY, summary: "Adds to a number", parse: |args| add(args, 1) },
    Entry { name: "decrby", arity: 3, flags: WRITE, keys: ONE_KEY, summary: "Subtracts from a number", parse: |args| add(args, -1) },
    Entry { name: "del", arity: -2, flags: WRITE, keys: ALL_KEYS, summary: "Deletes keys", parse: |args| Ok(Command::Write(Write::Delete(args.collect()))) },
    Entry { name: "exists", arity: -2, flags: READ, keys: ALL_KEYS, summary: "How many of the keys are there", parse: |args| Ok(Command::Read(Read::Exists(args.collect()))) },
    Entry { name: "mget", arity: -2, flags: READ, keys: ALL_KEYS, summary: "The values of keys", parse: |args| Ok(Command::Read(Read::GetMany(args.collect()))) },
    Entry { name: "mset", arity: -3, flags: WRITE, keys: (1, -1, 2), summary: "Sets keys, all at once", parse: set_many },
    Entry { name: "dbsize", arity: 1, flags: READ, keys: NO_KEYS, summary: "How many keys there are", parse: |_| Ok(Command::Read(Read::Count)) },
    Entry { name: "flushall", arity: -1, flags: WRITE, keys: NO_KEYS, summary: "Deletes all keys", parse: flush_all },
    Entry { name: "setnx", arity: 3, flags: WRITE, keys: ONE_KEY, summary: "Sets a key if it is missing", parse: |args| set_key(args, When::Missing, SetAnswer::Number) },
    Entry { name: "getset", arity: 3, flags: WRITE, keys: ONE_KEY, summary: "Sets a key and answers the old value", parse: |args| set_key(args, When::Always, SetAnswer::Old) },
    Entry { name: "getdel", arity: 2, flags: SHRINK, keys: ONE_KEY, summary: "Deletes a key and answers its value", parse: |mut args| Ok(Command::Write(Write::GetDelete(next(&mut args)))) },
    Entry { name: "append", arity: 3, flags: WRITE, keys: ONE_KEY, summary: "Appends to a value of at most 8 MiB", parse: |mut args| Ok(Command::Write(Write::Append { key: next(&mut args), value: next(&mut args) })) },
    Entry { name: "rename", arity: 3, flags: SHRINK, keys: (1, 2, 1), summary: "Moves a value to another key", parse: |mut args| Ok(Command::Write(Write::Rename { from: next(&mut args), to: next(&mut args) })) },
    Entry { name: "strlen", arity: 2, flags: READ, keys: ONE_KEY, summary: "How long a value is", parse: |mut args| Ok(Command::Read(Read::Length(next(&mut args)))) },
    Entry { name: "type", arity: 2, flags: READ, keys: ONE_KEY, summary: "What a key holds: string, or none", parse: |mut args| Ok(Command::Read(Read::Type(next(&mut args)))) },
    Entry { name: "keys", arity: 2, flags: WALK, keys: NO_KEYS, summary: "All keys that match a pattern, where there are about a million or fewer", parse: |mut args| Ok(Command::Read(Read::Keys(next(&mut args)))) },
    Entry { name: "scan", arity: -2, flags: WALK, keys: NO_KEYS, summary: "Some keys from a cursor on, and the next cursor; MATCH, COUNT, TYPE", parse: scan },
    Entry { name: "ping", arity: -1, flags: LOCAL, keys: NO_KEYS, summary: "Answers PONG, or the message", parse: ping },
    Entry { name: "echo", arity: 2, flags: LOCAL, keys: NO_KEYS, summary: "Answers the message", parse: |mut args| answer(Reply::Bulk(next(&mut args))) },
    Entry { name: "hello", arity: -1, flags: LOCAL, keys: NO_KEYS, summary: "Chooses the version of the protocol", parse: hello },
    Entry { name: "select", arity: 2, flags: LOCAL, keys: NO_KEYS, summary: "Chooses database 0, the only one", parse: select },
    Entry { name: "client", arity: -2, flags: LOCAL, keys: NO_KEYS, summary: "ID, GETNAME, SETNAME, SETINFO: this connection", parse: client },
    Entry { name: "command", arity: -1, flags: LOCAL, keys: NO_KEYS, summary: "COUNT, LIST, INFO, DOCS: the commands", parse: command },
    Entry { name: "config", arity: -2, flags: LOCAL, keys: NO_KEYS, summary: "GET: settings", parse: config },
    Entry { name: "info", arity: -1, flags: LOCAL, keys: NO_KEYS, summary: "This node's state, for people", parse: |args| Ok(Command::Local(Local::Info(args.collect()))) },
    Entry { name: "raft", arity: -2, flags: LOCAL, keys: NO_KEYS, summary: "STATUS, SNAPSHOT, PURGE: this node's place in its cluster, a snapshot of its state, and its log behind that", parse: raft },
    Entry { name: "quit", arity: -1, flags: LOCAL, keys: NO_KEYS, summary: "Closes the connection", parse: |_| Ok(Command::Local(Local::Quit)) },
];

/// What a request asks for, or the error that answers it.
pub(crate) fn parse(arguments: Vec<Bytes>) -> Result<Command, Reply> {
    let name = arguments.first().map(Bytes::as_ref).unwrap_or_default();
    let Some(entry) = find(name) else { return Err(unknown(&arguments)) };
    let count = i64::try_from(arguments.len()).unwrap_or(i64::MAX);
    if count != entry.arity && (entry.arity > 0 || count < -entry.arity) {
        return Err(wrong_number(entry.name));
    }
    let mut arguments = arguments.into_iter();
    arguments.next();
    (entry.parse)(arguments)
}

fn find(name: &[u8]) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name))
}

fn next(arguments: &mut Arguments) -> Bytes {
    arguments.next().unwrap_or_default()
}

fn answer(reply: Reply) -> Result<Command, Reply> {
    Ok(Command::Local(Local::Answer(reply)))
}

fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

fn wrong_number(command: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{command}' command"))
}

/// Redis quotes at most 128 bytes of the name and of the arguments, each up to its first NUL.
fn unknown(arguments: &[Bytes]) -> Reply {
    const QUOTED_BYTES: usize = 128;
    fn quote(argument: &[u8], room: usize) -> &[u8] {
        let text = argument.split(|byte| *byte == 0).next().unwrap_or_default();
        text.get(..room).unwrap_or(text)
    }
    let mut text = b"ERR unknown command '".to_vec();
    let mut arguments = arguments.iter();
    text.extend_from_slice(quote(arguments.next().map_or(&[], |name| name), QUOTED_BYTES));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for argument in arguments {
        let Some(room) = QUOTED_BYTES.checked_sub(text.len() - start).filter(|room| *room > 0)
        else {
            break;
        };
        text.push(b'\'');
        text.extend_from_slice(quote(argument, room));
        text.extend_from_slice(b"' ");
    }
    Reply::error(text)
}

fn unknown_subcommand(command: &str, name: &[u8]) -> Reply {
    let name = name.get(..128).unwrap_or(name);
    let text = [b"ERR unknown subcommand '", name, b"'. Try ", command.as_bytes(), b" HELP."];
    Reply::error(text.concat())
}

fn get(mut args: Arguments) -> Result<Command, Reply> {
    Ok(Command::Read(Read::Get(next(&mut args))))
}

/// SET without options: SETNX and GETSET.
fn set_key(mut args: Arguments, when: When, answer: SetAnswer) -> Result<Command, Reply> {
    let (key, value) = (next(&mut args), next(&mut args));
    Ok(Command::Write(Write::Set { key, value, when, answer }))
}

fn set(mut args: Arguments) -> Result<Command, Reply> {
    let (key, value) = (next(&mut args), next(&mut args));
    let (mut when, mut answer) = (When::Always, SetAnswer::Status);
    for option in args {
        let wanted = match () {
            () if option.eq_ignore_ascii_case(b"NX") => When::Missing,
            () if option.eq_ignore_ascii_case(b"XX") => When::Present,
            () if option.eq_ignore_ascii_case(b"GET") => {
                answer = SetAnswer::Old;
                continue;
            }
            () => return Err(syntax()),
        };
        if when != When::Always && when != wanted {
            return Err(syntax());
        }
        when = wanted;
    }
    Ok(Command::Write(Write::Set { key, value, when, answer }))
}

fn scan(mut args: Arguments) -> Result<Command, Reply> {
    let Some(cursor) = parse_cursor(&next(&mut args)) else {
        return Err(Reply::error("ERR invalid cursor"));
    };
    let mut scan = Scan { cursor, count: DEFAULT_SCAN_COUNT, pattern: None, strings: true };
    while let Some(option) = args.next() {
        let Some(value) = args.next() else { return Err(syntax()) };
        match () {
            () if option.eq_ignore_ascii_case(b"COUNT") => {
                let count = parse_integer(&value).ok_or_else(not_an_integer)?;
                if count < 1 {
                    return Err(syntax());
                }
                scan.count = usize::try_from(count).unwrap_or(usize::MAX);
            }
            () if option.eq_ignore_ascii_case(b"MATCH") => scan.pattern = Some(value),
            // Nothing but strings is kept.
            () if option.eq_ignore_ascii_case(b"TYPE") => {
                scan.strings = value.eq_ignore_ascii_case(b"string");
            }
            () => return Err(syntax()),
        }
    }
    Ok(Command::Read(Read::Scan(scan)))
}

/// A cursor as Redis reads it, with C's `strtoul`: nothing is 0, and a sign is allowed.
fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if text.is_empty() {
        return Some(0);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

fn set_many(args: Arguments) -> Result<Command, Reply> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_number("mset"));
    }
    let mut args = args;
    let mut pairs = Vec::with_capacity(args.len() / 2);
    while let (Some(key), Some(value)) = (args.next(), args.next()) {
        pairs.push((key, value));
    }
    Ok(Command::Write(Write::SetMany(pairs)))
}

/// INCR and DECR have no argument for the delta, INCRBY and DECRBY have one.
fn add(mut args: Arguments, sign: i64) -> Result<Command, Reply> {
    let key = next(&mut args);
    let delta = match args.next() {
        None => 1,
        Some(text) => parse_integer(&text).ok_or_else(not_an_integer)?,
    };
    match delta.checked_mul(sign) {
        Some(delta) => Ok(Command::Write(Write::Add { key, delta })),
        None => Err(Reply::error("ERR decrement would overflow")),
    }
}

fn flush_all(mut args: Arguments) -> Result<Command, Reply> {
    let mode = args.next();
    let known = mode.is_none_or(|mode| {
        mode.eq_ignore_ascii_case(b"SYNC") || mode.eq_ignore_ascii_case(b"ASYNC")
    });
    if !known || args.next().is_some() {
        return Err(syntax());
    }
    Ok(Command::Write(Write::Clear))
}

fn ping(mut args: Arguments) -> Result<Command, Reply> {
    let message = args.next();
    if args.next().is_some() {
        return Err(wrong_number("ping"));
    }
    answer(message.map_or(Reply::Status("PONG"), Reply::Bulk))
}

fn hello(mut args: Arguments) -> Result<Command, Reply> {
    let protocol = match args.next() {
        None => None,
        Some(version) => match parse_integer(&version) {
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
            None => {
                let text = "ERR Protocol version is not an integer or out of range";
                return Err(Reply::error(text));
            }
        },
    };
    let mut name = None;
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"AUTH") && args.len() >= 2 {
            // There are no users and no passwords, which in Redis means that `default` may use any.
            let user = next(&mut args);
            args.next();
            if user != "default" {
                let text = "WRONGPASS invalid username-password pair or user is disabled.";
                return Err(Reply::error(text));
            }
        } else if option.eq_ignore_ascii_case(b"SETNAME") && args.len() >= 1 {
            name = Some(client_name(next(&mut args))?);
        } else {
            let text = [b"ERR Syntax error in HELLO option '", &option[..], b"'"].concat();
            return Err(Reply::error(text));
        }
    }
    Ok(Command::Local(Local::Hello { protocol, name }))
}

fn client_name(name: Bytes) -> Result<Bytes, Reply> {
    if name.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        // A copy: as a slice it would keep alive the buffer that it was read into.
        return Ok(Bytes::copy_from_slice(&name));
    }
    Err(Reply::error("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn select(mut args: Arguments) -> Result<Command, Reply> {
    match parse_integer(&next(&mut args)).map(i32::try_from) {
        Some(Ok(0)) => answer(Reply::OK),
        Some(Ok(_)) => Err(Reply::error("ERR DB index is out of range")),
        Some(Err(_)) => {
            let range = format!("{} and {}", i32::MIN, i32::MAX);
            Err(Reply::error(format!("ERR value is out of range, value must between {range}")))
        }
        None => Err(not_an_integer()),
    }
}

/// The subcommand in lower case, if there are as many arguments after it as `arity` allows (minimum, maximum).
fn subcommand(
    command: &'static str,
    args: &mut Arguments,
    known: &[(&'static str, usize, usize)],
) -> Result<&'static str, Reply> {
    let name = next(args);
    let Some((known, least, most)) =
        known.iter().find(|known| known.0.as_bytes().eq_ignore_ascii_case(&name))
    else {
        return Err(unknown_subcommand(&command.to_uppercase(), &name));
    };
    if !(*least..=*most).contains(&args.len()) {
        return Err(wrong_number(&format!("{command}|{known}")));
    }
    Ok(known)
}

fn client(mut args: Arguments) -> Result<Command, Reply> {
    let known =
        [("id", 0, 0), ("getname", 0, 0), ("setname", 1, 1), ("setinfo", 2, 2), ("help", 0, 0)];
    let local = match subcommand("client", &mut args, &known)? {
        "id" => Local::ClientId,
        "getname" => Local::ClientName,
        "setname" => Local::SetClientName(client_name(next(&mut args))?),
        "setinfo" => Local::Answer(Reply::OK),
        _ => help("CLIENT", &["ID", "GETNAME", "SETNAME <name>", "SETINFO <option> <value>"]),
    };
    Ok(Command::Local(local))
}

fn config(mut args: Arguments) -> Result<Command, Reply> {
    let known = [("get", 1, usize::MAX), ("help", 0, 0)];
    Ok(Command::Local(match subcommand("config", &mut args, &known)? {
        "get" => Local::Config(args.collect()),
        _ => help("CONFIG", &["GET <pattern> [<pattern> ...]"]),
    }))
}

fn raft(mut args: Arguments) -> Result<Command, Reply> {
    let known = [("status", 0, 0), ("snapshot", 0, 0), ("purge", 0, 0), ("help", 0, 0)];
    Ok(Command::Local(match subcommand("raft", &mut args, &known)? {
        "status" => Local::RaftStatus,
        "snapshot" => Local::RaftSnapshot,
        "purge" => Local::RaftPurge,
        _ => help("RAFT", &["STATUS", "SNAPSHOT", "PURGE"]),
    }))
}

fn help(command: &str, subcommands: &[&str]) -> Local {
    let first = format!("{command} <subcommand> [<arg> ...]. Subcommands are:");
    let lines = std::iter::once(first).chain(subcommands.iter().map(|&line| line.to_owned()));
    Local::Answer(Reply::Array(lines.map(Reply::bulk).collect()))
}

fn command(mut args: Arguments) -> Result<Command, Reply> {
    if args.len() == 0 {
        return answer(Reply::Array(TABLE.iter().map(describe).collect()));
    }
    let known = [
        ("count", 0, 0),
        ("list", 0, 0),
        ("info", 0, usize::MAX),
        ("docs", 0, usize::MAX),
        ("help", 0, 0),
    ];
    let reply = match subcommand("command", &mut args, &known)? {
        "count" => Reply::Integer(TABLE.len() as i64),
        "list" => Reply::Array(TABLE.iter().map(|entry| Reply::bulk(entry.name)).collect()),
        "info" if args.len() == 0 => Reply::Array(TABLE.iter().map(describe).collect()),
        "info" => {
            Reply::Array(args.map(|name| find(&name).map_or(Reply::Null, describe)).collect())
        }
        "docs" => {
            let wanted: Vec<_> = args.collect();
            let wanted = TABLE.iter().filter(|entry| {
                let name = entry.name.as_bytes();
                wanted.is_empty() || wanted.iter().any(|other| name.eq_ignore_ascii_case(other))
            });
            let docs = |entry: &Entry| {
                let summary = (Reply::bulk("summary"), Reply::bulk(entry.summary));
                (Reply::bulk(entry.name), Reply::Map(vec![summary]))
            };
            Reply::Map(wanted.map(docs).collect())
        }
        _ => {
            return Ok(Command::Local(help(
                "COMMAND",
                &["COUNT", "LIST", "INFO [<name> ...]", "DOCS [<name> ...]"],
            )));
        }
    };
    answer(reply)
}

fn describe(entry: &Entry) -> Reply {
    let (first, last, step) = entry.keys;
    Reply::Array(vec![
        Reply::bulk(entry.name),
        Reply::Integer(entry.arity),
        Reply::Array(entry.flags.iter().map(|&flag| Reply::Status(flag)).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
    ])
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
