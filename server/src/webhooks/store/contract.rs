//! What the store must do on every database. Each promise has a database of its own, because claims are about all apps.

use std::collections::BTreeSet;
use std::slice;
use std::time::Instant;

use dunlin_protocol::names::AppId;
use futures_util::future::{join, join_all};

use super::*;
use crate::storage::sql::scratch::Scratch;
use crate::webhooks::delivery::{Attempt, Delivery, DeliveryId, EndpointId, NewDelivery, Source, State};

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    run(async || Scratch::sqlite()).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    run(Scratch::postgres).await;
}

async fn run(fresh: impl AsyncFn() -> Scratch) {
    deliveries_come_back_as_they_were_stored(&fresh().await).await;
    a_step_of_the_outbox_becomes_deliveries_once(&fresh().await).await;
    several_cursors_move_together_or_not_at_all(&fresh().await).await;
    a_repeated_delivery_is_stored_once(&fresh().await).await;
    an_endpoint_is_one_workers_at_a_time(&fresh().await).await;
    only_what_is_due_is_claimed_and_everybody_has_a_turn(&fresh().await).await;
    a_claim_that_ran_out_may_be_taken_and_its_worker_records_nothing_more(&fresh().await).await;
    an_attempt_says_what_becomes_of_its_delivery(&fresh().await).await;
    an_endpoint_fails_since_its_first_failure_after_a_success(&fresh().await).await;
    what_is_unstorable_or_gone_keeps_nothing_else_from_being_recorded(&fresh().await).await;
    a_disabled_endpoint_is_sent_nothing(&fresh().await).await;
    deliveries_are_found_and_paged(&fresh().await).await;
    a_replay_begins_again_in_the_old_order(&fresh().await).await;
    what_is_old_is_pruned_by_its_kind_and_never_what_is_pending(&fresh().await).await;
    ten_thousand_deliveries_keep_their_order(&fresh().await).await;
    an_endpoint_is_changed_by_whoever_saw_its_last_version(&fresh().await).await;
    what_was_done_for_an_endpoint_of_late_is_not_forgotten(&fresh().await).await;
    a_cursor_that_has_moved_is_not_forgotten(&fresh().await).await;
    attempts_are_logged_in_the_order_in_which_they_were_stored(&fresh().await).await;
}

/// Some time. The store has no clock.
const NOW: u64 = 1_800_000_000_000;

async fn store(scratch: &Scratch) -> Store {
    Store::new(scratch.open().await)
}

fn app(name: &str) -> AppId {
    name.parse().unwrap()
}

fn endpoint(name: &str) -> EndpointId {
    EndpointId(name.into())
}

fn new(of_app: &str, to: &str) -> NewDelivery {
    NewDelivery {
        id: DeliveryId::new(),
        app: app(of_app),
        endpoint: endpoint(to),
        source: Source::Events,
        created_at_ms: NOW,
        lanes: 1,
        events: 1,
        body: "{}".to_owned(),
    }
}

fn several(count: usize, of_app: &str, to: &str) -> Vec<NewDelivery> {
    (0..count).map(|_| new(of_app, to)).collect()
}

/// Stores deliveries that are due at once.
async fn add(store: &Store, deliveries: &[NewDelivery]) {
    assert!(store.add(deliveries, NOW, &[]).await.unwrap());
}

/// The endpoints that a worker gets for a minute.
async fn claim(store: &Store, worker: &str, most: u32) -> Vec<String> {
    let claims = store.claim(worker, NOW, NOW + 60_000, NOW, most).await.unwrap();
    let mut names: Vec<String> = claims.iter().map(|claim| claim.endpoint.to_string()).collect();
    names.sort();
    names
}

/// Records attempts of a worker, and says of each whether it was kept.
async fn record(store: &Store, worker: &str, now_ms: u64, finished: &[Finished]) -> Vec<bool> {
    let kept = store.record(worker, now_ms, finished).await.unwrap();
    kept.iter().map(Option::is_some).collect()
}

async fn pending(store: &Store, of_app: &str, to: &str) -> Vec<Delivery> {
    store.pending(&app(of_app), &endpoint(to), 20_000).await.unwrap()
}

async fn found(store: &Store, id: &DeliveryId) -> (Delivery, Vec<Attempt>) {
    store.get(id).await.unwrap().expect("it is stored")
}

fn ids<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Vec<DeliveryId> {
    deliveries
        .into_iter()
        .map(|delivery| delivery.id.clone())
        .collect()
}

fn finished(delivery: &Delivery, at_ms: u64, next: Next) -> Finished {
    let status = if next == Next::Done { 200 } else { 500 };
    Finished {
        app: delivery.app.clone(),
        endpoint: delivery.endpoint.clone(),
        seq: delivery.seq,
        attempt: Attempt {
            at_ms,
            took_ms: 7,
            status: Some(status),
            note: format!("said {status}"),
        },
        next,
    }
}

async fn deliveries_come_back_as_they_were_stored(scratch: &Scratch) {
    let store = store(scratch).await;
    assert!(
        store.add(&[], NOW, &[]).await.unwrap(),
        "nothing to store is stored"
    );
    let mut stored = Vec::new();
    for (n, source) in [Source::Events, Source::Presence, Source::Message]
        .into_iter()
        .enumerate()
    {
        stored.push(NewDelivery {
            source,
            created_at_ms: NOW + n as u64,
            lanes: u64::MAX - n as u64,
            events: 100,
            body: "{\"é\":\"\\u0000 ' $1 \u{1f600}\"}".to_owned(),
            ..new("1", "a")
        });
    }
    add(&store, &stored).await;
    let read = pending(&store, "1", "a").await;
    assert_eq!(read.len(), 3);
    for (stored, read) in stored.iter().zip(&read) {
        let expected = Delivery {
            seq: read.seq,
            id: stored.id.clone(),
            app: stored.app.clone(),
            endpoint: stored.endpoint.clone(),
            source: stored.source,
            created_at_ms: stored.created_at_ms,
            lanes: stored.lanes,
            events: stored.events,
            body: stored.body.clone(),
            state: State::Pending,
            attempts: 0,
            next_at_ms: NOW,
            finished_at_ms: None,
        };
        assert_eq!(*read, expected);
        assert_eq!(found(&store, &stored.id).await, (expected, Vec::new()));
    }
    assert_eq!(store.get(&DeliveryId::new()).await.unwrap(), None);
}

async fn a_step_of_the_outbox_becomes_deliveries_once(scratch: &Scratch) {
    let workers = [store(scratch).await, store(scratch).await];
    let step = |from: Option<&str>, to: &str| CursorMove {
        partition: "7".to_owned(),
        from: from.map(str::to_owned),
        to: to.to_owned(),
    };
    assert_eq!(workers[0].cursor("7").await.unwrap(), None);
    let mut here = None;
    for n in 0..20 {
        let there = n.to_string();
        let step = step(here.as_deref(), &there);
        let batches = [several(3, "1", "a"), several(3, "1", "a")];
        let (first, second) = join(
            workers[0].add(&batches[0], NOW, slice::from_ref(&step)),
            workers[1].add(&batches[1], NOW, slice::from_ref(&step)),
        )
        .await;
        assert_ne!(first.unwrap(), second.unwrap(), "one of two, in step {n}");
        here = Some(there);
    }
    assert_eq!(pending(&workers[0], "1", "a").await.len(), 60);
    assert_eq!(workers[1].cursor("7").await.unwrap(), here);
    assert_eq!(workers[1].cursor("8").await.unwrap(), None, "by partition");
    let stale = step(Some("3"), "4");
    assert!(
        !workers[0]
            .add(&several(1, "1", "a"), NOW, slice::from_ref(&stale))
            .await
            .unwrap()
    );
    let nobody_wants_it = step(Some("19"), "20");
    assert!(
        workers[0]
            .add(&[], NOW, slice::from_ref(&nobody_wants_it))
            .await
            .unwrap()
    );
    assert_eq!(pending(&workers[0], "1", "a").await.len(), 60);
}

async fn several_cursors_move_together_or_not_at_all(scratch: &Scratch) {
    let workers = [store(scratch).await, store(scratch).await];
    // Two sets that overlap, named in opposite orders. Some are new in the first round, all are old in the later ones.
    let mut reached: [Option<String>; 150] = std::array::from_fn(|_| None);
    for round in 0..6 {
        let steps = |cursors: &mut dyn Iterator<Item = usize>, to: &str| -> Vec<CursorMove> {
            let steps = cursors.map(|n| CursorMove {
                partition: format!("c{n}"),
                from: reached[n].clone(),
                to: format!("{round} {to}"),
            });
            steps.collect()
        };
        let low = steps(&mut (0..120), "low");
        let high = steps(&mut (30..150).rev(), "high");
        let batches = [several(1, "1", "a"), several(1, "1", "a")];
        let (is_low, is_high) = join(
            workers[0].add(&batches[0], NOW, &low),
            workers[1].add(&batches[1], NOW, &high),
        )
        .await;
        assert_ne!(is_low.unwrap(), is_high.unwrap(), "one of two, in round {round}");
        let before = reached.clone();
        for (n, cursor) in reached.iter_mut().enumerate() {
            *cursor = workers[0].cursor(&format!("c{n}")).await.unwrap();
        }
        let moved = (0..150).filter(|n| reached[*n] != before[*n]).count();
        assert_eq!(moved, 120, "all of one set, in round {round}");
    }
    assert_eq!(pending(&workers[0], "1", "a").await.len(), 6);
}

async fn a_repeated_delivery_is_stored_once(scratch: &Scratch) {
    let store = store(scratch).await;
    let deliveries = several(3, "1", "a");
    add(&store, &deliveries[..2]).await;
    add(&store, &deliveries).await;
    let expected: Vec<_> = deliveries.iter().map(|new| new.id.clone()).collect();
    assert_eq!(ids(&pending(&store, "1", "a").await), expected);
}

async fn an_endpoint_is_one_workers_at_a_time(scratch: &Scratch) {
    let workers = [store(scratch).await, store(scratch).await];
    let deliveries: Vec<_> = (0..200).map(|n| new("1", &format!("e{}", n % 100))).collect();
    add(&workers[0], &deliveries).await;
    let (mut first, mut second) = (BTreeSet::new(), BTreeSet::new());
    // Each race is about a few, so that there are many.
    while first.len() + second.len() < 100 {
        let (a, b) = join(claim(&workers[0], "one", 5), claim(&workers[1], "two", 5)).await;
        assert!(!a.is_empty() || !b.is_empty(), "{first:?} {second:?}");
        for (got, all) in [(a, &mut first), (b, &mut second)] {
            for name in got {
                assert!(all.insert(name), "claimed twice");
            }
        }
    }
    assert!(first.is_disjoint(&second));
    assert_eq!(claim(&workers[0], "one", 5).await, [""; 0], "not again, either");
    let renewed = workers[0].renew("one", NOW + 60_000).await.unwrap();
    assert_eq!(renewed.len(), first.len());
    let (app, mine) = (app("1"), endpoint(first.first().expect("it got some")));
    workers[1].release("two", &app, &mine).await.unwrap();
    assert_eq!(claim(&workers[1], "two", 5).await, [""; 0], "somebody else's");
    workers[0].release("one", &app, &mine).await.unwrap();
    assert_eq!(claim(&workers[1], "two", 5).await, [mine.to_string()]);
}

async fn only_what_is_due_is_claimed_and_everybody_has_a_turn(scratch: &Scratch) {
    let store = store(scratch).await;
    let later = NOW + 1000;
    store.add(&several(1, "1", "later"), later, &[]).await.unwrap();
    assert_eq!(claim(&store, "w", 5).await, [""; 0]);
    let claims = store.claim("w", NOW, NOW + 1, later, 5).await.unwrap();
    assert_eq!(claims.len(), 1, "within the horizon that was asked for");
    assert_eq!(store.due("w", NOW).await.unwrap(), [], "not yet");
    assert_eq!(store.due("w", later).await.unwrap(), claims);
    assert_eq!(store.due("another", later).await.unwrap(), []);
    store.release("w", &app("1"), &endpoint("later")).await.unwrap();
    let deliveries: Vec<_> = ["a", "b", "c"].map(|name| new("1", name)).into();
    add(&store, &deliveries).await;
    let mut turns = Vec::new();
    for turn in 0..6 {
        let now = NOW + turn + 1;
        let claims = store.claim("w", now, now + 9, now, 1).await.unwrap();
        assert_eq!(claims.len(), 1);
        store
            .release("w", &claims[0].app, &claims[0].endpoint)
            .await
            .unwrap();
        turns.push(claims[0].endpoint.to_string());
    }
    assert_eq!(turns[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{turns:?}");
    assert_eq!(turns[..3], turns[3..]);
}

async fn a_claim_that_ran_out_may_be_taken_and_its_worker_records_nothing_more(scratch: &Scratch) {
    let (old, young) = (store(scratch).await, store(scratch).await);
    add(&old, &several(2, "1", "a")).await;
    add(&old, &several(1, "1", "b")).await;
    assert_eq!(old.claim("old", NOW, NOW + 10, NOW, 5).await.unwrap().len(), 2);
    let deliveries = pending(&old, "1", "a").await;
    assert_eq!(young.claim("young", NOW + 9, NOW + 99, NOW, 5).await.unwrap(), []);
    let taken = young.claim("young", NOW + 10, NOW + 99, NOW, 1).await.unwrap();
    let (theirs, ours) = match &*taken[0].endpoint.0 {
        "a" => ("a", "b"),
        _ => ("b", "a"),
    };
    let left: Vec<_> = old.renew("old", NOW + 50).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(
        left[0].endpoint,
        endpoint(ours),
        "what nobody took is still its own"
    );
    let theirs = pending(&old, "1", theirs).await.remove(0);
    let ours = pending(&old, "1", ours).await.remove(0);
    let both = [
        finished(&theirs, NOW, Next::Done),
        finished(&ours, NOW, Next::Done),
    ];
    assert_eq!(record(&old, "old", NOW + 11, &both).await, [false, true]);
    assert_eq!(found(&old, &theirs.id).await.0.state, State::Pending);
    assert_eq!(found(&old, &ours.id).await.0.state, State::Done);
    assert_eq!(record(&young, "young", NOW + 12, &both[..1]).await, [true]);
    assert_eq!(
        found(&old, &theirs.id).await.1.len(),
        1,
        "attempts are recorded once"
    );
    assert_eq!(deliveries.len(), 2);
}

async fn an_attempt_says_what_becomes_of_its_delivery(scratch: &Scratch) {
    let store = store(scratch).await;
    add(&store, &several(250, "1", "a")).await;
    claim(&store, "w", 5).await;
    let deliveries = pending(&store, "1", "a").await;
    assert_eq!(record(&store, "w", NOW, &[]).await, [true; 0]);
    let first: Vec<_> = deliveries
        .iter()
        .enumerate()
        .map(|(n, delivery)| {
            let next = match n % 3 {
                0 => Next::Done,
                1 => Next::Retry { at_ms: NOW + 5000 },
                _ => Next::Dead,
            };
            finished(delivery, NOW + 1, next)
        })
        .collect();
    assert_eq!(record(&store, "w", NOW + 8, &first).await, [true; 250]);
    for (stored, sent) in deliveries.iter().zip(&first) {
        let (delivery, attempts) = found(&store, &stored.id).await;
        let (state, next_at_ms, finished_at_ms) = match sent.next {
            Next::Done => (State::Done, NOW, Some(NOW + 8)),
            Next::Retry { at_ms } => (State::Pending, at_ms, None),
            Next::Dead => (State::Dead, NOW, Some(NOW + 8)),
        };
        let expected = Delivery {
            state,
            attempts: 1,
            next_at_ms,
            finished_at_ms,
            ..stored.clone()
        };
        assert_eq!(delivery, expected);
        assert_eq!(attempts, slice::from_ref(&sent.attempt));
    }
    let left = pending(&store, "1", "a").await;
    assert_eq!(left.len(), 83);
    let second = finished(&left[0], NOW + 5001, Next::Dead);
    assert_eq!(record(&store, "w", NOW, slice::from_ref(&second)).await, [true]);
    let (delivery, attempts) = found(&store, &left[0].id).await;
    assert_eq!((delivery.attempts, delivery.state), (2, State::Dead));
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[1], second.attempt, "the latest is the last");
}

/// Attempts that are recorded in one step, each with its time, and since when the endpoint fails after it.
type Step<'a> = (&'a [(u64, Next)], Option<u64>);

async fn an_endpoint_fails_since_its_first_failure_after_a_success(scratch: &Scratch) {
    let store = store(scratch).await;
    add(&store, &several(9, "1", "a")).await;
    add(&store, &several(1, "1", "b")).await;
    claim(&store, "w", 5).await;
    let state = async || store.endpoint_state(&app("1"), &endpoint("a")).await.unwrap();
    assert_eq!(state().await, EndpointState::default());
    let deliveries = pending(&store, "1", "a").await;
    let retry = Next::Retry { at_ms: NOW };
    let steps: [Step<'_>; 6] = [
        (&[(10, retry), (20, retry)], Some(10)),
        (&[(30, Next::Dead)], Some(10)),
        (&[(40, Next::Done)], None),
        (&[(50, retry), (60, Next::Done), (70, retry)], Some(70)),
        (&[(80, retry)], Some(70)),
        (&[(90, Next::Done)], None),
    ];
    let mut unsent = deliveries.iter();
    for (attempts, failing_since_ms) in steps {
        let step: Vec<_> = attempts
            .iter()
            .map(|(at_ms, next)| finished(unsent.next().unwrap(), *at_ms, *next))
            .collect();
        let kept = store.record("w", NOW, &step).await.unwrap();
        assert_eq!(kept, vec![Some(Kept { failing_since_ms }); step.len()]);
        let last = &step.last().unwrap().attempt;
        let expected = EndpointState {
            failing_since_ms,
            disabled_at_ms: None,
            last: Some(LastAttempt {
                at_ms: last.at_ms,
                status: last.status,
                note: last.note.clone(),
            }),
        };
        assert_eq!(state().await, expected, "after {attempts:?}");
    }
    let other = store.endpoint_state(&app("1"), &endpoint("b")).await.unwrap();
    assert_eq!(other, EndpointState::default(), "by endpoint");
}

async fn what_is_unstorable_or_gone_keeps_nothing_else_from_being_recorded(scratch: &Scratch) {
    let store = store(scratch).await;
    add(&store, &several(2, "1", "a")).await;
    claim(&store, "w", 5).await;
    let deliveries = pending(&store, "1", "a").await;
    let mut gone = finished(&deliveries[0], NOW, Next::Done);
    gone.seq += 1000;
    let mut strange = finished(&deliveries[1], NOW, Next::Done);
    strange.attempt.note = "a\0b".to_owned();
    strange.attempt.status = None;
    record(&store, "w", NOW, &[gone, strange]).await;
    let (delivery, attempts) = found(&store, &deliveries[1].id).await;
    assert_eq!(delivery.state, State::Done);
    assert_eq!((&*attempts[0].note, attempts[0].status), ("a\u{fffd}b", None));
}

async fn a_disabled_endpoint_is_sent_nothing(scratch: &Scratch) {
    let store = store(scratch).await;
    let (id, to) = (app("1"), endpoint("a"));
    add(&store, &several(1500, "1", "a")).await;
    add(&store, &several(1, "2", "a")).await;
    store.claim("w", NOW, NOW + 1, NOW, 5).await.unwrap();
    let under_way = pending(&store, "1", "a").await;
    let failure = finished(&under_way[0], NOW, Next::Retry { at_ms: NOW });
    record(&store, "w", NOW, &[failure]).await;
    store.disable(&id, &to, NOW + 5).await.unwrap();
    assert_eq!(pending(&store, "1", "a").await, []);
    assert_eq!(
        pending(&store, "2", "a").await.len(),
        1,
        "another app's of that name"
    );
    let (dead, reasons) = found(&store, &under_way[1].id).await;
    assert_eq!((dead.state, dead.finished_at_ms), (State::Dead, Some(NOW + 5)));
    assert_eq!(
        (dead.attempts, reasons.len()),
        (0, 1),
        "nothing was sent, and the log says why"
    );
    let left = store.renew("w", NOW + 9).await.unwrap();
    let left: Vec<_> = left.iter().map(|claim| claim.app.as_str()).collect();
    assert_eq!(left, ["2"], "its worker learns that it is to stop");
    // What was on its way when that happened.
    let late = [
        finished(&under_way[2], NOW, Next::Retry { at_ms: NOW }),
        finished(&under_way[3], NOW, Next::Done),
    ];
    assert_eq!(record(&store, "w", NOW + 6, &late).await, [true, true]);
    assert_eq!(found(&store, &under_way[2].id).await.0.state, State::Dead);
    assert_eq!(found(&store, &under_way[3].id).await.0.state, State::Done);
    let state = store.endpoint_state(&id, &to).await.unwrap();
    assert_eq!(state.disabled_at_ms, Some(NOW + 5));

    add(&store, &several(1, "1", "a")).await;
    let claims = store.claim("x", NOW + 9, NOW + 10, NOW, 5).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].app, app("2"));
    assert_eq!(store.prune(NOW + 9, 0, 0, 10).await.unwrap(), 0);
    assert_eq!(
        pending(&store, "1", "a").await,
        [],
        "what was added later is given up as well"
    );

    store.enable(&id, &to).await.unwrap();
    assert_eq!(
        store.endpoint_state(&id, &to).await.unwrap().failing_since_ms,
        None
    );
    assert_eq!(store.endpoint_state(&id, &to).await.unwrap().disabled_at_ms, None);
    assert_eq!(
        pending(&store, "1", "a").await,
        [],
        "nothing comes back by itself"
    );
    add(&store, &several(1, "1", "a")).await;
    assert_eq!(
        store.claim("x", NOW + 11, NOW + 12, NOW, 5).await.unwrap().len(),
        2
    );
    store
        .disable(&app("3"), &endpoint("never used"), NOW)
        .await
        .unwrap();
    add(&store, &several(1, "3", "never used")).await;
    assert_eq!(claim(&store, "y", 5).await, [""; 0]);
}

async fn deliveries_are_found_and_paged(scratch: &Scratch) {
    let store = store(scratch).await;
    let mut deliveries = Vec::new();
    for n in 0..12_usize {
        let mut delivery = new(["1", "2"][n % 2], ["a", "b", "c"][n % 3]);
        delivery.created_at_ms = NOW + n as u64;
        deliveries.push(delivery);
    }
    add(&store, &deliveries).await;
    claim(&store, "w", 9).await;
    let first = pending(&store, "1", "a").await.remove(0);
    record(&store, "w", NOW, &[finished(&first, NOW, Next::Dead)]).await;
    let listed = async |filter: Filter, limit: u32| -> Vec<u64> {
        let list = store.list(&filter, limit).await.unwrap();
        list.iter().map(|delivery| delivery.created_at_ms - NOW).collect()
    };
    let all = Filter::default();
    let of_1 = Filter {
        app: Some(app("1")),
        ..all.clone()
    };
    let dead = Filter {
        state: Some(State::Dead),
        ..all.clone()
    };
    assert_eq!(listed(all.clone(), 3).await, [11, 10, 9]);
    assert_eq!(listed(of_1.clone(), 99).await, [10, 8, 6, 4, 2, 0]);
    assert_eq!(listed(dead.clone(), 99).await, [0]);
    assert_eq!(
        listed(
            Filter {
                app: Some(app("2")),
                ..dead
            },
            99
        )
        .await,
        [0; 0]
    );
    let pending = Filter {
        endpoint: Some(endpoint("a")),
        state: Some(State::Pending),
        ..of_1.clone()
    };
    assert_eq!(listed(pending, 99).await, [6]);
    let span = Filter {
        from_ms: Some(NOW + 2),
        to_ms: Some(NOW + 6),
        ..of_1.clone()
    };
    assert_eq!(listed(span, 99).await, [4, 2]);
    let by_id = Filter {
        id: Some(deliveries[5].id.clone()),
        ..all.clone()
    };
    assert_eq!(listed(by_id.clone(), 99).await, [5]);
    assert_eq!(
        listed(
            Filter {
                app: Some(app("1")),
                ..by_id
            },
            99
        )
        .await,
        [0; 0],
        "not another app's"
    );
    let page = store.list(&of_1, 4).await.unwrap();
    let next = Filter {
        before_seq: Some(page[3].seq),
        ..of_1
    };
    assert_eq!(listed(next, 4).await, [2, 0]);
    let backlog = store.backlog().await.unwrap();
    let expected = [("1", 5, 1, 2), ("2", 6, 0, 1)].map(|(id, pending, dead, oldest)| Backlog {
        app: app(id),
        pending,
        dead,
        oldest_pending_ms: Some(NOW + oldest),
    });
    assert_eq!(backlog, expected);
}

async fn a_replay_begins_again_in_the_old_order(scratch: &Scratch) {
    let store = store(scratch).await;
    add(&store, &several(2500, "1", "a")).await;
    add(&store, &several(1, "2", "a")).await;
    claim(&store, "w", 9).await;
    let deliveries = pending(&store, "1", "a").await;
    let dead: Vec<_> = deliveries
        .iter()
        .map(|one| finished(one, NOW, Next::Dead))
        .collect();
    record(&store, "w", NOW, &dead[..2400]).await;
    let other = finished(&pending(&store, "2", "a").await[0], NOW, Next::Dead);
    record(&store, "w", NOW, &[other]).await;
    let one = Filter {
        app: Some(app("1")),
        id: Some(deliveries[3].id.clone()),
        ..Filter::default()
    };
    assert_eq!(store.replay(&one, NOW + 9).await.unwrap(), 1);
    let (again, attempts) = found(&store, &deliveries[3].id).await;
    let expected = Delivery {
        next_at_ms: NOW + 9,
        ..deliveries[3].clone()
    };
    assert_eq!(again, expected, "as it was when it was new");
    assert_eq!(attempts.len(), 1, "the attempts of its first life are kept");
    assert_eq!(
        pending(&store, "1", "a").await[0].id,
        deliveries[3].id,
        "in front of younger ones"
    );
    let dead = Filter {
        app: Some(app("1")),
        state: Some(State::Dead),
        ..Filter::default()
    };
    assert_eq!(store.replay(&dead, NOW + 9).await.unwrap(), 2399);
    assert_eq!(ids(&pending(&store, "1", "a").await), ids(&deliveries));
    assert_eq!(
        pending(&store, "2", "a").await,
        [],
        "another app's stays as it is"
    );
    assert_eq!(store.replay(&dead, NOW + 9).await.unwrap(), 0);
}

async fn what_is_old_is_pruned_by_its_kind_and_never_what_is_pending(scratch: &Scratch) {
    let store = store(scratch).await;
    add(&store, &several(6, "1", "a")).await;
    claim(&store, "w", 9).await;
    let deliveries = pending(&store, "1", "a").await;
    for (n, next) in [Next::Done, Next::Done, Next::Dead, Next::Dead]
        .into_iter()
        .enumerate()
    {
        let at_ms = NOW + n as u64;
        record(&store, "w", at_ms, &[finished(&deliveries[n], at_ms, next)]).await;
    }
    let left = async || -> Vec<usize> {
        let all = store.list(&Filter::default(), 99).await.unwrap();
        let left = ids(&all);
        (0..6).filter(|n| left.contains(&deliveries[*n].id)).collect()
    };
    assert_eq!(store.prune(NOW, NOW, NOW, 99).await.unwrap(), 0);
    assert_eq!(store.prune(NOW, NOW + 1, NOW + 3, 99).await.unwrap(), 2);
    assert_eq!(left().await, [1, 3, 4, 5]);
    assert_eq!(
        store.prune(NOW, u64::MAX, u64::MAX, 1).await.unwrap(),
        1,
        "at most so many"
    );
    assert_eq!(store.prune(NOW, u64::MAX, u64::MAX, 99).await.unwrap(), 1);
    assert_eq!(left().await, [4, 5]);
    add(&store, &several(1, "1", "a")).await;
    let newest = pending(&store, "1", "a").await.pop().unwrap();
    assert!(newest.seq > deliveries[5].seq, "no number is given twice");
}

async fn ten_thousand_deliveries_keep_their_order(scratch: &Scratch) {
    let store = store(scratch).await;
    let deliveries = several(10_000, "1", "a");
    let began = Instant::now();
    for some in deliveries.chunks(100) {
        add(&store, some).await;
    }
    let rate = 10_000.0 / began.elapsed().as_secs_f64();
    // Not a verdict: it is how the rate is measured.
    println!("{rate:.0} deliveries a second in calls of 100");
    let expected: Vec<_> = deliveries.iter().map(|new| new.id.clone()).collect();
    assert_eq!(ids(&pending(&store, "1", "a").await), expected);
    let first = store.pending(&app("1"), &endpoint("a"), 3).await.unwrap();
    assert_eq!(ids(&first), expected[..3]);
}

async fn an_endpoint_is_changed_by_whoever_saw_its_last_version(scratch: &Scratch) {
    let (store, other) = (store(scratch).await, store(scratch).await);
    assert_eq!(store.endpoints().await.unwrap(), (0, Vec::new()));
    let change = |settings: &str, replaces| EndpointChange {
        app: app("1"),
        id: endpoint("a"),
        settings: settings.to_owned(),
        enabled: settings != "off",
        replaces,
    };
    assert_eq!(
        store.put_endpoint(&change("x", Some(1)), NOW).await.unwrap(),
        None,
        "there is none"
    );
    assert_eq!(
        store.put_endpoint(&change("x", None), NOW).await.unwrap(),
        Some(1)
    );
    assert_eq!(
        store.put_endpoint(&change("y", None), NOW).await.unwrap(),
        None,
        "there is one"
    );
    let changes: Vec<_> = (0..8).map(|n| change(&format!("y{n}"), Some(1))).collect();
    let raced = join_all(changes.iter().enumerate().map(|(n, change)| {
        let store = [&store, &other][n % 2];
        store.put_endpoint(change, NOW + 1)
    }))
    .await;
    let winners: Vec<_> = raced.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(winners, [2]);
    assert_eq!(
        other
            .put_endpoint(&change("off", Some(2)), NOW + 2)
            .await
            .unwrap(),
        Some(3)
    );
    let expected = StoredEndpoint {
        app: app("1"),
        id: endpoint("a"),
        settings: "off".to_owned(),
        enabled: false,
        version: 3,
        created_at_ms: NOW,
        updated_at_ms: NOW + 2,
    };
    assert_eq!(store.endpoints().await.unwrap(), (3, vec![expected]));
    assert!(!store.remove_endpoint(&app("2"), &endpoint("a")).await.unwrap());
    store.disable(&app("1"), &endpoint("a"), NOW).await.unwrap();
    assert!(store.remove_endpoint(&app("1"), &endpoint("a")).await.unwrap());
    assert_eq!(store.endpoints().await.unwrap(), (4, Vec::new()));
    assert_eq!(store.endpoints_version().await.unwrap(), 4);
    store.put_endpoint(&change("x", None), NOW).await.unwrap();
    let state = store.endpoint_state(&app("1"), &endpoint("a")).await.unwrap();
    assert_eq!(state.disabled_at_ms, None, "it is another one");
}

async fn what_was_done_for_an_endpoint_of_late_is_not_forgotten(scratch: &Scratch) {
    let store = store(scratch).await;
    let idle = async |before_ms: u64| -> Vec<String> {
        let mut names = Vec::new();
        let mut last: Option<Claim> = None;
        // In pages of two.
        loop {
            let page = store.idle_endpoints(before_ms, last.as_ref(), 2).await.unwrap();
            names.extend(page.iter().map(|claim| claim.endpoint.to_string()));
            match page.into_iter().next_back() {
                Some(claim) => last = Some(claim),
                None => return names,
            }
        }
    };
    for name in ["claimed", "done", "disabled", "pending"] {
        add(&store, &several(1, "1", name)).await;
    }
    for at_ms in [NOW, NOW + 10] {
        store.claim("w", at_ms, at_ms, NOW, 9).await.unwrap();
        store
            .disable(&app("1"), &endpoint("disabled"), at_ms)
            .await
            .unwrap();
        for name in ["claimed", "done"] {
            for delivery in pending(&store, "1", name).await {
                let end = finished(&delivery, at_ms, Next::Done);
                assert_eq!(record(&store, "w", at_ms, &[end]).await, [true]);
            }
        }
        if at_ms == NOW {
            assert_eq!(idle(NOW).await, [""; 0], "not before it ended");
            assert_eq!(idle(NOW + 1).await, ["claimed", "disabled", "done"]);
            add(&store, &several(1, "1", "done")).await;
            assert_eq!(idle(NOW + 1).await, ["claimed", "disabled"]);
        }
    }
    // For this one nothing was done the second time.
    assert_eq!(idle(NOW + 1).await, ["claimed"]);
    let forget = async |name, before_ms| {
        let forgotten = store.forget_endpoint(&app("1"), &endpoint(name), before_ms).await;
        forgotten.unwrap()
    };
    assert!(!forget("done", NOW + 1).await && !forget("pending", u64::MAX >> 1).await);
    assert!(forget("done", NOW + 11).await && !forget("done", NOW + 11).await);
    assert_eq!(idle(NOW + 11).await, ["claimed", "disabled"]);

    // A replay finds nobody who knows the endpoint.
    let done = Filter {
        endpoint: Some(endpoint("done")),
        ..Filter::default()
    };
    assert_eq!(store.replay(&done, NOW).await.unwrap(), 2);
    assert_eq!(claim(&store, "x", 9).await, [""; 0]);
    assert_eq!(store.adopt().await.unwrap(), 1);
    assert_eq!(claim(&store, "x", 9).await, ["done"]);
    assert_eq!(store.adopt().await.unwrap(), 0);
}

async fn a_cursor_that_has_moved_is_not_forgotten(scratch: &Scratch) {
    let store = store(scratch).await;
    for name in ["a", "b", "c"] {
        let step = CursorMove {
            partition: name.to_owned(),
            from: None,
            to: "1-0".to_owned(),
        };
        assert!(store.add(&[], NOW, &[step]).await.unwrap());
    }
    let page = |names: &[&str]| -> Vec<(String, String)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), "1-0".to_owned()))
            .collect()
    };
    assert_eq!(store.cursors("", 2).await.unwrap(), page(&["a", "b"]));
    assert_eq!(store.cursors("b", 2).await.unwrap(), page(&["c"]));
    assert!(!store.forget_cursor("a", "0-9").await.unwrap());
    assert!(store.forget_cursor("a", "1-0").await.unwrap());
    assert!(!store.forget_cursor("a", "1-0").await.unwrap());
    assert_eq!(store.cursors("", 9).await.unwrap(), page(&["b", "c"]));
}

async fn attempts_are_logged_in_the_order_in_which_they_were_stored(scratch: &Scratch) {
    let store = store(scratch).await;
    assert_eq!(store.last_attempt().await.unwrap(), 0);
    add(&store, &several(2, "1", "a")).await;
    add(&store, &several(1, "2", "b")).await;
    claim(&store, "w", 9).await;
    let (ours, theirs) = (pending(&store, "1", "a").await, pending(&store, "2", "b").await);
    let ends = [
        (&ours[0], Next::Retry { at_ms: NOW }),
        (&theirs[0], Next::Done),
        (&ours[1], Next::Done),
        (&ours[0], Next::Done),
    ];
    for (n, (delivery, next)) in ends.into_iter().enumerate() {
        let end = finished(delivery, NOW + n as u64, next);
        record(&store, "w", NOW, &[end]).await;
    }
    let last = store.last_attempt().await.unwrap();
    let logged = async |after, limit| -> (i64, Vec<(u64, u64)>) {
        let (looked_at, found) = store.attempts_of(&app("1"), after, limit).await.unwrap();
        let found = found.iter().map(|one| (one.attempt.at_ms - NOW, one.number));
        (looked_at, found.collect())
    };
    let all = logged(0, 9).await;
    assert_eq!(all, (last, vec![(0, 1), (2, 1), (3, 2)]));
    // What is another app's is passed over, and counts.
    let (looked_at, found) = logged(0, 2).await;
    assert_eq!(found, [(0, 1)]);
    assert_eq!(logged(looked_at, 9).await, (last, vec![(2, 1), (3, 2)]));
    assert_eq!(logged(last, 9).await, (last, vec![]));
    add(&store, &several(1, "1", "a")).await;
    store.disable(&app("1"), &endpoint("a"), NOW).await.unwrap();
    let (looked_at, found) = logged(last, 9).await;
    assert!(
        looked_at > last && found.is_empty(),
        "given up without an attempt"
    );
}
