//! Quorate's engine as a member of a simulated cluster. What it makes durable is so at once, in a
//! log in memory.

use std::mem;

use quorate::engine::{Engine, Fetch, Input, Local};
use quorate::rt::Instant;
use quorate::{
    Boot, ClusterId, Config, Entry, LogId, LogMeta, LogWrite, Membership, Message, Payload,
    Recovered, Replica, Role, Runs,
};

use super::simulation::{Member, Time};

const CLUSTER: ClusterId = ClusterId(1);

pub(super) struct Quorate {
    engine: Engine,
    entries: Runs,
    /// Memory of the last turn.
    messages: Vec<(usize, Message)>,
    wake_at: Time,
}

fn replica(member: usize) -> Replica {
    Replica::new(member as u64 + 1, 1)
}

impl Quorate {
    fn step(&mut self, now: Time, input: Input) {
        let now = Instant::from_nanos(now);
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            inputs.drain(..).for_each(|input| self.engine.step(now, input));
            let mut output = self.engine.take_output();
            if let Some((write, content)) = output.write.take() {
                Self::write(&mut self.entries, content);
                inputs.push(Input::Persisted { write });
            }
            for Fetch { peer, term, range, .. } in mem::take(&mut output.rare().fetches) {
                let entries = self.entries.read(range, usize::MAX);
                inputs.push(Input::Fetched { peer, term, entries });
            }
            for message in output.messages.drain(..) {
                self.messages.push((message.to.id as usize - 1, message));
            }
            self.wake_at = output.wake_at.map_or(Time::MAX, Instant::as_nanos);
        }
    }

    fn write(entries: &mut Runs, content: LogWrite) {
        if let Some(first) = content.entries.first() {
            entries.keep(0..first.log_id.index);
            entries.push(content.entries);
        }
    }
}

impl Member for Quorate {
    type Message = Message;

    fn new(me: usize, members: usize, seed: u64) -> Self {
        let all = (0..members).map(|member| (replica(member), String::new())).collect();
        let membership = Membership::founding(CLUSTER, all).expect("these form a cluster");
        let payload = Payload::Membership(membership);
        let first = Entry { log_id: LogId::FIRST, time: 0, payload };
        let mut log_meta = LogMeta::default();
        log_meta.push(&first);
        let mut entries = Runs::default();
        entries.push(vec![first].into());
        let recovered = Recovered { log_meta, ..Recovered::default() };
        let boot = Boot { number: 1, tag: 1 };
        let local = Local { replica: replica(me), boot, cluster: Some(CLUSTER) };
        let engine = Engine::new(local, 0, Config::default(), recovered, seed, Instant::default());
        let mut member = Self { engine, entries, messages: Vec::new(), wake_at: Time::MAX };
        member.step(0, Input::Wake);
        member
    }

    fn on_message(&mut self, now: Time, _: usize, message: Message) {
        self.step(now, Input::Message(message));
    }

    fn on_time(&mut self, now: Time) {
        self.step(now, Input::Wake);
    }

    fn take_messages(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.messages)
    }

    fn wake_at(&self) -> Time {
        self.wake_at
    }

    fn term(&self) -> u64 {
        self.engine.hard_state().term.0
    }

    fn leads(&self) -> bool {
        self.engine.role() == Role::Leader
    }

    fn has_committed(&self) -> bool {
        // A leader's log ends with the first entry of its term, as nobody writes.
        self.leads() && self.engine.committed() == self.engine.last_log_id().index
    }
}
