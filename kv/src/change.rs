//! RAFT ADD, REMOVE and so on: changes of the membership, and what is asked about them.

use std::time::Duration;

use bytes::Bytes;
use quorate::{
    ChangeError, ChangeId, ChangeOptions, ChangeRefusal, ClusterId, Membership, Metrics, Network,
    NodeId, Plan, Target,
};

use crate::command::{Arguments, Command, Local, is, next, syntax, wrong_number};
use crate::members;
use crate::reply::Reply;
use crate::request::parse_integer;
use crate::server::Server;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// RAFT MEMBERS.
    Members,
    /// RAFT TOKEN.
    Token,
    /// RAFT ADD and the others.
    Make(Change),
    /// RAFT PLAN.
    Plan(Change),
    /// RAFT CANCEL; without a change, the one that is under way.
    Cancel(Option<ChangeId>),
    /// RAFT AWAIT.
    Await(ChangeId),
}

/// A change of the membership, relative to what that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    verb: Verb,
    /// The change whose place it takes.
    follows: Option<ChangeId>,
    allow_lower_tolerance: bool,
    catch_up: Option<Duration>,
    /// What the cluster's id must be.
    token: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verb {
    Add { id: NodeId, address: String, learns: bool },
    Promote(NodeId),
    Demote(NodeId),
    Remove(NodeId),
    Replace { old: NodeId, new: NodeId, address: String },
    Move { id: NodeId, address: String },
    Prefer { id: NodeId, priority: u8 },
}

/// After so many other changes that came between, a request is given up.
const MOST_CONFLICTS: usize = 8;

/// The longest that new nodes may take to catch up.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(366 * 24 * 3600);

pub(crate) fn request(request: Request) -> Result<Command, Reply> {
    Ok(Command::Local(Local::Membership(Box::new(request))))
}

/// Reads what follows after RAFT and the name of the change.
pub(crate) fn make(verb: &str, args: Arguments) -> Result<Command, Reply> {
    request(Request::Make(change(verb, args)?))
}

/// Reads what follows after RAFT PLAN.
pub(crate) fn plan(mut args: Arguments) -> Result<Command, Reply> {
    const VERBS: [&str; 7] = ["ADD", "PROMOTE", "DEMOTE", "REMOVE", "REPLACE", "MOVE", "PREFER"];
    let verb = next(&mut args);
    let Some(verb) = VERBS.into_iter().find(|name| is(&verb, name.as_bytes())) else {
        let text = format!("ERR RAFT PLAN takes one of {} and its arguments", VERBS.join(", "));
        return Err(Reply::error(text));
    };
    request(Request::Plan(change(&verb.to_lowercase(), args)?))
}

pub(crate) fn cancel(mut args: Arguments) -> Result<Command, Reply> {
    let change = args.next().map(|text| change_id(&text)).transpose()?;
    match args.next() {
        None => request(Request::Cancel(change)),
        Some(_) => Err(wrong_number("raft|cancel")),
    }
}

pub(crate) fn wait(mut args: Arguments) -> Result<Command, Reply> {
    request(Request::Await(change_id(&next(&mut args))?))
}

fn change(verb: &str, mut args: Arguments) -> Result<Change, Reply> {
    let needed = match verb {
        "replace" => 3,
        "add" | "move" | "prefer" => 2,
        _ => 1,
    };
    if args.len() < needed {
        return Err(wrong_number(&format!("raft|{verb}"))); // After PLAN, it was not checked yet.
    }
    let first = node_id(&next(&mut args))?;
    let verb = match verb {
        "add" => Verb::Add { id: first, address: address(first, &next(&mut args))?, learns: false },
        "promote" => Verb::Promote(first),
        "demote" => Verb::Demote(first),
        "remove" => Verb::Remove(first),
        "replace" => {
            let new = node_id(&next(&mut args))?;
            Verb::Replace { old: first, new, address: address(new, &next(&mut args))? }
        }
        "move" => Verb::Move { id: first, address: address(first, &next(&mut args))? },
        "prefer" => {
            let priority = parse_integer(&next(&mut args)).and_then(|n| u8::try_from(n).ok());
            let wrong = || Reply::error("ERR a priority is a number from 0 to 255");
            Verb::Prefer { id: first, priority: priority.ok_or_else(wrong)? }
        }
        _ => return Err(syntax()),
    };
    let mut change =
        Change { verb, follows: None, allow_lower_tolerance: false, catch_up: None, token: None };
    while let Some(option) = args.next() {
        match () {
            () if is(&option, b"LEARNER") => match &mut change.verb {
                Verb::Add { learns, .. } => *learns = true,
                _ => return Err(syntax()),
            },
            () if is(&option, b"ALLOWLOWER") => change.allow_lower_tolerance = true,
            () if is(&option, b"TIMEOUT") => {
                let text = args.next().ok_or_else(syntax)?;
                let millis = parse_integer(&text).and_then(|n| u64::try_from(n).ok());
                let time = millis.map(Duration::from_millis);
                let time = time.filter(|time| !time.is_zero() && *time <= LONGEST_CATCH_UP);
                let wrong = || Reply::error("ERR TIMEOUT takes milliseconds, from 1 to a year");
                change.catch_up = Some(time.ok_or_else(wrong)?);
            }
            () if is(&option, b"FOLLOWS") => {
                change.follows = Some(change_id(&args.next().ok_or_else(syntax)?)?);
            }
            () if is(&option, b"TOKEN") => {
                let token = args.next().ok_or_else(syntax)?;
                change.token = Some(Bytes::copy_from_slice(&token));
            }
            () => return Err(syntax()),
        }
    }
    Ok(change)
}

fn node_id(text: &[u8]) -> Result<NodeId, Reply> {
    let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let wrong = || Reply::error("ERR a node id is a number from 1 on");
    id.filter(|id| *id > 0).ok_or_else(wrong)
}

fn change_id(text: &[u8]) -> Result<ChangeId, Reply> {
    let id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    id.ok_or_else(|| Reply::error("ERR a change is named by the number that RAFT MEMBERS shows"))
}

/// A peer address, checked as those of `--cluster` are.
fn address(id: NodeId, text: &[u8]) -> Result<String, Reply> {
    let error = |reason: &str| Reply::error(format!("ERR node {id}: {reason}"));
    let text = std::str::from_utf8(text).map_err(|_| error("the address is no text"))?;
    quorate::check_list(&[(id, text.to_owned())].into()).map_err(|reason| error(&reason))?;
    quorate::check_address(text).map_err(|reason| error(&reason))?;
    Ok(text.to_owned())
}

/// Does what is wanted, and answers when that is done.
pub(crate) async fn answer<R: Network>(server: &Server<R>, request: Request) -> Reply {
    match request {
        Request::Members => members::list(&server.metrics.borrow()),
        Request::Token => match server.metrics.borrow().cluster {
            Some(cluster) => Reply::bulk(cluster.to_string()),
            None => Reply::error("ERR this node belongs to no cluster yet, so there is no token"),
        },
        Request::Plan(change) => {
            planned(&server.metrics.borrow(), &change).unwrap_or_else(|error| error)
        }
        Request::Make(change) => make_change(server, &change).await.unwrap_or_else(|error| error),
        Request::Await(change) => done(server, server.raft.await_change(change).await),
        Request::Cancel(change) => {
            let under_way = || members::under_way(&server.metrics.borrow());
            let Some(change) = change.or_else(under_way) else {
                return Reply::error("ERR no change is under way, as far as this node knows");
            };
            match server.raft.cancel_change(change).await {
                Ok(change) => Reply::bulk(format!("OK, change {change} is cancelled")),
                Err(error) => refusal(&error),
            }
        }
    }
}

async fn make_change<R: Network>(server: &Server<R>, change: &Change) -> Result<Reply, Reply> {
    let mut membership = base(&server.metrics.borrow(), change)?;
    for _ in 0..MOST_CONFLICTS {
        let (target, options) = change.on(&membership).map_err(|refusal| refused(&refusal))?;
        let is_so_already = membership.change().is_none() && target == membership.target();
        match server.raft.change_membership(target, options).await {
            // The leader has just this membership, or it would be a conflict. There is no change
            // that anybody could wait for.
            Ok(_) if is_so_already => {
                let voters = membership.target();
                let text = format!("OK, the voters are {voters}: there was nothing to do");
                return Ok(Reply::bulk(text));
            }
            // This node knew an older membership than the leader: the change is made to that one.
            Err(ChangeError::Refused(ChangeRefusal::Conflict { membership: newer }))
                if change.follows.is_none() =>
            {
                membership = newer;
            }
            result => return Ok(done(server, result)),
        }
    }
    Err(Reply::error("ERR the membership is changed all the time by others: try again"))
}

fn planned(metrics: &Metrics, change: &Change) -> Result<Reply, Reply> {
    let membership = base(metrics, change)?;
    let refuse = |refusal: ChangeRefusal| refused(&refusal);
    let (target, _) = change.on(&membership).map_err(refuse)?;
    let plan = membership.plan(&target, metrics.leader).map_err(refuse)?;
    let Plan { tolerates_now, tolerates_at_least, steps } = &plan;
    let mut lines = vec![format!(
        "tolerates_now={tolerates_now} tolerates_at_least={tolerates_at_least}{}",
        match tolerates_at_least < tolerates_now && !change.allow_lower_tolerance {
            true => " refused=needs ALLOWLOWER",
            false => "",
        }
    )];
    lines.extend((1..).zip(steps).map(|(number, step)| format!("{number}. {step}")));
    if steps.is_empty() {
        lines.push("nothing is to be done".to_owned());
    }
    Ok(Reply::Array(lines.into_iter().map(Reply::bulk).collect()))
}

/// The membership that a change is made to, as far as this node knows.
fn base(metrics: &Metrics, change: &Change) -> Result<Membership, Reply> {
    if metrics.removed {
        return Err(Reply::error(format!("CLUSTERDOWN {}", metrics.hindrance())));
    }
    if let (Some(token), Some(cluster)) = (&change.token, metrics.cluster)
        && !is_token(token, cluster)
    {
        return Err(Reply::error(
            "WRONGTOKEN the token is not that of this cluster, which RAFT TOKEN prints: the node \
             may have been sent to the wrong cluster",
        ));
    }
    metrics.membership.clone().ok_or_else(|| {
        Reply::error("CLUSTERDOWN this node belongs to no cluster yet: ask a member of one")
    })
}

fn is_token(token: &[u8], cluster: ClusterId) -> bool {
    let token = std::str::from_utf8(token).ok();
    token.and_then(|token| u128::from_str_radix(token, 16).ok()) == Some(cluster.0)
}

impl Change {
    /// What this membership is to become. The change counts for just this one.
    fn on(&self, membership: &Membership) -> Result<(Target, ChangeOptions), ChangeRefusal> {
        let last = membership.last_change();
        if self.follows.is_some_and(|follows| follows != last) {
            return Err(ChangeRefusal::Conflict { membership: membership.clone() });
        }
        if self.follows.is_none() && membership.change().is_some() {
            return Err(ChangeRefusal::UnderWay { membership: membership.clone() });
        }
        let target = membership.target();
        let target = match self.verb.clone() {
            Verb::Add { id, address, learns: false } => target.with_voter(id, address),
            Verb::Add { id, address, learns: true } => target.with_learner(id, address),
            Verb::Promote(id) => target.promoted(id),
            Verb::Demote(id) => target.demoted(id),
            Verb::Remove(id) => target.without(id),
            Verb::Replace { old, new, address } => target.replaced(old, new, address),
            Verb::Move { id, address } => target.moved(id, address),
            Verb::Prefer { id, priority } => target.preferring(id, priority),
        }?;
        let default = ChangeOptions::default();
        let options = ChangeOptions {
            follows: Some(last),
            catch_up: self.catch_up.unwrap_or(default.catch_up),
            allow_lower_tolerance: self.allow_lower_tolerance,
        };
        Ok((target, options))
    }
}

/// What is said when a change has ended.
fn done<R: Network>(server: &Server<R>, result: Result<ChangeId, ChangeError>) -> Reply {
    match result {
        Ok(change) => {
            let metrics = server.metrics.borrow();
            // Others may have followed, for who waits for an old one.
            let made = metrics.membership.as_ref().filter(|of| of.last_change() == change);
            Reply::bulk(match made {
                Some(of) => format!("OK, the voters are {} (change {change})", of.target()),
                None => format!("OK, it was made, and others after it (change {change})"),
            })
        }
        Err(error) => refusal(&error),
    }
}

/// An error with the commands that help.
fn refusal(error: &ChangeError) -> Reply {
    match error {
        ChangeError::Refused(refusal) => refused(refusal),
        ChangeError::NotLeader { .. } | ChangeError::Shutdown | ChangeError::Fatal(_) => {
            Reply::error(format!("CLUSTERDOWN {error}"))
        }
        ChangeError::Unknown { change } => Reply::error(format!(
            "CLUSTERDOWN {error}: RAFT MEMBERS shows the membership, and RAFT AWAIT {change} waits \
             for it, on any node"
        )),
        ChangeError::Late { .. } => Reply::error(format!(
            "ERR {error}: the membership is what it was before. Look at the log of that node, and \
             begin anew, with a longer TIMEOUT if it was catching up"
        )),
        _ => Reply::error(format!("ERR {error}")),
    }
}

fn refused(refusal: &ChangeRefusal) -> Reply {
    let text = match refusal {
        ChangeRefusal::UnderWay { membership } => {
            let change = membership.last_change();
            format!(
                "BUSY {refusal} (RAFT AWAIT {change}, RAFT CANCEL {change}, or the same command \
                 with FOLLOWS {change})"
            )
        }
        ChangeRefusal::LowersTolerance { .. } => {
            format!("ERR {refusal} (the same command with ALLOWLOWER; RAFT PLAN shows the steps)")
        }
        ChangeRefusal::NotUnderWay => format!("ERR {refusal} (RAFT MEMBERS shows the one that is)"),
        _ => format!("ERR {refusal}"),
    };
    Reply::error(text)
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
