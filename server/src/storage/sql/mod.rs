//! The SQL database: a SQLite file of this machine, or a PostgreSQL that several nodes share.
//!
//! Both are asked in the same words, through sqlx's `Any`. What these can hold decides the form of every column: numbers
//! are 64 bits with a sign ([`number`], [`from_number`]), flags 0 or 1, times Unix milliseconds, JSON is text. Placeholders are
//! `$1`, `$2`, …, and each takes its type from the value that is bound to it. Where the two differ, [`Database`] has the
//! word. The tables are in `server/migrations`, a folder for each, with the same files.
//!
//! Start reading at `database.rs`.

mod database;
#[cfg(test)]
pub(crate) mod scratch;
mod target;
#[cfg(test)]
mod tests;

pub use database::{Database, Fault, Locking, OpenError};
pub use target::{BadTarget, Target};

/// As SQL knows it. No time and no count of ours comes near the bound.
pub fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// The opposite of [`number`].
pub fn from_number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Whether a statement about so many rows is prepared once for each connection and kept there. Each number of rows makes
/// another statement: the small ones come again and again, and of the others there would be too many to keep.
pub fn is_kept(rows: usize) -> bool {
    rows <= 8
}

/// The placeholders of `rows` rows with `columns` columns, behind `before` others: `($3, $4), ($5, $6)`.
pub fn placeholders(before: usize, rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let first = before + row * columns + 1;
        let names: Vec<String> = (first..first + columns).map(|n| format!("${n}")).collect();
        format!("({})", names.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}
