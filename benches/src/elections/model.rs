//! A small model of elections, with three rules for candidates that collide. It has terms, votes,
//! the ends of logs and heartbeats, but neither disks nor entries: a vote is durable at once, and a
//! leader's first entry is committed when a majority has answered it. A leader never steps down
//! because nobody answers it.

use std::marker::PhantomData;

use super::simulation::{HEARTBEAT, Member, TIMEOUT, Time};

/// What becomes of candidates that collide.
pub(super) trait Rule {
    /// A candidate first asks whether it would be elected.
    const ASKS: bool = true;
    /// A pre-candidate yields to a better one, and requests that are not answered are repeated.
    const YIELDS: bool = false;
    /// A voter goes over to the candidate of its term that has the greater id, as long as it knows
    /// no leader.
    const GOES_OVER: bool = false;
    /// Election timeouts are drawn from `TIMEOUT` to so much more.
    const SPREAD: Time = TIMEOUT;
}

/// Pre-candidates grant each other's requests, and all campaign.
pub(super) struct Unordered;

impl Rule for Unordered {}

/// That of openraft.
pub(super) struct GoingOver;

impl Rule for GoingOver {
    const ASKS: bool = false;
    const GOES_OVER: bool = true;
}

/// That of the engine: see `core/src/engine/candidate.rs`.
pub(super) struct Yielding;

impl Rule for Yielding {
    const YIELDS: bool = true;
    const SPREAD: Time = TIMEOUT / 10;
}

/// The last entry of a log: its term and its index.
type Last = (u64, u64);

/// Whoever asks for pre-votes, as it is compared: the term, the end of the log, and the id.
type Contender = (u64, Last, usize);

pub(super) struct Model<R> {
    me: usize,
    members: usize,
    random: fastrand::Rng,
    term: u64,
    voted_for: Option<usize>,
    last: Last,
    role: Role,
    /// When it campaigns.
    election_at: Time,
    messages: Vec<(usize, Message)>,
    rule: PhantomData<R>,
}

enum Role {
    Follower {
        /// The leader, and when it was heard.
        leader: Option<(usize, Time)>,
        /// It was a pre-candidate and has yielded: the best of those that it prefers since.
        yielded_to: Option<Contender>,
    },
    Candidate {
        pre: bool,
        /// It would yield to a better one.
        yields: bool,
        /// By member: what it has answered.
        votes: Vec<Option<bool>>,
        /// When its requests are repeated, and until when that is done.
        repeat_at: Time,
        repeats_until: Time,
    },
    Leader {
        /// By member: whether it has the leader's first entry.
        has: Vec<bool>,
        heartbeat_at: Time,
    },
}

#[derive(Clone, Copy)]
pub(super) struct Message {
    term: u64,
    body: Body,
}

#[derive(Clone, Copy)]
enum Body {
    PreVote {
        last: Last,
    },
    PreVoteReply {
        granted: bool,
    },
    Vote {
        last: Last,
    },
    /// With whom the voter has voted for.
    VoteReply {
        granted: bool,
        voted_for: Option<usize>,
    },
    Append {
        last: Last,
    },
    AppendReply {
        last: Option<Last>,
        voted_for: Option<usize>,
    },
}

fn is_majority(of: usize, count: usize) -> bool {
    2 * count > of
}

impl<R: Rule> Model<R> {
    fn send(&mut self, to: usize, term: u64, body: Body) {
        self.messages.push((to, Message { term, body }));
    }

    fn send_others(&mut self, term: u64, body: Body) {
        (0..self.members).filter(|to| *to != self.me).for_each(|to| {
            self.messages.push((to, Message { term, body }));
        });
    }

    fn draw(&mut self, now: Time) -> Time {
        now + TIMEOUT + self.random.u64(..=R::SPREAD)
    }

    fn has_live_leader(&self, now: Time) -> bool {
        match self.role {
            Role::Follower { leader: Some((_, heard)), .. } => now < heard + TIMEOUT,
            Role::Follower { .. } | Role::Candidate { .. } => false,
            Role::Leader { .. } => true,
        }
    }

    fn follow(&mut self, now: Time, term: u64) {
        if term > self.term {
            self.term = term;
            self.voted_for = None;
        }
        if let Role::Follower { leader, .. } = &mut self.role {
            *leader = None;
        } else {
            self.role = Role::Follower { leader: None, yielded_to: None };
            self.election_at = self.draw(now);
        }
    }

    fn ask(&mut self, now: Time) {
        let yields = !matches!(self.role, Role::Follower { yielded_to: Some(_), .. });
        self.candidate(now, true, R::YIELDS && yields);
    }

    fn campaign(&mut self, now: Time) {
        self.term += 1;
        self.voted_for = Some(self.me);
        self.candidate(now, false, false);
    }

    fn candidate(&mut self, now: Time, pre: bool, yields: bool) {
        let mut votes = vec![None; self.members];
        votes[self.me] = Some(true);
        let repeat_at = if R::YIELDS { now + HEARTBEAT } else { Time::MAX };
        let repeats_until = now + TIMEOUT * 2 / 3;
        self.role = Role::Candidate { pre, yields, votes, repeat_at, repeats_until };
        self.election_at = self.draw(now);
        let (term, body) = self.request(pre);
        self.send_others(term, body);
    }

    fn request(&self, pre: bool) -> (u64, Body) {
        let last = self.last;
        match pre {
            true => (self.term + 1, Body::PreVote { last }),
            false => (self.term, Body::Vote { last }),
        }
    }

    fn repeat(&mut self, now: Time) {
        let Role::Candidate { pre, votes, repeat_at, repeats_until, .. } = &mut self.role else {
            return;
        };
        let next = now + HEARTBEAT;
        *repeat_at = if next <= *repeats_until { next } else { Time::MAX };
        let silent: Vec<_> = (0..votes.len()).filter(|voter| votes[*voter].is_none()).collect();
        let pre = *pre;
        let (term, body) = self.request(pre);
        silent.into_iter().for_each(|voter| self.send(voter, term, body));
    }

    fn count(&mut self, now: Time, from: usize, is_pre: bool, granted: bool) {
        let Role::Candidate { pre, votes, .. } = &mut self.role else { return };
        if *pre != is_pre {
            return;
        }
        votes[from] = Some(granted);
        let count = votes.iter().filter(|vote| **vote == Some(true)).count();
        if !is_majority(self.members, count) {
            return;
        }
        if is_pre {
            self.campaign(now);
            return;
        }
        self.last = (self.term, self.last.1 + 1);
        let mut has = vec![false; self.members];
        has[self.me] = true;
        self.role = Role::Leader { has, heartbeat_at: now + HEARTBEAT };
        self.election_at = Time::MAX;
        self.send_others(self.term, Body::Append { last: self.last });
    }

    fn on_pre_vote(&mut self, now: Time, from: usize, term: u64, last: Last) {
        let mut granted = term > self.term && last >= self.last && !self.has_live_leader(now);
        let theirs = (term, last, from);
        match &mut self.role {
            Role::Candidate { pre: true, yields: true, votes, repeat_at, .. } if granted => {
                let has_failed = votes[from] == Some(false) || *repeat_at == Time::MAX;
                granted = has_failed || theirs > (self.term + 1, self.last, self.me);
                if granted {
                    self.role = Role::Follower { leader: None, yielded_to: Some(theirs) };
                }
            }
            Role::Follower { yielded_to: Some(best), .. } if granted => {
                granted = theirs >= *best;
                *best = theirs.max(*best);
            }
            Role::Follower { .. } | Role::Candidate { .. } | Role::Leader { .. } => {}
        }
        let term = if granted { term } else { self.term };
        self.send(from, term, Body::PreVoteReply { granted });
    }

    fn on_vote(&mut self, now: Time, from: usize, last: Last) {
        let free = match self.voted_for {
            Some(other) if R::GOES_OVER && !self.has_live_leader(now) => from >= other,
            Some(other) => other == from,
            None => matches!(self.role, Role::Follower { leader: None, .. }),
        };
        let granted = free && last >= self.last;
        if granted {
            self.voted_for = Some(from);
            self.election_at = self.draw(now);
            self.role = Role::Follower { leader: None, yielded_to: None };
        }
        let voted_for = self.voted_for;
        self.send(from, self.term, Body::VoteReply { granted, voted_for });
    }

    fn on_append(&mut self, now: Time, from: usize, last: Last) {
        // With openraft's rule a leader's word counts only where nobody has gone over to another.
        if R::GOES_OVER && self.voted_for > Some(from) {
            let voted_for = self.voted_for;
            self.send(from, self.term, Body::AppendReply { last: None, voted_for });
            return;
        }
        if R::GOES_OVER {
            self.voted_for = Some(from);
        }
        self.role = Role::Follower { leader: Some((from, now)), yielded_to: None };
        self.election_at = self.draw(now);
        self.last = last;
        self.send(from, self.term, Body::AppendReply { last: Some(last), voted_for: None });
    }
}

impl<R: Rule> Member for Model<R> {
    type Message = Message;

    fn new(me: usize, members: usize, seed: u64) -> Self {
        let mut model = Self {
            me,
            members,
            random: fastrand::Rng::with_seed(seed),
            term: 0,
            voted_for: None,
            last: (0, 1),
            role: Role::Follower { leader: None, yielded_to: None },
            election_at: 0,
            messages: Vec::new(),
            rule: PhantomData,
        };
        model.election_at = model.draw(0);
        model
    }

    fn on_message(&mut self, now: Time, from: usize, Message { term, body }: Message) {
        if term > self.term {
            match body {
                Body::PreVote { .. } | Body::PreVoteReply { granted: true } => {}
                Body::Vote { .. } if self.has_live_leader(now) => return,
                _ => self.follow(now, term),
            }
        } else if term < self.term {
            match body {
                Body::PreVote { .. } => {
                    self.send(from, self.term, Body::PreVoteReply { granted: false });
                }
                Body::Vote { .. } => {
                    let voted_for = self.voted_for;
                    self.send(from, self.term, Body::VoteReply { granted: false, voted_for });
                }
                Body::Append { .. } => {
                    let voted_for = self.voted_for;
                    self.send(from, self.term, Body::AppendReply { last: None, voted_for });
                }
                _ => {}
            }
            return;
        }
        match body {
            Body::PreVote { last } => self.on_pre_vote(now, from, term, last),
            Body::PreVoteReply { granted } => self.count(now, from, true, granted),
            Body::Vote { last } => self.on_vote(now, from, last),
            Body::VoteReply { voted_for, .. } | Body::AppendReply { last: None, voted_for }
                if R::GOES_OVER && voted_for > self.voted_for =>
            {
                self.voted_for = voted_for;
                self.role = Role::Follower { leader: None, yielded_to: None };
                self.election_at = self.draw(now);
            }
            Body::VoteReply { granted, .. } => self.count(now, from, false, granted),
            Body::Append { last } => self.on_append(now, from, last),
            Body::AppendReply { last, .. } => {
                if let Role::Leader { has, .. } = &mut self.role {
                    has[from] |= last == Some(self.last);
                }
            }
        }
    }

    fn on_time(&mut self, now: Time) {
        if now >= self.election_at {
            if R::ASKS { self.ask(now) } else { self.campaign(now) }
        } else if let Role::Candidate { repeat_at, .. } = self.role
            && now >= repeat_at
        {
            self.repeat(now);
        }
        if let Role::Leader { heartbeat_at, .. } = &mut self.role
            && now >= *heartbeat_at
        {
            *heartbeat_at = now + HEARTBEAT;
            self.send_others(self.term, Body::Append { last: self.last });
        }
    }

    fn take_messages(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.messages)
    }

    fn wake_at(&self) -> Time {
        match &self.role {
            Role::Follower { .. } => self.election_at,
            Role::Candidate { repeat_at, .. } => self.election_at.min(*repeat_at),
            Role::Leader { heartbeat_at, .. } => *heartbeat_at,
        }
    }

    fn term(&self) -> u64 {
        self.term
    }

    fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    fn has_committed(&self) -> bool {
        matches!(&self.role, Role::Leader { has, .. }
            if is_majority(self.members, has.iter().filter(|has| **has).count()))
    }
}
