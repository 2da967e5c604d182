//! What customers are told of their channels, as their endpoints receive it.

mod answers;
mod asking;
mod commands;
mod crashes;
mod events;
mod failures;
mod managed;
mod numbers;
mod options;
mod receiver;
mod yalgaar;

use self::receiver::{Receiver, Request};
use crate::world::{App, World};
use serde_json::{Value, json};

/// The section: endpoints on this machine are allowed, it is soon told what has gone, and attempts follow these pauses.
fn attempts(pauses_ms: &[u64]) -> String {
    format!(
        "[webhooks]\nallow_networks = [\"127.0.0.1/32\"]\nsettle_ms = 300\nretry_schedule_ms = {pauses_ms:?}"
    )
}

/// The section where nothing takes as long as customers would like it.
fn quick() -> String {
    attempts(&[0, 20, 50, 50, 50, 50, 50, 50, 50, 50, 50, 50])
}

/// An endpoint that does not wait for company.
fn endpoint(url: &str) -> String {
    format!("url = \"{url}\"\nformat = \"pusher\"\nbatch_ms = 0\n")
}

/// An endpoint that is told of every message.
fn messages(url: &str, batching: &str) -> String {
    format!("format = \"yalgaar\"\nmessage_url = \"{url}\"\n{batching}\n")
}

fn world(app: &App) -> World {
    World::builder().config(&quick()).app(app).start()
}

/// An app with one endpoint of the Pusher format, and its world.
fn scene(receiver: &Receiver, more: &str) -> (World, App) {
    let lines = endpoint(&receiver.url("/hook")) + more;
    let app = App::new(1).webhook(&lines);
    (world(&app), app)
}

/// Of a request in the Pusher format.
fn events(request: &Request) -> Vec<Value> {
    let events = request.json()["events"].take();
    events.as_array().expect("events are a list").clone()
}

/// Of a request in the Yalgaar format.
fn items(request: &Request) -> Vec<Value> {
    let data = request.json()["items"]["data"].take();
    data.as_array().expect("data is a list").clone()
}

/// Of a request with messages that are numbers: each with its channel, in their order.
fn numbered(request: &Request) -> Vec<(String, usize)> {
    let text = |item: &Value, name: &str| item[name].as_str().expect("a text").to_owned();
    let number = |item: &Value| text(item, "message").parse().expect("a number");
    let items = items(request);
    items
        .iter()
        .map(|item| (text(item, "channel"), number(item)))
        .collect()
}

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}
