//! Logs.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSection};

/// What libraries may say, unless the configured filter names them: it has the last word. The server tells of every
/// worker and port, which our own lines have told already, and the HTTP library calls every malformed request an error,
/// which is the client's and no reason to look.
const OTHERS: &str = "actix_server=warn,actix_http=off";

/// Starts logging to standard error. Called once, first.
pub fn start(section: &LogSection) {
    let filter = EnvFilter::builder().parse_lossy(format!("{OTHERS},{}", section.filter));
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
