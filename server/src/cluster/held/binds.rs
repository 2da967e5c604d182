//! Whom webhooks tell to be bound to a channel, where they do.

use std::collections::HashMap;
use std::mem;

use dunlin_protocol::names::UserId;

/// The connections of each who is bound here, and what of it Redis has to be told.
#[derive(Debug, Default)]
pub(super) struct Binds {
    connections: HashMap<UserId, u32>,
    /// How many connections there were after each change that is not said yet. The outside is told of each change, also
    /// of those that undo each other.
    unsaid: Vec<(UserId, u32)>,
}

impl Binds {
    pub(super) fn bind(&mut self, uuid: &UserId) {
        let connections = self.connections.entry(uuid.clone()).or_default();
        *connections += 1;
        self.unsaid.push((uuid.clone(), *connections));
    }

    /// Who was never bound, because nobody wanted to know when it came, is not unbound.
    pub(super) fn unbind(&mut self, uuid: &UserId) {
        if let Some(connections) = self.one_less(uuid) {
            self.unsaid.push((uuid.clone(), connections));
        }
    }

    /// The connection was not let in, after it was asked for: nobody was told of it.
    pub(super) fn refuse(&mut self, uuid: &UserId) {
        self.one_less(uuid);
        for (_, connections) in self.unsaid.iter_mut().filter(|(other, _)| other == uuid) {
            *connections = connections.saturating_sub(1);
        }
    }

    /// Those that are left.
    fn one_less(&mut self, uuid: &UserId) -> Option<u32> {
        let connections = self.connections.get_mut(uuid)?;
        *connections -= 1;
        let left = *connections;
        if left == 0 {
            self.connections.remove(uuid);
        }
        Some(left)
    }

    /// What is said next, in order: so many connections of each. `full`: of all who are bound.
    pub(super) fn say(&mut self, full: bool) -> Vec<(UserId, u32)> {
        let unsaid = mem::take(&mut self.unsaid);
        if full {
            let all = self.connections.iter();
            return all
                .map(|(uuid, connections)| (uuid.clone(), *connections))
                .collect();
        }
        unsaid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(said: &[(&str, u32)]) -> Vec<(UserId, u32)> {
        said.iter()
            .map(|(uuid, connections)| (uuid.parse().unwrap(), *connections))
            .collect()
    }

    /// `+a` binds, `-a` unbinds, `!a` refuses.
    fn after(steps: &str) -> Binds {
        let mut binds = Binds::default();
        apply(&mut binds, steps);
        binds
    }

    fn apply(binds: &mut Binds, steps: &str) {
        for step in steps.split_whitespace() {
            let (what, uuid) = step.split_at(1);
            let uuid = uuid.parse().unwrap();
            match what {
                "+" => binds.bind(&uuid),
                "-" => binds.unbind(&uuid),
                _ => binds.refuse(&uuid),
            }
        }
    }

    #[test]
    fn each_change_is_said_once_and_in_order() {
        for (steps, said) in [
            ("", &[][..]),
            ("+a +b +a", &[("a", 1), ("b", 1), ("a", 2)]),
            ("+a -a +a", &[("a", 1), ("a", 0), ("a", 1)]),
            ("-a", &[]),
            ("+a -a -a", &[("a", 1), ("a", 0)]),
        ] {
            let mut binds = after(steps);
            assert_eq!(binds.say(false), ids(said), "{steps}");
            assert_eq!(binds.say(false), []);
        }
    }

    #[test]
    fn everything_is_who_is_bound_now() {
        let mut binds = after("+a +b +a -b");
        assert_eq!(binds.say(true), ids(&[("a", 2)]));
        assert_eq!(binds.say(false), []);
    }

    #[test]
    fn who_was_refused_is_not_counted_with_those_who_came_later() {
        let mut binds = after("+a");
        assert_eq!(binds.say(false), ids(&[("a", 1)]));
        apply(&mut binds, "+a !a");
        assert_eq!(binds.say(false), ids(&[("a", 1)]));
    }
}
