//! How the command line reaches a server: over HTTP, or, when none runs, through the same routes
//! inside this process over the store.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::{Failed, Global, context};
use crate::config::Config;
use crate::http::{State, router};
use crate::server;
use crate::store;
use crate::wake::local::Local;

/// The time limit of one request.
const TIME_MAX: Duration = Duration::from_secs(40);
/// The time limit of a request whose answer is followed line by line.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(86_400);
/// The largest answer that is read from the routes inside this process.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A server's answer, with any status. `value` turns it into data or an error.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

enum Transport {
    Http { url: String, http: reqwest::Client },
    InProcess(Router),
}

/// A client of the HTTP API: over the network, or over the same routes inside this process when no
/// server runs.
pub(crate) struct Client {
    way: Transport,
    token: Option<String>,
}

impl Client {
    /// Connects to the server that a verb is about.
    ///
    /// That is the one `--remote` names; else the one that holds the configuration's embedded
    /// database; else the routes over the store, in this process.
    pub(crate) async fn connect(global: &Global) -> Result<Self, Failed> {
        if let Some(url) = context::remote(global) {
            return Ok(Self::http(url, context::token(global))?);
        }
        let config = context::configuration(global, false)?;
        let token = context::token(global)
            .or_else(|| config.api.auth_token.as_ref().map(|t| t.expose().to_owned()));
        if server::is_embedded(&config) && !context::has_database(&config) {
            return Err(anyhow!(
                "the database does not exist yet; start the server first, or name a \
                running server with --remote"
            )
            .into());
        }
        match server::open_store(&config).await {
            Ok(store) => Self::here(config, store, token).await,
            // The lock says that a process of this machine has the file; it is asked.
            Err(store::Error::InUse(_)) => Ok(Self::http(context::local_url(&config), token)?),
            Err(error) => Err(error.into()),
        }
    }

    /// A client of the server at a base URL without a trailing slash. `token` is sent as the bearer
    /// token of every request that has no `Authorization` header.
    #[expect(
        clippy::disallowed_methods,
        reason = "asks the server that the person at the keyboard named"
    )]
    pub(crate) fn http(url: String, token: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIME_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { way: Transport::Http { url, http }, token })
    }

    async fn here(
        config: Config,
        store: Arc<dyn store::Store>,
        token: Option<String>,
    ) -> Result<Self, Failed> {
        // A look must not change a schema that a running server may depend on.
        if let Err(error) = store.totals().await {
            return match store.missing_migrations().await {
                Ok(0) | Err(_) => Err(error.into()),
                Ok(lacks) => Err(anyhow!(
                    "the database schema lacks {lacks} migration(s); run `tidehook migrate` first"
                )
                .into()),
            };
        }
        let engine = server::engine(Arc::new(config), store, Arc::new(Local::default()))?;
        Ok(Self { way: Transport::InProcess(router(State::new(engine))), token })
    }

    /// Sends a request and returns the answer, with any status. It fails only when no answer can be
    /// read.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut headers = headers;
        if let Some(token) = &self.token
            && !headers.contains_key(header::AUTHORIZATION)
        {
            let value = HeaderValue::from_str(&format!("Bearer {token}"))
                .context("the API token contains characters that are not allowed in a header")?;
            headers.insert(header::AUTHORIZATION, value);
        }
        match &self.way {
            Transport::Http { url, http } => {
                let response = http
                    .request(method, format!("{url}{path}"))
                    .headers(headers)
                    .body(body)
                    .send()
                    .await;
                let response = response
                    .with_context(|| format!("{url} does not answer; is the server running?"))?;
                let status = response.status();
                Ok(Answer { status, text: response.text().await? })
            }
            Transport::InProcess(router) => {
                let mut request = http::Request::new(Body::from(body));
                *request.method_mut() = method;
                *request.uri_mut() = path.parse()?;
                *request.headers_mut() = headers;
                let response = router.clone().oneshot(request).await?;
                let status = response.status();
                let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                    .collect()
                    .await;
                let bytes =
                    body.map_err(|e| anyhow!("the response cannot be read: {e}"))?.to_bytes();
                Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
            }
        }
    }

    /// Opens a route that answers line by line. It needs a running server: a store alone has
    /// nothing to follow.
    pub(crate) async fn lines(&self, path: &str) -> anyhow::Result<Lines> {
        let Transport::Http { url, http } = &self.way else {
            bail!(
                "no server is running, so there is nothing to follow; start one, or name it with \
                 --remote"
            )
        };
        let mut request = http.get(format!("{url}{path}")).timeout(FOLLOW_TIME_MAX);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("{url} does not answer; is the server running?"))?;
        let status = response.status();
        if !status.is_success() {
            value(Answer { status, text: response.text().await? })?;
            bail!("the server returned {status}");
        }
        Ok(Lines { response, buffer: Vec::new() })
    }

    /// Sends a `GET` and reads the answer as JSON; a status other than 2xx is an error with the
    /// server's message.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        value(self.request(Method::GET, path, HeaderMap::new(), Vec::new()).await?)
    }

    /// Sends a `POST` without a body and reads the answer as JSON; a status other than 2xx is an
    /// error.
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<Value> {
        value(self.request(Method::POST, path, HeaderMap::new(), Vec::new()).await?)
    }
}

/// The lines of a route that is being followed, read as they arrive.
pub(crate) struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line without its end; `None` when the server has ended.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// An argument of the command line is wrong. `run` answers it with exit code 2 instead of 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongArgument(pub(crate) String);

pub(crate) fn value(answer: Answer) -> anyhow::Result<Value> {
    let body: Value =
        serde_json::from_str(&answer.text).unwrap_or_else(|_| Value::String(answer.text.clone()));
    if answer.status.is_success() {
        return Ok(body);
    }
    let details = body["details"].as_array().map_or(String::new(), |details| {
        let detail = |d: &Value| {
            format!(
                "; {}: {}",
                d["field"].as_str().unwrap_or(""),
                d["message"].as_str().unwrap_or("")
            )
        };
        details.iter().map(detail).collect()
    });
    let message = format!(
        "{}{details} ({})",
        body["message"].as_str().unwrap_or("the server refused the request"),
        answer.status
    );
    match body["code"].as_str() {
        Some("validation_error") => Err(WrongArgument(message).into()),
        _ => Err(anyhow!(message)),
    }
}

/// Text as one segment of a path or one value of a query.
pub(crate) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A query of those parameters that have a value.
pub(crate) fn query(parameters: &[(&str, Option<String>)]) -> String {
    let set = parameters
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|v| format!("{name}={}", encode(v))));
    let text = set.collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("?{text}") }
}
