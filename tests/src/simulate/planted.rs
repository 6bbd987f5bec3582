//! Defects that are planted in the code on purpose (`quorate::planted`), and the runs that have
//! to find them: a check that misses a planted defect is not yet a check.

// This code runs outside of simulations, on real threads and in real time.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use quorate::planted::{self, Bug};

use super::observer::Violation;
use super::plan::{Overrides, Plan};
use super::profile::Profile;
use super::run::run;

/// A run that takes longer goes round in a circle.
const HANGS: Duration = Duration::from_secs(180);

/// Where a defect shows.
pub enum Shows {
    /// In runs of these profiles, in turn with the default one.
    In(&'static [Profile]),
    /// Not in a simulation, for this reason; this test sees it.
    Elsewhere { reason: &'static str, test: &'static str },
}

/// Where each defect shows.
pub fn shows(bug: Bug) -> Shows {
    use Profile::*;
    use Shows::{Elsewhere, In};
    match bug {
        Bug::E4 | Bug::E5 | Bug::R6 | Bug::M2 | Bug::M3 | Bug::M5 => In(&[Memberships]),
        Bug::M6 | Bug::M8 | Bug::M9 | Bug::M10 | Bug::M11 => In(&[Memberships]),
        Bug::M12 | Bug::M13 => In(&[Memberships]),
        Bug::M14 | Bug::M15 | Bug::M16 | Bug::M17 => In(&[Memberships]),
        Bug::X15 | Bug::X16 | Bug::X17 | Bug::X18 | Bug::X19 => In(&[Memberships]),
        Bug::I7 | Bug::I9 | Bug::X11 | Bug::P5 | Bug::P7 | Bug::P10 | Bug::R20 => In(&[Outside]),
        Bug::D9 => Elsewhere {
            reason: "a state machine that writes only what it can read",
            test: "tests/tests/snapshots.rs: a_snapshot_that_cannot_be_read_back_stands_for_nothing",
        },
        Bug::E8 => In(&[Endings, Memberships]),
        Bug::E1 | Bug::E6 | Bug::E7 | Bug::E9 | Bug::D6 | Bug::R11 | Bug::X14 => In(&[Endings]),
        Bug::I10 | Bug::V1 | Bug::V2 | Bug::V3 => In(&[Endings]),
        Bug::L2 | Bug::S2 | Bug::S3 | Bug::S4 | Bug::X3 | Bug::X5 => In(&[Endings]),
        Bug::S1 | Bug::S5 | Bug::S6 | Bug::S7 => In(&[Endings, Snapshots]),
        Bug::S8 | Bug::M7 | Bug::X9 => In(&[Snapshots]),
        Bug::L1 | Bug::L3 => In(&[WildClocks]),
        Bug::E2 | Bug::D1 | Bug::D4 | Bug::X2 | Bug::X6 | Bug::X7 => In(&[Crashes]),
        Bug::X12 | Bug::X13 => In(&[Crashes]),
        Bug::D2 | Bug::D3 | Bug::D5 | Bug::D7 | Bug::X10 => In(&[Disks]),
        Bug::R15 => In(&[Identity]),
        Bug::I1 | Bug::I2 | Bug::I3 | Bug::I4 | Bug::I8 => In(&[Identity]),
        Bug::F1 | Bug::F2 | Bug::F3 | Bug::F4 | Bug::I5 => In(&[Formation]),
        Bug::E3 | Bug::L6 | Bug::R1 | Bug::R2 | Bug::R3 | Bug::R4 | Bug::R5 => In(&[Network]),
        Bug::R7 | Bug::R8 | Bug::R9 | Bug::R10 | Bug::R12 | Bug::R13 => In(&[Network]),
        Bug::D10 | Bug::R14 | Bug::R16 | Bug::X1 | Bug::X4 | Bug::X8 => In(&[Network]),
    }
}

/// What came of looking for a defect.
pub struct Hunt {
    pub bug: Bug,
    pub seeds: u64,
    pub elapsed: Duration,
    pub found: Option<Found>,
    /// Runs that have violated the same without the defect.
    pub others: Vec<Found>,
}

/// A run that has violated something.
#[derive(Clone)]
pub struct Found {
    pub profile: Profile,
    pub seed: u64,
    pub violation: Violation,
}

/// Runs seeds from `first` on, as many at once as there are jobs, until a check sees the defect or
/// the time is over.
pub fn hunt(bug: Bug, first: u64, jobs: usize, budget: Duration, overrides: &Overrides) -> Hunt {
    let mut hunt = Hunt { bug, seeds: 0, elapsed: Duration::ZERO, found: None, others: Vec::new() };
    let Shows::In(profiles) = shows(bug) else { return hunt };
    let begun = Instant::now();
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (sender, findings) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && begun.elapsed() < budget {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let number = (seed - first) as usize;
                    let profile = match number % 2 {
                        1 => profiles[number / 2 % profiles.len()],
                        _ => Profile::Default,
                    };
                    let plan = Plan::new(seed, profile, overrides);
                    let found = run_with(&plan, Some(bug)).map(|violation| {
                        let is_due_to_it = run_with(&plan, None).is_none();
                        (is_due_to_it, Found { profile, seed, violation })
                    });
                    let is_done = matches!(&found, Some((true, _)));
                    if sender.send(found).is_err() || is_done {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        drop(sender);
        for finding in findings {
            hunt.seeds += 1;
            match finding {
                Some((true, found)) => hunt.found = hunt.found.take().or(Some(found)),
                Some((false, other)) => hunt.others.push(other),
                None => {}
            }
        }
    });
    hunt.elapsed = begun.elapsed();
    hunt
}

/// Runs a plan on a thread of its own: with a defect it may never end.
fn run_with(plan: &Plan, bug: Option<Bug>) -> Option<Violation> {
    let (sender, report) = mpsc::channel();
    let plan = plan.clone();
    thread::spawn(move || {
        planted::set(bug);
        let _nobody_waits_any_more = sender.send(run(&plan).violation);
    });
    let hangs = |what: &str| Violation { check: "run", what: what.to_owned(), at: Duration::ZERO };
    match report.recv_timeout(HANGS) {
        Ok(violation) => violation,
        Err(RecvTimeoutError::Timeout) => Some(hangs("it does not end")),
        Err(RecvTimeoutError::Disconnected) => Some(hangs("it has ended without a report")),
    }
}
