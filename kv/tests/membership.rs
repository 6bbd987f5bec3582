//! Clusters of real processes that grow, shrink and move while they serve, by the commands that an
//! operator has.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, Serve, connect_to, id, on_each_runtime, until};
use redis::{Connection, RedisResult};

/// A command that begins with RAFT, such as `ADD 4 host:7101`, on a node.
fn raft(cluster: &Cluster, node: usize, line: &str) -> RedisResult<String> {
    raft_at(cluster.client_addresses()[node], line)
}

fn raft_at(node: SocketAddr, line: &str) -> RedisResult<String> {
    redis::cmd("RAFT").arg(line.split(' ').collect::<Vec<_>>()).query(&mut patient_at(node))
}

fn patient(cluster: &Cluster, node: usize) -> Connection {
    patient_at(cluster.client_addresses()[node])
}

fn patient_at(node: SocketAddr) -> Connection {
    let connection = connect_to(node).expect("connects");
    connection.set_read_timeout(Some(PATIENCE)).expect("can be set");
    connection
}

/// The same, which must be done.
fn done(cluster: &Cluster, node: usize, line: &str) {
    let answer = raft(cluster, node, line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(answer.starts_with("OK, "), "{line}: {answer}");
}

/// The same, which must be refused in such words.
fn refused(cluster: &Cluster, node: usize, line: &str, words: &str) {
    let error = raft(cluster, node, line).expect_err(line).to_string();
    assert!(error.contains(words), "{line}: {error}");
}

fn lines(cluster: &Cluster, node: usize, line: &str) -> Vec<String> {
    let mut connection = patient(cluster, node);
    redis::cmd("RAFT").arg(line.split(' ').collect::<Vec<_>>()).query(&mut connection).expect(line)
}

/// The ids of the voters, as RAFT MEMBERS says.
fn voters(cluster: &Cluster, node: usize) -> Vec<u64> {
    let members = lines(cluster, node, "MEMBERS");
    let voter = |line: &String| {
        let id = line.strip_prefix("id=")?.split_once(' ')?.0.parse().ok()?;
        line.contains(" role=voter ").then_some(id)
    };
    members.iter().filter_map(voter).collect()
}

/// ADD and the place of a node.
fn adding(cluster: &Cluster, node: usize) -> String {
    format!("ADD {} {}", id(node), cluster.peer_address(node))
}

/// So many nodes, of which the first is a cluster alone and the others wait to be let in.
fn one_and<const N: usize>(runtime: &'static str) -> Cluster {
    let mut cluster = Cluster::prepare([runtime; N]);
    let alone = cluster.line(0).told(&[1]);
    cluster.start_as(0, &alone);
    cluster.serves(0);
    for node in 1..N {
        let joining = cluster.line(node).joining();
        cluster.start_as(node, &joining);
    }
    cluster
}

/// The same, grown to three.
fn three_and<const N: usize>(runtime: &'static str) -> Cluster {
    let cluster = one_and::<N>(runtime);
    for node in [1, 2] {
        done(&cluster, 0, &adding(&cluster, node));
        cluster.serves(node);
    }
    cluster
}

/// A client that increments a number all the time, on whichever node serves it.
#[derive(Default)]
struct Counter {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
}

impl Counter {
    /// Gives the longest time from one acknowledgement to the next.
    fn run(&self, nodes: &[SocketAddr]) -> Duration {
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        let mut node = 0;
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            let Some(open) = &mut connection else {
                connection = connect_to(nodes[node % nodes.len()]).ok();
                node += usize::from(connection.is_none());
                continue;
            };
            match redis::cmd("INCR").arg("counter").query::<u64>(open) {
                Ok(_) => {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                Err(error) => {
                    let is_refused =
                        error.code().is_some() && !error.to_string().contains("unknown");
                    self.unknown.fetch_add(u64::from(!is_refused), Ordering::SeqCst);
                    connection = None;
                    node += 1;
                }
            }
        }
        longest
    }

    fn goes_on(&self) {
        let before = self.acknowledged.load(Ordering::SeqCst);
        until("the counter is incremented", || {
            (self.acknowledged.load(Ordering::SeqCst) > before + 20).then_some(())
        });
    }
}

/// 1 → 3, one of them replaced, and back to one, which is none of the first two.
#[test]
fn a_cluster_grows_is_replaced_and_shrinks_under_load() {
    on_each_runtime(|runtime| {
        let cluster = one_and::<4>(runtime);
        let counter = Counter::default();
        let clients = cluster.client_addresses();
        thread::scope(|scope| {
            let running = scope.spawn(|| counter.run(&clients));
            let then = |line: &str, now: &[u64]| {
                // Any member takes it.
                let by = if now == [4] { 3 } else { 0 };
                done(&cluster, 0, line);
                assert_eq!(voters(&cluster, by), now, "{line}");
                counter.goes_on();
            };
            then(&adding(&cluster, 1), &[1, 2]);
            then(&adding(&cluster, 2), &[1, 2, 3]);
            then(&format!("REPLACE 2 4 {}", cluster.peer_address(3)), &[1, 3, 4]);
            refused(&cluster, 2, "REMOVE 3", "ALLOWLOWER");
            then("REMOVE 3 ALLOWLOWER", &[1, 4]);
            // The leader, perhaps: then it transfers leadership first.
            done(&cluster, 3, "REMOVE 1");
            until("it is alone", || (voters(&cluster, 3) == [4]).then_some(()));
            counter.goes_on();
            counter.stop.store(true, Ordering::SeqCst);
            let longest = running.join().expect("no panic");
            let acknowledged = counter.acknowledged.load(Ordering::SeqCst);
            let unknown = counter.unknown.load(Ordering::SeqCst);
            let mut connection = cluster.connect(3).expect("connects");
            let there: u64 =
                redis::cmd("GET").arg("counter").query(&mut connection).expect("reads");
            assert!((acknowledged..=acknowledged + unknown).contains(&there), "{there}");
            eprintln!(
                "{runtime}: {acknowledged} increments, {unknown} of unknown outcome, none lost; the longest \
                 gap in service was {} ms",
                longest.as_millis()
            );
        });
        for node in 0..3 {
            let removed = redis::cmd("GET").arg("counter").clone();
            let error = removed.query::<u64>(&mut patient(&cluster, node)).expect_err("removed");
            assert!(error.to_string().contains("was removed from the group"), "{error}");
        }
    });
}

#[test]
fn a_node_says_what_it_waits_for_until_it_is_let_in_and_goes_on_after_a_restart() {
    on_each_runtime(|runtime| {
        let mut cluster = one_and::<2>(runtime);
        let words = format!("on a member, RAFT {} lets it in", adding(&cluster, 1));
        cluster.says(1, &words);
        assert!(cluster.fact(1, "joining").is_some_and(|why| why.contains(&words)));
        let error = redis::cmd("GET").arg("a").exec(&mut patient(&cluster, 1)).expect_err("empty");
        assert!(error.to_string().contains(&words), "{error}");
        refused(&cluster, 1, &adding(&cluster, 1), "belongs to no cluster yet");
        // It may be started after the command, too.
        cluster.kill(1);
        let leader = cluster.client_addresses()[0];
        let line = format!("{} LEARNER", adding(&cluster, 1));
        let adds = thread::spawn(move || raft_at(leader, &line));
        until("it is waited for", || {
            let members = lines(&cluster, 0, "MEMBERS");
            let waits = format!("waits_for={} why=it can't be reached at", id(1));
            members.iter().any(|line| line.starts_with(&waits)).then_some(())
        });
        let joining = cluster.line(1).joining();
        cluster.start_as(1, &joining);
        adds.join().expect("no panic").expect("it is let in");
        cluster.serves(1);
        assert_eq!(cluster.fact(1, "membership").as_deref(), Some("learner"));
        assert_eq!(cluster.fact(1, "joining"), None);
        // If it was killed, its disk might not have that yet, and it would say it once more.
        cluster.stop_node(1);
        cluster.start_as(1, &joining);
        cluster.serves(1);
        let said = cluster.said(1);
        assert!(!said.contains("waits to be let in") && !said.contains("was let into"), "{said}");
        done(&cluster, 1, "PROMOTE 2");
        assert_eq!(voters(&cluster, 1), [1, 2]);
        done(&cluster, 1, "PREFER 1 7");
        assert!(lines(&cluster, 1, "MEMBERS")[0].contains(" priority=7"));
        done(&cluster, 1, "DEMOTE 2");
        assert_eq!(voters(&cluster, 1), [1]);
    });
}

/// With the folder that it has: a learner has given no vote.
#[test]
fn a_learner_that_has_left_again_waits_for_the_next_time() {
    on_each_runtime(|runtime| {
        let cluster = one_and::<2>(runtime);
        done(&cluster, 0, &format!("{} LEARNER", adding(&cluster, 1)));
        cluster.serves(1);
        done(&cluster, 0, "REMOVE 2");
        cluster.says(1, "it was let in and has left again");
        let left = cluster.fact(1, "joining").expect("it waits");
        assert!(left.contains("RAFT ADD 2"), "{left}");
        let error = redis::cmd("GET").arg("a").exec(&mut patient(&cluster, 1)).expect_err("left");
        assert!(error.to_string().contains("is no member of its cluster"), "{error}");
        done(&cluster, 0, &adding(&cluster, 1));
        cluster.serves(1);
        assert_eq!(voters(&cluster, 1), [1, 2]);
    });
}

/// A node that lets itself in, as it knows the cluster's token.
#[test]
fn a_node_with_the_token_lets_itself_in_and_one_with_another_is_refused() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::prepare([runtime; 3]);
        let alone = cluster.line(0).told(&[1]);
        cluster.start_as(0, &alone);
        cluster.serves(0);
        let member = cluster.client_addresses()[0];
        let token = raft(&cluster, 0, "TOKEN").expect("a member knows it");
        assert_eq!(token.len(), 32, "{token}");
        let wrong = cluster.line(1).asking(member, &"7".repeat(32));
        let said = wrong.is_refused();
        assert!(said.contains(&format!("{member} refuses this node: WRONGTOKEN ")), "{said}");
        assert_eq!(voters(&cluster, 0), [1]);
        // Nobody is at the first address.
        let right = cluster.line(2).asking(member, &token);
        let nobody = cluster.peer_address(1);
        let right = Serve { join: Some(format!("{nobody},{member}")), ..right };
        cluster.start_as(2, &right);
        cluster.serves(2);
        until("it has its vote", || (voters(&cluster, 2) == [1, 3]).then_some(()));
        cluster.stop_node(2);
        cluster.start_as(2, &right);
        cluster.serves(2);
    });
}

#[test]
fn a_change_ends_when_its_time_is_up_or_it_is_cancelled_and_its_client_does_not_matter() {
    on_each_runtime(|runtime| {
        let mut cluster = three_and::<4>(runtime);
        cluster.kill(3);
        let add = adding(&cluster, 3);
        refused(&cluster, 1, &format!("{add} TIMEOUT 300"), "in time, node 4 had not caught up");
        assert_eq!(voters(&cluster, 1), [1, 2, 3]);
        // A client that goes cancels nothing.
        let mut gone = cluster.connect(2).expect("connects");
        gone.set_read_timeout(Some(Duration::from_millis(100))).expect("can be set");
        let command = redis::cmd("RAFT").arg(add.split(' ').collect::<Vec<_>>()).clone();
        command.exec(&mut gone).expect_err("it takes longer");
        drop(gone);
        let change = until("the change is under way", || {
            let members = lines(&cluster, 0, "MEMBERS");
            let line = members.iter().find_map(|line| line.strip_prefix("change="))?;
            Some(line.split_once(' ')?.0.to_owned())
        });
        refused(&cluster, 0, "REMOVE 3", &format!("change {change} is under way"));
        thread::scope(|scope| {
            let waits = scope.spawn(|| raft(&cluster, 1, &format!("AWAIT {change}")));
            let answer = raft(&cluster, 2, "CANCEL").expect("is cancelled");
            assert_eq!(answer, format!("OK, change {change} is cancelled"));
            let told = waits.join().expect("no panic").expect_err("it was cancelled").to_string();
            assert!(told.contains("the change was cancelled"), "{told}");
        });
        refused(&cluster, 0, "CANCEL", "no change is under way");
        // Another one takes the place of one that is under way.
        thread::scope(|scope| {
            let first = scope.spawn(|| raft(&cluster, 0, &add));
            let change = until("the change is under way", || {
                let members = lines(&cluster, 2, "MEMBERS");
                let line = members.iter().find_map(|line| line.strip_prefix("change="))?;
                Some(line.split_once(' ')?.0.to_owned())
            });
            done(&cluster, 2, &format!("REMOVE 4 FOLLOWS {change}"));
            let told = first.join().expect("no panic").expect_err("it was replaced").to_string();
            assert!(told.contains("has taken the place of this one"), "{told}");
        });
        assert_eq!(voters(&cluster, 0), [1, 2, 3]);
        let plan = lines(&cluster, 1, "PLAN REMOVE 3");
        assert_eq!(plan[0], "tolerates_now=1 tolerates_at_least=0 refused=needs ALLOWLOWER");
        assert_eq!(plan[1], "1. voters 1, 2 joint with 1, 2, 3");
        assert_eq!(voters(&cluster, 0), [1, 2, 3], "nothing was changed");
        let nothing = "OK, the voters are 1, 2, 3: there was nothing to do";
        let address = cluster.peer_address(0);
        for line in ["PROMOTE 1".to_owned(), format!("MOVE 1 {address}"), "PREFER 1 0".to_owned()] {
            assert_eq!(raft(&cluster, 2, &line).expect("is so already"), nothing, "{line}");
        }
        let same = format!("REPLACE 2 2 {}", cluster.peer_address(3));
        refused(&cluster, 0, &same, "node 2 is a member already");
    });
}

#[test]
fn a_removed_node_says_so_and_comes_back_with_an_empty_folder_only() {
    on_each_runtime(|runtime| {
        let mut cluster = three_and::<3>(runtime);
        done(&cluster, 1, "REMOVE 3 ALLOWLOWER");
        cluster.says(2, "this node was removed from its cluster");
        let is_told = |cluster: &Cluster| {
            let began = Instant::now();
            let command = redis::cmd("SET").arg("a").arg(1).clone();
            let error = command.exec(&mut patient(cluster, 2)).expect_err("removed").to_string();
            assert!(error.contains("node 3 was removed from the group"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(2), "it waits for no leader");
            assert_eq!(cluster.fact(2, "membership").as_deref(), Some("removed"));
            refused(cluster, 2, "REMOVE 1", "was removed");
        };
        is_told(&cluster);
        // Also after a restart, however it was started at first.
        cluster.kill(2);
        cluster.start_as(2, &cluster.line(2).joining());
        cluster.says(2, "this node was removed from its cluster");
        is_told(&cluster);
        refused(&cluster, 0, &format!("{} TIMEOUT 2000", adding(&cluster, 2)), "had not caught up");
        cluster.says(2, "serving");
        cluster.kill(2);
        cluster.wipe(2);
        cluster.start_as(2, &cluster.line(2).joining());
        done(&cluster, 0, &adding(&cluster, 2));
        cluster.serves(2);
        assert_eq!(voters(&cluster, 2), [1, 2, 3]);
        assert!(!cluster.said(2).contains("no leader for"), "{}", cluster.said(2));
    });
}

/// All nodes, one after the other, the leader among them.
#[test]
fn nodes_move_to_other_addresses_under_load() {
    on_each_runtime(|runtime| {
        let mut cluster = three_and::<3>(runtime);
        let counter = Counter::default();
        let mut moved: Vec<Serve> =
            (0..3).map(|node| cluster.line(node).joining().moved()).collect();
        // Clients find it where it was.
        moved
            .iter_mut()
            .enumerate()
            .for_each(|(node, line)| line.client = cluster.line(node).client);
        let clients = cluster.client_addresses();
        thread::scope(|scope| {
            let running = scope.spawn(|| counter.run(&clients));
            for (node, line) in moved.iter().enumerate() {
                let began = Instant::now();
                done(&cluster, (node + 1) % 3, &format!("MOVE {} {}", id(node), line.peer));
                cluster.says(node, &format!("RAFT MOVE {} ", id(node)));
                // It is reached where it was, until it is started anew.
                let terms = || cluster.term(node);
                let term = terms();
                thread::sleep(Duration::from_millis(2500));
                assert_eq!(terms(), term, "nobody was elected meanwhile");
                assert!(began.elapsed() < PATIENCE);
                cluster.stop_node(node);
                cluster.start_as(node, line);
                cluster.serves(node);
                counter.goes_on();
            }
            counter.stop.store(true, Ordering::SeqCst);
            let longest = running.join().expect("no panic");
            eprintln!(
                "{runtime}: the longest gap while all nodes moved was {} ms",
                longest.as_millis()
            );
        });
        for (node, line) in moved.iter().enumerate() {
            let members = lines(&cluster, node, "MEMBERS");
            let place = format!("id={} address={} ", id(node), line.peer);
            assert!(members.iter().any(|line| line.starts_with(&place)), "{members:?}");
            assert!(!cluster.said(node).contains("RAFT MOVE"), "{}", cluster.said(node));
        }
    });
}
