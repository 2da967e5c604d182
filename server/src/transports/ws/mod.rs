//! WebSocket connections. Start at [`upgrade`].

pub mod driver;
pub mod echo;
pub mod frames;
pub mod upgrade;
