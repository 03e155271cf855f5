//! What the two browser providers share: signed return URLs and the pages a buyer is sent to.

use crate::event::OrderId;

/// A page URL with at most `{order_id}` in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageUrl(String);

impl PageUrl {
    /// Checks that it is an absolute http(s) URL and that `{order_id}` stands in path or query only.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn parse(_text: &str) -> Result<Self, String> {
        todo!()
    }
    /// The URL with the order percent-encoded in its place; empty there for `None`.
    pub fn render(&self, _order: Option<&OrderId>) -> String {
        todo!()
    }
}
