//! What those who wait are told, and when: an answer has its place in the channel's order.

use std::mem;
use std::sync::Arc;

use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing::PresenceList;

use super::{Asked, Change, Held, Outcome, Phase, State, Waiting};
use crate::clock;
use crate::cluster::Node;
use crate::cluster::message::Event;
use crate::cluster::request::Done;
use crate::presence::{Cache, JoinRefusal, Joined, MAX_RECOVERED, Recovery, Since};
use crate::storage::memory::{CachedEvent, PastEvent};

/// What a connection is told, but for what depends on the moment.
pub(super) struct Answered {
    pub(super) waiting: Waiting,
    pub(super) refusal: Option<JoinRefusal>,
    pub(super) cache: Cache,
    pub(super) recovery: Option<Recovery>,
    /// The number of subscribers, if it was announced between the answer and its place.
    pub(super) count: Option<u32>,
}

impl Answered {
    /// Between an answer and its place events may have passed.
    pub(super) fn bring_up_to_date(&mut self, recent: &[(u64, Arc<Event>)], serial: u64, now: Position) {
        let passed = recent.iter().filter(|(at, _)| *at > serial);
        for (at, event) in passed {
            if event.is_remembered {
                self.cache = Cache::Hit(remembered(event, 0));
            }
            if let Some(recovery) = &mut self.recovery
                && self.waiting.since.is_some()
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
        if let Some(recovery) = &mut self.recovery
            && recovery.position.is_some()
        {
            recovery.position = Some(now);
        }
    }
}

impl Held {
    /// Undoes what was refused; who waits with what result.
    pub(super) fn refuse(
        &self,
        state: &mut State,
        asked: &Asked,
        done: &Done,
    ) -> Vec<(Waiting, Option<JoinRefusal>)> {
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
                if let Some(bound) = &waiting.bound {
                    state.binds.refuse(bound);
                }
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

    pub(super) fn prepare(&self, joins: Vec<(Waiting, Option<JoinRefusal>)>, done: &Done) -> Vec<Answered> {
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

    /// Gives the answers whose place has come.
    pub(super) fn release(&self, state: &mut State, node: &dyn Node) {
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
                    answer.bring_up_to_date(recent, serial, position);
                }
                // A user that is gone again was removed with its node, which is this one: it learns that when it asks.
                let is_there = |answer: &Answered| {
                    let user_id = answer.waiting.user_id.as_ref();
                    answer.refusal.is_some() || user_id.is_none_or(|id| state.members.contains_key(id))
                };
                let (answers, removed): (Vec<_>, Vec<_>) = answers.into_iter().partition(is_there);
                self.place(state, answers, node);
                state.take_back(removed);
            }
        }
        if state.answers.is_empty() && !state.is_asking {
            state.recent = None;
        }
    }

    pub(super) fn place(&self, state: &State, answers: Vec<Answered>, node: &dyn Node) {
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
                    bound: answer.waiting.bound,
                    recovery: answer.recovery,
                    count: answer.count,
                }),
            };
            node.joined(answer.waiting.connection, key, &self.app, joined);
        }
    }

    /// Tells those who asked for a place whether they have one; who came last has none.
    pub(super) fn admit(
        &self,
        state: &mut State,
        asked: Asked,
        without_place: u32,
        node: &dyn Node,
    ) -> Outcome {
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
