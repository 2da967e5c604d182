//! Every published test vector, recomputed. The file gathers the vectors of the official server libraries and docs.
#![expect(clippy::unwrap_used, reason = "a broken vector file should stop the test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dryoc::classic::crypto_secretbox::{crypto_secretbox_easy, crypto_secretbox_open_easy};
use dunlin_protocol::signature::{
    AuthError, Secret, SignedRequest, channel_signature_matches, user_signature_matches,
};
use dunlin_protocol::{ChannelKind, ChannelName, SocketId};
use serde_json::Value;
use sha2::{Digest, Sha256};

const VECTORS: &str = include_str!("../../../tests/golden/pusher/vectors.json");

#[test]
fn every_published_vector_holds() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 91);
    for vector in vectors {
        let (input, expected) = (&vector["input"], &vector["expected"]);
        let name = text(&vector["name"]);
        match text(&vector["kind"]) {
            "http_signature" => http_signature(name, input, expected),
            "string_to_sign" => string_to_sign(name, input, expected),
            "channel_auth" => channel_auth(name, input, expected),
            "user_auth" => user_auth(name, input, expected),
            "webhook_signature" => {
                let secret = Secret::new(text(&input["secret"]));
                let body = text(&input["body"]).as_bytes();
                assert!(
                    secret.verify_hex(&[body], text(&expected["X-Pusher-Signature"])),
                    "{name}"
                );
            }
            "primitive" => primitive(name, input, expected),
            "encrypted_shared_secret" => {
                let master_key = BASE64.decode(text(&input["master_key_base64"])).unwrap();
                let shared = shared_secret(text(&input["channel_name"]), &master_key);
                assert_eq!(BASE64.encode(shared), text(&expected["shared_secret"]), "{name}");
            }
            "encrypted_event" => encrypted_event(name, input, expected),
            "invalid_socket_id" => {
                serde_json::from_value::<SocketId>(input["socket_id"].clone()).unwrap_err();
                if let Some(id) = input["socket_id"].as_str() {
                    SocketId::parse(id).unwrap_err();
                }
            }
            "invalid_channel_name" => {
                text(&input["channel_name"]).parse::<ChannelName>().unwrap_err();
            }
            "is_encrypted_channel" => {
                let kind = ChannelKind::of(text(&input["channel_name"]));
                assert_eq!(Value::from(kind.is_encrypted()), *expected, "{name}");
            }
            other => panic!("a vector of the unknown kind {other}"),
        }
    }
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not a string"))
}

/// The parameters as the libraries put them on the wire: arrays as `name[]=`, null as `name=`.
fn wire_query(parameters: &Value) -> String {
    let mut pairs = Vec::new();
    for (name, value) in parameters.as_object().unwrap() {
        match value {
            Value::Array(values) => {
                pairs.extend(values.iter().map(|value| format!("{name}[]={}", text(value))));
            }
            Value::Null => pairs.push(format!("{name}=")),
            value => pairs.push(format!("{name}={}", text(value))),
        }
    }
    pairs.join("&")
}

/// What the verifier would have liked to be signed.
fn wanted_text(request: &SignedRequest<'_>, now: i64) -> String {
    match request.verify(&Secret::new("not the secret"), b"", now) {
        Err(AuthError::InvalidSignature { string_to_sign, .. }) => string_to_sign.into(),
        other => panic!("{other:?}"),
    }
}

fn http_signature(name: &str, input: &Value, expected: &Value) {
    let timestamp = text(&input["auth_timestamp"]);
    let mut query = format!(
        "auth_signature={}&auth_key={}&auth_timestamp={timestamp}&auth_version=1.0&{}",
        text(&expected["auth_signature"]),
        text(&input["key"]),
        wire_query(&input["query"]),
    );
    if let Some(digest) = expected["body_md5"].as_str() {
        query.push_str("&body_md5=");
        query.push_str(digest);
    }
    let body = input["body"].as_str().unwrap_or_default();
    let request = SignedRequest::new(text(&input["method"]), text(&input["path"]), &query);
    let now = timestamp.parse().unwrap();
    let secret = Secret::new(text(&input["secret"]));
    assert_eq!(request.auth_key().unwrap(), text(&input["key"]), "{name}");
    assert_eq!(request.verify(&secret, body.as_bytes(), now), Ok(()), "{name}");
    assert_eq!(
        wanted_text(&request, now),
        text(&expected["string_to_sign"]),
        "{name}"
    );
}

fn string_to_sign(name: &str, input: &Value, expected: &Value) {
    const AUTH: &str = "auth_timestamp=1234&auth_version=1.0";
    let query = format!("{}&{AUTH}", wire_query(&input["query"]));
    let request = SignedRequest::new(text(&input["method"]), text(&input["path"]), &query);
    // These vectors come without the parameters that a request needs to get as far as its signature; those sort first.
    let wanted = wanted_text(&request, 1234).replace(&format!("{AUTH}&"), "");
    assert_eq!(wanted, text(expected), "{name}");
}

fn signature_of<'a>(input: &Value, expected: &'a Value) -> &'a str {
    let (key, signature) = text(&expected["auth"]).split_once(':').unwrap();
    assert_eq!(key, text(&input["key"]));
    signature
}

fn channel_auth(name: &str, input: &Value, expected: &Value) {
    let socket_id: SocketId = text(&input["socket_id"]).parse().unwrap();
    let matches = |secret: &str| {
        channel_signature_matches(
            &Secret::new(secret),
            socket_id,
            text(&input["channel_name"]),
            input["channel_data"].as_str(),
            signature_of(input, expected),
        )
    };
    assert!(matches(text(&input["secret"])), "{name}");
    assert!(!matches("not the secret"), "{name}");
    let secret = Secret::new(text(&input["secret"]));
    assert!(
        secret.verify_hex(
            &[text(&expected["string_to_sign"]).as_bytes()],
            signature_of(input, expected)
        ),
        "{name}"
    );
}

fn user_auth(name: &str, input: &Value, expected: &Value) {
    let socket_id: SocketId = text(&input["socket_id"]).parse().unwrap();
    let matches = |secret: &str| {
        let user_data = text(&input["user_data"]);
        user_signature_matches(
            &Secret::new(secret),
            socket_id,
            user_data,
            signature_of(input, expected),
        )
    };
    assert!(matches(text(&input["secret"])), "{name}");
    assert!(!matches("not the secret"), "{name}");
}

fn primitive(name: &str, input: &Value, expected: &Value) {
    let message = text(&input["message"]).as_bytes();
    match name {
        "hmac" => assert!(Secret::new(text(&input["secret"])).verify_hex(&[message], text(expected))),
        "md5" => assert_eq!(hex::encode(md5::Md5::digest(message)), text(expected)),
        other => panic!("an unknown primitive {other}"),
    }
}

fn shared_secret(channel: &str, master_key: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(channel)
        .chain_update(master_key)
        .finalize()
        .into()
}

/// The server never decrypts; these show that the payloads it must carry untouched are what the libraries make of them.
fn encrypted_event(name: &str, input: &Value, expected: &Value) {
    if let Some(plaintext) = input["plaintext"].as_str() {
        let key = shared_secret(
            text(&input["channel_name"]),
            text(&input["master_key_ascii"]).as_bytes(),
        );
        let nonce: [u8; 24] = text(&input["nonce_ascii"]).as_bytes().try_into().unwrap();
        let mut sealed = vec![0; plaintext.len() + 16];
        crypto_secretbox_easy(&mut sealed, plaintext.as_bytes(), &nonce, &key).unwrap();
        assert_eq!(BASE64.encode(nonce), text(&expected["nonce"]), "{name}");
        assert_eq!(BASE64.encode(sealed), text(&expected["ciphertext"]), "{name}");
    } else {
        let part = |member: &str| BASE64.decode(text(&input[member])).unwrap();
        let key: [u8; 32] = part("key_base64").try_into().unwrap();
        let nonce: [u8; 24] = part("nonce").try_into().unwrap();
        let sealed = part("ciphertext");
        let mut plaintext = vec![0; sealed.len() - 16];
        crypto_secretbox_open_easy(&mut plaintext, &sealed, &nonce, &key).unwrap();
        assert_eq!(
            String::from_utf8(plaintext).unwrap(),
            text(&expected["plaintext"]),
            "{name}"
        );
    }
}
