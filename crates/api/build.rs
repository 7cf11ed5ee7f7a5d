//! Compiles `proto/` to Rust, in process: protox parses, prost-build writes; no `protoc`, no network.
//!
//! Service stubs are not made here: a crate that wants them takes `pb::FILE_DESCRIPTOR_SET`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

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

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");

    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    prost_build::Config::new()
        // Decoding a value out of a request shares the request's buffer.
        .bytes(["."])
        // Maps in key order: encoding must not depend on a hash seed.
        .btree_map(["."])
        .out_dir(&out)
        .compile_fds(descriptors)?;
    Ok(())
}
