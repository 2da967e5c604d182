//! Who has received what: finds lost, duplicated and misordered messages.
//!
//! With several publishers at once nobody can say beforehand which of two messages comes first, so the first
//! subscriber to receive a message fixes its place in its channel, and every other subscriber must see the same order.
//! That order itself must keep the order of each publisher.
//!
//! Beside a loss the count of misordered messages may be too high: when the subscriber that missed a message is the
//! first to be read, the message finds its place behind its successors. Without losses the counts are exact.

use std::collections::HashMap;

const NOT_PLACED: u32 = u32::MAX;

#[derive(Debug)]
struct Message {
    channel: u32,
    publisher: u32,
    /// Place in the channel's order.
    place: u32,
    /// Subscribers that have not received it yet.
    remaining: u32,
}

#[derive(Debug)]
struct Subscriber {
    channel: u32,
    /// The place that is expected next.
    next: u32,
    /// Places jumped over; empty as long as the server is right.
    skipped: Vec<u32>,
}

#[derive(Debug, Default)]
struct Channel {
    order: Vec<u32>,
    subscribers: u32,
}

/// The book of one run. Sequence numbers count from 0 over all channels.
#[derive(Debug, Default)]
pub struct Ledger {
    channels: Vec<Channel>,
    subscribers: Vec<Subscriber>,
    messages: Vec<Message>,
    last_of_publisher: HashMap<(u32, u32), u32>,
    unfinished: usize,
    delivered: u64,
    duplicated: u64,
    misordered: u64,
    unknown: u64,
}

impl Ledger {
    pub fn new(channels: usize) -> Self {
        Self {
            channels: (0..channels).map(|_| Channel::default()).collect(),
            ..Self::default()
        }
    }

    /// Adds a subscriber of `channel` and returns its number. Every subscriber joins before the first message.
    pub fn subscribe(&mut self, channel: u32) -> usize {
        self.channels[channel as usize].subscribers += 1;
        self.subscribers.push(Subscriber {
            channel,
            next: 0,
            skipped: Vec::new(),
        });
        self.subscribers.len() - 1
    }

    /// Enters a message about to be sent and returns its sequence number.
    pub fn publish(&mut self, channel: u32, publisher: u32) -> u32 {
        let remaining = self.channels[channel as usize].subscribers;
        self.messages.push(Message {
            channel,
            publisher,
            place: NOT_PLACED,
            remaining,
        });
        self.unfinished += usize::from(remaining > 0);
        u32::try_from(self.messages.len() - 1).unwrap_or(NOT_PLACED)
    }

    /// The sequence number that the next message gets.
    pub fn next_sequence(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(NOT_PLACED)
    }

    /// Enters a delivery.
    pub fn deliver(&mut self, subscriber: usize, sequence: u32) {
        let reader = &mut self.subscribers[subscriber];
        let Some(message) = self
            .messages
            .get_mut(sequence as usize)
            .filter(|it| it.channel == reader.channel)
        else {
            self.unknown += 1;
            return;
        };
        if message.place == NOT_PLACED {
            let channel = &mut self.channels[message.channel as usize];
            message.place = u32::try_from(channel.order.len()).unwrap_or(NOT_PLACED);
            channel.order.push(sequence);
            let last = self
                .last_of_publisher
                .entry((message.channel, message.publisher))
                .or_insert(sequence);
            if *last > sequence {
                self.misordered += 1;
            }
            *last = sequence;
        }
        if message.place < reader.next {
            let Some(at) = reader.skipped.iter().position(|place| *place == message.place) else {
                self.duplicated += 1;
                return;
            };
            reader.skipped.swap_remove(at);
            self.misordered += 1;
        } else {
            reader.skipped.extend(reader.next..message.place);
            reader.next = message.place + 1;
        }
        self.delivered += 1;
        message.remaining -= 1;
        self.unfinished -= usize::from(message.remaining == 0);
    }

    /// Messages that somebody still waits for.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Deliveries so far, each counted once.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Deliveries that have not happened. A loss, once everything had its time to arrive.
    pub fn missing(&self) -> u64 {
        self.messages
            .iter()
            .map(|message| u64::from(message.remaining))
            .sum()
    }

    pub fn duplicated(&self) -> u64 {
        self.duplicated
    }

    pub fn misordered(&self) -> u64 {
        self.misordered
    }

    /// Deliveries of a message that was never sent to that channel.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_channel(subscribers: usize) -> Ledger {
        let mut ledger = Ledger::new(1);
        for _ in 0..subscribers {
            ledger.subscribe(0);
        }
        ledger
    }

    fn findings(ledger: &Ledger) -> (u64, u64, u64) {
        (ledger.missing(), ledger.duplicated(), ledger.misordered())
    }

    #[test]
    fn any_order_is_right_as_long_as_all_subscribers_share_it() {
        let mut ledger = one_channel(2);
        let (first, second) = (ledger.publish(0, 0), ledger.publish(0, 1));
        for subscriber in 0..2 {
            ledger.deliver(subscriber, second);
            ledger.deliver(subscriber, first);
        }
        assert_eq!(findings(&ledger), (0, 0, 0));
        assert_eq!((ledger.unfinished(), ledger.delivered()), (0, 4));
    }

    #[test]
    fn a_subscriber_that_sees_another_order_is_misordered_once_and_loses_nothing() {
        let mut ledger = one_channel(2);
        let (first, second) = (ledger.publish(0, 0), ledger.publish(0, 1));
        ledger.deliver(0, first);
        ledger.deliver(0, second);
        ledger.deliver(1, second);
        ledger.deliver(1, first);
        assert_eq!(findings(&ledger), (0, 0, 1));
    }

    #[test]
    fn an_order_against_the_publisher_is_misordered_even_when_shared() {
        let mut ledger = one_channel(1);
        let (first, second) = (ledger.publish(0, 7), ledger.publish(0, 7));
        ledger.deliver(0, second);
        ledger.deliver(0, first);
        assert_eq!(findings(&ledger), (0, 0, 1));
    }

    #[test]
    fn a_gap_is_a_loss_and_a_repeat_a_duplicate() {
        let mut ledger = one_channel(2);
        let (first, second) = (ledger.publish(0, 0), ledger.publish(0, 0));
        ledger.deliver(0, first);
        ledger.deliver(0, second);
        ledger.deliver(1, second);
        ledger.deliver(1, second);
        assert_eq!(findings(&ledger), (1, 1, 0));
        assert_eq!(ledger.unfinished(), 1);
    }

    #[test]
    fn a_message_of_another_channel_or_never_sent_is_unknown() {
        let mut ledger = Ledger::new(2);
        let reader = ledger.subscribe(0);
        let elsewhere = ledger.publish(1, 0);
        ledger.deliver(reader, elsewhere);
        ledger.deliver(reader, 99);
        assert_eq!(ledger.unknown(), 2);
        assert_eq!(ledger.unfinished(), 0, "nobody is subscribed to channel 1");
    }
}
