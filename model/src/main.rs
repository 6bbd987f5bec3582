//! Explores the model, or shows what goes wrong without a rule.

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_model::explore::{Model, Outcome, Report, explore};
use quorate_model::rule::Rule;
use quorate_model::scopes::{Scope, formation, replication};

/// Explores every state of a model of identity, formation and the exchange of a lost disk.
///
/// Fails if there is a violation; with `--without` or `--each-rule`, if there is none.
#[derive(Parser)]
struct Options {
    /// How much to explore.
    #[arg(long, value_enum, default_value = "small")]
    scope: Scope,
    /// Drops a rule, and prints the shortest way to a violation.
    #[arg(long, value_enum)]
    without: Option<Rule>,
    /// Drops each rule in turn, and prints how long the shortest way to a violation is.
    #[arg(long, conflicts_with = "without")]
    each_rule: bool,
    /// The states to visit at most in each exploration. A million takes 45 megabytes.
    #[arg(long, default_value_t = 170_000_000)]
    limit: usize,
    /// The model; both if none is named.
    #[arg(value_enum)]
    model: Option<Name>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Replication,
    Formation,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let fine = if options.each_rule {
        Rule::value_variants().iter().all(|&rule| without(&options, rule, false))
    } else if let Some(rule) = options.without {
        without(&options, rule, true)
    } else {
        with_all(&options)
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores with all rules. Returns whether everything was visited without a violation.
fn with_all(options: &Options) -> bool {
    let wanted = |name| options.model.is_none_or(|only| only == name);
    let mut safe = true;
    if wanted(Name::Replication) {
        for model in replication(options.scope) {
            safe &= matches!(report(&model, options.limit).outcome, Outcome::Safe);
        }
    }
    if wanted(Name::Formation) {
        for model in formation(options.scope) {
            safe &= matches!(report(&model, options.limit).outcome, Outcome::Safe);
        }
    }
    safe
}

/// Explores one model and prints the result.
fn report<M: Model + Display>(model: &M, limit: usize) -> Report {
    let report = explore(model, limit);
    let Report { states, steps, depth, outcome } = &report;
    print!("{model}: {states} states, {steps} steps, depth {depth}: ");
    match outcome {
        Outcome::Safe => println!("no violation"),
        Outcome::Limit => println!("not everything was visited"),
        Outcome::Violation(trace) => {
            println!("VIOLATION");
            for (at, step) in trace.steps.iter().enumerate() {
                println!("{:4}. {step}", at + 1);
            }
            println!("      {}", trace.violation);
        }
    }
    report
}

/// Explores without a rule until there is a violation. Returns whether there is one.
fn without(options: &Options, rule: Rule, trace: bool) -> bool {
    let found = if rule.of_replication() {
        let mut models = replication(options.scope).into_iter();
        models.any(|mut model| {
            model.without = Some(rule);
            violated(&model, rule, options.limit, trace)
        })
    } else {
        let mut models = formation(options.scope).into_iter();
        models.any(|mut model| {
            model.without = Some(rule);
            violated(&model, rule, options.limit, trace)
        })
    };
    if !found {
        println!("{rule:?}: NOTHING IS WRONG without it in this scope");
    }
    found
}

fn violated<M: Model + Display>(model: &M, rule: Rule, limit: usize, trace: bool) -> bool {
    if trace {
        return matches!(report(model, limit).outcome, Outcome::Violation(_));
    }
    let report = explore(model, limit);
    let Outcome::Violation(trace) = report.outcome else {
        return false;
    };
    println!("{rule:?}: {} steps ({model}): {}", trace.steps.len(), trace.violation);
    true
}
