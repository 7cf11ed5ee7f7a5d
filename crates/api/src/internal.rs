//! The content of a normal raft entry, `etcdserverpb.InternalRaftRequest`, written and read in one pass.
//!
//! The client's own bytes become the body as they are: no message is built on the way in, and none on the way
//! out but the body's, by whoever applies it. The entry around it (term, index, type) is in [`crate::stored`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};

use crate::wire;

/// The number of the `header` field.
const HEADER: u32 = 100;
/// The number of the `ID` field, which stands for `header.ID` in entries of old releases.
const ID: u32 = 1;

macro_rules! kinds {
    ($($name:ident = $tag:literal, $message:ident, $field:ident;)*) => {
        /// Which request an entry carries; the number is that of its field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum RequestKind {
            $(#[doc = concat!("A `", stringify!($message), "`.")] $name = $tag,)*
        }

        impl RequestKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [RequestKind] = &[$(RequestKind::$name,)*];

            /// The kind with this field number.
            pub const fn from_tag(tag: u32) -> Option<RequestKind> {
                match tag {
                    $($tag => Some(RequestKind::$name),)*
                    _ => None,
                }
            }

            /// The field's name, as metrics and logs show it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(RequestKind::$name => stringify!($field),)*
                }
            }
        }
    };
}

kinds! {
    Range = 3, RangeRequest, range;
    Put = 4, PutRequest, put;
    DeleteRange = 5, DeleteRangeRequest, delete_range;
    Txn = 6, TxnRequest, txn;
    Compaction = 7, CompactionRequest, compaction;
    LeaseGrant = 8, LeaseGrantRequest, lease_grant;
    LeaseRevoke = 9, LeaseRevokeRequest, lease_revoke;
    Alarm = 10, AlarmRequest, alarm;
    LeaseCheckpoint = 11, LeaseCheckpointRequest, lease_checkpoint;
    AuthEnable = 1000, AuthEnableRequest, auth_enable;
    AuthDisable = 1011, AuthDisableRequest, auth_disable;
    Authenticate = 1012, InternalAuthenticateRequest, authenticate;
    AuthStatus = 1013, AuthStatusRequest, auth_status;
    AuthUserAdd = 1100, AuthUserAddRequest, auth_user_add;
    AuthUserDelete = 1101, AuthUserDeleteRequest, auth_user_delete;
    AuthUserGet = 1102, AuthUserGetRequest, auth_user_get;
    AuthUserChangePassword = 1103, AuthUserChangePasswordRequest, auth_user_change_password;
    AuthUserGrantRole = 1104, AuthUserGrantRoleRequest, auth_user_grant_role;
    AuthUserRevokeRole = 1105, AuthUserRevokeRoleRequest, auth_user_revoke_role;
    AuthUserList = 1106, AuthUserListRequest, auth_user_list;
    AuthRoleList = 1107, AuthRoleListRequest, auth_role_list;
    AuthRoleAdd = 1200, AuthRoleAddRequest, auth_role_add;
    AuthRoleDelete = 1201, AuthRoleDeleteRequest, auth_role_delete;
    AuthRoleGet = 1202, AuthRoleGetRequest, auth_role_get;
    AuthRoleGrantPermission = 1203, AuthRoleGrantPermissionRequest, auth_role_grant_permission;
    AuthRoleRevokePermission = 1204, AuthRoleRevokePermissionRequest, auth_role_revoke_permission;
    ClusterVersionSet = 1300, ClusterVersionSetRequest, cluster_version_set;
    ClusterMemberAttrSet = 1301, ClusterMemberAttrSetRequest, cluster_member_attr_set;
    DowngradeInfoSet = 1302, DowngradeInfoSetRequest, downgrade_info_set;
    DowngradeVersionTest = 9900, DowngradeVersionTestRequest, downgrade_version_test;
}

impl RequestKind {
    /// The number of the field.
    pub const fn tag(self) -> u32 {
        self as u32
    }
}

/// Who asked: what goes before the body of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// Pairs the applied entry with the call that waits for it.
    pub id: u64,
    /// The caller; empty while auth is off.
    pub username: &'a str,
    /// The auth store's revision when the caller was checked; 0 while auth is off.
    pub auth_revision: u64,
}

impl Header<'_> {
    fn body_len(&self) -> usize {
        let name = if self.username.is_empty() {
            0
        } else {
            wire::field_bytes_len(2, self.username.len())
        };
        wire::field_varint_len(1, self.id) + name + wire::field_varint_len(3, self.auth_revision)
    }

    fn encode(&self, out: &mut impl BufMut) {
        wire::field_head(HEADER, self.body_len(), out);
        wire::field_varint(1, self.id, out);
        if !self.username.is_empty() {
            wire::field_bytes(2, self.username.as_bytes(), out);
        }
        wire::field_varint(3, self.auth_revision, out);
    }
}

/// An entry's content for a request of an anonymous caller (or of the cluster itself).
pub fn encode_entry(id: u64, kind: RequestKind, body: &[u8]) -> Bytes {
    encode_entry_from(&Header { id, ..Header::default() }, kind, body)
}

/// An entry's content: `body` is the encoded message of `kind`.
///
/// Fields stand in the order of their numbers, as etcd writes them: the header is after a store request and
/// before an auth or cluster request. The bytes thus are etcd's own if the body's are.
pub fn encode_entry_from(header: &Header<'_>, kind: RequestKind, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_len(header, kind, body.len()));
    if kind.tag() < HEADER {
        wire::field_bytes(kind.tag(), body, &mut out);
        header.encode(&mut out);
    } else {
        header.encode(&mut out);
        wire::field_bytes(kind.tag(), body, &mut out);
    }
    out.freeze()
}

/// How long [`encode_entry_from`]'s result is for a body of `body_len` bytes: what etcd holds against
/// `--max-request-bytes`.
pub fn encoded_len(header: &Header<'_>, kind: RequestKind, body_len: usize) -> usize {
    wire::field_bytes_len(HEADER, header.body_len()) + wire::field_bytes_len(kind.tag(), body_len)
}

/// An entry's content, taken apart. What it holds shares the entry's memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InternalEntry {
    /// `header.ID`, or the `ID` of old releases where that is 0.
    pub id: u64,
    /// The caller; empty while auth is off. Valid UTF-8.
    pub username: Bytes,
    /// The auth store's revision when the caller was checked.
    pub auth_revision: u64,
    /// Which request; `None` if there is none that we know.
    pub kind: Option<RequestKind>,
    /// The encoded message of that kind; not looked into.
    pub body: Bytes,
}

impl InternalEntry {
    /// The caller's name.
    pub fn username(&self) -> &str {
        std::str::from_utf8(&self.username).unwrap_or_default()
    }
}

/// Takes an entry's content apart, without copying.
///
/// Unknown fields are passed over. etcd writes one request an entry; if there are more, the last one counts.
pub fn decode_entry(data: &Bytes) -> Result<InternalEntry, DecodeError> {
    let mut entry = InternalEntry::default();
    let mut old_id = 0;
    let mut rest = data.clone();
    while !rest.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut rest)?;
        match (tag, wire_type) {
            (ID, WireType::Varint) => old_id = encoding::decode_varint(&mut rest)?,
            (HEADER, WireType::LengthDelimited) => {
                decode_header(wire::take_bytes(&mut rest)?, &mut entry)?
            }
            (tag, WireType::LengthDelimited) => {
                let value = wire::take_bytes(&mut rest)?;
                if let Some(kind) = RequestKind::from_tag(tag) {
                    entry.kind = Some(kind);
                    entry.body = value;
                }
            }
            (tag, wire_type) => {
                encoding::skip_field(wire_type, tag, &mut rest, DecodeContext::default())?
            }
        }
    }
    if entry.id == 0 {
        entry.id = old_id;
    }
    Ok(entry)
}

fn decode_header(mut header: Bytes, entry: &mut InternalEntry) -> Result<(), DecodeError> {
    while !header.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut header)?;
        match (tag, wire_type) {
            (1, WireType::Varint) => entry.id = encoding::decode_varint(&mut header)?,
            (2, WireType::LengthDelimited) => entry.username = take_name(&mut header)?,
            (3, WireType::Varint) => entry.auth_revision = encoding::decode_varint(&mut header)?,
            (tag, wire_type) => {
                encoding::skip_field(wire_type, tag, &mut header, DecodeContext::default())?
            }
        }
    }
    Ok(())
}

fn take_name(header: &mut Bytes) -> Result<Bytes, DecodeError> {
    let mut checked = String::new();
    let mut ahead = header.clone();
    encoding::string::merge(
        WireType::LengthDelimited,
        &mut checked,
        &mut ahead,
        DecodeContext::default(),
    )?;
    wire::take_bytes(header)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};
    use crate::pb::membershippb::ClusterVersionSetRequest;

    fn put() -> PutRequest {
        PutRequest { key: "a".into(), value: "b".into(), lease: 7, ..Default::default() }
    }

    #[test]
    fn prost_writes_the_same_bytes() {
        let header = Header { id: 1 << 60, username: "root", auth_revision: 9 };
        let pb_header = RequestHeader {
            id: header.id,
            username: header.username.into(),
            auth_revision: header.auth_revision,
        };
        let by_prost =
            InternalRaftRequest { header: Some(pb_header), put: Some(put()), ..Default::default() };
        let ours = encode_entry_from(&header, RequestKind::Put, &put().encode_to_vec());
        assert_eq!(ours, by_prost.encode_to_vec());
        assert_eq!(ours.len(), encoded_len(&header, RequestKind::Put, put().encoded_len()));

        let version = ClusterVersionSetRequest { ver: "3.7.0".into() };
        let by_prost = InternalRaftRequest {
            header: Some(RequestHeader { id: 5, ..Default::default() }),
            cluster_version_set: Some(version.clone()),
            ..Default::default()
        };
        let ours = encode_entry(5, RequestKind::ClusterVersionSet, &version.encode_to_vec());
        assert_eq!(ours, by_prost.encode_to_vec());
    }

    #[test]
    fn every_kind_comes_back_and_prost_sees_its_field() {
        for &kind in RequestKind::ALL {
            assert_eq!(RequestKind::from_tag(kind.tag()), Some(kind));
            let data = encode_entry(3, kind, b"");
            let entry = decode_entry(&data).unwrap();
            assert_eq!((entry.id, entry.kind, &entry.body[..]), (3, Some(kind), &b""[..]));
            // If prost did not know the field it would drop it.
            let by_prost = InternalRaftRequest::decode(data.clone()).unwrap();
            assert_eq!(by_prost.encode_to_vec(), data, "{kind:?}");
            assert!(
                format!("{by_prost:?}").contains(&format!("{}: Some", kind.name())),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn decodes_in_place() {
        let header = Header { id: 4, username: "ann", auth_revision: 2 };
        let body = put().encode_to_vec();
        let data = encode_entry_from(&header, RequestKind::Put, &body);
        let entry = decode_entry(&data).unwrap();
        assert_eq!((entry.id, entry.username(), entry.auth_revision), (4, "ann", 2));
        assert_eq!(entry.body, body);
        let range = data.as_ptr_range();
        assert!(range.contains(&entry.body.as_ptr()) && range.contains(&entry.username.as_ptr()));
        assert_eq!(PutRequest::decode(entry.body).unwrap(), put());
    }

    #[test]
    fn passes_over_what_it_does_not_know() {
        let mut data = BytesMut::new();
        wire::field_varint(2, 17, &mut data);
        wire::field_bytes(5000, b"later", &mut data);
        encoding::fixed64::encode(6000, &1, &mut data);
        data.put_slice(&encode_entry(8, RequestKind::Compaction, b"\x08\x05"));
        wire::field_varint(7001, 3, &mut data);
        let entry = decode_entry(&data.freeze()).unwrap();
        assert_eq!((entry.id, entry.kind), (8, Some(RequestKind::Compaction)));

        let mut only_unknown = BytesMut::new();
        wire::field_bytes(5000, b"later", &mut only_unknown);
        assert_eq!(decode_entry(&only_unknown.freeze()).unwrap(), InternalEntry::default());
    }

    #[test]
    fn the_old_place_of_the_id_counts_if_the_new_one_is_empty() {
        let old = InternalRaftRequest { id: 6, put: Some(put()), ..Default::default() };
        assert_eq!(decode_entry(&old.encode_to_vec().into()).unwrap().id, 6);
        let both = InternalRaftRequest {
            header: Some(RequestHeader { id: 7, ..Default::default() }),
            ..old
        };
        assert_eq!(decode_entry(&both.encode_to_vec().into()).unwrap().id, 7);
    }

    #[test]
    fn broken_bytes_are_errors() {
        let data = encode_entry_from(
            &Header { id: 4, username: "ann", auth_revision: 2 },
            RequestKind::Put,
            b"\x0a\x01a",
        );
        for cut in 1..data.len() {
            // A cut between two fields leaves a shorter entry, any other an error; none may panic.
            let _ = decode_entry(&data.slice(..cut));
        }
        assert!(decode_entry(&data.slice(..data.len() - 1)).is_err());
        let mut bad_name = BytesMut::new();
        wire::field_bytes(HEADER, b"\x12\x01\xff", &mut bad_name);
        assert!(decode_entry(&bad_name.freeze()).is_err());
    }
}
