//! `POST /apps/{id}/events` and `POST /apps/{id}/batch_events`: the hot path of every customer's backend.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix_http::{HttpMessage as _, Request, Response, StatusCode};
use actix_web::body::BoxBody;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use dunlin_protocol::http::publish::{
    BatchRequest, InfoFlags, PublishLimits, PublishRequest, body_from_query,
};
use dunlin_protocol::names::ChannelName;
use dunlin_protocol::signature::SignedRequest;
use md5::{Digest as _, Md5};

use crate::answer::Unavailable;
use crate::api::Api;
use crate::api::error::Refusal;
use crate::apps::App;
use crate::auth::signed::authenticate;
use crate::broker::idempotency::Admission;
use crate::broker::{Origin, Publication};
use crate::clock;

/// Which of the two was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Event,
    Batch,
}

/// Longest idempotency key, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 255;

const NOTHING_ASKED: Bytes = Bytes::from_static(b"{}");

/// Answers one publish.
pub async fn handle(api: &Api, kind: Kind, mut request: Request) -> Response<BoxBody> {
    match answer(api, kind, &mut request).await {
        Ok(body) => json(body),
        Err(refusal) => refusal.into_response(),
    }
}

/// An answer of JSON.
pub fn json(body: Bytes) -> Response<BoxBody> {
    let mut response = Response::new(StatusCode::OK).set_body(BoxBody::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn answer(api: &Api, kind: Kind, request: &mut Request) -> Result<Bytes, Refusal> {
    let payload = request.take_payload();
    let body = api.body.read(&request.head().headers, payload).await?;
    let path = api.signed_path(request.path());
    let signed = SignedRequest::new("POST", path, request.uri().query().unwrap_or_default());
    let app_id = path.split('/').nth(2);
    let app = authenticate(&api.apps, &signed, app_id, &body, clock::unix_seconds())?;

    let key = request.headers().get("idempotency-key");
    let Some(key) = key else {
        return publish(api, &app, kind, &signed, &body).await;
    };
    let key = key
        .to_str()
        .map_err(|_| Refusal::bad_request("Idempotency-Key must be plain text"))?;
    let digest = Md5::new()
        .chain_update(path)
        .chain_update([0])
        .chain_update(&body)
        .finalize()
        .into();
    if !(1..=MAX_IDEMPOTENCY_KEY).contains(&key.len()) {
        let message = format!("Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters");
        return Err(Refusal::bad_request(message));
    }
    if let Admission::Again(answer) = api.idempotency.admit(&app, key, digest).await? {
        return Ok(answer);
    }
    let result = publish(api, &app, kind, &signed, &body).await;
    match &result {
        Ok(answer) => api.idempotency.remember(&app, key, digest, answer.clone()).await,
        Err(_) => api.idempotency.forget(&app, key).await,
    }
    result
}

/// Delivers what `body` says and answers with what was asked.
pub(super) async fn publish(
    api: &Api,
    app: &Arc<App>,
    kind: Kind,
    signed: &SignedRequest<'_>,
    body: &[u8],
) -> Result<Bytes, Refusal> {
    match kind {
        Kind::Event => {
            let from_query = if body.is_empty() {
                body_from_query(&signed.params())
            } else {
                None
            };
            publish_event(api, app, from_query.as_deref().unwrap_or(body)).await
        }
        Kind::Batch => publish_batch(api, app, body).await,
    }
}

fn limits(app: &App) -> PublishLimits {
    PublishLimits {
        payload_bytes: app.limits.payload_bytes,
        channels_per_event: app.limits.channels_per_event,
        batch_events: app.limits.batch_events,
    }
}

/// Publishes one event in the name of an app, within its limits. Whoever calls knows that it may.
///
/// # Errors
/// The event is not valid, too large or too much, or the node is overloaded.
pub async fn publish_event(api: &Api, app: &Arc<App>, body: &[u8]) -> Result<Bytes, Refusal> {
    let event = PublishRequest::parse(body, &limits(app))?;
    check_names(app, &event)?;
    take_rate(app, 1)?;
    deliver(api, app, &event).await?;
    if event.info.any() {
        event_info(api, app, &event).await
    } else {
        Ok(NOTHING_ASKED)
    }
}

async fn publish_batch(api: &Api, app: &Arc<App>, body: &[u8]) -> Result<Bytes, Refusal> {
    let batch = BatchRequest::parse(body, &limits(app))?;
    batch
        .events
        .iter()
        .try_for_each(|event| check_names(app, event))?;
    take_rate(app, batch.events.len())?;
    for event in &batch.events {
        deliver(api, app, event).await?;
    }
    if batch.wants_info() {
        batch_info(api, app, &batch).await
    } else {
        Ok(NOTHING_ASKED)
    }
}

/// The app's own bounds on names, which may be tighter than the protocol's.
fn check_names(app: &App, event: &PublishRequest<'_>) -> Result<(), Refusal> {
    let is_longer =
        |text: &str, limit: usize| limit != 0 && text.len() > limit && text.chars().count() > limit;
    if is_longer(&event.name, app.limits.event_name_length) {
        let limit = app.limits.event_name_length;
        return Err(Refusal::bad_request(format!(
            "The event name must have 1 to {limit} characters"
        )));
    }
    if event
        .channels
        .iter()
        .any(|channel| is_longer(channel.as_str(), app.limits.channel_name_length))
    {
        return Err(Refusal::bad_request("Invalid channel name"));
    }
    Ok(())
}

fn take_rate(app: &App, events: usize) -> Result<(), Refusal> {
    app.publish_rate
        .take(events as u64, clock::monotonic_nanos())
        .map_err(|wait| {
            app.counters.rate_limited.fetch_add(1, Relaxed);
            Refusal::rate_limited(wait)
        })
}

async fn deliver(api: &Api, app: &Arc<App>, event: &PublishRequest<'_>) -> Result<(), Refusal> {
    app.counters.publishes.fetch_add(1, Relaxed);
    for channel in &event.channels {
        let publication = Publication {
            channel,
            event: &event.name,
            data_literal: event.data_literal,
            user_id: None,
            signed_in: None,
            except: event.socket_id,
            origin: Origin::Api,
        };
        api.services.broker.publish(app, &publication).await?;
    }
    Ok(())
}

/// The counts that were asked for and apply, as members of a JSON object.
async fn counts(api: &Api, app: &App, channel: &ChannelName, info: InfoFlags) -> Result<String, Unavailable> {
    if !info.any() {
        return Ok("{}".to_owned());
    }
    let occupancy = api.services.presence.occupancy(app, channel).await?;
    let mut members = Vec::with_capacity(2);
    if info.user_count && channel.kind().is_presence() {
        members.push(format!("\"user_count\":{}", occupancy.users));
    }
    if info.subscription_count {
        members.push(format!("\"subscription_count\":{}", occupancy.connections));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

async fn event_info(api: &Api, app: &Arc<App>, event: &PublishRequest<'_>) -> Result<Bytes, Refusal> {
    let mut entries = Vec::with_capacity(event.channels.len());
    for channel in &event.channels {
        // The alphabet of channel names needs no escaping.
        entries.push(format!(
            "\"{channel}\":{}",
            counts(api, app, channel, event.info).await?
        ));
    }
    Ok(format!("{{\"channels\":{{{}}}}}", entries.join(",")).into())
}

async fn batch_info(api: &Api, app: &Arc<App>, batch: &BatchRequest<'_>) -> Result<Bytes, Refusal> {
    let mut entries = Vec::with_capacity(batch.events.len());
    for event in &batch.events {
        if let Some(channel) = event.channels.first() {
            entries.push(counts(api, app, channel, event.info).await?);
        }
    }
    Ok(format!("{{\"batch\":[{}]}}", entries.join(",")).into())
}
