//! How events look in a scenario.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use quorate_core::engine::Engine;
use quorate_core::{
    AppendOutcome, Body, ChangeId, ChangeKind, ChangeReply, Ending, Entry, ForwardOutcome,
    HardState, LogId, LogWrite, Membership, Message, NodeId, Payload, Replica, Role, Situation,
    Standing,
};

/// A replica: its node, and a stroke for each disk that was lost.
pub(crate) fn replica(replica: Replica) -> String {
    let Replica { id, incarnation } = replica;
    format!("{id}{}", "'".repeat(incarnation.saturating_sub(1).min(9) as usize))
}

fn replicas(replicas: impl IntoIterator<Item = Replica>) -> String {
    replicas.into_iter().map(replica).collect::<Vec<_>>().join(",")
}

fn ids(ids: &BTreeSet<NodeId>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn membership(membership: &Membership) -> String {
    let mut text = format!("members {}", replicas(membership.voters().incoming().iter().copied()));
    if membership.voters().is_joint() {
        let outgoing = membership.voters().outgoing().iter().copied();
        let _ = write!(text, " (joint with {})", replicas(outgoing));
    }
    let learners = replicas(membership.learners());
    if !learners.is_empty() {
        let _ = write!(text, ", learners {learners}");
    }
    if let Some(becoming) = membership.change() {
        let _ = write!(text, ", change {} to {}", change(becoming.id), becoming.target);
    }
    text
}

/// A change by its name, which is one letter.
pub(crate) fn change(id: ChangeId) -> char {
    u8::try_from(id.0).map_or('?', char::from)
}

pub(crate) fn change_reply(reply: &ChangeReply) -> String {
    match reply {
        ChangeReply::Await(id) => format!("{} has begun", change(*id)),
        ChangeReply::Nothing => "there is nothing to do".to_owned(),
        ChangeReply::Again => "ask again".to_owned(),
        ChangeReply::Noted => "noted".to_owned(),
        ChangeReply::Refused(refusal) => {
            let text = refusal.to_string();
            let names = |text: String, letter: char| {
                text.replace(&format!("{:032x}", u32::from(letter)), &letter.to_string())
            };
            ('a'..='z').fold(text, names).replace("/0000", "")
        }
    }
}

/// How a change has ended, as a node knows.
pub(crate) fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Done => "done".to_owned(),
        Ending::Cancelled => "cancelled".to_owned(),
        Ending::Late { waits_for } => format!("late, waited for {}", ids(waits_for)),
        Ending::Superseded { by } => format!("superseded by {}", change(*by)),
    }
}

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
        Payload::Membership(members) => membership(members),
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
    let HardState { term, voted_for } = hard_state;
    match voted_for {
        Some(vote) => format!("term {term} vote {}", replica(vote)),
        None => format!("term {term}"),
    }
}

pub(crate) fn write(write: &LogWrite) -> String {
    let mut parts = Vec::new();
    parts.extend(write.hard_state.map(hard_state));
    parts.extend(write.standing.as_deref().map(standing));
    parts.extend(write.snapshot.as_ref().map(|meta| format!("snapshot at {}", meta.log_id)));
    parts.extend(write.purge.map(|to| format!("begins after {to}")));
    if !write.entries.is_empty() {
        parts.push(entries(&write.entries));
    }
    if parts.is_empty() {
        parts.extend(write.marks.as_ref().map(|_| "marks".to_owned()));
    }
    parts.join("; ")
}

fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Empty => "no promise".to_owned(),
        Standing::Claimed(claim) | Standing::Contested(claim) => {
            let founder = replica(claim.founder);
            format!("promised to {founder} by ballot {} of {}", claim.ballot, ids(&claim.ids()))
        }
        Standing::Admitted(_) => "let in".to_owned(),
        Standing::Spent => "spent".to_owned(),
    }
}

fn situation(situation: &Situation) -> String {
    match situation {
        Situation::Empty => "empty".to_owned(),
        Situation::Claimed { ballot, founder, ids: list } => {
            format!("promised to {} by ballot {ballot} of {}", replica(*founder), ids(list))
        }
        Situation::Admitted => "let in".to_owned(),
        Situation::Member { founders, voter } => {
            let was = if *voter { "voter" } else { "member" };
            format!("a {was} of {}", ids(founders))
        }
        Situation::Spent => "spent".to_owned(),
        Situation::Elsewhere => "elsewhere".to_owned(),
    }
}

/// A message. Numbers of forwards and questions are drawn at random; `number` gives them small
/// names.
pub(crate) fn message(message: &Message, mut number: impl FnMut(u64, u64) -> usize) -> String {
    let Message { from, to, term, body, .. } = message;
    let (sender, receiver) = (replica(*from), replica(*to));
    let (from, to) = (&from.id, &to.id);
    let mut text = format!("{sender}->{receiver} t{term} ");
    let listed = |listed: &BTreeSet<NodeId>| match listed.is_empty() {
        true => String::new(),
        false => format!(", list {}", ids(listed)),
    };
    let round = |round: &u64| if *round == 0 { String::new() } else { format!("; round {round}") };
    let _ = match body {
        Body::PreVote { last_log_id, .. } => write!(text, "pre-vote? log ends {last_log_id}"),
        Body::PreVoteReply { granted, .. } => write!(text, "pre-vote {}", yes_or_no(*granted)),
        Body::Vote { last_log_id, transfer: None, .. } => {
            write!(text, "vote? log ends {last_log_id}")
        }
        Body::Vote { last_log_id, transfer: Some(_), .. } => {
            write!(text, "vote? transfer, log ends {last_log_id}")
        }
        Body::TimeoutNow { .. } => write!(text, "campaign now"),
        Body::VoteReply { granted, .. } => write!(text, "vote {}", yes_or_no(*granted)),
        Body::Who { listed: list } => write!(text, "who?{}", listed(list)),
        Body::Situation { situation: is, listed: list } => {
            write!(text, "is {}{}", situation(is), listed(list))
        }
        Body::Claim(claim) => {
            write!(text, "claim, ballot {} of {}", claim.ballot, ids(&claim.ids()))
        }
        Body::Admit { .. } => write!(text, "let in"),
        Body::Rest { last_log_id, round: r, .. } => {
            write!(text, "rest at {last_log_id}{}", round(r))
        }
        Body::Rests { last_log_id } => write!(text, "rests at {last_log_id}"),
        Body::Alive(_) => write!(text, "alive"),
        Body::Change(request) => match &request.kind {
            ChangeKind::Begin { target, .. } => {
                write!(text, "change {} to {target}?", change(request.id))
            }
            ChangeKind::Cancel => write!(text, "cancel change {}?", change(request.id)),
        },
        Body::ChangeReply { id, reply } => {
            write!(text, "change {}: {}", change(*id), change_reply(reply))
        }
        Body::Removed { log_id, membership: now } => {
            write!(text, "removed, at {log_id}: {}", membership(now))
        }
        Body::Append { prev, committed, round: r, entries: e, .. } if e.is_empty() => {
            write!(text, "heartbeat after {prev}; commit {committed}{}", round(r))
        }
        Body::Append { prev, committed, round: r, entries: e, .. } => {
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
                ForwardOutcome::StorageFull => write!(text, "forward #{number}: storage full"),
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
        Body::ReadIndexReply { sequence, index, .. } => {
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
        (Role::Follower, Some(leader)) => format!("follows {}", replica(leader)),
        (Role::Follower, None) => "waits for a leader".to_owned(),
        (Role::PreCandidate, _) => "asks for pre-votes".to_owned(),
        (Role::Candidate, _) => "campaigns".to_owned(),
        (Role::Leader, _) => "leads".to_owned(),
    };
    format!("{role}, term {}", engine.hard_state().term)
}

pub(crate) fn status(engine: &Engine) -> String {
    let vote = engine.hard_state().voted_for;
    let vote = vote.map_or(String::new(), |vote| format!(", vote {}", replica(vote)));
    let snapshot = engine.snapshot().map_or(String::new(), |snapshot| {
        format!(", snapshot at {}, log begins after {}", snapshot.log_id, engine.purged())
    });
    let promise = match engine.standing() {
        Standing::Spent => ", spent".to_owned(),
        promise if engine.membership().is_none() && *promise != Standing::Empty => {
            format!(", {}", standing(promise))
        }
        _ => String::new(),
    };
    let transfers = match (engine.is_resigning(), engine.hands_over()) {
        (false, _) => String::new(),
        (true, false) => ", transfers leadership".to_owned(),
        (true, true) => ", hands over".to_owned(),
    };
    let failure = engine.transfer_failure().map(|why| format!(", transfer failed: {why}"));
    let transfers = transfers + &failure.unwrap_or_default();
    format!(
        "{}{transfers}{promise}{vote}, log ends {}, durable {}, commit {}{snapshot}",
        role(engine),
        engine.last_log_id(),
        engine.durable(),
        engine.committed()
    )
}

fn yes_or_no(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}
