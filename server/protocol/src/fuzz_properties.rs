//! Assertions that hold for every input.
