//! Members of a presence channel by the dozen, each with a name and a number.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use dunlin_load::Target;

use super::subscriber::{Subscriber, Visitor};

/// So many visitors like `like`, on `channel` as `name-0`, `name-1` and so on.
pub(crate) fn crew(
    target: &Rc<Target>,
    like: &Visitor,
    channel: &str,
    name: &str,
    count: usize,
) -> Vec<Subscriber> {
    let visitor = |number| like.clone().on_as(channel, &format!("{name}-{number}"));
    (0..count).map(|number| visitor(number).start(target)).collect()
}

/// The users of crews with these names and sizes.
pub(crate) fn names(crews: &[(&str, usize)]) -> BTreeSet<String> {
    let of = |(name, count): &(&str, usize)| {
        let name = (*name).to_owned();
        (0..*count).map(move |number| format!("{name}-{number}"))
    };
    crews.iter().flat_map(of).collect()
}

/// How many announcements were wrong, over all who watched: users in `expected` not announced as added and removed so
/// often since `moment`, and others announced at all.
pub(crate) fn wrong_moves<'a>(
    watchers: impl Iterator<Item = &'a Subscriber>,
    channel: &str,
    moment: Instant,
    expected: &BTreeSet<String>,
    (added, removed): (u32, u32),
) -> usize {
    let of = |watcher: &Subscriber| {
        let channel = watcher.channel(channel);
        let moves = channel.moves_since(moment);
        let differ = expected
            .iter()
            .filter(|user| moves.get(user.as_str()) != Some(&(added, removed)));
        let others = moves.keys().filter(|user| !expected.contains(**user));
        differ.count() + others.count()
    };
    watchers.map(of).sum()
}

/// Ends of connections, over all of `subscribers`.
pub(crate) fn ends<'a>(subscribers: impl Iterator<Item = &'a Subscriber>) -> usize {
    subscribers.map(|one| one.record().ends.len()).sum()
}

/// Messages that contradict what came before or that nobody sends, over all of `subscribers`.
pub(crate) fn oddities<'a>(subscribers: impl Iterator<Item = &'a Subscriber>) -> Vec<String> {
    subscribers
        .flat_map(|one| one.record().oddities.clone())
        .collect()
}
