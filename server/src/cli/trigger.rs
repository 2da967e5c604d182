//! `dunlin trigger`

use std::io::Read as _;

use serde_json::{Map, Value, json};

use super::api::Api;
use super::args::TriggerArgs;
use super::error::CliError;
use super::out::Out;
use super::target::Target;

/// Publishes one event; prints the counts when they were asked for.
pub(super) async fn run(args: &TriggerArgs, out: &mut Out) -> Result<(), CliError> {
    let target = Target::resolve(&args.target)?;
    let data = if args.data == "-" {
        standard_input()?
    } else {
        args.data.clone()
    };
    let answer = Api::new(&target)?.post("/events", &body(args, &data)).await?;
    if args.info.is_some() {
        out.line(&answer["channels"]);
    }
    Ok(())
}

fn body(args: &TriggerArgs, data: &str) -> Value {
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.event));
    body.insert("channels".to_owned(), json!([args.channel]));
    body.insert("data".to_owned(), json!(data));
    for (name, value) in [("socket_id", &args.socket_id), ("info", &args.info)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(body)
}

fn standard_input() -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(CliError::Input)?;
    Ok(text)
}
