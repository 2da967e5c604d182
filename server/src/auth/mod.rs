//! Who asks, and whether they may.
//!
//! Owns the checks of signed HTTP requests and of signed subscriptions and sign-ins. Must never know a route or a socket.

pub mod channel;
pub mod signed;
