//! etch-client's side of the scenarios that `tests/interop` runs: takes the steps of one (`run`), or loads the servers
//! and judges what it saw (`load`). Not here: the servers and what befalls them, and what is expected.
//!
//! It writes a line a step to standard output. A line that begins with `!` asks for something to befall the servers;
//! the answer comes as a line on standard input.
//!
//! `scenarios run FILE NAME ENDPOINTS...`: first the members' proxies, then the members.
//! `scenarios load MILLISECONDS SEED ANSWERS ENDPOINTS...`: for so long, and until there are so many answers
//! `scenarios tls DIRECTORY ENDPOINTS...`

mod keys;
mod load;
mod streams;
mod together;
mod words;
mod world;

use std::time::Duration;

use etch_client::{Client, Config, Tls};
use words::Words;
use world::Run;

/// Ends a step that hangs.
const STEP_LIMIT: Duration = Duration::from_secs(180);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().unwrap_or_default();
    match (next().as_str(), next(), next()) {
        ("run", file, name) => run(&file, &name, args.collect()).await,
        ("tls", dir, first) => tls(&dir, std::iter::once(first).chain(args).collect()).await,
        ("load", length, seed) => {
            let length = Duration::from_millis(length.parse().unwrap_or(1000));
            let answers = args.next().and_then(|n| n.parse().ok()).unwrap_or_default();
            load::run(length, answers, seed.parse().unwrap_or(1), args.collect()).await;
        }
        (other, ..) => panic!("what is {other:?}?"),
    }
}

async fn run(file: &str, name: &str, endpoints: Vec<String>) {
    let text = std::fs::read_to_string(file).expect("the list of scenarios");
    let run = match Run::begin(endpoints).await {
        Ok(run) => run,
        Err(error) => return println!("{}", world::failed(&error)),
    };
    for line in steps(&text, name) {
        match tokio::time::timeout(STEP_LIMIT, run.step(Words::parse(line))).await {
            Ok(said) => println!("{said}"),
            Err(_) => return println!("hangs"),
        }
    }
}

/// The steps of a scenario.
fn steps<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .skip_while(move |line| line.strip_prefix("== ") != Some(name))
        .skip(1)
        .take_while(|line| !line.starts_with("== "))
        .filter(|line| *line != "needs 3")
}

/// Tries a secured endpoint in each way; a line each.
async fn tls(dir: &str, endpoints: Vec<String>) {
    let file = |name: &str| format!("{dir}/{name}");
    let ca = || Tls::new().ca_file(file("ca.pem"));
    let shows = |tls: Tls| tls.identity_files(file("client.pem"), file("client-key.pem"));
    let ways = [
        ("as it should be", shows(ca())),
        ("no certificate", ca()),
        ("an unknown authority", shows(Tls::new().ca_file(file("other.pem")))),
        ("another name", shows(ca().server_name("elsewhere.test"))),
        ("its other name", shows(ca().server_name("etcd.test"))),
        ("no check", shows(Tls::new().ca_file(file("other.pem")).dangerously_skip_verify())),
    ];
    for endpoint in endpoints {
        let kind = endpoint.split(':').next().unwrap_or_default().to_owned();
        for (name, tls) in ways.clone() {
            let config = Config::new([endpoint.as_str()]).tls(tls);
            println!("{kind} {name}: {}", reached(config).await);
        }
        let plain = endpoint.replacen("https", "http", 1).replacen("unixs", "unix", 1);
        println!("{kind} in the clear: {}", reached(Config::new([plain])).await);
    }
}

async fn reached(config: Config) -> &'static str {
    let client = Client::connect(config.dial_timeout(Duration::from_secs(1))).await;
    let put = client.expect("a client").put("a", "1").timeout(Duration::from_secs(2)).await;
    if put.is_ok() { "ok" } else { "no answer" }
}
