//! What happens because time passes: pings, deadlines, draining.

use std::sync::atomic::Ordering::Relaxed;

use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;

use super::Shard;
use super::connection::Phase;
use crate::clock;
use crate::presence::ConnectionRef;

/// When to look at a connection.
#[derive(Debug)]
pub(super) struct Timer {
    pub(super) at_s: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

pub(super) struct Drain {
    pub(super) left: Vec<ConnectionRef>,
    pub(super) per_second: usize,
}

impl Shard {
    pub(super) fn set_timer(&mut self, slot: u32) {
        let generation = self.slots[slot as usize].generation;
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        let at_s = connection.deadline(&self.bounds);
        if at_s < connection.timer_s {
            connection.timer_s = at_s;
            self.wheel.insert(
                at_s,
                Timer {
                    at_s,
                    slot,
                    generation,
                },
            );
        }
    }

    /// Turns the wheel; called about once a second.
    pub fn tick(&mut self) {
        self.now_s = clock::monotonic_seconds();
        let mut due = Vec::new();
        self.wheel.turn(self.now_s, &mut due);
        for timer in due {
            self.check(&timer);
        }
        self.go_on_draining();
    }

    pub(super) fn check(&mut self, timer: &Timer) {
        let (bounds, now_s) = (self.bounds, self.now_s);
        let at = ConnectionRef {
            worker: self.worker,
            slot: timer.slot,
            generation: timer.generation,
        };
        let Some(connection) = self.connection(at) else {
            return;
        };
        if timer.at_s != connection.timer_s {
            return; // A deadline that was brought forward; the newer entry stands.
        }
        if connection.deadline(&bounds) <= now_s {
            match connection.phase {
                Phase::Closing { .. } | Phase::Failing { .. } | Phase::Closed { .. } => {
                    return self.remove(at.slot);
                }
                Phase::Waiting { .. } => {
                    self.close(at, CloseCode::OverCapacity, CloseCode::OverCapacity.message());
                }
                Phase::Open {
                    authorize_by_s: Some(by_s),
                }
                | Phase::Pinged {
                    authorize_by_s: Some(by_s),
                    ..
                } if by_s < now_s => {
                    self.close(
                        at,
                        CloseCode::Unauthorized,
                        "Connection not authorized within timeout",
                    );
                }
                _ if connection.armed && connection.accepted_s + bounds.write_stall_s < now_s => {
                    self.cut(at.slot);
                }
                Phase::Open { authorize_by_s } => {
                    connection.phase = Phase::Pinged {
                        since_s: now_s,
                        authorize_by_s,
                    };
                    self.append(at.slot, outgoing::ping());
                }
                Phase::Pinged { .. } => {
                    self.counters().closed_silent.fetch_add(1, Relaxed);
                    self.close(at, CloseCode::PongTimeout, CloseCode::PongTimeout.message());
                }
            }
        }
        if let Some(connection) = self.connection(at) {
            let at_s = connection.deadline(&bounds);
            connection.timer_s = at_s;
            self.wheel.insert(at_s, Timer { at_s, ..*timer });
        }
    }

    /// Refuses new connections from now on, and spreads the closing of the present ones over `seconds`.
    pub(super) fn start_draining(&mut self, seconds: u32) {
        let open = |slot: &u32| self.slots[*slot as usize].connection.is_some();
        let slots = 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let left: Vec<_> = slots.filter(open).map(|slot| self.reference(slot)).collect();
        let per_second = left.len().div_ceil(seconds.max(1) as usize).max(1);
        self.drain = Some(Drain { left, per_second });
        self.go_on_draining();
    }

    pub(super) fn go_on_draining(&mut self) {
        let Some(drain) = &mut self.drain else { return };
        let keep = drain.left.len().saturating_sub(drain.per_second);
        for at in drain.left.split_off(keep) {
            self.close(
                at,
                CloseCode::ReconnectNow,
                "Server is shutting down, reconnect to another",
            );
        }
    }
}
