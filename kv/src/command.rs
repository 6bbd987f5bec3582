//! What becomes of a request: the command that it is, or the error that answers it.

use bytes::Bytes;

use crate::change;
use crate::glob::MAX_PATTERN_BYTES;
use crate::read::{Read, Scan};
use crate::reply::{Protocol, Reply};
use crate::request::parse_integer;
use crate::table::{TABLE, find, full_name};
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
    /// RAFT TRANSFER, to this node or to the best one.
    RaftTransfer(Option<u64>),
    /// RAFT CAMPAIGN.
    RaftCampaign,
    /// RAFT CONFIG, with names and values of settings in turn.
    RaftConfig(Vec<Bytes>),
    /// RAFT MEMBERS, ADD and the others about the membership.
    Membership(Box<change::Request>),
    /// The answer, after which the connection is closed: nothing behind it in a pipeline is
    /// executed.
    Close(Reply),
}

/// The arguments after the name. Their number was checked against the table before.
pub(crate) type Arguments = std::vec::IntoIter<Bytes>;

/// How many keys a SCAN without COUNT looks at, as in Redis.
const DEFAULT_SCAN_COUNT: usize = 10;

/// The most that the arguments of CONFIG, COMMAND and INFO may take together, in bytes: what each
/// of them selects is looked up, and answered, in one go.
const MAX_LOCAL_BYTES: usize = 4 << 10;
/// What each of them counts at least.
const ARGUMENT_BYTES: usize = 16;

/// What a request asks for, or the error that answers it.
pub(crate) fn parse(arguments: Vec<Bytes>) -> Result<Command, Reply> {
    let name = arguments.first().map(Bytes::as_ref).unwrap_or_default();
    let Some(command) = find(TABLE, name) else { return unknown(&arguments) };
    let subcommand = match arguments.get(1).filter(|_| !command.subcommands.is_empty()) {
        None => None,
        Some(name) => match find(command.subcommands, name) {
            Some(subcommand) => Some(subcommand),
            None => return Err(unknown_subcommand(command.name, name)),
        },
    };
    let entry = subcommand.unwrap_or(command);
    let count = i64::try_from(arguments.len()).unwrap_or(i64::MAX);
    if count != entry.arity && (entry.arity > 0 || count < -entry.arity) {
        return Err(match subcommand {
            None => wrong_number(command.name),
            Some(subcommand) => wrong_number(&full_name(command, subcommand)),
        });
    }
    if matches!(command.name, "config" | "command" | "info") {
        let bytes: usize = arguments.iter().map(|argument| ARGUMENT_BYTES + argument.len()).sum();
        if bytes > MAX_LOCAL_BYTES {
            let name = command.name.to_uppercase();
            return Err(Reply::error(format!("ERR too many or too long arguments for {name}")));
        }
    }
    let mut arguments = arguments.into_iter();
    arguments.next();
    if subcommand.is_some() {
        arguments.next();
    }
    (entry.parse)(arguments)
}

pub(crate) fn next(arguments: &mut Arguments) -> Bytes {
    arguments.next().unwrap_or_default()
}

pub(crate) fn answer(reply: Reply) -> Result<Command, Reply> {
    Ok(Command::Local(Local::Answer(reply)))
}

pub(crate) fn syntax() -> Reply {
    Reply::error("ERR syntax error")
}

fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

pub(crate) fn wrong_number(command: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{command}' command"))
}

/// A command that is not in the table. Where clients rely on what they have not got, it says so.
fn unknown(arguments: &[Bytes]) -> Result<Command, Reply> {
    let name = arguments.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let text = match (&name[..], arguments.len()) {
        (b"EXEC", 2..) => {
            "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command"
        }
        (b"MULTI" | b"DISCARD" | b"UNWATCH", 2..) | (b"WATCH", 1) => {
            return Err(wrong_number(&String::from_utf8_lossy(&name).to_lowercase()));
        }
        // What follows in the pipeline was meant to be executed at once or not at all.
        (b"MULTI", _) => {
            let text = "ERR MULTI is not supported: the connection is closed, and nothing behind it is executed";
            return Ok(Command::Local(Local::Close(Reply::error(text))));
        }
        (b"EXEC", _) => "ERR EXEC without MULTI",
        (b"DISCARD", _) => "ERR DISCARD without MULTI",
        (b"WATCH" | b"UNWATCH", _) => "ERR WATCH is not supported, as there are no transactions",
        (
            b"EXPIRE" | b"PEXPIRE" | b"EXPIREAT" | b"PEXPIREAT" | b"EXPIRETIME" | b"PEXPIRETIME"
            | b"TTL" | b"PTTL" | b"PERSIST" | b"SETEX" | b"PSETEX" | b"GETEX",
            _,
        ) => return Err(no_expiry()),
        _ => return Err(not_known(arguments)),
    };
    Err(Reply::error(text))
}

fn no_expiry() -> Reply {
    Reply::error("ERR expiry is not supported: keys stay until they are deleted")
}

/// What C takes for the whole text.
fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether an option is this word, as Redis compares it.
pub(crate) fn is(option: &[u8], word: &[u8]) -> bool {
    up_to_nul(option).eq_ignore_ascii_case(word)
}

/// At most so many bytes, and up to the first NUL, as Redis quotes.
fn quoted(argument: &[u8], room: usize) -> &[u8] {
    let text = up_to_nul(argument);
    text.get(..room).unwrap_or(text)
}

/// Redis quotes at most 128 bytes of the name and of all arguments.
const QUOTED_BYTES: usize = 128;

fn not_known(arguments: &[Bytes]) -> Reply {
    let mut text = b"ERR unknown command '".to_vec();
    let mut arguments = arguments.iter();
    text.extend_from_slice(quoted(arguments.next().map_or(&[], |name| name), QUOTED_BYTES));
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for argument in arguments {
        let Some(room) = QUOTED_BYTES.checked_sub(text.len() - start).filter(|room| *room > 0)
        else {
            break;
        };
        text.push(b'\'');
        text.extend_from_slice(quoted(argument, room));
        text.extend_from_slice(b"' ");
    }
    Reply::error(text)
}

fn unknown_subcommand(command: &str, name: &[u8]) -> Reply {
    let (command, name) = (command.to_uppercase(), quoted(name, QUOTED_BYTES));
    let text = [b"ERR unknown subcommand '", name, b"'. Try ", command.as_bytes(), b" HELP."];
    Reply::error(text.concat())
}

pub(crate) fn get(mut args: Arguments) -> Result<Command, Reply> {
    Ok(Command::Read(Read::Get(next(&mut args))))
}

/// SET without options: SETNX and GETSET.
pub(crate) fn set_key(
    mut args: Arguments,
    when: When,
    answer: SetAnswer,
) -> Result<Command, Reply> {
    let (key, value) = (next(&mut args), next(&mut args));
    Ok(Command::Write(Write::Set { key, value, when, answer }))
}

/// The options of SET that are about expiry.
const EXPIRY: [&[u8]; 5] = [b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"];

pub(crate) fn set(mut args: Arguments) -> Result<Command, Reply> {
    let (key, value) = (next(&mut args), next(&mut args));
    let (mut when, mut answer) = (When::Always, SetAnswer::Status);
    for option in args {
        let wanted = match () {
            () if is(&option, b"NX") => When::Missing,
            () if is(&option, b"XX") => When::Present,
            () if is(&option, b"GET") => {
                answer = SetAnswer::Old;
                continue;
            }
            () if EXPIRY.iter().any(|name| is(&option, name)) => {
                return Err(no_expiry());
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

pub(crate) fn keys(mut args: Arguments) -> Result<Command, Reply> {
    Ok(Command::Read(Read::Keys(pattern(next(&mut args))?)))
}

/// A pattern of KEYS or SCAN; none where all keys are wanted.
fn pattern(pattern: Bytes) -> Result<Option<Bytes>, Reply> {
    match pattern.len() {
        1 if pattern == "*" => Ok(None),
        ..=MAX_PATTERN_BYTES => Ok(Some(pattern)),
        _ => Err(Reply::error(format!("ERR pattern exceeds {} KiB", MAX_PATTERN_BYTES >> 10))),
    }
}

pub(crate) fn scan(mut args: Arguments) -> Result<Command, Reply> {
    let Some(cursor) = parse_cursor(&next(&mut args)) else {
        return Err(Reply::error("ERR invalid cursor"));
    };
    let mut scan = Scan { cursor, count: DEFAULT_SCAN_COUNT, pattern: None, strings: true };
    while let Some(option) = args.next() {
        let Some(value) = args.next() else { return Err(syntax()) };
        match () {
            () if is(&option, b"COUNT") => {
                let count = parse_integer(&value).ok_or_else(not_an_integer)?;
                if count < 1 {
                    return Err(syntax());
                }
                scan.count = usize::try_from(count).unwrap_or(usize::MAX);
            }
            () if is(&option, b"MATCH") => scan.pattern = pattern(value)?,
            // Nothing but strings is kept.
            () if is(&option, b"TYPE") => {
                scan.strings = is(&value, b"string");
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

pub(crate) fn set_many(args: Arguments) -> Result<Command, Reply> {
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
pub(crate) fn add(mut args: Arguments, sign: i64) -> Result<Command, Reply> {
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

pub(crate) fn flush_all(mut args: Arguments) -> Result<Command, Reply> {
    let mode = args.next();
    let known = mode.is_none_or(|mode| is(&mode, b"SYNC") || is(&mode, b"ASYNC"));
    if !known || args.next().is_some() {
        return Err(syntax());
    }
    Ok(Command::Write(Write::Clear))
}

pub(crate) fn ping(mut args: Arguments) -> Result<Command, Reply> {
    let message = args.next();
    if args.next().is_some() {
        return Err(wrong_number("ping"));
    }
    answer(message.map_or(Reply::Status("PONG"), Reply::Bulk))
}

pub(crate) fn hello(mut args: Arguments) -> Result<Command, Reply> {
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
        if is(&option, b"AUTH") && args.len() >= 2 {
            return Err(no_authentication());
        } else if is(&option, b"SETNAME") && args.len() >= 1 {
            name = Some(client_name(&next(&mut args))?);
        } else {
            let text = [b"ERR Syntax error in HELLO option '", up_to_nul(&option), b"'"].concat();
            return Err(Reply::error(text));
        }
    }
    Ok(Command::Local(Local::Hello { protocol, name }))
}

/// Redis lets `default` in with any password as long as none is set. Whoever sends one believes
/// that it keeps others out, and is told that it doesn't.
fn no_authentication() -> Reply {
    Reply::error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
    )
}

pub(crate) fn auth(args: Arguments) -> Result<Command, Reply> {
    Err(if args.len() > 2 { syntax() } else { no_authentication() })
}

pub(crate) fn client_name(name: &[u8]) -> Result<Bytes, Reply> {
    if name.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        // A copy: as a slice it would keep alive the buffer that it was read into.
        return Ok(Bytes::copy_from_slice(name));
    }
    Err(Reply::error("ERR Client names cannot contain spaces, newlines or special characters."))
}

pub(crate) fn transfer(mut args: Arguments) -> Result<Command, Reply> {
    let to = args.next();
    if args.next().is_some() {
        return Err(wrong_number("raft|transfer"));
    }
    let id = |id: Bytes| parse_integer(&id).and_then(|id| u64::try_from(id).ok());
    let to = to.map(|to| id(to).ok_or_else(not_an_integer)).transpose()?;
    Ok(Command::Local(Local::RaftTransfer(to)))
}

pub(crate) fn select(mut args: Arguments) -> Result<Command, Reply> {
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

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
