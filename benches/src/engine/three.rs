//! Three of Quorate's engines, whose messages are passed by hand. What they are to persist is so at
//! once, in a log in memory.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use quorate::engine::{Engine, Fetch, Input, Local, Output};
use quorate::rt::Instant;
use quorate::{
    Boot, ClusterId, Config, Entries, Entry, Index, LogId, LogMeta, LogWrite, Membership, Payload,
    Recovered, Replica, Role, Runs,
};

/// When a log holds so many entries that have been applied, all of them are dropped.
const KEPT_ENTRIES: u64 = 1 << 16;

const MEMBERS: [Replica; 3] = [Replica::new(1, 1), Replica::new(2, 1), Replica::new(3, 1)];

const CLUSTER: ClusterId = ClusterId(1);

/// The entry that forms the cluster.
pub(crate) fn first_entry() -> Result<Entry> {
    let members = MEMBERS.map(|replica| (replica, String::new())).into();
    let membership = Membership::founding(CLUSTER, members).map_err(anyhow::Error::msg)?;
    let payload = Payload::Membership(membership);
    Ok(Entry { log_id: LogId::FIRST, time: 0, payload })
}

/// Three engines, the first of which leads.
pub(crate) struct Three {
    members: Vec<Member>,
    /// What the last turn wanted done, and memory for the next.
    output: Option<Box<Output>>,
    now: Instant,
}

struct Member {
    engine: Engine,
    inbox: Vec<Input>,
    log: Log,
    handed_out: usize,
}

/// A log in memory.
#[derive(Default)]
struct Log {
    entries: Runs,
    applied: Index,
}

impl Three {
    /// Engines whose logs hold the first entry of their cluster.
    pub(crate) fn start() -> Result<Self> {
        let mut log_meta = LogMeta::default();
        log_meta.push(&first_entry()?);
        let recovered = Recovered { log_meta, ..Recovered::default() };
        Self::restart([(); 3].map(|()| recovered.clone()))
    }

    /// Engines that find this on their disks, where all is applied; the first is elected. (No peer
    /// is behind, so that what was there before is not read.)
    pub(crate) fn restart(recovered: [Recovered; 3]) -> Result<Self> {
        let mut now = Instant::default();
        let member = |(replica, recovered): (Replica, Recovered)| {
            let log = Log { applied: recovered.log_meta.last().index, ..Log::default() };
            let local = Local { replica, boot: Boot { number: 1, tag: 1 }, cluster: Some(CLUSTER) };
            let engine = Engine::new(local, 0, Config::default(), recovered, replica.id, now);
            Member { engine, inbox: Vec::new(), log, handed_out: 0 }
        };
        let members = MEMBERS.into_iter().zip(recovered).map(member).collect();
        now += 2 * Config::default().election_timeout;
        let mut three = Self { members, output: None, now };
        three.members[0].inbox.push(Input::Wake);
        three.settle()?;
        ensure!(three.members[0].engine.role() == Role::Leader, "the first does not lead");
        three.heartbeat()?;
        Ok(three)
    }

    /// Proposes so many commands, and runs until all is quiet.
    pub(crate) fn round(&mut self, batch: usize, command: &[u8]) -> Result<()> {
        // As a node hands over what its clients have sent until its turn.
        let commands = (0..batch).map(|_| Bytes::copy_from_slice(command));
        let leader = &mut self.members[0].engine;
        leader.lend(&mut self.output);
        leader.propose(self.now, 0, commands);
        self.turn(0)?;
        self.settle()
    }

    /// After it all know of all that is committed.
    pub(crate) fn heartbeat(&mut self) -> Result<()> {
        self.now += Config::default().heartbeat_interval;
        self.members[0].inbox.push(Input::Wake);
        self.settle()
    }

    /// How many commands each has handed out to be applied.
    pub(crate) fn handed_out(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.handed_out).collect()
    }

    /// Each has its turn, until there is nothing left for any of them.
    fn settle(&mut self) -> Result<()> {
        while self.members.iter().any(|member| !member.inbox.is_empty()) {
            for place in 0..self.members.len() {
                if !self.members[place].inbox.is_empty() {
                    self.turn(place)?;
                }
            }
        }
        Ok(())
    }

    fn turn(&mut self, place: usize) -> Result<()> {
        self.members[place].turn(self.now, &mut self.output);
        let output = self.output.as_mut().context("a turn without an output")?;
        for message in output.messages.drain(..) {
            let to = MEMBERS.iter().position(|member| *member == message.to);
            let to = to.context("a message to nobody")?;
            self.members[to].inbox.push(Input::Message(message));
        }
        Ok(())
    }
}

impl Member {
    /// Does all that is to be done but to send messages.
    fn turn(&mut self, now: Instant, output: &mut Option<Box<Output>>) {
        self.engine.lend(output);
        for input in self.inbox.drain(..) {
            self.engine.step(now, input);
        }
        if let Some((write, content)) = self.engine.take_write() {
            self.log.write(content);
            self.engine.step(now, Input::Persisted { write });
        }
        let output = output.insert(self.engine.take_output());
        let Output { write, rare, committed, .. } = &mut **output;
        // (Only while the cluster forms: afterwards no peer is behind.)
        if let Some(rare) = rare.take() {
            for Fetch { peer, term, range, .. } in rare.fetches {
                let entries = self.log.entries.read(range, usize::MAX);
                self.inbox.push(Input::Fetched { peer, term, entries });
            }
        }
        if let Some((write, content)) = write.take() {
            self.log.write(content);
            self.inbox.push(Input::Persisted { write });
        }
        if let Some(committed) = *committed {
            let entries = self.log.take_committed(committed);
            let is_command = |entry: &&Entry| matches!(entry.payload, Payload::Command(_));
            self.handed_out += entries.iter().filter(is_command).count();
        }
    }
}

impl Log {
    fn write(&mut self, write: LogWrite) {
        if let Some(first) = write.entries.first() {
            self.entries.keep(0..first.log_id.index);
            self.entries.push(write.entries);
        }
    }

    /// The entries that are to be applied.
    fn take_committed(&mut self, committed: Index) -> Entries {
        let entries = self.entries.read(self.applied + 1..committed + 1, usize::MAX);
        self.applied = committed;
        if self.entries.first().is_some_and(|first| first + KEPT_ENTRIES < committed) {
            self.entries.keep(committed + 1..Index::MAX);
        }
        entries
    }
}
