//! `endpoint`: how the members behind the endpoints are, one by one. Not here: how that looks (`display::cluster`).

use std::time::Instant;

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::{Client, EtcdError};
use futures_util::future::join_all;
use prost::Message;

use crate::connect::Parts;
use crate::display::cluster::{Answer, Health};
use crate::fail::{not_connected, text};
use crate::{exit, program};

/// The command.
pub fn command() -> Command {
    let short = "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands";
    let rev = Flag::int("rev", 0, "maximum revision to hash (default: latest revision)");
    let children = vec![
        Command::new(
            "health",
            "Checks the healthiness of endpoints specified in `--endpoints` flag",
            health,
        ),
        Command::new(
            "status",
            "Prints out the status of endpoints specified in `--endpoints` flag",
            status,
        )
        .long(STATUS),
        Command::new(
            "hashkv",
            "Prints the KV history hash for each endpoint in --endpoints",
            hashkv,
        )
        .persistent(vec![rev]),
    ];
    Command::parent("endpoint <subcommand>", short, children)
        .long("Endpoint related commands")
        .group(program::CLUSTER)
        .persistent(vec![cluster_flag()])
}

const STATUS: &str =
    "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft index, raft applied index, errors.
";

/// `--cluster`.
pub fn cluster_flag() -> Flag {
    Flag::switch("cluster", "use all endpoints from the cluster member list")
}

/// The endpoints that are asked: those of the flag, or with `--cluster` all members'.
pub fn all(parts: &Parts) -> Result<Vec<String>, Failure> {
    if !parts.matches.is_on("cluster") {
        return Ok(parts.matches.list("endpoints").to_vec());
    }
    let ask = async {
        let client = parts.client().await?.with_timeout(parts.limit);
        client.member_list().await
    };
    let answer = parts.runtime.block_on(ask).map_err(|e| {
        let why = format!("failed to fetch endpoints from etcd cluster member list: {}", text(&e));
        Failure::new(exit::ERROR, why)
    })?;
    Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

fn health(matches: &Matches) -> Result<(), Failure> {
    let parts = Parts::new(matches)?;
    let endpoints = all(&parts)?;
    let asked = endpoints.iter().map(|endpoint| health_of(&parts, endpoint));
    let list = parts.runtime.block_on(join_all(asked));
    parts.display.health(&list)?;
    match list.iter().all(|health| health.error.is_empty()) {
        true => Ok(()),
        false => Err(Failure::new(exit::ERROR, "unhealthy cluster")),
    }
}

/// An endpoint is well if the cluster agrees on something through it. Whether we may see what we ask for does not
/// matter: that, too, was agreed on.
async fn health_of(parts: &Parts, endpoint: &str) -> Health {
    let mut health = Health {
        endpoint: endpoint.to_owned(),
        is_healthy: false,
        took: String::new(),
        error: String::new(),
    };
    let client = match parts.client_of(endpoint).await {
        Ok(client) => client.with_timeout(parts.limit),
        Err(error) => {
            health.error = text(&error);
            return health;
        }
    };
    let started = Instant::now();
    let asked = client.get("health").await;
    health.took = go::duration(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
    match asked {
        Err(error) if !error.is(EtcdError::PermissionDenied) => health.error = text(&error),
        _ => health.error = alarms(&client).await,
    }
    health.is_healthy = health.error.is_empty();
    health
}

/// What the cluster complains of.
async fn alarms(client: &Client) -> String {
    match client.alarm_list().await {
        Err(_) => "Unable to fetch the alarm list".to_owned(),
        Ok(answer) if answer.alarms.is_empty() => String::new(),
        Ok(answer) => {
            let names = answer.alarms.iter().map(|alarm| match alarm.alarm().as_str_name() {
                "NONE" => "UNKNOWN ".to_owned(),
                name => format!("{name} "),
            });
            format!("Active Alarm(s): {}", names.collect::<String>())
        }
    }
}

fn status(matches: &Matches) -> Result<(), Failure> {
    let parts = Parts::new(matches)?;
    let (list, failed) =
        each(&parts, "status", async |client, endpoint| client.status(endpoint).await)?;
    parts.display.status(&list)?;
    failed.map_or(Ok(()), |_| Err(Failure::silent(exit::ERROR)))
}

fn hashkv(matches: &Matches) -> Result<(), Failure> {
    let parts = Parts::new(matches)?;
    let revision = parts.matches.number("rev");
    let (list, failed) =
        each(&parts, "hash", async |client, endpoint| client.hash_kv(endpoint, revision).await)?;
    parts.display.hashes(&list)?;
    failed.map_or(Ok(()), |why| Err(Failure::new(exit::ERROR, why)))
}

/// The answers of all endpoints that gave one, and the last error of the others.
type Asked<M> = (Vec<Answer<M>>, Option<String>);

fn each<M: Message>(
    parts: &Parts,
    what: &str,
    ask: impl AsyncFn(Client, String) -> etch_client::Result<M>,
) -> Result<Asked<M>, Failure> {
    let (mut list, mut failed) = (Vec::new(), None);
    for endpoint in all(parts)? {
        let client = parts.runtime.block_on(parts.client_of(&endpoint)).map_err(not_connected)?;
        let client = client.with_timeout(parts.limit);
        match parts.runtime.block_on(ask(client, endpoint.clone())) {
            Ok(answer) => list.push(Answer { endpoint, answer }),
            Err(error) => {
                let why = text(&error);
                eprintln!("Failed to get the {what} of endpoint {endpoint} ({why})");
                failed = Some(why);
            }
        }
    }
    Ok((list, failed))
}
