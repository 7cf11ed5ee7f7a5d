//! The tables: both servers' figures, and etch's divided by etcd's; one for each row, and one of all. Not here: how they
//! came about.

use crate::measure::Measure;
use crate::rows::{Aim, Row};

/// One round of a row: etcd's figure and etch's, measure by measure.
pub type Round = Vec<(Measure, f64, f64)>;

/// What the rounds say of one measure: medians of both, and the ratios from the least to the greatest.
struct Figures {
    etcd: Option<f64>,
    etch: Option<f64>,
    ratios: Vec<f64>,
}

impl Figures {
    fn of(rounds: &[Round], measure: Measure) -> Figures {
        let sorted = |pick: fn(&(Measure, f64, f64)) -> f64| -> Vec<f64> {
            let all = rounds.iter().flatten().filter(|f| f.0 == measure).map(pick);
            let mut all: Vec<f64> = all.filter(|v| v.is_finite()).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        Figures {
            etcd: median(&sorted(|f| f.1)),
            etch: median(&sorted(|f| f.2)),
            ratios: sorted(|f| f.2 / f.1),
        }
    }

    fn ratio(&self) -> Option<f64> {
        median(&self.ratios)
    }
}

/// The row's lines, in Markdown.
pub fn lines(row: &Row, rounds: &[Round]) -> String {
    let Some(first) = rounds.first() else { return String::new() };
    let mut out = format!(
        "\n### {}\n\n{}. Repeat: `cargo xtask bench --row {}`\n\n\
         | | etcd | etch | etch / etcd: min | median | max | aim |\n|---|---|---|---|---|---|---|\n",
        row.name, row.about, row.name
    );
    for (measure, ..) in first {
        let figures = Figures::of(rounds, *measure);
        let aim = row.aims.iter().find(|(m, _)| m == measure).map(|(_, aim)| *aim);
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            measure.label(),
            number(figures.etcd),
            number(figures.etch),
            number(figures.ratios.first().copied()),
            number(figures.ratio()),
            number(figures.ratios.last().copied()),
            aim.map_or_else(String::new, |aim| verdict(aim, &figures)),
        );
    }
    out
}

/// All rows, a line each, in Markdown.
pub fn summary<'r>(rows: impl Iterator<Item = (&'r Row, &'r [Round])>) -> String {
    let mut out = "\n## All rows\n\n\
         | row | etcd/s | etch/s | x | p50 x | p99 x | CPU us/op etcd | etch | x: min | median | max | anonymous x | written x | aims |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (row, rounds) in rows {
        let of = |measure| Figures::of(rounds, measure);
        let ratio = |measure| number(of(measure).ratio());
        let (rate, cpu) = (of(Measure::Rate), of(Measure::Cpu));
        let aims = row.aims.iter().map(|(measure, aim)| {
            let figures = of(*measure);
            let is = match aim {
                Aim::Own(_) => figures.etch,
                Aim::AtMost(_) | Aim::AtLeast(_) => figures.ratio(),
            };
            format!("{} {} {}", measure.label(), number(is), verdict(*aim, &figures))
        });
        let cells = [
            format!("`{}`", row.name),
            number(rate.etcd),
            number(rate.etch),
            number(rate.ratio()),
            ratio(Measure::P50),
            ratio(Measure::P99),
            number(cpu.etcd),
            number(cpu.etch),
            number(cpu.ratios.first().copied()),
            number(cpu.ratio()),
            number(cpu.ratios.last().copied()),
            ratio(Measure::Anonymous),
            ratio(Measure::Written),
            aims.collect::<Vec<_>>().join("; "),
        ];
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
}

/// The aim, and whether it is met.
fn verdict(aim: Aim, figures: &Figures) -> String {
    let (ratio, own) = (figures.ratio(), figures.etch);
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
        let all = summary([(&row, &rounds[..])].into_iter());
        let line = "| `x` | 10.0 | 20.0 | 2.00 | - | - | 40.0 | 10.0 | 0.200 | 0.250 | 0.400 | - | - | \
                    server CPU, us/op 0.250 <= 0.500: met; operations/s 2.00 >= 3.00: **not met** |\n";
        assert!(all.ends_with(line), "{all}");
    }
}
