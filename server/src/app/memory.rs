//! Giving memory back after a crowd has left.

/// A crowd: below this many what glibc keeps is not worth the walk through its arenas.
const CROWD: u64 = 1_000;

/// Decides, once a second, whether it is time to ask the allocator for what nobody uses any more.
pub struct Reclaim<F> {
    count: F,
    peak: u64,
    before: u64,
}

impl<F: Fn() -> u64> Reclaim<F> {
    /// `count`: how much there is now of what comes and goes.
    pub fn new(count: F) -> Self {
        Self {
            count,
            peak: 0,
            before: 0,
        }
    }

    /// Half of a crowd is gone and nobody went in the last second, so that one walk is enough. glibc keeps freed
    /// memory per thread, however much it is, unless told.
    pub fn tick(&mut self) {
        let now = (self.count)();
        self.peak = self.peak.max(now);
        let is_over = now <= self.peak / 2 && self.peak - now >= CROWD && now >= self.before;
        self.before = now;
        if is_over {
            self.peak = now;
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
