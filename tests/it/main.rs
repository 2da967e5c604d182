//! The black-box tests: each starts the real binary and looks at nothing but the wire, the exit code and the log.
//!
//! The binary is the one that `DUNLIN_BIN` names, or else the one that cargo builds beside this test. Tests that need
//! no configuration of their own share one server and have an app each (`world::shared`). With
//! `DUNLIN_TEST_TOPOLOGY=cluster` the same tests run against two nodes and Redis (`topology`).
//!
//! Start reading at `world.rs` (nodes and their apps), then `client.rs` (a Pusher client) and `request.rs` (signed
//! requests). The tests follow the reference: `ws/` frames, `pusher/` messages, `http/` the API; `cluster/` is about
//! what happens between nodes. What they start beside nodes is in `redis/` and `proxy.rs`.

mod binary;
mod certificate;
mod client;
mod node;
mod process;
mod proxy;
mod redis;
mod request;
mod sight;
mod sign;
mod topology;
mod websocket;
mod world;

mod cli;
mod cluster;
mod drain;
mod fallback;
mod hostile;
mod http;
mod isolation;
mod limits;
mod pusher;
mod slow;
mod tidy;
mod webhooks;
mod ws;
