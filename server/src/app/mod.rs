//! Puts the rooms together and runs them: the only place that names concrete types.
//!
//! Owns start order, drain order and telemetry. Must never hold a product rule.

pub mod listeners;
pub mod memory;
pub mod metrics;
pub mod run;
pub mod telemetry;
pub mod tls;

#[cfg(test)]
mod tests;
