//! Which database, from its URL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use sqlx::any::AnyConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::config::DatabaseSection;

/// The file in the data directory.
const FILE: &str = "dunlin.db";

/// A database that was named by a URL.
#[derive(Clone)]
pub enum Target {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL; it may hold a password.
    Postgres(String),
}

/// Why a URL names no database. The text does not repeat it, because it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("must begin with sqlite:/// or postgres://")]
    Scheme,
    #[error("must name a file: sqlite:///path/of/a/file.db")]
    NoFile,
    #[error("is not a valid address: {0}")]
    Address(String),
}

impl Target {
    /// # Errors
    /// The URL is of no use.
    pub fn parse(url: &str) -> Result<Self, BadTarget> {
        let (scheme, rest) = url.split_once("://").ok_or(BadTarget::Scheme)?;
        match scheme {
            "sqlite" => {
                // A host would be a relative path to some programs and a mistake to others.
                let path = rest.strip_prefix('/').ok_or(BadTarget::Scheme)?;
                if path.is_empty() || path.ends_with('/') || path.contains(['?', '#']) {
                    return Err(BadTarget::NoFile);
                }
                Ok(Self::Sqlite(PathBuf::from(format!("/{path}"))))
            }
            "postgres" | "postgresql" => {
                let parsed = PgConnectOptions::from_str(url);
                parsed.map_err(|error| BadTarget::Address(reason(&error)))?;
                Ok(Self::Postgres(url.to_owned()))
            }
            _ => Err(BadTarget::Scheme),
        }
    }

    /// That of the configuration: the one of the URL, or without one the file in the data directory.
    ///
    /// # Errors
    /// The URL is of no use.
    pub fn of(section: &DatabaseSection, data_dir: &Path) -> Result<Self, BadTarget> {
        match &section.url {
            Some(url) => Self::parse(url.expose()),
            None => Ok(Self::in_dir(data_dir)),
        }
    }

    /// The file, if that is what it is and nobody has made it yet.
    pub fn missing_file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) if !path.exists() => Some(path),
            Self::Sqlite(_) | Self::Postgres(_) => None,
        }
    }

    /// The file of a node that was told of no database.
    pub fn in_dir(data_dir: &Path) -> Self {
        Self::Sqlite(data_dir.join(FILE))
    }

    /// The port of the server, if it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(url) => PgConnectOptions::from_str(url)
                .ok()
                .map(|options| options.get_port()),
        }
    }

    pub(super) fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        match self {
            Self::Sqlite(path) => sqlite_url(path)?.parse(),
            Self::Postgres(url) => url.parse(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

/// The innermost reason, which names what is wrong without the URL around it.
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), reason)
}

/// A path as a URL, so that no byte of it has a meaning there.
fn sqlite_url(path: &Path) -> Result<String, sqlx::Error> {
    use std::fmt::Write as _;
    let path = std::path::absolute(path)?;
    let text = path
        .to_str()
        .ok_or_else(|| sqlx::Error::Configuration("the path must be Unicode".into()))?;
    let mut url = String::from("sqlite://");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    Ok(url)
}
