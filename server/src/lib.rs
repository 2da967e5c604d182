//! Dunlin: a hosted, multi-tenant pub/sub platform that speaks the Pusher protocol.
//!
//! The rooms, in the order of their dependencies; a room may use those above it.

/// Leaves: time, tasks with an owner, answers that are usually there at once.
pub mod answer;
pub mod clock;
mod lock;
pub mod tasks;
#[cfg(test)]
mod told;

/// Typed options, from defaults, file and environment.
pub mod config;

/// Keys of channels and the state behind them.
pub mod storage;

/// Tenants: what an app is, may and has used.
pub mod apps;

/// Who asks, and whether they may.
pub mod auth;

/// What customers are told, and how it reaches them.
pub mod webhooks;

/// Siblings, each a trait and its half in memory: publications, presence.
pub mod broker;
pub mod presence;

/// This node's connections and the fan-out between them.
pub mod hub;

/// This node as one of many: the networked half of broker and presence.
pub mod cluster;

/// Siblings: bytes in and out.
pub mod api;
pub mod transports;

/// Puts the rooms together and runs them.
pub mod app;

/// The command line.
pub mod cli;
