//! Why a node can't take part, for as long as it can't: what hinders each of the others that it
//! needs, while its group is being formed and while it knows no leader.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use quorate_rt::{Instant, Limited};

use crate::config::Config;
use crate::engine::Engine;
use crate::identity::{Replica, Standing};
use crate::metrics::{Obstacle, UnfitTiming};
use crate::quorum::VoteResult;
use crate::transport::Transport;
use crate::types::{GroupId, NodeId};

/// Without a leader for so many election timeouts, something is wrong: an election takes little
/// more than one of them, and some more where many messages are lost.
const LEADERLESS_TIMEOUTS: u32 = 5;

/// The time from one line of the log to the next.
const PAUSE: Duration = Duration::from_secs(3);

/// … to the next one that the settings don't fit the network. That doesn't change by itself.
const UNFIT_PAUSE: Duration = Duration::from_secs(30);

/// What a node waits for.
pub(super) struct Waits {
    waiting: Option<Waiting>,
    /// Of a follower.
    way: Option<Way>,
    obstacles: BTreeMap<NodeId, Obstacle>,
    unfit_lines: Limited,
}

impl Default for Waits {
    fn default() -> Self {
        let unfit_lines = Limited::new(1, UNFIT_PAUSE);
        Self { waiting: None, way: None, obstacles: BTreeMap::new(), unfit_lines }
    }
}

/// The way to a leader that is heard.
struct Way {
    look_at: Instant,
    /// It was barred at the last look: not only for the moment of a reconnection.
    was_barred: bool,
}

struct Waiting {
    /// For a group to be formed, and not for a leader.
    forms: bool,
    since: Instant,
    look_at: Instant,
    tell_at: Instant,
}

impl Waits {
    /// Why each of the others is waited for; none while the node waits for nobody.
    pub(super) fn obstacles(&self) -> &BTreeMap<NodeId, Obstacle> {
        &self.obstacles
    }

    /// After [`look`](Self::look), a time to come: turns would have no end by a timer in the past.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.tell_at.max(waiting.look_at))
    }

    /// Looks for whom the node waits, at most once in a heartbeat interval, and says it every few
    /// seconds.
    pub(super) fn look(
        &mut self,
        now: Instant,
        group: GroupId,
        config: &Config,
        engine: &Engine,
        transport: &impl Transport,
    ) {
        let forms = engine.obstacles().is_some();
        let replica = engine.replica();
        if engine.leader().is_none() {
            self.tell_unfit_timing(now, group, config, engine);
        }
        // Nobody has anything to say to one that was removed. (If it doesn't know the configuration
        // that has removed it, the others tell why: another disk of the node may have its place.)
        let is_outside = || engine.membership().is_some_and(|of| !of.is_member(replica));
        let is_removed = || *engine.standing() == Standing::Spent && is_outside();
        let is_none = || engine.membership().is_none();
        if !forms && (engine.leader().is_some() || is_none() || is_removed()) {
            if self.waiting.take().is_some() {
                self.obstacles.clear();
            }
            match engine.leader().filter(|leader| *leader != replica) {
                Some(leader) => self.look_at_leader(now, group, replica, leader, transport),
                None if self.way.take().is_some() => self.obstacles.clear(),
                None => {}
            }
            return;
        }
        self.way = None;
        let patience = config.election_timeout * LEADERLESS_TIMEOUTS;
        let (look_at, tell_at) = match forms {
            true => (now, now + PAUSE),
            // Requests that have waited for a leader in vain are told why there is none.
            false => (now + patience.min(config.request_timeout), now + patience),
        };
        if self.waiting.as_ref().is_none_or(|waiting| waiting.forms != forms) {
            self.obstacles.clear();
            self.waiting = Some(Waiting { forms, since: now, look_at, tell_at });
        }
        let Some(waiting) = &mut self.waiting else { return };
        if now < waiting.look_at {
            return;
        }
        waiting.look_at = now + config.heartbeat_interval;
        let is_due = now >= waiting.tell_at;
        if is_due {
            waiting.tell_at = now + PAUSE;
        }
        let since = waiting.since;
        if forms {
            self.obstacles = while_forming(engine, transport);
            if is_due {
                for (node, obstacle) in &self.obstacles {
                    tracing::info!(
                        %replica, group, "waits for node {node}: {obstacle}"
                    );
                }
                if let Some(sentence) = members_are_missing(&self.obstacles) {
                    tracing::warn!(%replica, group, "{sentence}");
                }
            }
        } else {
            let of_replicas = without_leader(engine, transport);
            self.obstacles = by_node(engine, &of_replicas);
            if is_due {
                let sentence = leader_is_missing(engine, &of_replicas, now - since);
                tracing::warn!(%replica, group, "{sentence}");
            }
        }
    }

    /// Where the round trip is too long for the settings, leaders are elected and step down, so
    /// that the node is never without one for long: this is told at once.
    fn tell_unfit_timing(&self, now: Instant, group: GroupId, config: &Config, engine: &Engine) {
        let unfit = engine.round_trip().and_then(|time| UnfitTiming::of(time, config));
        if let Some(unfit) = unfit
            && let Some(suppressed) = self.unfit_lines.pass(now)
        {
            let replica = engine.replica();
            tracing::warn!(%replica, group, suppressed, "no leader can last: {unfit}");
        }
    }

    /// A follower that hears its leader and can't answer it counts for nothing. Nothing else would
    /// tell, as the leader keeps it from campaigning.
    fn look_at_leader(
        &mut self,
        now: Instant,
        group: GroupId,
        replica: Replica,
        leader: Replica,
        transport: &impl Transport,
    ) {
        let first = Way { look_at: now + PAUSE, was_barred: false };
        let way = self.way.get_or_insert(first);
        if now < way.look_at {
            return;
        }
        way.look_at = now + PAUSE;
        let obstacle = transport.obstacle(leader);
        let is_barred = matches!(
            obstacle,
            Obstacle::Unreachable { .. } | Obstacle::Refuses { .. } | Obstacle::OtherStore { .. }
        );
        let was_barred = mem::replace(&mut way.was_barred, is_barred);
        self.obstacles.clear();
        if is_barred && was_barred {
            let id = leader.id;
            tracing::warn!(%replica, group, "node {id} leads, and can't be answered: {obstacle}");
            self.obstacles.insert(id, obstacle);
        }
    }
}

fn while_forming(engine: &Engine, transport: &impl Transport) -> BTreeMap<NodeId, Obstacle> {
    let known = |(id, said): (&NodeId, &Obstacle)| {
        let of_link = || transport.obstacle(Replica::any(*id));
        let obstacle = match said {
            Obstacle::Silent => of_link(),
            // It has answered, and may be gone again.
            Obstacle::Forming => match of_link() {
                Obstacle::Silent | Obstacle::Unheard { .. } => said.clone(),
                trouble => trouble,
            },
            said => said.clone(),
        };
        (*id, obstacle)
    };
    engine.obstacles().into_iter().flatten().map(known).collect()
}

/// What hinders each other voter. One that grants its vote is not among them.
fn without_leader(engine: &Engine, transport: &impl Transport) -> BTreeMap<Replica, Obstacle> {
    let Some(membership) = engine.membership() else { return BTreeMap::new() };
    // Where this node's lost disk is named, too, nobody else is.
    let others = membership.voters().iter().filter(|voter| voter.id != engine.replica().id);
    let hindered = others.filter_map(|voter| {
        let obstacle = match (transport.obstacle(voter), engine.answer_of(voter)) {
            (Obstacle::Silent | Obstacle::Unheard { .. }, Some(true)) => return None,
            (Obstacle::Silent | Obstacle::Unheard { .. }, Some(false)) => Obstacle::NoVote,
            // Who asks nobody hears nobody.
            (Obstacle::Unheard { .. }, None) if !engine.config().elections => return None,
            (obstacle, _) => obstacle,
        };
        Some((voter, obstacle))
    });
    hindered.collect()
}

/// While a disk is exchanged, a node votes twice: then that of its new one.
fn by_node(
    engine: &Engine,
    of_replicas: &BTreeMap<Replica, Obstacle>,
) -> BTreeMap<NodeId, Obstacle> {
    let incoming = |replica: &Replica| {
        engine.membership().is_some_and(|m| m.voters().incoming().contains(replica))
    };
    let mut of_nodes = BTreeMap::new();
    for (replica, obstacle) in of_replicas {
        if incoming(replica) || !of_nodes.contains_key(&replica.id) {
            of_nodes.insert(replica.id, obstacle.clone());
        }
    }
    of_nodes
}

fn leader_is_missing(
    engine: &Engine,
    of_replicas: &BTreeMap<Replica, Obstacle>,
    silence: Duration,
) -> String {
    // Often all have the same.
    let mut reasons: Vec<(String, &Obstacle)> = Vec::new();
    for (replica, obstacle) in of_replicas {
        let id = replica.id;
        match reasons.iter_mut().find(|(_, other)| *other == obstacle) {
            Some((nodes, _)) => nodes.push_str(&format!(", node {id}")),
            None => reasons.push((format!("node {id}"), obstacle)),
        }
    }
    let obstacles: String =
        reasons.iter().map(|(nodes, obstacle)| format!("; {nodes}: {obstacle}")).collect();
    let has_its_disk = |voter: Replica| match of_replicas.get(&voter) {
        Some(Obstacle::OtherStore { is_empty: true, .. }) => Some(false),
        _ => None,
    };
    let is_lost = engine
        .membership()
        .is_some_and(|m| m.voters().vote_result(has_its_disk) == VoteResult::Lost);
    let lost = match is_lost {
        true => {
            "; a majority of the disks of this cluster is lost, so nobody is elected. Keep this node's folder, \
             and bring back the last folder of one of the others. If nobody needs the data, empty all folders, and \
             the cluster is formed anew"
        }
        false => "",
    };
    let passive = match engine.config().elections {
        true => "",
        false => {
            ", and this node campaigns only when it is told to: elections are switched off on it"
        }
    };
    format!("no leader for {} s{passive}{obstacles}{lost}", silence.as_secs())
}

/// What an empty store says that meets members, but less than a majority of them: they can't elect
/// who would let it in.
fn members_are_missing(obstacles: &BTreeMap<NodeId, Obstacle>) -> Option<String> {
    let members = obstacles.values().filter(|obstacle| **obstacle == Obstacle::Formed).count();
    let nodes = obstacles.len() + 1;
    let majority = nodes / 2 + 1;
    (1..majority).contains(&members).then(|| {
        format!(
            "this node's disk is empty. Of the {nodes} nodes of its cluster it hears {members} with a disk of it, and \
             {majority} must reach each other to elect the leader that lets this node in. If their disks are lost, \
             bring back the last folder of one of them; or, if nobody needs the data, empty all folders"
        )
    })
}

#[cfg(test)]
mod tests;
