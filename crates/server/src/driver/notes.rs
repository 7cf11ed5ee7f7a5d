//! What the node has to say, as lines of the log that people and scripts wait for. Not here: when it says
//! them.

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
        Note::ConfChange(None) => {
            let members = node.state().members().len();
            log_info!(log, "applied a configuration change", "members" => members);
        }
        Note::ConfChange(Some(why)) => {
            log_warn!(log, "refused a configuration change", "error" => why.message());
        }
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
        Note::Compacted(revision) => {
            log_info!(log, "finished scheduled compaction", "compact-revision" => *revision);
        }
    }
}
