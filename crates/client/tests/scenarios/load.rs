//! Load from many clients while servers are killed, paused and cut off, and the judges' word on what the clients saw:
//! is there an order of all requests that explains every answer? The store must be empty when this begins.
//!
//! What our client says of a failed write is taken at its word. One that may have happened is of unknown outcome; any
//! other is not in the history at all, so that a trace of it is a violation, and so is a write that was sent twice.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etch_client::{Client, Compare, Error, Result, delete, get, put, txn};
use etch_sim::history::{History, Operation, Outcome, Request, Response};
use etch_sim::judge;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::world::ask;

/// How many ask at the same time, and about how many keys.
const CLIENTS: u64 = 6;
const KEYS: u64 = 5;
/// Time limit of a request.
const LIMIT: Duration = Duration::from_millis(700);

/// What befalls the servers in turn, and what mends it.
const FAULTS: &[(&str, &str)] = &[
    ("kill leader", "start all"),
    ("cut all", "heal all"),
    ("kill follower", "start all"),
    ("pause leader", "resume all"),
    ("hold leader", "heal all"),
    ("kill all", "start all"),
];

struct World {
    began: Instant,
    until: Instant,
    /// How many answers there must be before it ends.
    enough: usize,
    operations: Mutex<Vec<Operation>>,
    clients: AtomicU32,
    values: AtomicU64,
}

impl World {
    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn operations(&self) -> MutexGuard<'_, Vec<Operation>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the load has gone on for long enough, and found out enough.
    fn is_over(&self) -> bool {
        let is_answer = |op: &&Operation| matches!(op.outcome, Outcome::Ok(_));
        Instant::now() >= self.until
            && self.operations().iter().filter(is_answer).count() >= self.enough
    }

    fn client_number(&self) -> u32 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// A value that no other write has.
    fn value(&self) -> String {
        format!("v{}", self.values.fetch_add(1, Ordering::Relaxed))
    }
}

/// Loads the servers for so long, and until there are enough answers, then judges. Writes one line: what is wrong, or how much was judged.
pub async fn run(length: Duration, enough: usize, seed: u64, endpoints: Vec<String>) {
    let began = Instant::now();
    let world = Arc::new(World {
        began,
        until: began + length,
        enough,
        operations: Mutex::default(),
        clients: AtomicU32::new(1),
        values: AtomicU64::new(1),
    });
    let proxies = &endpoints[..endpoints.len() / 2];
    let mut tasks = JoinSet::new();
    for n in 0..CLIENTS {
        let client =
            Client::connect(proxies.to_vec()).await.expect("endpoints").with_timeout(LIMIT);
        let rng = fastrand::Rng::with_seed(seed.wrapping_mul(1000) + n);
        tasks.spawn(
            Worker { number: world.client_number(), world: world.clone(), client, rng }.work(),
        );
    }
    for (fault, mend) in FAULTS.iter().cycle() {
        sleep(Duration::from_millis(600)).await;
        if world.is_over() {
            break;
        }
        let answer = ask(fault).await;
        assert_eq!(answer, "ok", "{fault}");
        sleep(Duration::from_millis(300)).await;
        let answer = ask(mend).await;
        assert_eq!(answer, "ok", "{mend}");
    }
    tasks.join_all().await;
    let operations = std::mem::take(&mut *world.operations());
    let mut history = History { operations, ..History::default() };
    history.operations.sort_by_key(|op| op.sent_ns);
    match judge::check(&history) {
        Ok(c) => println!(
            "explained {} answers, {} unknown, {} refused, in {} steps{}",
            c.answered,
            c.unknown,
            c.refused,
            c.steps,
            if c.undecided { ", undecided" } else { "" }
        ),
        Err(broken) => {
            for violation in broken.iter().take(5) {
                println!("{violation}");
            }
        }
    }
}

struct Worker {
    world: Arc<World>,
    client: Client,
    rng: fastrand::Rng,
    number: u32,
}

impl Worker {
    async fn work(mut self) {
        let mut well = true;
        while !self.world.is_over() {
            // One that does not know how its last write ended reads first: few writes in a row are unknown.
            let request = if well { self.draw() } else { self.list() };
            well = self.ask(request).await;
            sleep(Duration::from_millis(self.rng.u64(1..8))).await;
        }
    }

    fn key(&mut self) -> String {
        format!("key-{}", self.rng.u64(0..KEYS))
    }

    fn list(&self) -> Request {
        Request::Range(get("key-").prefix().into_request())
    }

    fn draw(&mut self) -> Request {
        let (key, other) = (self.key(), self.key());
        let value = self.world.value();
        match self.rng.u64(0..100) {
            0..30 => Request::Range(get(key).into_request()),
            30..40 => self.list(),
            40..75 => Request::Put(put(key, value).into_request()),
            75..83 => Request::DeleteRange(delete(key).into_request()),
            83..95 => {
                let there = Compare::version(&key).greater(0);
                let txn = txn().when(there).then(put(&key, value)).otherwise(get(&key));
                Request::Txn(txn.into_request())
            }
            _ => {
                // Both change, or neither.
                let txn = txn().then(put(format!("key-a{key}"), value)).then(get(other));
                Request::Txn(txn.then(delete("key-b")).into_request())
            }
        }
    }

    /// Asks, and notes how it ended; whether there was an answer.
    async fn ask(&mut self, request: Request) -> bool {
        let sent_ns = self.world.now_ns();
        let answer = self.send(request.clone()).await;
        let ended_ns = self.world.now_ns();
        let (member, outcome) = match answer {
            Ok(response) => {
                let member = response.header().map_or(0, |h| h.member_id);
                (member, Outcome::Ok(response))
            }
            Err(error) if error.may_have_happened() => (0, Outcome::Unknown),
            Err(Error::Refused(refusal)) if refusal.error.is_some() => {
                (0, Outcome::Refused(refusal.message))
            }
            // It surely was not carried out, the client says.
            Err(_) => return false,
        };
        let well = outcome != Outcome::Unknown;
        let client = self.number;
        if !well {
            self.number = self.world.client_number();
        }
        let operation = Operation { client, member, sent_ns, ended_ns, request, outcome };
        self.world.operations().push(operation);
        well
    }

    async fn send(&self, request: Request) -> Result<Response> {
        let (kv, options) = (self.client.kv(), self.client.options().clone());
        Ok(match request {
            Request::Range(q) => Response::Range(kv.range(options, q).await?),
            Request::Put(q) => Response::Put(kv.put(options, q).await?),
            Request::DeleteRange(q) => Response::DeleteRange(kv.delete_range(options, q).await?),
            Request::Txn(q) => Response::Txn(kv.txn(options, q).await?),
            other => unreachable!("{other:?} is not asked here"),
        })
    }
}
