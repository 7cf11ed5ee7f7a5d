//! The OpenAPI document: every route with its messages, from the same table and the same descriptors that
//! serve them. Not here: serving it.

use serde_json::{Map, Value, json};

use crate::routes::{Endpoint, Gateway};
use crate::schema::{Field, Kind, Schema};

/// The document, as JSON.
pub fn document(gateway: &Gateway, version: &str) -> String {
    let schema = &gateway.schema;
    let paths: Map<String, Value> = gateway
        .endpoints()
        .iter()
        .map(|endpoint| (endpoint.path.to_owned(), path(schema, endpoint)))
        .collect();
    let mut used = Vec::new();
    for endpoint in gateway.endpoints() {
        gather(schema, endpoint.input, &mut used);
        gather(schema, endpoint.output, &mut used);
    }
    let mut schemas: Map<String, Value> =
        used.iter().map(|at| (schema.messages[*at].name.clone(), message(schema, *at))).collect();
    schemas.insert("Status".into(), status());
    let document = json!({
        "openapi": "3.0.3",
        "info": {
            "title": "etcd v3 API as JSON",
            "description": "Bytes are in base64, numbers of 64 bits are strings, fields may be \
                            spelled in snake or camel case, and empty ones are left out.",
            "version": version,
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
            },
        },
        "security": [{}, {"token": []}],
    });
    document.to_string()
}

fn path(schema: &Schema, endpoint: &Endpoint) -> Value {
    let name = |at: usize| format!("#/components/schemas/{}", schema.messages[at].name);
    let (input, output) =
        (json!({"$ref": name(endpoint.input)}), json!({"$ref": name(endpoint.output)}));
    let answer = if endpoint.server_streams {
        json!({"type": "object", "properties": {
            "result": output,
            "error": {"$ref": "#/components/schemas/Status"},
        }})
    } else {
        output
    };
    let said = match (endpoint.client_streams, endpoint.server_streams) {
        (true, _) => {
            "Lines, for as long as the stream is open; more requests may follow the first."
        }
        (false, true) => "Lines, for as long as the stream is open.",
        _ => "The answer.",
    };
    let service = endpoint.service.rsplit('.').next().unwrap_or(endpoint.service);
    json!({"post": {
        "operationId": operation(endpoint, service),
        "tags": [service],
        "requestBody": {"required": true, "content": {"application/json": {"schema": input}}},
        "responses": {
            "200": {"description": said, "content": {"application/json": {"schema": answer}}},
            "default": {"description": "The call failed.", "content": {"application/json": {
                "schema": {"$ref": "#/components/schemas/Status"},
            }}},
        },
    }})
}

/// A name for each operation: some methods have two paths.
fn operation(endpoint: &Endpoint, service: &str) -> String {
    let second = endpoint.path.starts_with("/v3/kv/lease/");
    format!("{service}_{}{}", endpoint.method, if second { "2" } else { "" })
}

fn status() -> Value {
    json!({"type": "object", "properties": {
        "code": {"type": "integer", "format": "int32"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    }})
}

/// The message and those within it.
fn gather(schema: &Schema, at: usize, used: &mut Vec<usize>) {
    if used.contains(&at) {
        return;
    }
    used.push(at);
    for field in &schema.messages[at].fields {
        if let Kind::Message(inner) = field.kind {
            gather(schema, inner, used);
        }
    }
}

fn message(schema: &Schema, at: usize) -> Value {
    let fields = &schema.messages[at].fields;
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.clone(), property(schema, field))).collect();
    json!({"type": "object", "properties": properties})
}

fn property(schema: &Schema, field: &Field) -> Value {
    let one = match field.kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Uint32 => json!({"type": "integer", "format": "int64"}),
        Kind::Int64 => json!({"type": "string", "format": "int64"}),
        Kind::Uint64 => json!({"type": "string", "format": "uint64"}),
        Kind::Text => json!({"type": "string"}),
        Kind::Blob => json!({"type": "string", "format": "byte"}),
        Kind::Enum(at) => {
            let names: Vec<&str> =
                schema.enums[at].values.iter().map(|(name, _)| name.as_str()).collect();
            json!({"type": "string", "title": schema.enums[at].name, "enum": names})
        }
        Kind::Message(at) => {
            json!({"$ref": format!("#/components/schemas/{}", schema.messages[at].name)})
        }
    };
    if field.is_list { json!({"type": "array", "items": one}) } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("$ref", Value::String(to)) => out.push(to.clone()),
                        _ => references(value, out),
                    }
                }
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_and_no_loose_end() {
        let gateway = Gateway::new();
        let document: Value = serde_json::from_str(&document(&gateway, "3.7.1")).expect("JSON");
        for endpoint in gateway.endpoints() {
            assert!(document["paths"][endpoint.path]["post"].is_object(), "{}", endpoint.path);
        }
        let mut all = Vec::new();
        references(&document, &mut all);
        assert!(all.len() > 100);
        for to in all {
            let name = to.strip_prefix("#/components/schemas/").expect("a schema");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let mut names: Vec<String> = gateway
            .endpoints()
            .iter()
            .map(|e| document["paths"][e.path]["post"]["operationId"].to_string())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), gateway.endpoints().len());
    }
}
