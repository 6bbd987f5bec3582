//! `quorate-kv check`: what it says of data that are sound, torn, damaged or in use.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Process, connect, free_ports, kv, number, status};

/// A node of its own, with this folder and these ports for clients and peers, that has stored
/// something and taken a snapshot.
fn node(data: &Path, [client, peer]: [u16; 2]) -> Process {
    let process = Process::spawn(
        kv().args(["serve", "--id", "1", "--client", &format!("127.0.0.1:{client}")])
            .args(["--peer", &format!("127.0.0.1:{peer}")])
            .args(["--cluster", &format!("1=127.0.0.1:{peer}")])
            .arg("--data")
            .arg(data)
            .stderr(Stdio::null()),
    );
    common::until("the node writes", || {
        let set = redis::cmd("SET").arg("key").arg("acknowledged").exec(&mut connect(client).ok()?);
        set.ok()
    });
    let snapshot = redis::cmd("RAFT").arg("SNAPSHOT").exec(&mut connect(client).expect("connects"));
    snapshot.expect("takes a snapshot");
    process
}

/// Exit code and what was printed.
fn check(data: &Path) -> (Option<i32>, String) {
    let output = kv().arg("check").arg("--data").arg(data).output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("is text"))
}

/// Where it says that the log ends.
fn end_of(text: &str) -> u64 {
    let (_, end) = text.split_once("\nend: offset ").expect("it ends");
    end.split(' ').next().and_then(|end| end.parse().ok()).expect("a number")
}

/// Content and time of change of every file.
fn everything(data: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut files = BTreeMap::new();
    for dir in [data.to_owned(), data.join("wal"), data.join("snapshots")] {
        for entry in fs::read_dir(dir).expect("lists") {
            let path = entry.expect("lists").path();
            let facts = path.metadata().expect("is there");
            let content = if path.is_file() { fs::read(&path).expect("reads") } else { vec![] };
            files.insert(path, (content, facts.mtime(), facts.mtime_nsec()));
        }
    }
    files
}

/// A shorter log than one that was closed is damaged. So no stop may leave it without the mark.
#[test]
fn each_clean_stop_leaves_the_mark_of_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let ports = free_ports(2);
    for _ in 0..10 {
        let mut process = node(dir.path(), [ports[0], ports[1]]);
        // The last write is a moment ago.
        let set =
            redis::cmd("SET").arg("key").arg("last").exec(&mut connect(ports[0]).expect("it runs"));
        set.expect("it serves");
        process.signal("TERM");
        common::until("it ends", || process.has_ended().then_some(()));
        let (code, text) = check(dir.path());
        assert_eq!(code, Some(0), "{text}");
        assert!(!text.contains("\ntail: "), "{text}");
    }
}

#[test]
fn it_tells_what_is_there_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path();
    let ports @ [client, _] = [free_ports(1)[0], free_ports(1)[0]];
    let mut process = node(data, ports);

    let (code, text) = check(data);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use by another process"), "{text}");

    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
    let before = everything(data);
    let (code, text) = check(data);
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "segments: ",
        "\nnode: 1, incarnation ",
        "\n  cluster: ",
        "\n  starts: 1\n",
        "group 0:\n",
        "  standing: ",
        "  committed: at least up to ",
        "hard state: term 1, vote 1",
        "entries: 1 to ",
        "\nsound\n",
        "  snapshot: up to ",
        "snapshots/0-",
        "\n  configuration: of entry 1\n",
        ": voter\n    this store is 1/",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    assert!(!text.contains("caution") && !text.contains("tail: "), "{text}");
    assert!(everything(data) == before);

    // Another start is counted, and nothing else of its identity changes.
    let identity = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| ["node: ", "  cluster: "].iter().any(|fact| line.starts_with(fact)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = identity(&text);
    let (_, cluster) = first[1].split_once("cluster: ").expect("a fact");
    assert!(cluster.len() == 32 && cluster.bytes().all(|b| b.is_ascii_hexdigit()), "{cluster}");
    let mut process = node(data, ports);
    let facts = status(&mut connect(client).expect("connects")).expect("has a status");
    assert_eq!(number(&facts, "boot"), Some(2));
    let incarnation: String =
        redis::from_redis_value(facts["incarnation"].clone()).expect("is text");
    process.signal("TERM");
    assert_eq!(process.exit_code(), Some(0));
    let (code, text) = check(data);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(identity(&text), first);
    assert_eq!(first[0], format!("node: 1, incarnation {incarnation}"));
    assert!(text.contains("\n  starts: 2\n"), "{text}");

    // Without the lock's file none is made.
    fs::remove_file(data.join("LOCK")).expect("removes");
    let (code, text) = check(data);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("caution: not locked"), "{text}");
    assert!(!data.join("LOCK").exists());

    // Half a record behind the end.
    let segment = data.join("wal/0000000000000001.wal");
    let whole = fs::read(&segment).expect("reads");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("is written");
    let mut torn = whole.clone();
    torn[end + 100] = 0xAA;
    fs::write(&segment, &torn).expect("writes");
    let before = everything(data);
    let (code, text) = check(data);
    assert_eq!(code, Some(0), "{text}");
    let tail = format!("\ntail: what follows byte {} of {}", end_of(&text), segment.display());
    assert!(text.contains(&tail) && text.contains("bytes are not zero; the next"), "{text}");
    assert!(everything(data) == before);

    // The disk has lost its last block, with the mark that a clean stop leaves.
    let block = end / 4096 * 4096;
    let mut lost = whole.clone();
    lost[block..block + 4096].fill(0);
    fs::write(&segment, &lost).expect("writes");
    let (code, text) = check(data);
    assert_eq!(code, Some(0), "{text}");
    let tail = format!("\ntail: what follows byte {} of {}", end_of(&text), segment.display());
    assert!(text.contains(&tail), "{text}");
    assert!(text.contains("if the node was stopped cleanly, entries may be missing"), "{text}");

    // The node has gone with the last write acknowledged, and the disk loses a bit of it.
    let at = whole.windows(12).rposition(|window| window == b"acknowledged").expect("is there");
    let mut damaged = whole;
    damaged[at] ^= 1;
    fs::write(&segment, &damaged).expect("writes");
    let before = everything(data);
    let (code, text) = check(data);
    assert_eq!(code, Some(1), "{text}");
    let expected = format!("damage: {}: damaged at offset ", segment.display());
    assert!(text.contains(&expected), "{text}");
    assert!(text.contains("group 0 (before the damage):") && !text.contains("sound"), "{text}");
    assert!(everything(data) == before);
}

#[test]
fn a_folder_without_a_store_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (code, text) = check(folder.path());
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 0);
}
