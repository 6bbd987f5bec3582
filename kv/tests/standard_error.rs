//! The log of a node: whatever becomes of where it goes to, the node serves, and stops in order.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Cluster, Process, kv, on_each_runtime, until};

/// A node alone, that has not been started.
fn node(runtime: &'static str) -> (Cluster, Command) {
    let cluster = Cluster::prepare([runtime]);
    let line = cluster.line(0);
    let mut command = kv();
    command
        .args(["serve", "--id", "1"])
        .args(["--client", &line.client.to_string()])
        .args(["--peer", &line.peer.to_string()])
        .args(["--cluster", &format!("1={}", line.peer)])
        .arg("--data")
        .arg(&line.data)
        .args(["--runtime", runtime]);
    (cluster, command)
}

fn is_served(cluster: &Cluster) {
    cluster.serves(0);
    let mut client = cluster.connect(0).expect("connects");
    for _ in 0..20 {
        let written: u64 = redis::cmd("INCR").arg("a").query(&mut client).expect("writes");
        let read: u64 = redis::cmd("GET").arg("a").query(&mut client).expect("reads");
        assert_eq!(read, written);
    }
}

fn stops(mut node: Process) {
    node.signal("TERM");
    assert_eq!(node.exit_code(), Some(0));
}

fn make_pipe(path: &Path) {
    let (kind, mode) = (rustix::fs::FileType::Fifo, 0o600.into());
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("makes a pipe");
}

#[test]
fn a_standard_error_that_cannot_be_written_does_no_harm() {
    on_each_runtime(|runtime| {
        let (cluster, mut command) = node(runtime);
        let full = File::options().write(true).open("/dev/full").expect("opens");
        let mut node = Process::spawn(command.env("RUST_LOG", "debug").stderr(full));
        is_served(&cluster);
        node.signal("HUP");
        is_served(&cluster);
        assert!(!node.has_ended());
        stops(node);
    });
}

#[test]
fn a_standard_error_whose_reader_is_gone_does_no_harm() {
    on_each_runtime(|runtime| {
        let (cluster, mut command) = node(runtime);
        let (reader, writer) = std::io::pipe().expect("makes a pipe");
        let node = Process::spawn(command.env("RUST_LOG", "debug").stderr(writer));
        cluster.serves(0);
        drop(reader);
        is_served(&cluster);
        stops(node);
    });
}

#[test]
fn a_standard_error_that_nobody_reads_does_no_harm() {
    /// Where a pipe of 64 KiB has no room for many lines any more.
    const FULL_BYTES: u64 = 63 << 10;
    on_each_runtime(|runtime| {
        let (cluster, mut command) = node(runtime);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pipe");
        make_pipe(&path);
        // Both sides, so that the opening does not wait.
        let pipe = File::options().read(true).write(true).open(&path).expect("opens");
        let errors = pipe.try_clone().expect("has another handle");
        let node = Process::spawn(command.env("RUST_LOG", "trace").stderr(errors));
        until("the pipe is full", || {
            let _ = cluster.connect(0);
            (rustix::io::ioctl_fionread(&pipe).expect("tells") >= FULL_BYTES).then_some(())
        });
        is_served(&cluster);
        stops(node);
    });
}

#[test]
fn a_demo_whose_outputs_nobody_reads_serves() {
    let base = common::free_ports(1)[0].clamp(1024, 60_000) - 1;
    let (reader, writer) = std::io::pipe().expect("makes a pipe");
    drop(reader);
    let demo = Process::spawn(
        kv().args(["demo", "--nodes", "1", "--base-port", &base.to_string()])
            .stdout(writer.try_clone().expect("has another handle"))
            .stderr(writer),
    );
    let mut client = until("the demo serves", || {
        let mut client = common::connect(base + 1).ok()?;
        redis::cmd("PING").exec(&mut client).ok().map(|()| client)
    });
    redis::cmd("SET").arg("a").arg("b").exec(&mut client).expect("writes");
    stops(demo);
}

#[test]
fn a_log_file_is_opened_anew_when_it_was_moved() {
    on_each_runtime(|runtime| {
        let (cluster, mut command) = node(runtime);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (log, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        command.arg("--log-file").arg(&log).args(["--log-format", "json"]);
        let mut node = Process::spawn(command.stderr(Stdio::null()));
        is_served(&cluster);
        until("it says that it serves", || said(&log).contains("serving").then_some(()));
        fs::rename(&log, &moved).expect("moves");
        node.signal("HUP");
        until("it has a new log", || log.exists().then_some(()));
        is_served(&cluster);
        assert!(!node.has_ended());
        stops(node);
        let text = said(&log);
        for line in said(&moved).lines().chain(text.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(line["fields"]["message"].is_string(), "{line}");
        }
        let last: serde_json::Value =
            serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["fields"]["message"], "stopped");
        assert!(text.contains("SIGTERM"), "{text}");
    });
}

#[test]
fn a_log_on_a_full_disk_does_no_harm_and_tells_what_is_missing() {
    on_each_runtime(|runtime| {
        let (cluster, mut command) = node(runtime);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (log, other) = (folder.path().join("log"), folder.path().join("other"));
        symlink("/dev/full", &log).expect("makes a link");
        let node = Process::spawn(command.arg("--log-file").arg(&log).stderr(Stdio::null()));
        is_served(&cluster);
        fs::remove_file(&log).expect("removes the link");
        symlink(&other, &log).expect("makes a link");
        node.signal("HUP");
        until("it tells what is missing", || {
            let text = fs::read_to_string(&other).ok()?;
            text.contains("lines of the log are missing here").then_some(())
        });
        is_served(&cluster);
        stops(node);
    });
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error() {
    let cluster = Cluster::prepare(["tokio"]);
    let mut line = cluster.line(0);
    line.flags = ["--log-file", "/nowhere/log"].map(str::to_owned).to_vec();
    let said = line.is_refused();
    assert_eq!(
        said,
        "quorate-kv: can't open the log file /nowhere/log: No such file or directory (os error 2)\n"
    );
}
