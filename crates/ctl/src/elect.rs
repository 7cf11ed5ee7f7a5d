//! `elect`: stands for an election, or shows who leads. Not here: the election's own rules
//! (`etch_client::concurrency`).

use etch_cli::{Command, Failure, Flag, Matches};
use etch_client::concurrency::{Election, Session};
use etch_client::{Error, GetResponse, pb};
use futures_util::StreamExt as _;

use crate::connect::Ctl;
use crate::fail::failed;
use crate::lock::{canceled, signals};
use crate::signals::Signals;
use crate::{bad_args, exit, program, words};

/// The command.
pub fn command() -> Command {
    let usage = "elect <election-name> [proposal]";
    Command::new(usage, "Observes and participates in leader election", run)
        .group(program::CONCURRENCY)
        .flags(vec![Flag::switch("listen", "observation mode").short('l')])
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let listens = matches.is_on("listen");
    let (name, proposal) = match &matches.args[..] {
        [name] if listens => (name, None),
        [name, proposal] if !listens => (name, Some(proposal)),
        [_] => return Err(bad_args("no proposal argument but -l not set")),
        [_, _] => return Err(bad_args("proposal given but -l is set")),
        _ => {
            let why = "elect takes one election name argument and an optional proposal argument";
            return Err(bad_args(why));
        }
    };
    let ctl = Ctl::lasting(matches)?;
    ctl.run(async {
        let mut signals = signals()?;
        let session = Session::new(&ctl.client).await.map_err(failed)?;
        let election = Election::new(&session, words::bytes(name));
        let result = match proposal {
            Some(proposal) => campaign(&ctl, &session, &election, proposal, &mut signals).await,
            None => tokio::select! {
                result = observe(&ctl, &election) => result,
                () = signals.wait() => Ok(()),
            },
        };
        // The lease would run out by itself.
        let _ = session.close().await;
        result
    })
}

async fn campaign(
    ctl: &Ctl,
    session: &Session,
    election: &Election,
    proposal: &str,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let leadership = tokio::select! {
        elected = election.campaign(words::bytes(proposal)) => elected.map_err(lost)?,
        () = signals.wait() => return Err(canceled()),
    };
    let mine = ctl.client.get(leadership.key()).await.map_err(failed)?;
    ctl.display.get(&mine)?;
    tokio::select! {
        () = signals.wait() => leadership.resign().await.map_err(failed),
        _ = session.lost() => Err(expired()),
    }
}

fn expired() -> Failure {
    Failure::new(exit::ERROR, "elect: session expired")
}

fn lost(error: Error) -> Failure {
    match error {
        Error::LeaseLost(_) => expired(),
        other => failed(other),
    }
}

/// Shows each leader, and what it proclaims.
async fn observe(ctl: &Ctl, election: &Election) -> Result<(), Failure> {
    // Who answers does not change with the leaders: one answer's header says it for all of them.
    let asked = ctl.client.get("\0").count_only().serializable().await.map_err(failed)?;
    let header = asked.header.unwrap_or_default();
    let mut leaders = election.observe();
    while let Some(leader) = leaders.next().await {
        let Ok(leader) = leader else { break };
        let header = pb::ResponseHeader { revision: leader.mod_revision, ..header };
        let (header, kvs) = (Some(header), vec![leader]);
        ctl.display.get(&GetResponse { header, kvs, ..Default::default() })?;
    }
    Err(Failure::new(exit::ERROR, "elect: observer lost"))
}
