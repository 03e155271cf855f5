//! What both listeners go by, and what a reload replaces as a whole: the configuration and what was made from it.
//!
//! A connection takes its times and its largest head from the site that is in force when it is accepted, a request
//! everything else from the one in force when it begins, and keeps it to its end. So a reload drops nothing.

use std::sync::Arc;

use tokio::sync::watch;

use super::connection::Http;
use super::routes::{Endpoint, Routes};
use super::watch::Pace;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::provider;

/// One configuration, in force.
pub struct Site {
    /// What was configured.
    pub config: Arc<Config>,
    /// Its sources by path.
    pub routes: Routes,
    /// How connections of the public listener are served.
    pub(crate) http: Http,
}

/// The site that is in force now. A cheap clone.
#[derive(Clone)]
pub struct Sites(watch::Receiver<Arc<Site>>);

impl Site {
    /// What a configuration says. The metrics must know its sources.
    pub fn new(config: Arc<Config>, metrics: &Metrics) -> Self {
        let settings = &config.listener;
        let pace = Pace {
            idle: settings.idle_timeout,
            header: settings.header_timeout,
            body: Some(settings.body_timeout),
            request: Some(settings.request_timeout),
        };
        let http = Http::new(pace, settings.max_header_bytes);
        let providers = config.sources.iter().zip(provider::build_all(&config.sources));
        let endpoints = providers.map(|(source, provider)| Endpoint::new(source, provider, metrics));
        let routes = Routes::new(endpoints);
        Self { config, routes, http }
    }
}

impl Sites {
    /// The site of `current`, and whatever replaces it.
    pub fn new(current: watch::Receiver<Arc<Site>>) -> Self {
        Self(current)
    }
    /// The one in force now.
    pub fn now(&self) -> Arc<Site> {
        Arc::clone(&self.0.borrow())
    }
}
