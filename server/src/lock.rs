//! The one way to take a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Poison is no reason to stop: it says that another thread panicked while it held the lock, and what is changed under
/// ours are plain data that are right after each assignment.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
