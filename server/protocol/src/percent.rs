//! Percent-decoding of paths and queries.

use std::borrow::Cow;

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    Itself,
    Space,
}

/// Decodes `%XX`; anything that is not a complete escape stays as it is.
pub(crate) fn decode(text: &str, plus: Plus) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    let is_special = |byte: &u8| *byte == b'%' || (*byte == b'+' && plus == Plus::Space);
    let Some(start) = bytes.iter().position(is_special) else {
        return Cow::Borrowed(bytes);
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..start]);
    let mut rest = &bytes[start..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' if plus == Plus::Space => decoded.push(b' '),
            b'%' => {
                if let [high, low, after @ ..] = rest
                    && let (Some(high), Some(low)) = (digit(*high), digit(*low))
                {
                    decoded.push(high << 4 | low);
                    rest = after;
                } else {
                    decoded.push(b'%');
                }
            }
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

/// The same as text; bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decode_text(text: &str, plus: Plus) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&decode(text, plus)).into_owned())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_escapes_are_decoded_and_others_kept() {
        for (text, kept, space) in [
            ("abc", "abc", "abc"),
            ("a%2Cb", "a,b", "a,b"),
            ("%e2%82%ac", "€", "€"),
            ("a+b%2B", "a+b+", "a b+"),
            ("%", "%", "%"),
            ("%4", "%4", "%4"),
            ("%zz%41", "%zzA", "%zzA"),
            ("%%41", "%A", "%A"),
            ("%+1", "%+1", "% 1"),
            ("é%", "é%", "é%"),
        ] {
            assert_eq!(decode_text(text, Plus::Itself), kept, "{text}");
            assert_eq!(decode_text(text, Plus::Space), space, "{text}");
        }
        assert_eq!(decode_text("%ff", Plus::Itself), "\u{fffd}");
    }
}
