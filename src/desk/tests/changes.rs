//! Policy and people change while requests wait.

use super::*;

fn frozen(_: &Request) -> Decision {
    Decision::Deny(Denied { rule: "freeze".into(), message: None, policy: Digest::of(b"newer") })
}

fn as_before(request: &Request) -> Decision {
    Decision::Hold(request.draft.terms.clone())
}

fn withdrawn_because(event: &Event) -> Option<String> {
    let Event::HoldEnded { end: HoldEnd::Withdrawn, reason, .. } = event else { return None };
    reason.clone()
}

#[test]
fn what_a_changed_policy_denies_is_withdrawn_and_the_session_is_told_the_rule() {
    let world = world();
    let mut opened = world.open(1, terms());
    let deferred = world.open(2, deferred());
    world.give(&deferred.request, Verdict::Approve, "bob").unwrap();

    world.desk.reconsider(frozen);

    let ending = opened.ending.try_recv();
    assert!(
        matches!(&ending, Ok(Ending::Lapsed(VoidReason::DeniedByPolicy { rule, .. })) if rule.as_str() == "freeze"),
        "{ending:?}"
    );
    for request in [&opened.request, &deferred.request] {
        assert_eq!(world.state(request), HoldState::Withdrawn { reason: Withdrawal::DeniedByPolicy });
    }
    assert!(matches!(world.desk.claim(&deferred.request.draft.seal), Claim::None));
    assert!(matches!(
        world.give(&opened.request, Verdict::Approve, "bob"),
        Err(VerdictError::TooLate { state: HoldState::Withdrawn { .. } })
    ));
    let reasons: Vec<String> = world.notebook.records.lock().iter().filter_map(withdrawn_because).collect();
    assert_eq!(reasons, ["rule \"freeze\" of the policy in force denies it"; 2]);
    assert_eq!(world.desk.counts().waiting, 0, "their places are free again");
}

#[test]
fn a_changed_policy_that_asks_no_more_withdraws_nothing() {
    let world = world();
    let mut opened = world.open(1, terms());

    world.desk.reconsider(as_before);

    assert!(opened.ending.try_recv().is_err());
    assert!(world.give(&opened.request, Verdict::Approve, "bob").is_ok());
}

#[test]
fn of_identical_requests_the_next_is_shown_only_if_it_stands() {
    let world = world();
    let mut events = world.desk.subscribe();
    let (first, second) = (world.open(1, terms()), world.open(2, terms()));
    let kept = second.request.id;

    world.desk.reconsider(|request| if request.id == kept { as_before(request) } else { frozen(request) });

    assert_eq!(world.state(&second.request), HoldState::Waiting);
    assert!(world.state(&first.request).is_final());
    let mut shown = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let DeskEvent::Opened { request, .. } = event {
            shown.push(request.id);
        }
    }
    assert_eq!(shown, [first.request.id, kept]);
}

#[test]
fn a_deferred_grant_is_withdrawn_with_its_approver_and_then_the_agent_may_ask_again() {
    let without_bob = Directory::new(
        vec![AgentEntry::with_password(
            (*DIRECTORY.agent(&"reporting-bot".into()).unwrap().agent).clone(),
            ScramVerifier::of_password("csa_bot"),
        )],
        vec![person("carol", &[], &["dba"])],
        [7; 32],
    )
    .unwrap();
    let world = world();
    let opened = world.open(1, deferred());
    world.give(&opened.request, Verdict::Approve, "bob").unwrap();
    let Claim::Granted(in_hand) = world.desk.claim(&opened.request.draft.seal) else { panic!("granted") };
    let other = world.desk.open(draft_of("COPY orders TO STDOUT", 1, deferred())).unwrap();
    world.give(&other.request, Verdict::Approve, "bob").unwrap();
    world.directory.store(Arc::new(without_bob));

    // The one that a session has in hand is judged when it is used, the other one at once.
    let seal = opened.request.draft.seal.clone();
    let lapsed = world.desk.release(in_hand, &seal, &as_before(&opened.request)).unwrap_err();
    world.desk.reconsider(as_before);

    assert_eq!(lapsed, VoidReason::ApproversChanged);
    for request in [&opened.request, &other.request] {
        let reason = Withdrawal::ApproversChanged;
        assert_eq!(world.state(request), HoldState::Withdrawn { reason });
    }
    assert!(matches!(world.desk.claim(&seal), Claim::None));
    assert!(world.desk.open(draft_of(SQL, 1, deferred())).is_ok());
}

#[test]
fn requests_of_an_agent_that_is_gone_are_withdrawn() {
    let world = world();
    let opened = world.open(1, deferred());
    world
        .directory
        .store(Arc::new(Directory::new(Vec::new(), vec![person("bob", &[], &["dba"])], [7; 32]).unwrap()));

    world.desk.reconsider(as_before);

    assert!(matches!(
        world.state(&opened.request),
        HoldState::Withdrawn { reason: Withdrawal::AgentRevoked }
    ));
}

#[test]
fn an_escalation_by_hand_is_announced_and_brings_nothing_into_force() {
    let world = world();
    let mut events = world.desk.subscribe();
    let opened = world.open(1, Terms { escalate: vec![escalation(300, "oncall", &["dba"])], ..terms() });

    world.at(10).give(&opened.request, Verdict::Escalate, "bob").unwrap();

    let announced = |events: &mut broadcast::Receiver<DeskEvent>| {
        let mut notified = Vec::new();
        while let Ok(event) = events.try_recv() {
            if let DeskEvent::Escalated { notified: groups, .. } = event {
                notified.push(groups);
            }
        }
        notified
    };
    assert_eq!(announced(&mut events), [1]);
    assert_eq!(world.desk.request(&opened.request.id.code()).unwrap().notified, 1);
    let early = world.at(20).give(&opened.request, Verdict::Approve, "olga").unwrap_err();
    assert_eq!(early, VerdictError::NotYet { from: after(300) });
    assert_eq!(world.refused_reviews().len(), 1, "and it is on record");

    world.at(300).desk.on_time(after(300));
    assert_eq!(announced(&mut events), [1], "its time has come");
    assert!(world.give(&opened.request, Verdict::Approve, "olga").is_ok());
}
