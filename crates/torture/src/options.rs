//! How the program is called. Not here: what its options do.

use std::path::PathBuf;

use crate::plan::Kind;

/// What `--help` says.
pub const HELP: &str = "\
cargo xtask torture [OPTIONS]

  --runs N       how many runs (100)
  --seed S       the first run's seed; the others follow (1)
  --seconds T    begin no run after so many seconds
  --fault KIND   this fault in every run: kill, pause, terminate, full-disk, slow-disk, failing-disk,
                 short-writes, clock, crash-point, lost-writes
  --jobs N       runs at a time (2)
  --etch PATH    the server's program
  --canary       the server flushes nothing and the power fails: succeeds if that is found out
  --keep         leave the directories, also where nothing is wrong
";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many runs.
    pub runs: u64,
    /// The first one's seed.
    pub seed: u64,
    /// When no further run begins.
    pub seconds: Option<u64>,
    /// The one fault of all runs.
    pub fault: Option<Kind>,
    /// Runs at a time.
    pub jobs: u64,
    /// The server.
    pub etch: PathBuf,
    /// Whether directories stay.
    pub keep: bool,
    /// Whether the server is one that must be found out.
    pub canary: bool,
}

impl Options {
    /// Reads the arguments.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            runs: 100,
            seed: 1,
            seconds: None,
            fault: None,
            jobs: 2,
            etch: PathBuf::new(),
            keep: false,
            canary: false,
        };
        while let Some(arg) = args.next() {
            if arg == "--keep" {
                options.keep = true;
                continue;
            }
            if arg == "--canary" {
                options.canary = true;
                options.fault = Some(Kind::LostWrites);
                continue;
            }
            let value = args.next().ok_or_else(|| {
                format!("{arg}: its value is missing, or there is no such option")
            })?;
            let number =
                || value.parse::<u64>().map_err(|_| format!("{arg}: `{value}` is no number"));
            match arg.as_str() {
                "--runs" => options.runs = number()?,
                "--seed" => options.seed = number()?,
                "--seconds" => options.seconds = Some(number()?),
                "--jobs" => options.jobs = number()?.max(1),
                "--etch" => options.etch = value.into(),
                "--fault" => {
                    let kind =
                        Kind::ALL.iter().map(|(_, kind)| *kind).find(|kind| kind.name() == value);
                    options.fault =
                        Some(kind.ok_or_else(|| format!("no fault is called `{value}`"))?);
                }
                _ => return Err(format!("no option is called `{arg}`")),
            }
        }
        if !options.etch.is_file() {
            return Err(format!("--etch: there is no program at `{}`", options.etch.display()));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, String> {
        Options::parse(args.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let own = std::env::current_exe().expect("has a path").display().to_string();
        let options = parse(&format!("--runs 3 --seed 9 --fault clock --keep --etch {own}"))
            .expect("is right");
        assert_eq!(
            (options.runs, options.seed, options.fault, options.keep),
            (3, 9, Some(Kind::Clock), true)
        );
        for wrong in
            ["--runs x", "--fault none", "--nothing 1", "--runs", "--etch /no/such/program"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
