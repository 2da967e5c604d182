//! The few RFC 6455 frames a load generator needs: a walk over unmasked server frames and masked client frames.
//!
//! It trusts the server to send valid UTF-8 and checks only what would make it lose its place in the stream.

use anyhow::{Result, bail};

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// Values of the 7-bit length that announce a longer one.
const LENGTH_IN_16_BITS: u8 = 126;
const LENGTH_IN_64_BITS: u8 = 127;
/// Set in the second byte of every frame that a client sends.
const MASKED: u8 = 0x80;

/// Larger frames end the run: no scenario sends one, so it would be a walk gone astray.
const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Any constant key masks as well as a random one; the key protects intermediaries, and here there are none.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// One frame as it lies in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Header and payload together: where the next frame starts.
    pub length: usize,
}

/// The first frame of `bytes`, or `None` while it is incomplete.
///
/// # Errors
/// A masked, reserved or absurdly large frame, after which the stream cannot be followed.
pub fn first_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        bail!("the server set reserved bits in a frame header ({first:#04x})");
    }
    if second & MASKED != 0 {
        bail!("the server sent a masked frame");
    }
    let (size, header) = match second & 0x7F {
        LENGTH_IN_16_BITS => match rest.first_chunk() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        LENGTH_IN_64_BITS => match rest.first_chunk() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if size > MAX_FRAME_BYTES {
        bail!("the server sent a frame of {size} bytes");
    }
    let length = header + size;
    Ok(bytes.get(header..length).map(|payload| Frame {
        opcode: first & 0x0F,
        payload,
        length,
    }))
}

/// Appends one final masked frame to `out`.
pub fn push_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    if let Ok(short) = u8::try_from(payload.len())
        && short < LENGTH_IN_16_BITS
    {
        out.push(MASKED | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        out.push(MASKED | LENGTH_IN_16_BITS);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(MASKED | LENGTH_IN_64_BITS);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// The status code in a close frame's payload, `None` when the frame is empty.
pub fn close_code(payload: &[u8]) -> Option<u16> {
    match payload {
        [high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => bytes.push(u8::try_from(short).unwrap()),
            medium @ 126..65_536 => {
                bytes.push(126);
                bytes.extend_from_slice(&u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                bytes.push(127);
                bytes.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn every_length_form_is_walked_and_every_prefix_waits_for_more() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; size];
            let bytes = server_frame(TEXT, &payload);
            for cut in [0, 1, 2, 3, 9, bytes.len() - 1] {
                if cut < bytes.len() {
                    assert_eq!(first_frame(&bytes[..cut]).unwrap(), None, "{size} cut at {cut}");
                }
            }
            let frame = first_frame(&bytes).unwrap().unwrap();
            assert_eq!(
                (frame.opcode, frame.payload.len(), frame.length),
                (TEXT, size, bytes.len())
            );
        }
    }

    #[test]
    fn frames_joined_in_one_read_are_told_apart() {
        let mut bytes = server_frame(TEXT, b"one");
        bytes.extend(server_frame(PING, b""));
        bytes.extend(server_frame(TEXT, &[b'z'; 300]));
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(frame) = first_frame(rest).unwrap() {
            seen.push((frame.opcode, frame.payload.len()));
            rest = &rest[frame.length..];
        }
        assert_eq!(seen, [(TEXT, 3), (PING, 0), (TEXT, 300)]);
        assert!(rest.is_empty());
    }

    #[test]
    fn a_masked_a_reserved_and_a_huge_frame_end_the_walk() {
        assert!(first_frame(&[0x81, 0x80, 0, 0, 0, 0]).is_err());
        assert!(first_frame(&[0xC1, 0x00]).is_err());
        assert!(first_frame(&[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_client_frame_unmasks_to_its_payload() {
        for size in [0_usize, 5, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut out = Vec::new();
            push_masked(&mut out, TEXT, &payload);
            let header = out.len() - size;
            assert_eq!(out[1] & 0x80, 0x80);
            let key = out[header - 4..header].to_vec();
            let plain: Vec<u8> = out[header..]
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ key[at % 4])
                .collect();
            assert_eq!(plain, payload);
        }
    }

    #[test]
    fn a_close_frame_yields_its_code_or_none() {
        assert_eq!(close_code(&[0x10, 0x68, b'o', b'k']), Some(4200));
        assert_eq!(close_code(&[]), None);
    }
}
