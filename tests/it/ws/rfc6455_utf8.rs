//! Autobahn 6: UTF-8.

use super::{Expect, case, run};
use crate::websocket::{CONTINUATION, Draft};

/// A Pusher ping that holds these bytes inside a JSON string.
fn around(bytes: &[u8]) -> Vec<u8> {
    [br#"{"event":"pusher:ping","data":{},"p":""#, bytes, br#""}"#].concat()
}

const VALID: &[&str] = &[
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{fff}",
    "\u{1000}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{fdd0}",
    "\u{10000}",
    "\u{1fffe}",
    "\u{1ffff}",
    "\u{3fffd}",
    "\u{fffff}",
    "\u{100000}",
    "\u{10fffe}",
    "\u{10ffff}",
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\u{feff}",
    "日本語",
    "👩‍👩‍👧‍👦",
    "\u{7f}",
];

const INVALID: &[(&str, &[u8])] = &[
    ("lone continuation", b"\x80"),
    ("last continuation", b"\xbf"),
    ("two continuations", b"\x80\xbf"),
    ("six continuations", b"\x80\xbf\x80\xbf\x80\xbf"),
    ("lone start of two", b"\xc2 "),
    ("lone start of three", b"\xe0 "),
    ("lone start of four", b"\xf0 "),
    ("two of three bytes", b"\xe1\x80 "),
    ("three of four bytes", b"\xf1\x80\x80 "),
    ("impossible fe", b"\xfe"),
    ("impossible ff", b"\xff"),
    ("impossible fe fe ff ff", b"\xfe\xfe\xff\xff"),
    ("overlong slash in two", b"\xc0\xaf"),
    ("overlong slash in three", b"\xe0\x80\xaf"),
    ("overlong slash in four", b"\xf0\x80\x80\xaf"),
    ("overlong slash in five", b"\xf8\x80\x80\x80\xaf"),
    ("overlong slash in six", b"\xfc\x80\x80\x80\x80\xaf"),
    ("largest overlong of two", b"\xc1\xbf"),
    ("largest overlong of three", b"\xe0\x9f\xbf"),
    ("largest overlong of four", b"\xf0\x8f\xbf\xbf"),
    ("overlong NUL in two", b"\xc0\x80"),
    ("overlong NUL in three", b"\xe0\x80\x80"),
    ("first high surrogate", b"\xed\xa0\x80"),
    ("last high surrogate", b"\xed\xaf\xbf"),
    ("first low surrogate", b"\xed\xb0\x80"),
    ("last low surrogate", b"\xed\xbf\xbf"),
    ("surrogate pair", b"\xed\xa0\x80\xed\xb0\x80"),
    ("beyond the last code point", b"\xf4\x90\x80\x80"),
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    (
        "valid, then broken",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ),
];

#[tokio::test]
async fn valid_utf8_is_accepted_whole_and_in_fragments() {
    let mut cases = Vec::new();
    for text in VALID {
        let message = around(text.as_bytes());
        cases.push(case(
            format!("{text:?} whole"),
            &[Draft::text(&message)],
            Expect::PusherPongs(1),
        ));
        // The cut goes right through the first character.
        let (left, right) = message.split_at(around(b"").len() - 2 + 1);
        let drafts = [Draft::text(left).more(), Draft::new(CONTINUATION, right)];
        cases.push(case(
            format!("{text:?} cut through"),
            &drafts,
            Expect::PusherPongs(1),
        ));
    }
    let single: Vec<Draft> = around("κόσμε👩‍👩".as_bytes())
        .chunks(1)
        .enumerate()
        .map(|(index, byte)| {
            if index == 0 {
                Draft::text(byte)
            } else {
                Draft::new(CONTINUATION, byte)
            }
            .more()
        })
        .chain(std::iter::once(Draft::new(CONTINUATION, "")))
        .collect();
    cases.push(case("one byte a frame", &single, Expect::PusherPongs(1)));
    run(cases).await;
}

#[tokio::test]
async fn invalid_utf8_is_refused_with_1007() {
    let mut cases = Vec::new();
    for (name, bytes) in INVALID {
        let message = around(bytes);
        cases.push(case(
            format!("{name}, whole"),
            &[Draft::text(&message)],
            Expect::Close(&[1007]),
        ));
        let (left, right) = message.split_at(around(b"").len() - 2 + 1);
        let drafts = [Draft::text(left).more(), Draft::new(CONTINUATION, right)];
        cases.push(case(
            format!("{name}, cut through"),
            &drafts,
            Expect::Close(&[1007]),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn a_message_that_ends_inside_a_character_is_refused() {
    let mut cases = Vec::new();
    for (name, bytes) in [
        ("two", &b"x\xc2"[..]),
        ("three", b"x\xe1\x80"),
        ("four", b"x\xf1\x80\x80"),
        ("euro", b"\xe2\x82"),
    ] {
        cases.push(case(
            format!("start of {name}"),
            &[Draft::text(bytes)],
            Expect::Close(&[1007]),
        ));
        let drafts = [Draft::text(bytes).more(), Draft::new(CONTINUATION, "")];
        cases.push(case(
            format!("start of {name}, then empty"),
            &drafts,
            Expect::Close(&[1007]),
        ));
    }
    run(cases).await;
}
