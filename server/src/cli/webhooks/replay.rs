//! `dunlin webhooks replay`

use super::args::ReplayArgs;
use super::platform::Platform;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::clock;

/// Makes deliveries pending; whichever server works on the database sends them.
pub(super) async fn run(args: &ReplayArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let count = platform
        .store
        .replay(&args.filter(), clock::unix_millis())
        .await?;
    match (count, &args.id) {
        (0, Some(id)) => Err(CliError::Missing(format!("there is no delivery {id}"))),
        (0, None) => Err(CliError::Missing("nothing matches".to_owned())),
        (1, _) => {
            out.line("1 delivery will be sent again");
            Ok(())
        }
        (count, _) => {
            out.line(format_args!("{count} deliveries will be sent again"));
            Ok(())
        }
    }
}
