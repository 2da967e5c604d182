//! A client's first message: which app it wants.

use dunlin_protocol::pusher::codes::CloseCode;
use serde::Deserialize;

/// What would have been in the URL of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) path: String,
    pub(super) query: String,
}

#[derive(Deserialize)]
struct Message {
    path: String,
}

impl Address {
    /// Reads `{"path":"/app/KEY?protocol=7&…"}` (pusher-js source).
    ///
    /// # Errors
    /// It is no address; the code and the reason to close with.
    pub(super) fn parse(message: &str) -> Result<Self, (CloseCode, String)> {
        let Ok(Message { path }) = serde_json::from_str(message) else {
            let code = CloseCode::PathNotFound;
            return Err((code, code.message().to_owned()));
        };
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        Ok(Self {
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_and_a_query() {
        for (message, path, query) in [
            (
                r#"{"path":"/app/k?protocol=7&client=js"}"#,
                "/app/k",
                "protocol=7&client=js",
            ),
            (r#"{"more":1,"path":"/app/k"}"#, "/app/k", ""),
            (r#"{"path":"/a?b?c"}"#, "/a", "b?c"),
            (r#"{"path":""}"#, "", ""),
        ] {
            let address = Address {
                path: path.to_owned(),
                query: query.to_owned(),
            };
            assert_eq!(Address::parse(message), Ok(address), "{message}");
        }
    }

    #[test]
    fn anything_else_leads_nowhere() {
        for message in [
            "",
            "{",
            "{}",
            "hello",
            "null",
            r#"{"path":1}"#,
            r#"{"event":"pusher:ping"}"#,
        ] {
            assert_eq!(
                Address::parse(message).map_err(|(code, _)| code),
                Err(CloseCode::PathNotFound),
                "{message}"
            );
        }
    }
}
