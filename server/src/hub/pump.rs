//! What drives a shard: one task per worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::shard::Shard;

const TICK: Duration = Duration::from_secs(1);

/// Starts the shard's pump on this thread. Should a turn ever panic, the pump goes on with the next: one bad message
/// must not silence a worker's every connection.
pub fn start(shard: &Rc<RefCell<Shard>>) {
    let shard = Rc::clone(shard);
    tokio::task::spawn_local(async move {
        loop {
            let pump = tokio::task::spawn_local(run(Rc::clone(&shard)));
            if let Err(error) = pump.await {
                if error.is_cancelled() {
                    return;
                }
                tracing::error!(%error, "a fan-out panicked; going on");
            }
        }
    });
}

async fn run(shard: Rc<RefCell<Shard>>) {
    let (hub, worker) = {
        let shard = shard.borrow();
        (shard.hub().clone(), shard.worker())
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = hub.mailbox(worker).filled() => {}
            _ = ticks.tick() => shard.borrow_mut().tick(),
        }
        // Between two chunks the worker's other tasks run, its own publishers among them: what they publish joins
        // what still waits. That is why full speed costs less per delivery, not more.
        while shard.borrow_mut().turn() {
            tokio::task::yield_now().await;
        }
    }
}
