//! Runs whole clusters in the simulator, a seed each, and tells of the first that violates
//! something.
//!
//! ```console
//! $ cargo run --release -p quorate-tests --bin simulate -- --seeds 0..1000
//! $ cargo run --release -p quorate-tests --bin simulate -- --seed 7 --verbose
//! $ cargo run --release -p quorate-tests --features planted --bin simulate -- --planted all
//! ```

// This code runs outside of simulations, on real threads and in real time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use quorate::planted::{self, Bug};
use quorate_tests::simulate::planted::{Hunt, Shows, hunt, shows};
use quorate_tests::simulate::{
    Epilogue, Fault, Overrides, Plan, Profile, Report, run, shrink, tell,
};

/// A third less time than with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often progress is told of.
const PROGRESS: Duration = Duration::from_secs(5);

/// How much of what each node did before a violation is told.
const LAST: usize = 40;

/// Runs whole clusters of the shipped code in a simulator: engine, node, TCP transport and
/// write-ahead log, under faults of the network, of processes, disks and clocks. Everything in a
/// run is drawn from its seed.
#[derive(Parser)]
struct Arguments {
    /// The seeds to run: from the first up to, and without, the second.
    #[arg(long, value_parser = seeds, default_value = "0..100", conflicts_with = "seed")]
    seeds: Range<u64>,
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// What kind of runs.
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// How many seeds are run at once [default: as many as there are cores].
    #[arg(long)]
    jobs: Option<usize>,
    /// Each seed is run twice, and must do the same.
    #[arg(long)]
    check_determinism: bool,
    /// Looks for a shorter run that violates the same.
    #[arg(long)]
    shrink: bool,
    /// Goes on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Tells of everything that is seen in a run (with --seed).
    #[arg(long, requires = "seed")]
    verbose: bool,
    /// So many nodes, whatever the seed says.
    #[arg(long)]
    nodes: Option<u64>,
    /// Faults for so many milliseconds, whatever the seed says.
    #[arg(long)]
    duration: Option<u64>,
    /// So many clients, whatever the seed says.
    #[arg(long)]
    clients: Option<u64>,
    /// None of these faults. May be given several times.
    #[arg(long, value_enum)]
    without: Vec<Fault>,
    /// What is tried when all is well again, whatever the seed says.
    #[arg(long, value_enum)]
    epilogue: Option<Epilogue>,
    /// Plants defects, one at a time, and runs seeds until a check sees it: their ids, or `all`;
    /// `list` tells of them. With --seed: runs that seed with it. Takes a build with `--features
    /// planted`.
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    planted: Vec<String>,
    /// How many seconds each planted defect is looked for.
    #[arg(long, default_value_t = 120)]
    budget: u64,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (begin, end) = text.split_once("..").ok_or("it looks like 0..100")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(begin)?..number(end)?)
}

impl Arguments {
    fn overrides(&self) -> Overrides {
        Overrides {
            nodes: self.nodes,
            duration: self.duration.map(Duration::from_millis),
            clients: self.clients,
            without: self.without.iter().copied().collect(),
            epilogue: self.epilogue,
        }
    }

    fn jobs(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        self.jobs.unwrap_or_else(cores).max(1)
    }

    fn plan(&self, seed: u64) -> Plan {
        Plan::new(seed, self.profile, &self.overrides())
    }

    /// The defects to be planted.
    fn bugs(&self) -> Result<Vec<Bug>, String> {
        let all = Bug::ALL.iter().copied();
        if self.planted == ["all"] {
            return Ok(all.collect());
        }
        let named = |name: &String| all.clone().find(|bug| bug.to_string() == *name);
        let bug = |name| named(name).ok_or_else(|| format!("there is no defect {name}"));
        self.planted.iter().map(bug).collect()
    }

    /// The defect of all runs, where there is only one.
    fn bug(&self) -> Option<Bug> {
        self.bugs().ok()?.first().copied()
    }

    /// The command that shows a run again.
    fn command(&self, seed: u64, overrides: &Overrides) -> String {
        let profile = match self.profile {
            Profile::Default => String::new(),
            other => format!(" --profile {other}"),
        };
        let (features, planted) = match self.bug() {
            Some(bug) => (" --features planted", format!(" --planted {bug}")),
            None => ("", String::new()),
        };
        format!(
            "cargo run --release -p quorate-tests{features} --bin simulate -- --seed {seed}{profile}{overrides}{planted} --verbose"
        )
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A node that panics tells so as it ends; here it would only be in the way.
    std::panic::set_hook(Box::new(|_| ()));
    if !arguments.planted.is_empty() && !planted::POSSIBLE {
        println!("for that it has to be built with --features planted");
        return ExitCode::FAILURE;
    }
    if arguments.planted == ["list"] {
        list();
        return ExitCode::SUCCESS;
    }
    match arguments.bugs() {
        Err(reason) => {
            println!("{reason}");
            return ExitCode::FAILURE;
        }
        Ok(bugs) if !bugs.is_empty() && arguments.seed.is_none() => {
            return hunt_all(&arguments, &bugs);
        }
        Ok(_) => {}
    }
    match arguments.seed {
        Some(seed) if arguments.verbose => tell_of(&arguments, seed, true),
        Some(seed) => run_all(&arguments, seed..seed + 1),
        None => run_all(&arguments, arguments.seeds.clone()),
    }
}

/// Tells of the defects that can be planted.
fn list() {
    for bug in Bug::ALL {
        println!("{bug:<4} {}", bug.what());
        if let Shows::Elsewhere { reason, test } = shows(*bug) {
            println!("     Not seen here: {reason}. Seen by {test}");
        }
    }
}

/// Looks for each of these defects, and tells what came of it.
fn hunt_all(arguments: &Arguments, bugs: &[Bug]) -> ExitCode {
    let (first, jobs) = (arguments.seeds.start, arguments.jobs());
    let budget = Duration::from_secs(arguments.budget);
    let mut hunts = Vec::new();
    for bug in bugs {
        let hunt = hunt(*bug, first, jobs, budget, &arguments.overrides());
        println!("{}", row(&hunt));
        for other in &hunt.others {
            let (profile, seed, violation) = (other.profile, other.seed, &other.violation);
            println!("     seed {seed} of {profile} fails without it, too: {violation}");
        }
        hunts.push(hunt);
    }
    println!("\n{:<4} {:<5} {:<20} {:>6} {:>7}  how", "id", "found", "by", "seeds", "seconds");
    hunts.iter().for_each(|hunt| println!("{}", row(hunt)));
    let missed = |hunt: &&Hunt| hunt.found.is_none() && matches!(shows(hunt.bug), Shows::In(_));
    let missed: Vec<_> = hunts.iter().filter(missed).map(|hunt| hunt.bug).collect();
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not found, though they should be: {missed:?}");
    ExitCode::FAILURE
}

/// What came of looking for a defect, as a row of the table.
fn row(hunt: &Hunt) -> String {
    let Hunt { bug, seeds, elapsed, found, others: _ } = hunt;
    let (found, by, how) = match (found, shows(*bug)) {
        (Some(found), _) => {
            let (profile, seed) = (found.profile, found.seed);
            ("yes", found.violation.check, format!("seed {seed} of {profile}"))
        }
        (None, Shows::Elsewhere { reason, test }) => ("no", "-", format!("{reason}; see {test}")),
        (None, Shows::In(_)) => ("NO", "-", String::new()),
    };
    format!(
        "{:<4} {found:<5} {by:<20} {seeds:>6} {:>7.1}  {how}",
        bug.to_string(),
        elapsed.as_secs_f64()
    )
}

/// What was found in many runs.
#[derive(Default)]
struct Totals {
    seeds: u64,
    virtual_time: Duration,
    events: u64,
    operations: u64,
    looks: u64,
    counts: BTreeMap<&'static str, u64>,
    /// The seed with the most events, and how many.
    longest: (u64, u64),
    failed: Vec<u64>,
    differing: Vec<u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, report: &Report, repeated: bool) {
        self.seeds += 1;
        self.virtual_time += report.virtual_time;
        self.events += report.events;
        self.operations += report.operations;
        self.looks += report.looks;
        if report.events > self.longest.1 {
            self.longest = (seed, report.events);
        }
        for (what, count) in &report.counts {
            *self.counts.entry(what).or_default() += count;
        }
        if report.violation.is_some() {
            self.failed.push(seed);
        }
        if !repeated {
            self.differing.push(seed);
        }
    }

    fn tell(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        println!(
            "{} seeds in {seconds:.1} s: {:.1} seeds/s, {:.1} virtual hours ({:.0} virtual seconds a second), {:.1} million events",
            self.seeds,
            self.seeds as f64 / seconds,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.virtual_time.as_secs_f64() / seconds,
            self.events as f64 / 1e6,
        );
    }

    fn tell_all(&self, elapsed: Duration) {
        println!("what was done, and what went wrong:");
        for (what, count) in &self.counts {
            println!("  {count:>10} {what}");
        }
        println!("{} operations of clients, {} looks of checks", self.operations, self.looks);
        let (longest, events) = self.longest;
        println!("the longest run was that of seed {longest}, with {events} events");
        self.tell(elapsed);
    }
}

fn run_all(arguments: &Arguments, seeds: Range<u64>) -> ExitCode {
    let jobs = arguments.jobs();
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (sender, reports) = mpsc::channel();
    let begun = Instant::now();
    let mut totals = Totals::default();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, stop, end) = (sender.clone(), &next, &stop, seeds.end);
            scope.spawn(move || {
                planted::set(arguments.bug());
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let report = run(&arguments.plan(seed));
                    let repeated = !arguments.check_determinism
                        || run(&arguments.plan(seed)).hash == report.hash;
                    if sender.send((seed, report, repeated)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut told = Instant::now();
        for (seed, report, repeated) in &reports {
            totals.add(seed, &report, repeated);
            if !repeated {
                println!("seed {seed}: two runs of it are not the same");
            }
            if let Some(violation) = &report.violation {
                println!("seed {seed}: VIOLATION of {violation}");
                if !arguments.keep_going {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                totals.tell(begun.elapsed());
            }
        }
    });
    totals.tell_all(begun.elapsed());
    if totals.failed.is_empty() && totals.differing.is_empty() {
        println!("no violation");
        return ExitCode::SUCCESS;
    }
    totals.failed.sort_unstable();
    println!("{} seeds have failed: {:?}", totals.failed.len(), totals.failed);
    println!("{} seeds are not the same twice: {:?}", totals.differing.len(), totals.differing);
    if let Some(first) = totals.failed.first() {
        tell_of(arguments, *first, false);
    }
    ExitCode::FAILURE
}

/// Runs a seed and tells of it: all, or what came before the violation.
fn tell_of(arguments: &Arguments, seed: u64, all: bool) -> ExitCode {
    planted::set(arguments.bug());
    let mut overrides = arguments.overrides();
    if arguments.shrink {
        println!("looking for a shorter run that fails as well");
        overrides = shrink(seed, arguments.profile, &overrides, |tried, fails| {
            println!("  {}:{tried}", if fails { "fails" } else { "works" });
        });
    }
    let plan = Plan::new(seed, arguments.profile, &overrides);
    let (report, story) = tell(&plan);
    println!("\n{plan}\n");
    if all {
        story.lines.iter().for_each(|line| println!("{line}"));
    } else {
        let mut lines: Vec<_> = story.lines.iter().rev().take(200).collect();
        lines.reverse();
        println!("the last of what was seen:");
        lines.iter().for_each(|line| println!("{line}"));
        let mut of_hosts: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (host, happened) in story.recent.iter().rev() {
            let last = of_hosts.entry(host).or_default();
            if last.len() < LAST {
                last.push(happened);
            }
        }
        for (host, happened) in of_hosts {
            println!("the last that has happened to {host}:");
            for one in happened.iter().rev() {
                let (at, what, detail, more) = (one.at, one.what, one.detail, one.more);
                println!("{:>12.6} {what} {detail} {more:x}", at.as_secs_f64());
            }
        }
    }
    match report.violation {
        None => {
            println!("no violation in {:?}, hash {:016x}", report.virtual_time, report.hash);
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("\nseed {seed}: VIOLATION of {violation}");
            println!("again: {}", arguments.command(seed, &overrides));
            ExitCode::FAILURE
        }
    }
}
