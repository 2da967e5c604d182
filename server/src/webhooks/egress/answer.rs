//! What a receiver says, as far as it is listened to.

use std::time::{Duration, UNIX_EPOCH};

use actix_http::header::HttpDate;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap, RETRY_AFTER};

use crate::clock;

/// Bytes of an answer's body that are read. What comes behind them is not waited for.
const MAX_BODY: usize = 64 * 1024;

/// Bytes of them that are kept for people.
const MAX_NOTE: usize = 1024;

/// The longest that a receiver may make us wait, seconds.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;

/// A receiver's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub status: u16,
    /// How long it asks us to wait, at most a day.
    pub retry_after: Option<Duration>,
    /// For people: the beginning of the body, at most 1 KiB, on one line and without invisible characters.
    pub note: String,
}

impl Received {
    /// Whether the receiver has taken the delivery. A redirection is none: it is not followed.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads as much of the body as is wanted. An answer that breaks off before that is none, whatever its status.
    pub(super) async fn read(mut response: Response) -> Result<Self, reqwest::Error> {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, clock::unix_seconds()));
        let is_encoded = is_encoded(response.headers());
        let mut read = 0;
        let mut kept = Vec::new();
        while read < MAX_BODY
            && let Some(chunk) = response.chunk().await?
        {
            read += chunk.len();
            let room = MAX_NOTE - kept.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let note = if is_encoded {
            "(a compressed body)".to_owned()
        } else {
            readable(&kept)
        };
        Ok(Self {
            status,
            retry_after,
            note,
        })
    }
}

/// We ask for no encoding, and undo none.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
}

/// `now`: Unix seconds.
fn retry_after(value: &str, now: i64) -> Option<Duration> {
    let value = value.trim();
    let seconds = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().unwrap_or(u64::MAX)
    } else {
        let date: HttpDate = value.parse().ok()?;
        let at = std::time::SystemTime::from(date)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        at.as_secs()
            .saturating_sub(u64::try_from(now).unwrap_or_default())
    };
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
}

/// Text that may be shown anywhere: what would break a line or turn the text around it becomes a space.
fn readable(bytes: &[u8]) -> String {
    let is_unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut text = String::from_utf8_lossy(bytes).replace(is_unseen, " ");
    // A byte that is no UTF-8 has become three.
    text.truncate(text.floor_char_boundary(MAX_NOTE));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_a_day() {
        // 1994-11-06 08:49:37 UTC
        let now = 784_111_777;
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(86_400)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                seconds.map(Duration::from_secs),
                "{value:?}"
            );
        }
    }

    #[test]
    fn what_is_shown_to_people_is_one_harmless_line() {
        for (bytes, text) in [
            (&b"all right"[..], "all right"),
            (b"a\r\nb\tc\0d\x1b[31m", "a  b c d [31m"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("a\u{202e}b\u{200b}c\u{2028}d\u{feff}".as_bytes(), "a b c d "),
            ("Grüße".as_bytes(), "Grüße"),
        ] {
            assert_eq!(readable(bytes), text);
        }
        assert_eq!(readable(&[0xff; MAX_NOTE]).len(), MAX_NOTE / 3 * 3);
    }
}
