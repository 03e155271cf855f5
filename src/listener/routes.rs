//! From a path to a source: exactly as configured, byte for byte. Nothing is decoded, folded, merged or trimmed, since
//! whatever a proxy in front reads differently would be a way around it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Source;
use crate::event::{AccountName, SourceName};
use crate::metrics::{Metrics, SourceMetrics};
use crate::provider::{Provider, RefusalStyle};

/// One source, ready to receive.
pub struct Endpoint {
    /// The source's name.
    pub source: SourceName,
    /// Its account.
    pub account: AccountName,
    /// Its path.
    pub path: String,
    /// Its provider with its settings.
    pub provider: Arc<dyn Provider>,
    /// How it refuses.
    pub style: RefusalStyle,
    /// What it counts.
    pub metrics: SourceMetrics,
}

/// All sources by path.
#[derive(Default)]
pub struct Routes {
    plain: HashMap<String, Arc<Endpoint>>,
    returns: HashMap<String, Arc<Endpoint>>,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Endpoint {
    /// A source with its provider.
    pub fn new(source: &Source, provider: Arc<dyn Provider>, metrics: &Metrics) -> Self {
        Self {
            source: source.name.clone(),
            account: source.account.clone(),
            path: source.path.clone(),
            style: provider.refusal_style(),
            metrics: metrics.source(&source.name),
            provider,
        }
    }
}

impl Routes {
    /// The endpoints by their paths.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut routes = Self::default();
        for endpoint in endpoints.into_iter().map(Arc::new) {
            let by_path = if endpoint.provider.has_return_url() { &mut routes.returns } else { &mut routes.plain };
            by_path.insert(endpoint.path.clone(), Arc::clone(&endpoint));
            routes.endpoints.push(endpoint);
        }
        routes
    }

    /// The endpoint at `path`, and what follows its configured path: nothing, or `/<order_id>/<tag>`.
    pub fn find<'a>(&self, path: &'a str) -> Option<(&Arc<Endpoint>, &'a str)> {
        if let Some(endpoint) = self.plain.get(path) {
            return Some((endpoint, ""));
        }
        let (rest, tag) = path.rsplit_once('/')?;
        let (base, order) = rest.rsplit_once('/')?;
        let endpoint = self.returns.get(base)?;
        (!order.is_empty() && !tag.is_empty()).then(|| (endpoint, path.get(base.len()..).unwrap_or_default()))
    }

    /// In the config's order.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}
