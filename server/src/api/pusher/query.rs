//! Reading an app's state, and ending a user's connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use actix_http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use dunlin_protocol::http::publish::InfoFlags;
use dunlin_protocol::names::{ChannelName, UserId};
use dunlin_protocol::signature::{QueryParams, SignedRequest};
use serde::Serialize;

use crate::api::Api;
use crate::api::error::Refusal;
use crate::apps::App;
use crate::auth::signed::authenticate;
use crate::clock;
use crate::presence::Occupancy;

/// The app in whose name the request speaks and its body, once the signature was checked.
pub(super) async fn signed(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Arc<App>, Bytes), Refusal> {
    let body = api.body.read(request.headers(), payload).await?;
    let path = api.signed_path(request.uri().path());
    let signed = SignedRequest::new(request.method().as_str(), path, request.query_string());
    let app = authenticate(
        &api.apps,
        &signed,
        request.match_info().get("app_id"),
        &body,
        clock::unix_seconds(),
    )?;
    Ok((app, body))
}

/// The app in whose name a question is asked, once its signature was checked and its rate allows.
pub(super) async fn signed_app(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Arc<App>, Refusal> {
    let (app, _) = signed(api, request, payload).await?;
    app.read_rate.take(1, clock::monotonic_nanos()).map_err(|wait| {
        app.counters.rate_limited.fetch_add(1, Relaxed);
        Refusal::rate_limited(wait)
    })?;
    Ok(app)
}

pub(super) fn params(request: &HttpRequest) -> QueryParams<'_> {
    SignedRequest::new("GET", "/", request.query_string()).params()
}

fn info(params: &QueryParams<'_>) -> Result<InfoFlags, Refusal> {
    InfoFlags::parse(params.get("info").unwrap_or_default())
        .map_err(|bad| Refusal::bad_request(bad.to_string()))
}

pub(super) fn channel_of(request: &HttpRequest) -> Result<ChannelName, Refusal> {
    let name = request.match_info().get("channel").unwrap_or_default();
    name.parse()
        .map_err(|_| Refusal::bad_request("Invalid channel name"))
}

/// Insists that there are no parameters but these and those of the signature: one that is misspelt would be ignored.
pub(super) fn refuse_others(params: &QueryParams<'_>, known: &[&str]) -> Result<(), Refusal> {
    let extraneous: Vec<_> = params
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with("auth_") && *name != "body_md5" && !known.contains(name))
        .collect();
    if extraneous.is_empty() {
        return Ok(());
    }
    let message = format!(
        "The following query string parameters are extraneous: {}",
        extraneous.join(", ")
    );
    Err(Refusal::bad_request(message))
}

/// What is said of a channel; only what was asked for.
#[derive(Debug, Default, Serialize)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    occupied: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u32>,
    /// Asked for and empty is `null`, which is not the same as not asked for.
    #[expect(clippy::option_option, reason = "absent and null are two answers")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Option<CacheAttribute>>,
}

#[derive(Debug, Serialize)]
struct CacheAttribute {
    data: String,
    /// Whole seconds until it is forgotten.
    ttl: u32,
}

fn attributes(info: InfoFlags, occupancy: Occupancy) -> Attributes {
    Attributes {
        user_count: info.user_count.then_some(occupancy.users),
        subscription_count: info.subscription_count.then_some(occupancy.connections),
        ..Attributes::default()
    }
}

const COUNTS_ARE_OFF: &str = "subscription_count is not enabled for this app";

/// `GET /apps/{id}/channels`
pub async fn channels(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    #[derive(Serialize)]
    struct Answer {
        channels: BTreeMap<String, Attributes>,
    }
    let app = signed_app(&api, &request, payload).await?;
    let params = params(&request);
    let info = info(&params)?;
    let prefix = params.get("filter_by_prefix").unwrap_or_default();
    if info.user_count && !prefix.starts_with("presence-") {
        return Err(Refusal::bad_request(
            "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-",
        ));
    }
    if info.cache {
        return Err(Refusal::bad_request(
            "cache may only be requested for a single channel",
        ));
    }
    if info.subscription_count && !app.subscription_count {
        return Err(Refusal::bad_request(COUNTS_ARE_OFF));
    }
    let mut channels = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = api
            .services
            .presence
            .channels(&app, prefix, cursor.as_deref())
            .await?;
        channels.extend(
            page.channels
                .into_iter()
                .map(|(name, occupancy)| (name.to_string(), attributes(info, occupancy))),
        );
        cursor = page.next;
        if cursor.is_none() {
            return Ok(HttpResponse::Ok().json(Answer { channels }));
        }
        tokio::task::yield_now().await;
    }
}

/// `GET /apps/{id}/channels/{name}`
pub async fn channel(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let app = signed_app(&api, &request, payload).await?;
    let params = params(&request);
    let channel = channel_of(&request)?;
    let info = info(&params)?;
    let kind = channel.kind();
    if info.user_count && !kind.is_presence() {
        return Err(Refusal::bad_request(
            "Cannot retrieve the user count unless the channel is a presence channel",
        ));
    }
    if info.subscription_count && !app.subscription_count {
        return Err(Refusal::bad_request(COUNTS_ARE_OFF));
    }
    if info.cache && !kind.is_cache() {
        return Err(Refusal::bad_request(
            "Cannot retrieve the cache unless the channel is a cache channel",
        ));
    }
    let occupancy = api.services.presence.occupancy(&app, &channel).await?;
    let mut answer = attributes(info, occupancy);
    answer.occupied = Some(occupancy.connections > 0);
    if info.cache {
        let cached = api.services.broker.cached(&app, &channel).await?;
        answer.cache = Some(cached.map(|event| CacheAttribute {
            data: serde_json::from_str(&event.data_literal).unwrap_or_default(),
            ttl: event.expires_at_s.saturating_sub(clock::monotonic_seconds()),
        }));
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// `GET /apps/{id}/channels/{name}/users`
pub async fn users(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    #[derive(Serialize)]
    struct Answer<'a> {
        users: Vec<User<'a>>,
    }
    #[derive(Serialize)]
    struct User<'a> {
        id: &'a str,
    }
    let app = signed_app(&api, &request, payload).await?;
    let params = params(&request);
    let channel = channel_of(&request)?;
    refuse_others(&params, &[])?;
    if !channel.kind().is_presence() {
        return Err(Refusal::bad_request(
            "Users can only be retrieved for presence channels",
        ));
    }
    let users = api.services.presence.users(&app, &channel).await?;
    let users = users.iter().map(|user| User { id: user.as_str() }).collect();
    Ok(HttpResponse::Ok().json(Answer { users }))
}

/// `POST /apps/{id}/users/{user_id}/terminate_connections`
pub async fn terminate(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let app = signed_app(&api, &request, payload).await?;
    let user_id: UserId = request
        .match_info()
        .get("user_id")
        .unwrap_or_default()
        .parse()
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "Invalid user id"))?;
    api.services.presence.terminate_user(&app, &user_id).await?;
    Ok(HttpResponse::Ok().content_type("application/json").body("{}"))
}
