//! What survives a crash, behind one small trait, in etcd's own file formats.
//!
//! Here: `fs` (the one door to storage), `wal` (the write-ahead log), `snap` (raft snapshot files) and
//! `backend` (the B+tree file); `mutants` (old bugs as switches for tests). Not here: what the bytes mean to raft or to the key space, threads, clocks
//! and sockets. Every byte of these formats is drawn in `docs/format.md`.

pub mod backend;
pub mod fs;
pub mod mutants;
pub mod snap;
pub mod wal;
