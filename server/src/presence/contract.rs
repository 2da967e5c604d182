//! What every [`Presence`] must do, whatever is behind it.

use std::sync::Arc;

use dunlin_protocol::names::UserId;
use dunlin_protocol::pusher::presence::PresenceMember;

use super::{
    Announcement, ConnectionRef, Join, JoinRefusal, Joined, Leave, Occupancy, Presence, PresenceEvents,
    SignIn,
};
use crate::apps::App;
use crate::storage::keys::{AppNum, ChannelKey};
use crate::told::{Told, eventually};

/// A node that writes down what it is told, in order.
#[derive(Default)]
pub(crate) struct Recorder {
    told: Told<String>,
}

impl PresenceEvents for Recorder {
    fn joined(
        &self,
        to: ConnectionRef,
        _: &Arc<ChannelKey>,
        _: &Arc<App>,
        answer: Result<Joined, JoinRefusal>,
    ) {
        self.told.note(match answer {
            Ok(joined) => {
                let members = joined.members.map_or(0, |list| list.len());
                let count = joined.count.map(|count| format!(" count {count}"));
                format!("{} joined {members}{}", to.slot, count.unwrap_or_default())
            }
            Err(refusal) => format!("{} refused: {refusal}", to.slot),
        });
    }

    fn announce(&self, channel: &ChannelKey, announcement: &Announcement<'_>) {
        self.told.note(match announcement {
            Announcement::MemberAdded(member) => format!("{} +{}", channel.name(), member.user_id()),
            Announcement::MemberRemoved(user) => format!("{} -{user}", channel.name()),
            Announcement::SubscriptionCount(count) => format!("{} count {count}", channel.name()),
        });
    }

    fn watched(&self, to: ConnectionRef, online: &[&UserId], offline: &[&UserId]) {
        let ids = |list: &[&UserId]| list.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(",");
        self.told.note(format!(
            "{} sees online [{}] offline [{}]",
            to.slot,
            ids(online),
            ids(offline)
        ));
    }

    fn terminate_user(&self, _: AppNum, user_id: &UserId) {
        self.told.note(format!("terminate {user_id}"));
    }

    fn admitted(&self, to: ConnectionRef, _: &Arc<App>, granted: bool) {
        self.told.note(format!("{} admitted: {granted}", to.slot));
    }
}

fn connection(slot: u32) -> ConnectionRef {
    ConnectionRef {
        worker: 0,
        slot,
        generation: 0,
    }
}

/// `presence` tells `node`, and announces up to three subscribers' counts at every change, larger ones without delay.
/// `app` is one that it knows by its id.
pub(crate) async fn run(presence: &dyn Presence, node: &Recorder, app: &App) {
    members_come_and_go_by_user(presence, &node.told).await;
    counts_and_lists_are_exact(presence, &node.told).await;
    watchers_are_told(presence, &node.told).await;
    a_user_is_terminated(presence, &node.told, app).await;
    the_quota_is_exact(presence, &node.told).await;
}

async fn members_come_and_go_by_user(presence: &dyn Presence, told: &Told<String>) {
    let app = App::fresh(|section| section.limits.presence_members = 2);
    let channel = ChannelKey::new(app.num, "presence-a".parse().unwrap());
    let join = async |slot, user: &str| {
        let data = format!("{{\"user_id\":\"{user}\"}}");
        let member = Some(PresenceMember::parse(&data, 1024).unwrap());
        presence.join(Join {
            app: app.clone(),
            channel: channel.clone(),
            connection: connection(slot),
            member,
            bound: None,
            since: None,
        });
        let answer = format!("{slot} ");
        told.until(|line| line.starts_with(&answer)).await
    };
    let leave = |user: &str| {
        let user_id = Some(user.parse().unwrap());
        presence.leave(Leave {
            app: app.clone(),
            channel: channel.clone(),
            user_id,
            bound: None,
        });
    };

    // Whether an addition is announced where nobody is there to see it is the half's own business.
    assert_eq!(join(1, "u").await.last().unwrap(), "1 joined 1");
    assert_eq!(
        join(2, "u").await,
        ["2 joined 1"],
        "a second connection is no second member"
    );
    assert_eq!(
        join(3, "v").await,
        ["presence-a +v", "3 joined 2"],
        "announced before the joiner is in"
    );
    assert_eq!(
        join(4, "w").await,
        ["4 refused: The presence channel is full: at most 2 members"]
    );
    assert_eq!(
        join(5, "v").await,
        ["5 joined 2"],
        "a member may open another connection of a full channel"
    );
    let name = channel.name();
    let occupancy = |connections, users| Ok(Occupancy { connections, users });
    assert_eq!(presence.occupancy(&app, name).await, occupancy(4, 2));
    let users = presence.users(&app, name).await.unwrap();
    assert_eq!(users.iter().map(UserId::as_str).collect::<Vec<_>>(), ["u", "v"]);
    leave("u");
    leave("u");
    assert_eq!(
        told.next(1).await,
        ["presence-a -u"],
        "once, with the last connection"
    );
    leave("v");
    leave("v");
    eventually("everybody is gone", async || {
        presence.occupancy(&app, name).await == occupancy(0, 0)
    })
    .await;
    assert!(presence.users(&app, name).await.unwrap().is_empty());
    told.take();
}

async fn counts_and_lists_are_exact(presence: &dyn Presence, told: &Told<String>) {
    let (app, other) = (App::fresh(|_| {}), App::fresh(|_| {}));
    let join = |app: &Arc<App>, slot, name: &str| {
        let channel = ChannelKey::new(app.num, name.parse().unwrap());
        presence.join(Join {
            app: app.clone(),
            channel,
            connection: connection(slot),
            member: None,
            bound: None,
            since: None,
        });
    };
    // A user's own channel is nobody else's business: no count.
    join(&app, 1, "#server-to-user-u");
    assert_eq!(told.next(1).await, ["1 joined 0"]);
    for (app, slot, name, count) in [
        (&app, 2, "a", 1),
        (&app, 3, "a", 2),
        (&app, 4, "b", 1),
        (&other, 5, "a", 1),
    ] {
        join(app, slot, name);
        let (joined, counted) = (format!("{slot} joined 0"), format!("{name} count {count}"));
        let told = told.next(2).await;
        // The joiner is in before it is counted, or is told the count that it cannot have heard.
        let in_answer = [counted.clone(), format!("{joined} count {count}")];
        assert!(told == [joined, counted] || told == in_answer, "{told:?}");
    }
    let list = async |prefix: &str| {
        let (mut list, mut cursor) = (Vec::new(), None);
        loop {
            let page = presence.channels(&app, prefix, cursor.as_deref()).await.unwrap();
            let entries = page.channels.into_iter();
            list.extend(entries.map(|(name, occupancy)| (name.to_string(), occupancy.connections)));
            cursor = page.next;
            if cursor.is_none() {
                list.sort();
                return list;
            }
        }
    };
    let both = [("a".to_owned(), 2), ("b".to_owned(), 1)];
    assert_eq!(list("").await, both, "by app, without the users' own channels");
    assert_eq!(list("b").await, both[1..]);
    presence.leave(Leave {
        app: app.clone(),
        channel: ChannelKey::new(app.num, "b".parse().unwrap()),
        user_id: None,
        bound: None,
    });
    eventually("b is vacated", async || list("").await == both[..1]).await;
    told.take();
}

async fn watchers_are_told(presence: &dyn Presence, told: &Told<String>) {
    let app = App::fresh(|_| {});
    let user = |slot, id: &str, watchlist: &[&str]| SignIn {
        app: app.clone(),
        connection: connection(slot),
        user_id: id.parse().unwrap(),
        watchlist: watchlist.iter().map(|id| id.parse().unwrap()).collect(),
    };
    let (watcher, first, second) = (user(1, "w", &["u", "w"]), user(2, "u", &[]), user(3, "u", &[]));
    presence.sign_in(&watcher);
    assert_eq!(told.next(1).await, ["1 sees online [w] offline [u]"]);
    presence.sign_in(&first);
    presence.sign_in(&second);
    assert_eq!(told.next(1).await, ["1 sees online [u] offline []"]);
    presence.sign_out(&first);
    presence.sign_out(&second);
    assert_eq!(
        told.next(1).await,
        ["1 sees online [] offline [u]"],
        "once for two connections"
    );
    // Another sees what becomes of these two, so that it has happened before the next one looks.
    let witness = user(5, "y", &["u", "w"]);
    presence.sign_in(&witness);
    assert_eq!(told.next(1).await, ["5 sees online [w] offline [u]"]);
    presence.sign_out(&watcher);
    assert_eq!(told.next(1).await, ["5 sees online [] offline [w]"]);
    presence.sign_in(&first);
    assert_eq!(told.next(1).await, ["5 sees online [u] offline []"]);
    presence.sign_out(&witness);
    presence.sign_in(&user(4, "x", &["u", "w"]));
    assert_eq!(
        told.next(1).await,
        ["4 sees online [u] offline [w]"],
        "who left is neither told nor there"
    );
    presence.sign_out(&first);
    assert_eq!(told.next(1).await, ["4 sees online [] offline [u]"]);
}

async fn a_user_is_terminated(presence: &dyn Presence, told: &Told<String>, app: &App) {
    let user_id: UserId = "u".parse().unwrap();
    assert_eq!(presence.terminate_user(app, &user_id).await, Ok(()));
    assert_eq!(told.next(1).await, ["terminate u"]);
}

async fn the_quota_is_exact(presence: &dyn Presence, told: &Told<String>) {
    let app = App::fresh(|section| section.limits.connections = 2);
    let is_admitted = async |slot| {
        presence.admit(&app, connection(slot));
        match &told.next(1).await[..] {
            [line] if *line == format!("{slot} admitted: true") => true,
            [line] if *line == format!("{slot} admitted: false") => false,
            other => panic!("{other:?} is no answer to {slot}"),
        }
    };
    assert!(
        is_admitted(1).await && is_admitted(2).await,
        "there is room for two"
    );
    assert!(!is_admitted(3).await, "and not for three");
    presence.dismiss(&app);
    eventually("the place is free again", async || is_admitted(4).await).await;
    assert!(!is_admitted(5).await, "it was one place");
    let unlimited = App::fresh(|_| {});
    for slot in 0..3 {
        presence.admit(&unlimited, connection(slot));
        assert_eq!(told.next(1).await, [format!("{slot} admitted: true")]);
    }
}
