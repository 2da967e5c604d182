//! Every publish that was answered with 200 reaches everybody: once, and in order per channel and publisher.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use dunlin_load::Target;
use dunlin_load::ledger::Ledger;
use tokio::task::JoinSet;

use super::Context;
use crate::client::http::Api;
use crate::client::subscriber::{Subscriber, Visitor, seated};
use crate::report::Report;
use crate::stage::Stage;
use crate::wait::until;

const MESSAGES: u32 = 100_000;
const SUBSCRIBERS: usize = 100;
const CHANNELS: [&str; 4] = ["delivery-1", "delivery-2", "delivery-3", "delivery-4"];
/// Connections, dealt out over the nodes; each awaits every answer before it goes on.
const PUBLISHERS: usize = 8;
/// Messages that not everybody has yet. More would only show how a server drops readers that are too slow.
const WINDOW: u64 = 500;
const ARRIVAL: Duration = Duration::from_secs(10);

pub(super) async fn play(context: &Context) -> Result<Report> {
    let stage = Stage::start(&context.binary, &context.dir, &context.nodes()).await?;
    let target = Rc::new(stage.target());
    let addresses = stage.addresses();
    let subscribers: Rc<[Subscriber]> = (0..SUBSCRIBERS)
        .map(|number| {
            let visitor = Visitor::at(addresses[number % addresses.len()]);
            CHANNELS
                .iter()
                .fold(visitor, |visitor, name| visitor.on(name))
                .start(&target)
        })
        .collect();
    seated(&subscribers).await?;

    let mut ledger = Ledger::new(CHANNELS.len());
    for _ in 0..SUBSCRIBERS {
        for channel in 0..CHANNELS.len() {
            ledger.subscribe(u32::try_from(channel)?);
        }
    }
    let course = Rc::new(Course {
        target: Rc::clone(&target),
        subscribers: Rc::clone(&subscribers),
        book: RefCell::new(Book {
            ledger,
            refused: Vec::new(),
        }),
        until: Instant::now() + context.time(600),
    });
    let begin = Instant::now();
    let mut publishers = JoinSet::new();
    for number in 0..PUBLISHERS {
        let address = addresses[number % addresses.len()];
        publishers.spawn_local(Rc::clone(&course).publish(number, Api::new(&target, address)));
    }
    publishers.join_all().await;
    let published = course.book.borrow().ledger.next_sequence();
    let seconds = begin.elapsed().as_secs_f64();
    until(ARRIVAL, || course.slowest() >= u64::from(published)).await;

    let mut report = Report::default();
    let Book { ledger, refused } = &mut *course.book.borrow_mut();
    for (number, subscriber) in subscribers.iter().enumerate() {
        for (channel, name) in CHANNELS.iter().enumerate() {
            for sequence in subscriber.channel(name).sequences() {
                ledger.deliver(number * CHANNELS.len() + channel, sequence);
            }
        }
    }
    if context.seconds.is_none() {
        report.equal("messages", MESSAGES, published);
    }
    report.none("publishes that were not answered with 200", refused.len());
    report.none("deliveries that never came", usize::try_from(ledger.missing())?);
    report.none(
        "deliveries that came twice",
        usize::try_from(ledger.duplicated())?,
    );
    report.none(
        "deliveries in another order than that of the publisher, or of the other subscribers",
        usize::try_from(ledger.misordered())?,
    );
    let ends: usize = subscribers.iter().map(|one| one.record().ends.len()).sum();
    report.none("connections that ended", ends);
    report.none("panics", stage.panics());
    report.figure("nodes", addresses.len());
    report.figure(
        "messages a second",
        format!("{:.0}", f64::from(published) / seconds),
    );
    report.figure("deliveries", ledger.delivered());
    for refusal in refused.iter().take(3) {
        report.detail(refusal.clone());
    }
    Ok(report)
}

struct Course {
    target: Rc<Target>,
    subscribers: Rc<[Subscriber]>,
    book: RefCell<Book>,
    until: Instant,
}

struct Book {
    ledger: Ledger,
    /// Answers other than 200.
    refused: Vec<String>,
}

impl Course {
    async fn publish(self: Rc<Self>, publisher: usize, mut api: Api) {
        // Publishers of one node begin at different channels, so that every channel has several at a time.
        for turn in publisher / self.target.nodes.len().. {
            let published = u64::from(self.book.borrow().ledger.next_sequence());
            if published >= u64::from(MESSAGES) || Instant::now() > self.until {
                return;
            }
            if published > self.slowest() + WINDOW
                && until(ARRIVAL, || published <= self.slowest() + WINDOW)
                    .await
                    .is_none()
            {
                // Somebody gets no more: the ledger will tell.
                return;
            }
            let channel = turn % CHANNELS.len();
            let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
            let sequence = self
                .book
                .borrow_mut()
                .ledger
                .publish(number(channel), number(publisher));
            let refusal = match api.publish(CHANNELS[channel], sequence).await {
                Ok(answer) if answer.status == 200 => continue,
                Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(error) => format!("{error:#}"),
            };
            self.book.borrow_mut().refused.push(refusal);
        }
    }

    /// How many messages every subscriber has.
    fn slowest(&self) -> u64 {
        let has = |subscriber: &Subscriber| -> u64 {
            let record = subscriber.record();
            record
                .channels
                .values()
                .map(|channel| channel.log.len() as u64)
                .sum()
        };
        self.subscribers.iter().map(has).min().unwrap_or(0)
    }
}
