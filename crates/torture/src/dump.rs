//! What is left of a run that went wrong: the report and the whole history as text, for people. Not here: what is
//! wrong (the judges: `etch_sim::judge`).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use etch_api::internal::decode_entry;
use etch_sim::history::History;

use crate::plan::Plan;
use crate::run::Report;

/// Longer lines are cut: values may be large.
const LINE: usize = 1500;

/// Writes `report.txt` and `history.txt` into the run's directory.
pub fn write(dir: &Path, plan: &Plan, report: &Report, history: &History) -> io::Result<()> {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "seed {}, {}, {}", plan.seed, plan.profile, plan.fault_names());
    let _ = writeln!(text, "flags: {}", plan.flags.join(" "));
    for note in &report.notes {
        let _ = writeln!(text, "  {note}");
    }
    let _ = writeln!(text, "shim: {}", report.shim);
    for violation in &report.violations {
        let _ = writeln!(text, "VIOLATION: {violation}");
    }
    fs::write(dir.join("report.txt"), text)?;
    let mut out = BufWriter::new(File::create(dir.join("history.txt"))?);
    for o in &history.operations {
        let line = format!("client {} {:?} -> {:?}", o.client, o.request, o.outcome);
        writeln!(out, "{} .. {} {}", ms(o.sent_ns), ms(o.ended_ns), cut(line))?;
    }
    for w in &history.watches {
        let line = format!("client {} watches {:?} drained {}", w.client, w.request, w.drained);
        writeln!(out, "\n{} {}", ms(w.sent_ns), cut(line))?;
        for (at, response) in &w.responses {
            writeln!(out, "  {} {}", ms(*at), cut(format!("{response:?}")))?;
        }
    }
    writeln!(out)?;
    for o in &history.observations {
        writeln!(out, "{} {}", ms(o.at_ns), cut(format!("{o:?}")))?;
    }
    writeln!(out)?;
    for entry in &history.log {
        let line = match decode_entry(&entry.data) {
            Ok(content) => format!("{:?} {:?}", content.kind, content.body),
            Err(e) => format!("{e}"),
        };
        writeln!(out, "{}/{} {}", entry.term, entry.index, cut(line))?;
    }
    out.flush()
}

fn ms(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

fn cut(mut line: String) -> String {
    if line.len() > LINE {
        let end = line.floor_char_boundary(LINE);
        line.truncate(end);
        line.push_str(" ...");
    }
    line
}
