//! Compaction by itself: by time (`periodic`) or by number of revisions (`revision`), as etcd paces it. Not
//! here: the compaction, which goes through the log like anybody's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use etch_api::Error;
use etch_api::internal::RequestKind;
use etch_api::pb::etcdserverpb::CompactionRequest;
use prost::Message as _;
use tokio::sync::oneshot;

use super::inbox::{Caller, Command};
use crate::config::AutoCompaction;
use crate::member::Member;
use crate::{log_info, log_warn};

/// In revision mode the revision is looked at this often.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// In periodic mode a compaction is at most this far from the next.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// A period is cut into so many samples.
const SAMPLES: u32 = 10;

/// Runs until `stop` is closed.
pub fn run(mode: AutoCompaction, member: &Arc<Member>, stop: &Receiver<()>) {
    match mode {
        AutoCompaction::Off => {}
        AutoCompaction::Periodic(period) => periodic(period, member, stop),
        AutoCompaction::Revision(keep) => by_revision(keep, member, stop),
    }
}

fn sleep(time: Duration, stop: &Receiver<()>) -> bool {
    matches!(stop.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// Keeps a period's worth of samples of the revision; compacts to the oldest each hour, or each period if
/// that is shorter.
fn periodic(period: Duration, member: &Arc<Member>, stop: &Receiver<()>) {
    let interval = period.min(LONGEST_INTERVAL);
    let pause = interval / SAMPLES;
    let window = usize::try_from(period.as_nanos() / pause.as_nanos().max(1)).unwrap_or(usize::MAX);
    let mut samples = VecDeque::new();
    let mut since_last = Duration::ZERO;
    let mut last = 0;
    loop {
        samples.push_back(member.store.revision());
        if samples.len() > window.saturating_add(1) {
            samples.pop_front();
        }
        if !sleep(pause, stop) {
            return;
        }
        since_last += pause;
        let full = samples.len() > window;
        let Some(&oldest) = samples.front() else { continue };
        if !full || since_last < interval || oldest <= last {
            continue;
        }
        if compact(oldest, member) {
            last = oldest;
            since_last = Duration::ZERO;
        }
    }
}

fn by_revision(keep: i64, member: &Arc<Member>, stop: &Receiver<()>) {
    let mut last = 0;
    while sleep(REVISION_INTERVAL, stop) {
        let target = member.store.revision() - keep;
        if target > 0 && target != last && compact(target, member) {
            last = target;
        }
    }
}

/// Proposes a compaction and waits. True if it is done, by us or by somebody before.
fn compact(revision: i64, member: &Arc<Member>) -> bool {
    if member.view.leader() != member.identity.member {
        return false;
    }
    log_info!(member.log, "starting auto compaction", "revision" => revision);
    let body = CompactionRequest { revision, physical: false }.encode_to_vec().into();
    let (sender, receiver) = oneshot::channel();
    member.inbox.push(Command::Propose(RequestKind::Compaction, body, Caller::Task(sender)));
    match receiver.blocking_recv().unwrap_or(Err(Error::Stopped)) {
        Ok(_) | Err(Error::Compacted) => {
            log_info!(member.log, "completed auto compaction", "revision" => revision);
            true
        }
        Err(error) => {
            log_warn!(member.log, "failed auto compaction", "revision" => revision, "error" => error.message());
            false
        }
    }
}
