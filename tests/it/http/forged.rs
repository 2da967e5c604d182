//! Forgeries: each carries a mark, somebody listens, and no mark may ever arrive.

use crate::client::Client;
use crate::request::{Call, Http};
use crate::sign::{hmac_sha256_hex, md5_hex, unix_now};
use crate::world::{App, shared};
use serde_json::json;

struct Forgery {
    what: String,
    bytes: Vec<u8>,
}

/// Every way to forge a publish that we know, each applied to both endpoints.
fn forgeries(app: &App, other: &App) -> Vec<Forgery> {
    let mut list = Vec::new();
    for endpoint in ["/events", "/batch_events"] {
        let call = |mark: &str| {
            let event = json!({ "name": mark, "channel": "pub", "data": "forged" });
            if endpoint == "/events" {
                Call::post(app, endpoint, &event)
            } else {
                Call::post(app, endpoint, &json!({ "batch": [event] }))
            }
        };
        let mut add = |what: String, call: &Call, signature: Option<&str>| {
            list.push(Forgery {
                what: format!("{endpoint}: {what}"),
                bytes: call.bytes_with(signature),
            });
        };
        let good = call("forged");
        let right = good.signature();

        // A right signature with one character changed, at every second place.
        for place in (0..64).step_by(2) {
            let mut digest = right.clone().into_bytes();
            digest[place] = if digest[place] == b'0' { b'1' } else { b'0' };
            let digest = String::from_utf8(digest).expect("still ASCII");
            add(
                format!("digit {place} of the signature changed"),
                &good,
                Some(&digest),
            );
        }
        for (what, signature) in [
            ("empty signature", String::new()),
            ("signature cut short", right[..32].to_owned()),
            ("signature doubled", format!("{right}{right}")),
            ("signature with a NUL", format!("{right}%00")),
            ("signature with a space", format!("{right}%20")),
            ("upper-case signature", right.to_uppercase()),
            (
                "signature of the body alone",
                hmac_sha256_hex(&app.secret, &good.body),
            ),
            (
                "MD5 in place of the signature",
                md5_hex(good.string_to_sign().as_bytes()),
            ),
            (
                "signed with the key",
                good.clone().signed_with(&app.key).signature(),
            ),
            (
                "signed with the id",
                good.clone().signed_with(&app.id).signature(),
            ),
            ("signed with nothing", good.clone().signed_with("").signature()),
            (
                "signed with another app's secret",
                good.clone().signed_with(&other.secret).signature(),
            ),
            (
                "signed with the secret and a space",
                good.clone().signed_with(&format!("{} ", app.secret)).signature(),
            ),
        ] {
            add(what.to_owned(), &good, Some(&signature));
        }
        add("no signature".to_owned(), &good, None);

        // The body, or a parameter, is not the one that was signed.
        let mut swapped = call("other");
        let signature = swapped.signature();
        swapped.body.clone_from(&good.body);
        add("another body".to_owned(), &swapped, Some(&signature));
        let rehashed = good.clone().param("body_md5", &md5_hex(b"another body"));
        add(
            "body_md5 adapted after signing".to_owned(),
            &good,
            Some(&call("other").signature()),
        );
        add(
            "body_md5 of another body".to_owned(),
            &rehashed,
            Some(&rehashed.signature()),
        );
        let bare = good.clone().without("body_md5");
        add(
            "no body_md5, properly signed".to_owned(),
            &bare,
            Some(&bare.signature()),
        );
        let twice = good.clone().also("body_md5", &md5_hex(b"x"));
        add("two body_md5".to_owned(), &twice, Some(&right));
        let extra = good.clone().also("info", "user_count");
        add("a parameter added".to_owned(), &extra, Some(&right));
        for (name, value) in [
            ("auth_version", "1.1"),
            ("auth_key", other.key.as_str()),
            ("auth_timestamp", "0"),
        ] {
            let changed = good.clone().param(name, value);
            add(format!("{name} changed, old signature"), &changed, Some(&right));
            add(
                format!("{name} changed, new signature"),
                &changed,
                Some(&changed.signature()),
            );
        }
        for offset in [-86_400, -3600, -601, 601, 3600, 86_400] {
            let stale = good
                .clone()
                .param("auth_timestamp", &(unix_now() + offset).to_string());
            add(format!("{offset} seconds off"), &stale, Some(&stale.signature()));
            add(
                format!("{offset} seconds off, old signature"),
                &stale,
                Some(&right),
            );
        }
        // The right signature for something else.
        for (method, path) in [
            ("GET", app.path(endpoint)),
            ("PUT", app.path(endpoint)),
            ("POST", app.path("/channels")),
            ("POST", other.path(endpoint)),
            ("POST", format!("{}/", app.path(endpoint))),
            ("POST", endpoint.to_owned()),
        ] {
            let elsewhere = Call {
                method: method.to_owned(),
                path: path.clone(),
                ..good.clone()
            };
            add(
                format!("signed for {method} {path}"),
                &good,
                Some(&elsewhere.signature()),
            );
        }
        let foreign = Call {
            path: other.path(endpoint),
            ..good.clone()
        };
        add(
            "our key on another app's path".to_owned(),
            &foreign,
            Some(&foreign.signature()),
        );
    }
    list
}

#[tokio::test]
async fn no_forged_event_is_ever_delivered() {
    let (world, app) = shared();
    let (_, other) = shared();
    let mut ours = Client::connect(world, &app).await;
    let mut theirs = Client::connect(world, &other).await;
    ours.subscribe("pub").await;
    theirs.subscribe("pub").await;
    let list = forgeries(&app, &other);
    assert!(list.len() >= 150, "only {} forgeries", list.len());
    let mut http = Http::open(world.address).await;
    for Forgery { what, bytes } in &list {
        // All on one connection: a refusal must not confuse the requests after it.
        http.send(bytes).await;
        let answer = http.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        if answer.header("connection") == Some("close") {
            http = Http::open(world.address).await;
        }
    }
    for client in [&mut ours, &mut theirs] {
        world.publish(&client.app, "pub", "marker", "x").await;
        client.expect_on("pub", "marker").await;
    }
    world.assert_calm();
}
