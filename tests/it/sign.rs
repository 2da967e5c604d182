//! Signatures as the customers' server libraries make them, written again here on purpose: a mistake in
//! the server's own signing code must not cancel itself out.

use crate::world::App;
use hmac::{Hmac, KeyInit, Mac};
use md5::Digest as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn hmac_sha256_hex(secret: &str, text: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("any key length will do");
    mac.update(text);
    hex::encode(mac.finalize().into_bytes())
}

pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(md5::Md5::digest(bytes))
}

/// The `auth` of a channel subscription.
pub(crate) fn channel_auth(app: &App, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let mut text = format!("{socket_id}:{channel}");
    if let Some(data) = channel_data {
        text.push(':');
        text.push_str(data);
    }
    format!("{}:{}", app.key, hmac_sha256_hex(&app.secret, text.as_bytes()))
}

/// The `auth` of a sign-in.
pub(crate) fn user_auth(app: &App, socket_id: &str, user_data: &str) -> String {
    let text = format!("{socket_id}::user::{user_data}");
    format!("{}:{}", app.key, hmac_sha256_hex(&app.secret, text.as_bytes()))
}

#[expect(clippy::disallowed_methods, reason = "a client signs with the real time")]
pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).expect("the year is below 292 billion")
}
