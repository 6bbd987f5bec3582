//! Nodes that may have few open files: clients take none that the log needs.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::load::overwrite;
use common::{Cluster, PATIENCE, kv, until};

/// A command that runs the program with a hard limit of so many open files.
fn limited(files: usize) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""))
        .arg(kv().get_program());
    command
}

fn max_clients(cluster: &Cluster, node: usize) -> usize {
    let mut client = cluster.connect(node).expect("connects");
    let setting: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxclients")
        .query(&mut client)
        .expect("tells its settings");
    setting[1].parse().expect("a number")
}

fn open(cluster: &Cluster, node: usize) -> TcpStream {
    let mut stream = TcpStream::connect(cluster.client_addresses()[node]).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
    // It is not refused, so nothing comes before the answer.
    let _ = stream.write_all(b"PING\r\n");
    stream
}

fn answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 7];
    stream.read_exact(&mut answer).expect("is answered");
    String::from_utf8(answer).expect("a text")
}

#[test]
fn idle_clients_leave_the_log_the_files_that_it_needs() {
    const FILES: usize = 256;
    const WRITTEN: usize = 130 << 20;
    let mut cluster = Cluster::prepare(common::RUNTIMES);
    for node in 0..3 {
        cluster.start_by(node, &cluster.line(node), limited(FILES));
    }
    (0..3).for_each(|node| cluster.serves(node));
    let leader = cluster.leader();
    // It is a client, too.
    let mut writer = cluster.connect(leader).expect("connects");
    let mut idle = Vec::new();
    for node in 0..3 {
        let most = max_clients(&cluster, node);
        assert!((16..FILES).contains(&most), "{most} clients");
        let refused = until("the node has as many clients as it may", || {
            let mut stream = open(&cluster, node);
            match answer(&mut stream).as_str() {
                "+PONG\r\n" => idle.push(stream),
                "-ERR ma" => return Some(stream),
                other => panic!("{other}"),
            }
            None
        });
        assert!(idle.len() >= (node + 1) * (most - 4), "{} clients", idle.len());
        let mut refused = refused;
        let mut text = String::new();
        refused.read_to_string(&mut text).expect("is told");
        assert_eq!(text, "x number of clients reached\r\n");
    }
    overwrite(&mut writer, WRITTEN);
    assert!((0..3).all(|node| cluster.runs(node)));
    for stream in &mut idle {
        stream.write_all(b"PING\r\n").expect("sends");
        assert_eq!(answer(stream), "+PONG\r\n");
    }
    drop(idle);
    (0..3).for_each(|node| cluster.serves(node));
    (0..3).for_each(|node| cluster.stop_node(node));
}

#[test]
fn a_limit_with_which_a_node_cannot_run_is_an_error() {
    let mut cluster = Cluster::prepare(["tokio"]);
    cluster.start_by(0, &cluster.line(0), limited(100));
    let said = cluster.fails(0);
    assert!(said.contains("the process may have only 100 open files, and needs "), "{said}");
    assert!(said.contains("LimitNOFILE="), "{said}");
    assert!(!cluster.data_of(0).exists());
}
