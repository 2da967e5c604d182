//! Users join one presence channel; every member's view must come out exact.

use anyhow::{Result, bail};

use crate::gather::{Crowd, Places, Seat, gather, left_early, subscribe};
use crate::histogram::Histogram;
use crate::payload::{after, leading_number, number, position};
use crate::report::{Meter, Report};
use crate::scenario::{Effort, Presence};
use crate::target::Target;
use crate::wire::{Id, News, Scene, Wire};

/// User ids are `u` and this many digits, so that a scan finds them.
const USER_DIGITS: usize = 5;
const WARM_UP_USERS: u32 = 50;

/// Whom one member believes to be in the channel: its own list, plus `member_added`, minus `member_removed`.
#[derive(Clone, Debug, Default)]
struct View {
    present: Vec<bool>,
    size: u32,
    /// Told something impossible: an addition of somebody present, a removal of somebody absent, a wrong count.
    contradicted: bool,
    joined: bool,
}

impl View {
    fn add(&mut self, user: usize) {
        match self.present.get_mut(user) {
            Some(present @ false) => {
                *present = true;
                self.size += 1;
            }
            _ => self.contradicted = true,
        }
    }

    fn remove(&mut self, user: usize) {
        match self.present.get_mut(user) {
            Some(present @ true) => {
                *present = false;
                self.size -= 1;
            }
            _ => self.contradicted = true,
        }
    }

    /// Takes in a message of the channel; true when it was the confirmation of the own join.
    fn read(&mut self, message: &[u8]) -> Result<bool> {
        if position(message, b"member_added").is_some() {
            self.add(user_of_event(message)?);
            return Ok(false);
        }
        if position(message, b"subscription_succeeded").is_some() {
            let (count, users) = own_list(message)?;
            let before = self.size;
            for user in users {
                self.add(user);
            }
            // A member event before the own list would have been counted already: that is an error of order.
            self.contradicted |= before != 0 || u64::from(self.size) != count;
            self.joined = true;
            return Ok(true);
        }
        if position(message, b"member_removed").is_some() {
            self.remove(user_of_event(message)?);
        } else if position(message, b"pusher:error").is_some() {
            bail!(
                "the server refused a member: {}",
                String::from_utf8_lossy(message)
            );
        }
        Ok(false)
    }
}

fn user_of_event(message: &[u8]) -> Result<usize> {
    after(message, b"user_id")
        .and_then(|rest| users_in(rest).next())
        .ok_or_else(|| unreadable(message))
}

/// The `count` and the `ids` of a `subscription_succeeded`.
fn own_list(message: &[u8]) -> Result<(u64, Vec<usize>)> {
    let count = after(message, b"count")
        .and_then(|rest| leading_number(&rest[rest.iter().position(u8::is_ascii_digit)?..]));
    let ids = after(message, b"ids").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b']')?;
        Some(users_in(&rest[..end]).collect())
    });
    count.zip(ids).ok_or_else(|| unreadable(message))
}

fn unreadable(message: &[u8]) -> anyhow::Error {
    anyhow::anyhow!(
        "a presence message without its members: {}",
        String::from_utf8_lossy(message)
    )
}

/// Every `u` with digits in `bytes`.
fn users_in(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes
        .windows(USER_DIGITS + 1)
        .filter(|window| window[0] == b'u')
        .filter_map(|window| usize::try_from(number(&window[1..])?).ok())
}

struct Joining {
    crowd: Crowd,
    places: Places,
    views: Vec<View>,
    began: Vec<u64>,
    joined: u32,
    /// Sum of the sizes of all views: tells when everybody knows everybody.
    known: u64,
    latency: Histogram,
    last_news: u64,
    patience_ns: u64,
}

impl Scene for Joining {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()> {
        let Some(place) = self.places.get(id) else {
            return Ok(());
        };
        match news {
            News::Message(message) => {
                let view = &mut self.views[place];
                let before = u64::from(view.size);
                if view.read(message)? {
                    self.joined += 1;
                    self.latency.record(wire.now() - self.began[place]);
                }
                self.known = self.known - before + u64::from(view.size);
                self.last_news = wire.now();
                Ok(())
            }
            News::Ended(end) => Err(left_early(end)),
            News::Opened | News::Answer { .. } | News::Request(_) => Ok(()),
        }
    }
}

impl Joining {
    fn connect(wire: &mut Wire, target: &Target, users: u32, effort: &Effort) -> Result<Self> {
        let seats: Vec<Seat> = (0..users as usize)
            .map(|place| Seat {
                node: place % target.nodes.len(),
                ..Seat::default()
            })
            .collect();
        let crowd = gather(wire, target, &seats)?;
        let view = View {
            present: vec![false; users as usize],
            ..View::default()
        };
        Ok(Self {
            places: crowd.places(),
            crowd,
            views: vec![view; users as usize],
            began: Vec::new(),
            joined: 0,
            known: 0,
            latency: Histogram::default(),
            last_news: wire.tick(),
            patience_ns: effort.patience_ns(),
        })
    }

    /// Lets everybody join, `in_flight` at a time, and waits until the views have settled.
    fn join(&mut self, wire: &mut Wire, target: &Target, channel: &str, in_flight: u32) -> Result<()> {
        let users = self.views.len();
        while (self.joined as usize) < users {
            while self.began.len() < users.min((self.joined + in_flight) as usize) {
                let place = self.began.len();
                self.began.push(wire.tick());
                let data =
                    format!("{{\"user_id\":\"u{place:0USER_DIGITS$}\",\"user_info\":{{\"name\":\"n\"}}}}");
                let socket_id = &self.crowd.socket_ids[place];
                subscribe(
                    wire,
                    target,
                    self.crowd.ids[place],
                    socket_id,
                    channel,
                    Some(&data),
                )?;
            }
            wire.turn(self, wire.now() + self.patience_ns)?;
            if wire.now() > self.last_news + self.patience_ns {
                bail!(
                    "{} of {users} users had joined, then nothing happened",
                    self.joined
                );
            }
        }
        self.settle(wire, (users * users) as u64)
    }

    /// Turns until the views together know so many members, or nothing has moved for a while.
    fn settle(&mut self, wire: &mut Wire, known: u64) -> Result<()> {
        self.last_news = wire.tick();
        while self.known != known && wire.now() <= self.last_news + self.patience_ns {
            wire.turn(self, wire.now() + self.patience_ns)?;
        }
        Ok(())
    }

    /// Members whose view is not exactly the users that `expected` names.
    fn wrong_views(&self, expected: impl Fn(usize) -> bool) -> usize {
        let wrong = |view: &View| {
            view.contradicted
                || view
                    .present
                    .iter()
                    .enumerate()
                    .any(|(user, here)| *here != expected(user))
        };
        (0..self.views.len())
            .filter(|place| expected(*place) && wrong(&self.views[*place]))
            .count()
    }
}

/// `users` join with `in_flight` joins under way; afterwards every second one leaves without a word.
pub(crate) fn joins(
    wire: &mut Wire,
    target: &Target,
    Presence { users, in_flight }: Presence,
    effort: &Effort,
) -> Result<Report> {
    let mut warm_up = Joining::connect(wire, target, WARM_UP_USERS.min(users), effort)?;
    warm_up.join(wire, target, "presence-warm-up", in_flight)?;
    for id in &warm_up.crowd.ids {
        wire.hang_up(*id);
    }

    let mut joining = Joining::connect(wire, target, users, effort)?;
    let meter = Meter::start(wire, target)?;
    joining.join(wire, target, "presence-load", in_flight)?;
    let mut report = meter.finish(wire, target, u64::from(joining.joined), "join")?;
    report.latency = joining.latency.latency();
    let wrong = joining.wrong_views(|_| true);
    if wrong > 0 {
        report.faults.push(format!(
            "{wrong} of {users} members have a wrong view after the joins"
        ));
    }

    let stays = |user: usize| user.is_multiple_of(2);
    for place in (0..users as usize).filter(|place| !stays(*place)) {
        let id = joining.crowd.ids[place];
        joining.places.clear(id);
        joining.known -= u64::from(joining.views[place].size);
        wire.hang_up(id);
    }
    let staying = u64::from(users.div_ceil(2));
    joining.settle(wire, staying * staying)?;
    let wrong = joining.wrong_views(stays);
    if wrong > 0 {
        report.faults.push(format!(
            "{wrong} of {staying} members have a wrong view after the others left"
        ));
    } else {
        report.remarks.push(format!(
            "all views exact, with {users} members and with the {staying} that stayed"
        ));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            present: vec![false; 4],
            ..View::default()
        }
    }

    const LIST: &[u8] = br#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-load","data":"{\"presence\":{\"count\":2,\"ids\":[\"u00000\",\"u00002\"],\"hash\":{\"u00000\":{},\"u00002\":{}}}}"}"#;
    const ADDED: &[u8] =
        br#"{"event":"pusher_internal:member_added","channel":"presence-load","data":"{\"user_id\":\"u00001\",\"user_info\":{}}"}"#;
    const REMOVED: &[u8] =
        br#"{"event":"pusher_internal:member_removed","channel":"presence-load","data":"{\"user_id\":\"u00000\"}"}"#;

    #[test]
    fn a_view_is_the_own_list_plus_additions_minus_removals() {
        let mut view = view();
        assert!(view.read(LIST).unwrap());
        assert!(!view.read(ADDED).unwrap());
        assert!(!view.read(REMOVED).unwrap());
        assert_eq!(view.present, [false, true, true, false]);
        assert!(!view.contradicted);
    }

    #[test]
    fn a_repeated_addition_or_a_removal_of_a_stranger_contradicts() {
        let mut twice = view();
        twice.read(LIST).unwrap();
        twice.read(ADDED).unwrap();
        twice.read(ADDED).unwrap();
        assert!(twice.contradicted);
        let mut stranger = view();
        stranger.read(REMOVED).unwrap();
        assert!(stranger.contradicted);
    }

    #[test]
    fn a_member_event_before_the_own_list_and_a_wrong_count_contradict() {
        let mut early = view();
        early.read(ADDED).unwrap();
        early.read(LIST).unwrap();
        assert!(early.contradicted);
        let mut miscounted = view();
        let text = String::from_utf8(LIST.to_vec())
            .unwrap()
            .replace("count\\\":2", "count\\\":3");
        miscounted.read(text.as_bytes()).unwrap();
        assert!(miscounted.contradicted);
    }
}
