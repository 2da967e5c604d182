//! One connection as its shard keeps it.

use std::collections::VecDeque;
use std::task::Waker;

use dunlin_protocol::names::{ChannelName, UserId};
use dunlin_protocol::pusher::presence::PresenceMember;

use super::Bounds;
use super::quota::{ADMISSION_TIMEOUT_S, Place};
use crate::apps::wanted::News;
use crate::hub::outbox::Outbox;
use crate::hub::session::Session;
use crate::hub::socket::Socket;

pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) outbox: Outbox,
    pub(super) phase: Phase,
    /// The socket blocked: the connection's own task flushes, fan-outs only append.
    pub(super) armed: bool,
    /// In the queue of connections to flush.
    pub(super) dirty: bool,
    pub(super) place: Place,
    /// The second in which something was last received.
    pub(super) heard_s: u32,
    /// The second in which the socket last took something, while it is armed.
    pub(super) accepted_s: u32,
    /// When the wheel will look at it next.
    pub(super) timer_s: u32,
    pub(super) waker: Waker,
    pub(super) memberships: Vec<Membership>,
    pub(super) session: Session,
    /// Messages that wait for the answer to a join, or to be let in.
    pub(super) deferred: Option<VecDeque<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The handshake was answered and nothing else said: whether the app has room for it is being asked.
    Waiting { since_s: u32 },
    /// Must be authorized by then, if ever.
    Open { authorize_by_s: Option<u32> },
    /// A ping is out since then.
    Pinged {
        since_s: u32,
        authorize_by_s: Option<u32>,
    },
    /// Our close frame is in the outbox; waiting for the peer's.
    Closing { since_s: u32 },
    /// The same, but the peer cannot be understood any more: nothing is sent after the frame, and what comes is
    /// thrown away until the peer hangs up.
    Failing { since_s: u32 },
    /// Both sides said good-bye: over when the outbox is empty.
    Closed { since_s: u32 },
}

/// A connection's place in a channel. A connection keeps them sorted by channel.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) channel: u32,
    /// Index in the channel's list, or [`PENDING`].
    pub(super) position: u32,
    /// As whom it is there: the user of a presence channel; elsewhere, whom webhooks told to be bound.
    pub(super) name: Option<UserId>,
}

pub(super) const PENDING: u32 = u32::MAX;

/// Where the membership in this channel is, or would be.
pub(super) fn place(memberships: &[Membership], channel: u32) -> Result<usize, usize> {
    memberships.binary_search_by_key(&channel, |membership| membership.channel)
}

impl Connection {
    /// As whom webhooks tell this connection to be bound to a channel, if they do: the member, who is signed in, or itself.
    pub(super) fn bound_as(&self, channel: &ChannelName, member: Option<&PresenceMember>) -> Option<UserId> {
        if !self.session.app.wanted.any(News::BINDS) || channel.kind().is_user() {
            return None;
        }
        let user = member
            .map(|member| &member.user_id)
            .or_else(|| self.session.user().map(|user| &user.id));
        user.cloned()
            .or_else(|| self.session.socket_id.to_string().parse().ok())
    }

    pub(super) fn place(&self, channel: u32) -> Result<usize, usize> {
        place(&self.memberships, channel)
    }

    /// Something was received: it is alive, whatever it said.
    pub(super) fn heard(&mut self, now_s: u32) {
        self.heard_s = now_s;
        if let Phase::Pinged { authorize_by_s, .. } = self.phase {
            self.phase = Phase::Open { authorize_by_s };
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::Waiting { .. } | Phase::Open { .. } | Phase::Pinged { .. }
        )
    }

    /// The second in which something is due.
    pub(super) fn deadline(&self, bounds: &Bounds) -> u32 {
        let (by_phase, authorize_by_s) = match self.phase {
            Phase::Waiting { since_s } => (since_s + ADMISSION_TIMEOUT_S, None),
            Phase::Open { authorize_by_s } => (self.heard_s + bounds.activity_timeout_s, authorize_by_s),
            Phase::Pinged {
                since_s,
                authorize_by_s,
            } => (since_s + bounds.pong_timeout_s, authorize_by_s),
            Phase::Closing { since_s } | Phase::Failing { since_s } | Phase::Closed { since_s } => {
                (since_s + bounds.close_linger_s, None)
            }
        };
        let stalled_s = if self.armed && self.is_open() {
            self.accepted_s + bounds.write_stall_s
        } else {
            u32::MAX
        };
        let due_s = by_phase.min(stalled_s).min(authorize_by_s.unwrap_or(u32::MAX));
        // What is counted from began somewhere in its second: one more, lest anything end before its time.
        due_s.saturating_add(1)
    }
}
