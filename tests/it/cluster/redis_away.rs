//! While Redis is away nothing is accepted and dropped: publishes are refused, sockets stay. When it is back, so is
//! everything else, without anybody's help.

use super::RECOVERY;
use super::roster::{Watcher, all_agree, all_list};
use crate::client::Client;
use crate::node::Node;
use crate::redis::{Data, RedisServer};
use crate::request::{Answer, Call};
use crate::world::{App, DEADLINE, World, eventually, eventually_within};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A publish is answered within this time, whatever is wrong.
const REFUSAL: Duration = Duration::from_secs(2);
/// After Redis is back, traffic flows within this time.
const RETURN: Duration = Duration::from_secs(3);

/// The data of events that were refused. When Redis had taken one and could not say so, it is delivered nevertheless.
const REFUSED: &str = "refused";

async fn try_publish(node: &Node, app: &App, data: &str) -> Answer {
    let body = json!({ "name": "e", "channels": ["pub"], "data": data });
    Call::post(app, "/events", &body).send_to(node.address).await
}

async fn expect_refusal(node: &Node, app: &App) {
    let start = Instant::now();
    let answer = try_publish(node, app, REFUSED).await;
    assert!(start.elapsed() < REFUSAL, "answered after {:?}", start.elapsed());
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seconds = answer
        .header("retry-after")
        .and_then(|text| text.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{:?}", answer.headers);
}

/// Two nodes with a subscriber and a watcher each, and what the test does to their Redis.
struct Scene {
    world: World,
    app: App,
    redis: RedisServer,
    subscribers: Vec<Client>,
    watchers: [Watcher; 2],
}

impl Scene {
    async fn new() -> Self {
        Self::with(App::new(1)).await
    }

    async fn with(app: App) -> Self {
        let redis = RedisServer::start();
        let world = World::builder()
            .nodes(2)
            .redis(&redis.url())
            .app(&app)
            .troubled()
            .start();
        let (a, b) = world.pair();
        let mut subscribers = Vec::new();
        for node in [a, b] {
            let mut client = Client::connect_to(node, &app).await;
            client.subscribe("pub").await;
            subscribers.push(client);
        }
        let mut watchers = [
            Watcher::join(a, &app, "presence-a", "on-a").await,
            Watcher::join(b, &app, "presence-a", "on-b").await,
        ];
        watchers[0].sees(&["on-a", "on-b"], DEADLINE).await;
        Self {
            world,
            app,
            redis,
            subscribers,
            watchers,
        }
    }

    /// Both nodes refuse and say that they are not ready, and no socket notices anything.
    async fn expect_absence(&mut self) {
        let (a, b) = self.world.pair();
        for node in [a, b] {
            expect_refusal(node, &self.app).await;
        }
        for node in [a, b] {
            eventually("the node says that it is not ready", || async {
                (!node.is_ready()).then_some(())
            })
            .await;
        }
        for client in &mut self.subscribers {
            client.expect_quiet().await;
        }
        for watcher in &mut self.watchers {
            watcher.expect_quiet().await;
        }
    }

    /// Within the time given traffic flows both ways: what is accepted is heard once by everybody.
    async fn expect_return(&mut self) {
        let start = Instant::now();
        let (a, b) = self.world.pair();
        for (node, accepted) in [(a, "from a"), (b, "from b")] {
            // A refused one may have reached some all the same, so that each attempt is another event.
            while try_publish(node, &self.app, REFUSED).await.status != 200 {
                assert!(start.elapsed() < RETURN, "{accepted}: still refused");
            }
            let answer = try_publish(node, &self.app, accepted).await;
            assert_eq!(answer.status, 200, "{accepted}: refused again");
            for client in &mut self.subscribers {
                loop {
                    let event = client.next_within(RETURN.saturating_sub(start.elapsed())).await;
                    let event = event.unwrap_or_else(|| panic!("{accepted}: not delivered in time"));
                    assert_eq!(event.name, "e", "{}", event.raw);
                    if event.text() == accepted {
                        break;
                    }
                    assert_eq!(event.text(), REFUSED, "{}", event.raw);
                }
            }
        }
        for node in [a, b] {
            let ready = eventually_within(RETURN, || async { node.is_ready().then_some(()) }).await;
            assert!(ready.is_some(), "not ready again");
        }
        for client in &mut self.subscribers {
            client.expect_quiet().await;
        }
    }

    async fn expect_members(&mut self, users: &[&str]) {
        let (a, b) = self.world.pair();
        all_agree(&[a, b], &mut self.watchers, users, RECOVERY).await;
    }

    /// Presence works as before, and nothing of the failure is heard late.
    async fn expect_health(&mut self, members: &[&str]) {
        let (a, _) = self.world.pair();
        let mut newcomer = Client::connect_to(a, &self.app).await;
        newcomer.join("presence-a", "zz-new").await;
        let with: Vec<&str> = members.iter().copied().chain(["zz-new"]).collect();
        self.expect_members(&with).await;
        newcomer.leave().await;
        self.expect_members(members).await;
        for watcher in &mut self.watchers {
            watcher.expect_quiet().await;
        }
    }
}

#[tokio::test]
async fn a_redis_that_hangs_is_waited_out() {
    let mut scene = Scene::new().await;
    scene.redis.pause();
    scene.expect_absence().await;
    scene.redis.resume();
    scene.expect_return().await;
    scene.expect_health(&["on-a", "on-b"]).await;
}

#[tokio::test]
async fn a_redis_that_is_killed_and_comes_back_with_nothing_is_filled_again() {
    let mut scene = Scene::new().await;
    scene.redis.kill();
    scene.expect_absence().await;
    scene.redis.restart(Data::Lost);
    scene.expect_return().await;
    scene.expect_members(&["on-a", "on-b"]).await;
    scene.expect_health(&["on-a", "on-b"]).await;
}

#[tokio::test]
async fn a_redis_that_restarts_in_a_moment_costs_a_moment() {
    let mut scene = Scene::new().await;
    for _ in 0..3 {
        scene.redis.restart(Data::Lost);
        scene.expect_return().await;
        scene.expect_members(&["on-a", "on-b"]).await;
    }
    scene.expect_health(&["on-a", "on-b"]).await;
}

#[tokio::test]
async fn those_who_left_while_redis_was_away_are_removed_once_it_is_back() {
    let mut scene = Scene::new().await;
    let (a, b) = scene.world.pair();
    let mut leavers = Vec::new();
    for (node, user) in [(a, "leaves"), (b, "leaves"), (b, "stays"), (a, "stays")] {
        let mut client = Client::connect_to(node, &scene.app).await;
        client.join("presence-a", user).await;
        leavers.push(client);
    }
    scene.expect_members(&["leaves", "on-a", "on-b", "stays"]).await;
    scene.redis.pause();
    scene.expect_absence().await;
    // Both connections of one user, one of two of the other.
    for leaver in leavers.drain(..3) {
        leaver.leave().await;
    }
    scene.redis.resume();
    scene.expect_members(&["on-a", "on-b", "stays"]).await;
    scene.expect_health(&["on-a", "on-b", "stays"]).await;
}

#[tokio::test]
async fn a_subscription_asked_for_while_redis_is_away_is_answered_when_it_is_back() {
    let mut scene = Scene::new().await;
    let (a, _) = scene.world.pair();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::connect_to(a, &scene.app).await);
    }
    scene.redis.pause();
    scene.expect_absence().await;
    for (number, client) in clients.iter_mut().enumerate() {
        let member = format!(r#"{{"user_id":"late-{number}"}}"#);
        client.ask("presence-late", Some(&member)).await;
        client.ask("late", None).await;
    }
    scene.redis.resume();
    scene.expect_return().await;
    for client in &mut clients {
        let mut confirmed = 0;
        while confirmed < 2 {
            let event = client
                .next_within(RECOVERY)
                .await
                .expect("the subscription is confirmed");
            assert_ne!(event.name, "pusher:subscription_error", "{}", event.raw);
            confirmed += usize::from(event.name == "pusher_internal:subscription_succeeded");
        }
    }
    let (a, b) = scene.world.pair();
    let users = ["late-0", "late-1", "late-2", "late-3", "late-4"];
    all_list(&[a, b], &scene.app, "presence-late", &users, RECOVERY).await;
}

#[tokio::test]
async fn no_event_without_history_is_accepted_and_lost_when_commands_fail() {
    let mut scene = Scene::new().await;
    let (accepted, is_over) = (RefCell::new(Vec::new()), Cell::new(false));
    let publishers = (0..8).map(|own| {
        let (scene, accepted, is_over) = (&scene, &accepted, &is_over);
        async move {
            for number in 0.. {
                if is_over.get() {
                    break;
                }
                let data = format!("{own}:{number}");
                let answer = try_publish(&scene.world.nodes[own % 2], &scene.app, &data).await;
                assert!([200, 503].contains(&answer.status), "{}", answer.text());
                if answer.status == 200 {
                    accepted.borrow_mut().push(data);
                }
            }
        }
    });
    let trouble = async {
        for _ in 0..30 {
            let before = accepted.borrow().len();
            eventually("events are accepted", || async {
                (accepted.borrow().len() > before + 30).then_some(())
            })
            .await;
            // Ends the connections that carry commands, and leaves those that listen: what these have not read yet is
            // not to be lost with the others.
            scene.redis.ask::<i64>("CLIENT KILL TYPE normal");
        }
        is_over.set(true);
    };
    tokio::join!(futures_util::future::join_all(publishers), trouble);
    eventually("traffic flows again", || async {
        scene.world.nodes.iter().all(Node::is_ready).then_some(())
    })
    .await;
    let accepted = accepted.into_inner();
    let last = "the last";
    // A node may find out only now that its connections are gone.
    eventually("the last one is accepted", || async {
        let answer = try_publish(&scene.world.nodes[0], &scene.app, last).await;
        (answer.status == 200).then_some(())
    })
    .await;
    for client in &mut scene.subscribers {
        let mut heard = BTreeMap::new();
        loop {
            let event = client.expect("e").await;
            if event.text() == last {
                break;
            }
            *heard.entry(event.text().to_owned()).or_insert(0) += 1;
        }
        let lost: Vec<_> = accepted
            .iter()
            .filter(|data| !heard.contains_key(*data))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        heard.retain(|_, times| *times > 1);
        assert!(heard.is_empty(), "twice: {heard:?}");
    }
}

#[tokio::test]
async fn no_event_is_accepted_and_lost_while_redis_comes_and_goes() {
    // Without history, what Redis had taken and not yet passed on when it stopped may be lost.
    let mut scene = Scene::with(App::new(1).history("pub")).await;
    let mut accepted = Vec::new();
    for round in 0..4 {
        if round % 2 == 1 {
            scene.redis.pause();
            expect_refusal(&scene.world.nodes[0], &scene.app).await;
            scene.redis.resume();
        }
        for number in 0..50 {
            let data = format!("{round}:{number}");
            let answer = try_publish(&scene.world.nodes[number % 2], &scene.app, &data).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            if answer.status == 200 {
                accepted.push(data);
            }
        }
    }
    assert!(accepted.len() >= 100, "only {} were accepted", accepted.len());
    for client in &mut scene.subscribers {
        let mut heard = Vec::new();
        while heard.last() != accepted.last() {
            let event = client.next().await;
            // Beside the events, positions are told.
            if event.name == "e" {
                heard.push(event.text().to_owned());
            }
        }
        // A refused event may still have reached some; an accepted one reached everybody, once, in its place.
        heard.retain(|data| accepted.contains(data));
        let differs = heard
            .iter()
            .zip(&accepted)
            .position(|(heard, accepted)| heard != accepted);
        let from = differs.unwrap_or(0);
        assert!(
            heard == accepted,
            "{} accepted, {} heard; from {from}: accepted {:?}, heard {:?}",
            accepted.len(),
            heard.len(),
            &accepted[from..accepted.len().min(from + 9)],
            &heard[from..heard.len().min(from + 9)],
        );
    }
}
