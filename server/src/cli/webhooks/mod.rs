//! `dunlin webhooks`: who is told, what was delivered, what was not, and how to send it again.
//!
//! Works on the database of the configuration, and so also while no server runs.

pub(super) mod args;
mod endpoints;
mod list;
mod listen;
mod manage;
mod platform;
mod replay;
mod settings;
mod table;
mod test_send;
mod verify;

use super::error::CliError;
use super::out::Out;
use args::WebhooksCommand;
use platform::Platform;

pub(super) async fn run(command: &WebhooksCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        WebhooksCommand::List(args) => list::list(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Show(args) => list::show(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Replay(args) => replay::run(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Listen(args) => listen::run(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Endpoints(args) => {
            endpoints::list(args, &Platform::open(&args.store).await?, out).await
        }
        WebhooksCommand::Add(args) => manage::add(args, out).await,
        WebhooksCommand::Set(args) => {
            manage::set(args, &Platform::open(&args.endpoint.store).await?, out).await
        }
        WebhooksCommand::Rotate(args) => {
            manage::rotate(args, &Platform::open(&args.endpoint.store).await?, out).await
        }
        WebhooksCommand::Remove(args) => manage::remove(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Disable(args) => {
            manage::disable(args, &Platform::open(&args.store).await?, out).await
        }
        WebhooksCommand::Enable(args) => manage::enable(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Test(args) => test_send::run(args, &Platform::open(&args.store).await?, out).await,
        WebhooksCommand::Verify(args) => verify::run(args, out),
    }
}
