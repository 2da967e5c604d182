//! A connection's place in its app's quota: asked for, waited for, given back.
//!
//! Where an app has a limit, presence decides, because it knows the connections of all nodes. An app without one only
//! counts, and nobody waits.

use std::sync::Arc;
use std::task::{Context, Poll};

use dunlin_protocol::pusher::codes::CloseCode;
use dunlin_protocol::pusher::outgoing;

use super::Shard;
use super::connection::Phase;
use crate::apps::App;
use crate::hub::socket::Socket;
use crate::presence::ConnectionRef;

/// How long a connection may wait to be let in. Clients give up by themselves after ten seconds or more (pusher-js).
pub(super) const ADMISSION_TIMEOUT_S: u32 = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// It does not count: it need not yet, or is parting.
    #[default]
    None,
    /// The answer is on its way.
    Asked,
    Taken,
    /// It was sent away with this code before it was let in.
    Refused(CloseCode),
}

impl Shard {
    /// The connection counts from now on, if there is room for it.
    pub(super) fn take_place(&mut self, at: ConnectionRef) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        if connection.session.app.limits.connections == 0 {
            if connection.session.app.take_connection().is_ok() {
                connection.place = Place::Taken;
            }
        } else {
            connection.place = Place::Asked;
            let app = Arc::clone(&connection.session.app);
            self.services.presence.admit(&app, at);
        }
    }

    pub(super) fn give_place_back(&self, app: &Arc<App>) {
        if app.limits.connections == 0 {
            app.give_connection_back();
        } else {
            self.services.presence.dismiss(app);
        }
    }

    /// The answer to a connection that asked for a place.
    pub(super) fn admitted(&mut self, to: ConnectionRef, app: &Arc<App>, granted: bool) {
        let activity_timeout_s = self.bounds.activity_timeout_s;
        let asked = self
            .connection(to)
            .filter(|connection| connection.place == Place::Asked);
        let Some(connection) = asked else {
            // It is gone, or about to go.
            if granted {
                self.give_place_back(app);
            }
            return;
        };
        if !granted {
            connection.place = Place::None;
            let code = CloseCode::OverConnectionQuota;
            return self.close(to, code, code.message());
        }
        connection.place = Place::Taken;
        if matches!(connection.phase, Phase::Waiting { .. }) {
            connection.phase = Phase::Open { authorize_by_s: None };
            let socket_id = connection.session.socket_id;
            self.append(
                to.slot,
                outgoing::connection_established(socket_id, activity_timeout_s),
            );
            self.resume(to);
        }
    }

    /// Sends away a connection that was not let in, in the words of a transport that does not accept one.
    pub(super) fn refuse(&mut self, at: ConnectionRef, code: CloseCode, message: &str) {
        let Some(connection) = self.connection(at) else {
            return;
        };
        if !matches!(connection.socket, Socket::Pipe(_)) {
            self.append(at.slot, outgoing::error(Some(code.code()), message));
        }
        self.append(at.slot, outgoing::close_frame(code.code(), message));
        self.end(at.slot, Phase::Failing { since_s: self.now_s });
        if let Some(connection) = self.connection(at) {
            connection.place = Place::Refused(code);
        }
    }

    /// Whether the connection was let in, for a transport that cannot say anything before it knows.
    ///
    /// # Errors
    /// It was sent away with this code.
    pub fn poll_admitted(&mut self, at: ConnectionRef, cx: &mut Context<'_>) -> Poll<Result<(), CloseCode>> {
        match self.connection(at) {
            Some(connection) if matches!(connection.phase, Phase::Waiting { .. }) => {
                connection.waker.clone_from(cx.waker());
                Poll::Pending
            }
            Some(connection) => Poll::Ready(match connection.place {
                Place::Refused(code) => Err(code),
                Place::None | Place::Asked | Place::Taken => Ok(()),
            }),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;

    use bytes::Bytes;
    use dunlin_protocol::names::{ChannelName, UserId};

    use super::*;
    use crate::answer::{Answer, Unavailable};
    use crate::broker::contract::Nobody;
    use crate::broker::memory::MemoryBroker;
    use crate::config::{Sources, load};
    use crate::hub::mailbox::Mail;
    use crate::hub::pipe::Pipe;
    use crate::hub::shard::Accepted;
    use crate::hub::{Hub, Services};
    use crate::presence::{ChannelPage, Join, Leave, Occupancy, Presence, SignIn};
    use crate::webhooks::outbox::MemoryOutbox;

    /// A presence that is asked for places and answers when the test does.
    #[derive(Default)]
    struct Gate {
        asked: Mutex<Vec<ConnectionRef>>,
        dismissed: AtomicUsize,
    }

    impl Presence for Gate {
        fn join(&self, _: Join) {}

        fn leave(&self, _: Leave) {}

        fn sign_in(&self, _: &SignIn) {}

        fn sign_out(&self, _: &SignIn) {}

        fn occupancy(&self, _: &App, _: &ChannelName) -> Answer<Result<Occupancy, Unavailable>> {
            Answer::ready(Err(Unavailable))
        }

        fn channels(&self, _: &App, _: &str, _: Option<&str>) -> Answer<Result<ChannelPage, Unavailable>> {
            Answer::ready(Err(Unavailable))
        }

        fn users(&self, _: &App, _: &ChannelName) -> Answer<Result<Vec<UserId>, Unavailable>> {
            Answer::ready(Err(Unavailable))
        }

        fn terminate_user(&self, _: &App, _: &UserId) -> Answer<Result<(), Unavailable>> {
            Answer::ready(Err(Unavailable))
        }

        fn admit(&self, _: &Arc<App>, connection: ConnectionRef) {
            self.asked.lock().unwrap().push(connection);
        }

        fn dismiss(&self, _: &Arc<App>) {
            self.dismissed.fetch_add(1, Ordering::Relaxed);
        }

        fn tick(&self) {}
    }

    struct World {
        hub: Arc<Hub>,
        gate: Arc<Gate>,
        shard: Shard,
        app: Arc<App>,
    }

    impl World {
        fn new(limit: u32) -> Self {
            let config = load(&Sources::default()).unwrap().config;
            let hub = Arc::new(Hub::new(1, 0, &config.sockets));
            let gate = Arc::new(Gate::default());
            let outbox = Arc::new(MemoryOutbox::new(0));
            let broker = MemoryBroker::new(
                Arc::default(),
                Arc::new(Nobody),
                outbox,
                &config.cache,
                &config.history,
            );
            let services = Services {
                broker: Arc::new(broker),
                presence: gate.clone(),
            };
            let shard = Shard::new(Arc::clone(&hub), services, 0, &config.sockets);
            let app = App::fresh(|section| section.limits.connections = limit);
            Self {
                hub,
                gate,
                shard,
                app,
            }
        }

        fn open(&mut self) -> (ConnectionRef, Arc<Pipe>) {
            let pipe = Arc::new(Pipe::new(64 * 1024));
            let accepted = Accepted {
                app: Arc::clone(&self.app),
                socket: Socket::Pipe(Arc::clone(&pipe)),
                greeting: Bytes::new(),
            };
            let at = self.shard.open(accepted).ok().unwrap();
            self.shard.flush_now(at);
            (at, pipe)
        }

        fn answer(&mut self, to: ConnectionRef, granted: bool) {
            let app = Arc::clone(&self.app);
            self.hub.send(to, |to| Mail::Admitted { to, app, granted });
            self.shard.turn();
        }

        fn is_admitted(&mut self, at: ConnectionRef) -> Poll<Result<(), CloseCode>> {
            self.shard
                .poll_admitted(at, &mut Context::from_waker(Waker::noop()))
        }

        fn dismissed(&self) -> usize {
            self.gate.dismissed.load(Ordering::Relaxed)
        }
    }

    /// The events and close codes that went out.
    fn said(pipe: &Pipe) -> Vec<String> {
        let mut said = Vec::new();
        while let Poll::Ready(Some(chunk)) = pipe.poll_next(&mut Context::from_waker(Waker::noop())) {
            said.extend(outgoing::frames(&chunk).map(|frame| {
                if let Some((code, _)) = frame.close_reason() {
                    return code.to_string();
                }
                let message: serde_json::Value = serde_json::from_slice(frame.payload).unwrap();
                message["event"].as_str().unwrap().to_owned()
            }));
        }
        said
    }

    const ESTABLISHED: &str = "pusher:connection_established";

    #[test]
    fn who_is_let_in_is_told_so_and_heard_from_then_on() {
        let mut world = World::new(1);
        let (at, pipe) = world.open();
        world.shard.receive(at, "{\"event\":\"pusher:ping\"}");
        assert_eq!(*world.gate.asked.lock().unwrap(), [at]);
        assert_eq!((said(&pipe), world.is_admitted(at)), (vec![], Poll::Pending));
        assert!(!world.shard.is_listening(at), "nothing is read before");
        world.answer(at, true);
        assert_eq!(world.is_admitted(at), Poll::Ready(Ok(())));
        assert_eq!(said(&pipe), [ESTABLISHED, "pusher:pong"]);
        assert!(world.shard.is_listening(at));
        world.shard.gone(at);
        assert_eq!(world.dismissed(), 1);
    }

    #[test]
    fn who_is_not_let_in_is_told_why_and_has_no_place_to_give_back() {
        let mut world = World::new(1);
        let (at, pipe) = world.open();
        world.answer(at, false);
        assert_eq!(
            world.is_admitted(at),
            Poll::Ready(Err(CloseCode::OverConnectionQuota))
        );
        assert_eq!(said(&pipe), ["4004"]);
        world.shard.gone(at);
        assert_eq!(world.dismissed(), 0);
    }

    #[test]
    fn a_place_that_comes_too_late_is_given_back_once() {
        let mut world = World::new(1);
        let (gone, _) = world.open();
        world.shard.gone(gone);
        world.answer(gone, true);
        assert_eq!(world.dismissed(), 1);
        let (refused, _) = world.open();
        world.shard.gone(refused);
        world.answer(refused, false);
        assert_eq!(world.dismissed(), 1, "there was none to give back");

        let (late, pipe) = world.open();
        world.hub.drain(1);
        world.shard.turn();
        assert_eq!(said(&pipe), ["4200"]);
        assert_eq!(world.is_admitted(late), Poll::Ready(Err(CloseCode::ReconnectNow)));
        world.answer(late, true);
        assert_eq!((world.dismissed(), said(&pipe)), (2, vec![]));
        world.shard.gone(late);
        assert_eq!(world.dismissed(), 2);
    }

    #[test]
    fn without_a_limit_nobody_is_asked() {
        let mut world = World::new(0);
        let (at, pipe) = world.open();
        assert_eq!(
            (said(&pipe), world.is_admitted(at)),
            (vec![ESTABLISHED.to_owned()], Poll::Ready(Ok(())))
        );
        assert!(world.gate.asked.lock().unwrap().is_empty());
        let open = || world.app.counters.connections.load(Ordering::Relaxed);
        assert_eq!(open(), 1);
        world.shard.gone(at);
        assert_eq!((open(), world.dismissed()), (0, 0));
    }
}
