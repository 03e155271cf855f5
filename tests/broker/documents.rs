//! The pages for people, followed to where an event is in RabbitMQ.

use crate::node;
use crate::pages::{Reader, follow};
use crate::scene::url;

#[test]
fn the_quick_start_ends_with_an_event_in_rabbitmq() {
    let node = node::shared();
    let broker = url("guest:guest", node.address(), &node.new_vhost());
    follow("docs/quickstart.md", Reader::new(Some(broker)));
}
