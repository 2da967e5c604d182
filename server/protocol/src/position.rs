//! A place in a channel's order, as clients and the HTTP API carry it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// After the message with this serial, counted since `epoch`. Serials of one epoch grow along the channel's order and
/// may skip numbers; those of two epochs cannot be compared, because what lies between is unknown.
///
/// As a text, `epoch:serial` (own choice); clients give it back as they got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    pub epoch: u64,
    pub serial: u64,
}

/// The most events that a client may ask for by their number.
pub const MAX_LAST: u32 = 1000;

/// From where on a client wants a channel's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// What it missed after this position: all of it, or nothing if that is not to be had.
    After(Position),
    /// The last so many, or as many as are left; 1 to [`MAX_LAST`] when a client asks.
    Last(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a position: it has the form epoch:serial")]
pub struct BadPosition;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.serial)
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_plain).ok_or(BadPosition)
        };
        let (epoch, serial) = text.split_once(':').ok_or(BadPosition)?;
        Ok(Self {
            epoch: number(epoch)?,
            serial: number(serial)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        let position = Position {
            epoch: 1_732_200_000_000_000,
            serial: u64::MAX,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            ":",
            "1",
            "1:",
            ":1",
            "1:2:3",
            "+1:2",
            "-1:2",
            "1: 2",
            "1:18446744073709551616",
            "a:b",
        ] {
            assert_eq!(text.parse::<Position>(), Err(BadPosition), "{text:?}");
        }
    }
}
