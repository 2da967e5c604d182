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

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_protocol::names::{ChannelKind, ChannelName, UserId};
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing::{MemberFragment, PresenceList};

use super::Node;
use super::message::{Body, Event, Message};
use super::request::{Done, Hold, Kept, Known, Past, Said};
use super::watch::Watcher;
use crate::apps::{App, Apps};
use crate::broker::{Origin, Overloaded, Publication};
use crate::clock;
use crate::presence::{
    Announcement, Cache, ConnectionRef, JoinRefusal, Joined, MAX_RECOVERED, Recovery, Since,
};
use crate::storage::keys::ChannelKey;
use crate::storage::memory::{CachedEvent, PastEvent};
use crate::storage::redis::names::{Kind, Thing};

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

/// What follows from a thing's name and its app's settings.
#[derive(Clone, Copy, Debug)]
struct Nature {
    /// As the script knows it.
    kind: &'static str,
    is_presence: bool,
    is_cache: bool,
    /// Whether subscribers are told how many they are.
    is_counted: bool,
    kept: Kept,
    /// Of distinct users, or of connections for a quota; 0: none.
    limit: u32,
}

impl Nature {
    /// `app`: absent if this node does not know it.
    fn of(kind: Kind, channel: Option<&ChannelName>, app: Option<&App>) -> Self {
        let channel_kind = channel.map(ChannelName::kind);
        let is = |what: fn(ChannelKind) -> bool| channel_kind.is_some_and(what);
        let is_presence = is(ChannelKind::is_presence);
        let name = match kind {
            Kind::Channel if is(ChannelKind::is_user) => "own",
            Kind::Channel => "channel",
            Kind::User => "user",
            Kind::Quota => "quota",
        };
        Self {
            kind: name,
            is_presence,
            is_cache: is(ChannelKind::is_cache),
            is_counted: name == "channel" && !is_presence && app.is_some_and(|app| app.subscription_count),
            kept: match (app, channel) {
                (Some(app), Some(channel)) => kept(app, channel),
                _ => Kept::default(),
            },
            limit: app.map_or(0, |app| match kind {
                Kind::Channel => app.limits.presence_members,
                Kind::User => 0,
                Kind::Quota => app.limits.connections,
            }),
        }
    }
}

/// The rules that are the same for everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) publish: &'static str,
    pub(super) count_above: u32,
    pub(super) count_every_us: u64,
    pub(super) settle_ms: u64,
    pub(super) outbox: usize,
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
    joins: Vec<Waiting>,
    watchers: Vec<Watcher>,
    /// Answers that stand behind messages which have not come yet.
    answers: VecDeque<(u64, Vec<Answered>)>,
    position: Option<Position>,
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
    pub(super) since: Option<Since>,
}

/// What a connection is told, but for what depends on the moment.
struct Answered {
    waiting: Waiting,
    refusal: Option<JoinRefusal>,
    cache: Cache,
    recovery: Option<Recovery>,
    /// The number of subscribers, if it was announced between the answer and its place.
    count: Option<u32>,
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
                joins: Vec::new(),
                watchers: Vec::new(),
                answers: VecDeque::new(),
                position: None,
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            state.joins.push(waiting);
        })
    }

    /// A connection that was let in has left.
    pub(super) fn leave(&self, user_id: Option<&UserId>) -> Option<Outcome> {
        self.want(|state| {
            state.connections = state.connections.saturating_sub(1);
            if let Some(user_id) = user_id {
                state.leave(user_id);
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
                .retain(|watcher| watcher.connection() != connection)
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

    fn say(&self, state: &mut State, node_id: &str, rules: &Rules) -> (Hold, Asked) {
        let is_parting = state.phase == Phase::Parting;
        let is_sync = state.phase == Phase::Syncing;
        let joins = mem::take(&mut state.joins);
        let full = mem::take(&mut state.is_full);
        let changed = mem::take(&mut state.changed);
        state.is_dirty = false;
        state.is_asking = true;
        let told: Vec<(UserId, Change)> = if full {
            let users = state.users.keys();
            users.map(|user_id| (user_id.clone(), Change::Enters)).collect()
        } else {
            changed
        };
        let say = |(user_id, change): &(UserId, Change)| match (change, state.users.get(user_id)) {
            (Change::Enters, Some(user)) => Said::Enters(
                user_id.clone(),
                user.connections,
                !user.is_in,
                user.user_info.clone(),
            ),
            // Whoever has entered and left since was never in.
            (Change::Enters, None) | (Change::Leaves, _) => Said::Leaves((user_id.clone(),)),
        };
        let users = told.iter().map(say).collect();
        let Nature { kept, is_cache, .. } = self.nature;
        // Exactness where the past counts: what passes between the answer and its place is not to be missed.
        let needs_recent = (kept.size > 0 || is_cache) && !joins.is_empty() && !is_sync;
        if needs_recent {
            state.recent.get_or_insert_default();
        }
        let hold = Hold {
            node: node_id.to_owned(),
            thing: self.thing.to_string(),
            app: self.thing.app.to_string(),
            channel: self.thing.name.to_string(),
            publish: rules.publish,
            topic: self.has_topic().then(|| self.topic.to_string()),
            kind: self.nature.kind,
            count: state.connections,
            listen: self.has_topic() && !is_parting,
            users,
            full,
            limit: self.nature.limit,
            joins: u32::try_from(joins.len()).unwrap_or(u32::MAX),
            counted: self.nature.is_counted,
            above: rules.count_above,
            every_us: rules.count_every_us,
            settle_ms: rules.settle_ms,
            outbox: rules.outbox,
            cache: is_cache,
            history: kept,
            past: self.past(&joins, state.position.filter(|_| is_sync)),
            known: state.position.map(|position| Known {
                epoch: position.epoch,
                serial: position.serial,
            }),
            list: is_sync && self.nature.is_presence,
            reap: None,
        };
        let asked = Asked {
            round: state.round,
            joins,
            users: told.into_iter().map(|(user_id, _)| user_id).collect(),
            is_parting,
            is_sync,
        };
        (hold, asked)
    }

    /// What of the past has to be read for these, and for ourselves after `position`.
    fn past(&self, joins: &[Waiting], position: Option<Position>) -> Option<Past> {
        let (mut after, mut last) = (position.map(|position| position.serial), None);
        for since in joins
            .iter()
            .filter_map(|join| join.since)
            .filter(|_| self.nature.kept.size > 0)
        {
            match since {
                Since::After(position) => {
                    after = Some(after.map_or(position.serial, |other: u64| other.min(position.serial)));
                }
                Since::Last(count) => last = last.max(Some(count.min(MAX_RECOVERED))),
            }
        }
        (after.is_some() || last.is_some()).then_some(Past {
            after,
            last,
            most: MAX_RECOVERED + 1,
        })
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
            state.buffer.clear();
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

    /// Whether Redis knows all that there is to know.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        !(state.is_asking || state.is_dirty) || state.phase == Phase::Gone
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
        let joins = self.refuse(state, &asked, &done);
        let answers = self.prepare(joins, &done);
        if asked.is_parting {
            state.take_back(answers);
            if state.is_idle() {
                state.phase = Phase::Unsubscribing;
            } else {
                state.resync();
            }
            return state.outcome();
        }
        if asked.is_sync && state.phase == Phase::Syncing {
            return self.go_live(state, &mut done, answers, node);
        }
        state.answers.push_back((done.position.serial, answers));
        self.release(state, node);
        state.outcome()
    }

    /// Undoes what was refused; who waits with what result.
    fn refuse(&self, state: &mut State, asked: &Asked, done: &Done) -> Vec<(Waiting, Option<JoinRefusal>)> {
        let limit = self.nature.limit;
        for user_id in &asked.users {
            if !done.refused.contains(user_id)
                && let Some(user) = state.users.get_mut(user_id)
            {
                user.is_in = true;
            }
        }
        let judge = |waiting: &Waiting| {
            let is_refused = waiting
                .user_id
                .as_ref()
                .is_some_and(|id| done.refused.contains(id));
            let refusal = is_refused.then_some(JoinRefusal::Full { limit });
            (waiting.clone(), refusal)
        };
        let judged: Vec<_> = asked.joins.iter().map(judge).collect();
        for (waiting, refusal) in &judged {
            if let (Some(user_id), Some(_)) = (&waiting.user_id, refusal) {
                state.connections = state.connections.saturating_sub(1);
                state.leave(user_id);
                state.idle_since_s = state.is_idle().then(clock::monotonic_seconds);
            }
        }
        // Who came after the question and is of a refused user has to ask for itself.
        for user_id in &done.refused {
            if state.users.contains_key(user_id) {
                state.changed.push((user_id.clone(), Change::Enters));
                state.is_dirty = true;
            }
        }
        judged
    }

    fn prepare(&self, joins: Vec<(Waiting, Option<JoinRefusal>)>, done: &Done) -> Vec<Answered> {
        let has_history = self.nature.kept.size > 0;
        joins
            .into_iter()
            .map(|(waiting, refusal)| {
                let cache = match &done.cached {
                    _ if !self.nature.is_cache => Cache::None,
                    None => Cache::Miss,
                    Some((event, lives_ms)) => Cache::Hit(remembered(event, *lives_ms)),
                };
                let recovery = if has_history {
                    Some(recovery(waiting.since, done))
                } else {
                    waiting.since.map(|_| Recovery {
                        position: None,
                        is_complete: Some(false),
                        events: Vec::new(),
                    })
                };
                Answered {
                    waiting,
                    refusal,
                    cache,
                    recovery,
                    count: None,
                }
            })
            .collect()
    }

    /// We know how things stand: tells those who are in what they missed, lets in those who waited, and goes on with
    /// what was heard meanwhile.
    fn go_live(
        &self,
        state: &mut State,
        done: &mut Done,
        answers: Vec<Answered>,
        node: &dyn Node,
    ) -> Outcome {
        let before = state.position;
        let buffered = mem::take(&mut state.buffer);
        // Redis has forgotten, and the other nodes are telling it again what they hold: who is not there yet may come.
        let begins_to_doubt = before.is_some_and(|before| before.epoch != done.position.epoch)
            && !mem::replace(&mut state.is_in_doubt, true);
        if let Some(listed) = done.members.take() {
            self.correct_members(state, listed, node);
        }
        if self.thing.kind == Kind::User {
            self.see(state, done.connections > 0, node);
        }
        // Events that those who are in have not had: from the history, and from what was heard.
        let mut missed: BTreeMap<u64, Arc<Event>> = BTreeMap::new();
        if let Some(before) = before.filter(|before| before.epoch == done.position.epoch) {
            for past in done.past.range(before.serial + 1..).map(|(_, past)| past) {
                missed.insert(past.serial, Arc::new(event_of(past)));
            }
        }
        let is_missed = |position: Position| before.is_some_and(|before| is_after(position, before));
        for message in &buffered {
            if let Body::Event(event) = &message.body
                && message.position.serial <= done.position.serial
                && is_missed(message.position)
            {
                missed.insert(message.position.serial, Arc::clone(event));
            }
        }
        let epoch = done.position.epoch;
        for (serial, event) in missed.range(..=done.position.serial) {
            // There is no way back from here; what finds no room is counted as lost by the node.
            let _ = self.deliver(
                event,
                Position {
                    epoch,
                    serial: *serial,
                },
                node,
            );
        }
        state.position = Some(done.position);
        state.phase = Phase::Live;
        state.answers.push_back((done.position.serial, answers));
        for (_, answers) in mem::take(&mut state.answers) {
            self.place(state, answers, node);
        }
        let had_gap = before.is_some_and(|before| before != done.position);
        for message in buffered {
            if is_after(message.position, done.position) {
                self.hear_in_order(state, message, node);
            }
        }
        Outcome {
            arrived: mem::take(&mut state.is_awaited),
            had_gap,
            begins_to_doubt,
            ..state.outcome()
        }
    }

    /// Tells those who are in who came and went unheard.
    fn correct_members(&self, state: &mut State, listed: Vec<(UserId, String)>, node: &dyn Node) {
        let listed: BTreeMap<UserId, String> = listed.into_iter().collect();
        let is_in_doubt = state.is_in_doubt;
        let gone: Vec<UserId> = state
            .members
            .keys()
            .filter(|id| !listed.contains_key(*id))
            .cloned()
            .collect();
        for user_id in gone.into_iter().filter(|_| !is_in_doubt) {
            state.members.remove(&user_id);
            self.announce(&Announcement::MemberRemoved(&user_id), node);
        }
        for (user_id, info) in listed {
            if !state.members.contains_key(&user_id) {
                let member = MemberFragment::new(user_id.clone(), Some(&info));
                self.announce(&Announcement::MemberAdded(&member), node);
                state.members.insert(user_id, member);
            }
        }
    }

    fn announce(&self, announcement: &Announcement<'_>, node: &dyn Node) {
        if let Some(key) = &self.key {
            node.announce(key, announcement);
        }
    }

    fn deliver(&self, event: &Event, position: Position, node: &dyn Node) -> Result<(), Overloaded> {
        let Some(key) = &self.key else { return Ok(()) };
        let publication = Publication {
            channel: key.name(),
            event: &event.name,
            data_literal: &event.data_literal,
            user_id: event.user_id.as_ref(),
            except: event.except,
            origin: Origin::Api,
        };
        let position = (self.nature.kept.size > 0 && position.serial > 0).then_some(position);
        node.publication(key.borrowed(), &publication, position)
    }

    /// Somebody's user is here or gone.
    fn see(&self, state: &mut State, is_online: bool, node: &dyn Node) {
        let is_online = is_online || (state.is_in_doubt && state.is_online == Some(true));
        let was = state.is_online.replace(is_online);
        for watcher in &state.watchers {
            match was {
                None => watcher.first_seen(is_online, node),
                Some(was) if was != is_online => watcher.changed(is_online, node),
                // Who came since has not been told yet.
                Some(_) => watcher.first_seen(is_online, node),
            }
        }
    }

    /// A message of the topic.
    pub(super) fn heard(&self, message: Message, node: &dyn Node) -> Outcome {
        let mut state = self.lock();
        match state.phase {
            Phase::Subscribing | Phase::Syncing => state.buffer(message),
            Phase::Live => self.hear_in_order(&mut state, message, node),
            Phase::Cold | Phase::Parting | Phase::Unsubscribing | Phase::Gone => {}
        }
        state.outcome()
    }

    fn hear_in_order(&self, state: &mut State, message: Message, node: &dyn Node) {
        if state.phase != Phase::Live {
            return state.buffer(message);
        }
        let Some(position) = state.position else { return };
        let next = Position {
            serial: position.serial + 1,
            ..position
        };
        if message.position == next {
            if self.happen(state, &message, node).is_err() {
                // No room now. It waits, with all that follow, for the time of a question and its answer.
                state.resync();
                return state.buffer(message);
            }
            state.position = Some(next);
            self.release(state, node);
        } else if message.position.serial == 0 {
            // Redis has forgotten the channel; this event is real all the same, and has no place.
            let _ = self.happen(state, &message, node);
            state.resync();
        } else if is_after(message.position, position) {
            state.resync();
            state.buffer(message);
        }
    }

    fn happen(&self, state: &mut State, message: &Message, node: &dyn Node) -> Result<(), Overloaded> {
        match &message.body {
            Body::Event(event) => {
                self.deliver(event, message.position, node)?;
                if let Some(recent) = &mut state.recent {
                    recent.push((message.position.serial, Arc::clone(event)));
                    if recent.len() > MAX_BUFFERED {
                        recent.remove(0);
                    }
                }
            }
            Body::Added { user_id, user_info } => {
                let member = MemberFragment::new(user_id.clone(), Some(user_info));
                // Whoever is told of again, because Redis had forgotten, was there all the time.
                if state.members.insert(user_id.clone(), member.clone()).is_none() {
                    self.announce(&Announcement::MemberAdded(&member), node);
                }
            }
            Body::Removed { user_id } => {
                if state.members.remove(user_id).is_some() {
                    self.announce(&Announcement::MemberRemoved(user_id), node);
                }
            }
            Body::Count(count) if self.thing.kind == Kind::User => self.see(state, *count > 0, node),
            Body::Count(count) => {
                state.count = Some((message.position.serial, *count));
                self.announce(&Announcement::SubscriptionCount(*count), node);
            }
        }
        Ok(())
    }

    /// Gives the answers whose place has come.
    fn release(&self, state: &mut State, node: &dyn Node) {
        let Some(position) = state.position else { return };
        while state
            .answers
            .front()
            .is_some_and(|(serial, _)| *serial <= position.serial)
        {
            if let Some((serial, mut answers)) = state.answers.pop_front() {
                let recent = state.recent.as_deref().unwrap_or_default();
                let count = state.count.filter(|(at, _)| *at > serial).map(|(_, count)| count);
                for answer in &mut answers {
                    answer.count = count;
                    self.bring_up_to_date(answer, recent, serial, position);
                }
                self.place(state, answers, node);
            }
        }
        if state.answers.is_empty() && !state.is_asking {
            state.recent = None;
        }
    }

    /// Between an answer and its place events may have passed.
    fn bring_up_to_date(
        &self,
        answer: &mut Answered,
        recent: &[(u64, Arc<Event>)],
        serial: u64,
        now: Position,
    ) {
        let passed = recent.iter().filter(|(at, _)| *at > serial);
        for (at, event) in passed {
            if event.is_remembered {
                answer.cache = Cache::Hit(remembered(event, 0));
            }
            if let Some(recovery) = &mut answer.recovery
                && answer.waiting.since.is_some()
                && recovery.is_complete == Some(true)
            {
                recovery.events.push(PastEvent {
                    serial: *at,
                    published_at_ms: clock::unix_millis(),
                    name: Arc::clone(&event.name),
                    data_literal: Arc::clone(&event.data_literal),
                    user_id: event.user_id.clone(),
                });
            }
        }
        if let Some(recovery) = &mut answer.recovery
            && recovery.position.is_some()
        {
            recovery.position = Some(now);
        }
    }

    fn place(&self, state: &State, answers: Vec<Answered>, node: &dyn Node) {
        let Some(key) = &self.key else { return };
        if answers.is_empty() {
            return;
        }
        let members = self
            .nature
            .is_presence
            .then(|| PresenceList::of(state.members.values()));
        for answer in answers {
            let joined = match answer.refusal {
                Some(refusal) => Err(refusal),
                None => Ok(Joined {
                    members: members.clone(),
                    cache: answer.cache,
                    user_id: answer.waiting.user_id,
                    recovery: answer.recovery,
                    count: answer.count,
                }),
            };
            node.joined(answer.waiting.connection, key, &self.app, joined);
        }
    }

    /// Tells those who asked for a place whether they have one; who came last has none.
    fn admit(&self, state: &mut State, asked: Asked, without_place: u32, node: &dyn Node) -> Outcome {
        let granted = asked.joins.len().saturating_sub(without_place as usize);
        for (number, waiting) in asked.joins.into_iter().enumerate() {
            let is_granted = number < granted;
            if !is_granted {
                state.connections = state.connections.saturating_sub(1);
            }
            node.admitted(waiting.connection, &self.app, is_granted);
        }
        state.idle_since_s = state.is_idle().then(clock::monotonic_seconds);
        if asked.is_parting && state.is_idle() {
            return state.end();
        }
        state.phase = Phase::Live;
        state.is_dirty |= asked.is_parting;
        Outcome {
            arrived: mem::take(&mut state.is_awaited),
            ..state.outcome()
        }
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

    /// What was heard does not join on: asks how things stand, and lets what is heard wait.
    fn resync(&mut self) {
        self.phase = Phase::Syncing;
        self.is_dirty = true;
        self.is_full = true;
        self.recent = None;
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

    /// Answers that came with the last word of a node that had already turned to go: the questions stand.
    fn take_back(&mut self, answers: Vec<Answered>) {
        self.wait_again(answers.into_iter().map(|answer| answer.waiting).collect());
    }
}

/// What is said of something that a dead node held: nothing, any more.
pub(super) fn reaped(
    thing: &Thing,
    apps: &Apps,
    topic: String,
    dead: &str,
    users: u32,
    rules: &Rules,
) -> Hold {
    let app = apps.by_id(thing.app.as_str());
    let channel = (thing.kind == Kind::Channel)
        .then(|| thing.name.parse().ok())
        .flatten();
    let nature = Nature::of(thing.kind, channel.as_ref(), app.as_deref());
    Hold {
        node: dead.to_owned(),
        thing: thing.to_string(),
        app: thing.app.to_string(),
        channel: thing.name.to_string(),
        publish: rules.publish,
        topic: (thing.kind != Kind::Quota).then_some(topic),
        kind: nature.kind,
        count: 0,
        listen: false,
        users: Vec::new(),
        full: false,
        limit: nature.limit,
        joins: 0,
        counted: nature.is_counted,
        above: rules.count_above,
        every_us: rules.count_every_us,
        settle_ms: rules.settle_ms,
        outbox: rules.outbox,
        cache: nature.is_cache,
        history: nature.kept,
        past: None,
        known: None,
        list: false,
        reap: Some(users),
    }
}

/// What an app keeps of a channel's past.
pub(super) fn kept(app: &App, channel: &ChannelName) -> Kept {
    app.history_of(channel).map_or_else(Kept::default, |rule| Kept {
        size: u32::try_from(rule.size).unwrap_or(u32::MAX),
        age_ms: u64::from(rule.age_s) * 1000,
    })
}

fn is_after(position: Position, other: Position) -> bool {
    position.epoch != other.epoch || position.serial > other.serial
}

fn event_of(past: &PastEvent) -> Event {
    Event {
        name: Arc::clone(&past.name),
        data_literal: Arc::clone(&past.data_literal),
        user_id: past.user_id.clone(),
        except: None,
        is_remembered: false,
    }
}

/// `lives_ms` 0: for as long as the app remembers at all; the next joiner gets the exact time.
fn remembered(event: &Event, lives_ms: u64) -> CachedEvent {
    let lives_s = u32::try_from(lives_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    CachedEvent {
        name: Arc::clone(&event.name),
        data_literal: Arc::clone(&event.data_literal),
        expires_at_s: clock::monotonic_seconds().saturating_add(lives_s),
    }
}

/// What a joiner gets of the past, as of the answer's position.
fn recovery(since: Option<Since>, done: &Done) -> Recovery {
    let (is_complete, events) = match since {
        None => (None, Vec::new()),
        Some(Since::After(after)) => {
            let events: Vec<_> = done.past.range(after.serial.saturating_add(1)..).collect();
            let is_complete = after.epoch == done.position.epoch
                && after.serial >= done.trimmed
                && after.serial <= done.position.serial
                && events.len() <= MAX_RECOVERED as usize;
            (Some(is_complete), if is_complete { events } else { Vec::new() })
        }
        Some(Since::Last(count)) => {
            let count = count.min(MAX_RECOVERED) as usize;
            let events: Vec<_> = done.past.iter().rev().take(count).rev().collect();
            let is_complete = events.len() == count || done.trimmed <= done.position.epoch;
            (Some(is_complete), events)
        }
    };
    Recovery {
        position: Some(done.position),
        is_complete,
        events: events.into_iter().map(|(_, event)| event.clone()).collect(),
    }
}
