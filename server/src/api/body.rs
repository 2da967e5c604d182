//! Reading a request's body under bounds that hold while it arrives.

use std::pin::pin;
use std::time::Duration;

use actix_http::StatusCode;
use actix_http::header::{CONTENT_LENGTH, HeaderMap};
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::error::Refusal;

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    pub max_bytes: usize,
    /// For the whole of it.
    pub time: Duration,
}

impl BodyBounds {
    /// # Errors
    /// 413 as soon as more has come, or was announced in `headers`, than may; 408 when it takes too long; 400 when it
    /// breaks off.
    pub async fn read<E: std::fmt::Display>(
        self,
        headers: &HeaderMap,
        payload: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Bytes, Refusal> {
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(Refusal::too_large(self.max_bytes));
        }
        let too_slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "The request body took too long");
        timeout(self.time, collect(payload, self.max_bytes))
            .await
            .map_err(too_slow)?
    }
}

async fn collect<E: std::fmt::Display>(
    payload: impl Stream<Item = Result<Bytes, E>>,
    max_bytes: usize,
) -> Result<Bytes, Refusal> {
    let mut payload = pin!(payload);
    let mut first: Option<Bytes> = None;
    // Nearly every body comes in one piece, which is then passed on as it is.
    let mut whole = BytesMut::new();
    let mut length = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk
            .map_err(|error| Refusal::bad_request(format!("The request body is incomplete: {error}")))?;
        length += chunk.len();
        if length > max_bytes {
            return Err(Refusal::too_large(max_bytes));
        }
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            None => whole.extend_from_slice(&chunk),
            Some(start) => {
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;
    use futures_util::stream;

    use super::*;

    const BOUNDS: BodyBounds = BodyBounds {
        max_bytes: 5,
        time: Duration::from_millis(50),
    };

    async fn read(chunks: &[&'static str]) -> Result<Bytes, u16> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|chunk| Ok::<_, String>(Bytes::from_static(chunk.as_bytes())))
            .collect();
        BOUNDS
            .read(&HeaderMap::new(), stream::iter(chunks))
            .await
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[actix_web::test]
    async fn a_body_is_whole_however_it_came_and_bounded() {
        assert_eq!(read(&[]).await.as_deref(), Ok(&b""[..]));
        assert_eq!(read(&["abcde"]).await.as_deref(), Ok(&b"abcde"[..]));
        assert_eq!(read(&["a", "", "bc", "de"]).await.as_deref(), Ok(&b"abcde"[..]));
        assert_eq!(read(&["abcdef"]).await, Err(413));
        assert_eq!(read(&["abc", "def"]).await, Err(413));
    }

    #[actix_web::test]
    async fn a_body_that_is_announced_too_large_is_not_waited_for() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("6"));
        let endless = stream::pending::<Result<Bytes, String>>();
        assert_eq!(
            BOUNDS.read(&headers, endless).await.unwrap_err().status.as_u16(),
            413
        );
    }

    #[actix_web::test]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = stream::pending::<Result<Bytes, String>>();
        assert_eq!(
            BOUNDS
                .read(&HeaderMap::new(), endless)
                .await
                .unwrap_err()
                .status
                .as_u16(),
            408
        );
    }
}
