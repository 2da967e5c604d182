//! When a delivery is tried again, and when it is given up. Told the time and the dice; knows neither itself.

use std::time::Duration;

use super::store::Next;
use crate::clock::millis;
use crate::config::WebhooksSection;

/// Pusher's own schedule, in seconds: about four minutes of pauses.
const SHORT_PAUSES_S: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 60, 60, 60];

/// No attempt begins later than this after the body was made: the official Python library refuses older ones, and no
/// attempt makes them younger.
const SHORT_HORIZON: Duration = Duration::from_mins(5);

/// The longest that a receiver can put us off.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A pause is varied by so much of itself, up or down, lest all that failed together comes back together.
const JITTER: f64 = 0.2;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has taken it: any 2xx.
    Taken,
    /// Anything else, a redirect and no answer included; with the wait that the answer asked for.
    Failed { retry_after: Option<Duration> },
    /// 410: there is no such endpoint any more. It is to be disabled, since all else that waits for it would end so, too.
    Gone,
}

impl Verdict {
    /// Of an answer: its status, and its `Retry-After`.
    pub fn of(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Taken,
            410 => Self::Gone,
            _ => Self::Failed { retry_after },
        }
    }
}

/// The two schedules that an endpoint can choose from.
#[derive(Clone, Debug)]
pub struct Schedules {
    long: Schedule,
    short: Schedule,
}

impl Schedules {
    pub fn new(section: &WebhooksSection) -> Self {
        Self {
            long: Schedule::long(section),
            short: Schedule::short(),
        }
    }

    /// As an endpoint's `short_retries` says.
    pub fn of(&self, is_short: bool) -> &Schedule {
        if is_short { &self.short } else { &self.long }
    }
}

/// The pauses between the attempts of a delivery.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Before each attempt, the first included; as many attempts as pauses.
    pauses: Vec<Duration>,
    /// Since the body was made.
    horizon: Option<Duration>,
}

impl Schedule {
    /// That of the configuration: hours and days.
    pub fn long(section: &WebhooksSection) -> Self {
        Self {
            pauses: section.retry_schedule.clone(),
            horizon: None,
        }
    }

    /// Five minutes, for receivers that refuse what is older.
    pub fn short() -> Self {
        Self {
            pauses: SHORT_PAUSES_S.map(Duration::from_secs).into(),
            horizon: Some(SHORT_HORIZON),
        }
    }

    /// When the first attempt is due, in Unix milliseconds.
    pub fn first(&self, created_at_ms: u64) -> u64 {
        created_at_ms.saturating_add(self.pauses.first().map_or(0, |pause| millis(*pause)))
    }

    /// What follows on an attempt.
    ///
    /// `attempts` have been made of this delivery, the one that is judged included. `random` is at least 0 and below 1. A
    /// `Retry-After` only ever makes the pause longer: an answer must not be able to make us send faster.
    pub fn next(
        &self,
        verdict: Verdict,
        attempts: u32,
        created_at_ms: u64,
        finished_at_ms: u64,
        random: f64,
    ) -> Next {
        let retry_after = match verdict {
            Verdict::Taken => return Next::Done,
            Verdict::Gone => return Next::Dead,
            Verdict::Failed { retry_after } => retry_after.unwrap_or_default(),
        };
        let made = usize::try_from(attempts).unwrap_or(usize::MAX);
        let Some(pause) = self.pauses.get(made) else {
            return Next::Dead;
        };
        let varied = pause.mul_f64(1.0 + JITTER * (2.0 * random - 1.0));
        let pause = varied.max(retry_after.min(MAX_RETRY_AFTER));
        let at_ms = finished_at_ms.saturating_add(millis(pause));
        let is_too_late = self
            .horizon
            .is_some_and(|horizon| at_ms > created_at_ms.saturating_add(millis(horizon)));
        if is_too_late {
            Next::Dead
        } else {
            Next::Retry { at_ms }
        }
    }
}

/// So many failures in a row, of whatever deliveries, close an endpoint off for a while.
const FAILURES: u32 = 5;
const FIRST_BREAK_MS: u64 = 5_000;
const LONGEST_BREAK_MS: u64 = 5 * 60_000;

/// Keeps an endpoint that takes nothing from being knocked at by everything that waits for it. After five failures in a
/// row nothing is sent for 5 s; then one delivery, on whose success all goes on, and on whose failure the break doubles, up
/// to 5 min. Attempts are not used up by a break: what waits is only sent later.
#[derive(Clone, Copy, Debug)]
pub struct Breaker(State);

#[derive(Clone, Copy, Debug)]
enum State {
    Passing {
        failures: u32,
    },
    Broken {
        until_ms: u64,
        pause_ms: u64,
        is_probing: bool,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Passing { failures: 0 })
    }
}

impl Breaker {
    /// Whether something may be sent now, while so many requests to the endpoint are under way. After a break that is
    /// one at a time.
    pub fn may_send(&self, now_ms: u64, under_way: usize) -> bool {
        match self.0 {
            State::Passing { .. } => true,
            State::Broken { until_ms, .. } => now_ms >= until_ms && under_way == 0,
        }
    }

    /// The end of the break, if there is one.
    pub fn opens_at_ms(&self) -> Option<u64> {
        match self.0 {
            State::Passing { .. } => None,
            State::Broken { until_ms, .. } => Some(until_ms),
        }
    }

    /// Something that [`Breaker::may_send`] allowed is under way.
    pub fn sent(&mut self, now_ms: u64) {
        if let State::Broken {
            until_ms, is_probing, ..
        } = &mut self.0
        {
            *is_probing = now_ms >= *until_ms;
        }
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now_ms: u64) {
        let pause_ms = match self.0 {
            State::Passing { failures } if failures + 1 < FAILURES => {
                self.0 = State::Passing {
                    failures: failures + 1,
                };
                return;
            }
            State::Passing { .. } => FIRST_BREAK_MS,
            State::Broken {
                pause_ms,
                is_probing: true,
                ..
            } => (pause_ms * 2).min(LONGEST_BREAK_MS),
            // It was under way when the break began, and says nothing new.
            State::Broken {
                is_probing: false, ..
            } => return,
        };
        self.0 = State::Broken {
            until_ms: now_ms.saturating_add(pause_ms),
            pause_ms,
            is_probing: false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;
    const FAILED: Verdict = Verdict::Failed { retry_after: None };

    fn failed_for(seconds: u64) -> Verdict {
        Verdict::Failed {
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        let wait = Some(Duration::from_secs(7));
        for status in [200, 201, 202, 204, 206, 226, 299] {
            assert_eq!(Verdict::of(status, wait), Verdict::Taken, "{status}");
        }
        for status in [
            100, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 408, 409, 429, 500, 503, 599,
        ] {
            assert_eq!(Verdict::of(status, None), FAILED, "{status}");
            assert_eq!(Verdict::of(status, wait), failed_for(7), "{status}");
        }
        assert_eq!(Verdict::of(410, wait), Verdict::Gone);
    }

    #[test]
    fn the_default_schedule_is_the_documented_one_and_then_it_is_over() {
        let schedule = Schedule::long(&WebhooksSection::example());
        assert_eq!(schedule.first(7), 7);
        let minute = 60_000;
        let pauses = [
            5_000,
            30_000,
            2 * minute,
            10 * minute,
            30 * minute,
            120 * minute,
            300 * minute,
            600 * minute,
            600 * minute,
        ];
        for (attempts, pause_ms) in (1..).zip(pauses) {
            for (random, factor) in [(0.0, 80), (0.25, 90), (MIDDLE, 100), (0.75, 110)] {
                let next = schedule.next(FAILED, attempts, 0, 1_000_000, random);
                let at_ms = 1_000_000 + pause_ms * factor / 100;
                assert_eq!(next, Next::Retry { at_ms }, "{attempts} {random}");
            }
        }
        assert_eq!(schedule.next(FAILED, 10, 0, 0, MIDDLE), Next::Dead);
        assert_eq!(schedule.next(failed_for(9), 10, 0, 0, MIDDLE), Next::Dead);
        assert_eq!(schedule.next(FAILED, u32::MAX, 0, u64::MAX, MIDDLE), Next::Dead);
        assert_eq!(
            schedule.next(FAILED, 1, 0, u64::MAX, MIDDLE),
            Next::Retry { at_ms: u64::MAX }
        );
    }

    #[test]
    fn success_ends_it_and_so_does_gone() {
        let schedule = Schedule::short();
        assert_eq!(schedule.next(Verdict::Taken, 1, 0, 0, MIDDLE), Next::Done);
        assert_eq!(schedule.next(Verdict::Taken, 99, 0, u64::MAX, MIDDLE), Next::Done);
        assert_eq!(schedule.next(Verdict::Gone, 1, 0, 0, MIDDLE), Next::Dead);
    }

    #[test]
    fn a_receiver_can_ask_for_more_time_but_not_for_less_nor_for_ever() {
        let schedule = Schedule::long(&WebhooksSection::example());
        for (attempts, asked_s, waits_s) in [
            (1, 0, 5),
            (1, 4, 5),
            (1, 60, 60),
            (4, 60, 600),
            (1, 86_400, 86_400),
            (1, 86_401, 86_400),
            (1, u64::MAX, 86_400),
        ] {
            let next = schedule.next(failed_for(asked_s), attempts, 0, 0, MIDDLE);
            assert_eq!(
                next,
                Next::Retry {
                    at_ms: waits_s * 1000
                },
                "{attempts} {asked_s}"
            );
        }
    }

    #[test]
    fn the_short_schedule_ends_within_five_minutes() {
        let schedule = Schedule::short();
        for random in [0.0, MIDDLE, 0.999] {
            let (mut now_ms, mut attempts) = (schedule.first(0), 1);
            while let Next::Retry { at_ms } = schedule.next(FAILED, attempts, 0, now_ms, random) {
                (now_ms, attempts) = (at_ms, attempts + 1);
            }
            assert!(now_ms <= 300_000, "{now_ms}");
            assert!(attempts >= 9, "{attempts}");
        }
        assert_eq!(
            schedule.next(FAILED, 1, 0, 299_000, MIDDLE),
            Next::Retry { at_ms: 300_000 }
        );
        assert_eq!(schedule.next(FAILED, 1, 0, 299_001, MIDDLE), Next::Dead);
        assert_eq!(schedule.next(failed_for(301), 1, 0, 0, MIDDLE), Next::Dead);
    }

    /// A breaker that has just broken, at time 0.
    fn broken() -> Breaker {
        let mut breaker = Breaker::default();
        for failures in 0..FAILURES {
            assert!(breaker.may_send(0, 7), "after {failures} failures");
            breaker.failed(0);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_break_and_a_success_between_them_does_not() {
        assert!(!broken().may_send(0, 0));
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            for _ in 1..FAILURES {
                breaker.failed(0);
            }
            breaker.succeeded();
        }
        assert!(breaker.may_send(0, 7));
        assert_eq!(breaker.opens_at_ms(), None);
    }

    #[test]
    fn after_the_break_one_is_let_through_and_each_failure_doubles_it() {
        let mut breaker = broken();
        let mut now_ms = 0;
        for pause_ms in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
            assert_eq!(breaker.opens_at_ms(), Some(now_ms + pause_ms));
            assert!(!breaker.may_send(now_ms + pause_ms - 1, 0));
            now_ms += pause_ms;
            assert!(!breaker.may_send(now_ms, 1), "others are still under way");
            assert!(breaker.may_send(now_ms, 0));
            breaker.sent(now_ms);
            breaker.failed(now_ms);
        }
        breaker.succeeded();
        assert!(breaker.may_send(now_ms, 7));
        for _ in 0..FAILURES {
            breaker.failed(now_ms);
        }
        assert_eq!(breaker.opens_at_ms(), Some(now_ms + 5_000), "short again");
    }

    #[test]
    fn what_was_under_way_when_it_broke_says_nothing_new_by_failing() {
        let mut breaker = broken();
        breaker.failed(3_000);
        assert_eq!(breaker.opens_at_ms(), Some(5_000));
        breaker.succeeded();
        assert!(breaker.may_send(3_000, 7), "but a success counts");
    }
}
