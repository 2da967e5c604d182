//! The key of a channel: hashed once per message, compared cheaply, used by every map in the process.

use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use dunlin_protocol::names::ChannelName;
use hashbrown::{DefaultHashBuilder, HashTable};

/// The number of an app inside this process. Small and dense, where an id is a text; it means nothing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppNum(pub u32);

/// Seeded at start, so that nobody outside can choose names that collide.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// A channel of an app.
#[derive(Debug)]
pub struct ChannelKey {
    hash: u64,
    app: AppNum,
    name: ChannelName,
}

impl ChannelKey {
    pub fn new(app: AppNum, name: ChannelName) -> Arc<Self> {
        let hash = HASHER.hash_one((app, name.as_str()));
        Arc::new(Self { hash, app, name })
    }

    pub fn app(&self) -> AppNum {
        self.app
    }

    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    /// The same key, borrowed, for a look-up.
    pub fn borrowed(&self) -> KeyRef<'_> {
        KeyRef {
            hash: self.hash,
            app: self.app,
            name: self.name.as_str(),
        }
    }
}

/// What a look-up needs: no allocation, and the hash is computed once however many maps are asked.
#[derive(Clone, Copy, Debug)]
pub struct KeyRef<'a> {
    hash: u64,
    app: AppNum,
    name: &'a str,
}

impl<'a> KeyRef<'a> {
    pub fn new(app: AppNum, name: &'a str) -> Self {
        Self {
            hash: HASHER.hash_one((app, name)),
            app,
            name,
        }
    }

    /// Which of `stripes` (a power of two) this channel belongs to. Uses the upper half of the hash:
    /// the lower bits choose the bucket inside the stripe's table.
    pub fn stripe(self, stripes: usize) -> usize {
        usize::try_from(self.hash >> 40).unwrap_or_default() & (stripes - 1)
    }

    fn is(self, key: &ChannelKey) -> bool {
        key.hash == self.hash && key.app == self.app && key.name.as_str() == self.name
    }
}

/// A map from channels to `V`.
#[derive(Debug)]
pub struct ChannelMap<V> {
    table: HashTable<(Arc<ChannelKey>, V)>,
}

impl<V> Default for ChannelMap<V> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
        }
    }
}

impl<V> ChannelMap<V> {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn get(&self, key: KeyRef<'_>) -> Option<&V> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The stored key and the value, for a caller that has only borrowed the name.
    pub fn entry(&self, key: KeyRef<'_>) -> Option<(&Arc<ChannelKey>, &V)> {
        self.table
            .find(key.hash, |(stored, _)| key.is(stored))
            .map(|(stored, value)| (stored, value))
    }

    pub fn get_mut(&mut self, key: KeyRef<'_>) -> Option<&mut V> {
        self.table
            .find_mut(key.hash, |(stored, _)| key.is(stored))
            .map(|(_, value)| value)
    }

    pub fn get_or_insert_with(&mut self, key: &Arc<ChannelKey>, value: impl FnOnce() -> V) -> &mut V {
        let wanted = key.borrowed();
        let entry = self.table.entry(
            key.hash,
            |(stored, _)| wanted.is(stored),
            |(stored, _)| stored.hash,
        );
        &mut entry.or_insert_with(|| (Arc::clone(key), value())).into_mut().1
    }

    pub fn remove(&mut self, key: KeyRef<'_>) -> Option<V> {
        let found = self
            .table
            .find_entry(key.hash, |(stored, _)| key.is(stored))
            .ok()?;
        let ((_, value), _) = found.remove();
        self.shrink();
        Some(value)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&Arc<ChannelKey>, &mut V) -> bool) {
        self.table.retain(|(key, value)| keep(key, value));
        self.shrink();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<ChannelKey>, &V)> {
        self.table.iter().map(|(key, value)| (key, value))
    }

    /// Gives memory back once a crowd has left; at most every halving, so that it costs nothing per removal.
    fn shrink(&mut self) {
        if self.table.capacity() > 64 && self.table.len() < self.table.capacity() / 4 {
            self.table
                .shrink_to(self.table.len() * 2, |(stored, _)| stored.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(app: u32, name: &str) -> Arc<ChannelKey> {
        ChannelKey::new(AppNum(app), name.parse().unwrap())
    }

    #[test]
    fn the_same_name_in_two_apps_is_two_channels() {
        let mut map = ChannelMap::default();
        *map.get_or_insert_with(&key(1, "a"), || 0) = 1;
        *map.get_or_insert_with(&key(2, "a"), || 0) = 2;
        assert_eq!(map.get(KeyRef::new(AppNum(1), "a")), Some(&1));
        assert_eq!(map.get(KeyRef::new(AppNum(2), "a")), Some(&2));
        assert_eq!(map.remove(KeyRef::new(AppNum(1), "a")), Some(1));
        assert_eq!(map.get(KeyRef::new(AppNum(1), "a")), None);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn memory_is_given_back_when_a_crowd_leaves() {
        let mut map = ChannelMap::default();
        let keys: Vec<_> = (0..10_000).map(|n| key(1, &format!("c{n}"))).collect();
        for key in &keys {
            map.get_or_insert_with(key, || ());
        }
        for key in &keys {
            map.remove(key.borrowed());
        }
        assert!(map.is_empty());
        assert!(
            map.table.capacity() <= 128,
            "still room for {}",
            map.table.capacity()
        );
    }
}
