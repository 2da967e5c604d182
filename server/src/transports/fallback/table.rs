//! The sessions of this node, found by the name that the client invented.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::session::{Link, Look, Session};
use crate::hub::Hub;
use crate::hub::mailbox::Mail;
use crate::lock::lock;
use crate::presence::ConnectionRef;
use crate::transports::Worker;

/// Most sessions that have not said which app they want. The others are bounded by the connections of their apps.
const MAX_UNADDRESSED: usize = 4096;

/// All workers' sessions: a client's requests arrive on any of them.
#[derive(Debug)]
pub struct Sessions {
    hub: Arc<Hub>,
    /// How long a session lives on without a request that receives.
    gap: Duration,
    table: Mutex<HashMap<String, Arc<Session>>>,
    unaddressed: Arc<AtomicUsize>,
}

/// A place among the sessions that have not said which app they want.
#[derive(Debug)]
pub struct Unaddressed {
    pub since: Instant,
    count: Arc<AtomicUsize>,
}

impl Drop for Unaddressed {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    pub fn new(hub: Arc<Hub>, gap: Duration) -> Self {
        Self {
            hub,
            gap,
            table: Mutex::default(),
            unaddressed: Arc::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        lock(&self.table)
    }

    /// Sessions of this node, those among them that have not said which app they want. For the gauge.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    pub fn gap(&self) -> Duration {
        self.gap
    }

    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    pub fn find(&self, key: &str) -> Option<Arc<Session>> {
        self.table().get(key).cloned()
    }

    /// A place for a session without an address; `None`: there are as many as there may be.
    pub fn take_unaddressed(&self) -> Option<Unaddressed> {
        let place = Unaddressed {
            since: Instant::now(),
            count: Arc::clone(&self.unaddressed),
        };
        // The place counts itself out when it is dropped.
        (self.unaddressed.fetch_add(1, Ordering::Relaxed) < MAX_UNADDRESSED).then_some(place)
    }

    /// Adds a session and starts what watches over it, on this worker.
    ///
    /// # Errors
    /// Another request was faster: its session, and the link that found no use.
    pub fn add(self: &Arc<Self>, key: String, link: Link) -> Result<Arc<Session>, (Arc<Session>, Box<Link>)> {
        let session = match self.table().entry(key) {
            Entry::Occupied(other) => return Err((Arc::clone(other.get()), Box::new(link))),
            Entry::Vacant(place) => {
                let session = Arc::new(Session::new(place.key().clone(), link));
                Arc::clone(place.insert(session))
            }
        };
        tokio::task::spawn_local(watch(Arc::clone(self), Arc::clone(&session)));
        Ok(session)
    }

    /// Forgets the session and lets go of its connection.
    pub fn end(&self, session: &Arc<Session>) {
        if let Entry::Occupied(entry) = self.table().entry(session.key.clone())
            && Arc::ptr_eq(entry.get(), session)
        {
            entry.remove();
        }
        if let Some(at) = session.end() {
            self.hub.send(at, |connection| Mail::Gone { connection });
        }
    }
}

/// Ends the session in time, and lets it go when it is over.
async fn watch(sessions: Arc<Sessions>, session: Arc<Session>) {
    loop {
        match session.look(Instant::now(), sessions.gap) {
            Look::Over => return sessions.end(&session),
            Look::At(instant) => tokio::select! {
                () = sleep_until(instant) => {}
                () = session.changed() => {}
            },
            Look::WhenChanged => session.changed().await,
        }
    }
}

/// Serves a connection of this worker until it is over: writes again when the pipe was full and has room.
pub fn drive(worker: &Rc<Worker>, at: ConnectionRef, session: &Arc<Session>) {
    let (worker, session) = (Rc::clone(worker), Arc::clone(session));
    tokio::task::spawn_local(async move {
        poll_fn(|cx| worker.shard.borrow_mut().poll_write(at, cx)).await;
        session.connection_ended();
    });
}
