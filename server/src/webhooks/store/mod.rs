//! The store of deliveries: from the moment that an event has left the outbox until nobody asks for it any more.
//!
//! What it promises: a delivery that [`Store::add`] has taken is there until it was done or given up, and then kept for
//! as long as pruning lets it; a step of the outbox becomes deliveries once, however many workers try; an endpoint is
//! worked on by one worker at a time, so that its order can be kept. After a [`Fault`] it is not known whether a
//! change took place. Every call may then be repeated: `add` stores nothing twice, and for a `record` that had
//! been done an attempt is counted twice at worst.
//!
//! Start reading at `add.rs`, then `claim.rs` and `record.rs`, which is the way of a delivery; `archive.rs` is for people.

mod add;
mod archive;
mod claim;
#[cfg(test)]
mod contract;
mod endpoints;
mod forget;
mod record;
mod rows;

pub use add::CursorMove;
pub use archive::{Backlog, Filter, LoggedAttempt};
pub use claim::Claim;
pub use endpoints::{Disabled, EndpointChange, EndpointState, LastAttempt, StoredEndpoint, WhyDisabled};
pub use record::{Finished, Kept, Next};

use crate::storage::sql::Database;
pub use crate::storage::sql::Fault;

/// The store. Cheap to clone; all who have opened the same database share it.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// What has to be done beside the work, for ever: see [`Database::tend`].
    pub async fn tend(&self) {
        self.database.tend().await;
    }
}
