//! Settings that change while the group runs.
//!
//! Most of them are looked at where they count, and need nothing here. What is set up by them
//! ahead of time is timers: those are set anew. A shorter election timeout counts from now on, so
//! that what was heard within the longer one is not held against anybody.

use std::sync::Arc;

use quorate_rt::Instant;

use super::candidate::Candidate;
use super::follower::Follower;
use super::leader::Leader;
use super::{Common, Engine, State};
use crate::config::Config;

impl Engine {
    /// Its settings.
    pub fn config(&self) -> &Arc<Config> {
        &self.common.config
    }

    /// Goes on with these settings, which are [valid](Config::validate).
    pub fn configure(&mut self, now: Instant, config: Arc<Config>) {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        let before = std::mem::replace(&mut self.common.config, config);
        match &mut self.role {
            State::Follower(follower) => follower.configured(&mut self.common, &before),
            State::Candidate(candidate) => candidate.configured(&mut self.common, &before),
            State::Leader(leader) => leader.configured(&mut self.common, &before),
        }
        self.on_time();
    }
}

impl Follower {
    fn configured(&mut self, common: &mut Common, before: &Config) {
        if common.config.election_timeout == before.election_timeout {
            return;
        }
        let anew = common.election_at();
        match self.leader() {
            // It is given as much time from now on as any leader.
            Some(_) => self.election_at = anew,
            // Not later: settings that change again and again must not hold an election up.
            None => self.election_at = self.election_at.min(anew),
        }
    }
}

impl Candidate {
    fn configured(&mut self, common: &mut Common, before: &Config) {
        if common.config.election_timeout != before.election_timeout {
            self.election_at = self.election_at.min(common.election_at());
        }
    }
}

impl Leader {
    fn configured(&mut self, common: &mut Common, before: &Config) {
        let Common { config, now, .. } = common;
        self.heartbeat_at = self.heartbeat_at.min(*now + config.heartbeat_interval);
        self.stamps.set_step(config.max_clock_step);
        if config.election_timeout < before.election_timeout {
            self.peers.iter_mut().for_each(|(_, progress)| progress.last_contact = *now);
        }
        if !config.heartbeats && before.heartbeats {
            // The last ones: whoever rests counts on the leader's node no more.
            for (_, progress) in self.peers.iter_mut() {
                progress.rouse(*now);
                progress.due = true;
            }
        }
    }
}
