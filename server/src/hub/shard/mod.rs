//! One worker's connections and channels.
//!
//! [`Shard::turn`] is the fan-out: it drains the mailbox, joins the frames of each channel into one buffer, appends
//! that to every recipient's outbox and flushes a chunk of connections with one write each. The pump calls it again
//! after it has let the worker's other tasks run, so that what arrives meanwhile is joined with what still waits.

mod channels;
mod connection;
mod fanout;
mod quota;
mod recovery;
mod rules;
mod socket_id;
mod time;
mod transport;
mod writing;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use dunlin_protocol::names::UserId;
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::mailbox::Mail;
use super::outbox::Outbox;
use super::session::Session;
use super::socket::Socket;
use super::wheel::Wheel;
use super::{Hub, Services, WorkerCounters};
use crate::apps::App;
use crate::clock;
use crate::config::SocketsSection;
use crate::presence::{ConnectionRef, SignIn};
use crate::storage::keys::{AppNum, ChannelMap};
use channels::LocalChannel;
use connection::{Connection, Phase};
use fanout::Group;
use quota::Place;
pub use socket_id::is_on;
use socket_id::new_socket_id;
use time::{Drain, Timer};

/// Everything one worker thread holds. Never shared: others put mail into its mailbox.
pub struct Shard {
    hub: Arc<Hub>,
    services: Services,
    worker: u16,
    bounds: Bounds,
    slots: Vec<Slot>,
    free: Vec<u32>,
    channels: Vec<LocalChannel>,
    free_channels: Vec<u32>,
    channel_index: ChannelMap<u32>,
    /// Slots by signed-in user.
    users: HashMap<(AppNum, UserId), SmallVec<[u32; 2]>>,
    /// Connections with something to flush, in the order in which they got it.
    dirty: VecDeque<u32>,
    wheel: Wheel<Timer>,
    now_s: u32,
    mail: Vec<Mail>,
    groups: Vec<Group>,
    overflowed: Vec<u32>,
    scratch: Vec<u8>,
    /// The last generation that was given out. One count for all slots, so that the table may shrink and grow again.
    generation: u32,
    /// Connections still to be closed, and how many a second; while it is there new ones are refused.
    drain: Option<Drain>,
}

/// The section of the configuration, in the units that are used here.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    activity_timeout_s: u32,
    pong_timeout_s: u32,
    outbox_bytes: usize,
    write_stall_s: u32,
    close_linger_s: u32,
    flush_chunk: usize,
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// A connection that has been accepted.
pub struct Accepted {
    pub app: Arc<App>,
    pub socket: Socket,
    /// What goes out before anything else: the answer to the upgrade.
    pub greeting: Bytes,
}

/// Why a connection was not taken. It is to be told, and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub CloseCode);

impl Shard {
    pub fn new(hub: Arc<Hub>, services: Services, worker: u16, section: &SocketsSection) -> Self {
        let now_s = clock::monotonic_seconds();
        let bounds = Bounds {
            activity_timeout_s: clock::ceil_seconds(section.activity_timeout),
            pong_timeout_s: clock::ceil_seconds(section.pong_timeout),
            outbox_bytes: section.outbox_bytes,
            write_stall_s: clock::ceil_seconds(section.write_stall),
            close_linger_s: clock::ceil_seconds(section.close_linger),
            flush_chunk: section.flush_chunk,
        };
        Self {
            hub,
            services,
            worker,
            bounds,
            slots: Vec::new(),
            free: Vec::new(),
            channels: Vec::new(),
            free_channels: Vec::new(),
            channel_index: ChannelMap::default(),
            users: HashMap::new(),
            dirty: VecDeque::new(),
            wheel: Wheel::new(now_s),
            now_s,
            mail: Vec::new(),
            groups: Vec::new(),
            overflowed: Vec::new(),
            scratch: Vec::new(),
            generation: 0,
            drain: None,
        }
    }

    pub fn worker(&self) -> u16 {
        self.worker
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    fn counters(&self) -> &WorkerCounters {
        self.hub.counters(self.worker)
    }

    fn connection(&mut self, at: ConnectionRef) -> Option<&mut Connection> {
        let slot = self
            .slots
            .get_mut(at.slot as usize)
            .filter(|slot| slot.generation == at.generation)?;
        slot.connection.as_mut()
    }

    fn reference(&self, slot: u32) -> ConnectionRef {
        let generation = self.slots[slot as usize].generation;
        ConnectionRef {
            worker: self.worker,
            slot,
            generation,
        }
    }

    /// Opens a connection: its greeting is in its outbox, and `connection_established`, unless it has to wait for room in
    /// its app's quota.
    ///
    /// # Errors
    /// It is refused with this code; what was accepted is given back, to be told so.
    pub fn open(&mut self, accepted: Accepted) -> Result<ConnectionRef, Box<(Refused, Accepted)>> {
        if let Err(refused) = self.has_room() {
            return Err(Box::new((refused, accepted)));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                connection: None,
            });
            u32::try_from(self.slots.len() - 1).expect("slots are bounded by open files")
        });
        self.generation = self.generation.wrapping_add(1);
        self.slots[slot as usize].generation = self.generation;
        let at = self.reference(slot);
        let socket_id = new_socket_id(at);
        let authorize_by_s = accepted
            .app
            .authorized_connections_s
            .map(|seconds| self.now_s + seconds);
        // A connection that has to authorize itself is counted once it has.
        let counts_now = authorize_by_s.is_none();
        let waits = counts_now && accepted.app.limits.connections != 0;
        let mut first = BytesMut::from(&accepted.greeting[..]);
        if !waits {
            let established = outgoing::connection_established(socket_id, self.bounds.activity_timeout_s);
            first.extend_from_slice(&established);
        }
        let mut outbox = Outbox::default();
        if !first.is_empty() {
            outbox.push(first.freeze());
        }
        let mut connection = Connection {
            socket: accepted.socket,
            outbox,
            phase: if waits {
                Phase::Waiting { since_s: self.now_s }
            } else {
                Phase::Open { authorize_by_s }
            },
            armed: false,
            dirty: false,
            place: Place::None,
            heard_s: self.now_s,
            accepted_s: self.now_s,
            timer_s: 0,
            waker: Waker::noop().clone(),
            memberships: Vec::new(),
            session: Session::new(accepted.app, socket_id),
            deferred: waits.then(VecDeque::new),
        };
        connection.timer_s = connection.deadline(&self.bounds);
        self.wheel.insert(
            connection.timer_s,
            Timer {
                at_s: connection.timer_s,
                slot,
                generation: at.generation,
            },
        );
        self.slots[slot as usize].connection = Some(connection);
        self.counters().connections.fetch_add(1, Relaxed);
        if counts_now {
            self.take_place(at);
        }
        Ok(at)
    }

    fn has_room(&self) -> Result<(), Refused> {
        if self.drain.is_some() {
            return Err(Refused(CloseCode::ReconnectNow));
        }
        if !self.hub.has_room() {
            return Err(Refused(CloseCode::OverCapacity));
        }
        Ok(())
    }

    fn leave_everything(&mut self, slot: u32) {
        let at = self.reference(slot);
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        connection.deferred = None;
        let memberships = mem::take(&mut connection.memberships);
        let app = Arc::clone(&connection.session.app);
        let place = mem::take(&mut connection.place);
        let user = connection.session.sign_out();
        if place == Place::Taken {
            self.give_place_back(&app);
        }
        if let Some((user_id, watchlist)) = user {
            let key = (app.num, user_id.clone());
            if let Some(slots) = self.users.get_mut(&key) {
                slots.retain(|other| *other != slot);
                if slots.is_empty() {
                    self.users.remove(&key);
                }
            }
            self.services.presence.sign_out(&SignIn {
                app,
                connection: at,
                user_id,
                watchlist,
            });
        }
        for membership in memberships {
            self.end_membership(membership);
        }
    }

    /// Ends the connection: the socket is dropped, its task is woken to find it gone.
    fn remove(&mut self, slot: u32) {
        self.leave_everything(slot);
        let Some(connection) = self.slots[slot as usize].connection.take() else {
            return;
        };
        if let Socket::Pipe(pipe) = &connection.socket {
            pipe.close();
        }
        connection.waker.wake_by_ref();
        self.free.push(slot);
        self.counters().connections.fetch_sub(1, Relaxed);
        self.shrink();
    }

    /// Gives memory back after a crowd has left: the free end of the table is cut off. Looked at now and then only.
    fn shrink(&mut self) {
        let used = self.slots.len() - self.free.len();
        let is_worth_a_look =
            used == 0 || (used <= self.slots.len() / 4 && self.free.len().is_multiple_of(256));
        if self.slots.len() < 256 || !is_worth_a_look {
            return;
        }
        let length = self
            .slots
            .iter()
            .rposition(|slot| slot.connection.is_some())
            .map_or(0, |last| last + 1);
        if length < self.slots.len() / 2 {
            self.slots.truncate(length);
            self.slots.shrink_to_fit();
            self.free.retain(|slot| (*slot as usize) < length);
            self.free.shrink_to_fit();
            self.dirty.retain(|slot| (*slot as usize) < length);
            self.dirty.shrink_to_fit();
        }
    }
}
