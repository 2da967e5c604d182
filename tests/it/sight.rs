//! What somebody who watches others has been told of them.

use crate::client::{Client, Event};
use crate::world::DEADLINE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const WATCH: &str = "pusher_internal:watchlist_events";

/// A signed-in client with a watchlist, which folds what it hears. News that are none fail the test.
pub(crate) struct Sight {
    pub(crate) client: Client,
    /// Whether each of the users is online, as far as it was told.
    told: BTreeMap<String, bool>,
}

impl Sight {
    /// Signs in and reads the first message, which tells of everybody on the list.
    pub(crate) async fn open(mut client: Client, id: &str, list: &[&str]) -> Self {
        client
            .ask_sign_in(&json!({ "id": id, "watchlist": list }).to_string())
            .await;
        client.expect("pusher:signin_success").await;
        let first = client.expect(WATCH).await;
        let mut sight = Self {
            client,
            told: BTreeMap::new(),
        };
        sight.fold(&first);
        let mut list: Vec<&str> = list.to_vec();
        list.sort_unstable();
        assert!(sight.told.keys().eq(&list), "not the whole list: {}", first.raw);
        sight
    }

    /// Reads until it has been told that exactly these (given in order) are online. A user who has just signed in on
    /// another node may be a moment late.
    pub(crate) async fn sees(&mut self, online: &[&str]) {
        self.sees_within(DEADLINE, online).await;
    }

    pub(crate) async fn sees_within(&mut self, limit: Duration, online: &[&str]) {
        let start = Instant::now();
        while !self.online().eq(online.iter().copied()) {
            let left = limit.saturating_sub(start.elapsed());
            match self.client.next_within(left).await {
                Some(event) => self.fold(&event),
                None => panic!("told {:?} instead of {online:?} online", self.told),
            }
        }
    }

    fn online(&self) -> impl Iterator<Item = &str> {
        let online = self.told.iter().filter(|(_, is_online)| **is_online);
        online.map(|(user, _)| user.as_str())
    }

    #[track_caller]
    fn fold(&mut self, event: &Event) {
        assert_eq!((event.name.as_str(), event.channel.as_deref()), (WATCH, None));
        for group in event.json()["events"].as_array().expect("a list of events") {
            let is_online = match group["name"].as_str() {
                Some("online") => true,
                Some("offline") => false,
                _ => panic!("neither here nor gone: {}", event.raw),
            };
            for user in group["user_ids"].as_array().expect("a list of users") {
                let user = Value::as_str(user).expect("a user is a text").to_owned();
                let before = self.told.insert(user, is_online);
                assert_ne!(before, Some(is_online), "told twice: {}", event.raw);
            }
        }
    }
}
