//! The endpoints that are kept here, and how every endpoint does.

use dunlin_protocol::names::AppId;
use sqlx::{Any, Executor, Row as _, Transaction};

use super::{Fault, Store, rows};
use crate::storage::sql::{from_number, number};
use crate::webhooks::delivery::EndpointId;

/// An endpoint as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    pub app: AppId,
    pub id: EndpointId,
    /// JSON.
    pub settings: String,
    pub enabled: bool,
    /// Grows by one with each change of it, from 1.
    pub version: i64,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
}

/// An endpoint as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    pub app: AppId,
    pub id: EndpointId,
    /// JSON.
    pub settings: String,
    pub enabled: bool,
    /// The version that was changed; `None`: it is new.
    pub replaces: Option<i64>,
}

/// How an endpoint does, whether it is kept here or in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// The first failure that no success followed; Unix milliseconds.
    pub failing_since_ms: Option<u64>,
    /// Since when it is sent nothing.
    pub disabled_at_ms: Option<u64>,
    pub last: Option<LastAttempt>,
}

/// That the server sends an endpoint nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Unix milliseconds.
    pub since_ms: u64,
    pub why: WhyDisabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyDisabled {
    /// It said so.
    Gone,
    /// For too long, since then; Unix milliseconds. `None`: that is not known any more.
    TookNothing { since_ms: Option<u64> },
}

impl EndpointState {
    /// Of one that is disabled. Which of the reasons it was, shows in what was seen last.
    pub fn disabled(&self) -> Option<Disabled> {
        let last_status = self.last.as_ref().and_then(|last| last.status);
        let why = WhyDisabled::of(last_status, self.failing_since_ms);
        self.disabled_at_ms.map(|since_ms| Disabled { since_ms, why })
    }
}

impl WhyDisabled {
    const GONE: u16 = 410;

    fn of(last_status: Option<u16>, failing_since_ms: Option<u64>) -> Self {
        match last_status {
            Some(Self::GONE) => Self::Gone,
            _ => Self::TookNothing {
                since_ms: failing_since_ms,
            },
        }
    }
}

/// An endpoint's latest attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAttempt {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// `None`: there was no answer.
    pub status: Option<u16>,
    /// For people.
    pub note: String,
}

impl Store {
    /// The endpoints of all apps, and a number that grows with each change of any.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn endpoints(&self) -> Result<(i64, Vec<StoredEndpoint>), Fault> {
        let work = async {
            // The number first: what changes in between is seen now, and again after the next look at the number.
            let version = self.read_version().await?;
            let found = sqlx::query(
                "SELECT app_id, id, settings, enabled, version, created_at_ms, updated_at_ms \
                 FROM webhook_endpoints ORDER BY app_id, id",
            )
            .fetch_all(self.database.reads())
            .await?;
            let endpoints = found.iter().map(|row| {
                Ok(StoredEndpoint {
                    app: rows::parsed(row, "app_id")?,
                    id: rows::endpoint(row, "id")?,
                    settings: row.try_get("settings")?,
                    enabled: row.try_get::<i64, _>("enabled")? != 0,
                    version: row.try_get("version")?,
                    created_at_ms: rows::whole(row, "created_at_ms")?,
                    updated_at_ms: rows::whole(row, "updated_at_ms")?,
                })
            });
            Ok((version, endpoints.collect::<Result<_, sqlx::Error>>()?))
        };
        self.database.within(work).await
    }

    /// The number alone, for whoever waits for a change.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn endpoints_version(&self) -> Result<i64, Fault> {
        self.database.within(self.read_version()).await
    }

    async fn read_version(&self) -> Result<i64, sqlx::Error> {
        sqlx::query("SELECT version FROM webhook_endpoint_changes")
            .fetch_one(self.database.reads())
            .await?
            .try_get("version")
    }

    /// Keeps an endpoint and returns its version; `None`, with nothing changed, when there is another than it replaces. A
    /// new one begins well, whatever became of one of its name.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn put_endpoint(&self, change: &EndpointChange, now_ms: u64) -> Result<Option<i64>, Fault> {
        let version = change.replaces.unwrap_or(0) + 1;
        let sql = match change.replaces {
            None => {
                "INSERT INTO webhook_endpoints (app_id, id, settings, enabled, version, created_at_ms, updated_at_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING"
            }
            Some(_) => {
                "UPDATE webhook_endpoints SET settings = $3, enabled = $4, version = $5, updated_at_ms = $6 \
                 WHERE app_id = $1 AND id = $2 AND version = $5 - 1"
            }
        };
        let work = async {
            let mut transaction = self.database.begin().await?;
            let changed = sqlx::query(sql)
                .bind(change.app.as_str())
                .bind(&*change.id.0)
                .bind(change.settings.as_str())
                .bind(i64::from(change.enabled))
                .bind(version)
                .bind(number(now_ms))
                .execute(&mut *transaction)
                .await?;
            if changed.rows_affected() == 0 {
                return Ok(None);
            }
            if change.replaces.is_none() {
                begin_anew(&mut *transaction, &change.app, &change.id).await?;
            }
            count_change(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Some(version))
        };
        self.database.within(work).await
    }

    /// Forgets an endpoint, not its deliveries. False: there was none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn remove_endpoint(&self, app: &AppId, id: &EndpointId) -> Result<bool, Fault> {
        let work = async {
            let mut transaction = self.database.begin().await?;
            let removed = sqlx::query("DELETE FROM webhook_endpoints WHERE app_id = $1 AND id = $2")
                .bind(app.as_str())
                .bind(&*id.0)
                .execute(&mut *transaction)
                .await?;
            if removed.rows_affected() == 0 {
                return Ok(false);
            }
            count_change(&mut transaction).await?;
            transaction.commit().await?;
            Ok(true)
        };
        self.database.within(work).await
    }

    /// How an endpoint does; one that was never sent anything does nothing yet.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn endpoint_state(&self, app: &AppId, endpoint: &EndpointId) -> Result<EndpointState, Fault> {
        let work = async {
            let found = sqlx::query(
                "SELECT failing_since_ms, disabled_at_ms, last_at_ms, last_status, last_note \
                 FROM webhook_endpoint_states WHERE app_id = $1 AND endpoint_id = $2",
            )
            .bind(app.as_str())
            .bind(&*endpoint.0)
            .fetch_optional(self.database.reads())
            .await?;
            let Some(row) = found else {
                return Ok(EndpointState::default());
            };
            let time = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(from_number));
            let last = match time("last_at_ms")? {
                Some(at_ms) => Some(LastAttempt {
                    at_ms,
                    status: rows::status(&row, "last_status")?,
                    note: row.try_get("last_note")?,
                }),
                None => None,
            };
            Ok(EndpointState {
                failing_since_ms: time("failing_since_ms")?,
                disabled_at_ms: time("disabled_at_ms")?,
                last,
            })
        };
        self.database.within(work).await
    }

    /// The endpoints that are disabled, also those that are not there any more.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn disabled(&self) -> Result<Vec<((AppId, EndpointId), Disabled)>, Fault> {
        let work = async {
            let found = sqlx::query(
                "SELECT app_id, endpoint_id, disabled_at_ms, failing_since_ms, last_status \
                 FROM webhook_endpoint_states WHERE disabled_at_ms IS NOT NULL",
            )
            .fetch_all(self.database.reads())
            .await?;
            let disabled = found.iter().map(|row| {
                let key = (rows::parsed(row, "app_id")?, rows::endpoint(row, "endpoint_id")?);
                let failing_since_ms: Option<i64> = row.try_get("failing_since_ms")?;
                let last_status = rows::status(row, "last_status")?;
                let disabled = Disabled {
                    since_ms: rows::whole(row, "disabled_at_ms")?,
                    why: WhyDisabled::of(last_status, failing_since_ms.map(from_number)),
                };
                Ok((key, disabled))
            });
            disabled.collect()
        };
        self.database.within(work).await
    }

    /// Sends an endpoint nothing more, until it is enabled: nobody gets a claim on it, and what is pending is given up,
    /// to be replayed. What is added later is given up by [`Store::prune`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn disable(&self, app: &AppId, endpoint: &EndpointId, now_ms: u64) -> Result<(), Fault> {
        let work = async {
            sqlx::query(
                "INSERT INTO webhook_endpoint_states (app_id, endpoint_id, disabled_at_ms) VALUES ($1, $2, $3) \
                 ON CONFLICT (app_id, endpoint_id) DO UPDATE SET disabled_at_ms = excluded.disabled_at_ms",
            )
            .bind(app.as_str())
            .bind(&*endpoint.0)
            .bind(number(now_ms))
            .execute(self.database.writes())
            .await
        };
        self.database.within(work).await?;
        self.bury(now_ms).await?;
        Ok(())
    }

    /// Lets an endpoint begin anew. What was given up stays so until it is replayed.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn enable(&self, app: &AppId, endpoint: &EndpointId) -> Result<(), Fault> {
        let work = begin_anew(self.database.writes(), app, endpoint);
        self.database.within(work).await
    }
}

async fn begin_anew(
    database: impl Executor<'_, Database = Any>,
    app: &AppId,
    endpoint: &EndpointId,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE webhook_endpoint_states SET disabled_at_ms = NULL, failing_since_ms = NULL \
         WHERE app_id = $1 AND endpoint_id = $2",
    )
    .bind(app.as_str())
    .bind(&*endpoint.0)
    .execute(database)
    .await?;
    Ok(())
}

async fn count_change(transaction: &mut Transaction<'static, Any>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE webhook_endpoint_changes SET version = version + 1")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_endpoint_is_disabled_shows_in_what_was_seen_last() {
        let failing = WhyDisabled::TookNothing { since_ms: Some(1) };
        for (last_status, failing_since_ms, why) in [
            (Some(410), Some(1), WhyDisabled::Gone),
            (Some(500), Some(1), failing),
            (None, Some(1), failing),
            (None, None, WhyDisabled::TookNothing { since_ms: None }),
        ] {
            assert_eq!(WhyDisabled::of(last_status, failing_since_ms), why);
        }
        assert_eq!(EndpointState::default().disabled(), None);
    }
}
