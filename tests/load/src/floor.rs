//! The floor F1: what the kernel alone takes for a delivery.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::process::own_cpu_ns;

const SOCKETS: usize = 1_000;
/// A delivery of the measured scenarios: 175 bytes of JSON behind a frame header.
const FRAME_BYTES: usize = 180;
/// A receiver acknowledges each of its first 16 segments at once, at the sender's expense; connections that live for
/// a while are past that.
const WARM_UP_ROUNDS: usize = 20;
/// Rounds follow each other as calm messages do: without a pause caches are warmer than any real sender's.
const PAUSE: Duration = Duration::from_millis(25);

/// CPU microseconds that one `send` of a prebuilt 180-byte frame costs, over 1,000 loopback sockets in turn that
/// another thread reads through epoll, as the median of `rounds` rounds of 25 ms.
///
/// # Errors
/// The machine refuses the sockets: the measurement needs 2,000 open files.
pub fn measure(rounds: usize) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut senders = Vec::with_capacity(SOCKETS);
    let mut receivers = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        receivers.push(TcpStream::connect(addr).context("cannot open the sockets of the floor measurement")?);
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        senders.push(sender);
    }
    thread::scope(|scope| {
        let (round_read, rounds_read) = sync_channel(1);
        let reader = scope.spawn(move || read_rounds(&receivers, &round_read));
        // Takes the senders along, so that the reader sees its end whatever happens.
        let figures = send_rounds(senders, rounds, &rounds_read);
        reader
            .join()
            .map_err(|_| anyhow!("the reader of the floor measurement panicked"))??;
        median_per_send(figures?)
    })
}

/// CPU nanoseconds of each round.
fn send_rounds(mut senders: Vec<TcpStream>, rounds: usize, rounds_read: &Receiver<()>) -> Result<Vec<u64>> {
    let frame = [b'x'; FRAME_BYTES];
    let mut figures = Vec::with_capacity(rounds);
    for round in 0..WARM_UP_ROUNDS + rounds {
        let before = own_cpu_ns();
        for sender in &mut senders {
            sender.write_all(&frame)?;
        }
        let used = own_cpu_ns() - before;
        rounds_read
            .recv()
            .context("the reader of the floor measurement has ended")?;
        if round >= WARM_UP_ROUNDS {
            figures.push(used);
            thread::sleep(PAUSE);
        }
    }
    Ok(figures)
}

/// Reads until the senders are gone and tells of every complete round.
fn read_rounds(receivers: &[TcpStream], round_read: &SyncSender<()>) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, receiver) in receivers.iter().enumerate() {
        epoll::add(&epoll, receiver, EventData::new_u64(index as u64), EventFlags::IN)?;
    }
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    let mut buffer = [0; 4 * FRAME_BYTES];
    let mut received = 0;
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let data = event.data;
            let mut receiver = &receivers[usize::try_from(data.u64())?];
            match receiver.read(&mut buffer)? {
                0 => return Ok(()),
                bytes => received += bytes,
            }
        }
        if received >= SOCKETS * FRAME_BYTES {
            received -= SOCKETS * FRAME_BYTES;
            round_read
                .send(())
                .context("the sender of the floor measurement has ended")?;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people, far below 2^53")]
fn median_per_send(mut figures: Vec<u64>) -> Result<f64> {
    figures.sort_unstable();
    let median = figures.get(figures.len() / 2).context("no round was measured")?;
    Ok(*median as f64 / 1000.0 / SOCKETS as f64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_send_costs_something_and_less_than_a_millisecond() {
        let cost = super::measure(3).unwrap();
        assert!(cost > 0.1 && cost < 1_000.0, "{cost} µs");
    }
}
