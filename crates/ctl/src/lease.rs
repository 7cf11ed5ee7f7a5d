//! `lease`: grant, revoke, timetolive, list, keep-alive. Not here: how the answers look (`display::lease`).

use etch_cli::{Command, Failure, Flag, Matches, go};
use etch_client::EtcdError;

use crate::compaction::decimal;
use crate::connect::Ctl;
use crate::display::{Format, fields::hexadecimal, print};
use crate::fail::{failed_to, not_connected};
use crate::put::parse_hexadecimal;
use crate::{bad_args, program};

/// The command.
pub fn command() -> Command {
    let time_to_live =
        Command::new("timetolive <leaseID> [options]", "Get lease information", time_to_live)
            .flags(vec![Flag::switch("keys", "Get keys attached to this lease")]);
    let once = "Resets the keep-alive time to its original value and cobrautl.Exits immediately";
    let keep_alive = "Keeps leases alive (renew)";
    let keep_alive = Command::new("keep-alive [options] <leaseID>", keep_alive, keep_alive_run)
        .flags(vec![Flag::switch("once", once)]);
    let short = "Lease related commands. Use `etcdctl lease --help` to see subcommands";
    let children = vec![
        Command::new("grant <ttl>", "Creates leases", grant),
        Command::new("revoke <leaseID>", "Revokes leases", revoke),
        time_to_live,
        Command::new("list", "List all active leases", list),
        keep_alive,
    ];
    Command::parent("lease <subcommand>", short, children)
        .long("Lease related commands")
        .group(program::KV)
}

fn grant(matches: &Matches) -> Result<(), Failure> {
    let [ttl] = &matches.args[..] else {
        return Err(bad_args("lease grant command needs TTL argument"));
    };
    let ttl = decimal(ttl).map_err(|why| bad_args(format!("bad TTL ({why})")))?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl
        .try_ask(async |client| client.lease_grant(ttl).await)
        .map_err(|e| failed_to("grant lease", e))?;
    ctl.display.granted(&answer)
}

fn revoke(matches: &Matches) -> Result<(), Failure> {
    let [id] = &matches.args[..] else {
        return Err(bad_args("lease revoke command needs 1 argument"));
    };
    let id = lease(id)?;
    let ctl = Ctl::new(matches)?;
    let answer = ctl
        .try_ask(async |client| client.lease_revoke(id).await)
        .map_err(|e| failed_to("revoke lease", e))?;
    ctl.display.revoked(id, &answer)
}

fn time_to_live(matches: &Matches) -> Result<(), Failure> {
    let [id] = &matches.args[..] else {
        return Err(bad_args("lease timetolive command needs lease ID as argument"));
    };
    // etcdctl connects before it reads the identifier; what is wrong is said sooner here, in the same words.
    let id = lease(id)?;
    let ctl = Ctl::new(matches)?;
    let keys = matches.is_on("keys");
    let answer = ctl.try_ask(async |client| {
        if keys { client.lease_keys(id).await } else { client.lease_time_to_live(id).await }
    });
    ctl.display.time_to_live(&answer.map_err(not_connected)?, keys)
}

fn list(matches: &Matches) -> Result<(), Failure> {
    let ctl = Ctl::new(matches)?;
    let answer = ctl.try_ask(async |client| client.leases().await).map_err(not_connected)?;
    ctl.display.leases(&answer)
}

fn keep_alive_run(matches: &Matches) -> Result<(), Failure> {
    let [id] = &matches.args[..] else {
        return Err(bad_args("lease keep-alive command needs lease ID as argument"));
    };
    let id = lease(id)?;
    if matches.is_on("once") {
        let ctl = Ctl::new(matches)?;
        let kept = ctl.try_ask(async |client| client.lease_keep_alive(id).await);
        return ctl.display.kept_alive(kept.map_err(not_connected)?.first());
    }
    let ctl = Ctl::lasting(matches)?;
    ctl.run(keep(&ctl, id))
}

/// Keeps a lease alive until it is gone.
async fn keep(ctl: &Ctl, id: i64) -> Result<(), Failure> {
    match ctl.client.lease_keep_alive(id).await {
        Ok(mut kept) => {
            ctl.display.kept_alive(kept.first())?;
            while let Some(answer) = kept.next().await {
                match answer {
                    Ok(answer) => ctl.display.kept_alive(&answer)?,
                    Err(_) => break,
                }
            }
        }
        Err(error) if error.is(EtcdError::LeaseNotFound) => {}
        Err(error) => return Err(not_connected(error)),
    }
    if ctl.display.format == Format::Simple {
        let text = format!("lease {} expired or revoked.\n", hexadecimal(id));
        print(text.as_bytes())?;
    }
    Ok(())
}

/// The identifier that an argument is.
fn lease(text: &str) -> Result<i64, Failure> {
    parse_hexadecimal(text).map_err(|why| {
        let why = format!("strconv.ParseInt: parsing {}: {why}", go::quote(text));
        bad_args(format!("bad lease ID arg ({why}), expecting ID in Hex"))
    })
}
