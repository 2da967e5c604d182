//! What of an app's life somebody outside wants to know.

use std::sync::atomic::{AtomicU8, Ordering};

/// Asked on every publish and join, so it is one load. Kept by whoever knows the app's webhook endpoints.
#[derive(Debug, Default)]
pub struct Wanted(AtomicU8);

/// A kind of news, or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News(u8);

impl News {
    pub const NONE: Self = Self(0);
    /// Channels that come and go, members, counts, misses of the cache.
    pub const STATE: Self = Self(1);
    /// Every subscription of every connection.
    pub const BINDS: Self = Self(2);
    pub const CLIENT_EVENTS: Self = Self(4);
    /// Every event that is published, also by clients.
    pub const MESSAGES: Self = Self(8);

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Wanted {
    /// Whether any of these is wanted.
    pub fn any(&self, news: News) -> bool {
        self.0.load(Ordering::Relaxed) & news.0 != 0
    }

    pub fn set(&self, news: News) {
        self.0.store(news.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_what_was_set_last() {
        let wanted = Wanted::default();
        assert!(!wanted.any(News::STATE.and(News::MESSAGES)));
        wanted.set(News::STATE.and(News::BINDS));
        assert!(wanted.any(News::STATE) && wanted.any(News::MESSAGES.and(News::BINDS)));
        assert!(!wanted.any(News::MESSAGES.and(News::CLIENT_EVENTS)));
        wanted.set(News::NONE);
        assert!(!wanted.any(News::STATE));
    }
}
