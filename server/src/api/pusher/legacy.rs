//! What the first libraries called, before events had several channels (Pusher REST API, its first version).

use actix_http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use dunlin_protocol::signature::SignedRequest;
use serde::Serialize;

use super::publish::{self, Kind};
use super::query::{channel_of, params, signed, signed_app};
use crate::api::Api;
use crate::api::error::Refusal;

/// `POST /apps/{id}/channels/{name}/events?name=EVENT[&socket_id=ID]`: the body is the data itself.
pub async fn event(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    #[derive(Serialize)]
    struct Event<'a> {
        name: &'a str,
        channel: &'a str,
        data: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        socket_id: Option<&'a str>,
    }
    let (app, body) = signed(&api, &request, payload).await?;
    let (channel, params) = (channel_of(&request)?, params(&request));
    let name = params
        .get("name")
        .ok_or_else(|| Refusal::bad_request("Missing parameter: name"))?;
    let data = std::str::from_utf8(&body).map_err(|_| Refusal::bad_request("The data must be UTF-8"))?;
    let event = Event {
        name,
        channel: channel.as_str(),
        data,
        socket_id: params.get("socket_id"),
    };
    let event = serde_json::to_vec(&event).map_err(|error| Refusal::bad_request(error.to_string()))?;
    publish::publish(
        &api,
        &app,
        Kind::Event,
        &SignedRequest::new("POST", "/", ""),
        &event,
    )
    .await?;
    let accepted = HttpResponse::build(StatusCode::ACCEPTED)
        .content_type("text/plain; charset=utf-8")
        .body("202 ACCEPTED\n");
    Ok(accepted)
}

/// `GET /apps/{id}/channels/{name}/stats`
pub async fn stats(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Refusal> {
    #[derive(Serialize)]
    struct Stats {
        occupied: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_count: Option<u32>,
        connection_count: u32,
    }
    let app = signed_app(&api, &request, payload).await?;
    let channel = channel_of(&request)?;
    let occupancy = api.services.presence.occupancy(&app, &channel).await?;
    Ok(HttpResponse::Ok().json(Stats {
        occupied: occupancy.connections > 0,
        user_count: channel.kind().is_presence().then_some(occupancy.users),
        connection_count: occupancy.connections,
    }))
}
