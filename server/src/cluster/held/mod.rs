//! Something that this node holds: what it wants of it, what it has told Redis, and what it heard.
//!
//! [`Held`] is a state machine under a short lock. Shards change what is wanted, the pump asks for the next [`Step`] and
//! brings the answer back, the subscription brings messages. It never waits; whatever has to reach the node's sockets is
//! handed on under the lock, so that everything about one channel has one order.
//!
//! ```text
//! Cold ── subscribe ──► Subscribing ── hold, with the members ──► Syncing ──► Live ── nobody for a while ──► Parting
//!   ▲                                                                ▲          │                              │
//!   │ Redis was lost                        a message is missing ────┴──────────┘        Gone ◄── unsubscribe ─┘
//! ```

mod answers;
mod binds;
mod saying;
mod stream;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing::MemberFragment;

use super::Node;
use super::message::{Event, Message};
use super::request::{Done, Hold};
use super::watch::Watcher;
use crate::apps::App;
use crate::clock;
use crate::lock::lock;
use crate::presence::{ConnectionRef, Since};
use crate::storage::keys::ChannelKey;
use crate::storage::redis::names::{Kind, Thing};
use answers::Answered;
use binds::Binds;
use saying::Nature;
pub(super) use saying::{Rules, kept, reaped};

/// Messages that wait for an answer to be put in front of them. Beyond, they are dropped, and what is missing is noticed.
const MAX_BUFFERED: usize = 10_000;

/// Something that this node holds.
pub(super) struct Held {
    pub(super) thing: Thing,
    pub(super) app: Arc<App>,
    /// Of a channel.
    key: Option<Arc<ChannelKey>>,
    nature: Nature,
    pub(super) topic: Arc<str>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Redis knows nothing of us, or what it knows is in doubt.
    Cold,
    Subscribing,
    /// Subscribed; what is heard waits until we know how things stand.
    Syncing,
    Live,
    /// Nobody is left; Redis is being told.
    Parting,
    Unsubscribing,
    /// Not in the table any more; whoever still has a reference looks again.
    Gone,
}

struct State {
    phase: Phase,
    /// Counts the times at which everything said before became void; an answer to an older saying is none.
    round: u32,
    is_queued: bool,
    /// In the list of those that nobody wants.
    is_resting: bool,
    is_asking: bool,
    /// Redis has to be told something.
    is_dirty: bool,
    /// … namely everything.
    is_full: bool,
    /// The pump counts it among those that have to be live before the node is ready.
    is_awaited: bool,
    /// Since when nobody has wanted it, monotonic seconds.
    idle_since_s: Option<u32>,
    connections: u32,
    users: HashMap<UserId, LocalUser>,
    /// Users who came and went, of whom Redis has to be told in this order: whoever looks on sees each of them.
    changed: Vec<(UserId, Change)>,
    binds: Binds,
    joins: Vec<Waiting>,
    watchers: Vec<Watcher>,
    /// Answers that stand behind messages which have not come yet.
    answers: VecDeque<(u64, Vec<Answered>)>,
    position: Option<Position>,
    /// The last event without a place that was heard, by the moment at which it was published.
    placeless: u64,
    members: BTreeMap<UserId, MemberFragment>,
    /// Redis had forgotten who is here, and may not have been told by everybody yet.
    is_in_doubt: bool,
    /// A user: signed in somewhere. `None`: not known yet.
    is_online: Option<bool>,
    buffer: Vec<Message>,
    /// The last count that was announced, and its serial.
    count: Option<(u64, u32)>,
    /// While somebody who needs it waits for an answer: the events that passed meanwhile.
    recent: Option<Vec<(u64, Arc<Event>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Enters,
    Leaves,
}

struct LocalUser {
    connections: u32,
    user_info: Box<str>,
    /// Redis has let it in.
    is_in: bool,
}

/// A connection that waits for the answer.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) connection: ConnectionRef,
    pub(super) user_id: Option<UserId>,
    /// As whom it is bound, where webhooks tell of that.
    pub(super) bound: Option<UserId>,
    pub(super) since: Option<Since>,
}

/// A saying that is under way.
#[derive(Debug)]
pub(super) struct Asked {
    round: u32,
    joins: Vec<Waiting>,
    users: Vec<UserId>,
    is_parting: bool,
    is_sync: bool,
}

/// What the pump is to do next.
pub(super) enum Step {
    Nothing,
    Subscribe,
    Unsubscribe,
    Say(Box<Hold>, Asked),
}

/// What became of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// There is a next step.
    pub(super) goes_on: bool,
    /// It was awaited, and is there.
    pub(super) arrived: bool,
    /// It is to be taken out of the table.
    pub(super) is_gone: bool,
    /// Nobody wants it; it is to be let go of after a while.
    pub(super) rests: bool,
    /// A message was missing, and is made up for if that can be.
    pub(super) had_gap: bool,
    /// Redis had forgotten it: after a while it is to be looked at again.
    pub(super) begins_to_doubt: bool,
}

impl Held {
    pub(super) fn new(thing: Thing, app: Arc<App>, key: Option<Arc<ChannelKey>>, topic: Arc<str>) -> Self {
        Self {
            nature: Nature::of(thing.kind, key.as_ref().map(|key| key.name()), Some(&app)),
            thing,
            app,
            key,
            topic,
            state: Mutex::new(State {
                phase: Phase::Cold,
                round: 0,
                is_queued: false,
                is_resting: false,
                is_asking: false,
                is_dirty: true,
                is_full: true,
                is_awaited: false,
                idle_since_s: None,
                connections: 0,
                users: HashMap::new(),
                changed: Vec::new(),
                binds: Binds::default(),
                joins: Vec::new(),
                watchers: Vec::new(),
                answers: VecDeque::new(),
                position: None,
                placeless: 0,
                members: BTreeMap::new(),
                is_in_doubt: false,
                is_online: None,
                buffer: Vec::new(),
                count: None,
                recent: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A quota has no messages: nobody listens to it.
    fn has_topic(&self) -> bool {
        self.thing.kind != Kind::Quota
    }

    /// Changes what is wanted; `None` if it is gone.
    fn want(&self, change: impl FnOnce(&mut State)) -> Option<Outcome> {
        let mut state = self.lock();
        if state.phase == Phase::Gone {
            return None;
        }
        change(&mut state);
        state.is_dirty = true;
        state.idle_since_s = state.is_idle().then(clock::monotonic_seconds);
        Some(state.outcome())
    }

    /// A connection is to be let in. Its user's info is the one of the first of its connections.
    pub(super) fn join(&self, waiting: Waiting, user_info: Option<Box<str>>) -> Option<Outcome> {
        self.want(|state| {
            state.connections += 1;
            if let Some(user_id) = &waiting.user_id {
                state.enter(user_id, user_info);
            }
            if let Some(bound) = &waiting.bound {
                state.binds.bind(bound);
            }
            state.joins.push(waiting);
        })
    }

    /// A connection that was let in has left.
    pub(super) fn leave(&self, user_id: Option<&UserId>, bound: Option<&UserId>) -> Option<Outcome> {
        self.want(|state| {
            state.connections = state.connections.saturating_sub(1);
            if let Some(user_id) = user_id {
                state.leave(user_id);
            }
            if let Some(bound) = bound {
                state.binds.unbind(bound);
            }
        })
    }

    /// A connection that needs no answer: one that signed in.
    pub(super) fn add_connection(&self) -> Option<Outcome> {
        self.want(|state| state.connections += 1)
    }

    /// Somebody wants to know of this user.
    pub(super) fn watch(&self, watcher: Watcher, node: &dyn Node) -> Option<Outcome> {
        self.want(|state| {
            if let Some(is_online) = state.is_online.filter(|_| state.phase == Phase::Live) {
                watcher.first_seen(is_online, node);
            }
            state.watchers.push(watcher);
        })
    }

    pub(super) fn unwatch(&self, connection: ConnectionRef) -> Option<Outcome> {
        self.want(|state| {
            state
                .watchers
                .retain(|watcher| watcher.connection() != connection);
        })
    }

    /// What to do now, if anything. The pump does it and brings back how it went.
    pub(super) fn step(&self, node_id: &str, rules: &Rules) -> Step {
        let mut state = self.lock();
        state.is_queued = false;
        if state.is_asking {
            return Step::Nothing;
        }
        if state.phase == Phase::Cold {
            // Nobody wants it any more; Redis may think so still.
            state.phase = if state.is_idle() {
                Phase::Parting
            } else if self.has_topic() {
                Phase::Subscribing
            } else {
                Phase::Live
            };
            if state.phase == Phase::Subscribing {
                state.is_asking = true;
                return Step::Subscribe;
            }
        }
        match state.phase {
            Phase::Unsubscribing => {
                state.is_asking = true;
                Step::Unsubscribe
            }
            Phase::Syncing | Phase::Live | Phase::Parting if state.is_dirty => {
                let (hold, asked) = self.say(&mut state, node_id, rules);
                Step::Say(Box::new(hold), asked)
            }
            Phase::Cold
            | Phase::Subscribing
            | Phase::Syncing
            | Phase::Live
            | Phase::Parting
            | Phase::Gone => Step::Nothing,
        }
    }

    /// Redis has confirmed the subscription.
    pub(super) fn subscribed(&self) -> Outcome {
        let mut state = self.lock();
        state.is_asking = false;
        if state.phase == Phase::Subscribing {
            state.phase = Phase::Syncing;
            state.is_dirty = true;
            state.is_full = true;
        }
        state.outcome()
    }

    /// The subscription has ended, as was wanted.
    pub(super) fn unsubscribed(&self) -> Outcome {
        let mut state = self.lock();
        state.is_asking = false;
        if state.phase == Phase::Unsubscribing {
            state.phase = Phase::Cold;
            state.forget();
            if state.is_idle() {
                return state.end();
            }
        }
        state.outcome()
    }

    /// It could not be done; how things stand in Redis is not known.
    pub(super) fn failed(&self, asked: Option<Asked>) {
        let mut state = self.lock();
        state.is_asking = false;
        state.is_dirty = true;
        state.is_full = true;
        state.recent = None;
        if let Some(asked) = asked {
            state.wait_again(asked.joins);
        }
    }

    /// What follows from a failure on which nothing begins anew.
    pub(super) fn asks_again(&self) -> Outcome {
        self.lock().outcome()
    }

    /// Redis was lost, or everything it knows of this node: from the beginning. `is_subscribed`: but for the
    /// subscription, which lives on. Returns whether to queue it.
    pub(super) fn restart(&self, is_subscribed: bool, is_awaited: bool) -> bool {
        let mut state = self.lock();
        state.round = state.round.wrapping_add(1);
        state.is_dirty = true;
        state.is_full = true;
        state.recent = None;
        state.is_awaited = is_awaited && state.phase != Phase::Gone;
        state.phase = match state.phase {
            Phase::Gone => Phase::Gone,
            Phase::Live | Phase::Syncing if is_subscribed && self.has_topic() => Phase::Syncing,
            same @ (Phase::Subscribing | Phase::Unsubscribing | Phase::Parting | Phase::Live)
                if is_subscribed =>
            {
                same
            }
            _ => Phase::Cold,
        };
        if !is_subscribed {
            state.is_asking = false;
        }
        state.phase != Phase::Gone && state.enqueue()
    }

    /// Time has passed since Redis had forgotten: who has not come back by now is gone.
    pub(super) fn end_doubt(&self) -> Outcome {
        let mut state = self.lock();
        if mem::take(&mut state.is_in_doubt) && state.phase == Phase::Live {
            state.resync();
        }
        state.outcome()
    }

    /// Everything is to be said again: Redis may have forgotten.
    pub(super) fn assert_again(&self) -> bool {
        let mut state = self.lock();
        state.is_dirty = true;
        state.is_full = true;
        state.phase == Phase::Live && state.enqueue()
    }

    /// Whether nobody has wanted it for so long that it is to be let go of; then it is queued.
    pub(super) fn let_go(&self, now_s: u32, linger_s: u32) -> LetGo {
        let mut state = self.lock();
        let linger_s = if self.has_topic() { linger_s } else { 0 };
        let is_due = state
            .idle_since_s
            .map(|since_s| since_s.saturating_add(linger_s) <= now_s);
        match (is_due, state.phase) {
            (None, _) | (_, Phase::Gone) => {
                state.is_resting = false;
                LetGo::No
            }
            (Some(true), Phase::Live) if !state.is_asking && !state.is_dirty => {
                state.is_resting = false;
                state.phase = Phase::Parting;
                state.is_dirty = true;
                if state.enqueue() { LetGo::Queue } else { LetGo::No }
            }
            (Some(_), _) => LetGo::Later,
        }
    }

    /// Redis has answered.
    pub(super) fn answered(&self, asked: Asked, mut done: Done, node: &dyn Node) -> Outcome {
        let mut state = self.lock();
        let state = &mut *state;
        state.is_asking = false;
        if asked.round != state.round {
            // What it said is void, but those who wait still do.
            state.wait_again(asked.joins);
            return state.outcome();
        }
        if self.thing.kind == Kind::Quota {
            return self.admit(state, asked, done.without_place, node);
        }
        let is_known = state
            .position
            .is_none_or(|position| position.epoch == done.position.epoch);
        if state.phase == Phase::Live && !is_known {
            // Redis has begun a new count: what we have heard does not join on to it.
            state.wait_again(asked.joins);
            state.resync();
            return state.outcome();
        }
        if asked.is_parting {
            // Whoever has come meanwhile waits for a new beginning: there may be no subscription any more.
            state.wait_again(asked.joins);
            state.phase = Phase::Unsubscribing;
            return state.outcome();
        }
        let joins = self.refuse(state, &asked, &done);
        let answers = self.prepare(joins, &done);
        if asked.is_sync && state.phase == Phase::Syncing {
            return self.go_live(state, &mut done, answers, node);
        }
        state.answers.push_back((done.position.serial, answers));
        self.release(state, node);
        state.outcome()
    }
}

/// What [`Held::let_go`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetGo {
    /// Somebody wants it again, or it is gone.
    No,
    Later,
    Queue,
}

impl State {
    fn is_idle(&self) -> bool {
        self.connections == 0 && self.watchers.is_empty() && self.joins.is_empty()
    }

    /// Whether it was not in the queue; it is now.
    fn enqueue(&mut self) -> bool {
        !mem::replace(&mut self.is_queued, true)
    }

    fn outcome(&mut self) -> Outcome {
        let has_work = match self.phase {
            Phase::Cold | Phase::Unsubscribing => true,
            Phase::Syncing | Phase::Live | Phase::Parting => self.is_dirty,
            Phase::Subscribing | Phase::Gone => false,
        };
        Outcome {
            goes_on: has_work && !self.is_asking && self.enqueue(),
            rests: self.idle_since_s.is_some() && !mem::replace(&mut self.is_resting, true),
            ..Outcome::default()
        }
    }

    fn end(&mut self) -> Outcome {
        self.phase = Phase::Gone;
        Outcome {
            is_gone: true,
            arrived: mem::take(&mut self.is_awaited),
            ..Outcome::default()
        }
    }

    /// What was heard does not join on: asks how things stand, and lets what is heard wait. Before a new subscription
    /// that is what is about to happen anyway.
    fn resync(&mut self) {
        if self.phase == Phase::Live {
            self.phase = Phase::Syncing;
        }
        self.is_dirty = true;
        self.is_full = true;
        self.recent = None;
    }

    /// Whether this event without a place was not heard before, on another connection.
    fn is_new(&mut self, message: &Message) -> bool {
        let is_new = message.position.epoch > self.placeless;
        self.placeless = self.placeless.max(message.position.epoch);
        is_new
    }

    fn buffer(&mut self, message: Message) {
        if self.buffer.len() < MAX_BUFFERED {
            self.buffer.push(message);
        }
    }

    /// The subscription is over, and with it what it has told us.
    fn forget(&mut self) {
        self.position = None;
        self.members.clear();
        self.is_in_doubt = false;
        self.is_online = None;
        self.buffer.clear();
        self.is_dirty = true;
        self.is_full = true;
    }

    fn enter(&mut self, user_id: &UserId, user_info: Option<Box<str>>) {
        if let Some(user) = self.users.get_mut(user_id) {
            user.connections += 1;
            return;
        }
        let user = LocalUser {
            connections: 1,
            user_info: user_info.unwrap_or_else(|| "{}".into()),
            is_in: false,
        };
        self.users.insert(user_id.clone(), user);
        self.changed.push((user_id.clone(), Change::Enters));
    }

    fn leave(&mut self, user_id: &UserId) {
        let Some(user) = self.users.get_mut(user_id) else {
            return;
        };
        user.connections -= 1;
        if user.connections == 0 {
            let was_in = user.is_in;
            self.users.remove(user_id);
            if was_in {
                self.changed.push((user_id.clone(), Change::Leaves));
            }
        }
    }

    /// Those whose question was lost ask again, in front of whoever came since.
    fn wait_again(&mut self, mut joins: Vec<Waiting>) {
        joins.append(&mut self.joins);
        self.joins = joins;
        self.is_dirty = true;
    }

    /// Answers that are true no more: the questions stand.
    fn take_back(&mut self, answers: Vec<Answered>) {
        if !answers.is_empty() {
            self.is_full = true;
            self.wait_again(answers.into_iter().map(|answer| answer.waiting).collect());
        }
    }
}
