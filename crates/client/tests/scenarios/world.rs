//! A scenario under way: what its steps have made, by name; clients, endpoints, users; and how outcomes are written.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etch_client::concurrency::{Guard, Leadership, Session};
use etch_client::{
    BoxFuture, Client, Config, Error, HasHeader, KeepAlive, KeySpan, PermissionType, Result, pb,
};
use tokio::task::JoinHandle;

use crate::streams::Events;
use crate::words::{Words, duration};

/// What steps have made. One that is needed exclusively is taken out, and put back.
pub struct Named<V>(Mutex<HashMap<String, V>>);

impl<V> Default for Named<V> {
    fn default() -> Self {
        Named(Mutex::default())
    }
}

impl<V> Named<V> {
    pub fn set(&self, name: &str, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), value);
    }

    pub fn take(&self, name: &str) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

impl<V: Clone> Named<V> {
    pub fn get(&self, name: &str) -> V {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(name).unwrap_or_else(|| panic!("nothing is called {name:?}")).clone()
    }
}

pub struct Inner {
    endpoints: Vec<String>,
    base: i64,
    clients: Named<Client>,
    pub watches: Named<Events>,
    pub leases: Named<i64>,
    pub kept: Named<KeepAlive>,
    pub sessions: Named<Session>,
    pub locks: Named<Guard>,
    pub stands: Named<Leadership>,
    later: Named<JoinHandle<String>>,
}

/// A scenario under way; steps may run side by side.
#[derive(Clone)]
pub struct Run(Arc<Inner>);

impl std::ops::Deref for Run {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Asks for something to befall the servers, and waits until it has.
pub async fn ask(what: &str) -> String {
    println!("!{what}");
    let _ = std::io::stdout().flush();
    let read = || {
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        answer.trim_end().to_owned()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Waits until all members have heard of everything.
async fn settle() -> Result<()> {
    match ask("settle all").await.as_str() {
        "ok" => Ok(()),
        other => Err(Error::Malformed(other.into())),
    }
}

/// A slow machine takes its time to answer a connection.
fn config(endpoints: &[String]) -> Config {
    Config::new(endpoints.to_vec()).dial_timeout(Duration::from_secs(20))
}

/// How a call ended badly.
pub fn failed(error: &Error) -> String {
    match error {
        Error::Deadline { .. } => "deadline".into(),
        Error::NoEndpoint(_) | Error::Unknown(_) => "unavailable".into(),
        Error::Closed => "canceled".into(),
        Error::Locked => "locked".into(),
        Error::NotLeading => "nobody leads".into(),
        Error::OutOfOrder => "out of order".into(),
        Error::Invalid(_) => "invalid".into(),
        Error::LeaseLost(_) => "lost".into(),
        Error::ClusterMismatch { .. } => "another cluster".into(),
        Error::Refused(refusal) => match refusal.code {
            _ if refusal.message.starts_with("etcdserver: ") => {
                format!("refused {}", refusal.message)
            }
            etch_client::Code::Unavailable => "unavailable".into(),
            etch_client::Code::DeadlineExceeded => "deadline".into(),
            _ => format!("refused {}", refusal.message),
        },
        other => format!("{other:?}"),
    }
}

/// Whether the client, or the member that it asked, does not know what came of a request.
pub fn no_answer(line: &str) -> bool {
    const TEXTS: &[&str] = &[
        "deadline",
        "unavailable",
        "refused etcdserver: request timed out",
        "refused etcdserver: leader changed",
        "refused etcdserver: no leader",
        "refused etcdserver: server stopped",
        "refused etcdserver: not leader",
    ];
    TEXTS.iter().any(|text| line.starts_with(text))
}

/// What is said of a call that says nothing itself.
pub fn plain(result: Result<()>) -> Result<String> {
    result.map(|()| "ok".into())
}

impl Run {
    /// With a client of all proxies, and one of the members themselves.
    pub async fn begin(endpoints: Vec<String>) -> Result<Run> {
        let (proxies, members) = endpoints.split_at(endpoints.len() / 2);
        let direct = Client::connect(config(members)).await?;
        let base = direct.get("x").await?.revision();
        let clients = Named::default();
        clients.set("direct", direct);
        clients.set("c", Client::connect(config(proxies)).await?);
        Ok(Run(Arc::new(Inner {
            endpoints,
            base,
            clients,
            watches: Named::default(),
            leases: Named::default(),
            kept: Named::default(),
            sessions: Named::default(),
            locks: Named::default(),
            stands: Named::default(),
            later: Named::default(),
        })))
    }

    /// Takes a step. Not `async`: a step within a step would be a type without an end.
    pub fn step(&self, words: Words) -> BoxFuture<String> {
        let this = self.clone();
        Box::pin(async move { this.step_now(words).await })
    }

    /// Again and again if it says so.
    async fn step_now(&self, words: Words) -> String {
        match words.verb.as_str() {
            "later" => {
                let (this, inner) = (self.clone(), Words::parse(words.arg(1)));
                let work = async move { this.step(inner).await };
                self.later.set(words.arg(0), tokio::spawn(work));
                return "begun".into();
            }
            "join" => {
                let step = self.later.take(words.arg(0)).expect("begun before");
                return step.await.unwrap_or_else(|e| e.to_string());
            }
            "fault" => return ask(&words.args.join(" ")).await,
            _ => {}
        }
        loop {
            let line = self.take(&words).await.unwrap_or_else(|error| failed(&error));
            match no_answer(&line) {
                true if words.coarse => return "no answer".into(),
                true if words.retry => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return line,
            }
        }
    }

    async fn take(&self, words: &Words) -> Result<String> {
        let client = self.clients.get(&words.on);
        let client = words.within.map_or(client.clone(), |limit| client.with_timeout(limit));
        match words.verb.as_str() {
            "idle" => {
                tokio::time::sleep(duration(words.arg(0))).await;
                Ok("ok".into())
            }
            "client" => self.client(words).await,
            "endpoints" | "sync" | "await-sync" => self.endpoints(&client, words).await,
            "namespace" | "ordering" | "leasing" => self.layer(&client, words).await,
            "auth" => plain(self.auth(words.arg(0)).await),
            "watch" | "events" | "cancel" | "progress" | "mirror" | "updates" => {
                self.watching(&client, words).await
            }
            "grant" | "once" | "keep" | "alive" | "lost" | "release" | "left" | "revoke" => {
                self.lease_step(&client, words).await
            }
            "session" | "gone" | "close" | "lock" | "trylock" | "unlock" | "owner" | "campaign"
            | "proclaim" | "resign" | "leader" => self.together(&client, words).await,
            _ => self.keys(&client, words).await,
        }
    }

    /// A revision, counted from the scenario's beginning.
    pub fn rel(&self, revision: i64) -> String {
        format!("{:+}", revision - self.base)
    }

    /// A number; with a plus, a revision.
    pub fn number(&self, word: &str) -> i64 {
        let number: i64 = word.parse().unwrap_or_default();
        if word.starts_with('+') { number + self.base } else { number }
    }

    /// The revision of an answer, unless the step may have been repeated.
    pub fn header(&self, words: &Words, answer: &impl HasHeader) -> String {
        if words.quiet || words.retry {
            return "ok".into();
        }
        format!("ok {}", self.rel(answer.revision()))
    }

    /// The lease of this name, or number.
    pub fn lease(&self, name: &str) -> i64 {
        match name.parse() {
            Ok(number) => number,
            Err(_) => self.leases.get(name),
        }
    }

    fn proxies(&self) -> &[String] {
        &self.endpoints[..self.endpoints.len() / 2]
    }

    async fn client(&self, words: &Words) -> Result<String> {
        let mut list = Vec::new();
        for word in words.arg(1).split(',') {
            let (list_of, digits) = match word.strip_prefix('d') {
                Some(digits) => (&self.endpoints[self.proxies().len()..], digits),
                None => (self.proxies(), word),
            };
            // A world of one member has fewer.
            list.extend(digits.parse().ok().and_then(|n: usize| list_of.get(n)).cloned());
        }
        let mut config = config(&list).require_leader(words.has("hasleader"));
        if let Some((name, password)) = words.opts.get("user").and_then(|u| u.split_once(':')) {
            config = config.user(name, password);
        }
        if let Some(interval) = words.opts.get("autosync") {
            config = config.auto_sync_interval(duration(interval));
        }
        self.clients.set(words.arg(0), Client::connect(config).await?);
        Ok("ok".into())
    }

    async fn endpoints(&self, client: &Client, words: &Words) -> Result<String> {
        let synced = || {
            let bare = |e: &String| e.trim_start_matches("http://").to_owned();
            let mut have: Vec<String> = client.endpoints().iter().map(bare).collect();
            let mut all = self.proxies().to_vec();
            have.sort();
            all.sort();
            have == all
        };
        match words.verb.as_str() {
            "endpoints" => {
                let list: Vec<String> = match words.arg(0).parse::<usize>() {
                    Ok(n) => vec![self.proxies()[n].clone()],
                    Err(_) => Vec::new(),
                };
                plain(client.set_endpoints(list))
            }
            "sync" => {
                client.sync().await?;
                Ok(format!("ok {}", synced()))
            }
            _ => {
                while !synced() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok("ok".into())
            }
        }
    }

    async fn layer(&self, client: &Client, words: &Words) -> Result<String> {
        let made = match words.verb.as_str() {
            "namespace" => client.namespaced(words.arg(1)),
            "ordering" => client.ordered(100),
            _ => client.leasing(words.arg(1)).await?,
        };
        self.clients.set(words.arg(0), made);
        Ok("ok".into())
    }

    /// Makes root and alice, who may touch what begins with w/, and turns users on; or off.
    async fn auth(&self, what: &str) -> Result<()> {
        let direct = self.clients.get("direct");
        if what == "off" {
            let members = self.endpoints[self.proxies().len()..].to_vec();
            let root = Client::connect(config(&members).user("root", "r")).await?;
            root.auth_disable().await?;
            settle().await?;
            for user in ["root", "alice"] {
                direct.user_delete(user).await?;
            }
            for role in ["root", "writer"] {
                direct.role_delete(role).await?;
            }
            return settle().await;
        }
        direct.user_add("root", "r").await?;
        direct.role_add("root").await?;
        direct.user_grant_role("root", "root").await?;
        direct.role_add("writer").await?;
        let keys = KeySpan::prefix("w/");
        direct.role_grant_permission("writer", keys, PermissionType::Readwrite).await?;
        direct.user_add("alice", "a").await?;
        direct.user_grant_role("alice", "writer").await?;
        let _: pb::AuthEnableResponse = direct.auth_enable().await?;
        settle().await
    }
}
