//! Coarse timers: one per worker, not one per connection.

/// Seconds that the wheel spans. What is due later is looked at again when the wheel has turned.
const SPAN_S: u32 = 256;

/// Entries by the second at which they are to be looked at. An entry is a hint: whoever is woken checks its own
/// deadline, and a connection that is gone is simply not found.
#[derive(Debug)]
pub struct Wheel<T> {
    buckets: Vec<Vec<T>>,
    now_s: u32,
}

impl<T> Wheel<T> {
    pub fn new(now_s: u32) -> Self {
        Self {
            buckets: (0..SPAN_S).map(|_| Vec::new()).collect(),
            now_s,
        }
    }

    /// To be woken at `at_s` or, if that is far away, somewhat earlier; never in the second that is now.
    pub fn insert(&mut self, at_s: u32, entry: T) {
        let at_s = at_s.clamp(self.now_s + 1, self.now_s + SPAN_S - 1);
        self.buckets[(at_s % SPAN_S) as usize].push(entry);
    }

    /// Turns to `now_s` and moves what is due into `due`.
    pub fn turn(&mut self, now_s: u32, due: &mut Vec<T>) {
        let steps = now_s.saturating_sub(self.now_s).min(SPAN_S);
        for step in 1..=steps {
            let second = now_s - steps + step;
            due.append(&mut std::mem::take(&mut self.buckets[(second % SPAN_S) as usize]));
        }
        self.now_s = self.now_s.max(now_s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_their_second_and_never_before() {
        let mut wheel = Wheel::new(10);
        for at_s in [5, 11, 12, 12, 300, 5000] {
            wheel.insert(at_s, at_s);
        }
        let mut turn = |now_s| {
            let mut due = Vec::new();
            wheel.turn(now_s, &mut due);
            due.sort_unstable();
            due
        };
        assert_eq!(turn(10), Vec::<u32>::new());
        assert_eq!(turn(11), [5, 11]);
        assert_eq!(turn(12), [12, 12]);
        assert_eq!(turn(264), Vec::<u32>::new());
        assert_eq!(turn(265), [300, 5000], "what is far away is looked at early");
        assert_eq!(turn(9999), Vec::<u32>::new());
    }
}
