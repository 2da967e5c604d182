//! What is said to Redis of something held.

use std::mem;

use dunlin_protocol::names::{ChannelKind, ChannelName, UserId};
use dunlin_protocol::position::Position;

use super::{Asked, Change, Held, Phase, State, Waiting};
use crate::apps::wanted::News;
use crate::apps::{App, Apps};
use crate::cluster::request::{Hold, Kept, Known, Past, Said};
use crate::presence::{MAX_RECOVERED, Since};
use crate::storage::redis::names::{Kind, Thing};

/// What follows from a thing's name and its app's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    /// As the script knows it.
    pub(super) kind: &'static str,
    pub(super) is_presence: bool,
    pub(super) is_cache: bool,
    /// Whether subscribers are told how many they are.
    pub(super) is_counted: bool,
    pub(super) kept: Kept,
    /// Of distinct users, or of connections for a quota; 0: none.
    pub(super) limit: u32,
}

impl Nature {
    /// `app`: absent if this node does not know it.
    pub(super) fn of(kind: Kind, channel: Option<&ChannelName>, app: Option<&App>) -> Self {
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
pub(in crate::cluster) struct Rules {
    pub(in crate::cluster) publish: &'static str,
    pub(in crate::cluster) count_above: u32,
    pub(in crate::cluster) count_every_us: u64,
    pub(in crate::cluster) settle_ms: u64,
    pub(in crate::cluster) outbox: usize,
}

impl Rules {
    /// Entries kept in the outbox; 0: the app does not want to be told.
    pub(in crate::cluster) fn outbox_of(&self, app: Option<&App>) -> usize {
        app.filter(|app| app.wanted.any(News::STATE.and(News::BINDS)))
            .map_or(0, |_| self.outbox)
    }
}

/// What is said of something that a dead node held: nothing, any more.
pub(in crate::cluster) fn reaped(
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
        bound: Vec::new(),
        full: false,
        limit: nature.limit,
        joins: 0,
        counted: nature.is_counted,
        above: rules.count_above,
        every_us: rules.count_every_us,
        settle_ms: rules.settle_ms,
        outbox: rules.outbox_of(app.as_deref()),
        cache: nature.is_cache,
        history: nature.kept,
        past: None,
        known: None,
        list: false,
        reap: Some(users),
    }
}

/// What an app keeps of a channel's past.
pub(in crate::cluster) fn kept(app: &App, channel: &ChannelName) -> Kept {
    app.history_of(channel).map_or_else(Kept::default, |rule| Kept {
        size: u32::try_from(rule.size).unwrap_or(u32::MAX),
        age_ms: u64::from(rule.age_s) * 1000,
    })
}

impl Held {
    pub(super) fn say(&self, state: &mut State, node_id: &str, rules: &Rules) -> (Hold, Asked) {
        let is_parting = state.phase == Phase::Parting;
        let is_sync = state.phase == Phase::Syncing;
        let joins = mem::take(&mut state.joins);
        let full = mem::take(&mut state.is_full);
        let changed = mem::take(&mut state.changed);
        let bound = state.binds.say(full);
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
            bound,
            full,
            limit: self.nature.limit,
            joins: u32::try_from(joins.len()).unwrap_or(u32::MAX),
            counted: self.nature.is_counted,
            above: rules.count_above,
            every_us: rules.count_every_us,
            settle_ms: rules.settle_ms,
            outbox: rules.outbox_of(Some(&self.app)),
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
    pub(super) fn past(&self, joins: &[Waiting], position: Option<Position>) -> Option<Past> {
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
}
