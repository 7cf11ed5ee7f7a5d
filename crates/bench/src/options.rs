//! How the program is called. Not here: what its options do.

use std::path::PathBuf;
use std::time::Duration;

use crate::rows::{ROWS, Row, Scale};

/// What `--help` says.
pub const HELP: &str = "\
cargo xtask bench [OPTIONS]

Starts etcd 3.7.1 and etch one after the other under the same loads, and prints their figures with
ratios: rates, latencies, processor time an operation, memory, bytes written, flushes.

  --row NAME      only this row; may be given again
  --rounds N      how often each row is run on both (3)
  --seconds T     how long a load lasts (5)
  --quick         one round, short loads and small stores: shows that all rows run, not how fast
  --list          the rows' names
  --dir PATH      where the servers' directories are made, on a real disk (target/bench)
  --etch PATH     the programs, where they are not to be built
  --etcd PATH
  --benchmark PATH
";

/// What was asked for.
pub struct Options {
    /// The rows to run.
    pub rows: Vec<&'static Row>,
    /// How often.
    pub rounds: usize,
    /// How much each does.
    pub scale: Scale,
    /// Where directories are made.
    pub dir: PathBuf,
    /// The two servers.
    pub etcd: PathBuf,
    /// See `etcd`.
    pub etch: PathBuf,
}

impl Options {
    /// Reads the arguments.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            rows: Vec::new(),
            rounds: 3,
            scale: Scale {
                time: Duration::from_secs(5),
                keys: 100_000,
                many_keys: 1_000_000,
                official: [100_000, 5_000],
                benchmark: PathBuf::new(),
            },
            dir: PathBuf::from("target/bench"),
            etcd: PathBuf::new(),
            etch: PathBuf::new(),
        };
        while let Some(arg) = args.next() {
            if arg == "--quick" {
                options.quick();
                continue;
            }
            let value = args.next().ok_or_else(|| {
                format!("{arg}: its value is missing, or there is no such option")
            })?;
            let number =
                || value.parse::<u64>().map_err(|_| format!("{arg}: `{value}` is no number"));
            match arg.as_str() {
                "--rounds" => options.rounds = number()?.max(1) as usize,
                "--seconds" => options.scale.time = Duration::from_secs(number()?.max(1)),
                "--row" => {
                    let row = ROWS.iter().find(|r| r.name == value);
                    options.rows.push(row.ok_or_else(|| format!("no row is called `{value}`"))?);
                }
                "--dir" => options.dir = value.into(),
                "--etcd" => options.etcd = value.into(),
                "--etch" => options.etch = value.into(),
                "--benchmark" => options.scale.benchmark = value.into(),
                _ => return Err(format!("no option is called `{arg}`")),
            }
        }
        for (name, program) in [
            ("--etcd", &options.etcd),
            ("--etch", &options.etch),
            ("--benchmark", &options.scale.benchmark),
        ] {
            if !program.is_file() {
                return Err(format!("{name}: there is no program at `{}`", program.display()));
            }
        }
        if options.rows.is_empty() {
            options.rows = ROWS.iter().collect();
        }
        Ok(options)
    }

    fn quick(&mut self) {
        self.rounds = 1;
        self.scale.time = Duration::from_millis(500);
        self.scale.keys = 10_000;
        self.scale.many_keys = 50_000;
        self.scale.official = [5_000, 1_000];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        let own = std::env::current_exe().expect("has a path").display().to_string();
        let programs = format!("--etcd {own} --etch {own} --benchmark {own}");
        Options::parse(format!("{args} {programs}").split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let options = parse("--row put --row get --rounds 2 --seconds 7").expect("is right");
        let names: Vec<_> = options.rows.iter().map(|r| r.name).collect();
        assert_eq!((names, options.rounds), (vec!["put", "get"], 2));
        assert_eq!(parse("").expect("is right").rows.len(), ROWS.len());
        for wrong in ["--row none", "--rounds x", "--nothing 1", "--etcd /no/such/program"] {
            assert!(Options::parse(wrong.split_whitespace().map(String::from)).is_err(), "{wrong}");
        }
    }
}
