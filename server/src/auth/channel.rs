//! Tokens that a customer's backend signed for a connection: subscriptions and sign-ins.

use dunlin_protocol::names::SocketId;
use dunlin_protocol::signature::{channel_signature_matches, user_signature_matches};

use crate::apps::App;

/// Why a token is no good. The texts are those of the hosted service; none tells the expected signature.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("Auth signature missing: this channel needs auth of the form KEY:SIGNATURE")]
    Missing,
    #[error("Invalid key in subscription auth data: '{0}'")]
    Key(String),
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {got}")]
    Signature { signed: String, got: String },
}

/// Longest part of what the client sent that an error repeats.
const ECHO_CHARS: usize = 300;

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}

/// Takes `KEY:SIGNATURE` apart, at the first colon, and checks the key.
fn signature<'a>(app: &App, auth: &'a str) -> Result<&'a str, BadToken> {
    let (key, signature) = auth.split_once(':').ok_or(BadToken::Missing)?;
    if key != app.key.as_str() {
        return Err(BadToken::Key(echo(key)));
    }
    Ok(signature)
}

/// Whether this connection may join the channel; `channel_data` is part of what was signed whenever it is there.
pub fn may_join(
    app: &App,
    socket: SocketId,
    channel: &str,
    auth: Option<&str>,
    channel_data: Option<&str>,
) -> Result<(), BadToken> {
    let got = signature(app, auth.ok_or(BadToken::Missing)?)?;
    if channel_signature_matches(&app.secret, socket, channel, channel_data, got) {
        return Ok(());
    }
    let signed = match channel_data {
        Some(data) => format!("{socket}:{channel}:{}", echo(data)),
        None => format!("{socket}:{channel}"),
    };
    Err(BadToken::Signature {
        signed,
        got: echo(got),
    })
}

/// Whether this connection may sign in with `user_data`.
pub fn may_sign_in(app: &App, socket: SocketId, auth: &str, user_data: &str) -> Result<(), BadToken> {
    let got = signature(app, auth)?;
    if user_signature_matches(&app.secret, socket, user_data, got) {
        return Ok(());
    }
    Err(BadToken::Signature {
        signed: format!("{socket}::user::{}", echo(user_data)),
        got: echo(got),
    })
}
