//! Where state lives: the names of things, the memory that stands in for a database on one node, and Redis, which the
//! nodes of a cluster share, and SQL.
//!
//! Owns the keys by which channels are found, the striped table of their state, connections to Redis and its scripts,
//! connections to the SQL database and its tables.
//! Must never hold product rules: what a join or a publication *means* is decided in `presence` and `broker`.

pub mod history;
pub mod keys;
pub mod memory;
pub mod redis;
pub mod sql;
