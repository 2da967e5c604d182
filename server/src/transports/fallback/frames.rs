//! Frames of the fallback transports, without the line end or whatever else a transport puts around them.
//!
//! The first character is the type (`SockJS` protocol 0.3; pusher-js source): `o` opened, `h` heartbeat, `a` an array of
//! messages, `c` closed.

use bytes::{Buf, BytesMut};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing::{self, Opcode, ServerFrame};

pub const OPEN: &str = "o";
pub const HEARTBEAT: &str = "h";
/// The answer to a client's ping: silent for the application, and it resets the client's timer (pusher-js source).
pub const NO_MESSAGES: &str = "a[]";

/// Most messages in one sending request. Clients send one each, or what they saved up during a round trip.
pub const MAX_MESSAGES: usize = 1024;

/// A frame as `xhr` transports send it.
pub fn line(frame: &str) -> String {
    format!("{frame}\n")
}

pub fn lines(frames: &[String]) -> String {
    frames.iter().map(|frame| line(frame)).collect()
}

/// A `c` frame.
pub fn close(code: u16, reason: &str) -> String {
    format!("c[{code},{}]", quoted(reason))
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A JSON string that may also stand inside a script inside HTML.
pub fn quoted_for_script(text: &str) -> String {
    let quoted = quoted(text);
    let mut safe = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match c {
            '<' => safe.push_str(r"\u003c"),
            '>' => safe.push_str(r"\u003e"),
            '&' => safe.push_str(r"\u0026"),
            '\u{2028}' => safe.push_str(r"\u2028"),
            '\u{2029}' => safe.push_str(r"\u2029"),
            c => safe.push(c),
        }
    }
    safe
}

/// The messages of a sending request; `None` for anything but an array of texts.
pub fn messages(json: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice(json).ok()
}

/// Takes the frames of the engine apart, however they were cut into chunks.
#[derive(Debug, Default)]
pub struct Unwrapper {
    /// The beginning of a frame whose end has not come.
    partial: BytesMut,
}

/// What was unwrapped, on its way into frames of ours.
#[derive(Debug, Default)]
pub struct Batch {
    /// Quoted messages, separated by commas.
    messages: String,
    close: Option<String>,
}

impl Unwrapper {
    /// Adds what is in a chunk to `batch`.
    pub fn unwrap(&mut self, chunk: &[u8], batch: &mut Batch) {
        if self.partial.is_empty() {
            let used = unwrap_whole_frames(chunk, batch);
            self.partial.extend_from_slice(&chunk[used..]);
        } else {
            self.partial.extend_from_slice(chunk);
            let used = unwrap_whole_frames(&self.partial, batch);
            self.partial.advance(used);
        }
        if self.partial.is_empty() {
            self.partial = BytesMut::new();
        }
    }
}

/// Returns how many bytes the frames had.
fn unwrap_whole_frames(bytes: &[u8], batch: &mut Batch) -> usize {
    outgoing::frames(bytes).map(|frame| batch.add(&frame)).sum()
}

impl Batch {
    /// Adds a frame and returns its length. Pings and pongs have no counterpart here.
    fn add(&mut self, frame: &ServerFrame<'_>) -> usize {
        if frame.opcode == Opcode::Text {
            if let Ok(text) = std::str::from_utf8(frame.payload) {
                if !self.messages.is_empty() {
                    self.messages.push(',');
                }
                self.messages.push_str(&quoted(text));
            }
        } else if let Some((code, reason)) = frame.close_reason() {
            self.close.get_or_insert_with(|| close(code, reason));
        }
        // Lengths as the engine writes them, the shortest form of each (RFC 6455 §5.2).
        let head = match frame.payload.len() {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        head + frame.payload.len()
    }

    pub fn bytes(&self) -> usize {
        self.messages.len()
    }

    /// The connection is over and did not say why.
    pub fn end(&mut self) {
        let code = CloseCode::ReconnectNow;
        self.close
            .get_or_insert_with(|| close(code.code(), code.message()));
    }

    pub fn is_last(&self) -> bool {
        self.close.is_some()
    }

    /// None when there was nothing, else one with the messages, one with the end, or both.
    pub fn into_frames(self) -> Vec<String> {
        let messages = (!self.messages.is_empty()).then(|| format!("a[{}]", self.messages));
        messages.into_iter().chain(self.close).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_protocol::pusher::outgoing::{close_frame, text_frame};

    fn engine_frames() -> Vec<u8> {
        [
            text_frame(br#"{"a":"1"}"#),
            bytes::Bytes::from_static(&[0x8a, 1, b'x']),
            text_frame("é\n".repeat(100).as_bytes()),
            text_frame("x".repeat(70_000).as_bytes()),
            close_frame(4001, "say \"no\""),
        ]
        .concat()
    }

    fn expected() -> Vec<String> {
        let messages = format!(
            r#"a["{{\"a\":\"1\"}}","{}","{}"]"#,
            r"é\n".repeat(100),
            "x".repeat(70_000)
        );
        vec![messages, r#"c[4001,"say \"no\""]"#.to_owned()]
    }

    #[test]
    fn frames_are_unwrapped_and_wrapped_anew() {
        let mut batch = Batch::default();
        Unwrapper::default().unwrap(&engine_frames(), &mut batch);
        assert!(batch.is_last());
        assert_eq!(batch.into_frames(), expected());
    }

    #[test]
    fn it_does_not_matter_where_chunks_are_cut() {
        for size in [1, 2, 3, 7, 125, 65_536] {
            let (mut unwrapper, mut batch) = (Unwrapper::default(), Batch::default());
            for chunk in engine_frames().chunks(size) {
                unwrapper.unwrap(chunk, &mut batch);
            }
            assert_eq!(batch.into_frames(), expected(), "chunks of {size} bytes");
        }
    }

    #[test]
    fn a_batch_without_a_reason_ends_with_a_code_that_makes_clients_come_back() {
        let mut batch = Batch::default();
        assert!(!batch.is_last());
        batch.end();
        assert_eq!(batch.into_frames(), [r#"c[4200,"Reconnect immediately"]"#]);
    }

    #[test]
    fn only_arrays_of_texts_are_messages() {
        assert_eq!(messages(b"[]"), Some(vec![]));
        assert_eq!(
            messages(br#"["a","{\"b\":1}"]"#),
            Some(vec!["a".to_owned(), r#"{"b":1}"#.to_owned()])
        );
        for bad in [
            "",
            "{",
            "null",
            "\"x\"",
            "{}",
            "[1]",
            "[null]",
            "[\"x\"",
            "[\"\\ud800\"]",
        ] {
            assert_eq!(messages(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(messages(b"[\"\xff\"]"), None, "not UTF-8");
    }

    #[test]
    fn a_quoted_text_cannot_leave_its_script() {
        assert_eq!(
            quoted_for_script("</script>&\u{2028}\""),
            r#""\u003c/script\u003e\u0026\u2028\"""#
        );
    }
}
