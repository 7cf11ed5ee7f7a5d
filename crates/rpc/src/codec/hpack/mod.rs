//! HPACK (RFC 7541): header blocks as bytes. Not here: what headers mean.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod huffman;
pub(crate) mod table;
