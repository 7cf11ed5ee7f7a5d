//! From nodes of the second store to keys of the third: by a rule of our own, or by somebody's program, which reads
//! nodes as JSON and writes keys as protobuf, each with its length before it. Not here: which nodes (`super`).

use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use etch_api::pb::mvccpb::KeyValue;
use etch_cli::go;
use prost::Message as _;

use super::Listed;
use crate::time;

/// More than any key and value together may have in etcd; a longer length is no length.
const LENGTH_MAX: u64 = 1 << 30;

/// A file's path becomes a key, its indexes revisions.
pub fn by_default(nodes: &[Listed<'_>]) -> Vec<KeyValue> {
    let files = nodes.iter().filter(|listed| !listed.node.is_dir());
    files
        .map(|listed| KeyValue {
            key: text(listed.path.as_bytes()).into_bytes().into(),
            value: text(&listed.node.value).into_bytes().into(),
            create_revision: listed.node.created as i64,
            mod_revision: listed.node.modified as i64,
            version: 1,
            ..KeyValue::default()
        })
        .collect()
}

/// The keys that a program makes of the nodes.
///
/// # Errors
/// It does not start, writes something else, or fails.
pub fn by_program(program: &Path, nodes: &[Listed<'_>]) -> Result<Vec<KeyValue>, String> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| go::io_error("fork/exec", program, &e))?;
    let input: Vec<u8> = nodes.iter().flat_map(|listed| json(listed).into_bytes()).collect();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    // Its output is read while it still reads: either pipe may be full.
    let writer = thread::spawn(move || {
        // A program that does not want to read on is not wrong for that.
        stdin.map(|mut pipe| pipe.write_all(&input))
    });
    let rows = stdout.map_or(Ok(Vec::new()), read_keys);
    let _ = writer.join();
    let status = child.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(status.to_string().replace("exit status: ", "exit status "));
    }
    rows.map_err(|e| format!("the transformer's output: {e}"))
}

fn read_keys(mut out: ChildStdout) -> io::Result<Vec<KeyValue>> {
    let mut rows = Vec::new();
    loop {
        let mut length = [0; 8];
        let mut got = 0;
        while got < length.len() {
            match out.read(&mut length[got..])? {
                0 if got == 0 => return Ok(rows),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => got += more,
            }
        }
        let length = u64::from_le_bytes(length);
        if length > LENGTH_MAX {
            let why = format!("{length} is not the length of a key and its value");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut bytes = Vec::new();
        if (&mut out).take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let row = KeyValue::decode(&bytes[..]);
        rows.push(row.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?);
    }
}

/// A node as etcd's API shows it, without what is in it.
fn json(listed: &Listed<'_>) -> String {
    let node = listed.node;
    let mut fields = vec![format!("\"key\":{}", quoted(listed.path.as_bytes()))];
    match node.is_dir() {
        true => fields.push("\"dir\":true".to_owned()),
        false => fields.push(format!("\"value\":{}", quoted(&node.value))),
    }
    if let Some(at) = node.expires {
        fields.push(format!("\"expiration\":\"{}\"", time::format(at)));
    }
    let numbers = [
        ("ttl", listed.ttl as u64, listed.ttl.to_string()),
        ("modifiedIndex", node.modified, node.modified.to_string()),
        ("createdIndex", node.created, node.created.to_string()),
    ];
    for (name, _, shown) in numbers.iter().filter(|(_, number, _)| *number != 0) {
        fields.push(format!("\"{name}\":{shown}"));
    }
    format!("{{{}}}", fields.join(","))
}

/// A text as Go's JSON has it, which takes care of HTML.
fn quoted(bytes: &[u8]) -> String {
    let mut out = serde_json::Value::String(text(bytes)).to_string();
    for (from, to) in [
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u{2028}", "\\u2028"),
        ("\u{2029}", "\\u2029"),
    ] {
        out = out.replace(from, to);
    }
    out
}

/// Bytes as a text, with a sign in the place of each one that is none.
fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::store::Node;
    use super::*;

    #[test]
    fn nodes_are_shown_as_etcds_api_shows_them() {
        let file = Node {
            created: 7,
            modified: 23,
            expires: Some(1_795_262_327_257_682_900),
            value: b"<y>\xff\xfe".to_vec(),
            children: None,
        };
        let listed = Listed { path: "/dir/y".into(), node: &file, ttl: 699 };
        assert_eq!(
            json(&listed),
            "{\"key\":\"/dir/y\",\"value\":\"\\u003cy\\u003e\u{fffd}\u{fffd}\",\
             \"expiration\":\"2026-11-21T11:58:47.2576829Z\",\"ttl\":699,\"modifiedIndex\":23,\
             \"createdIndex\":7}"
        );
        let root = Node { children: Some(Default::default()), ..Node::default() };
        let listed = Listed { path: "/".into(), node: &root, ttl: 0 };
        assert_eq!(json(&listed), "{\"key\":\"/\",\"dir\":true}");
        assert!(by_default(&[listed]).is_empty());
    }
}
