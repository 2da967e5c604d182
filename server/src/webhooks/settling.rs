//! Holds the end of something back for a while: a page that is loaded anew is no news.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_protocol::names::{AppId, ChannelName, UserId};
use tokio::time::Instant;

use super::event::ChannelEvent;
use super::outbox::Outbox;
use crate::lock::lock;

/// In front of an outbox. That a channel is vacated or a member removed is passed on when the window is over; if the
/// channel is occupied again or the member is back within it, neither end nor beginning is (Pusher docs, "Webhooks").
pub struct Settling {
    outbox: Arc<dyn Outbox>,
    window: Duration,
    waiting: Mutex<Waiting>,
}

/// A channel, or a member of it.
type Subject = (AppId, ChannelName, Option<UserId>);

#[derive(Default)]
struct Waiting {
    /// What has ended and not been told, with the number of the end.
    ends: HashMap<Subject, u64>,
    /// All ends, in their order; those that were undone are not in `ends` any more.
    queue: VecDeque<(Instant, u64, Subject)>,
    last: u64,
}

impl Settling {
    pub fn new(outbox: Arc<dyn Outbox>, window: Duration) -> Self {
        Self {
            outbox,
            window,
            waiting: Mutex::default(),
        }
    }

    /// Passes on what has waited long enough. Called several times a second.
    pub fn tick(&self) {
        self.tell_until(Some(Instant::now()));
    }

    /// Passes everything on: nobody comes back any more.
    pub fn finish(&self) {
        self.tell_until(None);
    }

    fn tell_until(&self, now: Option<Instant>) {
        let mut waiting = lock(&self.waiting);
        while let Some((due, number, subject)) = waiting.queue.pop_front() {
            if now.is_some_and(|now| due > now) {
                waiting.queue.push_front((due, number, subject));
                break;
            }
            if waiting.ends.get(&subject) != Some(&number) {
                continue;
            }
            waiting.ends.remove(&subject);
            let (app, channel, user_id) = subject;
            let event = match user_id {
                Some(user_id) => ChannelEvent::MemberRemoved { user_id },
                None => ChannelEvent::Vacated,
            };
            // Under the lock: whoever comes back now finds the end told.
            self.outbox.append(&app, &channel, event);
        }
    }
}

impl Outbox for Settling {
    fn append(&self, app: &AppId, channel: &ChannelName, event: ChannelEvent) {
        let subject = |user_id: Option<&UserId>| (app.clone(), channel.clone(), user_id.cloned());
        let mut waiting = lock(&self.waiting);
        let begun = match &event {
            ChannelEvent::Occupied => Some(subject(None)),
            ChannelEvent::MemberAdded { user_id } => Some(subject(Some(user_id))),
            _ => None,
        };
        if begun.is_some_and(|subject| waiting.ends.remove(&subject).is_some()) {
            return;
        }
        let ended = match &event {
            ChannelEvent::Vacated => Some(subject(None)),
            ChannelEvent::MemberRemoved { user_id } => Some(subject(Some(user_id))),
            _ => None,
        };
        if let Some(subject) = ended.filter(|_| !self.window.is_zero()) {
            waiting.last += 1;
            let number = waiting.last;
            waiting.ends.insert(subject.clone(), number);
            waiting
                .queue
                .push_back((Instant::now() + self.window, number, subject));
            return;
        }
        self.outbox.append(app, channel, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::outbox::{Feed as _, MemoryOutbox, Place};

    const WINDOW: Duration = Duration::from_secs(3);

    struct Scene {
        outbox: Arc<MemoryOutbox>,
        settling: Settling,
    }

    impl Scene {
        fn new(window: Duration) -> Self {
            let outbox = Arc::new(MemoryOutbox::new(100));
            let settling = Settling::new(outbox.clone(), window);
            Self { outbox, settling }
        }

        fn append(&self, channel: &str, event: ChannelEvent) {
            self.settling
                .append(&"1".parse().unwrap(), &channel.parse().unwrap(), event);
        }

        async fn told(&self) -> Vec<(String, ChannelEvent)> {
            self.settling.tick();
            let entries = self.outbox.read(&[(0, Place::default())], 100).await.unwrap();
            let told = entries
                .into_iter()
                .map(|(_, entry)| (entry.channel.to_string(), entry.event));
            told.collect()
        }
    }

    fn added(user: &str) -> ChannelEvent {
        ChannelEvent::MemberAdded {
            user_id: user.parse().unwrap(),
        }
    }

    fn removed(user: &str) -> ChannelEvent {
        ChannelEvent::MemberRemoved {
            user_id: user.parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_when_its_window_is_over() {
        let scene = Scene::new(WINDOW);
        for event in [
            ChannelEvent::Occupied,
            added("ann"),
            removed("ann"),
            ChannelEvent::Vacated,
        ] {
            scene.append("presence-a", event);
        }
        let channel = "presence-a".to_owned();
        let begun = [
            (channel.clone(), ChannelEvent::Occupied),
            (channel.clone(), added("ann")),
        ];
        assert_eq!(scene.told().await, begun);
        tokio::time::advance(Duration::from_millis(2999)).await;
        assert_eq!(scene.told().await, begun);
        tokio::time::advance(Duration::from_millis(1)).await;
        let ended = [
            (channel.clone(), removed("ann")),
            (channel, ChannelEvent::Vacated),
        ];
        assert_eq!(scene.told().await, [begun, ended].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_in_time_has_never_been_away() {
        let scene = Scene::new(WINDOW);
        scene.append("presence-a", removed("ann"));
        scene.append("presence-a", removed("bob"));
        scene.append("presence-a", added("ann"));
        tokio::time::advance(WINDOW * 2).await;
        let channel = "presence-a".to_owned();
        assert_eq!(scene.told().await, [(channel.clone(), removed("bob"))]);
        // Too late: that is a return.
        scene.append("presence-a", added("bob"));
        assert_eq!(
            scene.told().await,
            [(channel.clone(), removed("bob")), (channel, added("bob"))]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_begins_anew_with_each_end() {
        let scene = Scene::new(WINDOW);
        scene.append("a", ChannelEvent::Vacated);
        tokio::time::advance(WINDOW / 2).await;
        scene.append("a", ChannelEvent::Occupied);
        scene.append("a", ChannelEvent::Vacated);
        tokio::time::advance(WINDOW * 3 / 4).await;
        assert_eq!(scene.told().await, []);
        tokio::time::advance(WINDOW / 4).await;
        assert_eq!(scene.told().await, [("a".to_owned(), ChannelEvent::Vacated)]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_window_nothing_waits() {
        let scene = Scene::new(Duration::ZERO);
        scene.append("a", ChannelEvent::Vacated);
        assert_eq!(scene.told().await, [("a".to_owned(), ChannelEvent::Vacated)]);
    }
}
