//! `quorate-kv check`: verifies a node's data offline, and prints what they hold.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use quorate::{Executor, FileStore, Launch, Replica, Standing, StoreReport, Tokio};

use crate::members;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The folder with the data of one node, which must not be running. Nothing in it is changed.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Prints what there is. What a crash has cut short is sound.
///
/// Errors: the data are damaged, in use or can't be read.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let launch = Launch::named("check");
    let report = Tokio::run(&launch, async |rt| FileStore::check(&rt, &options.data).await)
        .map_err(|error| format!("the runtime could not be started: {error}"))?
        .map_err(|error| error.to_string())?;
    let _ = io::stdout().write_all(describe(&report).as_bytes());
    if report.damage.is_some() {
        return Err(format!("{} is damaged", options.data.display()));
    }
    Ok(())
}

fn describe(report: &StoreReport) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}"); // Never fails on a string.
    };
    if !report.locked {
        line("caution: not locked; if a node is running, what is seen may be changing".to_owned());
    }
    let bytes: u64 = report.segments.iter().map(|(_, bytes)| bytes).sum();
    if report.segments.is_empty() {
        line("no store: a node that is started on this folder has an empty disk".to_owned());
    }
    line(format!("segments: {}, {bytes} bytes", report.segments.len()));
    if let (Some((first, _)), Some((last, _))) = (report.segments.first(), report.segments.last()) {
        line(format!("  from {} to {}", first.display(), last.display()));
    }
    let so_far = if report.damage.is_some() { " (before the damage)" } else { "" };
    if let Some(identity) = &report.identity {
        let node = identity.node.map_or("none yet".to_owned(), |node| node.to_string());
        let cluster = identity.cluster.map_or("none yet".to_owned(), |cluster| cluster.to_string());
        line(format!("node: {node}, incarnation {:016x}{so_far}", identity.incarnation));
        line(format!("  cluster: {cluster}"));
        line(format!("  starts: {}", identity.boots));
    }
    let replica = report
        .identity
        .and_then(|identity| identity.node.map(|node| Replica::new(node, identity.incarnation)));
    for (group, held) in &report.groups {
        line(format!("group {group}{so_far}:"));
        let vote = held.hard_state.voted_for.map_or("none".to_owned(), |vote| vote.to_string());
        line(format!("  hard state: term {}, vote {vote}", held.hard_state.term.0));
        line(format!("  standing: {}", standing(&held.standing)));
        let committed = held.marks.committed;
        line(format!(
            "  committed: at least up to {} (term {})",
            committed.index, committed.term.0
        ));
        if let Some((index, membership)) = &held.membership {
            line(format!("  configuration: of entry {index}"));
            for (member, address) in membership.members() {
                let (name, role) = (members::name(*member), members::role(membership, *member));
                line(format!("    {name} at {address}: {role}"));
            }
            if let Some(replica) = replica {
                let (name, role) = (members::name(replica), members::role(membership, replica));
                line(format!("    this store is {name}: {role}"));
            }
        }
        if let Some(snapshot) = &held.snapshot {
            let (log_id, file) = (snapshot.log_id, snapshot.file.display());
            line(format!(
                "  snapshot: up to {} (term {}), {} bytes, {file}",
                log_id.index, log_id.term.0, snapshot.bytes
            ));
        }
        if held.purged.index > 0 {
            let (index, term) = (held.purged.index, held.purged.term.0);
            line(format!("  purged: up to {index} (term {term})"));
        }
        line(match held.entries {
            Some((first, last)) => format!(
                "  entries: {} to {} (terms {} to {})",
                first.index, last.index, first.term.0, last.term.0
            ),
            None => "  entries: none".to_owned(),
        });
    }
    for file in &report.leftovers {
        line(format!("left over: {}; the next start removes it", file.display()));
    }
    if let Some(end) = &report.end {
        let (offset, file) = (end.offset, end.file.display());
        line(format!("end: offset {offset} of {file}"));
        if !end.has_sync_marker || end.torn_bytes > 0 {
            let tail = match end.torn_bytes {
                0 => "all are zero".to_owned(),
                bytes => format!("{bytes} bytes are not zero; the next start removes them"),
            };
            line(format!(
                "tail: what follows byte {offset} of {file} is not a whole record ({tail}): after power loss, \
                 or where the process was killed while it wrote, that is normal; \
                 if the node was stopped cleanly, entries may be missing"
            ));
        }
    }
    line(match &report.damage {
        Some(damage) => format!("damage: {damage}"),
        None => "sound".to_owned(),
    });
    text
}

/// What a group has promised, in words.
fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Empty => "nothing promised".to_owned(),
        Standing::Claimed(claim) | Standing::Contested(claim) => {
            format!("promised to be part of the cluster that node {} forms", claim.founder.id)
        }
        Standing::Admitted(_) => "let in by a member of its cluster".to_owned(),
        Standing::Spent => "removed from its cluster; the node needs an empty folder".to_owned(),
    }
}
