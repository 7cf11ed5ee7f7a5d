//! Sizes for people, as etcd's tools print them. Not here: exact numbers.

const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// So many bytes in a unit of a power of 1000: two digits where the number is small.
pub fn bytes(count: u64) -> String {
    if count < 10 {
        return format!("{count} B");
    }
    let unit = count.ilog(1000) as usize;
    let value = (count as f64 / 1000_f64.powi(unit as i32) * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_etcds_tools_print_them() {
        let rows = [
            (9, "9 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (u64::MAX, "18 EB"),
        ];
        for (count, text) in rows {
            assert_eq!(bytes(count), text);
        }
    }
}
