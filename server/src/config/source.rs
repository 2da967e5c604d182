//! Where a value came from, and what is wrong with it.

use std::fmt;

/// Where the value of an option came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The compiled-in `default.toml`.
    Default,
    /// A line of a file.
    File {
        /// The path as it was given.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Env(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}, line {line}"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong: with which option, where it was said, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Dotted path of the option, for example `sockets.outbox_bytes`; empty when it is about none in particular.
    pub option: String,
    /// Where its value came from, when it has one.
    pub origin: Option<Origin>,
    /// What is wrong, as the rest of a sentence. Never holds a secret.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.option.is_empty() {
            write!(f, "{}", self.option)?;
            if let Some(origin) = &self.origin {
                write!(f, " ({origin})")?;
            }
            f.write_str(": ")?;
        } else if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// The candidate most like `name`, if one is close enough to have been meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2 + name.len() / 8)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in bytes; good enough for option names, which are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_option_and_nonsense_finds_none() {
        let options = ["sockets.outbox_bytes", "server.port", "server.host"];
        assert_eq!(
            nearest("sockets.outbox_byte", options.into_iter()),
            Some("sockets.outbox_bytes")
        );
        assert_eq!(nearest("server.prot", options.into_iter()), Some("server.port"));
        assert_eq!(nearest("something.else", options.into_iter()), None);
    }
}
