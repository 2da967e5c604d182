//! What people ask for, and how long it is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dunlin_protocol::names::AppId;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row as _};

use super::{Fault, Store, rows};
use crate::storage::sql::number;
use crate::webhooks::delivery::{Attempt, Delivery, DeliveryId, EndpointId, State};

/// Deliveries that are changed or deleted in one step, so that the others get their turn.
const STEP: u32 = 1000;

/// Attempts of one delivery that are shown, the latest ones.
const ATTEMPTS: i64 = 200;

/// What the log of attempts says of what was given up because its endpoint is disabled.
const BURIED: &str = "Given up: the endpoint was disabled, or removed.";

/// Which deliveries; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub app: Option<AppId>,
    pub endpoint: Option<EndpointId>,
    pub id: Option<DeliveryId>,
    pub state: Option<State>,
    /// Made at this time or later; Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Made before this time.
    pub to_ms: Option<u64>,
    /// Stored before this one: the last of the page before.
    pub before_seq: Option<i64>,
}

/// How an app stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub app: AppId,
    pub pending: u64,
    pub dead: u64,
    /// When the first of the pending ones was made; Unix milliseconds.
    pub oldest_pending_ms: Option<u64>,
}

/// An attempt, for whoever looks on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedAttempt {
    /// Grows with each attempt stored.
    pub seq: i64,
    pub delivery: DeliveryId,
    /// Which one of the delivery's it is, from 1; earlier lives count.
    pub number: u64,
    pub attempt: Attempt,
}

enum Value<'a> {
    Number(i64),
    Text(&'a str),
}

impl Filter {
    /// The words behind `WHERE`, and the values of their placeholders, which begin with `$1`.
    fn condition(&self) -> (String, Vec<Value<'_>>) {
        let text = |test, text| Some((test, Value::Text(text)));
        let tests = [
            self.app.as_ref().and_then(|app| text("app_id =", app.as_str())),
            self.endpoint.as_ref().and_then(|id| text("endpoint_id =", &id.0)),
            self.id.as_ref().and_then(|id| text("id =", id.as_str())),
            self.from_ms
                .map(|ms| ("created_at_ms >=", Value::Number(number(ms)))),
            self.to_ms
                .map(|ms| ("created_at_ms <", Value::Number(number(ms)))),
            self.before_seq.map(|seq| ("seq <", Value::Number(seq))),
        ];
        // The state is no placeholder: the indexes of the pending and the dead ones are used only where it is said.
        let mut words = match self.state {
            Some(state) => format!("state = '{}'", state.as_str()),
            None => "true".to_owned(),
        };
        let mut values = Vec::new();
        for (test, value) in tests.into_iter().flatten() {
            values.push(value);
            write!(words, " AND {test} ${}", values.len()).expect("writing to a string cannot fail");
        }
        (words, values)
    }
}

fn bind<'q>(query: Query<'q, Any, AnyArguments>, values: &[Value<'_>]) -> Query<'q, Any, AnyArguments> {
    values.iter().fold(query, |query, value| match value {
        Value::Number(number) => query.bind(*number),
        Value::Text(text) => query.bind((*text).to_owned()),
    })
}

impl Store {
    /// Deliveries, newest first.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<Delivery>, Fault> {
        let (words, values) = filter.condition();
        let sql = format!(
            "SELECT {} FROM webhook_deliveries WHERE {words} ORDER BY seq DESC LIMIT {limit}",
            rows::DELIVERY
        );
        let work = async {
            let found = bind(sqlx::query(AssertSqlSafe(sql)).persistent(false), &values)
                .fetch_all(self.database.reads())
                .await?;
            found.iter().map(rows::delivery).collect()
        };
        self.database.within(work).await
    }

    /// A delivery of any app, with its latest attempts in their order.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn get(&self, id: &DeliveryId) -> Result<Option<(Delivery, Vec<Attempt>)>, Fault> {
        let work = async {
            let sql = format!("SELECT {} FROM webhook_deliveries WHERE id = $1", rows::DELIVERY);
            let found = sqlx::query(AssertSqlSafe(sql))
                .bind(id.as_str())
                .fetch_optional(self.database.reads())
                .await?;
            let Some(row) = found else { return Ok(None) };
            let delivery = rows::delivery(&row)?;
            let sql = format!(
                "SELECT {} FROM webhook_attempts WHERE delivery_seq = $1 ORDER BY seq DESC LIMIT $2",
                rows::ATTEMPT
            );
            let attempts = sqlx::query(AssertSqlSafe(sql))
                .bind(delivery.seq)
                .bind(ATTEMPTS)
                .fetch_all(self.database.reads())
                .await?;
            let attempts: Result<_, _> = attempts.iter().rev().map(rows::attempt).collect();
            Ok(Some((delivery, attempts?)))
        };
        self.database.within(work).await
    }

    /// Has deliveries attempted again, from the first attempt on and in their old order; what is pending, at once.
    /// Returns how many.
    ///
    /// # Errors
    /// See [`Fault`]. Some may be pending already: it may be repeated.
    pub async fn replay(&self, filter: &Filter, now_ms: u64) -> Result<u64, Fault> {
        let (words, values) = filter.condition();
        let behind = values.len() + 1;
        let sql = format!(
            "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_at_ms = {}, finished_at_ms = NULL \
             WHERE seq IN (SELECT seq FROM webhook_deliveries WHERE {words} AND seq > ${behind} \
             ORDER BY seq LIMIT {STEP}) RETURNING seq",
            number(now_ms)
        );
        let (mut last, mut count) = (0_i64, 0);
        loop {
            let step = async {
                let query = sqlx::query(AssertSqlSafe(sql.clone())).persistent(false);
                let changed = bind(query, &values)
                    .bind(last)
                    .fetch_all(self.database.writes())
                    .await?;
                changed
                    .iter()
                    .map(|row| row.try_get::<i64, _>("seq"))
                    .collect::<Result<Vec<_>, _>>()
            };
            let changed = self.database.within(step).await?;
            count += changed.len() as u64;
            last = changed.iter().copied().max().unwrap_or(last);
            if changed.len() < STEP as usize {
                return Ok(count);
            }
        }
    }

    /// Forgets deliveries, with their attempts, that were done or given up before these times; at most so many. Returns
    /// how many: when it is `most`, there may be more. What was stored for an endpoint that is disabled is given up.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn prune(
        &self,
        now_ms: u64,
        done_before_ms: u64,
        dead_before_ms: u64,
        most: u32,
    ) -> Result<u64, Fault> {
        self.bury(now_ms).await?;
        let mut count = 0;
        for (state, before_ms) in [(State::Done, done_before_ms), (State::Dead, dead_before_ms)] {
            let sql = format!(
                "DELETE FROM webhook_deliveries WHERE seq IN (SELECT seq FROM webhook_deliveries \
                 WHERE state = '{}' AND finished_at_ms < $1 ORDER BY finished_at_ms LIMIT $2)",
                state.as_str()
            );
            count += self.in_steps(&[&sql], before_ms, u64::from(most) - count).await?;
        }
        Ok(count)
    }

    /// Gives up what is pending at disabled endpoints.
    pub(super) async fn bury(&self, now_ms: u64) -> Result<u64, Fault> {
        let buried = "FROM webhook_endpoint_states s JOIN webhook_deliveries d \
             ON d.app_id = s.app_id AND d.endpoint_id = s.endpoint_id AND d.state = 'pending' \
             WHERE s.disabled_at_ms IS NOT NULL ORDER BY d.seq LIMIT $2";
        // Beside the attempts, because that is where one looks for the reason.
        let note = format!(
            "INSERT INTO webhook_attempts (delivery_seq, at_ms, took_ms, note) \
             SELECT d.seq, $1, 0, '{BURIED}' {buried}"
        );
        let bury = format!(
            "UPDATE webhook_deliveries SET state = 'dead', finished_at_ms = $1 WHERE seq IN (SELECT d.seq {buried})"
        );
        self.in_steps(&[&note, &bury], now_ms, u64::MAX).await
    }

    /// Repeats changes of a bounded number of rows until there are no more, or `most` were changed. Their placeholders are
    /// a time and that number, and the last one counts.
    async fn in_steps(&self, changes: &[&str], at_ms: u64, most: u64) -> Result<u64, Fault> {
        let mut count = 0;
        while count < most {
            let limit = u64::from(STEP).min(most - count);
            let step = async {
                let mut transaction = self.database.begin().await?;
                let mut changed = 0;
                for sql in changes {
                    let done = sqlx::query(AssertSqlSafe((*sql).to_owned()))
                        .bind(number(at_ms))
                        .bind(number(limit))
                        .execute(&mut *transaction)
                        .await?;
                    changed = done.rows_affected();
                }
                transaction.commit().await?;
                Ok(changed)
            };
            let changed = self.database.within(step).await?;
            count += changed;
            if changed < limit {
                break;
            }
        }
        Ok(count)
    }

    /// The number of the attempt that was stored last; 0: there is none.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn last_attempt(&self) -> Result<i64, Fault> {
        let work = async {
            let row = sqlx::query("SELECT COALESCE(MAX(seq), 0) AS seq FROM webhook_attempts")
                .fetch_one(self.database.reads())
                .await?;
            row.try_get("seq")
        };
        self.database.within(work).await
    }

    /// Looks at up to `limit` attempts of all apps behind the one of this number, and returns those of one app, in the
    /// order in which they were stored, with the number of the last one that was looked at. What was given up without an
    /// attempt is not among them. One that was stored at the same time by another worker may appear behind it later.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn attempts_of(
        &self,
        app: &AppId,
        after: i64,
        limit: u32,
    ) -> Result<(i64, Vec<LoggedAttempt>), Fault> {
        let work = async {
            let found = sqlx::query(
                "SELECT a.seq, a.at_ms, a.took_ms, a.status, a.note, d.id, (SELECT COUNT(*) FROM webhook_attempts b \
                 WHERE b.delivery_seq = a.delivery_seq AND b.seq <= a.seq) AS number \
                 FROM (SELECT * FROM webhook_attempts WHERE seq > $1 ORDER BY seq LIMIT $2) a \
                 LEFT JOIN webhook_deliveries d ON d.seq = a.delivery_seq AND d.app_id = $3 AND a.note <> $4 \
                 ORDER BY a.seq",
            )
            .bind(after)
            .bind(i64::from(limit))
            .bind(app.as_str())
            .bind(BURIED)
            .fetch_all(self.database.reads())
            .await?;
            let (mut last, mut logged) = (after, Vec::new());
            for row in &found {
                last = row.try_get("seq")?;
                if row.try_get::<Option<String>, _>("id")?.is_some() {
                    logged.push(LoggedAttempt {
                        seq: last,
                        delivery: rows::parsed(row, "id")?,
                        number: rows::whole(row, "number")?,
                        attempt: rows::attempt(row)?,
                    });
                }
            }
            Ok((last, logged))
        };
        self.database.within(work).await
    }

    /// How each app stands that has pending or dead deliveries, in the order of their ids.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn backlog(&self) -> Result<Vec<Backlog>, Fault> {
        // One after the other, because each has an index of its own.
        let pending = "SELECT c.app_id, c.pending, d.created_at_ms FROM (\
             SELECT app_id, COUNT(*) AS pending, MIN(seq) AS first_seq FROM webhook_deliveries \
             WHERE state = 'pending' GROUP BY app_id) c JOIN webhook_deliveries d ON d.seq = c.first_seq";
        let dead =
            "SELECT app_id, COUNT(*) AS dead FROM webhook_deliveries WHERE state = 'dead' GROUP BY app_id";
        let work = async {
            let mut apps: BTreeMap<AppId, Backlog> = BTreeMap::new();
            for row in sqlx::query(pending).fetch_all(self.database.reads()).await? {
                let backlog = of_app(&mut apps, &row)?;
                backlog.pending = rows::whole(&row, "pending")?;
                backlog.oldest_pending_ms = Some(rows::whole(&row, "created_at_ms")?);
            }
            for row in sqlx::query(dead).fetch_all(self.database.reads()).await? {
                of_app(&mut apps, &row)?.dead = rows::whole(&row, "dead")?;
            }
            Ok(apps.into_values().collect())
        };
        self.database.within(work).await
    }
}

fn of_app<'a>(apps: &'a mut BTreeMap<AppId, Backlog>, row: &AnyRow) -> Result<&'a mut Backlog, sqlx::Error> {
    let app: AppId = rows::parsed(row, "app_id")?;
    Ok(apps.entry(app.clone()).or_insert(Backlog {
        app,
        pending: 0,
        dead: 0,
        oldest_pending_ms: None,
    }))
}
