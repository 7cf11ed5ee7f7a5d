//! The parts that many answers have in common, a name and a value a line. Not here: whole answers.

use std::io::Write as _;

use etch_cli::go::quote;
use etch_client::{KeyValue, pb};

/// The header's fields.
pub fn header(out: &mut Vec<u8>, header: Option<&pb::ResponseHeader>, hex: bool) {
    let header = header.copied().unwrap_or_default();
    let _ = if hex {
        let (cluster, member) = (header.cluster_id, header.member_id);
        writeln!(out, "\"ClusterID\" : {cluster:x}\n\"MemberID\" : {member:x}")
    } else {
        let (cluster, member) = (header.cluster_id, header.member_id);
        writeln!(out, "\"ClusterID\" : {cluster}\n\"MemberID\" : {member}")
    };
    if header.revision > 0 {
        let _ = writeln!(out, "\"Revision\" : {}", header.revision);
    }
    let _ = writeln!(out, "\"RaftTerm\" : {}", header.raft_term);
}

/// A key's fields, their names with this in front.
pub fn key_value(out: &mut Vec<u8>, front: &str, kv: &KeyValue, hex: bool) {
    let _ = write!(
        out,
        "\"{front}Key\" : {}\n\"{front}CreateRevision\" : {}\n\"{front}ModRevision\" : {}\n\
         \"{front}Version\" : {}\n\"{front}Value\" : {}\n",
        quote(&kv.key),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        quote(&kv.value),
    );
    let _ = if hex {
        writeln!(out, "\"{front}Lease\" : {}", hexadecimal(kv.lease))
    } else {
        writeln!(out, "\"{front}Lease\" : {}", kv.lease)
    };
}

/// Go's `%016x` of a signed number.
pub fn hexadecimal(number: i64) -> String {
    let size = number.unsigned_abs();
    if number < 0 { format!("-{size:015x}") } else { format!("{size:016x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_numbers_are_gos() {
        assert_eq!(hexadecimal(255), "00000000000000ff");
        assert_eq!(hexadecimal(-1), "-000000000000001");
        assert_eq!(hexadecimal(i64::MIN), "-8000000000000000");
    }
}
