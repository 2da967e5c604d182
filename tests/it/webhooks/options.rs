//! That the options of an endpoint, and those of the section, do what they say.

use super::asking::{listed, webhooks};
use super::receiver::{Receiver, Reply};
use super::{endpoint, messages, occupied, quick, world};
use crate::cli::{dunlin, run};
use crate::client::Client;
use crate::world::{App, World, eventually};

#[test]
fn what_is_not_configured_is_as_promised() {
    let (code, out, err) = run(&mut dunlin(&["config", "show"]));
    assert_eq!(code, Some(0), "{err}");
    let config: toml::Table = out.parse().expect("it has the form of a configuration file");
    let (second, minute, hour, day) = (1000, 60_000, 3_600_000, 86_400);
    for (option, expected) in [
        ("deliver", true.into()),
        ("settle_ms", (3 * second).into()),
        ("timeout_ms", (10 * second).into()),
        ("retain_dead_s", (30 * day).into()),
        ("disable_after_s", (5 * day).into()),
        ("allow_networks", toml::Value::Array(Vec::new())),
        (
            "retry_schedule_ms",
            vec![
                0,
                5 * second,
                30 * second,
                2 * minute,
                10 * minute,
                30 * minute,
                2 * hour,
                5 * hour,
                10 * hour,
                10 * hour,
            ]
            .into(),
        ),
    ] {
        assert_eq!(config["webhooks"][option], expected, "{option}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_off_is_told_nothing() {
    let mut receiver = Receiver::start();
    let off = endpoint(&receiver.url("/off")) + "enabled = false\nid = \"off\"\n";
    let app = App::new(1).webhook(&off).webhook(&endpoint(&receiver.url("/on")));
    let world = world(&app);
    let mut client = Client::connect(&world, &app).await;
    for channel in ["a", "b"] {
        client.subscribe(channel).await;
        let request = receiver.next().await;
        assert_eq!(
            (&*request.path, super::events(&request)),
            ("/on", vec![occupied(channel)])
        );
    }
    assert!(
        listed(&world, &["--endpoint", "off"]).await.is_empty(),
        "nor is anything kept for it"
    );
    let (_, list, _) = webhooks(&world, &["endpoints"]).await;
    assert!(
        list.lines()
            .any(|line| line.contains(" off  ") && line.contains("/off")),
        "{list}"
    );
}

#[tokio::test]
async fn a_request_that_is_full_waits_for_nothing_and_no_request_has_more() {
    // Longer than the test takes.
    for (size, count) in [(1, 4), (3, 7)] {
        let mut receiver = Receiver::start();
        let lines = messages(
            &receiver.url("/"),
            &format!("batch_ms = 60000\nbatch_size = {size}"),
        );
        let app = App::new(1).webhook(&lines);
        let world = world(&app);
        for number in 0..count {
            world.publish(&app, "pub", "event", &number.to_string()).await;
        }
        for first in (0..count - count % size).step_by(size) {
            let numbers: Vec<_> = super::numbered(&receiver.next().await)
                .into_iter()
                .map(|(_, number)| number)
                .collect();
            assert_eq!(numbers, (first..first + size).collect::<Vec<_>>());
        }
        assert!(receiver.so_far().is_empty(), "what is left waits for company");
    }
}

#[tokio::test]
async fn an_endpoint_and_an_app_have_so_many_requests_under_way_and_no_more() {
    const CHANNELS: usize = 12;
    for (config, expected) in [
        ("max_in_flight_per_endpoint = 3", 3),
        // Half is left for whoever else may come.
        ("max_in_flight = 8\nmax_in_flight_per_endpoint = 8", 4),
    ] {
        let mut hanging = Receiver::with(|_| Reply::Never);
        let mut healthy = Receiver::start();
        let one_each = |receiver: &Receiver| messages(&receiver.url("/"), "batch_ms = 0\nbatch_size = 1");
        let [busy, other] =
            [(1, &hanging), (2, &healthy)].map(|(id, receiver)| App::new(id).webhook(&one_each(receiver)));
        let world = World::builder()
            .config(&format!("{}\n{config}", quick()))
            .app(&busy)
            .app(&other)
            .only_one_node("each node has places of its own")
            .start();
        for number in 0..CHANNELS {
            world
                .publish(&busy, &format!("c-{number}"), "event", "data")
                .await;
        }
        for _ in 0..expected {
            hanging.next().await;
        }
        eventually("all of it waits", || async {
            (listed(&world, &["--app", "1", "--state", "pending"]).await.len() == CHANNELS).then_some(())
        })
        .await;
        // Whatever else could be sent, would be sent before this.
        for number in 0..CHANNELS {
            world
                .publish(&other, &format!("c-{number}"), "event", "data")
                .await;
            healthy.next().await;
        }
        assert!(hanging.so_far().is_empty(), "{config}");
    }
}
