//! (to come)

use http::Method;

use super::{Answer, Ordinary, Provider, Received, RefusalStyle, Refused, Verified};
use crate::config;
use crate::store::Committed;

/// `clickpay`.
pub struct ClickPay;

impl ClickPay {
    /// With the settings of one source.
    pub fn new(_source: &config::Source, _settings: &config::ClickPay) -> Self {
        todo!()
    }
}

impl Provider for ClickPay {
    fn word(&self) -> &'static str {
        "clickpay"
    }
    fn methods(&self) -> &'static [Method] {
        todo!()
    }
    fn verify(&self, _received: Received) -> Result<Verified, Refused> {
        todo!()
    }
    fn answer(&self, _committed: &Committed) -> Answer {
        todo!()
    }
    fn refusal_style(&self) -> RefusalStyle {
        todo!()
    }
    fn ordinary(&self) -> Ordinary {
        todo!()
    }
}
