//! What a connection has still to be sent.

use std::io;
use std::task::Waker;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::socket::Socket;

/// The most that is gathered into one write.
const GATHER_BYTES: usize = 64 * 1024;

/// Complete frames in order; only the first piece may be partly sent. Pieces are shared between connections.
#[derive(Debug, Default)]
pub struct Outbox {
    /// One piece needs no allocation, and a fan-out leaves one piece.
    pieces: SmallVec<[Bytes; 1]>,
    bytes: usize,
    /// The first piece was written in part.
    torn: bool,
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    All,
    /// The socket takes no more for now.
    Blocked,
}

impl Outbox {
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.pieces.push(frame);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets everything but the rest of a frame that was begun, after which another frame may follow.
    pub fn keep_only_the_torn_piece(&mut self) {
        self.pieces.truncate(usize::from(self.torn));
        self.bytes = self.pieces.iter().map(Bytes::len).sum();
    }

    /// Writes until everything is sent or the socket blocks; many small pieces are gathered in `scratch`, because one
    /// write of a joined buffer is cheaper than a vectored write of its parts. Adds what was written to `written`.
    ///
    /// # Errors
    /// The socket is broken; the connection is over.
    pub fn flush(
        &mut self,
        socket: &mut Socket,
        waker: &Waker,
        scratch: &mut Vec<u8>,
        written: &mut u64,
    ) -> io::Result<Flushed> {
        while !self.pieces.is_empty() {
            let chunk = if self.pieces.len() == 1 {
                &self.pieces[0][..]
            } else {
                self.gather(scratch)
            };
            let length = chunk.len();
            match socket.try_write(chunk, waker) {
                Ok(0) if length > 0 => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    *written += sent as u64;
                    self.advance(sent);
                    if sent < length {
                        return Ok(Flushed::Blocked);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(if socket.try_flush(waker)? {
            Flushed::All
        } else {
            Flushed::Blocked
        })
    }

    fn gather<'a>(&self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        scratch.clear();
        for piece in &self.pieces {
            let room = GATHER_BYTES - scratch.len();
            scratch.extend_from_slice(&piece[..piece.len().min(room)]);
            if scratch.len() == GATHER_BYTES {
                break;
            }
        }
        scratch
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        let mut done = 0;
        for piece in &mut self.pieces {
            if sent < piece.len() {
                self.torn = sent > 0 || (self.torn && done == 0);
                piece.advance(sent);
                break;
            }
            sent -= piece.len();
            self.torn = false;
            done += 1;
        }
        if done == self.pieces.len() {
            // Also gives back the memory of a backlog.
            self.pieces = SmallVec::new();
        } else {
            self.pieces.drain(..done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(pieces: &[&'static str]) -> Outbox {
        let mut outbox = Outbox::default();
        for piece in pieces {
            outbox.push(Bytes::from_static(piece.as_bytes()));
        }
        outbox
    }

    fn rest(outbox: &Outbox) -> String {
        let bytes = outbox.pieces.concat();
        assert_eq!(bytes.len(), outbox.bytes());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_was_sent_is_gone_and_what_was_begun_is_finished() {
        for (sent, left, kept_when_cut) in [
            (0, "abcdef", ""),
            (1, "bcdef", "b"),
            (2, "cdef", ""),
            (3, "def", "d"),
            (5, "f", "f"),
            (6, "", ""),
        ] {
            let mut outbox = outbox(&["ab", "cd", "ef"]);
            outbox.advance(sent);
            assert_eq!(rest(&outbox), left, "{sent} sent");
            outbox.keep_only_the_torn_piece();
            assert_eq!(rest(&outbox), kept_when_cut, "{sent} sent, then cut");
        }
    }

    #[test]
    fn a_torn_piece_stays_torn_until_it_is_sent() {
        let mut outbox = outbox(&["abcd", "e"]);
        outbox.advance(1);
        outbox.advance(0);
        outbox.advance(1);
        outbox.keep_only_the_torn_piece();
        assert_eq!(rest(&outbox), "cd");
    }
}
