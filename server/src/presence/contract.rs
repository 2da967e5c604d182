//! What every [`Presence`] must do, whatever is behind it.

use std::sync::{Arc, Mutex};

use dunlin_protocol::names::UserId;
use dunlin_protocol::pusher::presence::PresenceMember;

use super::{
    Announcement, ChannelPage, ConnectionRef, Join, JoinRefusal, Joined, Leave, Occupancy, Presence,
    PresenceEvents, SignIn,
};
use crate::apps::App;
use crate::config::AppSection;
use crate::storage::keys::{AppNum, ChannelKey};

/// A node that writes down what it is told, in order.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<String>>,
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn note(&self, line: String) {
        self.seen.lock().unwrap().push(line);
    }
}

impl PresenceEvents for Recorder {
    fn joined(
        &self,
        to: ConnectionRef,
        _: &Arc<ChannelKey>,
        _: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        self.note(match answer {
            Ok(joined) => format!(
                "{} joined {}",
                to.slot,
                joined.members.map_or(0, |list| list.len())
            ),
            Err(refusal) => format!("{} refused: {refusal}", to.slot),
        });
    }

    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>) {
        self.note(match announcement {
            Announcement::MemberAdded(member) => format!("{} +{}", channel.name(), member.user_id()),
            Announcement::MemberRemoved(user) => format!("{} -{user}", channel.name()),
            Announcement::SubscriptionCount(count) => format!("{} count {count}", channel.name()),
        });
    }

    fn watched(&self, to: ConnectionRef, online: &[&UserId], offline: &[&UserId]) {
        let ids = |list: &[&UserId]| list.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",");
        self.note(format!(
            "{} sees online [{}] offline [{}]",
            to.slot,
            ids(online),
            ids(offline)
        ));
    }

    fn terminate_user(&self, _: AppNum, user_id: &UserId) {
        self.note(format!("terminate {user_id}"));
    }

    fn admitted(&self, to: ConnectionRef, _: &Arc<App>, granted: bool) {
        self.note(format!("{} admitted: {granted}", to.slot));
    }
}

fn connection(slot: u32) -> ConnectionRef {
    ConnectionRef {
        worker: 0,
        slot,
        generation: 0,
    }
}

pub(crate) async fn run(presence: impl Fn(Arc<dyn PresenceEvents>) -> Arc<dyn Presence>) {
    members_come_and_go_by_user(&presence).await;
    counts_and_lists_are_exact(&presence).await;
    watchers_are_told(&presence);
}

fn app(num: u32) -> Arc<App> {
    let mut section = AppSection::example();
    section.limits.presence_members = 2;
    Arc::new(App::new(AppNum(num), &section))
}

async fn members_come_and_go_by_user(presence: &impl Fn(Arc<dyn PresenceEvents>) -> Arc<dyn Presence>) {
    let recorder = Arc::new(Recorder::default());
    let presence = presence(recorder.clone());
    let app = app(1);
    let channel = ChannelKey::new(app.num, "presence-a".parse().unwrap());
    let join = |slot, user: &str| {
        let data = format!("{{\"user_id\":\"{user}\"}}");
        let member = Some(PresenceMember::parse(&data, 1024).unwrap());
        presence.join(Join {
            app: app.clone(),
            channel: channel.clone(),
            connection: connection(slot),
            member,
            since: None,
        });
        recorder.take()
    };
    let leave = |user: &str| {
        let user_id = Some(user.parse().unwrap());
        presence.leave(Leave {
            app: app.clone(),
            channel: channel.clone(),
            user_id,
        });
        recorder.take()
    };

    assert_eq!(
        join(1, "u"),
        ["presence-a +u", "1 joined 1"],
        "announced before the joiner is in"
    );
    assert_eq!(
        join(2, "u"),
        ["2 joined 1"],
        "a second connection is no second member"
    );
    assert_eq!(join(3, "v"), ["presence-a +v", "3 joined 2"]);
    assert_eq!(
        join(4, "w"),
        ["4 refused: The presence channel is full: at most 2 members"]
    );
    assert_eq!(
        join(5, "v"),
        ["5 joined 2"],
        "a member may open another connection of a full channel"
    );
    let name = channel.name();
    assert_eq!(
        presence.occupancy(&app, name).await,
        Ok(Occupancy {
            connections: 4,
            users: 2
        })
    );
    let users = presence.users(&app, name).await.unwrap();
    assert_eq!(users.iter().map(UserId::as_str).collect::<Vec<_>>(), ["u", "v"]);
    assert_eq!(leave("u"), Vec::<String>::new(), "one connection is left");
    assert_eq!(leave("u"), ["presence-a -u"]);
    assert_eq!(leave("v"), Vec::<String>::new());
    assert_eq!(leave("v"), ["presence-a -v"]);
    assert_eq!(presence.occupancy(&app, name).await, Ok(Occupancy::default()));
    assert!(presence.users(&app, name).await.unwrap().is_empty());
}

async fn counts_and_lists_are_exact(presence: &impl Fn(Arc<dyn PresenceEvents>) -> Arc<dyn Presence>) {
    let recorder = Arc::new(Recorder::default());
    let presence = presence(recorder.clone());
    let (app, other) = (app(1), app(2));
    let join = |app: &Arc<App>, slot, name: &str| {
        let channel = ChannelKey::new(app.num, name.parse().unwrap());
        presence.join(Join {
            app: app.clone(),
            channel,
            connection: connection(slot),
            member: None,
            since: None,
        });
    };
    join(&app, 1, "a");
    join(&app, 2, "a");
    join(&app, 3, "b");
    join(&other, 4, "a");
    join(&app, 5, "#server-to-user-u");
    assert_eq!(
        recorder.take(),
        [
            "1 joined 0",
            "a count 1",
            "2 joined 0",
            "a count 2",
            "3 joined 0",
            "b count 1",
            "4 joined 0",
            "a count 1",
            "5 joined 0"
        ],
        "the joiner is in before it is counted"
    );
    let ChannelPage { channels, next } = presence.channels(&app, "", None).await.unwrap();
    assert_eq!(next, None, "it was the only page");
    let list: Vec<_> = channels
        .iter()
        .map(|(name, occupancy)| (name.as_str(), occupancy.connections))
        .collect();
    assert_eq!(
        list,
        [("a", 2), ("b", 1)],
        "by app, without the users' own channels"
    );
    let channel = ChannelKey::new(app.num, "b".parse().unwrap());
    presence.leave(Leave {
        app: app.clone(),
        channel,
        user_id: None,
    });
    let page = presence.channels(&app, "b", None).await.unwrap();
    assert!(page.channels.is_empty(), "vacated");
}

fn watchers_are_told(presence: &impl Fn(Arc<dyn PresenceEvents>) -> Arc<dyn Presence>) {
    let recorder = Arc::new(Recorder::default());
    let presence = presence(recorder.clone());
    let app = app(1);
    let user = |slot, id: &str, watchlist: &[&str]| SignIn {
        app: app.clone(),
        connection: connection(slot),
        user_id: id.parse().unwrap(),
        watchlist: watchlist.iter().map(|id| id.parse().unwrap()).collect(),
    };
    let (watcher, first, second) = (user(1, "w", &["u", "w"]), user(2, "u", &[]), user(3, "u", &[]));
    presence.sign_in(&watcher);
    assert_eq!(recorder.take(), ["1 sees online [w] offline [u]"]);
    presence.sign_in(&first);
    presence.sign_in(&second);
    assert_eq!(
        recorder.take(),
        ["1 sees online [u] offline []"],
        "once for two connections"
    );
    presence.sign_out(&first);
    assert_eq!(recorder.take(), Vec::<String>::new());
    presence.sign_out(&second);
    assert_eq!(recorder.take(), ["1 sees online [] offline [u]"]);
    presence.sign_out(&watcher);
    presence.sign_in(&first);
    assert_eq!(recorder.take(), Vec::<String>::new(), "who left is not told");
}
