//! The service in front of the routes. Publishing is matched here, by hand: a router and its middleware cost more
//! than everything else that a publish needs. Whatever is not a publish falls through.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::{Method, Request, Response};
use actix_service::Service;
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::ServiceResponse;

use super::Api;
use super::pusher::publish::{self, Kind};

/// `S` is the routed application.
pub struct Front<S> {
    pub api: Arc<Api>,
    pub routes: S,
}

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
        match publish_kind(&self.api.path_prefix, &request) {
            Some(kind) => {
                let api = Arc::clone(&self.api);
                Box::pin(async move { Ok(publish::handle(&api, kind, request).await) })
            }
            None => {
                let answer = self.routes.call(request);
                Box::pin(async move { answer.await.map(Into::into) })
            }
        }
    }
}

/// Matches `POST PREFIX/apps/{id}/events` and `…/batch_events`.
fn publish_kind(prefix: &str, request: &Request) -> Option<Kind> {
    if request.method() != Method::POST {
        return None;
    }
    let (id, rest) = request
        .path()
        .strip_prefix(prefix)?
        .strip_prefix("/apps/")?
        .split_once('/')?;
    match rest {
        _ if id.is_empty() => None,
        "events" => Some(Kind::Event),
        "batch_events" => Some(Kind::Batch),
        _ => None,
    }
}
