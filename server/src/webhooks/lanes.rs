//! Which delivery is sent next: in order, fairly, and without anybody waiting for somebody else's endpoint.
//!
//! Pure: it is told the time, and never waits. [`Lanes::next`] gives a delivery to send, [`Lanes::finished`] takes its end.
//!
//! - *Order*: deliveries of one endpoint and source that share a channel's lane are under way one after the other; one
//!   that is to be tried again holds back those behind it that share a lane with it, and no others.
//! - *Fairness*: apps take turns, and an app's endpoints take turns among themselves. No app has so many under way that
//!   another that comes finds no place.
//! - A delivery that waits for its next attempt takes no place.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use dunlin_protocol::names::AppId;

use super::delivery::{Delivery, EndpointId, Source};
use super::schedule::Breaker;

/// An endpoint of an app.
pub type Key = (AppId, EndpointId);

/// Deliveries of one endpoint that are looked at, the oldest first. The others wait in the store.
const LOOKED_AT: u32 = 64;

/// How many may be under way.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub all: usize,
    pub of_an_endpoint: usize,
}

/// How long an endpoint is kept that has nothing left, in milliseconds. Zero where others could deliver what they stored
/// for it meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linger(pub u64);

/// Everything this worker has to send.
#[derive(Debug)]
pub struct Lanes {
    places: Places,
    linger: Linger,
    endpoints: HashMap<Key, Lane>,
    /// The turns: apps, and in each its endpoints.
    turns: VecDeque<AppId>,
    apps: BTreeMap<AppId, Turns>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Turns {
    endpoints: VecDeque<EndpointId>,
    under_way: usize,
}

#[derive(Debug, Default)]
struct Lane {
    /// By their number in the store.
    waiting: BTreeMap<i64, Delivery>,
    under_way: HashSet<i64>,
    breaker: Breaker,
    /// There are more in the store than are looked at.
    has_more: bool,
    /// It is sent nothing for now; what waits, waits on.
    is_held: bool,
    /// When the last attempt ended.
    ended_at_ms: u64,
}

impl Lane {
    /// Those that nothing in front holds back and that are not under way: with the time from which each may be sent.
    fn free(&self) -> impl Iterator<Item = (i64, u64)> {
        // Of each source: what those in front hold.
        let mut held: [u64; 3] = [0; 3];
        self.waiting.iter().filter_map(move |(seq, delivery)| {
            let held = &mut held[place(delivery.source)];
            let is_free = *held & delivery.lanes == 0;
            *held |= delivery.lanes;
            (is_free && !self.under_way.contains(seq)).then_some((*seq, delivery.next_at_ms))
        })
    }

    /// The first that may be sent now.
    fn ready(&self, now_ms: u64, most: usize) -> Option<i64> {
        if !self.may_send(now_ms, most) {
            return None;
        }
        let mut due = self.free().filter(|(_, at_ms)| *at_ms <= now_ms);
        due.next().map(|(seq, _)| seq)
    }

    /// Whether something may be sent now, if there is something.
    fn may_send(&self, now_ms: u64, most: usize) -> bool {
        !self.is_held && self.under_way.len() < most && self.breaker.may_send(now_ms, self.under_way.len())
    }

    /// Of what is looked at, time has come for nothing that is not under way already or held back.
    fn is_idle(&self, now_ms: u64) -> bool {
        self.free().all(|(_, at_ms)| at_ms > now_ms)
    }

    /// From when on there is no use for it; `None`: it has something to do.
    fn done_at_ms(&self, linger: Linger) -> Option<u64> {
        let is_empty = self.waiting.is_empty() && !self.has_more;
        is_empty.then(|| self.ended_at_ms.saturating_add(linger.0))
    }

    /// While nothing is taken, nothing is kept but the first and what is under way.
    fn shrink(&mut self) {
        if self.breaker.opens_at_ms().is_none() {
            return;
        }
        let (count, under_way) = (self.waiting.len(), &self.under_way);
        let first = self.waiting.first_key_value().map(|(seq, _)| *seq);
        self.waiting
            .retain(|seq, _| Some(*seq) == first || under_way.contains(seq));
        self.has_more |= self.waiting.len() < count;
    }

    /// When something will be ready that time alone keeps from it.
    fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        if self.is_held {
            return None;
        }
        let opens_at_ms = self.breaker.opens_at_ms().unwrap_or(0);
        let times = self.free().map(|(_, at_ms)| at_ms.max(opens_at_ms));
        times.filter(|at_ms| *at_ms > now_ms).min()
    }
}

fn place(source: Source) -> usize {
    match source {
        Source::Events => 0,
        Source::Presence => 1,
        Source::Message => 2,
    }
}

impl Lanes {
    pub fn new(places: Places, linger: Linger) -> Self {
        Self {
            places,
            linger,
            endpoints: HashMap::new(),
            turns: VecDeque::new(),
            apps: BTreeMap::new(),
            under_way: 0,
        }
    }

    /// The endpoint is this worker's.
    pub fn has(&self, key: &Key) -> bool {
        self.endpoints.contains_key(key)
    }

    /// How many of an endpoint's pending deliveries are looked at. Of one that takes nothing, the next to try is enough,
    /// until it may be tried: then that may be another, because the first waits for its next attempt.
    pub fn appetite(&self, key: &Key, now_ms: u64) -> u32 {
        match self
            .endpoints
            .get(key)
            .and_then(|lane| lane.breaker.opens_at_ms())
        {
            Some(opens_at_ms) if now_ms < opens_at_ms => 1,
            _ => LOOKED_AT,
        }
    }

    /// Something was stored for an endpoint. It is looked at when there is nothing else to send, so that a busy or a
    /// broken endpoint costs no look at the store for each.
    pub fn there_is_more(&mut self, key: &Key) {
        if let Some(lane) = self.endpoints.get_mut(key) {
            lane.has_more = true;
        }
    }

    /// What the store has pending for an endpoint, its oldest, up to a limit. May hold what is known already.
    pub fn offer(&mut self, key: &Key, deliveries: Vec<Delivery>, limit: u32) {
        let turns = self.apps.entry(key.0.clone()).or_insert_with(|| {
            self.turns.push_back(key.0.clone());
            Turns::default()
        });
        let lane = self.endpoints.entry(key.clone()).or_insert_with(|| {
            turns.endpoints.push_back(key.1.clone());
            Lane::default()
        });
        lane.has_more = deliveries.len() >= limit as usize;
        for delivery in deliveries {
            // What is known and waits may have been replayed: the store knows better when its time is.
            if !lane.under_way.contains(&delivery.seq) {
                lane.waiting.insert(delivery.seq, delivery);
            }
        }
    }

    /// Something could be sent now, if something else were looked at.
    pub fn is_idle(&self, key: &Key, now_ms: u64) -> bool {
        let most = self.places.of_an_endpoint;
        self.endpoints
            .get(key)
            .is_none_or(|lane| lane.may_send(now_ms, most) && lane.is_idle(now_ms))
    }

    /// The endpoint is not this worker's any more. What is under way goes on; its end is nobody's business here.
    pub fn remove(&mut self, key: &Key) {
        if let Some(lane) = self.endpoints.remove(key) {
            self.under_way -= lane.under_way.len();
            if let Some(turns) = self.apps.get_mut(&key.0) {
                turns.under_way -= lane.under_way.len();
                turns.endpoints.retain(|endpoint| *endpoint != key.1);
                if turns.endpoints.is_empty() {
                    self.apps.remove(&key.0);
                    self.turns.retain(|app| *app != key.0);
                }
            }
        }
    }

    /// Sends an endpoint nothing more, or goes on. What is under way is not called back.
    pub fn hold(&mut self, key: &Key, is_held: bool) {
        if let Some(lane) = self.endpoints.get_mut(key) {
            lane.is_held = is_held;
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.endpoints.keys()
    }

    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Endpoints for which nothing waits and nothing is under way, and has not been for a while.
    pub fn done(&self, now_ms: u64) -> impl Iterator<Item = &Key> {
        let is_done = move |lane: &Lane| lane.done_at_ms(self.linger).is_some_and(|at_ms| at_ms <= now_ms);
        let done = self.endpoints.iter().filter(move |(_, lane)| is_done(lane));
        done.map(|(key, _)| key)
    }

    /// Endpoints of which the store has more than is looked at, while there is room to look at more and use for it.
    pub fn wanting(&self, now_ms: u64) -> impl Iterator<Item = &Key> {
        let most = self.places.of_an_endpoint;
        let wants = move |lane: &Lane| {
            if lane.is_held || lane.breaker.opens_at_ms().is_some() {
                return lane.waiting.is_empty();
            }
            let has_room = lane.waiting.len() <= LOOKED_AT as usize / 2;
            has_room && lane.under_way.len() < most && lane.is_idle(now_ms)
        };
        self.endpoints
            .iter()
            .filter(move |(_, lane)| lane.has_more && wants(lane))
            .map(|(key, _)| key)
    }

    /// What to send now, if anything. It is under way until [`Lanes::finished`].
    pub fn next(&mut self, now_ms: u64) -> Option<Delivery> {
        if self.under_way >= self.places.all {
            return None;
        }
        // As if one more app came: it would find a place.
        let busy = self.apps.values().filter(|turns| turns.under_way > 0).count();
        for _ in 0..self.turns.len() {
            let app = self.turns.pop_front()?;
            self.turns.push_back(app.clone());
            let Some(turns) = self.apps.get_mut(&app) else {
                continue;
            };
            let others = busy - usize::from(turns.under_way > 0);
            if turns.under_way >= (self.places.all / (others + 2)).max(1) {
                continue;
            }
            for _ in 0..turns.endpoints.len() {
                let Some(endpoint) = turns.endpoints.pop_front() else {
                    break;
                };
                turns.endpoints.push_back(endpoint.clone());
                let Some(lane) = self.endpoints.get_mut(&(app.clone(), endpoint)) else {
                    continue;
                };
                let ready = lane.ready(now_ms, self.places.of_an_endpoint);
                if let Some(delivery) = ready.and_then(|seq| lane.waiting.get(&seq)).cloned() {
                    lane.under_way.insert(delivery.seq);
                    lane.breaker.sent(now_ms);
                    turns.under_way += 1;
                    self.under_way += 1;
                    return Some(delivery);
                }
            }
        }
        None
    }

    /// An attempt has ended: `retry_at_ms` if there is to be another. `is_ok`: the endpoint has taken it.
    pub fn finished(&mut self, key: &Key, seq: i64, is_ok: bool, retry_at_ms: Option<u64>, now_ms: u64) {
        let Some(lane) = self.endpoints.get_mut(key) else {
            return;
        };
        if !lane.under_way.remove(&seq) {
            return;
        }
        lane.ended_at_ms = now_ms;
        self.under_way -= 1;
        if let Some(turns) = self.apps.get_mut(&key.0) {
            turns.under_way -= 1;
        }
        match retry_at_ms {
            Some(at_ms) => {
                if let Some(delivery) = lane.waiting.get_mut(&seq) {
                    delivery.attempts += 1;
                    delivery.next_at_ms = at_ms;
                }
            }
            None => {
                lane.waiting.remove(&seq);
            }
        }
        if is_ok {
            lane.breaker.succeeded();
        } else {
            lane.breaker.failed(now_ms);
            lane.shrink();
        }
    }

    /// When something will be ready, or done, that is not now; nothing, if only an end or an offer can bring it.
    pub fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        let done_ms = |lane: &Lane| lane.done_at_ms(self.linger).filter(|at_ms| *at_ms > now_ms);
        let due_ms = |lane: &Lane| lane.next_due_ms(now_ms).or_else(|| done_ms(lane));
        self.endpoints.values().filter_map(due_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::delivery::{DeliveryId, State};

    const PLACES: Places = Places {
        all: 8,
        of_an_endpoint: 4,
    };

    fn key(app: &str, endpoint: &str) -> Key {
        (app.parse().unwrap(), EndpointId(endpoint.into()))
    }

    fn delivery(key: &Key, seq: i64, lanes: u64) -> Delivery {
        Delivery {
            seq,
            id: DeliveryId::new(),
            app: key.0.clone(),
            endpoint: key.1.clone(),
            source: Source::Events,
            created_at_ms: 0,
            lanes,
            events: 1,
            body: String::new(),
            state: State::Pending,
            attempts: 0,
            next_at_ms: 0,
            finished_at_ms: None,
        }
    }

    /// Deliveries 1, 2, … with these lanes.
    fn offer(lanes: &mut Lanes, key: &Key, all: &[u64]) {
        let deliveries = (1..).zip(all).map(|(seq, lanes)| delivery(key, seq, *lanes));
        let deliveries = deliveries.collect();
        lanes.offer(key, deliveries, LOOKED_AT);
    }

    fn all_ready(lanes: &mut Lanes, now_ms: u64) -> Vec<(String, i64)> {
        std::iter::from_fn(|| lanes.next(now_ms))
            .map(|delivery| (delivery.endpoint.to_string(), delivery.seq))
            .collect()
    }

    fn numbers(ready: &[(String, i64)]) -> Vec<i64> {
        ready.iter().map(|(_, seq)| *seq).collect()
    }

    #[test]
    fn deliveries_that_share_a_channel_go_one_after_the_other() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        // The third waits for the first and the second, the fourth for the third.
        offer(&mut lanes, &key, &[0b001, 0b010, 0b111, 0b100, 0b1000]);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1, 2, 5]);
        lanes.finished(&key, 1, true, None, 0);
        assert!(all_ready(&mut lanes, 0).is_empty());
        lanes.finished(&key, 2, true, None, 0);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [3]);
        lanes.finished(&key, 3, true, None, 0);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [4]);
        for seq in [4, 5] {
            lanes.finished(&key, seq, true, None, 0);
        }
        assert_eq!(lanes.done(0).count(), 1);
        assert_eq!(lanes.under_way(), 0);
    }

    #[test]
    fn one_that_is_tried_again_holds_back_its_channel_and_no_other() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[0b01, 0b01, 0b10]);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1, 3]);
        lanes.finished(&key, 1, false, Some(500), 0);
        lanes.finished(&key, 3, true, None, 0);
        assert!(all_ready(&mut lanes, 499).is_empty());
        assert_eq!(
            lanes.next_due_ms(100),
            Some(500),
            "the second is due, and has to wait"
        );
        assert_eq!(numbers(&all_ready(&mut lanes, 500)), [1]);
        lanes.finished(&key, 1, false, None, 500);
        assert_eq!(numbers(&all_ready(&mut lanes, 500)), [2], "given up");
    }

    #[test]
    fn sources_do_not_wait_for_each_other() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        let presence = Delivery {
            source: Source::Presence,
            ..delivery(&key, 2, 1)
        };
        lanes.offer(&key, vec![delivery(&key, 1, 1), presence], LOOKED_AT);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1, 2]);
    }

    #[test]
    fn an_app_never_takes_all_places() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        for endpoint in ["a", "b", "c", "d"] {
            offer(&mut lanes, &key("1", endpoint), &[1, 2, 4, 8]);
        }
        let first = all_ready(&mut lanes, 0);
        assert_eq!(first.len(), 4, "half of all: {first:?}");
        // Its endpoints take turns.
        let endpoints: HashSet<&str> = first.iter().map(|(endpoint, _)| endpoint.as_str()).collect();
        assert_eq!(endpoints.len(), 4);
        offer(&mut lanes, &key("2", "e"), &[1, 2, 4]);
        let second = all_ready(&mut lanes, 0);
        assert_eq!(numbers(&second), [1, 2], "a third of all: {second:?}");
        offer(&mut lanes, &key("3", "f"), &[1, 2, 4]);
        assert_eq!(
            numbers(&all_ready(&mut lanes, 0)),
            [1, 2],
            "there is room for one more"
        );
        assert_eq!(lanes.under_way(), 8);
    }

    #[test]
    fn an_endpoint_has_so_many_under_way_and_no_more() {
        let places = Places {
            all: 100,
            of_an_endpoint: 2,
        };
        let mut lanes = Lanes::new(places, Linger(0));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[1, 2, 4, 8]);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1, 2]);
        lanes.finished(&key, 2, true, None, 0);
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [3]);
    }

    #[test]
    fn an_endpoint_that_takes_nothing_is_asked_once_in_a_while() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[1, 2, 4, 8, 16, 32]);
        for _ in 0..5 {
            let seq = lanes.next(0).expect("it is not known to be broken").seq;
            lanes.finished(&key, seq, false, Some(0), 0);
        }
        assert!(all_ready(&mut lanes, 0).is_empty());
        let opens_ms = lanes.next_due_ms(0).expect("something waits");
        assert!(opens_ms > 0);
        assert_eq!(lanes.appetite(&key, opens_ms - 1), 1);
        let probe = all_ready(&mut lanes, opens_ms);
        assert_eq!(numbers(&probe), [1]);
        lanes.finished(&key, 1, true, None, opens_ms);
        assert_eq!(lanes.wanting(opens_ms).count(), 1, "the others are in the store");
        offer(&mut lanes, &key, &[1, 2, 4, 8, 16, 32]);
        assert_eq!(all_ready(&mut lanes, opens_ms).len(), 4);
    }

    #[test]
    fn after_its_break_an_endpoint_is_tried_with_what_is_due() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[1, 2, 4]);
        for round in 0..5 {
            let seq = lanes.next(round).expect("it is not known to be broken").seq;
            let retry_at_ms = if round < 4 { 0 } else { 1_000_000 };
            lanes.finished(&key, seq, false, Some(retry_at_ms), round);
        }
        lanes.there_is_more(&key);
        assert!(!lanes.is_idle(&key, 1_000), "nothing can be sent in its break");
        assert_eq!(lanes.wanting(1_000).count(), 0);
        let over_ms = 10_000;
        assert!(lanes.is_idle(&key, over_ms), "the first is not due");
        assert_eq!(lanes.appetite(&key, over_ms), LOOKED_AT);
        lanes.offer(&key, vec![delivery(&key, 9, 8)], LOOKED_AT);
        assert_eq!(numbers(&all_ready(&mut lanes, over_ms)), [9], "one at a time");
    }

    #[test]
    fn more_is_looked_at_when_there_is_nothing_else_to_send() {
        let places = Places {
            all: 8,
            of_an_endpoint: 2,
        };
        let mut lanes = Lanes::new(places, Linger(0));
        let key = key("1", "a");
        let wants = |lanes: &Lanes| lanes.wanting(0).count() == 1;
        offer(&mut lanes, &key, &[1, 2, 4]);
        lanes.there_is_more(&key);
        assert!(!wants(&lanes), "the first is to be sent");
        assert_eq!(all_ready(&mut lanes, 0).len(), 2);
        lanes.finished(&key, 1, true, None, 0);
        assert!(!wants(&lanes), "the third is to be sent");
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [3]);
        assert!(!wants(&lanes), "nothing more may be under way");
        lanes.finished(&key, 2, false, Some(1_000), 0);
        assert!(wants(&lanes), "one waits for its next attempt");
        lanes.offer(&key, Vec::new(), LOOKED_AT);
        assert!(!wants(&lanes), "the store has nothing more");
    }

    #[test]
    fn an_endpoint_that_has_nothing_left_is_kept_for_a_while() {
        let mut lanes = Lanes::new(PLACES, Linger(200));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[1]);
        let done = |lanes: &Lanes, now_ms| lanes.done(now_ms).count() == 1;
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1]);
        assert!(!done(&lanes, 1_000), "it is under way");
        lanes.finished(&key, 1, true, None, 1_000);
        assert!(!done(&lanes, 1_199) && done(&lanes, 1_200));
        assert_eq!(lanes.next_due_ms(1_000), Some(1_200));
        lanes.there_is_more(&key);
        assert!(!done(&lanes, 1_200), "something was stored");
    }

    #[test]
    fn what_is_replayed_is_sent_at_once_but_never_beside_itself() {
        let (mut lanes, key) = (Lanes::new(PLACES, Linger(0)), key("1", "a"));
        lanes.offer(&key, vec![delivery(&key, 2, 0b10)], LOOKED_AT);
        assert!(!lanes.is_idle(&key, 0));
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [2]);
        lanes.offer(&key, vec![delivery(&key, 2, 0b10)], LOOKED_AT);
        assert!(all_ready(&mut lanes, 0).is_empty());
        assert!(lanes.is_idle(&key, 0));
        lanes.finished(&key, 2, false, Some(1000), 0);
        assert!(lanes.is_idle(&key, 999) && !lanes.is_idle(&key, 1000));
        // Both were replayed, of which the first had been given up before.
        lanes.offer(
            &key,
            vec![delivery(&key, 1, 0b01), delivery(&key, 2, 0b10)],
            LOOKED_AT,
        );
        assert_eq!(numbers(&all_ready(&mut lanes, 0)), [1, 2]);
    }

    #[test]
    fn an_endpoint_that_is_held_keeps_what_waits() {
        let (mut lanes, key) = (Lanes::new(PLACES, Linger(0)), key("1", "a"));
        offer(&mut lanes, &key, &[1, 2]);
        assert!(lanes.next(0).is_some());
        lanes.hold(&key, true);
        lanes.finished(&key, 1, false, Some(500), 0);
        assert!(all_ready(&mut lanes, 500).is_empty());
        assert_eq!(lanes.next_due_ms(0), None);
        assert_eq!(lanes.done(500).count(), 0);
        lanes.hold(&key, false);
        assert_eq!(numbers(&all_ready(&mut lanes, 500)), [1, 2]);
    }

    #[test]
    fn what_is_not_ours_any_more_is_forgotten() {
        let mut lanes = Lanes::new(PLACES, Linger(0));
        let key = key("1", "a");
        offer(&mut lanes, &key, &[1, 2]);
        assert_eq!(all_ready(&mut lanes, 0).len(), 2);
        lanes.remove(&key);
        assert_eq!((lanes.under_way(), lanes.keys().count()), (0, 0));
        // Its ends come later, and are nobody's.
        lanes.finished(&key, 1, true, None, 0);
        assert_eq!(lanes.under_way(), 0);
    }
}
