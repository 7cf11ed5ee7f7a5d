//! Answers about users and roles. Not here: who is asked.

use std::io::Write as _;

use etch_cli::Failure;
use etch_cli::go::quote;
use etch_client::{KeySpan, PermissionType, pb};
use prost::{Message, Name};

use super::{Display, fields};

impl Display {
    /// An answer that says no more than that it was done.
    pub fn done<M: Message + Name>(
        &self,
        answer: &M,
        header: Option<&pb::ResponseHeader>,
        simple: &[u8],
    ) -> Result<(), Failure> {
        let as_fields = |out: &mut Vec<u8>| fields::header(out, header, self.hex);
        self.message(answer, |out| out.extend_from_slice(simple), as_fields)
    }

    /// What a role may do.
    pub fn role(&self, name: &str, answer: &pb::AuthRoleGetResponse) -> Result<(), Failure> {
        let as_fields = |out: &mut Vec<u8>| {
            fields::header(out, answer.header.as_ref(), self.hex);
            for perm in &answer.perm {
                let kind = perm.perm_type().as_str_name();
                let (key, end) = (quote(&perm.key), quote(&perm.range_end));
                let _ =
                    writeln!(out, "\"PermType\" :  {kind}\n\"Key\" : {key}\n\"RangeEnd\" : {end}");
            }
        };
        self.message(answer, |out| role_simple(name, answer, out), as_fields)
    }

    /// All roles.
    pub fn roles(&self, answer: &pb::AuthRoleListResponse) -> Result<(), Failure> {
        let as_fields = |out: &mut Vec<u8>| {
            fields::header(out, answer.header.as_ref(), self.hex);
            let roles: String = answer.roles.iter().map(|r| format!(" {}", quote(r))).collect();
            let _ = writeln!(out, "\"Roles\" :{roles}");
        };
        self.message(answer, |out| names(&answer.roles, out), as_fields)
    }

    /// All users.
    pub fn users(&self, answer: &pb::AuthUserListResponse) -> Result<(), Failure> {
        self.without_fields(answer, |out| names(&answer.users, out))
    }

    /// A user's roles.
    pub fn user(&self, name: &str, answer: &pb::AuthUserGetResponse) -> Result<(), Failure> {
        self.without_fields(answer, |out| {
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            let _ = writeln!(out, "User: {name}\nRoles:{roles}");
        })
    }

    /// Whether users have to log in.
    pub fn auth_status(&self, answer: &pb::AuthStatusResponse) -> Result<(), Failure> {
        self.without_fields(answer, |out| {
            let (enabled, revision) = (answer.enabled, answer.auth_revision);
            let _ = writeln!(out, "Authentication Status: {enabled}\nAuthRevision: {revision}");
        })
    }
}

fn names(names: &[String], out: &mut Vec<u8>) {
    names.iter().for_each(|name| {
        let _ = writeln!(out, "{name}");
    });
}

fn role_simple(name: &str, answer: &pb::AuthRoleGetResponse, out: &mut Vec<u8>) {
    let _ = writeln!(out, "Role {name}");
    // The one role that may do everything without a word about it.
    let is_root = name == "root" && answer.perm.is_empty();
    for (heading, kind) in [("Read", PermissionType::Read), ("Write", PermissionType::Write)] {
        let _ = writeln!(out, "KV {heading}:");
        if is_root {
            out.extend_from_slice(b"\t[, <open ended>\n");
        }
        for perm in &answer.perm {
            if perm.perm_type() == kind || perm.perm_type() == PermissionType::Readwrite {
                span(&perm.key, &perm.range_end, out);
            }
        }
    }
}

fn span(key: &[u8], end: &[u8], out: &mut Vec<u8>) {
    out.push(b'\t');
    if end.is_empty() {
        out.extend_from_slice(key);
    } else {
        out.extend_from_slice(&interval(key, end));
        let prefix = KeySpan::prefix(key.to_vec());
        if !key.is_empty() && prefix.range_end == end {
            out.extend_from_slice(&[b" (prefix ", key, b")"].concat());
        }
    }
    out.push(b'\n');
}

/// `[a, b)`; without an end where it goes on for ever.
pub fn interval(key: &[u8], end: &[u8]) -> Vec<u8> {
    match end {
        b"\0" => [b"[", key, b", <open ended>"].concat(),
        _ => [b"[", key, b", ", end, b")"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etch_api::pb::authpb::Permission;

    #[test]
    fn what_a_role_may_do_is_listed_twice() {
        let perm = |kind: PermissionType, key: &'static str, end: &'static str| Permission {
            perm_type: kind as i32,
            key: key.into(),
            range_end: end.into(),
        };
        let answer = pb::AuthRoleGetResponse {
            header: None,
            perm: vec![
                perm(PermissionType::Read, "a", ""),
                perm(PermissionType::Write, "b", "e"),
                perm(PermissionType::Readwrite, "p/", "p0"),
                perm(PermissionType::Readwrite, "z", "\0"),
            ],
        };
        let mut out = Vec::new();
        role_simple("r", &answer, &mut out);
        let want = "Role r\nKV Read:\n\ta\n\t[p/, p0) (prefix p/)\n\t[z, <open ended>\n\
                    KV Write:\n\t[b, e)\n\t[p/, p0) (prefix p/)\n\t[z, <open ended>\n";
        assert_eq!(String::from_utf8(out).expect("text"), want);
        let mut out = Vec::new();
        role_simple("root", &pb::AuthRoleGetResponse::default(), &mut out);
        let want = "Role root\nKV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n";
        assert_eq!(String::from_utf8(out).expect("text"), want);
    }
}
