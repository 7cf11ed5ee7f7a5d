//! What the system knows of this process: time, memory, files, network. Of the families that etcd's
//! runtime has (`go_*`), those with a meaning here. Not here: what the server counts itself.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZero;

use super::text::Page;
use crate::config::release;

/// The kernel tells times to programs in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn write(page: &mut Page) {
    files(page);
    memory(page);
    times(page);
    network(page);
    let out = page.family("go_info", "gauge", "What this server is, instead of the version of Go.");
    let _ = writeln!(out, "go_info{{version=\"{}\"}} 1", release());
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    page.value(
        "go_sched_gomaxprocs_threads",
        "gauge",
        "Processors that this process may use.",
        cpus as f64,
    );
}

/// The number of open files, and the most that there may be.
pub(super) fn open_files() -> (u64, u64) {
    // Reading the directory opens one more.
    let used = fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1));
    (used as u64, limit("Max open files"))
}

fn files(page: &mut Page) {
    let (used, limit) = open_files();
    for name in ["os_fd_used", "process_open_fds"] {
        page.value(name, "gauge", "Open files.", used as f64);
    }
    for name in ["os_fd_limit", "process_max_fds"] {
        page.value(name, "gauge", "The most files that may be open.", limit as f64);
    }
}

fn memory(page: &mut Page) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key| number_after(&status, key) * 1024.0;
    let heap = bytes("RssAnon:");
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory that is in use, mapped files included.",
            bytes("VmRSS:"),
        ),
        ("process_virtual_memory_bytes", "Addresses that are in use.", bytes("VmSize:")),
        ("go_memstats_alloc_bytes", "Memory that is in use and not a mapped file.", heap),
        ("go_memstats_heap_alloc_bytes", "Memory that is in use and not a mapped file.", heap),
        ("go_memstats_heap_inuse_bytes", "Memory that is in use and not a mapped file.", heap),
        ("go_memstats_sys_bytes", "Addresses of data that are in use.", bytes("VmData:")),
        ("go_threads", "Threads.", number_after(&status, "Threads:")),
    ] {
        page.value(name, "gauge", help, value);
    }
    let most = limit("Max address space");
    let name = "process_virtual_memory_max_bytes";
    page.value(name, "gauge", "The most addresses that may be in use.", most as f64);
}

fn times(page: &mut Page) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in brackets, and may hold anything.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let started = number_after(&system, "btime") + field(22);
    let (cpu, start) = ("process_cpu_seconds_total", "process_start_time_seconds");
    page.value(cpu, "counter", "Processor time used.", field(14) + field(15));
    page.value(start, "gauge", "When the process began, in seconds since 1970.", started);
}

fn network(page: &mut Page) {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let (mut received, mut sent) = (0.0, 0.0);
    for line in text.lines().filter_map(|line| line.split_once(':').map(|(_, rest)| rest)) {
        let fields: Vec<f64> = line.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        received += fields.first().copied().unwrap_or(0.0);
        sent += fields.get(8).copied().unwrap_or(0.0);
    }
    let (r, s) = ("process_network_receive_bytes_total", "process_network_transmit_bytes_total");
    page.value(r, "counter", "Bytes received on all interfaces that the process sees.", received);
    page.value(s, "counter", "Bytes sent on all interfaces that the process sees.", sent);
}

fn number_after(text: &str, key: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// The soft limit of this name; no limit is the largest number.
fn limit(name: &str) -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let mut page = Page::default();
        write(&mut page);
        let mut out = String::new();
        page.finish(&mut out);
        let value = |name: &str| -> f64 {
            let line = out.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_start_time_seconds ") > 1.6e9);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("os_fd_limit ") >= value("os_fd_used "));
        assert!(value("go_threads ") >= 1.0);
    }
}
