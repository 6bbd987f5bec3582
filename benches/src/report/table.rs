//! A report as a table, in Markdown.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::{Report, Unit};

impl Report {
    pub(super) fn table(&self) -> String {
        let Self { title, command, machine, groups, columns, rows, repeated, .. } = self;
        let runs = rows.first().map_or(0, |row| row.runs.len());
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let names = columns.iter().flat_map(|column| match column.unit {
            Unit::Ratio => vec![column.name],
            _ => vec![column.name, "±"],
        });
        table.set_header([*groups, ""].into_iter().chain(names));
        for row in rows {
            let figures = (0..columns.len()).flat_map(|column| {
                let (median, spread) = row.median(column);
                let unit = columns[column].unit;
                let figure = show(median, unit);
                match unit {
                    Unit::Ratio => vec![figure],
                    _ if spread.is_finite() => vec![figure, format!("{:.0} %", spread * 100.0)],
                    _ => vec![figure, String::new()],
                }
            });
            let names = [row.group.clone(), row.row.clone()];
            table.add_row(names.into_iter().chain(figures));
        }
        for column in table.column_iter_mut() {
            if column.index != 1 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("\n{title}\n\n{table}\n\n");
        let _ = writeln!(text, "`{command}`: medians of {runs} runs in turn, ± the quartiles.");
        let _ = write!(text, "{machine}.");
        for run in repeated {
            let _ = write!(text, "\nRepeated, as it failed: {run}.");
        }
        text
    }
}

/// A figure with three digits that count.
pub(super) fn show(figure: f64, unit: Unit) -> String {
    if !figure.is_finite() {
        return String::new();
    }
    match unit {
        Unit::Rate | Unit::Count => scaled(figure, &[(1e9, " G"), (1e6, " M"), (1e3, " k")], ""),
        Unit::Time => scaled(figure, &[(1.0, " s"), (1e-3, " ms"), (1e-6, " µs")], " ns"),
        Unit::Ratio => format!("{} ×", digits(figure)),
        Unit::Share => format!("{} %", digits(100.0 * figure)),
    }
}

fn scaled(figure: f64, scales: &[(f64, &str)], smallest: &str) -> String {
    let rest = if smallest == " ns" { 1e-9 } else { 1.0 };
    let found = scales.iter().find(|(scale, _)| figure >= *scale * 0.9995);
    let (scale, name) = found.copied().unwrap_or((rest, smallest));
    format!("{}{name}", digits(figure / scale))
}

fn digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        f if f >= 99.95 => 0,
        f if f >= 9.995 => 1,
        _ => 2,
    };
    format!("{figure:.decimals$}")
}
