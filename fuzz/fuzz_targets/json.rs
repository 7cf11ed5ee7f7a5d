//! The target `json` for cargo-fuzz. What it does is in `etch_fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| etch_fuzz::run("json", input));
