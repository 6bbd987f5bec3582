//! Elections, counted on virtual time: how many terms and how much time it takes until a leader has
//! committed its first entry, when several nodes campaign at once.
//!
//! Nothing here is measured in real time: the same seeds give the same figures on any machine.

mod engine;
mod model;
mod report;
mod simulation;

use std::collections::BTreeMap;

use anyhow::Result;

use self::engine::Quorate;
use self::model::{GoingOver, Model, Unordered, Yielding};
use self::simulation::{Event, MILLISECOND, Outcome, Setting, Time, Timers, run};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many runs there are of each setting, each with a seed of its own.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// How many nodes there are.
    #[arg(long, value_delimiter = ',', default_values_t = [3, 5, 7])]
    nodes: Vec<usize>,
    /// The mean delay of a message, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5, 20])]
    delay: Vec<u64>,
    /// The percentage of the messages that are lost.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 5, 20])]
    loss: Vec<u32>,
    /// Prints a row for each number of nodes and each delay, and not the worst of them.
    #[arg(long)]
    all: bool,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Unordered,
    GoingOver,
    Yielding,
    Engine,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Unordered, Self::GoingOver, Self::Yielding, Self::Engine];

    fn name(self) -> &'static str {
        match self {
            Self::Unordered => "unordered (model)",
            Self::GoingOver => "openraft's (model)",
            Self::Yielding => "yielding (model)",
            Self::Engine => "Quorate (engine)",
        }
    }

    fn run(self, setting: Setting, seed: u64) -> Outcome {
        match self {
            Self::Unordered => run::<Model<Unordered>>(setting, seed),
            Self::GoingOver => run::<Model<GoingOver>>(setting, seed),
            Self::Yielding => run::<Model<Yielding>>(setting, seed),
            Self::Engine => run::<Quorate>(setting, seed),
        }
    }
}

/// What was counted in all runs of a setting.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Terms until a leader has committed an entry: the mean, and the 99th percentile.
    mean_terms: f64,
    p99_terms: u64,
    /// The time until then.
    mean_time: f64,
    p99_time: Time,
    /// In how many runs two nodes have led in one term.
    two_leaders: u64,
}

impl Counts {
    fn of(subject: Subject, setting: Setting, seeds: u64) -> Self {
        let outcomes: Vec<_> = (0..seeds).map(|seed| subject.run(setting, seed)).collect();
        let mut terms: Vec<u64> = outcomes.iter().map(|outcome| outcome.terms).collect();
        let mut times: Vec<Time> = outcomes.iter().map(|outcome| outcome.time).collect();
        terms.sort_unstable();
        times.sort_unstable();
        let mean = |values: &[u64]| values.iter().sum::<u64>() as f64 / values.len() as f64;
        let p99 = (outcomes.len() * 99 / 100).min(outcomes.len() - 1);
        Self {
            mean_terms: mean(&terms),
            p99_terms: terms[p99],
            mean_time: mean(&times),
            p99_time: times[p99],
            two_leaders: outcomes.iter().filter(|outcome| outcome.two_leaders).count() as u64,
        }
    }
}

type Counted = BTreeMap<(Setting, Subject), Counts>;

/// Counts all settings, and prints what has come of it.
///
/// # Errors
/// A floor is missed: see [`report::floors`].
pub(crate) fn bench(options: &Options) -> Result<()> {
    anyhow::ensure!(options.seeds > 0, "there is nothing to count without a seed");
    let mut counted = Counted::new();
    for setting in settings(options) {
        for subject in Subject::ALL {
            counted.insert((setting, subject), Counts::of(subject, setting, options.seeds));
        }
    }
    println!("{}", report::table(&counted, options.all));
    println!("`quorate-benches elections`, {} seeds for each setting.\n", options.seeds);
    println!("{}\n", report::agreement(&counted));
    report::floors(&counted)
}

fn settings(options: &Options) -> Vec<Setting> {
    let mut settings = Vec::new();
    for event in [Event::ColdStart, Event::LeaderDies] {
        for timers in [Timers::Natural, Timers::Equal] {
            for &loss in &options.loss {
                for &members in &options.nodes {
                    for delay in options.delay.iter().map(|delay| delay * MILLISECOND) {
                        settings.push(Setting { event, timers, loss, members, delay });
                    }
                }
            }
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(timers: Timers, loss: u32) -> Setting {
        let delay = 5 * MILLISECOND;
        Setting { event: Event::LeaderDies, timers, loss, members: 5, delay }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let setting = setting(Timers::Natural, 20);
        for subject in Subject::ALL {
            let run = || (0..20).map(|seed| subject.run(setting, seed)).collect::<Vec<_>>();
            assert_eq!(run(), run(), "{}", subject.name());
        }
    }

    #[test]
    fn when_all_wake_at_once_the_engine_elects_in_one_term_and_the_unordered_rule_in_two() {
        let setting = setting(Timers::Equal, 0);
        let terms =
            |subject: Subject| (0..20).map(|seed| subject.run(setting, seed).terms).sum::<u64>();
        assert_eq!(terms(Subject::Engine), 20);
        assert_eq!(terms(Subject::Yielding), 20);
        assert!(terms(Subject::Unordered) > 30);
    }
}
