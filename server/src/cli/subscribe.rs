//! `dunlin subscribe`

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::args::SubscribeArgs;
use super::error::CliError;
use super::out::Out;
use super::socket::{Incoming, Socket};
use super::target::Target;

/// Prints events until enough have come, the time is over, or the connection ends.
pub(super) async fn run(args: &SubscribeArgs, out: &mut Out) -> Result<(), CliError> {
    let target = Target::resolve(&args.target)?;
    let printing = print(args, &target, out);
    match args.timeout {
        None => printing.await,
        Some(timeout) => timeout_at(Instant::now() + timeout, printing)
            .await
            .unwrap_or_else(|_| match args.count {
                None => Ok(()),
                Some(count) => Err(CliError::TimedOut(format!(
                    "{timeout:?} are over, and fewer than {count} events came"
                ))),
            }),
    }
}

async fn print(args: &SubscribeArgs, target: &Target, out: &mut Out) -> Result<(), CliError> {
    let mut socket = Socket::open(target).await?;
    let mut seen = 0;
    for channel in &args.channels {
        let channel_data = channel
            .starts_with("presence-")
            .then(|| channel_data(args))
            .transpose()?;
        let confirmation = socket.join(channel, channel_data.as_deref()).await?;
        out.complain(format_args!("subscribed to {channel}"));
        if args.all {
            out.line(line(&confirmation, args.json));
        }
    }
    while args.count.is_none_or(|count| seen < count) {
        let message = socket.next().await?;
        match message.event.as_str() {
            "pusher:error" => out.complain(format_args!("the server complains: {}", message.data_text())),
            event if is_wanted(args, event) => {
                out.line(line(&message, args.json));
                seen += 1;
            }
            _ => {}
        }
    }
    socket.close().await;
    Ok(())
}

fn is_wanted(args: &SubscribeArgs, event: &str) -> bool {
    if args.event.is_empty() {
        args.all || !event.starts_with("pusher")
    } else {
        args.event.iter().any(|wanted| wanted == event)
    }
}

fn line(message: &Incoming, is_json: bool) -> String {
    if is_json {
        return message.raw.clone();
    }
    format!(
        "{}\t{}\t{}",
        message.channel.as_deref().unwrap_or("-"),
        message.event,
        message.data_text()
    )
}

fn channel_data(args: &SubscribeArgs) -> Result<String, CliError> {
    let mut data = json!({"user_id": args.user_id});
    if let Some(info) = &args.user_info {
        let info: Value = serde_json::from_str(info)
            .map_err(|e| CliError::Usage(format!("--user-info is not JSON: {e}")))?;
        data["user_info"] = info;
    }
    Ok(data.to_string())
}
