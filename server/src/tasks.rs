//! Background tasks with an owner that ends them. A leaf.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of one owner. Dropping it leaves them running; [`Tasks::stop`] ends and joins them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `future` until it ends or [`Tasks::stop`] is called, whichever is first.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let task = tokio::spawn(self.tracker.track_future(async move {
            let _ = stop.run_until_cancelled_owned(future).await;
            tracing::trace!(task = name, "task ended");
        }));
        drop(task);
    }

    /// Calls `tick` every `period` until stopped. A tick that was missed is skipped, not made up for.
    pub fn every(&self, name: &'static str, period: Duration, mut tick: impl FnMut() + Send + 'static) {
        self.spawn(name, async move {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                interval.tick().await;
                tick();
            }
        });
    }

    /// Ends all tasks and waits until they are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
