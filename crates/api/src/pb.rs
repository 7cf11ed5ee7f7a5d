//! The messages, generated from `proto/` under their packages' names. Nothing here is written by hand.

/// All of `proto/` as an encoded `FileDescriptorSet`, for whoever generates stubs or JSON from it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::pedantic)]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }
    };
}

package!(
    /// Keys with their values, and events.
    mvccpb, "mvccpb.rs"
);
package!(
    /// Users, roles, permissions.
    authpb, "authpb.rs"
);
package!(
    /// What members publish about themselves.
    membershippb, "membershippb.rs"
);
package!(
    /// The client API, and the raft entry's content.
    etcdserverpb, "etcdserverpb.rs"
);
package!(
    /// The lock service.
    v3lockpb, "v3lockpb.rs"
);
package!(
    /// The election service.
    v3electionpb, "v3electionpb.rs"
);
package!(
    /// Raft's messages and its state on disk. Its constructors are in [`crate::stored`].
    raftpb, "raftpb.rs"
);
package!(
    /// Records of the write-ahead log. Its constructors are in [`crate::stored`].
    walpb, "walpb.rs"
);
package!(
    /// The envelope of a `.snap` file. Its constructor is in [`crate::stored`].
    snappb, "snappb.rs"
);
package!(
    /// Leases as stored and as asked for between peers.
    leasepb, "leasepb.rs"
);

/// gRPC's own packages.
pub mod grpc {
    /// Health checking.
    pub mod health {
        package!(
            /// Version 1 of the health service.
            v1, "grpc.health.v1.rs"
        );
    }
}
