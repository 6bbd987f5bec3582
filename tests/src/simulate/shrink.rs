//! Looks for a shorter run that fails as well: without a kind of fault, with fewer nodes, fewer
//! clients, less time.

use std::time::Duration;

use super::faults::Fault;
use super::plan::{Epilogue, Overrides, Plan};
use super::profile::Profile;
use super::run;

/// Overrides that make the run of this seed smaller, and still violate the same check. `tried` is
/// told of each try, and whether it still fails.
pub fn shrink(
    seed: u64,
    profile: Profile,
    begin: &Overrides,
    mut tried: impl FnMut(&Overrides, bool),
) -> Overrides {
    let violated = |overrides: &Overrides| {
        run(&Plan::new(seed, profile, overrides)).violation.map(|violation| violation.check)
    };
    let mut best = begin.clone();
    let Some(check) = violated(&best) else { return best };
    loop {
        let before = best.clone();
        for next in smaller(&Plan::new(seed, profile, &best), &best) {
            let fails = violated(&next) == Some(check);
            tried(&next, fails);
            if fails {
                best = next;
                break;
            }
        }
        if best == before {
            return best;
        }
    }
}

/// One step smaller, in each way that there is; the largest steps first.
fn smaller(plan: &Plan, than: &Overrides) -> Vec<Overrides> {
    let mut smaller = Vec::new();
    let mut add = |change: &dyn Fn(&mut Overrides)| {
        let mut next = than.clone();
        change(&mut next);
        smaller.push(next);
    };
    if plan.duration > Duration::from_millis(200) {
        add(&|next| next.duration = Some(plan.duration / 2));
    }
    for (fault, _) in &plan.faults {
        let fault: Fault = *fault;
        add(&|next| {
            next.without.insert(fault);
        });
    }
    if plan.epilogue != Epilogue::None {
        add(&|next| next.epilogue = Some(Epilogue::None));
    }
    for nodes in [1, 2, 3, 5].into_iter().filter(|nodes| *nodes < plan.nodes) {
        add(&|next| next.nodes = Some(nodes));
    }
    if plan.load.clients > 1 {
        add(&|next| next.clients = Some(plan.load.clients / 2));
    }
    if plan.duration > Duration::from_millis(200) {
        add(&|next| next.duration = Some(plan.duration * 3 / 4));
    }
    smaller
}
