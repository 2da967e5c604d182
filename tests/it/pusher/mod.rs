//! The Pusher protocol as clients see it.

mod authorized;
mod cache;
mod client_events;
mod count;
mod envelope;
mod handshake;
mod history;
mod liveness;
mod pipelined;
mod presence;
mod subscribe;
mod terminate;
mod traps;
mod users;
