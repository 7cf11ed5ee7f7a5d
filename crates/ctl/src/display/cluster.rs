//! Answers about the cluster: its members, its endpoints, alarms, the leader, downgrades. Not here: who is asked.

use std::io::Write as _;

use etch_cli::go::quote;
use etch_cli::table::table;
use etch_cli::{Failure, human};
use etch_client::pb;
use prost::{Message, Name};

use super::json::{self, Object};
use super::{Display, Format, fields, print};

/// How an endpoint is, as `endpoint health` tells it.
pub struct Health {
    /// The endpoint.
    pub endpoint: String,
    /// Whether it carries requests out.
    pub is_healthy: bool,
    /// How long that took.
    pub took: String,
    /// What is wrong with it.
    pub error: String,
}

/// What an endpoint answered.
pub struct Answer<M> {
    /// The endpoint.
    pub endpoint: String,
    /// The answer.
    pub answer: M,
}

impl Display {
    /// An answer that has no form of fields.
    pub fn without_fields<M: Message + Name>(
        &self,
        answer: &M,
        simple: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Failure> {
        match self.format {
            Format::Fields => Err(self.unsupported()),
            _ => self.message(answer, simple, |_| {}),
        }
    }

    /// An answer about members: its identifiers may be hexadecimal.
    pub fn members<M: Message + Name>(
        &self,
        answer: &M,
        simple: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Failure> {
        if self.format == Format::Json && self.hex {
            return print(format!("{}\n", json::message(answer, true)).as_bytes());
        }
        self.without_fields(answer, simple)
    }

    /// All members.
    pub fn member_list(&self, answer: &pb::MemberListResponse) -> Result<(), Failure> {
        let rows: Vec<Vec<String>> = answer.members.iter().map(member_row).collect();
        match self.format {
            Format::Simple => print(lines(&rows).as_bytes()),
            Format::Table => {
                let headings = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
                print(table(&headings, &rows).as_bytes())
            }
            Format::Fields => {
                let mut out = Vec::new();
                fields::header(&mut out, answer.header.as_ref(), self.hex);
                answer.members.iter().for_each(|member| self.member_fields(member, &mut out));
                print(&out)
            }
            Format::Json | Format::Protobuf => self.members(answer, |_| {}),
        }
    }

    fn member_fields(&self, member: &pb::Member, out: &mut Vec<u8>) {
        let _ = writeln!(out, "\"ID\" : {}", self.member_id(member.id));
        let _ = writeln!(out, "\"Name\" : {}", quote(&member.name));
        for url in &member.peer_ur_ls {
            let _ = writeln!(out, "\"PeerURL\" : {}", quote(url));
        }
        for url in &member.client_ur_ls {
            let _ = writeln!(out, "\"ClientURL\" : {}", quote(url));
        }
        let _ = writeln!(out, "\"IsLearner\" : {}\n", member.is_learner);
    }

    fn member_id(&self, id: u64) -> String {
        if self.hex { format!("{id:x}") } else { id.to_string() }
    }

    /// The alarms that are raised.
    pub fn alarms(&self, answer: &pb::AlarmResponse) -> Result<(), Failure> {
        let simple = |out: &mut Vec<u8>| {
            for alarm in &answer.alarms {
                let mut parts = Vec::new();
                if alarm.member_id != 0 {
                    parts.push(format!("memberID:{}", alarm.member_id));
                }
                if alarm.alarm != 0 {
                    parts.push(format!("alarm:{}", alarm.alarm().as_str_name()));
                }
                let _ = writeln!(out, "{}", parts.join(" "));
            }
        };
        let as_fields = |out: &mut Vec<u8>| {
            fields::header(out, answer.header.as_ref(), self.hex);
            for alarm in &answer.alarms {
                let (id, kind) = (self.member_id(alarm.member_id), alarm.alarm().as_str_name());
                let _ = writeln!(out, "\"MemberID\" : {id}\n\"AlarmType\" : {kind}\n");
            }
        };
        self.message(answer, simple, as_fields)
    }

    /// How endpoints are.
    pub fn health(&self, list: &[Health]) -> Result<(), Failure> {
        match self.format {
            Format::Simple => {
                let mut out = String::new();
                for h in list {
                    if h.error.is_empty() {
                        out += &format!(
                            "{} is healthy: successfully committed proposal: took = {}\n",
                            h.endpoint, h.took
                        );
                    } else {
                        eprintln!(
                            "{} is unhealthy: failed to commit proposal: {}",
                            h.endpoint, h.error
                        );
                    }
                }
                print(out.as_bytes())
            }
            Format::Fields => print(list.iter().map(health_fields).collect::<String>().as_bytes()),
            Format::Json => {
                let objects: Vec<String> = list.iter().map(health_json).collect();
                print(array(&objects).as_bytes())
            }
            Format::Table => {
                let rows: Vec<Vec<String>> = list.iter().map(health_row).collect();
                print(table(&["endpoint", "health", "took", "error"], &rows).as_bytes())
            }
            Format::Protobuf => Err(self.unsupported()),
        }
    }

    /// The status of endpoints.
    pub fn status(&self, list: &[Answer<pb::StatusResponse>]) -> Result<(), Failure> {
        let rows = || list.iter().map(status_row).collect::<Vec<_>>();
        match self.format {
            Format::Simple => print(lines(&rows()).as_bytes()),
            Format::Table => print(table(STATUS_HEADINGS, &rows()).as_bytes()),
            Format::Json => print(answers("Status", list).as_bytes()),
            Format::Fields => {
                let mut out = Vec::new();
                list.iter().for_each(|answer| self.status_fields(answer, &mut out));
                print(&out)
            }
            Format::Protobuf => Err(self.unsupported()),
        }
    }

    fn status_fields(&self, of: &Answer<pb::StatusResponse>, out: &mut Vec<u8>) {
        let s = &of.answer;
        fields::header(out, s.header.as_ref(), self.hex);
        let downgrade = s.downgrade_info.clone().unwrap_or_default();
        let _ = write!(
            out,
            "\"Version\" : {}\n\"StorageVersion\" : {}\n\"DBSize\" : {}\n\"DBSizeInUse\" : {}\n\
             \"DBSizeQuota\" : {}\n\"Leader\" : {}\n\"IsLearner\" : {}\n\"RaftIndex\" : {}\n\
             \"RaftTerm\" : {}\n\"RaftAppliedIndex\" : {}\n\"Errors\" : [{}]\n\"Endpoint\" : {}\n\
             \"DowngradeTargetVersion\" : {}\n\"DowngradeEnabled\" : {}\n\n",
            quote(&s.version),
            quote(&s.storage_version),
            s.db_size,
            s.db_size_in_use,
            s.db_size_quota,
            s.leader,
            s.is_learner,
            s.raft_index,
            s.raft_term,
            s.raft_applied_index,
            s.errors.join(" "),
            quote(&of.endpoint),
            quote(&downgrade.target_version),
            downgrade.enabled,
        );
    }

    /// The hashes of endpoints.
    pub fn hashes(&self, list: &[Answer<pb::HashKvResponse>]) -> Result<(), Failure> {
        let rows = || list.iter().map(hash_row).collect::<Vec<_>>();
        match self.format {
            Format::Simple => print(lines(&rows()).as_bytes()),
            Format::Table => {
                print(table(&["endpoint", "hash", "hash revision"], &rows()).as_bytes())
            }
            Format::Json => print(answers("HashKV", list).as_bytes()),
            Format::Fields => {
                let mut out = Vec::new();
                for Answer { endpoint, answer } in list {
                    fields::header(&mut out, answer.header.as_ref(), self.hex);
                    let (hash, revision) = (answer.hash, answer.hash_revision);
                    let _ = writeln!(
                        out,
                        "\"Endpoint\" : {}\n\"Hash\" : {hash}\n\"HashRevision\" : {revision}\n",
                        quote(endpoint)
                    );
                }
                print(&out)
            }
            Format::Protobuf => Err(self.unsupported()),
        }
    }
}

fn member_row(member: &pb::Member) -> Vec<String> {
    let status = if member.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", member.id),
        status.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn health_fields(h: &Health) -> String {
    let (healthy, took, error) = (h.is_healthy, &h.took, &h.error);
    let endpoint = quote(&h.endpoint);
    format!(
        "\"Endpoint\" : {endpoint}\n\"Health\" : {healthy}\n\"Took\" : {took}\n\"Error\" : {error}\n\n"
    )
}

fn health_json(h: &Health) -> String {
    let mut out = String::new();
    let mut object = Object::new(&mut out);
    object.name("endpoint");
    json::text(&h.endpoint, object.out);
    object.plain("health", h.is_healthy);
    object.name("took");
    json::text(&h.took, object.out);
    if !h.error.is_empty() {
        object.name("error");
        json::text(&h.error, object.out);
    }
    object.close();
    out
}

fn health_row(h: &Health) -> Vec<String> {
    vec![h.endpoint.clone(), h.is_healthy.to_string(), h.took.clone(), h.error.clone()]
}

const STATUS_HEADINGS: &[&str] = &[
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];

fn status_row(of: &Answer<pb::StatusResponse>) -> Vec<String> {
    let s = &of.answer;
    let member = s.header.map_or(0, |header| header.member_id);
    let downgrade = s.downgrade_info.clone().unwrap_or_default();
    let size = |bytes: i64| human::bytes(bytes.cast_unsigned());
    let in_use = (s.db_size_in_use * 100).checked_div(s.db_size).unwrap_or_default();
    vec![
        of.endpoint.clone(),
        format!("{member:x}"),
        s.version.clone(),
        s.storage_version.clone(),
        size(s.db_size),
        size(s.db_size_in_use),
        format!("{}%", 100 - in_use),
        size(s.db_size_quota),
        (s.leader == member).to_string(),
        s.is_learner.to_string(),
        s.raft_term.to_string(),
        s.raft_index.to_string(),
        s.raft_applied_index.to_string(),
        s.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

fn hash_row(of: &Answer<pb::HashKvResponse>) -> Vec<String> {
    vec![of.endpoint.clone(), of.answer.hash.to_string(), of.answer.hash_revision.to_string()]
}

fn lines(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join(", ") + "\n").collect()
}

/// Answers in JSON, each with its endpoint.
fn answers<M: Message + Name>(name: &str, list: &[Answer<M>]) -> String {
    let object = |of: &Answer<M>| {
        let mut out = String::new();
        let mut object = Object::new(&mut out);
        object.name("Endpoint");
        json::text(&of.endpoint, object.out);
        object.name(name);
        object.out.push_str(&json::message(&of.answer, false));
        object.close();
        out
    };
    array(&list.iter().map(object).collect::<Vec<_>>())
}

/// A list in JSON. Where there is nothing Go has no list either.
fn array(objects: &[String]) -> String {
    if objects.is_empty() { "null\n".to_owned() } else { format!("[{}]\n", objects.join(",")) }
}
