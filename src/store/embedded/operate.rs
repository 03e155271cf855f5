//! What an operator changes: everything goes through the one committer, and waits for the sync.

use tokio::sync::oneshot;

use super::committer::{Job, ToRule};
use super::{Embedded, send};
use crate::event::EventId;
use crate::store::operate::{ByHand, Operate, Ruling, SettleError, Settlement};
use crate::store::{Pending, Unavailable};

impl Operate for Embedded {
    fn settle_by_hand(
        &self,
        event: EventId,
        ruling: Ruling,
        by: ByHand,
    ) -> Pending<'static, Result<Settlement, SettleError>> {
        let (reply, answer) = oneshot::channel();
        let entered = self.enter().and_then(|(in_flight, _, jobs)| {
            send(jobs, Job::Rule(Box::new(ToRule { event, ruling, by, reply }))).map(|()| in_flight)
        });
        Box::pin(async move {
            let _in_flight = entered?;
            answer.await.unwrap_or(Err(Unavailable::Draining.into()))
        })
    }
}
