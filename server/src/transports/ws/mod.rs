//! WebSocket connections. Start at [`upgrade`].

pub mod driver;
pub mod echo;
#[cfg(test)]
mod frame_properties;
pub mod frames;
pub mod upgrade;
