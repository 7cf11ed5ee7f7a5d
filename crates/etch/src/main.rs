//! The binary: looks at the name that it was called by and hands over. Not here: everything else.

#![forbid(unsafe_code)]

fn main() {}
