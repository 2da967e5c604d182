//! What the codecs need of JSON beyond parsing: escaping into place, and judging raw text without decoding it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Deepest nesting that is passed on to other clients, whose parsers may be recursive. With our own levels around it, it
/// stays below the 128 that common parsers take (`serde_json`, Json.NET).
pub(crate) const MAX_DEPTH: usize = 100;

/// A decoded JSON string that borrows when it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// The decoded string, or `None` when the value is something else or has an impossible escape.
pub(crate) fn as_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if !text.starts_with('"') {
        return None;
    }
    serde_json::from_str::<Text<'_>>(text).ok().map(|text| text.0)
}

/// Whether the text can only be an object. Derived parsers also take arrays, so this is asked first.
pub(crate) fn opens_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{')
}

/// What a walk over a string literal found out.
pub(crate) struct Literal {
    /// Bytes of the literal with its quotes.
    pub(crate) raw_bytes: usize,
    /// Bytes of the string it stands for, in UTF-8.
    pub(crate) decoded_bytes: usize,
}

/// Walks the string literal at the start of `bytes`; `None` when it does not end or holds a lone surrogate.
/// Control characters are not looked for: the text has been through the parser's own scan.
pub(crate) fn walk_literal(bytes: &[u8]) -> Option<Literal> {
    let mut at = 1;
    let mut saved = 0;
    loop {
        match *bytes.get(at)? {
            b'"' => {
                return Some(Literal {
                    raw_bytes: at + 1,
                    decoded_bytes: at - 1 - saved,
                });
            }
            b'\\' if *bytes.get(at + 1)? == b'u' => match code_unit(bytes.get(at + 2..at + 6)?)? {
                0xD800..=0xDBFF => {
                    if bytes.get(at + 6..at + 8)? != b"\\u" {
                        return None;
                    }
                    if !(0xDC00..=0xDFFF).contains(&code_unit(bytes.get(at + 8..at + 12)?)?) {
                        return None;
                    }
                    at += 12;
                    saved += 8;
                }
                0xDC00..=0xDFFF => return None,
                unit => {
                    at += 6;
                    saved += match unit {
                        0..=0x7F => 5,
                        0x80..=0x7FF => 4,
                        _ => 3,
                    };
                }
            },
            b'\\' => {
                at += 2;
                saved += 1;
            }
            _ => at += 1,
        }
    }
}

fn code_unit(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |unit: u16, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// Whether raw JSON that has been scanned but not decoded is fit to be passed on: no lone surrogate, and not deeper
/// than [`MAX_DEPTH`].
pub(crate) fn is_sound(raw: &RawValue) -> bool {
    let bytes = raw.get().as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => match walk_literal(&bytes[at..]) {
                Some(literal) => at += literal.raw_bytes - 1,
                None => return false,
            },
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    true
}

/// What a byte becomes inside a JSON string; empty when it stays as it is.
const fn escape_of(byte: u8) -> &'static str {
    const CONTROL: [&str; 32] = [
        "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007", "\\b", "\\t",
        "\\n", "\\u000b", "\\f", "\\r", "\\u000e", "\\u000f", "\\u0010", "\\u0011", "\\u0012", "\\u0013",
        "\\u0014", "\\u0015", "\\u0016", "\\u0017", "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c",
        "\\u001d", "\\u001e", "\\u001f",
    ];
    match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        0..=31 => CONTROL[byte as usize],
        _ => "",
    }
}

/// The same for a string inside JSON text that is itself a string: the escape, escaped.
fn double_escape_of(byte: u8) -> (&'static str, &'static str) {
    match byte {
        b'"' => ("\\\\", "\\\""),
        b'\\' => ("\\\\", "\\\\"),
        // Every other escape holds one backslash, its first byte.
        _ => match escape_of(byte) {
            "" => ("", ""),
            escape => ("\\", escape),
        },
    }
}

pub(crate) fn escaped_len(text: &str) -> usize {
    text.bytes().map(|byte| escape_of(byte).len().max(1)).sum()
}

pub(crate) fn double_escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|byte| {
            let (slash, rest) = double_escape_of(byte);
            (slash.len() + rest.len()).max(1)
        })
        .sum()
}

/// Appends the text as the inside of a JSON string.
pub(crate) fn escape_into(out: &mut Vec<u8>, text: &str) {
    escape_with(out, text, |byte| (escape_of(byte), ""));
}

/// Appends the text as the inside of a string inside JSON text that is the inside of a JSON string.
pub(crate) fn double_escape_into(out: &mut Vec<u8>, text: &str) {
    escape_with(out, text, double_escape_of);
}

fn escape_with(out: &mut Vec<u8>, text: &str, escape: impl Fn(u8) -> (&'static str, &'static str)) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !(*byte < 0x20 || *byte == b'"' || *byte == b'\\') {
            continue;
        }
        let (first, second) = escape(*byte);
        out.extend_from_slice(&bytes[plain..at]);
        out.extend_from_slice(first.as_bytes());
        out.extend_from_slice(second.as_bytes());
        plain = at + 1;
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_walk_over_a_literal_counts_what_it_decodes_to() {
        let cases = [
            r#""""#,
            r#""a""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""\u0041\u00e9\u20AC""#,
            r#""\ud83e\udd9c!""#,
            r#""é🦜""#,
        ];
        for literal in cases {
            let found = walk_literal(literal.as_bytes()).unwrap();
            let decoded: String = serde_json::from_str(literal).unwrap();
            assert_eq!(
                (found.raw_bytes, found.decoded_bytes),
                (literal.len(), decoded.len()),
                "{literal}"
            );
        }
    }

    #[test]
    fn a_lone_surrogate_or_an_open_end_is_no_literal() {
        for literal in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
            r#""\ud800\n""#,
            r#""\ud8"#,
            r#""\"#,
            r#"""#,
            r#""abc"#,
            r#""\uzzzz""#,
        ] {
            assert!(walk_literal(literal.as_bytes()).is_none(), "{literal}");
        }
    }

    #[test]
    fn soundness_looks_at_depth_and_surrogates_everywhere() {
        assert!(is_sound(&raw(&format!("{}{}", "[".repeat(100), "]".repeat(100)))));
        assert!(!is_sound(&raw(&format!(
            "{}{}",
            "[".repeat(101),
            "]".repeat(101)
        ))));
        assert!(is_sound(&raw(&format!("[{}]", ["[]"; 500].join(",")))));
        assert!(is_sound(&raw(&format!("\"{}\"", "[".repeat(500)))));
        assert!(is_sound(&raw(r#"{"a\"[":"\\"}"#)));
        assert!(!is_sound(&raw(r#"{"\ud800":1}"#)));
        assert!(!is_sound(&raw(r#"[{"a":"\udfff"}]"#)));
    }

    #[test]
    fn escapes_are_undone_by_a_parser_once_or_twice() {
        let every: String = (0..=0x7F_u8)
            .map(char::from)
            .chain("é\u{2028}🦜".chars())
            .collect();
        let (mut once, mut twice) = (vec![b'"'], br#""\""#.to_vec());
        escape_into(&mut once, &every);
        double_escape_into(&mut twice, &every);
        assert_eq!(once.len() - 1, escaped_len(&every));
        assert_eq!(twice.len() - 3, double_escaped_len(&every));
        once.push(b'"');
        twice.extend_from_slice(br#"\"""#);
        assert_eq!(serde_json::from_slice::<String>(&once).unwrap(), every);
        let inner: String = serde_json::from_slice(&twice).unwrap();
        assert_eq!(serde_json::from_str::<String>(&inner).unwrap(), every);
    }
}
