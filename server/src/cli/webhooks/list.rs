//! `dunlin webhooks list` and `dunlin webhooks show`

use super::args::{ListArgs, ShowArgs};
use super::platform::Platform;
use super::table;
use crate::cli::error::CliError;
use crate::cli::out::Out;

/// Deliveries that are read at a time: each brings its body along.
const PAGE: u32 = 100;

pub(super) async fn list(args: &ListArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let mut filter = args.filter();
    let mut left = args.limit;
    let mut is_first = true;
    while left > 0 {
        // One more than is printed says whether there are more.
        let count = left.min(PAGE);
        let found = platform.store.list(&filter, count + 1).await?;
        let page = &found[..found.len().min(count as usize)];
        if is_first && page.is_empty() {
            out.complain("nothing matches");
            return Ok(());
        }
        if is_first && !args.json {
            out.line(table::head());
        }
        is_first = false;
        for delivery in page {
            if args.json {
                out.line(table::json(delivery));
            } else {
                out.line(table::line(delivery));
            }
        }
        if found.len() == page.len() {
            return Ok(());
        }
        left -= count;
        filter.before_seq = page.last().map(|last| last.seq);
    }
    out.complain(format_args!(
        "these are the latest {}: there are more, see --limit",
        args.limit
    ));
    Ok(())
}

/// The facts, the attempts, and behind an empty line the body as it is sent.
pub(super) async fn show(args: &ShowArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let Some((delivery, attempts)) = platform.store.get(&args.id).await? else {
        return Err(CliError::Missing(format!(
            "there is no delivery {}: it never was, or it was forgotten",
            args.id
        )));
    };
    if args.json {
        out.line(table::json_in_full(&delivery, &attempts));
        return Ok(());
    }
    for line in table::details(&delivery, &attempts) {
        out.line(line);
    }
    out.line("");
    out.line(&delivery.body);
    Ok(())
}
