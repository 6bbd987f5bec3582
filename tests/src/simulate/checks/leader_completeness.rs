//! Leader completeness (thesis 3.2, 3.6.3): whoever leads has all that was committed in earlier
//! terms.

use quorate::Role;

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct LeaderCompleteness;

impl Check for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader_completeness"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Turned { node, before, now } = seen else { return Ok(()) };
        let leads_newly =
            now.role == Role::Leader && (before.role != Role::Leader || before.term != now.term);
        if !leads_newly {
            return Ok(());
        }
        let log = &node_of(model, *node).submitted;
        let earlier = model.committed.iter().filter(|committed| committed.term < now.term);
        for committed in earlier {
            let log_id = committed.seal.log_id;
            demand(log.covers(log_id), || {
                let (term, of) = (now.term, committed.term);
                format!("node {node} leads in term {term} without {log_id}, committed in term {of}")
            })?;
        }
        Ok(())
    }
}
