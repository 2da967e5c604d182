//! The guarded way out: a POST to an address that a customer chose, and to no other.
//!
//! Owns which addresses, ports and names may be connected to ([`Guard`]), what a customer may write as a URL
//! ([`EndpointUrl`]), and the one client that sends ([`Egress`]). Must never connect to an address that was not judged:
//! literal addresses are judged when they are written and again before each request, names at every lookup, and what was
//! judged is what is connected to. So an answer that changes from one lookup to the next gains nothing.

mod address;
mod answer;
mod client;
mod failure;
mod guard;
mod host;
mod resolver;
#[cfg(test)]
mod tests;
mod url;

pub use address::Range;
pub use answer::Received;
pub use client::Egress;
pub use failure::{Failure, FailureKind};
pub use guard::Guard;
pub use host::Hosts;
pub use url::{EndpointUrl, RefusedUrl};
