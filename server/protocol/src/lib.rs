//! The wire formats of Dunlin, and nothing else: names, frames, signatures and request bodies.
//!
//! Owns the translation between bytes and types. Must never do IO, read a clock, draw a random number or decide a
//! product rule; whoever calls passes `now` and the limits in. Text from outside becomes a type here, once, and is
//! trusted afterwards.
//!
//! Where to start: [`names`], then [`pusher::incoming`] and [`pusher::outgoing`] for the socket side, and
//! [`signature`] and [`http::publish`] for the HTTP side.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_properties;
pub mod http;
mod json;
pub mod names;
mod percent;
pub mod position;
pub mod pusher;
pub mod signature;

pub use names::{AppId, AppKey, ChannelKind, ChannelName, SocketId, UserId};
