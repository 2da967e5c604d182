//! Bodies of the signed HTTP API.

pub mod publish;
