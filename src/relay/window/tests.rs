//! Whom a refusal is held against, as tables of what was sent and what came back.

use super::*;

fn at(position: u64) -> Position {
    Position(position)
}

fn window(max: usize) -> Window {
    Window::new(max, 5)
}

fn send(window: &mut Window, positions: impl IntoIterator<Item = u64>) {
    for position in positions {
        window.sent(at(position), 0, Instant::now());
    }
}

fn returned(window: &mut Window, position: u64) -> Option<Judgement> {
    window.refused(at(position), Refusal::Returned, "NO_ROUTE".into(), Instant::now())
}

fn nacked(window: &mut Window, position: u64) -> Option<Judgement> {
    window.refused(at(position), Refusal::Nacked, "nack".into(), Instant::now())
}

fn took(window: &mut Window, position: u64) -> Vec<u64> {
    let charged = window.took(at(position), Instant::now()).expect("it was on its way");
    let position = |judgement| match judgement {
        Judgement::Rest(position, ..) | Judgement::Dead(position, _) => position.0,
    };
    charged.into_iter().map(position).collect()
}

#[tokio::test]
async fn an_event_that_is_returned_while_later_ones_are_taken_is_charged() {
    let mut window = window(4);
    send(&mut window, 1..=4);
    assert_eq!(window.room(), 0);
    assert_eq!(returned(&mut window, 2), None, "nothing sent after it was taken yet");
    assert_eq!(took(&mut window, 1), [] as [u64; 0], "what was sent before it says nothing");
    assert_eq!(took(&mut window, 3), [2]);
    assert!(returned(&mut window, 4).is_none(), "nothing after it");
    send(&mut window, [5]);
    assert_eq!(took(&mut window, 5), [4]);
}

#[tokio::test]
async fn a_return_that_comes_late_is_charged_at_once() {
    let mut window = window(4);
    send(&mut window, 1..=2);
    assert_eq!(took(&mut window, 2), [] as [u64; 0]);
    assert!(matches!(returned(&mut window, 1), Some(Judgement::Rest(position, ..)) if position == at(1)));
}

#[tokio::test]
async fn when_everything_is_returned_nobody_is_charged() {
    let mut window = window(4);
    send(&mut window, 1..=4);
    for position in 1..=4 {
        assert_eq!(returned(&mut window, position), None);
    }
    assert_eq!(window.stall(false), None, "others are tried first");
    assert_eq!(window.room(), 4);
    let stall = window.stall(true).expect("nothing else is due");
    assert_eq!(stall.suspects, [at(1), at(2), at(3), at(4)]);
    assert_eq!(stall.how, Refusal::Returned);
    send(&mut window, 1..=4);
    for position in 1..=4 {
        assert_eq!(took(&mut window, position), [] as [u64; 0], "what was let go is not charged afterwards");
    }
}

#[tokio::test]
async fn the_search_for_one_that_is_taken_has_an_end() {
    let mut window = window(4);
    let mut sent = 0;
    while window.stall(false).is_none() {
        let room = window.room() as u64;
        assert!(room > 0, "either there is room or it has stalled");
        send(&mut window, sent + 1..=sent + room);
        (sent + 1..=sent + room).for_each(|position| assert_eq!(returned(&mut window, position), None));
        sent += room;
    }
    assert_eq!(sent, PROBES as u64);
}

#[tokio::test]
async fn the_last_attempt_makes_a_dead_letter() {
    let mut window = Window::new(4, 3);
    let now = Instant::now();
    for attempts in 0..3 {
        window.sent(at(1), attempts, now);
        window.sent(at(10 + u64::from(attempts)), 0, now);
        assert_eq!(window.refused(at(1), Refusal::Returned, "why".into(), now), None);
        let judged = window.took(at(10 + u64::from(attempts)), now).expect("on its way");
        match (attempts, judged.first()) {
            (0, Some(Judgement::Rest(_, until, _))) => assert_eq!(*until, now + FIRST_REST),
            (1, Some(Judgement::Rest(_, until, _))) => assert_eq!(*until, now + 2 * FIRST_REST),
            (2, Some(Judgement::Dead(position, why))) => assert_eq!((*position, why.as_str()), (at(1), "why")),
            other => panic!("{other:?}"),
        }
        let over = window.rested(now + Duration::from_secs(60));
        assert_eq!(over.len(), usize::from(attempts < 2));
        assert!(over.iter().all(|(_, why)| why.as_deref() == Some("why")));
    }
}

#[tokio::test]
async fn a_full_queue_charges_nobody_and_is_asked_with_two() {
    let mut window = window(256);
    send(&mut window, 1..=100);
    for position in 1..=50 {
        took(&mut window, position);
    }
    for position in 51..=100 {
        assert_eq!(nacked(&mut window, position), None);
    }
    assert_eq!(window.stall(false).expect("two would have been enough").suspects.len(), 50);
    // From now on one at a time.
    assert_eq!(window.room(), 1);
    send(&mut window, [51]);
    assert_eq!(window.room(), 0);
    assert_eq!(nacked(&mut window, 51), None);
    assert_eq!(window.room(), 1);
    send(&mut window, [52]);
    assert_eq!(nacked(&mut window, 52), None);
    assert_eq!(window.room(), 1, "a second stall looks further, in case a few bad ones stand first");
    send(&mut window, [53]);
    assert_eq!(took(&mut window, 53), [52], "only the one right before it");
    let over = window.rested(Instant::now());
    assert_eq!(over, [(at(51), None)], "the other is let go without charge");
}

#[tokio::test]
async fn a_broken_channel_is_followed_one_by_one_to_the_event_that_broke_it() {
    let mut window = window(8);
    let now = Instant::now();
    send(&mut window, 1..=4);
    assert_eq!(window.broke("406", now), [at(1), at(2), at(3), at(4)]);
    for good in [1, 2] {
        assert_eq!(window.room(), 1);
        send(&mut window, [good]);
        assert_eq!(window.room(), 0);
        assert_eq!(took(&mut window, good), [] as [u64; 0]);
    }
    send(&mut window, [3]);
    assert_eq!(window.broke("406", now), [] as [Position; 0], "it was alone: it is the suspect");
    assert_eq!(window.room(), 1);
    send(&mut window, [4]);
    assert_eq!(took(&mut window, 4), [3]);
    assert_eq!(window.room(), 8, "and then all at once again");
}

#[tokio::test]
async fn what_is_blocked_waits_with_reason() {
    let mut window = window(2);
    let early = Instant::now();
    window.sent(at(1), 0, early);
    assert_eq!(window.oldest(), Some(early));
    let later = early + Duration::from_secs(3600);
    window.block(true, later);
    assert_eq!((window.room(), window.oldest()), (0, None));
    window.block(false, later);
    assert_eq!((window.room(), window.oldest()), (1, Some(later)), "its clock begins anew");
}

#[tokio::test]
async fn a_lost_link_lets_everything_go_but_what_rests() {
    let mut window = window(8);
    send(&mut window, 1..=3);
    returned(&mut window, 1);
    took(&mut window, 2);
    send(&mut window, [4]);
    nacked(&mut window, 4);
    let mut lost = window.lost();
    lost.sort_unstable();
    assert_eq!(lost, [at(3), at(4)]);
    assert_eq!(window.rested(Instant::now() + Duration::from_secs(9)), [(at(1), Some("NO_ROUTE".to_owned()))]);
    assert_eq!(window.room(), 8);
}
