//! raft-rs' engines. Set as TiKV sets them: pre-vote, check-quorum, and no message of its own to
//! tell followers of a commit.

use anyhow::{Result, ensure};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use super::{COMMAND, Cluster};

/// How a batch of commands is proposed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Batch {
    /// As so many proposals: each may be a client's. What follows on them is sent at once
    /// (`batch_append`).
    Proposals,
    /// As one proposal of many entries.
    OneProposal,
}

struct Three {
    members: Vec<Member>,
    batch: Batch,
}

struct Member {
    node: RawNode<MemStorage>,
    inbox: Vec<Message>,
    handed_out: usize,
    dropped: u64,
}

/// As with Quorate's: when a log holds so many entries that have been applied, they are dropped.
const KEPT_ENTRIES: u64 = 1 << 16;

const HEARTBEAT_TICKS: usize = 2;

pub(super) fn start(batch: Batch) -> Result<Box<dyn Cluster>> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let member = |id| {
        let config = Config {
            id,
            election_tick: 10 * HEARTBEAT_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            max_size_per_msg: 1 << 20,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            batch_append: true,
            ..Config::default()
        };
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let node = RawNode::new(&config, storage, &logger)?;
        Ok(Member { node, inbox: Vec::new(), handed_out: 0, dropped: 0 })
    };
    let members = [1, 2, 3].map(member).into_iter().collect::<Result<_>>()?;
    let mut three = Three { members, batch };
    three.members[0].node.campaign()?;
    three.settle()?;
    ensure!(three.members[0].node.raft.state == StateRole::Leader, "the first does not lead");
    three.heartbeat()?;
    Ok(Box::new(three))
}

impl Cluster for Three {
    fn round(&mut self, batch: usize) -> Result<()> {
        let leader = &mut self.members[0].node;
        match self.batch {
            Batch::Proposals => {
                for _ in 0..batch {
                    leader.propose(Vec::new(), COMMAND.to_vec())?;
                }
            }
            Batch::OneProposal => {
                let entry = |_| Entry { data: COMMAND.to_vec().into(), ..Entry::default() };
                let entries = (0..batch).map(entry).collect::<Vec<_>>().into();
                let kind = MessageType::MsgPropose;
                leader.raft.step(Message {
                    msg_type: kind,
                    from: 1,
                    entries,
                    ..Message::default()
                })?;
            }
        }
        self.settle()
    }

    fn heartbeat(&mut self) -> Result<()> {
        for _ in 0..HEARTBEAT_TICKS {
            self.members[0].node.tick();
        }
        self.settle()
    }

    fn handed_out(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.handed_out).collect()
    }
}

impl Three {
    /// Each has its turn, until there is nothing left for any of them.
    fn settle(&mut self) -> Result<()> {
        loop {
            let mut quiet = true;
            for place in 0..self.members.len() {
                let Some(messages) = self.members[place].turn()? else { continue };
                quiet = false;
                for message in messages {
                    self.members[message.to as usize - 1].inbox.push(message);
                }
            }
            if quiet {
                return Ok(());
            }
        }
    }
}

impl Member {
    /// What it sends; none if there was nothing to do.
    fn turn(&mut self) -> Result<Option<Vec<Message>>> {
        for message in self.inbox.drain(..) {
            self.node.step(message)?;
        }
        if !self.node.has_ready() {
            return Ok(None);
        }
        let mut ready = self.node.ready();
        let mut messages = ready.take_messages();
        self.hand_out(ready.take_committed_entries());
        let mut storage = self.node.store().wl();
        storage.append(ready.entries())?;
        if let Some(hard_state) = ready.hs() {
            storage.set_hardstate(hard_state.clone());
        }
        drop(storage);
        messages.append(&mut ready.take_persisted_messages());
        let mut light = self.node.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.node.store().wl().mut_hard_state().commit = commit;
        }
        messages.append(&mut light.take_messages());
        self.hand_out(light.take_committed_entries());
        self.node.advance_apply();
        self.drop_applied()?;
        Ok(Some(messages))
    }

    fn hand_out(&mut self, entries: Vec<Entry>) {
        self.handed_out += entries.iter().filter(|entry| !entry.data.is_empty()).count();
    }

    fn drop_applied(&mut self) -> Result<()> {
        let applied = self.node.raft.raft_log.applied;
        if applied - self.dropped > KEPT_ENTRIES {
            self.node.store().wl().compact(applied)?;
            self.dropped = applied;
        }
        Ok(())
    }
}
