//! The generator against a small server that errs on purpose: a tool that cannot see a loss proves nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a stand-in server that cannot go on has nothing better to say"
)]

mod stand_in;

use std::time::Duration;

use dunlin_load::scenario::{Churn, ClientEvents, Fanout, Idle, Presence, Publish};
use dunlin_load::{Effort, Pace, Report, Scenario};

use stand_in::{Vice, start};

const EFFORT: Effort = Effort {
    measure: Duration::from_millis(100),
    max_messages: 200,
    floor_rounds: 1,
    patience: Duration::from_millis(300),
};

fn run(vice: Vice, scenario: &Scenario) -> Report {
    dunlin_load::run(&start(vice), "test", scenario, &EFFORT).unwrap()
}

const FANOUT: Scenario = Scenario::Fanout(Fanout {
    channels: 1,
    subscribers: 3,
    pace: Pace::FullSpeed,
});
const PRESENCE: Scenario = Scenario::Presence(Presence {
    users: 20,
    in_flight: 4,
});

#[test]
fn a_faultless_server_has_a_clean_report_with_every_figure() {
    let report = run(Vice::None, &FANOUT);
    assert!(report.is_clean(), "{}", report.text());
    assert!(
        report.units > 0 && report.units.is_multiple_of(3),
        "{}",
        report.text()
    );
    assert!(report.times_floor().unwrap() > 0.0);
    assert!(report.latency.unwrap().p50_us > 0.0);
}

#[test]
fn many_channels_and_a_fixed_rate_are_clean_too() {
    let report = run(
        Vice::None,
        &Scenario::Fanout(Fanout {
            channels: 4,
            subscribers: 2,
            pace: Pace::PerSecond(200),
        }),
    );
    assert!(report.is_clean(), "{}", report.text());
    assert!(
        (2..=42).contains(&report.units),
        "100 ms at 200/s to two: {}",
        report.text()
    );
}

#[test]
fn a_lost_message_is_lost() {
    let report = run(Vice::Loses, &FANOUT);
    assert!(report.lost > 0, "{}", report.text());
    assert_eq!(report.duplicated, 0);
}

#[test]
fn a_repeated_message_is_duplicated() {
    let report = run(Vice::Repeats, &FANOUT);
    assert!(report.duplicated > 0, "{}", report.text());
    assert_eq!((report.lost, report.misordered), (0, 0));
}

#[test]
fn a_late_message_is_misordered() {
    let report = run(Vice::Swaps, &FANOUT);
    assert!(report.misordered > 0, "{}", report.text());
    assert_eq!(report.duplicated, 0);
    // The very last message may be the late one, with none after it to let it go.
    assert!(report.lost <= 1, "{}", report.text());
}

#[test]
fn client_events_reach_the_others_and_not_their_sender() {
    let scenario = Scenario::ClientEvents(ClientEvents {
        receivers: 3,
        pace: Pace::FullSpeed,
    });
    let report = run(Vice::None, &scenario);
    assert!(report.is_clean() && report.units > 0, "{}", report.text());
}

#[test]
fn views_are_exact_when_joins_and_leaves_are_told_once() {
    let report = run(Vice::None, &PRESENCE);
    assert!(report.is_clean(), "{}", report.text());
    assert_eq!(report.units, 20);
}

#[test]
fn a_member_told_of_twice_makes_views_wrong() {
    let report = run(Vice::AddsTwice, &PRESENCE);
    assert!(
        report.faults.iter().any(|fault| fault.contains("wrong view")),
        "{}",
        report.text()
    );
}

#[test]
fn publishing_goes_on_over_a_server_that_closes_after_each_answer() {
    let scenario = Scenario::Publish(Publish {
        connections: 2,
        events_per_request: 1,
    });
    let report = run(Vice::ForgetsKeepAlive, &scenario);
    assert!(report.units > 2, "{}", report.text());
    assert!(
        report.remarks.iter().any(|remark| remark.contains("closed")),
        "{}",
        report.text()
    );
}

#[test]
fn a_refused_publish_ends_the_run_with_the_servers_words() {
    let scenario = Scenario::Publish(Publish {
        connections: 2,
        events_per_request: 10,
    });
    let error = dunlin_load::run(&start(Vice::Refuses), "test", &scenario, &EFFORT).unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
}

#[test]
fn idle_connections_and_visitors_are_counted() {
    // Without a process there is no memory to wait for.
    let mut target = start(Vice::None);
    target.nodes[0].pid = None;
    let idle = Scenario::Idle(Idle {
        connections: 30,
        hold: Duration::from_millis(50),
    });
    let idle = dunlin_load::run(&target, "test", &idle, &EFFORT).unwrap();
    assert!(idle.is_clean(), "{}", idle.text());
    assert_eq!((idle.units, idle.cpu_us_per_unit), (30, None));
    let churn = Scenario::Churn(Churn {
        idle: 5,
        per_second: 20,
        duration: Duration::from_secs(1),
    });
    let churn = dunlin_load::run(&target, "test", &churn, &EFFORT).unwrap();
    assert!(churn.is_clean(), "{}", churn.text());
    assert_eq!(churn.units, 20);
}

#[test]
fn a_server_elsewhere_is_left_alone() {
    let mut target = start(Vice::None);
    target.nodes[0].addr = "192.0.2.1:80".parse().unwrap();
    let error = dunlin_load::run(&target, "test", &FANOUT, &EFFORT).unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}
