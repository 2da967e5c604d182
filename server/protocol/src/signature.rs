//! HMAC signatures: of channel subscriptions, of sign-ins, and of HTTP requests.
//!
//! Everything here compares in constant time and never shows a secret or an expected digest.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use smallvec::SmallVec;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::names::SocketId;
use crate::percent::{self, Plus};

/// How far a request's timestamp may be from the server's time; this difference itself is too far, in seconds
/// (source of the official Ruby signature library).
pub const TIMESTAMP_WINDOW_S: u64 = 600;

/// The secret half of an app's credentials, kept as a keyed HMAC state: signing clones the state instead of hashing the
/// key again, and the text itself is not held. An empty secret verifies nothing.
#[derive(Clone)]
pub struct Secret {
    keyed: Hmac<Sha256>,
    is_usable: bool,
}

impl Secret {
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        let secret = secret.as_ref();
        let keyed = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        Self {
            keyed,
            is_usable: !secret.is_empty(),
        }
    }

    /// The HMAC-SHA256 of the parts, joined.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The same as lower-case hex.
    pub fn sign_hex(&self, parts: &[&[u8]]) -> [u8; 64] {
        let mut digest = [0; 64];
        hex::encode_to_slice(self.sign(parts), &mut digest).expect("32 bytes are 64 digits");
        digest
    }

    /// Whether the text is that digest, in lower case.
    pub fn verify_hex(&self, parts: &[&[u8]], hex_digest: &str) -> bool {
        let matches: bool = self
            .sign_hex(parts)
            .as_slice()
            .ct_eq(hex_digest.as_bytes())
            .into();
        matches && self.is_usable
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether `hex` signs `SOCKET_ID:CHANNEL[:CHANNEL_DATA]` (Pusher Channels docs, auth signatures). Whatever
/// `channel_data` the client sends is part of the text on every kind of channel, exactly as received.
pub fn channel_signature_matches(
    secret: &Secret,
    socket_id: SocketId,
    channel: &str,
    channel_data: Option<&str>,
    hex: &str,
) -> bool {
    let socket_id = socket_id.to_text();
    let (socket_id, channel) = (socket_id.as_str().as_bytes(), channel.as_bytes());
    match channel_data {
        Some(data) => secret.verify_hex(&[socket_id, b":", channel, b":", data.as_bytes()], hex),
        None => secret.verify_hex(&[socket_id, b":", channel], hex),
    }
}

/// Whether `hex` signs `SOCKET_ID::user::USER_DATA` (Pusher Channels docs, user authentication).
pub fn user_signature_matches(secret: &Secret, socket_id: SocketId, user_data: &str, hex: &str) -> bool {
    let socket_id = socket_id.to_text();
    secret.verify_hex(
        &[socket_id.as_str().as_bytes(), b"::user::", user_data.as_bytes()],
        hex,
    )
}

/// Why a signed request is refused with 401; `Display` is the text of the answer, in the words of the hosted service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("Missing parameter: auth_key")]
    MissingKey,
    /// For the caller that looks the key up.
    #[error("Unknown auth_key")]
    UnknownKey,
    #[error("Version required")]
    VersionRequired,
    #[error("Version not supported")]
    VersionNotSupported,
    #[error("Timestamp required")]
    TimestampRequired,
    #[error(
        "Timestamp expired: Given timestamp ({}) not within {}s of server time ({})",
        iso_utc(*given_unix_s), TIMESTAMP_WINDOW_S, iso_utc(*now_unix_s)
    )]
    TimestampExpired { given_unix_s: i64, now_unix_s: i64 },
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex({string_to_sign:?}, your_secret_key), but you sent {sent:?}"
    )]
    InvalidSignature {
        string_to_sign: Box<str>,
        sent: Box<str>,
    },
    #[error("Invalid body_md5")]
    InvalidBodyMd5,
}

/// The parts of a request line that are signed, exactly as they came.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    pub method: &'a str,
    /// Without host and query, still percent-encoded.
    pub path: &'a str,
    /// Without the question mark, still percent-encoded.
    pub query: &'a str,
}

/// How a query is read before it is signed. Libraries sign the plain values but differ in what they put on the wire.
#[derive(Clone, Copy)]
enum Reading {
    Decoded(Plus),
    Raw,
}

impl Reading {
    fn read(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Self::Decoded(plus) => percent::decode(text, plus),
            Self::Raw => Cow::Borrowed(text.as_bytes()),
        }
    }
}

type RawPairs<'a> = SmallVec<[(&'a str, &'a str); 12]>;

impl<'a> SignedRequest<'a> {
    pub const fn new(method: &'a str, path: &'a str, query: &'a str) -> Self {
        Self { method, path, query }
    }

    /// The key that the request claims to be signed for.
    ///
    /// # Errors
    /// When there is none.
    pub fn auth_key(&self) -> Result<Cow<'a, str>, AuthError> {
        Query::of(self.query)
            .parameter("auth_key")
            .ok_or(AuthError::MissingKey)
    }

    /// Checks version, timestamp, signature and body digest, in this order.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, secret: &Secret, body: &[u8], now_unix_s: i64) -> Result<(), AuthError> {
        let query = Query::of(self.query);
        match query.parameter("auth_version").as_deref() {
            Some("1.0") => {}
            Some(_) => return Err(AuthError::VersionNotSupported),
            None => return Err(AuthError::VersionRequired),
        }
        let timestamp = query
            .parameter("auth_timestamp")
            .ok_or(AuthError::TimestampRequired)?;
        // A timestamp that is no number is as stale as can be.
        let given_unix_s = timestamp.parse().unwrap_or(0);
        if now_unix_s.abs_diff(given_unix_s) >= TIMESTAMP_WINDOW_S {
            return Err(AuthError::TimestampExpired {
                given_unix_s,
                now_unix_s,
            });
        }
        self.verify_signature(&query, secret)?;
        verify_body(query.parameter("body_md5").as_deref(), body)
    }

    /// The decoded query parameters.
    pub fn params(&self) -> QueryParams<'a> {
        let decode = |text| percent::decode_text(text, Plus::Space);
        let pairs = Query::of(self.query).pairs.into_iter();
        QueryParams {
            pairs: pairs.map(|(name, value)| (decode(name), decode(value))).collect(),
        }
    }

    fn verify_signature(&self, query: &Query<'_>, secret: &Secret) -> Result<(), AuthError> {
        let sent = query.parameter("auth_signature").unwrap_or_default();
        // Readings that cannot differ from an earlier one are not tried.
        let readings = [
            Some(Reading::Decoded(Plus::Itself)),
            query.has_plus.then_some(Reading::Decoded(Plus::Space)),
            query.has_percent.then_some(Reading::Raw),
        ];
        let decoded_path = percent::decode(self.path, Plus::Itself);
        let paths = [
            Some(self.path.as_bytes()),
            matches!(decoded_path, Cow::Owned(_)).then_some(decoded_path.as_ref()),
        ];
        let mut text = Vec::with_capacity(self.method.len() + self.path.len() + self.query.len() + 8);
        for path in paths.into_iter().flatten() {
            for reading in readings.into_iter().flatten() {
                self.write_string_to_sign(path, query, reading, &mut text);
                if secret.verify_hex(&[&text], &sent) {
                    return Ok(());
                }
            }
        }
        self.write_string_to_sign(
            self.path.as_bytes(),
            query,
            Reading::Decoded(Plus::Itself),
            &mut text,
        );
        Err(AuthError::InvalidSignature {
            string_to_sign: String::from_utf8_lossy(&text).into(),
            sent: sent.into(),
        })
    }

    /// Method, path, and the parameters but for the signature: names in lower case, sorted, not escaped.
    fn write_string_to_sign(&self, path: &[u8], query: &Query<'_>, reading: Reading, text: &mut Vec<u8>) {
        text.clear();
        text.extend_from_slice(self.method.as_bytes());
        text.make_ascii_uppercase();
        text.push(b'\n');
        text.extend_from_slice(path);
        text.push(b'\n');
        let start = text.len();
        // The sorts are stable, so that a repeated name keeps the order of its values.
        if query.is_plain() {
            let mut pairs: RawPairs<'_> = query
                .pairs
                .iter()
                .copied()
                .filter(|(name, _)| *name != "auth_signature")
                .collect();
            pairs.sort_by_key(|(name, _)| *name);
            for (name, value) in pairs {
                append_pair(text, start, name.as_bytes(), value.as_bytes());
            }
        } else {
            let read = query.pairs.iter().map(|(name, value)| {
                let name = reading.read(name);
                (name.to_ascii_lowercase(), reading.read(value))
            });
            let mut pairs: Vec<_> = read.filter(|(name, _)| name != b"auth_signature").collect();
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
            for (name, value) in pairs {
                append_pair(text, start, &name, &value);
            }
        }
    }
}

/// A query taken apart but not decoded.
struct Query<'a> {
    pairs: RawPairs<'a>,
    has_percent: bool,
    has_plus: bool,
    has_capital: bool,
}

impl<'a> Query<'a> {
    fn of(query: &'a str) -> Self {
        let (mut has_percent, mut has_plus, mut has_capital) = (false, false, false);
        for byte in query.bytes() {
            has_percent |= byte == b'%';
            has_plus |= byte == b'+';
            has_capital |= byte.is_ascii_uppercase();
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect();
        Self {
            pairs,
            has_percent,
            has_plus,
            has_capital,
        }
    }

    /// Nothing to decode and no capitals: the slices are what is signed.
    const fn is_plain(&self) -> bool {
        !(self.has_percent || self.has_plus || self.has_capital)
    }

    /// The first parameter of this lower-case name, whatever its case on the wire.
    fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        let is_it = |raw: &str| {
            raw.eq_ignore_ascii_case(name)
                || (self.has_percent
                    && percent::decode(raw, Plus::Itself).eq_ignore_ascii_case(name.as_bytes()))
        };
        let (_, value) = self.pairs.iter().find(|(raw, _)| is_it(raw))?;
        Some(percent::decode_text(value, Plus::Itself))
    }
}

/// The digest is required when there is a body. The Python library also sends it without one.
fn verify_body(claimed: Option<&str>, body: &[u8]) -> Result<(), AuthError> {
    let Some(claimed) = claimed else {
        return if body.is_empty() {
            Ok(())
        } else {
            Err(AuthError::InvalidBodyMd5)
        };
    };
    let mut actual = [0; 32];
    hex::encode_to_slice(Md5::digest(body), &mut actual).expect("16 bytes are 32 digits");
    if bool::from(actual.as_slice().ct_eq(claimed.as_bytes())) {
        Ok(())
    } else {
        Err(AuthError::InvalidBodyMd5)
    }
}

fn append_pair(text: &mut Vec<u8>, start: usize, name: &[u8], value: &[u8]) {
    if text.len() > start {
        text.push(b'&');
    }
    text.extend_from_slice(name);
    text.push(b'=');
    text.extend_from_slice(value);
}

/// Decoded query parameters in the order of the request. A `+` has become a space, as in forms.
#[derive(Debug, Clone, Default)]
pub struct QueryParams<'a> {
    pairs: SmallVec<[(Cow<'a, str>, Cow<'a, str>); 8]>,
}

impl QueryParams<'_> {
    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// Every value of this name, for arrays such as `channels[]`.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.iter()
            .filter(move |(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }
}

/// `2013-09-29T08:46:33Z` for seconds since 1970, in the proleptic Gregorian calendar.
fn iso_utc(unix_s: i64) -> String {
    let (days, second_of_day) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    // Counted from the first of March of year 0, so that a leap day ends its year.
    let days = i128::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i128::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    const NOW: i64 = 1_353_088_179;

    fn secret() -> Secret {
        Secret::new("7ad3773142a6692b25b8")
    }

    /// A query with a signature over the given text.
    fn signed(wire: &str, string_to_sign: &str) -> String {
        let hex = secret().sign_hex(&[string_to_sign.as_bytes()]);
        format!("{wire}&auth_signature={}", std::str::from_utf8(&hex).unwrap())
    }

    fn get(path: &str, query: &str) -> Result<(), AuthError> {
        SignedRequest::new("GET", path, query).verify(&secret(), b"", NOW)
    }

    const DOCS: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";

    #[test]
    fn the_example_of_the_docs_verifies() {
        let request = SignedRequest::new("POST", "/apps/3/events", DOCS);
        assert_eq!(request.auth_key().unwrap(), "278d425bdf160c739803");
        request.verify(&secret(), BODY, NOW).unwrap();
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let verify = |method, path, query: &str, secret: &Secret, body| {
            SignedRequest::new(method, path, query).verify(secret, body, NOW)
        };
        let (own, other) = (secret(), Secret::new("another"));
        assert!(matches!(
            verify("PUT", "/apps/3/events", DOCS, &own, BODY),
            Err(AuthError::InvalidSignature { .. })
        ));
        assert!(matches!(
            verify("POST", "/apps/4/events", DOCS, &own, BODY),
            Err(AuthError::InvalidSignature { .. })
        ));
        assert!(matches!(
            verify("POST", "/apps/3/events", DOCS, &other, BODY),
            Err(AuthError::InvalidSignature { .. })
        ));
        assert!(matches!(
            verify("POST", "/apps/3/events", &format!("{DOCS}&x=1"), &own, BODY),
            Err(AuthError::InvalidSignature { .. })
        ));
        let capitals = DOCS.replace("da454824", "DA454824");
        assert!(matches!(
            verify("POST", "/apps/3/events", &capitals, &own, BODY),
            Err(AuthError::InvalidSignature { .. })
        ));
        assert_eq!(
            verify("POST", "/apps/3/events", DOCS, &own, b"{}"),
            Err(AuthError::InvalidBodyMd5)
        );
        assert_eq!(
            verify("POST", "/apps/3/events", DOCS, &own, b""),
            Err(AuthError::InvalidBodyMd5)
        );
    }

    #[test]
    fn checks_come_in_their_order_with_their_texts() {
        let cases = [
            ("", "Version required"),
            ("auth_version=2.0", "Version not supported"),
            ("auth_version=1.0", "Timestamp required"),
            (
                "auth_version=1.0&auth_timestamp=1353088779",
                "Timestamp expired: Given timestamp (2012-11-16T17:59:39Z) not within 600s of server time (2012-11-16T17:49:39Z)",
            ),
            (
                "auth_version=1.0&auth_timestamp=soon",
                "Timestamp expired: Given timestamp (1970-01-01T00:00:00Z) not within 600s of server time (2012-11-16T17:49:39Z)",
            ),
            (
                "auth_version=1.0&auth_timestamp=1353088778&auth_signature=abc",
                r#"Invalid signature: you should have sent HmacSHA256Hex("GET\n/x\nauth_timestamp=1353088778&auth_version=1.0", your_secret_key), but you sent "abc""#,
            ),
            (
                "auth_version=1.0&auth_timestamp=1353088179",
                r#"Invalid signature: you should have sent HmacSHA256Hex("GET\n/x\nauth_timestamp=1353088179&auth_version=1.0", your_secret_key), but you sent """#,
            ),
        ];
        for (query, text) in cases {
            assert_eq!(get("/x", query).unwrap_err().to_string(), text, "{query}");
        }
        assert_eq!(
            SignedRequest::new("GET", "/x", "auth_version=1.0")
                .auth_key()
                .unwrap_err()
                .to_string(),
            "Missing parameter: auth_key"
        );
    }

    #[test]
    fn timestamps_pass_up_to_but_not_at_the_window() {
        let far = [i64::MIN, i64::MAX, NOW - 600, NOW + 600];
        let near = [NOW - 599, NOW, NOW + 599];
        for (timestamp, passes) in far.map(|t| (t, false)).into_iter().chain(near.map(|t| (t, true))) {
            let wire = format!("auth_timestamp={timestamp}&auth_version=1.0");
            let result = get("/x", &signed(&wire, &format!("GET\n/x\n{wire}")));
            assert_eq!(result.is_ok(), passes, "{timestamp}");
            if let Err(error) = result {
                assert!(error.to_string().starts_with("Timestamp expired"));
            }
        }
    }

    #[test]
    fn a_query_may_be_signed_as_decoded_with_plus_as_space_or_raw() {
        const REST: &str = "auth_timestamp=1353088179&auth_version=1.0";
        let cases = [
            // on the wire, as signed
            (
                "info=user_count,subscription_count",
                "info=user_count,subscription_count",
            ),
            (
                "info=user_count%2Csubscription_count",
                "info=user_count,subscription_count",
            ),
            (
                "info=user_count%2Csubscription_count",
                "info=user_count%2Csubscription_count",
            ),
            ("q=a+b", "q=a+b"),
            ("q=a+b", "q=a b"),
            ("q=a+b%2B", "q=a b+"),
            ("q=%E2%82%AC", "q=€"),
            ("Query=params", "query=params"),
            ("q%5B%5D=b&q%5B%5D=a", "q[]=b&q[]=a"),
            ("q[]=b&q[]=a", "q[]=b&q[]=a"),
            ("q", "q="),
            ("q=", "q="),
            ("q=a=b", "q=a=b"),
            ("q=%ff", "q=%ff"),
        ];
        for (wire, text) in cases {
            let query = signed(&format!("{wire}&{REST}"), &format!("GET\n/x\n{REST}&{text}"));
            assert_eq!(get("/x", &query), Ok(()), "{wire} as {text}");
        }
    }

    #[test]
    fn names_are_lowered_before_they_are_sorted() {
        let wire = "auth_timestamp=1353088179&auth_version=1.0&Z=1&a=2&B=3";
        let text = "GET\n/x\na=2&auth_timestamp=1353088179&auth_version=1.0&b=3&z=1";
        assert_eq!(get("/x", &signed(wire, text)), Ok(()));
        let upper = signed(
            &wire.to_uppercase(),
            "GET\n/x\na=2&auth_timestamp=1353088179&auth_version=1.0&b=3&z=1",
        );
        assert_eq!(
            get("/x", &upper.replace("auth_signature", "AUTH_Signature")),
            Ok(())
        );
    }

    #[test]
    fn the_path_may_be_signed_raw_or_decoded() {
        let wire = "auth_timestamp=1353088179&auth_version=1.0";
        for path in ["/apps/3/channels/a%40b", "/apps/3/channels/a@b"] {
            assert_eq!(
                get(
                    "/apps/3/channels/a%40b",
                    &signed(wire, &format!("GET\n{path}\n{wire}"))
                ),
                Ok(())
            );
        }
    }

    #[test]
    fn a_body_needs_its_digest_and_no_body_may_have_one() {
        let verify = |digest: Option<&str>, body: &[u8]| {
            let digest = digest
                .map(|digest| format!("&body_md5={digest}"))
                .unwrap_or_default();
            let wire = format!("auth_timestamp=1353088179&auth_version=1.0{digest}");
            let query = signed(&wire, &format!("GET\n/x\n{wire}"));
            SignedRequest::new("GET", "/x", &query).verify(&secret(), body, NOW)
        };
        assert_eq!(verify(None, b""), Ok(()));
        assert_eq!(verify(Some("d41d8cd98f00b204e9800998ecf8427e"), b""), Ok(()));
        assert_eq!(verify(Some("99914b932bd37a50b983c5e7c90ae93b"), b"{}"), Ok(()));
        assert_eq!(
            verify(Some("99914B932BD37A50B983C5E7C90AE93B"), b"{}"),
            Err(AuthError::InvalidBodyMd5)
        );
        assert_eq!(verify(None, b"{}"), Err(AuthError::InvalidBodyMd5));
        assert_eq!(verify(Some(""), b""), Err(AuthError::InvalidBodyMd5));
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        let empty = Secret::new("");
        let hex = empty.sign_hex(&[b"x"]);
        assert!(!empty.verify_hex(&[b"x"], std::str::from_utf8(&hex).unwrap()));
    }

    #[test]
    fn a_secret_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret");
    }

    #[test]
    fn signatures_of_any_other_shape_do_not_match() {
        let secret = secret();
        let good = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
        let matches = |hex: &str| {
            channel_signature_matches(&secret, SocketId::new(1234, 1234), "private-foobar", None, hex)
        };
        assert!(matches(good));
        let (upper, longer) = (good.to_uppercase(), format!("{good}0"));
        for bad in ["", &good[1..], upper.as_str(), longer.as_str(), "é"] {
            assert!(!matches(bad), "{bad}");
        }
        assert!(!channel_signature_matches(
            &secret,
            SocketId::new(1234, 1234),
            "private-foobar",
            Some(""),
            good
        ));
        assert!(!user_signature_matches(
            &secret,
            SocketId::new(1234, 1234),
            "private-foobar",
            good
        ));
    }

    #[test]
    fn parameters_are_decoded_for_the_caller() {
        let request = SignedRequest::new("GET", "/x", "a=1%2C2&&b[]=x+y&b%5B%5D=z&c&a=3");
        let params = request.params();
        assert_eq!(params.get("a"), Some("1,2"));
        assert_eq!(params.all("b[]").collect::<Vec<_>>(), ["x y", "z"]);
        assert_eq!(params.get("c"), Some(""));
        assert_eq!(params.get("d"), None);
        assert_eq!(params.iter().count(), 5);
    }

    #[test]
    fn times_are_written_as_calendars_have_them() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_380_444_393, "2013-09-29T08:46:33Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_utc(unix_s), text);
        }
        iso_utc(i64::MIN);
        iso_utc(i64::MAX);
    }
}
