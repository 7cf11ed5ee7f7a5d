//! etcd and etch under the same load, one after the other on the same machine, and a table of ratios. Here: the
//! order of things. Not here: rows (`rows`), loads (`closed`, `streams`), the servers (`server`). See
//! `docs/benchmarks.md`.

#![forbid(unsafe_code)]

mod call;
mod closed;
mod engine;
mod flush;
mod link;
mod measure;
mod official;
mod options;
mod requests;
mod rows;
mod server;
mod streams;
mod table;
mod users;

use std::process::ExitCode;

use measure::Sample;
use options::Options;
use rows::{ROWS, Row};
use server::{Server, Subject};
use table::Round;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print!("{}", options::HELP);
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|a| a == "--list") {
        ROWS.iter().for_each(|row| println!("{:20} {}", row.name, row.about));
        return ExitCode::SUCCESS;
    }
    match Options::parse(args.into_iter()).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let subjects = [
        Subject { name: "etcd", program: options.etcd.clone() },
        Subject { name: "etch", program: options.etch.clone() },
    ];
    let mut rounds: Vec<Vec<Round>> = options.rows.iter().map(|_| Vec::new()).collect();
    let mut failed = 0;
    for round in 0..options.rounds {
        for (row, all) in options.rows.iter().zip(&mut rounds) {
            eprintln!("round {}: {}", round + 1, row.name);
            // A server that does not get through one load says nothing of the others.
            match both(row, &subjects, round, options) {
                Ok(figures) => all.push(figures),
                Err(why) => {
                    eprintln!("bench: {why}");
                    failed += 1;
                }
            }
        }
    }
    for (row, all) in options.rows.iter().zip(&rounds) {
        print!("{}", table::lines(row, all));
    }
    let all = options.rows.iter().zip(&rounds).map(|(row, rounds)| (*row, &rounds[..]));
    print!("{}", table::summary(all));
    if failed == 0 { Ok(()) } else { Err(format!("{failed} loads failed")) }
}

/// One row on both servers, now the one first and now the other.
fn both(
    row: &Row,
    subjects: &[Subject; 2],
    round: usize,
    options: &Options,
) -> Result<Round, String> {
    let mut samples = [Sample::new(), Sample::new()];
    for turn in 0..2 {
        let at = (round + turn) % 2;
        let subject = &subjects[at];
        samples[at] = Server::start(subject, &options.dir)
            .and_then(|mut server| (row.run)(&mut server, &options.scale))
            .map_err(|why| format!("{} on {}: {why}", row.name, subject.name))?;
    }
    let [etcd, etch] = samples;
    Ok(etcd.into_iter().zip(etch).map(|((measure, a), (_, b))| (measure, a, b)).collect())
}
