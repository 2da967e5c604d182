//! From the outbox into the store.

use std::collections::BTreeSet;

use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{Fault, Store};
use crate::storage::sql::{Database, Locking, is_kept, number, placeholders};
use crate::webhooks::delivery::NewDelivery;

/// Rows that go into one statement.
const ROWS: usize = 100;

/// The step of a cursor that goes with what is stored. A cursor says how far something was read, in its reader's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// What the cursor is called: what is read.
    pub partition: String,
    /// Where it has to stand; `None`: nobody moved it yet.
    pub from: Option<String>,
    pub to: String,
}

impl Store {
    /// Stores deliveries and moves cursors, each named once, over the entries that they were made of: all or nothing.
    /// False, with nothing stored, when a cursor does not stand where its step begins: another worker was faster.
    ///
    /// Deliveries whose id is stored already are left as they are. `next_at_ms`: not to be attempted before.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn add(
        &self,
        deliveries: &[NewDelivery],
        next_at_ms: u64,
        moves: &[CursorMove],
    ) -> Result<bool, Fault> {
        let work = async {
            let mut transaction = self.database.begin().await?;
            // First, because it holds the cursors' rows: whoever has the same step waits here and is then refused.
            if !move_cursors(&mut transaction, &self.database, moves).await? {
                return Ok(false);
            }
            // The endpoints in their order, so that two who add do not wait for each other.
            let endpoints: BTreeSet<_> = deliveries
                .iter()
                .map(|new| (new.app.as_str(), &*new.endpoint.0))
                .collect();
            let endpoints: Vec<_> = endpoints.into_iter().collect();
            for some in endpoints.chunks(ROWS) {
                know_endpoints(&mut transaction, some).await?;
            }
            for some in deliveries.chunks(ROWS) {
                insert(&mut transaction, some, next_at_ms).await?;
            }
            transaction.commit().await?;
            Ok(true)
        };
        self.database.within(work).await
    }

    /// Where a cursor stands; `None`: nobody moved it yet.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn cursor(&self, partition: &str) -> Result<Option<String>, Fault> {
        let work = async {
            let row = sqlx::query("SELECT position FROM webhook_cursors WHERE name = $1")
                .bind(partition)
                .fetch_optional(self.database.reads())
                .await?;
            row.map(|row| row.try_get("position")).transpose()
        };
        self.database.within(work).await
    }
}

/// Whether every cursor stands where its step begins; then they have moved.
async fn move_cursors(
    transaction: &mut Transaction<'static, Any>,
    database: &Database,
    moves: &[CursorMove],
) -> Result<bool, sqlx::Error> {
    // In their order, so that two who move the same ones do not wait for each other. An update has no order: the rows
    // are held by a select before it.
    let mut moves: Vec<&CursorMove> = moves.iter().collect();
    moves.sort_by_key(|step| &step.partition);
    let (old, new): (Vec<_>, Vec<_>) = moves.into_iter().partition(|step| step.from.is_some());
    for some in old.chunks(ROWS) {
        let steps = placeholders(0, some.len(), 3);
        let steps = format!("WITH steps (its_name, its_from, its_to) AS (VALUES {steps})");
        let hold = format!(
            "{steps} SELECT c.name FROM webhook_cursors c JOIN steps \
             ON c.name = its_name AND c.position = its_from ORDER BY c.name"
        );
        let go = format!(
            "{steps} UPDATE webhook_cursors SET position = its_to FROM steps \
             WHERE name = its_name AND position = its_from"
        );
        let bound = |sql: String| {
            let query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(some.len()));
            some.iter().fold(query, |query, step| {
                query.bind(&step.partition).bind(&step.from).bind(&step.to)
            })
        };
        let held = bound(database.locking(&hold, Locking::Wait("c")));
        if held.fetch_all(&mut **transaction).await?.len() < some.len() {
            return Ok(false);
        }
        bound(go).execute(&mut **transaction).await?;
    }
    for some in new.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO webhook_cursors (name, position) VALUES {} ON CONFLICT DO NOTHING",
            placeholders(0, some.len(), 2)
        );
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(some.len()));
        let query = some
            .iter()
            .fold(query, |query, step| query.bind(&step.partition).bind(&step.to));
        if query.execute(&mut **transaction).await?.rows_affected() < some.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn know_endpoints(
    transaction: &mut Transaction<'static, Any>,
    endpoints: &[(&str, &str)],
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO webhook_endpoint_states (app_id, endpoint_id) VALUES {} ON CONFLICT DO NOTHING",
        placeholders(0, endpoints.len(), 2)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(endpoints.len()));
    for (app, endpoint) in endpoints {
        query = query.bind(*app).bind(*endpoint);
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

async fn insert(
    transaction: &mut Transaction<'static, Any>,
    deliveries: &[NewDelivery],
    next_at_ms: u64,
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO webhook_deliveries (id, app_id, endpoint_id, source, created_at_ms, lanes, events, body, \
         next_at_ms) VALUES {} ON CONFLICT (id) DO NOTHING",
        placeholders(0, deliveries.len(), 9)
    );
    let mut query =
        sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(deliveries.len()) || deliveries.len() == ROWS);
    for new in deliveries {
        query = query
            .bind(new.id.as_str())
            .bind(new.app.as_str())
            .bind(&*new.endpoint.0)
            .bind(new.source.as_str())
            .bind(number(new.created_at_ms))
            .bind(new.lanes.cast_signed())
            .bind(i64::from(new.events))
            .bind(new.body.as_str())
            .bind(number(next_at_ms));
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}
