//! `make-mirror`: copies keys to another cluster, and goes on with what happens to them. Not here: reading them
//! (`etch_client::mirror`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etch_cli::progress::Progress;
use etch_cli::{Command, Failure, Flag, Matches};
use etch_client::mirror::Syncer;
use etch_client::{Client, EventType, Op, Tls, WatchResponse, delete, put, txn};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::connect::{self, Ctl, Files, Login};
use crate::display::print;
use crate::fail::{failed, not_connected};
use crate::{bad_args, program, trace, words};

/// How often it is said how many keys have been copied.
const PACE: Duration = Duration::from_secs(30);
/// How many keys of the base are under way at once: they are different ones, so their order does not matter.
const UNDER_WAY: usize = 64;

/// The command.
pub fn command() -> Command {
    let short = "Makes a mirror at the destination etcd cluster";
    Command::new("make-mirror [options] <destination>", short, run)
        .group(program::UTILITY)
        .flags(flags())
}

fn flags() -> Vec<Flag> {
    vec![
        Flag::text("prefix", "", "Key-value prefix to mirror"),
        Flag::int("rev", 0, "Specify the kv revision to start to mirror"),
        Flag::uint(
            "max-txn-ops",
            128,
            "Maximum number of operations permitted in a transaction during syncing updates.",
        ),
        Flag::text(
            "dest-prefix",
            "",
            "destination prefix to mirror a prefix to a different prefix in the destination cluster",
        ),
        Flag::switch("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
        Flag::text(
            "dest-cert",
            "",
            "Identify secure client using this TLS certificate file for the destination cluster",
        ),
        Flag::text("dest-key", "", "Identify secure client using this TLS key file"),
        Flag::text(
            "dest-cacert",
            "",
            "Verify certificates of TLS enabled secure servers using this CA bundle",
        ),
        Flag::switch_with(
            "dest-insecure-transport",
            true,
            "Disable transport security for client connections",
        ),
        Flag::text(
            "dest-user",
            "",
            "Destination username[:password] for authentication (prompt if password is not supplied)",
        ),
        Flag::text(
            "dest-password",
            "",
            "Destination password for authentication (if this option is used, --user option shouldn't include password)",
        ),
    ]
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [destination] = &matches.args[..] else {
        return Err(bad_args("make-mirror takes one destination argument"));
    };
    let renaming = Renaming::new(matches)?;
    if !matches.is_on("debug") {
        trace::connections("make-mirror");
    }
    let ctl = Ctl::lasting(matches)?;
    let config = target(&ctl.matches, destination)?;
    ctl.run(async {
        let limit = connect::span(&ctl.matches, "dial-timeout");
        let target = connect::connect(config, limit).await.map_err(not_connected)?;
        let done = AtomicU64::new(0);
        let mirror =
            Mirror { target, renaming, done: &done, most: matches.unsigned("max-txn-ops") };
        let told = async {
            loop {
                tokio::time::sleep(PACE).await;
                print(format!("{}\n", done.load(Ordering::Relaxed)).as_bytes())?;
            }
        };
        tokio::select! {
            result = mirror.run(&ctl.client, matches.number("rev")) => result,
            told = told => told,
        }
    })
}

/// The destination's configuration.
fn target(matches: &Matches, endpoint: &str) -> Result<etch_client::Config, Failure> {
    let files = Files {
        cert: matches.text("dest-cert"),
        key: matches.text("dest-key"),
        ca: matches.text("dest-cacert"),
    };
    let mut tls = files.tls()?;
    if !matches.is_on("dest-insecure-transport") {
        tls = Some(tls.unwrap_or_else(Tls::new));
    }
    let endpoints = connect::usable(vec![endpoint.to_owned()], tls.is_some())?;
    let mut config = connect::config(matches, endpoints);
    config.tls = tls;
    config.dial_timeout = Duration::ZERO;
    let prompt = "Destination Password: ";
    let (user, password) = (matches.text("dest-user"), matches.text("dest-password"));
    Login::asking(prompt, user, password)?.put_into(&mut config);
    Ok(config)
}

/// What keys are called at the destination.
#[derive(Debug, PartialEq, Eq)]
struct Renaming {
    from: Bytes,
    to: Bytes,
}

impl Renaming {
    fn new(matches: &Matches) -> Result<Self, Failure> {
        let (to, at_root) = (matches.text("dest-prefix"), matches.is_on("no-dest-prefix"));
        if at_root && !to.is_empty() {
            let why =
                "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
            return Err(bad_args(why));
        }
        let from = words::bytes(matches.text("prefix"));
        let same = to.is_empty() && !at_root;
        let to = if same { from.clone() } else { words::bytes(to) };
        Ok(Self { from, to })
    }

    fn of(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&self.from[..]).unwrap_or(key);
        [&self.to[..], rest].concat().into()
    }
}

struct Mirror<'a> {
    target: Client,
    renaming: Renaming,
    done: &'a AtomicU64,
    /// The most operations of a transaction.
    most: u64,
}

impl Mirror<'_> {
    async fn run(&self, source: &Client, from: i64) -> Result<(), Failure> {
        let mut bar = Progress::counting("mirroring", "keys", None);
        let mut syncer = Syncer::new(source, &self.renaming.from);
        // With a revision the copy has been made before: only what came since is of interest.
        if from > 1 {
            syncer = syncer.rev(from - 1);
        } else {
            self.base(&mut syncer, &mut bar).await?;
        }
        let mut updates = syncer.updates().await.map_err(failed)?;
        while let Some(update) = updates.next().await {
            let update = update.map_err(failed)?;
            let count = update.events.len() as u64;
            self.apply(update).await?;
            self.count(count, &mut bar);
        }
        Ok(())
    }

    fn count(&self, more: u64, bar: &mut Progress) {
        self.done.fetch_add(more, Ordering::Relaxed);
        bar.add(more);
    }

    /// Copies everything as it is at one revision.
    async fn base(&self, syncer: &mut Syncer, bar: &mut Progress) -> Result<(), Failure> {
        let mut pieces = syncer.base().await.map_err(failed)?;
        while let Some(piece) = pieces.next().await {
            let kvs = piece.map_err(failed)?.kvs;
            let puts = kvs.into_iter().map(|kv| async move {
                self.target.put(self.renaming.of(&kv.key), kv.value).await
            });
            let mut puts = stream::iter(puts).buffer_unordered(UNDER_WAY);
            while puts.try_next().await.map_err(failed)?.is_some() {
                self.count(1, bar);
            }
        }
        Ok(())
    }

    /// Does what was done: what was one revision there is one here, unless it is too much for one transaction.
    async fn apply(&self, update: WatchResponse) -> Result<(), Failure> {
        for ops in transactions(update, &self.renaming, self.most) {
            let request = txn().then_all(ops).into_request();
            let options = self.target.options().clone();
            self.target.kv().txn(options, request).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// The transactions that repeat these events: none holds more than one revision, nor more operations than allowed.
fn transactions(update: WatchResponse, renaming: &Renaming, most: u64) -> Vec<Vec<Op>> {
    let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
    let mut transactions: Vec<Vec<Op>> = Vec::new();
    let mut last = None;
    for event in update.events {
        let kind = event.r#type();
        let kv = event.kv.unwrap_or_default();
        let key = renaming.of(&kv.key);
        let op: Op = match kind {
            EventType::Put => put(key, kv.value).into(),
            EventType::Delete => delete(key).into(),
        };
        let goes_on = last == Some(kv.mod_revision);
        last = Some(kv.mod_revision);
        match transactions.last_mut().filter(|ops| goes_on && ops.len() < most) {
            Some(ops) => ops.push(op),
            None => transactions.push(vec![op]),
        }
    }
    transactions
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_client::{Event, KeyValue};

    fn renaming(line: &str) -> Result<Renaming, Failure> {
        Renaming::new(&words::tests::matches(flags(), line).expect("right"))
    }

    #[test]
    fn keys_keep_their_names_unless_told_otherwise() {
        let name = |line: &str| renaming(line).map(|r| r.of(b"/a/x/a/"));
        assert_eq!(name(""), Ok("/a/x/a/".into()));
        assert_eq!(name("--prefix /a/"), Ok("/a/x/a/".into()));
        // With a revision too: etcdctl drops the prefix then.
        assert_eq!(name("--prefix /a/ --rev 7"), Ok("/a/x/a/".into()));
        assert_eq!(name("--prefix /a/ --dest-prefix /b/"), Ok("/b/x/a/".into()));
        assert_eq!(name("--dest-prefix /b"), Ok("/b/a/x/a/".into()));
        assert_eq!(name("--prefix /a/ --no-dest-prefix"), Ok("x/a/".into()));
        assert_eq!(name("--dest-prefix b --no-dest-prefix").map_err(|f| f.code), Err(128));
    }

    #[test]
    fn a_revision_is_a_transaction_and_never_too_large_a_one() {
        let event = |mod_revision| {
            let kv = KeyValue { key: "k".into(), mod_revision, ..Default::default() };
            Event { kv: Some(kv), ..Default::default() }
        };
        let events = [3, 3, 3, 4, 5, 5].map(event).into();
        let update = WatchResponse { events, ..Default::default() };
        let sizes: Vec<usize> =
            transactions(update, &renaming("").expect("right"), 2).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1, 1, 2]);
    }
}
