//! Compiles `proto/` to Rust, in process: protox parses, prost-build writes; no `protoc`, no network.
//!
//! Service stubs are not made here: a crate that wants them takes `pb::FILE_DESCRIPTOR_SET`. Beside the
//! messages there is a table of their fields, by which `decode` judges what prost refuses.

use std::{collections::BTreeMap, env, error::Error, fmt::Write, fs, path::PathBuf};

use prost::Message;
use prost_types::DescriptorProto;

/// The roots; what they import is found in the same directory.
const PROTOS: &[&str] = &[
    "rpc.proto",
    "raft_internal.proto",
    "metadata.proto",
    "lock.proto",
    "election.proto",
    "health.proto",
    "lease.proto",
    "wal.proto",
    "snap.proto",
];

/// The fields of each message, by its full name: number, type as descriptors count it, whether it is a list, the
/// message's name.
type Fields = BTreeMap<String, Vec<(i32, i32, bool, String)>>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let mut fields = Fields::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            gather(file.package(), message, &mut fields);
        }
    }
    fs::write(out.join("schema.rs"), schema(&fields)?)?;

    prost_build::Config::new()
        // Decoding a value out of a request shares the request's buffer.
        .bytes(["."])
        // Maps in key order: encoding must not depend on a hash seed.
        .btree_map(["."])
        // The table of fields is looked up by a message's name.
        .enable_type_names()
        // Their `Debug` is written by hand, in `secret.rs`: passwords and tokens are in no log.
        .skip_debug([
            ".authpb.User",
            ".etcdserverpb.AuthenticateRequest",
            ".etcdserverpb.AuthenticateResponse",
            ".etcdserverpb.AuthUserAddRequest",
            ".etcdserverpb.AuthUserChangePasswordRequest",
            ".etcdserverpb.InternalAuthenticateRequest",
        ])
        .out_dir(&out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn gather(within: &str, message: &DescriptorProto, fields: &mut Fields) {
    const REPEATED: i32 = 3;
    let name = format!("{within}.{}", message.name());
    for nested in &message.nested_type {
        gather(&name, nested, fields);
    }
    let of_message = message.field.iter().map(|field| {
        let kind = field.r#type.unwrap_or_default();
        let named = field.type_name().trim_start_matches('.').to_owned();
        (field.number(), kind, field.label == Some(REPEATED), named)
    });
    fields.insert(name, of_message.collect());
}

/// The table as Rust, in the order of the names.
fn schema(fields: &Fields) -> Result<String, Box<dyn Error>> {
    let at: BTreeMap<&str, usize> =
        fields.keys().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut rust = String::from("&[\n");
    for (name, fields) in fields {
        write!(rust, "(\"{name}\", &[")?;
        for (number, kind, is_list, named) in fields {
            let kind = match (kind, is_list) {
                (3 | 4 | 5 | 8 | 13 | 14 | 17 | 18, false) => "Varint".to_owned(),
                (3 | 4 | 5 | 8 | 13 | 14 | 17 | 18, true) => "Varints".to_owned(),
                (9, _) => "Text".to_owned(),
                (12, _) => "Blob".to_owned(),
                (11, _) => format!("Nested({})", at[named.as_str()]),
                (other, _) => return Err(format!("{name}: no rule for type {other}").into()),
            };
            write!(rust, "({number}, {kind}), ")?;
        }
        rust.push_str("]),\n");
    }
    rust.push_str("]\n");
    Ok(rust)
}
