//! Logs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSection};

/// Starts logging to standard error. Called once, first.
pub fn start(section: &LogSection) {
    // The server library tells of every worker and port, which our own lines have told already. A filter that names it
    // has the last word.
    let filter = EnvFilter::builder().parse_lossy(format!("actix_server=warn,{}", section.filter));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match section.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "panicked: {}", panic.payload_as_str().unwrap_or("without a message"));
    }));
}
