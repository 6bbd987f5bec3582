//! Clients that are slow, silent or many: the node goes on serving the others, and its memory stays
//! flat.
#![cfg(target_os = "linux")] // Where a process' memory can be read.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::namespace::skipped;
use common::{Cluster, PATIENCE, until};
use redis::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the memory may grow by for reasons that are not the test's: the log, the allocator, pages
/// touched for the first time.
const MARGIN_BYTES: usize = 32 << 20;

/// A node alone on each runtime, with a client that is served throughout.
fn on_each_runtime(test: impl Fn(&mut Cluster, &mut Connection)) {
    for runtime in ["tokio", "monoio", "compio"] {
        eprintln!("on {runtime}");
        let mut cluster = Cluster::start([runtime]);
        cluster.leader();
        cluster.serves(0);
        let mut other = cluster.connect(0).expect("connects");
        is_served(&mut other);
        test(&mut cluster, &mut other);
        is_served(&mut other);
        cluster.process(0).signal("TERM");
        assert_eq!(cluster.process(0).exit_code(), Some(0), "it stops with all of them there");
    }
}

fn is_served(other: &mut Connection) {
    for _ in 0..5 {
        let written: u64 = redis::cmd("INCR").arg("served").query(other).expect("writes");
        let read: u64 = redis::cmd("GET").arg("served").query(other).expect("reads");
        assert_eq!(read, written);
    }
}

fn open(cluster: &Cluster) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", cluster.client_ports()[0])).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
    stream.set_nodelay(true).expect("can send at once");
    stream
}

/// Reads exactly this.
fn expect(stream: &mut TcpStream, answer: &[u8]) {
    let mut received = vec![0; answer.len()];
    stream.read_exact(&mut received).expect("is answered");
    assert_eq!(received.escape_ascii().to_string(), answer.escape_ascii().to_string());
}

fn assert_flat(cluster: &mut Cluster, before: usize, allowed: usize) {
    let after = cluster.process(0).resident_bytes();
    let grown = after.saturating_sub(before);
    eprintln!("from {} to {} KiB", before >> 10, after >> 10);
    assert!(grown < allowed, "{grown} bytes more, where {allowed} are allowed");
}

#[test]
fn clients_that_read_nothing() {
    const CLIENTS: usize = 4;
    const VALUE: usize = 1000;
    const PINGS: usize = 60_000;
    /// What a connection may hold, at most: answers of 1 MiB, and what it has read of the pipeline.
    const CONNECTION_BYTES: usize = 4 << 20;
    /// More than the sockets of both sides buffer. Its answers make up a hundred times as much.
    const PIPELINE_BYTES: usize = 64 << 20;
    on_each_runtime(|cluster, other| {
        let value = "x".repeat(VALUE);
        redis::cmd("SET").arg("v").arg(&value).exec(other).expect("writes");
        let before = cluster.process(0).resident_bytes();
        let pipeline = "GET v\r\n".repeat(10_000);
        let mut silent: Vec<_> = (0..CLIENTS).map(|_| open(cluster)).collect();
        for stream in &mut silent {
            // Short answers first, which the sockets hold: so that the node comes to read much at
            // once.
            stream.write_all("PING\r\n".repeat(PINGS).as_bytes()).expect("sends");
            stream.set_write_timeout(Some(Duration::from_millis(200))).expect("can wait");
            let mut sent = 0;
            loop {
                match stream.write(pipeline.as_bytes()) {
                    Ok(len) => sent += len,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
                assert!(sent < PIPELINE_BYTES, "the node takes requests without end");
            }
            is_served(other);
        }
        assert_flat(cluster, before, CLIENTS * CONNECTION_BYTES + MARGIN_BYTES);
        // They had only to read.
        let pongs = "+PONG\r\n".repeat(PINGS);
        silent.iter_mut().for_each(|stream| expect(stream, pongs.as_bytes()));
        let answer = format!("${VALUE}\r\n{value}\r\n").repeat(100);
        silent.iter_mut().for_each(|stream| expect(stream, answer.as_bytes()));
    });
}

#[test]
fn clients_that_send_a_byte_at_a_time() {
    const CLIENTS: usize = 100;
    on_each_runtime(|cluster, other| {
        let before = cluster.process(0).resident_bytes();
        let mut slow: Vec<_> = (0..CLIENTS).map(|_| open(cluster)).collect();
        // Half of them announce a value that is as long as can be, and never get to its end.
        let whole = b"*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n$4\r\nabcd\r\n";
        let endless = b"*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n$8388608\r\n";
        for at in 0..whole.len() {
            for (client, stream) in slow.iter_mut().enumerate() {
                let request = if client % 2 == 0 { &whole[..] } else { &endless[..] };
                let byte = request.get(at).unwrap_or(&b'x');
                stream.write_all(&[*byte]).expect("sends");
            }
            let _: u64 = redis::cmd("INCR").arg("served").query(other).expect("writes");
        }
        let mut lengths = Vec::new();
        for stream in slow.iter_mut().step_by(2) {
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("is answered");
                answer.push(byte[0]);
            }
            let answer = String::from_utf8(answer).expect("a number");
            lengths.push(answer[1..].trim_end().parse::<usize>().expect("a number"));
        }
        lengths.sort_unstable();
        assert!(lengths.into_iter().eq((1..=CLIENTS / 2).map(|n| 4 * n)));
        assert_flat(cluster, before, MARGIN_BYTES);
    });
}

#[test]
fn clients_that_never_end_a_long_request() {
    const CLIENTS: usize = 40;
    const VALUE: usize = 8 << 20;
    /// What they may send of it together. They try a quarter more.
    const ALLOWED_BYTES: usize = 256 << 20;
    on_each_runtime(|cluster, other| {
        let before = cluster.process(0).resident_bytes();
        let mut request = format!("*5\r\n$4\r\nMSET\r\n$1\r\na\r\n${VALUE}\r\n").into_bytes();
        request.resize(request.len() + VALUE, b'x');
        request.extend_from_slice(b"\r\n$1\r\nb\r\n$8000000\r\nx");
        let mut endless: Vec<_> = (0..CLIENTS).map(|_| open(cluster)).collect();
        let refusal = b"-ERR the requests of all clients are too long together";
        for stream in &mut endless {
            stream.write_all(&request).expect("those who came before make room");
            is_served(other);
        }
        let mut refused = 0;
        endless.retain_mut(|stream| {
            stream.set_nonblocking(true).expect("can be set");
            let mut answer = vec![0; refusal.len()];
            let told = stream.read(&mut answer);
            stream.set_nonblocking(false).expect("can be set");
            let waits = told.as_ref().is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            if let Ok(len) = told {
                assert_eq!(answer[..len], refusal[..]);
            }
            refused += usize::from(!waits);
            waits
        });
        eprintln!("{refused} of {CLIENTS} were refused");
        assert!((CLIENTS / 5..CLIENTS).contains(&refused));
        assert_flat(cluster, before, ALLOWED_BYTES + MARGIN_BYTES);
        drop(endless);
        // There is room again.
        let value = vec![b'x'; VALUE];
        until("long requests are taken again", || {
            redis::cmd("SET").arg("a").arg(&value).exec(&mut cluster.connect(0).ok()?).ok()
        });
    });
}

#[test]
fn ten_thousand_clients_and_no_more() {
    /// What a node takes by default, of which one place is for the client that is served.
    const CLIENTS: usize = 10_000 - 1;
    /// A buffer of 4 KiB to read into, and the task.
    const CONNECTION_BYTES: usize = 12 << 10;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("may be raised");
    let room = limit.maximum.map_or(CLIENTS, |files| usize::try_from(files).unwrap_or(CLIENTS));
    // The node needs some files for itself and its peers, and so does this process.
    let count = CLIENTS.min(room.saturating_sub(450));
    if count < CLIENTS {
        let reason = format!("only {room} open files are allowed");
        skipped("ten_thousand_clients_and_no_more, all but the first of them", &reason);
    }
    on_each_runtime(|cluster, other| {
        let before = cluster.process(0).resident_bytes();
        let mut idle: Vec<_> = (0..count)
            .map(|client| {
                // In time for the kernel's queue of those who are not accepted yet.
                if client % 100 == 0 {
                    is_served(other);
                }
                open(cluster)
            })
            .collect();
        idle.iter_mut().for_each(|stream| stream.write_all(b"PING\r\n").expect("sends"));
        idle.iter_mut().for_each(|stream| expect(stream, b"+PONG\r\n"));
        is_served(other);
        assert_flat(cluster, before, count * CONNECTION_BYTES + MARGIN_BYTES);
        if count == CLIENTS {
            let mut refused = open(cluster);
            expect(&mut refused, b"-ERR max number of clients reached\r\n");
            assert_eq!(refused.read(&mut [0]).expect("is closed"), 0);
        }
        // Each still is a client, and gives its place back.
        idle.iter_mut().for_each(|stream| stream.write_all(b"PING\r\n").expect("sends"));
        idle.iter_mut().for_each(|stream| expect(stream, b"+PONG\r\n"));
        drop(idle.drain(count / 2..));
        until("the places are given back", || {
            let info: String = redis::cmd("INFO").arg("clients").query(other).ok()?;
            info.contains(&format!("connected_clients:{}\r\n", count / 2 + 1)).then_some(())
        });
        let mut next = open(cluster);
        next.write_all(b"PING\r\n").expect("sends");
        expect(&mut next, b"+PONG\r\n");
    });
}

/// Each APPEND makes a value another one, so that what was answered before is in memory for the
/// answers alone.
#[test]
fn answers_that_nobody_reads_pin_no_more_than_their_budget() {
    const CLIENTS: usize = 40;
    const VALUE: usize = 4 << 20;
    const VALUES: usize = 4;
    const BUDGET: usize = 64 << 20;
    /// The values, a copy of one that grows, requests under way, and what the log has not written
    /// yet.
    const OWN_BYTES: usize = 2 * VALUES * VALUE + (64 << 20);
    for runtime in ["tokio", "monoio", "compio"] {
        eprintln!("on {runtime}");
        let flags = ["--max-unread-bytes", &BUDGET.to_string()];
        let mut cluster = Cluster::start_with([runtime], &flags);
        cluster.serves(0);
        let mut other = cluster.connect(0).expect("connects");
        for key in 0..VALUES {
            let value = vec![b'x'; VALUE];
            redis::cmd("SET").arg(key).arg(value).exec(&mut other).expect("writes");
        }
        let before = cluster.process(0).resident_bytes();
        cluster.process(0).peak_resident_bytes();
        let silent: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = open(&cluster);
                for _ in 0..4 {
                    stream.write_all(b"MGET 0 1 2 3\r\n").expect("sends");
                    for key in 0..VALUES {
                        redis::cmd("APPEND").arg(key).arg("y").exec(&mut other).expect("writes");
                    }
                }
                stream
            })
            .collect();
        is_served(&mut other);
        let grown = cluster.process(0).peak_resident_bytes().saturating_sub(before);
        eprintln!("at most {} KiB more", grown >> 10);
        assert!(grown < BUDGET + OWN_BYTES, "{grown} bytes more");
        drop(silent);
        until("the answers are given up", || {
            let info: String = redis::cmd("INFO").arg("clients").query(&mut other).ok()?;
            info.contains("unread_answers_bytes:0\r\n").then_some(())
        });
        cluster.stop_node(0);
    }
}
