//! Reading a request's body under a bound, counted while it arrives.

use std::pin::pin;

use actix_http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;

use crate::api::error::Refusal;

/// # Errors
/// 413 as soon as more than `limit_bytes` have come, whatever was announced; 400 when the body breaks off.
pub async fn read<E: std::fmt::Display>(
    payload: impl Stream<Item = Result<Bytes, E>>,
    limit_bytes: usize,
) -> Result<Bytes, Refusal> {
    let mut payload = pin!(payload);
    let mut next = async || match payload.next().await {
        None => Ok(None),
        Some(Ok(chunk)) => Ok(Some(chunk)),
        Some(Err(error)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("The request body is incomplete: {error}"),
        )),
    };
    // Nearly every body comes in one piece, which is then passed on as it is.
    let Some(first) = next().await? else {
        return Ok(Bytes::new());
    };
    let mut whole: Option<BytesMut> = None;
    let mut length = first.len();
    loop {
        if length > limit_bytes {
            return Err(Refusal::too_large(limit_bytes));
        }
        match next().await? {
            None => return Ok(whole.map_or(first, BytesMut::freeze)),
            Some(chunk) => {
                length += chunk.len();
                let whole = whole.get_or_insert_with(|| BytesMut::from(&first[..]));
                if length <= limit_bytes {
                    whole.extend_from_slice(&chunk);
                }
            }
        }
    }
}
