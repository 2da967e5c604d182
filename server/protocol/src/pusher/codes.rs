//! Close codes of the Pusher protocol. The band decides what a client does next, so choosing a code is choosing a
//! reconnection policy for every browser out there (Pusher protocol docs; behaviour read in the pusher-js source).

use std::fmt;

/// Why a connection is refused, closed, or warned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The app accepts TLS only. pusher-js switches to TLS and tries at once; others stay away.
    TlsOnly = 4000,
    /// No app has this key. Clients do not come back by themselves.
    UnknownApp = 4001,
    /// The app is switched off. Clients do not come back by themselves.
    AppDisabled = 4003,
    /// The app has as many connections as it may. Clients do not come back by themselves.
    OverConnectionQuota = 4004,
    /// The path of the upgrade names no app. Clients do not come back by themselves.
    PathNotFound = 4005,
    /// `version` cannot be read. Clients do not come back by themselves.
    InvalidVersion = 4006,
    /// `protocol` is not one we speak. Clients do not come back by themselves.
    UnsupportedProtocol = 4007,
    /// `protocol` is missing. Clients do not come back by themselves.
    NoProtocol = 4008,
    /// Bad sign-in, not authorized in time, or terminated through the API. Clients stay away until told to connect.
    Unauthorized = 4009,
    /// The node is full. Clients come back after a second or more.
    OverCapacity = 4100,
    /// Come back at once, to any node: used for shutdown, deploys and connections that fell behind.
    ReconnectNow = 4200,
    /// A ping stayed unanswered. Clients come back at once.
    PongTimeout = 4201,
    /// Nothing was heard from a client that knows no ping. Clients come back at once.
    Inactive = 4202,
    /// A client event was one too many. Only ever in a `pusher:error`: closing with it would keep pusher-js away for good.
    ClientEventRate = 4301,
    /// A watchlist was cut to its limit. Only ever in a `pusher:error`: closing with it would keep pusher-js away for good.
    WatchlistLimit = 4302,
}

impl CloseCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The text that goes with it when there is nothing more precise to say. At most 123 bytes, so it fits a close frame.
    pub const fn message(self) -> &'static str {
        match self {
            Self::TlsOnly => "Application only accepts SSL connections, reconnect using wss://",
            Self::UnknownApp => "Application does not exist",
            Self::AppDisabled => "Application disabled",
            Self::OverConnectionQuota => "Account over quota",
            Self::PathNotFound => "Path not found",
            Self::InvalidVersion => "Invalid version string format",
            Self::UnsupportedProtocol => "Unsupported protocol version",
            Self::NoProtocol => "No protocol version supplied",
            Self::Unauthorized => "Connection is unauthorized",
            Self::OverCapacity => "Over capacity",
            Self::ReconnectNow => "Reconnect immediately",
            Self::PongTimeout => "Pong reply not received in time",
            Self::Inactive => "Closed after inactivity",
            Self::ClientEventRate => "Client event rejected due to rate limit",
            Self::WatchlistLimit => "Watchlist limit exceeded. Only the first 100 user IDs are accepted.",
        }
    }

    /// Whether a connection may be closed with it; the rest are for `pusher:error` on a connection that stays open.
    pub const fn closes(self) -> bool {
        !matches!(self, Self::ClientEventRate | Self::WatchlistLimit)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_clients_recover_from_or_must_obey_close_a_connection() {
        use CloseCode::*;
        let all = [
            (TlsOnly, 4000),
            (UnknownApp, 4001),
            (AppDisabled, 4003),
            (OverConnectionQuota, 4004),
            (PathNotFound, 4005),
            (InvalidVersion, 4006),
            (UnsupportedProtocol, 4007),
            (NoProtocol, 4008),
            (Unauthorized, 4009),
            (OverCapacity, 4100),
            (ReconnectNow, 4200),
            (PongTimeout, 4201),
            (Inactive, 4202),
            (ClientEventRate, 4301),
            (WatchlistLimit, 4302),
        ];
        for (code, number) in all {
            assert_eq!(code.code(), number);
            assert_eq!(
                code.closes(),
                number < 4300,
                "pusher-js never returns after {number}"
            );
            assert!(code.message().len() <= 123);
        }
        assert_eq!(PathNotFound.to_string(), "4005 Path not found");
    }
}
