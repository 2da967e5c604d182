//! An endpoint that sends back what it gets, for RFC 6455 test suites: the same frame code as for everybody else.
//! Opened by a setting for tests only.

use std::io;

use actix_http::ws::{OpCode, Parser};
use bytes::BytesMut;
use dunlin_protocol::pusher::outgoing;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::driver::close_answer;
use super::frames::{FrameReader, Incoming};

/// Test suites send messages of up to 16 MiB, in as many fragments as they like.
const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;
const MAX_FRAGMENTS: usize = usize::MAX;

/// Echoes until the peer closes or breaks the protocol.
///
/// # Errors
/// The connection broke.
pub async fn run(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    greeting: &[u8],
    early: BytesMut,
) -> io::Result<()> {
    io.write_all(greeting).await?;
    let mut frames = FrameReader::new(MAX_MESSAGE_BYTES, MAX_FRAGMENTS);
    let mut bytes = early;
    loop {
        let mut answer = BytesMut::new();
        let mut is_over = false;
        while !is_over {
            match frames.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(Incoming::Text(text))) => {
                    Parser::write_message(&mut answer, text.as_bytes(), OpCode::Text, true, false);
                }
                Ok(Some(Incoming::Binary(payload))) => {
                    Parser::write_message(&mut answer, payload, OpCode::Binary, true, false);
                }
                Ok(Some(Incoming::Ping(payload))) => {
                    Parser::write_message(&mut answer, payload, OpCode::Pong, true, false);
                }
                Ok(Some(Incoming::Pong)) => {}
                Ok(Some(Incoming::Close(code))) => {
                    answer.extend_from_slice(&close_answer(code));
                    is_over = true;
                }
                Err(violation) => {
                    answer.extend_from_slice(&outgoing::close_frame(violation.code, violation.reason));
                    is_over = true;
                }
            }
        }
        io.write_all(&answer).await?;
        if is_over {
            return super::upgrade::hang_up(io).await;
        }
        if io.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}
