//! What is to be sent, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_protocol::names::AppId;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::claim::claim;
use super::{Claim, Fault, Store, rows};
use crate::storage::sql::{Locking, number, placeholders};
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
    /// delivery may be among them once. For each: whether it was kept. What is not, somebody else does again.
    ///
    /// A delivery that was given up meanwhile stays so, unless the attempt succeeded. An endpoint fails since its first
    /// failure that no success followed.
    ///
    /// # Errors
    /// See [`Fault`]. None was kept, or all were.
    pub async fn record(&self, worker: &str, now_ms: u64, finished: &[Finished]) -> Result<Vec<bool>, Fault> {
        if finished.is_empty() {
            return Ok(Vec::new());
        }
        let work = async {
            let asked: BTreeSet<_> = finished.iter().map(Finished::claim).collect();
            let asked: Vec<_> = asked.into_iter().collect();
            let mut transaction = self.database.begin().await?;
            let mut ours = BTreeSet::new();
            for some in asked.chunks(ROWS) {
                let sql = self.database.locking(
                    &format!(
                        "WITH asked (asked_app, asked_endpoint) AS (VALUES {}) \
                         SELECT s.app_id, s.endpoint_id FROM webhook_endpoint_states s \
                         JOIN asked ON s.app_id = asked_app AND s.endpoint_id = asked_endpoint \
                         WHERE s.worker = $1 ORDER BY s.app_id, s.endpoint_id",
                        placeholders(1, some.len(), 2)
                    ),
                    Locking::Wait("s"),
                );
                let mut query = sqlx::query(AssertSqlSafe(sql))
                    .persistent(some.len() == 1)
                    .bind(worker);
                for claim in some {
                    query = query.bind(claim.app.as_str()).bind(&*claim.endpoint.0);
                }
                for row in query.fetch_all(&mut *transaction).await? {
                    ours.insert(claim(&row)?);
                }
            }
            let is_kept: Vec<bool> = finished.iter().map(|one| ours.contains(&one.claim())).collect();
            let mut kept: Vec<_> = finished
                .iter()
                .filter(|one| ours.contains(&one.claim()))
                .collect();
            note_health(&mut transaction, &kept).await?;
            kept.sort_by_key(|one| one.seq);
            for some in kept.chunks(ROWS) {
                note_attempts(&mut transaction, some).await?;
                move_on(&mut transaction, some, now_ms).await?;
            }
            transaction.commit().await?;
            Ok(is_kept)
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

async fn note_health(
    transaction: &mut Transaction<'static, Any>,
    kept: &[&Finished],
) -> Result<(), sqlx::Error> {
    let mut endpoints: BTreeMap<Claim, Health<'_>> = BTreeMap::new();
    for one in kept {
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
    for some in endpoints.chunks(ROWS) {
        let sql = format!(
            "WITH news (its_app, its_endpoint, at_ms, status, note, has_succeeded, failed_at_ms) AS (VALUES {}) \
             UPDATE webhook_endpoint_states SET last_at_ms = at_ms, last_status = status, last_note = note, \
             failing_since_ms = CASE WHEN has_succeeded = 1 THEN failed_at_ms \
             ELSE COALESCE(failing_since_ms, failed_at_ms) END \
             FROM news WHERE app_id = its_app AND endpoint_id = its_endpoint",
            placeholders(0, some.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(some.len() == 1);
        for (claim, health) in some {
            query = query
                .bind(claim.app.as_str())
                .bind(&*claim.endpoint.0)
                .bind(number(health.last.at_ms))
                .bind(health.last.status.map(i64::from))
                .bind(storable(&health.last.note))
                .bind(i64::from(health.has_succeeded))
                .bind(health.failed_at_ms.map(number));
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
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
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(kept.len() == 1);
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
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(kept.len() == 1);
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
