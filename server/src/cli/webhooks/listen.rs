//! `dunlin webhooks listen`: looks on while deliveries are attempted, and passes them on to a developer's own machine.
//!
//! Only reads: what is sent, and when, is no different for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::ListenArgs;
use super::platform::Platform;
use super::table;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::clock;
use crate::webhooks::delivery::Delivery;
use crate::webhooks::egress::{Egress, EndpointUrl, Failure, Guard, Received};
use crate::webhooks::registry::Registered;
use crate::webhooks::sign;
use crate::webhooks::store::{LoggedAttempt, Store};

/// How often the store is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// Attempts that are looked at in one go.
const PAGE: u32 = 500;

/// Workers store their attempts side by side: one with a lower number may appear later, but not by more than that.
const OVERLAP: i64 = 100;

/// How long the developer's machine may take. Somebody may be in a debugger there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events of a delivery that a line names.
const NAMED: usize = 3;

pub(super) async fn run(args: &ListenArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let store = &platform.store;
    platform.app(&args.app)?;
    let forward = args.forward.as_deref().map(Forward::new).transpose()?;
    let mut log = Log::from(store.last_attempt().await?);
    out.complain(format_args!(
        "listening: attempts to deliver webhooks of app {} are shown from now on",
        args.app
    ));
    let mut left = args.count.unwrap_or(u64::MAX);
    loop {
        let (is_more, attempts) = log.next(store, args).await?;
        // As they are now: one may have come, or changed its secret.
        let endpoints = match &forward {
            Some(_) if !attempts.is_empty() => platform.endpoints(Some(&args.app)).await?,
            _ => Vec::new(),
        };
        for logged in attempts {
            let Some((delivery, _)) = store.get(&logged.delivery).await? else {
                continue;
            };
            if args
                .endpoint
                .as_deref()
                .is_some_and(|id| id != &*delivery.endpoint.0)
            {
                continue;
            }
            let answer = match &forward {
                Some(forward) => Some(forward.send(&delivery, &endpoints).await),
                None => None,
            };
            if args.json {
                out.line(in_json(&delivery, &logged, answer.as_ref()));
            } else {
                out.line(in_words(&delivery, &logged));
                if let Some(answer) = &answer {
                    out.line(format_args!("    {answer}"));
                }
            }
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
        if !is_more {
            sleep(PAUSE).await;
        }
    }
}

/// The attempts of the store, each once.
struct Log {
    /// What was there before is not shown.
    begin: i64,
    last: i64,
    /// Of the last [`OVERLAP`] numbers.
    shown: BTreeSet<i64>,
}

impl Log {
    fn from(begin: i64) -> Self {
        Self {
            begin,
            last: begin,
            shown: BTreeSet::new(),
        }
    }

    /// What is new, and whether there is more.
    async fn next(
        &mut self,
        store: &Store,
        args: &ListenArgs,
    ) -> Result<(bool, Vec<LoggedAttempt>), CliError> {
        let after = self.begin.max(self.last - OVERLAP);
        let (last, found) = store.attempts_of(&args.app, after, PAGE).await?;
        let is_more = last > self.last;
        self.last = self.last.max(last);
        Ok((is_more, self.fresh(found)))
    }

    fn fresh(&mut self, mut found: Vec<LoggedAttempt>) -> Vec<LoggedAttempt> {
        found.retain(|one| self.shown.insert(one.seq));
        self.shown = self.shown.split_off(&(self.last - OVERLAP));
        found
    }
}

/// A URL that everything is sent to as well.
struct Forward {
    egress: Egress,
    url: EndpointUrl,
}

/// What the URL said.
enum Forwarded {
    Answered(Received, Duration),
    Failed(Failure),
    /// How it would be signed is not known.
    NoEndpoint,
}

impl Forward {
    /// A person who types a URL may send there what they like; the guard is for what customers write.
    fn new(url: &str) -> Result<Self, CliError> {
        let everywhere = ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("it is a network"));
        let guard = Arc::new(Guard::new(everywhere.into(), Vec::new(), Vec::new()));
        let url = EndpointUrl::parse(url, &guard)
            .map_err(|why| CliError::Usage(format!("--forward: the URL {why}")))?;
        let egress = Egress::new(guard, Vec::new()).map_err(|source| CliError::Request {
            what: "no client can be made".to_owned(),
            source,
        })?;
        Ok(Self { egress, url })
    }

    async fn send(&self, delivery: &Delivery, endpoints: &[Registered]) -> Forwarded {
        let mut named = endpoints.iter().filter(|one| one.id == delivery.endpoint);
        let Some(endpoint) = named.find_map(|one| one.endpoint.as_ref().ok()) else {
            return Forwarded::NoEndpoint;
        };
        let began_ms = clock::unix_millis();
        let headers = sign::headers(endpoint, &delivery.id, began_ms / 1000, delivery.body.as_bytes());
        let body = Bytes::from(delivery.body.clone());
        match self.egress.post(&self.url, headers, body, PATIENCE).await {
            Ok(received) => {
                let took_ms = clock::unix_millis().saturating_sub(began_ms);
                Forwarded::Answered(received, Duration::from_millis(took_ms))
            }
            Err(failure) => Forwarded::Failed(failure),
        }
    }
}

impl std::fmt::Display for Forwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered(received, took) => {
                write!(
                    f,
                    "forwarded: {} in {} ms  {}",
                    received.status,
                    took.as_millis(),
                    received.note
                )
            }
            Self::Failed(failure) => write!(f, "not forwarded: {failure}"),
            Self::NoEndpoint => f.write_str(
                "not forwarded: how it is signed is not known, there is no such endpoint any more",
            ),
        }
    }
}

fn in_words(delivery: &Delivery, logged: &LoggedAttempt) -> String {
    let LoggedAttempt { number, attempt, .. } = logged;
    let status = table::status(attempt.status);
    let (at, took) = (time::show(attempt.at_ms), attempt.took_ms);
    let endpoint = &delivery.endpoint;
    let events = named(&events(&delivery.body));
    let note = if attempt.status.is_some() {
        String::new()
    } else {
        format!("  {}", attempt.note)
    };
    format!(
        "{at}  {status}  {took:>5} ms  attempt {number}  {endpoint}  {}  {events}{note}",
        delivery.id
    )
}

fn in_json(delivery: &Delivery, logged: &LoggedAttempt, forwarded: Option<&Forwarded>) -> Value {
    let LoggedAttempt { number, attempt, .. } = logged;
    let mut value = json!({
        "id": delivery.id.as_str(),
        "endpoint": &*delivery.endpoint.0,
        "source": delivery.source.as_str(),
        "attempt": number,
        "at_ms": attempt.at_ms,
        "took_ms": attempt.took_ms,
        "status": attempt.status,
        "note": attempt.note,
        "events": events(&delivery.body),
    });
    if let Some(forwarded) = forwarded {
        value["forwarded"] = match forwarded {
            Forwarded::Answered(received, took) => json!({
                "status": received.status,
                "took_ms": took.as_millis(),
                "note": received.note,
            }),
            Forwarded::Failed(_) | Forwarded::NoEndpoint => {
                json!({ "status": null, "note": forwarded.to_string() })
            }
        };
    }
    value
}

/// What a body of either format tells of: what happened, and on which channel.
fn events(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let list = [&body["events"], &body["items"]["data"]];
    let list = list.into_iter().filter_map(Value::as_array).flatten();
    let words = list.map(|event| {
        let text = |name: &str| event[name].as_str();
        let what = text("name").or(text("action")).unwrap_or("message");
        format!("{what} {}", text("channel").unwrap_or_default())
    });
    words.collect()
}

fn named(events: &[String]) -> String {
    let first = events[..events.len().min(NAMED)].join(", ");
    match events.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::delivery::{Attempt, DeliveryId};

    fn logged(numbers: &[i64]) -> Vec<LoggedAttempt> {
        let one = |seq: &i64| LoggedAttempt {
            seq: *seq,
            delivery: DeliveryId::new(),
            number: 1,
            attempt: Attempt {
                at_ms: 0,
                took_ms: 0,
                status: None,
                note: String::new(),
            },
        };
        numbers.iter().map(one).collect()
    }

    #[test]
    fn an_attempt_is_shown_once_also_when_a_lower_number_comes_late() {
        let mut log = Log::from(10);
        let mut look = |last: i64, numbers: &[i64]| -> Vec<i64> {
            log.last = last;
            log.fresh(logged(numbers)).iter().map(|one| one.seq).collect()
        };
        assert_eq!(look(14, &[11, 14]), [11, 14]);
        assert_eq!(look(15, &[11, 12, 14, 15]), [12, 15]);
        assert_eq!(look(15, &[11, 12, 14, 15]), [0; 0]);
        assert_eq!(look(112, &[12, 13, 14, 112]), [13, 112]);
        assert_eq!(log.shown.first(), Some(&12), "older ones are not asked for again");
    }

    #[test]
    fn bodies_of_either_format_are_said_in_few_words() {
        let pusher = r#"{"time_ms":1,"events":[{"name":"channel_occupied","channel":"a"},{"name":"member_added","channel":"b","user_id":"1"}]}"#;
        assert_eq!(named(&events(pusher)), "channel_occupied a, member_added b");
        let data = r#"{"channel":"a","action":"bind"},{"channel":"a","message":"x"},"#.repeat(2);
        let yalgaar = format!(
            r#"{{"items":{{"source":"Presence","data":[{}]}}}}"#,
            data.trim_end_matches(',')
        );
        assert_eq!(named(&events(&yalgaar)), "bind a, message a, bind a and 1 more");
        assert_eq!(named(&events("no JSON")), "");
    }
}
