//! The black-box tests: each starts the real binary and looks at nothing but the wire, the exit code and the log.

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
