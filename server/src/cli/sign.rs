//! What a customer's backend signs, as the server libraries do it.

use dunlin_protocol::signature::Secret;
use md5::{Digest as _, Md5};

/// The query of a signed request, percent-encoded where it has to be, signature included (Pusher HTTP API docs).
///
/// `path` is as it will be on the request line; `parameters` are plain and in lower case.
pub(super) fn signed_query(
    (key, secret): (&str, &Secret),
    method: &str,
    path: &str,
    parameters: &[(&str, &str)],
    body: &[u8],
    now_unix_s: i64,
) -> String {
    let timestamp = now_unix_s.to_string();
    let body_md5 = hex::encode(Md5::digest(body));
    let mut all = vec![
        ("auth_key", key),
        ("auth_timestamp", &timestamp),
        ("auth_version", "1.0"),
    ];
    if !body.is_empty() {
        all.push(("body_md5", &body_md5));
    }
    all.extend(parameters);
    all.sort_unstable();
    // Signed as they are, sent escaped.
    let plain: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let text = format!("{method}\n{path}\n{}", plain.join("&"));
    let signature = digest(secret, &[text.as_bytes()]);
    all.push(("auth_signature", &signature));
    let escaped: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    escaped.join("&")
}

/// The `auth` of a subscription to a private or presence channel (Pusher docs, auth signatures).
pub(super) fn channel_auth(
    (key, secret): (&str, &Secret),
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> String {
    let signature = match channel_data {
        Some(data) => digest(secret, &[socket_id, ":", channel, ":", data].map(str::as_bytes)),
        None => digest(secret, &[socket_id, ":", channel].map(str::as_bytes)),
    };
    format!("{key}:{signature}")
}

fn digest(secret: &Secret, parts: &[&[u8]]) -> String {
    secret.sign_hex(parts).map(char::from).iter().collect()
}

/// Percent-encodes all that is not unreserved (RFC 3986, section 2.3), and leaves commas and slashes readable.
pub(super) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~,".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a String takes everything");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use dunlin_protocol::signature::SignedRequest;

    use super::*;

    #[test]
    fn the_example_of_the_documentation_comes_out() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let query = signed_query(
            ("278d425bdf160c739803", &secret),
            "POST",
            "/apps/3/events",
            &[],
            body,
            1_353_088_179,
        );
        assert_eq!(
            query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn a_server_accepts_what_is_signed_also_with_values_to_escape() {
        let secret = Secret::new("s");
        let parameters = [
            ("info", "user_count,subscription_count"),
            ("filter_by_prefix", "presence-ä b&c+%"),
        ];
        let query = signed_query(("k", &secret), "GET", "/apps/3/channels", &parameters, b"", 1000);
        let request = SignedRequest::new("GET", "/apps/3/channels", &query);
        assert_eq!(request.verify(&secret, b"", 1000), Ok(()));
        assert!(request.verify(&Secret::new("t"), b"", 1000).is_err());
    }

    #[test]
    fn subscriptions_are_signed_with_and_without_channel_data() {
        let secret = Secret::new("7ad3773142a6692b25b8");
        // The vectors of the documentation (auth signatures).
        assert_eq!(
            channel_auth(
                ("278d425bdf160c739803", &secret),
                "1234.1234",
                "private-foobar",
                None
            ),
            "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        let data = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
        assert_eq!(
            channel_auth(
                ("278d425bdf160c739803", &secret),
                "1234.1234",
                "presence-foobar",
                Some(data)
            ),
            "278d425bdf160c739803:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
        );
    }
}
