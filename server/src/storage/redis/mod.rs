//! Redis: how it is reached, what everything in it is called, and the scripts that change it.
//!
//! Owns connections, names and scripts. Must never decide anything: what a script is told and what its answer means is
//! the business of `cluster`.

pub mod lane;
pub mod names;
pub mod scripts;
pub mod target;
