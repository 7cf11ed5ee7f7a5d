//! The end of a run: all is well again, nobody asks any more. The server is asked what it holds, before and
//! after one more restart, and its files are looked at. Not here: the verdict (the judges: `etch_sim::judge`).

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use etch_api::pb::etcdserverpb as pb;
use etch_sim::history::{Observation, Request, Response};
use tokio::process::Command;

use crate::ask;
use crate::client::{Client, Link};
use crate::process::Server;
use crate::rng::Rng;
use crate::world::World;

/// Enough for any answer of a server that is well.
const LIMIT: Duration = Duration::from_secs(15);

/// The last write of a run; its revision. All watchers go up to it.
pub async fn last_write(world: &Arc<World>, rng: Rng) -> Result<i64, String> {
    let mut client = Client::new(world, rng);
    for _ in 0..20 {
        let value = format!("v{}", world.unique());
        let put = Request::Put(ask::put("the-end", value, 0));
        if let Some(Response::Put(done)) = client.ask_within(put, LIMIT).await {
            return Ok(done.header.map_or(0, |h| h.revision));
        }
    }
    Err("a server that is well again takes no write".into())
}

/// What the server says of itself.
pub async fn observe(world: &World) -> Result<Observation, String> {
    let failed =
        |what: &str, why: String| format!("a server that is well again answers no {what}: {why}");
    let mut link =
        Link::connect(&world.endpoint, LIMIT).await.map_err(|e| failed("connection", e))?;
    let range = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let all: pb::RangeResponse = link
        .unary("/etcdserverpb.KV/Range", range, LIMIT)
        .await
        .map_err(|e| failed("range", e.to_string()))?;
    let header = all.header.unwrap_or_default();
    let at = pb::HashKvRequest { revision: header.revision };
    let hash: pb::HashKvResponse = link
        .unary("/etcdserverpb.Maintenance/HashKV", at, LIMIT)
        .await
        .map_err(|e| failed("HashKV", e.to_string()))?;
    Ok(Observation {
        member: header.member_id,
        at_ns: world.now_ns(),
        revision: header.revision,
        compact_revision: hash.compact_revision,
        hash: Some((header.revision, hash.compact_revision, hash.hash)),
        keys: Some(all.kvs),
    })
}

/// Looks at the server before a restart and after it, and ends it in order.
pub async fn observe_twice(
    world: &World,
    server: &mut Server,
    orderly: bool,
) -> Result<Vec<Observation>, String> {
    let first = observe(world).await?;
    if orderly {
        server.terminate().await?;
    } else {
        server.kill().await?;
    }
    server.start().await?;
    let second = observe(world).await?;
    server.terminate().await?;
    Ok(vec![first, second])
}

/// What `bbolt check` finds, where that program is given by `BBOLT_BIN`.
pub async fn check_file(server: &Server) -> Option<String> {
    let bbolt = PathBuf::from(std::env::var_os("BBOLT_BIN")?);
    let db = server.data_dir.join("member/snap/db");
    let checked = Command::new(&bbolt).arg("check").arg(&db).stdin(Stdio::null()).output().await;
    match checked {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "bbolt check: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(e) => Some(format!("{}: {e}", bbolt.display())),
    }
}
