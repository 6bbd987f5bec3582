//! A cluster on virtual time: messages take a random time or are lost, timers go off when they are
//! due, and everything is decided by a seed.

use std::collections::BTreeMap;

/// Nanoseconds since the beginning of a run.
pub(super) type Time = u64;

pub(super) const MILLISECOND: Time = 1_000_000;

/// The election timeout and the heartbeat interval of all members: the defaults.
pub(super) const TIMEOUT: Time = 1000 * MILLISECOND;
pub(super) const HEARTBEAT: Time = 100 * MILLISECOND;

/// A run that has no leader by then is given up.
const PATIENCE: Time = 120 * TIMEOUT;

/// One node of a cluster: the engine, or a model of it. Nodes are numbered from 0.
pub(super) trait Member: Sized {
    type Message;

    /// A member of a cluster of so many whose logs are equal, and that has no leader.
    fn new(me: usize, members: usize, seed: u64) -> Self;

    /// A message has come.
    fn on_message(&mut self, now: Time, from: usize, message: Self::Message);

    /// Its timer may be due.
    fn on_time(&mut self, now: Time);

    /// What it sends, and to whom.
    fn take_messages(&mut self) -> Vec<(usize, Self::Message)>;

    /// When its timer is due; `Time::MAX` if there is none.
    fn wake_at(&self) -> Time;

    fn term(&self) -> u64;

    fn leads(&self) -> bool;

    /// Whether it leads and has committed an entry of its term.
    fn has_committed(&self) -> bool;
}

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    pub(super) event: Event,
    pub(super) timers: Timers,
    /// The percentage of the messages that are lost.
    pub(super) loss: u32,
    pub(super) members: usize,
    /// The mean delay of a message. Each takes from half of it to one and a half.
    pub(super) delay: Time,
}

/// What makes an election necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// All members start at once.
    ColdStart,
    /// The leader dies.
    LeaderDies,
}

/// When the members notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timers {
    /// When their timers are due.
    Natural,
    /// All at the same moment, when the last timer is due. Later timers are as they are.
    Equal,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many terms have begun until a leader committed an entry.
    pub(super) terms: u64,
    /// The time until that commit: from the start or the death, or with equal timers from the
    /// moment at which all wake.
    pub(super) time: Time,
    /// Whether two members have led in the same term.
    pub(super) two_leaders: bool,
}

struct Simulation<M: Member> {
    setting: Setting,
    random: fastrand::Rng,
    now: Time,
    /// Those that have died are missing.
    members: Vec<Option<M>>,
    /// By the time of arrival, and then by number: from, to, what.
    flying: BTreeMap<(Time, u64), (usize, usize, M::Message)>,
    sent: u64,
    /// Timers are not looked at.
    held: bool,
    leaders: BTreeMap<u64, usize>,
    two_leaders: bool,
}

pub(super) fn run<M: Member>(setting: Setting, seed: u64) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let new = |me| Some(M::new(me, setting.members, random.u64(..)));
    let members = (0..setting.members).map(new).collect();
    let mut simulation = Simulation {
        setting,
        random,
        now: 0,
        members,
        flying: BTreeMap::new(),
        sent: 0,
        held: false,
        leaders: BTreeMap::new(),
        two_leaders: false,
    };
    simulation.outcome()
}

impl<M: Member> Simulation<M> {
    fn outcome(&mut self) -> Outcome {
        if self.setting.event == Event::LeaderDies {
            self.run_until(PATIENCE, |member| member.has_committed());
            // It leads for a while, and dies at any point of a heartbeat interval.
            let rest = self.random.u64(TIMEOUT / 2..TIMEOUT);
            self.run_until(self.now + rest, |_| false);
            let leads = |member: &Option<M>| member.as_ref().is_some_and(M::has_committed);
            if let Some(leader) = self.members.iter().position(leads) {
                self.members[leader] = None;
            }
        }
        let mut begun = self.now;
        let before = self.term();
        if self.setting.timers == Timers::Equal {
            self.held = true;
            self.run_until(begun + 3 * TIMEOUT, |_| false);
            self.held = false;
            begun = self.now;
            (0..self.members.len()).for_each(|me| self.wake(me));
        }
        self.run_until(begun + PATIENCE, |member| member.has_committed());
        let terms = self.term() - before;
        Outcome { terms, time: self.now - begun, two_leaders: self.two_leaders }
    }

    fn term(&self) -> u64 {
        self.members.iter().flatten().map(M::term).max().unwrap_or_default()
    }

    /// Lets things happen until the end, or until `is_over` is true of a member.
    fn run_until(&mut self, end: Time, is_over: impl Fn(&M) -> bool) {
        while !self.members.iter().flatten().any(&is_over) {
            let wakes = self.members.iter().enumerate().filter_map(|(me, member)| {
                member.as_ref().filter(|_| !self.held).map(|member| (member.wake_at(), me))
            });
            let wake = wakes.min().unwrap_or((Time::MAX, 0));
            let arrives = self.flying.first_key_value().map_or(Time::MAX, |((at, _), _)| *at);
            if arrives.min(wake.0) > end {
                self.now = end;
                return;
            }
            if arrives <= wake.0 {
                let Some(((at, _), (from, to, message))) = self.flying.pop_first() else { return };
                self.now = at;
                if let Some(member) = &mut self.members[to] {
                    member.on_message(at, from, message);
                    self.turn(to);
                }
            } else {
                self.now = wake.0.max(self.now);
                self.wake(wake.1);
            }
        }
    }

    fn wake(&mut self, me: usize) {
        if let Some(member) = &mut self.members[me] {
            member.on_time(self.now);
            self.turn(me);
        }
    }

    /// Sends what a member has to send, and looks whether it leads.
    fn turn(&mut self, me: usize) {
        let Some(member) = &mut self.members[me] else { return };
        if member.leads() {
            let leader = *self.leaders.entry(member.term()).or_insert(me);
            self.two_leaders |= leader != me;
        }
        for (to, message) in member.take_messages() {
            let Setting { delay, loss, .. } = self.setting;
            let arrives = self.now + self.random.u64(delay / 2..=delay + delay / 2);
            self.sent += 1;
            if self.random.u32(..100) >= loss {
                self.flying.insert((arrives, self.sent), (me, to, message));
            }
        }
    }
}
