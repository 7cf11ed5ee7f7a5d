//! What the node has to say, as lines of the log that people and scripts wait for. Not here: when it says
//! them.

use etch_api::Error;
use etch_api::pb::raftpb::ConfChangeType;
use etch_node::{Node, Note};

use super::inbox::Caller;
use crate::logging::Logger;
use crate::{log_info, log_warn};

/// Logs one note.
pub fn log(log: &Logger, node: &Node<Caller>, note: &Note) {
    match note {
        Note::Leader(0, term) => log_warn!(log, "lost leader", "term" => *term),
        Note::Leader(leader, term) => {
            log_info!(log, "elected leader", "leader" => format!("{leader:x}"), "term" => *term);
        }
        Note::ClusterVersion(version) => {
            log_info!(log, "set cluster version", "cluster-version" => version.to_string());
        }
        Note::ConfChange(kind, member, refused) => conf_change(log, node, *kind, *member, *refused),
        Note::Removed => {
            log_warn!(log, "server error", "error" => "the member has been permanently removed from the cluster")
        }
        Note::QuotaExceeded => log_warn!(log, "message exceeded backend quota; raising alarm"),
        Note::SnapshotSaved(index) => {
            log_info!(log, "noted snapshot in WAL", "snapshot-index" => *index);
        }
        Note::CompactionHashLost(error) => {
            log_warn!(log, "a compaction goes on without its hash", "error" => error);
        }
        Note::CompactionStep(_) => {}
        Note::Compacted(revision) => {
            log_info!(log, "finished scheduled compaction", "compact-revision" => *revision);
        }
    }
}

fn conf_change(
    log: &Logger,
    node: &Node<Caller>,
    kind: ConfChangeType,
    member: u64,
    refused: Option<Error>,
) {
    let (name, id) = (kind.as_str_name(), format!("{member:x}"));
    if let Some(why) = refused {
        log_warn!(
            log,
            "refused a configuration change",
            "raft-conf-change" => name,
            "raft-conf-change-node-id" => id,
            "error" => why.message(),
        );
        return;
    }
    log_info!(
        log,
        "applied a configuration change through raft",
        "raft-conf-change" => name,
        "raft-conf-change-node-id" => id.as_str(),
    );
    let voters = node.state().members().voters_and_learners().0;
    if kind == ConfChangeType::ConfChangeAddNode && voters.len() > 1 && voters.contains(&member) {
        log_warn!(
            log,
            "a voting member was added, and members of this release cannot reach one another: there is \
             no majority now, so writes and linearizable reads will fail; start again with \
             --force-new-cluster to make this member the only one, with the data it has",
            "added-peer-id" => id,
            "voting-members" => voters.len(),
        );
    }
}
