//! What customers are to be told about their channels.
//!
//! Owns the outbox: the events that state changes leave behind, in order. Must never block a publish or a subscribe,
//! and must never know the hub.

pub mod outbox;
