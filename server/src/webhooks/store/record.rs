//! What is to be sent, and what came of it.

use std::collections::BTreeMap;

use dunlin_protocol::names::AppId;
use sqlx::{Any, AssertSqlSafe, Row as _, Transaction};

use super::claim::claim;
use super::{Claim, Fault, Store, rows};
use crate::storage::sql::{Database, Locking, from_number, is_kept, number, placeholders};
use crate::webhooks::delivery::{Attempt, Delivery, EndpointId, State};

/// Rows that go into one statement.
const ROWS: usize = 100;

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub app: AppId,
    pub endpoint: EndpointId,
    /// The delivery's.
    pub seq: i64,
    pub attempt: Attempt,
    pub next: Next,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It failed; the next one is not before this time.
    Retry { at_ms: u64 },
    /// It succeeded.
    Done,
    /// It failed and was the last.
    Dead,
}

/// An attempt was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The endpoint's first failure that no success followed, after all that was kept in this step; Unix milliseconds.
    pub failing_since_ms: Option<u64>,
}

impl Next {
    fn state(self) -> State {
        match self {
            Self::Retry { .. } => State::Pending,
            Self::Done => State::Done,
            Self::Dead => State::Dead,
        }
    }
}

impl Store {
    /// The oldest deliveries that an endpoint is still to be sent, due or not, in their order.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn pending(
        &self,
        app: &AppId,
        endpoint: &EndpointId,
        limit: u32,
    ) -> Result<Vec<Delivery>, Fault> {
        let work = async {
            let sql = format!(
                "SELECT {} FROM webhook_deliveries \
                 WHERE app_id = $1 AND endpoint_id = $2 AND state = 'pending' ORDER BY seq LIMIT $3",
                rows::DELIVERY
            );
            let found = sqlx::query(AssertSqlSafe(sql))
                .bind(app.as_str())
                .bind(&*endpoint.0)
                .bind(i64::from(limit))
                .fetch_all(self.database.reads())
                .await?;
            found.iter().map(rows::delivery).collect()
        };
        self.database.within(work).await
    }

    /// Keeps attempts and what follows from them, all in one step, for those endpoints that are the worker's; a
    /// delivery may be among them once. Of each, in their order; `None`: it was not kept, and somebody else does it again.
    ///
    /// A delivery that was given up meanwhile stays so, unless the attempt succeeded. An endpoint fails since its first
    /// failure that no success followed.
    ///
    /// # Errors
    /// See [`Fault`]. None was kept, or all were.
    pub async fn record(
        &self,
        worker: &str,
        now_ms: u64,
        finished: &[Finished],
    ) -> Result<Vec<Option<Kept>>, Fault> {
        if finished.is_empty() {
            return Ok(Vec::new());
        }
        let work = async {
            let mut transaction = self.database.begin().await?;
            let endpoints = note_health(&mut transaction, &self.database, worker, finished).await?;
            let kept = finished.iter().map(|one| endpoints.get(&one.claim()).copied());
            let kept: Vec<Option<Kept>> = kept.collect();
            let ours = finished.iter().zip(&kept).filter(|(_, kept)| kept.is_some());
            let mut ours: Vec<&Finished> = ours.map(|(one, _)| one).collect();
            ours.sort_by_key(|one| one.seq);
            for some in ours.chunks(ROWS) {
                note_attempts(&mut transaction, some).await?;
                move_on(&mut transaction, some, now_ms).await?;
            }
            transaction.commit().await?;
            Ok(kept)
        };
        self.database.within(work).await
    }
}

impl Finished {
    fn claim(&self) -> Claim {
        Claim {
            app: self.app.clone(),
            endpoint: self.endpoint.clone(),
        }
    }
}

/// What a row of attempts says of their endpoint.
struct Health<'a> {
    last: &'a Attempt,
    has_succeeded: bool,
    /// The first failure that no success followed.
    failed_at_ms: Option<u64>,
}

/// Writes down how those of the endpoints do that are the worker's, and returns them. Their rows are held from now on.
async fn note_health(
    transaction: &mut Transaction<'static, Any>,
    database: &Database,
    worker: &str,
    finished: &[Finished],
) -> Result<BTreeMap<Claim, Kept>, sqlx::Error> {
    let mut endpoints: BTreeMap<Claim, Health<'_>> = BTreeMap::new();
    for one in finished {
        let health = endpoints.entry(one.claim()).or_insert(Health {
            last: &one.attempt,
            has_succeeded: false,
            failed_at_ms: None,
        });
        health.last = &one.attempt;
        if one.next == Next::Done {
            health.has_succeeded = true;
            health.failed_at_ms = None;
        } else {
            health.failed_at_ms.get_or_insert(one.attempt.at_ms);
        }
    }
    let endpoints: Vec<_> = endpoints.into_iter().collect();
    let mut kept = BTreeMap::new();
    for some in endpoints.chunks(ROWS) {
        // An update has no order: the rows are held by a select before it, in the order in which `renew` takes them.
        let held = database.locking(
            "SELECT s.app_id AS our_app, s.endpoint_id AS our_endpoint FROM webhook_endpoint_states s \
             JOIN news ON s.app_id = its_app AND s.endpoint_id = its_endpoint \
             WHERE s.worker = $1 ORDER BY s.app_id, s.endpoint_id",
            Locking::Wait("s"),
        );
        let sql = format!(
            "WITH news (its_app, its_endpoint, at_ms, status, note, has_succeeded, failed_at_ms) AS (VALUES {}), \
             ours AS MATERIALIZED ({held}) \
             UPDATE webhook_endpoint_states SET last_at_ms = at_ms, last_status = status, last_note = note, \
             failing_since_ms = CASE WHEN has_succeeded = 1 THEN failed_at_ms \
             ELSE COALESCE(failing_since_ms, failed_at_ms) END \
             FROM ours JOIN news ON our_app = its_app AND our_endpoint = its_endpoint \
             WHERE app_id = our_app AND endpoint_id = our_endpoint RETURNING app_id, endpoint_id, failing_since_ms",
            placeholders(1, some.len(), 7)
        );
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(some.len()));
        let query = some.iter().fold(query.bind(worker), |query, (claim, health)| {
            query
                .bind(claim.app.as_str())
                .bind(&*claim.endpoint.0)
                .bind(number(health.last.at_ms))
                .bind(health.last.status.map(i64::from))
                .bind(storable(&health.last.note))
                .bind(i64::from(health.has_succeeded))
                .bind(health.failed_at_ms.map(number))
        });
        for row in query.fetch_all(&mut **transaction).await? {
            let failing_since_ms = row
                .try_get::<Option<i64>, _>("failing_since_ms")?
                .map(from_number);
            kept.insert(claim(&row)?, Kept { failing_since_ms });
        }
    }
    Ok(kept)
}

async fn note_attempts(
    transaction: &mut Transaction<'static, Any>,
    kept: &[&Finished],
) -> Result<(), sqlx::Error> {
    // Joined, so that a delivery that is not there any more does not keep the others from being recorded.
    let sql = format!(
        "WITH news (its_seq, its_at_ms, its_took_ms, its_status, its_note) AS (VALUES {}) \
         INSERT INTO webhook_attempts (delivery_seq, at_ms, took_ms, status, note) \
         SELECT d.seq, its_at_ms, its_took_ms, its_status, its_note \
         FROM news JOIN webhook_deliveries d ON d.seq = its_seq",
        placeholders(0, kept.len(), 5)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(kept.len()));
    for one in kept {
        query = query
            .bind(one.seq)
            .bind(number(one.attempt.at_ms))
            .bind(i64::from(one.attempt.took_ms))
            .bind(one.attempt.status.map(i64::from))
            .bind(storable(&one.attempt.note));
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

async fn move_on(
    transaction: &mut Transaction<'static, Any>,
    kept: &[&Finished],
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "WITH news (its_seq, its_state, its_next_at_ms, its_finished_at_ms) AS (VALUES {}) \
         UPDATE webhook_deliveries SET state = its_state, attempts = attempts + 1, \
         next_at_ms = COALESCE(its_next_at_ms, next_at_ms), finished_at_ms = its_finished_at_ms \
         FROM news WHERE seq = its_seq AND (state = 'pending' OR its_state = 'done')",
        placeholders(0, kept.len(), 4)
    );
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(is_kept(kept.len()));
    for one in kept {
        let (next_at_ms, finished_at_ms) = match one.next {
            Next::Retry { at_ms } => (Some(at_ms), None),
            Next::Done | Next::Dead => (None, Some(now_ms)),
        };
        query = query
            .bind(one.seq)
            .bind(one.next.state().as_str())
            .bind(next_at_ms.map(number))
            .bind(finished_at_ms.map(number));
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// What an endpoint answered may hold the one character that PostgreSQL cannot.
fn storable(note: &str) -> String {
    note.replace('\0', "\u{fffd}")
}
