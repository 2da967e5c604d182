//! Presence of a single node.

use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_protocol::names::{ChannelName, UserId};
use dunlin_protocol::pusher::outgoing::{MemberFragment, PresenceList};

use super::users::{UserCounts, Users};
use super::{
    Announcement, Cache, ChannelPage, ConnectionRef, Join, JoinRefusal, Joined, Leave, MAX_RECOVERED,
    Occupancy, Presence, PresenceEvents, Recovery, SignIn, Since,
};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::apps::wanted::News;
use crate::clock;
use crate::config::HistorySection;
use crate::lock::lock;
use crate::storage::history::History;
use crate::storage::keys::{ChannelKey, KeyRef};
use crate::storage::memory::{Channel, Channels, CountAnnouncement, Member};
use crate::webhooks::event::ChannelEvent;
use crate::webhooks::outbox::Outbox;

/// How often the subscribers of a channel are told their number.
#[derive(Clone, Copy, Debug)]
pub struct CountThrottle {
    /// Up to this many subscribers, at every change.
    pub above: u32,
    /// Beyond, at most once in this time, and only when something changed.
    pub every: Duration,
}

/// Seconds for which the outside, once told that a cache channel remembers nothing, is not told so again: it is about to
/// fill it. The same as in `hold.lua`.
const MISS_S: u32 = 10;

/// Channels in a page of a listing.
const PAGE: usize = 500;

pub struct MemoryPresence {
    channels: Arc<Channels>,
    events: Arc<dyn PresenceEvents>,
    outbox: Arc<dyn Outbox>,
    throttle: CountThrottle,
    /// Of the past events of one app.
    history_bytes: usize,
    users: Users,
    /// Channels whose count is owed to their subscribers; each is noted when its flag is raised.
    owed: Mutex<Vec<(Arc<ChannelKey>, Arc<App>)>>,
}

impl MemoryPresence {
    pub fn new(
        channels: Arc<Channels>,
        events: Arc<dyn PresenceEvents>,
        outbox: Arc<dyn Outbox>,
        throttle: CountThrottle,
        history: &HistorySection,
    ) -> Self {
        Self {
            channels,
            users: Users::new(Arc::clone(&events)),
            events,
            outbox,
            throttle,
            history_bytes: history.max_bytes,
            owed: Mutex::default(),
        }
    }

    pub fn user_counts(&self) -> UserCounts {
        self.users.counts()
    }

    /// Tells the outside, unless the channel is nobody's business but the platform's.
    fn record(&self, app: &App, channel: &ChannelName, event: ChannelEvent) {
        if app.wanted.any(News::STATE) && !channel.kind().is_user() {
            self.outbox.append(&app.id, channel, event);
        }
    }

    /// Puts the member into the channel.
    ///
    /// # Errors
    /// The channel has all the distinct users it may have.
    fn add_member(&self, join: &Join, channel: &mut Channel) -> Result<Option<PresenceList>, JoinRefusal> {
        let Some(member) = &join.member else {
            return Ok(None);
        };
        let limit = join.app.limits.presence_members;
        let full = limit != 0 && channel.members.len() >= limit as usize;
        match channel.members.entry(member.user_id.clone()) {
            Entry::Occupied(mut present) => present.get_mut().connections += 1,
            Entry::Vacant(_) if full => return Err(JoinRefusal::Full { limit }),
            Entry::Vacant(place) => {
                let fragment = MemberFragment::new(member.user_id.clone(), member.user_info.as_deref());
                // The joiner is not in its worker's list yet, so this reaches the others only.
                self.events
                    .announce(&join.channel, &Announcement::MemberAdded(&fragment));
                place.insert(Member {
                    fragment,
                    connections: 1,
                });
                let event = ChannelEvent::MemberAdded {
                    user_id: member.user_id.clone(),
                };
                self.record(&join.app, join.channel.name(), event);
            }
        }
        Ok(Some(PresenceList::of(
            channel.members.values().map(|member| &member.fragment),
        )))
    }

    fn cache(&self, join: &Join, channel: &mut Channel) -> Cache {
        if !join.channel.name().kind().is_cache() {
            return Cache::None;
        }
        let now_s = clock::monotonic_seconds();
        if let Some(event) = channel.remembered(now_s) {
            return Cache::Hit(event.clone());
        }
        if channel.missed_at_s.is_none_or(|at_s| now_s - at_s >= MISS_S) {
            channel.missed_at_s = Some(now_s);
            self.record(&join.app, join.channel.name(), ChannelEvent::CacheMiss);
        }
        Cache::Miss
    }

    /// What the joiner gets of the channel's past, up to this moment.
    fn recovery(join: &Join, channel: &mut Channel) -> Option<Recovery> {
        let Some(rule) = join.app.history_of(join.channel.name()) else {
            return join.since.map(|_| Recovery {
                position: None,
                is_complete: Some(false),
                events: Vec::new(),
            });
        };
        let now_s = clock::monotonic_seconds();
        let begin = || {
            Box::new(History::new(
                clock::unix_micros(),
                rule.age_s,
                now_s,
                &join.app.kept,
            ))
        };
        let history = channel.history.get_or_insert_with(begin);
        let (is_complete, events) = match join.since {
            None => (None, Vec::new()),
            Some(Since::After(position)) => {
                let missed = history.between(Some(position.serial), None, now_s);
                let is_complete = position.epoch == history.position().epoch
                    && history.is_complete_after(position.serial, now_s)
                    && missed.len() <= MAX_RECOVERED as usize;
                let events = if is_complete {
                    missed.cloned().collect()
                } else {
                    Vec::new()
                };
                (Some(is_complete), events)
            }
            Some(Since::Last(count)) => {
                let kept = history.between(None, None, now_s);
                let wanted = count.min(MAX_RECOVERED) as usize;
                let skipped = kept.len().saturating_sub(wanted);
                let events: Vec<_> = kept.skip(skipped).cloned().collect();
                let is_complete =
                    events.len() == wanted || history.is_complete_after(history.position().epoch, now_s);
                (Some(is_complete), events)
            }
        };
        Some(Recovery {
            position: Some(history.position()),
            is_complete,
            events,
        })
    }

    /// Tells the subscribers how many they are, now or when the throttle allows.
    fn count_changed(&self, app: &Arc<App>, key: &Arc<ChannelKey>, channel: &mut Channel) {
        let kind = key.name().kind();
        if !app.subscription_count || kind.is_presence() || kind.is_user() || channel.connections == 0 {
            return;
        }
        let now = clock::monotonic_nanos();
        let every = u64::try_from(self.throttle.every.as_nanos()).unwrap_or(u64::MAX);
        if channel.connections > self.throttle.above
            && now < channel.count.sent_at_nanos.saturating_add(every)
        {
            if !channel.count.owed {
                channel.count.owed = true;
                self.owed().push((Arc::clone(key), Arc::clone(app)));
            }
            return;
        }
        channel.count.owed = false;
        channel.count.sent_at_nanos = now;
        self.events
            .announce(key, &Announcement::SubscriptionCount(channel.connections));
        self.record(
            app,
            key.name(),
            ChannelEvent::SubscriptionCount {
                count: channel.connections,
            },
        );
    }

    fn owed(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<ChannelKey>, Arc<App>)>> {
        lock(&self.owed)
    }

    fn read<T: Default>(&self, app: &App, channel: &ChannelName, read: impl FnOnce(&Channel) -> T) -> T {
        let key = KeyRef::new(app.num, channel.as_str());
        self.channels.stripe(key).get(key).map(read).unwrap_or_default()
    }
}

fn occupancy(channel: &Channel) -> Occupancy {
    Occupancy {
        connections: channel.connections,
        users: u32::try_from(channel.members.len()).unwrap_or(u32::MAX),
    }
}

impl Presence for MemoryPresence {
    fn join(&self, join: Join) {
        let key = join.channel.borrowed();
        let mut stripe = self.channels.stripe(key);
        let channel = stripe.get_or_insert_with(&join.channel, Default::default);
        if channel.connections == 0 && !join.channel.name().kind().is_user() {
            self.channels.mark_occupied(&join.channel);
            self.record(&join.app, join.channel.name(), ChannelEvent::Occupied);
        }
        let answer = self.add_member(&join, channel).map(|members| {
            channel.connections += 1;
            let user_id = join.member.as_ref().map(|member| member.user_id.clone());
            if let Some(bound) = &join.bound {
                let uuid = bound.as_str().into();
                self.outbox
                    .append(&join.app.id, join.channel.name(), ChannelEvent::Bound { uuid });
            }
            Joined {
                bound: join.bound.clone(),
                members,
                cache: self.cache(&join, channel),
                user_id,
                recovery: Self::recovery(&join, channel),
                count: None,
            }
        });
        // A refused join cannot be the first: somebody else fills the channel.
        let joined = answer.is_ok();
        self.events
            .joined(join.connection, &join.channel, &join.app, answer);
        if joined {
            self.count_changed(&join.app, &join.channel, channel);
        }
    }

    fn leave(&self, leave: Leave) {
        let key = leave.channel.borrowed();
        let mut stripe = self.channels.stripe(key);
        let Some(channel) = stripe.get_mut(key) else {
            return;
        };
        channel.connections = channel.connections.saturating_sub(1);
        if let Some(bound) = &leave.bound
            && leave.app.wanted.any(News::BINDS)
        {
            let uuid = bound.as_str().into();
            self.outbox.append(
                &leave.app.id,
                leave.channel.name(),
                ChannelEvent::Unbound { uuid },
            );
        }
        if let Some(user_id) = leave.user_id
            && let Entry::Occupied(mut member) = channel.members.entry(user_id)
        {
            member.get_mut().connections -= 1;
            if member.get().connections == 0 {
                let (user_id, _) = member.remove_entry();
                self.events
                    .announce(&leave.channel, &Announcement::MemberRemoved(&user_id));
                self.record(
                    &leave.app,
                    leave.channel.name(),
                    ChannelEvent::MemberRemoved { user_id },
                );
            }
        }
        self.count_changed(&leave.app, &leave.channel, channel);
        if channel.connections == 0 {
            if !leave.channel.name().kind().is_user() {
                self.channels.mark_vacated(&leave.channel);
                self.record(&leave.app, leave.channel.name(), ChannelEvent::Vacated);
            }
            channel.count = CountAnnouncement::default();
            if let Some(history) = &mut channel.history {
                history.vacated(clock::monotonic_seconds());
            }
            channel.settle_history(self.history_bytes);
            if channel.is_idle() {
                stripe.remove(key);
            }
        }
    }

    fn sign_in(&self, sign_in: &SignIn) {
        self.users.sign_in(sign_in);
    }

    fn sign_out(&self, sign_in: &SignIn) {
        self.users.sign_out(sign_in);
    }

    fn occupancy(&self, app: &App, channel: &ChannelName) -> Answer<Result<Occupancy, Unavailable>> {
        Answer::ready(Ok(self.read(app, channel, occupancy)))
    }

    fn channels(
        &self,
        app: &App,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Answer<Result<ChannelPage, Unavailable>> {
        let names = self.channels.occupied(app.num, prefix, cursor, PAGE);
        let next = names
            .last()
            .filter(|_| names.len() == PAGE)
            .map(ToString::to_string);
        let read = |name: ChannelName| {
            let occupancy = self.read(app, &name, occupancy);
            (name, occupancy)
        };
        let channels = names.into_iter().map(read).collect();
        Answer::ready(Ok(ChannelPage { channels, next }))
    }

    fn users(&self, app: &App, channel: &ChannelName) -> Answer<Result<Vec<UserId>, Unavailable>> {
        let users = self.read(app, channel, |channel| channel.members.keys().cloned().collect());
        Answer::ready(Ok(users))
    }

    fn terminate_user(&self, app: &App, user_id: &UserId) -> Answer<Result<(), Unavailable>> {
        self.events.terminate_user(app.num, user_id);
        Answer::ready(Ok(()))
    }

    fn admit(&self, app: &Arc<App>, connection: ConnectionRef) {
        let granted = app.take_connection().is_ok();
        self.events.admitted(connection, app, granted);
    }

    fn dismiss(&self, app: &Arc<App>) {
        app.give_connection_back();
    }

    fn tick(&self) {
        let owed = std::mem::take(&mut *self.owed());
        for (key, app) in owed {
            let mut stripe = self.channels.stripe(key.borrowed());
            if let Some(channel) = stripe.get_mut(key.borrowed())
                && channel.count.owed
            {
                channel.count.owed = false;
                self.count_changed(&app, &key, channel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use crate::webhooks::outbox::MemoryOutbox;

    #[tokio::test]
    async fn memory_presence_keeps_the_contract() {
        let node = Arc::new(contract::Recorder::default());
        let throttle = CountThrottle {
            above: 3,
            every: Duration::ZERO,
        };
        let outbox = Arc::new(MemoryOutbox::new(0));
        let history = HistorySection { max_bytes: 0 };
        let presence = MemoryPresence::new(Arc::default(), node.clone(), outbox, throttle, &history);
        contract::run(&presence, &node, &App::fresh(|_| {})).await;
    }
}
