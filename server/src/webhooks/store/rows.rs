//! Between rows and types.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::storage::sql::from_number;
use crate::webhooks::delivery::{Attempt, Delivery, EndpointId, Source, State};

/// What [`delivery`] reads.
pub(super) const DELIVERY: &str = "seq, id, app_id, endpoint_id, source, created_at_ms, lanes, events, body, state, \
     attempts, next_at_ms, finished_at_ms";

/// What [`attempt`] reads.
pub(super) const ATTEMPT: &str = "at_ms, took_ms, status, note";

pub(super) fn delivery(row: &AnyRow) -> Result<Delivery, sqlx::Error> {
    Ok(Delivery {
        seq: row.try_get("seq")?,
        id: parsed(row, "id")?,
        app: parsed(row, "app_id")?,
        endpoint: endpoint(row, "endpoint_id")?,
        source: known(row, "source", source_of)?,
        created_at_ms: whole(row, "created_at_ms")?,
        lanes: row.try_get::<i64, _>("lanes")?.cast_unsigned(),
        events: count(row, "events")?,
        body: row.try_get("body")?,
        state: known(row, "state", state_of)?,
        attempts: count(row, "attempts")?,
        next_at_ms: whole(row, "next_at_ms")?,
        finished_at_ms: row.try_get::<Option<i64>, _>("finished_at_ms")?.map(from_number),
    })
}

pub(super) fn attempt(row: &AnyRow) -> Result<Attempt, sqlx::Error> {
    Ok(Attempt {
        at_ms: whole(row, "at_ms")?,
        took_ms: count(row, "took_ms")?,
        status: status(row, "status")?,
        note: row.try_get("note")?,
    })
}

fn source_of(name: &str) -> Option<Source> {
    Source::ALL.into_iter().find(|source| source.as_str() == name)
}

fn state_of(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.as_str() == name)
}

pub(super) fn endpoint(row: &AnyRow, column: &str) -> Result<EndpointId, sqlx::Error> {
    Ok(EndpointId(Arc::from(row.try_get::<String, _>(column)?)))
}

/// A time or a number of things.
pub(super) fn whole(row: &AnyRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(from_number(row.try_get(column)?))
}

pub(super) fn count(row: &AnyRow, column: &str) -> Result<u32, sqlx::Error> {
    Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
}

pub(super) fn status(row: &AnyRow, column: &str) -> Result<Option<u16>, sqlx::Error> {
    let status: Option<i64> = row.try_get(column)?;
    Ok(status.and_then(|status| u16::try_from(status).ok()))
}

/// A name that was parsed before it was stored.
pub(super) fn parsed<T: FromStr>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error> {
    known(row, column, |text| text.parse().ok())
}

fn known<T>(row: &AnyRow, column: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    read(&text).ok_or_else(|| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: format!("{text:?} is not what was stored there").into(),
    })
}
