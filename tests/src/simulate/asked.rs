//! What operators have asked for, changes of the membership and of leadership, and what they were
//! told: held against what was committed, and against who has led.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate::{
    CampaignError, ChangeError, ChangeId, Ending, Index, Leadership, Membership, NodeId, Role,
    StepDownError, Target, Term, TransferError, TransferFailure,
};

use super::checks::Verdict;
use super::model::Model;

/// A change of the membership that somebody has asked for.
#[derive(Clone, Debug)]
struct Wanted {
    node: NodeId,
    target: Target,
    /// How long it may take to catch up, in milliseconds: no two changes of a run have the same, so
    /// that a configuration tells whose change is under way.
    catch_up: u64,
    /// What was known to be committed when it was asked for, and when it was answered.
    begun: Index,
    ended: Option<Index>,
    /// None without an answer, also where the node ended before it gave one.
    told: Option<Result<ChangeId, ChangeError>>,
}

impl Wanted {
    /// Whether the answer says that nothing more comes of the request.
    fn is_certain(&self) -> bool {
        match &self.told {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(error)) => !matches!(
                error,
                ChangeError::Unknown { .. } | ChangeError::Shutdown | ChangeError::Fatal(_)
            ),
        }
    }

    /// Whether the answer says that there was no such change.
    fn has_no_effect(&self) -> bool {
        let told = self.told.as_ref();
        matches!(told, Some(Err(ChangeError::Refused(_) | ChangeError::NotLeader { .. })))
    }
}

/// All changes of the membership that were asked for in a run.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    wanted: Vec<Wanted>,
    catch_ups: BTreeSet<u64>,
}

impl Changes {
    /// A time to catch up of about so long, that no other change has.
    pub fn catch_up(&mut self, about: Duration) -> Duration {
        let mut millis = about.as_millis() as u64;
        while !self.catch_ups.insert(millis) {
            millis += 1;
        }
        Duration::from_millis(millis)
    }

    /// Notes what a node is asked for, and gives the number of that.
    pub fn ask(&mut self, node: NodeId, target: Target, catch_up: Duration, begun: Index) -> usize {
        let catch_up = catch_up.as_millis() as u64;
        self.wanted.push(Wanted { node, target, catch_up, begun, ended: None, told: None });
        self.wanted.len() - 1
    }

    /// Notes the answer, which must be so now.
    pub fn answer(
        &mut self,
        number: usize,
        told: Result<ChangeId, ChangeError>,
        model: &Model,
    ) -> Verdict {
        let wanted = &mut self.wanted[number];
        wanted.ended = Some(model.last_committed());
        let verdict = is_so(wanted, &told, model);
        wanted.told = Some(told);
        verdict
    }

    /// Whether each answer has stayed so: what was refused has had no effect, and what has an
    /// answer has none later.
    pub fn check(&self, model: &Model) -> Verdict {
        let committed = model.committed_configurations();
        // Where each change was first seen in what is committed.
        let mut first: BTreeMap<ChangeId, (Index, &Membership)> = BTreeMap::new();
        for (index, membership) in &committed {
            let under_way = membership.change().map(|change| change.id);
            let last = Some(membership.last_change()).filter(|id| *id != ChangeId::default());
            for id in under_way.into_iter().chain(last) {
                first.entry(id).or_insert((*index, *membership));
            }
        }
        let mut noted = BTreeMap::new();
        for membership in model.configurations.values() {
            if let Some(change) = membership.change() {
                noted.insert(change.id, change.catch_up);
            }
        }
        for (id, (index, membership)) in first {
            match noted.get(&id) {
                Some(catch_up) => {
                    let of = self.wanted.iter().find(|wanted| wanted.catch_up == *catch_up);
                    let Some(wanted) = of else {
                        return Err(format!("nobody has asked for change {id}, made at {index}"));
                    };
                    takes_effect(wanted, id, index)?;
                }
                // What takes one step is never under way, so it does not tell whose it is.
                None => self.is_of_somebody(id, index, membership)?,
            }
        }
        Ok(())
    }

    fn is_of_somebody(&self, id: ChangeId, index: Index, membership: &Membership) -> Verdict {
        let target = membership.target();
        let may_be = |wanted: &Wanted| match &wanted.told {
            Some(Ok(told)) => *told == id,
            Some(Err(ChangeError::Unknown { change })) => *change == id,
            Some(Err(_)) => !wanted.is_certain(),
            None => true,
        };
        let mut of_target = self.wanted.iter().filter(|wanted| wanted.target == target);
        match of_target.any(may_be) {
            true => Ok(()),
            false => Err(format!(
                "change {id} to {target} was done at {index}, and nobody who has asked for that \
                 was told so"
            )),
        }
    }
}

/// A change was committed: whether whoever has asked for it was told something that allows it.
fn takes_effect(wanted: &Wanted, id: ChangeId, index: Index) -> Verdict {
    let Wanted { node, target, told, ended, .. } = wanted;
    let is_late = wanted.is_certain() && ended.is_some_and(|ended| index > ended);
    if !wanted.has_no_effect() && !is_late {
        return Ok(());
    }
    let ended = ended.unwrap_or_default();
    Err(format!(
        "change {id} to {target} was committed at {index}, and node {node} had said {told:?} when \
         {ended} was committed"
    ))
}

/// Whether an answer is so.
fn is_so(wanted: &Wanted, told: &Result<ChangeId, ChangeError>, model: &Model) -> Verdict {
    let Wanted { node, target, begun, .. } = wanted;
    match told {
        Ok(id) => {
            let since = model.configurations_since(*begun);
            let is_reached = |membership: &Membership| {
                let is_stable = membership.change().is_none() && !membership.voters().is_joint();
                is_stable && membership.target() == *target
            };
            if !since.iter().any(|membership| is_reached(membership)) {
                let were: Vec<_> = since.iter().map(|of| of.target().to_string()).collect();
                return Err(format!(
                    "node {node} says that change {id} to {target} is done, and since it was asked \
                     these were committed: {were:?}"
                ));
            }
            match ending_of(*id, &since) {
                None | Some(Ending::Done) => Ok(()),
                Some(other) => Err(format!("node {node} says {id} is done: it has {other:?}")),
            }
        }
        Err(error) => has_ended(*node, None, error, &model.configurations_since(*begun)),
    }
}

/// Whether what was told of how a change has ended is what a committed configuration says: of this
/// change, or of any.
fn has_ended(
    node: NodeId,
    id: Option<ChangeId>,
    told: &ChangeError,
    committed: &[&Membership],
) -> Verdict {
    let is_told = |ending: &Ending| match (told, ending) {
        (ChangeError::Cancelled, Ending::Cancelled) => true,
        (ChangeError::Late { waits_for }, Ending::Late { waits_for: for_those }) => {
            waits_for == for_those
        }
        (ChangeError::Superseded { by }, Ending::Superseded { by: that }) => by == that,
        (ChangeError::TooLate, ending) => *ending != Ending::Cancelled,
        _ => false,
    };
    let tells_an_ending = matches!(
        told,
        ChangeError::Cancelled
            | ChangeError::Late { .. }
            | ChangeError::Superseded { .. }
            | ChangeError::TooLate
    );
    let is_so =
        |(of, ending): (&ChangeId, &Ending)| id.is_none_or(|id| id == *of) && is_told(ending);
    match !tells_an_ending || committed.iter().any(|membership| membership.endings().any(is_so)) {
        true => Ok(()),
        false => Err(format!("node {node} says of change {id:?}: {told}. None has ended so")),
    }
}

fn ending_of<'a>(id: ChangeId, committed: &[&'a Membership]) -> Option<&'a Ending> {
    committed.iter().rev().find_map(|membership| membership.ending_of(id))
}

/// Whether what somebody was told is so who has cancelled a change, or has waited for it: where
/// nothing was wrong, it has ended like this.
pub fn is_ended(
    node: NodeId,
    id: ChangeId,
    as_wanted: &Ending,
    told: &Result<ChangeId, ChangeError>,
    model: &Model,
) -> Verdict {
    let committed = model.configurations_since(0);
    match (told, ending_of(id, &committed)) {
        (Ok(_), Some(ending)) if ending == as_wanted => Ok(()),
        (Ok(_), ending) => {
            Err(format!("node {node} says of change {id} {as_wanted:?}: it has {ending:?}"))
        }
        (Err(error), _) => has_ended(node, Some(id), error, &committed),
    }
}

/// Who has led in a term of the cluster to which a node belongs.
fn who_led(node: NodeId, term: Term, model: &Model) -> Option<&NodeId> {
    model.led.get(&(model.nodes[&node].metrics.cluster, term))
}

fn has_led(node: NodeId, led: Leadership, since: Term, model: &Model) -> Verdict {
    let Leadership { leader, term } = led;
    let known = who_led(node, term, model);
    match known == Some(&leader) && term >= since {
        true => Ok(()),
        false => Err(format!(
            "node {node}, asked in term {since}, says that {leader} leads in term {term}, in which \
             {known:?} does"
        )),
    }
}

/// Whether what somebody was told of a transfer is so, who has asked for it in this term.
pub fn is_transferred(
    node: NodeId,
    to: Option<NodeId>,
    asked: Term,
    told: &Result<Leadership, TransferError>,
    model: &Model,
) -> Verdict {
    match told {
        Ok(led) if to.is_some_and(|to| led.leader != to) => {
            Err(format!("node {node} was to transfer leadership to {to:?}, and did to {led:?}"))
        }
        Ok(led) | Err(TransferError::Failed { why: TransferFailure::OtherLeader(led), .. }) => {
            has_led(node, *led, asked, model)
        }
        Err(_) => Ok(()),
    }
}

/// Whether what somebody was told of a campaign is so.
pub fn has_campaigned(
    node: NodeId,
    asked: Term,
    told: &Result<Leadership, CampaignError>,
    model: &Model,
) -> Verdict {
    match told {
        Ok(led) if led.leader != node => Err(format!("node {node} has won, and {led:?} leads")),
        Ok(led) | Err(CampaignError::LeaderIsAlive(led)) => has_led(node, *led, asked, model),
        Err(_) => Ok(()),
    }
}

/// Whether a node that says it leads no more in a term may have led in it, and doesn't. (Elected
/// and told in one turn, it has shown to nobody that it led.)
pub fn has_stepped_down(
    node: NodeId,
    asked: Term,
    told: &Result<Term, StepDownError>,
    model: &Model,
) -> Verdict {
    let Ok(term) = *told else { return Ok(()) };
    if who_led(node, term, model).is_some() || term < asked {
        has_led(node, Leadership { leader: node, term }, asked, model)?;
    }
    let now = &model.nodes[&node].metrics;
    match now.role == Role::Leader && now.term == term {
        true => Err(format!("node {node} says that it leads no more in term {term}, and does")),
        false => Ok(()),
    }
}
