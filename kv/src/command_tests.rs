//! Tests of the command table: what each request becomes, and Redis' error texts.

use super::*;

fn run(line: &str) -> Result<Command, Reply> {
    parse(line.split(' ').map(|text| Bytes::copy_from_slice(text.as_bytes())).collect())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn write(line: &str) -> Write {
    match run(line) {
        Ok(Command::Write(write)) => write,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    match run(line) {
        Err(Reply::Error(text)) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn reads_and_writes() {
    use SetAnswer::{Number, Old, Status};
    let set = |when, answer| Write::Set { key: bytes("k"), value: bytes("v"), when, answer };
    assert_eq!(write("SET k v"), set(When::Always, Status));
    assert_eq!(write("set k v nx"), set(When::Missing, Status));
    assert_eq!(write("SeT k v XX GET"), set(When::Present, Old));
    assert_eq!(write("SET k v nx\0x"), set(When::Missing, Status));
    assert_eq!(write("FLUSHALL sync\0"), Write::Clear);
    assert_eq!(write("SET k v GET GET NX NX"), set(When::Missing, Old));
    assert_eq!(write("INCR n"), Write::Add { key: bytes("n"), delta: 1 });
    assert_eq!(write("DECR n"), Write::Add { key: bytes("n"), delta: -1 });
    assert_eq!(write("INCRBY n -5"), Write::Add { key: bytes("n"), delta: -5 });
    assert_eq!(write("DECRBY n 7"), Write::Add { key: bytes("n"), delta: -7 });
    assert_eq!(write("DEL a b"), Write::Delete(vec![bytes("a"), bytes("b")]));
    let pairs = vec![(bytes("a"), bytes("1")), (bytes("b"), bytes("2"))];
    assert_eq!(write("MSET a 1 b 2"), Write::SetMany(pairs));
    assert_eq!(write("FLUSHALL async"), Write::Clear);
    assert_eq!(write("SETNX k v"), set(When::Missing, Number));
    assert_eq!(write("GETSET k v"), set(When::Always, Old));
    assert_eq!(write("GETDEL k"), Write::GetDelete(bytes("k")));
    assert_eq!(write("APPEND k v"), Write::Append { key: bytes("k"), value: bytes("v") });
    assert_eq!(write("RENAME a b"), Write::Rename { from: bytes("a"), to: bytes("b") });
    assert_eq!(run("STRLEN k"), Ok(Command::Read(Read::Length(bytes("k")))));
    assert_eq!(run("TYPE k"), Ok(Command::Read(Read::Type(bytes("k")))));
    assert_eq!(run("KEYS *"), Ok(Command::Read(Read::Keys(None))));
    assert_eq!(run("KEYS **"), Ok(Command::Read(Read::Keys(Some(bytes("**"))))));
    assert_eq!(run("GET k"), Ok(Command::Read(Read::Get(bytes("k")))));
    assert_eq!(run("EXISTS k k"), Ok(Command::Read(Read::Exists(vec![bytes("k"); 2]))));
    assert_eq!(run("MGET k"), Ok(Command::Read(Read::GetMany(vec![bytes("k")]))));
    assert_eq!(run("DBSIZE"), Ok(Command::Read(Read::Count)));
}

#[test]
fn scans_have_cursors_and_options() {
    let scan = |line: &str| match run(line) {
        Ok(Command::Read(Read::Scan(scan))) => scan,
        other => panic!("{line}: {other:?}"),
    };
    let plain = Scan { cursor: 7, count: 10, pattern: None, strings: true };
    assert_eq!(scan("SCAN 7"), plain);
    let line = "SCAN 7 count 5 MATCH a MATCH b* TYPE STRING COUNT 9223372036854775807";
    let all = Scan { count: i64::MAX as usize, pattern: Some(bytes("b*")), ..plain };
    assert_eq!(scan(line), all);
    assert!(!scan("SCAN 7 TYPE list").strings);
    // As C's strtoul reads them.
    for (text, cursor) in [("", 0), ("+1", 1), ("-1", u64::MAX), ("007", 7)] {
        assert_eq!(scan(&format!("SCAN {text}")).cursor, cursor);
    }
}

#[test]
fn every_command_checks_its_arity() {
    let check = |words: &[&str], name: &str, arity: i64| {
        let least = usize::try_from(arity.abs()).unwrap();
        let wrong = format!("ERR wrong number of arguments for '{name}' command");
        let filled = |count: usize| {
            let filling = vec!["x"; count - words.len()];
            error(&words.iter().copied().chain(filling).collect::<Vec<_>>().join(" "))
        };
        if least > words.len() {
            assert_eq!(filled(least - 1), wrong);
        }
        if arity > 0 {
            assert_eq!(filled(least + 1), wrong);
        }
    };
    for entry in TABLE {
        if entry.subcommands.is_empty() {
            check(&[entry.name], entry.name, entry.arity);
        }
        for part in entry.subcommands {
            check(&[entry.name, part.name], &full_name(entry, part), part.arity);
        }
    }
}

#[test]
fn a_transaction_is_refused_in_a_way_that_nothing_follows() {
    for line in ["MULTI", "multi"] {
        let Ok(Command::Local(Local::Close(Reply::Error(text)))) = run(line) else { panic!() };
        assert!(text.starts_with(b"ERR MULTI is not supported"));
    }
}

#[test]
fn a_name_is_quoted_up_to_its_first_nul() {
    let unknown = |words: &[&str]| parse(words.iter().map(|word| bytes(word)).collect());
    let text = "ERR unknown subcommand 'ID'. Try CLIENT HELP.";
    assert_eq!(unknown(&["client", "ID\0x"]), Err(Reply::error(text)));
    let text = "ERR unknown command 'GET', with args beginning with: 'a' ";
    assert_eq!(unknown(&["GET\0", "a\0b"]), Err(Reply::error(text)));
}

#[test]
fn what_is_looked_up_in_one_go_is_bounded() {
    for name in ["CONFIG GET", "COMMAND INFO", "COMMAND DOCS", "INFO"] {
        let text =
            format!("ERR too many or too long arguments for {}", name.split(' ').next().unwrap());
        assert_eq!(error(&format!("{name} {}", "x".repeat(MAX_LOCAL_BYTES))), text);
        assert_eq!(
            error(&format!("{name}{}", " x".repeat(MAX_LOCAL_BYTES / ARGUMENT_BYTES))),
            text
        );
        assert!(run(&format!("{name}{}", " get".repeat(100))).is_ok());
    }
    let long = |len: usize| run(&format!("KEYS {}", "x".repeat(len)));
    assert!(long(MAX_PATTERN_BYTES).is_ok());
    assert_eq!(long(MAX_PATTERN_BYTES + 1), Err(Reply::error("ERR pattern exceeds 64 KiB")));
}

#[test]
fn errors_have_redis_texts() {
    let integer = "ERR value is not an integer or out of range";
    let no_authentication = "ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?";
    for (line, text) in [
        ("SET k v NX XX", "ERR syntax error"),
        ("SET k v EX 10", "ERR expiry is not supported: keys stay until they are deleted"),
        ("SET k v NX keepttl", "ERR expiry is not supported: keys stay until they are deleted"),
        ("getex k", "ERR expiry is not supported: keys stay until they are deleted"),
        ("SET k v EXX 10", "ERR syntax error"),
        ("FLUSHALL NOW", "ERR syntax error"),
        ("FLUSHALL SYNC ASYNC", "ERR syntax error"),
        ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
        ("PING a b", "ERR wrong number of arguments for 'ping' command"),
        ("INCRBY n 1.0", integer),
        ("DECRBY n 9223372036854775808", integer),
        ("DECRBY n -9223372036854775808", "ERR decrement would overflow"),
        ("SCAN x COUNT y", "ERR invalid cursor"),
        ("SCAN -", "ERR invalid cursor"),
        ("SCAN 1x", "ERR invalid cursor"),
        ("SCAN 18446744073709551616", "ERR invalid cursor"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT -1 FOO", "ERR syntax error"),
        ("SCAN 0 COUNT x", integer),
        ("SCAN 0 COUNT 9223372036854775808", integer),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("SCAN 0 FOO bar", "ERR syntax error"),
        ("SELECT x", integer),
        ("SELECT 1", "ERR DB index is out of range"),
        ("SELECT -1", "ERR DB index is out of range"),
        (
            "SELECT 99999999999",
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'"),
        ("HELLO 3 AUTH default", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 AUTH a b", no_authentication),
        ("HELLO 3 SETNAME me AUTH default x", no_authentication),
        ("AUTH x", no_authentication),
        ("AUTH default x", no_authentication),
        ("AUTH a b c", "ERR syntax error"),
        ("MULTI x", "ERR wrong number of arguments for 'multi' command"),
        ("exec", "ERR EXEC without MULTI"),
        (
            "exec x",
            "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
        ),
        ("DISCARD", "ERR DISCARD without MULTI"),
        ("WATCH k", "ERR WATCH is not supported, as there are no transactions"),
        ("COMMAND LIST FILTERBY PATTERN a*", "ERR COMMAND LIST takes no filter here"),
        ("CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("CLIENT ID x", "ERR wrong number of arguments for 'client|id' command"),
        ("CONFIG GET", "ERR wrong number of arguments for 'config|get' command"),
        ("CONFIG SET a b", "ERR unknown subcommand 'SET'. Try CONFIG HELP."),
        ("RAFT snapshot x", "ERR wrong number of arguments for 'raft|snapshot' command"),
        ("RAFT purge 7", "ERR wrong number of arguments for 'raft|purge' command"),
        ("RAFT transfer 1 2", "ERR wrong number of arguments for 'raft|transfer' command"),
        ("RAFT transfer x", integer),
        ("RAFT transfer -1", integer),
        ("RAFT campaign x", "ERR wrong number of arguments for 'raft|campaign' command"),
        ("RAFT status x", "ERR wrong number of arguments for 'raft|status' command"),
        ("foo", "ERR unknown command 'foo', with args beginning with: "),
        ("Foo a b", "ERR unknown command 'Foo', with args beginning with: 'a' 'b' "),
    ] {
        assert_eq!(error(line), text, "{line}");
    }
}

#[test]
fn an_unknown_command_is_quoted_in_part() {
    let name = "x".repeat(200);
    let text = error(&format!("{name} {} {} w", "y".repeat(100), "z".repeat(100)));
    let (x, y, z) = ("x".repeat(128), "y".repeat(100), "z".repeat(25));
    assert_eq!(text, format!("ERR unknown command '{x}', with args beginning with: '{y}' '{z}' "));
    let text = parse(vec![bytes("a"), bytes("b\0c"), Bytes::from_static(b"\xff")]);
    let expected = b"ERR unknown command 'a', with args beginning with: 'b' '\xff' ";
    assert_eq!(text, Err(Reply::error(&expected[..])));
}

#[test]
fn hello_chooses_protocol_and_name() {
    let hello = |protocol, name: Option<&str>| {
        Ok(Command::Local(Local::Hello { protocol, name: name.map(bytes) }))
    };
    assert_eq!(run("HELLO"), hello(None, None));
    assert_eq!(run("HELLO 2"), hello(Some(Protocol::Resp2), None));
    let line = "hello 3 setname me";
    assert_eq!(run(line), hello(Some(Protocol::Resp3), Some("me")));
    let spaces = ["CLIENT", "SETNAME", "a b"].map(bytes).to_vec();
    assert!(parse(spaces).is_err());
}

#[test]
fn command_describes_the_table() {
    let Ok(Command::Local(Local::Answer(Reply::Array(all)))) = run("COMMAND") else { panic!() };
    assert_eq!(all.len(), TABLE.len());
    let Ok(Command::Local(Local::Answer(Reply::Array(two)))) = run("COMMAND INFO mset nope") else {
        panic!()
    };
    let Reply::Array(mset) = &two[0] else { panic!("{two:?}") };
    let flags = Reply::Set(vec![Reply::Status("write"), Reply::Status("denyoom")]);
    let [first, last, step] = [1, -1, 2].map(Reply::Integer);
    assert_eq!(mset[..6], [Reply::bulk("mset"), Reply::Integer(-3), flags, first, last, step]);
    assert_eq!((mset.len(), &two[1]), (10, &Reply::Null));
    let Ok(Command::Local(Local::Answer(Reply::Array(one)))) = run("COMMAND INFO Client|ID") else {
        panic!()
    };
    assert!(matches!(&one[0], Reply::Array(id) if id[0] == Reply::bulk("client|id")));
    assert!(run("COMMAND DOCS").is_ok());
    assert!(run("COMMAND COUNT").is_ok());
}
