//! How long requests take, by what they ask: from the request on, and in apply alone. Not here: gRPC's own
//! view of a call (`grpc`).

use std::time::Duration;

use etch_api::internal::RequestKind;

use super::text::Page;
use super::value::Histogram;

macro_rules! ops {
    ($($name:ident $what:literal)*) => {
        /// What is asked, as the page names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op {
            $(#[doc = $what] $name,)*
        }

        impl Op {
            /// What an entry of this kind is counted as, if it is counted.
            pub fn of(kind: RequestKind) -> Option<Op> {
                Some(match kind {
                    $(RequestKind::$name => Op::$name,)*
                    RequestKind::DowngradeVersionTest => return None,
                })
            }
        }

        const OPS: &[(Op, &str)] = &[$((Op::$name, stringify!($name)),)*];
    };
}

ops! {
    Range "A read."
    Put "A put."
    DeleteRange "A delete."
    Txn "A transaction."
    Compaction "A compaction."
    LeaseGrant "A lease granted."
    LeaseRevoke "A lease revoked."
    LeaseCheckpoint "The time left of leases, written down."
    Alarm "An alarm raised, cleared or listed."
    ClusterVersionSet "The cluster's version."
    ClusterMemberAttrSet "A member's name and client URLs."
    DowngradeInfoSet "A downgrade begun or ended."
    Authenticate "A login."
    AuthEnable "Auth turned on."
    AuthDisable "Auth turned off."
    AuthStatus "Whether auth is on."
    AuthUserAdd "A user added."
    AuthUserDelete "A user deleted."
    AuthUserGet "A user's roles."
    AuthUserChangePassword "A password changed."
    AuthUserGrantRole "A role granted."
    AuthUserRevokeRole "A role revoked."
    AuthUserList "All users."
    AuthRoleAdd "A role added."
    AuthRoleDelete "A role deleted."
    AuthRoleGet "A role's permissions."
    AuthRoleGrantPermission "A permission granted."
    AuthRoleRevokePermission "A permission revoked."
    AuthRoleList "All roles."
}

/// The histograms by operation and success. A series is shown once something was counted in it.
pub struct Ops {
    /// By operation: failed, succeeded.
    requests: Vec<[Histogram; 2]>,
    applies: Vec<[Histogram; 2]>,
    ranges: [Histogram; 2],
}

impl Ops {
    pub(super) fn new() -> Ops {
        Ops {
            requests: OPS.iter().map(|_| [Histogram::millis(), Histogram::millis()]).collect(),
            applies: OPS.iter().map(|_| [Histogram::fine(), Histogram::fine()]).collect(),
            ranges: [Histogram::fine(), Histogram::fine()],
        }
    }

    /// A request was answered.
    pub fn requested(&self, op: Op, success: bool, took: Duration) {
        self.requests[op as usize][usize::from(success)].observe(took);
    }

    /// `n` entries were applied in one go; each is counted with its share of the time.
    pub fn applied(&self, op: Op, success: bool, took: Duration, n: u64) {
        let share = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / n.max(1);
        self.applies[op as usize][usize::from(success)].record_many(share, n);
    }

    /// A range was read.
    pub fn ranged(&self, success: bool, took: Duration) {
        self.ranges[usize::from(success)].observe(took);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let name = "etcd_server_request_duration_seconds";
        let help = "Time from a request to its answer.";
        by_op(page, name, help, &self.requests, |op, success| {
            format!("success=\"{success}\",type=\"{op}\"")
        });
        let name = "etcd_server_apply_duration_seconds";
        let help = "Time to apply an entry.";
        by_op(page, name, help, &self.applies, |op, success| {
            format!("op=\"{op}\",success=\"{success}\",version=\"v3\"")
        });
        if self.ranges.iter().any(|histogram| histogram.count() > 0) {
            let name = "etcd_server_range_duration_seconds";
            let out = page.family(name, "histogram", "Time to read a range.");
            for (success, histogram) in [false, true].into_iter().zip(&self.ranges) {
                if histogram.count() > 0 {
                    histogram.write(out, name, &format!("success=\"{success}\""));
                }
            }
        }
    }
}

fn by_op(
    page: &mut Page,
    name: &'static str,
    help: &str,
    histograms: &[[Histogram; 2]],
    labels: impl Fn(&str, bool) -> String,
) {
    let counted = |pair: &[Histogram; 2]| pair.iter().any(|histogram| histogram.count() > 0);
    if !histograms.iter().any(counted) {
        return;
    }
    let out = page.family(name, "histogram", help);
    for ((_, op), pair) in OPS.iter().zip(histograms) {
        for (success, histogram) in [false, true].into_iter().zip(pair) {
            if histogram.count() > 0 {
                histogram.write(out, name, &labels(op, success));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_numbers() {
        for (at, (op, name)) in OPS.iter().enumerate() {
            assert_eq!(*op as usize, at);
            assert_eq!(format!("{op:?}"), *name);
        }
    }

    #[test]
    fn a_series_appears_with_its_first_value() {
        let ops = Ops::new();
        let text = |ops: &Ops| {
            let mut page = Page::default();
            ops.write(&mut page);
            let mut out = String::new();
            page.finish(&mut out);
            out
        };
        assert_eq!(text(&ops), "");
        ops.applied(Op::Put, true, Duration::from_micros(300), 3);
        ops.requested(Op::Txn, false, Duration::from_millis(1));
        ops.ranged(true, Duration::from_millis(1));
        let text = text(&ops);
        for line in [
            "etcd_server_apply_duration_seconds_bucket{op=\"Put\",success=\"true\",version=\"v3\",le=\"0.0001\"} 3",
            "etcd_server_apply_duration_seconds_sum{op=\"Put\",success=\"true\",version=\"v3\"} 0.0003",
            "etcd_server_request_duration_seconds_count{success=\"false\",type=\"Txn\"} 1",
            "etcd_server_range_duration_seconds_count{success=\"true\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
