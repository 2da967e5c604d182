//! Apps: the tenants. Start reading at [`app::App`].
//!
//! Owns what an app is and may: its key and secret, its switches, its limits and its counters, and the table by which
//! a node finds it. Must never be skipped: every operation of the platform starts at an app.

pub mod app;
pub mod history;
pub mod limits;
pub mod store;
pub mod wanted;

pub use app::App;
pub use store::Apps;
