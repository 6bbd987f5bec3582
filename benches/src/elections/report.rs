//! What was counted, as a table, and whether it is good enough.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};

use super::simulation::{Event, MILLISECOND, Setting, TIMEOUT, Time, Timers};
use super::{Counted, Counts, Subject};

/// The settings with this in common have a row for each subject.
type Group = (Event, Timers, u32, Option<(usize, Time)>);

fn group_of(setting: Setting, all: bool) -> Group {
    let Setting { event, timers, loss, members, delay } = setting;
    (event, timers, loss, all.then_some((members, delay)))
}

/// A row for each subject, event, kind of timers and loss: of all numbers of nodes and delays, the
/// worst, or with `all`, a row for each of these, too.
pub(super) fn table(counted: &Counted, all: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let delays: BTreeSet<Time> = counted.keys().map(|(setting, _)| setting.delay).collect();
    let names = ["election", "timers", "lost", "rule", "terms, mean", "worst", "p99"];
    let times = delays.iter().map(|delay| format!("p99 commit, {} ms", delay / MILLISECOND));
    let names = names.map(str::to_owned).into_iter().chain(times);
    table.set_header(names.chain(["two leaders".to_owned()]));
    let groups: BTreeSet<Group> = counted.keys().map(|(s, _)| group_of(*s, all)).collect();
    for group in groups {
        for subject in Subject::ALL {
            let of_row = |(setting, of): &(Setting, Subject)| {
                group_of(*setting, all) == group && *of == subject
            };
            let rows: Vec<(Setting, Counts)> = counted
                .iter()
                .filter(|(key, _)| of_row(key))
                .map(|((setting, _), counts)| (*setting, *counts))
                .collect();
            table.add_row(row(group, subject, &rows, &delays));
        }
    }
    for column in table.column_iter_mut().filter(|column| column.index != 3) {
        if column.index > 1 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn row(
    group: Group,
    subject: Subject,
    rows: &[(Setting, Counts)],
    delays: &BTreeSet<Time>,
) -> Vec<String> {
    let (event, timers, loss, one) = group;
    let event = match event {
        Event::ColdStart => "cold start",
        Event::LeaderDies => "leader dies",
    };
    let event = match one {
        Some((members, _)) => format!("{event}, {members} nodes"),
        None => event.to_owned(),
    };
    let timers = match timers {
        Timers::Natural => "natural",
        Timers::Equal => "equal",
    };
    let terms = || rows.iter().map(|(_, counts)| counts.mean_terms);
    let mean = terms().sum::<f64>() / rows.len() as f64;
    let worst = terms().fold(0.0, f64::max);
    let p99 = rows.iter().map(|(_, counts)| counts.p99_terms).max().unwrap_or_default();
    let time = |delay: &Time| {
        let of_delay = rows.iter().filter(|(setting, _)| setting.delay == *delay);
        let worst = of_delay.map(|(_, counts)| counts.p99_time).max();
        worst.map_or(String::new(), |time| format!("{} ms", time.div_ceil(MILLISECOND)))
    };
    let two_leaders: u64 = rows.iter().map(|(_, counts)| counts.two_leaders).sum();
    let mut row = vec![event, timers.to_owned(), format!("{loss} %"), subject.name().to_owned()];
    row.extend([format!("{mean:.3}"), format!("{worst:.3}"), p99.to_string()]);
    row.extend(delays.iter().map(time));
    row.push(two_leaders.to_string());
    row
}

/// How far the model of the engine's rule and the engine differ.
pub(super) fn agreement(counted: &Counted) -> String {
    let (mut terms, mut time): (f64, f64) = (0.0, 0.0);
    for ((setting, _), engine) in of(counted, Subject::Engine) {
        let model = &counted[&(*setting, Subject::Yielding)];
        terms = terms.max((model.mean_terms - engine.mean_terms).abs());
        time = time.max((model.mean_time - engine.mean_time).abs() / TIMEOUT as f64);
    }
    format!(
        "Of any setting, the means of the engine and of the model of its rule differ by at most \
         {terms:.3} terms, and {:.1} % of an election timeout.",
        100.0 * time
    )
}

fn of(counted: &Counted, subject: Subject) -> impl Iterator<Item = (&(Setting, Subject), &Counts)> {
    counted.iter().filter(move |((_, of), _)| *of == subject)
}

/// Prints what the engine has to reach, and what it has reached.
///
/// # Errors
/// It has missed one of these.
pub(super) fn floors(counted: &Counted) -> Result<()> {
    let engine = || of(counted, Subject::Engine).map(|((setting, _), counts)| (*setting, *counts));
    let equal = || engine().filter(|(setting, _)| setting.timers == Timers::Equal);
    let worst = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let two_leaders = engine().map(|(_, counts)| counts.two_leaders as f64);
    let mean_terms = equal().map(|(_, counts)| counts.mean_terms);
    let p99_terms = equal().map(|(_, counts)| counts.p99_terms as f64);
    let no_loss = |(setting, _): &(Setting, Counts)| setting.loss == 0;
    let delays = equal().filter(no_loss).map(|(setting, counts)| {
        counts.p99_time as f64 / setting.delay as f64 // From when all wake.
    });
    let deaths = engine().filter(no_loss).filter(|(setting, _)| {
        setting.event == Event::LeaderDies && setting.timers == Timers::Natural
    });
    let deaths = deaths.map(|(_, counts)| counts.p99_time as f64 / TIMEOUT as f64);
    let is_worse = |(setting, counts): &(Setting, Counts)| {
        let before = &counted[&(*setting, Subject::Unordered)];
        counts.mean_terms > before.mean_terms
            || counts.p99_terms > before.p99_terms
            || counts.p99_time > before.p99_time
    };
    let worse = engine().filter(is_worse).count();
    let floors = [
        ("runs with two leaders in a term", worst(&mut { two_leaders }), 0.0),
        ("equal timers: mean terms", worst(&mut { mean_terms }), 1.01),
        ("equal timers: p99 of terms", worst(&mut { p99_terms }), 1.0),
        (
            "equal timers, no loss: p99 until the first commit, in delays",
            worst(&mut { delays }),
            10.0,
        ),
        ("death, no loss: p99 until the first commit, in timeouts", worst(&mut { deaths }), 1.25),
        ("settings in which the unordered rule is better", worse as f64, 0.0),
    ];
    let mut missed = String::new();
    for (what, worst, most) in floors {
        let is_missed = worst > most;
        println!("{what}: {worst:.3}, at most {most}{}", if is_missed { ": MISSED" } else { "" });
        if is_missed {
            let _ = write!(missed, "; {what}: {worst:.3}");
        }
    }
    if !missed.is_empty() {
        bail!("floors that are missed{missed}");
    }
    Ok(())
}
