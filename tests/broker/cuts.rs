//! The connection is cut in each phase: connect, open, declare, publish, after publish before confirm, close.

use crate::frames::{
    CHANNEL_OPEN, CONFIRM_SELECT, CONNECTION_CLOSE, CONNECTION_OPEN, EXCHANGE_DECLARE, Method, QUEUE_BIND,
    QUEUE_DECLARE,
};
use crate::node;
use crate::proxy::Fault;
use crate::scene::{Scene, all_came, post, receives, until_settled};

/// The fault strikes three times while events wait or arrive, then the broker is well.
#[track_caller]
fn survives(fault: Fault, repeats: bool) {
    let node = node::shared();
    let scene = Scene::on(&node);
    let consumer = scene.consumer();
    scene.proxy.set_times(fault, 3);
    let daemon = scene.relay().serve();
    let acknowledged = post(&daemon, 0..60, 7);
    receives(&daemon);
    let messages = all_came(&consumer, &acknowledged);
    until_settled(&daemon);
    assert_eq!(scene.proxy.hits(), 3, "{fault:?} struck");
    assert!(scene.proxy.connections() >= 4, "it came back after each");
    assert_eq!(messages.len() > acknowledged.len(), repeats, "{} messages", messages.len());
}

#[track_caller]
fn survives_a_cut_at(method: Method) {
    survives(Fault::CutAt(method), false);
}

#[test]
fn cut_at_connect_everything_arrives() {
    survives(Fault::Refuse, false);
}

#[test]
fn cut_at_open_everything_arrives() {
    survives_a_cut_at(CONNECTION_OPEN);
}

#[test]
fn cut_at_the_opening_of_a_channel_everything_arrives() {
    survives_a_cut_at(CHANNEL_OPEN);
}

#[test]
fn cut_when_it_asks_for_confirms_everything_arrives() {
    survives_a_cut_at(CONFIRM_SELECT);
}

#[test]
fn cut_at_the_declaration_of_the_exchange_everything_arrives() {
    survives_a_cut_at(EXCHANGE_DECLARE);
}

#[test]
fn cut_at_the_declaration_of_the_queue_everything_arrives() {
    survives_a_cut_at(QUEUE_DECLARE);
}

#[test]
fn cut_between_queue_and_binding_everything_arrives() {
    survives_a_cut_at(QUEUE_BIND);
}

#[test]
fn cut_in_the_middle_of_a_message_everything_arrives() {
    survives(Fault::CutInPublish(2), true);
}

#[test]
fn cut_after_publish_and_before_the_confirm_everything_arrives_and_is_repeated_with_the_same_id() {
    survives(Fault::CutBeforeConfirm(1), true);
}

#[test]
fn cut_at_close_the_daemon_ends_in_time_and_nothing_is_lost() {
    let node = node::shared();
    let scene = Scene::on(&node);
    let consumer = scene.consumer();
    let mut daemon = scene.serve();
    let mut acknowledged = post(&daemon, 0..60, 7);
    scene.proxy.set_times(Fault::CutAt(CONNECTION_CLOSE), 1);
    assert!(daemon.stop().success(), "{}", daemon.log());
    assert_eq!(scene.proxy.hits(), 1, "it says goodbye to the broker");
    daemon.start_again();
    acknowledged.extend(post(&daemon, 60..70, 7));
    all_came(&consumer, &acknowledged);
    until_settled(&daemon);
}
