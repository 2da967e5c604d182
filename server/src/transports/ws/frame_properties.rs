//! What must hold for every stream of bytes, however hostile and however cut. The property tests below and the fuzz
//! target `frames` feed the same function, so a finding of one can be replayed by the other.

use bytes::BytesMut;

use super::frames::{FrameReader, Incoming, Violation};

/// Small, so that short inputs reach them.
const MAX_MESSAGE_BYTES: usize = 300;
const MAX_FRAGMENTS: usize = 4;
/// RFC 6455 §5.2: two bytes and a mask; with a 64-bit length the longest.
const MIN_CLIENT_HEAD_BYTES: usize = 6;
const MAX_HEAD_BYTES: usize = 14;
/// RFC 6455 §5.5.
const MAX_CONTROL_BYTES: usize = 125;

/// All that was said, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    messages: Vec<Incoming>,
    violation: Option<Violation>,
}

/// Reads `stream` at once and in pieces of `sizes` (over and over; a zero counts as one), which must come out the same.
///
/// # Panics
/// A property is broken.
pub(super) fn stream(stream: &[u8], sizes: &[u8]) {
    let sizes = if sizes.is_empty() { &[1][..] } else { sizes };
    let mut rest = stream;
    let pieces = sizes.iter().cycle().map_while(|&size| {
        let size = usize::from(size.max(1)).min(rest.len());
        let piece;
        (piece, rest) = rest.split_at(size);
        (!piece.is_empty()).then_some(piece)
    });
    let in_pieces = heard(pieces);
    assert_eq!(heard([stream].into_iter()), in_pieces);
}

fn heard<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut reader = FrameReader::new(MAX_MESSAGE_BYTES, MAX_FRAGMENTS);
    let mut bytes = BytesMut::new();
    let mut heard = Heard::default();
    for piece in pieces {
        bytes.extend_from_slice(piece);
        loop {
            let before = bytes.len();
            match reader.next(&mut bytes) {
                Ok(Some(message)) => {
                    assert!(bytes.len() + MIN_CLIENT_HEAD_BYTES <= before, "no end in sight");
                    check(&message);
                    heard.messages.push(message);
                }
                Ok(None) => {
                    assert!(
                        bytes.len() <= MAX_MESSAGE_BYTES + MAX_HEAD_BYTES,
                        "holds too much"
                    );
                    break;
                }
                Err(violation) => {
                    assert!(matches!(violation.code, 1002 | 1007 | 1008 | 1009));
                    // It is the reason of a close frame, behind the code.
                    assert!(violation.reason.len() <= MAX_CONTROL_BYTES - 2);
                    heard.violation = Some(violation);
                    return heard;
                }
            }
        }
    }
    heard
}

fn check(message: &Incoming) {
    match message {
        Incoming::Text(text) => assert!(text.len() <= MAX_MESSAGE_BYTES),
        Incoming::Binary(payload) => assert!(payload.len() <= MAX_MESSAGE_BYTES),
        Incoming::Ping(payload) => assert!(payload.len() <= MAX_CONTROL_BYTES),
        Incoming::Pong | Incoming::Close(None) => {}
        // RFC 6455 §7.4: whatever is answered with must be a code that may stand in a frame.
        Incoming::Close(Some(code)) => assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Frame {
        head: u8,
        mask: [u8; 4],
        payload: Vec<u8>,
    }

    impl Frame {
        fn write(&self, out: &mut Vec<u8>) {
            out.push(self.head);
            match u16::try_from(self.payload.len()).unwrap() {
                length @ 0..126 => out.push(0x80 | u8::try_from(length).unwrap()),
                length => {
                    out.push(0x80 | 0x7e);
                    out.extend(length.to_be_bytes());
                }
            }
            out.extend(self.mask);
            let masks = self.mask.iter().cycle();
            out.extend(self.payload.iter().zip(masks).map(|(byte, mask)| byte ^ mask));
        }
    }

    /// The heads that a reader must tell apart, sane and not.
    fn head() -> impl Strategy<Value = u8> {
        let known = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a];
        prop_oneof![9 => prop::sample::select(known.to_vec()), 1 => any::<u8>()]
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "\\PC{0,40}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..140),
            (290_usize..310).prop_map(|length| vec![b'x'; length]),
            (any::<u16>(), "[a-z]{0,5}").prop_map(|(code, reason)| [
                &(code % 5500).to_be_bytes(),
                reason.as_bytes()
            ]
            .concat()),
        ]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        (head(), any::<[u8; 4]>(), payload()).prop_map(|(head, mask, payload)| Frame { head, mask, payload })
    }

    proptest! {
           #[test]
           fn a_stream_reads_the_same_however_it_is_cut(
               frames in prop::collection::vec(frame(), 0..8),
               tail in prop::collection::vec(any::<u8>(), 0..20),
               sizes in prop::collection::vec(0_u8..200, 0..6),
           ) {
               let mut bytes = Vec::new();
               for frame in &frames {
    frame.write(&mut bytes);
    }
               bytes.extend(tail);
               stream(&bytes, &sizes);
           }

           #[test]
           fn a_message_arrives_whole_however_it_was_fragmented(
               text in "\\PC{0,70}",
               cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..MAX_FRAGMENTS),
               mask in any::<[u8; 4]>(),
           ) {
               let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
               cuts.sort_unstable();
               cuts.push(text.len());
               let mut bytes = Vec::new();
               let mut from = 0;
               for (at, &to) in cuts.iter().enumerate() {
                   let opcode = u8::from(at == 0);
                   let fin = if at + 1 == cuts.len() { 0x80 } else { 0 };
                   let payload = text.as_bytes()[from..to].to_vec();
                   Frame { head: fin | opcode, mask, payload }.write(&mut bytes);
                   from = to;
               }
               let expected = Heard { messages: vec![Incoming::Text(text.into())], violation: None };
               prop_assert_eq!(heard([&bytes[..]].into_iter()), expected);
           }
       }
}
