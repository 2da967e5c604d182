//! The black-box tests: each starts the real binary and looks at nothing but the wire, the exit code and the log.
//!
//! The binary is the one that `DUNLIN_BIN` names, or else the one that cargo builds beside this test. Tests that need
//! no configuration of their own share one server and have an app each (`world::shared`).
//!
//! Start reading at `world.rs` (a server and its apps), then `client.rs` (a Pusher client) and `request.rs` (signed
//! requests). The tests follow the reference: `ws/` frames, `pusher/` messages, `http/` the API.

mod client;
mod request;
mod sign;
mod websocket;
mod world;

mod cli;
mod drain;
mod fallback;
mod hostile;
mod http;
mod isolation;
mod limits;
mod pusher;
mod slow;
mod tidy;
mod ws;
