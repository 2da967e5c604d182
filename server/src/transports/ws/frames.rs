//! From bytes to messages, by RFC 6455. The frame rules are those of `actix_http::ws`; here are the rules for
//! messages: fragments, their bounds, and UTF-8.

use actix_http::ws::{self, Codec, Item, ProtocolError};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio_util::codec::Decoder as _;

/// The longest head of a frame: two bytes, a 64-bit length, a mask (RFC 6455 §5.2).
const MAX_HEAD_BYTES: usize = 14;

/// Something a peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(ByteString),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// The code to answer with; `None` when the peer gave none.
    Close(Option<u16>),
}

/// The peer broke the protocol; nothing it sends afterwards can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// RFC 6455 §7.4.1.
    pub code: u16,
    pub reason: &'static str,
}

/// Reads one connection's frames.
#[derive(Debug)]
pub struct FrameReader {
    codec: Codec,
    max_message_bytes: usize,
    max_fragments: usize,
    /// The message whose last fragment has not come yet.
    fragments: Option<Box<Fragments>>,
}

#[derive(Debug)]
struct Fragments {
    is_text: bool,
    /// Counted, because empty fragments cost their sender nothing.
    count: usize,
    bytes: Vec<u8>,
}

impl FrameReader {
    pub fn new(max_message_bytes: usize, max_fragments: usize) -> Self {
        Self {
            codec: Codec::new().max_size(max_message_bytes),
            max_message_bytes,
            max_fragments,
            fragments: None,
        }
    }

    /// The next message in `bytes`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// The peer broke the protocol. Reading on makes no sense.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Incoming>, Violation> {
        loop {
            let Some(frame) = self.codec.decode(bytes).map_err(|error| violation(&error))? else {
                // A frame that can never be taken is refused before it has arrived.
                if bytes.len() > self.max_message_bytes + MAX_HEAD_BYTES {
                    return Err(TOO_BIG);
                }
                return Ok(None);
            };
            let incoming = match frame {
                ws::Frame::Text(payload) => text(payload)?,
                ws::Frame::Binary(payload) => Incoming::Binary(payload),
                ws::Frame::Ping(payload) => Incoming::Ping(payload),
                ws::Frame::Pong(_) => Incoming::Pong,
                ws::Frame::Close(reason) => Incoming::Close(reason.map(|reason| reason.code.into())),
                ws::Frame::Continuation(item) => match self.fragment(item)? {
                    Some(message) => message,
                    None => continue,
                },
            };
            return Ok(Some(incoming));
        }
    }

    fn fragment(&mut self, item: Item) -> Result<Option<Incoming>, Violation> {
        let (payload, is_last) = match item {
            Item::FirstText(payload) | Item::FirstBinary(payload) if self.fragments.is_some() => {
                drop(payload);
                return Err(Violation {
                    code: 1002,
                    reason: "A new message began inside another",
                });
            }
            Item::FirstText(payload) => {
                self.fragments = Some(Box::new(Fragments {
                    is_text: true,
                    count: 0,
                    bytes: Vec::new(),
                }));
                (payload, false)
            }
            Item::FirstBinary(payload) => {
                self.fragments = Some(Box::new(Fragments {
                    is_text: false,
                    count: 0,
                    bytes: Vec::new(),
                }));
                (payload, false)
            }
            Item::Continue(payload) => (payload, false),
            Item::Last(payload) => (payload, true),
        };
        let Some(fragments) = &mut self.fragments else {
            return Err(Violation {
                code: 1002,
                reason: "A continuation of nothing",
            });
        };
        fragments.count += 1;
        if fragments.count > self.max_fragments {
            return Err(Violation {
                code: 1008,
                reason: "Too many fragments in one message",
            });
        }
        if fragments.bytes.len() + payload.len() > self.max_message_bytes {
            return Err(TOO_BIG);
        }
        fragments.bytes.extend_from_slice(&payload);
        if !is_last {
            return Ok(None);
        }
        let Some(whole) = self.fragments.take() else {
            return Ok(None);
        };
        let payload = Bytes::from(whole.bytes);
        Ok(Some(if whole.is_text {
            text(payload)?
        } else {
            Incoming::Binary(payload)
        }))
    }
}

const TOO_BIG: Violation = Violation {
    code: 1009,
    reason: "Message too big",
};

fn text(payload: Bytes) -> Result<Incoming, Violation> {
    let invalid = |_| Violation {
        code: 1007,
        reason: "Text is not valid UTF-8",
    };
    ByteString::try_from(payload).map(Incoming::Text).map_err(invalid)
}

fn violation(error: &ProtocolError) -> Violation {
    match error {
        ProtocolError::Overflow => TOO_BIG,
        ProtocolError::UnmaskedFrame => Violation {
            code: 1002,
            reason: "Frames of a client must be masked",
        },
        ProtocolError::InvalidOpcode(_) | ProtocolError::BadOpCode => Violation {
            code: 1002,
            reason: "Unknown opcode",
        },
        ProtocolError::InvalidLength(_) => Violation {
            code: 1002,
            reason: "Invalid length of a control frame",
        },
        _ => Violation {
            code: 1002,
            reason: "Protocol error",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client frame with an all-zero mask.
    fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![head];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                frame.push(0x80 | 0x7e);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    }

    fn read(bytes: &[u8]) -> Result<Vec<Incoming>, Violation> {
        let mut reader = FrameReader::new(1000, 5);
        let mut bytes = BytesMut::from(bytes);
        let mut messages = Vec::new();
        while let Some(message) = reader.next(&mut bytes)? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn control_frames_may_come_between_fragments() {
        let bytes = [
            frame(0x01, b"ab"),
            frame(0x89, b"p"),
            frame(0x00, b""),
            frame(0x80, b"c"),
        ]
        .concat();
        let expected = vec![
            Incoming::Ping(Bytes::from_static(b"p")),
            Incoming::Text("abc".into()),
        ];
        assert_eq!(read(&bytes), Ok(expected));
    }

    #[test]
    fn utf8_may_be_cut_by_fragments_but_not_be_wrong() {
        let euro = "€".as_bytes();
        let bytes = [frame(0x01, &euro[..1]), frame(0x80, &euro[1..])].concat();
        assert_eq!(read(&bytes), Ok(vec![Incoming::Text("€".into())]));
        assert_eq!(read(&frame(0x81, &euro[..1])).unwrap_err().code, 1007);
    }

    #[test]
    fn violations_have_their_codes() {
        let unmasked = vec![0x81, 1, b'a'];
        let endless = [frame(0x01, b""), frame(0x00, b"").repeat(10)].concat();
        let grown = [frame(0x01, &[b'a'; 600]), frame(0x80, &[b'a'; 600])].concat();
        let announced = [
            &[0x82, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0][..],
            &[0; 1001],
        ]
        .concat();
        for (bytes, code) in [
            (frame(0x80, b"a"), 1002),
            (frame(0x83, b""), 1002),
            (frame(0xc1, b"a"), 1002),
            (frame(0x88, b"a"), 1002),
            (frame(0x88, &1005_u16.to_be_bytes()), 1002),
            (frame(0x09, b""), 1002),
            (frame(0x89, &[0; 126]), 1002),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
            (unmasked, 1002),
            (endless, 1008),
            (grown, 1009),
            (announced, 1009),
            (frame(0x81, &[b'a'; 1001]), 1009),
        ] {
            assert_eq!(read(&bytes).unwrap_err().code, code, "{bytes:x?}");
        }
    }
}
