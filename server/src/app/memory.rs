//! Giving memory back after a crowd has left.

use std::sync::Arc;

use crate::hub::Hub;

/// A crowd: below this many connections what glibc keeps is not worth the walk through its arenas.
const CROWD: u64 = 1_000;

/// Decides, once a second, whether it is time to ask the allocator for what nobody uses any more.
#[derive(Debug)]
pub struct Reclaim {
    hub: Arc<Hub>,
    peak: u64,
    before: u64,
}

impl Reclaim {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            peak: 0,
            before: 0,
        }
    }

    /// Half of a crowd is gone and nobody went in the last second, so that one walk is enough. glibc keeps freed
    /// memory per thread, however much it is, unless told.
    pub fn tick(&mut self) {
        let open = self.hub.open_connections();
        self.peak = self.peak.max(open);
        let is_over = open <= self.peak / 2 && self.peak - open >= CROWD && open >= self.before;
        self.before = open;
        if is_over {
            self.peak = open;
            // Takes milliseconds and each arena's lock for a part of them: not on a thread that serves.
            drop(
                std::thread::Builder::new()
                    .name("reclaim".to_owned())
                    .spawn(give_back),
            );
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "glibc's malloc_trim has no safe binding; it is the only call of its kind here"
)]
fn give_back() {
    // SAFETY: takes a number, touches only the allocator's own free memory, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
