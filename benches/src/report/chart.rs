//! A report as a chart: the first column, by group, a line for each row.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Report;
use super::table::show;

const SIZE: (u32, u32) = (1000, 640);

impl Report {
    pub(super) fn chart(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("the chart can't be drawn: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, into: &mut String) -> Result<(), Box<dyn std::error::Error + '_>> {
        let (mut groups, mut names) = (Vec::new(), Vec::new());
        for row in &self.rows {
            if !groups.contains(&&row.group) {
                groups.push(&row.group);
            }
            if !names.contains(&&row.row) {
                names.push(&row.row);
            }
        }
        let figures = || self.rows.iter().map(|row| row.median(0).0).filter(|f| f.is_finite());
        let (low, high) = (figures().fold(f64::MAX, f64::min), figures().fold(0.0, f64::max));
        let unit = self.columns[0].unit;

        let area = SVGBackend::with_string(into, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(80)
            .build_cartesian_2d(
                -0.3..groups.len() as f64 - 0.7,
                (low / 1.5..high * 4.0).log_scale(),
            )?;
        let label = |x: &f64| match x.fract().abs() < 1e-6 {
            true => groups.get(*x as usize).map_or_else(String::new, |group| (*group).clone()),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(groups.len() * 2)
            .x_label_formatter(&label)
            .x_desc(self.groups)
            .y_label_formatter(&|y| show(*y, unit))
            .y_desc(self.columns[0].name)
            .draw()?;
        for (nth, name) in names.iter().enumerate() {
            let colour = HSLColor(nth as f64 / names.len() as f64, 0.75, 0.42);
            let points: Vec<(f64, f64)> = (self.rows.iter())
                .filter(|row| row.row == **name)
                .filter_map(|row| {
                    let x = groups.iter().position(|group| **group == row.group)?;
                    Some((x as f64, row.median(0).0))
                })
                .filter(|(_, y)| y.is_finite())
                .collect();
            let line = LineSeries::new(points, colour.stroke_width(2)).point_size(4);
            chart.draw_series(line)?.label(*name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
