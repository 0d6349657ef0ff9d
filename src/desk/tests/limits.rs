//! No agent asks reviewers without limit, and identical requests have one card.

use super::*;

#[test]
fn an_agent_has_so_many_requests_waiting_and_no_more() {
    let world = world_with(Limits { waiting_per_agent: 2, ..Limits::default() });
    let first = world.open(1, terms());
    let _second = world.open(2, terms());

    let third = world.desk.open(draft_of(SQL, 3, terms())).unwrap_err();
    assert_eq!(third, Refusal::TooManyHolds { limit: 2 });

    world.give(&first.request, Verdict::Approve, "bob").unwrap();
    assert!(world.desk.open(draft_of(SQL, 3, terms())).is_ok(), "one place is free again");
}

#[test]
fn an_agent_cannot_fill_the_memory_nor_ring_all_day() {
    let statement = draft_of(SQL, 1, terms());
    let limits = Limits { waiting_bytes_per_agent: 2_500, opened_per_minute: 4, ..Limits::default() };
    let world = world_with(limits);
    let first = world.open(1, terms());
    let _second = world.open(2, terms());
    assert_eq!(world.desk.open(statement).unwrap_err(), Refusal::TooManyHolds { limit: 2 }, "of memory");

    world.desk.withdraw(first.request.id, Withdrawal::AgentCancelled);
    for session in 3..5 {
        let opened = world.open(session, terms());
        world.desk.withdraw(opened.request.id, Withdrawal::AgentCancelled);
    }
    let too_often = world.desk.open(draft_of(SQL, 5, terms())).unwrap_err();
    assert_eq!(too_often, Refusal::TooManyHolds { limit: 4 });
    assert!(world.at(60).desk.open(draft_of(SQL, 5, terms())).is_ok());
}

#[test]
fn an_approval_of_identical_requests_is_for_one_of_them_and_shows_the_next() {
    let world = world();
    let mut events = world.desk.subscribe();
    let mut first = world.open(1, terms());
    let mut second = world.open(2, terms());
    let view = world.desk.request(&first.request.id.code()).unwrap();
    assert_eq!((view.behind, view.is_behind), (1, false));
    assert!(world.desk.request(&second.request.id.code()).unwrap().is_behind);

    world.give(&first.request, Verdict::Approve, "bob").unwrap();

    let Ok(Ending::Granted(grant)) = first.ending.try_recv() else { panic!("no grant") };
    assert!(second.ending.try_recv().is_err(), "the other still waits");
    assert_eq!(grant.fits(&second.request.draft.seal, start()), Err(SealDifference::Session.into()));
    let cards: Vec<RequestId> = std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| matches!(event, DeskEvent::Opened { .. }))
        .map(|event| event.id())
        .collect();
    assert_eq!(cards, [first.request.id, second.request.id]);
}

#[test]
fn a_denial_is_for_all_identical_requests_and_cools_down() {
    let world = world();
    let mut first = world.open(1, terms());
    let mut second = world.open(2, terms());

    world.give(&second.request, Verdict::Deny, "bob").unwrap();

    for opened in [&mut first, &mut second] {
        let Ok(Ending::Denied { by, message }) = opened.ending.try_recv() else { panic!("not denied") };
        assert_eq!((by.as_str(), message.as_deref()), ("bob", Some("because")));
    }
    let other_values = "COPY orders TO STDOUT";
    let again = world.at(10).desk.open(draft_of(other_values, 3, terms())).unwrap_err();
    assert_eq!(again, Refusal::CoolingDown { retry_after: Duration::from_secs(50) });
    assert!(world.at(60).desk.open(draft_of(other_values, 3, terms())).is_ok());
}

#[test]
fn nobody_hears_of_an_end_before_the_beginning() {
    for _ in 0..200 {
        let world = world();
        let mut events = world.desk.subscribe();
        std::thread::scope(|scope| {
            // Somebody who watches the list and answers at once.
            scope.spawn(|| {
                let mut answered = 0;
                while answered < 3 {
                    for view in world.desk.requests(&Filter::waiting()) {
                        answered += usize::from(world.give(&view.request, Verdict::Approve, "bob").is_ok());
                    }
                }
            });
            let opened: Vec<Opened> = (0..3).map(|session| world.open(session, terms())).collect();
            while opened.iter().any(|opened| world.state(&opened.request) == HoldState::Waiting) {
                std::thread::yield_now();
            }
        });
        let mut shown = Vec::new();
        let mut ended = Vec::new();
        while let Ok(event) = events.try_recv() {
            let id = event.id();
            match event {
                DeskEvent::Opened { .. } => {
                    assert!(!ended.contains(&id), "a card for what is over");
                    shown.push(id);
                }
                // An identical request may be answered before its turn for a card; then it never has one.
                DeskEvent::Ended { .. } => ended.push(id),
                DeskEvent::Joined { .. }
                | DeskEvent::Reviewed { .. }
                | DeskEvent::Escalated { .. }
                | DeskEvent::Ran { .. }
                | DeskEvent::LeftOver { .. } => {}
            }
        }
        let mut once = shown.clone();
        once.dedup();
        assert_eq!(once, shown, "no card is shown twice");
    }
}

#[test]
fn a_request_shows_what_was_said_to_its_like_before() {
    let world = world();
    let first = world.open(1, terms());
    world.give(&first.request, Verdict::Approve, "bob").unwrap();
    world.desk.withdraw(first.request.id, Withdrawal::SessionEnded);

    let second = world.desk.open(draft_of("COPY customers TO STDOUT CSV", 2, terms())).unwrap();

    let text = crate::approval::Document::of(&second.request).to_text();
    assert!(text.contains(&format!("{}: granted by bob", first.request.id)), "{text}");
    assert!(text.contains("is:  ⟨…⟩ STDOUT CSV"), "{text}");
}
