//! What all benches have in common: cells that are run in turn, several times, and what is told of
//! them.

mod chart;
mod machine;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use self::machine::Machine;

/// How a bench is run and where its results go.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)] // clap names a group by its type, and each bench has `Options` of its own.
pub(crate) struct Options {
    /// How often each cell is run; the cells take turns. Tables show medians and the spread.
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// Runs only rows with one of these names, or, where there is no row of that name, those that
    /// contain it.
    #[arg(long)]
    pub(crate) only: Vec<String>,
    /// Writes all that was measured, run by run.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Writes a chart.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

/// How a figure is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// So many a second.
    Rate,
    /// In seconds.
    Time,
    /// How many times another's.
    Ratio,
    /// The fewer, the better.
    Count,
    /// A part of something; the less, the better.
    Share,
}

/// A figure that each run of a cell gives.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

/// A column that sets a figure of a cell against that of another row of its group, run by run.
pub(crate) struct Against {
    pub(crate) name: &'static str,
    pub(crate) column: usize,
    /// The rows that a row is set against; of several, the best.
    pub(crate) rows: fn(row: &str) -> Vec<String>,
}

/// What is measured at one place of the table.
pub(crate) struct Cell {
    pub(crate) group: String,
    pub(crate) row: String,
    /// Runs it, and gives a figure for each column.
    pub(crate) run: Box<dyn FnMut() -> Result<Vec<f64>>>,
}

/// A table to be filled in.
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// What the groups of rows are: "clients".
    pub(crate) groups: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) against: Vec<Against>,
    pub(crate) cells: Vec<Cell>,
}

/// A row as it was measured.
#[derive(Debug, Serialize)]
struct Measured {
    group: String,
    row: String,
    /// By run, then by column.
    runs: Vec<Vec<f64>>,
}

/// A table that is filled in.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    title: String,
    command: String,
    machine: Machine,
    groups: &'static str,
    columns: Vec<Column>,
    rows: Vec<Measured>,
    /// The runs that failed and were repeated, and why.
    repeated: Vec<String>,
}

/// How often a run of a cell is tried. Where a peer fails now and then, as one that loses its
/// leader on a busy machine, the rest of the table is worth another try; what always fails is an
/// error.
const ATTEMPTS: usize = 3;

/// Runs a cell until it succeeds, at most [`ATTEMPTS`] times, and notes what failed.
fn figures_of(cell: &mut Cell, run: usize, repeated: &mut Vec<String>) -> Result<Vec<f64>> {
    let Cell { group, row, run: measure } = cell;
    for _ in 1..ATTEMPTS {
        match measure() {
            Ok(figures) => return Ok(figures),
            Err(error) => {
                let note = format!("{row}, {group}, run {run}: {error:#}");
                progress(&format!("repeated: {note}\n"));
                repeated.push(note);
            }
        }
    }
    measure().with_context(|| format!("{row}, {group}, after {ATTEMPTS} attempts"))
}

impl Bench {
    /// Runs all cells in turn, as often as `options` say, prints the table and writes the files
    /// that are asked for.
    pub(crate) fn run(mut self, options: &Options) -> Result<()> {
        let is_named = |part: &String| self.cells.iter().any(|cell| cell.row == *part);
        let (names, parts): (Vec<_>, Vec<_>) = options.only.iter().partition(|part| is_named(part));
        self.cells.retain(|Cell { row, .. }| {
            options.only.is_empty()
                || names.contains(&row)
                || parts.iter().any(|part| row.contains(part.as_str()))
        });
        let mut rows: Vec<Measured> = Vec::new();
        for Cell { group, row, .. } in &self.cells {
            rows.push(Measured { group: group.clone(), row: row.clone(), runs: Vec::new() });
        }
        let mut repeated = Vec::new();
        for run in 1..=options.runs {
            for (cell, measured) in self.cells.iter_mut().zip(&mut rows) {
                let figures = figures_of(cell, run, &mut repeated)?;
                let Cell { group, row, .. } = cell;
                assert_eq!(figures.len(), self.columns.len());
                let shown = table::show(figures[0], self.columns[0].unit);
                progress(&format!("run {run}/{}: {group}, {row}: {shown}", options.runs));
                measured.runs.push(figures);
            }
        }
        let Self { name, title, groups, mut columns, against, .. } = self;
        set_against(&mut rows, &mut columns, &against);
        let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let report = Report {
            bench: name,
            title,
            command: format!("quorate-benches {command}"),
            machine: Machine::this(),
            groups,
            columns,
            rows,
            repeated,
        };
        println!("{}", report.table());
        if let Some(path) = &options.json {
            let json = serde_json::to_string_pretty(&report)?;
            write(path, &json)?;
        }
        if let Some(path) = &options.svg {
            write(path, &report.chart()?)?;
        }
        Ok(())
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("{} can't be written", path.display()))
}

/// On a terminal each line takes the place of the one before.
fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    } else {
        eprintln!("{line}");
    }
}

/// Adds the columns that compare. A row that is missing, or that is compared with itself, gives
/// none (not a number).
fn set_against(rows: &mut [Measured], columns: &mut Vec<Column>, against: &[Against]) {
    for &Against { name, column, rows: others } in against {
        let lower_is_better =
            matches!(columns[column].unit, Unit::Time | Unit::Count | Unit::Share);
        let ratios: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let others = others(&row.row);
                let of_group = rows.iter().filter(|other| other.group == row.group);
                let others: Vec<_> = of_group.filter(|r| others.contains(&r.row)).collect();
                let ratio = |(run, figures): (usize, &Vec<f64>)| {
                    let others = others.iter().map(|other| other.runs[run][column]);
                    match lower_is_better {
                        true => others.fold(f64::NAN, f64::min) / figures[column],
                        false => figures[column] / others.fold(f64::NAN, f64::max),
                    }
                };
                row.runs.iter().enumerate().map(ratio).collect()
            })
            .collect();
        for (row, ratios) in rows.iter_mut().zip(ratios) {
            row.runs.iter_mut().zip(ratios).for_each(|(figures, ratio)| figures.push(ratio));
        }
        columns.push(Column { name, unit: Unit::Ratio });
    }
}

impl Measured {
    /// The median of a column, and its quartiles' distance from each other, as a part of it.
    fn median(&self, column: usize) -> (f64, f64) {
        let mut figures: Vec<f64> = self.runs.iter().map(|figures| figures[column]).collect();
        figures.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (figures.len() - 1) as f64;
            let (low, high) = (figures[place.floor() as usize], figures[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        (at(0.5), (at(0.75) - at(0.25)) / at(0.5))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// A cell whose first runs fail, so many of them.
    fn failing(mut failures: usize) -> Cell {
        let run = Box::new(move || {
            if failures > 0 {
                failures -= 1;
                bail!("its leader is gone");
            }
            Ok(vec![7.0])
        });
        Cell { group: "64".to_owned(), row: "a peer".to_owned(), run }
    }

    #[test]
    fn a_run_that_fails_is_repeated_and_noted() {
        let mut repeated = Vec::new();
        let figures = figures_of(&mut failing(ATTEMPTS - 1), 4, &mut repeated);
        assert_eq!(figures.expect("the last attempt succeeds"), [7.0]);
        assert_eq!(repeated, ["a peer, 64, run 4: its leader is gone"; ATTEMPTS - 1]);
    }

    #[test]
    fn what_always_fails_ends_the_bench() {
        let error = figures_of(&mut failing(ATTEMPTS), 1, &mut Vec::new());
        let error = format!("{:#}", error.expect_err("no attempt succeeds"));
        assert_eq!(error, "a peer, 64, after 3 attempts: its leader is gone");
    }
}
