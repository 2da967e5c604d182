//! Publishes at a fixed rate, whatever the servers do, with a book of every answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dunlin_load::Target;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::http::Api;
use crate::report;

/// Requests under way at most: five seconds' worth of any rate that is used here. Past it, publishing waits.
const IN_FLIGHT: usize = 2_500;

/// What became of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sequence: u32,
    /// Index into the addresses.
    pub(crate) node: usize,
    /// Index into the channels.
    pub(crate) channel: usize,
    pub(crate) verdict: Verdict,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// 503 that says when to try again.
    TryLater,
    /// Any other answer.
    Status(u16),
    NoAnswer,
}

impl Outcome {
    pub(crate) fn is_accepted(&self) -> bool {
        self.verdict == Verdict::Accepted
    }

    pub(crate) fn took(&self) -> Duration {
        self.answered - self.sent
    }
}

/// Publishing, until it is asked to end.
#[derive(Debug)]
pub(crate) struct Load {
    outcomes: Rc<RefCell<Vec<Outcome>>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Publishes `rate` events a second, in turn to the addresses and, on each, to the channels.
    pub(crate) fn start(target: &Rc<Target>, addresses: &[SocketAddr], channels: &[&str], rate: u32) -> Self {
        let outcomes = Rc::new(RefCell::new(Vec::new()));
        let stop = CancellationToken::new();
        let course = Course {
            target: Rc::clone(target),
            addresses: addresses.to_vec(),
            channels: channels.iter().map(|name| Rc::from(*name)).collect(),
            outcomes: Rc::clone(&outcomes),
            stop: stop.clone(),
        };
        Self {
            outcomes,
            stop,
            task: spawn_local(course.run(rate)),
        }
    }

    /// Sends no more, waits for every answer, and returns the book in the order of the sequence.
    pub(crate) async fn stop(self) -> Vec<Outcome> {
        self.stop.cancel();
        drop(self.task.await);
        let mut outcomes = std::mem::take(&mut *self.outcomes.borrow_mut());
        outcomes.sort_unstable_by_key(|outcome| outcome.sequence);
        outcomes
    }
}

struct Course {
    target: Rc<Target>,
    addresses: Vec<SocketAddr>,
    channels: Vec<Rc<str>>,
    outcomes: Rc<RefCell<Vec<Outcome>>>,
    stop: CancellationToken,
}

impl Course {
    async fn run(self, rate: u32) {
        let mut turn = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let idle: Rc<RefCell<Vec<Vec<Api>>>> = Rc::new(RefCell::new(Vec::new()));
        idle.borrow_mut().resize_with(self.addresses.len(), Vec::new);
        let mut flying = JoinSet::new();
        for sequence in 0_u32.. {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = turn.tick() => {}
            }
            while flying.try_join_next().is_some() {}
            if flying.len() >= IN_FLIGHT {
                flying.join_next().await;
            }
            let number = usize::try_from(sequence).unwrap_or(0);
            let node = number % self.addresses.len();
            let channel = number / self.addresses.len() % self.channels.len();
            let kept = idle.borrow_mut()[node].pop();
            let mut api = kept.unwrap_or_else(|| Api::new(&self.target, self.addresses[node]));
            let (name, outcomes, idle) = (
                Rc::clone(&self.channels[channel]),
                Rc::clone(&self.outcomes),
                Rc::clone(&idle),
            );
            flying.spawn_local(async move {
                let sent = Instant::now();
                let answer = api.publish(&name, sequence).await;
                let verdict = match &answer {
                    Ok(answer) if answer.status == 200 => Verdict::Accepted,
                    Ok(answer) if answer.status == 503 && answer.has_retry_after => Verdict::TryLater,
                    Ok(answer) => Verdict::Status(answer.status),
                    Err(_) => Verdict::NoAnswer,
                };
                outcomes.borrow_mut().push(Outcome {
                    sequence,
                    node,
                    channel,
                    verdict,
                    sent,
                    answered: Instant::now(),
                });
                idle.borrow_mut()[node].push(api);
            });
        }
        flying.join_all().await;
    }
}

/// How often each verdict was given, for people.
pub(crate) fn tally(outcomes: &[Outcome]) -> String {
    report::tally(outcomes.iter().map(|outcome| match outcome.verdict {
        Verdict::Accepted => "200".to_owned(),
        Verdict::TryLater => "503 with Retry-After".to_owned(),
        Verdict::Status(status) => status.to_string(),
        Verdict::NoAnswer => "no answer".to_owned(),
    }))
}
