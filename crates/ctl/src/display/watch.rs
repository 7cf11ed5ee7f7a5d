//! What a watch tells: events, signs of progress, its end. Not here: watching.

use std::io::Write as _;

use etch_cli::Failure;
use etch_client::{Event, EventType, KeyValue, pb};
use prost::Message as _;

use super::{Display, Format, fields, json, print};

/// One message of a watch, as Go's client has it.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The header, if there was one.
    pub header: Option<pb::ResponseHeader>,
    /// What happened.
    pub events: Vec<Event>,
    /// From where on a watch could begin, if this one could not.
    pub compact_revision: i64,
    /// Whether the watch is over.
    pub canceled: bool,
    /// Why it is over, in the server's words.
    pub cancel_reason: String,
}

impl Display {
    /// A message of a watch.
    pub fn watched(&self, message: &Watched) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => message.events.iter().for_each(|event| self.event(event, &mut out)),
            Format::Fields => self.watched_fields(message, &mut out),
            Format::Json => {
                out = watched_json(message).into_bytes();
                out.push(b'\n');
            }
            Format::Protobuf => {
                let message = message.clone();
                let wire = pb::WatchResponse {
                    header: message.header,
                    events: message.events,
                    compact_revision: message.compact_revision,
                    canceled: message.canceled,
                    ..Default::default()
                };
                out = wire.encode_to_vec();
            }
            Format::Table => return Err(self.unsupported()),
        }
        print(&out)
    }

    fn event(&self, event: &Event, out: &mut Vec<u8>) {
        let _ = writeln!(out, "{}", kind(event));
        event.prev_kv.iter().for_each(|kv| self.key_value(kv, out));
        self.key_value(event.kv.as_ref().unwrap_or(&KeyValue::default()), out);
    }

    fn watched_fields(&self, message: &Watched, out: &mut Vec<u8>) {
        fields::header(out, message.header.as_ref(), self.hex);
        for event in &message.events {
            let _ = writeln!(out, "\"Type\" : {}", kind(event));
            event.prev_kv.iter().for_each(|kv| fields::key_value(out, "Prev", kv, self.hex));
            let kv = event.kv.clone().unwrap_or_default();
            fields::key_value(out, "", &kv, self.hex);
        }
    }
}

/// An event's kind, by its name.
pub fn kind(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}

fn watched_json(message: &Watched) -> String {
    let mut out = String::new();
    let mut object = json::Object::new(&mut out);
    object.name("Header");
    match &message.header {
        Some(header) => object.out.push_str(&json::message(header, false)),
        None => object.out.push_str("null"),
    }
    let events = &message.events;
    object.list("Events", events, |event, out| out.push_str(&json::message(event, false)));
    object.plain("CompactRevision", message.compact_revision);
    object.plain("Canceled", message.canceled);
    object.plain("Created", false);
    object.name("CancelReason");
    json::text(&message.cancel_reason, object.out);
    object.close();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_that_of_gos_structure() {
        let kv = KeyValue { key: "w".into(), mod_revision: 17, ..Default::default() };
        let event = Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None };
        let header = pb::ResponseHeader { revision: 17, ..Default::default() };
        let message = Watched { header: Some(header), events: vec![event], ..Default::default() };
        assert_eq!(
            watched_json(&message),
            "{\"Header\":{\"revision\":17},\"Events\":[{\"type\":1,\"kv\":{\"key\":\"dw==\",\"mod_revision\":17}}],\
             \"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\"CancelReason\":\"\"}"
        );
        let over = Watched { canceled: true, compact_revision: 5, ..Default::default() };
        assert_eq!(
            watched_json(&over),
            "{\"Header\":null,\"Events\":null,\"CompactRevision\":5,\"Canceled\":true,\"Created\":false,\
             \"CancelReason\":\"\"}"
        );
    }
}
