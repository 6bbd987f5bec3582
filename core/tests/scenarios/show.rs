//! How events look in a scenario.

use std::fmt::Write as _;

use quorate_core::engine::Engine;
use quorate_core::{
    AppendOutcome, Body, Entry, ForwardOutcome, HardState, LogId, LogWrite, Message, Payload, Role,
    Vote,
};

/// A command: its name, and its size if it was padded to one (`name*1000`).
pub(crate) fn command(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let name = text.trim_end_matches('.');
    if name.len() == text.len() { name.to_owned() } else { format!("{name}*{}", text.len()) }
}

/// The bytes of a command as a scenario names it.
pub(crate) fn command_bytes(name: &str) -> Vec<u8> {
    match name.split_once('*') {
        Some((name, size)) => {
            let size: usize = size.parse().expect("name*bytes");
            assert!(size > name.len(), "{name} is longer than {size}");
            format!("{name:.<size$}").into_bytes()
        }
        None => name.as_bytes().to_vec(),
    }
}

pub(crate) fn entry(entry: &Entry) -> String {
    let content = match &entry.payload {
        Payload::Blank => "blank".to_owned(),
        Payload::Command(bytes) => command(bytes),
        Payload::Membership(members) => {
            let ids: Vec<_> = members.voters().keys().map(u64::to_string).collect();
            format!("members {}", ids.join(","))
        }
    };
    format!("{} {content}", entry.log_id)
}

/// The content of a snapshot at a log id, of so many bytes.
pub(crate) fn state_at(log_id: LogId, bytes: usize) -> Vec<u8> {
    format!("{:.<bytes$}", log_id.to_string()).into_bytes()
}

/// At which log id a content was taken.
pub(crate) fn state_of(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim_end_matches('.').to_owned()
}

pub(crate) fn entries(entries: &[Entry]) -> String {
    match entries {
        [first, .., last] if entries.len() > 5 => {
            format!("{} … {} ({} entries)", entry(first), entry(last), entries.len())
        }
        _ => entries.iter().map(entry).collect::<Vec<_>>().join(", "),
    }
}

fn hard_state(hard_state: HardState) -> String {
    let HardState { term, voted_for, caught_up } = hard_state;
    let caught_up = if caught_up { "" } else { ", not caught up" };
    match voted_for {
        Some(vote) => format!("term {term} vote {vote}{caught_up}"),
        None => format!("term {term}{caught_up}"),
    }
}

pub(crate) fn write(write: &LogWrite) -> String {
    let mut parts = Vec::new();
    parts.extend(write.hard_state.map(hard_state));
    parts.extend(write.snapshot.as_ref().map(|meta| format!("snapshot at {}", meta.log_id)));
    parts.extend(write.purge.map(|to| format!("begins after {to}")));
    if !write.entries.is_empty() {
        parts.push(entries(&write.entries));
    }
    parts.join("; ")
}

/// A message. Numbers of forwards and questions are drawn at random; `number` gives them small names.
pub(crate) fn message(message: &Message, mut number: impl FnMut(u64, u64) -> usize) -> String {
    let Message { from, to, term, body, .. } = message;
    let mut text = format!("{from}->{to} t{term} ");
    let round = |round: &u64| if *round == 0 { String::new() } else { format!("; round {round}") };
    let _ = match body {
        Body::PreVote { last_log_id } => write!(text, "pre-vote? log ends {last_log_id}"),
        Body::PreVoteReply { vote } => write!(text, "pre-vote {}", worth(*vote)),
        Body::Vote { last_log_id, handover: false } => {
            write!(text, "vote? log ends {last_log_id}")
        }
        Body::Vote { last_log_id, handover: true } => {
            write!(text, "vote? handed over, log ends {last_log_id}")
        }
        Body::TimeoutNow => write!(text, "campaign now"),
        Body::VoteReply { vote } => write!(text, "vote {}", worth(*vote)),
        Body::Append { prev, committed, round: r, entries: e } if e.is_empty() => {
            write!(text, "heartbeat after {prev}; commit {committed}{}", round(r))
        }
        Body::Append { prev, committed, round: r, entries: e } => {
            let entries = entries(e);
            write!(text, "append after {prev}: {entries}; commit {committed}{}", round(r))
        }
        Body::AppendReply { round: r, outcome: AppendOutcome::Accepted { matched } } => {
            write!(text, "accepted to {matched}{}", round(r))
        }
        Body::AppendReply { round: r, outcome: AppendOutcome::Rejected { prev, hint } } => {
            write!(text, "rejected {prev}, hint {hint}{}", round(r))
        }
        Body::Forward { sequence, commands, .. } => {
            let commands: Vec<_> = commands.iter().map(|bytes| command(bytes)).collect();
            write!(text, "forward #{}: {}", number(*from, *sequence), commands.join(" "))
        }
        Body::ForwardReply { sequence, outcome, .. } => {
            let number = number(*to, *sequence);
            match outcome {
                ForwardOutcome::Appended(log_id) => write!(text, "forward #{number}: at {log_id}"),
                ForwardOutcome::NotLeader => write!(text, "forward #{number}: not leader"),
                ForwardOutcome::Busy => write!(text, "forward #{number}: busy"),
                ForwardOutcome::Partly { first, refused } => {
                    let places: Vec<_> = refused.iter().map(|r| r.place).collect();
                    write!(text, "forward #{number}: at {first}, but not {places:?}")
                }
            }
        }
        Body::Snapshot { meta, chunk, .. } if chunk.is_empty() => {
            write!(text, "snapshot at {}, {} bytes?", meta.log_id, meta.bytes)
        }
        Body::Snapshot { meta, offset, chunk } => {
            let end = offset + chunk.len() as u64;
            write!(text, "snapshot at {}: {offset} to {end} of {}", meta.log_id, meta.bytes)
        }
        Body::SnapshotReply { stored, .. } => write!(text, "snapshot stored to {stored}"),
        Body::ReadIndex { sequence } => write!(text, "read index? #{}", number(*from, *sequence)),
        Body::ReadIndexReply { sequence, index } => {
            let number = number(*to, *sequence);
            match index {
                Some(index) => write!(text, "read index #{number}: {index}"),
                None => write!(text, "read index #{number}: none"),
            }
        }
    };
    text
}

/// What an engine is, in a few words.
pub(crate) fn role(engine: &Engine) -> String {
    let role = match (engine.role(), engine.leader()) {
        (Role::Follower, Some(leader)) => format!("follows {leader}"),
        (Role::Follower, None) => "waits for a leader".to_owned(),
        (Role::PreCandidate, _) => "asks for pre-votes".to_owned(),
        (Role::Candidate, _) => "campaigns".to_owned(),
        (Role::Leader, _) => "leads".to_owned(),
    };
    format!("{role}, term {}", engine.hard_state().term)
}

pub(crate) fn status(engine: &Engine) -> String {
    let vote = engine.hard_state().voted_for;
    let vote = vote.map_or(String::new(), |vote| format!(", vote {vote}"));
    let snapshot = engine.snapshot().map_or(String::new(), |snapshot| {
        format!(", snapshot at {}, log begins after {}", snapshot.log_id, engine.purged())
    });
    let hands_over = if engine.is_resigning() { ", hands over" } else { "" };
    format!(
        "{}{hands_over}{vote}, log ends {}, durable {}, commit {}{snapshot}",
        role(engine),
        engine.last_log_id(),
        engine.durable(),
        engine.committed()
    )
}

fn worth(vote: Vote) -> &'static str {
    match vote {
        Vote::No => "no",
        Vote::Yes => "yes",
        Vote::Tentative => "yes, if all do",
    }
}
