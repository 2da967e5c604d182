//! The signed HTTP API, as every server library uses it and as nobody should.

mod batch;
mod bodies;
mod events;
mod forged;
mod habits;
mod history;
mod idempotency;
mod legacy;
mod malformed;
mod queries;
mod routes;
mod signature;
