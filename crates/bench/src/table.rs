//! The table: both servers' figures, and etch's divided by etcd's. Not here: how they came about.

use crate::measure::Measure;
use crate::rows::{Aim, Row};

/// One round of a row: etcd's figure and etch's, measure by measure.
pub type Round = Vec<(Measure, f64, f64)>;

/// The row's lines, in Markdown.
pub fn lines(row: &Row, rounds: &[Round]) -> String {
    let Some(first) = rounds.first() else { return String::new() };
    let mut out = format!(
        "\n### {}\n\n{}. Repeat: `cargo xtask bench --row {}`\n\n\
         | | etcd | etch | etch / etcd: min | median | max | aim |\n|---|---|---|---|---|---|---|\n",
        row.name, row.about, row.name
    );
    for (measure, ..) in first {
        let of = |pick: fn(&(Measure, f64, f64)) -> f64| -> Vec<f64> {
            let all = rounds.iter().flatten().filter(|f| f.0 == *measure).map(pick);
            let mut all: Vec<f64> = all.filter(|v| v.is_finite()).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (etcd, etch) = (of(|f| f.1), of(|f| f.2));
        let ratios = of(|f| f.2 / f.1);
        let aim = row.aims.iter().find(|(m, _)| m == measure).map(|(_, aim)| *aim);
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            measure.label(),
            number(median(&etcd)),
            number(median(&etch)),
            number(ratios.first().copied()),
            number(median(&ratios)),
            number(ratios.last().copied()),
            aim.map_or_else(String::new, |aim| verdict(aim, median(&ratios), median(&etch))),
        );
    }
    out
}

/// The aim, and whether it is met.
fn verdict(aim: Aim, ratio: Option<f64>, own: Option<f64>) -> String {
    let (text, met) = match aim {
        Aim::AtMost(most) => (format!("<= {}", number(Some(most))), ratio.map(|r| r <= most)),
        Aim::AtLeast(least) => (format!(">= {}", number(Some(least))), ratio.map(|r| r >= least)),
        Aim::Own(most) => (format!("etch <= {}", number(Some(most))), own.map(|o| o <= most)),
    };
    let met = met.map_or("not measured", |met| if met { "met" } else { "**not met**" });
    format!("{text}: {met}")
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// Three digits are as many as a measurement has.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(v) if v == 0.0 || v.abs() >= 100.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) if v.abs() >= 1.0 => format!("{v:.2}"),
        Some(v) => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_each_round_and_aims_are_judged() {
        let row = Row {
            name: "x",
            about: "does x",
            aims: &[(Measure::Cpu, Aim::AtMost(0.5)), (Measure::Rate, Aim::AtLeast(3.0))],
            run: |_, _| Ok(Vec::new()),
        };
        let rounds = [
            vec![(Measure::Rate, 10.0, 20.0), (Measure::Cpu, 40.0, 10.0)],
            vec![(Measure::Rate, 10.0, 25.0), (Measure::Cpu, 50.0, 10.0)],
            vec![(Measure::Rate, 10.0, 15.0), (Measure::Cpu, 20.0, 8.0)],
        ];
        let text = lines(&row, &rounds);
        assert!(text.contains("| 40.0 | 10.0 | 0.200 | 0.250 | 0.400 | <= 0.500: met |"), "{text}");
        assert!(text.contains(">= 3.00: **not met**"), "{text}");
    }
}
