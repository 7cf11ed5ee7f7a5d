//! Answers about leases. Go's client has structures of its own for them, whose JSON has the header's fields beside
//! the others, and whose protobuf form is the header alone. Not here: the other answers.

use std::io::Write as _;

use etch_cli::Failure;
use etch_client::{HasHeader, pb};
use prost::Message as _;

use super::fields::{self, hexadecimal};
use super::{Display, Format, json, print};

impl Display {
    /// A lease was made.
    pub fn granted(&self, answer: &pb::LeaseGrantResponse) -> Result<(), Failure> {
        let pb::LeaseGrantResponse { id, ttl, error, .. } = answer;
        self.lease(
            answer,
            |out| writeln!(out, "lease {} granted with TTL({ttl}s)", hexadecimal(*id)),
            |out| self.id_and_ttl(*id, *ttl, out),
            |object| {
                object.plain("ID", id);
                object.plain("TTL", ttl);
                object.name("Error");
                json::text(error, object.out);
            },
        )
    }

    /// A lease was ended.
    pub fn revoked(&self, id: i64, answer: &pb::LeaseRevokeResponse) -> Result<(), Failure> {
        self.message(
            answer,
            |out| {
                let _ = writeln!(out, "lease {} revoked", hexadecimal(id));
            },
            |out| fields::header(out, answer.header.as_ref(), self.hex),
        )
    }

    /// A lease lives on.
    pub fn kept_alive(&self, answer: &pb::LeaseKeepAliveResponse) -> Result<(), Failure> {
        let pb::LeaseKeepAliveResponse { id, ttl, .. } = answer;
        self.lease(
            answer,
            |out| writeln!(out, "lease {} keepalived with TTL({ttl})", hexadecimal(*id)),
            |out| self.id_and_ttl(*id, *ttl, out),
            |object| {
                object.plain("ID", id);
                object.plain("TTL", ttl);
            },
        )
    }

    /// How long a lease has left.
    pub fn time_to_live(
        &self,
        answer: &pb::LeaseTimeToLiveResponse,
        with_keys: bool,
    ) -> Result<(), Failure> {
        let pb::LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = answer;
        self.lease(
            answer,
            |out| {
                let name = hexadecimal(*id);
                if *granted_ttl == 0 && *ttl == -1 {
                    return writeln!(out, "lease {name} already expired");
                }
                write!(out, "lease {name} granted with TTL({granted_ttl}s), remaining({ttl}s)")?;
                if with_keys {
                    write!(out, ", attached keys([")?;
                    out.extend_from_slice(&keys.join(&b" "[..]));
                    write!(out, "])")?;
                }
                writeln!(out)
            },
            |out| {
                self.id_and_ttl(*id, *ttl, out)?;
                writeln!(out, "\"GrantedTTL\" : {granted_ttl}")?;
                keys.iter()
                    .try_for_each(|key| writeln!(out, "\"Key\" : {}", etch_cli::go::quote(key)))
            },
            |object| {
                object.plain("id", id);
                object.plain("ttl", ttl);
                object.plain("granted-ttl", granted_ttl);
                object.list("keys", keys, |key, out| json::bytes(key, out));
            },
        )
    }

    /// All leases.
    pub fn leases(&self, answer: &pb::LeaseLeasesResponse) -> Result<(), Failure> {
        let leases = &answer.leases;
        self.lease(
            answer,
            |out| {
                writeln!(out, "found {} leases", leases.len())?;
                leases.iter().try_for_each(|lease| writeln!(out, "{}", hexadecimal(lease.id)))
            },
            |out| leases.iter().try_for_each(|lease| self.id(lease.id, out)),
            |object| {
                object.name("leases");
                object.out.push('[');
                for (at, lease) in leases.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    object.out.push_str(&format!("{comma}{{\"id\":{}}}", lease.id));
                }
                object.out.push(']');
            },
        )
    }

    fn lease(
        &self,
        answer: &impl HasHeader,
        simple: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
        fields: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>,
        members: impl FnOnce(&mut json::Object<'_>),
    ) -> Result<(), Failure> {
        let header = answer.header();
        let mut out = Vec::new();
        // Writing into memory does not fail.
        let _ = match self.format {
            Format::Simple => simple(&mut out),
            Format::Fields => {
                fields::header(&mut out, header, self.hex);
                fields(&mut out)
            }
            Format::Json => {
                let mut text = String::new();
                let mut object = json::Object::new(&mut text);
                object.header_fields(header);
                members(&mut object);
                object.close();
                writeln!(out, "{text}")
            }
            Format::Protobuf => {
                out = header.copied().unwrap_or_default().encode_to_vec();
                Ok(())
            }
            Format::Table => return Err(self.unsupported()),
        };
        print(&out)
    }

    fn id(&self, id: i64, out: &mut Vec<u8>) -> std::io::Result<()> {
        if self.hex {
            writeln!(out, "\"ID\" : {}", hexadecimal(id))
        } else {
            writeln!(out, "\"ID\" : {id}")
        }
    }

    fn id_and_ttl(&self, id: i64, ttl: i64, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.id(id, out)?;
        writeln!(out, "\"TTL\" : {ttl}")
    }
}
