//! Clients that send broken frames and broken messages, and whether a client of good faith feels it.
//!
//! What the server answers to each input is for its own tests to judge; here its health over many of them counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use crate::aftermath::{allowed_after, send_home, settled};
use crate::fanout::{Source, Traffic};
use crate::frame::{CLOSE, PING, PONG, TEXT, push_masked};
use crate::gather::{Places, Step, gather, seats, step};
use crate::mutation::{Random, break_frame, break_message};
use crate::process::resident_kib;
use crate::publishers::Publishers;
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Hostile, Pace};
use crate::target::Target;
use crate::wire::{Dialect, End, Id, News, Scene, Wire};

/// The client of good faith is alone in it.
const CHANNEL: &str = "good-faith";
const GOOD_FAITH: Pace = Pace::PerSecond(50);
const CONTROL_LANES: usize = 2;
const SLICE_NS: u64 = 1_000_000_000;
/// The client of good faith may wait so long for 99 of 100 messages.
const CONTROL_P99_US: f64 = 100_000.0;
/// Part of the inputs that go ahead of the measured ones, so that the start is no fresh process: one in so many.
const WARM_UP_SHARE: u32 = 20;
/// A server gives memory back some seconds after clients left; the start is read after that.
const SETTLE_NS: u64 = 3_000_000_000;
/// Connections of each kind.
const LANES: usize = 8;
/// After so many inputs a connection is given up: a frame cut short may have swallowed all that followed.
const INPUTS_PER_CONNECTION: u32 = 16;
/// Without a single ready connection for this long the server is taken for stuck.
const PATIENCE_NS: u64 = 10_000_000_000;
/// The server failed inside and says so (RFC 6455, 7.4.1); broken input is no reason for that.
const INTERNAL_ERROR: u16 = 1011;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Frame,
    Message,
}

/// One attacking connection at a time.
#[derive(Debug)]
struct Lane {
    kind: Kind,
    id: Id,
    /// Known once the server has greeted.
    socket_id: Option<String>,
    sent: u32,
}

struct Attack<'a> {
    target: &'a Target,
    random: Random,
    lanes: Vec<Lane>,
    places: Places,
    found: Found,
}

/// What the attackers count.
#[derive(Debug, Default)]
struct Found {
    inputs: u64,
    connections: u64,
    ends: BTreeMap<End, u64>,
}

impl Attack<'_> {
    fn open(&mut self, wire: &mut Wire, lane: usize) -> Result<()> {
        let node = lane % self.target.nodes.len();
        let dialect = Dialect::pusher(&self.target.app_key);
        let id = wire.connect(self.target.nodes[node].addr, dialect, None)?;
        self.places.set(id, lane);
        self.found.connections += 1;
        let lane = &mut self.lanes[lane];
        (lane.id, lane.socket_id, lane.sent) = (id, None, 0);
        Ok(())
    }

    /// Sends one broken input of this kind; false when no connection is ready for it.
    fn send(&mut self, wire: &mut Wire, kind: Kind) -> Result<bool> {
        // In turn: what is broken, and how, must not depend on who happens to be ready.
        let first = usize::try_from(self.found.inputs)? % self.lanes.len();
        let lane = (0..self.lanes.len())
            .map(|step| (first + step) % self.lanes.len())
            .find(|lane| self.lanes[*lane].kind == kind && self.lanes[*lane].socket_id.is_some());
        let Some(place) = lane else { return Ok(false) };
        let lane = &self.lanes[place];
        let id = lane.id;
        let mut message = message(
            &mut self.random,
            self.target,
            lane.socket_id.as_deref().unwrap_or_default(),
        )
        .into_bytes();
        match kind {
            Kind::Message => {
                break_message(&mut self.random, &mut message);
                wire.send_text(id, &message)?;
            }
            Kind::Frame => {
                let mut frame = Vec::new();
                match self.random.below(8) {
                    0 => push_masked(&mut frame, PING, b"are you there"),
                    1 => push_masked(&mut frame, PONG, b""),
                    2 => push_masked(&mut frame, CLOSE, &1000_u16.to_be_bytes()),
                    _ => push_masked(&mut frame, TEXT, &message),
                }
                break_frame(&mut self.random, &mut frame);
                wire.send(id, &frame)?;
            }
        }
        self.found.inputs += 1;
        self.lanes[place].sent += 1;
        if self.lanes[place].sent >= INPUTS_PER_CONNECTION {
            self.places.clear(id);
            wire.hang_up(id);
            self.open(wire, place)?;
        }
        Ok(true)
    }
}

impl Scene for Attack<'_> {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        let Some(place) = self.places.get(id) else {
            return Ok(());
        };
        match news {
            // Refusals are what broken input asks for.
            News::Message(message) if self.lanes[place].socket_id.is_none() => {
                if let Step::Established(socket_id) = step(message)? {
                    self.lanes[place].socket_id = Some(socket_id);
                }
                Ok(())
            }
            News::Ended(end) => {
                self.places.clear(id);
                *self.found.ends.entry(end).or_default() += 1;
                self.open(wire, place)
            }
            News::Opened | News::Message(_) | News::Answer { .. } | News::Request(_) => Ok(()),
        }
    }
}

/// A message as a client may send it.
fn message(random: &mut Random, target: &Target, socket_id: &str) -> String {
    let number = random.below(20);
    let subscription = |channel: String, member: Option<String>| {
        let auth = target.channel_auth(socket_id, &channel, member.as_deref());
        let mut data = json!({ "channel": channel, "auth": auth });
        if let Some(member) = member {
            data["channel_data"] = member.into();
        }
        json!({ "event": "pusher:subscribe", "data": data })
    };
    let user =
        json!({ "user_id": number.to_string(), "user_info": {}, "id": number.to_string() }).to_string();
    let message = match random.below(9) {
        0 => json!({ "event": "pusher:subscribe", "data": { "channel": format!("open-{number}") } }),
        1 => subscription(format!("private-{number}"), None),
        2 => subscription(format!("presence-{number}"), Some(user)),
        3 => subscription(format!("private-cache-{number}"), None),
        4 => json!({ "event": "pusher:unsubscribe", "data": { "channel": format!("private-{number}") } }),
        5 => {
            json!({ "event": "client-noise", "channel": format!("private-{number}"), "data": { "n": number } })
        }
        6 => {
            // The text that is signed is `socket_id::user::user_data` (Pusher docs, "Authenticating users").
            let auth = target.channel_auth(socket_id, ":user:", Some(&user));
            json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": user } })
        }
        7 => {
            let data = json!({ "position": format!("1:{number}") });
            json!({ "event": "pusher:resume", "channel": format!("open-{number}"), "data": data })
        }
        _ => json!({ "event": "pusher:ping", "data": {} }),
    };
    message.to_string()
}

/// Sends all inputs of `shape`, or fewer once `stop` is set.
fn attack(target: &Target, shape: Hostile, stop: &AtomicBool) -> Result<Found> {
    let mut wire = Wire::new()?;
    let mut attack = Attack {
        target,
        random: Random::new(shape.seed),
        lanes: Vec::new(),
        places: Places::default(),
        found: Found::default(),
    };
    for kind in [Kind::Frame, Kind::Message].repeat(LANES) {
        attack.lanes.push(Lane {
            kind,
            id: 0,
            socket_id: None,
            sent: 0,
        });
        attack.open(&mut wire, attack.lanes.len() - 1)?;
    }
    let pause = 1_000_000_000 / u64::from(shape.per_second.max(1));
    let mut due = wire.tick();
    for number in 0..shape.frames.max(shape.messages) {
        // A short delay is made up for, a long one does not end in a flood.
        due = (due + pause).max(wire.tick().saturating_sub(SLICE_NS));
        let mut wanted: Vec<Kind> = Vec::new();
        wanted.extend((number < shape.frames).then_some(Kind::Frame));
        wanted.extend((number < shape.messages).then_some(Kind::Message));
        while let Some(kind) = wanted.pop() {
            if stop.load(Ordering::Relaxed) {
                return Ok(attack.found);
            }
            let until = wire.tick() + PATIENCE_NS;
            while !attack.send(&mut wire, kind)? {
                wire.turn(&mut attack, until)?;
                if wire.now() >= until {
                    bail!("the server has greeted nobody for ten seconds");
                }
            }
        }
        while wire.tick() < due {
            wire.turn(&mut attack, due)?;
        }
    }
    // Answers to the last inputs are on their way.
    let end = wire.tick() + SLICE_NS;
    while wire.now() < end {
        wire.turn(&mut attack, end)?;
    }
    Ok(attack.found)
}

/// Attacks from another thread while the traffic of good faith goes on.
fn attack_beside(
    wire: &mut Wire,
    target: &Target,
    traffic: &mut Traffic<'_>,
    shape: Hostile,
) -> Result<Found> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attack(target, shape, &stop));
        let mut good_faith = Ok(());
        while good_faith.is_ok() && !attacker.is_finished() {
            good_faith = traffic.run(wire, GOOD_FAITH, SLICE_NS, u64::MAX);
        }
        stop.store(true, Ordering::Relaxed);
        let found = attacker
            .join()
            .map_err(|_| anyhow!("the attacking thread panicked"))?;
        good_faith.context("the client of good faith was hit")?;
        found
    })
}

pub(crate) fn hostile(wire: &mut Wire, target: &Target, shape: Hostile, effort: &Effort) -> Result<Report> {
    let seat = seats(target, 1, |_| CHANNEL.into());
    let crowd = gather(wire, target, &seat)?;
    let publishers = Publishers::open(wire, target, CONTROL_LANES)?;
    let source = Source::Http(Box::new(publishers));
    let mut traffic = Traffic::new(source, vec![CHANNEL.into()], 32, effort);
    for id in crowd.ids {
        traffic.watch(id, 0);
    }

    let warm_up = Hostile {
        frames: shape.frames / WARM_UP_SHARE,
        messages: shape.messages / WARM_UP_SHARE,
        seed: !shape.seed,
        ..shape
    };
    attack_beside(wire, target, &mut traffic, warm_up)?;
    let known = resident_kib(target)?.is_some();
    traffic.run(wire, GOOD_FAITH, if known { SETTLE_NS } else { 0 }, u64::MAX)?;
    traffic.forget_times();
    let start_kib = resident_kib(target)?;

    let meter = Meter::start(wire, target)?;
    let found = attack_beside(wire, target, &mut traffic, shape)?;
    let mut report = meter.finish(wire, target, found.inputs, "input")?;
    traffic.complete(&mut report);
    report.remarks.push(format!(
        "{} broken frames and messages on {} connections, {} control messages arrived",
        found.inputs,
        found.connections,
        traffic.ledger.delivered()
    ));
    for (end, count) in &found.ends {
        let text = format!("{count} attackers ended: {end}");
        if *end == End::Closed(INTERNAL_ERROR) {
            report.faults.push(text);
        } else {
            report.remarks.push(text);
        }
    }
    if let Some(latency) = report.latency
        && latency.p99_us >= CONTROL_P99_US
    {
        report.faults.push(format!(
            "the client of good faith waited: p99 {:.0} µs",
            latency.p99_us
        ));
    }
    gather(wire, target, &seat).context("after the attack")?;
    if let Some(start) = start_kib {
        let end = settled(wire, start, || Ok(resident_kib(target)?.unwrap_or(0)))?;
        let text = format!("memory in RAM: {start} KiB at the start, {end} KiB at the end");
        if end > allowed_after(start) {
            report.faults.push(text);
        } else {
            report.remarks.push(text);
        }
    }
    send_home(wire, target, 0, (None, None), &mut report)?;
    Ok(report)
}
