//! Who is in a presence channel, as somebody in it is told, and as the HTTP API says.

use crate::client::{Client, Event};
use crate::node::Node;
use crate::request::Call;
use crate::world::{App, eventually_within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) const ADDED: &str = "pusher_internal:member_added";
pub(super) const REMOVED: &str = "pusher_internal:member_removed";

/// What events begin with that only mark a place in the channel's order.
const MARKER: &str = "marker-";

/// A member that folds what it hears. An addition of somebody who is there, or a removal of somebody who is not, fails
/// the test.
pub(super) struct Watcher {
    pub(super) client: Client,
    channel: String,
    pub(super) present: BTreeSet<String>,
}

impl Watcher {
    /// Joins the channel on this node.
    pub(super) async fn join(node: &Node, app: &App, channel: &str, user: &str) -> Self {
        let mut client = Client::connect_to(node, app).await;
        let presence = client.join(channel, user).await;
        Self {
            client,
            channel: channel.to_owned(),
            present: texts(&presence["ids"]).collect(),
        }
    }

    /// Takes the next event, which must concern the channel's members.
    #[track_caller]
    fn fold(&mut self, event: &Event) {
        // One whose publish was refused may have come through.
        if event.name.starts_with(MARKER) {
            return;
        }
        assert_eq!(
            event.channel.as_deref(),
            Some(self.channel.as_str()),
            "{}",
            event.raw
        );
        let user = event.json()["user_id"].as_str().expect("a user").to_owned();
        match event.name.as_str() {
            ADDED => assert!(self.present.insert(user), "added twice: {}", event.raw),
            REMOVED => assert!(self.present.remove(&user), "removed twice: {}", event.raw),
            _ => panic!("not about members: {}", event.raw),
        }
    }

    /// Reads until it sees exactly these users, and returns how long that took.
    pub(super) async fn sees(&mut self, users: &[&str], limit: Duration) -> Duration {
        let wanted: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let start = Instant::now();
        while self.present != wanted {
            let left = limit.saturating_sub(start.elapsed());
            match self.client.next_within(left).await {
                Some(event) => self.fold(&event),
                None => panic!("sees {:?} instead of {wanted:?}", self.present),
            }
        }
        start.elapsed()
    }

    /// Reads up to an event of this name.
    async fn reads_up_to(&mut self, marker: &str) {
        loop {
            let event = self.client.next().await;
            if event.name == marker {
                return;
            }
            self.fold(&event);
        }
    }

    /// Insists that there is nothing more to hear for now.
    pub(super) async fn expect_quiet(&mut self) {
        self.client.expect_quiet().await;
    }
}

/// The users that this node lists, sorted.
pub(super) async fn users(node: &Node, app: &App, channel: &str) -> Vec<String> {
    let answer = node.get(app, &format!("/channels/{channel}/users"), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    let mut ids: Vec<String> = list["users"]
        .as_array()
        .expect("a list of users")
        .iter()
        .map(|user| user["id"].as_str().expect("a user has an id").to_owned())
        .collect();
    ids.sort();
    ids
}

/// Waits until each of these nodes lists exactly these users (given in order) and counts as many.
pub(super) async fn all_list(nodes: &[&Node], app: &App, channel: &str, wanted: &[&str], limit: Duration) {
    let agreed = eventually_within(limit, || async {
        for node in nodes {
            let count = [("info", "user_count")];
            let answer = node.get(app, &format!("/channels/{channel}"), &count).await;
            let is_right = answer.status == 200
                && answer.json()["user_count"] == wanted.len()
                && users(node, app, channel).await == wanted;
            if !is_right {
                return None;
            }
        }
        Some(())
    })
    .await;
    if agreed.is_none() {
        for node in nodes {
            assert_eq!(users(node, app, channel).await, wanted, "after {limit:?}");
        }
        panic!("the nodes list the right users and count others");
    }
}

/// Waits until each of these nodes lists exactly these users (given in order), and this is also what the watchers have
/// been told when everything that was on its way to them has arrived.
pub(super) async fn all_agree(nodes: &[&Node], watchers: &mut [Watcher], users: &[&str], limit: Duration) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let (app, channel) = (watchers[0].client.app.clone(), watchers[0].channel.clone());
    let start = Instant::now();
    all_list(nodes, &app, &channel, users, limit).await;
    let mut turn = tokio::time::interval(Duration::from_millis(50));
    loop {
        turn.tick().await;
        // An event that is published now is behind all that led to the list.
        let marker = format!("{MARKER}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let event = json!({ "name": marker, "channels": [channel], "data": "x" });
        let answer = Call::post(&app, "/events", &event)
            .send_to(nodes[0].address)
            .await;
        if answer.status == 200 {
            for watcher in &mut *watchers {
                watcher.reads_up_to(&marker).await;
            }
            if watchers.iter().all(|watcher| watcher.present.iter().eq(users)) {
                break;
            }
        }
        let seen: Vec<_> = watchers.iter().map(|watcher| &watcher.present).collect();
        assert!(
            start.elapsed() < limit,
            "after {limit:?} they see {seen:?} instead of {users:?}; a publish was answered {}",
            answer.status
        );
    }
    all_list(nodes, &app, &channel, users, Duration::from_secs(1)).await;
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|value| value.as_str().expect("a text").to_owned())
}
