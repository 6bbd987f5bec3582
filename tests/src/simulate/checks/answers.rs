//! Nobody waits for ever: every question of a client is answered within a bound (by its outcome, or
//! by the word that it is unknown), as long as the node that it was asked gets the processor.

use std::time::Duration;

use super::Verdict;
use crate::simulate::history::Operation;

/// Whether all that were asked before `now - bound` have been answered.
pub fn check(operations: &[Operation], now: Duration, bound: Duration) -> Verdict {
    let stuck = |operation: &&Operation| operation.ended.is_none() && operation.begun + bound < now;
    match operations.iter().find(stuck) {
        Some(operation) => {
            Err(format!("{operation:?} has no answer after {:?}", now - operation.begun))
        }
        None => Ok(()),
    }
}
