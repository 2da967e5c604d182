//! What customers are told about their channels.
//!
//! Owns the outbox (the events that state changes leave behind, in order), the endpoints, and the way of an event from the
//! one to the other: `outbox → batch per endpoint → delivery row → signed POST → attempt → retry, done or dead`. Must never
//! block a publish or a subscribe, and must never know the hub.

pub mod batch;
mod channels;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod endpoints;
pub mod event;
pub mod feeder;
pub mod format;
pub mod lanes;
pub mod outbox;
pub mod registry;
pub mod schedule;
pub mod sender;
pub mod settling;
pub mod sign;
pub mod stats;
pub mod store;
mod sweep;
pub mod work;
pub mod worker;
