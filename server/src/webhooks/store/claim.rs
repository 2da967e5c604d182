//! Who works on an endpoint.

use dunlin_protocol::names::AppId;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{Fault, Store, rows};
use crate::storage::sql::{Locking, number};
use crate::webhooks::delivery::EndpointId;

/// An endpoint that a worker, and nobody else, works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub app: AppId,
    pub endpoint: EndpointId,
}

impl Store {
    /// Takes up to `most` endpoints that nobody works on, or somebody who gave no sign for too long, and that have a
    /// delivery to be attempted by `due_by_ms`; whose turn was longest ago first. They are the worker's until somebody
    /// else takes them, which nobody does before `until_ms`. All times are Unix milliseconds.
    ///
    /// `worker` must be nobody else's name, nor that of an earlier life.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn claim(
        &self,
        worker: &str,
        now_ms: u64,
        until_ms: u64,
        due_by_ms: u64,
        most: u32,
    ) -> Result<Vec<Claim>, Fault> {
        // The subquery, unlike a join, makes both databases look at one entry of an index for each endpoint, however
        // many deliveries wait there.
        let due = "SELECT s.app_id AS due_app, s.endpoint_id AS due_endpoint FROM webhook_endpoint_states s \
             WHERE (s.worker IS NULL OR s.until_ms <= $2) AND s.disabled_at_ms IS NULL \
             AND (SELECT d.next_at_ms FROM webhook_deliveries d WHERE d.app_id = s.app_id \
                  AND d.endpoint_id = s.endpoint_id AND d.state = 'pending' ORDER BY d.next_at_ms LIMIT 1) <= $4 \
             ORDER BY s.claimed_at_ms LIMIT $5";
        let sql = format!(
            "WITH due AS MATERIALIZED ({}) \
             UPDATE webhook_endpoint_states SET worker = $1, until_ms = $3, claimed_at_ms = $2 \
             FROM due WHERE app_id = due_app AND endpoint_id = due_endpoint RETURNING app_id, endpoint_id",
            self.database.locking(due, Locking::Skip("s"))
        );
        let work = async {
            let claimed = sqlx::query(AssertSqlSafe(sql))
                .bind(worker)
                .bind(number(now_ms))
                .bind(number(until_ms))
                .bind(number(due_by_ms))
                .bind(i64::from(most))
                .fetch_all(self.database.writes())
                .await?;
            claims(&claimed)
        };
        self.database.within(work).await
    }

    /// Keeps what the worker has until `until_ms`, and says what that is: what is missing was taken by somebody else, or was
    /// disabled.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn renew(&self, worker: &str, until_ms: u64) -> Result<Vec<Claim>, Fault> {
        // In the order in which `record` takes them, so that neither waits for the other.
        let ours = "SELECT s.app_id AS our_app, s.endpoint_id AS our_endpoint FROM webhook_endpoint_states s \
             WHERE s.worker = $1 AND s.disabled_at_ms IS NULL ORDER BY s.app_id, s.endpoint_id";
        let sql = format!(
            "WITH ours AS MATERIALIZED ({}) UPDATE webhook_endpoint_states SET until_ms = $2 FROM ours \
             WHERE app_id = our_app AND endpoint_id = our_endpoint AND worker = $1 RETURNING app_id, endpoint_id",
            self.database.locking(ours, Locking::Wait("s"))
        );
        let work = async {
            let renewed = sqlx::query(AssertSqlSafe(sql))
                .bind(worker)
                .bind(number(until_ms))
                .fetch_all(self.database.writes())
                .await?;
            claims(&renewed)
        };
        self.database.within(work).await
    }

    /// Those of the worker's endpoints that have a delivery to be attempted by now: others may have stored or replayed it, or enabled
    /// the endpoint.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn due(&self, worker: &str, now_ms: u64) -> Result<Vec<Claim>, Fault> {
        let work = async {
            let due = sqlx::query(
                "SELECT s.app_id, s.endpoint_id FROM webhook_endpoint_states s \
                 WHERE s.worker = $1 AND s.disabled_at_ms IS NULL \
                 AND (SELECT d.next_at_ms FROM webhook_deliveries d WHERE d.app_id = s.app_id \
                      AND d.endpoint_id = s.endpoint_id AND d.state = 'pending' ORDER BY d.next_at_ms LIMIT 1) <= $2",
            )
            .bind(worker)
            .bind(number(now_ms))
            .fetch_all(self.database.reads())
            .await?;
            claims(&due)
        };
        self.database.within(work).await
    }

    /// Gives an endpoint back. Somebody else's stays as it is.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn release(&self, worker: &str, app: &AppId, endpoint: &EndpointId) -> Result<(), Fault> {
        let work = async {
            sqlx::query(
                "UPDATE webhook_endpoint_states SET worker = NULL \
                 WHERE app_id = $1 AND endpoint_id = $2 AND worker = $3",
            )
            .bind(app.as_str())
            .bind(&*endpoint.0)
            .bind(worker)
            .execute(self.database.writes())
            .await?;
            Ok(())
        };
        self.database.within(work).await
    }
}

fn claims(rows: &[AnyRow]) -> Result<Vec<Claim>, sqlx::Error> {
    rows.iter().map(claim).collect()
}

pub(super) fn claim(row: &AnyRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        app: rows::parsed(row, "app_id")?,
        endpoint: rows::endpoint(row, "endpoint_id")?,
    })
}
