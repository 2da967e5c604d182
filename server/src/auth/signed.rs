//! Signed requests to the HTTP API.

use std::sync::Arc;

use dunlin_protocol::signature::{AuthError, SignedRequest};

use crate::apps::{App, Apps};

/// Why a request is not answered. `Display` is the text of the answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    #[error(transparent)]
    Signature(#[from] AuthError),
    /// Also what an unknown key gets: which keys exist is nobody's business.
    #[error("Unknown auth_key")]
    UnknownKey,
    #[error("No app has the id {0}")]
    UnknownApp(String),
    #[error("Application disabled")]
    Disabled,
}

impl Unauthorized {
    /// The HTTP status that goes with it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Signature(_) | Self::UnknownKey => 401,
            Self::UnknownApp(_) => 404,
            Self::Disabled => 403,
        }
    }
}

/// The app in whose name the request speaks. `app_id` is the one in the path, if the path has one.
///
/// # Errors
/// In this order: no or unknown key, version, timestamp, signature, body digest; then the app of the path is not the
/// key's; then it is disabled.
pub fn authenticate(
    apps: &Apps,
    request: &SignedRequest<'_>,
    app_id: Option<&str>,
    body: &[u8],
    now_unix_s: i64,
) -> Result<Arc<App>, Unauthorized> {
    let key = request.auth_key()?;
    let app = apps.by_key(&key).ok_or(Unauthorized::UnknownKey)?;
    request.verify(&app.secret, body, now_unix_s)?;
    match app_id {
        Some(id) if id != app.id.as_str() => match apps.by_id(id) {
            Some(_) => Err(Unauthorized::UnknownKey),
            None => Err(Unauthorized::UnknownApp(id.chars().take(100).collect())),
        },
        _ if !app.enabled => Err(Unauthorized::Disabled),
        _ => Ok(app),
    }
}
