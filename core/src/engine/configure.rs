//! Settings that change while the group runs.
//!
//! Most of them are looked at where they count, and need nothing here. What is set up by them
//! ahead of time is timers: those are brought forward. Who has answered within the times that
//! counted before is given two of the new heartbeat intervals to answer again.

use std::mem;
use std::sync::Arc;

use quorate_rt::Instant;

use super::candidate::Candidate;
use super::follower::Follower;
use super::leader::Leader;
use super::progress::Mode;
use super::transfer::{RETRY_TIMEOUTS, YIELD_TIMEOUTS};
use super::{Common, Engine, State, least_heard};
use crate::config::Config;

impl Engine {
    /// Its settings.
    pub fn config(&self) -> &Arc<Config> {
        &self.common.config
    }

    /// Goes on with these settings, which are [valid](Config::validate).
    pub fn configure(&mut self, now: Instant, config: Arc<Config>) {
        assert!(now >= self.common.now, "time runs backwards");
        let common = &mut self.common;
        common.now = now;
        let before = mem::replace(&mut common.config, config);
        common.forwards.set_timeout(now, common.config.request_timeout);
        common.hasten_marks_within_pause();
        match &mut self.role {
            State::Follower(follower) => follower.configured(common, &before),
            State::Candidate(candidate) => candidate.configured(common),
            State::Leader(leader) => leader.configured(common, &before),
        }
        if let Some(formation) = &mut self.formation {
            formation.ask_at = formation.ask_at.min(now + self.common.config.heartbeat_interval);
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
        match self.last_contact() {
            // As if it had been so when the leader was heard.
            Some(heard) => {
                let Config { heartbeat_interval, election_timeout, .. } = *common.config;
                let least = least_heard(common.now, heartbeat_interval, election_timeout);
                let kept_to = heard + before.election_timeout > common.now;
                let heard = if kept_to { heard.max(least) } else { heard };
                self.election_at = heard + (anew - common.now);
            }
            // Not later: settings that change again and again must not hold an election up.
            None => self.election_at = self.election_at.min(anew),
        }
    }
}

impl Candidate {
    fn configured(&mut self, common: &mut Common) {
        self.election_at = self.election_at.min(common.election_at());
        self.repeat_at = self.repeat_at.min(common.now + common.config.heartbeat_interval);
    }
}

impl Leader {
    fn configured(&mut self, common: &mut Common, before: &Config) {
        let Common { config, now, .. } = common;
        let (now, timeout) = (*now, config.election_timeout);
        self.heartbeat_at = self.heartbeat_at.min(now + config.heartbeat_interval);
        self.yields_at = self.yields_at.min(now + YIELD_TIMEOUTS * timeout);
        self.prefers_at = self.prefers_at.min(now + RETRY_TIMEOUTS * timeout);
        self.stamps.set_step(config.max_clock_step);
        for (_, progress) in self.peers.iter_mut() {
            if let Mode::Snapshot(sending) = &mut progress.mode {
                sending.offer_at = sending.offer_at.min(now + timeout);
            }
            if progress.last_contact(now) + before.election_timeout > now {
                // It has answered as often as it was asked.
                let least = least_heard(now, config.heartbeat_interval, timeout);
                progress.last_contact = progress.last_contact.max(least);
            }
            if !config.heartbeats && before.heartbeats {
                // The last one: who rests counts on the leader's node no more.
                progress.rouse(now);
                (progress.due, progress.may_rest, progress.asked_to_rest) = (true, false, false);
            }
        }
    }
}
