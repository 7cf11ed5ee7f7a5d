//! What the descriptors say of messages: fields by either of their names and by number, enums. Not here: the
//! messages' content.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// All messages and services of the API.
pub struct Schema {
    pub(crate) messages: Vec<MessageType>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) methods: Vec<MethodType>,
}

/// A message.
pub(crate) struct MessageType {
    /// `etcdserverpb.RangeRequest`.
    pub name: String,
    /// In the order in which they are declared, in which they are written.
    pub fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    by_number: HashMap<u32, usize>,
    /// The full names of the oneofs.
    pub oneofs: Vec<String>,
}

/// A field of a message.
pub(crate) struct Field {
    /// As the descriptor has it, and as it is written.
    pub name: String,
    /// In camel case.
    pub json_name: String,
    pub number: u32,
    pub kind: Kind,
    pub is_list: bool,
    /// Which of the message's oneofs it belongs to.
    pub oneof: Option<usize>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Text,
    Blob,
    /// By its place in [`Schema::enums`].
    Enum(usize),
    /// By its place in [`Schema::messages`].
    Message(usize),
}

impl Kind {
    /// Its name in errors.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::Text => "string",
            Kind::Blob => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
        }
    }
}

/// An enum.
pub(crate) struct EnumType {
    pub name: String,
    pub values: Vec<(String, i32)>,
}

/// A method of a service.
pub(crate) struct MethodType {
    /// `etcdserverpb.KV`.
    pub service: String,
    pub name: String,
    /// By their places in [`Schema::messages`].
    pub input: usize,
    pub output: usize,
    pub client_streams: bool,
    pub server_streams: bool,
}

impl MessageType {
    /// The field with this name, in either spelling.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The field with this number.
    pub fn numbered(&self, number: u32) -> Option<usize> {
        self.by_number.get(&number).copied()
    }
}

impl EnumType {
    pub fn number(&self, name: &str) -> Option<i32> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, number)| *number)
    }

    pub fn value(&self, number: i32) -> Option<&str> {
        self.values.iter().find(|(_, n)| *n == number).map(|(name, _)| name.as_str())
    }
}

impl Schema {
    /// What the API's own descriptors say. They are part of the program: that they can be read is tested.
    pub(crate) fn of_the_api() -> Schema {
        let set = FileDescriptorSet::decode(etch_api::pb::FILE_DESCRIPTOR_SET)
            .unwrap_or_else(|error| panic!("the program's own descriptors are broken: {error}"));
        Schema::new(&set)
    }

    fn new(set: &FileDescriptorSet) -> Schema {
        let mut found = Found::default();
        for file in &set.file {
            for message in &file.message_type {
                found.message(file.package(), message);
            }
            for one in &file.enum_type {
                found.enums.push((format!("{}.{}", file.package(), one.name()), one));
            }
        }
        let place = |names: &mut dyn Iterator<Item = &String>| -> HashMap<String, usize> {
            names.cloned().zip(0..).collect()
        };
        let messages = place(&mut found.messages.iter().map(|(name, _)| name));
        let enums = place(&mut found.enums.iter().map(|(name, _)| name));
        let names = Names { messages, enums };
        Schema {
            messages: found.messages.iter().map(|(name, m)| names.message(name, m)).collect(),
            enums: found.enums.iter().map(|(name, e)| enum_type(name, e)).collect(),
            methods: methods(set, &names),
        }
    }

    /// The message with this full name, for those that choose one.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.messages.iter().position(|message| message.name == name)
    }
}

#[derive(Default)]
struct Found<'a> {
    messages: Vec<(String, &'a DescriptorProto)>,
    enums: Vec<(String, &'a EnumDescriptorProto)>,
}

impl<'a> Found<'a> {
    fn message(&mut self, within: &str, message: &'a DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        for nested in &message.nested_type {
            self.message(&name, nested);
        }
        for one in &message.enum_type {
            self.enums.push((format!("{name}.{}", one.name()), one));
        }
        self.messages.push((name, message));
    }
}

struct Names {
    messages: HashMap<String, usize>,
    enums: HashMap<String, usize>,
}

impl Names {
    fn message(&self, name: &str, message: &DescriptorProto) -> MessageType {
        let fields: Vec<Field> = message.field.iter().map(|field| self.field(field)).collect();
        let mut by_name = HashMap::new();
        let mut by_number = HashMap::new();
        for (at, field) in fields.iter().enumerate() {
            by_name.insert(field.name.clone(), at);
            by_number.insert(field.number, at);
        }
        for (at, field) in fields.iter().enumerate() {
            by_name.insert(field.json_name.clone(), at);
        }
        let oneofs = message.oneof_decl.iter().map(|one| format!("{name}.{}", one.name()));
        let oneofs = oneofs.collect();
        MessageType { name: name.to_owned(), fields, by_name, by_number, oneofs }
    }

    fn field(&self, field: &prost_types::FieldDescriptorProto) -> Field {
        let named = field.type_name().trim_start_matches('.');
        let kind = match field.r#type() {
            Type::Bool => Kind::Bool,
            Type::Int32 => Kind::Int32,
            Type::Int64 => Kind::Int64,
            Type::Uint32 => Kind::Uint32,
            Type::Uint64 => Kind::Uint64,
            Type::String => Kind::Text,
            Type::Bytes => Kind::Blob,
            Type::Enum => Kind::Enum(self.enums[named]),
            Type::Message => Kind::Message(self.messages[named]),
            other => panic!("{}: the API has no fields of type {other:?}", field.name()),
        };
        let json_name = match &field.json_name {
            Some(name) => name.clone(),
            None => camel(field.name()),
        };
        Field {
            name: field.name().to_owned(),
            json_name,
            number: u32::try_from(field.number()).unwrap_or_default(),
            kind,
            is_list: field.label() == Label::Repeated,
            oneof: field.oneof_index.and_then(|at| usize::try_from(at).ok()),
        }
    }
}

fn enum_type(name: &str, one: &EnumDescriptorProto) -> EnumType {
    let values = one.value.iter().map(|value| (value.name().to_owned(), value.number()));
    EnumType { name: name.to_owned(), values: values.collect() }
}

fn methods(set: &FileDescriptorSet, names: &Names) -> Vec<MethodType> {
    let mut out = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                out.push(MethodType {
                    service: format!("{}.{}", file.package(), service.name()),
                    name: method.name().to_owned(),
                    input: names.messages[method.input_type().trim_start_matches('.')],
                    output: names.messages[method.output_type().trim_start_matches('.')],
                    client_streams: method.client_streaming(),
                    server_streams: method.server_streaming(),
                });
            }
        }
    }
    out
}

/// `sort_order` as `sortOrder`: an underscore goes, and the letter behind it becomes large.
fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut after = false;
    for c in name.chars() {
        if c != '_' {
            out.push(if after { c.to_ascii_uppercase() } else { c });
        }
        after = c == '_';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_understood() {
        let schema = Schema::of_the_api();
        let range = &schema.messages[schema.place("etcdserverpb.RangeRequest").expect("is there")];
        let order = &range.fields[range.named("sortOrder").expect("camel")];
        assert_eq!(range.named("sort_order"), range.named("sortOrder"));
        assert_eq!((order.number, order.json_name.as_str()), (5, "sortOrder"));
        let Kind::Enum(at) = order.kind else { panic!("an enum") };
        assert_eq!(schema.enums[at].number("DESCEND"), Some(2));
        assert_eq!(camel("ID"), "ID");
        assert_eq!(camel("peerURLs"), "peerURLs");
    }
}
