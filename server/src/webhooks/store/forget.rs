//! What is forgotten of endpoints that are gone. Which these are is decided by whoever knows the configuration.

use dunlin_protocol::names::AppId;
use sqlx::Row as _;

use super::claim::claim;
use super::{Claim, Fault, Store};
use crate::storage::sql::number;
use crate::webhooks::delivery::EndpointId;

/// Of a row of states: nobody worked on the endpoint, attempted anything or disabled it since `$1`, and nothing is
/// pending for it.
const IS_IDLE: &str = "until_ms < $1 AND claimed_at_ms < $1 AND COALESCE(last_at_ms, 0) < $1 \
     AND COALESCE(disabled_at_ms, 0) < $1 AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d \
     WHERE d.app_id = s.app_id AND d.endpoint_id = s.endpoint_id AND d.state = 'pending')";

impl Store {
    /// Endpoints that nothing was done for since then, in their order, behind the last one of the page before.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn idle_endpoints(
        &self,
        before_ms: u64,
        behind: Option<&Claim>,
        limit: u32,
    ) -> Result<Vec<Claim>, Fault> {
        let sql = format!(
            "SELECT s.app_id, s.endpoint_id FROM webhook_endpoint_states s \
             WHERE (s.app_id, s.endpoint_id) > ($2, $3) AND {IS_IDLE} ORDER BY s.app_id, s.endpoint_id LIMIT $4"
        );
        let (app, endpoint) = behind.map_or(("", ""), |last| (last.app.as_str(), &*last.endpoint.0));
        let work = async {
            let found = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(number(before_ms))
                .bind(app)
                .bind(endpoint)
                .bind(i64::from(limit))
                .fetch_all(self.database.reads())
                .await?;
            found.iter().map(claim).collect()
        };
        self.database.within(work).await
    }

    /// Forgets how an endpoint did, unless something was done for it since then. False: it was not forgotten.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn forget_endpoint(
        &self,
        app: &AppId,
        endpoint: &EndpointId,
        before_ms: u64,
    ) -> Result<bool, Fault> {
        let sql = format!(
            "DELETE FROM webhook_endpoint_states AS s WHERE app_id = $2 AND endpoint_id = $3 AND {IS_IDLE}"
        );
        let work = async {
            let removed = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(number(before_ms))
                .bind(app.as_str())
                .bind(&*endpoint.0)
                .execute(self.database.writes())
                .await?;
            Ok(removed.rows_affected() > 0)
        };
        self.database.within(work).await
    }

    /// Makes known again whatever something is pending for: without that nobody could claim it. Returns how many were
    /// not known.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn adopt(&self) -> Result<u64, Fault> {
        let work = async {
            let adopted = sqlx::query(
                "INSERT INTO webhook_endpoint_states (app_id, endpoint_id) \
                 SELECT DISTINCT d.app_id, d.endpoint_id FROM webhook_deliveries d WHERE d.state = 'pending' \
                 AND NOT EXISTS (SELECT 1 FROM webhook_endpoint_states s \
                 WHERE s.app_id = d.app_id AND s.endpoint_id = d.endpoint_id) ON CONFLICT DO NOTHING",
            )
            .execute(self.database.writes())
            .await?;
            Ok(adopted.rows_affected())
        };
        self.database.within(work).await
    }

    /// Cursors and where they stand, in the order of their names, behind this one.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn cursors(&self, behind: &str, limit: u32) -> Result<Vec<(String, String)>, Fault> {
        let work = async {
            let found = sqlx::query(
                "SELECT name, position FROM webhook_cursors WHERE name > $1 ORDER BY name LIMIT $2",
            )
            .bind(behind)
            .bind(i64::from(limit))
            .fetch_all(self.database.reads())
            .await?;
            let cursors = found
                .iter()
                .map(|row| Ok((row.try_get("name")?, row.try_get("position")?)));
            cursors.collect()
        };
        self.database.within(work).await
    }

    /// Forgets a cursor that stands there. False: it has moved.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn forget_cursor(&self, name: &str, position: &str) -> Result<bool, Fault> {
        let work = async {
            let removed = sqlx::query("DELETE FROM webhook_cursors WHERE name = $1 AND position = $2")
                .bind(name)
                .bind(position)
                .execute(self.database.writes())
                .await?;
            Ok(removed.rows_affected() > 0)
        };
        self.database.within(work).await
    }
}
