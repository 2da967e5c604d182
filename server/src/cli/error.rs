//! Why a command failed, said to the person who typed it.

use crate::config::ConfigError;
use crate::storage::sql::{Fault, OpenError};

use super::{FAILED, REFUSED};

#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that the command needs was not said and is not configured.
    #[error("{0}")]
    Usage(String),
    #[error("{what}")]
    Request { what: String, source: reqwest::Error },
    /// An answer that is not a success; the text is the server's own.
    #[error("{what}: the server answered {status}: {text}")]
    Answer { what: String, status: u16, text: String },
    #[error("{what}: not the JSON that was expected")]
    Json { what: String, source: serde_json::Error },
    #[error("cannot open a socket to {url}")]
    Connect {
        url: String,
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    #[error("the connection broke")]
    Broken(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("the server closed the connection with {code}: {reason}")]
    Closed { code: u16, reason: String },
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("{0}")]
    TimedOut(String),
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] Fault),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// Something that is there stands against it.
    #[error("{0}")]
    Conflict(String),
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
    #[error("cannot read standard input")]
    Input(#[source] std::io::Error),
    /// `doctor` said what, line by line.
    #[error("{0} of the checks failed")]
    Unwell(usize),
    /// `webhooks verify` said what, line by line.
    #[error("signatures that are not right: {0}")]
    Unverified(usize),
    /// `webhooks test` said what, line by line.
    #[error("test deliveries that were not taken: {0}")]
    Untaken(usize),
    /// `bench` said what, scenario by scenario.
    #[error("{0} of the scenarios did not come out clean")]
    Unclean(usize),
}

impl CliError {
    /// The error with all its causes in one line: reqwest's own text stops at "error sending request".
    pub(super) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => REFUSED,
            Self::Request { .. }
            | Self::Answer { .. }
            | Self::Json { .. }
            | Self::Connect { .. }
            | Self::Broken(_)
            | Self::Closed { .. }
            | Self::Refused(_)
            | Self::TimedOut(_)
            | Self::Database(_)
            | Self::Store(_)
            | Self::Missing(_)
            | Self::Conflict(_)
            | Self::Untaken(_)
            | Self::Unverified(_)
            | Self::Runtime(_)
            | Self::Input(_)
            | Self::Unwell(_)
            | Self::Unclean(_) => FAILED,
        }
    }
}
