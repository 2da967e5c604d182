//! The Pusher dialect on the socket: what clients send, what they are sent, and why a connection is closed.

pub mod codes;
pub mod incoming;
pub mod outgoing;
pub mod presence;
