//! Reading the past of a channel, in pages.

use actix_http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use dunlin_protocol::names::UserId;
use dunlin_protocol::position::Position;
use dunlin_protocol::signature::QueryParams;
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::{channel_of, params, refuse_others, signed_app};
use crate::api::Api;
use crate::api::error::Refusal;
use crate::broker::HistoryQuery;

/// Events in a page, when the request does not say.
const DEFAULT_LIMIT: usize = 100;
/// Most events in a page.
const MAX_LIMIT: usize = 1000;

/// What is asked for.
struct Asked {
    after: Option<Position>,
    before: Option<Position>,
    limit: usize,
    newest_first: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    /// Where the channel stands; left out when nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    complete: bool,
    events: Vec<Event<'a>>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct Event<'a> {
    position: String,
    time_ms: u64,
    name: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
}

impl Asked {
    fn parse(params: &QueryParams<'_>) -> Result<Self, Refusal> {
        let position = |name: &str| {
            let text = params.get(name);
            let parsed = text.map(str::parse).transpose();
            parsed.map_err(|bad| Refusal::bad_request(format!("Invalid {name}: {bad}")))
        };
        let limit = match params.get("limit") {
            None => DEFAULT_LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| {
                    Refusal::bad_request(format!("Invalid limit: it is a number from 1 to {MAX_LIMIT}"))
                })?,
        };
        let newest_first = match params.get("direction") {
            None | Some("backwards") => true,
            Some("forwards") => false,
            Some(_) => {
                let message = "Invalid direction: it is backwards, from the newest event, or forwards";
                return Err(Refusal::bad_request(message));
            }
        };
        Ok(Self {
            after: position("after")?,
            before: position("before")?,
            limit,
            newest_first,
        })
    }
}

/// `GET /apps/{id}/channels/{name}/history`
pub async fn history(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    let app = signed_app(&api, &request, payload).await?;
    let params = params(&request);
    let channel = channel_of(&request)?;
    refuse_others(&params, &["limit", "direction", "after", "before"])?;
    let asked = Asked::parse(&params)?;
    if app.history_of(&channel).is_none() {
        return Err(Refusal::bad_request(
            "This channel keeps no history: the app has no rule that covers it",
        ));
    }
    let query = HistoryQuery {
        after: asked.after.map(|position| position.serial),
        before: asked.before.map(|position| position.serial),
        limit: asked.limit,
        newest_first: asked.newest_first,
    };
    let page = api.services.broker.history(&app, &channel, query).await?;
    let epoch = page.position.map(|position| position.epoch);
    let is_of_another = |position: &Position| Some(position.epoch) != epoch;
    if [asked.after, asked.before].iter().flatten().any(is_of_another) {
        return Err(Refusal::new(
            StatusCode::GONE,
            "The history that this position belongs to has ended, and another may have begun",
        ));
    }
    let place = |serial| {
        let epoch = epoch.unwrap_or_default();
        Position { epoch, serial }.to_string()
    };
    let last = page.events.last().filter(|_| page.has_more);
    let answer = Answer {
        position: page.position.map(|position| position.to_string()),
        complete: page.is_complete,
        next: last.map(|event| place(event.serial)),
        events: page
            .events
            .iter()
            .map(|event| Event {
                position: place(event.serial),
                time_ms: event.published_at_ms,
                name: &event.name,
                data: serde_json::from_str(&event.data_literal).unwrap_or(RawValue::NULL),
                user_id: event.user_id.as_ref().map(UserId::as_str),
            })
            .collect(),
    };
    Ok(HttpResponse::Ok().json(answer))
}
