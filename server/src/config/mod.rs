//! What a node is told before it starts: typed sections, read from files and the environment, checked as a whole.
//!
//! Start reading at [`load()`]. Layers, each beating the one before: the compiled-in `default.toml`, the file, the
//! names that other servers of this kind use (`PUSHER_APP_ID`, `SOKETI_PORT`, …), variables beginning with `DUNLIN_`,
//! and flags of the command line.
//!
//! Invariants: no option exists without a default and a comment in `default.toml`; nothing that was said is ignored
//! in silence (it is applied, refused or warned of); a complaint names the option and where its value came from;
//! secrets are never part of a complaint, nor of anything printed.

mod aliases;
mod endpoint;
mod load;
mod sections;
mod source;
#[cfg(test)]
mod tests;
mod validate;

pub use endpoint::{BodyFormat, EndpointSection, EventType};
pub use load::{ConfigError, Loaded, Shown, Sources, load};
pub use sections::{
    ApiSection, AppLimits, AppSection, CacheSection, Config, ConfigSecret, DatabaseSection, DemoSection,
    Environment, FallbackSection, HistoryRuleSection, HistorySection, IdempotencySection, LogFormat,
    LogSection, RedisSection, ServerSection, SocketsSection, Switch, TlsSection, WebhooksSection,
};
pub use source::{Complaint, Origin};
