//! The API as JSON, the way grpc-gateway has it: routes, messages to and from the wire by their descriptors,
//! errors, the OpenAPI document, and the frames of WebSocket. Not here: sockets, HTTP, and what calls do.

#![forbid(unsafe_code)]

mod number;
mod openapi;
mod read;
mod routes;
mod scan;
mod schema;
mod text;
mod token;
pub mod websocket;
mod write;

pub use openapi::document;
pub use read::to_wire;
pub use routes::{Endpoint, Gateway};
pub use scan::Values;
pub use schema::Schema;
pub use write::{Spaces, error, error_line, http_status, result_line, to_json};
