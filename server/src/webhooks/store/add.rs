//! From the outbox into the store.

use std::collections::BTreeSet;

use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::{Fault, Store, rows};
use crate::storage::sql::{number, placeholders};
use crate::webhooks::delivery::NewDelivery;

/// Rows that go into one statement. Statements of this size are prepared once; smaller ones each time, because there
/// would be one of each size.
const ROWS: usize = 100;

/// The step of a cursor that goes with what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// Of the outbox.
    pub partition: String,
    /// Where it has to stand; `None`: nobody moved it yet.
    pub from: Option<String>,
    pub to: String,
}

impl Store {
    /// Stores deliveries and moves the cursor over the entries that they were made of: both or neither. False, with
    /// nothing stored, when the cursor does not stand where this step begins: another worker was faster.
    ///
    /// Deliveries whose id is stored already are left as they are. `next_at_ms`: not to be attempted before.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn add(
        &self,
        deliveries: &[NewDelivery],
        next_at_ms: u64,
        cursor: Option<&CursorMove>,
    ) -> Result<bool, Fault> {
        let work = async {
            let mut transaction = self.database.begin().await?;
            // First, because it holds the cursor's row: whoever has the same step waits here and is then refused.
            if let Some(cursor) = cursor
                && !move_cursor(&mut transaction, cursor).await?
            {
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

    /// Where the cursor of a partition of the outbox stands; `None`: at its beginning.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn cursor(&self, partition: &str) -> Result<Option<String>, Fault> {
        let work = async {
            let row = sqlx::query("SELECT position FROM webhook_cursors WHERE partition_name = $1")
                .bind(partition)
                .fetch_optional(self.database.reads())
                .await?;
            row.map(|row| row.try_get("position")).transpose()
        };
        self.database.within(work).await
    }
}

async fn move_cursor(
    transaction: &mut Transaction<'static, Any>,
    cursor: &CursorMove,
) -> Result<bool, sqlx::Error> {
    let query = match &cursor.from {
        None => sqlx::query(
            "INSERT INTO webhook_cursors (partition_name, position) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(&cursor.partition)
        .bind(&cursor.to),
        Some(from) => sqlx::query(
            "UPDATE webhook_cursors SET position = $2 WHERE partition_name = $1 AND position = $3",
        )
        .bind(&cursor.partition)
        .bind(&cursor.to)
        .bind(from),
    };
    Ok(query.execute(&mut **transaction).await?.rows_affected() == 1)
}

async fn know_endpoints(
    transaction: &mut Transaction<'static, Any>,
    endpoints: &[(&str, &str)],
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO webhook_endpoint_states (app_id, endpoint_id) VALUES {} ON CONFLICT DO NOTHING",
        placeholders(0, endpoints.len(), 2)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(endpoints.len() == 1);
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
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(deliveries.len() == ROWS);
    for new in deliveries {
        query = query
            .bind(new.id.as_str())
            .bind(new.app.as_str())
            .bind(&*new.endpoint.0)
            .bind(rows::source_name(new.source))
            .bind(number(new.created_at_ms))
            .bind(new.lanes.cast_signed())
            .bind(i64::from(new.events))
            .bind(new.body.as_str())
            .bind(number(next_at_ms));
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}
