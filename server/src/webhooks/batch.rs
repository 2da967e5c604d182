//! Events that share a request. Told the time; does no work of its own.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use dunlin_protocol::names::AppId;

use super::delivery::{DeliveryId, EndpointId, NewDelivery, Source};
use super::endpoint::Endpoint;
use super::format;
use super::outbox::Entry;
use crate::storage::redis::names::Partition;

/// Bytes of events in one body. A larger event goes alone.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Collects the events of each endpoint and source, in the order in which they are pushed. A batch ends when its window
/// does, or when it is full; a delivery never has events of two apps, endpoints or sources.
///
/// Holds as much as it is given: its caller looks at [`Batcher::held`] and stops.
#[derive(Debug, Default)]
pub struct Batcher {
    open: HashMap<Key, Batch>,
    /// The open ones by the ends of their windows, then by age.
    due: BTreeMap<Due, Key>,
    last: u64,
    /// Closed and not taken.
    closed: Vec<NewDelivery>,
    held: usize,
}

type Key = (AppId, EndpointId, Source);

/// When a window ends, and the number of its batch.
type Due = (u64, u64);

#[derive(Debug)]
struct Batch {
    endpoint: Arc<Endpoint>,
    due: Due,
    /// Written already, with commas between them.
    events: String,
    count: u32,
    lanes: u64,
}

impl Batcher {
    /// Adds an event for an endpoint that wants it ([`Endpoint::source_of`]).
    pub fn push(&mut self, endpoint: &Arc<Endpoint>, source: Source, entry: &Entry, now_ms: u64) {
        let Some(event) = format::event(source, &entry.channel, &entry.event, entry.happened_at_ms) else {
            return;
        };
        let key = (endpoint.app.clone(), endpoint.id.clone(), source);
        let has_no_room =
            |batch: &Batch| batch.events.len() + event.len() >= MAX_BATCH_BYTES && batch.count > 0;
        if self.open.get(&key).is_some_and(has_no_room) {
            self.close(&key, now_ms);
        }
        let batch = self.open.entry(key.clone()).or_insert_with(|| {
            self.last += 1;
            let due = (now_ms.saturating_add(endpoint.batch_ms), self.last);
            self.due.insert(due, key.clone());
            Batch::new(endpoint, due)
        });
        batch.add(&event, lane(entry));
        self.held += 1;
        if batch.is_full() {
            self.close(&key, now_ms);
        }
    }

    /// The deliveries that are complete: those of an endpoint and source in the order of their events.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<NewDelivery> {
        self.take_until((now_ms, u64::MAX), now_ms)
    }

    /// All, whether their window is over or not.
    pub fn take_all(&mut self, now_ms: u64) -> Vec<NewDelivery> {
        self.take_until((u64::MAX, u64::MAX), now_ms)
    }

    /// When [`Batcher::take_due`] will have something; 0: now. `None`: nothing is held.
    pub fn next_due_ms(&self) -> Option<u64> {
        if !self.closed.is_empty() {
            return Some(0);
        }
        self.due.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    /// Events that were pushed and not taken.
    pub fn held(&self) -> usize {
        self.held
    }

    fn take_until(&mut self, last: Due, now_ms: u64) -> Vec<NewDelivery> {
        while let Some((due, key)) = self.due.first_key_value()
            && *due <= last
        {
            let key = key.clone();
            self.close(&key, now_ms);
        }
        self.held -= self
            .closed
            .iter()
            .map(|delivery| delivery.events as usize)
            .sum::<usize>();
        mem::take(&mut self.closed)
    }

    fn close(&mut self, key: &Key, now_ms: u64) {
        let Some(batch) = self.open.remove(key) else {
            return;
        };
        self.due.remove(&batch.due);
        let (app, endpoint, source) = key.clone();
        self.closed.push(NewDelivery {
            id: DeliveryId::new(),
            app,
            endpoint,
            source,
            created_at_ms: now_ms,
            lanes: batch.lanes,
            events: batch.count,
            body: format::body(source, &batch.endpoint.key, now_ms, &batch.events),
        });
    }
}

impl Batch {
    fn new(endpoint: &Arc<Endpoint>, due: Due) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            due,
            events: String::new(),
            count: 0,
            lanes: 0,
        }
    }

    fn add(&mut self, event: &str, lane: u64) {
        if self.count > 0 {
            self.events.push(',');
        }
        self.events.push_str(event);
        self.count += 1;
        self.lanes |= lane;
    }

    fn is_full(&self) -> bool {
        self.count as usize >= self.endpoint.batch_size || self.events.len() >= MAX_BATCH_BYTES
    }
}

/// The bit of a channel: the number of its partition, which every node and version computes alike.
fn lane(entry: &Entry) -> u64 {
    let partition = Partition::of(entry.app.as_str(), entry.channel.as_str());
    1 << (partition.number() % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AppSection, BodyFormat, EndpointSection};
    use crate::webhooks::egress::Guard;
    use crate::webhooks::event::ChannelEvent;
    use crate::webhooks::outbox::Place;

    fn endpoint(app: &str, edit: impl FnOnce(&mut EndpointSection)) -> Arc<Endpoint> {
        let app = AppSection {
            id: app.parse().unwrap(),
            ..AppSection::example()
        };
        let mut section = EndpointSection {
            url: "https://a.example/".to_owned(),
            ..EndpointSection::default()
        };
        edit(&mut section);
        Arc::new(Endpoint::new(&app, &section, &Guard::default()).expect("it is sound"))
    }

    fn entry_in(channel: &str, count: u32) -> Entry {
        Entry {
            place: Place::default(),
            app: "1".parse().unwrap(),
            channel: channel.parse().unwrap(),
            event: ChannelEvent::SubscriptionCount { count },
            happened_at_ms: 0,
        }
    }

    fn entry(count: u32) -> Entry {
        entry_in("a", count)
    }

    /// The counts in a body, which tell its events apart.
    fn counts(delivery: &NewDelivery) -> Vec<u64> {
        let body: serde_json::Value = serde_json::from_str(&delivery.body).expect("it is JSON");
        assert_eq!(body["time_ms"], delivery.created_at_ms);
        let events = body["events"].as_array().expect("a list").iter();
        let counts: Vec<u64> = events
            .map(|event| event["subscription_count"].as_u64().expect("a number"))
            .collect();
        assert_eq!(counts.len(), delivery.events as usize);
        counts
    }

    #[test]
    fn events_wait_for_their_window_and_share_a_request_in_order() {
        let endpoint = endpoint("1", |_| {});
        let mut batcher = Batcher::default();
        assert_eq!(batcher.next_due_ms(), None);
        for (count, now_ms) in [(1, 5_000), (2, 5_500), (3, 5_999)] {
            batcher.push(&endpoint, Source::Events, &entry(count), now_ms);
        }
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(6_000), 3));
        assert!(batcher.take_due(5_999).is_empty());
        let taken = batcher.take_due(6_000);
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1, 2, 3]]);
        assert_eq!(
            (taken[0].created_at_ms, &taken[0].app, &taken[0].endpoint),
            (6_000, &endpoint.app, &endpoint.id)
        );
        assert_eq!((batcher.next_due_ms(), batcher.held()), (None, 0));
    }

    #[test]
    fn a_full_batch_does_not_wait_and_the_next_one_has_a_window_of_its_own() {
        let endpoint = endpoint("1", |section| section.batch_size = 2);
        let mut batcher = Batcher::default();
        for count in 1..=5 {
            batcher.push(&endpoint, Source::Events, &entry(count), u64::from(count));
        }
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(0), 5));
        let taken = batcher.take_due(5);
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1, 2], [3, 4]]);
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(1_005), 1));
        assert_eq!(batcher.take_all(6).iter().map(counts).collect::<Vec<_>>(), [[5]]);
        assert_eq!(batcher.held(), 0);
    }

    #[test]
    fn without_batching_every_event_has_its_request() {
        let endpoint = endpoint("1", |section| section.batch_size = 1);
        let mut batcher = Batcher::default();
        for count in 1..=3 {
            batcher.push(&endpoint, Source::Events, &entry(count), 7);
        }
        let taken = batcher.take_due(7);
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1], [2], [3]]);
        let ids: std::collections::HashSet<_> = taken.iter().map(|delivery| &delivery.id).collect();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn a_window_of_nothing_still_joins_what_is_there_at_once() {
        let endpoint = endpoint("1", |section| section.batch = std::time::Duration::ZERO);
        let mut batcher = Batcher::default();
        for count in 1..=3 {
            batcher.push(&endpoint, Source::Events, &entry(count), 7);
        }
        let taken = batcher.take_due(7);
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1, 2, 3]]);
    }

    #[test]
    fn apps_endpoints_and_sources_have_requests_of_their_own() {
        let yalgaar = endpoint("1", |section| {
            section.format = BodyFormat::Yalgaar;
            section.presence_url = mem::take(&mut section.url);
            section.message_url = section.presence_url.clone();
        });
        let others = [
            endpoint("1", |_| {}),
            endpoint("1", |section| section.id = "other".to_owned()),
            endpoint("2", |section| section.id = "other".to_owned()),
        ];
        let mut batcher = Batcher::default();
        for count in 1..=2 {
            for endpoint in &others {
                batcher.push(endpoint, Source::Events, &entry(count), 0);
            }
        }
        let bound = ChannelEvent::Bound { uuid: "u".into() };
        for event in [bound, ChannelEvent::Occupied] {
            let entry = Entry { event, ..entry(0) };
            batcher.push(&yalgaar, Source::Presence, &entry, 0);
            batcher.push(&yalgaar, Source::Message, &entry, 0);
        }
        let taken = batcher.take_all(0);
        let of = |delivery: &NewDelivery| {
            (
                delivery.app.to_string(),
                delivery.endpoint.to_string(),
                delivery.source,
            )
        };
        let expected: Vec<_> = others
            .iter()
            .map(|endpoint| (endpoint.app.to_string(), endpoint.id.to_string(), Source::Events))
            .chain([("1".to_owned(), yalgaar.id.to_string(), Source::Presence)])
            .collect();
        assert_eq!(taken.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(
            taken.iter().map(|delivery| delivery.events).collect::<Vec<_>>(),
            [2, 2, 2, 1]
        );
    }

    #[test]
    fn a_body_has_a_bound_and_an_event_beyond_it_goes_alone() {
        let endpoint = endpoint("1", |_| {});
        let large = |bytes: usize| {
            let published = crate::webhooks::event::PublishedEvent {
                name: "client-a".into(),
                data: "x".repeat(bytes).into(),
                socket_id: Some("1.2".parse().unwrap()),
                user_id: None,
                uuid: "".into(),
            };
            Entry {
                event: ChannelEvent::Published(Arc::new(published)),
                ..entry(0)
            }
        };
        let mut batcher = Batcher::default();
        for bytes in [10, 300_000, 300_000, 10, 600_000, 10] {
            batcher.push(&endpoint, Source::Events, &large(bytes), 0);
        }
        let taken = batcher.take_all(0);
        assert_eq!(
            taken.iter().map(|delivery| delivery.events).collect::<Vec<_>>(),
            [2, 2, 1, 1]
        );
    }

    #[test]
    fn a_delivery_is_in_the_lanes_of_its_channels() {
        let endpoint = endpoint("1", |_| {});
        let lanes_of = |channels: &[&str]| {
            let mut batcher = Batcher::default();
            for channel in channels {
                batcher.push(&endpoint, Source::Events, &entry_in(channel, 0), 0);
            }
            batcher.take_all(0)[0].lanes
        };
        let (one, other) = (lanes_of(&["a", "a"]), lanes_of(&["b"]));
        assert_eq!((one.count_ones(), other.count_ones()), (1, 1));
        assert_eq!(lanes_of(&["a", "b"]), one | other);
        assert_eq!(lanes_of(&["presence-room"]).count_ones(), 1);
    }
}
