//! The table, and the same as JSON.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;

/// One figure beside its floor.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// `embedded`, `kafka` or `kafka3`.
    pub broker: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// The same without us, in the same run with the same security; none where nothing comparable exists.
    pub floor: Option<f64>,
    /// How much worse the value is than its floor, or for a throughput how much of it is left.
    pub ratio: Option<f64>,
}

/// What is measured on one broker.
pub struct Report {
    broker: &'static str,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn new(broker: &'static str) -> Self {
        Self { broker, rows: Vec::new() }
    }

    /// A figure without a floor.
    pub fn alone(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.add(Row { name, broker: self.broker, value, unit, floor: None, ratio: None });
    }

    /// Alternated pairs of (ours, floor): the medians of each, and of the pairs' ratios.
    pub fn pairs(&mut self, name: &'static str, unit: &'static str, pairs: &[(f64, f64)]) {
        let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
        self.add(Row {
            name,
            broker: self.broker,
            value: of(|pair| pair.0),
            unit,
            floor: Some(of(|pair| pair.1)),
            ratio: Some(of(|pair| pair.0 / pair.1)),
        });
    }

    fn add(&mut self, row: Row) {
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }
}

/// The middle one; of an even number the lower middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The value below which `share` of the sorted values lie.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

/// All rows as a table of less than 80 columns.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:<9} {:<22} {:>11} {:<9} {:>10} {:>6}\n", "broker", "row", "value", "unit", "floor", "ratio");
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

fn line(row: &Row) -> String {
    let optional = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let (floor, ratio) = (optional(row.floor, 2), optional(row.ratio, 2));
    format!("{:<9} {:<22} {:>11.2} {:<9} {floor:>10} {ratio:>6}", row.broker, row.name, row.value, row.unit)
}

/// Writes the rows where other programs find them.
pub fn write(rows: &[Row], path: &Path) {
    let mut json = serde_json::to_string_pretty(rows).expect("rows are plain");
    json.push('\n');
    fs::write(path, json).unwrap();
}
