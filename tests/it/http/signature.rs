//! Who is asking: the parameters, their order of checks, the texts.

use crate::request::{Answer, Call, Encoding};
use crate::sign::{hmac_sha256_hex, md5_hex, unix_now};
use crate::world::{App, World, shared};
use serde_json::json;

fn event(app: &App) -> Call {
    Call::post(
        app,
        "/events",
        &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
    )
}

#[track_caller]
fn assert_401(answer: &Answer, text: &str) {
    answer.assert(401, text);
    assert!(
        answer.text().ends_with('\n'),
        "texts end with a line feed: {:?}",
        answer.text()
    );
    assert!(
        answer
            .header("content-type")
            .is_some_and(|value| value.starts_with("text/plain")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn each_missing_or_wrong_parameter_has_its_text() {
    let (world, app) = shared();
    let call = event(&app);
    for (call, text) in [
        (call.clone().without("auth_key"), "Missing parameter: auth_key"),
        (call.clone().param("auth_key", "nobody"), "Unknown auth_key"),
        (call.clone().param("auth_key", ""), "auth_key"),
        (call.clone().param("auth_key", &app.id), "Unknown auth_key"),
        (call.clone().without("auth_version"), "Version required"),
        (call.clone().param("auth_version", "2.0"), "Version not supported"),
        (call.clone().param("auth_version", "1"), "Version not supported"),
        (
            call.clone().param("auth_version", "1.00"),
            "Version not supported",
        ),
        (call.clone().without("auth_timestamp"), "Timestamp required"),
        (call.clone().without("body_md5"), "body_md5"),
        (call.clone().param("body_md5", ""), "body_md5"),
        (call.clone().param("body_md5", &"0".repeat(32)), "body_md5"),
        (
            call.clone()
                .param("body_md5", &md5_hex(&call.body).to_uppercase()),
            "body_md5",
        ),
        (call.clone().param("body_md5", &md5_hex(b"")), "body_md5"),
    ] {
        assert_401(&call.send(world).await, text);
    }
}

#[tokio::test]
async fn a_missing_or_wrong_signature_is_answered_with_the_string_to_sign_and_no_digest() {
    let (world, app) = shared();
    let call = event(&app);
    let right = call.signature();
    let text = call.string_to_sign().replace('\n', "\\n");
    for wrong in [
        "abc",
        &right[1..],
        &right.to_uppercase(),
        &format!("{right}0"),
        &"0".repeat(64),
    ] {
        let answer = call.send_forged(world, Some(wrong)).await;
        assert_401(
            &answer,
            "Invalid signature: you should have sent HmacSHA256Hex(\"",
        );
        assert_401(&answer, &text);
        assert_401(&answer, &format!("but you sent \"{wrong}\""));
        assert!(
            !answer.text().replace(wrong, "").contains(&right),
            "the digest leaks"
        );
        assert!(!answer.text().contains(&app.secret), "the secret leaks");
    }
    assert_eq!(call.send_forged(world, None).await.status, 401);
    assert_eq!(call.send_forged(world, Some("")).await.status, 401);
}

#[tokio::test]
async fn the_timestamp_may_be_off_by_less_than_600_seconds() {
    let (world, app) = shared();
    // Two seconds of room, because the clock goes on between us and the server.
    for (offset, status) in [
        (-597, 200),
        (597, 200),
        (-603, 401),
        (603, 401),
        (-1_000_000, 401),
        (1_000_000, 401),
    ] {
        let call = event(&app).param("auth_timestamp", &(unix_now() + offset).to_string());
        let answer = call.send(world).await;
        assert_eq!(answer.status, status, "{offset}: {}", answer.text());
        if status == 401 {
            assert_401(&answer, "Timestamp expired: Given timestamp (");
            assert_401(&answer, ") not within 600s of server time (");
        }
    }
}

#[tokio::test]
async fn the_expired_timestamp_is_printed_as_a_date() {
    let (world, app) = shared();
    let answer = event(&app)
        .param("auth_timestamp", "1380444393")
        .send(world)
        .await;
    assert_401(
        &answer,
        "Timestamp expired: Given timestamp (2013-09-29T08:46:33Z) not within 600s of server time (",
    );
}

#[tokio::test]
async fn a_timestamp_that_is_no_number_is_refused() {
    let (world, app) = shared();
    for stamp in [
        "",
        "now",
        "1.5e9",
        "-1",
        "0",
        "0x5f5e100",
        "99999999999999999999",
        "9223372036854775807",
        "NaN",
        " 1",
        "1 ",
        "+1",
    ] {
        let answer = event(&app).param("auth_timestamp", stamp).send(world).await;
        assert_eq!(answer.status, 401, "{stamp:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_checks_come_in_order_key_version_timestamp_signature_app_request() {
    let (world, app) = shared();
    let (_, other) = shared();
    // Everything is wrong; each step repairs one thing.
    let mut call = Call::post_bytes(&app, "/events", "not json");
    call.path = "/apps/99999999/events".to_owned();
    let broken = call
        .param("auth_key", "nobody")
        .param("auth_version", "9")
        .param("auth_timestamp", "1");
    let send = async |call: &Call, signature: Option<&str>| call.send_forged(world, signature).await;
    assert_401(&send(&broken, Some("bad")).await, "Unknown auth_key");
    let call = broken.param("auth_key", &app.key);
    assert_401(&send(&call, Some("bad")).await, "Version not supported");
    let call = call.param("auth_version", "1.0");
    assert_401(&send(&call, Some("bad")).await, "Timestamp expired");
    let call = call.param("auth_timestamp", &unix_now().to_string());
    assert_401(&send(&call, Some("bad")).await, "Invalid signature");
    send(&call, Some(&call.signature())).await.assert(404, "");
    let mut call = call;
    call.path = other.path("/events");
    assert_401(&send(&call, Some(&call.signature())).await, "Unknown auth_key");
    call.path = app.path("/events");
    send(&call, Some(&call.signature())).await.assert(400, "");
}

#[tokio::test]
async fn a_disabled_app_is_answered_403_after_its_signature_was_checked() {
    let app = App::new(1).with("enabled = false");
    let world = World::with_app(&app);
    event(&app).send(&world).await.assert(403, "");
    Call::get(&app, "/channels").send(&world).await.assert(403, "");
    assert_eq!(event(&app).send_forged(&world, Some("bad")).await.status, 401);
}

#[tokio::test]
async fn every_way_to_write_the_query_is_understood() {
    let (world, app) = shared();
    for encoding in [Encoding::Raw, Encoding::Percent, Encoding::Form] {
        for value in ["a,b", "presence-", "x@y;z", "100%25"] {
            let call = Call::get(&app, "/channels")
                .param("filter_by_prefix", value)
                .encoded(encoding);
            if value.contains('%') && matches!(encoding, Encoding::Raw) {
                continue;
            }
            let answer = call.send(world).await;
            assert_eq!(answer.status, 200, "{encoding:?} {value:?}: {}", answer.text());
        }
    }
    for encoding in [Encoding::Percent, Encoding::Form] {
        let call = Call::get(&app, "/channels").param("x", "a b+c").encoded(encoding);
        let answer = call.send(world).await;
        assert_eq!(answer.status, 200, "{encoding:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn unknown_parameters_are_signed_and_otherwise_ignored() {
    let (world, app) = shared();
    Call::get(&app, "/channels")
        .param("zzz", "1")
        .param("aaa", "")
        .send(world)
        .await
        .assert(200, "channels");
    let call = Call::get(&app, "/channels");
    let signature = call.signature();
    let smuggled = call.param("filter_by_prefix", "presence-");
    assert_eq!(smuggled.send_forged(world, Some(&signature)).await.status, 401);
}

#[tokio::test]
async fn names_are_lower_cased_before_they_are_sorted() {
    let (world, app) = shared();
    Call::get(&app, "/channels")
        .param("B_Second", "1")
        .param("a_first", "2")
        .send(world)
        .await
        .assert(200, "");
    let call = Call::get(&app, "/channels");
    let upper = Call {
        query: call
            .query
            .iter()
            .map(|(name, value)| (name.to_uppercase(), value.clone()))
            .collect(),
        ..call
    };
    // The signature is over the lower-cased names either way.
    assert_ne!(upper.send(world).await.status, 500);
}

#[tokio::test]
async fn a_repeated_array_parameter_keeps_its_order() {
    let (world, app) = shared();
    let call = Call::get(&app, "/channels")
        .also("things[]", "b")
        .also("things[]", "a")
        .encoded(Encoding::Raw);
    call.send(world).await.assert(200, "channels");
}

#[tokio::test]
async fn the_method_and_the_path_are_part_of_what_is_signed() {
    let (world, app) = shared();
    let get = Call::get(&app, "/channels");
    let signature = get.signature();
    let mut elsewhere = get.clone();
    elsewhere.path = app.path("/channels/a");
    assert_eq!(elsewhere.send_forged(world, Some(&signature)).await.status, 401);
    let post = Call {
        method: "POST".to_owned(),
        ..Call::get(&app, "/users/u/terminate_connections")
    };
    let as_get = Call {
        method: "GET".to_owned(),
        ..post.clone()
    };
    assert_eq!(
        post.send_forged(world, Some(&as_get.signature())).await.status,
        401
    );
}

#[tokio::test]
async fn a_percent_encoded_path_may_be_signed_raw_or_decoded() {
    let (world, app) = shared();
    let call = Call::get(&app, "/channels/a%40b%3Bc");
    call.send(world).await.assert(200, "\"occupied\":false");
    let decoded = Call {
        path: app.path("/channels/a@b;c"),
        ..call.clone()
    };
    call.send_forged(world, Some(&decoded.signature()))
        .await
        .assert(200, "\"occupied\":false");
    decoded.send(world).await.assert(200, "\"occupied\":false");
}

#[tokio::test]
async fn unknown_apps_and_wrong_signatures_tell_nothing_apart_to_one_without_a_key() {
    let (world, app) = shared();
    let known = Call::get(&app, "/channels")
        .param("auth_key", "nobody")
        .send(world)
        .await;
    let mut call = Call::get(&app, "/channels").param("auth_key", "nobody");
    call.path = "/apps/424242/channels".to_owned();
    let unknown = call.send(world).await;
    assert_eq!((known.status, known.text()), (unknown.status, unknown.text()));
}

#[tokio::test]
async fn the_example_of_the_documentation_is_signed_as_printed_there() {
    let app = App {
        id: "3".to_owned(),
        key: "278d425bdf160c739803".to_owned(),
        ..App::new(1)
    };
    let call = Call::post_bytes(
        &app,
        "/events",
        r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#,
    )
    .param("auth_timestamp", "1353088179")
    .signed_with("7ad3773142a6692b25b8");
    assert_eq!(
        call.signature(),
        "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
    );
    assert_eq!(
        hmac_sha256_hex("7ad3773142a6692b25b8", b"1234.1234:private-foobar"),
        "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    );
}
