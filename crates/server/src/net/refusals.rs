//! What is logged of connections that were not let in: each with its address and the reason, but not more
//! lines than somebody can read who is flooded with them. Not here: why a connection is refused.

use std::cell::Cell;
use std::net::SocketAddr;

use etch_tls::Refused;

use crate::logging::Level;
use crate::member::Member;
use crate::{log_at, log_warn};

/// Lines of a thread in a second; those beyond are counted.
const LINES: u32 = 50;

/// What one thread has logged of late.
#[derive(Debug, Default)]
pub struct Refusals {
    second: Cell<u64>,
    lines: Cell<u32>,
    left_out: Cell<u32>,
}

impl Refusals {
    /// Logs one. Who has just hung up is worth a line for those who look for it.
    pub fn log(
        &self,
        member: &Member,
        message: &str,
        remote: Option<SocketAddr>,
        refused: &Refused,
    ) {
        let level = if refused.hung_up { Level::Debug } else { Level::Warn };
        if !member.log.enabled(level) || !self.may_log(member, message) {
            return;
        }
        let remote = remote.map(|address| address.to_string()).unwrap_or_default();
        let Refused { why, server_name, ip_addresses, dns_names, .. } = refused;
        if ip_addresses.is_empty() && dns_names.is_empty() {
            log_at!(member.log, level, message, "remote-addr" => remote, "server-name" => server_name, "error" => why);
        } else {
            log_at!(
                member.log,
                level,
                message,
                "remote-addr" => remote,
                "server-name" => server_name,
                "ip-addresses" => ip_addresses,
                "dns-names" => dns_names,
                "error" => why,
            );
        }
    }

    fn may_log(&self, member: &Member, message: &str) -> bool {
        let second = member.clock.now_ms() / 1000;
        if self.second.replace(second) != second {
            self.lines.set(0);
            let left_out = self.left_out.take();
            if left_out > 0 {
                log_warn!(member.log, "more connections were rejected than are logged", "message" => message, "left-out" => left_out);
            }
        }
        self.lines.set(self.lines.get() + 1);
        let may = self.lines.get() <= LINES;
        if !may {
            self.left_out.set(self.left_out.get() + 1);
        }
        may
    }
}
