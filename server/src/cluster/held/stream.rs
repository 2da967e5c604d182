//! What is heard of something held: messages in their order, and how things stand when some were missed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::sync::Arc;

use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use dunlin_protocol::pusher::outgoing::MemberFragment;

use super::answers::Answered;
use super::{Held, MAX_BUFFERED, Outcome, Phase, State};
use crate::broker::{Origin, Overloaded, Publication};
use crate::cluster::Node;
use crate::cluster::message::{Body, Event, Message};
use crate::cluster::request::Done;
use crate::presence::{Announcement, MAX_RECOVERED};
use crate::storage::memory::PastEvent;
use crate::storage::redis::names::Kind;

impl Held {
    /// A message of the topic. `is_former`: on a connection that was lost, and whose place another is taking.
    pub(in crate::cluster) fn heard(&self, message: Message, is_former: bool, node: &dyn Node) -> Outcome {
        let mut state = self.lock();
        match (state.phase, is_former) {
            // The new connection has not taken over yet: what goes on is what was.
            (Phase::Cold, _) | (Phase::Subscribing, true) | (Phase::Live, false) => {
                self.hear_in_order(&mut state, message, node);
            }
            (Phase::Subscribing | Phase::Syncing, false) => state.buffer(message),
            // It has been heard to its end, or nobody wants to hear it.
            (Phase::Syncing | Phase::Live, true)
            | (Phase::Parting | Phase::Unsubscribing | Phase::Gone, _) => {}
        }
        state.outcome()
    }

    /// Whether something that has a place before this answer may be on its way here still.
    pub(in crate::cluster) fn is_behind(&self, done: &Done) -> bool {
        let state = self.lock();
        let is_syncing = self.has_topic() && state.phase == Phase::Syncing;
        is_syncing && state.position.is_some_and(|position| position != done.position)
    }

    fn hear_in_order(&self, state: &mut State, message: Message, node: &dyn Node) {
        let Some(position) = state.position else { return };
        let next = Position {
            serial: position.serial + 1,
            ..position
        };
        if message.position.serial == 0 {
            // Redis has forgotten the channel; this event is real all the same, and has no place.
            if state.is_new(&message) {
                self.happen(state, &message, node).ok();
            }
            state.resync();
        } else if message.position == next && self.happen(state, &message, node).is_ok() {
            state.position = Some(next);
            self.release(state, node);
        } else if is_after(message.position, position) {
            // One was missed, or there is no room now: it waits, with all that follow, for the time of a question and
            // its answer.
            state.resync();
            state.buffer(message);
        }
    }

    pub(super) fn happen(
        &self,
        state: &mut State,
        message: &Message,
        node: &dyn Node,
    ) -> Result<(), Overloaded> {
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
            Body::Count(count) if self.thing.kind == Kind::User => state.see(*count > 0, node),
            Body::Count(count) => {
                state.count = Some((message.position.serial, *count));
                self.announce(&Announcement::SubscriptionCount(*count), node);
            }
        }
        Ok(())
    }

    /// We know how things stand: tells those who are in what they missed, lets in those who waited, and goes on with
    /// what was heard meanwhile.
    pub(super) fn go_live(
        &self,
        state: &mut State,
        done: &mut Done,
        answers: Vec<Answered>,
        node: &dyn Node,
    ) -> Outcome {
        let before = state.position;
        let (placeless, buffered): (Vec<_>, Vec<_>) = mem::take(&mut state.buffer)
            .into_iter()
            .partition(|message| message.position.serial == 0);
        // Redis has forgotten, and the other nodes are telling it again what they hold: who is not there yet may come.
        let begins_to_doubt = before.is_some_and(|before| before.epoch != done.position.epoch)
            && !mem::replace(&mut state.is_in_doubt, true);
        if let Some(listed) = done.members.take() {
            self.correct_members(state, listed, node);
        }
        if self.thing.kind == Kind::User {
            state.see(done.connections > 0, node);
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
        if before.is_some_and(|before| self.has_lost(before, done)) {
            let first = missed.keys().next();
            let position = first.map_or(done.position, |first| Position {
                epoch,
                serial: first - 1,
            });
            if let Some(key) = &self.key {
                node.lost(key.borrowed(), position);
            }
        }
        for (serial, event) in missed.range(..=done.position.serial) {
            // There is no way back from here; what finds no room is counted as lost by the node.
            self.deliver(
                event,
                Position {
                    epoch,
                    serial: *serial,
                },
                node,
            )
            .ok();
        }
        // What was published while Redis knew nothing of the channel lies behind all that had a place.
        for message in placeless.iter().filter(|_| before.is_some()) {
            if let Body::Event(event) = &message.body
                && state.is_new(message)
            {
                self.deliver(event, message.position, node).ok();
            }
        }
        state.position = Some(done.position);
        state.phase = Phase::Live;
        // Older answers are of a moment that this node has not seen: who waits for one asks again. A refusal stands.
        let older = mem::take(&mut state.answers)
            .into_iter()
            .flat_map(|(_, answers)| answers);
        let (mut answers_now, overtaken): (Vec<_>, Vec<_>) =
            older.partition(|answer| answer.refusal.is_some());
        answers_now.extend(answers);
        self.place(state, answers_now, node);
        state.take_back(overtaken);
        let had_gap = before.is_some_and(|before| before != done.position);
        for message in buffered {
            if !is_after(message.position, done.position) {
                continue;
            }
            if state.phase == Phase::Live {
                self.hear_in_order(state, message, node);
            } else {
                state.buffer(message);
            }
        }
        Outcome {
            arrived: mem::take(&mut state.is_awaited),
            had_gap,
            begins_to_doubt,
            ..state.outcome()
        }
    }

    /// Whether events that came after this position are not to be had any more, on a channel that promises them.
    fn has_lost(&self, before: Position, done: &Done) -> bool {
        let is_cut_short = done.past.len() > MAX_RECOVERED as usize;
        self.nature.kept.size > 0
            && before != done.position
            && (before.epoch != done.position.epoch || before.serial < done.trimmed || is_cut_short)
    }

    /// Tells those who are in who came and went unheard.
    pub(super) fn correct_members(&self, state: &mut State, listed: Vec<(UserId, String)>, node: &dyn Node) {
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
            if let Entry::Vacant(place) = state.members.entry(user_id) {
                let member = MemberFragment::new(place.key().clone(), Some(&info));
                self.announce(&Announcement::MemberAdded(&member), node);
                place.insert(member);
            }
        }
    }

    pub(super) fn announce(&self, announcement: &Announcement<'_>, node: &dyn Node) {
        if let Some(key) = &self.key {
            node.announce(key, announcement);
        }
    }

    pub(super) fn deliver(
        &self,
        event: &Event,
        position: Position,
        node: &dyn Node,
    ) -> Result<(), Overloaded> {
        let Some(key) = &self.key else { return Ok(()) };
        let publication = Publication {
            channel: key.name(),
            event: &event.name,
            data_literal: &event.data_literal,
            user_id: event.user_id.as_ref(),
            signed_in: None,
            except: event.except,
            origin: Origin::Api,
        };
        let position = (self.nature.kept.size > 0 && position.serial > 0).then_some(position);
        node.publication(key.borrowed(), &publication, position)
    }
}

impl State {
    /// Somebody's user is here or gone.
    pub(super) fn see(&mut self, is_online: bool, node: &dyn Node) {
        let is_online = is_online || (self.is_in_doubt && self.is_online == Some(true));
        let was = self.is_online.replace(is_online);
        for watcher in &self.watchers {
            match was {
                Some(was) if was != is_online => watcher.changed(is_online, node),
                // Who came since has not been told yet.
                Some(_) | None => watcher.first_seen(is_online, node),
            }
        }
    }
}

/// A later epoch has a greater name: what is said in an older one after a newer has begun comes too late.
fn is_after(position: Position, other: Position) -> bool {
    (position.epoch, position.serial) > (other.epoch, other.serial)
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
