//! Channels on this worker: who is in them, who comes and who goes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dunlin_protocol::names::ChannelName;
use dunlin_protocol::pusher::outgoing;
use dunlin_protocol::pusher::presence::PresenceMember;

use super::Shard;
use super::connection::{Membership, PENDING};
use crate::apps::App;
use crate::hub::session;
use crate::presence::{Cache, ConnectionRef, Join, JoinRefusal, Joined, Leave, Since};
use crate::storage::keys::{ChannelKey, KeyRef};

/// A channel as far as it is on this worker.
pub(super) struct LocalChannel {
    pub(super) key: Option<Arc<ChannelKey>>,
    pub(super) app: Option<Arc<App>>,
    /// Slots of those who get its events.
    pub(super) members: Vec<u32>,
    /// Members and those whose join is not answered yet.
    pub(super) references: u32,
    /// Index in `groups` while mail is sorted.
    pub(super) group: Option<u32>,
}

impl Shard {
    pub(super) fn join(
        &mut self,
        at: ConnectionRef,
        name: ChannelName,
        member: Option<PresenceMember>,
        since: Option<Since>,
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
                name: None,
            };
            if connection.memberships.capacity() == 0 {
                // Most connections have very few; the default growth would reserve four.
                connection.memberships.reserve_exact(1);
            }
            connection.memberships.insert(place, membership);
        }
        let bound = connection.bound_as(key.name(), member.as_ref());
        self.services.presence.join(Join {
            app,
            channel: key,
            connection: at,
            member,
            bound,
            since,
        });
    }

    pub(super) fn local_channel(&mut self, app: &Arc<App>, name: ChannelName) -> u32 {
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
    pub(super) fn release(&mut self, index: u32) {
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

    pub(super) fn leave(&mut self, slot: u32, name: &ChannelName) {
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
    pub(super) fn end_membership(&mut self, membership: Membership) {
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
                let name = membership.name;
                self.services.presence.leave(Leave {
                    user_id: name.clone().filter(|_| key.name().kind().is_presence()),
                    app,
                    channel: key,
                    bound: name,
                });
            }
        }
        // A pending join is undone when its answer arrives and finds nobody waiting.
        self.release(membership.channel);
    }

    /// Confirms or refuses a join, at its place among the channel's publications.
    pub(super) fn answered(
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
                    bound: joined.bound,
                };
                self.services.presence.leave(leave);
            }
            (None, Err(_)) => {}
        }
        self.resume(to);
    }

    pub(super) fn enter(
        &mut self,
        to: ConnectionRef,
        index: u32,
        place: usize,
        name: &ChannelName,
        joined: Joined,
    ) {
        let confirmation = match &joined.members {
            Some(members) => outgoing::subscription_succeeded_presence(name.as_str(), members),
            None => outgoing::subscription_succeeded(name.as_str()),
        };
        self.append(to.slot, confirmation);
        let has_recovered = joined
            .recovery
            .as_ref()
            .is_some_and(|recovery| recovery.is_complete == Some(true));
        match joined.cache {
            Cache::None => {}
            Cache::Miss => self.append(to.slot, outgoing::cache_miss(name.as_str())),
            // Who has every event has this one, too.
            Cache::Hit(_) if has_recovered => {}
            Cache::Hit(cached) => {
                self.append(
                    to.slot,
                    outgoing::event(name.as_str(), &cached.name, &cached.data_literal, None),
                );
            }
        }
        if let Some(count) = joined.count {
            self.append(
                to.slot,
                outgoing::subscription_count(name.as_str(), u64::from(count)),
            );
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
            membership.name = joined.user_id.or(joined.bound);
        }
        if let Some(recovery) = &joined.recovery {
            self.recover(to.slot, name.as_str(), recovery);
        }
        if let Some(connection) = self.connection(to) {
            connection.session.joined(name);
            if connection.session.is_authorized() {
                self.authorized(to);
            }
        }
    }
}
