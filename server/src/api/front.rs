//! The service in front of the routes. Publishing is matched here, by hand: a router and its middleware cost more
//! than everything else that a publish needs. Whatever is not a publish falls through.
//!
//! Also here, because it concerns every answer: a panic becomes a 500, and browsers of other origins are let in or not.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderMap,
    HeaderValue,
};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use actix_service::Service;
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;
use futures_util::FutureExt as _;

use super::Api;
use super::error::Refusal;
use super::pusher::publish::{self, Kind};

/// `S` is the routed application.
pub struct Front<S> {
    pub api: Arc<Api>,
    pub routes: S,
}

/// Whether browsers of any origin may read the answer.
type IsForBrowsers = bool;

impl<S> Service<Request> for Front<S>
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = Error>,
    S::Future: 'static,
{
    type Response = Response<BoxBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.routes.poll_ready(cx)
    }

    fn call(&self, request: Request) -> Self::Future {
        let path = self.api.signed_path(request.path());
        let is_for_browsers = self.api.section.cors && is_signed_api(path);
        if is_for_browsers && is_preflight(&request) {
            return Box::pin(async { Ok(preflight()) });
        }
        match publish_kind(path) {
            Some(kind) if request.method() == Method::POST => {
                let api = Arc::clone(&self.api);
                let answer = async move { Ok(publish::handle(&api, kind, request).await) };
                Box::pin(finish(answer, is_for_browsers))
            }
            Some(_) => Box::pin(finish(async { Ok(only_post()) }, is_for_browsers)),
            None => {
                let answer = self.routes.call(request);
                let answer = async move { answer.await.map(Into::into) };
                Box::pin(finish(answer, is_for_browsers))
            }
        }
    }
}

/// A panic would otherwise end the connection without a word.
async fn finish(
    answer: impl Future<Output = Result<Response<BoxBody>, Error>>,
    is_for_browsers: IsForBrowsers,
) -> Result<Response<BoxBody>, Error> {
    let mut response = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer?,
        Err(_) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error").into_response(),
    };
    if is_for_browsers {
        let headers = response.headers_mut();
        allow_any_origin(headers);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("Retry-After"),
        );
    }
    Ok(response)
}

/// Matches `/apps/{id}/events` and `…/batch_events`.
fn publish_kind(path: &str) -> Option<Kind> {
    let (id, rest) = path.strip_prefix("/apps/")?.split_once('/')?;
    match rest {
        _ if id.is_empty() => None,
        "events" => Some(Kind::Event),
        "batch_events" => Some(Kind::Batch),
        _ => None,
    }
}

fn only_post() -> Response<BoxBody> {
    let mut response = Response::new(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn is_signed_api(path: &str) -> bool {
    path.starts_with("/apps/") || path.starts_with("/users/")
}

/// A browser asks before it sends what a form could not have sent (Fetch standard, CORS preflight).
fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<BoxBody> {
    let mut response = Response::new(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    allow_any_origin(headers);
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST"),
    );
    // What the libraries send, and what a repeated publish is told by.
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Content-Type, Idempotency-Key, X-Pusher-Library"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Any: the requests carry their own signature, and no cookie.
fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_500_that_says_nothing_of_it() {
        let response = finish(async { panic!("a secret") }, true).await.unwrap();
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        assert_eq!(body, "Internal error\n");
    }

    #[test]
    fn publishes_are_told_by_their_path() {
        for (path, kind) in [
            ("/apps/1/events", Some(Kind::Event)),
            ("/apps/1/batch_events", Some(Kind::Batch)),
            ("/apps//events", None),
            ("/apps/1/events/", None),
            ("/apps/1/channels", None),
            ("/events", None),
        ] {
            assert_eq!(publish_kind(path), kind, "{path}");
        }
    }
}
