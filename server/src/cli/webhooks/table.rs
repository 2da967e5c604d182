//! Deliveries in the words of people and of programs.

use serde_json::{Value, json};

use crate::cli::time;
use crate::webhooks::delivery::{Attempt, Delivery, State};

/// Above the lines of [`line`].
pub(super) fn head() -> String {
    row(["ID", "STATE", "ATTEMPTS", "EVENTS", "MADE", "APP", "ENDPOINT"])
}

pub(super) fn line(delivery: &Delivery) -> String {
    row([
        delivery.id.as_str(),
        delivery.state.as_str(),
        &delivery.attempts.to_string(),
        &delivery.events.to_string(),
        &time::show(delivery.created_at_ms),
        delivery.app.as_str(),
        &delivery.endpoint.0,
    ])
}

/// What has no greatest length is last, so that lines can be printed before the others are known.
fn row([id, state, attempts, events, made, app, endpoint]: [&str; 7]) -> String {
    format!("{id:<36}  {state:<7}  {attempts:>8}  {events:>6}  {made:<24}  {app:<4}  {endpoint}")
}

/// What one wants to know about a delivery, line by line.
pub(super) fn details(delivery: &Delivery, attempts: &[Attempt]) -> Vec<String> {
    let state = match (delivery.state, delivery.finished_at_ms) {
        (State::Pending, _) => format!("pending, next attempt at {}", time::show(delivery.next_at_ms)),
        (state, Some(at_ms)) => format!("{} since {}", state.as_str(), time::show(at_ms)),
        (state, None) => state.as_str().to_owned(),
    };
    let facts = [
        ("delivery", delivery.id.to_string()),
        ("app", delivery.app.to_string()),
        ("endpoint", delivery.endpoint.to_string()),
        ("source", delivery.source.as_str().to_owned()),
        ("made", time::show(delivery.created_at_ms)),
        ("state", state),
        ("attempts", delivery.attempts.to_string()),
        ("events", delivery.events.to_string()),
    ];
    let facts = facts.map(|(name, value)| format!("{name:<10}{value}"));
    facts.into_iter().chain(attempts.iter().map(attempt)).collect()
}

/// When, the status of the answer, how long it took, and how the answer begins.
pub(super) fn attempt(attempt: &Attempt) -> String {
    let status = status(attempt.status);
    let (at, took) = (time::show(attempt.at_ms), attempt.took_ms);
    format!("{at:<24}  {status}  {took:>6} ms  {}", attempt.note)
}

/// Of an answer, or that there was none.
pub(super) fn status(status: Option<u16>) -> String {
    status.map_or_else(|| "---".to_owned(), |status| status.to_string())
}

pub(super) fn json(delivery: &Delivery) -> Value {
    let next_at_ms = (delivery.state == State::Pending).then_some(delivery.next_at_ms);
    json!({
        "id": delivery.id.as_str(),
        "app": delivery.app.as_str(),
        "endpoint": &*delivery.endpoint.0,
        "source": delivery.source.as_str(),
        "state": delivery.state.as_str(),
        "created_at_ms": delivery.created_at_ms,
        "events": delivery.events,
        "attempts": delivery.attempts,
        "next_at_ms": next_at_ms,
        "finished_at_ms": delivery.finished_at_ms,
    })
}

/// The same with the body, a text because its bytes are signed, and the attempts of all lives.
pub(super) fn json_in_full(delivery: &Delivery, attempts: &[Attempt]) -> Value {
    let mut value = json(delivery);
    let attempts = attempts.iter().map(|attempt| {
        json!({
            "at_ms": attempt.at_ms,
            "took_ms": attempt.took_ms,
            "status": attempt.status,
            "note": attempt.note,
        })
    });
    value["history"] = attempts.collect();
    value["body"] = json!(delivery.body);
    value
}
