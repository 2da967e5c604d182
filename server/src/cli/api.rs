//! Signed requests to the HTTP API.

use serde_json::Value;

use super::error::CliError;
use super::sign::{escape, signed_query};
use super::target::{PATIENCE, Target, in_url};
use crate::clock;

/// A client of one server's HTTP API. Keeps its connection between requests.
pub(super) struct Api<'a> {
    target: &'a Target,
    client: reqwest::Client,
}

/// An answer of any status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The server's clock, from the header `Date`.
    pub(super) date: Option<String>,
    pub(super) text: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(target: &'a Target) -> Result<Self, CliError> {
        // A proxy would sit between us and the very server that is asked about.
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
        let client = client.map_err(|source| CliError::Request {
            what: "cannot start".to_owned(),
            source,
        })?;
        Ok(Self { target, client })
    }

    /// An ordinary request without a signature.
    pub(super) async fn plain(&self, path: &str) -> Result<Answer, CliError> {
        self.send(self.client.get(format!("{}{path}", self.base()))).await
    }

    /// `GET /apps/{id}{path}`
    pub(super) async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, CliError> {
        self.signed("GET", path, parameters, Vec::new()).await
    }

    /// `POST /apps/{id}{path}` with a JSON body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.signed("POST", path, &[], body.to_string().into_bytes())
            .await
    }

    async fn signed(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Value, CliError> {
        let credentials = (self.target.key()?, &self.target.secret()?);
        let path = format!("/apps/{}{path}", escape(self.target.app_id()?));
        let now = clock::unix_seconds();
        let query = signed_query(credentials, method, &path, parameters, &body, now);
        let url = format!("{}{path}?{query}", self.base());
        let request = if method == "GET" {
            self.client.get(url)
        } else {
            self.client.post(url).body(body)
        };
        let answer = self
            .send(request.header("Content-Type", "application/json"))
            .await?;
        let what = format!("{method} {path}");
        if !(200..300).contains(&answer.status) {
            return Err(CliError::Answer {
                what,
                status: answer.status,
                text: answer.text,
            });
        }
        serde_json::from_str(&answer.text).map_err(|source| CliError::Json { what, source })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, CliError> {
        let what = || format!("cannot ask {}", self.base());
        // The URL would show the signature.
        let failed = |e: reqwest::Error| CliError::Request {
            what: what(),
            source: e.without_url(),
        };
        let response = request.send().await.map_err(failed)?;
        let date = response
            .headers()
            .get("date")
            .and_then(|date| date.to_str().ok())
            .map(str::to_owned);
        let status = response.status().as_u16();
        let text = response.text().await.map_err(failed)?.trim_end().to_owned();
        Ok(Answer { status, date, text })
    }

    fn base(&self) -> String {
        let scheme = if self.target.tls { "https" } else { "http" };
        format!(
            "{scheme}://{}:{}",
            in_url(&self.target.api_host),
            self.target.port
        )
    }
}
