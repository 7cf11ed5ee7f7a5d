//! JSON from the client port: values of a stream, messages made from them, and frames of WebSocket. What was
//! read is written and read again, and must be the same. Not here: HTTP (`port`).

use etch_json::websocket::{self, Reader};
use etch_json::{Gateway, Spaces, Values, to_json, to_wire};

use crate::Target;

/// The first byte says which route it is sent to, and in what pieces; the rest is the body.
pub const JSON: Target = Target { name: "json", run, seeds, memory: 64 << 20 };

/// The first byte says in what pieces the rest comes in.
pub const SOCKET: Target =
    Target { name: "websocket", run: socket, seeds: socket_seeds, memory: 16 << 20 };

thread_local! {
    static GATEWAY: Gateway = Gateway::new();
}

fn run(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    GATEWAY.with(|gateway| {
        let endpoints = gateway.endpoints();
        let message = endpoints[usize::from(*first) % endpoints.len()].input;
        let mut values = Values::default();
        for piece in body.chunks(usize::from(*first) % 61 + 1) {
            values.push(piece);
            while let Ok(Some(value)) = values.take_next() {
                there_and_back(gateway, message, &value);
            }
        }
        while let Ok(Some(value)) = values.end() {
            there_and_back(gateway, message, &value);
        }
    });
}

fn there_and_back(gateway: &Gateway, message: usize, value: &[u8]) {
    let schema = &gateway.schema;
    let Ok(wire) = to_wire(schema, message, value) else { return };
    let text = to_json(schema, message, &wire, Spaces::None).expect("our own encoding");
    let again = to_wire(schema, message, &text).expect("our own text");
    let second = to_json(schema, message, &again, Spaces::None).expect("our own encoding");
    assert!(text == second, "a message changes on its way");
}

fn seeds() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 6] = [
        br#"{"key":"Zm9v","rangeEnd":"_-8=","limit":"5","sort_order":"DESCEND","sortTarget":2}"#,
        br#"{"compare":[{"target":"CREATE","key":"YQ==","createRevision":0}],"success":[{"requestPut":{"key":"YQ=="}}]}"#,
        br#"{"create_request":{"key":"YQ==","filters":["NOPUT",1]}}{"progress_request":{}}"#,
        br#"{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#,
        br#" {"a\u00e9\ud83d\ude00":[1,-2.5e+3,null,true,{"b":"\"\\\/\b\f\n\r\t"}]} "#,
        br#"{"leader":{"name":"ZQ==","rev":"-9223372036854775808","lease":1e1}}"#,
    ];
    (0..51)
        .map(|route: u8| [&[route], bodies[usize::from(route) % bodies.len()]].concat())
        .collect()
}

fn socket(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let mut reader = Reader::new(1 << 16);
    for piece in rest.chunks(usize::from(*first) + 1) {
        reader.push(piece);
        while let Ok(Some(message)) = reader.take_next() {
            let mut out = Vec::new();
            match message {
                websocket::Message::Data(data) => websocket::text(&data, &mut out),
                websocket::Message::Ping(content) => websocket::pong(&content, &mut out),
                websocket::Message::Close(code) => websocket::close(code, &mut out),
            }
            assert!(out.len() >= 2, "a frame has a head");
        }
    }
}

fn socket_seeds() -> Vec<Vec<u8>> {
    let frames: [&[u8]; 5] = [
        &[0x81, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3],
        &[0x01, 0x81, 0, 0, 0, 0, b'a', 0x80, 0x81, 0, 0, 0, 0, b'b'],
        &[0x89, 0x80, 0, 0, 0, 0, 0x8a, 0x80, 0, 0, 0, 0],
        &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8],
        &[0x82, 0xfe, 0x00, 0x02, 0, 0, 0, 0, b'x', b'y'],
    ];
    frames.iter().map(|frame| [&[0], *frame].concat()).collect()
}
