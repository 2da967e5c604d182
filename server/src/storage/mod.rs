//! Where state lives: the names of things and the memory that stands in for a database on one node.
//!
//! Owns the keys by which channels are found and the striped table of their state.
//! Must never hold product rules: what a join or a publication *means* is decided in `presence` and `broker`.

pub mod keys;
pub mod memory;
