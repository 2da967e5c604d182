//! Refusals, as the answer to a request: a status and a line of plain text, like the hosted service's.

use std::time::Duration;

use actix_http::{Response, StatusCode};
use actix_web::body::BoxBody;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use dunlin_protocol::http::publish::Refusal as BadPublish;

use crate::answer::Unavailable;
use crate::auth::signed::Unauthorized;
use crate::broker::NotPublished;
use crate::broker::idempotency::NotAdmitted;

/// Why a request got no better answer. `Display` is the text, without the line end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub status: StatusCode,
    pub message: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request body is larger than {limit_bytes} bytes"),
        )
    }

    pub fn rate_limited(retry_after: Duration) -> Self {
        let message = "The app's rate limit is exceeded";
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    /// Ours to mend, and worth trying again soon.
    fn unavailable(message: String) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    pub fn into_response(self) -> Response<BoxBody> {
        let mut response = Response::new(self.status).set_body(BoxBody::new(format!("{}\n", self.message)));
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if let Some(retry_after) = self.retry_after {
            let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        Self {
            status: self.status,
            message: self.message.clone(),
            retry_after: self.retry_after,
        }
        .into_response()
        .into()
    }
}

impl From<Unauthorized> for Refusal {
    fn from(unauthorized: Unauthorized) -> Self {
        let status = StatusCode::from_u16(unauthorized.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        Self::new(status, unauthorized.to_string())
    }
}

impl From<BadPublish> for Refusal {
    fn from(refusal: BadPublish) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, refusal.message)
    }
}

impl From<NotPublished> for Refusal {
    fn from(reason: NotPublished) -> Self {
        Self::unavailable(reason.to_string())
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(reason: NotAdmitted) -> Self {
        let status = match reason {
            NotAdmitted::UnderWay => StatusCode::CONFLICT,
            NotAdmitted::OtherRequest => StatusCode::UNPROCESSABLE_ENTITY,
            NotAdmitted::TooMany => StatusCode::SERVICE_UNAVAILABLE,
            NotAdmitted::Unavailable(unavailable) => return unavailable.into(),
        };
        Self::new(status, reason.to_string())
    }
}

impl From<Unavailable> for Refusal {
    fn from(reason: Unavailable) -> Self {
        Self::unavailable(reason.to_string())
    }
}
