//! What stands above a body: who sent it, and proof of it. Made anew for each attempt, because the time is in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_protocol::signature::Secret;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use super::delivery::DeliveryId;
use super::endpoint::Endpoint;

/// What secrets of Standard Webhooks begin with; base64 follows.
pub(super) const SECRET_PREFIX: &str = "whsec_";

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Dunlin-Webhooks/", env!("CARGO_PKG_VERSION")));
/// Exactly this: the official Node.js library refuses it with a charset behind it.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const PUSHER_KEY: HeaderName = HeaderName::from_static("x-pusher-key");
const PUSHER_SIGNATURE: HeaderName = HeaderName::from_static("x-pusher-signature");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The headers of an attempt that begins at `unix_s`, seconds since 1970. `body` is what will be sent, byte for byte.
///
/// The endpoint's own are among them; of ours they can only replace the `User-Agent`.
pub fn headers(endpoint: &Endpoint, id: &DeliveryId, unix_s: u64, body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8 + endpoint.headers.len());
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(PUSHER_KEY, visible(endpoint.key.as_str()));
    let digest = endpoint.app_secret.sign_hex(&[body]);
    headers.insert(
        PUSHER_SIGNATURE,
        visible(str::from_utf8(&digest).unwrap_or_default()),
    );
    let time = unix_s.to_string();
    let signatures: Vec<String> = endpoint
        .secrets_at(unix_s)
        .map(|secret| standard_signature(secret, id.as_str(), &time, body))
        .collect();
    headers.insert(WEBHOOK_ID, visible(id.as_str()));
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(unix_s));
    headers.insert(WEBHOOK_SIGNATURE, visible(&signatures.join(" ")));
    for (name, value) in &endpoint.headers {
        headers.insert(name, value.clone());
    }
    headers
}

/// The key that a secret of Standard Webhooks stands for: `whsec_` and base64. `None`: it is none.
pub fn standard_secret(text: &str) -> Option<Secret> {
    let bytes = BASE64.decode(text.strip_prefix(SECRET_PREFIX)?).ok()?;
    (!bytes.is_empty()).then(|| Secret::new(bytes))
}

/// The opposite.
pub fn in_standard(secret: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64.encode(secret))
}

/// `v1,BASE64` (Standard Webhooks specification, "Symmetric signatures"). `time` is the `webhook-timestamp`.
pub fn standard_signature(secret: &Secret, id: &str, time: &str, body: &[u8]) -> String {
    let digest = secret.sign(&[id.as_bytes(), b".", time.as_bytes(), b".", body]);
    format!("v1,{}", BASE64.encode(digest))
}

fn visible(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("keys, digits and base64 are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppSection, ConfigSecret, EndpointSection};
    use crate::webhooks::egress::Guard;

    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn endpoint(edit: impl FnOnce(&mut EndpointSection)) -> Endpoint {
        let mut section = EndpointSection {
            url: "https://a.example/".to_owned(),
            ..EndpointSection::default()
        };
        edit(&mut section);
        Endpoint::new(&AppSection::example(), &section, &Guard::default()).expect("it is sound")
    }

    fn value(headers: &HeaderMap, name: &str) -> String {
        let mut values = headers.get_all(name).iter();
        let value = values.next().expect("the header is there");
        assert!(values.next().is_none(), "{name} is there once");
        value.to_str().expect("it is ASCII").to_owned()
    }

    /// The example of the specification's own libraries.
    #[test]
    fn the_vector_of_standard_webhooks_comes_out() {
        let endpoint = endpoint(|section| section.secret = Some(ConfigSecret::from(SECRET)));
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(
            standard_signature(endpoint.secrets_at(0).next().unwrap(), id, "1614265330", BODY),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn an_attempt_says_who_what_and_when_and_proves_it() {
        let endpoint = endpoint(|section| {
            section.headers = [("Authorization", "Bearer x"), ("User-Agent", "mine")]
                .map(|(name, value)| (name.to_owned(), ConfigSecret::from(value)))
                .into();
        });
        let id = DeliveryId::new();
        let headers = headers(&endpoint, &id, 1_614_265_330, BODY);
        let app_secret = AppSection::example().secret.to_secret();
        let hex = app_secret.sign_hex(&[BODY]);
        // No secret of its own: a receiver that decodes `whsec_` and base64 of the app's secret gets the app's secret.
        let standard = standard_signature(&app_secret, id.as_str(), "1614265330", BODY);
        for (name, expected) in [
            ("content-type", "application/json"),
            ("user-agent", "mine"),
            ("x-pusher-key", "app-key"),
            ("x-pusher-signature", str::from_utf8(&hex).unwrap()),
            ("webhook-id", id.as_str()),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", &standard),
            ("authorization", "Bearer x"),
        ] {
            assert_eq!(value(&headers, name), expected, "{name}");
        }
        assert_eq!(headers.len(), 8, "and nothing else");
    }

    /// As `openssl dgst -sha256 -hmac app-secret` has it.
    #[test]
    fn the_pusher_signature_is_over_the_bytes_of_the_body() {
        let headers = headers(&endpoint(|_| {}), &DeliveryId::new(), 0, BODY);
        assert_eq!(
            value(&headers, "x-pusher-signature"),
            "b04ad4d5cf92173690b5d8fc495fe92f05a18f26ccac86776a918f7b29b38c06"
        );
        assert_eq!(
            value(&headers, "user-agent"),
            format!("Dunlin-Webhooks/{}", env!("CARGO_PKG_VERSION"))
        );
    }

    #[test]
    fn both_secrets_sign_while_they_overlap() {
        let endpoint = endpoint(|section| {
            section.secret = Some(ConfigSecret::from("whsec_bmV3"));
            section.previous_secret = Some(ConfigSecret::from("whsec_b2xk"));
        });
        let id = DeliveryId::new();
        let headers = headers(&endpoint, &id, 7, BODY);
        let [new, old] =
            ["new", "old"].map(|text| standard_signature(&Secret::new(text), id.as_str(), "7", BODY));
        assert_eq!(value(&headers, "webhook-signature"), format!("{new} {old}"));
    }

    #[test]
    fn a_previous_secret_signs_until_its_time_has_come() {
        let count = |until_ms, unix_s| {
            let endpoint = endpoint(|section| {
                section.previous_secret = Some(ConfigSecret::from("whsec_b2xk"));
                section.previous_secret_until_ms = until_ms;
            });
            endpoint.secrets_at(unix_s).count()
        };
        assert_eq!([count(7000, 6), count(7000, 7), count(7000, 8)], [2, 1, 1]);
        assert_eq!(count(0, 1_800_000_000), 2, "as long as it is there");
    }

    #[test]
    fn a_secret_is_read_as_it_is_written() {
        let text = in_standard(b"app-secret");
        assert_eq!(text, "whsec_YXBwLXNlY3JldA==");
        let read = standard_secret(&text).expect("it is one");
        assert_eq!(read.sign(&[BODY]), Secret::new("app-secret").sign(&[BODY]));
    }
}
