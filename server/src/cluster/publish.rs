//! Publishing: one script for each event and channel.

use std::future::Future as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::held::kept;
use super::message::{Event, is_remembered};
use super::{Cluster, millis};
use crate::answer::{Answer, Unavailable};
use crate::apps::App;
use crate::broker::{NotPublished, Origin, Publication};
use crate::storage::keys::KeyRef;
use crate::storage::redis::names::{Kind, Thing};
use crate::storage::redis::scripts::PUBLISH;

impl Cluster {
    /// Sends the event on its way before it returns, so that those of one caller are in the caller's order even if it
    /// does not wait for the answers.
    pub(super) fn publish_event(
        &self,
        app: &Arc<App>,
        publication: &Publication<'_>,
    ) -> Answer<Result<(), NotPublished>> {
        let link = self
            .link
            .load_full()
            .filter(|_| self.is_accepting.load(Ordering::Acquire));
        let Some(link) = link else {
            return Answer::ready(Err(Unavailable.into()));
        };
        let key = KeyRef::new(app.num, publication.channel.as_str());
        if !self.node.has_room(key) {
            return Answer::ready(Err(NotPublished::Overloaded));
        }
        let thing = Thing {
            kind: Kind::Channel,
            app: app.id.clone(),
            name: publication.channel.as_str().into(),
        };
        let keys = [
            self.names.state(&thing),
            self.names.history(&thing),
            self.names.cached(&thing),
            self.names.outbox(thing.partition()),
        ];
        let told = if publication.is_wanted(app) {
            serde_json::to_string(&publication.to_published()).ok()
        } else {
            None
        };
        let kept = kept(app, publication.channel);
        let lives_ms = if is_remembered(publication) {
            millis(self.cache_ttl)
        } else {
            0
        };
        let numbers = [
            lives_ms.to_string(),
            kept.size.to_string(),
            kept.age_ms.to_string(),
            told.as_ref().map_or(0, |_| self.rules.outbox).to_string(),
        ];
        let body = Event::write(publication);
        let command = self.rules.publish;
        let origin = publication.origin;
        let mut sending = Box::pin(async move {
            let [state, history, cached, outbox] = &keys;
            let [lives_ms, size, age_ms, entries] = &numbers;
            let (app, channel, told) = (thing.app.as_str(), &*thing.name, told.unwrap_or_default());
            let args = [
                command, state, &body, lives_ms, size, age_ms, entries, app, channel, &told,
            ];
            let args = args.map(str::as_bytes);
            // A client's event has its place between the client's coming and its going, which take this lane.
            let lane = match origin {
                Origin::Client => &link.holding,
                Origin::Api => &link.publishing,
            };
            let answer = PUBLISH.run(lane, &[state, history, cached, outbox], &args).await;
            answer.map(|_| ()).map_err(|error| {
                link.failed("publish", &error);
                NotPublished::from(Unavailable)
            })
        });
        match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Answer::ready(answer),
            Poll::Pending => Answer::Later(sending),
        }
    }
}
