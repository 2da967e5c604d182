//! Messages that mean harm, and messages that mean nothing.
//!
//! Whatever is sent: each message is answered or closes its own connection with a code, nobody else notices,
//! and the server finds nothing to log.

use crate::client::{Client, QUERY};
use crate::request::{Call, Http};
use crate::sign::{channel_auth, hmac_sha256_hex, user_auth};
use crate::websocket::{BINARY, CLOSE, CONTINUATION, Draft, PING, PONG, Seen, Socket, TEXT};
use crate::world::{App, World, shared};
use serde_json::{Value, json};
use std::time::Duration;

/// A JSON text for each type and each kind of trouble that a value can be.
const VALUES: [&str; 26] = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e999999",
    "-1e-999999",
    "123456789012345678901234567890",
    "\"\"",
    "\" \"",
    "\"text\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\u0000\"",
    "\"a\\nb\"",
    "\"\\uFEFF\"",
    "[]",
    "[[]]",
    "[null]",
    "{}",
    "{\"a\":1}",
    "{\"\":{}}",
    "\"{\"",
    "\"[]\"",
    "\"../../etc/passwd\"",
    "\"' OR 1=1 --\"",
];

/// Every field of every command with every value.
fn wrong_types() -> Vec<String> {
    let mut list = Vec::new();
    for value in VALUES {
        list.push(value.to_owned());
        list.push(format!(r#"{{"event":{value}}}"#));
        list.push(format!(r#"{{"event":{value},"channel":{value},"data":{value}}}"#));
        for event in [
            "pusher:subscribe",
            "pusher:unsubscribe",
            "pusher:signin",
            "pusher:ping",
            "client-x",
        ] {
            list.push(format!(r#"{{"event":"{event}","data":{value}}}"#));
            list.push(format!(
                r#"{{"event":"{event}","channel":{value},"data":{value}}}"#
            ));
        }
        for field in ["channel", "auth", "channel_data"] {
            list.push(format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"presence-a","auth":"k:s","{field}":{value}}}}}"#
            ));
        }
        for field in ["auth", "user_data"] {
            list.push(format!(
                r#"{{"event":"pusher:signin","data":{{"auth":"k:s","{field}":{value}}}}}"#
            ));
        }
    }
    list
}

/// Deep, long, and twofold.
fn bombs() -> Vec<String> {
    let mut list = Vec::new();
    for depth in [100, 127, 128, 129, 1000, 10_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let open = open.repeat(depth);
            list.push(open.clone());
            list.push(deep.clone());
            list.push(format!(r#"{{"event":"pusher:ping","data":{deep}}}"#));
            list.push(format!(
                r#"{{"event":"client-x","channel":"private-a","data":{deep}}}"#
            ));
            list.push(format!(
                r#"{{"event":"pusher:subscribe","data":{{"channel":"pub","x":{deep}}}}}"#
            ));
            let text = json!(deep);
            list.push(format!(r#"{{"event":"pusher:subscribe","data":{text}}}"#));
        }
    }
    list.retain(|text| text.len() <= 65_536);
    for length in [201, 1000, 10_000, 60_000] {
        let long = "x".repeat(length);
        list.push(format!(r#"{{"event":"{long}"}}"#));
        list.push(format!(
            r#"{{"event":"client-{long}","channel":"private-a","data":1}}"#
        ));
        list.push(format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{long}"}}}}"#
        ));
        list.push(format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"private-{long}","auth":"{long}"}}}}"#
        ));
        list.push(format!(
            r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{long}"}}}}"#
        ));
        list.push(format!(
            r#"{{"event":"pusher:signin","data":{{"auth":"{long}","user_data":"{long}"}}}}"#
        ));
        list.push(format!(r#"{{"event":"pusher:ping","n":{}}}"#, "9".repeat(length)));
        list.push(format!(
            r#"{{"event":"pusher:ping","n":0.{}e-{}}}"#,
            "9".repeat(length / 2),
            "9".repeat(9)
        ));
        list.push(format!(r#"{{"{long}":1}}"#));
        list.push(format!("\"{}\"", "\\u0000".repeat(length / 6)));
        list.push(" ".repeat(length));
        list.push(format!("[{}]", vec!["0"; length / 2].join(",")));
    }
    for twice in [
        r#"{"event":"pusher:ping","event":"pusher:subscribe","data":{"channel":"a"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"a"},"data":{"channel":"b"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"c","channel":"private-c"}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"private-d","channel":"d","auth":"a","auth":"b"}}"#,
        r#"{"event":"client-x","channel":"private-a","channel":"private-b","data":1,"data":2}"#,
        r#"{"event":"pusher:ping","EVENT":"pusher:subscribe","\u0065vent":"x"}"#,
        r#"{"__proto__":{"event":"pusher:ping"},"constructor":1,"event":"pusher:ping"}"#,
        "{\"event\":\"pusher:ping\"}\0",
        "\u{feff}{\"event\":\"pusher:ping\"}",
        "{\"event\":\"pusher:ping\"}{\"event\":\"pusher:ping\"}",
        "{\"event\":\"pusher:ping\",}",
        "{\"event\" \"pusher:ping\"}",
        "\u{202e}{\"event\":\"pusher:ping\"}",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ] {
        list.push(twice.to_owned());
    }
    list
}

/// Sends one message and insists that the server stays responsive or closes with a code that is not 1011.
/// Returns whether the connection is still open.
async fn survives(client: &mut Client, what: &str, bytes: &[u8]) -> bool {
    client.socket.send(bytes).await;
    client
        .socket
        .send_frame(&Draft::text(r#"{"event":"pusher:ping","data":{}}"#))
        .await;
    loop {
        match client.socket.next().await {
            Seen::Frame(frame) if frame.opcode == TEXT => {
                if frame.text().contains("\"event\":\"pusher:pong\"") {
                    return true;
                }
            }
            Seen::Frame(frame) if frame.opcode == CLOSE => {
                let (code, reason) = frame.close().expect("this server always gives a code");
                assert_ne!(code, 1011, "{what}: {reason}");
                client.socket.send_frame(&Draft::new(CLOSE, &frame.payload)).await;
                assert_eq!(client.socket.next().await, Seen::End, "{what}");
                return false;
            }
            Seen::Frame(_) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// A client that has nothing to do with it still hears what is published.
async fn control(world: &World, client: &mut Client) {
    world.publish(&client.app, "control", "still-there", "x").await;
    client.expect_on("control", "still-there").await;
    world.assert_calm();
}

async fn survive_all(world: &World, app: &App, messages: &[String]) {
    let mut bystander = Client::connect(world, app).await;
    bystander.subscribe("control").await;
    let mut client = Client::connect(world, app).await;
    for (number, message) in messages.iter().enumerate() {
        let what = format!("{message:.120}");
        if !survives(&mut client, &what, &Draft::text(message).bytes()).await {
            client = Client::connect(world, app).await;
        } else if number % 7 == 6 {
            // An answered pusher:ping of an earlier message must not stand for that of a later one for ever.
            client.leave().await;
            client = Client::connect(world, app).await;
        }
        if number % 50 == 0 {
            control(world, &mut bystander).await;
        }
    }
    control(world, &mut bystander).await;
}

#[tokio::test]
async fn three_hundred_messages_of_wrong_types_and_bombs_harm_nobody() {
    let (world, app) = shared();
    let mut messages = wrong_types();
    messages.extend(bombs());
    assert!(messages.len() >= 300, "only {}", messages.len());
    survive_all(world, &app, &messages).await;
}

#[tokio::test]
async fn signed_json_is_not_trusted_further_than_it_is_signed() {
    let (world, app) = shared();
    let mut client = Client::connect(world, &app).await;
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let objects = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    for data in [
        format!(r#"{{"user_id":"u","user_info":{{"x":{deep}}}}}"#),
        format!(r#"{{"user_id":"u","user_info":{objects}}}"#),
        format!(r#"{{"user_id":{deep}}}"#),
        r#"{"user_id":1e999}"#.to_owned(),
        r#"{"user_id":123456789012345678901234567890123456789012345678901234567890}"#.to_owned(),
        r#"{"user_id":"\ud800"}"#.to_owned(),
        r#"{"user_id":"a","user_id":"b"}"#.to_owned(),
        format!(r#"{{"user_id":"{}"}}"#, "u".repeat(50_000)),
    ] {
        client.ask("presence-a", Some(&data)).await;
        client.send(json!({ "event": "pusher:ping" })).await;
        while client.next().await.name != "pusher:pong" {}
        client.unsubscribe("presence-a").await;
        client.send(json!({ "event": "pusher:ping" })).await;
        while client.next().await.name != "pusher:pong" {}
    }
    for data in [
        format!(r#"{{"id":"u","user_info":{objects}}}"#),
        format!(r#"{{"id":"u","watchlist":{deep}}}"#),
        r#"{"id":"u","watchlist":[1,null,{},"\u0000","a b"]}"#.to_owned(),
        r#"{"id":"u","id":"v"}"#.to_owned(),
    ] {
        let mut client = Client::connect(world, &app).await;
        client.ask_sign_in(&data).await;
        let answer = client.next().await;
        assert!(
            ["pusher:error", "pusher:signin_success"].contains(&answer.name.as_str()),
            "{}",
            answer.raw
        );
    }
    world.assert_calm();
}

#[tokio::test]
async fn no_forged_signature_opens_a_channel() {
    let (world, app) = shared();
    let (_, other) = shared();
    let neighbour = Client::connect(world, &app).await;
    let mut client = Client::connect(world, &app).await;
    let id = client.socket_id.clone();
    let sign = |text: String| format!("{}:{}", app.key, hmac_sha256_hex(&app.secret, text.as_bytes()));
    let right = channel_auth(&app, &id, "private-target", None);
    let mut forged = vec![
        channel_auth(&app, &neighbour.socket_id, "private-target", None),
        channel_auth(&app, &id, "private-other", None),
        channel_auth(&app, &id, "private-target", Some("")),
        channel_auth(&app, &id, "private-target", Some("{}")),
        channel_auth(&other, &id, "private-target", None),
        user_auth(&app, &id, "private-target"),
        sign(format!("{id}:private-targe")),
        sign(format!("{id}:private-target ")),
        sign(format!("{id}:private-target\n")),
        sign(format!("{id}::private-target")),
        sign(format!("{id}0:private-target")),
        sign(":private-target".to_owned()),
        sign(id.clone()),
        sign(String::new()),
        right.to_uppercase(),
        right.replace(':', ""),
        right.replace(':', "::"),
        format!(" {right}"),
        format!("{right} "),
        format!("{right}\0"),
        right[..right.len() - 1].to_owned(),
        format!("{}:{}", app.key, app.secret),
        format!("{}:null", app.key),
    ];
    // Each hexadecimal digit replaced once.
    let start = app.key.len() + 1;
    for place in start..right.len() {
        let mut bytes = right.clone().into_bytes();
        bytes[place] = if bytes[place] == b'f' { b'e' } else { b'f' };
        forged.push(String::from_utf8(bytes).expect("still ASCII"));
    }
    for auth in &forged {
        client.ask_with_auth("private-target", auth).await;
        let error = client.next().await;
        assert_eq!(error.name, "pusher:error", "{auth:?} was let in");
        assert!(
            !error.raw.contains(&right[start..]) || auth.contains(&right[start..]),
            "the digest leaks"
        );
        client.expect("pusher:subscription_error").await;
    }
    world.publish(&app, "private-target", "secret", "x").await;
    client.expect_quiet().await;
    client.ask_with_auth("private-target", &right).await;
    client.expect("pusher_internal:subscription_succeeded").await;
    world.assert_calm();
}

/// A small deterministic generator (xorshift64*), so that a failing round can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits fit") % sides
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).expect("below 256")
    }

    /// Changes, removes, doubles or inserts a few bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            if bytes.is_empty() {
                bytes.push(self.byte());
            }
            let place = self.roll(bytes.len());
            match self.roll(6) {
                0 => bytes[place] = self.byte(),
                1 => bytes[place] ^= 1 << self.roll(8),
                2 => drop(bytes.remove(place)),
                3 => bytes.insert(place, self.byte()),
                4 => bytes.truncate(place),
                _ => {
                    let end = (place + self.roll(20)).min(bytes.len());
                    let piece = bytes[place..end].to_vec();
                    bytes.splice(place..place, piece);
                }
            }
        }
    }
}

fn sound_messages(app: &App) -> Vec<String> {
    let auth = channel_auth(app, "1.1", "private-a", None);
    [
        json!({ "event": "pusher:ping", "data": {} }),
        json!({ "event": "pusher:pong", "data": {} }),
        json!({ "event": "pusher:subscribe", "data": { "auth": "", "channel": "pub" } }),
        json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": "private-a" } }),
        json!({ "event": "pusher:subscribe", "data": { "auth": auth, "channel": "presence-a", "channel_data": "{\"user_id\":7,\"user_info\":{\"a\":[1,2.5e3,null]}}" } }),
        json!({ "event": "pusher:unsubscribe", "data": { "channel": "pub" } }),
        json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": "{\"id\":\"u1\",\"watchlist\":[\"a\"]}" } }),
        json!({ "event": "client-x", "channel": "private-a", "data": { "text": "h\u{e9}llo \u{1f600}" } }),
    ]
    .iter()
    .map(Value::to_string)
    .collect()
}

#[tokio::test]
async fn three_thousand_mutated_messages_harm_nobody() {
    let (world, app) = shared();
    let sound = sound_messages(&app);
    let mut dice = Dice(0x5eed_0001);
    let mut bystander = Client::connect(world, &app).await;
    bystander.subscribe("control").await;
    let mut client = Client::connect(world, &app).await;
    for round in 0..3000 {
        let mut bytes = sound[dice.roll(sound.len())].clone().into_bytes();
        dice.mutate(&mut bytes);
        let what = format!("round {round}: {:?}", String::from_utf8_lossy(&bytes));
        if !survives(&mut client, &what, &Draft::text(&bytes).bytes()).await {
            client = Client::connect(world, &app).await;
        }
        if round % 500 == 499 {
            control(world, &mut bystander).await;
        }
    }
}

#[tokio::test]
async fn three_thousand_mutated_frames_harm_nobody() {
    let (world, app) = shared();
    let sound = sound_messages(&app);
    let mut dice = Dice(0x5eed_0002);
    let mut bystander = Client::connect(world, &app).await;
    bystander.subscribe("control").await;
    let path = format!("/app/{}?{QUERY}", app.key);
    for batch in 0..60 {
        let rounds = (0..50).map(|number| {
            let mut bytes = Vec::new();
            for _ in 0..=dice.roll(3) {
                let message = &sound[dice.roll(sound.len())];
                let draft = match dice.roll(8) {
                    0 => Draft::ping(&message[..message.len().min(125)]),
                    1 => Draft::new(PONG, "x"),
                    2 => Draft::close(1000, "bye"),
                    3 => Draft::new(BINARY, message),
                    4 => Draft::text(&message[..10]).more(),
                    5 => Draft::new(CONTINUATION, &message[10..]),
                    _ => Draft::text(message),
                };
                bytes.extend(draft.bytes());
            }
            dice.mutate(&mut bytes);
            let (path, round) = (&path, batch * 50 + number);
            async move {
                let mut socket = Socket::open(world.address, path).await;
                socket.send(&bytes).await;
                // A frame may lack its end: without ours the server would rightly wait for it.
                socket.half_close().await;
                loop {
                    match socket.next_within(Duration::from_secs(10)).await {
                        Seen::Frame(frame) if frame.opcode == CLOSE => {
                            let code = frame.close().map(|(code, _)| code);
                            assert_ne!(code, Some(1011), "round {round}: {bytes:?}");
                        }
                        Seen::Frame(frame) => assert!([TEXT, PING, PONG].contains(&frame.opcode)),
                        Seen::End => break,
                        other => panic!("round {round}: {other:?} after {bytes:?}"),
                    }
                }
            }
        });
        futures_util::future::join_all(rounds).await;
        if batch % 10 == 9 {
            control(world, &mut bystander).await;
        }
    }
}

#[tokio::test]
async fn mutated_requests_harm_nobody() {
    let (world, app) = shared();
    let mut dice = Dice(0x5eed_0003);
    let mut bystander = Client::connect(world, &app).await;
    bystander.subscribe("control").await;
    let event = json!({ "name": "e", "channels": ["elsewhere"], "data": "x" });
    for round in 0..1000 {
        let call = match dice.roll(3) {
            0 => Call::get(&app, "/channels").param("info", "subscription_count"),
            1 => Call::get(&app, "/channels/presence-a/users"),
            _ => Call::post(&app, "/events", &event),
        };
        let mut bytes = call.bytes();
        dice.mutate(&mut bytes);
        let mut http = Http::open(world.address).await;
        http.send(&bytes).await;
        http.half_close().await;
        assert!(
            http.ends_within(Duration::from_secs(10)).await,
            "round {round} hangs: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        if round % 250 == 249 {
            control(world, &mut bystander).await;
        }
    }
}
