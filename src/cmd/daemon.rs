//! The running daemon, found through the lock of its store, and its admin API.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::api::operator;
use crate::admin::OPERATOR;
use crate::config::{Contact, Secret};
use crate::store::embedded::lock;

/// An answer is JSON of moderate size; what is larger is not from a daemon.
const MAX_ANSWER: u64 = 16 << 20;

/// A daemon that holds the configured store.
pub(super) struct Daemon {
    /// Its process.
    pub pid: u32,
    admin: String,
    token: Option<Secret>,
    agent: ureq::Agent,
}

/// What it answered.
pub(super) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; null where it is no JSON.
    pub body: Value,
}

impl Daemon {
    /// Who holds the store now, if anybody does.
    ///
    /// # Errors
    /// When the lock cannot be read, or its holder has no admin API (yet).
    pub(super) fn find(contact: &Contact) -> anyhow::Result<Option<Self>> {
        let Some(holder) = lock::holder(&contact.store).context("looking for the running daemon")? else {
            return Ok(None);
        };
        let Some(admin) = holder.admin else {
            bail!("process {} holds the store, and has no admin API open: is it still starting?", holder.pid);
        };
        // It is this machine's own daemon: a proxy for the world outside has no business here, and a redirect none.
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .user_agent(concat!("quittance/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Some(Self { pid: holder.pid, admin, token: contact.token.clone(), agent }))
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let mut request = self.agent.get(format!("{}{path}", self.admin));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        self.read(request.call())
    }

    /// GET of a text.
    ///
    /// # Errors
    /// When no answer comes, or none with status 200.
    pub(super) fn text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.agent.get(format!("{}{path}", self.admin)).call();
        let mut response = response.with_context(|| format!("asking process {} at {}", self.pid, self.admin))?;
        if response.status() != http::StatusCode::OK {
            bail!("{path}: HTTP status {}", response.status().as_u16());
        }
        response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().context("reading the answer")
    }

    /// POST of a JSON document.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn post(&self, path: &str, document: &Value) -> anyhow::Result<Answer> {
        let mut request = self.agent.post(format!("{}{path}", self.admin)).content_type("application/json");
        request = request.header(OPERATOR, operator());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        self.read(request.send(document.to_string()))
    }

    /// DELETE.
    ///
    /// # Errors
    /// When no answer comes.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        let mut request = self.agent.delete(format!("{}{path}", self.admin)).header(OPERATOR, operator());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        self.read(request.call())
    }

    fn read(&self, response: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Answer> {
        let mut response = response.with_context(|| format!("asking process {} at {}", self.pid, self.admin))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().context("reading the answer")?;
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

impl Answer {
    /// What an error says: the detail of `application/problem+json`, else the status.
    pub(super) fn reason(&self) -> String {
        let said = ["detail", "reason", "title"].iter().find_map(|name| self.body.get(name)?.as_str());
        said.map_or_else(|| format!("HTTP status {}", self.status), str::to_owned)
    }
}
