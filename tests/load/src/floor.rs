//! The floor F1: what the kernel alone takes for a delivery.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result};

use crate::process::own_cpu_ns;

const SOCKETS: usize = 1_000;
/// A delivery of the measured scenarios: 175 bytes of JSON behind a frame header.
const FRAME_BYTES: usize = 180;

/// CPU microseconds that one `send` of a prebuilt 180-byte frame costs, over 1,000 loopback sockets in turn, as the
/// median of `rounds` rounds.
///
/// The sender's own thread empties the sockets between two rounds. With a reader on another thread the sender also
/// pays for waking it, or not, as the scheduler pleases: that floor lies about a fifth higher and moves by half from
/// one minute to the next.
///
/// # Errors
/// The machine refuses the sockets: the measurement needs 2,000 open files.
pub fn measure(rounds: usize) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    let mut pairs = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let receiver =
            TcpStream::connect(addr).context("cannot open the sockets of the floor measurement")?;
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        pairs.push((sender, receiver));
    }
    let frame = [b'x'; FRAME_BYTES];
    let mut buffer = [0; FRAME_BYTES];
    let mut figures = Vec::with_capacity(rounds);
    // The first round warms up.
    for round in 0..=rounds {
        let before = own_cpu_ns();
        for (sender, _) in &mut pairs {
            sender.write_all(&frame)?;
        }
        let used = own_cpu_ns() - before;
        for (_, receiver) in &mut pairs {
            receiver.read_exact(&mut buffer)?;
        }
        if round > 0 {
            figures.push(used);
        }
    }
    median_per_send(figures)
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
