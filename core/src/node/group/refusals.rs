//! The errors of requests that found no leader.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use quorate_rt::channel::watch;

use crate::error::{ChangeError, Leader, ReadError, WriteError};
use crate::hindrance::Hindrance;
use crate::metrics::Metrics;

/// Makes errors of what is published. As long as that is the same, they share one reason: thousands
/// of requests may be refused at a time.
pub(super) struct Refusals {
    metrics: Rc<watch::Sender<Metrics>>,
    last: RefCell<Option<Arc<Hindrance>>>,
}

impl Refusals {
    pub(super) fn new(metrics: Rc<watch::Sender<Metrics>>) -> Self {
        Self { metrics, last: RefCell::default() }
    }

    /// No leader has taken a write, or another entry has taken its place.
    pub(super) fn of_write(&self) -> WriteError {
        let (leader, why) = self.reasons();
        WriteError::NotLeader { leader, why }
    }

    /// No leader has confirmed a read.
    pub(super) fn of_read(&self) -> ReadError {
        let (leader, why) = self.reasons();
        ReadError::NotLeader { leader, why }
    }

    /// No leader has taken a change of the membership.
    pub(super) fn of_change(&self) -> ChangeError {
        let (leader, why) = self.reasons();
        ChangeError::NotLeader { leader, why }
    }

    fn reasons(&self) -> (Option<Leader>, Arc<Hindrance>) {
        let metrics = self.metrics.borrow();
        let mut last = self.last.borrow_mut();
        let why = match last.take().filter(|last| last.is_of(&metrics)) {
            Some(same) => same,
            None => Arc::new(metrics.hindrance()),
        };
        *last = Some(Arc::clone(&why));
        (leader(&metrics), why)
    }
}

/// The leader and its address.
fn leader(metrics: &Metrics) -> Option<Leader> {
    let id = metrics.leader?;
    let address = metrics.membership.as_ref()?.address(id)?.to_owned();
    Some(Leader { id, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    #[test]
    fn refusals_for_one_reason_share_it() {
        let (metrics, _receiver) = watch::channel(Metrics { id: 2, ..Metrics::default() });
        let metrics = Rc::new(metrics);
        let refusals = Refusals::new(Rc::clone(&metrics));
        let why = || match refusals.of_write() {
            WriteError::NotLeader { why, .. } => why,
            other => panic!("{other}"),
        };
        let first = why();
        assert!(Arc::ptr_eq(&first, &why()));
        metrics.send_modify(|metrics| metrics.applied = 7);
        assert!(Arc::ptr_eq(&first, &why()), "it has nothing to do with that");
        metrics.send_modify(|metrics| metrics.term = Term(4));
        let next = why();
        assert!(next.term == Term(4) && first.term == Term(0));
        assert!(
            matches!(refusals.of_read(), ReadError::NotLeader { why, .. } if Arc::ptr_eq(&why, &next))
        );
    }
}
