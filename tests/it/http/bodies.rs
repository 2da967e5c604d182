//! Bodies that lie about their length, never end, or are too large; and the limits on rates.

use crate::request::{Call, Http, exchange};
use crate::world::{App, DEADLINE, World, shared};
use serde_json::json;

/// The limit on a whole body.
const MAX_BODY: usize = 2 * 1024 * 1024;

async fn still_works(world: &World, app: &App) {
    world.publish(app, "pub", "e", "x").await;
    world.assert_calm();
}

#[tokio::test]
async fn a_body_over_2_mib_is_413() {
    let (world, app) = shared();
    let call = Call::post_bytes(&app, "/events", vec![b' '; MAX_BODY + 1]);
    call.send(world).await.assert(413, "");
    still_works(world, &app).await;
}

#[tokio::test]
async fn a_claimed_length_is_refused_before_the_body_comes() {
    let (world, app) = shared();
    for length in ["2097153", "99999999999", "18446744073709551615"] {
        let call = Call::post_bytes(&app, "/events", "x").header("Content-Length", length);
        let answer = exchange(world.address, &call.bytes()).await;
        assert!([400, 413].contains(&answer.status), "{length}: {}", answer.status);
    }
    still_works(world, &app).await;
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_with_413() {
    let (world, app) = shared();
    let mut call = Call::post_bytes(&app, "/events", "x").header("Transfer-Encoding", "chunked");
    call.body.clear();
    let mut http = Http::open(world.address).await;
    http.send(&call.bytes()).await;
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..64 {
        if !http.send(&chunk).await {
            break;
        }
    }
    // The answer may be lost when the server has already hung up on a sender that does not stop.
    if let Some(answer) = http.answer().await {
        assert_eq!(answer.status, 413);
    }
    still_works(world, &app).await;
}

#[tokio::test]
async fn an_announced_chunked_body_that_is_too_large_gets_its_413() {
    let (world, app) = shared();
    let mut call = Call::post_bytes(&app, "/events", "x").header("Transfer-Encoding", "chunked");
    call.body.clear();
    let mut bytes = call.bytes();
    bytes.extend(format!("{:x}\r\n", MAX_BODY + 1).into_bytes());
    bytes.extend(vec![b' '; MAX_BODY + 1]);
    bytes.extend(b"\r\n0\r\n\r\n");
    let mut http = Http::open(world.address).await;
    http.send(&bytes).await;
    http.answer().await.expect("an answer").assert(413, "");
    still_works(world, &app).await;
}

#[tokio::test]
async fn broken_framing_of_a_request_is_400_or_a_closed_connection() {
    let (world, app) = shared();
    for bytes in [
        &b"GET / HTTP/9.9\r\n\r\n"[..],
        b"GET  HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n\r\nx\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /apps/1/events HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /apps/1/events HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /apps/1/events HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"POST /apps/1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /apps/1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header line\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\0B: c\r\n\r\n",
    ] {
        let mut http = Http::open(world.address).await;
        http.send(bytes).await;
        http.half_close().await;
        if let Some(answer) = http.answer().await {
            assert!(
                (400..500).contains(&answer.status),
                "{:?}: {}",
                String::from_utf8_lossy(bytes),
                answer.status
            );
        }
        assert!(
            http.ends_within(DEADLINE).await,
            "{:?} keeps its connection",
            String::from_utf8_lossy(bytes)
        );
    }
    still_works(world, &app).await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let (world, app) = shared();
    let mut http = Http::open(world.address).await;
    http.send(b"GET / HTTP/1.1\r\n").await;
    let header = format!("X-Filler: {}\r\n", "x".repeat(8000));
    for _ in 0..200 {
        if !http.send(header.as_bytes()).await {
            break;
        }
    }
    if let Some(answer) = http.answer().await {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    still_works(world, &app).await;
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let (world, app) = shared();
    let mut call = Call::post(
        &app,
        "/events",
        &json!({ "name": "e", "channels": ["pub"], "data": "x" }),
    )
    .header("Expect", "100-continue");
    let body = std::mem::take(&mut call.body);
    let call = call.header("Content-Length", &body.len().to_string());
    let mut http = Http::open(world.address).await;
    http.send(&call.bytes()).await;
    assert_eq!(http.answer().await.expect("an interim answer").status, 100);
    http.send(&body).await;
    http.answer().await.expect("the answer").assert(200, "{}");
}

#[tokio::test]
async fn publishes_over_the_limit_are_429_with_retry_after() {
    let app = App::new(1).limit("publishes_per_second = 5");
    let world = World::with_app(&app);
    let event = json!({ "name": "e", "channels": ["pub"], "data": "x" });
    let mut refused = None;
    for _ in 0..30 {
        let answer = Call::post(&app, "/events", &event).send(&world).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let refused = refused.expect("the limit is reached");
    let wait: u64 = refused
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("seconds");
    assert!((1..=5).contains(&wait), "{wait}");
    // Each event of a batch counts.
    let batch = json!({ "batch": vec![json!({ "name": "e", "channel": "pub", "data": "x" }); 10] });
    Call::post(&app, "/batch_events", &batch)
        .send(&world)
        .await
        .assert(429, "");
    world.get(&app, "/channels", &[]).await.assert(200, "channels");
    crate::world::eventually("publishing works again", || async {
        (Call::post(&app, "/events", &event).send(&world).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reads_over_the_limit_are_429_with_retry_after_and_publishes_go_on() {
    let app = App::new(1).limit("reads_per_second = 5");
    let world = World::with_app(&app);
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = world.get(&app, "/channels", &[]).await;
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
        }
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    world.publish(&app, "pub", "e", "x").await;
}

#[tokio::test]
async fn the_size_of_data_is_a_setting_of_the_app() {
    let app = App::new(1).limit("payload_bytes = 20");
    let world = World::with_app(&app);
    world.publish(&app, "pub", "e", &"d".repeat(20)).await;
    let body = json!({ "name": "e", "channels": ["pub"], "data": "d".repeat(21) });
    Call::post(&app, "/events", &body)
        .send(&world)
        .await
        .assert(413, "(20 bytes)");
}

#[tokio::test]
async fn a_compressed_body_is_not_inflated() {
    let (world, app) = shared();
    // What gzip makes of a few thousand spaces, and of nothing.
    for body in [
        &b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xed\xc1\x01\r\0\0\0\xc2\xa0\xf7Om\x0e7\xa0"[..],
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    ] {
        let call = Call::post_bytes(&app, "/events", body).header("Content-Encoding", "gzip");
        let answer = call.send(world).await;
        assert!([400, 415].contains(&answer.status), "{}", answer.status);
    }
    still_works(world, &app).await;
}

#[tokio::test]
async fn a_request_whose_end_is_ambiguous_is_not_taken_for_two() {
    let (world, app) = shared();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 0, 5",
        "Content-Length: +5",
    ] {
        let bytes = format!("POST /healthz HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}");
        let mut http = Http::open(world.address).await;
        http.send(bytes.as_bytes()).await;
        http.half_close().await;
        let answer = http
            .answer()
            .await
            .unwrap_or_else(|| panic!("{framing}: no answer"));
        assert_eq!(answer.status, 400, "{framing}");
        assert!(
            http.answer().await.is_none(),
            "{framing}: what follows is not a request"
        );
    }
    still_works(world, &app).await;
}
