//! The table of the commands, and what COMMAND tells of it: all the fields of Redis 7, which client
//! libraries route by.

use bytes::Bytes;

use crate::change::{self, Request};
use crate::command::{self, Arguments, Command, Local, syntax};
use crate::read::Read;
use crate::reply::Reply;
use crate::write::{SetAnswer, When, Write};

/// A command, or a subcommand of one.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// The number of arguments with the name, and with that of the command before it; a negative
    /// one is the least number.
    pub(crate) arity: i64,
    flags: &'static [&'static str],
    /// Categories of access lists that don't follow from the flags.
    categories: &'static [&'static str],
    tips: &'static [&'static str],
    keys: Keys,
    /// For COMMAND DOCS; none where Redis has no text either.
    summary: &'static str,
    pub(crate) subcommands: &'static [Entry],
    pub(crate) parse: fn(Arguments) -> Result<Command, Reply>,
}

/// Which arguments are keys.
#[derive(Clone, Copy)]
enum Keys {
    None,
    /// The first, and what becomes of it.
    One(&'static [&'static str]),
    /// The first two, each with what becomes of it.
    Two(&'static [&'static str], &'static [&'static str]),
    /// All, or each second one, and what becomes of them.
    All(i64, &'static [&'static str]),
}

const GROW: &[&str] = &["write", "denyoom"];
const GROW_FAST: &[&str] = &["write", "denyoom", "fast"];
const READ_FAST: &[&str] = &["readonly", "fast"];
const LOCAL: &[&str] = &["loading", "stale", "fast"];
const PART: &[&str] = &["loading", "stale"];
const OF_CLIENT: &[&str] = &["noscript", "loading", "stale"];
const ADMIN: &[&str] = &["admin", "noscript", "loading", "stale"];
const SESSION: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"];

const STRING: &[&str] = &["@string"];
const KEYSPACE: &[&str] = &["@keyspace"];
const WHOLE_KEYSPACE: &[&str] = &["@keyspace", "@dangerous"];
const CONNECTION: &[&str] = &["@connection"];

const UPDATED: &[&str] = &["RW", "access", "update"];
const INSERTED: &[&str] = &["RW", "insert"];
const OVERWRITTEN: &[&str] = &["OW", "update"];
const ACCESSED: &[&str] = &["RO", "access"];
const LOOKED_AT: &[&str] = &["RO"];

const SUM: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const ALL_SUCCEED: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const ANY_ORDER: &[&str] = &["nondeterministic_output_order"];

/// What most entries have.
const fn entry(name: &'static str, arity: i64, flags: &'static [&'static str]) -> Entry {
    Entry {
        name,
        arity,
        flags,
        categories: &[],
        tips: &[],
        keys: Keys::None,
        summary: "",
        subcommands: &[],
        parse: |_| Err(syntax()),
    }
}

/// A command of one key.
const fn of_key(
    name: &'static str,
    arity: i64,
    flags: &'static [&'static str],
    key: &'static [&'static str],
) -> Entry {
    Entry { categories: STRING, keys: Keys::One(key), ..entry(name, arity, flags) }
}

/// All commands, the most frequent first.
#[rustfmt::skip]
pub(crate) static TABLE: &[Entry] = &[
    Entry { summary: "The value of a key", parse: command::get, ..of_key("get", 2, READ_FAST, ACCESSED) },
    Entry { summary: "Sets a key; NX: only if it is missing, XX: only if it is there, GET: answers the old value", parse: command::set, ..of_key("set", -3, GROW, &["RW", "access", "update", "variable_flags"]) },
    Entry { summary: "Adds 1 to a number", parse: |args| command::add(args, 1), ..of_key("incr", 2, GROW_FAST, UPDATED) },
    Entry { summary: "Subtracts 1 from a number", parse: |args| command::add(args, -1), ..of_key("decr", 2, GROW_FAST, UPDATED) },
    Entry { summary: "Adds to a number", parse: |args| command::add(args, 1), ..of_key("incrby", 3, GROW_FAST, UPDATED) },
    Entry { summary: "Subtracts from a number", parse: |args| command::add(args, -1), ..of_key("decrby", 3, GROW_FAST, UPDATED) },
    Entry { summary: "Deletes keys", parse: |args| Ok(Command::Write(Write::Delete(args.collect()))), categories: KEYSPACE, tips: SUM, keys: Keys::All(1, &["RM", "delete"]), ..entry("del", -2, &["write"]) },
    Entry { summary: "How many of the keys are there", parse: |args| Ok(Command::Read(Read::Exists(args.collect()))), categories: KEYSPACE, tips: SUM, keys: Keys::All(1, LOOKED_AT), ..entry("exists", -2, READ_FAST) },
    Entry { summary: "The values of keys", parse: |args| Ok(Command::Read(Read::GetMany(args.collect()))), categories: STRING, tips: &["request_policy:multi_shard"], keys: Keys::All(1, ACCESSED), ..entry("mget", -2, READ_FAST) },
    Entry { summary: "Sets keys, all at once", parse: command::set_many, categories: STRING, tips: &["request_policy:multi_shard", "response_policy:all_succeeded"], keys: Keys::All(2, OVERWRITTEN), ..entry("mset", -3, GROW) },
    Entry { summary: "How many keys there are", parse: |_| Ok(Command::Read(Read::Count)), categories: KEYSPACE, tips: &["request_policy:all_shards", "response_policy:agg_sum"], ..entry("dbsize", 1, READ_FAST) },
    Entry { summary: "Deletes all keys", parse: command::flush_all, categories: WHOLE_KEYSPACE, tips: ALL_SUCCEED, ..entry("flushall", -1, &["write"]) },
    Entry { summary: "Sets a key if it is missing", parse: |args| command::set_key(args, When::Missing, SetAnswer::Number), ..of_key("setnx", 3, GROW_FAST, &["OW", "insert"]) },
    Entry { summary: "Sets a key and answers the old value", parse: |args| command::set_key(args, When::Always, SetAnswer::Old), ..of_key("getset", 3, GROW_FAST, UPDATED) },
    Entry { summary: "Deletes a key and answers its value", parse: |mut args| Ok(Command::Write(Write::GetDelete(command::next(&mut args)))), ..of_key("getdel", 2, &["write", "fast"], &["RW", "access", "delete"]) },
    Entry { summary: "Appends to a value of at most 8 MiB", parse: |mut args| Ok(Command::Write(Write::Append { key: command::next(&mut args), value: command::next(&mut args) })), ..of_key("append", 3, GROW_FAST, INSERTED) },
    Entry { summary: "Moves a value to another key", parse: |mut args| Ok(Command::Write(Write::Rename { from: command::next(&mut args), to: command::next(&mut args) })), categories: KEYSPACE, keys: Keys::Two(&["RW", "access", "delete"], OVERWRITTEN), ..entry("rename", 3, &["write"]) },
    Entry { summary: "How long a value is", parse: |mut args| Ok(Command::Read(Read::Length(command::next(&mut args)))), ..of_key("strlen", 2, READ_FAST, LOOKED_AT) },
    Entry { summary: "What a key holds: string, or none", parse: |mut args| Ok(Command::Read(Read::Type(command::next(&mut args)))), categories: KEYSPACE, ..of_key("type", 2, READ_FAST, LOOKED_AT) },
    Entry { summary: "All keys that match a pattern, where there are some millions or fewer", parse: command::keys, categories: WHOLE_KEYSPACE, tips: &["request_policy:all_shards", "nondeterministic_output_order"], ..entry("keys", 2, &["readonly"]) },
    Entry { summary: "Some keys from a cursor on, and the next cursor; MATCH, COUNT, TYPE", parse: command::scan, categories: KEYSPACE, tips: &["nondeterministic_output", "request_policy:special"], ..entry("scan", -2, &["readonly"]) },
    Entry { summary: "Answers PONG, or the message", parse: command::ping, categories: CONNECTION, tips: ALL_SUCCEED, ..entry("ping", -1, &["fast"]) },
    Entry { summary: "Answers the message", parse: |mut args| command::answer(Reply::Bulk(command::next(&mut args))), categories: CONNECTION, ..entry("echo", 2, LOCAL) },
    Entry { summary: "Chooses the version of the protocol", parse: command::hello, categories: CONNECTION, ..entry("hello", -1, SESSION) },
    Entry { summary: "Is refused, as there is no authentication", parse: command::auth, categories: CONNECTION, ..entry("auth", -2, SESSION) },
    Entry { summary: "Chooses database 0, the only one", parse: command::select, categories: CONNECTION, ..entry("select", 2, LOCAL) },
    Entry { summary: "This connection", subcommands: CLIENT, ..entry("client", -2, &[]) },
    Entry { summary: "The commands", parse: |_| command::answer(all()), categories: CONNECTION, tips: ANY_ORDER, subcommands: COMMAND, ..entry("command", -1, PART) },
    Entry { summary: "Settings", subcommands: CONFIG, ..entry("config", -2, &[]) },
    Entry { summary: "This node's state, for people", parse: |args| Ok(Command::Local(Local::Info(args.collect()))), categories: &["@dangerous"], tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"], ..entry("info", -1, PART) },
    Entry { summary: "This node's place in its cluster, the members, who leads, a snapshot of its state, and its log behind that", subcommands: RAFT, ..entry("raft", -2, &[]) },
    Entry { summary: "Closes the connection", parse: |_| Ok(Command::Local(Local::Close(Reply::OK))), categories: CONNECTION, ..entry("quit", -1, SESSION) },
];

#[rustfmt::skip]
static CLIENT: &[Entry] = &[
    Entry { summary: "The connection's number", parse: |_| Ok(Command::Local(Local::ClientId)), categories: CONNECTION, ..entry("id", 2, OF_CLIENT) },
    Entry { summary: "The connection's name", parse: |_| Ok(Command::Local(Local::ClientName)), categories: CONNECTION, ..entry("getname", 2, OF_CLIENT) },
    Entry { summary: "Names the connection", parse: |mut args| Ok(Command::Local(Local::SetClientName(command::client_name(&command::next(&mut args))?))), categories: CONNECTION, ..entry("setname", 3, OF_CLIENT) },
    Entry { summary: "Takes the name or the version of a client's library, and forgets it", parse: |_| command::answer(Reply::OK), categories: CONNECTION, ..entry("setinfo", 4, OF_CLIENT) },
    Entry { parse: |_| help("CLIENT", &["ID", "GETNAME", "SETNAME <name>", "SETINFO <option> <value>"]), categories: CONNECTION, ..entry("help", 2, PART) },
];

#[rustfmt::skip]
static CONFIG: &[Entry] = &[
    Entry { summary: "The settings whose names match", parse: |args| Ok(Command::Local(Local::Config(args.collect()))), ..entry("get", -3, ADMIN) },
    Entry { parse: |_| help("CONFIG", &["GET <pattern> [<pattern> ...]"]), ..entry("help", 2, PART) },
];

#[rustfmt::skip]
static RAFT: &[Entry] = &[
    Entry { summary: "This node's place in its cluster", parse: |_| Ok(Command::Local(Local::RaftStatus)), ..entry("status", 2, PART) },
    Entry { summary: "Takes a snapshot", parse: |_| Ok(Command::Local(Local::RaftSnapshot)), ..entry("snapshot", 2, ADMIN) },
    Entry { summary: "Removes the log behind the snapshot", parse: |_| Ok(Command::Local(Local::RaftPurge)), ..entry("purge", 2, ADMIN) },
    Entry { summary: "Transfers leadership to a node, or to the best one", parse: command::transfer, ..entry("transfer", -2, ADMIN) },
    Entry { summary: "Lets this node campaign where no leader is alive", parse: |_| Ok(Command::Local(Local::RaftCampaign)), ..entry("campaign", 2, ADMIN) },
    Entry { summary: "Shows settings, or changes them while the node runs: [<setting> <value> ...]", parse: |args| Ok(Command::Local(Local::RaftConfig(args.collect()))), ..entry("config", -2, ADMIN) },
    Entry { summary: "The members, and the change that is under way", parse: |_| change::request(Request::Members), ..entry("members", 2, PART) },
    Entry { summary: "Adds a node: <id> <address> [LEARNER], as a voter when it has caught up", parse: |args| change::make("add", args), ..entry("add", -4, ADMIN) },
    Entry { summary: "Gives a learner a vote", parse: |args| change::make("promote", args), ..entry("promote", -3, ADMIN) },
    Entry { summary: "Makes a voter a learner", parse: |args| change::make("demote", args), ..entry("demote", -3, ADMIN) },
    Entry { summary: "Removes a node", parse: |args| change::make("remove", args), ..entry("remove", -3, ADMIN) },
    Entry { summary: "Removes a node and adds another: <old> <new> <address>", parse: |args| change::make("replace", args), ..entry("replace", -5, ADMIN) },
    Entry { summary: "Changes the address of a node", parse: |args| change::make("move", args), ..entry("move", -4, ADMIN) },
    Entry { summary: "Sets the priority of a node to lead: <id> <priority>", parse: |args| change::make("prefer", args), ..entry("prefer", -4, ADMIN) },
    Entry { summary: "The steps that one of these changes would take; changes nothing", parse: change::plan, ..entry("plan", -4, PART) },
    Entry { summary: "Takes a change back that is under way", parse: change::cancel, ..entry("cancel", -2, ADMIN) },
    Entry { summary: "Waits until a change has ended", parse: change::wait, ..entry("await", 3, PART) },
    Entry { summary: "The id of the cluster, with which nodes let themselves in", parse: |_| change::request(Request::Token), ..entry("token", 2, ADMIN) },
    Entry { parse: |_| help("RAFT", RAFT_HELP), ..entry("help", 2, PART) },
];

const RAFT_HELP: &[&str] = &[
    "STATUS",
    "SNAPSHOT",
    "PURGE",
    "TRANSFER [<id>]",
    "CAMPAIGN",
    "CONFIG [<setting> <value> ...]",
    "MEMBERS",
    "ADD <id> <peer-address> [LEARNER] [<option> ...]",
    "PROMOTE <id> [<option> ...]",
    "DEMOTE <id> [<option> ...]",
    "REMOVE <id> [<option> ...]",
    "REPLACE <old-id> <new-id> <peer-address> [<option> ...]",
    "MOVE <id> <peer-address> [<option> ...]",
    "PREFER <id> <priority> [<option> ...]",
    "PLAN <one of these, from ADD on>",
    "CANCEL [<change>]",
    "AWAIT <change>",
    "TOKEN",
    "<option>: ALLOWLOWER | TIMEOUT <ms> | FOLLOWS <change> | TOKEN <token>",
];

#[rustfmt::skip]
static COMMAND: &[Entry] = &[
    Entry { summary: "How many commands there are", parse: |_| command::answer(Reply::Integer(TABLE.len() as i64)), categories: CONNECTION, ..entry("count", 2, PART) },
    Entry { summary: "Their names", parse: list, categories: CONNECTION, tips: ANY_ORDER, ..entry("list", -2, PART) },
    Entry { summary: "What a client needs to know of some or all of them", parse: infos, categories: CONNECTION, tips: ANY_ORDER, ..entry("info", -2, PART) },
    Entry { summary: "What some or all of them do", parse: docs, categories: CONNECTION, tips: ANY_ORDER, ..entry("docs", -2, PART) },
    Entry { parse: |_| help("COMMAND", &["COUNT", "LIST", "INFO [<name> ...]", "DOCS [<name> ...]"]), categories: CONNECTION, ..entry("help", 2, PART) },
];

/// The entry of this name.
pub(crate) fn find(table: &'static [Entry], name: &[u8]) -> Option<&'static Entry> {
    table.iter().find(|entry| entry.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The entry of a command, or of a subcommand in the form `client|id`, and its full name.
fn find_full(name: &[u8]) -> Option<(String, &'static Entry)> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = find(TABLE, parts.next()?)?;
    let Some(subcommand) = parts.next() else { return Some((command.name.to_owned(), command)) };
    let subcommand = find(command.subcommands, subcommand)?;
    Some((full_name(command, subcommand), subcommand))
}

/// The name of a subcommand, as Redis writes it.
pub(crate) fn full_name(command: &Entry, subcommand: &Entry) -> String {
    format!("{}|{}", command.name, subcommand.name)
}

fn help(command: &str, subcommands: &[&str]) -> Result<Command, Reply> {
    let first = format!("{command} <subcommand> [<arg> ...]. Subcommands are:");
    let lines = std::iter::once(first).chain(subcommands.iter().map(|&line| line.to_owned()));
    command::answer(Reply::Array(lines.map(Reply::bulk).collect()))
}

fn list(args: Arguments) -> Result<Command, Reply> {
    if args.len() > 0 {
        return Err(Reply::error("ERR COMMAND LIST takes no filter here"));
    }
    command::answer(Reply::Array(TABLE.iter().map(|entry| Reply::bulk(entry.name)).collect()))
}

fn infos(args: Arguments) -> Result<Command, Reply> {
    if args.len() == 0 {
        return command::answer(all());
    }
    let info =
        |name: Bytes| find_full(&name).map_or(Reply::Null, |(name, entry)| describe(&name, entry));
    command::answer(Reply::Array(args.map(info).collect()))
}

fn docs(args: Arguments) -> Result<Command, Reply> {
    let found: Vec<_> = match args.len() {
        0 => TABLE.iter().map(|entry| (entry.name.to_owned(), entry)).collect(),
        _ => args.filter_map(|name| find_full(&name)).collect(),
    };
    let docs = |(name, entry): (String, &Entry)| (Reply::bulk(name), document(entry));
    command::answer(Reply::Map(found.into_iter().map(docs).collect()))
}

fn document(entry: &Entry) -> Reply {
    let mut facts = vec![(Reply::bulk("summary"), Reply::bulk(entry.summary))];
    if !entry.subcommands.is_empty() {
        let part = |part: &Entry| (Reply::bulk(full_name(entry, part)), document(part));
        let parts = entry.subcommands.iter().map(part).collect();
        facts.push((Reply::bulk("subcommands"), Reply::Map(parts)));
    }
    Reply::Map(facts)
}

fn all() -> Reply {
    Reply::Array(TABLE.iter().map(|entry| describe(entry.name, entry)).collect())
}

fn words(words: impl IntoIterator<Item = &'static str>) -> Reply {
    Reply::Set(words.into_iter().map(Reply::Status).collect())
}

fn describe(name: &str, entry: &Entry) -> Reply {
    let (first, last, step) = entry.keys.range();
    let part = |part: &Entry| describe(&full_name(entry, part), part);
    Reply::Array(vec![
        Reply::bulk(name.to_owned()),
        Reply::Integer(entry.arity),
        words(entry.flags.iter().copied()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        words(entry.categories()),
        Reply::Set(entry.tips.iter().map(|&tip| Reply::bulk(tip)).collect()),
        Reply::Set(entry.keys.specifications()),
        match entry.subcommands {
            [] => Reply::Set(vec![]), // As Redis does.
            parts => Reply::Array(parts.iter().map(part).collect()),
        },
    ])
}

impl Entry {
    /// In the order in which Redis tells them.
    fn categories(&self) -> impl Iterator<Item = &'static str> {
        const ALL: [&str; 9] = [
            "@keyspace",
            "@read",
            "@write",
            "@string",
            "@admin",
            "@fast",
            "@slow",
            "@dangerous",
            "@connection",
        ];
        let (own, flags) = (self.categories, self.flags);
        ALL.into_iter().filter(move |category| match *category {
            "@read" => flags.contains(&"readonly"),
            "@write" => flags.contains(&"write"),
            "@admin" => flags.contains(&"admin"),
            "@fast" => flags.contains(&"fast"),
            "@slow" => !flags.contains(&"fast"),
            "@dangerous" => own.contains(category) || flags.contains(&"admin"),
            _ => own.contains(category),
        })
    }
}

impl Keys {
    /// The first key, the last (negative: from the end) and the step between them.
    fn range(self) -> (i64, i64, i64) {
        match self {
            Self::None => (0, 0, 0),
            Self::One(_) => (1, 1, 1),
            Self::Two(..) => (1, 2, 1),
            Self::All(step, _) => (1, -1, step),
        }
    }

    fn specifications(self) -> Vec<Reply> {
        match self {
            Self::None => vec![],
            Self::One(flags) => vec![specification(1, 0, 1, flags)],
            Self::Two(first, second) => {
                vec![specification(1, 0, 1, first), specification(2, 0, 1, second)]
            }
            Self::All(step, flags) => vec![specification(1, -1, step, flags)],
        }
    }
}

fn specification(index: i64, last: i64, step: i64, flags: &'static [&'static str]) -> Reply {
    let map = |facts: Vec<(&'static str, Reply)>| {
        Reply::Map(facts.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
    };
    let kind = |kind: &'static str, spec| map(vec![("type", Reply::bulk(kind)), ("spec", spec)]);
    let range = [("lastkey", last), ("keystep", step), ("limit", 0)];
    let range = range.map(|(name, value)| (name, Reply::Integer(value))).to_vec();
    let mut facts = vec![
        ("flags", words(flags.iter().copied())),
        ("begin_search", kind("index", map(vec![("index", Reply::Integer(index))]))),
        ("find_keys", kind("range", map(range))),
    ];
    if flags.contains(&"variable_flags") {
        let notes = "RW and ACCESS due to the optional `GET` argument";
        facts.insert(0, ("notes", Reply::bulk(notes)));
    }
    map(facts)
}
