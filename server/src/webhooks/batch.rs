//! Events that share a request. Told the time; does no work of its own.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use dunlin_protocol::names::AppId;

use super::delivery::{DeliveryId, EndpointId, NewDelivery, Source};
use super::endpoint::Endpoint;
use super::format;
use super::outbox::{Entry, PartitionNumber, Place};
use crate::storage::redis::names::Partition;

/// Bytes of events in one body. A larger event goes alone.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// A delivery, and which entries of the outbox it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub delivery: NewDelivery,
    /// Of each partition: from where to where.
    pub read: BTreeMap<PartitionNumber, Span>,
}

/// The first and the last of some entries of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: Place,
    pub last: Place,
}

/// Collects the events of each endpoint and source, in the order in which they are pushed. A batch ends when its window
/// does, or when it is full; a delivery never has events of two apps, endpoints or sources. One is open at a time for each,
/// so that what was read for a batch lies in front of what is read for the next.
///
/// Holds as much as it is given: its caller looks at [`Batcher::held`] and stops.
#[derive(Debug, Default)]
pub struct Batcher {
    open: HashMap<Key, Open>,
    /// The open ones by the ends of their windows, then by age.
    due: BTreeMap<Due, Key>,
    last: u64,
    /// Not taken yet.
    closed: Vec<Batch>,
    held: usize,
}

type Key = (AppId, EndpointId, Source);

/// When a window ends, and the number of its batch.
type Due = (u64, u64);

#[derive(Debug)]
struct Open {
    endpoint: Arc<Endpoint>,
    due: Due,
    /// Of encrypted channels only, or of others only. The official Go library tries to decrypt whatever is of an encrypted
    /// channel, even where there is nothing to decrypt, and drops the whole body when that fails.
    is_encrypted: bool,
    /// Written already, with commas between them.
    events: String,
    count: u32,
    lanes: u64,
    read: BTreeMap<PartitionNumber, Span>,
}

impl Batcher {
    /// Adds an event for an endpoint that wants it ([`Endpoint::source_of`]). Returns the entry's place if it is the first
    /// of its partition in its batch: as long as that batch is not stored, nothing from there on may be forgotten.
    pub fn push(
        &mut self,
        endpoint: &Arc<Endpoint>,
        source: Source,
        entry: &Entry,
        partition: PartitionNumber,
        now_ms: u64,
    ) -> Option<Place> {
        let event = format::event(source, &entry.channel, &entry.event, entry.happened_at_ms)?;
        let key = (endpoint.app.clone(), endpoint.id.clone(), source);
        let is_encrypted = source == Source::Events && entry.channel.kind().is_encrypted();
        let fits = |open: &Open| open.is_encrypted == is_encrypted && open.has_room_for(&event);
        if self.open.get(&key).is_some_and(|open| !fits(open)) {
            self.close(&key, now_ms);
        }
        let open = self.open.entry(key.clone()).or_insert_with(|| {
            self.last += 1;
            let due = (now_ms.saturating_add(endpoint.batch_ms), self.last);
            self.due.insert(due, key.clone());
            Open::new(endpoint, due, is_encrypted)
        });
        let is_first = open.add(&event, entry, partition);
        self.held += 1;
        if open.is_full() {
            self.close(&key, now_ms);
        }
        is_first.then_some(entry.place)
    }

    /// The batches that are complete: those of an endpoint and source in the order of their events.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<Batch> {
        self.take_until((now_ms, u64::MAX), now_ms)
    }

    /// All, whether their window is over or not.
    pub fn take_all(&mut self, now_ms: u64) -> Vec<Batch> {
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

    fn take_until(&mut self, last: Due, now_ms: u64) -> Vec<Batch> {
        while let Some((due, key)) = self.due.first_key_value()
            && *due <= last
        {
            let key = key.clone();
            self.close(&key, now_ms);
        }
        let taken = mem::take(&mut self.closed);
        self.held -= taken
            .iter()
            .map(|batch| batch.delivery.events as usize)
            .sum::<usize>();
        taken
    }

    fn close(&mut self, key: &Key, now_ms: u64) {
        let Some(open) = self.open.remove(key) else {
            return;
        };
        self.due.remove(&open.due);
        let (app, endpoint, source) = key.clone();
        let delivery = NewDelivery {
            id: DeliveryId::new(),
            app,
            endpoint,
            source,
            created_at_ms: now_ms,
            lanes: open.lanes,
            events: open.count,
            body: format::body(source, &open.endpoint.key, now_ms, &open.events),
        };
        self.closed.push(Batch {
            delivery,
            read: open.read,
        });
    }
}

impl Open {
    fn new(endpoint: &Arc<Endpoint>, due: Due, is_encrypted: bool) -> Self {
        Self {
            endpoint: Arc::clone(endpoint),
            due,
            is_encrypted,
            events: String::new(),
            count: 0,
            lanes: 0,
            read: BTreeMap::new(),
        }
    }

    /// Whether the entry is the first of its partition.
    fn add(&mut self, event: &str, entry: &Entry, partition: PartitionNumber) -> bool {
        if self.count > 0 {
            self.events.push(',');
        }
        self.events.push_str(event);
        self.count += 1;
        self.lanes |= lane(entry);
        let is_first = !self.read.contains_key(&partition);
        let span = self.read.entry(partition).or_insert(Span {
            first: entry.place,
            last: entry.place,
        });
        span.last = entry.place;
        is_first
    }

    fn has_room_for(&self, event: &str) -> bool {
        self.events.len() + event.len() < MAX_BATCH_BYTES
    }

    fn is_full(&self) -> bool {
        self.count as usize >= self.endpoint.batch_size || !self.has_room_for("")
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

    fn push(batcher: &mut Batcher, endpoint: &Arc<Endpoint>, source: Source, entry: &Entry, now_ms: u64) {
        batcher.push(endpoint, source, entry, 0, now_ms);
    }

    fn deliveries(batches: Vec<Batch>) -> Vec<NewDelivery> {
        batches.into_iter().map(|batch| batch.delivery).collect()
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
            push(&mut batcher, &endpoint, Source::Events, &entry(count), now_ms);
        }
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(6_000), 3));
        assert!(deliveries(batcher.take_due(5_999)).is_empty());
        let taken = deliveries(batcher.take_due(6_000));
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
            push(
                &mut batcher,
                &endpoint,
                Source::Events,
                &entry(count),
                u64::from(count),
            );
        }
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(0), 5));
        let taken = deliveries(batcher.take_due(5));
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1, 2], [3, 4]]);
        assert_eq!((batcher.next_due_ms(), batcher.held()), (Some(1_005), 1));
        assert_eq!(
            deliveries(batcher.take_all(6))
                .iter()
                .map(counts)
                .collect::<Vec<_>>(),
            [[5]]
        );
        assert_eq!(batcher.held(), 0);
    }

    #[test]
    fn without_batching_every_event_has_its_request() {
        let endpoint = endpoint("1", |section| section.batch_size = 1);
        let mut batcher = Batcher::default();
        for count in 1..=3 {
            push(&mut batcher, &endpoint, Source::Events, &entry(count), 7);
        }
        let taken = deliveries(batcher.take_due(7));
        assert_eq!(taken.iter().map(counts).collect::<Vec<_>>(), [[1], [2], [3]]);
        let ids: std::collections::HashSet<_> = taken.iter().map(|delivery| &delivery.id).collect();
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn a_window_of_nothing_still_joins_what_is_there_at_once() {
        let endpoint = endpoint("1", |section| section.batch = std::time::Duration::ZERO);
        let mut batcher = Batcher::default();
        for count in 1..=3 {
            push(&mut batcher, &endpoint, Source::Events, &entry(count), 7);
        }
        let taken = deliveries(batcher.take_due(7));
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
                push(&mut batcher, endpoint, Source::Events, &entry(count), 0);
            }
        }
        let bound = ChannelEvent::Bound { uuid: "u".into() };
        for event in [bound, ChannelEvent::Occupied] {
            let entry = Entry { event, ..entry(0) };
            push(&mut batcher, &yalgaar, Source::Presence, &entry, 0);
            push(&mut batcher, &yalgaar, Source::Message, &entry, 0);
        }
        let taken = deliveries(batcher.take_all(0));
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
            push(&mut batcher, &endpoint, Source::Events, &large(bytes), 0);
        }
        let taken = deliveries(batcher.take_all(0));
        assert_eq!(
            taken.iter().map(|delivery| delivery.events).collect::<Vec<_>>(),
            [2, 2, 1, 1]
        );
    }

    #[test]
    fn events_of_encrypted_channels_do_not_share_a_request_with_others() {
        let endpoint = endpoint("1", |_| {});
        let mut batcher = Batcher::default();
        for (channel, count) in [
            ("a", 1),
            ("b", 2),
            ("private-encrypted-a", 3),
            ("private-encrypted-b", 4),
            ("a", 5),
        ] {
            push(
                &mut batcher,
                &endpoint,
                Source::Events,
                &entry_in(channel, count),
                0,
            );
        }
        let taken: Vec<_> = deliveries(batcher.take_all(0)).iter().map(counts).collect();
        assert_eq!(taken, [vec![1, 2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn a_batch_says_what_it_was_made_of_and_a_first_entry_is_told() {
        let endpoint = endpoint("1", |section| section.batch_size = 4);
        let mut batcher = Batcher::default();
        let place = |number| Place { ms: 9, number };
        let mut begun = Vec::new();
        for (partition, number) in [(3, 1), (3, 2), (5, 1), (3, 4), (3, 5)] {
            let entry = Entry {
                place: place(number),
                ..entry(0)
            };
            begun.push(batcher.push(&endpoint, Source::Events, &entry, partition, 0));
        }
        assert_eq!(
            begun,
            [Some(place(1)), None, Some(place(1)), None, Some(place(5))]
        );
        let read: Vec<_> = batcher.take_all(0).into_iter().map(|batch| batch.read).collect();
        let span = |first, last| Span {
            first: place(first),
            last: place(last),
        };
        assert_eq!(
            read,
            [
                [(3, span(1, 4)), (5, span(1, 1))].into(),
                [(3, span(5, 5))].into()
            ]
        );
        let entry = Entry {
            event: ChannelEvent::Bound { uuid: "".into() },
            ..entry(0)
        };
        assert_eq!(batcher.push(&endpoint, Source::Events, &entry, 0, 0), None);
        assert_eq!(batcher.held(), 0, "what the format does not have is not held");
    }

    #[test]
    fn a_delivery_is_in_the_lanes_of_its_channels() {
        let endpoint = endpoint("1", |_| {});
        let lanes_of = |channels: &[&str]| {
            let mut batcher = Batcher::default();
            for channel in channels {
                push(&mut batcher, &endpoint, Source::Events, &entry_in(channel, 0), 0);
            }
            deliveries(batcher.take_all(0))[0].lanes
        };
        let (one, other) = (lanes_of(&["a", "a"]), lanes_of(&["b"]));
        assert_eq!((one.count_ones(), other.count_ones()), (1, 1));
        assert_eq!(lanes_of(&["a", "b"]), one | other);
        assert_eq!(lanes_of(&["presence-room"]).count_ones(), 1);
    }
}
