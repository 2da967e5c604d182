//! The message under measurement: a sequence number and a time at fixed text positions behind a marker, so that a
//! receiver finds them by looking, without parsing JSON. No character of it is ever escaped in JSON.

/// Payload of the measured scenarios, in bytes.
pub const PAYLOAD_BYTES: usize = 128;

const MARKER: &[u8] = b"~dunlin~";
const SEQUENCE_DIGITS: usize = 10;
const TIME_DIGITS: usize = 16;
/// Marker, sequence number, a dot, the time: what the shortest payload holds.
const STAMP_BYTES: usize = MARKER.len() + SEQUENCE_DIGITS + 1 + TIME_DIGITS;

/// What a received message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u32,
    /// Nanoseconds on the generator's own clock.
    pub sent_at: u64,
}

/// Appends a payload of `size` bytes (never less than the stamp itself).
pub fn push(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    out.extend_from_slice(MARKER);
    push_digits(out, u64::from(stamp.sequence), SEQUENCE_DIGITS);
    out.push(b'.');
    push_digits(out, stamp.sent_at, TIME_DIGITS);
    out.resize(out.len() + size.saturating_sub(STAMP_BYTES), b'x');
}

fn push_digits(out: &mut Vec<u8>, mut value: u64, digits: usize) {
    let end = out.len() + digits;
    out.resize(end, b'0');
    for slot in out[end - digits..].iter_mut().rev() {
        *slot = b"0123456789"[usize::try_from(value % 10).unwrap_or(0)];
        value /= 10;
    }
}

/// Finds stamps. Messages of one run look alike, so it first looks where the last one was.
#[derive(Debug, Default)]
pub struct Finder {
    hint: usize,
}

impl Finder {
    /// The stamp in a message, `None` for any message that is not ours.
    pub fn find(&mut self, message: &[u8]) -> Option<Stamp> {
        if !message.get(self.hint..)?.starts_with(MARKER) {
            self.hint = position(message, MARKER)?;
        }
        let stamp = message.get(self.hint + MARKER.len()..self.hint + STAMP_BYTES)?;
        let (sequence, rest) = stamp.split_at(SEQUENCE_DIGITS);
        let time = rest.strip_prefix(b".")?;
        Some(Stamp {
            sequence: u32::try_from(number(sequence)?).ok()?,
            sent_at: number(time)?,
        })
    }
}

/// The whole of `digits` as a number.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')))
            .flatten()
    })
}

/// Where `needle` first occurs in `bytes`.
pub fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// What follows the first occurrence of `needle`.
pub fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    position(bytes, needle).map(|at| &bytes[at + needle.len()..])
}

/// The digits at the start of `bytes`, as a number.
pub fn leading_number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    number(&bytes[..digits])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_trip_at_any_place_in_a_message() {
        let stamp = Stamp {
            sequence: 4_294_967_295,
            sent_at: 1_234_567_890_123,
        };
        let mut payload = Vec::new();
        push(&mut payload, stamp, PAYLOAD_BYTES);
        assert_eq!(payload.len(), PAYLOAD_BYTES);
        let mut finder = Finder::default();
        for prefix in [
            "{\"event\":\"bench\",\"data\":\"",
            "",
            "{\"channel\":\"~dun\",\"data\":\"",
        ] {
            let message = [prefix.as_bytes(), payload.as_slice(), b"\"}"].concat();
            assert_eq!(finder.find(&message), Some(stamp));
            assert_eq!(finder.find(&message), Some(stamp));
        }
    }

    #[test]
    fn a_foreign_or_cut_message_has_no_stamp() {
        let mut finder = Finder { hint: 40 };
        assert_eq!(finder.find(b"{}"), None);
        assert_eq!(
            finder.find(b"{\"event\":\"pusher:ping\",\"data\":\"{}\"} and a long tail ~dunlin"),
            None
        );
        assert_eq!(Finder::default().find(b"~dunlin~0000000001.00000000000000"), None);
        assert_eq!(
            Finder::default().find(b"~dunlin~00000000a1.0000000000000000"),
            None
        );
    }

    #[test]
    fn the_message_on_the_wire_has_the_agreed_size() {
        let mut payload = Vec::new();
        push(
            &mut payload,
            Stamp {
                sequence: 1,
                sent_at: 1,
            },
            PAYLOAD_BYTES,
        );
        let text = format!(
            "{{\"event\":\"{}\",\"channel\":\"{}\",\"data\":\"{}\"}}",
            crate::http::EVENT_NAME,
            crate::fanout::CHANNEL,
            String::from_utf8(payload).unwrap()
        );
        assert_eq!(text.len(), 175);
    }

    #[test]
    fn searching_finds_overlapping_beginnings_and_reads_leading_numbers() {
        assert_eq!(position(b"aab", b"ab"), Some(1));
        assert_eq!(position(b"aaa", b"ab"), None);
        assert_eq!(
            after(b"count\\\":12,", b"count\\\":").and_then(leading_number),
            Some(12)
        );
        assert_eq!(leading_number(b"x"), None);
    }
}
