//! `dunlin channels` and `dunlin users`

use serde_json::Value;

use super::api::Api;
use super::args::{ChannelsArgs, ChannelsCommand, ListArgs, ShowArgs, UsersArgs};
use super::error::CliError;
use super::out::Out;
use super::sign::escape;
use super::target::Target;

pub(super) async fn run(args: &ChannelsArgs, out: &mut Out) -> Result<(), CliError> {
    match &args.command {
        None => list(&args.list, out).await,
        Some(ChannelsCommand::Show(args)) => show(args, out).await,
    }
}

/// A line per channel, with the counts that were asked for.
async fn list(args: &ListArgs, out: &mut Out) -> Result<(), CliError> {
    let target = Target::resolve(&args.target)?;
    let mut parameters = Vec::new();
    parameters.extend(args.prefix.as_deref().map(|prefix| ("filter_by_prefix", prefix)));
    parameters.extend(args.info.as_deref().map(|info| ("info", info)));
    let answer = Api::new(&target)?.get("/channels", &parameters).await?;
    let Some(channels) = answer["channels"].as_object() else {
        return Ok(());
    };
    let mut lines: Vec<String> = channels
        .iter()
        .map(|(name, counts)| with_counts(name, counts))
        .collect();
    lines.sort_unstable();
    for line in lines {
        out.line(line);
    }
    Ok(())
}

async fn show(args: &ShowArgs, out: &mut Out) -> Result<(), CliError> {
    let target = Target::resolve(&args.target)?;
    let is_presence = args.channel.starts_with("presence-");
    let counts = if is_presence {
        "user_count,subscription_count"
    } else {
        "subscription_count"
    };
    let info = args.info.as_deref().unwrap_or(counts);
    let path = format!("/channels/{}", escape(&args.channel));
    let answer = Api::new(&target)?.get(&path, &[("info", info)]).await?;
    out.line(with_counts(&args.channel, &answer));
    Ok(())
}

/// A line per user.
pub(super) async fn users(args: &UsersArgs, out: &mut Out) -> Result<(), CliError> {
    let target = Target::resolve(&args.target)?;
    let path = format!("/channels/{}/users", escape(&args.channel));
    let answer = Api::new(&target)?.get(&path, &[]).await?;
    for user in answer["users"].as_array().into_iter().flatten() {
        out.line(text(&user["id"]));
    }
    Ok(())
}

fn with_counts(name: &str, counts: &Value) -> String {
    let mut line = name.to_owned();
    for (attribute, value) in counts.as_object().into_iter().flatten() {
        line.push('\t');
        line.push_str(attribute);
        line.push('=');
        line.push_str(&text(value));
    }
    line
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_channel_is_a_line_with_its_counts_behind_tabs() {
        assert_eq!(with_counts("a", &json!({})), "a");
        assert_eq!(
            with_counts("a", &json!({"occupied": true, "user_count": 3})),
            "a\toccupied=true\tuser_count=3"
        );
    }
}
