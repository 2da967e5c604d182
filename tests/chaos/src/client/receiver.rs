//! A customer's server for webhooks: keeps what it was sent, and answers as the scenario says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_receiver::Reply;
use serde_json::Value;

/// A delivery that was answered with 200, whether the answer arrived or not.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The `webhook-id`.
    pub(crate) id: String,
    pub(crate) body: Value,
}

/// Takes requests until it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    server: dunlin_receiver::Receiver,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    taken: Vec<Taken>,
    refused: usize,
}

impl Receiver {
    /// `manner` is asked once for each request: for the status of the answer, and how long it is thought about.
    pub(crate) fn start(manner: impl Fn() -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let book = Arc::<Mutex<Book>>::default();
        let own = Arc::clone(&book);
        let server = dunlin_receiver::Receiver::start(move |request| {
            let (status, after) = manner();
            let mut book = lock(&own);
            if status == 200 {
                // A customer who has it says so: the answer may be lost, the event is not.
                let (id, body) = (request.id().to_owned(), request.json());
                book.taken.push(Taken { id, body });
            } else {
                book.refused += 1;
            }
            Reply::status(status).after(after)
        });
        Self { server, book }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.server.address)
    }

    /// How many deliveries were taken.
    pub(crate) fn count(&self) -> usize {
        lock(&self.book).taken.len()
    }

    /// In the order in which they came.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        lock(&self.book).taken.clone()
    }

    /// Requests that were not answered with 200.
    pub(crate) fn refused(&self) -> usize {
        lock(&self.book).refused
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
