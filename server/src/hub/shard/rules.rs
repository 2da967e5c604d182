//! Messages, the rules that judge them, and what follows.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dunlin_protocol::names::{ChannelKind, ChannelName, UserId};
use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;

use super::Shard;
use super::connection::{Membership, PENDING, Phase, place};
use super::quota::Place;
use crate::broker::{Origin, Publication};
use crate::clock;
use crate::hub::session::{Effect, Subscription, Subscriptions};
use crate::presence::{ConnectionRef, SignIn};
use crate::storage::keys::{AppNum, ChannelMap, KeyRef};

/// A connection's subscriptions, as its rules see them.
struct View<'a> {
    app: AppNum,
    memberships: &'a [Membership],
    channels: &'a ChannelMap<u32>,
}

impl Subscriptions for View<'_> {
    fn find(&self, name: &str) -> Option<Subscription> {
        let channel = *self.channels.get(KeyRef::new(self.app, name))?;
        let membership = &self.memberships[place(self.memberships, channel).ok()?];
        Some(if membership.position == PENDING {
            Subscription::Pending
        } else {
            let is_member = ChannelKind::of(name).is_presence();
            Subscription::Joined {
                user_id: membership.name.clone().filter(|_| is_member),
            }
        })
    }

    fn count(&self) -> usize {
        self.memberships.len()
    }
}

impl Shard {
    pub(super) fn decide(&mut self, at: ConnectionRef, text: &str) {
        let Some(connection) = &mut self.slots[at.slot as usize].connection else {
            return;
        };
        let app = connection.session.app.num;
        let view = View {
            app,
            memberships: &connection.memberships,
            channels: &self.channel_index,
        };
        let effect = connection
            .session
            .on_message(text, &view, clock::monotonic_nanos());
        self.perform(at, effect, text);
    }

    pub(super) fn perform(&mut self, at: ConnectionRef, effect: Effect, text: &str) {
        match effect {
            Effect::Nothing => {}
            Effect::Reply(frames) => self.append(at.slot, frames),
            Effect::Close { code, message } => self.close(at, code, &message),
            Effect::Wait => {
                if let Some(connection) = self.connection(at) {
                    connection
                        .deferred
                        .get_or_insert_default()
                        .push_front(text.to_owned());
                }
            }
            Effect::Join {
                channel,
                member,
                since,
            } => self.join(at, channel, member, since),
            Effect::Leave { channel } => self.leave(at.slot, &channel),
            Effect::Publish {
                channel,
                event,
                data_literal,
                user_id,
            } => {
                self.publish(at, &channel, &event, &data_literal, user_id.as_ref());
            }
            Effect::SignIn {
                reply,
                user_id,
                watchlist,
            } => self.sign_in(at, reply, user_id, watchlist),
        }
    }

    pub(super) fn publish(
        &mut self,
        at: ConnectionRef,
        channel: &ChannelName,
        event: &str,
        data_literal: &str,
        user_id: Option<&UserId>,
    ) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        let app = Arc::clone(&connection.session.app);
        let except = Some(connection.session.socket_id);
        let signed_in = connection.session.user().map(|user| user.id.clone());
        let publication = Publication {
            channel,
            event,
            data_literal,
            user_id,
            signed_in: signed_in.as_ref(),
            except,
            origin: Origin::Client,
        };
        app.counters.client_events.fetch_add(1, Relaxed);
        let mut answer = self.services.broker.publish(&app, &publication);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut answer).poll(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(reason)) => self.append(
                at.slot,
                outgoing::error(None, &format!("Client event rejected: {reason}")),
            ),
            // A broker that waits finishes by itself; a client event has no answer that could be late.
            Poll::Pending => drop(tokio::task::spawn_local(answer)),
        }
    }

    pub(super) fn sign_in(
        &mut self,
        at: ConnectionRef,
        reply: Bytes,
        user_id: UserId,
        watchlist: Arc<[UserId]>,
    ) {
        self.append(at.slot, reply);
        let Some(connection) = self.connection(at) else {
            return;
        };
        let app = Arc::clone(&connection.session.app);
        self.users
            .entry((app.num, user_id.clone()))
            .or_default()
            .push(at.slot);
        self.services.presence.sign_in(&SignIn {
            app,
            connection: at,
            user_id,
            watchlist,
        });
        self.authorized(at);
    }

    /// The connection proved who it is: it counts towards the quota from now on, and its deadline falls.
    pub(super) fn authorized(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        match &mut connection.phase {
            Phase::Open { authorize_by_s } | Phase::Pinged { authorize_by_s, .. } => *authorize_by_s = None,
            Phase::Waiting { .. } | Phase::Closing { .. } | Phase::Failing { .. } | Phase::Closed { .. } => {
                return;
            }
        }
        if connection.place == Place::None {
            self.take_place(at);
        }
    }

    /// Goes on with the messages that waited for an answer.
    pub(super) fn resume(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        let Some(mut waiting) = connection.deferred.take() else {
            return;
        };
        while let Some(message) = waiting.pop_front() {
            self.decide(at, &message);
            let Some(connection) = self.connection(at) else {
                return;
            };
            if let Some(again) = &mut connection.deferred {
                again.append(&mut waiting);
                return;
            }
        }
        if let Some(connection) = self.connection(at) {
            // Its task stopped reading meanwhile.
            connection.waker.wake_by_ref();
        }
    }

    pub(super) fn terminate_user(&mut self, app: AppNum, user_id: &UserId) {
        let slots = self
            .users
            .get(&(app, user_id.clone()))
            .cloned()
            .unwrap_or_default();
        for slot in slots {
            self.close(
                self.reference(slot),
                CloseCode::Unauthorized,
                "You got disconnected by the app.",
            );
        }
    }
}
