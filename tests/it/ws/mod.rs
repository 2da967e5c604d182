//! RFC 6455 on the Pusher endpoint, in the categories of the Autobahn test suite.
//!
//! A case is some bytes and what must come of them. Every case that leaves the connection open ends with
//! a Pusher ping, whose answer shows that the connection still works.

mod handshake;
mod rfc6455_close;
mod rfc6455_control;
mod rfc6455_fragments;
mod rfc6455_framing;
mod rfc6455_limits;
mod rfc6455_utf8;

use crate::client::QUERY;
use crate::websocket::{CLOSE, Draft, Frame, PONG, Seen, Socket, TEXT};
use crate::world::{App, World, shared};
use std::time::Duration;

/// What the server must do with the bytes of a case.
#[derive(Clone, Debug)]
enum Expect {
    /// A WebSocket pong for each of these payloads, in this order.
    Pongs(Vec<Vec<u8>>),
    /// This many answers to Pusher pings.
    PusherPongs(usize),
    /// This many `pusher:error` messages.
    Errors(usize),
    /// Nothing at all.
    Nothing,
    /// A close frame with one of these codes, and the end of the connection once it was answered.
    Close(&'static [u16]),
    /// The case itself closes; the answer has one of these codes, and the connection ends at once.
    Closed(&'static [u16]),
}

/// One row of a table.
struct Case {
    name: String,
    /// Each piece is sent by a write of its own, unless the case itself closes.
    pieces: Vec<Vec<u8>>,
    expect: Expect,
}

fn case(name: impl Into<String>, drafts: &[Draft], expect: Expect) -> Case {
    Case {
        name: name.into(),
        pieces: drafts.iter().map(Draft::bytes).collect(),
        expect,
    }
}

fn raw(name: impl Into<String>, pieces: Vec<Vec<u8>>, expect: Expect) -> Case {
    Case {
        name: name.into(),
        pieces,
        expect,
    }
}

const PUSHER_PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

/// A Pusher ping of exactly this many bytes; 33 is the least.
fn ping_of(length: usize) -> String {
    let bare = PUSHER_PING.len();
    let with_member = PUSHER_PING.len() + r#","p":"""#.len();
    if length < with_member {
        return format!("{PUSHER_PING}{}", " ".repeat(length - bare));
    }
    format!(
        r#"{{"event":"pusher:ping","data":{{}},"p":"{}"}}"#,
        "x".repeat(length - with_member)
    )
}

/// Runs the table on connections of one app and reports every row that fails, not only the first.
async fn run(cases: Vec<Case>) {
    let (world, app) = shared();
    let mut failures = Vec::new();
    let total = cases.len();
    let mut queue = cases.into_iter();
    loop {
        // A few at a time: a case that the server never answers then costs its deadline once, not in a row.
        let some: Vec<Case> = queue.by_ref().take(16).collect();
        if some.is_empty() {
            break;
        }
        let results = some.iter().map(|case| check(world, &app, case));
        failures.extend(
            futures_util::future::join_all(results)
                .await
                .into_iter()
                .filter_map(Result::err),
        );
    }
    assert!(
        failures.is_empty(),
        "{} of {total} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
    world.assert_calm();
}

async fn established(world: &World, app: &App) -> Socket {
    let mut socket = Socket::open(world.address, &format!("/app/{}?{QUERY}", app.key)).await;
    let Seen::Frame(hello) = socket.next().await else {
        panic!("nothing after the handshake")
    };
    assert!(
        hello.text().contains("pusher:connection_established"),
        "{}",
        hello.text()
    );
    socket
}

async fn check(world: &World, app: &App, case: &Case) -> Result<(), String> {
    let mut socket = established(world, app).await;
    if matches!(case.expect, Expect::Closed(_)) {
        // In one write: the server ends the connection, and what comes after that resets it.
        socket.send(&case.pieces.concat()).await;
    } else {
        for piece in &case.pieces {
            socket.send(piece).await;
        }
    }
    let mut want: Vec<Want<'_>> = match &case.expect {
        Expect::Pongs(payloads) => payloads.iter().map(|payload| Want::Pong(payload)).collect(),
        Expect::PusherPongs(count) => vec![Want::Message("pusher:pong"); *count],
        Expect::Errors(count) => vec![Want::Message("pusher:error"); *count],
        Expect::Nothing => Vec::new(),
        Expect::Close(codes) => return closes(&mut socket, &case.name, codes, true).await,
        Expect::Closed(codes) => return closes(&mut socket, &case.name, codes, false).await,
    };
    want.push(Want::Message("pusher:pong"));
    socket.send_frame(&Draft::text(PUSHER_PING)).await;
    for want in want {
        let seen = socket.next_within(Duration::from_secs(5)).await;
        if !want.is_met_by(&seen) {
            return Err(format!("{}: expected {want:?}, saw {seen:?}", case.name));
        }
    }
    Ok(())
}

/// Messages and pongs may precede the close frame; nothing may follow it.
async fn closes(socket: &mut Socket, name: &str, codes: &[u16], answer: bool) -> Result<(), String> {
    loop {
        match socket.next_within(Duration::from_secs(5)).await {
            Seen::Frame(Frame {
                opcode: TEXT | PONG, ..
            }) => {}
            Seen::Frame(frame) if frame.opcode == CLOSE => {
                let code = frame.close().map_or(1005, |(code, _)| code);
                if !codes.contains(&code) {
                    return Err(format!("{name}: expected close {codes:?}, got {code}"));
                }
                if answer {
                    socket.send_frame(&Draft::new(CLOSE, &frame.payload)).await;
                }
                let end = socket.next_within(Duration::from_secs(5)).await;
                return if end == Seen::End {
                    Ok(())
                } else {
                    Err(format!("{name}: closed with {code}, but then {end:?}"))
                };
            }
            other => return Err(format!("{name}: expected close {codes:?}, saw {other:?}")),
        }
    }
}

#[derive(Clone, Debug)]
enum Want<'case> {
    Pong(&'case [u8]),
    Message(&'static str),
}

impl Want<'_> {
    fn is_met_by(&self, seen: &Seen) -> bool {
        match (self, seen) {
            (Self::Pong(payload), Seen::Frame(frame)) => frame.opcode == PONG && frame.payload == *payload,
            (Self::Message(name), Seen::Frame(frame)) => {
                frame.opcode == TEXT && frame.text().contains(&format!("\"event\":\"{name}\""))
            }
            _ => false,
        }
    }
}
