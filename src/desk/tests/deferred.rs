//! Deferred holds.

use super::*;

#[test]
fn a_deferred_hold_is_claimed_once_by_any_session_of_the_agent() {
    let world = world();
    let opened = world.open(1, deferred());
    let mut seal = opened.request.draft.seal.clone();
    seal.session = Some(SessionId(Uuid::from_u128(77)));
    assert!(matches!(world.desk.claim(&seal), Claim::Waiting(id) if id == opened.request.id));

    world.give(&opened.request, Verdict::Approve, "bob").unwrap();
    let mut other = seal.clone();
    other.settings.insert("search_path".into(), SealedSetting::Known("evil".into()));
    assert!(matches!(world.desk.claim(&other), Claim::None));

    let Claim::Granted(grant) = world.desk.claim(&seal) else { panic!("not granted") };
    assert_eq!(grant.fits(&seal, start()), Ok(()));
    assert!(matches!(world.desk.claim(&seal), Claim::None), "once");
    assert_ne!(world.open(2, deferred()).request.id, opened.request.id, "and then people are asked again");
}

#[test]
fn identical_deferred_holds_are_one_request() {
    let world = world();
    let first = world.open(1, deferred());
    let second = world.open(2, deferred());

    assert_eq!(first.request.id, second.request.id);
    assert_eq!(world.desk.counts().waiting, 1);
}

#[test]
fn a_deferred_grant_that_was_not_claimed_in_time_is_gone() {
    let world = world();
    let opened = world.open(1, deferred());
    world.at(800).give(&opened.request, Verdict::Approve, "bob").unwrap();

    // Approved at 800, alive for 900 seconds; no timer has fired.
    world.at(1_700);
    assert!(matches!(world.desk.claim(&opened.request.draft.seal), Claim::None));
    assert_eq!(world.ends(), [HoldEnd::Granted, HoldEnd::Expired]);
}

#[test]
fn p4_a_denial_after_the_approval_takes_an_unused_grant_back() {
    let world = world();
    let opened = world.open(1, deferred());
    world.give(&opened.request, Verdict::Approve, "bob").unwrap();

    world.give(&opened.request, Verdict::Deny, "carol").unwrap();

    assert!(matches!(world.desk.claim(&opened.request.draft.seal), Claim::None));
    assert_eq!(world.ends(), [HoldEnd::Granted, HoldEnd::Withdrawn]);
}

#[test]
fn a_denied_deferred_hold_says_so_to_the_retry() {
    let world = world();
    let opened = world.open(1, deferred());
    world.give(&opened.request, Verdict::Deny, "carol").unwrap();

    let seal = &opened.request.draft.seal;
    let Claim::Denied { request, by, message } = world.desk.claim(seal) else { panic!("not denied") };
    assert_eq!((request, by.as_str(), message.as_deref()), (opened.request.id, "carol", Some("because")));
    assert!(matches!(world.at(60).desk.claim(seal), Claim::None));
}

#[test]
fn a_session_that_ends_leaves_its_deferred_hold_alone() {
    let world = world();
    let Opened { request, ending } = world.open(1, deferred());
    drop(ending);

    assert!(world.give(&request, Verdict::Approve, "bob").is_ok());
    assert!(matches!(world.desk.claim(&request.draft.seal), Claim::Granted(_)));
}
