//! The commands of a scenario.
//!
//! | command | what it does |
//! | --- | --- |
//! | `config field=value …` | settings, before the nodes: a field of `Config` (times in ms, `on` and `off`), `seed.N=S` |
//! | `nodes 1 2 3` | a cluster of these, formed, so that a majority elects a leader |
//! | `nodes 1 2 3 spare 4 5` | … and empty nodes beside it, which may be let in |
//! | `change 1 a: 1 2 4 learner 5` | change `a` of the membership is wanted at node 1; ends with `prefer 4`, `follows b`, `lower` (tolerance), `within 2000` (ms, to catch up) |
//! | `cancel 1 a` | it is to be cancelled, says node 1 |
//! | `ending 1 a …` | how changes have ended, as node 1 knows |
//! | `waits 1` | what the change waits for that is under way, as node 1 knows, which leads |
//! | `fresh 1 2 3` | the same nodes, which know of nothing |
//! | `initialize 1 2` | these nodes are told, now and at each start, to form a cluster of all nodes; `initialize 1 with 1 2`: of these |
//! | `form` | all nodes are told that, and it is done |
//! | `resign 1` | node 1 shall transfer leadership, if it leads |
//! | `transfer 1 to 3 within 2s` | node 1 is told to transfer leadership to node 3, with a deadline; both `to` and `within` may be missing |
//! | `stand 1` | node 1 is told to campaign now |
//! | `step-down 1` | node 1 is told to lead no more |
//! | `configure 1 field=value …` | node 1 gets other settings, until it is started again |
//! | `wait 300ms` | time passes and timers go off; messages and writes stay where they are |
//! | `run 2s` | time passes; messages take 10 ms, writes none (unless a disk is stalled) |
//! | `run until leader` | … until some node leads, for at most 20 s |
//! | `run until 3 asks` | … until node 3 asks for pre-votes |
//! | `wake 1` | time goes on to node 1's next timer, and only node 1 notices |
//! | `campaign 1` | node 1 is woken until it asks for pre-votes |
//! | `elect 1` | … and then everything settles, with node 1 as leader |
//! | `propose 1 a b*1000` | two clients of node 1 write, in one turn; `b` is padded to 1000 bytes |
//! | `read 1` | a client of node 1 reads; reads are numbered |
//! | `deliver 1->2 …` | what is on the link arrives, in order; `deliver all`: on all links; `deliver 1->2 x1`: the first only |
//! | `drop 1->2 …` | the same, but it is lost |
//! | `repeat 1->2` | the oldest message on the link will arrive twice |
//! | `reorder 1->2` | the latest message on the link overtakes all others |
//! | `delay 1->2 as old` | the oldest message is held back … |
//! | `release old` | … and arrives now |
//! | `persist 1 …` | all pending writes are durable; `persist 1 x1`: the oldest only |
//! | `disk 1 stalled` | `run` and `settle` don't complete its writes; `disk 1 works` |
//! | `fetches quick` | what a node reads for peers is read, and chunks are written, at once, as usual |
//! | `fetches manual` | … or only when the script says so … |
//! | `fetch 1` | … that is, now |
//! | `draft 1` | … or one of the latter now |
//! | `drafts fail` | no chunk that comes in can be written; `drafts work` |
//! | `snapshot 1` | node 1 takes a snapshot of what it has applied; `snapshot 1 5000`: of 5000 bytes |
//! | `purge 1` | node 1 purges what that covers |
//! | `crash 1` | it stops, and only what was persisted is left; `crash 1 x1`: the oldest pending write has reached the disk, too |
//! | `restart 1` | it starts again (after a crash, if it runs) |
//! | `wipe 3` | it crashes, loses its disk, and is started again with the list that it was told; its next disks are shown as 3', 3'' |
//! | `save 3 as old` / `put 3 as old` | its disk is copied / replaced by the copy; it is down |
//! | `put 3 as old unchecked` | … and safety is not checked from then on |
//! | `cut 1 \| 2 3` | what is sent from now on between the groups is lost |
//! | `block 1->2 …` | what is sent from now on from node 1 to node 2 is lost |
//! | `heal` | ends both |
//! | `settle` | delivers and persists until nothing happens any more, in no time |
//! | `status` / `log 1 …` / `peers 1` / `flying` | what the nodes are / a log, `*` where durable / a leader's peers / messages on their way |
//!
//! Single steps show messages (`1->2 …`), writes and what follows from a message, indented.
//! `run`, `settle` and `elect` show only changes of role, commits and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    ChangeId, ChangeKind, ChangeOptions, ChangeRequest, Config, Member, MemberRole, Message,
    NodeId, Obstacle, Role, Target, TransferOptions,
};

use crate::cluster::{self, Cluster};
use crate::disk::Disk;
use crate::show;

#[derive(Default)]
pub(crate) struct Scenario {
    config: Config,
    seeds: BTreeMap<NodeId, u64>,
    cluster: Option<Cluster>,
    delayed: BTreeMap<String, Message>,
    saved: BTreeMap<String, Disk>,
}

/// Gives a field of the settings this value.
fn set(config: &mut Config, field: &str, value: &str) {
    let millis = || Duration::from_millis(number(value));
    let bytes = || number(value) as usize;
    let is_on = || match value {
        "on" => true,
        "off" => false,
        _ => panic!("{field} is on or off"),
    };
    match field {
        "heartbeat_interval" => config.heartbeat_interval = millis(),
        "election_timeout" => config.election_timeout = millis(),
        "request_timeout" => config.request_timeout = millis(),
        "max_command_bytes" => config.max_command_bytes = bytes(),
        "max_append_bytes" => config.max_append_bytes = bytes(),
        "max_inflight_bytes" => config.max_inflight_bytes = bytes(),
        "retained_bytes" => config.retained_bytes = number(value),
        "max_retained_bytes" => config.max_retained_bytes = number(value),
        "max_uncommitted_bytes" => config.max_uncommitted_bytes = bytes(),
        "elections" => config.elections = is_on(),
        "heartbeats" => config.heartbeats = is_on(),
        "pre_vote" => config.pre_vote = is_on(),
        _ => panic!("there is no setting {field}"),
    }
}

impl Scenario {
    /// Runs a command; what has come of it, in lines. Panics at a command that is not understood,
    /// or has nothing to do.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, rest) = words.split_first().expect("not empty");
        match *command {
            "config" => {
                assert!(self.cluster.is_none(), "there are nodes already");
                for setting in rest {
                    let (field, value) = setting.split_once('=').expect("field=value");
                    match field.strip_prefix("seed.") {
                        Some(id) => drop(self.seeds.insert(number(id), number(value))),
                        None => set(&mut self.config, field, value),
                    }
                }
                Vec::new()
            }
            "nodes" => {
                let spare = rest.iter().position(|word| *word == "spare");
                let (members, spare) = rest.split_at(spare.unwrap_or(rest.len()));
                let spares = spare.get(1..).map(ids).unwrap_or_default();
                self.create(&ids(members), &spares);
                self.cluster().events.clear();
                Vec::new()
            }
            "fresh" => {
                self.create(&[], &ids(rest));
                self.cluster().events.clear();
                Vec::new()
            }
            "status" | "log" | "peers" | "flying" | "ending" | "waits" => self.look(command, rest),
            "run" | "settle" | "elect" => {
                self.act(command, rest);
                self.events(false)
            }
            _ => {
                let more = self.act(command, rest);
                self.events(true).into_iter().chain(more).collect()
            }
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("there are no nodes yet")
    }

    /// What has happened since the last call.
    pub(crate) fn events(&mut self, details: bool) -> Vec<String> {
        let Some(cluster) = &mut self.cluster else { return Vec::new() };
        let events = std::mem::take(&mut cluster.events).into_iter();
        let shown = events.filter(|event| details || !event.detail).map(|event| {
            if details && event.effect { format!("  {}", event.text) } else { event.text }
        });
        shown.collect()
    }

    /// Members of a cluster that is formed, and empty nodes.
    fn create(&mut self, members: &[NodeId], empty: &[NodeId]) {
        assert!(self.cluster.is_none(), "there are nodes already");
        let ids = [members, empty].concat();
        let seeds: Vec<u64> =
            ids.iter().map(|id| self.seeds.get(id).copied().unwrap_or(*id)).collect();
        let config = self.config.clone();
        self.cluster = Some(match members {
            [] => Cluster::new(config, &ids, &seeds),
            _ => Cluster::with_membership(config, &ids, &seeds, cluster::members(members)),
        });
    }

    fn look(&mut self, command: &str, rest: &[&str]) -> Vec<String> {
        let cluster = self.cluster();
        let mut lines = Vec::new();
        match command {
            "status" => {
                for id in if rest.is_empty() { cluster.ids() } else { ids(rest) } {
                    let status = cluster.engine(id).map_or("down".to_owned(), show::status);
                    lines.push(format!("{id} {status}"));
                }
            }
            "log" => {
                for id in ids(rest) {
                    let disk = cluster.disk(id);
                    for entry in &disk.submitted().entries {
                        let durable = disk.durable().log_id(entry.log_id.index);
                        let mark = if durable == Some(entry.log_id) { "*" } else { " " };
                        lines.push(format!("{id}{mark} {}", show::entry(entry)));
                    }
                }
            }
            "peers" => {
                for id in ids(rest) {
                    let engine = cluster.engine(id).expect("it is up");
                    for (peer, metrics) in engine.peers() {
                        let (matched, bytes) = (metrics.matched, metrics.inflight_bytes);
                        let snapshot = metrics.snapshot.map_or(String::new(), |(stored, bytes)| {
                            format!(", has {stored} of the snapshot's {bytes} bytes")
                        });
                        let peer = show::replica(peer);
                        let flying = format!("{bytes} bytes in flight");
                        lines.push(format!("{peer} matches to {matched}, {flying}{snapshot}"));
                    }
                }
            }
            "ending" => {
                let (id, changes) = rest.split_first().expect("ending 1 a");
                let known = cluster.engine(number(id)).expect("it is up").committed_membership();
                for change in changes {
                    let ending = known.and_then(|known| known.ending_of(change_id(change)));
                    let text = ending.map_or("unknown".to_owned(), show::ending);
                    lines.push(format!("{change}: {text}"));
                }
            }
            "waits" => {
                let [id] = ids(rest)[..] else { panic!("waits 1") };
                let engine = cluster.engine(id).expect("it is up");
                let progress = engine.change_progress(|_| Obstacle::Silent);
                let progress = progress.expect("it leads, and a change is under way");
                for (node, wait) in &progress.waits_for {
                    lines.push(format!("{node}: {wait}"));
                }
            }
            "flying" => {
                let messages = cluster.messages();
                lines.extend(messages.iter().map(|message| cluster.show(message)));
            }
            _ => unreachable!("{command}"),
        }
        lines
    }

    /// Carries out a command; lines that are no events.
    fn act(&mut self, command: &str, rest: &[&str]) -> Vec<String> {
        match command {
            "delay" => {
                let [link, "as", name] = rest else { panic!("delay 1->2 as name") };
                let (from, to) = ends(link);
                let message = self.cluster().take_message(from, to);
                let text = self.cluster().show(&message);
                assert!(self.delayed.insert((*name).to_owned(), message).is_none());
                return vec![format!("{text} (held back)")];
            }
            "release" => {
                let [name] = rest else { panic!("release name") };
                let message = self.delayed.remove(*name).expect("it was held back");
                self.cluster().arrive(message);
                return Vec::new();
            }
            "save" => {
                let [id, "as", name] = rest else { panic!("save 1 as name") };
                let disk = self.cluster().disk(number(id)).clone();
                assert!(self.saved.insert((*name).to_owned(), disk).is_none());
                return Vec::new();
            }
            "put" => {
                let (id, name, unchecked) = match rest {
                    [id, "as", name] => (id, name, false),
                    [id, "as", name, "unchecked"] => (id, name, true),
                    _ => panic!("put 1 as name"),
                };
                self.cluster().safety.off |= unchecked;
                let (id, disk) = (number(id), self.saved[*name].clone());
                assert!(self.cluster().engine(id).is_none(), "node {id} runs");
                self.cluster().put(id, disk);
                return Vec::new();
            }
            _ => {}
        }
        let cluster = self.cluster();
        match command {
            "initialize" => {
                let told = rest.iter().position(|word| *word == "with");
                let (nodes, list) = match told {
                    Some(at) => (&rest[..at], cluster::list(&ids(&rest[at + 1..]))),
                    None => (rest, cluster.list.clone()),
                };
                let begun = |id| match cluster.initialize(id, list.clone()) {
                    Ok(()) => format!("{id} may form"),
                    Err(error) => format!("{id} can't form: {error}"),
                };
                return ids(nodes).into_iter().map(begun).collect();
            }
            "form" => cluster.form(),
            "change" => {
                let (id, words) = rest.split_first().expect("change 1 a: 1 2 3");
                cluster.change(number(id), change_request(words));
            }
            "cancel" => {
                let [id, change] = rest else { panic!("cancel 1 a") };
                let request = ChangeRequest { id: change_id(change), kind: ChangeKind::Cancel };
                cluster.change(number(id), request);
            }
            "transfer" => return vec![cluster.transfer(number(rest[0]), transfer(&rest[1..]))],
            "stand" => return ids(rest).into_iter().map(|id| cluster.stand(id)).collect(),
            "step-down" => return ids(rest).into_iter().map(|id| cluster.step_down(id)).collect(),
            "configure" => {
                let (id, settings) = rest.split_first().expect("configure 1 field=value");
                cluster.configure(number(id), |config| {
                    for setting in settings {
                        let (field, value) = setting.split_once('=').expect("field=value");
                        set(config, field, value);
                    }
                });
            }
            "resign" => ids(rest).into_iter().for_each(|id| cluster.resign(id)),
            "wait" => cluster.wait(duration(rest)),
            "run" if rest == ["until", "leader"] => {
                let led = |cluster: &Cluster| {
                    cluster.ids().iter().any(|id| is(cluster, *id, Role::Leader))
                };
                cluster.run_until(cluster.now + Duration::from_secs(20), led);
                assert!(led(cluster), "nobody leads");
            }
            "run" if rest.len() == 3 && rest[0] == "until" && rest[2] == "asks" => {
                let id = number(rest[1]);
                let asks = |cluster: &Cluster| is(cluster, id, Role::PreCandidate);
                cluster.run_until(cluster.now + Duration::from_secs(20), asks);
                assert!(asks(cluster), "{id} does not ask");
            }
            "run" => cluster.run(duration(rest)),
            "settle" => cluster.settle(),
            "wake" => ids(rest).into_iter().for_each(|id| wake(cluster, id)),
            "campaign" => ids(rest).into_iter().for_each(|id| campaign(cluster, id)),
            "elect" => {
                let [id] = ids(rest)[..] else { panic!("elect 1") };
                campaign(cluster, id);
                cluster.settle();
                assert!(is(cluster, id, Role::Leader), "{id} is not elected");
            }
            "propose" => {
                let (id, names) = rest.split_first().expect("propose 1 a");
                let commands: Vec<Bytes> =
                    names.iter().map(|name| show::command_bytes(name).into()).collect();
                assert!(!commands.is_empty(), "nothing to propose");
                cluster.propose(number(id), &commands);
            }
            "read" => ids(rest).into_iter().for_each(|id| cluster.read(id)),
            "deliver" | "drop" => {
                let (links, count) = counted(rest);
                let links = match links {
                    ["all"] => cluster.busy_links(),
                    links => links.iter().map(|link| ends(link)).collect(),
                };
                let clean = command == "drop" && rest == ["all"];
                assert!(clean || !links.is_empty(), "nothing is on its way");
                // What is sent in answer stays on its link.
                let there: Vec<_> = links
                    .into_iter()
                    .map(|(from, to)| (from, to, cluster.on_link(from, to)))
                    .collect();
                for (from, to, there) in there {
                    assert!(there > 0, "nothing is on its way from {from} to {to}");
                    for _ in 0..count.unwrap_or(there) {
                        let message = cluster.take_message(from, to);
                        if command == "deliver" {
                            cluster.arrive(message);
                        }
                    }
                }
            }
            "repeat" => {
                let [link] = rest else { panic!("repeat 1->2") };
                let (from, to) = ends(link);
                let message = cluster.take_message(from, to);
                cluster.put_message(message.clone(), true);
                cluster.put_message(message, true);
            }
            "reorder" => {
                let [link] = rest else { panic!("reorder 1->2") };
                let (from, to) = ends(link);
                let mut messages: Vec<_> = (0..cluster.on_link(from, to))
                    .map(|_| cluster.take_message(from, to))
                    .collect();
                assert!(messages.len() > 1, "there is no order");
                messages.rotate_right(1);
                messages.into_iter().for_each(|message| cluster.put_message(message, false));
            }
            "persist" => {
                let (nodes, count) = counted(rest);
                for id in ids(nodes) {
                    let count = count.unwrap_or(usize::MAX);
                    assert!(cluster.persist(id, count), "node {id} has nothing to write");
                }
            }
            "disk" => {
                let [id, state @ ("stalled" | "works")] = rest else { panic!("disk 1 stalled") };
                cluster.disk(number(id)).stalled = *state == "stalled";
            }
            "fetches" => {
                let [pace @ ("manual" | "quick")] = rest else { panic!("fetches manual") };
                cluster.manual_fetches = *pace == "manual";
            }
            "drafts" => {
                let [state @ ("fail" | "work")] = rest else { panic!("drafts fail") };
                cluster.drafts_fail = *state == "fail";
            }
            "draft" => {
                for id in ids(rest) {
                    assert!(cluster.draft(id), "nothing comes in at node {id}");
                }
            }
            "snapshot" => {
                let (id, bytes) = match rest {
                    [id] => (number(id), 0),
                    [id, bytes] => (number(id), number(bytes) as usize),
                    _ => panic!("snapshot 1 5000"),
                };
                assert!(cluster.build(id, bytes), "node {id} has applied nothing");
                assert!(cluster.built(id));
            }
            "purge" => ids(rest).into_iter().for_each(|id| cluster.purge(id)),
            "fetch" => {
                for id in ids(rest) {
                    assert!(cluster.fetch(id), "node {id} has asked for nothing");
                }
            }
            "crash" | "restart" => {
                let (nodes, survivors) = counted(rest);
                for id in ids(nodes) {
                    if command == "crash" || cluster.engine(id).is_some() {
                        let pending = cluster.disk(id).pending();
                        assert!(survivors.is_none_or(|count| count <= pending), "not so many");
                        cluster.crash(id, survivors.unwrap_or(0));
                    }
                    if command == "restart" {
                        cluster.start(id);
                    }
                }
            }
            "wipe" => {
                for id in ids(rest) {
                    cluster.wipe(id);
                }
            }
            "cut" => {
                let groups = rest.split(|word| *word == "|");
                cluster.cut(groups.map(|group| ids(group).into_iter().collect()).collect());
            }
            "block" => {
                for (from, to) in rest.iter().map(|link| ends(link)) {
                    cluster.block(from, to);
                }
            }
            "heal" => cluster.heal(),
            _ => panic!("there is no command {command}"),
        }
        Vec::new()
    }
}

fn is(cluster: &Cluster, id: NodeId, role: Role) -> bool {
    cluster.engine(id).is_some_and(|engine| engine.role() == role)
}

fn wake(cluster: &mut Cluster, id: NodeId) {
    let at = cluster.wake_at(id).unwrap_or_else(|| panic!("node {id} waits for nothing"));
    cluster.now = cluster.now.max(at);
    cluster.wake(id);
}

/// Nobody else notices that time passes: as if they were slower, or had heard from a leader just
/// now.
fn campaign(cluster: &mut Cluster, id: NodeId) {
    // One that campaigns already repeats its requests, and then begins anew.
    let campaigned = is(cluster, id, Role::Candidate);
    for _ in 0..100 {
        wake(cluster, id);
        let campaigns = !campaigned && is(cluster, id, Role::Candidate);
        if campaigns || is(cluster, id, Role::PreCandidate) {
            return;
        }
    }
    panic!("{id} does not campaign");
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
}

fn change_id(name: &str) -> ChangeId {
    let [letter @ b'a'..=b'z'] = name.as_bytes() else { panic!("a change is one letter") };
    ChangeId(u128::from(*letter))
}

/// `a: 1 2 4 learner 5 follows b lower within 2000`
fn change_request(words: &[&str]) -> ChangeRequest {
    let (name, words) = words.split_first().expect("a: 1 2 3");
    let id = change_id(name.strip_suffix(':').expect("a:"));
    let (mut target, mut options) = (Target::default(), ChangeOptions::default());
    let mut role = MemberRole::Voter;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "learner" => role = MemberRole::Learner,
            "lower" => options.allow_lower_tolerance = true,
            "prefer" => {
                let id = words.next().map_or(0, |id| number(id));
                target.members.get_mut(&id).expect("it is named before").priority = 1;
            }
            "follows" => options.follows = words.next().map(|name| change_id(name)),
            "within" => {
                let ms = words.next().map_or(0, |ms| number(ms));
                options.catch_up = Duration::from_millis(ms);
            }
            id => {
                let id = number(id);
                let member = Member { address: format!("node-{id}"), role, priority: 0 };
                target.members.insert(id, member);
            }
        }
    }
    ChangeRequest { id, kind: ChangeKind::Begin { target, options } }
}

fn ids(words: &[&str]) -> Vec<NodeId> {
    assert!(!words.is_empty(), "which nodes?");
    words.iter().map(|word| number(word)).collect()
}

/// Words, and a count `xN` at the end.
fn counted<'a, 'b>(words: &'b [&'a str]) -> (&'b [&'a str], Option<usize>) {
    match words {
        [words @ .., last] if last.starts_with('x') => (words, Some(number(&last[1..]) as usize)),
        words => (words, None),
    }
}

fn ends(link: &str) -> (NodeId, NodeId) {
    let (from, to) = link.split_once("->").unwrap_or_else(|| panic!("{link} is no link"));
    (number(from), number(to))
}

fn transfer(words: &[&str]) -> TransferOptions {
    let mut options = TransferOptions::default();
    for pair in words.chunks(2) {
        match pair {
            ["to", id] => options.to = Some(number(id)),
            ["within", time] => options.within = Some(duration(&[time])),
            _ => panic!("transfer 1 to 3 within 2s"),
        }
    }
    options
}

fn duration(words: &[&str]) -> Duration {
    let [word] = words else { panic!("how long?") };
    if let Some(millis) = word.strip_suffix("ms") {
        Duration::from_millis(number(millis))
    } else {
        let seconds = word.strip_suffix('s').unwrap_or_else(|| panic!("{word} is no duration"));
        Duration::from_secs(number(seconds))
    }
}
