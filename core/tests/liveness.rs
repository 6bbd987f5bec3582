//! A group that rests: three engines, whose nodes' liveness the tests tell by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::{Engine, Fetch, Input, Local};
use quorate_core::{
    Body, Boot, ClusterId, Config, Digest, Entries, Entry, HardState, LogId, LogMeta, Membership,
    Message, Recovered, Replica, Role, SnapshotMeta, Term,
};
use quorate_rt::Instant;

const IDS: [u64; 3] = [1, 2, 3];
const BOOT: Boot = Boot { number: 1, tag: 1 };
const NEXT_BOOT: Boot = Boot { number: 2, tag: 5 };
const HOUR: Duration = Duration::from_secs(3600);

fn node(id: u64) -> Replica {
    Replica::new(id, 1)
}

/// The nodes of a cluster, whose disks are quick and whose messages take no time.
struct Cluster {
    engines: BTreeMap<u64, Engine>,
    now: Instant,
    wake_at: BTreeMap<u64, Option<Instant>>,
    /// All that was appended; nothing is replaced here.
    logs: BTreeMap<u64, Vec<Entry>>,
    flying: VecDeque<Message>,
    /// What was sent since the last look, but for what was lost.
    sent: Vec<Message>,
    /// Links on which everything is lost.
    cut: Vec<(u64, u64)>,
    /// Whose disk is late, and what it is to write.
    late: Option<(u64, Vec<u64>)>,
    /// What replicas have said that they are no more.
    left: Vec<(u64, Term)>,
}

impl Cluster {
    /// Node 1 leads.
    fn new() -> Self {
        let members = IDS.map(|id| (node(id), format!("node-{id}"))).into();
        let meta = SnapshotMeta {
            log_id: LogId::new(1, 1, 9),
            time: 0,
            membership: Membership::founding(ClusterId(7), members).expect("valid"),
            membership_index: 1,
            bytes: 10,
            digest: Digest::of(b"ten bytes."),
        };
        let mut cluster = Self {
            engines: BTreeMap::new(),
            now: Instant::default() + Duration::from_secs(10),
            wake_at: BTreeMap::new(),
            logs: BTreeMap::new(),
            flying: VecDeque::new(),
            sent: Vec::new(),
            cut: Vec::new(),
            late: None,
            left: Vec::new(),
        };
        for id in IDS {
            let recovered = Recovered {
                hard_state: HardState { term: Term(1), voted_for: Some(node(1)) },
                snapshot: Some(meta.clone()),
                log_meta: LogMeta::after(meta.log_id),
                ..Recovered::default()
            };
            let local = Local { replica: node(id), boot: BOOT, cluster: None };
            let engine = Engine::new(local, 0, Config::default(), recovered, id, cluster.now);
            cluster.engines.insert(id, engine);
        }
        cluster.now += Duration::from_secs(10);
        cluster.step(1, Input::Wake);
        assert_eq!(cluster.engines[&1].role(), Role::Leader);
        cluster
    }

    /// The same, at rest: all nodes are alive, and nothing is left to do.
    fn resting() -> Self {
        let mut cluster = Self::new();
        for id in IDS {
            IDS.into_iter().filter(|peer| *peer != id).for_each(|peer| cluster.alive(id, peer));
        }
        cluster.run(Duration::from_secs(2));
        cluster.sent.clear();
        cluster
    }

    fn engine(&mut self, id: u64) -> &mut Engine {
        self.engines.get_mut(&id).expect("there is one")
    }

    fn step(&mut self, id: u64, input: Input) {
        let now = self.now;
        self.engine(id).step(now, input);
        self.act(id);
        while let Some(message) = self.flying.pop_front() {
            let to = message.to.id;
            self.engine(to).step(now, Input::Message(message));
            self.act(to);
        }
    }

    fn act(&mut self, id: u64) {
        let now = self.now;
        while let Some((write, content)) = self.engine(id).take_write() {
            self.logs.entry(id).or_default().extend(content.entries.iter().cloned());
            match &mut self.late {
                Some((late, writes)) if *late == id => writes.push(write),
                _ => self.engine(id).step(now, Input::Persisted { write }),
            }
        }
        let output = self.engine(id).take_output();
        let rare = output.rare.unwrap_or_default();
        self.wake_at.insert(id, output.wake_at);
        self.left.extend(rare.left.map(|term| (id, term)));
        assert!(output.write.is_none());
        for Fetch { peer, term, range, .. } in rare.fetches {
            let wanted = self.logs[&id].iter().filter(|entry| range.contains(&entry.log_id.index));
            let entries = wanted.cloned().collect::<Vec<_>>().into();
            self.step(id, Input::Fetched { peer, term, entries });
        }
        for message in output.messages {
            if !self.cut.contains(&(id, message.to.id)) {
                self.sent.push(message.clone());
                self.flying.push_back(message);
            }
        }
    }

    /// Node `id` is told that another is alive.
    fn alive(&mut self, id: u64, other: u64) {
        self.step(id, Input::NodeIsAlive { replica: node(other), boot: BOOT });
    }

    fn silent(&mut self, id: u64, other: u64) {
        let heard = Instant::from_nanos(self.now.as_nanos() - 1_000_000_000);
        self.step(id, Input::NodeIsSilent { replica: node(other), heard });
    }

    /// Time passes, with all timers.
    fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let wake = |(id, at): (&u64, &Option<Instant>)| Some(((*at)?, *id));
            let next = self.wake_at.iter().filter_map(wake).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.step(id, Input::Wake);
        }
        self.now = until;
    }

    fn roles(&self) -> Vec<(u64, Role)> {
        let leads = |(id, engine): (&u64, &Engine)| (*id, engine.role());
        self.engines.iter().map(leads).filter(|(_, role)| *role != Role::Follower).collect()
    }

    fn write(&mut self, id: u64) {
        let now = self.now;
        self.engine(id).propose(now, 1, [Bytes::from_static(b"a")]);
        self.act(id);
        self.step(id, Input::Met { replica: node(9), boot: BOOT }); // Delivers.
    }
}

#[test]
fn a_group_in_which_nothing_happens_sends_nothing_and_has_no_timer() {
    let mut cluster = Cluster::resting();
    assert_eq!(cluster.wake_at, IDS.map(|id| (id, None)).into());
    cluster.run(HOUR);
    assert_eq!(cluster.sent, []);
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
    assert!(IDS.into_iter().all(|id| cluster.engines[&id].leader() == Some(node(1))));
}

#[test]
fn without_word_of_the_nodes_there_are_heartbeats() {
    let mut cluster = Cluster::new();
    cluster.alive(1, 2);
    cluster.alive(2, 1);
    cluster.sent.clear();
    cluster.run(Duration::from_secs(10));
    let to = |id| cluster.sent.iter().filter(|m| m.to.id == id && m.from.id == 1).count();
    assert!(to(3) >= 100, "{} heartbeats", to(3));
    assert!(to(2) <= 3, "node 2 rests, but is sent {} messages", to(2));
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
}

#[test]
fn a_write_ends_the_rest_until_all_have_it() {
    let mut cluster = Cluster::resting();
    cluster.run(HOUR);
    cluster.write(1);
    assert_eq!(cluster.engines[&1].committed(), 11);
    cluster.run(Duration::from_secs(2));
    assert!(IDS.into_iter().all(|id| cluster.engines[&id].committed() == 11));
    assert_eq!(cluster.wake_at, IDS.map(|id| (id, None)).into(), "it rests again");
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
}

#[test]
fn an_append_that_is_lost_while_a_group_rests_is_repeated() {
    let mut cluster = Cluster::resting();
    cluster.cut = vec![(1, 2)];
    cluster.write(1);
    cluster.cut.clear();
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.engines[&2].committed(), 11);
}

#[test]
fn when_the_leaders_node_falls_silent_another_is_elected() {
    let mut cluster = Cluster::resting();
    cluster.run(HOUR);
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    cluster.silent(2, 1);
    cluster.silent(3, 1);
    cluster.silent(1, 2);
    cluster.silent(1, 3);
    cluster.run(Duration::from_secs(2));
    let roles: Vec<_> = cluster.roles().into_iter().filter(|(id, _)| *id != 1).collect();
    assert!(matches!(roles[..], [(2 | 3, Role::Leader)]), "{roles:?}");
    assert!(cluster.left.contains(&(1, Term(2))), "node 1 tells that it leads no more");
}

/// All groups whose leader was on a node that dies learn it at once. The more there are, the more
/// their elections are spread.
#[test]
fn elections_of_groups_that_rest_are_spread_by_their_number() {
    let timeout = Config::default().election_timeout;
    for (groups, at_most) in [
        (Some(1), timeout / 10),
        (Some(300), timeout * 3 / 10),
        (Some(5000), timeout),
        (None, timeout),
    ] {
        let mut cluster = Cluster::resting();
        if let Some(groups) = groups {
            cluster.engine(2).set_groups(groups);
        }
        let waits: BTreeSet<_> = (0..40)
            .map(|_| {
                // Node 2 is taken back each time, and draws anew.
                cluster.silent(2, 1);
                let wait = cluster.wake_at[&2].expect("it will campaign") - cluster.now;
                cluster.run(Duration::from_secs(2));
                cluster.alive(2, 1);
                cluster.run(Duration::from_secs(2));
                wait
            })
            .collect();
        let longest = *waits.last().expect("there are some");
        assert!(longest <= at_most && longest > at_most / 2, "{groups:?} groups: {waits:?}");
    }
}

/// One follower hears the leader's node no more, the others do: it must not cause an election.
#[test]
fn a_follower_that_misses_the_leader_alone_is_taken_back() {
    let mut cluster = Cluster::resting();
    cluster.silent(2, 1);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
    assert_eq!(cluster.engines[&1].hard_state().term, Term(2), "nobody was disturbed");
    assert_eq!(cluster.engines[&2].leader(), Some(node(1)));
}

/// A life that was not elected is no leader, however alive it is.
#[test]
fn a_leader_whose_node_has_begun_anew_is_replaced() {
    let mut cluster = Cluster::resting();
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    for id in [2, 3] {
        cluster.step(id, Input::NodeIsAlive { replica: node(1), boot: NEXT_BOOT });
    }
    cluster.run(Duration::from_secs(2));
    let roles: Vec<_> = cluster.roles().into_iter().filter(|(id, _)| *id != 1).collect();
    assert!(matches!(roles[..], [(2 | 3, Role::Leader)]), "{roles:?}");
}

#[test]
fn a_leadership_that_is_told_to_have_ended_is_not_counted_on() {
    let mut cluster = Cluster::resting();
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    for id in [2, 3] {
        cluster.step(id, Input::PeerHasLeft { replica: node(1), term: Term(1) });
        assert_eq!(cluster.wake_at[&id], None, "it was another leadership");
        cluster.step(id, Input::PeerHasLeft { replica: node(1), term: Term(2) });
    }
    cluster.run(Duration::from_secs(2));
    let roles: Vec<_> = cluster.roles().into_iter().filter(|(id, _)| *id != 1).collect();
    assert!(matches!(roles[..], [(2 | 3, Role::Leader)]), "{roles:?}");
}

/// A follower that begins anew within the life of its node knows no leader.
#[test]
fn a_follower_that_has_left_is_sent_heartbeats_again() {
    let mut cluster = Cluster::resting();
    cluster.step(1, Input::PeerHasLeft { replica: node(2), term: Term(2) });
    let heartbeat = |m: &&Message| m.to == node(2) && matches!(m.body, Body::Append { .. });
    assert_eq!(cluster.sent.iter().filter(heartbeat).count(), 1);
}

#[test]
fn an_answer_to_an_older_request_to_rest_is_not_believed() {
    let mut cluster = Cluster::resting();
    // A read ends the rest of both, and the answer to the request before it comes late.
    cluster.step(1, Input::Read { ticket: 1 });
    let last_log_id = cluster.engines[&1].last_log_id();
    let (from, to, term) = (node(3), node(1), Term(2));
    let body = Body::Rests { last_log_id };
    let late = Message { group: 0, cluster: Some(ClusterId(7)), from, to, term, body };
    assert_eq!(cluster.engines[&1].hard_state().term, term);
    cluster.step(1, Input::Message(late));
    cluster.sent.clear();
    cluster.run(Duration::from_millis(300));
    assert!(cluster.sent.iter().any(|message| message.to == node(3)), "it is not left alone");
}

#[test]
fn a_leader_that_hears_no_quorum_of_nodes_steps_down() {
    let mut cluster = Cluster::resting();
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    cluster.silent(1, 2);
    assert_eq!(cluster.engines[&1].role(), Role::Leader, "node 3 is alive");
    cluster.run(Duration::from_secs(60));
    assert_eq!(cluster.engines[&1].role(), Role::Leader);
    cluster.silent(1, 3);
    assert_eq!(cluster.engines[&1].role(), Role::Follower);
}

/// Nothing is sent to a node that is silent, until it is back; then it gets what it lacks.
#[test]
fn a_silent_node_costs_nothing_and_is_not_forgotten() {
    let mut cluster = Cluster::resting();
    cluster.cut = vec![(1, 3), (3, 1), (2, 3), (3, 2)];
    cluster.silent(1, 3);
    cluster.silent(2, 3);
    cluster.run(Duration::from_secs(5));
    cluster.write(1);
    cluster.run(Duration::from_secs(2));
    cluster.sent.clear();
    cluster.run(HOUR);
    let asks = |m: &Message| matches!(m.body, Body::Who { .. });
    assert!(cluster.sent.iter().all(asks), "but for the question for a new disk");
    cluster.cut.clear();
    cluster.alive(1, 3);
    cluster.alive(3, 1);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.engines[&3].committed(), 11);
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
}

impl Cluster {
    fn configure(&mut self, id: u64, change: impl FnOnce(&mut Config)) {
        let mut config = Config::clone(self.engines[&id].config());
        change(&mut config);
        let now = self.now;
        self.engine(id).configure(now, config.into());
        self.step(id, Input::Wake);
    }
}

/// Followers that rest count on the leader's node, and must not count on it any more.
#[test]
fn a_leader_that_is_not_to_send_heartbeats_ends_the_rest() {
    let mut cluster = Cluster::resting();
    cluster.configure(1, |config| config.heartbeats = false);
    let heartbeat = |m: &&Message| matches!(m.body, Body::Append { .. });
    assert_eq!(cluster.sent.iter().filter(heartbeat).count(), 2);
    cluster.sent.clear();
    cluster.run(Duration::from_millis(900));
    assert!(cluster.sent.is_empty(), "these were the last ones: {:?}", cluster.sent);
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
    cluster.run(Duration::from_secs(3));
    assert!(matches!(cluster.roles()[..], [(2 | 3, Role::Leader)]), "another leads");
}

/// The timers of a group at rest do not begin because its settings change.
#[test]
fn a_group_that_rests_goes_on_resting_with_other_timeouts() {
    let mut cluster = Cluster::resting();
    for id in IDS {
        cluster.configure(id, |config| config.election_timeout = Duration::from_millis(300));
    }
    cluster.sent.clear();
    cluster.run(HOUR);
    assert_eq!(cluster.roles(), [(1, Role::Leader)]);
    assert_eq!(cluster.engines[&1].hard_state().term, Term(2));
    assert!(cluster.sent.is_empty(), "{:?}", cluster.sent);
}

#[test]
fn a_follower_that_rests_and_is_not_to_campaign_leaves_a_dead_leader() {
    let mut cluster = Cluster::resting();
    cluster.configure(2, |config| config.elections = false);
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1), (2, 3), (3, 2)];
    cluster.silent(2, 1);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.engines[&2].role(), Role::Follower);
    assert_eq!(cluster.engines[&2].leader(), None);
    assert_eq!(cluster.wake_at[&2], None, "it has nothing to wait for");
}

/// A follower that missed a heartbeat and does not ask for pre-votes is noticed as well.
#[test]
fn a_follower_that_campaigns_without_pre_votes_is_sent_heartbeats_again() {
    let mut cluster = Cluster::resting();
    cluster.configure(2, |config| config.pre_vote = false);
    // It rests no more, and the leader does not know.
    let (from, to, term) = (node(1), node(2), Term(2));
    let prev = cluster.engines[&1].last_log_id();
    let body =
        Body::Append { prev, committed: 0, round: 0, durable: 0, entries: Entries::default() };
    let late = Message { group: 0, cluster: Some(ClusterId(7)), from, to, term, body };
    cluster.step(2, Input::Message(late));
    cluster.run(Duration::from_secs(5));
    let led: Vec<_> = IDS.iter().map(|id| cluster.engines[id].leader()).collect();
    assert!(led[0].is_some() && led.iter().all(|leader| *leader == led[0]), "{led:?}");
}

/// A peer that does not rest, or was just to be asked, must not rest afterwards.
#[test]
fn a_peer_that_was_to_rest_is_not_asked_to_without_heartbeats() {
    let mut cluster = Cluster::resting();
    // One that is left out keeps the heartbeats going.
    cluster.cut = vec![(1, 3), (3, 1)];
    cluster.write(1);
    cluster.cut.clear();
    cluster.run(Duration::from_millis(250));
    cluster.cut = vec![(1, 3), (3, 1)];
    cluster.configure(1, |config| config.heartbeats = false);
    cluster.run(Duration::from_secs(5));
    assert_ne!(cluster.roles(), [(1, Role::Leader)], "nobody counts on its node");
}

/// A shorter election timeout does not make a dead peer look alive.
#[test]
fn a_peer_that_was_silent_for_long_stays_so_with_a_shorter_timeout() {
    let mut cluster = Cluster::new();
    cluster.run(Duration::from_secs(1));
    cluster.cut = vec![(1, 3), (3, 1)];
    cluster.run(Duration::from_secs(5));
    let contact = |cluster: &Cluster| {
        let mut peers = cluster.engines[&1].peers();
        peers.find(|(peer, _)| *peer == node(3)).and_then(|(_, peer)| peer.last_contact)
    };
    let before = contact(&cluster).expect("it was heard");
    cluster.configure(1, |config| config.election_timeout = Duration::from_millis(400));
    assert_eq!(contact(&cluster), Some(before));
    assert!(before > Duration::from_secs(4), "{before:?}");
    assert_eq!(cluster.engines[&1].role(), Role::Leader);
}

/// The nodes of both peers fall silent while the leader has heard from the group itself a little
/// later: it must not go to rest on that.
#[test]
fn a_leader_whose_peers_have_fallen_silent_steps_down_in_time() {
    let mut cluster = Cluster::resting();
    cluster.write(1);
    cluster.run(Duration::from_millis(350));
    cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
    cluster.run(Duration::from_millis(550));
    cluster.silent(1, 2);
    cluster.silent(1, 3);
    assert_eq!(cluster.engines[&1].role(), Role::Leader, "it has heard them since");
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.engines[&1].role(), Role::Follower);
}

/// … also if its own disk is late, so that it comes to rest between the deadline and the heartbeat
/// at which it would have seen that.
#[test]
fn a_leader_that_comes_to_rest_after_the_deadline_steps_down_in_time() {
    for millis in (900..1_200).step_by(10) {
        let mut cluster = Cluster::resting();
        cluster.run(Duration::from_millis(350));
        cluster.late = Some((1, Vec::new()));
        cluster.write(1);
        assert_eq!(cluster.engines[&1].committed(), cluster.engines[&1].last_log_id().index);
        cluster.cut = vec![(1, 2), (1, 3), (2, 1), (3, 1)];
        cluster.run(Duration::from_millis(millis) - Duration::from_millis(5));
        cluster.silent(1, 2);
        cluster.silent(1, 3);
        cluster.now += Duration::from_millis(5);
        let (_, writes) = cluster.late.take().expect("its disk was late");
        writes.into_iter().for_each(|write| cluster.step(1, Input::Persisted { write }));
        cluster.run(Duration::from_secs(1));
        assert_ne!(cluster.engines[&1].role(), Role::Leader, "written after {millis} ms");
    }
}
