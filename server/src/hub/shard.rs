//! One worker's connections and channels.
//!
//! [`Shard::turn`] is the fan-out: it drains the mailbox, joins the frames of each channel into one buffer, appends
//! that to every recipient's outbox and flushes a chunk of connections with one write each. The pump calls it again
//! after it has let the worker's other tasks run, so that what arrives meanwhile is joined with what still waits.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use dunlin_protocol::names::{ChannelName, SocketId, UserId};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::mailbox::Mail;
use super::outbox::{Flushed, Outbox};
use super::session::{self, Effect, Session, Subscription, Subscriptions};
use super::socket::Socket;
use super::wheel::Wheel;
use super::{Hub, Services, WorkerCounters};
use crate::apps::App;
use crate::broker::{Origin, Publication};
use crate::clock;
use crate::config::SocketsSection;
use crate::presence::{Cache, ConnectionRef, Join, JoinRefusal, Joined, Leave, SignIn};
use crate::storage::keys::{AppNum, ChannelKey, ChannelMap, KeyRef};

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

/// When to look at a connection.
#[derive(Debug)]
struct Timer {
    at_s: u32,
    slot: u32,
    generation: u32,
}

struct Drain {
    left: Vec<ConnectionRef>,
    per_second: usize,
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

struct Connection {
    socket: Socket,
    outbox: Outbox,
    phase: Phase,
    /// The socket blocked: the connection's own task flushes, fan-outs only append.
    armed: bool,
    /// In the queue of connections to flush.
    dirty: bool,
    /// Given out when the handshake was taken into the app's quota.
    counted: bool,
    /// The second in which something was last received.
    heard_s: u32,
    /// The second in which the socket last took something, while it is armed.
    accepted_s: u32,
    /// When the wheel will look at it next.
    timer_s: u32,
    waker: Waker,
    memberships: Vec<Membership>,
    session: Session,
    /// Messages that wait for the answer to a join.
    deferred: Option<VecDeque<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
struct Membership {
    channel: u32,
    /// Index in the channel's list, or [`PENDING`].
    position: u32,
    user_id: Option<UserId>,
}

const PENDING: u32 = u32::MAX;

/// What a connection that was too slow gets beyond the usual linger, so that a client which was merely suspended
/// learns why it was cut. It costs us one frame.
const CUT_LINGER_S: u32 = 30;

/// Messages that may wait for the answer to a join. A socket is not read meanwhile; this bounds a client whose
/// messages arrive by HTTP requests.
const MAX_DEFERRED: usize = 1024;

/// A channel as far as it is on this worker.
struct LocalChannel {
    key: Option<Arc<ChannelKey>>,
    app: Option<Arc<App>>,
    /// Slots of those who get its events.
    members: Vec<u32>,
    /// Members and those whose join is not answered yet.
    references: u32,
    /// Index in `groups` while mail is sorted.
    group: Option<u32>,
}

/// Frames of one channel that arrived together.
struct Group {
    channel: u32,
    frames: SmallVec<[(Bytes, Option<u32>); 4]>,
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

/// A connection's subscriptions, as its rules see them.
struct View<'a> {
    app: AppNum,
    memberships: &'a [Membership],
    channels: &'a ChannelMap<u32>,
}

impl Subscriptions for View<'_> {
    fn find(&self, channel: &str) -> Option<Subscription> {
        let channel = *self.channels.get(KeyRef::new(self.app, channel))?;
        let membership = &self.memberships[place(self.memberships, channel).ok()?];
        Some(if membership.position == PENDING {
            Subscription::Pending
        } else {
            Subscription::Joined {
                user_id: membership.user_id.clone(),
            }
        })
    }

    fn count(&self) -> usize {
        self.memberships.len()
    }
}

/// Where the membership in this channel is, or would be.
fn place(memberships: &[Membership], channel: u32) -> Result<usize, usize> {
    memberships.binary_search_by_key(&channel, |membership| membership.channel)
}

impl Connection {
    fn place(&self, channel: u32) -> Result<usize, usize> {
        place(&self.memberships, channel)
    }

    /// Something was received: it is alive, whatever it said.
    fn heard(&mut self, now_s: u32) {
        self.heard_s = now_s;
        if let Phase::Pinged { authorize_by_s, .. } = self.phase {
            self.phase = Phase::Open { authorize_by_s };
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. } | Phase::Pinged { .. })
    }

    /// The second in which something is due.
    fn deadline(&self, bounds: &Bounds) -> u32 {
        let (by_phase, authorize_by_s) = match self.phase {
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
        by_phase.min(stalled_s).min(authorize_by_s.unwrap_or(u32::MAX))
    }
}

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

    // ---------------------------------------------------------------- connections come

    /// Opens a connection: its greeting and `connection_established` are in its outbox.
    ///
    /// # Errors
    /// It is refused with this code; what was accepted is given back, to be told so.
    pub fn open(&mut self, accepted: Accepted) -> Result<ConnectionRef, Box<(Refused, Accepted)>> {
        if let Err(refused) = self.admit(&accepted.app) {
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
        let established = outgoing::connection_established(socket_id, self.bounds.activity_timeout_s);
        let mut outbox = Outbox::default();
        let mut first = BytesMut::with_capacity(accepted.greeting.len() + established.len());
        first.extend_from_slice(&accepted.greeting);
        first.extend_from_slice(&established);
        outbox.push(first.freeze());
        let authorize_by_s = accepted
            .app
            .authorized_connections_s
            .map(|seconds| self.now_s + seconds);
        let mut connection = Connection {
            socket: accepted.socket,
            outbox,
            phase: Phase::Open { authorize_by_s },
            armed: false,
            dirty: false,
            counted: authorize_by_s.is_none(),
            heard_s: self.now_s,
            accepted_s: self.now_s,
            timer_s: 0,
            waker: Waker::noop().clone(),
            memberships: Vec::new(),
            session: Session::new(accepted.app, socket_id),
            deferred: None,
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
        Ok(at)
    }

    fn admit(&self, app: &App) -> Result<(), Refused> {
        if self.drain.is_some() {
            return Err(Refused(CloseCode::ReconnectNow));
        }
        if !self.hub.has_room() {
            return Err(Refused(CloseCode::OverCapacity));
        }
        // A connection that has to authorize itself is counted once it has.
        if app.authorized_connections_s.is_none() {
            app.take_connection()
                .map_err(|_| Refused(CloseCode::OverConnectionQuota))?;
        }
        Ok(())
    }

    // ---------------------------------------------------------------- what a transport calls

    /// Notes the task that serves the connection, and lets it write if the socket was blocked. `Ready`: the
    /// connection is over, and so is the task.
    pub fn poll_write(&mut self, at: ConnectionRef, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connection(at) else {
            return Poll::Ready(());
        };
        if !connection.waker.will_wake(cx.waker()) {
            connection.waker.clone_from(cx.waker());
        }
        while let Some(connection) = self.connection(at) {
            if !connection.armed {
                break;
            }
            match connection.socket.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => self.remove(at.slot),
                Poll::Ready(Ok(())) => {
                    connection.armed = false;
                    self.flush(at.slot);
                }
            }
        }
        match self.connection(at) {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(
        &mut self,
        at: ConnectionRef,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<std::io::Result<usize>> {
        let now_s = self.now_s;
        let Some(connection) = self.connection(at) else {
            return Poll::Ready(Ok(0));
        };
        let poll = connection.socket.poll_read(cx, buffer);
        if poll.is_ready() {
            connection.heard(now_s);
        }
        poll
    }

    /// Whether the connection takes messages now; it does not while one of its messages waits for an answer.
    pub fn is_listening(&mut self, at: ConnectionRef) -> bool {
        self.connection(at)
            .is_some_and(|connection| connection.deferred.is_none())
    }

    /// Whether the connection is closing, so that what it still sends is of no interest.
    pub fn is_closing(&mut self, at: ConnectionRef) -> bool {
        self.connection(at).is_none_or(|connection| !connection.is_open())
    }

    /// Takes one message.
    pub fn receive(&mut self, at: ConnectionRef, text: &str) {
        self.counters().received_messages.fetch_add(1, Relaxed);
        let Some(connection) = self.connection(at).filter(|connection| connection.is_open()) else {
            return;
        };
        match &mut connection.deferred {
            None => self.decide(at, text),
            Some(deferred) if deferred.len() < MAX_DEFERRED => deferred.push_back(text.to_owned()),
            Some(_) => self.close(
                at,
                CloseCode::OverCapacity,
                "Too many messages wait for the answer to a subscription",
            ),
        }
    }

    /// Sends a frame, behind everything that is already on its way.
    pub fn send(&mut self, at: ConnectionRef, frame: Bytes) {
        if self.connection(at).is_some() {
            self.append(at.slot, frame);
        }
    }

    /// The peer has sent its close frame, or something that ends the conversation: answers with `frame` unless ours
    /// is out already, and ends once it is written.
    pub fn peer_closed(&mut self, at: ConnectionRef, frame: Bytes) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        if connection.is_open() {
            self.append(at.slot, frame);
        }
        self.end(at.slot, Phase::Closed { since_s: self.now_s });
    }

    /// Says why in a `pusher:error`, then closes. What waits for the connection is still sent.
    pub fn close(&mut self, at: ConnectionRef, code: CloseCode, message: &str) {
        if self.connection(at).is_none_or(|connection| !connection.is_open()) {
            return;
        }
        self.append(at.slot, outgoing::error(Some(code.code()), message));
        self.append(at.slot, outgoing::close_frame(code.code(), message));
        self.end(at.slot, Phase::Closing { since_s: self.now_s });
    }

    /// Closes with this frame and no further word, because what the peer sends is not WebSocket or not for us.
    pub fn fail(&mut self, at: ConnectionRef, frame: Bytes) {
        if self.is_closing(at) {
            return;
        }
        self.append(at.slot, frame);
        self.end(at.slot, Phase::Failing { since_s: self.now_s });
    }

    /// Leaves every channel and goes on to a phase of parting.
    fn end(&mut self, slot: u32, phase: Phase) {
        self.leave_everything(slot);
        if let Some(connection) = &mut self.slots[slot as usize].connection {
            connection.phase = phase;
            self.set_timer(slot);
            self.flush(slot);
        }
    }

    /// Flushes what the connection got during this poll; a transport calls it before it waits.
    pub fn flush_now(&mut self, at: ConnectionRef) {
        if self.connection(at).is_some() {
            self.flush(at.slot);
        }
    }

    /// The transport is gone.
    pub fn gone(&mut self, at: ConnectionRef) {
        if self.connection(at).is_some() {
            self.remove(at.slot);
        }
    }

    // ---------------------------------------------------------------- rules and their effects

    fn decide(&mut self, at: ConnectionRef, text: &str) {
        let Some(connection) = &mut self.slots[at.slot as usize].connection else {
            return;
        };
        let app = connection.session.app.num;
        let view = View {
            app,
            memberships: &connection.memberships,
            channels: &self.channel_index,
        };
        let effect = connection
            .session
            .on_message(text, &view, clock::monotonic_nanos());
        self.perform(at, effect, text);
    }

    fn perform(&mut self, at: ConnectionRef, effect: Effect, text: &str) {
        match effect {
            Effect::Nothing => {}
            Effect::Reply(frames) => self.append(at.slot, frames),
            Effect::Close { code, message } => self.close(at, code, &message),
            Effect::Wait => {
                if let Some(connection) = self.connection(at) {
                    connection
                        .deferred
                        .get_or_insert_default()
                        .push_front(text.to_owned());
                }
            }
            Effect::Join { channel, member } => self.join(at, channel, member),
            Effect::Leave { channel } => self.leave(at.slot, &channel),
            Effect::Publish {
                channel,
                event,
                data_literal,
                user_id,
            } => {
                self.publish(at, &channel, &event, &data_literal, user_id.as_ref());
            }
            Effect::SignIn {
                reply,
                user_id,
                watchlist,
            } => self.sign_in(at, reply, user_id, watchlist),
        }
    }

    fn join(
        &mut self,
        at: ConnectionRef,
        name: ChannelName,
        member: Option<dunlin_protocol::pusher::presence::PresenceMember>,
    ) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        let app = Arc::clone(&connection.session.app);
        let index = self.local_channel(&app, name);
        let channel = &mut self.channels[index as usize];
        channel.references += 1;
        let Some(key) = channel.key.clone() else { return };
        let Some(connection) = self.connection(at) else {
            return;
        };
        if let Err(place) = connection.place(index) {
            let membership = Membership {
                channel: index,
                position: PENDING,
                user_id: None,
            };
            if connection.memberships.capacity() == 0 {
                // Most connections have very few; the default growth would reserve four.
                connection.memberships.reserve_exact(1);
            }
            connection.memberships.insert(place, membership);
        }
        self.services.presence.join(Join {
            app,
            channel: key,
            connection: at,
            member,
        });
    }

    fn local_channel(&mut self, app: &Arc<App>, name: ChannelName) -> u32 {
        if let Some(index) = self.channel_index.get(KeyRef::new(app.num, name.as_str())) {
            return *index;
        }
        let key = ChannelKey::new(app.num, name);
        let channel = LocalChannel {
            key: Some(Arc::clone(&key)),
            app: Some(Arc::clone(app)),
            members: Vec::new(),
            references: 0,
            group: None,
        };
        let index = if let Some(index) = self.free_channels.pop() {
            self.channels[index as usize] = channel;
            index
        } else {
            self.channels.push(channel);
            u32::try_from(self.channels.len() - 1).expect("channels are bounded by subscriptions")
        };
        self.channel_index.get_or_insert_with(&key, || index);
        // Before the join: what is published from now on reaches this worker's mailbox.
        self.hub.directory().add(&key, self.worker);
        self.counters().channels.fetch_add(1, Relaxed);
        index
    }

    /// One connection less is in, or on its way into, the channel.
    fn release(&mut self, index: u32) {
        let channel = &mut self.channels[index as usize];
        channel.references -= 1;
        if channel.references > 0 {
            if channel.members.capacity() > 64 && channel.members.len() < channel.members.capacity() / 4 {
                channel.members.shrink_to(channel.members.len() * 2);
            }
            return;
        }
        channel.members = Vec::new();
        channel.app = None;
        if let Some(group) = channel.group.take() {
            self.groups[group as usize].frames.clear();
        }
        if let Some(key) = channel.key.take() {
            self.channel_index.remove(key.borrowed());
            self.hub.directory().remove(&key, self.worker);
            self.counters().channels.fetch_sub(1, Relaxed);
        }
        self.free_channels.push(index);
        if self.channel_index.is_empty() {
            self.channels = Vec::new();
            self.free_channels = Vec::new();
        }
    }

    fn leave(&mut self, slot: u32, name: &ChannelName) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        let Some(index) = self
            .channel_index
            .get(KeyRef::new(connection.session.app.num, name.as_str()))
            .copied()
        else {
            return;
        };
        if let Ok(place) = connection.place(index) {
            let membership = connection.memberships.remove(place);
            self.end_membership(membership);
        }
    }

    /// Takes the connection out of the channel's list, in constant time, and tells presence.
    fn end_membership(&mut self, membership: Membership) {
        let channel = &mut self.channels[membership.channel as usize];
        if membership.position != PENDING {
            channel.members.swap_remove(membership.position as usize);
            if let Some(moved) = channel.members.get(membership.position as usize).copied()
                && let Some(connection) = &mut self.slots[moved as usize].connection
                && let Ok(place) = connection.place(membership.channel)
            {
                connection.memberships[place].position = membership.position;
            }
            let channel = &self.channels[membership.channel as usize];
            if let (Some(app), Some(key)) = (channel.app.clone(), channel.key.clone()) {
                self.services.presence.leave(Leave {
                    app,
                    channel: key,
                    user_id: membership.user_id,
                });
            }
        }
        // A pending join is undone when its answer arrives and finds nobody waiting.
        self.release(membership.channel);
    }

    fn publish(
        &mut self,
        at: ConnectionRef,
        channel: &ChannelName,
        event: &str,
        data_literal: &str,
        user_id: Option<&UserId>,
    ) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        let app = Arc::clone(&connection.session.app);
        let except = Some(connection.session.socket_id);
        let publication = Publication {
            channel,
            event,
            data_literal,
            user_id,
            except,
            origin: Origin::Client,
        };
        app.counters.client_events.fetch_add(1, Relaxed);
        let mut answer = self.services.broker.publish(&app, &publication);
        let mut cx = Context::from_waker(Waker::noop());
        match std::pin::Pin::new(&mut answer).poll(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(overloaded)) => self.append(
                at.slot,
                outgoing::error(None, &format!("Client event rejected: {overloaded}")),
            ),
            // A broker that waits finishes by itself; a client event has no answer that could be late.
            Poll::Pending => drop(tokio::task::spawn_local(answer)),
        }
    }

    fn sign_in(&mut self, at: ConnectionRef, reply: Bytes, user_id: UserId, watchlist: Arc<[UserId]>) {
        self.append(at.slot, reply);
        let Some(connection) = self.connection(at) else {
            return;
        };
        let app = Arc::clone(&connection.session.app);
        self.users
            .entry((app.num, user_id.clone()))
            .or_default()
            .push(at.slot);
        self.services.presence.sign_in(&SignIn {
            app,
            connection: at,
            user_id,
            watchlist,
        });
        self.authorized(at);
    }

    /// The connection proved who it is: it counts towards the quota from now on, and its deadline falls.
    fn authorized(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        match &mut connection.phase {
            Phase::Open { authorize_by_s } | Phase::Pinged { authorize_by_s, .. } => *authorize_by_s = None,
            Phase::Closing { .. } | Phase::Failing { .. } | Phase::Closed { .. } => return,
        }
        if !connection.counted {
            if connection.session.app.take_connection().is_err() {
                let code = CloseCode::OverConnectionQuota;
                self.close(at, code, code.message());
            } else {
                connection.counted = true;
            }
        }
    }

    // ---------------------------------------------------------------- connections go

    fn leave_everything(&mut self, slot: u32) {
        let at = self.reference(slot);
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        connection.deferred = None;
        let memberships = mem::take(&mut connection.memberships);
        let app = Arc::clone(&connection.session.app);
        if mem::take(&mut connection.counted) {
            app.give_connection_back();
        }
        if let Some((user_id, watchlist)) = connection.session.sign_out() {
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

    // ---------------------------------------------------------------- writing

    /// Puts a frame into the outbox and the connection into the queue of those to flush.
    fn append(&mut self, slot: u32, frame: Bytes) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        connection.outbox.push(frame);
        if connection.outbox.bytes() > self.bounds.outbox_bytes && connection.is_open() {
            self.overflowed.push(slot);
        }
        if !connection.dirty && !connection.armed {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    fn flush(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if connection.armed || connection.outbox.is_empty() {
            self.end_if_done(slot);
            return;
        }
        let mut written = 0;
        let flushed = connection.outbox.flush(
            &mut connection.socket,
            &connection.waker,
            &mut self.scratch,
            &mut written,
        );
        let counters = self.hub.counters(self.worker);
        counters.writes.fetch_add(1, Relaxed);
        counters.written_bytes.fetch_add(written, Relaxed);
        match flushed {
            Ok(Flushed::All) => self.end_if_done(slot),
            Ok(Flushed::Blocked) => {
                connection.armed = true;
                connection.accepted_s = self.now_s;
                connection.waker.wake_by_ref();
                self.set_timer(slot);
            }
            Err(_) => self.remove(slot),
        }
    }

    /// With the last byte of a connection that is parting, the rest of the parting.
    fn end_if_done(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if connection.armed || !connection.outbox.is_empty() {
            return;
        }
        match connection.phase {
            Phase::Open { .. } | Phase::Pinged { .. } => {}
            Phase::Closing { .. } if !matches!(connection.socket, Socket::Pipe(_)) => {}
            Phase::Closing { .. } | Phase::Failing { .. } => connection.socket.end(&connection.waker),
            Phase::Closed { .. } => self.remove(slot),
        }
    }

    /// Closes a connection that cannot keep up. What it missed is not sent any more, only why.
    fn cut(&mut self, slot: u32) {
        let Some(connection) = &mut self.slots[slot as usize].connection else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        connection.outbox.keep_only_the_torn_piece();
        self.counters().closed_slow.fetch_add(1, Relaxed);
        let at = self.reference(slot);
        self.close(
            at,
            CloseCode::OverCapacity,
            "Too slow: more is waiting for this connection than may wait",
        );
        let since_s = self.now_s + CUT_LINGER_S;
        if let Some(connection) = self.connection(at) {
            connection.phase = Phase::Closing { since_s };
        }
    }

    // ---------------------------------------------------------------- the fan-out

    /// One turn: everything in the mailbox into outboxes, then a chunk of connections flushed. Whether there is more to do.
    pub fn turn(&mut self) -> bool {
        self.sort_mail();
        for _ in 0..self.bounds.flush_chunk {
            let Some(slot) = self.dirty.pop_front() else { break };
            if let Some(connection) = self
                .slots
                .get_mut(slot as usize)
                .and_then(|slot| slot.connection.as_mut())
            {
                connection.dirty = false;
                self.flush(slot);
            }
        }
        while let Some(slot) = self.overflowed.pop() {
            self.cut(slot);
        }
        !self.dirty.is_empty()
    }

    fn sort_mail(&mut self) {
        let mut mail = mem::take(&mut self.mail);
        self.hub.mailbox(self.worker).drain(&mut mail);
        for letter in mail.drain(..) {
            match letter {
                Mail::Publication {
                    channel,
                    frame,
                    except,
                } => self.collect(&channel, frame, except),
                Mail::Joined {
                    to,
                    channel,
                    app,
                    answer,
                } => self.answered(to, &channel, &app, *answer),
                Mail::Direct { to, frame } => self.send(to, frame),
                Mail::Received { from, messages } => {
                    let now_s = self.now_s;
                    if let Some(connection) = self.connection(from) {
                        connection.heard(now_s);
                    }
                    for message in messages {
                        self.receive(from, &message);
                    }
                }
                Mail::Gone { connection } => self.gone(connection),
                Mail::TerminateUser { app, user_id } => self.terminate_user(app, &user_id),
                Mail::Drain { seconds } => self.start_draining(seconds),
            }
        }
        self.mail = mail;
        for index in 0..self.groups.len() {
            self.deliver(index);
        }
        self.groups.clear();
    }

    /// Adds a frame to its channel's group.
    fn collect(&mut self, key: &ChannelKey, frame: Bytes, except: Option<SocketId>) {
        let Some(index) = self.channel_index.get(key.borrowed()).copied() else {
            return;
        };
        let except = except.and_then(|socket_id| self.slot_of(socket_id));
        let next = self.groups.len();
        let channel = &mut self.channels[index as usize];
        let group = *channel
            .group
            .get_or_insert_with(|| u32::try_from(next).unwrap_or(u32::MAX)) as usize;
        if group == next {
            self.groups.push(Group {
                channel: index,
                frames: SmallVec::new(),
            });
        }
        self.groups[group].frames.push((frame, except));
    }

    /// Appends a group's frames, joined, to the outbox of everybody in its channel.
    fn deliver(&mut self, group: usize) {
        let Group {
            channel: index,
            ref mut frames,
        } = self.groups[group];
        let frames = mem::take(frames);
        if frames.is_empty() {
            return; // Delivered before, or the channel is gone and its index may be another's.
        }
        let channel = &mut self.channels[index as usize];
        channel.group = None;
        if channel.members.is_empty() {
            return;
        }
        let joined = match &frames[..] {
            [(frame, _)] => frame.clone(),
            several => {
                let mut joined = BytesMut::with_capacity(several.iter().map(|(frame, _)| frame.len()).sum());
                for (frame, _) in several {
                    joined.extend_from_slice(frame);
                }
                joined.freeze()
            }
        };
        let has_exceptions = frames.iter().any(|(_, except)| except.is_some());
        let members = mem::take(&mut channel.members);
        for slot in &members {
            if has_exceptions && frames.iter().any(|(_, except)| *except == Some(*slot)) {
                for (frame, except) in &frames {
                    if *except != Some(*slot) {
                        self.append(*slot, frame.clone());
                    }
                }
            } else {
                self.append(*slot, joined.clone());
            }
        }
        let deliveries = (members.len() * frames.len()) as u64;
        self.counters().deliveries.fetch_add(deliveries, Relaxed);
        let channel = &mut self.channels[index as usize];
        channel.members = members;
        if let Some(app) = &channel.app {
            app.counters.deliveries.fetch_add(deliveries, Relaxed);
        }
    }

    /// The slot of a connection of this worker by its id.
    fn slot_of(&self, socket_id: SocketId) -> Option<u32> {
        let slot = slot_in(socket_id, self.worker)?;
        let connection = self.slots.get(slot as usize)?.connection.as_ref()?;
        (connection.session.socket_id == socket_id).then_some(slot)
    }

    /// Confirms or refuses a join, at its place among the channel's publications.
    fn answered(
        &mut self,
        to: ConnectionRef,
        key: &Arc<ChannelKey>,
        app: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        let index = self.channel_index.get(key.borrowed()).copied();
        // What came before the answer is for those who were in the channel before.
        if let Some(index) = index
            && let Some(group) = self.channels[index as usize].group
        {
            self.deliver(group as usize);
        }
        let waiting = index.and_then(|index| {
            let connection = self.connection(to)?;
            let place = connection.place(index).ok()?;
            (connection.memberships[place].position == PENDING).then_some((index, place))
        });
        match (waiting, answer) {
            (Some((index, place)), Ok(joined)) => self.enter(to, index, place, key.name(), joined),
            (Some((index, place)), Err(refusal)) => {
                if let Some(connection) = self.connection(to) {
                    connection.memberships.remove(place);
                }
                self.release(index);
                self.append(to.slot, session::join_refused(key.name(), refusal));
            }
            (None, Ok(joined)) => {
                let leave = Leave {
                    app: Arc::clone(app),
                    channel: Arc::clone(key),
                    user_id: joined.user_id,
                };
                self.services.presence.leave(leave);
            }
            (None, Err(_)) => {}
        }
        self.resume(to);
    }

    fn enter(&mut self, to: ConnectionRef, index: u32, place: usize, name: &ChannelName, joined: Joined) {
        let confirmation = match &joined.members {
            Some(members) => outgoing::subscription_succeeded_presence(name.as_str(), members),
            None => outgoing::subscription_succeeded(name.as_str()),
        };
        self.append(to.slot, confirmation);
        match joined.cache {
            Cache::None => {}
            Cache::Miss => self.append(to.slot, outgoing::cache_miss(name.as_str())),
            Cache::Hit(cached) => {
                self.append(
                    to.slot,
                    outgoing::event(name.as_str(), &cached.name, &cached.data_literal, None),
                );
            }
        }
        let members = &mut self.channels[index as usize].members;
        let position = u32::try_from(members.len()).unwrap_or(PENDING);
        if members.capacity() == 0 {
            members.reserve_exact(1);
        }
        members.push(to.slot);
        if let Some(connection) = self.connection(to) {
            let membership = &mut connection.memberships[place];
            membership.position = position;
            membership.user_id = joined.user_id;
            connection.session.joined(name);
            if connection.session.is_authorized() {
                self.authorized(to);
            }
        }
    }

    /// Goes on with the messages that waited for an answer.
    fn resume(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        let Some(mut waiting) = connection.deferred.take() else {
            return;
        };
        while let Some(message) = waiting.pop_front() {
            self.decide(at, &message);
            let Some(connection) = self.connection(at) else {
                return;
            };
            if let Some(again) = &mut connection.deferred {
                again.append(&mut waiting);
                return;
            }
        }
        if let Some(connection) = self.connection(at) {
            // Its task stopped reading meanwhile.
            connection.waker.wake_by_ref();
        }
    }

    fn terminate_user(&mut self, app: AppNum, user_id: &UserId) {
        let slots = self
            .users
            .get(&(app, user_id.clone()))
            .cloned()
            .unwrap_or_default();
        for slot in slots {
            self.close(
                self.reference(slot),
                CloseCode::Unauthorized,
                "You got disconnected by the app.",
            );
        }
    }

    // ---------------------------------------------------------------- time

    fn set_timer(&mut self, slot: u32) {
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

    fn check(&mut self, timer: &Timer) {
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
                Phase::Open {
                    authorize_by_s: Some(by_s),
                }
                | Phase::Pinged {
                    authorize_by_s: Some(by_s),
                    ..
                } if by_s <= now_s => {
                    self.close(
                        at,
                        CloseCode::Unauthorized,
                        "Connection not authorized within timeout",
                    );
                }
                _ if connection.armed && connection.accepted_s + bounds.write_stall_s <= now_s => {
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
    fn start_draining(&mut self, seconds: u32) {
        let open = |slot: &u32| self.slots[*slot as usize].connection.is_some();
        let slots = 0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let left: Vec<_> = slots.filter(open).map(|slot| self.reference(slot)).collect();
        let per_second = left.len().div_ceil(seconds.max(1) as usize).max(1);
        self.drain = Some(Drain { left, per_second });
        self.go_on_draining();
    }

    fn go_on_draining(&mut self) {
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

/// The lower bits of an id's second number hold the slot and the worker, so that an excluded connection is found
/// without a map; the rest is random, so that knowing one id does not give another.
const SLOT_BITS: u32 = 22;
const WORKER_BITS: u32 = 6;
/// The second number stays below 2^53, so that a client that reads it as a floating-point number keeps it whole.
const RANDOM_BITS: u32 = 53 - SLOT_BITS - WORKER_BITS;

fn new_socket_id(at: ConnectionRef) -> SocketId {
    let random: u64 = rand::random();
    let place = u64::from(at.worker) << SLOT_BITS | u64::from(at.slot);
    let second = (random & ((1 << RANDOM_BITS) - 1)) << (SLOT_BITS + WORKER_BITS) | place;
    SocketId::new(u32::try_from(random >> 32).unwrap_or_default(), second)
}

fn slot_in(socket_id: SocketId, worker: u16) -> Option<u32> {
    let place = socket_id.second() & ((1 << (SLOT_BITS + WORKER_BITS)) - 1);
    (place >> SLOT_BITS == u64::from(worker))
        .then(|| u32::try_from(place & ((1 << SLOT_BITS) - 1)).ok())
        .flatten()
}
