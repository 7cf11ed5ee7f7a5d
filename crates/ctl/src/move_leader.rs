//! `move-leader`: the leader hands over to another member. Not here: which members there are (`member`).

use std::io::Write as _;

use etch_cli::{Command, Failure, Matches};

use crate::connect::Parts;
use crate::fail::{failed, not_connected};
use crate::{bad_args, member, program};

/// The command.
pub fn command() -> Command {
    let short = "Transfers leadership to another etcd cluster member.";
    Command::new("move-leader <transferee-member-id>", short, run).group(program::CLUSTER)
}

fn run(matches: &Matches) -> Result<(), Failure> {
    let [target] = &matches.args[..] else {
        return Err(bad_args("move-leader command needs 1 argument"));
    };
    let target = member::parse_id(target).map_err(bad_args)?;
    let parts = Parts::new(matches)?;
    for endpoint in parts.endpoints() {
        let client = parts.runtime.block_on(parts.client_of(endpoint)).map_err(not_connected)?;
        let client = client.with_timeout(parts.limit);
        let status = parts.runtime.block_on(client.status(endpoint)).map_err(failed)?;
        let leader = status.leader;
        if status.header.is_some_and(|header| header.member_id == leader) {
            let moved = client.move_leader_at(endpoint, target);
            let answer = parts.runtime.block_on(moved).map_err(failed)?;
            return parts.display.without_fields(&answer, |out| {
                let _ = writeln!(out, "Leadership transferred from {leader:x} to {target:x}");
            });
        }
    }
    Err(bad_args(format!("no leader endpoint given at [{}]", parts.endpoints().join(" "))))
}
